"""Prediction intervals for the counts of new cells."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import covariates_in
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION
from sc_glm._solver.status import Status
from sc_glm.distributions.count_distributions import NB
from sc_glm.distributions.quantiles import smallest_integer
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.predictor_errors import (
    labels_of_cells,
    predictor_errors,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.distributions.count_distributions import ZINB
    from sc_glm.inference.predictor_errors import PredictorErrors

__all__ = ["prediction_intervals"]

# Nodes of the Gauss-Hermite quadrature over the predictor of each part. The probability is accurate
# to 0.005 if the standard error of a log mean is below the coefficient of variation of the counts.
_N_NODES = {MEAN: 5, ZERO_INFLATION: 3, DISPERSION: 3}
# Reasons of a size that is taken as known: it is infinite, or moderated.
_KNOWN_SIZES = [
    *map(str, (Status.POISSON, Status.POISSON_NO_INFLATION, Status.SEPARATED)),
    "moderated",
]
_LEAST_POWER = 1e-6  # of the Box-Cox transformation; it is the logarithm up to rounding
_LEAST_OVERDISPERSION = 1e-9  # in units of the estimate: next to zero
_LEAST_SIZE = 1e-6  # of a first guess
_MAX_ENTRIES = 50_000  # cells x genes whose quantiles are found at a time


@documented(ENTRIES)
def prediction_intervals(
    model: Any,
    X: Any,
    y: Any = None,
    X_new: Any = None,
    *,
    genes: str | Sequence[str] | None = None,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> dict[str, pd.DataFrame]:
    r"""Compute intervals that hold the counts of new cells with a given probability.

    The distribution of a new count is averaged over the errors of the coefficients: the linear
    predictors of all parts have a joint normal distribution around their estimates, with the
    covariance of the fit. The interval has the quantiles of the average. So it is wider than that
    of ``predict_dist(...).interval(level)``, which takes the estimates for the truth and holds too
    few counts after a fit of few cells. The errors of a size are not normal near the Poisson limit;
    there the overdispersion is taken to be normal and not below zero.

    Counts are integers, so that an interval holds at least the probability `level`. Small counts
    are held more often.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {X_new}
    {genes}
    {kind}
    {groups}
    level : float, default=0.95
        Probability that an interval holds the count.
    {sample_weight_of_fit}

    Returns
    -------
    dict of str to DataFrame of shape (n_cells, n_genes)
        With the keys

        lower, upper
            Ends of the interval, which belong to it.
        reason
            Why there is no interval, as in :func:`coefficient_table`; empty if there is one. An
            infinite size, a moderated size and an absent zero inflation are taken as known.

    Raises
    ------
    ValueError
        If `X_new` is not valid, if a gene is not a gene of the fit, or if `level` is not between 0
        and 1.
    {raises_kind}
    {raises_not_of_fit}

    See Also
    --------
    predictions : Confidence intervals of the expected counts.

    Notes
    -----
    The average is computed by Gauss-Hermite quadrature: 15 nodes for a negative binomial model,
    and 45 with a zero inflation.

    Examples
    --------
    After a fit of few cells the intervals are wider than those of the fitted distribution:

    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.inference import prediction_intervals
    >>> X, y = np.arange(8.0)[:, None], [12, 40, 25, 9, 61, 33, 18, 52]
    >>> model = NegBinRegressor().fit(X, y)
    >>> interval = prediction_intervals(model, X, y, [[0.0]])
    >>> int(interval["lower"].loc[0, "y0"]), int(interval["upper"].loc[0, "y0"])
    (3, 65)
    >>> model.predict_dist([[0.0]]).interval(0.95)
    (array([4.]), array([51.]))
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    fitted = FittedData.of(model, X, y, genes=genes)
    new = covariates_in(X if X_new is None else X_new)
    blocks = []
    for errors in predictor_errors(
        fitted, model, new, kind=kind, groups=groups, sample_weight=sample_weight
    ):
        reason = _reasons(errors)
        known = reason == ""
        ends = np.full((2, *reason.shape), np.nan)
        ends[:, known] = _quantiles(fitted, errors, known, [(1 - level) / 2, (1 + level) / 2])
        blocks.append((*ends, reason))
    lower, upper, reason = (np.hstack(values) for values in zip(*blocks, strict=True))
    labels = labels_of_cells(new, len(lower))
    return {
        name: pd.DataFrame(values, labels, fitted.names)
        for name, values in (("lower", lower), ("upper", upper), ("reason", reason))
    }


def _reasons(errors: PredictorErrors) -> NDArray[np.object_]:
    """Return why counts have no interval; parts at a limit are known."""
    of_size = errors.reason[DISPERSION]
    result = np.where(np.isin(of_size, _KNOWN_SIZES), "", of_size)
    of_inflation = errors.inflation_reason()
    result = np.where(of_inflation == "", result, of_inflation)
    return np.where(errors.reason[MEAN] == "", result, errors.reason[MEAN])


