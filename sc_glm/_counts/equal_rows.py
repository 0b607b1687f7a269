"""Groups of cells with equal covariates: which rows of a design matrix are equal.

With categorical covariates, a few distinct rows stand for all cells.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Largest share of distinct rows among all rows. With a larger share, grouping gains little.
_MAX_DISTINCT_SHARE = 0.25

# Number of rows of a sample by which a matrix with many rows is tested first. If a larger share of
# the sample is distinct, so are most rows of the matrix.
_SAMPLE_ROWS = 4096
_MAX_DISTINCT_SHARE_OF_SAMPLE = 0.99

# Limits within which sums over groups of cells with different offsets are worth a table. They bound
# the mean number of cells in a group, the number of groups, and the range of the offsets.
_MIN_CELLS_PER_GROUP = 20
_MAX_GROUPS = 512
_MAX_OFFSET_RANGE = 40.0

# Number of matrix entries that are compared at a time and stay in the processor's cache.
_BLOCK_ENTRIES = 2**17


def group_rows(X: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Return which rows of a matrix are equal.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers.

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        Number of each row's group. Groups of equal rows are numbered in the order in which they
        first occur. None if more than a quarter of the rows are distinct.

    Examples
    --------
    >>> import numpy as np
    >>> group_rows(np.array([[1.0, 0], [1, 1], [1, 0], [1, 1]] * 2))
    array([0, 1, 0, 1, 0, 1, 0, 1])
    >>> group_rows(np.arange(8.0)[:, None]) is None
    True
    """
    n_cells = len(X)
    if n_cells > _SAMPLE_ROWS:
        sample = np.random.default_rng(0).choice(n_cells, _SAMPLE_ROWS, replace=False)
        if number_equal_rows(X[sample], int(_MAX_DISTINCT_SHARE_OF_SAMPLE * _SAMPLE_ROWS)) is None:
            return None
    max_groups = int(_MAX_DISTINCT_SHARE * n_cells)
    rows = _number_by_sums(X, max_groups)
    return number_equal_rows(X, max_groups) if rows is None else rows


def group_rows_ignoring_offset(
    X: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.intp] | None:
    """Return which rows of a matrix are equal, for cells whose offsets differ.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers, without the offset.
    offset : ndarray of shape (n_cells,)
        Offset of each cell.

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        Number of each row's group, in the order in which the groups first occur. None if the groups
        are too many or too small, or the offsets too wide, for tables of sums over a group.

    Examples
    --------
    >>> import numpy as np
    >>> rows = group_rows_ignoring_offset(np.arange(100.0)[:, None] % 2, np.linspace(0, 1, 100))
    >>> np.bincount(rows)
    array([50, 50])
    >>> ten_groups = np.arange(100.0)[:, None] % 10
    >>> group_rows_ignoring_offset(ten_groups, np.linspace(0, 1, 100)) is None
    True
    """
    rows = group_rows(X)
    if rows is None or np.ptp(offset) > _MAX_OFFSET_RANGE:
        return None
    return rows if rows.max() < min(_MAX_GROUPS, len(X) // _MIN_CELLS_PER_GROUP) else None


def first_rows(numbers: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the position at which each number from zero to the largest first occurs."""
    first = np.empty(int(numbers.max()) + 1, dtype=np.intp)
    # If an index occurs several times, NumPy keeps what is assigned last: the first position.
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first


def number_equal_rows(X: NDArray[np.float64], max_groups: int) -> NDArray[np.intp] | None:
    """Return the number of each row's group of equal rows; None if there are too many groups."""
    rows, keys = pd.factorize(_hash_rows(X))
    if len(keys) > max_groups:
        return None
    differs = _differing_rows(X, _last_rows(X, rows, len(keys)), rows)
    if differs.any():  # hash collisions; the last row of a hash, and its equals, keep the number
        others = number_equal_rows(X[differs], max_groups - len(keys))
        if others is None:
            return None
        rows[differs] = len(keys) + others
        rows, _ = pd.factorize(rows)
    return rows


def _number_by_sums(X: NDArray[np.float64], max_groups: int) -> NDArray[np.intp] | None:
    """Return the numbers of :func:`number_equal_rows` in less time.

    Rows are compared by a weighted sum first. None if different rows have equal sums, or if there
    are too many groups.
    """
    rows, sums = pd.factorize(_weighted_sums(X).view(np.uint64))
    if len(sums) > max_groups:
        return None
    distinct = _last_rows(X, rows, len(sums))
    if _differing_rows(X, distinct, rows).any():
        return None
    # Sums of equal rows may differ by rounding.
    numbers = number_equal_rows(distinct, len(distinct))
    return rows if numbers is None or numbers[-1] == len(sums) - 1 else numbers[rows]


def _last_rows(
    X: NDArray[np.float64], rows: NDArray[np.intp], n_groups: int
) -> NDArray[np.float64]:
    """Return the last row of each group."""
    last = np.empty(n_groups, dtype=np.intp)
    last[rows] = np.arange(len(X))
    return np.ascontiguousarray(X[last])


def _differing_rows(
    X: NDArray[np.float64], distinct: NDArray[np.float64], rows: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return which rows differ from the row of `distinct` that represents their group."""
    differs = np.zeros(len(X), dtype=bool)
    for block in _blocks(X):
        unequal = np.ascontiguousarray(X[block]) != distinct.take(rows[block], axis=0)
        if unequal.any():
            differs[block] = unequal.any(axis=1)
    return differs


def _weighted_sums(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a randomly weighted sum of each row, which differs for most distinct rows."""
    with np.errstate(all="ignore"):
        sums: NDArray[np.float64] = np.einsum(
            "ij,j->i", X, np.random.default_rng(0).uniform(size=X.shape[1])
        )
    return sums


def _hash_rows(X: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a hash of each row: equal for equal rows, and different for almost all others."""
    keys = np.empty(len(X), dtype=np.uint64)
    factors = 1 | np.random.default_rng(0).integers(2**64, size=(X.shape[1], 1), dtype=np.uint64)
    for block in _blocks(X):
        bits = np.add(X[block].T, 0.0, order="C").view(np.uint64)  # adding 0.0 turns -0.0 into 0.0
        # Whole numbers have all their digits in the upper half, where the product would lose most.
        bits ^= bits >> 32
        bits *= factors
        np.sum(bits, axis=0, out=keys[block])
    return keys


def _blocks(X: NDArray[np.float64]) -> list[slice]:
    """Return blocks of rows that stay in the processor's cache."""
    step = max(1, _BLOCK_ENTRIES // max(1, X.shape[1]))
    return [slice(begin, begin + step) for begin in range(0, len(X), step)]
