r"""P-values of test statistics, and their logarithms where p-values underflow.

The tails of the chi-squared and the F distribution are zero in double precision below about
:math:`10^{-308}`, and SciPy's logarithms of them are minus infinity. There the tail is integrated
by Gauss-Laguerre quadrature, as a function of the logarithm of the statistic: the density falls
almost exponentially in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

_UNDERFLOW = 1e-280  # probability below which SciPy's may underflow
MIN_P_VALUE = float(np.finfo(np.float64).tiny)

# The Kolmogorov distribution is computed from a series for more observations than the first number.
# There n * statistic**1.5 must exceed the second one, and sqrt(n) * statistic be below the third
# (Simard and L'Ecuyer 2011). Terms after the ninth are below the rounding error.
_MIN_SERIES_N, _MIN_SERIES, _MAX_SERIES_Z = 140, 1.4, 2.2**0.5
_SERIES_TERMS = 9

_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(20)


def log_f_tail(statistic: ArrayLike, df: ArrayLike, df_denominator: ArrayLike) -> FloatArray:
    """Return the logarithm of the F distribution's upper tail.

    Parameters
    ----------
    statistic, df, df_denominator : array-like
        Statistics and degrees of freedom, which broadcast. If ``df_denominator`` is infinite,
        ``statistic * df`` has the chi-squared distribution. If ``df`` is one, the result is the
        two-sided tail of the t or normal distribution of the statistic's square root.

    Returns
    -------
    ndarray
        NaN if a parameter is NaN.
    """
    f, q, d = np.broadcast_arrays(*(np.asarray(x, float) for x in (statistic, df, df_denominator)))
    normal = np.isinf(d)
    with np.errstate(over="ignore"):
        tail = np.where(normal, stats.chi2.sf(q * f, q), stats.f.sf(f, q, np.where(normal, 1.0, d)))
    result = np.log(tail, out=np.full(tail.shape, -np.inf), where=tail > 0)
    result[np.isnan(tail)] = np.nan
    underflows = (tail < _UNDERFLOW) & np.isfinite(f)
    result[underflows] = _log_f_tail_by_quadrature(f[underflows], q[underflows], d[underflows])
    return result


def log_t_tail(statistic: ArrayLike, df: ArrayLike) -> FloatArray:
    """Return the logarithm of the upper tail of the t distribution, or of the normal one.

    Parameters
    ----------
    statistic, df : array-like
        Statistics and degrees of freedom, which broadcast. The distribution is normal if ``df`` is
        infinite.
    """
    x, df = np.broadcast_arrays(np.asarray(statistic, float), np.asarray(df, float))
    result = special.log_ndtr(-x)
    other = ~np.isinf(df)
    half = log_f_tail(x[other] ** 2, 1.0, df[other]) - np.log(2)
    with np.errstate(invalid="ignore"):
        result[other] = np.where(x[other] >= 0, half, np.log1p(-np.exp(half)))
    return np.asarray(result)


def log_kolmogorov_tail(statistic: FloatArray, n: FloatArray) -> FloatArray:
    """Return the logarithms of p-values of two-sided Kolmogorov-Smirnov tests.

    Very small p-values are computed as twice the p-value of the one-sided test, which is exact
    (Birnbaum and Tingey 1951, Annals of Mathematical Statistics 22: 592). The two are equal there.

    Parameters
    ----------
    statistic : ndarray of shape (n_genes,)
    n : ndarray of shape (n_genes,)
        Numbers of observations, which are integers.

    Returns
    -------
    ndarray of shape (n_genes,)
    """
    # SciPy takes the series in this range as well, but one p-value at a time.
    z = np.sqrt(n) * statistic
    by_series = (n > _MIN_SERIES_N) & (n * statistic**1.5 > _MIN_SERIES) & (z < _MAX_SERIES_Z)
    p_value = np.empty(np.shape(statistic))
    p_value[by_series] = _kolmogorov_tail_by_series(z[by_series], n[by_series])
    p_value[~by_series] = stats.kstwo.sf(statistic[~by_series], n[~by_series])
    result = np.log(np.maximum(p_value, _UNDERFLOW))
    for gene in np.flatnonzero(p_value < _UNDERFLOW):
        result[gene] = _log_two_sided_by_one_sided(statistic[gene], n[gene])
    return result


def _kolmogorov_tail_by_series(z: FloatArray, n: FloatArray) -> FloatArray:
    """Return p-values at ``z = sqrt(n) * statistic`` by an expansion in ``1 / sqrt(n)``.

    The formula is that of Pelz and Good (1976, Journal of the Royal Statistical Society B 38: 152)
    as Simard and L'Ecuyer (2011, Journal of Statistical Software 39, 11) give it.
    """
    a, b = z**2, np.pi**2
    terms = np.zeros((4, len(z)))
    for k in range(1, _SERIES_TERMS + 1):
        m = b * (2 * k - 1) ** 2 / 4
        odd = np.exp(-m / (2 * a))
        terms[0] += odd
        terms[1] += (m - a) * odd
        terms[2] += (6 * a**3 + 2 * a**2 + (2 * a**2 - 5 * a) * m + (1 - 2 * a) * m**2) * odd
        by_m = (135 * a**2 - 96 * a**3, 212 * a**2 - 60 * a, 5 - 30 * a)
        sixth = -30 * a**3 - 90 * a**4 + by_m[0] * m + by_m[1] * m**2 + by_m[2] * m**3
        terms[3] += sixth * odd
        c = b * k**2
        even = c * np.exp(-c / (2 * a))
        terms[2] -= 2 * z**4 * even
        terms[3] += 30 * z**4 * (3 * a - c) * even
    terms *= np.sqrt(2 * np.pi) / np.stack([z, 6 * z**4, 72 * z**7, 6480 * z**10])
    powers = np.sqrt(n) ** np.arange(4)[:, None]
    return np.asarray(np.clip(1 - (terms / powers).sum(axis=0), 0.0, 1.0))


def p_value_columns(log_p: FloatArray, prefix: str = "") -> dict[str, FloatArray]:
    """Return p-values, at least the smallest normal number, and their logarithms to the base 10."""
    log_p = np.minimum(log_p, 0.0)
    with np.errstate(under="ignore"):
        p_value = np.maximum(np.exp(log_p), MIN_P_VALUE)
    return {f"{prefix}p_value": p_value, f"{prefix}log10_p_value": log_p / np.log(10)}


def adjust_p_values(p_values: FloatArray) -> FloatArray:
    """Return p-values adjusted by Benjamini and Hochberg (1995); genes without one stay NaN."""
    result, known = np.full_like(p_values, np.nan), ~np.isnan(p_values)
    result[known] = stats.false_discovery_control(p_values[known])
    return result


def _log_two_sided_by_one_sided(distance: float, n: float) -> float:
    i = np.arange(n)
    log_choose = -np.log(n + 1) - special.betaln(i + 1, n - i + 1)
    level = np.minimum(distance + i / n, 1.0)
    with np.errstate(divide="ignore"):
        terms = log_choose + (i - 1) * np.log(level) + (n - i) * np.log1p(-level)
    return float(np.log(2 * distance) + special.logsumexp(terms))


def _log_f_tail_by_quadrature(f: FloatArray, q: FloatArray, d: FloatArray) -> FloatArray:
    """Return the logarithm of the F distribution's tail, above the mode of the density of log F."""
    s, q, d = np.log(f)[:, None], q[:, None], d[:, None]
    # Minus the derivative of the log-density, the rate of the exponential that the nodes suit
    rate = -q * np.expm1(-s) / (q / d + np.exp(-s)) / 2
    log_density = _log_density(s, q, d)
    ratio = _log_density(s + _NODES / rate, q, d) - log_density
    return (log_density - np.log(rate))[:, 0] + np.log(np.exp(ratio + _NODES) @ _WEIGHTS)


def _log_density(s: FloatArray, q: FloatArray, d: FloatArray) -> FloatArray:
    """Return the log-density of the logarithm of an F statistic, or of chi-squared / ``q``."""
    a, b = q / 2, np.where(np.isinf(d), 1.0, d / 2)
    ratio = s + np.log(a / b)
    finite = a * ratio - (a + b) * np.logaddexp(0.0, ratio) - special.betaln(a, b)
    with np.errstate(over="ignore"):
        chi_squared = a * (s + np.log(a)) - a * np.exp(s) - special.gammaln(a)
    return np.where(np.isinf(d), chi_squared, finite)
