"""Terms of a fitted formula: their columns of the design, and the levels of their factors."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from formulaic.parser.types import Factor

from sc_glm.formula.parsing import columns_in_formula, parse_formula

if TYPE_CHECKING:
    from collections.abc import Hashable

    from formulaic import ModelSpec, SimpleFormula

    from sc_glm.formula.covariates import Columns

__all__ = ["Covariate", "FittedTerms"]


class Covariate(NamedTuple):
    """A covariate of the cells that a formula reads.

    Attributes
    ----------
    column : str
    levels : list
        Levels of a factor; empty for a number.
    is_additive : bool
        Whether no term reads the column together with others.
    """

    column: str
    levels: list[Hashable]
    is_additive: bool


@dataclass(frozen=True)
class FittedTerms:
    """The terms of one part of a fitted transformer.

    Attributes
    ----------
    spec : formulaic.ModelSpec
        The fitted formula.
    columns : Columns
        The covariates that the formulas read.
    """

    spec: ModelSpec
    columns: Columns

    def names(self) -> list[str]:
        """Return the names of the terms besides the intercept."""
        return [str(term) for term in self.spec.term_indices if str(term) != "1"]

    def term_columns(self, text: str) -> list[int] | None:
        """Return the positions of a term's columns; None if a text is not a term of the formula.

        Parameters
        ----------
        text : str
            The term as in a formula: ``"cell_type"``, ``"bs(pseudotime,df=5)"``, ``"a:b"``.
        """
        formula = self._parsed(text) or self._parsed(f"`{text}`")
        if formula is None or len(formula) != 1:
            return None
        wanted = {factor.expr for factor in formula[0].factors}
        for term, positions in self.spec.term_indices.items():
            if {factor.expr for factor in term.factors} == wanted:
                return list(positions)
        return None

    def covariate(self, name: str) -> Covariate | None:
        """Return the covariate that a factor or a number of the formula is; None if it is neither.

        Parameters
        ----------
        name : str
            Name of a column, or an expression of one column, such as ``"C(donor)"``.
        """
        found = None
        for expression, (kind, learnt) in self.spec.encoder_state.items():
            read = self._columns_of(expression)
            if len(read) != 1 or name not in (expression, read[0]):
                continue
            levels: list[Hashable] = []
            if kind is Factor.Kind.CATEGORICAL:
                is_condition = "categories" not in learnt
                if is_condition and expression != read[0]:
                    continue  # levels of a comparison, such as x > 1, are not those of the column
                levels = [False, True] if is_condition else list(learnt["categories"])
            if found is None or levels:
                found = Covariate(read[0], levels, self._is_additive(read[0]))
        return found

    def _is_additive(self, column: str) -> bool:
        """Return whether no term reads a column together with others."""
        for term in self.spec.term_indices:
            read = {name for factor in term.factors for name in self._columns_of(factor.expr)}
            if column in read and len(read) > 1:
                return False
        return True

    def _columns_of(self, expression: str) -> list[str]:
        if expression in self.columns.names:
            return [expression]
        formula = self._parsed(expression)
        return [] if formula is None else columns_in_formula(formula, self.columns, "term")

    def _parsed(self, text: str) -> SimpleFormula | None:
        with contextlib.suppress(ValueError):
            return parse_formula(f"0 + {text}", self.columns, "term")
        return None
