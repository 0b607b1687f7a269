"""Matrix products whose rows, one per gene, do not depend on the number of rows.

A matrix product sums in a different order at its edges, so that a gene's last digits would depend
on the genes in its block. Here rows are padded so that no gene is at an edge, and all matrices have
the same alignment in memory. BLAS does not guarantee equal results for equal rows. Tests show on
each processor that padding and alignment are enough.
"""

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; the memory of a new tensor of torch begins at a multiple of this
KERNEL_ROWS = 8  # rows that BLAS kernels compute at a time, or a multiple of them
# Columns that BLAS kernels compute at a time. The widest kernels take as long for fewer columns.
_KERNEL_COLUMNS = 24
# Number of columns up to which products with one column at a time are faster.
MAX_UNPADDED_COLUMNS = 8


def padded_width(columns: int) -> int:
    """Return the number of columns after padding to whole kernels; few columns are not padded."""
    return columns + (-columns % _KERNEL_COLUMNS if columns > MAX_UNPADDED_COLUMNS else 0)


def pad_columns(matrix: Tensor) -> Tensor:
    """Pad the columns with zeros to whole kernels; few columns are made contiguous instead."""
    if matrix.shape[1] <= MAX_UNPADDED_COLUMNS:
        return _aligned(matrix.mT).mT
    missing = padded_width(matrix.shape[1]) - matrix.shape[1]
    return torch.nn.functional.pad(matrix, (0, missing)) if missing else _aligned(matrix)


def _aligned(matrix: Tensor) -> Tensor:
    """Return a contiguous matrix with the alignment of a new tensor; a view may have another."""
    matrix = matrix.contiguous()
    return matrix.clone() if matrix.data_ptr() % _ALIGNMENT else matrix


def _pad_rows(matrix: Tensor) -> Tensor:
    """Pad the rows with zeros to whole kernels."""
    missing = -matrix.shape[0] % KERNEL_ROWS
    if missing:
        # PyTorch 2.6 and older do not pad() a matrix without columns.
        return torch.cat([matrix, matrix.new_zeros(missing, matrix.shape[1])])
    return _aligned(matrix)


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ columns``.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
        First matrix, with a row for each gene.
    columns : Tensor of shape (k, m)
        Second matrix. Pad it with :func:`pad_columns` if it is used more than once.

    Returns
    -------
    Tensor of shape (n, m)
        The product.
    """
    left, right = _pad_rows(rows), pad_columns(columns)
    if 1 < right.shape[1] <= MAX_UNPADDED_COLUMNS:
        product = torch.cat([left @ column for column in torch.split(right, 1, dim=1)], 1)
    else:
        product = left @ right
    return product[: rows.shape[0], : columns.shape[1]]


def matvec(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return the products of matrices, (n, k, m), with one vector each, (n, m)."""
    return (matrices * vectors[:, None, :]).sum(2)


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors of symmetric matrices, (n, k, k).

    For matrices of odd order, rounding in LAPACK depends on their alignment in memory. They get a
    further row and column with an eigenvalue that is larger than all others.
    """
    k = matrices.shape[1]
    if k % 2:
        largest = 1 + matrices.abs().sum((1, 2))
        matrices = torch.nn.functional.pad(matrices, (0, 1, 0, 1))
        matrices[:, k, k] = largest
    values, vectors = torch.linalg.eigh(matrices)
    return values[:, :k], vectors[:, :k, :k]
