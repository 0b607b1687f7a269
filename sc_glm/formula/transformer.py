"""Design matrices of the model's parts from formulas; the only module that imports formulaic."""

from __future__ import annotations

import ast
import contextlib
import copy
import difflib
import functools
import math
import re
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd
from formulaic import Formula, ModelSpec, SimpleFormula
from formulaic.errors import DataMismatchWarning
from formulaic.materializers import PandasMaterializer
from formulaic.materializers.types import FactorValues
from formulaic.parser import DefaultFormulaParser
from formulaic.parser.algos.tokenize import tokenize
from formulaic.parser.types import ASTNode, Factor, Term, Token
from formulaic.transforms import TRANSFORMS
from formulaic.utils.code import format_expr
from formulaic.utils.stateful_transforms import stateful_eval
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks, with_callbacks
from sc_glm._contract.state import StateMixin, kept_if_failed
from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import as_pandas, check_no_anndata, shown
from sc_glm.formula.allowed_names import NAMESPACE
from sc_glm.formula.covariates import (
    TO_FRAME,
    Columns,
    check_cells,
    check_column_names,
    check_levels,
    no_column,
    plain,
)
from sc_glm.formula.expression_checks import MAX_LENGTH, columns_read
from sc_glm.formula.rewriting import (
    AS_NUMBER,
    RESERVED,
    as_number,
    in_double_precision,
    makes_levels,
    requoted,
    unquoted,
)
from sc_glm.formula.splines import check_bs, check_cc, check_cr, check_poly, checked, with_margin

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray
    from sklearn.utils import Tags

    from sc_glm.formula.rewriting import Expression

__all__ = ["FormulaTransformer"]

# Enough for any design that can be fitted; beyond them, memory and hours are spent in vain.
MAX_TERMS = 10_000
MAX_ORDER = 8
MAX_COLUMNS = 10_000
# Donors, batches and clusters that have numbers for names are no more, as a rule.
MAX_LABELS = 15

PARTS = ("mean", "dispersion", "zero_inflation", "offset")


