"""The matrix of an AnnData that holds its counts: found, checked and read, without anndata.

It is ``X`` or a layer, in memory or in a file.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._contract.validation import checked_sparse
from sc_glm._counts.count_matrix import SAMPLED_VALUES, are_counts
from sc_glm._counts.on_disk import StoredMatrix

_MAX_DENSE_ENTRIES = 2_000_000  # read at once of a dense matrix in a file, before it becomes sparse
_MAX_NAMES_SHOWN = 5  # in a message


def read_counts(adata: Any, layer: str | None) -> Any:
    """Return ``X`` or a layer in memory, dense or sparse; its values are finite and at least 0."""
    matrix = _load(find_matrix(adata, layer), matrix_name(layer))
    check_values_of_matrix(stored_values(matrix), adata, layer, matrix)
    return matrix


def read_counts_of_genes(adata: Any, layer: str | None, genes: NDArray[np.object_]) -> Any:
    """Return the counts of genes, which are found by name, in the order of ``genes``.

    Raises
    ------
    ValueError
        If the AnnData lacks some of the genes.
    """
    matrix = read_counts(adata, layer)
    positions = adata.var_names.get_indexer(genes)
    if (positions < 0).any():
        missing = list(genes[positions < 0])
        raise ValueError(
            f"{len(missing)} genes of the fit are not in adata.var_names: "
            f"{missing[:_MAX_NAMES_SHOWN]}."
        )
    return matrix if np.array_equal(positions, np.arange(adata.n_vars)) else matrix[:, positions]


def find_matrix(adata: Any, layer: str | None) -> Any:
    """Return ``X`` or a layer without reading it; check shape, gene names and layer."""
    if not all(adata.shape):
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


def matrix_name(layer: str | None) -> str:
    """Return how a message names ``X`` or a layer."""
    return "adata.X" if layer is None else f"adata.layers[{layer!r}]"


def _layers(adata: Any) -> list[str]:
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


def stored_values(matrix: Any) -> NDArray[Any]:
    """Return the values of a dense matrix, or the stored values of a sparse one."""
    return matrix.data if _is_sparse(matrix) else matrix.ravel(order="K")


def check_values_of_matrix(
    values: NDArray[Any], adata: Any, layer: str | None, matrix: Any = None
) -> None:
    """Raise a ValueError if values are not numbers, negative, missing or infinite.

    If ``matrix`` is given, which holds these values, the message names the cell and the gene.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{matrix_name(layer)} holds {values.dtype}, not numbers.")
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
        f"{matrix_name(layer)} has {kind} values{example}: these are not counts."
        f"{advice_on_other_matrices(adata, layer)}"
    )


def advice_on_other_matrices(adata: Any, layer: str | None) -> str:
    """Return a sentence that names the other matrices that look like counts."""
    others: dict[str | None, Any] = {
        name: adata.layers[name] for name in _layers(adata) if name != layer
    }
    if layer is not None:
        others[None] = adata.X
    names = [matrix_name(name) for name, matrix in others.items() if _looks_like_counts(matrix)]
    if adata.raw is not None and _looks_like_counts(adata.raw.X):
        names.append("adata.raw.X (it is the X of adata.raw.to_adata())")
    return f" Counts may be in {', '.join(names)}." if names else ""


def _looks_like_counts(matrix: Any) -> bool:
    stored = StoredMatrix.of(matrix, "")
    if stored is not None:
        return are_counts(stored.sample(SAMPLED_VALUES))
    if _is_sparse(matrix) or isinstance(matrix, np.ndarray):
        return are_counts(np.asarray(stored_values(matrix)))
    return False  # a dask array, which is not computed for a message
