"""Designs with a factor of many levels, decomposed without an array of cells x levels.

The indicators of levels are orthogonal to each other, so that each is a basis vector as it is. What
other columns add to their span, they add within levels.
"""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._counts.equal_rows import group_rows
from sc_glm._design.design import FloatArray, Levels, NullSpace, PartDesign, digest_of, least_norm

LEAST_LEVELS = 32  # from which on indicators pay, whatever there is beside them
_MOST_OTHERS = 0.5  # columns that are not constant in levels, for each level
_FEW_OTHERS = 0.125  # up to which no finer levels are looked for
_MOST_FACTORS = 8  # of which the one with the most levels is taken
_VALUES = 3  # of a contrast's column, such as those of sums and of Helmert's contrasts
_SAMPLE = 1000  # cells by which most other columns are known


def design_of(X: FloatArray, weights: FloatArray | None = None) -> PartDesign:
    """Decompose an unpenalised design, by levels if it has many.

    Parameters and result are those of :meth:`~sc_glm._design.design.PartDesign.of`.
    """
    codes = find_levels(X)
    if codes is None:
        return PartDesign.of(X, weights)
    weights = np.ones(len(X)) if weights is None else weights
    return _by_levels(X, codes, weights)


def find_levels(X: FloatArray) -> NDArray[np.intp] | None:
    """Find levels whose indicators are combinations of the columns of a matrix.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        Number of each cell's level; None if there are few, or many columns beside them.

    Examples
    --------
    >>> import numpy as np
    >>> donor = np.arange(100) % 40
    >>> X = np.column_stack([np.ones(100), np.eye(40)[donor][:, 1:], np.arange(100.0)])
    >>> codes = find_levels(X)
    >>> len(np.unique(codes)), len(set(zip(donor, codes)))
    (40, 40)
    >>> find_levels(X[:, -20:]) is None
    True
    """
    if X.shape[1] < LEAST_LEVELS:
        return None
    best, fewest = None, np.inf
    for codes in _candidates(X):
        n_levels = int(codes.max()) + 1
        if n_levels < LEAST_LEVELS:
            continue
        n_others = int(varies_within(X, codes).sum())
        if n_others <= _MOST_OTHERS * n_levels and n_others < fewest:
            best, fewest = codes, n_others
        if n_others <= _FEW_OTHERS * n_levels:
            break
    return best


def varies_within(X: FloatArray, codes: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Tell which columns are not the same in all cells of a level."""
    first = first_of(codes)
    return np.array([bool((column != column[first][codes]).any()) for column in X.T])


def first_of(codes: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the first cell of each level."""
    first = np.empty(int(codes.max()) + 1, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of equal ones the last is kept
    return first


def _candidates(X: FloatArray) -> Iterator[NDArray[np.intp]]:
    """Yield levels whose indicators are in the span of the columns."""
    one_factor = _disjoint(X)
    if one_factor is not None:
        yield one_factor
    of_factors = X[:, [_has_few_values(column) for column in X.T]]
    rows = group_rows(of_factors)
    if rows is not None and rows.max() < of_factors.shape[1]:
        different = of_factors[first_of(rows)]
        if np.linalg.matrix_rank(different) == len(different):
            yield rows


def _has_few_values(column: FloatArray) -> bool:
    """Tell whether a column is like that of a factor's contrast."""
    return all(len(np.unique(part)) <= _VALUES for part in (column[:_SAMPLE], column))


def _disjoint(X: FloatArray) -> NDArray[np.intp] | None:
    """Return the levels of the largest set of indicators no two of which share a cell.

    Cells without any of them are a level, too, where a constant makes it one.
    """
    n_cells = len(X)
    largest, smallest = X.max(axis=0), X.min(axis=0)
    value = np.where(largest > 0, largest, smallest)
    is_indicator = ((value == X) | (X == 0)).all(axis=0) & (value != 0)
    is_constant = is_indicator & (largest == smallest)
    numbers: list[int] = np.flatnonzero(is_indicator & ~is_constant).tolist()
    cells_of = {number: np.flatnonzero(X[:, number]) for number in numbers}
    factors: list[tuple[list[int], NDArray[np.bool_]]] = []
    for number in numbers:
        cells = cells_of[number]
        own = next((one for one in factors if not one[1][cells].any()), None)
        if own is None:
            if len(factors) == _MOST_FACTORS:
                continue
            own = [], np.zeros(n_cells, dtype=bool)
            factors.append(own)
        own[0].append(number)
        own[1][cells] = True
    if not factors:
        return None
    spans_ones = is_constant.any() or any(covered.all() for _, covered in factors)
    columns, covered = max(factors, key=lambda factor: len(factor[0]))
    for number in sorted(set(numbers) - set(columns)):  # that another factor has by chance
        if not covered[cells_of[number]].any():
            columns.append(number)
            covered[cells_of[number]] = True
    if not (spans_ones or covered.all()):
        return None
    codes = np.full(n_cells, len(columns), dtype=np.intp)
    for level, number in enumerate(columns):
        codes[cells_of[number]] = level
    return codes


def _by_levels(X: FloatArray, codes: NDArray[np.intp], weights: FloatArray) -> PartDesign:
    """Decompose a design whose columns have the indicators of levels in their span."""
    n_cells, n_columns = X.shape
    of_level = np.bincount(codes, weights).astype(np.float64)
    total, n_levels = of_level.sum(), len(of_level)
    scale = np.sqrt(total / of_level)
    shares = weights / of_level[codes]
    averaging = sp.csr_array((shares, (codes, np.arange(n_cells))), shape=(n_levels, n_cells))

    def within(columns: FloatArray) -> FloatArray:
        for _ in range(2):  # the second time for what rounding left
            columns = columns - np.asarray(averaging @ columns)[codes]
        return columns

    others = np.flatnonzero(varies_within(X, codes))
    varying = X[:, others]
    length = np.abs(varying).max(axis=0, initial=0.0)
    length *= np.sqrt((weights @ (varying / length) ** 2) / total)
    root = np.sqrt(weights / total)
    Q, R = scipy.linalg.qr(within(varying / length) * root[:, None], mode="economic")
    left, singular, _ = scipy.linalg.svd(R)
    rank = int(np.sum(singular > max(n_cells, n_columns) * np.finfo(float).eps))
    U = within((Q @ left[:, :rank]) / root[:, None])

    means = X[first_of(codes)]
    means[:, others] = np.asarray(averaging @ varying)
    from_coef = np.zeros((n_levels + rank, n_columns))
    from_coef[:n_levels] = means / scale[:, None]
    from_coef[n_levels:, others] = (weights[:, None] * U).T @ within(varying) / total
    to_coef, null = _inverse(from_coef)
    penalty = np.zeros((rank, rank))
    source = digest_of(X).hexdigest()
    levels = Levels(codes, scale)
    return PartDesign(U, to_coef, from_coef, penalty, null, null, source, levels)


def _inverse(from_coef: FloatArray) -> tuple[FloatArray, NullSpace]:
    """Return the coefficients of coordinates, and those that change nothing."""
    rank = len(from_coef)
    length = np.linalg.norm(from_coef, axis=0)
    empty = length == 0
    length[empty] = 1.0
    Q, R = scipy.linalg.qr((from_coef / length).T)
    right = scipy.linalg.solve_triangular(R[:rank], Q[:, :rank].T)
    to_coef, _ = least_norm(right.T / length[:, None], from_coef, Q[:, rank:] / length[:, None])
    to_coef += to_coef @ (np.eye(rank) - from_coef @ to_coef)
    return to_coef, NullSpace.of(Q[:, rank:], length, empty)