class FormulaTransformer(
    StateMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
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
        ``"log_depth"``: the logarithm of an exposure, never the exposure itself, which numbers
        near one do not give away. Arithmetic goes in braces: ``"{np.log(a) + np.log(b)}"``.

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
        formula that does not parse or holds what a formula may not (see the notes), a missing
        column, a missing or infinite value, a level not seen by :meth:`fit`, a value outside a
        spline's range, a result that is not a finite number; from :meth:`fit` also an expression
        that mixes rows, such as ``I(x - np.mean(x))`` (``center(x)`` keeps its mean), a spline that
        cannot be made, and a column that cannot be told from the intercept, such as one named
        ``1``.

    Warns
    -----
    UserWarning
        Once, from :meth:`fit`, if a formula reads as a number a column of whole numbers that look
        like labels: 3 to 15 values, and more than half of the numbers between the least and the
        greatest. ``C(donor)`` makes levels of them, and ``I(donor)`` says that they are numbers.

    Notes
    -----
    A formula is not any Python code. Beside formulaic's operators and column names (with odd
    signs in backquotes) its expressions are made of arithmetic (``+ - * / // % **``),
    comparisons, conditions joined by ``& | ~``, numbers, text, and calls of

    - ``bs``, ``cc``, ``cr``, ``cs``, ``poly``, ``center``, ``scale``, ``standardize``, ``C`` with
      its contrasts, ``hashed``, ``I``, ``Q``, ``log``, ``log2``, ``log10``, ``exp``, ``exp2``,
      ``exp10``;
    - NumPy's elementwise functions as ``np.log1p(x)``, also ``np.where``, ``np.clip``,
      ``np.round``, ``np.isin``, ``np.digitize`` and ``np.interp``, and ``np.pi``.

    All else is refused before anything is run, with methods and attributes (``x.clip(0, 1)`` is
    ``np.clip(x, 0, 1)``) and parameters that are not constants. Formulas, powers, interactions
    and splines have upper sizes. This is one defence, not a sandbox: a formula that is let may
    still take time and memory in proportion to the columns that it makes, so limit both where
    formulas come from people you do not know.

    Arithmetic and functions of numbers compute in double precision, also with whole numbers and
    booleans. Whole numbers beyond 2**53 are an error there; ``C()`` and comparisons tell them
    apart.

    A spline with a range (``bs``) holds its end value for 5 % of the range beyond it, so that a
    fold's extreme cells do not fail a cross-validation; farther out is an error, and with
    ``extrapolation="raise"`` any value beyond it is. A cyclic spline (``cc``) needs ``lower_bound``
    and ``upper_bound``, the ends of its period.

    Text and categorical columns are factors, and so are booleans and comparisons, with the levels
    False and True. Beside an intercept, a boolean is one column with its own name. Numbers are
    numbers: write ``C(batch)`` for a batch number, and ``C(day)`` for dates. Levels are those of
    the cells given to :meth:`fit`, whatever their weights: a pandas categorical's in its own order,
    others sorted; the first is the reference. A category that no cell has is no level, as in R's
    ``glm``: it has no coefficient, and cells that have it later are an error.

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

    _fitted_state = ("_booleans", "_cell", "model_specs_", "covariates_", "n_features_in_")

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

    @with_callbacks
    def fit(self, X: Any, y: Any = None) -> Self:
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
        with reporting_to_callbacks(self, X, y), kept_if_failed(self):
            self._fit(X)
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

    def _fit(self, X: Any) -> None:
        formulas = self._formulas()
        frame = self._frame(X, reset=True)
        columns = Columns(frame)

        specs, covariates, matrices = {}, {}, []
        cell: dict[str, Any] = {}
        booleans: set[str] = set()
        like_labels: dict[str, int] = {}
        for part, text in formulas.items():
            where = f"{part}={text!r}"
            parse = _parse_offset if part == "offset" else _parse
            formula = parse(text, columns, where)
            used = {name: columns.is_text(name) for name in _names_read(formula, columns, where)}
            booleans |= {name for name in used if columns.is_boolean(name)}
            data = plain(frame, used, booleans, where)
            matrix, specs[part] = _materialize(
                ModelSpec(formula), data, frame.index, where, numeric=part == "offset"
            )
            if part == "offset":
                _check_offset(specs[part], where)
            if not matrix.shape[1]:
                raise ValueError(f"{where}: the formula has no columns.")
            covariates[part] = used
            matrices.append(matrix)
            if part != "offset":
                like_labels |= _like_labels(formula, data)
            cell |= {name: values[:1] for name, values in data.items()}

        self._cell = cell  # from which a file's formulas are built again
        self.model_specs_ = specs
        self.covariates_ = covariates
        self._booleans = tuple(sorted(booleans))
        self._check_rows_stand_alone(frame, matrices)
        if like_labels:
            _warn_of_slopes(like_labels)

    def _written(self, state: dict[str, Any]) -> dict[str, Any]:
        if "model_specs_" not in state:
            return state
        specs = {part: _written_spec(spec) for part, spec in state["model_specs_"].items()}
        cell = {name: _written_values(values) for name, values in state["_cell"].items()}
        return {**state, "model_specs_": specs, "_cell": cell}

    def _read(self, state: dict[str, Any]) -> dict[str, Any]:
        if "model_specs_" not in state:
            return state
        cell = {name: _read_values(**written) for name, written in state["_cell"].items()}
        specs = {
            part: _read_spec(
                written,
                cell,
                state["covariates_"][part],
                f"the saved {part!r}",
                numeric=part == "offset",
            )
            for part, written in state["model_specs_"].items()
        }
        return {**state, "model_specs_": specs, "_cell": cell}

    def _formulas(self) -> dict[str, str]:
        formulas = {part: getattr(self, part) for part in PARTS}
        formulas = {part: text for part, text in formulas.items() if text is not None}
        for part, text in formulas.items():
            if not isinstance(text, str):
                example = "'np.log(size_factor)'" if part == "offset" else "'~ x'"
                raise TypeError(
                    f"{part}={_shown(text)}: a formula is a string, such as {example}, or None. It "
                    "names columns of X."
                )
            if len(text) > MAX_LENGTH:
                raise ValueError(
                    f"{part}='{text[:50]}...' has {len(text)} characters, but a formula has at "
                    f"most {MAX_LENGTH}. '~ .' stands for every column."
                )
        if not formulas:
            raise ValueError(f"No part has a formula: {', '.join(PARTS)} are all None.")
        return formulas

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Return `X` as a frame, the caller's own where it is one, with scikit-learn's checks."""
        check_no_anndata(X, "X")
        X = as_pandas(X)
        named = reset or hasattr(self, "feature_names_in_")
        if isinstance(X, pd.DataFrame) and named:
            if not len(X):
                raise ValueError("X has no rows (0 sample(s)): at least one is needed.")
            if reset:
                check_column_names(X)
                # Names are checked here at fit alone: scikit-learn would refuse extra and
                # re-ordered columns in transform, which formulas look up by name.
                validate_data(self, X, skip_check_array=True)
                # Set also for a frame without columns, which scikit-learn takes for an array.
                self.feature_names_in_ = np.asarray(X.columns, dtype=object)
            return X
        may_be_text = isinstance(X, np.ndarray) and X.dtype.kind in "OU"
        if may_be_text and any(isinstance(value, str) for value in X.flat):
            raise ValueError(f"X is an array with text.{TO_FRAME}")
        values = validate_data(self, X, reset=reset)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(values, index=index, columns=names, copy=False)

    def _matrices(self, frame: pd.DataFrame) -> list[NDArray[np.float64]]:
        """Evaluate the frozen formulas, one matrix per part."""
        matrices = []
        for part, spec in self.model_specs_.items():
            where = f"{part}={getattr(self, part)!r}"
            data = plain(frame, self.covariates_[part], self._booleans, where)
            matrix, _ = _materialize(spec, data, frame.index, where, numeric=part == "offset")
            matrices.append(matrix)
        return matrices

    def _check_rows_stand_alone(
        self, frame: pd.DataFrame, matrices: list[NDArray[np.float64]]
    ) -> None:
        """Refuse expressions that mix rows, whose value in new data would be another one.

        Python expressions keep no state: one that took a mean would silently take that of the new
        data. A few rows evaluated alone must come out as they did among the others.
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
                        f"{spec.column_names[differs.argmax()]!r} of row {shown(frame.index[row])} "
                        "depends on the other rows, so that it would change with new data. Use "
                        "transforms that keep their state, such as center, scale, poly or bs."
                    )


