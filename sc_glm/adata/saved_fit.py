"""A fit that is kept in an AnnData: what :func:`fit` writes and :func:`read_params` reads."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sc_glm.adata.models import fitted_regressor, formulas_of
from sc_glm.adata.reading import check_anndata


def write_fit(adata: AnnData, model: Any, layer: str | None, key: str) -> None:
    """Write a fitted model to an AnnData, in place of an earlier fit under the same key."""
    earlier = adata.uns.get(key)
    if _is_fit(earlier):
        for part in earlier["parts"]:
            adata.varm.pop(f"{key}_{part}", None)
    regressor = fitted_regressor(model)
    tables = regressor.params_
    entry = {
        "parts": np.array(list(tables), dtype=object),
        "columns": {part: np.array(table.index, dtype=object) for part, table in tables.items()},
        "formulas": formulas_of(model),
        "version": version("sc_glm"),
    }
    if layer is not None:  # anndata 0.11 cannot write None
        entry["layer"] = layer
    for part, table in tables.items():
        # An array, because a column of a frame named 'a/b' would be a path in the file.
        adata.varm[f"{key}_{part}"] = np.ascontiguousarray(table.to_numpy().T)
    # Categories, because anndata converts text to categories when it writes a file.
    summary = regressor.summary()
    for name in ("status", "undetermined"):
        adata.var[f"{key}_{name}"] = pd.Categorical(summary[name])
    for name in ("n_iter", "log_likelihood"):
        adata.var[f"{key}_{name}"] = summary[name].to_numpy()
    adata.var[f"{key}_converged"] = regressor.converged_
    adata.uns[key] = entry


def read_params(adata: AnnData, key: str = "sc_glm") -> dict[str, pd.DataFrame]:
    """Return the coefficients that :func:`fit` wrote to an AnnData.

    Parameters
    ----------
    adata : AnnData
        The AnnData of the fit, also if it was written to a file and read since. For a subset of
        its genes, the result has these genes.
    key : str, default="sc_glm"
        The `key_added` of the fit.

    Returns
    -------
    dict of str to DataFrame
        ``{part: DataFrame features x genes}``, equal to ``model.params_``.

    Raises
    ------
    ValueError
        If there is no fit under `key`, or if its entries were replaced by something else.

    Notes
    -----
    It reads only strings and numbers, never a pickled object.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame({"x": [0.0, 1.0, 0.0, 1.0]}, index=list("abcd"))
    >>> counts = pd.DataFrame({"Ins1": [1, 4, 3, 8]}, index=obs.index)
    >>> adata = AnnData(counts, obs=obs)
    >>> model = scg.fit(adata, NegBinRegressor())
    >>> scg.read_params(adata)["mean"].equals(model.params_["mean"])
    True
    """
    entry = check_anndata(adata).uns.get(key) if isinstance(key, str) else None
    if not _is_fit(entry):
        fits = [name for name, other in adata.uns.items() if _is_fit(other)]
        raise ValueError(f"adata has no fit under {key!r}; it has fits under {fits}.")
    genes = np.asarray(adata.var_names, dtype=object)
    location = f"uns[{key!r}]"
    columns = entry["columns"]
    if not isinstance(columns, Mapping):
        raise ValueError(f"{location}['columns'] is damaged: it is a {type(columns).__name__}.")  # noqa: TRY004
    return {
        part: _check_table(
            adata.varm.get(f"{key}_{part}"),
            _check_strings(columns.get(part), f"{location}['columns'][{part!r}]"),
            genes,
            f"varm['{key}_{part}']",
        )
        for part in _check_strings(entry["parts"], f"{location}['parts']")
    }


def _is_fit(entry: Any) -> bool:
    return isinstance(entry, Mapping) and {"parts", "columns", "version"} <= set(entry)


def _check_strings(stored: Any, location: str) -> list[str]:
    strings = list(stored) if isinstance(stored, np.ndarray | list) else []
    if not strings or not all(isinstance(string, str) for string in strings):
        raise ValueError(f"{location} is damaged: it must be a list of strings.")
    return [str(string) for string in strings]


def _check_table(
    stored: Any, columns: list[str], genes: NDArray[np.object_], location: str
) -> pd.DataFrame:
    coef = np.asarray(stored)
    if coef.dtype.kind != "f" or coef.shape != (len(genes), len(columns)):
        raise ValueError(
            f"{location} is damaged: it must hold {len(columns)} coefficients for each of "
            f"{len(genes)} genes, but has the type {coef.dtype} and the shape {coef.shape}."
        )
    return pd.DataFrame(coef.T, index=columns, columns=genes)
