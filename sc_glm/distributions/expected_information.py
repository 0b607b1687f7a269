r"""Expected information of counts on their linear predictors, entry by entry.

The expected information of the negative binomial is diagonal. On ``eta = log(mu)`` it is
``r mu / (r + mu)``, and on ``rho = log(r)``

.. math:: E\left[\left(\frac{\partial\ell}{\partial\rho}\right)^2\right]
    = \frac12 \left(\frac{\mu}{r + \mu}\right)^2 g(\mu, r),

where ``g`` is near ``r / (r + 1)`` for small means and near one for large sizes. It has no closed
form. It is interpolated in a table, which gives three digits.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from scipy.special import expit

from sc_glm._likelihood.family import (
    Family,
    NegBinFamily,
    ZINBFamily,
    pairs,
    positive_counts,
)
from sc_glm.distributions.log_mass import BLOCK_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

# Ranges of log mean and log size in the table of g, and its step. Beyond the ranges, g hardly
# changes, except that 1 - g is in proportion to 1 / r for large sizes.
_LOG_MEANS = (-12.0, 16.0)
_LOG_SIZES = (-8.0, 5.0)
_STEP = 0.5
# Expectations are sums over all counts up to the first number, and for larger counts integrals over
# panels of this width in log(y), by Gauss-Legendre quadrature with this number of nodes.
_MAX_SUMMED_COUNT = 128
_PANEL_WIDTH, _PANEL_NODES = 0.5, 16


class Zeros(NamedTuple):
    """Log-probability of a zero and its derivatives, at arrays of linear predictors.

    Attributes
    ----------
    log_mass : ndarray
        Log-probability of a zero.
    score : list of ndarray
        Derivative of the log-probability in each predictor.
    family : Family
    """

    log_mass: FloatArray
    score: list[FloatArray]
    family: Family

    @classmethod
    def of(cls, family: Family, predictors: Sequence[FloatArray]) -> Zeros:
        """Compute both at predictors of one shape, in blocks that stay in the cache."""
        log_mass, *score = arrays = [np.empty(p.shape) for p in (predictors[0], *predictors)]
        flat = [array.reshape(-1) for array in arrays]
        for first in range(0, log_mass.size, BLOCK_ENTRIES):
            block = slice(first, first + BLOCK_ENTRIES)
            terms = family.zeros([torch.from_numpy(p.reshape(-1)[block]) for p in predictors])
            for array, values in zip(flat, (terms.value, *terms.score), strict=True):
                array[block] = values.numpy()
        return cls(log_mass, score, family)


def has_expected_information(family: Family) -> bool:
    """Return whether the expected information of a family is known."""
    return isinstance(family, NegBinFamily | ZINBFamily)


def expected_information(
    zeros: Zeros, predictors: Sequence[FloatArray]
) -> dict[tuple[int, int], FloatArray]:
    """Return the expected information of a count on each pair of its linear predictors.

    Parameters
    ----------
    zeros : Zeros
        Log-probability of a zero at the predictors, with its derivatives.
    predictors : sequence of ndarray
        Log mean, log size and, with zero inflation, the logit of its probability; of one shape.

    Returns
    -------
    dict of pair of int to ndarray
        Expected information by pair of predictors, see :func:`~sc_glm._likelihood.family.pairs`.

    Raises
    ------
    ValueError
        If the family is neither a negative binomial nor its zero-inflated form.
    """
    if not has_expected_information(zeros.family):
        raise ValueError(
            f"The expected information of {type(zeros.family).__name__} is not known. "
            "kind='robust' and tests of zeros need it."
        )
    eta, rho, *inflation = predictors
    component = {
        (0, 0): np.exp(eta - np.logaddexp(0.0, eta - rho)),
        (0, 1): np.zeros_like(eta),
        (1, 1): _information_on_log_size(eta, rho),
    }
    if not inflation:
        return component
    # A count is zero, or it is a positive count of the negative binomial component.
    log_mass, (a, b), _ = Zeros.of(NegBinFamily(), predictors[:2])
    mass, pi, not_pi = np.exp(log_mass), expit(inflation[0]), expit(-inflation[0])
    positive = {
        (0, 0): component[0, 0] - mass * a * a,
        (0, 1): -mass * a * b,
        (1, 1): component[1, 1] - mass * b * b,
        # The score of the inflation is -pi. The other scores have mean zero if zeros are included.
        (0, 2): pi * mass * a,
        (1, 2): pi * mass * b,
        (2, 2): -pi * pi * np.expm1(log_mass),
    }
    zero_mass = np.exp(zeros.log_mass)
    return {
        (i, j): zero_mass * zeros.score[i] * zeros.score[j] + not_pi * positive[i, j]
        for i, j in pairs(len(predictors))
    }


def information_in_bases(
    information: dict[tuple[int, int], FloatArray], bases: list[FloatArray]
) -> FloatArray:
    """Return the information on coordinates in the parts' bases, summed over cells.

    Parameters
    ----------
    information : dict of pair of int to ndarray of shape (n_cells, n_genes)
        Information on each pair of linear predictors.
    bases : list of ndarray of shape (n_cells, rank)
        Basis of each part's design.

    Returns
    -------
    ndarray of shape (n_genes, n_params, n_params)
        Information matrix of each gene.
    """
    stops = np.cumsum([0, *(basis.shape[1] for basis in bases)])
    params = [slice(*ends) for ends in pairwise(stops)]
    n_genes = information[0, 0].shape[1]
    matrices = np.empty((n_genes, stops[-1], stops[-1]))
    for (a, b), entries in information.items():
        # One column at a time: the products of all pairs of columns need more memory than designs.
        for i, column in enumerate(bases[a].T, stops[a]):
            matrices[:, i, params[b]] = entries.T @ (column[:, None] * bases[b])
        matrices[:, params[b], params[a]] = matrices[:, params[a], params[b]].transpose(0, 2, 1)
    return matrices


def _information_on_log_size(eta: FloatArray, rho: FloatArray) -> FloatArray:
    """Return the expected information of the negative binomial on the log size."""
    g = np.exp(_log_g().ev(np.clip(eta, *_LOG_MEANS), np.clip(rho, *_LOG_SIZES)))
    g = 1 + (g - 1) * np.exp(np.minimum(_LOG_SIZES[1] - rho, 0.0))
    return 0.5 * expit(eta - rho) ** 2 * g


@lru_cache(maxsize=1)
def _log_g() -> RectBivariateSpline:
    """Return the logarithm of g as a function of log mean and log size."""
    etas, rhos = (np.arange(low, high + _STEP, _STEP) for low, high in (_LOG_MEANS, _LOG_SIZES))
    largest_log_count = _LOG_MEANS[1] - _LOG_SIZES[0] + 4  # in the upper tail of the largest mean
    y, weight = _quadrature(largest_log_count)
    log_g = np.empty((len(etas), len(rhos)))
    counts = positive_counts(torch.from_numpy(y))
    family = NegBinFamily()
    for j, rho in enumerate(rhos):
        saturated = family.saturated(counts, torch.full_like(counts.y, rho))
        for i, eta in enumerate(etas):
            predictors = [torch.full_like(counts.y, x) for x in (eta, rho)]
            terms = family.positives(counts, predictors, saturated)
            zero = Zeros.of(family, [np.array([eta]), np.array([rho])])
            total = weight @ (terms.value.exp() * terms.score[1] ** 2).numpy()
            total += np.exp(zero.log_mass[0]) * zero.score[1][0] ** 2
            log_g[i, j] = np.log(total / (0.5 * expit(eta - rho) ** 2))
    return RectBivariateSpline(etas, rhos, log_g)


def _quadrature(largest_log_count: float) -> tuple[FloatArray, FloatArray]:
    """Return positive counts and their weights in an approximate sum over all positive counts."""
    node, weight = np.polynomial.legendre.leggauss(_PANEL_NODES)
    edges = np.arange(np.log(_MAX_SUMMED_COUNT + 0.5), largest_log_count, _PANEL_WIDTH)
    middle = edges[:, None] + _PANEL_WIDTH / 2
    y = np.exp(middle + node * _PANEL_WIDTH / 2).ravel()
    weights = np.tile(weight * _PANEL_WIDTH / 2, len(middle)) * y
    return np.r_[1.0 : _MAX_SUMMED_COUNT + 1, y], np.r_[np.ones(_MAX_SUMMED_COUNT), weights]
