"""What fitted coefficients tell: standard errors, intervals, tests and information criteria.

All functions take a fitted model and the data of its fit, and answer for all genes at once. A
coefficient that the counts or the design leave open has no number, and a word that says why.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.utils import check_scalar

from sc_glm._contract.validation import as_pandas, group_codes
from sc_glm._design.layout import INTERCEPT
from sc_glm._likelihood.family import MEAN
from sc_glm._solver.status import Status
from sc_glm.estimators.base import CountRegressor
from sc_glm.formula.transformer import linear_constraints
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.linear_combinations import (
    LinearCombinations,
    covariance_method,
    log_likelihoods,
    uncertainty,
)
from sc_glm.inference.nesting import nesting_of
from sc_glm.inference.p_values import adjusted, log_f_tail, p_value_columns
from sc_glm.inference.profile_likelihood import profile_limits
from sc_glm.inference.summary import GeneSummary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray

__all__ = [
    "GeneSummary",
    "aic",
    "bic",
    "coefficient_table",
    "confidence_intervals",
    "covariance",
    "gene_summary",
    "likelihood_ratio_test",
    "standard_errors",
    "wald_test",
]

_LEVEL = 0.95  # of a summary's intervals
_BELOW = 1e-3  # log-likelihood by which a model may be below one that is part of it, by rounding


def covariance(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> FloatArray:
    """Estimate the covariance of each gene's coefficients, of all parts jointly.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        The cells of the fit, as the model takes them.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        The counts of the fit; None where `X` is an AnnData that holds them.
    kind : {"observed", "robust", "cluster"}, default="observed"
        ``"observed"`` inverts the observed information, and is right if the model is and cells are
        independent. ``"robust"`` is the sandwich HC0: right for independent cells whose
        distribution is another one, as long as the fitted parts are, and more than a few cells tell
        of a coefficient. ``"cluster"`` is for cells that are alike within groups, such as donors:
        the groups are taken to be independent, and the sandwich is enlarged for their small number
        (CR2, see Notes).
    groups : array-like of shape (n_cells,), default=None
        Each cell's group, for ``kind="cluster"``.
    sample_weight : array-like of shape (n_cells,), default=None
        The weights of the fit. They multiply log-likelihoods and scores: ``"observed"`` counts a
        cell of weight two as two, ``"robust"`` as one whose score is doubled, since repetitions
        are not independent.

    Returns
    -------
    ndarray of shape (n_genes, n_coefficients, n_coefficients)
        Coefficients are ordered as in ``params_``, one part after the other. Rows and columns of
        those that have no variance are NaN; :func:`coefficient_table` says why.

    Raises
    ------
    ValueError
        If `kind` or `groups` is not what it should be, or the data are not those of the fit.

    Notes
    -----
    With a penalty, it is the covariance of the penalised estimate, whose bias it does not know.

    The plain sandwich of few groups is too small, for two reasons: a fit follows each group's
    scores, and few groups estimate a variance badly. CR2 (Bell and McCaffrey 2002) mends the first;
    tests and intervals mend the second by Satterthwaite's degrees of freedom. Groups of very
    different numbers of cells need weights for that to hold: see :doc:`/calibration`.

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
    found = _coefficients(fitted, kind, groups, sample_weight)
    of_coef = found.combinations.of_theta[:, 0]
    result = of_coef @ found.covariance @ of_coef.T
    unknown = found.reason != ""
    result[unknown[:, :, None] | unknown[:, None, :]] = np.nan
    return result


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
    model, X, y, kind, groups, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    dict of str to DataFrame
        By part, features x genes, like ``params_``; NaN for a coefficient that has none.

    Raises
    ------
    ValueError
        As :func:`covariance`.

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
    found = _coefficients(fitted, kind, groups, sample_weight)
    errors = np.where(found.reason == "", found.standard_error(), np.nan).T
    stops = np.cumsum([len(table) for table in fitted.params.values()])
    pieces = np.split(errors, stops[:-1])
    return {
        part: pd.DataFrame(piece, index=table.index, columns=table.columns)
        for (part, table), piece in zip(fitted.params.items(), pieces, strict=True)
    }


