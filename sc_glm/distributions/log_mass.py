"""The log-mass of a family at arrays of counts and predictors, in blocks.

Most counts are zero, and a zero needs no gamma function. The log-mass of a zero is computed in all
entries at once, and that of positive counts only where they are. If a gene has one size for all
cells, the terms that count and size determine are tabulated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from sc_glm._likelihood.family import Counts, Family, SaturatedLogMass, positive_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray
    from torch import Tensor

    FloatArray: TypeAlias = NDArray[np.float64]

# Size at which the negative binomial is Poisson to the last digit of a double, for any count that a
# double can represent exactly. The square of this size does not overflow.
POISSON_SIZE = 1e40

# Number of entries in a block. The temporaries of a block stay in the processor's cache, and torch
# does not split a logarithm of so few numbers over threads. On a busy machine, splitting took ten
# times longer.
BLOCK_ENTRIES = 2**11

# Entries of a tile of a matrix, and positive counts or entries of an array, that are computed at a
# time. Zeros have fewer temporaries than positive counts.
_TILE_ENTRIES = 2**18
_POSITIVE_ENTRIES = 2**13
_TABULATED_COUNTS = 16  # whole counts up to this one are tabulated by gene
_MIN_TABULATED_ROWS = 256  # cells from which on a table takes less time than it saves


def count_predictors(mu: FloatArray, r: FloatArray) -> list[FloatArray]:
    """Return the linear predictors of means and sizes; sizes may be infinite."""
    return [np.log(mu), np.log(np.minimum(r, POISSON_SIZE))]


def log_mass(family: Family, y: FloatArray, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass that a fit maximises.

    Parameters
    ----------
    family : Family
        Distribution of the counts.
    y : ndarray
        Counts. The log-mass of negative numbers is minus infinity.
    predictors : sequence of ndarray
        Linear predictors of the family's parts, each of the shape of `y`.

    Returns
    -------
    ndarray
        Log-mass, of the shape of `y`.
    """
    return _log_mass_of_array(family, y, predictors, with_saturated=True)


