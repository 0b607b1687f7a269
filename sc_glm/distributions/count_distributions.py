"""The negative binomial and the zero-inflated negative binomial distribution.

Their log-mass is the one that is fitted (:mod:`sc_glm._likelihood.family`). Each adds the tail
probabilities, moments, random counts and scores that a fit does not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import special

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm.distributions.base import CountDistribution
from sc_glm.distributions.docstring_entries import ENTRIES
from sc_glm.distributions.expected_distances import half_mean_difference, mean_distance
from sc_glm.distributions.log_mass import count_predictors
from sc_glm.distributions.random_variates import negative_binomial
from sc_glm.distributions.tail_probabilities import log_tails, tails

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from sc_glm.distributions.random_variates import RandomSource

    FloatArray: TypeAlias = NDArray[np.float64]

__all__ = ["NB", "ZINB"]


@documented(ENTRIES)
class NB(CountDistribution):
    """Negative binomial distributions of counts.

    Parameters
    ----------
    {mu}
    {r}

    Raises
    ------
    {invalid_parameters}

    Examples
    --------
    >>> from sc_glm.distributions import NB
    >>> dist = NB(mu=[1.0, 5.0], r=2.0)
    >>> dist.var()
    array([ 1.5, 17.5])
    >>> dist.pmf([0, 3]).round(4)
    array([0.4444, 0.119 ])
    >>> dist.ppf(0.95)
    array([ 3., 13.])
    >>> dist.rvs((3, 2), random_state=0)
    array([[1, 3],
           [0, 7],
           [1, 5]])
    """

    _family = NegBinFamily()

    def __init__(self, mu: ArrayLike, r: ArrayLike) -> None:
        super().__init__(mu=mu, r=r)

    def mean(self) -> FloatArray:
        """Return the expected count.

        Returns
        -------
        ndarray or float
            ``mu``.
        """
        return self._map(lambda mu, *_: mu)

    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            ``mu + mu**2 / r``.
        """
        return self._map(lambda mu, r: mu + mu / r * mu)

    @staticmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        return count_predictors(*params)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return tails(k, *params)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return tails(k, *params)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return log_tails(k, *params)[0]

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        return log_tails(k, *params)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        return mean_distance(y, *params) - half_mean_difference(*params)

    @staticmethod
    def _draw(rng: RandomSource, *params: FloatArray) -> NDArray[np.int64]:
        return negative_binomial(rng, *params)


@documented(ENTRIES)
class ZINB(CountDistribution):
    """Negative binomial distributions of counts with structural zeros.

    Parameters
    ----------
    mu : array-like
        Means of the negative binomial component, finite and at least 0. The mean of a count is
        ``(1 - pi) * mu``.
    r : array-like
        Sizes of the negative binomial component, greater than 0: its variance is
        ``mu + mu**2 / r``, and ``np.inf`` is Poisson. A size is the *inverse* of what DESeq2 and
        edgeR call dispersion.
    pi : array-like
        Probabilities of a structural zero, from 0 to 1.

    Raises
    ------
    {invalid_parameters}

    Examples
    --------
    >>> from sc_glm.distributions import NB, ZINB
    >>> dist = ZINB(mu=5.0, r=2.0, pi=0.3)
    >>> dist
    ZINB(mu=5, r=2, pi=0.3)
    >>> float(dist.mean())
    3.5
    >>> bool(dist.prob_zero() > 0.3 > NB(5.0, 2.0).prob_zero())
    True
    """

    _family = ZINBFamily()

    def __init__(self, mu: ArrayLike, r: ArrayLike, pi: ArrayLike) -> None:
        super().__init__(mu=mu, r=r, pi=pi)

    @property
    def pi(self) -> FloatArray:
        """Probability of a structural zero."""
        return self._params["pi"]

    def mean(self) -> FloatArray:
        """Return the expected count.

        Returns
        -------
        ndarray or float
            ``(1 - pi) * mu``.
        """
        return self._map(lambda mu, _, pi: (1 - pi) * mu)

    def var(self) -> FloatArray:
        """Return the variance of the count.

        Returns
        -------
        ndarray or float
            ``(1 - pi) * (mu + mu**2 / r + pi * mu**2)``.
        """
        return self._map(lambda mu, r, pi: (1 - pi) * (mu + mu / r * mu + pi * mu * mu))

    def _constraints(self) -> dict[str, tuple[NDArray[np.bool_], str]]:
        return super()._constraints() | {
            "pi": ((self.pi >= 0) & (self.pi <= 1), "at least 0 and at most 1")
        }

    @staticmethod
    def _predictors(*params: FloatArray) -> list[FloatArray]:
        *component, pi = params
        # pi = 1 has no finite logit; see _evaluate_mass.
        return [*count_predictors(*component), np.where(pi < 1, special.logit(pi), 0.0)]

    def _evaluate_mass(
        self, function: Callable[..., FloatArray], y: FloatArray, *params: FloatArray
    ) -> FloatArray:
        value = super()._evaluate_mass(function, y, *params)
        is_zero_for_sure = (params[-1] == 1) & (y >= 0)
        return np.where(is_zero_for_sure, np.where(y == 0, 0.0, -np.inf), value)

    @staticmethod
    def _cdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return pi + (1 - pi) * tails(k, *component)[0]

    @staticmethod
    def _sf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return (1 - pi) * tails(k, *component)[1]

    @staticmethod
    def _logcdf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        lower, upper = log_tails(k, *component)
        lower, upper = np.logaddexp(np.log(pi), np.log1p(-pi) + lower), np.log1p(-pi) + upper
        # Near a probability of one, the complement keeps digits that the sum loses.
        return np.where(upper < np.log(0.5), np.log1p(-np.exp(upper)), lower)

    @staticmethod
    def _logsf(k: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        return np.log1p(-pi) + log_tails(k, *component)[1]

    @staticmethod
    def _crps(y: FloatArray, *params: FloatArray) -> FloatArray:
        *component, pi = params
        mu = component[0]
        distance = pi * y + (1 - pi) * mean_distance(y, *component)
        difference = (1 - pi) ** 2 * half_mean_difference(*component) + pi * (1 - pi) * mu
        return distance - difference

    @staticmethod
    def _draw(rng: RandomSource, *params: FloatArray) -> NDArray[np.int64]:
        *component, pi = params
        counts = negative_binomial(rng, *component)
        positive = np.flatnonzero(counts)
        counts[positive[rng.random(positive.size) < pi[positive]]] = 0
        return counts
