r"""Kolmogorov-Smirnov tests of quantile residuals against the normal distribution.

Let :math:`F` be the empirical distribution of :math:`n` residuals, transformed to be uniform under
the model. For cells of the fit, the p-value comes from the classical test. It is conservative,
since the fit adapts to these cells.

For other cells the error :math:`e` of the coefficients adds to the variance of :math:`F`.
At :math:`u`, the difference :math:`F(u) - u` is the sum of a Brownian bridge with variance
:math:`u (1 - u) / n` and of :math:`g(u) e`, where :math:`g` has the derivatives of the expected
:math:`F` in the coefficients. The covariance of :math:`e` is the inverse of the information
:math:`J` of the fit.

A bound on the second term follows from the information :math:`I` of these cells, which are
:math:`N` by weight. The derivative of :math:`g` at :math:`u` is the mean score of residuals there.
By Jensen's inequality the integral of its square is at most :math:`I / N`. The covariance of
:math:`g e` is thus at most :math:`c = n / N` times the largest eigenvalue of :math:`J^{-1} I`, in
units of the bridge's covariance.

The functions with a statistic below a bound are a symmetric convex set. By the theorem of Anderson
(1955, Proceedings of the American Mathematical Society 6: 170) the set is at least as probable as
under a bridge with :math:`1 + c` times the variance. The test is thus conservative with
:math:`n / (1 + c)` in place of :math:`n`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sc_glm.inference.p_values import log_kolmogorov_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

_ROUNDING = 1e-6  # of a number of cells, which is rounded down to an integer


def kolmogorov_smirnov_statistic(probabilities: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the statistics of weighted residuals.

    Parameters
    ----------
    probabilities : ndarray of shape (n_genes, n_residuals)
        Residuals that are uniform if the model is true.
    weights : ndarray of shape (n_residuals,)

    Returns
    -------
    ndarray of shape (n_genes,)
    """
    if np.ptp(weights) == 0:
        probabilities = np.sort(probabilities, axis=1)
        upper = np.arange(1.0, len(weights) + 1) / len(weights)
        lower = np.append(0.0, upper[:-1])
        differences = (upper - probabilities).max(axis=1), (probabilities - lower).max(axis=1)
        return np.asarray(np.maximum(*differences))
    order, total = np.argsort(probabilities, axis=1), weights.sum()
    upper = np.cumsum(weights[order], axis=1)
    probabilities = np.take_along_axis(probabilities, order, axis=1)
    lower = upper - weights[order]
    differences = np.maximum(upper / total - probabilities, probabilities - lower / total)
    return np.asarray(differences.max(axis=1))


def log_p_values(
    statistic: FloatArray, weights: FloatArray, information_ratio: FloatArray
) -> FloatArray:
    """Return the logarithms of the p-values of statistics.

    Residuals of unequal weight count as fewer residuals of equal weight, by the effective sample
    size of Kish (1965, Survey Sampling).

    Parameters
    ----------
    statistic : ndarray of shape (n_genes,)
    weights : ndarray of shape (n_residuals,)
    information_ratio : ndarray of shape (n_genes,)
        Largest eigenvalue of the information of these cells relative to the fit's; zero for the
        cells of the fit.

    Returns
    -------
    ndarray of shape (n_genes,)
    """
    total = weights.sum()
    n_effective = total**2 / np.square(weights).sum()
    n_effective = n_effective / (1 + information_ratio * n_effective / total)
    n = np.maximum(np.floor(n_effective + _ROUNDING), 1.0)
    return log_kolmogorov_tail(statistic, n)
