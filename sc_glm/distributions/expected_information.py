r"""Expected information of counts on their linear predictors, entry by entry.

That of the negative binomial is diagonal. On ``eta = log(mu)`` it is ``r mu / (r + mu)``, and on
``rho = log(r)``

.. math:: E\left[\left(\frac{\partial\ell}{\partial\rho}\right)^2\right]
    = \frac12 \left(\frac{\mu}{r + \mu}\right)^2 g(\mu, r),

where ``g`` is near ``r / (r + 1)`` for small means and near one for large sizes. It has no closed
form and is read from a table, to three digits.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline
from scipy.special import expit

from sc_glm._likelihood.family import Family, NegBinFamily, pairs, positive_counts
from sc_glm.distributions.tail_probabilities import BLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

# Range of the table, beyond which g hardly changes, or as 1 / r, and its step.
_LOG_MEANS = (-12.0, 16.0)
_LOG_SIZES = (-8.0, 5.0)
_STEP = 0.5
# Counts of which a sum has each; the others are integrated over panels in log(y).
_SUMMED = 128
_PANEL, _NODES = 0.5, 16


class Zeros(NamedTuple):
    """What a model says of zeros, for arrays of linear predictors.

    Attributes
    ----------
    log_mass : ndarray
        Log-probability of a zero.
    score : list of ndarray
        Derivative of that in each predictor.
    """

    log_mass: FloatArray
    score: list[FloatArray]

    @classmethod
    def of(cls, family: Family, predictors: Sequence[FloatArray]) -> Zeros:
        """Compute them from predictors of one shape, in blocks that stay in cache."""
        log_mass, *score = arrays = [np.empty(p.shape) for p in (predictors[0], *predictors)]
        flat = [array.reshape(-1) for array in arrays]
        for first in range(0, log_mass.size, BLOCK):
            some = slice(first, first + BLOCK)
            terms = family.zeros([torch.from_numpy(p.reshape(-1)[some]) for p in predictors])
            for array, own in zip(flat, (terms.value, *terms.score), strict=True):
                array[some] = own.numpy()
        return cls(log_mass, score)


def expected_information(
    zeros: Zeros, predictors: Sequence[FloatArray]
) -> dict[tuple[int, int], FloatArray]:
    """Return the expected information of a count on each pair of its linear predictors.

    Parameters
    ----------
    zeros : Zeros
        Those of the same predictors.
    predictors : sequence of ndarray
        Log mean, log size and, with zero inflation, its logit; of one shape.

    Returns
    -------
    dict of pair of int to ndarray
        For the pairs that :func:`~sc_glm._likelihood.family.pairs` names.
    """
    eta, rho, *inflation = predictors
    nothing = np.zeros_like(eta)
    component = {
        (0, 0): np.exp(eta - np.logaddexp(0.0, eta - rho)),
        (0, 1): nothing,
        (1, 1): _of_log_size(eta, rho),
    }
    if not inflation:
        return component
    # A count is zero, or a positive one of the component that is no structural zero.
    log_mass, (a, b) = Zeros.of(NegBinFamily(), predictors[:2])
    mass, pi, not_pi = np.exp(log_mass), expit(inflation[0]), expit(-inflation[0])
    positive = {
        (0, 0): component[0, 0] - mass * a * a,
        (0, 1): -mass * a * b,
        (1, 1): component[1, 1] - mass * b * b,
        # The score of the inflation is -pi, and the others' mean is zero with zeros.
        (0, 2): pi * mass * a,
        (1, 2): pi * mass * b,
        (2, 2): -pi * pi * np.expm1(log_mass),
    }
    of_zero = np.exp(zeros.log_mass)
    return {
        (i, j): of_zero * zeros.score[i] * zeros.score[j] + not_pi * positive[i, j]
        for i, j in pairs(len(predictors))
    }


def information_in_bases(
    information: dict[tuple[int, int], FloatArray], bases: list[FloatArray]
) -> FloatArray:
    """Sum the information on predictors over cells to that on coordinates in the parts' bases.

    Parameters
    ----------
    information : dict of pair of int to ndarray of shape (n_cells, n_genes)
    bases : list of ndarray of shape (n_cells, rank)
        One per part.

    Returns
    -------
    ndarray of shape (n_genes, n_params, n_params)
    """
    stops = np.cumsum([0, *(basis.shape[1] for basis in bases)])
    own = [slice(*ends) for ends in pairwise(stops)]
    n_genes = information[0, 0].shape[1]
    whole = np.empty((n_genes, stops[-1], stops[-1]))
    for (a, b), entries in information.items():
        # A column at a time: all products of two columns are many more than the designs.
        for i, column in enumerate(bases[a].T, stops[a]):
            whole[:, i, own[b]] = entries.T @ (column[:, None] * bases[b])
        whole[:, own[b], own[a]] = whole[:, own[a], own[b]].transpose(0, 2, 1)
    return whole


def _of_log_size(eta: FloatArray, rho: FloatArray) -> FloatArray:
    g = np.exp(_log_g().ev(np.clip(eta, *_LOG_MEANS), np.clip(rho, *_LOG_SIZES)))
    g = 1 + (g - 1) * np.exp(np.minimum(_LOG_SIZES[1] - rho, 0.0))
    return 0.5 * expit(eta - rho) ** 2 * g


@lru_cache(maxsize=1)
def _log_g() -> RectBivariateSpline:
    """Return the logarithm of g as a function of log mean and log size."""
    etas, rhos = (np.arange(low, high + _STEP, _STEP) for low, high in (_LOG_MEANS, _LOG_SIZES))
    y, weight = _counts(_LOG_MEANS[1] - _LOG_SIZES[0] + 4)  # where the largest mean has its tail
    log_g = np.empty((len(etas), len(rhos)))
    counts = positive_counts(torch.from_numpy(y))
    family = NegBinFamily()
    for j, rho in enumerate(rhos):
        shape = family.saturated(counts, torch.full_like(counts.y, rho))
        for i, eta in enumerate(etas):
            at = [torch.full_like(counts.y, x) for x in (eta, rho)]
            terms = family.positives(counts, at, shape)
            zero = Zeros.of(family, [np.array([eta]), np.array([rho])])
            total = weight @ (terms.value.exp() * terms.score[1] ** 2).numpy()
            total += np.exp(zero.log_mass[0]) * zero.score[1][0] ** 2
            log_g[i, j] = np.log(total / (0.5 * expit(eta - rho) ** 2))
    return RectBivariateSpline(etas, rhos, log_g)


def _counts(largest: float) -> tuple[FloatArray, FloatArray]:
    """Return positive counts, up to a logarithm, and the weights of a sum over all of them."""
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    middle = np.arange(np.log(_SUMMED + 0.5), largest, _PANEL)[:, None] + _PANEL / 2
    y = np.exp(middle + node * _PANEL / 2).ravel()
    weights = np.tile(weight * _PANEL / 2, len(middle)) * y
    return np.r_[1.0 : _SUMMED + 1, y], np.r_[np.ones(_SUMMED), weights]
