"""Covariates and counts of an AnnData: where they are, in memory or in a file, and their checks."""

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import checked_sparse
from sc_glm._counts.count_matrix import SAMPLED_VALUES, CountMatrix, are_counts
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix

_MAX_DENSE_ENTRIES = 2_000_000  # read at once of a dense matrix in a file, before it becomes sparse
_MAX_NAMES_SHOWN = 5  # in a message


def check_anndata(adata: Any) -> AnnData:
    """Return ``adata``; raise a TypeError if it is not an AnnData."""
    if not isinstance(adata, AnnData):
        hint = " It comes first, and the model second." if hasattr(adata, "fit") else ""
        raise TypeError(f"adata must be an AnnData, not a {type(adata).__name__}.{hint}")
    return adata


def read_covariates(adata: AnnData) -> pd.DataFrame:
    """Return ``adata.obs`` as a DataFrame in memory."""
    obs = check_anndata(adata).obs
    # A lazily loaded frame is read; the frame of a view would warn when it is written to.
    return obs.to_memory() if hasattr(obs, "to_memory") else pd.DataFrame(obs)


def covariates_of(adata_or_obs: AnnData | pd.DataFrame) -> pd.DataFrame:
    """Return the covariates of the cells of an AnnData, or a DataFrame as it is."""
    return adata_or_obs if isinstance(adata_or_obs, pd.DataFrame) else read_covariates(adata_or_obs)


def read_counts_of_fit(
    adata: AnnData, layer: str | None, budget: int | None
) -> CountMatrix | StoredCounts:
    """Return the counts of all genes, in memory or, if they exceed half the budget, in their file.

    Warn if most of them are not integers. A budget of None reads all counts into memory.
    """
    matrix = _find_matrix(adata, layer)
    genes = np.asarray(adata.var_names, dtype=object)
    stored = StoredMatrix.of(matrix, _matrix_name(layer))
    if stored is not None and budget is not None and 2 * stored.n_bytes() > budget:
        values = stored.sample(SAMPLED_VALUES)
        _check_values(values, adata, layer)
        _warn_if_not_counts(values, adata, layer)
        return StoredCounts.scan(stored, genes, budget)
    matrix = read_counts(adata, layer)
    _warn_if_not_counts(_stored_values(matrix), adata, layer)
    return CountMatrix.of(matrix, n_cells=adata.n_obs, names=genes)


def read_counts(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer in memory, dense or sparse; its values are finite and at least 0."""
    matrix = _load(_find_matrix(adata, layer), _matrix_name(layer))
    _check_values(_stored_values(matrix), adata, layer, matrix)
    return matrix


def _find_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer without reading it; check shape, gene names and layer."""
    if not all(check_anndata(adata).shape):
        raise ValueError(
            f"adata has {adata.n_obs} cells and {adata.n_vars} genes; at least one of each is "
            "needed."
        )
    if not adata.var_names.is_unique:
        repeated = list(adata.var_names[adata.var_names.duplicated()].unique())
        raise ValueError(
            f"adata.var_names has {len(repeated)} name(s) more than once: "
            f"{repeated[:_MAX_NAMES_SHOWN]}. adata.var_names_make_unique() makes them unique."
        )
    if layer is not None and not (isinstance(layer, str) and layer in adata.layers):
        raise ValueError(f"adata has no layer {layer!r}. Its layers are {_layers(adata)}.")
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(
            f"adata.X is None. Name a layer with the counts by layer=, one of {_layers(adata)}."
        )
    return matrix


def _matrix_name(layer: str | None) -> str:
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _layers(adata: AnnData) -> list[str]:
    """Return the names of the layers; anndata 0.13 also lists ``X``, as a layer None."""
    return [name for name in adata.layers if name is not None]


def _load(matrix: Any, name: str) -> Any:
    """Return a matrix in memory: dense, CSR or CSC."""
    if hasattr(matrix, "compute"):  # a dask array
        matrix = matrix.compute()
    if hasattr(matrix, "to_memory"):  # a sparse matrix in a file
        matrix = matrix.to_memory()
    if _is_sparse(matrix):
        checked = checked_sparse(matrix, name)
        return checked if checked.format in ("csr", "csc") else checked.tocsr()
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix)
    step = max(1, _MAX_DENSE_ENTRIES // matrix.shape[1])  # a dense matrix in a file
    rows = range(0, matrix.shape[0], step)
    return sp.vstack([sp.csr_matrix(matrix[i : i + step]) for i in rows], format="csr")


def _is_sparse(matrix: Any) -> bool:
    return bool(sp.issparse(matrix))


def _stored_values(matrix: Any) -> NDArray[Any]:
    """Return the values of a dense matrix, or the stored values of a sparse one."""
    return matrix.data if _is_sparse(matrix) else matrix.ravel(order="K")


def _check_values(
    values: NDArray[Any], adata: AnnData, layer: str | None, matrix: Any = None
) -> None:
    """Raise a ValueError if values are not numbers, negative, missing or infinite.

    If ``matrix`` is given, which holds these values, the message names the cell and the gene.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{_matrix_name(layer)} holds {values.dtype}, not numbers.")
    low, high = values.min(initial=0), values.max(initial=0)  # both are NaN if any value is
    if low >= 0 and np.isfinite(high):
        return
    kind = "negative" if (values < 0).any() else "missing or infinite"
    example = ""
    if matrix is not None:
        entries = sp.coo_array(matrix)
        invalid = entries.data < 0 if kind == "negative" else ~np.isfinite(entries.data)
        cell, gene = (int(index[invalid][0]) for index in entries.coords)
        example = (
            f", such as {entries.data[invalid][0]} in cell {adata.obs_names[cell]!r} for gene "
            f"{adata.var_names[gene]!r}"
        )
    raise ValueError(
        f"{_matrix_name(layer)} has {kind} values{example}: these are not counts."
        f"{_advice(adata, layer)}"
    )


def _warn_if_not_counts(values: NDArray[Any], adata: AnnData, layer: str | None) -> None:
    if not are_counts(values):
        warn(
            f"Most values of {_matrix_name(layer)} are not integers, as if they were normalised or "
            f"logarithms; the model is one of counts.{_advice(adata, layer)}"
        )


def _advice(adata: AnnData, layer: str | None) -> str:
    """Return a sentence that names the other matrices that look like counts."""
    others: dict[str | None, Any] = {
        name: adata.layers[name] for name in _layers(adata) if name != layer
    }
    if layer is not None:
        others[None] = adata.X
    names = [_matrix_name(name) for name, matrix in others.items() if _looks_like_counts(matrix)]
    if adata.raw is not None and _looks_like_counts(adata.raw.X):
        names.append("adata.raw.X (it is the X of adata.raw.to_adata())")
    return f" Counts may be in {', '.join(names)}." if names else ""


def _looks_like_counts(matrix: Any) -> bool:
    stored = StoredMatrix.of(matrix, "")
    if stored is not None:
        return are_counts(stored.sample(SAMPLED_VALUES))
    if _is_sparse(matrix) or isinstance(matrix, np.ndarray):
        return are_counts(np.asarray(_stored_values(matrix)))
    return False  # a dask array, which is not computed for a message
