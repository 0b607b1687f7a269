"""Contrasts as people name them: two levels of a factor, a term, a constraint or a vector."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.linalg

from sc_glm._contract.validation import quoted, similar_names
from sc_glm._likelihood.family import ZERO_INFLATION
from sc_glm.formula.constraints import linear_constraints

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._design.null_space import NullSpace
    from sc_glm.formula.terms import Covariate
    from sc_glm.inference.fitted_model import FittedData
    from sc_glm.inference.model_formula import ModelFormula

REST = "rest"  # in place of a reference level: the mean of the means of all other levels
_PAIR_ENTRIES = 3  # of (factor, level, reference)
_ROUNDING = 1e-9  # of a factor's average rows, which are sums over cells


@dataclass(frozen=True)
class Contrast:
    """A hypothesis about the coefficients of one part.

    Attributes
    ----------
    matrix : ndarray of shape (n_constraints, n_columns)
        Multiplies the coefficients of the part.
    right_hand_side : ndarray of shape (n_constraints,)
        The products under the hypothesis.
    wider : ndarray of shape (n_wider, n_columns)
        Combinations that are zero if the whole factor has no effect. Their null model serves all
        contrasts of the factor.
    sides : tuple of two ndarray of bool of shape (n_cells,), or None
        Cells of the two sides, where levels of a factor are compared.
    levels : ndarray of shape (1 + n_others, n_columns), or None
        Average design rows of a level and of all others, where it is compared with the mean of
        their means. Then ``matrix`` is the comparison with their geometric mean, which is zero at
        the same time if the whole factor has no effect.
    is_term : bool
        Whether a term is tested as a whole, so that all cells are compared.
    """

    matrix: FloatArray
    right_hand_side: FloatArray
    wider: FloatArray
    sides: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    levels: FloatArray | None = None
    is_term: bool = False

    @property
    def n_constraints(self) -> int:
        """Number of combinations that are tested jointly."""
        return len(self.right_hand_side)


@dataclass(frozen=True)
class ContrastReader:
    """Reads contrasts about one part of a fitted model.

    Attributes
    ----------
    fitted : FittedData
    formula : ModelFormula or None
        The model's formulas, if it has any.
    part : str
    null_space : NullSpace
        Directions of the part's coefficients that the fit does not identify.
    weights : ndarray of shape (n_cells,)
        Weights of the cells, over which interactions are averaged.
    """

    fitted: FittedData
    formula: ModelFormula | None
    part: str
    null_space: NullSpace
    weights: FloatArray
    _rows_of_factors: dict[str, tuple[FloatArray, FloatArray]] = field(
        default_factory=dict, init=False, repr=False
    )  # average rows of the levels, and a basis of their differences

    @property
    def columns(self) -> list[str]:
        """Names of the part's coefficients."""
        return list(self.fitted.params[self.part].index)

    def read_all(self, contrasts: Mapping[str, Any]) -> dict[str, Contrast]:
        """Read a dict of contrasts.

        Raises
        ------
        TypeError
            If a name is not a string, or a contrast has another type than those of :meth:`read`.
        ValueError
            If there are none, or if one is not valid; the message begins with its name.
        """
        if not contrasts:
            raise ValueError("contrast is an empty dict: at least one contrast is needed.")
        result = {}
        for name, contrast in contrasts.items():
            if not isinstance(name, str):
                raise TypeError(f"The names of contrasts must be strings, not {quoted(name)}.")
            try:
                result[name] = self.read(contrast)
            except ValueError as error:
                raise ValueError(f"contrast[{name!r}]: {error}") from error
        return result

    def read(self, contrast: Any) -> Contrast:
        """Read one contrast.

        Parameters
        ----------
        contrast : tuple, str, list of str or array-like
            ``(factor, level, reference)``, a term, a constraint, or weights of the coefficients.

        Raises
        ------
        TypeError
            If it is none of these.
        ValueError
            If it names an unknown factor, level or coefficient, or has no coefficient.
        """
        if self._names_levels(contrast):
            return self._of_levels(*contrast)
        if isinstance(contrast, str):
            return self._of_term(contrast) or self._of_constraints(contrast)
        if isinstance(contrast, list) and all(isinstance(line, str) for line in contrast):
            return self._of_constraints(contrast)
        return self._of_vectors(contrast)

    def _names_levels(self, contrast: Any) -> bool:
        """Return whether a contrast is (factor, level, reference), which may be a list.

        Raises
        ------
        ValueError
            If it is a tuple of a factor and a level alone.
        """
        if not (isinstance(contrast, tuple | list) and contrast and isinstance(contrast[0], str)):
            return False
        if isinstance(contrast, tuple):
            if len(contrast) != _PAIR_ENTRIES:
                raise ValueError(
                    f"A contrast of levels is (factor, level, reference), not {quoted(contrast)}. "
                    f"The reference may be {REST!r}, the mean of all other levels."
                )
            return True
        terms = None if self.formula is None else self.formula.terms(self.part)
        is_factor = terms is not None and terms.covariate(contrast[0]) is not None
        return len(contrast) == _PAIR_ENTRIES and contrast[0] not in self.columns and is_factor

    def _of_constraints(self, text: str | list[str]) -> Contrast:
        try:
            matrix, values = linear_constraints(text, self.columns)
        except ValueError as error:
            terms = None if self.formula is None else self.formula.terms(self.part)
            names = [] if terms is None else terms.names()
            raise ValueError(f"{error} Terms are {names[:10]}." if names else str(error)) from error
        return Contrast(matrix, values, matrix)

    def _of_term(self, text: str) -> Contrast | None:
        """Return the joint hypothesis about a term's columns; None if a text is not a term."""
        if self.formula is None or text in self.columns:
            return None
        terms = self.formula.terms(self.part)
        positions = None if terms is None else terms.term_columns(text)
        if terms is None or not positions:
            return None
        matrix = np.eye(len(self.columns))[positions]
        covariate = terms.covariate(text)
        constant = self._weights_of_own_constant(positions)
        if covariate is not None and len(covariate.levels) == len(matrix) > 1:
            # The factor has a column for each level, and no intercept beside it: levels are equal.
            matrix = matrix[1:] - matrix[0]
        elif constant is not None:  # the predictor is the same in all cells
            matrix = scipy.linalg.null_space(constant[None]).T @ matrix
        rows = estimable_rows(matrix, self.null_space)
        matrix = rows if len(rows) else matrix  # has a reason instead of p-values
        return Contrast(matrix, np.zeros(len(matrix)), matrix, is_term=True)

    def _weights_of_constant(self, positions: list[int]) -> FloatArray | None:
        """Return weights of some columns whose sum is one in all cells; None if there are none."""
        columns = self.fitted.designs[self.part][:, positions]
        ones = np.ones(len(columns))
        weights = np.asarray(np.linalg.lstsq(columns, ones, rcond=None)[0])
        return weights if np.abs(columns @ weights - 1).max(initial=0.0) < _ROUNDING else None

    def _weights_of_own_constant(self, positions: list[int]) -> FloatArray | None:
        """Return such weights of a term's columns, unless other columns have them too."""
        others = [i for i in range(len(self.columns)) if i not in positions]
        has_intercept = (self.fitted.designs[self.part][:, others] == 1).all(axis=0).any()
        if len(positions) == 1 or has_intercept:
            return None
        weights = self._weights_of_constant(positions)
        return None if weights is None or self._weights_of_constant(others) is not None else weights

    def _of_vectors(self, contrast: Any) -> Contrast:
        expected = (
            "A contrast is (factor, level, reference), a term, a constraint, a vector with a "
            "weight for each coefficient, or a dict of names and these"
        )
        try:
            matrix = np.atleast_2d(np.asarray(contrast, dtype=np.float64))
        except (TypeError, ValueError):
            raise TypeError(f"{expected}, not {quoted(contrast)}.") from None
        n_columns = len(self.columns)
        if matrix.ndim != 2 or matrix.shape[1] != n_columns:
            raise ValueError(
                f"{expected}. This vector has the shape {np.shape(contrast)}, and the "
                f"{self.part} has {n_columns} coefficients."
            )
        if not np.isfinite(matrix).all():
            raise ValueError("A weight of the contrast is missing or infinite.")
        if np.linalg.matrix_rank(matrix) < len(matrix):
            raise ValueError(
                "The vectors of a contrast must be linearly independent, and not only zeros."
            )
        return Contrast(matrix, np.zeros(len(matrix)), matrix)

    def _of_levels(self, factor: str, level: Any, reference: Any) -> Contrast:
        if self.formula is None:
            raise ValueError(
                f"({factor!r}, ...) names a factor, which needs a model with a FormulaTransformer. "
                f"Name coefficients instead: {self.columns[:5]}."
            )
        covariate = self.formula.covariate(self.part, factor)
        if not covariate.levels:
            numbers = [_number(value, factor) for value in (level, reference)]
            if numbers[0] == numbers[1]:
                raise ValueError(f"{factor!r} has the same value on both sides: {numbers[0]:g}.")
            rows = self._average_rows(covariate, numbers)
            matrix = _without_rounding(rows[:1] - rows[1:])
            _check_not_zero(matrix, (factor, level, reference))
            return Contrast(matrix, np.zeros(1), matrix)
        levels = covariate.levels
        position = _position(levels, level, factor)
        others = [i for i in range(len(levels)) if i != position]
        if not (isinstance(reference, str) and reference == REST and REST not in levels):
            others = [_position(levels, reference, factor)]
        if position in others or not others:
            raise ValueError(f"{factor!r} has {quoted(level)} on both sides of the contrast.")
        if factor not in self._rows_of_factors:
            rows = self._average_rows(covariate, levels)
            differences = _independent(_without_rounding(rows[1:] - rows[0]))
            self._rows_of_factors[factor] = rows, estimable_rows(differences, self.null_space)
        rows, wider = self._rows_of_factors[factor]
        values = self.formula.cells[covariate.column]
        sides = (
            np.asarray(values.isin([levels[position]])),
            np.asarray(values.isin([levels[i] for i in others])),
        )
        contrast = contrast_of_rows(rows, position, others, sides, self.part)
        _check_not_zero(contrast.matrix, (factor, level, reference))
        return replace(contrast, wider=wider) if len(wider) else contrast

    def _without_rounding(self, rows: FloatArray) -> FloatArray:
        """Set entries of average rows equal to the first row's if they differ by rounding."""
        sizes = np.abs(self.fitted.designs[self.part]).max(axis=0)
        return np.where(np.abs(rows - rows[0]) > _ROUNDING * sizes, rows, rows[0])

    def _average_rows(self, covariate: Covariate, values: list[Any]) -> FloatArray:
        """Return the part's average design row with a covariate set to each of some values.

        Differences of rows are the same in all cells if no term reads the covariate with others.
        """
        assert self.formula is not None  # noqa: S101 - the covariate is one of its
        if covariate.is_additive:
            return self.formula.rows_of_first_cell(self.part, covariate.column, values)
        rows = [
            self.formula.average_row(self.part, {covariate.column: value}, self.weights)
            for value in values
        ]
        return self._without_rounding(np.array(rows))


