"""The log-mass of a family at arrays of counts and predictors, in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from sc_glm._likelihood.family import Counts, Family, SaturatedLogMass, positive_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

    def saturated(y: Tensor, rho: Tensor) -> tuple[Counts, SaturatedLogMass]:
        counts = positive_counts(y)
        return counts, family.saturated(counts, rho)

    return _log_mass_in_blocks(family, y, predictors, saturated)


def log_mass_ratio(family: Family, y: FloatArray, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass less its saturated value at ``mu = y`` without zero inflation.

    Parameters and shapes are those of :func:`log_mass`. The function of count and size that both
    log-masses contain is not computed.
    """

    def saturated(y: Tensor, _: Tensor) -> tuple[Counts, SaturatedLogMass]:
        zeros = torch.zeros_like(y)
        return Counts(y, y.log(), zeros), SaturatedLogMass(zeros, zeros, zeros)

    return _log_mass_in_blocks(family, y, predictors, saturated)


def _log_mass_in_blocks(
    family: Family,
    y: FloatArray,
    predictors: Sequence[FloatArray],
    saturated: Callable[[Tensor, Tensor], tuple[Counts, SaturatedLogMass]],
) -> FloatArray:
    """Return the log-mass, given a function of positive counts and their log sizes.

    The function returns the prepared counts and their saturated log-mass.
    """
    value = _outside_support(np.ravel(y))
    flat = [value, np.ravel(y), *(np.ravel(p) for p in predictors)]
    for start in range(0, y.size, BLOCK_ENTRIES):
        out, counts, *predictors_of_block = (x[start : start + BLOCK_ENTRIES] for x in flat)
        zero, positive = counts == 0, (counts > 0) & (counts < np.inf)
        if zero.any():
            out[zero] = family.zeros(
                [torch.from_numpy(p[zero]) for p in predictors_of_block]
            ).value.numpy()
        if positive.any():
            predictors_of_positive = [torch.from_numpy(p[positive]) for p in predictors_of_block]
            prepared, log_mass = saturated(
                torch.from_numpy(counts[positive]), predictors_of_positive[1]
            )
            out[positive] = family.positives(
                prepared, predictors_of_positive, log_mass
            ).value.numpy()
    return value.reshape(y.shape)


def _outside_support(y: FloatArray) -> FloatArray:
    """Return the log-mass of numbers that are not counts: minus infinity, or NaN for NaN."""
    return np.where(np.isnan(y), np.nan, -np.inf)
