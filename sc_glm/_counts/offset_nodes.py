"""A few weighted offsets that stand for those of many cells in sums over groups of cells.

In a sum over cells of equal designs, only the offset differs between the terms. If these are a
smooth function of the offset, Gaussian quadrature for the distribution of the offsets gives the sum
from a few nodes. It is exact for polynomials of a degree below twice the number of nodes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Number of nodes on an interval of offsets, and its width. The functions of a predictor ``eta`` in
# a likelihood are analytic and bounded up to ``pi / 2`` from the real axis. On such intervals, each
# node divides the error by 11.
N_NODES = 12
_WIDTH = 2.0

_NEGLIGIBLE = 1e-12  # squared norm of a polynomial, below which the nodes before are exact


class OffsetNodes(NamedTuple):
    """Offsets and weights that stand for those of cells, each in one group.

    Attributes
    ----------
    groups : ndarray of int of shape (n_nodes,)
        Number of each node's group; ascending.
    offset : ndarray of shape (n_nodes,)
    weights : ndarray of shape (n_nodes,)
        They are positive, and have the sums of the cells' weights in each group.
    """

    groups: NDArray[np.intp]
    offset: NDArray[np.float64]
    weights: NDArray[np.float64]


def offset_nodes(
    groups: NDArray[np.intp], offset: NDArray[np.float64], weights: NDArray[np.float64]
) -> OffsetNodes:
    """Return nodes for sums over cells, group by group.

    Parameters
    ----------
    groups : ndarray of int of shape (n_cells,)
        Number of each cell's group.
    offset : ndarray of shape (n_cells,)
        Offset of each cell.
    weights : ndarray of shape (n_cells,)
        Positive weight of each cell.

    Returns
    -------
    OffsetNodes
        Few distinct offsets of a group are kept as they are.

    Examples
    --------
    >>> import numpy as np
    >>> offset = np.linspace(0, 1.5, 1000)
    >>> nodes = offset_nodes(np.zeros(1000, dtype=int), offset, np.ones(1000))
    >>> len(nodes.offset)
    12
    >>> float(round(nodes.weights @ np.exp(nodes.offset) / np.exp(offset).sum(), 12))
    1.0
    """
    interval = np.floor((offset - offset.min()) / _WIDTH).astype(np.intp)
    order = np.lexsort((offset, interval, groups))
    x, keys = offset[order], (groups * (interval.max() + 1) + interval)[order]
    is_first = np.r_[True, (np.diff(x) != 0) | (np.diff(keys) != 0)]
    w = np.add.reduceat(weights[order], np.flatnonzero(is_first))
    x, keys, of_group = x[is_first], keys[is_first], groups[order][is_first]
    _, first, sets = np.unique(keys, return_index=True, return_inverse=True)
    # The polynomials are computed stably for many more points than nodes.
    few = np.bincount(sets) <= 2 * N_NODES
    kept = few[sets]
    numbers = np.cumsum(~few) - 1
    nodes, node_weights = _gauss(numbers[sets[~kept]], x[~kept], w[~kept])
    all_groups = np.r_[of_group[kept], np.repeat(of_group[first[~few]], N_NODES)]
    all_offsets, all_weights = np.r_[x[kept], nodes.ravel()], np.r_[w[kept], node_weights.ravel()]
    chosen = np.argsort(all_groups, kind="stable")
    chosen = chosen[all_weights[chosen] > 0]
    return OffsetNodes(all_groups[chosen], all_offsets[chosen], all_weights[chosen])


def _gauss(
    sets: NDArray[np.intp], x: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Gaussian nodes and weights of each set of points, (n_sets, N_NODES).

    Points of a set are consecutive and ascending. The polynomials that are orthogonal under the
    weights follow from their recurrence (Stieltjes 1884), and nodes and weights from the
    eigenvalues of its matrix (Golub and Welsch 1969, Mathematics of Computation 23: 221).
    """
    starts = np.flatnonzero(np.r_[True, np.diff(sets) != 0])[: len(x)]
    if not len(starts):
        return np.empty((0, N_NODES)), np.empty((0, N_NODES))

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.add.reduceat(values, starts))

    low, high = x[starts], x[np.r_[starts[1:], len(x)] - 1]
    middle, half = (low + high) / 2, (high - low) / 2
    t, mass = (x - middle[sets]) / half[sets], total(weights)
    share = weights / mass[sets]
    matrices = np.zeros((len(starts), N_NODES, N_NODES))
    previous, current = np.zeros_like(t), np.ones_like(t)
    coupling = np.zeros(len(starts))
    for k in range(N_NODES):
        slope = total(share * current**2 * t)
        matrices[:, k, k] = slope
        following = (t - slope[sets]) * current - coupling[sets] * previous
        square = total(share * following**2)
        lives = square > _NEGLIGIBLE
        coupling = np.where(lives, np.sqrt(square), 0.0)
        scale = np.where(lives, 1 / np.where(lives, coupling, 1.0), 0.0)
        previous, current = current, following * scale[sets]
        if k + 1 < N_NODES:
            matrices[:, k, k + 1] = matrices[:, k + 1, k] = coupling
    nodes, vectors = np.linalg.eigh(matrices)
    return middle[:, None] + half[:, None] * nodes, mass[:, None] * vectors[:, 0] ** 2
