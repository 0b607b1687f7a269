"""Designs with a factor of many levels, decomposed without an array of cells x levels.

The indicators of levels are orthogonal to each other, so that they are basis vectors already. The
other basis vectors come from the other columns, centred within levels.
"""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._counts.equal_rows import first_rows, group_rows
from sc_glm._design.design import FloatArray, Levels, PartDesign, design_hash, least_norm
from sc_glm._design.null_space import NullSpace

# Number of levels from which on a decomposition by levels is faster.
MIN_LEVELS = 32

# Number of columns that vary within levels, per level. Levels with a larger ratio than the first
# are not used. With a ratio up to the second, no other levels are searched for.
_MAX_VARYING_RATIO = 0.5
_SUFFICIENT_VARYING_RATIO = 0.125

# Number of sets of disjoint indicators that are built, of which the largest is used.
_MAX_FACTORS = 8

# Largest number of distinct values in a column of a contrast, such as a sum or a Helmert contrast.
# Most other columns have more values in a sample of this number of cells.
_MAX_CONTRAST_VALUES = 3
_SAMPLE_CELLS = 1000


def decompose(X: FloatArray, weights: FloatArray | None = None) -> PartDesign:
    """Decompose an unpenalised design, by levels if it has many.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Design matrix.
    weights : ndarray of shape (n_cells,) or None
        Positive weights; None means equal ones.

    Returns
    -------
    PartDesign
        The decomposition.
    """
    codes = find_levels(X)
    if codes is None:
        return PartDesign.of(X, weights)
    weights = np.ones(len(X)) if weights is None else weights
    return _decompose_by_levels(X, codes, weights)


def find_levels(X: FloatArray) -> NDArray[np.intp] | None:
    """Find levels whose indicators are linear combinations of the columns of a matrix.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Design matrix.

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        Number of each cell's level. None if there are few levels, or many other columns.

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
    if X.shape[1] < MIN_LEVELS:
        return None
    best, fewest = None, np.inf
    for codes in _candidates(X):
        n_levels = int(codes.max()) + 1
        if n_levels < MIN_LEVELS:
            continue
        n_varying = int(_varies_within_levels(X, codes).sum())
        if n_varying <= _MAX_VARYING_RATIO * n_levels and n_varying < fewest:
            best, fewest = codes, n_varying
        if n_varying <= _SUFFICIENT_VARYING_RATIO * n_levels:
            break
    return best


def _varies_within_levels(X: FloatArray, codes: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return which columns have several values within a level."""
    first = first_rows(codes)
    return np.array([bool((column != column[first][codes]).any()) for column in X.T])


def _candidates(X: FloatArray) -> Iterator[NDArray[np.intp]]:
    """Yield levels whose indicators are in the span of the columns."""
    one_factor = _levels_of_disjoint_indicators(X)
    if one_factor is not None:
        yield one_factor
    of_factors = X[:, [_has_few_values(column) for column in X.T]]
    rows = group_rows(of_factors)
    if rows is not None and rows.max() < of_factors.shape[1]:
        distinct = of_factors[first_rows(rows)]
        if np.linalg.matrix_rank(distinct) == len(distinct):
            yield rows


def _has_few_values(column: FloatArray) -> bool:
    """Return whether a column has as few values as the contrast of a factor."""
    samples = column[:_SAMPLE_CELLS], column
    return all(len(np.unique(sample)) <= _MAX_CONTRAST_VALUES for sample in samples)


