"""Matrix products whose rows, one per gene, do not depend on how many rows there are.

A matrix product sums in another order at its edges than inside, so that a gene's last digits would
depend on the genes fitted beside it. Here no row is ever at an edge, and every matrix begins alike
in memory. BLAS promises nothing for equal rows: tests show on each processor that this is enough.
"""

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes at which torch begins a tensor, and from which kernels count
WIDTH = 8  # rows that BLAS kernels take at a time, or a multiple of them
_COLUMNS = 24  # likewise; the widest kernels take as long for fewer
FEW = 8  # columns up to which products with one at a time are shorter


def padded(columns: int) -> int:
    """Return a number of columns filled up to whole groups; few are left alone."""
    return columns + (-columns % _COLUMNS if columns > FEW else 0)


def pad_columns(matrix: Tensor) -> Tensor:
    """Fill up the columns with zeros to whole groups; few are left alone, one after the other."""
    if matrix.shape[1] <= FEW:
        return _aligned(matrix.mT).mT
    missing = padded(matrix.shape[1]) - matrix.shape[1]
    return torch.nn.functional.pad(matrix, (0, missing)) if missing else _aligned(matrix)


def _aligned(matrix: Tensor) -> Tensor:
    """Return a contiguous matrix that begins where torch's own do; views and NumPy's may not."""
    whole = matrix.contiguous()
    return whole.clone() if whole.data_ptr() % _ALIGNMENT else whole


def _pad_rows(matrix: Tensor) -> Tensor:
    missing = -matrix.shape[0] % WIDTH
    if missing:
        # PyTorch 2.6 and older do not pad() a matrix without columns.
        return torch.cat([matrix, matrix.new_zeros(missing, matrix.shape[1])])
    return _aligned(matrix)


def product(rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``rows @ columns``.

    Parameters
    ----------
    rows : Tensor of shape (n, k)
    columns : Tensor of shape (k, m)
        Best padded already, by :func:`pad_columns`, when used more than once.

    Returns
    -------
    Tensor of shape (n, m)
    """
    whole, across = _pad_rows(rows), pad_columns(columns)
    if 1 < across.shape[1] <= FEW:
        product = torch.cat([whole @ column for column in torch.split(across, 1, dim=1)], 1)
    else:
        product = whole @ across
    return product[: rows.shape[0], : columns.shape[1]]


def apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Multiply each of several matrices, (n, k, m), with a vector of its own, (n, m)."""
    return (matrices * vectors[:, None, :]).sum(2)


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of symmetric matrices, (n, k, k).

    LAPACK rounds by where in memory a matrix begins unless its order is even: an odd one gets a
    row and a column of its own eigenvalue, larger than all others.
    """
    k = matrices.shape[1]
    if k % 2:
        largest = 1 + matrices.abs().sum((1, 2))
        matrices = torch.nn.functional.pad(matrices, (0, 1, 0, 1))
        matrices[:, k, k] = largest
    values, vectors = torch.linalg.eigh(matrices)
    return values[:, :k], vectors[:, :k, :k]