def contrast_of_rows(
    rows: FloatArray,
    first: int,
    others: list[int],
    sides: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    part: str,
) -> Contrast:
    """Return the contrast of one level with one other level, or with the mean of several.

    Parameters
    ----------
    rows : ndarray of shape (n_levels, n_columns)
        Average design row of each level.
    first : int
    others : list of int
        Positions of the levels.
    sides : tuple of two ndarray of bool of shape (n_cells,)
        Cells of both sides.
    part : str
        Levels of the zero inflation are averaged on the scale of the logit, others on that of
        their values.
    """
    matrix = _without_rounding((rows[first] - rows[others].mean(axis=0))[None])
    is_mean = len(others) > 1 and part != ZERO_INFLATION
    levels = rows[[first, *others]] if is_mean else None
    return Contrast(matrix, np.zeros(1), matrix, sides, levels)


def estimable_rows(matrix: FloatArray, null_space: NullSpace) -> FloatArray:
    """Return a basis of those combinations of rows that the fit determines.

    Rows are left as they are if the fit determines all of them. Otherwise, the largest entry of
    each is one, so that a single row is a coefficient or a difference of two where it can be.
    """
    if not null_space.not_estimable(matrix).any():
        return matrix
    in_null_space = np.hstack(
        [(matrix / null_space.scale) @ null_space.directions, matrix[:, null_space.empty]]
    )
    rows = _without_rounding(scipy.linalg.null_space(in_null_space.T).T @ matrix)
    largest = np.abs(rows).argmax(axis=1, keepdims=True)
    return np.asarray(rows / np.take_along_axis(rows, largest, axis=1))


