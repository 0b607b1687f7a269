"""Model matrices of parsed formulas, evaluated by formulaic in double precision, and checked."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec
from formulaic.errors import DataMismatchWarning
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import FactorValues
from formulaic.parser.types import Factor
from formulaic.transforms import TRANSFORMS
from formulaic.utils.stateful_transforms import stateful_eval

from sc_glm.formula.allowed_names import NAMESPACE
from sc_glm.formula.covariates import check_cells, check_levels
from sc_glm.formula.parsing import plain_message
from sc_glm.formula.rewriting import (
    AS_NUMBER,
    alias_quoted_names,
    as_number,
    in_double_precision,
    makes_levels,
)
from sc_glm.formula.splines import (
    check_bs,
    check_cc,
    check_cr,
    check_poly,
    with_checks,
    with_margin,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from formulaic import SimpleFormula
    from numpy.typing import NDArray

    from sc_glm.formula.rewriting import Expression

__all__ = ["MAX_COLUMNS", "evaluate_spec", "fit_spec"]

# Columns of a design. No model with more of them can be fitted in memory.
MAX_COLUMNS = 10_000

# The names that expressions can use, besides formulaic's transforms and columns.
CONTEXT: Mapping[str, Any] = {
    "np": NAMESPACE,
    "exp10": functools.partial(np.power, 10.0),  # formulaic's is x**10
    "bs": with_margin(with_checks(TRANSFORMS["bs"], check_bs)),
    "cc": with_margin(with_checks(TRANSFORMS["cc"], check_cc)),
    "cr": with_margin(with_checks(TRANSFORMS["cr"], check_cr)),
    "cs": with_margin(with_checks(TRANSFORMS["cs"], check_cr)),
    "poly": with_checks(TRANSFORMS["poly"], check_poly),
}


def fit_spec(
    formula: SimpleFormula,
    data: dict[str, Any],
    index: pd.Index,
    where: str,
    *,
    levels: Mapping[str, list[Any]],
    is_offset: bool,
) -> tuple[NDArray[np.float64], ModelSpec]:
    """Evaluate a formula for the cells of a fit, and keep what it learns from them.

    Parameters
    ----------
    formula : SimpleFormula
        The parsed formula of one part.
    data : dict of str to array
        The columns that it reads, as `read_columns` returns them.
    index : Index
        Labels of the cells, for messages.
    where : str
        Part and formula, with which messages begin.
    levels : mapping of str to list
        Levels of factors, by expression, in an order that differs from the data's.
    is_offset : bool
        Whether this is an offset: one numeric column, in which conditions are numbers.

    Returns
    -------
    matrix : ndarray of float64, shape (n_cells, n_columns)
    spec : ModelSpec
        The formula with the names of its columns and the state of its transforms and factors.

    Raises
    ------
    ValueError
        If the formula cannot be evaluated, or a result is not a finite number.
    """
    known = {
        expression: (Factor.Kind.CATEGORICAL, {"categories": order})
        for expression, order in levels.items()
    }
    spec = ModelSpec(formula, encoder_state=known)
    matrix, spec = evaluate_spec(spec, data, index, where, is_offset=is_offset)
    if is_offset:
        _check_offset(spec, where)
    if not matrix.shape[1]:
        raise ValueError(f"{where}: the formula has no columns. '~ 1' is an intercept alone.")
    return matrix, spec


def evaluate_spec(
    spec: ModelSpec, data: dict[str, Any], index: pd.Index, where: str, *, is_offset: bool
) -> tuple[NDArray[np.float64], ModelSpec]:
    """Evaluate a fitted formula for new cells, without a change of its state.

    formulaic's own treatment of missing values and unknown levels is switched off, since it drops
    rows or warns. `read_columns` and the checks here replace it.

    Parameters
    ----------
    spec : ModelSpec
        The formula and its state.
    data : dict of str to array
        The columns that it reads, as `read_columns` returns them.
    index : Index
        Labels of the cells, for messages.
    where : str
        Part and formula, with which messages begin.
    is_offset : bool
        Whether this is an offset, in which conditions are numbers.

    Returns
    -------
    matrix : ndarray of float64, shape (n_cells, n_columns)
    spec : ModelSpec
        The formula with the state after this evaluation.

    Raises
    ------
    ValueError
        If the formula cannot be evaluated, a level is unknown, or a result is not a finite number.
    """
    matrix, factors = _materialize(spec, data, len(index), where, is_offset=is_offset)
    spec = matrix.model_spec
    for expression, factor in factors.items():
        if factor.metadata.kind is Factor.Kind.CATEGORICAL:
            levels = spec.encoder_state.get(expression, (None, {}))[1].get("categories")
            if levels is not None:
                check_levels(_series(factor.values), levels, index, f"{where}: {expression!r}")
    if tuple(matrix.columns) != tuple(spec.column_names):
        raise ValueError(f"{where}: two columns share a name in {list(spec.column_names)}.")
    return _finite_values(matrix, index, where), spec


def _materialize(
    spec: ModelSpec, data: dict[str, Any], n_cells: int, where: str, *, is_offset: bool
) -> tuple[Any, dict[str, Any]]:
    """Return formulaic's model matrix, and the evaluated factors by their expressions."""
    # Evaluation writes to the state, and the state of a fitted transformer must not change.
    spec = spec.update(
        na_action="ignore",
        output="pandas",
        transform_state=copy.deepcopy(spec.transform_state),
        encoder_state=copy.deepcopy(spec.encoder_state),
    )
    # Labels of rows may occur twice, which pandas could not align.
    frame = pd.DataFrame(data, index=pd.RangeIndex(n_cells), copy=False)
    materializer = _Materializer(frame, context=CONTEXT)
    materializer.conditions_are_numbers = is_offset
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            # `check_levels` refuses levels that the fit did not have.
            warnings.simplefilter("ignore", DataMismatchWarning)
            warnings.filterwarnings("ignore", "Constructing a Categorical", DeprecationWarning)
            matrix = materializer.get_model_matrix(spec)
    except Exception as error:  # a formula is code, and may raise anything
        raise ValueError(f"{where}: {plain_message(error)}") from error
    return matrix, materializer.factor_cache