def _message(error: Exception) -> str:
    """Return an error's text, without formulaic's colours for the terminal."""
    return re.sub(r"\x1b\[[\d;]*m|[⧛⧚]", "", str(error))


def _shown(value: Any) -> str:
    """Return a value's repr, or the name of its type if that is longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"<{type(value).__name__}>"


@contextlib.contextmanager
def _parsing(where: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = " ".join(requoted(_message(error)).split())
        raise ValueError(f"{where}: the formula does not parse. {reason}{hint}") from error


def _tokens(text: str, where: str) -> list[Token]:
    with _parsing(where):
        return list(tokenize(text))


def _parse(text: str, columns: Columns, where: str) -> SimpleFormula:
    """Parse a one-sided formula, with ``.`` written out as the columns."""
    tokens = _tokens(text, where)
    if not any(token.kind is not Token.Kind.OPERATOR for token in tokens):
        raise ValueError(f"{where}: the formula is empty. '~ 1' is an intercept alone.")
    operators = {token.token for token in tokens if token.kind is Token.Kind.OPERATOR}
    if any("|" in operator for operator in operators):
        raise ValueError(
            f"{where}: a formula has no '|'. Each part of the model has a formula of its own, and "
            "none has random effects: for cells that are alike within donors, sc_glm.inference "
            "takes kind='cluster' and their groups."
        )
    comparing = sorted(operator for operator in operators if set(operator) <= set("<>=!&"))
    if comparing:
        raise ValueError(
            f"{where}: {comparing[0]!r} stands between the terms of the formula. A condition is "
            "written in I(), such as I(x > 0)."
        )
    # Before formulaic's parser, which runs parts of the expressions on the left of a `~`.
    for token in tokens:
        if token.kind is Token.Kind.PYTHON:
            _names_in_expression(token.token, columns, where)
    _check_told_apart(tokens, columns, where)
    bare = [n for n in columns.names if " " in n and n in text and f"`{n}`" not in text]
    code = _without_quoted_names(text, tokens)
    with _parsing(where, f". Names with spaces stand in backquotes: `{bare[0]}`." if bare else ""):
        tree = DefaultFormulaParser().get_ast(code)
    _check_size(tree, len(columns.names), where)
    with _parsing(where):
        formula = Formula(code, _context={"__formulaic_variables_available__": columns.names})
    if not isinstance(formula, SimpleFormula):
        raise ValueError(  # noqa: TRY004
            f"{where}: a formula has one side, as in '~ a + b'. The counts are the y of fit, and "
            "stand in no formula."
        )
    # Also the names that the formula takes away, which formulaic would not look up.
    for token in tokens:
        if token.kind is Token.Kind.NAME and token.token not in columns.names:
            raise ValueError(f"{where}: {no_column(token.token, columns.names)}")
    return _with_quoted_names(formula)


def _without_quoted_names(text: str, tokens: Sequence[Token]) -> str:
    """Spare formulaic's parser the names in backquotes that stand within expressions."""
    pieces, end = [], 0
    for token in tokens:
        if token.kind is Token.Kind.PYTHON:
            start = text.index(token.token, end)
            pieces += [text[end:start], unquoted(token.token)[0]]
            end = start + len(token.token)
    return "".join([*pieces, text[end:]])