def _independent(rows: FloatArray) -> FloatArray:
    """Return as many of the rows as are linearly independent."""
    if not len(rows):
        return rows
    _, upper, order = scipy.linalg.qr(rows.T, mode="economic", pivoting=True)
    size = np.abs(np.diag(upper))
    return rows[np.sort(order[: int((size > _ROUNDING * size[0]).sum())])]


def _check_not_zero(matrix: FloatArray, contrast: tuple[Any, ...]) -> None:
    """Raise a ValueError if nothing differs between the sides of a contrast."""
    if (np.abs(matrix) <= _ROUNDING * _ROUNDING).all():
        raise ValueError(
            f"Both sides of {quoted(contrast)} have the same predictor on average over the cells. "
            "Test the term or its coefficients instead."
        )


def _without_rounding(rows: FloatArray) -> FloatArray:
    """Set entries to zero that are differences of equal sums."""
    return np.where(np.abs(rows) > _ROUNDING * np.abs(rows).max(initial=0.0), rows, 0.0)


def _position(levels: list[Hashable], level: Any, factor: str) -> int:
    """Return the position of a level, which may be written as text."""
    if level in levels:
        return levels.index(level)
    texts = [str(other) for other in levels]
    if str(level) in texts:
        return texts.index(str(level))
    similar = similar_names(str(level), texts, 3)
    hint = f" Similar: {similar}." if similar else ""
    known = quoted(levels[:10])
    if len(levels) > 10:
        known = f"{len(levels)} levels, such as {known}"
    raise ValueError(f"{factor!r} has no level {quoted(level)}: it has {known}.{hint}")


def _number(value: Any, factor: str) -> float:
    if not (isinstance(value, Real) and np.isfinite(float(value))):
        raise ValueError(
            f"The formula reads {factor!r} as a number, so that its contrast compares two numbers, "
            f"not {quoted(value)}. C({factor}) in the formula makes levels of it."
        )
    return float(value)
