"""What is known of one gene's fit, as text and as a notebook shows it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from sc_glm._design.layout import INTERCEPT
from sc_glm._likelihood.family import DISPERSION, MEAN, ZERO_INFLATION
from sc_glm.inference.p_values import LEAST_P_VALUE

if TYPE_CHECKING:
    import pandas as pd

    from sc_glm._solver.status import Status

__all__ = ["GeneSummary"]

_MODELS = {
    MEAN: "log mu",
    DISPERSION: "log r, the size: the variance is mu + mu\u00b2/r",
    ZERO_INFLATION: "logit pi",
}
_ERRORS = {
    "observed": "the observed information",
    "robust": "the sandwich of cells (HC0)",
    "cluster": "the sandwich of groups of cells (CR2)",
}


@dataclass(frozen=True, repr=False, eq=False)  # tables have no truth value to compare them by
class GeneSummary:
    """The fit of one gene; made by :func:`~sc_glm.inference.gene_summary`.

    Attributes
    ----------
    gene : str
        Name of the gene.
    regressor : str
        Name of the regressor's class.
    kind : {"observed", "robust", "cluster"}
        What the standard errors stand on.
    status : str
        How the fit ended, as in the regressor's ``status_``.
    n_groups : int or None
        Number of groups of cells behind ``kind="cluster"``.
    n_cells, n_positive : int
        Number of cells that have a weight, and of those with a positive count.
    mean_count : float
        Weighted mean of the counts.
    log_likelihood : float
        At the fit, without a penalty.
    aic, bic : float
        Information criteria; NaN where the fit is penalised or moderated.
    level : float
        Probability with which an interval holds the true coefficient.
    coefficients : dict of str to DataFrame
        By part, a row for each coefficient with columns estimate, standard_error, statistic
        (``estimate / standard_error``), df (of the t distribution that it is referred to; infinite
        for the normal one), p_value, log10_p_value, lower and upper (ends of the interval) and
        reason: why numbers are missing, else empty.
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
            "standard errors": f"from {_ERRORS[self.kind]}"
            + (f", {self.n_groups} groups" if self.n_groups is not None else ""),
        }

    def _overdispersion(self) -> dict[str, str]:
        """Return 1/r, where it is the same in all cells."""
        sizes = self.coefficients[DISPERSION]["estimate"]
        if list(sizes.index) != [INTERCEPT]:
            return {}
        return {"overdispersion": f"{np.exp(-sizes.iloc[0]):.4g} (1/r)"}

    def _tables(self) -> list[tuple[str, pd.DataFrame]]:
        """Return a heading and a table of text for each part."""
        return [
            (f"{part} ({_MODELS[part]})", self._as_text(table))
            for part, table in self.coefficients.items()
        ]

    def _as_text(self, table: pd.DataFrame) -> pd.DataFrame:
        normal = bool(np.isinf(table["df"].dropna()).all())
        tail = 50 * (1 - self.level)
        shown = {
            "estimate": table["estimate"].map(_number),
            "standard error": table["standard_error"].map(_number),
            "z" if normal else "t": table["statistic"].map(lambda x: _text(x, ".2f")),
            "df": table["df"].map(lambda x: _text(x, ".1f")),
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


def _text(value: float, form: str) -> str:
    return "" if np.isnan(value) else format(value, form)


def _p_value(log10: float) -> str:
    # Decimal numbers have exponents that floating-point ones lack.
    far = log10 < np.log10(LEAST_P_VALUE)
    return f"{Decimal(10) ** Decimal(log10):.3g}" if far else _text(10**log10, ".3g")


def _number(value: float) -> str:
    fixed = value == 0 or 1e-3 <= abs(value) < 1e5
    return _text(value, ".4f" if fixed else ".3g")


def _criterion(value: float) -> str:
    return "none, as the fit is penalised or moderated" if np.isnan(value) else f"{value:.2f}"
