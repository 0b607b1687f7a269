"""Likelihood ratio tests of nested models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import as_pandas, covariates_in
from sc_glm._solver.status import Status
from sc_glm.estimators.base import CountRegressor
from sc_glm.estimators.pipeline import counts_in
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import check_maximum, log_likelihoods
from sc_glm.inference.nesting import compare_nested_models
from sc_glm.inference.p_values import adjust_p_values, log_f_tail, p_value_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.nesting import Nesting

__all__ = ["likelihood_ratio_test"]

# Log-likelihood by which the larger model may be below the smaller one, since both are maximised
# up to a tolerance only.
_LOG_LIKELIHOOD_TOLERANCE = 1e-3


@documented(ENTRIES)
def likelihood_ratio_test(
    reduced: Any, full: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> pd.DataFrame:
    """Test each gene's smaller model against a larger one, both fitted to the same data.

    Parameters
    ----------
    reduced, full : estimator
        Two fitted models; each is a regressor, a pipeline that ends in one, a search over these, or
        an :class:`~sc_glm.adata.AnnDataRegressor`. Each part of the reduced model must be a special
        case of the same part of the full model. A negative binomial model is a special case of a
        zero-inflated one. A model with given sizes is a special case of one that estimates them;
        two models with given sizes need the same ones.
    X : array-like, DataFrame or AnnData
        Covariates of the cells of both fits. A regressor without a pipeline takes the columns of
        its own fit from a DataFrame.
    {y_of_fit}
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene, indexed by name, with columns

        statistic
            Twice the difference of the log-likelihoods, at least zero.
        df
            Number of additional coefficients of the full model.
        p_value
            P-value of the chi-squared distribution, at least 2.2e-308, the smallest normal number.
            If only the reduced model has no zero inflation, or was given an infinite size, the null
            hypothesis is on the boundary of the parameter space. The distribution is then the
            mixture in equal parts of the chi-squared distributions with ``df`` and ``df - 1``
            degrees of freedom (Self and Liang 1987, cases 5 and 6).
        {log10_p_value}
        {p_adjusted}
        reason
            Why there are no numbers; empty if there are. ``all zero`` and ``iteration limit`` are
            the status of a fit. ``a higher maximum was missed``: the full model's likelihood is
            below the reduced model's.

    Raises
    ------
    ValueError
        If the models are not nested, were exchanged or were given different sizes, or if one is
        penalised or moderated. Also if only the full model has a zero inflation, and that has
        covariates: their coefficients have no meaning in the reduced model, and the statistic has
        no known distribution. Test one step after the other.
    {raises_not_of_fit}

    Notes
    -----
    For covariates of the dispersion, the chi-squared distribution needs about two hundred positive
    counts of a gene. With fewer, true hypotheses are rejected too often (see :doc:`/calibration`).

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import likelihood_ratio_test
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> reduced, full = (
    ...     make_pipeline(FormulaTransformer(mean), NegBinRegressor()).fit(data.obs, data.counts)
    ...     for mean in ("~ cell_type", "~ cell_type + pseudotime")
    ... )
    >>> likelihood_ratio_test(reduced, full, data.obs, data.counts)[["statistic", "df"]].round(2)
            statistic  df
    gene
    gene_0       8.42   1
    gene_1      35.06   1
    gene_2      17.30   1
    """
    fits = [
        FittedData.of(model, _columns_of_fit(model, X), counts_in(model, X) if y is None else y)
        for model in (reduced, full)
    ]
    for fitted, name in zip(fits, ("reduced", "full"), strict=True):
        check_maximum(fitted, f"The likelihood ratio of the {name} model")
    smaller, larger = fits
    nesting = compare_nested_models(smaller, larger, sample_weight)
    of_reduced, of_full = (fitted.counts for fitted in fits)
    if y is None and not np.array_equal(of_reduced.cell_digests(), of_full.cell_digests()):
        raise ValueError(
            "The two models were fitted to different counts, for example to different layers. "
            "Likelihoods of different counts cannot be compared."
        )
    smaller_log_likelihood, larger_log_likelihood = (
        log_likelihoods(fitted, *fitted.counts_and_designs(fitted.weights(sample_weight)))
        for fitted in fits
    )
    statistic = 2 * (larger_log_likelihood - smaller_log_likelihood)
    reason = np.full(len(statistic), "", dtype=object)
    reason[statistic < -2 * _LOG_LIKELIHOOD_TOLERANCE] = "a higher maximum was missed"
    for fitted in fits:
        for status in (Status.ALL_ZERO, Status.ITERATION_LIMIT):
            reason[fitted.status == status] = str(status)
    known = reason == ""
    statistic = np.where(known, np.maximum(statistic, 0.0), np.nan)
    log_p_value = np.where(known, _log_p_value(statistic, nesting), np.nan)
    p_values = p_value_columns(log_p_value)
    return pd.DataFrame(
        {
            "statistic": statistic,
            "df": nesting.df,
            **p_values,
            "p_adjusted": adjust_p_values(p_values["p_value"]),
            "reason": reason,
        },
        index=larger.gene_index,
    )


def _log_p_value(statistic: FloatArray, nesting: Nesting) -> FloatArray:
    """Return log p-values of a chi-squared distribution, or of a mixture on the boundary."""
    log_p = log_f_tail(statistic / nesting.df, nesting.df, np.inf)
    if not nesting.on_boundary:
        return log_p
    fewer = nesting.df - 1
    if fewer:
        log_p_fewer = log_f_tail(statistic / fewer, fewer, np.inf)
    else:  # the chi-squared distribution without a degree of freedom is zero
        log_p_fewer = np.where(statistic > 0, -np.inf, 0.0)
    return np.logaddexp(log_p, log_p_fewer) - np.log(2)


def _columns_of_fit(model: Any, X: Any) -> Any:
    """Return the columns that a regressor was fitted on, if a frame also has others."""
    names, X = list(getattr(model, "feature_names_in_", [])), as_pandas(covariates_in(X))
    if not isinstance(model, CountRegressor) or not isinstance(X, pd.DataFrame):
        return X
    return X[names] if names and set(names) <= {*X.columns} else X
