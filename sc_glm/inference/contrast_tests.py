"""Tests of contrasts by name, in one table: which genes differ, by how much, and by which test."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import MEAN
from sc_glm.inference.alternatives import ALTERNATIVES, Alternative
from sc_glm.inference.constrained_fits import FittedCells
from sc_glm.inference.contrast_tables import table_of_contrasts
from sc_glm.inference.contrasts import ContrastReader
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import check_part
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.model_formula import ModelFormula
from sc_glm.inference.p_values import adjust_p_values

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike


__all__ = ["differential_expression"]

_METHODS = ("auto", "wald", "lr", "score")
_LOG_2 = np.log(2.0)


@documented(ENTRIES)
def differential_expression(
    model: Any,
    X: Any,
    y: Any = None,
    contrast: Any = None,
    *,
    part: str = MEAN,
    method: str = "auto",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    alternative: str = "two-sided",
    log2_threshold: float = 0.0,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Test which genes differ in a contrast: a number for every gene that has counts.

    A gene that one of two groups does not express has an infinite fold change and no standard
    error. It is tested by its likelihood ratio, and all other genes by their estimate.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    contrast : tuple, str, list of str, array-like or dict
        What is tested:

        - ``(factor, level, reference)``, such as ``("cell_type", "T", "B")``: the difference of
          two levels. If the factor interacts with other covariates, it is averaged over the cells.
          The reference ``"rest"`` is the mean of the means of all other levels. Two values of a
          number are compared in the same way: ``("pseudotime", 1.0, 0.0)``;
        - a term of the formula, such as ``"cell_type"`` or ``"bs(pseudotime, df=5)"``: all its
          coefficients jointly;
        - a constraint, as in :func:`wald_test`: ``"x - z = 0"``;
        - a vector with a weight for each coefficient of the part, or several as rows;
        - a dict of names and any of these.
    part : str, default="mean"
        The part of the model whose coefficients are tested.
    method : {"auto", "wald", "lr", "score"}, default="auto"
        ``"wald"`` compares the estimate with its standard error; infinite estimates have none.
        ``"lr"`` is the likelihood ratio of the fit without and with the contrast, one more fit for
        each contrast. ``"score"`` needs the fit without the contrast alone; one such fit serves all
        contrasts of a factor. ``"auto"`` is Wald, and for infinite estimates the likelihood ratio,
        or the score test for ``kind="robust"`` and ``"cluster"``.
    {kind}
    {groups}
    alternative : {"two-sided", "greater", "less"}, default="two-sided"
        Whether the contrast is different from zero, greater or less.
    log2_threshold : float, default=0
        The test asks for a log2 fold change beyond this one, in either direction or in that of
        `alternative`. It is not a filter of estimates.
    level : float, default=0.95
        Confidence level of the intervals.
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene, with the genes as index; for a dict, one row per contrast and gene. The
        columns are

        contrast
            Name of the contrast, if `contrast` is a dict.
        base_mean
            Average count of the cells.
        fraction, fraction_reference
            Fractions of the cells of both sides with counts; NaN if no levels are compared.
        log2_fold_change
            Estimate of the contrast to the base 2: of the ratio of means, of sizes, or of the odds
            of a structural zero. It is infinite if one side has no counts, and NaN with a p-value
            of one if all its values are as likely; another part may explain the silence. For a
            joint test, it is the largest minus the smallest value of the tested term over the
            cells.
        log2_low, log2_high
            Ends of its confidence interval: of Wald, and of the profile likelihood for an infinite
            estimate; NaN for a joint test.
        standard_error
            Standard error of `log2_fold_change`; NaN if this is infinite or of a joint test.
        statistic
            Signed: the estimate in standard errors, or the signed root of the likelihood ratio or
            score statistic. With a threshold, it is the distance from the nearer one, and zero
            between both. For a joint test, the statistic with `df` degrees of freedom.
        df
            Number of constraints.
        df_denominator
            Degrees of freedom of the t or F distribution; infinite for a normal or chi-squared one.
        p_value
            P-value, at least 2.2e-308, the smallest normal number.
        {log10_p_value}
        p_adjusted
            P-value adjusted for the number of genes of the contrast (Benjamini and Hochberg 1995).
        p_adjusted_all
            P-value adjusted over all contrasts and genes, if `contrast` is a dict.
        test
            ``wald``, ``lr`` or ``score``; empty if there is no p-value.
        reason
            Why there is no p-value; empty if there is one.

    Raises
    ------
    TypeError
        If `contrast` is missing or of another type.
    ValueError
        If `contrast` names an unknown factor, level or coefficient. If `method`, `kind`,
        `alternative` and `log2_threshold` do not go together, or are unknown. If the model has no
        such part. A likelihood ratio or score needs a fit without a penalty or moderation.
    {raises_not_of_fit}

    See Also
    --------
    wald_test : Constraints on coefficients, with denominator degrees of freedom.
    likelihood_ratio_test : Two models that were both fitted.

    Notes
    -----
    A reason belongs to a contrast. A gene that is silent in some group has infinite coefficients,
    and its contrasts of other groups have estimates and standard errors like those of any gene.

    Where a fold change is finite but above three million, ``"auto"`` uses the likelihood ratio.
    The standard error of such a steep slope is too large, and that of a spline which falls to zero
    is too small.

    The reason is ``no counts in the cells compared`` if both levels are silent, and ``not
    identified`` if the counts leave another contrast undetermined.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import differential_expression
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> model = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    >>> model = model.fit(data.obs, data.counts)
    >>> contrast = ("cell_type", "b", "c")
    >>> table = differential_expression(model, data.obs, data.counts, contrast)
    >>> table.reset_index()[["gene", "log2_fold_change", "standard_error", "p_value"]].round(2)
         gene  log2_fold_change  standard_error  p_value
    0  gene_0              3.66            0.29     0.00
    1  gene_1             -3.39            0.19     0.00
    2  gene_2             -0.77            0.41     0.06
    >>> differential_expression(model, data.obs, data.counts, "cell_type")["df"].unique()
    array([2])
    """
    if contrast is None:
        raise TypeError(
            "differential_expression needs a contrast by its name or after y, such as "
            "contrast=('cell_type', 'T', 'B')."
        )
    question = question_of_test(method, kind, alternative, log2_threshold)
    fitted = FittedData.of(model, X, y)
    check_part(fitted, part)
    cells = FittedCells.of(fitted, sample_weight)
    weights = fitted.weights(sample_weight)
    reader = ContrastReader(
        fitted, ModelFormula.of(fitted, model, X), part, cells.designs.parts[part].null, weights
    )
    named = isinstance(contrast, Mapping)
    contrasts = reader.read_all(contrast) if named else {"": reader.read(contrast)}
    table = table_of_contrasts(
        cells,
        contrasts,
        part=part,
        method=method,
        question=question,
        kind=kind,
        groups=groups,
        level=level,
        sample_weight=sample_weight,
    )
    if not named:
        return table.drop(columns="contrast")
    table["p_adjusted_all"] = adjust_p_values(table["p_value"].to_numpy())
    order = list(table.columns)
    order.insert(order.index("p_adjusted") + 1, order.pop(order.index("p_adjusted_all")))
    return table[order]


def question_of_test(
    method: str, kind: str, alternative: str, log2_threshold: float
) -> Alternative:
    """Check which test is asked for."""
    if method not in _METHODS:
        raise ValueError(f"method must be one of {list(_METHODS)}, not {method!r}.")
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative must be one of {list(ALTERNATIVES)}, not {alternative!r}.")
    threshold = check_scalar(log2_threshold, "log2_threshold", Real, min_val=0)
    if not np.isfinite(threshold):
        raise ValueError(f"log2_threshold must be finite, not {threshold}.")
    if method == "lr" and kind != "observed":
        raise ValueError(
            "method='lr' uses the likelihood of the model, so it goes with kind='observed', not "
            f"kind={kind!r}."
        )
    if method == "score" and threshold:
        raise ValueError("method='score' tests a difference from zero: it takes no log2_threshold.")
    return Alternative(alternative, float(threshold) * _LOG_2)
