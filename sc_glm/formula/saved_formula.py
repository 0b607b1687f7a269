"""Fitted formulas as plain strings, numbers and arrays, for pickles and files of skops."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd
from formulaic import ModelSpec, SimpleFormula
from formulaic.parser.types import Factor, Term

from sc_glm.formula.covariates import Columns
from sc_glm.formula.model_matrix import evaluate_spec
from sc_glm.formula.parsing import columns_in_formula

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["plain_spec", "plain_values", "restored_spec", "restored_values"]


def plain_spec(spec: ModelSpec) -> dict[str, Any]:
    """Return the terms of a fitted formula, and what they learnt, without formulaic's classes."""
    return {
        "terms": [
            [(factor.expr, factor.eval_method.value) for factor in term.factors]
            for term in spec.formula
        ],
        "transforms": spec.transform_state,
        # formulaic notes the contrasts of a factor, but does not read the note.
        "levels": {
            expression: (kind.value, {k: v for k, v in learnt.items() if k != "contrasts"})
            for expression, (kind, learnt) in spec.encoder_state.items()
        },
        "columns": list(spec.column_names),
    }


def restored_spec(
    plain: Mapping[str, Any],
    cell: Mapping[str, Any],
    used: Collection[str],
    where: str,
    *,
    is_offset: bool,
) -> ModelSpec:
    """Return the fitted formula that `plain_spec` wrote.

    Its expressions are checked like the expressions of a new formula: a file may hold any code.

    Parameters
    ----------
    plain : mapping
        What `plain_spec` returned.
    cell : mapping of str to array
        The columns of one cell of the fit. Evaluated for it, the formula gets the structure that
        it had for all cells.
    used : collection of str
        The columns that the formula reads.
    where : str
        Part of the model, with which messages begin.
    is_offset : bool
        Whether this is an offset.

    Returns
    -------
    ModelSpec

    Raises
    ------
    ValueError
        If an expression is not allowed, or the installed formulaic makes other columns of it.
    """
    terms = [
        Term([Factor(expression, eval_method=method) for expression, method in factors])
        for factors in plain["terms"]
    ]
    formula = SimpleFormula(terms)
    data = {name: cell[name] for name in used}
    if set(columns_in_formula(formula, Columns(pd.DataFrame(data)), where)) != set(used):
        raise ValueError(f"{where} does not read the columns {list(used)}.")
    spec = ModelSpec(
        formula,
        transform_state=plain["transforms"],
        encoder_state={
            expression: (Factor.Kind(kind), learnt)
            for expression, (kind, learnt) in plain["levels"].items()
        },
    )
    _, spec = evaluate_spec(spec, data, pd.RangeIndex(1), where, is_offset=is_offset)
    if list(spec.column_names) != plain["columns"]:
        raise ValueError(
            f"{where} had the columns {plain['columns']}, but formulaic "
            f"{version('formulaic')} makes {list(spec.column_names)} of it. Fit it again."
        )
    return spec


def plain_values(values: Any) -> dict[str, Any]:
    """Return values of a column without pandas's classes."""
    if isinstance(values, pd.Categorical):
        categories = values.categories.tolist()
        return {"values": values.codes, "categories": categories, "ordered": bool(values.ordered)}
    return {"values": values}


def restored_values(
    values: Any, categories: list[Any] | None = None, *, ordered: bool = False
) -> Any:
    """Return the values that `plain_values` wrote."""
    if categories is None:
        return values
    return pd.Categorical.from_codes(values, pd.Index(categories), ordered)
