"""The summary of one gene's fit, as text and as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import group_codes
from sc_glm._design.layout import INTERCEPT
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION
from sc_glm._solver.status import Status
from sc_glm.inference.coefficients import tests_against_zero
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import estimate_coefficients
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.information_criteria import PENALTIES, information_criterion
from sc_glm.inference.log_likelihood import requirement_of_maximum
from sc_glm.inference.p_values import MIN_P_VALUE

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

__all__ = ["GeneSummary", "gene_summary"]

_LEVEL = 0.95  # confidence level of the intervals
_COLUMNS = [
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

_PREDICTORS = {
    MEAN: "log mu",
    DISPERSION: "log r, the size: the variance is mu + mu\u00b2/r",
    ZERO_INFLATION: "logit pi",
}
_STANDARD_ERRORS = {
    "observed": "the observed information",
    "robust": "the sandwich of cells (HC0)",
    "cluster": "the sandwich of groups of cells (CR2)",
}


@dataclass(frozen=True, repr=False, eq=False)  # tables cannot be compared by ==
class GeneSummary:
    """Summary of the fit of one gene, as :func:`~sc_glm.inference.gene_summary` returns it.

    Attributes
    ----------
    gene : str
        Name of the gene.
    regressor : str
        Name of the regressor's class.
    kind : {"observed", "robust", "cluster"}
        Estimator of the standard errors.
    status : str
        How the fit ended, as in the regressor's ``status_``.
    n_groups : int or None
        Number of groups of cells if `kind` is ``"cluster"``.
    n_cells, n_positive : int
        Number of cells of positive weight, and of those with a positive count.
    mean_count : float
        Weighted mean of the counts.
    log_likelihood : float
        Log-likelihood of the fit, without a penalty.
    aic, bic : float
        Information criteria; NaN where the fit is penalised or moderated.
    level : float
        Confidence level of the intervals.
    coefficients : dict of str to DataFrame
        For each part, a table with a row for each coefficient. The columns estimate,
        standard_error, statistic, df, p_value, log10_p_value and reason are those of
        :func:`~sc_glm.inference.coefficient_table`; lower and upper are the ends of the interval.
    """

    gene: str
    regressor: str
    kind: str
    n_groups: int | None
    status: Status
    n_cells: int
    n_positive: int
    mean_count: float
    log_likelihood: float
    aic: float
    bic: float
    level: float
    coefficients: dict[str, pd.DataFrame]

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts))
        lines = [self._title(), *(f"{name:<{width}}  {value}" for name, value in facts.items())]
        for part, table in self._tables():
            lines += ["", part, table.to_string(index_names=False)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<tr><th>{name}</th><td>{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        tables = "".join(
            f"<p>{escape(part)}</p>{table.to_html(border=0, index_names=False)}"
            for part, table in self._tables()
        )
        return f"<div><p><b>{escape(self._title())}</b></p><table>{facts}</table>{tables}</div>"

    def _title(self) -> str:
        return f"{self.gene}: {self.status} ({self.status.meaning})"

    def _facts(self) -> dict[str, str]:
        return {
            "model": self.regressor,
            "cells": f"{self.n_cells}, of which {self.n_positive} with a positive count",
            "mean count": f"{self.mean_count:.4g}",
            **self._overdispersion(),
            "log-likelihood": f"{round(self.log_likelihood, 2) + 0.0:.2f}",  # no minus zero
            "AIC": _criterion(self.aic),
            "BIC": _criterion(self.bic),
            "standard errors": f"from {_STANDARD_ERRORS[self.kind]}"
            + (f", {self.n_groups} groups" if self.n_groups is not None else ""),
        }

    def _overdispersion(self) -> dict[str, str]:
        """Return 1/r if it is the same in all cells."""
        sizes = self.coefficients[DISPERSION]["estimate"]
        if list(sizes.index) != [INTERCEPT]:
            return {}
        return {"overdispersion": f"{np.exp(-sizes.iloc[0]):.4g} (1/r)"}

    def _tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the heading and the formatted table of each part."""
        return [
            (f"{part} ({_PREDICTORS[part]})", self._as_text(table))
            for part, table in self.coefficients.items()
        ]

    def _as_text(self, table: pd.DataFrame) -> pd.DataFrame:
        normal = bool(np.isinf(table["df"].dropna()).all())
        tail = 50 * (1 - self.level)
        shown = {
            "estimate": table["estimate"].map(_number),
            "standard error": table["standard_error"].map(_number),
            "z" if normal else "t": table["statistic"].map(lambda x: _formatted(x, ".2f")),
            "df": table["df"].map(lambda x: _formatted(x, ".1f")),
            "p-value": table["log10_p_value"].map(_p_value),
            f"{tail:g} %": table["lower"].map(_number),
            f"{100 - tail:g} %": table["upper"].map(_number),
            "reason": table["reason"],
        }
        if normal:
            del shown["df"]
        if not table["reason"].any():
            del shown["reason"]
        return table[[]].assign(**shown)


@documented(ENTRIES)
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
    """Summarise the fit of one gene: its status, its likelihood and its coefficients.

    For all genes, :func:`coefficient_table` has the coefficients, and the ``summary()`` of the
    model counts the genes of each status.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    gene : str
        Name of the gene.
    {kind}
    {groups}
    {sample_weight_of_fit}

    Returns
    -------
    GeneSummary
        It prints as text, and in notebooks as HTML, with a table for each part of the model. Its
        attributes hold the numbers. Standard errors, tests and reasons are those of
        :func:`coefficient_table`; intervals are those of :func:`confidence_intervals` at a level of
        0.95.

    Raises
    ------
    TypeError
        If `gene` is not a string.
    ValueError
        If the gene is not a gene of the fit.
    {raises_kind}
    {raises_not_of_fit}

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
    estimates = estimate_coefficients(fitted, kind, groups, sample_weight)
    lower, upper = estimates.wald_limits(_LEVEL)
    table = tests_against_zero(fitted, estimates)
    table = table.assign(lower=lower.ravel(), upper=upper.ravel()).set_index("feature")
    weights = fitted.weights(sample_weight)
    counts, present = fitted.counts.dense(slice(None))[:, 0], weights > 0
    n_groups = None
    if groups is not None:
        n_groups = len(np.unique(group_codes(groups, fitted.X, len(weights))[present]))
    criteria = dict.fromkeys(PENALTIES, np.nan)
    if not requirement_of_maximum(fitted):
        for name in PENALTIES:
            criteria[name] = float(information_criterion(fitted, sample_weight, name).iloc[0])
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
        coefficients={part: table.loc[table["part"] == part, _COLUMNS] for part in fitted.params},
    )


def _formatted(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)


def _p_value(log10: float) -> str:
    # Decimal numbers have smaller exponents than floating-point numbers.
    underflows = log10 < np.log10(MIN_P_VALUE)
    return f"{Decimal(10) ** Decimal(log10):.3g}" if underflows else _formatted(10**log10, ".3g")


def _number(value: float) -> str:
    fixed = value == 0 or 1e-3 <= abs(value) < 1e5
    return _formatted(value, ".4f" if fixed else ".3g")


def _criterion(value: float) -> str:
    return "none, as the fit is penalised or moderated" if np.isnan(value) else f"{value:.2f}"
