"""Sums of the counts of cells, such as those of each donor and cell type."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from anndata.utils import make_index_unique
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import quoted, similar_names
from sc_glm.adata.docstring_entries import ENTRIES
from sc_glm.adata.reading import read_counts_of_fit, read_covariates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = ["pseudobulk"]

_NEW_COLUMNS = ("n_cells", "log_depth")


@documented(ENTRIES)
def pseudobulk(
    adata: AnnData, by: str | Sequence[str], *, layer: str | None = None, min_cells: int = 1
) -> AnnData:
    """Add up the counts of all cells that are alike in some columns, such as those of a donor.

    Sums of donors are the samples of :func:`~sc_glm.inference.quasi_likelihood_test`.

    Parameters
    ----------
    adata : AnnData
        The cells. It is not changed.
    by : str or sequence of str
        Columns of ``adata.obs``: ``"donor"`` or ``["donor", "cell_type"]``. There is a sum for
        each combination of their values that occurs.
    {layer}
    min_cells : int, default=1
        Combinations with fewer cells are left out.

    Returns
    -------
    AnnData
        ``X`` has the sums, sparse if the counts are. ``var`` is a copy. ``obs`` has the columns

        - `by`;
        - ``n_cells``, the number of cells;
        - ``log_depth``, the natural logarithm of the sum of all counts, for an offset;
        - every other column of ``adata.obs`` that has only one value within each sum, such as a
          donor's condition. A missing value is a value.

        Names are the values joined by an underscore, ``donor1_T``. Categories keep their order, and
        other values are sorted; the first column of `by` varies slowest.

    Raises
    ------
    ValueError
        If a column of `by` is not in ``adata.obs``, or has a missing value. If no combination has
        `min_cells` cells, or the cells of one have no counts at all.
    {raises_invalid_counts}

    Warns
    -----
    UserWarning
        If most values are not integers, as after a normalisation by depth or a logarithm.

    Examples
    --------
    >>> import pandas as pd
    >>> from anndata import AnnData
    >>> from sc_glm import adata as scg
    >>> obs = pd.DataFrame(
    ...     {"donor": ["d2", "d1", "d1"], "sex": ["f", "m", "m"], "batch": [1, 1, 2]},
    ...     index=["a", "b", "c"],
    ... )
    >>> counts = pd.DataFrame({"Ins1": [1, 2, 3], "Gcg": [0, 5, 0]}, index=obs.index)
    >>> cells = AnnData(counts, obs=obs)
    >>> sums = scg.pseudobulk(cells, "donor")
    >>> sums.obs.round(2)
       donor  n_cells  log_depth sex
    d1    d1        2        2.3   m
    d2    d2        1        0.0   f
    >>> sums.to_df()
        Ins1  Gcg
    d1     5    5
    d2     1    0
    """
    check_scalar(min_cells, "min_cells", Integral, min_val=1)
    obs = read_covariates(adata)
    columns = [by] if isinstance(by, str) else list(by)
    codes, first = _groups(obs, columns)
    counts = read_counts_of_fit(adata, layer, None).load().matrix
    n_cells = np.bincount(codes)
    kept = n_cells >= min_cells
    if not kept.any():
        raise ValueError(
            f"No combination of {quoted(columns)} has min_cells={min_cells} cells: the largest has "
            f"{n_cells.max()}."
        )
    sums: Any = _sums(counts, codes, len(n_cells))[kept]
    of_sums = _covariates_of_groups(obs, columns, codes, first).loc[kept]
    of_sums.insert(len(columns), "n_cells", n_cells[kept])
    depth = np.asarray(sums.sum(axis=1)).ravel()
    if (depth == 0).any():
        silent = of_sums.index[(depth == 0).argmax()]
        raise ValueError(
            f"The cells of {quoted(silent)} have no counts at all, so "
            "that their depth has no logarithm. Leave them out."
        )
    of_sums.insert(len(columns) + 1, "log_depth", np.log(depth))
    is_sparse: bool = sp.issparse(sums)
    X = sp.csr_matrix(sums) if is_sparse else sums
    return AnnData(X, obs=of_sums, var=pd.DataFrame(adata.var).copy())


def _groups(obs: pd.DataFrame, columns: list[str]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return a code for the group of each cell, in order, and the first cell of each group."""
    if not columns:
        raise ValueError("by is empty: name at least one column of adata.obs.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"by={columns} names a column twice.")
    codes = []
    for column in columns:
        if column not in obs.columns:
            similar = similar_names(str(column), obs.columns, 3)
            hint = f" Similar: {similar}." if similar else ""
            raise ValueError(f"adata.obs has no column {quoted(column)}.{hint}")
        if column in _NEW_COLUMNS:
            raise ValueError(f"by={column!r} is the name of a column that pseudobulk writes.")
        values = obs[column]
        missing = values.isna().to_numpy()
        if missing.any():
            cell = obs.index[int(missing.argmax())]
            raise ValueError(
                f"adata.obs[{column!r}] has no value for cell {quoted(cell)}, and "
                f"for {missing.sum()} cell(s) in all."
            )
        is_factor = isinstance(values.dtype, pd.CategoricalDtype)
        codes.append(values.cat.codes if is_factor else pd.factorize(values, sort=True)[0])
    _, first, inverse = np.unique(
        np.column_stack(codes), axis=0, return_index=True, return_inverse=True
    )
    return np.asarray(inverse).ravel(), first


def _sums(counts: Any, codes: NDArray[np.intp], n_groups: int) -> Any:
    """Add up the rows of groups, by one product with a sparse matrix of members."""
    dtype = np.float64 if counts.dtype.kind == "f" else np.int64
    members = (np.ones(len(codes), dtype=dtype), (codes, np.arange(len(codes))))
    return sp.csr_array(members, shape=(n_groups, len(codes))) @ counts


def _covariates_of_groups(
    obs: pd.DataFrame, by: list[str], codes: NDArray[np.intp], first: NDArray[np.intp]
) -> pd.DataFrame:
    """Return those columns of cells that have one value in each group, with names of groups."""
    constant = [
        column
        for column in obs.columns
        if column not in (*by, *_NEW_COLUMNS) and _is_constant(obs[column], codes, first)
    ]
    result = obs[[*by, *constant]].iloc[first]
    values = zip(*(result[column] for column in by), strict=True)
    names = make_index_unique(pd.Index(["_".join(map(str, row)) for row in values]))
    return result.set_axis(names).copy()


def _is_constant(values: pd.Series, codes: NDArray[np.intp], first: NDArray[np.intp]) -> bool:
    of_cells, _ = pd.factorize(values)
    return bool((of_cells == of_cells[first][codes]).all())
