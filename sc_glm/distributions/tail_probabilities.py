"""Tail probabilities of the negative binomial, elementwise, with all digits in both tails.

All functions take and return 1-D arrays of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import special

from sc_glm._likelihood.family import NegBinFamily
from sc_glm.distributions.log_mass import POISSON_SIZE, count_predictors, log_mass

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]

# Probability below which a tail loses digits to underflow. There the logarithm of the tail is
# computed from a continued fraction.
_UNDERFLOW = 1e-290

_MAX_SUMMED_COUNT = 64  # up to which a sum of probabilities takes less time than a beta function


def tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return P(X <= k) and P(X > k) of the negative binomial (NIST DLMF 8.17.24).

    Parameters
    ----------
    k : ndarray of shape (n,)
        Counts.
    mu, r : ndarray of shape (n,)
        Means and sizes; sizes may be infinite.

    Returns
    -------
    lower, upper : ndarray of shape (n,)
        Probabilities of at most `k`, and of more.
    """
    r = np.minimum(r, POISSON_SIZE)
    success, failure = r / (r + mu), mu / (r + mu)
    lower, upper = np.empty_like(k), np.empty_like(k)

    # One of three forms, so that no digits are lost to 1 - success or 1 - failure.
    poisson = r == POISSON_SIZE
    lower[poisson] = special.gammaincc(k[poisson] + 1, mu[poisson])
    upper[poisson] = special.gammainc(k[poisson] + 1, mu[poisson])
    rare = (failure <= 0.5) & ~poisson
    a, b, x = k[rare] + 1, r[rare], failure[rare]
    lower[rare], upper[rare] = special.betaincc(a, b, x), special.betainc(a, b, x)
    common = ~(rare | poisson)
    a, b, x = r[common], k[common] + 1, success[common]
    lower[common], upper[common] = special.betainc(a, b, x), special.betaincc(a, b, x)
    return lower, upper


def lower_tail(k: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return P(X <= k) of the negative binomial, as a sum of probabilities for small counts.

    Parameters are those of :func:`tails`, from whose first result this differs by rounding. It is
    zero where the probability of a zero underflows and `k` is small.
    """
    r = np.minimum(r, POISSON_SIZE)
    total = np.exp(-r * np.log1p(mu / r))
    large = k > _MAX_SUMMED_COUNT
    total[large] = tails(k[large], mu[large], r[large])[0]
    left = np.flatnonzero((k >= 1) & ~large)
    k, mu, r, term = k[left], mu[left], r[left], total[left]
    share = mu / (r + mu)
    for count in range(1, _MAX_SUMMED_COUNT + 1):
        # Each probability from the one before
        term = term * ((r + (count - 1)) / count * share)
        total[left] += term
        further = np.flatnonzero(k > count)
        left, k, r, term = left[further], k[further], r[further], term[further]
        share = share[further]
    return total


def log_tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the logarithms of :func:`tails`, also where these underflow."""
    lower, upper = tails(k, mu, r)
    log_lower = np.where(lower < 0.5, np.log(lower), np.log1p(-upper))
    log_upper = np.where(upper < 0.5, np.log(upper), np.log1p(-lower))
    underflows = ((lower < _UNDERFLOW) | (upper < _UNDERFLOW)) & (mu > 0)
    if underflows.any():
        k, mu, r = k[underflows], mu[underflows], np.minimum(r[underflows], POISSON_SIZE)
        next_mass = log_mass(NegBinFamily(), k + 1, count_predictors(mu, r))
        below = k + 1 < mu
        fraction = np.empty_like(k)
        fraction[below] = (k[below] + 1) * _lower_fraction(k[below], mu[below], r[below])
        fraction[~below] = _upper_fraction(k[~below], mu[~below], r[~below])
        log_tail = next_mass + np.log(fraction)
        log_lower[underflows] = np.where(below, log_tail, 0.0)
        log_upper[underflows] = np.where(below, 0.0, log_tail)
    return log_lower, log_upper


def _continued_fraction(
    numerator: Callable[[int], FloatArray],
    denominator: Callable[[int], FloatArray | float],
    accuracy: float = 1e-14,
    max_terms: int = 20_000,
) -> FloatArray:
    """Evaluate ``b0 + a1 / (b1 + a2 / (b2 + ...))`` by Lentz's method (NIST DLMF 3.10)."""
    tiny = 1e-100
    value = np.asarray(denominator(0), dtype=np.float64)
    c, d = value, np.zeros_like(value)
    for n in range(1, max_terms):
        a, b = numerator(n), denominator(n)
        d = b + a * d
        d = 1 / np.where(d == 0, tiny, d)
        c = b + a / c
        c = np.where(c == 0, tiny, c)
        factor = c * d
        value = value * factor
        if np.all(np.abs(factor - 1) < accuracy):
            break
    return value


def _upper_fraction(k: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return P(X > k) / P(X = k + 1) for k > mu (NIST DLMF 8.17.22)."""
    a, x = k + 1, mu / (r + mu)

    def numerator(n: int) -> FloatArray:
        m = n // 2
        if n % 2:
            return -(a + m) * ((a + m) * x + r * x) / ((a + 2 * m) * (a + 2 * m + 1))
        return m * (r * x - m * x) / ((a + 2 * m - 1) * (a + 2 * m))

    return 1 / _continued_fraction(numerator, lambda _: np.ones_like(k))


def _lower_fraction(k: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return P(X <= k) / (k + 1) / P(X = k + 1) for k + 1 < mu.

    The fraction is that of Didonato and Morris (1992), "Algorithm 708", equations 9 and 10. Unlike
    in :func:`_upper_fraction`, no terms cancel when the size is huge.
    """
    b, x, y = k + 1, r / (r + mu), mu / (r + mu)
    gap = x * (mu - b)

    def numerator(n: int) -> FloatArray:
        scale = (r + n - 1) / (r + 2 * n - 1) * ((r + b + n - 1) / (r + 2 * n - 1))
        return scale * n * (b - n) * x * x

    def denominator(n: int) -> FloatArray:
        rest = (r + n) / (r + 2 * n + 1) * (gap + 1 + n * (1 + y))
        return n + n * (b - n) * x / (r + 2 * n - 1) + rest

    return 1 / _continued_fraction(numerator, denominator)
