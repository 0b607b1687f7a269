"""Groups of cells with similar covariates, and the rows that represent them."""

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._counts.equal_rows import number_equal_rows


def similar_rows(
    X: NDArray[np.float64],
    max_groups: int,
    min_std: float,
    groups: NDArray[np.intp] | None = None,
) -> NDArray[np.intp]:
    """Return groups of similar rows.

    Each group is divided at its mean in the column with the largest variance. This is repeated
    until another round could exceed `max_groups`, or until no group varies by `min_std`.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers in at least one column, in units in which one is a large difference.
    max_groups : int
        Largest number of groups.
    min_std : float
        A group whose columns have no larger standard deviation is not divided.
    groups : ndarray of int of shape (n_cells,), optional
        Groups to begin with. By default, all rows are one group.

    Returns
    -------
    ndarray of int of shape (n_cells,)
        Number of each cell's group, in the order in which the groups first occur.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 5], [1, 5], [0.001, 5], [3, 5], [1, 5]])
    >>> similar_rows(X, max_groups=8, min_std=0.005)
    array([0, 1, 0, 2, 1])
    >>> similar_rows(X, max_groups=3, min_std=0.005)
    array([0, 0, 0, 1, 0])
    """
    groups = np.zeros(len(X), dtype=np.intp) if groups is None else pd.factorize(groups)[0]
    n_groups = int(groups.max()) + 1
    while 2 * n_groups <= max_groups:
        groups, uniques = pd.factorize(2 * groups + _is_above_group_mean(X, groups, min_std))
        if len(uniques) == n_groups:
            break
        n_groups = len(uniques)
    return groups


def representative_rows(
    X: NDArray[np.float64], weights: NDArray[np.float64], max_rows: int, min_std: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a few rows that represent many: weighted means of groups of similar rows.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers.
    weights : ndarray of shape (n_cells,)
        Positive weights of the cells.
    max_rows : int
        Largest number of rows that are returned.
    min_std : float
        A group whose columns have no larger standard deviation is not divided. The unit is the
        standard deviation of a column over all cells.

    Returns
    -------
    rows : ndarray of shape (n_rows, n_columns)
        Mean of each group.
    weights : ndarray of shape (n_rows,)
        Sum of the weights of its cells.

    Examples
    --------
    >>> import numpy as np
    >>> representative_rows(np.array([[0.0], [7], [7], [0]]), np.array([1.0, 1, 2, 3]), 8, 0.1)
    (array([[0.],
           [7.]]), array([4., 3.]))
    """
    largest = np.abs(X).max(axis=0)
    scaled = X / np.where(largest > 0, largest, 1.0)
    std = scaled.std(axis=0)
    groups, separated = _rare_levels(X, std, max_rows)
    others = np.setdiff1d(np.arange(X.shape[1]), separated)
    if len(others):
        standardised = scaled[:, others] / np.where(std > 0, std, 1.0)[others]
        groups = similar_rows(standardised, max_rows, min_std, groups)
    total = np.bincount(groups, weights).astype(np.float64)
    summation = sp.csr_array((weights, (groups, np.arange(len(X)))), shape=(len(total), len(X)))
    return np.asarray(summation @ scaled) / total[:, None] * largest, total


def _rare_levels(
    X: NDArray[np.float64], std: NDArray[np.float64], max_groups: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group rows by their combination of indicator columns, rare levels first.

    If there are too many combinations, the indicators of the most common levels are left out.
    Returns the rows' groups, and the indicators that are constant in each group.
    """
    indicators = np.flatnonzero(((X.min(axis=0) == X) | (X.max(axis=0) == X)).all(axis=0))
    kept = indicators[np.argsort(std[indicators], kind="stable")]
    n_left_out = 0
    while (groups := number_equal_rows(X[:, kept], max_groups)) is None:
        n_left_out = max(1, 2 * n_left_out)
        kept = kept[: max(0, len(indicators) - n_left_out)]
    return groups, kept


def _is_above_group_mean(
    X: NDArray[np.float64], groups: NDArray[np.intp], min_std: float
) -> NDArray[np.bool_]:
    """Return which rows are above their group's mean, in its column of largest variance.

    None are in a group that is too narrow to be divided.
    """
    sizes = np.bincount(groups)
    means = np.stack([np.bincount(groups, x) / sizes for x in X.T])
    variances = np.stack(
        [
            np.bincount(groups, (x - mean[groups]) ** 2) / sizes
            for x, mean in zip(X.T, means, strict=True)
        ]
    )
    column = variances.argmax(0)
    cut = np.where(variances.max(0) > min_std**2, means[column, np.arange(len(sizes))], np.inf)
    return X[np.arange(len(X)), column[groups]] > cut[groups]
