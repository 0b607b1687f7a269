"""Random negative binomial counts, drawn by a method that is fast where most counts are zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from sklearn.utils import check_random_state

from sc_glm.distributions.log_mass import POISSON_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]
    RandomSource: TypeAlias = np.random.RandomState | np.random.Generator

# Largest mean of a Poisson count that NumPy draws. Greater counts do not fit into 64 bits.
LARGEST_RATE = 9.2e18

# Mean from which drawing one gamma-distributed rate is faster than drawing cluster after cluster.
_MIN_MEAN_OF_MIXTURE = 2.0

# Smaller sizes are replaced by this one. Counts of a small mean are zero at either size.
_SMALLEST_SIZE = 1e-300


def negative_binomial(rng: RandomSource, mu: FloatArray, r: FloatArray) -> NDArray[np.int64]:
    r"""Draw one negative binomial count of each mean and size, exactly.

    A negative binomial count is a sum of clusters [1]_. The number of clusters is Poisson, and
    their sizes follow the logarithmic series distribution. Clusters arrive after exponential times
    until the time :math:`r \log(1 + \mu/r)`. This time is at most :math:`\mu`. If the first arrival
    is after :math:`\mu`, the count is zero, which takes one comparison. Counts of larger means are
    drawn as Poisson counts with a gamma-distributed rate.

    Parameters
    ----------
    rng : RandomState or Generator
        Source of random numbers.
    mu : ndarray of shape (n,)
        Means, at least 0.
    r : ndarray of shape (n,)
        Sizes, greater than 0; infinity is Poisson.

    Returns
    -------
    ndarray of int64, of shape (n,)
        Counts. Rates above :data:`LARGEST_RATE` are replaced by that rate.

    References
    ----------
    .. [1] M. H. Quenouille (1949), "A relation between the logarithmic, Poisson, and negative
       binomial series", Biometrics 5:162-164.
    """
    counts = np.zeros(mu.size, dtype=np.int64)
    first_arrival = rng.standard_exponential(mu.size)
    is_large = mu >= _MIN_MEAN_OF_MIXTURE
    large = np.flatnonzero(is_large)
    small = np.flatnonzero((first_arrival < mu) & ~is_large)
    with np.errstate(all="ignore"):
        counts[large] = _gamma_poisson(rng, mu[large], r[large])
        counts[small] = _sum_of_clusters(rng, first_arrival[small], mu[small], r[small])
    return counts


def _gamma_poisson(rng: RandomSource, mu: FloatArray, r: FloatArray) -> NDArray[np.int64]:
    """Draw Poisson counts with gamma-distributed rates."""
    r = np.minimum(r, POISSON_SIZE)
    # Divided by r first: mu / r may overflow where the gamma variate is zero.
    rate = rng.standard_gamma(r) / r * mu
    return rng.poisson(np.minimum(rate, LARGEST_RATE))


def _sum_of_clusters(
    rng: RandomSource, arrival: FloatArray, mu: FloatArray, r: FloatArray
) -> FloatArray:
    """Draw the sum of all clusters that arrive in time, given the arrival of the first one."""
    r = np.clip(r, _SMALLEST_SIZE, POISSON_SIZE)
    log_odds = np.log1p(mu / r)
    end = r * log_odds
    counts = np.zeros(arrival.size)
    active = np.flatnonzero(arrival < end)
    while active.size:
        counts[active] += _logarithmic_series(rng, log_odds[active])
        arrival[active] += rng.standard_exponential(active.size)
        active = active[arrival[active] < end[active]]
    return np.minimum(counts, LARGEST_RATE)


def _logarithmic_series(rng: RandomSource, log_odds: FloatArray) -> FloatArray:
    r"""Draw logarithmic series variates with parameter :math:`1 - \exp(-\mathrm{log\_odds})`.

    Each variate is geometric with a random probability of continuation: A. W. Kemp (1981),
    "Efficient generation of logarithmically distributed pseudo-random variables", Applied
    Statistics 30:249-253.
    """
    x = log_odds * rng.random(log_odds.size)
    # The logarithm of 1 - exp(-x), by the form that keeps its digits.
    log_continuation = np.where(x < np.log(2), np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
    return 1.0 + np.floor(rng.standard_exponential(x.size) / -log_continuation)


def check_rng(random_state: int | RandomSource | None) -> RandomSource:
    """Return a source of random numbers: a Generator as it is, others as scikit-learn does."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    return check_random_state(random_state)
