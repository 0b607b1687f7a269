"""Covariances and standard errors of coefficients, and the table of their tests against zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._design.layout import INTERCEPT
from sc_glm._likelihood.family import MEAN
from sc_glm.formula.column_names import term_and_level
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import coefficient_rows, estimate_coefficients
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.p_values import adjust_p_values, log_f_tail, p_value_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.estimates import Estimates

__all__ = ["coefficient_table", "covariance", "standard_errors"]


@documented(ENTRIES)
def covariance(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Estimate the covariance of each gene's coefficients, jointly for all parts of the model.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    ndarray of shape (n_genes, n_coefficients, n_coefficients)
        The coefficients are in the order of ``params_``, one part after the other. Rows and columns
        of coefficients without a variance are NaN; :func:`coefficient_table` has the reasons.

    Raises
    ------
    {raises_kind}
    {raises_not_of_fit}

    Notes
    -----
    For a penalised fit, the result is the covariance of the penalised estimates. It does not
    account for their bias.

    Weights multiply log-likelihoods and scores. A cell of weight two counts as two cells for
    ``"observed"``. For ``"robust"`` it counts as one cell with twice the score, since copies of a
    cell are not independent.

    The plain sandwich of few groups is too small, for two reasons. First, the fit adapts to the
    scores of each group; CR2 corrects for this (Bell and McCaffrey 2002, Survey Methodology 28:
    169). Second, few groups estimate a variance with a large error; tests and intervals account
    for this by Satterthwaite's degrees of freedom. If groups differ much in their numbers of cells,
    this needs weights: see :doc:`/calibration`.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import covariance
    >>> data = make_counts(random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> covariance(model, X, data.counts).shape
    (20, 3, 3)
    """
    fitted = FittedData.of(model, X, y)
    estimates = estimate_coefficients(fitted, kind, groups, sample_weight)
    to_coef = estimates.combinations.theta_matrix[:, 0]
    result = to_coef @ estimates.covariance @ to_coef.T
    unknown = estimates.reason != ""
    result[unknown[:, :, None] | unknown[:, None, :]] = np.nan
    return result


@documented(ENTRIES)
def standard_errors(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> dict[str, pd.DataFrame]:
    """Estimate the standard errors of all coefficients.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    dict of str to DataFrame
        For each part, a table of features x genes, like ``params_``. Coefficients without a
        standard error are NaN; :func:`coefficient_table` has the reasons.

    Raises
    ------
    {raises_kind}
    {raises_not_of_fit}

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import standard_errors
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> standard_errors(model, X, data.counts)["mean"].round(3)
                gene_0  gene_1  gene_2
    Intercept    0.142   0.147   0.189
    pseudotime   0.244   0.258   0.416
    """
    fitted = FittedData.of(model, X, y)
    errors = estimate_coefficients(fitted, kind, groups, sample_weight).standard_errors().T
    stops = np.cumsum([len(table) for table in fitted.params.values()])
    pieces = np.split(errors, stops[:-1])
    return {
        part: pd.DataFrame(piece, index=table.index, columns=table.columns)
        for (part, table), piece in zip(fitted.params.items(), pieces, strict=True)
    }


@documented(ENTRIES)
def coefficient_table(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Return a table of all coefficients, with their tests against zero.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene and coefficient, with columns

        gene, part, feature
            Names of the gene, the part of the model and the coefficient.
        term, level
            Term of the formula and level of its factor, from the name of the coefficient. The level
            is empty for a number.
        estimate
            Estimate on the scale of the predictor: a natural logarithm, or a logit for the zero
            inflation.
        standard_error
            Standard error of the estimate, of the given `kind`.
        log2_fold_change
            ``estimate / log(2)`` for coefficients of the mean other than the intercept; NaN for all
            others.
        statistic
            ``estimate / standard_error``.
        df
            Degrees of freedom of the t distribution that the statistic is compared with. They are
            the effective number of groups, or cells, that carry the information. They are infinite
            for ``kind="observed"``, which uses the normal distribution.
        p_value
            Two-sided p-value, at least 2.2e-308, the smallest normal number.
        {log10_p_value}
        p_adjusted
            P-value adjusted over the genes of the same coefficient (Benjamini and Hochberg 1995).
        reason
            Why the row has no numbers; empty if it has numbers:

            - ``aliased``: the column depends on other columns, or is zero;
            - ``one group decides``, ``one cell decides``: one group or cell has a leverage of
              nearly one, so that the variance cannot be estimated;
            - ``too few groups``: there is less than one degree of freedom;
            - ``moderated``: :mod:`sc_glm.moderation` has changed the coefficient;
            - ``given``: it is the logarithm of a given `size`;
            - ``not at a maximum``: the likelihood has no maximum at the coefficients;
            - the status of the gene, such as ``separated`` (the coefficient is infinite) or
              ``Poisson boundary`` (the size is infinite).

    Raises
    ------
    {raises_kind}
    {raises_not_of_fit}

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import coefficient_table
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> table = coefficient_table(model, X, data.counts)
    >>> table.loc[table["feature"] == "pseudotime", ["gene", "estimate", "p_value"]].round(3)
         gene  estimate  p_value
    1  gene_0     0.206    0.399
    4  gene_1    -0.922    0.000
    7  gene_2    -1.628    0.000
    """
    fitted = FittedData.of(model, X, y)
    estimates = estimate_coefficients(fitted, kind, groups, sample_weight)
    table = tests_against_zero(fitted, estimates)
    names = pd.unique(table["feature"])
    named = {name: term_and_level(name) for name in names}
    table.insert(3, "term", [named[name][0] for name in table["feature"]])
    table.insert(4, "level", [named[name][1] for name in table["feature"]])
    return table


def tests_against_zero(fitted: FittedData, estimates: Estimates) -> pd.DataFrame:
    """Return the table of :func:`coefficient_table`."""
    error = estimates.standard_errors()
    statistic = estimates.estimate[..., 0] / error
    p_values = p_value_columns(log_f_tail(statistic**2, 1.0, estimates.df))
    table = coefficient_rows(fitted)
    is_fold_change = (table["part"] == MEAN) & (table["feature"] != INTERCEPT)
    table["estimate"] = estimates.estimate.ravel()
    table["standard_error"] = error.ravel()
    table["log2_fold_change"] = np.where(is_fold_change, table["estimate"] / np.log(2), np.nan)
    table["statistic"] = statistic.ravel()
    table["df"] = estimates.df.ravel()
    table = table.assign(**{name: column.ravel() for name, column in p_values.items()})
    table["p_adjusted"] = np.nan
    table.loc[estimates.reason.ravel() != "", list(table.columns[3:])] = np.nan
    columns = [adjust_p_values(p) for p in table["p_value"].to_numpy().reshape(statistic.shape).T]
    table["p_adjusted"] = np.column_stack(columns).ravel()
    table["reason"] = estimates.reason.ravel()
    return table
