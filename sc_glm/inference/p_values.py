r"""P-values of test statistics, which far out are known by their logarithms.

Below about :math:`10^{-308}` the tails of the chi-squared and the F distribution are zero in double
precision, and SciPy's own logarithms of them are minus infinity. There the tail probability is the
density times the integral of its relative fall. As a function of the statistic's logarithm that
fall is next to exponential, for which Gauss's quadrature is accurate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special, stats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    FloatArray = NDArray[np.float64]

_FAR = 1e-280  # probability from which on SciPy's may underflow
LEAST_P_VALUE = float(np.finfo(np.float64).tiny)
_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(20)


def log_f_tail(statistic: ArrayLike, df: ArrayLike, df_denominator: ArrayLike) -> FloatArray:
    """Return the logarithm of the F distribution's upper tail.

    Parameters
    ----------
    statistic, df, df_denominator : array-like
        Statistics and degrees of freedom, which broadcast. Infinite ones of the denominator make it
        the chi-squared distribution, of the statistic times ``df``. Of a squared statistic and
        ``df`` one, it is the two-sided tail of the t or the normal distribution.

    Returns
    -------
    ndarray
        NaN where a parameter is.
    """
    f, q, d = np.broadcast_arrays(*(np.asarray(x, float) for x in (statistic, df, df_denominator)))
    normal = np.isinf(d)
    with np.errstate(over="ignore"):
        tail = np.where(normal, stats.chi2.sf(q * f, q), stats.f.sf(f, q, np.where(normal, 1.0, d)))
    result = np.log(tail, out=np.full(tail.shape, -np.inf), where=tail > 0)
    result[np.isnan(tail)] = np.nan
    far = tail < _FAR
    far &= np.isfinite(f)
    result[far] = _far_tail(f[far], q[far], d[far])
    return result


def log_kolmogorov_tail(statistic: FloatArray, n: FloatArray) -> FloatArray:
    """Return the logarithms of two-sided Kolmogorov-Smirnov tests' p-values.

    Those that SciPy may let underflow are twice the one-sided test's, which is the same there
    (Birnbaum and Tingey 1951, Annals of Mathematical Statistics 22: 592).

    Parameters
    ----------
    statistic : ndarray of shape (n_genes,)
    n : ndarray of shape (n_genes,)
        Numbers of observations, which are whole.

    Returns
    -------
    ndarray of shape (n_genes,)
    """
    p_value = stats.kstwo.sf(statistic, n)
    result = np.log(np.maximum(p_value, _FAR))
    for gene in np.flatnonzero(p_value < _FAR):
        result[gene] = _far_kolmogorov_tail(statistic[gene], n[gene])
    return result


def p_value_columns(log_p: FloatArray, prefix: str = "") -> dict[str, FloatArray]:
    """Return columns of a table: p-values, none below the smallest normal number, and log10 p."""
    log_p = np.minimum(log_p, 0.0)
    with np.errstate(under="ignore"):
        p_value = np.maximum(np.exp(log_p), LEAST_P_VALUE)
    return {f"{prefix}p_value": p_value, f"{prefix}log10_p_value": log_p / np.log(10)}


def adjusted(p_values: FloatArray) -> FloatArray:
    """Return p-values adjusted by Benjamini and Hochberg (1995), of the genes that have one."""
    result, known = np.full_like(p_values, np.nan), ~np.isnan(p_values)
    result[known] = stats.false_discovery_control(p_values[known])
    return result


def _far_kolmogorov_tail(distance: float, n: float) -> float:
    i = np.arange(n)
    log_choose = -np.log(n + 1) - special.betaln(i + 1, n - i + 1)
    level = np.minimum(distance + i / n, 1.0)
    with np.errstate(divide="ignore"):
        terms = log_choose + (i - 1) * np.log(level) + (n - i) * np.log1p(-level)
    return float(np.log(2 * distance) + special.logsumexp(terms))


def _far_tail(f: FloatArray, q: FloatArray, d: FloatArray) -> FloatArray:
    """Return the same far out, where the density of the statistic's logarithm falls."""
    s, q, d = np.log(f)[:, None], q[:, None], d[:, None]
    # How fast the logarithm of that density falls
    rate = -q * np.expm1(-s) / (q / d + np.exp(-s)) / 2
    density = _log_density(s, q, d)
    fall = _log_density(s + _NODES / rate, q, d) - density
    return (density - np.log(rate))[:, 0] + np.log(np.exp(fall + _NODES) @ _WEIGHTS)


def _log_density(s: FloatArray, q: FloatArray, d: FloatArray) -> FloatArray:
    """Return the log-density of the logarithm of an F statistic, or of chi-squared by ``q``."""
    a, b = q / 2, np.where(np.isinf(d), 1.0, d / 2)
    ratio = s + np.log(a / b)
    finite = a * ratio - (a + b) * np.logaddexp(0.0, ratio) - special.betaln(a, b)
    with np.errstate(over="ignore"):
        chi_squared = a * (s + np.log(a)) - a * np.exp(s) - special.gammaln(a)
    return np.where(np.isinf(d), chi_squared, finite)
