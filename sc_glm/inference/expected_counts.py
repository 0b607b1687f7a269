"""Predictions with standard errors and confidence intervals."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, log_expit
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import covariates_in
from sc_glm._likelihood.family import MEAN, ZERO_INFLATION
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import check_part
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.predictor_errors import labels_of_cells, predictor_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.predictor_errors import PredictorErrors

__all__ = ["predictions"]


@documented(ENTRIES)
def predictions(
    model: Any,
    X: Any,
    y: Any = None,
    X_new: Any = None,
    *,
    part: str | None = None,
    genes: str | Sequence[str] | None = None,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> dict[str, pd.DataFrame]:
    r"""Predict expected counts of cells, with standard errors and confidence intervals.

    The standard errors are those of the logarithm of the expected count, by the delta method.
    With the linear predictors :math:`\eta` of the mean and :math:`\zeta` of a zero inflation
    :math:`\pi`, the expected count is :math:`(1 - \pi) e^\eta`, and the variance of its logarithm
    is :math:`V_{\eta\eta} - 2 \pi V_{\eta\zeta} + \pi^2 V_{\zeta\zeta}`. An interval is the
    exponential of a Wald interval.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {X_new}
    part : str, default=None
        None predicts expected counts, as ``predict`` does. The name of a part predicts its value,
        as ``predict_params`` does; standard errors are then those of its linear predictor.
    {genes}
    {kind}
    {groups}
    {level}
    {sample_weight_of_fit}

    Returns
    -------
    dict of str to DataFrame of shape (n_cells, n_genes)
        With the keys

        estimate
            Expected count, or value of the part. NaN if the fit does not determine it.
        standard_error
            Standard error of its logarithm, or of the logit of a zero inflation.
        lower, upper
            Ends of the confidence interval.
        reason
            Why there is no standard error, as in :func:`coefficient_table`; empty if there is one.

    Raises
    ------
    ValueError
        If `X_new` is not valid, if the model has no such part, or if `level` is not between 0 and
        1. Also if a gene is not a gene of the fit.
    {raises_kind}
    {raises_not_of_fit}

    See Also
    --------
    prediction_intervals : Intervals for the counts of new cells.

    Examples
    --------
    A curve with its confidence band:

    >>> import pandas as pd
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import predictions
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> formula = FormulaTransformer("~ bs(pseudotime, df=4)")
    >>> model = make_pipeline(formula, NegBinRegressor()).fit(data.obs, data.counts)
    >>> grid = pd.DataFrame({"pseudotime": [0.2, 0.5, 0.8]})
    >>> curve = predictions(model, data.obs, data.counts, grid)
    >>> columns = ["lower", "estimate", "upper"]
    >>> pd.concat({name: curve[name]["gene_0"] for name in columns}, axis=1).round(2)
       lower  estimate  upper
    0   0.45      0.62   0.84
    1   0.61      0.81   1.07
    2   0.78      1.05   1.41
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    fitted = FittedData.of(model, X, y, genes=genes)
    if part is not None:
        check_part(fitted, part)
    new = covariates_in(X if X_new is None else X_new)
    blocks: dict[str, list[Any]] = {}
    for errors in predictor_errors(
        fitted, model, new, kind=kind, groups=groups, sample_weight=sample_weight
    ):
        of_block = _log_expected_count(errors) if part is None else _predictor(errors, part)
        for name, values in _intervals(of_block, level, part == ZERO_INFLATION).items():
            blocks.setdefault(name, []).append(values)
    joined = {name: np.hstack(values) for name, values in blocks.items()}
    labels = labels_of_cells(new, len(joined["estimate"]))
    return {name: pd.DataFrame(values, labels, fitted.names) for name, values in joined.items()}


class _LinkEstimates(NamedTuple):
    """Estimates on the scale of a link, with variances, degrees of freedom and reasons."""

    estimate: FloatArray
    variance: FloatArray
    df: FloatArray
    reason: NDArray[np.object_]


def _predictor(errors: PredictorErrors, part: str) -> _LinkEstimates:
    return _LinkEstimates(
        errors.predictors[part],
        errors.covariances[part, part],
        errors.df[part],
        errors.reason[part],
    )


def _log_expected_count(errors: PredictorErrors) -> _LinkEstimates:
    of_mean = _predictor(errors, MEAN)
    if ZERO_INFLATION not in errors.predictors:
        return of_mean
    of_inflation = _predictor(errors, ZERO_INFLATION)
    pi = expit(of_inflation.estimate)
    reason = errors.inflation_reason()
    has_errors = of_inflation.reason == ""
    return _LinkEstimates(
        of_mean.estimate + log_expit(-of_inflation.estimate),
        of_mean.variance
        - 2 * pi * errors.covariances[MEAN, ZERO_INFLATION]
        + pi**2 * of_inflation.variance,
        np.where(has_errors, np.minimum(of_mean.df, of_inflation.df), of_mean.df),
        np.where(of_mean.reason == "", reason, of_mean.reason),
    )


def _intervals(
    of_link: _LinkEstimates, level: float, is_probability: bool
) -> dict[str, NDArray[Any]]:
    """Return estimates, standard errors, intervals and reasons; all are cells x genes."""
    known = of_link.reason == ""
    error = np.where(known, np.sqrt(np.maximum(of_link.variance, 0.0)), np.nan)
    half_width = error * stats.t.isf((1 - level) / 2, np.where(known, of_link.df, np.nan))
    estimate = np.where(of_link.reason == "aliased", np.nan, of_link.estimate)
    inverse_link = expit if is_probability else np.exp
    with np.errstate(over="ignore"):
        return {
            "estimate": inverse_link(estimate),
            "standard_error": error,
            "lower": inverse_link(estimate - half_width),
            "upper": inverse_link(estimate + half_width),
            "reason": of_link.reason,
        }