def _finite_values(matrix: Any, index: pd.Index, where: str) -> NDArray[np.float64]:
    for name, dtype in matrix.dtypes.items():
        if dtype.kind not in "biuf":
            raise ValueError(f"{where}: {name!r} is not numeric (dtype {dtype}).")
    values = matrix.to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        column = int(finite.all(axis=0).argmin())
        cells = pd.Series(values[:, column], index=index)
        check_cells(~finite[:, column], cells, f"{where}: {matrix.columns[column]!r} is not finite")
    return values


def _check_offset(spec: ModelSpec, where: str) -> None:
    kinds = {kind for kind, _ in spec.encoder_state.values()}
    if len(spec.column_names) != 1 or kinds != {Factor.Kind.NUMERICAL}:
        raise ValueError(
            f"{where}: an offset is one numeric column, but this formula makes "
            f"{list(spec.column_names)} of kind {', '.join(kind.value for kind in kinds)}."
        )


class _Materializer(PandasMaterializer):  # type: ignore[misc]
    """Evaluates formulas in double precision, with the levels that factors have in R.

    It refuses designs with too many columns before they are made. Categories without a cell are
    not levels of a factor, as in R's glm. Their coefficients would be aliased, and as a reference
    level they would alias all others. Comparisons still know them. A condition is a factor with
    the levels False and True.
    """

    conditions_are_numbers = False
    n_columns = 0  # of the terms so far

    @PandasMaterializer.override
    def _evaluate(self, expr: str, metadata: Any, spec: ModelSpec) -> tuple[Any, set[Any]]:
        """Evaluate an expression in which no column has the name of a function."""
        code, aliases = alias_quoted_names(expr)

        def run(expression: Expression) -> Any:
            columns = {name: self.data[column] for name, column in expression.columns.items()}
            env = {**TRANSFORMS, **self.context, AS_NUMBER: as_number, **columns}
            return stateful_eval(
                expression.code, env, {expression.code: metadata}, spec.transform_state, spec
            )

        exact = in_double_precision(code, aliases)
        values = run(exact)
        as_given = in_double_precision(code, aliases, numbers=False)
        if makes_levels(code) and as_given != exact:
            # Levels that are whole numbers are called 1, not 1.0, if they did not overflow.
            with contextlib.suppress(TypeError, ValueError):
                whole = run(as_given)
                if np.array_equal(_series(whole), _series(values)):
                    values = whole
        return values, set()

    @PandasMaterializer.override
    def _is_categorical(self, values: Any) -> bool:
        is_factor = _is_condition(values) and not self.conditions_are_numbers
        return is_factor or super()._is_categorical(values)

    @PandasMaterializer.override
    def _encode_evaled_factor(
        self, factor: Any, spec: ModelSpec, drop_rows: Any, reduced_rank: bool = False
    ) -> dict[str, Any]:
        if factor.metadata.kind is Factor.Kind.NUMERICAL:
            factor = factor.replace(values=_as_float64(factor.expr, factor.values))
        elif _is_condition(factor.values) and factor.metadata.encoder is None:
            values = FactorValues(
                factor.values, metadata=factor.metadata, encoder=_encode_condition
            )
            factor = factor.replace(values=values)
        elif factor.metadata.kind is Factor.Kind.CATEGORICAL:
            values = _series(factor.values)
            if isinstance(values.dtype, pd.CategoricalDtype):
                values = values.cat.remove_unused_categories()
                factor = factor.replace(values=FactorValues(values, metadata=factor.metadata))
            n_levels = values.nunique()
            if n_levels > MAX_COLUMNS:
                raise ValueError(
                    f"{factor.expr!r} has {n_levels} levels, but a design has at most "
                    f"{MAX_COLUMNS} columns."
                )
        return super()._encode_evaled_factor(factor, spec, drop_rows, reduced_rank)

    @PandasMaterializer.override
    def _get_columns_for_term(
        self, factors: list[dict[str, Any]], spec: ModelSpec, scale: float = 1
    ) -> dict[str, Any]:
        self.n_columns += math.prod(map(len, factors))
        if self.n_columns > MAX_COLUMNS:
            raise ValueError(f"the design would have more than {MAX_COLUMNS} columns.")
        return super()._get_columns_for_term(factors, spec, scale)


def _series(values: Any) -> pd.Series:
    return pd.Series(getattr(values, "__wrapped__", values))


def _as_float64(name: str, numbers: Any) -> Any:
    """Return numbers as float64, whose products do not overflow."""
    dtype = getattr(numbers, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if kind in ("m", "M") or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        raise ValueError(
            f"{name!r} holds {dtype}, not numbers. C() makes levels of them. For a trend, "
            "first convert them to numbers, such as days since the first date."
        )
    if kind not in ("b", "i", "u"):
        return numbers
    return FactorValues(np.asarray(numbers, np.float64), metadata=numbers.__formulaic_metadata__)


def _is_condition(values: Any) -> bool:
    return getattr(values, "dtype", None) == np.bool_


def _encode_condition(values: Any, **_: Any) -> FactorValues:
    """Encode a condition by both levels, whichever occur, as patsy does.

    Where the intercept or another factor makes one of them redundant, the column of the other has
    the name of the condition.
    """
    true = np.asarray(values, dtype=np.float64)
    return FactorValues(
        {False: 1 - true, True: true},
        kind="categorical",
        spans_intercept=True,
        drop_field=False,
        format="{name}[{field}]",
        format_reduced="{name}",
    )