def log_mass_ratio(family: Family, y: FloatArray, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass less its saturated value at ``mu = y`` without zero inflation.

    Parameters and shapes are those of :func:`log_mass`. The function of count and size that both
    log-masses contain is not computed.
    """
    return _log_mass_of_array(family, y, predictors, with_saturated=False)


class SaturatedTable:
    """Saturated log-masses of genes' positive counts, tabulated where that saves time.

    Parameters
    ----------
    family : Family
    log_sizes : ndarray of shape (n_genes,), optional
        Log size of each gene, if it is the same in all cells.
    n_cells : int, default=0
        Number of cells for which the object is used. For few cells there is no table.
    """

    def __init__(
        self, family: Family, log_sizes: FloatArray | None = None, n_cells: int = 0
    ) -> None:
        self._family = family
        self._values: FloatArray | None = None
        if log_sizes is not None and n_cells >= _MIN_TABULATED_ROWS:
            counts = np.arange(1.0, _TABULATED_COUNTS + 1)
            y, rho = np.tile(counts, len(log_sizes)), np.repeat(log_sizes, _TABULATED_COUNTS)
            self._values = self._compute(y, rho)

    def at(self, y: FloatArray, rho: FloatArray, genes: NDArray[np.intp]) -> FloatArray:
        """Return the saturated log-mass of positive counts, given their log sizes and genes."""
        if self._values is None:
            return self._compute(y, rho)
        small = np.clip(y, 1.0, _TABULATED_COUNTS)
        whole = small.astype(np.intp)
        result = self._values[genes * _TABULATED_COUNTS + whole - 1]
        others = np.flatnonzero(whole != y)
        if len(others):
            result[others] = self._compute(y[others], rho[others])
        return result

    def _compute(self, y: FloatArray, rho: FloatArray) -> FloatArray:
        result = np.empty(y.shape)
        for first in range(0, len(y), _POSITIVE_ENTRIES):
            block = slice(first, first + _POSITIVE_ENTRIES)
            counts, log_size = positive_counts(_tensor(y[block])), _tensor(rho[block])
            result[block] = self._family.saturated(counts, log_size).value.numpy()
        return result


def log_mass_of_zeros(family: Family, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass of a zero at predictors whose shapes broadcast."""
    return np.asarray(family.log_mass_of_zero([_tensor(p) for p in predictors]).numpy())


def log_mass_ratio_of_positives(
    family: Family, y: FloatArray, predictors: Sequence[FloatArray]
) -> FloatArray:
    """Return :func:`log_mass_ratio` of a 1-D array of positive counts."""
    return _log_mass_of_positives(family, y, predictors, np.zeros_like(y))


def _log_mass_of_positives(
    family: Family, y: FloatArray, predictors: Sequence[FloatArray], saturated: FloatArray
) -> FloatArray:
    """Return the log-mass of a 1-D array of positive counts, given their saturated log-mass."""
    result = np.empty(y.shape)
    for first in range(0, len(y), _POSITIVE_ENTRIES):
        block = slice(first, first + _POSITIVE_ENTRIES)
        counts = _tensor(y[block])
        zeros = torch.zeros_like(counts)
        terms = family.positives(
            Counts(counts, counts.log(), zeros),
            [_tensor(p[block]) for p in predictors],
            SaturatedLogMass(_tensor(saturated[block]), zeros, zeros),
        )
        result[block] = terms.value.numpy()
    return result


def log_mass_of_matrix(
    family: Family,
    y: FloatArray | sp.csr_array,
    predictors_of: Callable[[slice], Sequence[FloatArray]],
) -> FloatArray:
    """Return the log-mass of a matrix of counts, cells x genes.

    Parameters
    ----------
    family : Family
    y : ndarray or csr_array of shape (n_cells, n_genes)
        Counts, which are not negative.
    predictors_of : callable
        Function that returns the linear predictors of a slice of cells. The mean's have a row for
        each cell. Others may have one row for all cells, which is the same in all slices.

    Returns
    -------
    ndarray of shape (n_cells, n_genes)
    """
    n_cells, n_genes = y.shape
    result = np.empty((n_cells, n_genes))
    step = max(1, _TILE_ENTRIES // max(1, n_genes))
    table = None
    for first in range(0, n_cells, step):
        cells = slice(first, min(first + step, n_cells))
        predictors = predictors_of(cells)
        tile = result[cells]
        tile[...] = log_mass_of_zeros(family, predictors)
        flat, values = _positive_entries(y, cells)
        genes = flat % n_genes
        at = [p.ravel()[flat if p.shape == tile.shape else genes] for p in predictors]
        if table is None:
            one_size = n_cells > 1 and len(predictors[1]) == 1
            table = SaturatedTable(family, predictors[1][0] if one_size else None, n_cells)
        saturated = table.at(values, at[1], genes)
        tile.reshape(-1)[flat] = _log_mass_of_positives(family, values, at, saturated)
    return result


def _positive_entries(
    y: FloatArray | sp.csr_array, cells: slice
) -> tuple[NDArray[np.intp], FloatArray]:
    """Return the flat positions of the positive counts of some cells, and the counts."""
    if isinstance(y, np.ndarray):
        values = np.ascontiguousarray(y[cells], dtype=np.float64).reshape(-1)
        flat = np.flatnonzero(values)
        return flat, values[flat]
    bounds = y.indptr[cells.start : cells.stop + 1].astype(np.intp)
    entries = slice(bounds[0], bounds[-1])
    rows = np.repeat(np.arange(len(bounds) - 1) * y.shape[1], np.diff(bounds))
    return rows + y.indices[entries], y.data[entries].astype(np.float64)


def _log_mass_of_array(
    family: Family, y: FloatArray, predictors: Sequence[FloatArray], *, with_saturated: bool
) -> FloatArray:
    """Return the log-mass, or its ratio, of an array and predictors of its shape."""
    value = np.empty(y.shape)
    table = SaturatedTable(family)
    arrays = [np.ravel(x) for x in (y, *predictors)]
    flat = value.reshape(-1)
    for start in range(0, y.size, _POSITIVE_ENTRIES):
        counts, *at = (x[start : start + _POSITIVE_ENTRIES] for x in arrays)
        out = flat[start : start + _POSITIVE_ENTRIES]
        others = np.flatnonzero(counts != 0)
        if len(others) < len(counts):
            out[...] = log_mass_of_zeros(family, at)
        if not len(others):
            continue
        out[others] = _outside_support(counts[others])
        positive = others[(counts[others] > 0) & (counts[others] < np.inf)]
        at = [p[positive] for p in at]
        y_positive = counts[positive]
        saturated = table.at(y_positive, at[1], positive) if with_saturated else 0.0 * y_positive
        out[positive] = _log_mass_of_positives(family, y_positive, at, saturated)
    return value


def _tensor(array: FloatArray) -> Tensor:
    """Return a tensor of an array, which may be read-only."""
    return torch.from_numpy(np.require(array, requirements="W"))


def _outside_support(y: FloatArray) -> FloatArray:
    """Return the log-mass of numbers that are not counts: minus infinity, or NaN for NaN."""
    return np.where(np.isnan(y), np.nan, -np.inf)
