r"""The trend of log sizes over means, and the variation of genes around it.

The log size of each gene is drawn from a t distribution around a trend in the mean. Trend and
spread maximise the marginal likelihood, which is the product over genes of the integral of a gene's
likelihood over this distribution. Genes with little information on their size therefore have little
weight, and no estimate of a single gene is needed. The heavy tails of the t distribution keep genes
that are far from the trend close to their own estimates.

With few genes, the spread of maximum likelihood may be zero. The logarithm of the spread is added
to the marginal log-likelihood, which keeps the spread positive and is negligible with many genes
(Chung et al. 2013, Psychometrika 78: 685).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize
from scipy.interpolate import CubicSpline
from scipy.special import gammaln, logsumexp

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.moderation.size_profile import SizeLikelihood

DF = 5.0  # degrees of freedom of the distribution of genes around the trend

# Range of a gene's log-likelihood over the log sizes, above which it has information on its size
_MIN_LIKELIHOOD_RANGE = 2.0
_MIN_GENES = 10
_GENES_PER_KNOT = 5
_MAX_KNOTS = 5
_MIN_KNOT_DISTANCE = 0.5  # log mean
_FIRST_KNOT_QUANTILE = 0.02  # of the means; the trend is constant below
_SLOPE_CHANGE_SD = 0.5  # prior standard deviation of the change of slope at a knot
_MIN_SPREAD, _MAX_SPREAD = 0.1, 3.0
_MAX_ABS_LOG_SIZE = 10.0  # of the trend


@dataclass(frozen=True)
class DispersionTrend:
    """A natural spline of the log size in the log mean, and the spread of genes around it.

    The spline has one knot for every five genes with information on their size, and at most five
    knots. A prior keeps changes of slope small. The first knot is the second percentile of the
    means of these genes, and the last knot is their maximum. Beyond both the trend is constant.

    Attributes
    ----------
    log_mean : ndarray of shape (n_knots,)
        Knots: natural logarithms of an average count.
    log_size : ndarray of shape (n_knots,)
        Values at the knots: natural logarithms of ``r``.
    spread : float
        Scale of the t distribution, with five degrees of freedom, of log sizes around the trend.
        It is at least 0.1.
    """

    log_mean: FloatArray
    log_size: FloatArray
    spread: float

    def overdispersion(self, mean: ArrayLike) -> FloatArray:
        """Return ``1 / r`` of a typical gene.

        Parameters
        ----------
        mean : array-like of shape (n,)
            Average counts.

        Returns
        -------
        ndarray of shape (n,)
        """
        return np.exp(-self.at(np.asarray(mean, dtype=np.float64)))

    def at(self, mean: FloatArray) -> FloatArray:
        """Return the log size of a typical gene.

        Parameters
        ----------
        mean : ndarray of shape (n,)
            Average counts.

        Returns
        -------
        ndarray of shape (n,)
        """
        return _basis(self.log_mean, mean) @ self.log_size


class Posterior(NamedTuple):
    """Posterior means and standard deviations of log sizes, (n_genes,)."""

    mean: FloatArray
    spread: FloatArray


def fit_trend(genes: SizeLikelihood) -> DispersionTrend:
    """Estimate trend and spread by maximum marginal likelihood.

    Raises
    ------
    ValueError
        If too few genes have information on their size.
    """
    is_informative = genes.value.min(axis=1) < -_MIN_LIKELIHOOD_RANGE
    if is_informative.sum() < _MIN_GENES:
        raise ValueError(
            f"Dispersion shrinkage needs at least {_MIN_GENES} genes whose counts contain "
            f"information on their dispersion; of these {len(is_informative)} genes, "
            f"{is_informative.sum()} do. Fit more genes or more cells."
        )
    knots = _knots(genes.mean[is_informative])
    basis = _basis(knots, genes.mean)
    slopes = np.diff(np.eye(len(knots)), axis=0) / np.diff(knots)[:, None]
    slope_changes = np.diff(slopes, axis=0) / _SLOPE_CHANGE_SD

    def loss(params: FloatArray) -> tuple[float, FloatArray]:
        spread = np.exp(params[-1])
        z = (genes.log_size - (basis @ params[:-1])[:, None]) / spread
        joint = genes.value + _log_density(z) - params[-1]
        marginal = logsumexp(joint, axis=1, keepdims=True)
        score = (DF + 1) * z / (DF + z**2) * np.exp(joint - marginal)
        by_trend = score.sum(axis=1) / spread
        by_spread = (score * z).sum() - len(z)
        scaled = slope_changes @ params[:-1]
        gradient = np.append(scaled @ slope_changes - by_trend @ basis, -by_spread - 1.0)
        return 0.5 * scaled @ scaled - marginal.sum() - params[-1], gradient

    start = np.append(np.zeros(len(knots)), 0.0)
    bounds = [(-_MAX_ABS_LOG_SIZE, _MAX_ABS_LOG_SIZE)] * len(knots)
    bounds.append((np.log(_MIN_SPREAD), np.log(_MAX_SPREAD)))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return DispersionTrend(knots, found.x[:-1], float(np.exp(found.x[-1])))


def posterior(genes: SizeLikelihood, trend: DispersionTrend) -> Posterior:
    """Compute posterior means and standard deviations, with the trend as prior, by quadrature."""
    z = (genes.log_size - trend.at(genes.mean)[:, None]) / trend.spread
    weight = genes.value + _log_density(z)
    weight = np.exp(weight - logsumexp(weight, axis=1, keepdims=True))
    mean = (weight * genes.log_size).sum(axis=1)
    variance = (weight * (genes.log_size - mean[:, None]) ** 2).sum(axis=1)
    return Posterior(mean, np.sqrt(variance))


def _log_density(z: FloatArray) -> FloatArray:
    constant = gammaln((DF + 1) / 2) - gammaln(DF / 2) - 0.5 * np.log(DF * np.pi)
    return constant - (DF + 1) / 2 * np.log1p(z**2 / DF)


def _knots(mean: FloatArray) -> FloatArray:
    log_mean = np.log(mean)
    low, high = np.quantile(log_mean, _FIRST_KNOT_QUANTILE), log_mean.max()
    number = min(
        _MAX_KNOTS, len(mean) // _GENES_PER_KNOT, 1 + int((high - low) / _MIN_KNOT_DISTANCE)
    )
    return np.linspace(low, high, number)


def _basis(knots: FloatArray, mean: FloatArray) -> FloatArray:
    """Return the natural splines that are one at a knot and zero at the others."""
    if len(knots) == 1:
        return np.ones((len(mean), 1))
    with np.errstate(divide="ignore"):
        x = np.log(mean).clip(knots[0], knots[-1])
    return CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(x)
