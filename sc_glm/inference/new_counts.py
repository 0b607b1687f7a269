"""Prediction intervals for the counts of new cells."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION
from sc_glm._solver.status import Status
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
    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.inference.predictor_errors import PredictorErrors

__all__ = ["prediction_intervals"]

# Nodes of the Gauss-Hermite quadrature over the predictor of each part
_N_NODES = {MEAN: 9, ZERO_INFLATION: 5, DISPERSION: 5}
# Reasons of a size that is taken as known: it is infinite, or moderated.
_KNOWN_SIZES = [
    *map(str, (Status.POISSON, Status.POISSON_NO_INFLATION, Status.SEPARATED)),
    "moderated",
]
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
    few counts after a fit of few cells.

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
    The average is computed by Gauss-Hermite quadrature: 45 nodes for a negative binomial model,
    and 225 with a zero inflation.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import prediction_intervals
    >>> data = make_counts(20, 1, intercept=4.0, random_state=0)  # few cells
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> interval = prediction_intervals(model, X, data.counts, X[:1])
    >>> int(interval["lower"].iloc[0, 0]), int(interval["upper"].iloc[0, 0])
    >>> model.predict_dist(X[:1]).interval(0.95)
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    fitted = FittedData.of(model, X, y, genes=genes)
    new = X if X_new is None else X_new
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

    def distribution_of(predictors: FloatArray) -> NB | ZINB:
        by_part = zip(parts, np.moveaxis(predictors, -1, 0), strict=True)
        return fitted.distribution_of(dict(by_part))

    result = np.empty((len(probabilities), len(predictors)))
    for start in range(0, len(predictors), _MAX_ENTRIES):
        entries = slice(start, start + _MAX_ENTRIES)
        root = _cholesky(covariance[entries])
        at_nodes = predictors[entries, None] + nodes @ np.swapaxes(root, 1, 2)
        for row, probability in zip(result, probabilities, strict=True):
            guess = distribution_of(predictors[entries]).ppf(probability)
            row[entries] = _quantile_of_average(
                distribution_of, at_nodes, weights, guess, probability
            )
    return result


def _nodes(parts: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Return nodes, (n_nodes, n_parts), and weights of an average over normal variables."""
    each = [np.polynomial.hermite_e.hermegauss(_N_NODES[part]) for part in parts]
    grids = np.meshgrid(*(nodes for nodes, _ in each), indexing="ij")
    weights = np.prod(np.meshgrid(*(weights for _, weights in each), indexing="ij"), axis=0)
    return np.stack([grid.ravel() for grid in grids], axis=1), weights.ravel() / weights.sum()


def _cholesky(covariance: FloatArray) -> FloatArray:
    """Return lower triangular roots of covariances, of which some variances may be zero."""
    root = np.zeros_like(covariance)
    for j in range(covariance.shape[1]):
        left = covariance[:, j:, j] - (root[:, j:, :j] @ root[:, j, :j, None])[..., 0]
        pivot = np.sqrt(np.maximum(left[:, :1], 0.0))
        root[:, j:, j] = np.where(pivot > 0, left / np.where(pivot > 0, pivot, 1.0), 0.0)
    return root


def _quantile_of_average(
    distribution_of: Callable[[FloatArray], NB | ZINB],
    at_nodes: FloatArray,
    weights: FloatArray,
    guess: FloatArray,
    probability: float,
) -> FloatArray:
    """Return the smallest counts at which the average of distribution functions is as large."""

    def reached(k: FloatArray, numbers: FloatArray) -> NDArray[np.bool_]:
        dist = distribution_of(at_nodes[numbers.astype(np.intp)])
        return np.asarray(dist.cdf(k[:, None]) @ weights >= probability)

    return smallest_integer(reached, np.maximum(guess, 0.0), np.arange(float(len(guess))))