def _with_quoted_names(formula: SimpleFormula) -> SimpleFormula:
    terms = [
        Term(
            Factor(requoted(factor.expr), eval_method=factor.eval_method) for factor in term.factors
        )
        for term in formula
    ]
    return SimpleFormula(terms, _ordering="none")


def _check_told_apart(tokens: Sequence[Token], columns: Columns, where: str) -> None:
    """Refuse columns that formulaic takes for the intercept, a number or an expression.

    It tells apart what a formula is made of by its text alone.
    """
    texts = {token.token for token in tokens if token.kind is Token.Kind.NAME}
    if any(token.token == "." for token in tokens):  # noqa: S105
        texts.update(columns.names)
    others = {"1": "the intercept"}
    for token in tokens:
        if token.kind is Token.Kind.VALUE and token.token not in ("0", "1"):
            others[token.token] = "a number"
        elif token.kind is Token.Kind.PYTHON:
            others[requoted(format_expr(unquoted(token.token)[0]))] = "an expression"
    for name in columns.names:
        if name in texts and name in others:
            raise ValueError(
                f"{where}: a formula cannot tell the column {name!r} from {others[name]}. Give "
                f"it another name: X.rename(columns={{{name!r}: ...}})."
            )


def _check_size(tree: ASTNode | Token | None, n_columns: int, where: str) -> None:
    """Refuse a formula that would be multiplied out to more than a design can hold.

    Counted are the terms that formulaic goes through, of which some may be equal, and the
    factors of the longest of them.
    """
    nodes = [tree]
    for node in nodes:  # grows as it goes: parents stand before their arguments
        if isinstance(node, ASTNode):
            nodes.extend(node.args)
    sizes: dict[int, _Size] = {}
    for node in reversed(nodes):
        size = _Size(1, 1, 1)
        if isinstance(node, ASTNode):
            size = _size(node, [sizes[id(argument)] for argument in node.args], n_columns, where)
        if size.terms > MAX_TERMS or size.order > MAX_ORDER:
            raise ValueError(
                f"{where}: multiplied out, the formula has more than {MAX_TERMS} terms, or more "
                f"than {MAX_ORDER} factors in one of them."
            )
        sizes[id(node)] = size


class _Size(NamedTuple):
    """Bounds on what a piece of a formula is multiplied out to."""

    terms: int
    order: int  # of its longest term
    leaves: int


def _size(node: ASTNode, arguments: list[_Size], n_columns: int, where: str) -> _Size:
    terms = [size.terms for size in arguments]
    orders = [size.order for size in arguments]
    leaves = sum(size.leaves for size in arguments)
    match node.operator.symbol:
        case ".":
            return _Size(n_columns, 1, n_columns)
        case ":":
            count, order = math.prod(terms), sum(orders)
        case "*":
            count, order = math.prod(terms) + sum(terms), sum(orders)
        case "/" | "in":
            count, order = sum(terms), leaves
        case "**" | "^":
            exponent = node.args[1]
            if not (isinstance(exponent, Token) and re.fullmatch(r"\d\d?", exponent.token)):
                raise ValueError(f"{where}: a power of terms is a small whole number.")
            count, order = terms[0] ** int(exponent.token), orders[0] * int(exponent.token)
        case _:
            count, order = sum(terms), max(orders)
    return _Size(count, min(order, leaves), leaves)


