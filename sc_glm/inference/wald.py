"""Wald tests of linear hypotheses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import MEAN
from sc_glm.formula.constraints import linear_constraints
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import check_part, estimate_combinations, in_all_parts
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.p_values import adjust_p_values, log_f_tail, p_value_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.estimates import Estimates

__all__ = ["wald_test"]


@documented(ENTRIES)
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
    """Test linear hypotheses about the coefficients of every gene.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    constraint : str or list of str
        The hypothesis, in the syntax of formulaic: ``"clusters[T.Beta] - clusters[T.Alpha] = 0"``.
        Several constraints, in a list or separated by commas, are tested jointly. The right-hand
        side is zero if there is no ``=``. The names are those of ``params_``, with or without
        backquotes around them. A name that also reads as an expression needs backquotes, unless
        it is the whole constraint: ``"2 * `a-b` = c"``.
    part : str, default="mean"
        The part of the model whose coefficients are tested.
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene, indexed by name, with columns

        estimate
            Left-hand side minus right-hand side; NaN for a joint test.
        standard_error
            Standard error of this estimate; NaN for a joint test.
        log2_fold_change
            ``estimate / log(2)`` for the mean; NaN for other parts.
        statistic
            Wald statistic: the squared distance of the estimate from the hypothesis, in units of
            the covariance.
        df
            Number of constraints. For ``kind="observed"`` the statistic has the chi-squared
            distribution with this number of degrees of freedom.
        df_denominator
            Denominator degrees of freedom of the F distribution of ``statistic / df``, multiplied
            by ``df_denominator / (df_denominator + df - 1)`` (Pustejovsky and Tipton 2018). They
            are infinite for ``kind="observed"``.
        p_value
            P-value, at least 2.2e-308, the smallest normal number.
        {log10_p_value}
        {p_adjusted}
        reason
            Why there are no numbers, as in :func:`coefficient_table`; empty if there are. There are
            numbers for combinations of aliased columns that the data do determine, such as the
            difference of two groups.

    Raises
    ------
    TypeError
        If `constraint` is not a string or a list of strings.
    ValueError
        If the model has no such part, or if the constraint does not parse or has an unknown name.
    {raises_kind}
    {raises_not_of_fit}

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
    gene
    gene_0     2.535             3.657     0.00
    gene_1    -2.353            -3.394     0.00
    gene_2    -0.537            -0.774     0.06
    >>> wald_test(model, data.obs, data.counts, "cell_type[T.b], cell_type[T.c]")["df"].unique()
    array([2])
    """
    if constraint is None:
        raise TypeError("wald_test needs a constraint by its name or after y: constraint='x = 0'.")
    fitted = FittedData.of(model, X, y)
    coef_matrix, values = _constraint_matrix(fitted, part, constraint)
    estimates = estimate_combinations(fitted, coef_matrix[None], kind, groups, sample_weight)
    found, q = wald_statistics(estimates, 0, values), len(values)
    p_values = p_value_columns(log_f_tail(found.scaled, q, found.df))
    is_single = (found.reason == "") & (q == 1)
    estimate = np.where(is_single, estimates.estimate[:, 0, 0] - values[0], np.nan)
    return pd.DataFrame(
        {
            "estimate": estimate,
            "standard_error": np.where(is_single, estimates.standard_errors()[:, 0], np.nan),
            "log2_fold_change": estimate / np.log(2) if part == MEAN else np.nan,
            "statistic": found.statistic,
            "df": q,
            "df_denominator": found.df,
            **p_values,
            "p_adjusted": adjust_p_values(p_values["p_value"]),
            "reason": found.reason,
        },
        index=fitted.gene_index,
    )


class WaldStatistics(NamedTuple):
    """Wald statistics of one test for all genes.

    Attributes
    ----------
    statistic : ndarray of shape (n_genes,)
        ``d' V^-1 d`` with the differences d from the hypothesis and their covariance V.
    scaled : ndarray of shape (n_genes,)
        The statistic in units of the F distribution.
    df : ndarray of shape (n_genes,)
        Denominator degrees of freedom.
    reason : ndarray of str of shape (n_genes,)
        Why there is no statistic; empty if there is one.
    """

    statistic: FloatArray
    scaled: FloatArray
    df: FloatArray
    reason: NDArray[np.object_]


def degrees_of_freedom(
    estimates: Estimates, number: int, n_constraints: int
) -> tuple[FloatArray, NDArray[np.object_]]:
    """Return the denominator degrees of freedom of a test, and why there is no statistic."""
    df = estimates.df[:, number] - n_constraints + 1
    reason = estimates.reason[:, number]
    return df, np.where((reason == "") & (df < 1), "too few groups", reason)


def wald_statistics(estimates: Estimates, number: int, values: FloatArray) -> WaldStatistics:
    """Return the statistics of one of several estimated tests.

    Parameters
    ----------
    estimates : Estimates
    number : int
        Number of the test.
    values : ndarray of shape (n_constraints,)
        The test's combinations under the hypothesis.
    """
    difference = estimates.estimate[:, number] - values
    q, satterthwaite_df = len(values), estimates.df[:, number]
    df, reason = degrees_of_freedom(estimates, number, q)
    known = reason == ""
    statistic = _wald_statistic(difference, estimates.covariances_of_test(number), known)
    with np.errstate(invalid="ignore"):
        # Scale of Pustejovsky and Tipton's F distribution; it is one in the chi-squared limit.
        scaled = np.where(np.isinf(df), 1.0, df / satterthwaite_df) * statistic / q
    return WaldStatistics(statistic, scaled, np.where(known, df, np.nan), reason)


def _constraint_matrix(
    fitted: FittedData, part: str, constraint: str | Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Return the matrix of constraints on the coefficients of all parts, and right-hand sides."""
    check_part(fitted, part)
    matrix, values = linear_constraints(constraint, list(fitted.params[part].index))
    return in_all_parts(fitted, part, matrix), values


def _wald_statistic(
    difference: FloatArray, covariance: FloatArray, known: NDArray[np.bool_]
) -> FloatArray:
    """Return d' V^-1 d with differences d and covariances V; NaN for genes without a variance."""
    statistic = np.full(len(difference), np.nan)
    difference = difference[known]
    solved = np.linalg.solve(covariance[known], difference[..., None])[..., 0]
    statistic[known] = np.einsum("gq,gq->g", difference, solved)
    return statistic