def _quantiles(
    fitted: FittedData,
    errors: PredictorErrors,
    known: NDArray[np.bool_],
    probabilities: Sequence[float],
) -> FloatArray:
    """Return quantiles of the counts whose intervals are known, (n_probabilities, n_known)."""
    parts = list(errors.predictors)
    predictors = np.stack([errors.predictors[part][known] for part in parts], axis=1)
    covariance = np.empty((len(predictors), len(parts), len(parts)))
    for (first, second), values in errors.covariances.items():
        i, j = parts.index(first), parts.index(second)
        covariance[:, i, j] = covariance[:, j, i] = values[known]
    nodes, weights = _nodes(parts)
    size = parts.index(DISPERSION)

    def distribution_of(predictors: FloatArray) -> NB | ZINB:
        by_part = zip(parts, np.moveaxis(predictors, -1, 0), strict=True)
        return fitted.distribution_of(dict(by_part))

    result = np.empty((len(probabilities), len(predictors)))
    for start in range(0, len(predictors), _MAX_ENTRIES):
        entries = slice(start, start + _MAX_ENTRIES)
        root = _cholesky(covariance[entries])
        at_nodes = predictors[entries, None] + nodes @ np.swapaxes(root, 1, 2)
        error = np.sqrt(covariance[entries, size, size])[:, None]
        change = at_nodes[..., size] - predictors[entries, None, size]
        at_nodes[..., size] -= change - _change_of_log_size(change, error)
        mixture = _Mixture(distribution_of, at_nodes, weights)
        for row, probability in zip(result, probabilities, strict=True):
            row[entries] = mixture.quantile(probability)
    return result


def _nodes(parts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return nodes, (n_nodes, n_parts), and weights of an average over normal variables."""
    each = [np.polynomial.hermite_e.hermegauss(_N_NODES[part]) for part in parts]
    grids = np.meshgrid(*(nodes for nodes, _ in each), indexing="ij")
    weights = np.prod(np.meshgrid(*(weights for _, weights in each), indexing="ij"), axis=0)
    return np.stack([grid.ravel() for grid in grids], axis=1), weights.ravel() / weights.sum()


def _change_of_log_size(change: FloatArray, error: FloatArray) -> FloatArray:
    """Return changes of a log size that allow for the skewness of its errors.

    The errors of the log size are nearly normal if they are small. Near the Poisson limit they are
    large, and those of the overdispersion are nearly normal. A Box-Cox transformation of the
    overdispersion is between the two: its power is the standard error of the log size, at most 1.

    Parameters
    ----------
    change : ndarray of shape (n, n_nodes)
        Changes of a normal log size.
    error : ndarray of shape (n, 1)
        Its standard error.
    """
    power = np.clip(error, _LEAST_POWER, 1.0)
    return -np.log1p(np.maximum(-power * change, _LEAST_OVERDISPERSION - 1)) / power


def _cholesky(covariance: FloatArray) -> FloatArray:
    """Return lower triangular roots of covariances, of which some variances may be zero."""
    root = np.zeros_like(covariance)
    for j in range(covariance.shape[1]):
        left = covariance[:, j:, j] - (root[:, j:, :j] @ root[:, j, :j, None])[..., 0]
        pivot = np.sqrt(np.maximum(left[:, :1], 0.0))
        root[:, j:, j] = np.where(pivot > 0, left / np.where(pivot > 0, pivot, 1.0), 0.0)
    return root


class _Mixture(NamedTuple):
    """Averages of distributions.

    Attributes
    ----------
    distribution_of : callable
        Distributions from the linear predictors of the parts, which are the last axis.
    at_nodes : ndarray of shape (n, n_nodes, n_parts)
        Linear predictors.
    weights : ndarray of shape (n_nodes,)
    """

    distribution_of: Callable[[FloatArray], NB | ZINB]
    at_nodes: FloatArray
    weights: FloatArray

    def quantile(self, probability: float) -> FloatArray:
        """Return the smallest counts at which distribution functions are at least a probability."""

        def reached(k: FloatArray, numbers: FloatArray) -> NDArray[np.bool_]:
            dist = self.distribution_of(self.at_nodes[numbers.astype(np.intp)])
            return np.asarray(dist.cdf(k[:, None]) @ self.weights >= probability)

        numbers = np.arange(float(len(self.at_nodes)))
        return smallest_integer(reached, self._with_equal_moments().ppf(probability), numbers)

    def _with_equal_moments(self) -> NB:
        """Return negative binomial distributions of the same mean and variance."""
        dist = self.distribution_of(self.at_nodes)
        mean = dist.mean() @ self.weights
        variance = (dist.var() + (dist.mean() - mean[:, None]) ** 2) @ self.weights
        excess = np.maximum(variance / mean - 1, np.finfo(float).eps)
        return NB(mean, np.maximum(mean / excess, _LEAST_SIZE))