def _levels_of_disjoint_indicators(X: FloatArray) -> NDArray[np.intp] | None:
    """Return the levels of the largest set of indicators that have no cell in common.

    The cells without any of them are a further level. None is returned if its indicator is not in
    the span of the columns, or if there are no indicators.
    """
    n_cells = len(X)
    largest, smallest = X.max(axis=0), X.min(axis=0)
    value = np.where(largest > 0, largest, smallest)
    is_indicator = ((value == X) | (X == 0)).all(axis=0) & (value != 0)
    is_constant = is_indicator & (largest == smallest)
    indicators: list[int] = np.flatnonzero(is_indicator & ~is_constant).tolist()
    cells_of = {column: np.flatnonzero(X[:, column]) for column in indicators}
    factors = _disjoint_sets(cells_of, n_cells)
    if not factors:
        return None
    spans_ones = is_constant.any() or any(covered.all() for _, covered in factors)
    columns, covered = max(factors, key=lambda factor: len(factor[0]))
    # An earlier set may have indicators that also fit into the largest one.
    for column in sorted(set(indicators) - set(columns)):
        if not covered[cells_of[column]].any():
            columns.append(column)
            covered[cells_of[column]] = True
    if not (spans_ones or covered.all()):
        return None
    codes = np.full(n_cells, len(columns), dtype=np.intp)
    for level, column in enumerate(columns):
        codes[cells_of[column]] = level
    return codes


def _disjoint_sets(
    cells_of: dict[int, NDArray[np.intp]], n_cells: int
) -> list[tuple[list[int], NDArray[np.bool_]]]:
    """Add each indicator to the first set with which it has no cell in common.

    Returns the columns of each set, and the cells that these cover.
    """
    factors: list[tuple[list[int], NDArray[np.bool_]]] = []
    for column, cells in cells_of.items():
        factor = next((other for other in factors if not other[1][cells].any()), None)
        if factor is None:
            if len(factors) == _MAX_FACTORS:
                continue
            factor = [], np.zeros(n_cells, dtype=bool)
            factors.append(factor)
        factor[0].append(column)
        factor[1][cells] = True
    return factors


def _decompose_by_levels(X: FloatArray, codes: NDArray[np.intp], weights: FloatArray) -> PartDesign:
    """Decompose a design whose columns have the indicators of levels in their span."""
    n_cells, n_columns = X.shape
    level_weights = np.bincount(codes, weights).astype(np.float64)
    total, n_levels = level_weights.sum(), len(level_weights)
    scale = np.sqrt(total / level_weights)
    shares = weights / level_weights[codes]
    averaging = sp.csr_array((shares, (codes, np.arange(n_cells))), shape=(n_levels, n_cells))

    def centred(columns: FloatArray) -> FloatArray:
        for _ in range(2):  # the second time removes rounding errors of the first
            columns = columns - np.asarray(averaging @ columns)[codes]
        return columns

    others = np.flatnonzero(_varies_within_levels(X, codes))
    varying = X[:, others]
    length = np.abs(varying).max(axis=0, initial=0.0)
    length *= np.sqrt((weights @ (varying / length) ** 2) / total)
    root = np.sqrt(weights / total)
    Q, R = scipy.linalg.qr(centred(varying / length) * root[:, None], mode="economic")
    left, singular, _ = scipy.linalg.svd(R)
    rank = int(np.sum(singular > max(n_cells, n_columns) * np.finfo(float).eps))
    U = centred((Q @ left[:, :rank]) / root[:, None])

    means = X[first_rows(codes)]
    means[:, others] = np.asarray(averaging @ varying)
    from_coef = np.zeros((n_levels + rank, n_columns))
    from_coef[:n_levels] = means / scale[:, None]
    from_coef[n_levels:, others] = (weights[:, None] * U).T @ centred(varying) / total
    to_coef, null = _inverse(from_coef)
    penalty = np.zeros((rank, rank))
    source = design_hash(X).hexdigest()
    levels = Levels(codes, scale)
    return PartDesign(U, to_coef, from_coef, penalty, null, null, source, levels)


def _inverse(from_coef: FloatArray) -> tuple[FloatArray, NullSpace]:
    """Return the matrix that transforms coordinates to coefficients, and the null space."""
    rank = len(from_coef)
    length = np.linalg.norm(from_coef, axis=0)
    empty = length == 0
    length[empty] = 1.0
    Q, R = scipy.linalg.qr((from_coef / length).T)
    right = scipy.linalg.solve_triangular(R[:rank], Q[:, :rank].T)
    to_coef, _ = least_norm(right.T / length[:, None], from_coef, Q[:, rank:] / length[:, None])
    to_coef += to_coef @ (np.eye(rank) - from_coef @ to_coef)
    return to_coef, NullSpace.of(Q[:, rank:], length, empty)
