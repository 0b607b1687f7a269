"""Tail probabilities, quantiles and expected distances of the negative binomial, elementwise.

What a fit does not need and a fitted distribution does. All functions take and return 1-D arrays
of one length; probabilities keep their digits in both tails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from scipy import special

from sc_glm._likelihood.family import (
    Counts,
    Family,
    NegBinFamily,
    SaturatedLogMass,
    positive_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    FloatArray: TypeAlias = NDArray[np.float64]

# A size at which the negative binomial is Poisson to the last digit of a double, for any count
# that a double can tell from its neighbours; the square of it does not overflow.
POISSON_SIZE = 1e40

# Entries worked on at once: the temporaries of a block stay in the processor's cache, and torch
# splits no logarithm of so few over threads, which took ten times longer on a busy machine.
BLOCK = 2**11

# Below this, tail probabilities lose digits to underflow and their logarithms are summed instead.
_UNDERFLOW = 1e-290


def count_predictors(mu: FloatArray, r: FloatArray) -> list[FloatArray]:
    """Return the family's predictors of a mean and a size, which may be infinite."""
    return [np.log(mu), np.log(np.minimum(r, POISSON_SIZE))]


def log_mass(family: Family, y: FloatArray, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass as it is fitted, of arrays of one shape, in blocks."""

    def prepared(y: Tensor, rho: Tensor) -> tuple[Counts, SaturatedLogMass]:
        counts = positive_counts(y)
        return counts, family.saturated(counts, rho)

    return _in_blocks(family, y, predictors, prepared)


def log_mass_ratio(family: Family, y: FloatArray, predictors: Sequence[FloatArray]) -> FloatArray:
    """Return the log-mass less the largest of that size, at ``mu = y`` without zero inflation.

    What a positive count adds to both, through the size alone, is not computed.
    """

    def prepared(y: Tensor, _: Tensor) -> tuple[Counts, SaturatedLogMass]:
        none = torch.zeros_like(y)
        return Counts(y, y.log(), none), SaturatedLogMass(none, none, none)

    return _in_blocks(family, y, predictors, prepared)


def _in_blocks(
    family: Family,
    y: FloatArray,
    predictors: Sequence[FloatArray],
    prepared: Callable[[Tensor, Tensor], tuple[Counts, SaturatedLogMass]],
) -> FloatArray:
    value = outside_support(np.ravel(y))
    flat = [value, np.ravel(y), *(np.ravel(p) for p in predictors)]
    for start in range(0, y.size, BLOCK):
        out, counts, *at = (x[start : start + BLOCK] for x in flat)
        zero, positive = counts == 0, (counts > 0) & (counts < np.inf)
        if zero.any():
            out[zero] = family.zeros([torch.from_numpy(p[zero]) for p in at]).value.numpy()
        if positive.any():
            predictors_there = [torch.from_numpy(p[positive]) for p in at]
            there = prepared(torch.from_numpy(counts[positive]), predictors_there[1])
            out[positive] = family.positives(there[0], predictors_there, there[1]).value.numpy()
    return value.reshape(y.shape)


def outside_support(y: FloatArray) -> FloatArray:
    """Return the log-mass of what is no count: minus infinity, or NaN."""
    return np.where(np.isnan(y), np.nan, -np.inf)


def smallest_integer(
    reached: Callable[..., NDArray[np.bool_]], guess: FloatArray, *arguments: FloatArray
) -> FloatArray:
    """Return the smallest integers from 0 on that have reached, by bisection around a guess."""
    low, high = np.full_like(guess, -1.0), guess.copy()
    step = np.maximum(1.0, np.floor(guess / 64))
    below = np.zeros(guess.shape, dtype=bool)  # has an integer that has not reached been found?
    active = np.arange(guess.size)
    while active.size:
        done = reached(high[active], *(a[active] for a in arguments))
        low[active[~done]] = high[active[~done]]
        below[active[~done]] = True
        active = active[~done]
        high[active] += step[active]
        step[active] *= 2
    step = np.maximum(1.0, np.floor(guess / 64))
    active = np.flatnonzero(~below)
    while active.size:
        trial = high[active] - step[active]
        inside = trial >= 0
        active, trial = active[inside], trial[inside]
        done = reached(trial, *(a[active] for a in arguments))
        low[active[~done]] = trial[~done]
        active = active[done]
        high[active] = trial[done]
        step[active] *= 2
    active = np.arange(guess.size)
    while True:
        middle = np.floor(low[active] + (high[active] - low[active]) / 2)
        # Beyond 2**53 the neighbours of an integer are further than one away.
        between = (middle > low[active]) & (middle < high[active])
        active, middle = active[between], middle[between]
        if not active.size:
            return high
        done = reached(middle, *(a[active] for a in arguments))
        high[active[done]] = middle[done]
        low[active[~done]] = middle[~done]


def tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return P(X <= k) and P(X > k) of the negative binomial (NIST DLMF 8.17.24)."""
    r = np.minimum(r, POISSON_SIZE)
    success, failure = r / (r + mu), mu / (r + mu)
    lower, upper = np.empty_like(k), np.empty_like(k)

    # Each of three forms where it keeps all digits: 1 - success is known only as failure.
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


def log_tails(k: FloatArray, mu: FloatArray, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the logarithms of `tails`, also where these underflow."""
    lower, upper = tails(k, mu, r)
    log_lower = np.where(lower < 0.5, np.log(lower), np.log1p(-upper))
    log_upper = np.where(upper < 0.5, np.log(upper), np.log1p(-lower))
    far = ((lower < _UNDERFLOW) | (upper < _UNDERFLOW)) & (mu > 0)
    if far.any():
        k, mu, r = k[far], mu[far], np.minimum(r[far], POISSON_SIZE)
        next_mass = log_mass(NegBinFamily(), k + 1, count_predictors(mu, r))
        below = k + 1 < mu
        fraction = np.empty_like(k)
        fraction[below] = (k[below] + 1) * _lower_fraction(k[below], mu[below], r[below])
        fraction[~below] = _upper_fraction(k[~below], mu[~below], r[~below])
        log_tail = next_mass + np.log(fraction)
        log_lower[far] = np.where(below, log_tail, 0.0)
        log_upper[far] = np.where(below, 0.0, log_tail)
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

    Didonato and Morris (1992), "Algorithm 708", equations 9 and 10: unlike in the other
    fraction, no term cancels when the size is huge.
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


def mean_distance(y: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return E|X - y| of the negative binomial.

    ``E[X; X > k] = mu P(X* >= k)`` where ``X*`` has size ``r + 1`` and the same probabilities of
    success, thus the mean ``mu (r + 1) / r``.
    """
    value = mu + np.abs(y)  # for y <= 0
    above = y > 0
    y, mu, r = y[above], mu[above], r[above]
    k = np.floor(y)
    at_least_k = np.where(k > 0, tails(np.maximum(k - 1, 0), mu + mu / r, r + 1)[1], 1.0)
    value[above] = y - mu + 2 * (mu * at_least_k - y * tails(k, mu, r)[1])
    return value


def half_mean_difference(mu: FloatArray, r: FloatArray) -> FloatArray:
    r"""Return E|X - X'| / 2 of the negative binomial.

    For integers ``|d| = (1/2pi) \int (1 - cos d t) / (1 - cos t) dt``, so that the expectation
    is an integral of the squared modulus of the characteristic function. By parts, and with
    ``s = tan(t / 2)`` and ``v = mu / r (1 + mu / r)``, it is

    .. math:: \frac{4 r v}{\pi} \int_0^\infty
        \left(1 + \frac{4 v s^2}{1 + s^2}\right)^{-r-1} \frac{ds}{(1 + s^2)^2}.

    With ``s = c sinh(x)`` the integrand is even and analytic for ``|Im x| < pi / 2``, so that the
    trapezoidal rule converges geometrically.
    """
    r = np.minimum(r, POISSON_SIZE)
    rv = mu * (1 + mu / r)
    four_v = 4 * rv / r
    c = 1 / np.sqrt(1 + four_v + 4 * rv)
    # Up to where the integrand is negligible: it falls like exp(-3x) once s > 1, and until then
    # like exp(-(2r+1)x), or faster, if it has far to fall.
    last = np.arcsinh(1 / c) + 13
    steep = (r + 1) * np.log1p(four_v / 2) > 40
    last[steep] = np.minimum(last[steep], 18 / (r[steep] + 0.5) + 3)
    step = 1 / 7
    total = np.full_like(mu, 0.5)
    for n in range(1, int(last.max(initial=0.0) / step) + 1):
        x = n * step
        s2 = (c * np.sinh(x)) ** 2
        weight = np.cosh(x) / (1 + s2) ** 2
        total += weight * np.exp(-(r + 1) * np.log1p(four_v * s2 / (1 + s2)))
    return 4 / np.pi * rv * c * step * total
