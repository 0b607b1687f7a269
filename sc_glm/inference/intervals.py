"""Confidence intervals of coefficients."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm.inference.constrained_fits import FittedCells
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import coefficient_rows, estimate_coefficients
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import check_maximum
from sc_glm.inference.profile_likelihood import profile_limits

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = ["confidence_intervals"]


@documented(ENTRIES)
def confidence_intervals(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    level: float = 0.95,
    method: str = "wald",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compute confidence intervals of all coefficients.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    level : float, default=0.95
        Confidence level: probability that an interval covers the true coefficient.
    method : {"wald", "profile"}, default="wald"
        ``"wald"``: the estimate plus and minus a multiple of its standard error. ``"profile"``: all
        values that a likelihood ratio test does not reject. At each value the likelihood is
        maximised over the other coefficients. Profile intervals are better if the log-likelihood is
        far from a parabola, which is so for a size near the Poisson limit. They can have one
        infinite end.
        Each coefficient takes some thirty passes over the counts. Profile intervals use the
        likelihood of the model, so that `kind` must be ``"observed"``.
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene and coefficient, with columns

        gene, part, feature
            Names of the gene, the part of the model and the coefficient.
        estimate
            Estimate; NaN if it is infinite.
        lower, upper
            Ends of the interval. A profile interval of an infinite estimate has one infinite end,
            or two if the counts have no information on the coefficient.
        reason
            Why there is no interval, as in :func:`coefficient_table`; empty if there is one.
            ``no end found``: the search for a profile interval found a likelihood above the fit's,
            or did not converge.

    Raises
    ------
    {raises_kind}
    {raises_not_of_fit}
    ValueError
        If `level` is not between 0 and 1, or if `method` is unknown. Also if `method` is
        ``"profile"`` and `kind` is not ``"observed"``, or the model is penalised or moderated.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import confidence_intervals
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> wald = confidence_intervals(model, X, data.counts)
    >>> wald[["part", "feature", "lower", "estimate", "upper"]].round(2)
             part     feature  lower  estimate  upper
    0        mean   Intercept  -0.81     -0.53  -0.24
    1        mean  pseudotime   0.26      0.73   1.20
    2  dispersion   Intercept  -0.61     -0.32  -0.02
    >>> profile = confidence_intervals(model, X, data.counts, method="profile")
    >>> profile[["part", "feature", "lower", "estimate", "upper"]].round(2)
             part     feature  lower  estimate  upper
    0        mean   Intercept  -0.81     -0.53  -0.24
    1        mean  pseudotime   0.26      0.73   1.21
    2  dispersion   Intercept  -0.60     -0.32  -0.01
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    fitted = FittedData.of(model, X, y)
    check_method(fitted, method, kind)
    estimates = estimate_coefficients(fitted, kind, groups, sample_weight)
    if method == "wald":
        lower, upper = estimates.wald_limits(level)
        reason = estimates.reason
    else:
        combinations, errors = estimates.combinations, estimates.standard_errors()
        cells = FittedCells.of(fitted, sample_weight)
        lower, upper = profile_limits(cells, combinations, errors, level)
        reason = np.where(np.isnan(lower) | np.isnan(upper), "no end found", "")
        reason[:, ~combinations.estimable] = "aliased"
        reason = np.where(estimates.reason == "given", "given", reason)
    known = reason == ""
    finite = estimates.reason == ""
    table = coefficient_rows(fitted)
    table["estimate"] = np.where(finite, estimates.estimate[..., 0], np.nan).ravel()
    table["lower"] = np.where(known, lower, np.nan).ravel()
    table["upper"] = np.where(known, upper, np.nan).ravel()
    table["reason"] = reason.ravel()
    return table


def check_method(fitted: FittedData, method: str, kind: str) -> None:
    """Raise a ValueError if a method of intervals is unknown, or does not suit the model."""
    if method not in {"wald", "profile"}:
        raise ValueError(f"method must be 'wald' or 'profile', not {method!r}.")
    if method == "profile":
        if kind != "observed":
            raise ValueError(
                "method='profile' uses the likelihood of the model, so it goes with "
                f"kind='observed', not kind={kind!r}."
            )
        check_maximum(fitted, "A profile likelihood")
