r"""How genes' log sizes depend on their means, from likelihoods that know them more or less well.

Each gene's log size is drawn from a t distribution around a trend in the mean. Trend and spread are
those of the largest marginal likelihood: the product over genes of the integral of likelihood times
distribution. So a gene counts for as much as its counts tell, down to nothing, and no estimate of a
single gene is needed. The tails of the distribution leave genes that are far from the trend about
where they are.

Few genes may have their largest likelihood without any spread, which they then take for certain. A
logarithm of the spread is added, which keeps it off zero and is lost in the likelihood of many
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

DF = 5.0  # degrees of freedom of the genes' distribution around the trend

_TOLD = 2.0  # log-likelihood between sizes, from which on counts tell something
_LEAST_GENES = 10
_GENES_PER_KNOT = 5
_MOST_KNOTS = 5
_NARROWEST = 0.5  # log mean from knot to knot
_BELOW = 0.02  # share of the genes, those of the smallest means, for which the trend is constant
_BEND = 0.5  # standard deviation of the change of slope at a knot, before the genes are seen
_LEAST_SPREAD, _LARGEST_SPREAD = 0.1, 3.0
_BOUND = 10.0  # of the trend's log size


@dataclass(frozen=True)
class DispersionTrend:
    """A natural spline of the log size in the log mean, and how far genes are from it.

    It has a knot for five genes that tell of it, five at most, between which it bends little unless
    genes tell. Beyond the first knot, which leaves out two genes in a hundred, and beyond the last
    it is constant.

    Attributes
    ----------
    log_mean : ndarray of shape (n_knots,)
        Knots: natural logarithms of an average count.
    log_size : ndarray of shape (n_knots,)
        Values there: natural logarithms of ``r``.
    spread : float
        Scale of the t distribution, with five degrees of freedom, of genes' log sizes around the
        trend. It is at least 0.1.
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
        """Return the log size of a typical gene, (n,), by average counts, (n,)."""
        return _basis(self.log_mean, mean) @ self.log_size


class Posterior(NamedTuple):
    """Mean and standard deviation of genes' log sizes, (n_genes,)."""

    mean: FloatArray
    spread: FloatArray


def fit_trend(genes: SizeLikelihood) -> DispersionTrend:
    """Estimate trend and spread by maximum marginal likelihood.

    Raises
    ------
    ValueError
        If too few genes tell of them.
    """
    telling = genes.value.min(axis=1) < -_TOLD
    if telling.sum() < _LEAST_GENES:
        raise ValueError(
            f"A trend of the dispersion needs at least {_LEAST_GENES} genes whose counts tell "
            f"something of theirs; of these {len(telling)}, {telling.sum()} do."
        )
    knots = _knots(genes.mean[telling])
    basis = _basis(knots, genes.mean)
    slopes = np.diff(np.eye(len(knots)), axis=0) / np.diff(knots)[:, None]
    bends = np.diff(slopes, axis=0) / _BEND

    def loss(params: FloatArray) -> tuple[float, FloatArray]:
        spread = np.exp(params[-1])
        z = (genes.log_size - (basis @ params[:-1])[:, None]) / spread
        joint = genes.value + _log_density(z) - params[-1]
        marginal = logsumexp(joint, axis=1, keepdims=True)
        slope = (DF + 1) * z / (DF + z**2) * np.exp(joint - marginal)
        by_trend = slope.sum(axis=1) / spread
        by_spread = (slope * z).sum() - len(z)
        bent = bends @ params[:-1]
        gradient = np.append(bent @ bends - by_trend @ basis, -by_spread - 1.0)
        return 0.5 * bent @ bent - marginal.sum() - params[-1], gradient

    start = np.append(np.zeros(len(knots)), 0.0)
    bounds = [(-_BOUND, _BOUND)] * len(knots)
    bounds.append((np.log(_LEAST_SPREAD), np.log(_LARGEST_SPREAD)))
    found = optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return DispersionTrend(knots, found.x[:-1], float(np.exp(found.x[-1])))


def posterior(genes: SizeLikelihood, trend: DispersionTrend) -> Posterior:
    """Combine each gene's likelihood with the distribution around the trend."""
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
    low, high = np.quantile(log_mean, _BELOW), log_mean.max()
    number = min(_MOST_KNOTS, len(mean) // _GENES_PER_KNOT, 1 + int((high - low) / _NARROWEST))
    return np.linspace(low, high, number)


def _basis(knots: FloatArray, mean: FloatArray) -> FloatArray:
    """Return the splines that are one at a knot and zero at the others."""
    if len(knots) == 1:
        return np.ones((len(mean), 1))
    with np.errstate(divide="ignore"):
        x = np.log(mean).clip(knots[0], knots[-1])
    return CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(x)
