"""Random negative binomial counts, which cost little where most of them are zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sc_glm.distributions.tail_probabilities import POISSON_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]
    RandomSource: TypeAlias = np.random.RandomState | np.random.Generator

# NumPy draws no Poisson count with a greater mean: it would not fit 64 bits.
LARGEST_RATE = 9.2e18

# Mean from which it is quicker to draw a gamma rate than one cluster after the other.
_MANY = 2.0

# A smaller size makes a count of such a mean positive as often: never.
_SMALLEST_SIZE = 1e-300


def negative_binomial(rng: RandomSource, mu: FloatArray, r: FloatArray) -> NDArray[np.int64]:
    r"""Draw one negative binomial count of each mean and size, exactly.

    Such a count is the sum of a Poisson number of clusters with sizes from the logarithmic
    series [1]_. They arrive one after the other, after exponential times, until the time
    :math:`r \log(1 + \mu/r)` is over. It is at most :math:`\mu`, so that a first arrival after
    :math:`\mu` makes a zero for the price of one comparison. Counts of larger means are Poisson
    with a gamma-distributed rate.

    Parameters
    ----------
    rng : RandomState or Generator
    mu, r : ndarray of shape (n,)
        Means, at least 0, and sizes, greater than 0; infinity is Poisson.

    Returns
    -------
    ndarray of int64, of shape (n,)
        Those that would not fit 64 bits are as if their rate were :data:`LARGEST_RATE`.

    References
    ----------
    .. [1] M. H. Quenouille (1949), "A relation between the logarithmic, Poisson, and negative
       binomial series", Biometrics 5:162-164.
    """
    counts = np.zeros(mu.size, dtype=np.int64)
    first = rng.standard_exponential(mu.size)
    is_large = mu >= _MANY
    large = np.flatnonzero(is_large)
    small = np.flatnonzero((first < mu) & ~is_large)
    with np.errstate(all="ignore"):
        counts[large] = _mixture(rng, mu[large], r[large])
        counts[small] = _clusters(rng, first[small], mu[small], r[small])
    return counts


def _mixture(rng: RandomSource, mu: FloatArray, r: FloatArray) -> NDArray[np.int64]:
    """Draw Poisson counts of gamma rates."""
    r = np.minimum(r, POISSON_SIZE)
    # Divided by r first: mu / r may overflow where the gamma variate is zero.
    rate = rng.standard_gamma(r) / r * mu
    return rng.poisson(np.minimum(rate, LARGEST_RATE))


def _clusters(rng: RandomSource, time: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Sum the clusters that arrive in time, the first at `time`."""
    r = np.clip(r, _SMALLEST_SIZE, POISSON_SIZE)
    log_odds = np.log1p(mu / r)
    end = r * log_odds
    counts = np.zeros(time.size)
    active = np.flatnonzero(time < end)
    while active.size:
        counts[active] += _cluster(rng, log_odds[active])
        time[active] += rng.standard_exponential(active.size)
        active = active[time[active] < end[active]]
    return np.minimum(counts, LARGEST_RATE)


def _cluster(rng: RandomSource, log_odds: FloatArray) -> FloatArray:
    r"""Draw logarithmic series variates with parameter :math:`1 - \exp(-\mathrm{log\_odds})`.

    Each is geometric, with a probability of going on that is itself random: A. W. Kemp (1981),
    "Efficient generation of logarithmically distributed pseudo-random variables", Applied
    Statistics 30:249-253.
    """
    x = log_odds * rng.random(log_odds.size)
    # The logarithm of 1 - exp(-x), by the form that keeps its digits.
    log_going_on = np.where(x < np.log(2), np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
    return 1.0 + np.floor(rng.standard_exponential(x.size) / -log_going_on)