def _parse_offset(text: str, columns: Columns, where: str) -> SimpleFormula:
    """Parse an offset: a single name, call or braced expression.

    In a formula ``+`` adds a column and ``-`` takes one away, so that the formula
    ``np.log(a) - np.log(b)`` is ``np.log(a)``: arithmetic outside of braces is refused.
    """
    expression = re.sub(r"^\s*~?\s*(0\s*\+)?", "", text)
    tokens = _tokens(expression, where)
    if len(tokens) != 1 or tokens[0].kind not in (Token.Kind.NAME, Token.Kind.PYTHON):
        raise ValueError(
            f"{where}: an offset is one numeric expression of the columns, such as "
            "'np.log(size_factor)'. Write arithmetic in braces or I(...), as in "
            "'{np.log(a) + np.log(b)}'; a number is for the intercept."
        )
    return _parse(f"0 + {expression}", columns, where)


def _check_offset(spec: ModelSpec, where: str) -> None:
    kinds = {kind for kind, _ in spec.encoder_state.values()}
    if len(spec.column_names) != 1 or kinds != {Factor.Kind.NUMERICAL}:
        raise ValueError(
            f"{where}: an offset is one numeric column, but this makes "
            f"{list(spec.column_names)} of kind {', '.join(kind.value for kind in kinds)}."
        )


def _names_read(formula: SimpleFormula, columns: Columns, where: str) -> list[str]:
    """Return the columns that a formula reads, in their order.

    formulaic's ``required_variables`` cuts names at dots and leaves out columns that share
    their name with a transform.
    """
    read: set[str] = set()
    for factor in {factor for term in formula for factor in term.factors}:
        if factor.eval_method is Factor.EvalMethod.LOOKUP:
            read.add(factor.expr)
        elif factor.eval_method is Factor.EvalMethod.PYTHON:
            # Checked once more: this is what will be run, which the parser wrote anew.
            read |= _names_in_expression(factor.expr, columns, where)
    return [name for name in columns.names if name in read]


def _names_in_expression(expression: str, columns: Columns, where: str) -> set[str]:
    """Check a Python expression, with names in backquotes, and return the columns it reads."""
    if "``" in expression or RESERVED in expression:
        raise ValueError(f"{where}: {expression!r} has an empty or a reserved name.")
    code, aliases = unquoted(expression)
    return columns_read(code, aliases, columns, where)


def _like_labels(formula: SimpleFormula, data: Mapping[str, Any]) -> dict[str, int]:
    """Return how many values those columns have that are numbers here, and look like labels.

    Labels are whole numbers, few, and most numbers between the first and the last are there, which
    doses and times are seldom. With two values, a slope is a difference of groups.
    """
    names = {
        factor.expr
        for term in formula
        for factor in term.factors
        if factor.eval_method is Factor.EvalMethod.LOOKUP
    }
    found = {}
    for name in sorted(names):
        if getattr(data[name], "dtype", None) == np.int64:
            values = np.unique(data[name])
            if 2 < len(values) <= MAX_LABELS and 2 * len(values) > values[-1] - values[0] + 1:
                found[name] = len(values)
    return found


def _warn_of_slopes(n_values: Mapping[str, int]) -> None:
    listed = ", ".join(f"{name!r} ({number} values)" for name, number in n_values.items())
    first = next(iter(n_values))
    spelled = first if first.isidentifier() else f"`{first}`"
    warn(
        f"Whole numbers get one slope in a formula, from the first value to the last: {listed}. If "
        f"they are labels, write C({spelled}); if they are numbers, I({spelled}) says so."
    )


