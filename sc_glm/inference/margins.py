"""Estimated marginal means: predictors averaged over the cells."""

from __future__ import annotations

from itertools import product
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import quoted, similar_names
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION
from sc_glm._solver.status import Status
from sc_glm.inference.constrained_fits import FittedCells
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import check_part, estimate_combinations, in_all_parts
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.intervals import check_method
from sc_glm.inference.model_formula import ModelFormula
from sc_glm.inference.profile_likelihood import profile_limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.estimates import Estimates

__all__ = ["marginal_means"]

_VALUES = {MEAN: "mean", DISPERSION: "size", ZERO_INFLATION: "probability"}
_INVERSE_LINKS: dict[str, Any] = {MEAN: np.exp, DISPERSION: np.exp, ZERO_INFLATION: expit}

# Expected total of all cells below which an infinite estimate is one of minus infinity. A fit stops
# where the cells without counts lose less than its tolerance of log-likelihood, which is the total.
_NO_COUNTS = 1e-3


@documented(ENTRIES)
def marginal_means(
    model: Any,
    X: Any,
    y: Any = None,
    by: str | Sequence[str] | None = None,
    *,
    at: Mapping[str, Any] | None = None,
    part: str = MEAN,
    offset: float | None = None,
    genes: str | Sequence[str] | None = None,
    method: str = "wald",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Estimate the marginal mean of every gene at each level of a factor.

    It is the average of the linear predictor over all cells of the fit, with the factor set to the
    level in each of them. So all levels are compared for the same cells. The average has the
    cells' own shares of other factors, as emmeans in R has with ``weights="proportional"``. It is
    transformed by the inverse link at the end: the mean is that of a typical cell, a geometric mean
    over the cells.

    Parameters
    ----------
    {model}
        It must have a :class:`~sc_glm.FormulaTransformer`.
    {X_of_fit}
    {y_of_fit}
    {by}
    {at}
    part : str, default="mean"
        The part of the model. The mean of a zero-inflated model is that of its negative binomial
        component.
    offset : float, default=None
        Offset of the means, such as the logarithm of a size factor. None is the average of the
        cells' offsets. Other parts do not use it.
    {genes}
    method : {"wald", "profile"}, default="wald"
        Kind of the intervals, as in :func:`confidence_intervals`. A profile interval has a finite
        upper end also for the mean of a level without counts. Each level takes some thirty passes
        over the counts, so choose `genes`. It needs ``kind="observed"``.
    {kind}
    {groups}
    {level}
    {sample_weight_of_fit}
        They are also weights of the averages.

    Returns
    -------
    DataFrame
        One row per gene and level or combination of levels, with columns

        gene
            Name of the gene.
        *columns of* `by`
            The level of each factor.
        estimate
            Average predictor: the logarithm of the mean or size, or the logit of the zero
            inflation. It is minus infinity for a mean if the level has no counts.
        standard_error
            Standard error of the estimate.
        df
            Degrees of freedom of the t distribution of the interval, see :func:`coefficient_table`.
        lower, upper
            Ends of the interval of the estimate.
        mean, mean_lower, mean_upper
            The estimate and its interval, transformed by the inverse link. The columns of the
            dispersion are named ``size``, and those of the zero inflation ``probability``.
        reason
            Why there is no standard error, as in :func:`coefficient_table`; empty if there is one.

            - ``aliased``: the cells do not determine the average, for example if it needs a
              combination of levels that no cell has;
            - ``separated``, ``all zero``: the level has no counts, and its mean is 0. A Wald
              interval has no upper end then. The mean is NaN if only some of the cells in the
              average have a mean of 0.

    Raises
    ------
    {raises_margins}
    ValueError
        If a gene is not a gene of the fit, if `method` is unknown, or if it is ``"profile"`` and
        `kind` is not ``"observed"``, or the model is penalised or moderated.
    {raises_kind}
    {raises_not_of_fit}

    References
    ----------
    Searle, Speed and Milliken (1980), The American Statistician 34: 216.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import marginal_means
    >>> data = make_counts(n_targets=1, random_state=0)
    >>> formula = FormulaTransformer("~ cell_type + pseudotime")
    >>> model = make_pipeline(formula, NegBinRegressor()).fit(data.obs, data.counts)
    >>> means = marginal_means(model, data.obs, data.counts, "cell_type", at={"pseudotime": 0.5})
    >>> means[["gene", "cell_type", "mean", "mean_lower", "mean_upper"]].round(2)
         gene cell_type  mean  mean_lower  mean_upper
    0  gene_0         a  0.89        0.70        1.13
    1  gene_0         b  0.69        0.53        0.89
    2  gene_0         c  0.98        0.77        1.24
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    fitted = FittedData.of(model, X, y, genes=genes)
    check_method(fitted, method, kind)
    margins = average_margins(
        fitted, model, X, by=by, at=at, part=part, sample_weight=sample_weight
    )
    rows = in_all_parts(fitted, part, margins.rows)[:, None]
    estimates = estimate_combinations(fitted, rows, kind, groups, sample_weight)
    reason, estimate = estimates.reason, estimates.estimate[..., 0].copy()
    lower, upper = estimates.wald_limits(level)
    no_counts = _without_counts(fitted, part, margins) & _is_infinite(estimates)
    if method == "profile":
        combinations, errors = estimates.combinations, estimates.standard_errors()
        cells = FittedCells.of(fitted, sample_weight)
        lower, upper = profile_limits(cells, combinations, errors, level)
        no_end = (reason == "") & (np.isnan(lower) | np.isnan(upper))
        reason = np.where(no_end, "no end found", reason)
    shift = 0.0 if part != MEAN else margins.offset if offset is None else offset
    estimate[estimates.reason != ""] = np.nan
    estimate[no_counts] = lower[no_counts] = -np.inf
    ends = {"": estimate + shift, "_lower": lower + shift, "_upper": upper + shift}
    inverse_link = _INVERSE_LINKS[part]
    columns = {
        "estimate": ends[""],
        "standard_error": estimates.standard_errors(),
        "df": np.where(estimates.reason == "", estimates.df, np.nan),
        "lower": ends["_lower"],
        "upper": ends["_upper"],
        **{f"{_VALUES[part]}{which}": inverse_link(end) for which, end in ends.items()},
        "reason": reason,
    }
    return _table(fitted, margins.labels, columns)


class Margins(NamedTuple):
    """Average design rows.

    Attributes
    ----------
    labels : DataFrame of shape (n_rows, n_factors)
        Levels of the factors in each row.
    rows : ndarray of shape (n_rows, n_columns)
        Average design rows of the part.
    offset : float
        Average offset.
    weights : ndarray of shape (n_cells,)
    cells : list of ndarray of bool of shape (n_cells,)
        Cells that have the levels of each row.
    """

    labels: pd.DataFrame
    rows: FloatArray
    offset: float
    weights: FloatArray
    cells: list[NDArray[np.bool_]]


def average_margins(
    fitted: FittedData,
    model: Any,
    X: Any,
    *,
    by: str | Sequence[str] | None,
    at: Mapping[str, Any] | None,
    part: str,
    sample_weight: ArrayLike | None,
) -> Margins:
    """Check the arguments, and average the design over the cells for all levels."""
    check_part(fitted, part)
    formula = ModelFormula.of(fitted, model, X)
    if formula is None:
        raise ValueError(
            "Marginal means need a model with formulas: a pipeline of a FormulaTransformer and a "
            "regressor."
        )
    names = [] if by is None else [by] if isinstance(by, str) else list(by)
    factors = [formula.covariate(part, name) for name in names]
    for name, factor in zip(names, factors, strict=True):
        if not factor.levels:
            raise ValueError(
                f"by has {quoted(name)}, which is a number, not a factor: set it to a value by "
                f"at={{{name!r}: ...}}."
            )
    values = _checked_values(formula, at, [factor.column for factor in factors])
    levels = list(product(*(factor.levels for factor in factors)))
    weights = fitted.weights(sample_weight)
    columns = [factor.column for factor in factors]
    rows = [
        formula.average_row(part, {**values, **dict(zip(columns, row, strict=True))}, weights)
        for row in levels
    ]
    labels = pd.DataFrame(
        {name: list(column) for name, column in zip(names, zip(*levels, strict=True), strict=True)},
        index=range(len(levels)),
    )
    cells = [(formula.cells[columns] == list(row)).all(axis=1).to_numpy() for row in levels]
    return Margins(labels, np.array(rows), formula.average_offset(values, weights), weights, cells)


def _checked_values(
    formula: ModelFormula, at: Mapping[str, Any] | None, columns: Sequence[str]
) -> dict[str, Any]:
    """Return the values of covariates; raise if a formula has no such covariate or by has it."""
    values = {} if at is None else dict(at)
    known = {name for of_part in formula.transformer.covariates_.values() for name in of_part}
    for name, value in values.items():
        if name not in known:
            similar = similar_names(name, known, 3) if isinstance(name, str) else []
            hint = f" Similar: {similar}." if similar else ""
            raise ValueError(
                f"at has {quoted(name)}, which no formula reads: they read {sorted(known)}.{hint}"
            )
        if name in columns:
            raise ValueError(f"{quoted(name)} is in by as well as in at.")
        if not (np.isscalar(value) or isinstance(value, (pd.Timestamp, pd.Timedelta))):
            raise ValueError(f"at must have one value for {quoted(name)}, not {quoted(value)}.")
    return values


def _without_counts(fitted: FittedData, part: str, margins: Margins) -> NDArray[np.bool_]:
    """Return the genes and levels whose mean is next to zero, (n_genes, n_levels)."""
    predictors = margins.rows @ fitted.params[part].to_numpy() + margins.offset
    return (np.log(_NO_COUNTS / margins.weights.sum()) > predictors.T) & (part == MEAN)


def _is_infinite(estimates: Estimates) -> NDArray[np.bool_]:
    return np.isin(estimates.reason, [str(Status.SEPARATED), str(Status.ALL_ZERO)])


def _table(
    fitted: FittedData, labels: pd.DataFrame, columns: Mapping[str, NDArray[Any]]
) -> pd.DataFrame:
    """Return a table with a row for each gene and row of labels."""
    clash = [name for name in labels if name in {"gene", *columns}]
    if clash:
        raise ValueError(f"A factor has the name of a column of the result: {quoted(clash[0])}.")
    n_genes, n_rows = len(fitted.names), len(labels)
    table = labels.iloc[np.tile(np.arange(n_rows), n_genes)].reset_index(drop=True)
    table.insert(0, "gene", np.repeat(fitted.names, n_rows))
    return table.assign(**{name: values.ravel() for name, values in columns.items()})
