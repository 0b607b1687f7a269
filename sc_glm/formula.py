"""Design matrices of the model's parts from formulas; the only module that imports formulaic."""

from __future__ import annotations

import ast
import copy
import functools
import re
import warnings
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning
from formulaic.materializers import PandasMaterializer
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import Factor, Token
from formulaic.transforms import TRANSFORMS
from formulaic.utils.code import sanitize_variable_names
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray
    from sklearn.utils import Tags

__all__ = ["FormulaTransformer"]

# How far beyond its range a spline is held, as a share of the range.
SPLINE_MARGIN = 0.05

PARTS = ("mean", "dispersion", "zero_inflation", "offset")


class FormulaTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn cells' covariates into one design matrix per part of the model, by formulas.

    Everything that a formula learns from data (spline knots, means and scales, the levels
    of a factor and their order) comes from :meth:`fit` and is kept: a row's design depends
    on that row alone, whichever rows it is transformed with. Rows are never dropped.

    Parameters
    ----------
    mean : str or None, default="~ ."
        Formula of log mu, in `formulaic's grammar
        <https://matthewwardrop.github.io/formulaic/latest/guides/grammar/>`_, with or without
        the leading ``~``. It has an intercept unless it says ``0 +`` or ``- 1``. ``.`` is every
        column of the frame given to :meth:`fit` (also one that `offset` reads; write
        ``. - log_depth`` to leave it out). None: the part has no design, which regressors take
        as an intercept alone.
    dispersion : str or None, default=None
        Formula of log r, the size of the negative binomial (Var = mu + mu²/r).
    zero_inflation : str or None, default=None
        Formula of logit pi, the probability of a structural zero.
    offset : str or None, default=None
        One numeric expression that is added to log mu, such as ``"np.log(size_factor)"`` or
        ``"log_depth"``. Arithmetic goes in braces: ``"{np.log(a) + np.log(b)}"``.

    Attributes
    ----------
    model_specs_ : dict of str to formulaic.ModelSpec
        The frozen formula of each part that has one.
    covariates_ : dict of str to dict of str to bool
        Per part, the columns that its formula reads; True where a column is categorical.
    n_features_in_ : int
        Number of columns seen by :meth:`fit`.
    feature_names_in_ : ndarray of str
        Their names, if the input had names. Columns of a plain array are ``x0``, ``x1``, ...

    Raises
    ------
    ValueError
        From :meth:`fit` and :meth:`transform`, naming part, column or expression, and value: a
        formula that does not parse, a missing column, a missing or infinite value, a level not
        seen by :meth:`fit`, a value outside a spline's range, a result that is not a finite
        number; from :meth:`fit` also an expression that mixes rows, such as ``I(x - x.mean())``
        (``center(x)`` keeps its mean).

    Notes
    -----
    A formula is Python code, evaluated with formulaic's transforms and NumPy (as ``np``) in
    reach: do not take one from an untrusted source.

    A spline with a range (``bs``) holds its end value for 5 % of the range beyond it, so that a
    fold's extreme cells do not fail a cross-validation; farther out is an error.

    Text and categorical columns are factors (a pandas categorical's levels in its own order,
    those without a row included; others sorted), numbers and booleans are not: write
    ``C(batch)`` for a batch number.

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm.formula import FormulaTransformer
    >>> cells = pd.DataFrame({"cell_type": ["B", "T", "T"], "depth": [1000, 2000, 4000]})
    >>> design = FormulaTransformer(
    ...     mean="~ cell_type", dispersion="~ 1", offset="np.log2(depth / 1000)"
    ... )
    >>> design.fit_transform(cells).T
                                     0    1    2
    mean__Intercept                1.0  1.0  1.0
    mean__cell_type[T.T]           0.0  1.0  1.0
    dispersion__Intercept          1.0  1.0  1.0
    offset__np.log2(depth / 1000)  0.0  1.0  2.0

    Levels are remembered, so one cell is enough:

    >>> design.transform(cells.tail(1))["mean__cell_type[T.T]"].item()
    1.0
    """

    def __init__(
        self,
        mean: str | None = "~ .",
        dispersion: str | None = None,
        zero_inflation: str | None = None,
        offset: str | None = None,
    ) -> None:
        self.mean = mean
        self.dispersion = dispersion
        self.zero_inflation = zero_inflation
        self.offset = offset

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002
        """Learn each formula's columns and state from the cells' covariates.

        Parameters
        ----------
        X : DataFrame or array-like of numbers, shape (n_cells, n_covariates)
            The cells' covariates.
        y : None
            Ignored.

        Returns
        -------
        FormulaTransformer
            The fitted transformer.
        """
        formulas = self._formulas()
        frame = self._frame(X, reset=True)
        names = list(frame.columns)

        specs, covariates, matrices = {}, {}, []
        for part, text in formulas.items():
            where = f"{part}={text!r}"
            parse = _parse_offset if part == "offset" else _parse
            formula = parse(text, names, where)
            used = {
                name: _is_categorical(frame[name]) for name in _names_read(formula, names, where)
            }
            data = _plain(frame, used, where)
            matrix, specs[part] = _materialize(ModelSpec(formula), data, frame.index, where)
            if part == "offset":
                _check_offset(specs[part], where)
            if not matrix.shape[1]:
                raise ValueError(f"{where}: the formula has no columns.")
            covariates[part] = used
            matrices.append(matrix)

        self.model_specs_ = specs
        self.covariates_ = covariates
        self._check_rows_stand_alone(frame, matrices)
        return self

    def transform(self, X: Any) -> pd.DataFrame:
        """Evaluate the fitted formulas for cells.

        Parameters
        ----------
        X : DataFrame or array-like of numbers, shape (n_cells, n_covariates)
            The cells' covariates. Of a DataFrame, only the columns that the formulas read are
            needed, in any order.

        Returns
        -------
        DataFrame of float64, shape (n_cells, n_features_out)
            Columns are spelled ``part__column``; rows and index are those of `X`.
        """
        check_is_fitted(self, "model_specs_")
        frame = self._frame(X, reset=False)
        return pd.DataFrame(
            np.hstack(self._matrices(frame)),
            index=frame.index,
            columns=self.get_feature_names_out(),
            copy=False,
        )

    def get_feature_names_out(
        self,
        input_features: ArrayLike | None = None,  # noqa: ARG002
    ) -> NDArray[np.object_]:
        """Names of the design's columns, spelled ``part__column``.

        Parameters
        ----------
        input_features : None
            Ignored: the names were frozen by :meth:`fit`.

        Returns
        -------
        ndarray of str, shape (n_features_out,)
            The names.
        """
        check_is_fitted(self, "model_specs_")
        return np.array(
            [
                f"{part}__{column}"
                for part, spec in self.model_specs_.items()
                for column in spec.column_names
            ],
            dtype=object,
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the design is float64, whatever X is
        return tags

    def _formulas(self) -> dict[str, str]:
        formulas = {part: getattr(self, part) for part in PARTS}
        formulas = {part: text for part, text in formulas.items() if text is not None}
        for part, text in formulas.items():
            if not isinstance(text, str):
                raise TypeError(f"{part}={text!r}: a formula is a string or None.")
        if not formulas:
            raise ValueError(f"No part has a formula: {', '.join(PARTS)} are all None.")
        return formulas

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Return `X` as a frame, the caller's own where it is one, with scikit-learn's checks."""
        named = reset or hasattr(self, "feature_names_in_")
        if isinstance(X, pd.DataFrame) and named:
            if not len(X):
                raise ValueError("X has no rows (0 sample(s)): at least one is needed.")
            if reset:
                _check_column_names(X)
                # Names are checked here at fit alone: scikit-learn would refuse extra and
                # re-ordered columns in transform, which formulas look up by name.
                validate_data(self, X, skip_check_array=True)
                # Set also for a frame without columns, which scikit-learn takes for an array.
                self.feature_names_in_ = np.asarray(X.columns, dtype=object)
            return X
        values = validate_data(self, X, reset=reset)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(values, index=index, columns=names, copy=False)

    def _matrices(self, frame: pd.DataFrame) -> list[NDArray[np.float64]]:
        """Evaluate the frozen formulas, one matrix per part."""
        matrices = []
        for part, spec in self.model_specs_.items():
            where = f"{part}={getattr(self, part)!r}"
            data = _plain(frame, self.covariates_[part], where)
            matrices.append(_materialize(spec, data, frame.index, where)[0])
        return matrices

    def _check_rows_stand_alone(
        self, frame: pd.DataFrame, matrices: list[NDArray[np.float64]]
    ) -> None:
        """Refuse expressions that mix rows, whose value in new data would be another one.

        Python expressions keep no state: ``x - x.mean()`` would silently use the new data's
        mean. A few rows evaluated alone must come out as they did among the others.
        """
        for row in sorted({0, len(frame) // 2, len(frame) - 1}):
            alone = self._matrices(frame.iloc[[row]])
            for (part, spec), matrix, one in zip(
                self.model_specs_.items(), matrices, alone, strict=True
            ):
                slack = 1e-9 * np.abs(matrix).max(axis=0)
                differs = np.abs(matrix[row] - one[0]) > slack + 1e-6 * np.abs(matrix[row])
                if differs.any():
                    raise ValueError(
                        f"{part}={getattr(self, part)!r}: "
                        f"{spec.column_names[differs.argmax()]!r} of row {frame.index[row]!r} "
                        "depends on the other rows, so that it would change with new data. Use "
                        "transforms that keep their state, such as center, scale, poly or bs."
                    )


def _check_column_names(X: pd.DataFrame) -> None:
    if isinstance(X.columns, pd.MultiIndex):
        raise ValueError("X has MultiIndex columns: formulas need one name per column.")  # noqa: TRY004
    odd = [name for name in X.columns if not isinstance(name, str)]
    if odd:
        raise ValueError(
            f"Column names of X must be strings, got {odd[0]!r} ({type(odd[0]).__name__}). "
            "X.columns = X.columns.astype(str) makes them so."
        )
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise ValueError(f"X has more than one column named {twice!r}.")


def _message(error: Exception) -> str:
    """Return an error's text, without formulaic's colours for the terminal."""
    return re.sub(r"\x1b\[[\d;]*m|[⧛⧚]", "", str(error))


def _tokens(text: str, where: str) -> list[Token]:
    try:
        return list(tokenize(text))
    except Exception as error:
        raise ValueError(f"{where}: the formula does not parse. {_message(error)}") from error


def _parse(text: str, names: list[str], where: str) -> SimpleFormula:
    """Parse a one-sided formula, with ``.`` written out as `names`."""
    tokens = _tokens(text, where)
    if not any(token.kind is not Token.Kind.OPERATOR for token in tokens):
        raise ValueError(f"{where}: the formula is empty. '~ 1' is an intercept alone.")
    try:
        formula = Formula(text, _context={"__formulaic_variables_available__": names})
    except Exception as error:
        raise ValueError(f"{where}: the formula does not parse. {_message(error)}") from error
    if not isinstance(formula, SimpleFormula):
        raise ValueError(f"{where}: a formula has one side and one part, as in '~ a + b'.")  # noqa: TRY004
    # Also the names that the formula takes away, which formulaic would not look up.
    for token in tokens:
        if token.kind is Token.Kind.NAME and token.token not in names:
            raise ValueError(f"{where}: X has no column {token.token!r}.")
    return formula


def _parse_offset(text: str, names: list[str], where: str) -> SimpleFormula:
    """Parse an offset: a single name, call or braced expression.

    In a formula ``+`` adds a column and ``-`` takes one away, so that the formula
    ``np.log(a) - np.log(b)`` is ``np.log(a)``: arithmetic outside of braces is refused.
    """
    expression = re.sub(r"^\s*~?\s*(0\s*\+)?", "", text)
    tokens = _tokens(expression, where)
    if len(tokens) != 1 or tokens[0].kind not in (Token.Kind.NAME, Token.Kind.PYTHON):
        raise ValueError(
            f"{where}: an offset is one numeric expression of the columns. Write arithmetic in "
            "braces or I(...), as in '{np.log(a) + np.log(b)}'."
        )
    return _parse(f"0 + {expression}", names, where)


def _check_offset(spec: ModelSpec, where: str) -> None:
    kinds = {kind for kind, _ in spec.encoder_state.values()}
    if len(spec.column_names) != 1 or kinds != {Factor.Kind.NUMERICAL}:
        raise ValueError(
            f"{where}: an offset is one numeric column, but this makes "
            f"{list(spec.column_names)} of kind {', '.join(kind.value for kind in kinds)}."
        )


def _names_read(formula: SimpleFormula, names: list[str], where: str) -> list[str]:
    """Return the columns that a formula reads, in their order.

    formulaic's ``required_variables`` cuts names at dots and leaves out columns that share
    their name with a transform.
    """
    read: set[str] = set()
    for factor in {factor for term in formula for factor in term.factors}:
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            read.add(factor.expr)
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            read |= _names_in_expression(factor.expr, names, where)
    return [name for name in names if name in read]


def _names_in_expression(expression: str, names: list[str], where: str) -> set[str]:
    aliases: dict[str, str] = {}
    try:
        tree = ast.parse(sanitize_variable_names(expression, {}, aliases), mode="eval")
    except SyntaxError:
        return set()  # reported, with its place, when formulaic evaluates the expression
    for alias, name in aliases.items():
        if alias != name and (alias in names or alias in TRANSFORMS):
            # formulaic would draw a random alias, under which no state could be found again.
            raise ValueError(
                f"{where}: formulas read `{name}` in {expression!r} as {alias}, which is another "
                "column or a transform. Rename the column."
            )
    read: set[str] = set()
    functions: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            read.add(aliases.get(node.id, node.id))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            functions.add(node.value.id)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            functions.add(node.func.id)
            if node.func.id == "Q":
                read |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    # A column called 'scale' must not hide the function in scale(x).
    return read - functions.intersection(TRANSFORMS)


def _is_categorical(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    return _numpy(column).dtype.kind in "OUS"


def _numpy(column: pd.Series) -> NDArray[Any]:
    """Return a column as a NumPy array of its plain type: objects that are numbers as numbers."""
    values = column.to_numpy()
    if values.dtype == object:
        values = pd.Series(values, copy=False).infer_objects().to_numpy()
    return values


def _plain(frame: pd.DataFrame, used: Mapping[str, bool], where: str) -> dict[str, Any]:
    """Return the columns that a formula reads, complete, each of the kind it had at fit.

    Categorical columns become categoricals or objects, numbers int64 or float64 (so that no
    dtype of the new data overflows or rounds where the fitted one did not).
    """
    data: dict[str, Any] = {}
    for name, categorical in used.items():
        if name not in frame.columns:
            raise ValueError(f"{where}: X has no column {name!r}.")
        column = frame[name]
        if column.ndim > 1:
            raise ValueError(f"{where}: X has more than one column named {name!r}.")
        missing = column.isna().to_numpy()
        _check_cells(missing, column, f"{where}: column {name!r} is missing")
        if categorical:
            is_level = isinstance(column.dtype, pd.CategoricalDtype)
            data[name] = column.array if is_level else column.to_numpy(dtype=object)
            continue
        values = _numpy(column)
        if values.dtype.kind in "iuf":
            values = values.astype(np.result_type(values.dtype, np.int64), copy=False)
            _check_cells(~np.isfinite(values), column, f"{where}: column {name!r} is not finite")
        elif values.dtype.kind != "b":
            raise ValueError(
                f"{where}: column {name!r} is read as numbers, but holds {values[0]!r} "
                f"(dtype {column.dtype})."
            )
        data[name] = values
    return data


def _check_cells(bad: NDArray[np.bool_], column: pd.Series, problem: str) -> None:
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{problem} ({column.iloc[first]}) in row {column.index[first]!r}; "
            f"{int(bad.sum())} of {len(bad)} rows are affected."
        )


def _materialize(
    spec: ModelSpec, data: dict[str, Any], index: pd.Index, where: str
) -> tuple[NDArray[np.float64], ModelSpec]:
    """Evaluate a formula, and return its matrix and the formula with all that it has learnt.

    formulaic's own care for missing values and levels is switched off, since it drops rows or
    warns; `_plain` and the checks here take its place.
    """
    # Evaluation writes to the state; that of a fitted transformer must not change.
    spec = spec.update(
        na_action="ignore",
        output="pandas",
        transform_state=copy.deepcopy(spec.transform_state),
        encoder_state=copy.deepcopy(spec.encoder_state),
    )
    # Labels of rows may occur twice, which pandas could not align.
    frame = pd.DataFrame(data, index=pd.RangeIndex(len(index)), copy=False)
    materializer = PandasMaterializer(frame, context=CONTEXT)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            warnings.simplefilter("ignore", DataMismatchWarning)
            matrix = materializer.get_model_matrix(spec)
    except Exception as error:  # a formula is code, and may raise anything
        raise ValueError(f"{where}: {_message(error)}") from error

    spec = matrix.model_spec
    for expression, factor in materializer.factor_cache.items():
        if factor.metadata.kind is Factor.Kind.CATEGORICAL:
            levels = spec.encoder_state.get(expression, (None, {}))[1].get("categories")
            if levels is not None:
                values = pd.Series(getattr(factor.values, "__wrapped__", factor.values))
                _check_levels(values, levels, index, f"{where}: {expression!r}")
    if tuple(matrix.columns) != tuple(spec.column_names):
        raise ValueError(f"{where}: two columns share a name in {list(spec.column_names)}.")
    for name, dtype in matrix.dtypes.items():
        if dtype.kind not in "biuf":
            raise ValueError(f"{where}: {name!r} is not numeric (dtype {dtype}).")
    values = matrix.to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        column = int(finite.all(axis=0).argmin())
        cells = pd.Series(values[:, column], index=index)
        _check_cells(
            ~finite[:, column], cells, f"{where}: {matrix.columns[column]!r} is not finite"
        )
    return values, spec


def _check_levels(values: pd.Series, levels: list[Any], index: pd.Index, what: str) -> None:
    if len({str(level) for level in levels}) < len(levels):
        raise ValueError(f"{what} has levels that are spelled alike: {levels}.")
    known = set(levels)
    unseen = [value for value in values.unique() if value not in known]
    if unseen:
        rows = values.isin(unseen).to_numpy()
        raise ValueError(
            f"{what} has the unknown level {unseen[0]!r} in row {index[int(rows.argmax())]!r} "
            f"({int(rows.sum())} of {len(rows)} rows have unknown levels). "
            f"Known levels: {', '.join(map(repr, levels[:10]))}{', ...' if levels[10:] else ''}."
        )


def _with_margin(spline: Callable[..., Any]) -> Callable[..., Any]:
    """Let a spline that refuses to extrapolate hold its end value for a little way.

    The extreme cells of a data set are held out by one fold of every cross-validation: a value
    just beyond the training range is no error. One that is far beyond is, and is named.
    """

    @functools.wraps(spline)  # also the mark by which formulaic knows a stateful transform
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        try:
            return spline(x, *args, _state=_state, **kwargs)
        except ValueError as error:
            low, high = _state.get("lower_bound"), _state.get("upper_bound")
            if low is None or high is None:
                raise
            values = pd.Series(np.asarray(x))
            beyond = np.maximum(low - values, values - high)
            if not (beyond > 0).any():
                raise
            if (beyond <= SPLINE_MARGIN * (high - low)).all():
                return spline(values.clip(low, high), *args, _state=_state, **kwargs)
            raise ValueError(
                f"the value {values[beyond.idxmax()]} is outside the spline's range "
                f"[{low}, {high}] ({int((beyond > 0).sum())} of {len(values)} rows are). "
                "extrapolation='clip' or 'extend' allows it"
            ) from error

    return wrapper


# Beside formulaic's transforms, all that a formula can see.
CONTEXT: Mapping[str, Any] = {
    "np": np,
    **{name: _with_margin(TRANSFORMS[name]) for name in ("bs", "cc", "cr", "cs")},
}
