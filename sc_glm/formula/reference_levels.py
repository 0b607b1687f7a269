"""Reference levels that hold for all formulas: the first levels of factors in treatment coding."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from formulaic.parser.types import Factor

from sc_glm._contract.validation import quoted, similar_names
from sc_glm.formula.covariates import missing_column_message
from sc_glm.formula.rewriting import alias_quoted_names

if TYPE_CHECKING:
    from formulaic import SimpleFormula

    from sc_glm.formula.covariates import Columns

__all__ = ["ReferenceLevels"]

_TREATMENT = {f"{name}{call}" for name in ("contr.treatment", "Treatment") for call in ("", "()")}
_MAX_LISTED = 10  # levels in a message


class ReferenceLevels:
    """Reference levels by column, and which formulas they apply to.

    Parameters
    ----------
    reference : mapping of str to level, or None
        As the user gave it.
    frame : DataFrame
        The cells' covariates.
    columns : Columns
        Names and kinds of its columns.

    Raises
    ------
    TypeError
        If `reference` is not a mapping with names of columns.
    ValueError
        If a column does not exist, or a column of levels lacks the level.
    """

    def __init__(self, reference: Any, frame: pd.DataFrame, columns: Columns) -> None:
        if reference is None:
            reference = {}
        if not isinstance(reference, Mapping) or not all(isinstance(key, str) for key in reference):
            raise TypeError(
                f"reference={quoted(reference)}: it is a dict of columns and their levels, such as "
                "{'perturbation': 'control'}, or None."
            )
        self.levels = dict(reference)
        self._columns = columns
        self._applied: set[str] = set()
        for name, level in self.levels.items():
            if name not in columns.names:
                problem = missing_column_message(name, columns.names)
                raise ValueError(f"reference={quoted(self.levels)}: {problem}")
            if columns.is_categorical(name):
                _ordered_levels(frame[name].dropna(), level, name)

    def orders(self, formula: SimpleFormula, data: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Return the levels of a formula's factors that have a reference level, which is the first.

        Parameters
        ----------
        formula : SimpleFormula
            The parsed formula of a part.
        data : mapping of str to array
            The columns that it reads.

        Returns
        -------
        dict of str to list
            Levels of each factor, by its expression.

        Raises
        ------
        ValueError
            If a column lacks its reference level.
        """
        orders = {}
        for factor in {factor for term in formula for factor in term.factors}:
            column = _column_in_treatment_coding(factor)
            if column is None or column not in self.levels:
                continue
            is_bare = factor.eval_method is Factor.EvalMethod.LOOKUP or not factor.expr.startswith(
                "C("
            )
            level = self.levels[column]
            if is_bare and self._columns.is_boolean(column):
                _check_reference_is_false(column, level)
            elif is_bare and not self._columns.is_categorical(column):
                continue  # a number has a slope
            else:
                orders[factor.expr] = _ordered_levels(data[column], level, column)
            self._applied.add(column)
        return orders

    def check_applied(self, covariates: Mapping[str, Mapping[str, bool]]) -> None:
        """Raise if formulas read a column, and its reference level applies to none of them.

        Parameters
        ----------
        covariates : mapping of str to mapping
            The columns that the formula of each part reads.
        """
        for name, level in self.levels.items():
            readers = [part for part, read in covariates.items() if name in read]
            if not readers or name in self._applied:
                continue
            if self._columns.is_categorical(name):
                reason = (
                    "is only used with contrasts or levels that the formula states itself. Leave "
                    "one of both out"
                )
            else:
                term = name if name.isidentifier() else f"`{name}`"
                reason = f"is read as a number, which has no levels. Write C({term}) for a factor"
            raise ValueError(
                f"reference={{{name!r}: {quoted(level)}}}: in {', '.join(readers)}, the column "
                f"{name!r} {reason}."
            )


def _column_in_treatment_coding(factor: Factor) -> str | None:
    """Return the column that a factor codes by treatment contrasts without a base of their own."""
    if factor.eval_method is Factor.EvalMethod.LOOKUP:
        return str(factor.expr)
    if factor.eval_method is not Factor.EvalMethod.PYTHON:
        return None
    code, aliases = alias_quoted_names(factor.expr)
    node = ast.parse(code, mode="eval").body
    match node:
        case ast.Call(func=ast.Name(id="C"), args=[node, *contrasts], keywords=keywords):
            stated = [*contrasts, *(k.value for k in keywords if k.arg == "contrasts")]
            if any(k.arg == "levels" for k in keywords) or any(
                ast.unparse(contrast) not in _TREATMENT for contrast in stated
            ):
                return None
    match node:
        case ast.Name(id=name):
            return aliases.get(name, name)
        case ast.Call(func=ast.Name(id="Q"), args=[ast.Constant(value=str(name))]):
            return name
    return None


def _ordered_levels(values: Any, level: Any, column: str) -> list[Any]:
    """Return the levels that occur, the reference level first and the others in their order."""
    categories = pd.Series(values).astype("category").cat.remove_unused_categories()
    levels = categories.cat.categories.tolist()
    if not any(level == other for other in levels):
        similar = similar_names(level, levels, 3) if isinstance(level, str) else []
        similar = [name for name in similar if name != level]  # a number of this text
        listed = ", ".join(map(quoted, levels[:_MAX_LISTED])) + ", ..." * (
            len(levels) > _MAX_LISTED
        )
        hint = f"Similar: {', '.join(map(repr, similar))}. " if similar else ""
        raise ValueError(
            f"reference={{{column!r}: {quoted(level)}}}: no cell has the level {quoted(level)} of "
            f"the column {column!r}. {hint}Its levels are {listed}."
        )
    first = levels.index(level)
    return [levels[first], *levels[:first], *levels[first + 1 :]]


def _check_reference_is_false(column: str, level: Any) -> None:
    if level not in (False, True):
        raise ValueError(
            f"reference={{{column!r}: {quoted(level)}}}: the levels of the boolean column "
            f"{column!r} are False and True."
        )
    if level:
        term = column if column.isidentifier() else f"`{column}`"
        raise ValueError(
            f"reference={{{column!r}: True}}: the column of a boolean term is that of True, and "
            f"its reference is False. Write C({term}) to choose the reference."
        )