class _Materializer(PandasMaterializer):  # type: ignore[misc]
    """Computes in double precision, and has a factor's levels as R has them.

    Columns beyond what a design can hold are refused before they are made. Categories that no cell
    has are no levels of a factor, as in R's glm: nothing is known of their coefficients, and as
    reference they would leave those of all others open. Comparisons know them. A condition is a
    factor with the levels False and True.
    """

    numeric = False  # whether conditions are numbers, as in an offset
    n_columns = 0

    @PandasMaterializer.override
    def _evaluate(self, expr: str, metadata: Any, spec: ModelSpec) -> tuple[Any, set[Any]]:
        """Run an expression on columns that have names of their own, apart from functions."""
        code, aliases = unquoted(expr)

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
            # Levels that are whole numbers are called 1, not 1.0, if they are right.
            with contextlib.suppress(TypeError, ValueError):
                whole = run(as_given)
                if np.array_equal(_series(whole), _series(values)):
                    values = whole
        return values, set()

    @PandasMaterializer.override
    def _is_categorical(self, values: Any) -> bool:
        return (_is_condition(values) and not self.numeric) or super()._is_categorical(values)

    @PandasMaterializer.override
    def _encode_evaled_factor(
        self, factor: Any, spec: ModelSpec, drop_rows: Any, reduced_rank: bool = False
    ) -> dict[str, Any]:
        if factor.metadata.kind is Factor.Kind.NUMERICAL:
            factor = factor.replace(values=_in_floats(factor.expr, factor.values))
        elif _is_condition(factor.values) and factor.metadata.encoder is None:
            values = FactorValues(factor.values, metadata=factor.metadata, encoder=_false_and_true)
            factor = factor.replace(values=values)
        elif factor.metadata.kind is Factor.Kind.CATEGORICAL:
            values = _series(factor.values)
            if isinstance(values.dtype, pd.CategoricalDtype):
                values = values.cat.remove_unused_categories()
                factor = factor.replace(values=FactorValues(values, metadata=factor.metadata))
            n_levels = values.nunique()
            if n_levels > MAX_COLUMNS:
                raise ValueError(
                    f"{factor.expr!r} has {n_levels} levels, more than the {MAX_COLUMNS} columns "
                    "of the largest design."
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


def _in_floats(name: str, numbers: Any) -> Any:
    """Return numbers as float64, which products of them do not overflow."""
    dtype = getattr(numbers, "dtype", None)
    kind = getattr(dtype, "kind", None)
    if kind in ("m", "M") or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        raise ValueError(
            f"{name!r} holds {dtype}, not numbers. C() makes levels of them. For a trend, "
            "make numbers of them before, such as days since a beginning."
        )
    if kind not in ("b", "i", "u"):
        return numbers
    return FactorValues(np.asarray(numbers, np.float64), metadata=numbers.__formulaic_metadata__)


def _false_and_true(values: Any, **_: Any) -> FactorValues:
    """Encode a condition by both levels, whichever occur, as patsy does.

    Where the intercept or another factor leaves one of them, it has the name of the condition.
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


def _is_condition(values: Any) -> bool:
    return getattr(values, "dtype", None) == np.bool_


def _materialize(
    spec: ModelSpec, data: dict[str, Any], index: pd.Index, where: str, *, numeric: bool = False
) -> tuple[NDArray[np.float64], ModelSpec]:
    """Evaluate a formula, and return its matrix and the formula with all that it has learnt.

    formulaic's own care for missing values and levels is switched off, since it drops rows or
    warns; `plain` and the checks here take its place.
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
    materializer = _Materializer(frame, context=CONTEXT)
    materializer.numeric = numeric
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            # Levels that the fit did not know are refused below.
            warnings.simplefilter("ignore", DataMismatchWarning)
            warnings.filterwarnings("ignore", "Constructing a Categorical", DeprecationWarning)
            matrix = materializer.get_model_matrix(spec)
    except Exception as error:  # a formula is code, and may raise anything
        raise ValueError(f"{where}: {_message(error)}") from error

    spec = matrix.model_spec
    for expression, factor in materializer.factor_cache.items():
        if factor.metadata.kind is Factor.Kind.CATEGORICAL:
            levels = spec.encoder_state.get(expression, (None, {}))[1].get("categories")
            if levels is not None:
                check_levels(_series(factor.values), levels, index, f"{where}: {expression!r}")
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
        check_cells(~finite[:, column], cells, f"{where}: {matrix.columns[column]!r} is not finite")
    return values, spec


def _written_spec(spec: ModelSpec) -> dict[str, Any]:
    """Return a frozen formula as text, numbers and arrays: its terms, and what it has learnt."""
    return {
        "terms": [
            [(factor.expr, factor.eval_method.value) for factor in term.factors]
            for term in spec.formula
        ],
        "transforms": spec.transform_state,
        # Of contrasts, formulaic keeps a note that it does not read.
        "levels": {
            expression: (kind.value, {k: v for k, v in learnt.items() if k != "contrasts"})
            for expression, (kind, learnt) in spec.encoder_state.items()
        },
        "columns": list(spec.column_names),
    }


def _read_spec(
    written: Mapping[str, Any],
    cell: Mapping[str, Any],
    used: Mapping[str, bool],
    where: str,
    *,
    numeric: bool,
) -> ModelSpec:
    """Return the frozen formula, whose expressions are checked as those of a new one are.

    Evaluated for one cell of the fit, it has the structure that it had for all of them.
    """
    terms = [
        Term([Factor(expression, eval_method=method) for expression, method in factors])
        for factors in written["terms"]
    ]
    formula = SimpleFormula(terms)
    data = {name: cell[name] for name in used}
    if set(_names_read(formula, Columns(pd.DataFrame(data)), where)) != set(used):
        raise ValueError(f"{where} does not read the columns {list(used)}.")
    spec = ModelSpec(
        formula,
        transform_state=written["transforms"],
        encoder_state={
            expression: (Factor.Kind(kind), learnt)
            for expression, (kind, learnt) in written["levels"].items()
        },
    )
    _, spec = _materialize(spec, data, pd.RangeIndex(1), where, numeric=numeric)
    if list(spec.column_names) != written["columns"]:
        raise ValueError(
            f"{where} had the columns {written['columns']}, but formulaic "
            f"{version('formulaic')} makes {list(spec.column_names)} of it. Fit it again."
        )
    return spec


def _written_values(values: Any) -> dict[str, Any]:
    if isinstance(values, pd.Categorical):
        categories = values.categories.tolist()
        return {"values": values.codes, "categories": categories, "ordered": bool(values.ordered)}
    return {"values": values}


def _read_values(values: Any, categories: list[Any] | None = None, *, ordered: bool = False) -> Any:
    if categories is None:
        return values
    return pd.Categorical.from_codes(values, pd.Index(categories), ordered)


def linear_constraints(
    text: str | Sequence[str], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read hypotheses about coefficients, which are not evaluated as code.

    Parameters
    ----------
    text : str or sequence of str
        Such as ``"a[T.y] - a[T.x] = 0"``, several separated by commas or as a sequence. Without
        ``=``, the right-hand side is zero. Names may stand in backquotes. They must if they also
        read as numbers or as sums of other names, unless they are all of the text.
    names : sequence of str
        Names of the coefficients.

    Returns
    -------
    matrix : ndarray of shape (n_constraints, n_names)
    values : ndarray of shape (n_constraints,)
        The hypothesis is ``matrix @ coef == values``.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If the text does not parse, names something else, or a constraint follows from others or
        from none.

    Examples
    --------
    >>> from sc_glm.formula import linear_constraints
    >>> linear_constraints("a - b = 0.5, c", ["a", "b", "c"])
    (array([[ 1., -1.,  0.],
           [ 0.,  0.,  1.]]), array([0.5, 0. ]))
    """
    lines = [text] if isinstance(text, str) else text
    if not (isinstance(lines, list | tuple) and all(isinstance(line, str) for line in lines)):
        raise TypeError(f"A constraint is a string, or a list of them, not {text!r}.")
    where = f"constraint {', '.join(lines)!r}"
    if len(where) > MAX_LENGTH:
        raise ValueError(f"{where[:50]}... is longer than {MAX_LENGTH} characters.")
    try:
        code = [_with_placeholders(line, names) for line in lines]
        forms = [_equation(each, len(names)) for line in code for each in line.split(",")]
    except KeyError as error:
        name = str(error.args[0])
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        raise ValueError(
            f"{where}: there is no coefficient {name!r}. There are {len(names)}, such as "
            f"{close}.{_reference_hint(name, names)}"
        ) from None
    except Exception as error:
        raise ValueError(
            f"{where} does not parse. A constraint is an equation between sums of coefficients, "
            "each times or divided by a number, and numbers, with one equals sign or none. (Names "
            "with operators in them stand in backquotes: `a-b`.)"
        ) from error
    matrix, values = np.split(np.array(forms), [len(names)], axis=1)
    rank = np.linalg.matrix_rank(matrix) if matrix.size else 0
    if not rank or rank < len(matrix):
        raise ValueError(f"{where}: each constraint must say something that the others do not.")
    return matrix, 0.0 - values[:, 0]


_BRACKETS = r"\[[^\]]*\]|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"  # nested as names have them
_OTHERS = (
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))"
    rf"|(?P<other>(?:[^\W\d]|`[^`]*`)(?:[\w.:]|`[^`]*`|{_BRACKETS})*)"
)


def _reference_hint(name: str, names: Sequence[str]) -> str:
    """Say of a name that is no coefficient's which level in it may be a reference level."""

    def levels(name: str) -> list[tuple[str, str]]:
        factors = re.findall(rf"(?:[^:`(\[]|`[^`]*`|{_BRACKETS})+", name)
        halves = [factor.partition("[T.") for factor in factors]
        return [(factor, level[:-1]) for factor, _, level in halves if level]

    known: dict[str, set[str]] = {}
    for other in names:
        for factor, level in levels(other):
            known.setdefault(factor, set()).add(level)
    return "".join(
        f" If {level!r} is the reference level of {factor}, its coefficient is zero."
        for factor, level in levels(name)
        if factor in known and level not in known[factor]
    )


def _with_placeholders(line: str, names: Sequence[str]) -> str:
    """Write ``_0``, ``_1``, ... in place of the names, which may hold any sign.

    Raises
    ------
    KeyError
        If there is another name.
    """
    known = {name: number for number, name in enumerate(names)}
    if line in known:
        return f"_{known[line]}"
    sums = {name for name in names if _is_sum(name, known)}
    quoted = {f"`{name}`": number for name, number in known.items()}
    known = {name: number for name, number in known.items() if name not in sums} | quoted
    in_line = sorted((name for name in known if name in line), key=len, reverse=True)
    whole = "|".join(re.escape(name) + r"(?![\w.:`\[(])" for name in in_line)

    def placeholder(found: re.Match[str]) -> str:
        if found["other"] is not None:
            raise KeyError(found["other"].removeprefix("`").removesuffix("`"))
        return found["number"] or f" _{known[found[0]]} "

    return re.sub(f"{whole}|{_OTHERS}" if whole else _OTHERS, placeholder, line)


def _is_sum(name: str, names: Container[str]) -> bool:
    """Tell whether a name reads as a number, or as a sum of numbers and other names."""
    number = r"\d*\.?\d*(?:[eE][+-]?\d+)?"
    pieces = [piece.strip(" ()") for piece in re.split("[-+*/=,]", name)]
    return bool(re.fullmatch(number, name)) or all(
        re.fullmatch(number, piece) or (piece != name and piece in names) for piece in pieces
    )


def _equation(text: str, n_names: int) -> NDArray[np.float64]:
    """Return the coefficients of ``_0``, ``_1``, ... and the constant, of left less right side."""
    left, *right = [ast.parse(side.strip(), mode="eval").body for side in text.split("=")]
    if len(right) > 1:
        raise ValueError("A constraint has one equals sign.")
    with np.errstate(all="ignore"):
        form = _linear(left, n_names) - sum(_linear(side, n_names) for side in right)
    if not np.isfinite(form).all():
        raise ValueError("A number is infinite.")
    return form


def _linear(node: ast.expr, n_names: int) -> NDArray[np.float64]:
    total = np.zeros(n_names + 1)
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        sign = 1.0 if isinstance(node.op, ast.Add) else -1.0
        total += sign * _linear(node.right, n_names)
        node = node.left
    match node:
        case ast.Constant(value=int() | float()):
            total[-1] += node.value
        case ast.Name():
            total[int(node.id[1:])] += 1.0
        case ast.UnaryOp(op=ast.UAdd() | ast.USub()):
            sign = 1.0 if isinstance(node.op, ast.UAdd) else -1.0
            total += sign * _linear(node.operand, n_names)
        case ast.BinOp(op=ast.Mult() | ast.Div()):
            left, right = _linear(node.left, n_names), _linear(node.right, n_names)
            if isinstance(node.op, ast.Mult) and not left[:-1].any():
                left, right = right, left
            if right[:-1].any():
                raise ValueError("Coefficients are multiplied or divided by numbers alone.")
            total += left * right[-1] if isinstance(node.op, ast.Mult) else left / right[-1]
        case _:
            raise ValueError("This is no sum.")
    return total


# Beside formulaic's transforms, all that a formula can see.
CONTEXT: Mapping[str, Any] = {
    "np": NAMESPACE,
    "exp10": functools.partial(np.power, 10.0),  # formulaic's is x**10
    **{
        name: with_margin(checked(TRANSFORMS[name], check))
        for name, check in (
            ("bs", check_bs),
            ("cc", check_cc),
            ("cr", check_cr),
            ("cs", check_cr),
        )
    },
    "poly": checked(TRANSFORMS["poly"], check_poly),
}
