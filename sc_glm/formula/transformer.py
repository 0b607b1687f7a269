"""Design matrices of the model's parts from formulas, as a transformer of scikit-learn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sc_glm._contract.callbacks import CallbackSupportMixin, reporting_to_callbacks, with_callbacks
from sc_glm._contract.state import StateMixin, restore_on_failure
from sc_glm._contract.validation import as_pandas, check_no_anndata, quoted
from sc_glm.formula.covariates import FRAME_HINT, Columns, check_column_names, read_columns
from sc_glm.formula.expression_checks import MAX_FORMULA_LENGTH
from sc_glm.formula.model_matrix import evaluate_spec, fit_spec
from sc_glm.formula.numeric_labels import count_label_like_values, warn_of_slopes
from sc_glm.formula.parsing import (
    columns_as_terms,
    columns_in_formula,
    parse_formula,
    parse_offset,
)
from sc_glm.formula.reference_levels import ReferenceLevels
from sc_glm.formula.saved_formula import plain_spec, plain_values, restored_spec, restored_values
from sc_glm.formula.terms import FittedTerms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray
    from sklearn.utils import Tags

__all__ = ["FormulaTransformer"]

PARTS = ("mean", "dispersion", "zero_inflation", "offset")

# Rows come out alone as they did among others, up to rounding: relative to the largest value of
# their column, and to their own value.
_COLUMN_TOLERANCE, _VALUE_TOLERANCE = 1e-9, 1e-6


class FormulaTransformer(
    StateMixin,
    CallbackSupportMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    BaseEstimator,  # type: ignore[misc]
):
    """Turn cells' covariates into one design matrix per part of the model, by formulas.

    Everything that a formula learns from data comes from :meth:`fit` and is kept: spline knots,
    means and scales, the levels of a factor and their order. The design of a row depends on that
    row alone, whichever rows are transformed with it. Rows are never dropped.

    Parameters
    ----------
    mean : str or None, default="~ ."
        Formula of log mu, in `formulaic's grammar
        <https://matthewwardrop.github.io/formulaic/latest/guides/grammar/>`_, with or without
        the leading ``~``. It has an intercept unless it says ``0 +`` or ``- 1``. ``.`` is every
        column of the frame given to :meth:`fit`, also a column that `offset` reads. Write
        ``. - log_depth`` to leave a column out. None: the part has no design, and regressors fit
        an intercept alone.
    dispersion : str or None, default=None
        Formula of log r, the size of the negative binomial (Var = mu + mu²/r).
    zero_inflation : str or None, default=None
        Formula of logit pi, the probability of a structural zero.
    offset : str or None, default=None
        One numeric expression that is added to log mu, such as ``"np.log(size_factor)"`` or
        ``"log_depth"``. It is the logarithm of an exposure, never the exposure itself. No error
        can report this mistake where the exposures are near one. Write arithmetic in braces:
        ``"{np.log(a) + np.log(b)}"``.
    reference : dict of str to level, default=None
        Reference levels by column, such as ``{"perturbation": "control"}``, for all parts. The
        level becomes the first one wherever a formula uses the column as a factor in treatment
        coding: as a term, in an interaction, and in ``C(x)``. The coefficients of the other levels
        are differences from it. Contrasts or levels that a formula states itself, such as
        ``C(x, contr.treatment("a"))``, have precedence. A column that no formula reads has no
        effect, so that a grid of formulas can share one `reference`.

    Attributes
    ----------
    model_specs_ : dict of str to formulaic.ModelSpec
        The fitted formula of each part that has one.
    covariates_ : dict of str to dict of str to bool
        Per part, the columns that its formula reads; True where a column is categorical.
    n_features_in_ : int
        Number of columns seen by :meth:`fit`.
    feature_names_in_ : ndarray of str
        Their names, if the input had names. Columns of a plain array are ``x0``, ``x1``, ...

    Raises
    ------
    ValueError
        From :meth:`fit` and :meth:`transform`. The message names the part, the column or
        expression, and the value. Both methods refuse a missing column, a missing or infinite
        value, a value outside a spline's range, and a result that is not a finite number.
        Levels that :meth:`fit` did not see are an error, too. In addition, :meth:`fit` refuses

        - a formula that does not parse, or that holds what a formula may not (see the notes);
        - an expression that mixes rows, such as ``I(x - np.mean(x))``: write ``center(x)``, which
          keeps its mean;
        - a spline that cannot be made;
        - a column that formulaic takes for something else, such as one named ``1``, which it
          takes for the intercept;
        - a `reference` whose column or level does not occur, or whose column is read as a number,
          or is only used with contrasts that the formula states itself. A boolean term has the
          reference False; ``C(flag)`` allows True.
    TypeError
        From :meth:`fit`, if a formula is not a string, or `reference` is not a dict.

    Warns
    -----
    UserWarning
        Once, from :meth:`fit`, if a formula reads as a number a column of whole numbers that look
        like labels: 3 to 15 values, which are more than half of the whole numbers from the
        smallest to the largest. ``C(donor)`` makes levels of them, and ``I(donor)`` confirms that
        they are numbers.

    Notes
    -----
    A formula cannot hold arbitrary Python code. Besides formulaic's operators and column names
    (in backquotes if they are not names in Python), its expressions are made of arithmetic
    (``+ - * / // % **``), comparisons, conditions joined by ``& | ~``, numbers, strings, and calls
    of

    - ``bs``, ``cc``, ``cr``, ``cs``, ``poly``, ``center``, ``scale``, ``standardize``, ``C`` with
      its contrasts, ``hashed``, ``I``, ``Q``, ``log``, ``log2``, ``log10``, ``exp``, ``exp2``,
      ``exp10``;
    - NumPy's elementwise functions as ``np.log1p(x)``, also ``np.where``, ``np.clip``,
      ``np.round``, ``np.isin``, ``np.digitize`` and ``np.interp``, and ``np.pi``.

    Everything else is refused before any code runs. This includes methods and attributes (write
    ``np.clip(x, 0, 1)`` for ``x.clip(0, 1)``), and parameters that are not constants. Formulas,
    powers, interactions and splines have upper sizes. This is one defence, not a sandbox: an
    allowed formula may still take time and memory in proportion to the columns that it makes.
    Limit both where formulas come from people you do not know.

    Arithmetic and functions of numbers are computed in double precision, also for whole numbers
    and booleans. There, whole numbers beyond 2**53 are an error. ``C()`` and comparisons
    distinguish them.

    A spline with a range (``bs``) is constant for 5 % of the range beyond each end. So the
    extreme cells of a fold do not fail a cross-validation. Values farther out are an error, and
    with ``extrapolation="raise"`` all values outside the range are. A cyclic spline (``cc``) needs
    ``lower_bound`` and ``upper_bound``, the ends of its period.

    Strings and categorical columns are factors. Booleans and comparisons are factors with the
    levels False and True. Next to an intercept, a boolean is one column with its own name.
    Numbers are numbers: write ``C(batch)`` for a batch number, and ``C(day)`` for dates. Levels
    are those of the cells given to :meth:`fit`, whatever their weights. A pandas categorical
    keeps its order of levels, and other levels are sorted; the first level is the reference. A
    category without a cell is not a level, as in R's ``glm``: it has no coefficient, and later
    cells of this category are an error.

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

    With another reference level:

    >>> design = FormulaTransformer(mean="~ cell_type", reference={"cell_type": "T"})
    >>> design.fit(cells).get_feature_names_out().tolist()
    ['mean__Intercept', 'mean__cell_type[T.B]']
    """

    _fitted_state = (
        "_boolean_columns",
        "_example_cell",
        "model_specs_",
        "covariates_",
        "n_features_in_",
    )

    def __init__(
        self,
        mean: str | None = "~ .",
        dispersion: str | None = None,
        zero_inflation: str | None = None,
        offset: str | None = None,
        reference: Mapping[str, Any] | None = None,
    ) -> None:
        self.mean = mean
        self.dispersion = dispersion
        self.zero_inflation = zero_inflation
        self.offset = offset
        self.reference = reference

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
        with reporting_to_callbacks(self, X, y), restore_on_failure(self):
            self._fit(X)
        return self

    def transform(self, X: Any) -> pd.DataFrame:
        """Evaluate the fitted formulas for cells.

        Parameters
        ----------
        X : DataFrame or array-like of numbers, shape (n_cells, n_covariates)
            The cells' covariates. A DataFrame needs only the columns that the formulas read, in
            any order.

        Returns
        -------
        DataFrame of float64, shape (n_cells, n_features_out)
            Columns are named ``part__column``; rows and index are those of `X`.
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
        """Return the names of the design's columns, ``part__column``.

        Parameters
        ----------
        input_features : None
            Ignored: :meth:`fit` fixed the names.

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

    def terms_of(self, part: str) -> FittedTerms:
        """Return the terms of a part's fitted formula, with their columns and levels.

        Parameters
        ----------
        part : str
            A part that has a formula, such as ``"mean"``.

        Returns
        -------
        FittedTerms
            The terms; see :class:`sc_glm.formula.terms.FittedTerms`.
        """
        check_is_fitted(self, "model_specs_")
        return FittedTerms(self.model_specs_[part], Columns(pd.DataFrame(self._example_cell)))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the design is float64, whatever X is
        return tags

    def _fit(self, X: Any) -> None:
        formulas = self._formulas()
        frame = self._frame(X, reset=True)
        columns = Columns(frame)
        reference = ReferenceLevels(self.reference, frame, columns)

        specs, covariates, matrices = {}, {}, []
        example_cell: dict[str, Any] = {}
        booleans: set[str] = set()
        label_like: dict[str, int] = {}
        for part, text in formulas.items():
            where = f"{part}={text!r}"
            is_offset = part == "offset"
            formula = (parse_offset if is_offset else parse_formula)(text, columns, where)
            read = columns_in_formula(formula, columns, where)
            booleans |= {name for name in read if columns.is_boolean(name)}
            covariates[part] = {name: columns.is_categorical(name) for name in read}
            data = read_columns(frame, covariates[part], booleans, where)
            levels = {} if is_offset else reference.orders(formula, data)
            matrix, specs[part] = fit_spec(
                formula, data, frame.index, where, levels=levels, is_offset=is_offset
            )
            matrices.append(matrix)
            if not is_offset:
                label_like |= count_label_like_values(columns_as_terms(formula), data)
            example_cell |= {name: values[:1] for name, values in data.items()}

        reference.check_applied(covariates)
        self._example_cell = example_cell  # evaluating it restores the formulas of a file
        self.model_specs_ = specs
        self.covariates_ = covariates
        self._boolean_columns = tuple(sorted(booleans))
        self._check_no_mixed_rows(frame, matrices)
        if label_like:
            warn_of_slopes(label_like)

    def _state_to_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        if "model_specs_" not in state:
            return state
        specs = {part: plain_spec(spec) for part, spec in state["model_specs_"].items()}
        cell = {name: plain_values(values) for name, values in state["_example_cell"].items()}
        return {**state, "model_specs_": specs, "_example_cell": cell}

    def _state_from_plain(self, state: dict[str, Any]) -> dict[str, Any]:
        if "model_specs_" not in state:
            return state
        cell = {name: restored_values(**plain) for name, plain in state["_example_cell"].items()}
        specs = {
            part: restored_spec(
                plain,
                cell,
                state["covariates_"][part],
                f"the saved {part!r}",
                is_offset=part == "offset",
            )
            for part, plain in state["model_specs_"].items()
        }
        return {**state, "model_specs_": specs, "_example_cell": cell}

    def _formulas(self) -> dict[str, str]:
        """Return the formulas of the parts that have one."""
        formulas = {part: getattr(self, part) for part in PARTS}
        formulas = {part: text for part, text in formulas.items() if text is not None}
        for part, text in formulas.items():
            if not isinstance(text, str):
                example = "'np.log(size_factor)'" if part == "offset" else "'~ x'"
                raise TypeError(
                    f"{part}={_short_repr(text)}: a formula is a string, such as {example}, or "
                    "None. It names columns of X."
                )
            if len(text) > MAX_FORMULA_LENGTH:
                raise ValueError(
                    f"{part}='{text[:50]}...' has {len(text)} characters, but a formula has at "
                    f"most {MAX_FORMULA_LENGTH}. '~ .' stands for every column."
                )
        if not formulas:
            raise ValueError(
                f"No part has a formula: {', '.join(PARTS)} are all None. '~ 1' is an intercept."
            )
        return formulas

    def _frame(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """Return `X` as a frame, after scikit-learn's checks; a frame is returned itself."""
        check_no_anndata(X, "X")
        X = as_pandas(X)
        named = reset or hasattr(self, "feature_names_in_")
        if isinstance(X, pd.DataFrame) and named:
            if not len(X):
                raise ValueError("X has no rows (0 sample(s)): at least one is needed.")
            if reset:
                check_column_names(X)
                # In transform, scikit-learn's check of names would refuse extra and re-ordered
                # columns. Formulas look columns up by name, and need no such check.
                validate_data(self, X, skip_check_array=True)
                # scikit-learn takes a frame without columns for an array, and sets no names.
                self.feature_names_in_ = np.asarray(X.columns, dtype=object)
            return X
        may_be_text = isinstance(X, np.ndarray) and X.dtype.kind in "OU"
        if may_be_text and any(isinstance(value, str) for value in X.flat):
            raise ValueError(f"X is an array with text.{FRAME_HINT}")
        values = validate_data(self, X, reset=reset)
        names = getattr(self, "feature_names_in_", [f"x{i}" for i in range(values.shape[1])])
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(values, index=index, columns=names, copy=False)

    def _matrices(self, frame: pd.DataFrame) -> list[NDArray[np.float64]]:
        """Evaluate the fitted formulas, and return one matrix per part."""
        matrices = []
        for part, spec in self.model_specs_.items():
            where = f"{part}={getattr(self, part)!r}"
            data = read_columns(frame, self.covariates_[part], self._boolean_columns, where)
            matrix, _ = evaluate_spec(spec, data, frame.index, where, is_offset=part == "offset")
            matrices.append(matrix)
        return matrices

    def _check_no_mixed_rows(
        self, frame: pd.DataFrame, matrices: list[NDArray[np.float64]]
    ) -> None:
        """Refuse expressions whose value for a cell depends on the other cells.

        Python expressions keep no state. An expression with a mean would silently take the mean
        of the new data. So a few rows are evaluated alone, and compared with their results among
        all rows.
        """
        for row in sorted({0, len(frame) // 2, len(frame) - 1}):
            matrices_of_row = self._matrices(frame.iloc[[row]])
            for (part, spec), matrix, matrix_of_row in zip(
                self.model_specs_.items(), matrices, matrices_of_row, strict=True
            ):
                tolerance = _COLUMN_TOLERANCE * np.abs(matrix).max(axis=0)
                tolerance += _VALUE_TOLERANCE * np.abs(matrix[row])
                differs = np.abs(matrix[row] - matrix_of_row[0]) > tolerance
                if differs.any():
                    column = spec.column_names[differs.argmax()]
                    raise ValueError(
                        f"{part}={getattr(self, part)!r}: {column!r} of row "
                        f"{quoted(frame.index[row])} depends on the other rows, so that it would "
                        "change with new data. Use transforms that keep their state, such as "
                        "center, scale, poly or bs."
                    )


def _short_repr(value: Any) -> str:
    """Return a value's repr, or the name of its type if the repr is longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"<{type(value).__name__}>"