def coefficient_table(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Put all coefficients into one table, with their tests against zero.

    Parameters
    ----------
    model, X, y, kind, groups, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    DataFrame
        One row per gene and coefficient, with columns

        target, part, feature
            Which coefficient it is.
        estimate
            Natural logarithm, or logit for the zero inflation.
        standard_error
            By the kind asked for.
        log2_fold_change
            ``estimate / log(2)``, of coefficients of the mean but the intercept; else NaN.
        statistic
            ``estimate / standard_error``.
        df
            Degrees of freedom of the t distribution that it is referred to: how many groups, or
            cells, tell of the coefficient. Infinite for ``kind="observed"``: the normal one.
        p_value
            Of both sides; none is below 2.2e-308, the smallest normal number.
        log10_p_value
            Its logarithm to the base 10, which has no such end: rank by it.
        p_adjusted
            By Benjamini and Hochberg (1995), over the genes of the same coefficient.
        reason
            Why there are no numbers, else empty: ``aliased`` (it depends on other columns, or is
            zero); ``one group decides`` (one of the `groups` holds nearly all that is known of it),
            ``one cell decides`` and ``too few groups``; ``moderated`` (see
            :mod:`sc_glm.moderation`); ``not at a maximum``; or the gene's status, such as
            ``separated`` (the coefficient is infinite) or ``Poisson boundary`` (the size is).

    Raises
    ------
    ValueError
        As :func:`covariance`.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import coefficient_table
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> table = coefficient_table(model, X, data.counts)
    >>> table.loc[table["feature"] == "pseudotime", ["target", "estimate", "p_value"]].round(3)
       target  estimate  p_value
    1  gene_0     0.206    0.399
    4  gene_1    -0.922    0.000
    7  gene_2    -1.628    0.000
    """
    fitted = FittedData.of(model, X, y)
    return _tests_against_zero(fitted, _coefficients(fitted, kind, groups, sample_weight))


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
    """Find confidence intervals of all coefficients.

    Parameters
    ----------
    model, X, y
        As for :func:`covariance`.
    level : float, default=0.95
        Probability with which an interval holds the true coefficient.
    method : {"wald", "profile"}, default="wald"
        ``"wald"``: the estimate and so many standard errors. ``"profile"``: all values at which the
        likelihood, maximised over the other coefficients, is not significantly lower than at the
        estimate. It is better where the likelihood is far from a parabola, as for a size near the
        Poisson limit, and knows intervals with one infinite end; it takes some thirty passes over
        the counts for each coefficient. It stands on the model's likelihood: `kind` is then
        ``"observed"``.
    kind, groups, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    DataFrame
        One row per gene and coefficient, with columns target, part, feature, estimate, lower, upper
        and reason: why there are no numbers, else empty, as in :func:`coefficient_table`. A profile
        interval of an infinite estimate, which is NaN here, has one infinite end, or two where the
        counts say nothing. ``no end found`` is the reason where the search met a likelihood that is
        higher than the fit's, or did not come to its maximum.

    Raises
    ------
    ValueError
        As :func:`covariance`; if `level` is not between 0 and 1, or `method` not one of these or at
        odds with `kind` or with a penalty.

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
    if method not in {"wald", "profile"}:
        raise ValueError(f"method must be 'wald' or 'profile', not {method!r}.")
    fitted = FittedData.of(model, X, y)
    if method == "profile":
        if kind != "observed":
            raise ValueError(
                f"kind={kind!r} has no profile likelihood: that stands on the model's own, so "
                "method='profile' goes with kind='observed'."
            )
        _check_maximal(fitted, "A profile likelihood")
    found = _coefficients(fitted, kind, groups, sample_weight)
    table = _named(fitted)
    estimate, reason = found.estimate[..., 0], found.reason
    if method == "wald":
        lower, upper = found.wald_limits(level)
    else:
        errors = found.standard_error()
        lower, upper = profile_limits(fitted, found.combinations, errors, level, sample_weight)
        reason = np.where(np.isnan(lower) | np.isnan(upper), "no end found", "")
        reason[:, ~found.combinations.estimable] = "aliased"
    known = reason == ""
    table["estimate"] = np.where(found.reason == "", estimate, np.nan).ravel()
    table["lower"] = np.where(known, lower, np.nan).ravel()
    table["upper"] = np.where(known, upper, np.nan).ravel()
    table["reason"] = reason.ravel()
    return table


def wald_test(
    model: Any,
    X: Any,
    y: Any = None,
    constraint: str | Sequence[str] | None = None,
    *,
    part: str = MEAN,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Test linear hypotheses about coefficients, for every gene.

    Parameters
    ----------
    model, X, y
        As for :func:`covariance`.
    constraint : str or list of str
        The hypothesis, as formulaic writes it: ``"clusters[T.Beta] - clusters[T.Alpha] = 0"``.
        Several, separated by commas or in a list, are tested together. Without ``=``, the
        right-hand side is zero. Names are those of ``params_``, with or without backquotes around
        them. A name that also reads as a sum of others needs these, unless it is all of the text:
        ``"2 * `a-b` = c"``.
    part : str, default="mean"
        The part whose coefficients are meant.
    kind, groups, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    DataFrame
        One row per gene, indexed by name, with columns

        estimate
            The left-hand side less the right-hand side; NaN where several are tested together.
        standard_error
            That of the estimate.
        log2_fold_change
            ``estimate / log(2)``, for the mean; else NaN.
        statistic
            Wald's: the squared distance of the estimate from the hypothesis, in units of its
            covariance.
        df
            Number of constraints: of the chi-squared distribution that the statistic has.
        df_denominator
            Of the F distribution that the statistic by ``df`` is referred to; infinite for
            ``kind="observed"``, where it is chi-squared (see :mod:`sc_glm.inference.covariance`).
        p_value
            Of the statistic's distribution; none is below 2.2e-308, the smallest normal number.
        log10_p_value
            Its logarithm to the base 10, which has no such end: rank by it.
        p_adjusted
            By Benjamini and Hochberg (1995), over the genes.
        reason
            Why there are no numbers, else empty, as in :func:`coefficient_table`. Combinations of
            aliased columns that the model does determine, such as a difference of two groups, have
            numbers.

    Raises
    ------
    TypeError
        If `constraint` is no text.
    ValueError
        As :func:`covariance`; if the model has no such part, or the constraint does not parse or
        names no coefficient of it.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import wald_test
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> model = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    >>> model = model.fit(data.obs, data.counts)
    >>> test = wald_test(model, data.obs, data.counts, "cell_type[T.b] - cell_type[T.c] = 0")
    >>> test[["estimate", "log2_fold_change", "p_value"]].round(3)
            estimate  log2_fold_change  p_value
    gene_0     2.535             3.657     0.00
    gene_1    -2.353            -3.394     0.00
    gene_2    -0.537            -0.774     0.06
    >>> wald_test(model, data.obs, data.counts, "cell_type[T.b], cell_type[T.c]")["df"].unique()
    array([2])
    """
    if constraint is None:
        raise TypeError("wald_test needs a constraint by its name or after y: constraint='x = 0'.")
    fitted = FittedData.of(model, X, y)
    if part not in fitted.params:
        raise ValueError(f"This model has no part {part!r}: its parts are {list(fitted.params)}.")
    names = list(fitted.params[part].index)
    matrix, values = linear_constraints(constraint, names)
    stop = 0
    for own, table in fitted.params.items():
        stop += len(table)
        if own == part:
            break
    of_coef = np.zeros((1, len(matrix), fitted.n_coef))
    of_coef[0, :, stop - len(names) : stop] = matrix
    found = _found(fitted, of_coef, kind, groups, sample_weight)
    distance = found.estimate[:, 0] - values
    q, df = len(matrix), found.df[:, 0] - len(matrix) + 1
    reason = np.where((found.reason[:, 0] == "") & (df < 1), "too few groups", found.reason[:, 0])
    statistic = np.full(len(distance), np.nan)
    known = reason == ""
    own = found.of_tests()[known, 0]
    statistic[known] = np.einsum(
        "gq,gq->g", distance[known], np.linalg.solve(own, distance[known][..., None])[..., 0]
    )
    with np.errstate(invalid="ignore"):
        # Pustejovsky and Tipton's reference distribution, which for many groups is chi-squared
        scaled = np.where(np.isinf(df), 1.0, df / found.df[:, 0]) * statistic / q
    p_values = p_value_columns(log_f_tail(scaled, q, np.where(known, df, np.nan)))
    one = known & (q == 1)
    estimate = np.where(one, distance[:, 0], np.nan)
    return pd.DataFrame(
        {
            "estimate": estimate,
            "standard_error": np.where(one, found.standard_error()[:, 0], np.nan),
            "log2_fold_change": estimate / np.log(2) if part == MEAN else np.nan,
            "statistic": statistic,
            "df": q,
            "df_denominator": np.where(known, df, np.nan),
            **p_values,
            "p_adjusted": adjusted(p_values["p_value"]),
            "reason": reason,
        },
        index=pd.Index(fitted.names),
    )


def likelihood_ratio_test(
    reduced: Any, full: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> pd.DataFrame:
    """Test each gene's smaller model against a larger one, both fitted to the same data.

    Parameters
    ----------
    reduced, full : estimator
        Fitted models as for :func:`covariance`. Each part of the reduced one must be a special case
        of the same part of the full one; a negative binomial model is a special case of a
        zero-inflated one.
    X, y, sample_weight
        The data of both fits. A regressor that is in no pipeline takes from a DataFrame the columns
        of its own fit.

    Returns
    -------
    DataFrame
        One row per gene, indexed by name, with columns

        statistic
            Twice the difference of the log-likelihoods, at least zero.
        df
            Number of coefficients that the full model has more.
        p_value
            By the chi-squared distribution. Without zero inflation, its probability is at the end
            of its range: then by the mixture in equal parts of the chi-squared distributions of
            ``df`` and ``df - 1`` (Self and Liang 1987, cases 5 and 6). None is below 2.2e-308, the
            smallest normal number.
        log10_p_value
            Its logarithm to the base 10, which has no such end: rank by it.
        p_adjusted
            By Benjamini and Hochberg (1995), over the genes.
        reason
            Why there are no numbers, else empty: a gene is ``all zero``, a fit is at its
            ``iteration limit``, or ``a higher maximum was missed`` by the full model's fit.

    Raises
    ------
    ValueError
        If the data are not those of both fits, a model is penalised, or the models are not nested.
        Also if the full model has a zero inflation with covariates that the reduced one lacks
        altogether: their coefficients then mean nothing in the reduced model, and the statistic
        has no known distribution. Test one step after the other.

    Notes
    -----
    Of covariates of the dispersion, the chi-squared distribution takes some two hundred positive
    counts of a gene: with fewer, true hypotheses are rejected too often (see :doc:`/calibration`).

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
    gene_0       8.42   1
    gene_1      35.06   1
    gene_2      17.30   1
    """
    fits = [FittedData.of(model, _own_columns(model, X), y) for model in (reduced, full)]
    for fitted, name in zip(fits, ("reduced", "full"), strict=True):
        _check_maximal(fitted, f"The likelihood ratio of the {name} model")
    smaller, larger = fits
    nesting = nesting_of(smaller, larger, sample_weight)
    low, high = (
        log_likelihoods(fitted, *fitted.weighted(fitted.weights(sample_weight))) for fitted in fits
    )
    statistic = 2 * (high - low)
    reason = np.full(len(statistic), "", dtype=object)
    reason[statistic < -2 * _BELOW] = "a higher maximum was missed"
    for fitted in fits:
        for status in (Status.ALL_ZERO, Status.ITERATION_LIMIT):
            reason[fitted.status == status] = str(status)
    statistic = np.where(reason == "", np.maximum(statistic, 0.0), np.nan)
    log_p = log_f_tail(statistic / nesting.df, nesting.df, np.inf)
    if nesting.on_boundary:
        fewer = nesting.df - 1  # the chi-squared distribution of none is zero
        below = (
            log_f_tail(statistic / fewer, fewer, np.inf)
            if fewer
            else np.where(statistic > 0, -np.inf, 0.0)
        )
        log_p = np.logaddexp(log_p, below) - np.log(2)
    p_values = p_value_columns(np.where(reason == "", log_p, np.nan))
    return pd.DataFrame(
        {
            "statistic": statistic,
            "df": nesting.df,
            **p_values,
            "p_adjusted": adjusted(p_values["p_value"]),
            "reason": reason,
        },
        index=pd.Index(larger.names),
    )


def aic(model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None) -> pd.Series:
    """Return each gene's Akaike information criterion; smaller is better.

    Parameters
    ----------
    model, X, y, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    Series
        ``2 k - 2 log L`` by gene, with the number ``k`` of coefficients that the design determines.

    Raises
    ------
    ValueError
        If the data are not those of the fit, or the model is penalised.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor, ZINBRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import aic
    >>> data = make_counts(n_targets=3, zero_inflation="~ 1", random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> models = [NegBinRegressor(), ZINBRegressor()]
    >>> negative_binomial, inflated = (aic(m.fit(X, data.counts), X, data.counts) for m in models)
    >>> (inflated - negative_binomial).round(1)
    gene_0    1.3
    gene_1    2.0
    gene_2    2.0
    dtype: float64
    """
    return _criterion(FittedData.of(model, X, y), sample_weight, lambda _: 2.0)


def bic(model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None) -> pd.Series:
    """Return each gene's Bayesian information criterion; smaller is better.

    Parameters
    ----------
    model, X, y, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    Series
        ``log(n) k - 2 log L`` by gene (Schwarz 1978), with the number ``k`` of coefficients that
        the design determines and the number ``n`` of cells, or the sum of their weights.

    Raises
    ------
    ValueError
        As :func:`aic`.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import aic, bic
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> float((bic(model, X, data.counts) - aic(model, X, data.counts)).iloc[0].round(2))
    12.64
    """
    return _criterion(FittedData.of(model, X, y), sample_weight, np.log)


def gene_summary(
    model: Any,
    X: Any,
    y: Any = None,
    gene: str | None = None,
    *,
    kind: str = "observed",
    groups: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> GeneSummary:
    """Summarise the fit of one gene: how it ended, how good it is, and its coefficients.

    Of all genes, :func:`coefficient_table` tells the coefficients, and the ``summary()`` of the
    model how the fits ended.

    Parameters
    ----------
    model, X, y
        As for :func:`covariance`: the counts are those of all genes of the fit.
    gene : str
        Name of the gene; after `y`, or by its name.
    kind, groups, sample_weight
        As for :func:`covariance`.

    Returns
    -------
    GeneSummary
        It prints, and notebooks show it, as a text with a table for each part of the model; its
        attributes hold the same as numbers. Standard errors, tests and reasons are those of
        :func:`coefficient_table`, intervals those of :func:`confidence_intervals` at a level of
        0.95.

    Raises
    ------
    TypeError
        If `gene` is no name.
    ValueError
        As :func:`covariance`; if the gene is not of the fit.

    Examples
    --------
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import gene_summary
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> X = data.obs[["pseudotime"]]
    >>> model = NegBinRegressor().fit(X, data.counts)
    >>> summary = gene_summary(model, X, data.counts, "gene_1")
    >>> summary
    gene_1: converged (the likelihood has a maximum at finite coefficients)
    model            NegBinRegressor
    cells            500, of which 303 with a positive count
    mean count       3.62
    overdispersion   2.549 (1/r)
    log-likelihood   -1122.37
    AIC              2250.74
    BIC              2263.38
    standard errors  from the observed information
    <BLANKLINE>
    mean (log mu)
               estimate standard error      z   p-value    2.5 %   97.5 %
    Intercept    1.7082         0.1467  11.64  2.53e-31   1.4206   1.9958
    pseudotime  -0.9217         0.2577  -3.58  0.000348  -1.4268  -0.4166
    <BLANKLINE>
    dispersion (log r, the size: the variance is mu + mu²/r)
              estimate standard error       z   p-value    2.5 %   97.5 %
    Intercept  -0.9357         0.0808  -11.58  5.41e-31  -1.0941  -0.7773
    >>> round(summary.aic, 1)
    2250.7
    >>> list(summary.coefficients)
    ['mean', 'dispersion']
    """
    if not isinstance(gene, str):
        raise TypeError(
            f"gene_summary needs the name of a gene, after y or as gene=, not {gene!r}."
        )
    fitted = FittedData.of(model, X, y, genes=gene)
    found = _coefficients(fitted, kind, groups, sample_weight)
    table = _tests_against_zero(fitted, found)
    lower, upper = found.wald_limits(_LEVEL)
    table = table.assign(lower=lower.ravel(), upper=upper.ravel()).set_index("feature")
    columns = [
        "estimate",
        "standard_error",
        "statistic",
        "df",
        "p_value",
        "log10_p_value",
        "lower",
        "upper",
        "reason",
    ]
    weights = fitted.weights(sample_weight)
    counts = fitted.counts.dense(slice(None))[:, 0]
    present = weights > 0
    n_groups = None
    if groups is not None:
        n_groups = len(np.unique(group_codes(groups, fitted.X, len(weights))[present]))
    criteria = {"aic": np.nan, "bic": np.nan}
    if not _not_maximal(fitted):
        for name, price in (("aic", lambda _: 2.0), ("bic", np.log)):
            criteria[name] = float(_criterion(fitted, sample_weight, price).iloc[0])
    return GeneSummary(
        gene=gene,
        regressor=type(fitted.regressor).__name__,
        kind=kind,
        n_groups=n_groups,
        status=Status(fitted.status[0]),
        n_cells=int(present.sum()),
        n_positive=int((counts[present] > 0).sum()),
        mean_count=float(np.average(counts, weights=weights)),
        log_likelihood=float(fitted.log_likelihood[0]),
        **criteria,
        level=_LEVEL,
        coefficients={part: table.loc[table["part"] == part, columns] for part in fitted.params},
    )


class _EstimatedCombinations(NamedTuple):
    """Estimates of combinations of coefficients, (n_genes, n_tests, n_together)."""

    combinations: LinearCombinations
    estimate: FloatArray
    covariance: FloatArray  # of the coordinates
    df: FloatArray
    reason: NDArray[np.object_]

    def of_tests(self) -> FloatArray:
        """Return the covariances of the combinations of each test."""
        tests = self.combinations.of_theta
        return tests @ self.covariance[:, None] @ np.swapaxes(tests, 1, 2)

    def standard_error(self) -> FloatArray:
        """Return the standard error of the first combination of each test."""
        first = self.combinations.of_theta[:, 0]
        variance = np.einsum("tk,gkl,tl->gt", first, self.covariance, first)
        return np.where(self.reason == "", np.sqrt(np.maximum(variance, 0.0)), np.nan)

    def wald_limits(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the intervals of the first combination of each test."""
        estimate = self.estimate[..., 0]
        half = stats.t.isf((1 - level) / 2, self.df) * self.standard_error()
        return estimate - half, estimate + half


def _coefficients(
    fitted: FittedData, kind: str, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> _EstimatedCombinations:
    """Find what is known of each coefficient."""
    return _found(fitted, np.eye(fitted.n_coef)[:, None], kind, groups, sample_weight)


def _found(
    fitted: FittedData,
    of_coef: FloatArray,
    kind: str,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> _EstimatedCombinations:
    how, counts = covariance_method(kind, fitted, groups, sample_weight)
    combinations = LinearCombinations.of(of_coef, how.designs)
    known = uncertainty(fitted, counts, how, combinations)
    coef = np.vstack([table.to_numpy() for table in fitted.params.values()])
    # The later ones are said first.
    reason = np.full(known.flat.shape, "", dtype=object)
    reason[known.df < 1] = "too few groups"
    reason[~known.told] = "one group decides" if kind == "cluster" else "one cell decides"
    status = np.broadcast_to(fitted.status[:, None], reason.shape)
    fine = status == Status.CONVERGED
    reason[known.flat] = np.where(fine, str(Status.NOT_IDENTIFIED), status)[known.flat]
    reason[~known.at_maximum] = "not at a maximum"
    limit = status == Status.ITERATION_LIMIT
    reason[limit] = status[limit]
    reason[:, (combinations.of_theta[..., how.held] != 0).any(axis=(1, 2))] = "moderated"
    reason[:, ~combinations.estimable] = "aliased"
    estimate = np.moveaxis(of_coef @ coef, 2, 0)
    return _EstimatedCombinations(combinations, estimate, known.covariance, known.df, reason)


def _tests_against_zero(fitted: FittedData, found: _EstimatedCombinations) -> pd.DataFrame:
    """Return the table of :func:`coefficient_table`."""
    error = found.standard_error()
    statistic = found.estimate[..., 0] / error
    p_values = p_value_columns(log_f_tail(statistic**2, 1.0, found.df))
    table = _named(fitted)
    is_fold = (table["part"] == MEAN) & (table["feature"] != INTERCEPT)
    table["estimate"] = found.estimate.ravel()
    table["standard_error"] = error.ravel()
    table["log2_fold_change"] = np.where(is_fold, table["estimate"] / np.log(2), np.nan)
    table["statistic"] = statistic.ravel()
    table["df"] = found.df.ravel()
    table = table.assign(**{name: column.ravel() for name, column in p_values.items()})
    table["p_adjusted"] = np.nan
    table.loc[found.reason.ravel() != "", list(table.columns[3:])] = np.nan
    columns = [adjusted(p) for p in table["p_value"].to_numpy().reshape(statistic.shape).T]
    table["p_adjusted"] = np.column_stack(columns).ravel()
    table["reason"] = found.reason.ravel()
    return table


def _named(fitted: FittedData) -> pd.DataFrame:
    """Return a table with a row for each gene and coefficient."""
    rows = [(part, feature) for part, table in fitted.params.items() for feature in table.index]
    parts, features = zip(*rows, strict=True)
    n_genes = len(fitted.names)
    return pd.DataFrame(
        {
            "target": np.repeat(fitted.names, len(rows)),
            "part": np.tile(np.array(parts, dtype=object), n_genes),
            "feature": np.tile(np.array(features, dtype=object), n_genes),
        }
    )


def _own_columns(model: Any, X: Any) -> Any:
    """Return the columns that a regressor was fitted on, of a frame that has others too."""
    names, X = list(getattr(model, "feature_names_in_", [])), as_pandas(X)
    if not isinstance(model, CountRegressor) or not isinstance(X, pd.DataFrame):
        return X
    return X[names] if names and set(names) <= {*X.columns} else X


def _not_maximal(fitted: FittedData) -> str:
    """Say what a fit is where it is not at a maximum of the likelihood, else nothing."""
    if fitted.is_penalised:
        return f"a fit without a penalty, not alpha={fitted.regressor.alpha!r}"
    if fitted.held:
        return f"the model as it was fitted, not a moderated {fitted.held[0]}"
    return ""


def _check_maximal(fitted: FittedData, what: str) -> None:
    needed = _not_maximal(fitted)
    if needed:
        raise ValueError(f"{what} needs {needed}.")


def _criterion(fitted: FittedData, sample_weight: ArrayLike | None, price: Any) -> pd.Series:
    _check_maximal(fitted, "An information criterion")
    weights = fitted.weights(sample_weight)
    counts, designs = fitted.weighted(weights)
    rank = sum(part.to_coef.shape[1] for part in designs.parts.values())
    value = price(weights.sum()) * rank - 2 * log_likelihoods(fitted, counts, designs)
    return pd.Series(value, index=pd.Index(fitted.names))
