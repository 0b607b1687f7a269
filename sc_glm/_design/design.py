"""From the columns of ``X`` to the design of each part, and to its identified directions.

A *design frame* spells each column ``part__column``, as :class:`~sc_glm.FormulaTransformer` and
scikit-learn's ``ColumnTransformer`` do. Whatever the columns' scales and dependencies, the solver
works on an orthonormal basis of their span; :class:`PartDesign` holds the way back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

OFFSET = "offset"
INTERCEPT = "Intercept"
_SEPARATOR = "__"
_LARGEST_OFFSET = 300.0  # its exponential is no number of counts
_REFINEMENTS = 3
_ALIGNED = 1e-10  # sine of an angle under which two directions are one
_ROUNDING = 1e-6  # share of a combination in directions that leave the predictor as it is
_KNOWN_PARTS = ("mean", "dispersion", "zero_inflation", OFFSET)


@dataclass(frozen=True)
class Layout:
    """Which columns of ``X`` make which part: the fitted state of a design.

    Attributes
    ----------
    columns : dict of str to list of str
        Names of each part's coefficients, in the order of the family's parts.
    positions : dict of str to list of int
        Where they stand in ``X``; -1 is a column of ones.
    offset : int or None
        Where the offset stands.
    """

    columns: dict[str, list[str]]
    positions: dict[str, list[int]]
    offset: int | None

    @classmethod
    def of(
        cls, names: Sequence[str] | None, n_columns: int, parts: Sequence[str], *, intercept: bool
    ) -> "Layout":
        """Read the layout from the columns of a training ``X``.

        Parameters
        ----------
        names : sequence of str or None
            Column names; None when ``X`` has none.
        n_columns : int
            Number of columns.
        parts : sequence of str
            Parts of the model; the first takes the columns of a plain ``X``.
        intercept : bool
            Whether the first part of a plain ``X`` has an intercept.

        Raises
        ------
        ValueError
            If some columns only are spelled ``part__column``, a part is not one of the model's,
            or there are two offsets.
        """
        split = [_split(name) for name in names] if names is not None else []
        if not any(part for part, _ in split):
            labels = list(names) if names is not None else [f"x{i}" for i in range(n_columns)]
            first = [INTERCEPT] if intercept else []
            columns = {parts[0]: first + labels} | {part: [INTERCEPT] for part in parts[1:]}
            positions = {parts[0]: [-1] * len(first) + list(range(n_columns))}
            return cls(columns, positions | {part: [-1] for part in parts[1:]}, None)
        _check_spelling(split, parts)
        columns, positions = {}, {}
        for part in parts:
            where = [i for i, (p, _) in enumerate(split) if p == part]
            columns[part] = [split[i][1] for i in where] or [INTERCEPT]
            positions[part] = where or [-1]
        offsets = [i for i, (part, _) in enumerate(split) if part == OFFSET]
        return cls(columns, positions, offsets[0] if offsets else None)

    def designs(self, X: FloatArray) -> dict[str, FloatArray]:
        """Return each part's design matrix."""
        return {part: _take(X, where) for part, where in self.positions.items()}

    def offset_of(self, X: FloatArray) -> FloatArray:
        """Return what is added to the first part's predictor.

        Raises
        ------
        ValueError
            If it cannot be the logarithm of anything, and names the row and the value.
        """
        if self.offset is None:
            return np.zeros(len(X))
        offset = X[:, self.offset]
        row = int(np.argmax(np.abs(offset)))
        if abs(offset[row]) > _LARGEST_OFFSET:
            raise ValueError(
                f"The offset is {offset[row]:.6g} in row {row}. It is added to log mu: did you "
                "mean its logarithm?"
            )
        return offset


def _split(name: str) -> tuple[str, str]:
    part, separator, column = name.partition(_SEPARATOR)
    return (part, column) if separator and part in _KNOWN_PARTS else ("", name)


def _check_spelling(split: Sequence[tuple[str, str]], parts: Sequence[str]) -> None:
    plain = [column for part, column in split if not part]
    if plain:
        raise ValueError(
            f"X mixes columns of a design frame, spelled part__column, with others: {plain[:5]}. "
            f"Rename these, or prefix them by the part that they belong to."
        )
    foreign = sorted({part for part, _ in split} - {*parts, OFFSET})
    if foreign:
        columns = [column for part, column in split if part == foreign[0]]
        raise ValueError(
            f"X has columns for {foreign[0]!r} ({columns[:5]}), a part that this model lacks: "
            f"its parts are {list(parts)}. Take a regressor that has it, such as ZINBRegressor, "
            f"or give it no formula: {foreign[0]}=None."
        )
    offsets = [column for part, column in split if part == OFFSET]
    if len(offsets) > 1:
        raise ValueError(
            f"X has {len(offsets)} offset columns, {offsets[:5]}; at most one is used."
        )


def _take(X: FloatArray, where: Sequence[int]) -> FloatArray:
    padded = [np.ones(len(X)) if i < 0 else X[:, i] for i in where]
    return np.column_stack(padded)


class Levels(NamedTuple):
    """Basis vectors that are the indicators of levels, of which each cell has one.

    ``codes`` (n_cells,) are the numbers of the cells' levels, and ``scale`` (n_levels,) is what
    each indicator is multiplied by, for a weighted mean square of one.
    """

    codes: NDArray[np.intp]
    scale: FloatArray


@dataclass(frozen=True)
class NullSpace:
    """Directions of a part's coefficients that change nothing in any cell of a fit.

    A linear combination of the coefficients is estimable if it is the same along all of them. A row
    of a design is such a combination: its predictor is the value.

    Attributes
    ----------
    scale : ndarray of shape (n_columns,)
        Units in which the columns are alike: their root mean squares, or one.
    empty : ndarray of bool of shape (n_columns,)
        Columns that are zero, so that any number in their place is another combination.
    directions : ndarray of shape (n_columns, n_directions)
        Orthonormal directions of the other coefficients, in units of one by ``scale``.
    """

    scale: FloatArray
    empty: NDArray[np.bool_]
    directions: FloatArray

    @classmethod
    def of(cls, basis: FloatArray, scale: FloatArray, empty: NDArray[np.bool_]) -> "NullSpace":
        """Take the columns that are zero apart, whose units are unknown.

        Parameters
        ----------
        basis : ndarray of shape (n_columns, n)
            Orthonormal basis of all directions.
        scale, empty : ndarray of shape (n_columns,)
            Units of the columns, and which of them are zero.
        """
        empty = empty & (np.linalg.norm(basis, axis=1) > 0.5)  # it is one, or zero
        left, singular, _ = np.linalg.svd(np.where(empty[:, None], 0.0, basis), full_matrices=False)
        return cls(scale, empty, left[:, singular > 0.5])

    def __bool__(self) -> bool:
        """Whether any combination is open."""
        return bool(self.empty.any() or self.directions.shape[1])

    def not_estimable(self, combinations: FloatArray, unit: float = 0.0) -> NDArray[np.bool_]:
        """Tell which combinations of the coefficients are open, as they are not estimable.

        Parameters
        ----------
        combinations : ndarray of shape (n_combinations, n_columns)
        unit : float
            What is rounding, is so in comparison with the combination, or with so many units of the
            columns. Rows of a design are rounded as its columns are, and have one.

        Returns
        -------
        ndarray of bool of shape (n_combinations,)
        """
        is_open = (combinations[:, self.empty] != 0).any(axis=1)
        if self.directions.shape[1]:
            scaled = combinations / self.scale
            along = np.linalg.norm(scaled @ self.directions, axis=1)
            size = np.maximum(np.linalg.norm(scaled, axis=1), unit)
            is_open |= along > _ROUNDING * size
        return is_open

    def columns_of(self, row: FloatArray) -> NDArray[np.intp]:
        """Return the columns of which a row has an open combination."""
        along = self.directions @ (self.directions.T @ (row / self.scale))
        open_ones = np.abs(along) > _ROUNDING * np.linalg.norm(along)
        return np.flatnonzero(np.where(self.empty, row != 0, open_ones))


@dataclass(frozen=True)
class PartDesign:
    """A design matrix in coordinates that make it orthonormal.

    Attributes
    ----------
    U : ndarray of shape (n_cells, rank)
        Basis of the column space, orthogonal under the cells' weights; each column has a weighted
        mean square of one. If there are ``levels``, those of the basis vectors that come after
        their indicators; :meth:`basis` has all.
    to_coef : ndarray of shape (n_columns, rank)
        Coefficients of the columns from coordinates in ``U``: the least penalised ones, and of
        these the ones of smallest norm.
    from_coef : ndarray of shape (rank, n_columns)
        Coordinates in ``U`` from coefficients of the columns, whichever these are: the columns are
        ``U @ from_coef``.
    penalty : ndarray of shape (rank, rank)
        Penalty on the squared penalised coefficients as a quadratic form in the coordinates.
    null : NullSpace
        Directions that leave the predictor of each cell as it is.
    free : NullSpace
        Those of them that leave the penalty as it is, too, so that no fit can tell them.
    source : str
        Digest of the design matrix and its penalty, which unlike the rest of this does not depend
        on the rounding of a machine.
    levels : Levels or None
        The first basis vectors, where these are indicators of many levels.
    """

    U: FloatArray
    to_coef: FloatArray
    from_coef: FloatArray
    penalty: FloatArray
    null: NullSpace
    free: NullSpace
    source: str
    levels: Levels | None = None

    @property
    def aliased(self) -> NDArray[np.bool_]:
        """Columns whose coefficient is not identified, as they depend on others or are zero."""
        return self.null.not_estimable(np.eye(len(self.to_coef)))

    @classmethod
    def of(
        cls,
        X: FloatArray,
        weights: FloatArray | None = None,
        *,
        penalised: NDArray[np.bool_] | None = None,
        strength: float = 1.0,
    ) -> "PartDesign":
        """Decompose ``X``; ``penalised`` says which columns a ridge penalty acts on, if any.

        The rank is judged on columns of unit length, so that units do not matter. Weights are
        positive; a cell of weight two gives what the cell twice gives.
        """
        n, p = X.shape
        source = digest_of(X)
        root = np.ones(n) if weights is None else np.sqrt(weights / weights.mean())
        largest = np.abs(X).max(axis=0, initial=0.0)
        empty = largest == 0
        largest[empty] = 1.0
        scale = largest * np.sqrt(np.mean((X / largest * root[:, None]) ** 2, axis=0))
        scale[scale == 0] = 1.0
        Q, R = scipy.linalg.qr(X / scale * root[:, None], mode="economic")
        left, singular, right = scipy.linalg.svd(R)
        top = singular[0] if len(singular) else 0.0
        rank = int(np.sum(singular > top * max(n, p) * np.finfo(float).eps))
        U = (Q @ left[:, :rank]) * np.sqrt(n) / root[:, None]
        rows = right[:rank] * (singular[:rank, None] / np.sqrt(n)) * scale  # X = U @ rows
        to_coef = right[:rank].T / (singular[:rank] / np.sqrt(n)) / scale[:, None]
        space = NullSpace.of(right[rank:].T, scale, empty)
        to_coef, null = least_norm(to_coef, rows, right[rank:].T / scale[:, None])
        to_coef[empty], rows[:, empty] = 0.0, 0.0
        if p == rank == 1 and np.ptp(X) == 0:
            # Exactly constant, to be seen as such
            U, rows, to_coef = np.ones((n, 1)), X[:1], 1.0 / X[:1]
        if penalised is None:
            penalty = np.zeros((rank, rank))
            return cls(U, to_coef, rows, penalty, space, space, source.hexdigest())
        source.update(penalised.tobytes() + np.float64(strength).tobytes())
        free = scipy.linalg.pinv(null[penalised], atol=_ALIGNED, rtol=0.0)
        to_coef -= null @ (free @ to_coef[penalised])
        penalty = strength * to_coef[penalised].T @ to_coef[penalised]
        unpenalised = scipy.linalg.null_space(right[rank:, penalised].T)
        free_space = NullSpace.of(right[rank:].T @ unpenalised, scale, empty)
        return cls(U, to_coef, rows, penalty, space, free_space, source.hexdigest())

    @property
    def rank(self) -> int:
        """Number of coordinates."""
        return len(self.from_coef)

    def basis(self) -> FloatArray:
        """Return all basis vectors, cells x rank."""
        if self.levels is None:
            return self.U
        codes, scale = self.levels
        indicators = np.zeros((len(codes), len(scale)))
        indicators[np.arange(len(codes)), codes] = scale[codes]
        return np.hstack([indicators, self.U])

    def of_cells(self, rows: NDArray[np.intp]) -> "PartDesign":
        """Return the design of some of the cells, in the same coordinates and unpenalised."""
        levels = self.levels and self.levels._replace(codes=self.levels.codes[rows])
        return replace(self, U=self.U[rows], penalty=np.zeros_like(self.penalty), levels=levels)


def digest_of(X: FloatArray) -> Any:
    """Begin a digest of a design matrix."""
    return blake2b(np.ascontiguousarray(X).data, digest_size=16)


def least_norm(
    to_coef: FloatArray, from_coef: FloatArray, null: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Of all coefficients with the same predictors, take those of smallest norm without scaling.

    Parameters
    ----------
    to_coef : ndarray of shape (n_columns, rank)
        Coefficients with the right predictors.
    from_coef : ndarray of shape (rank, n_columns)
    null : ndarray of shape (n_columns, n_columns - rank)
        A basis of the coefficients whose predictor is zero.

    Returns
    -------
    tuple of ndarray
        The coefficients, and an orthonormal basis of those whose predictor is zero.
    """
    null = scipy.linalg.qr(null / np.linalg.norm(null, axis=0), mode="economic")[0]
    # Where scales differ much, projecting once leaves rounding of the largest in the smallest.
    for _ in range(_REFINEMENTS if null.shape[1] else 0):
        to_coef -= null @ (null.T @ to_coef)
        to_coef += to_coef @ (np.eye(len(from_coef)) - from_coef @ to_coef)
    return to_coef, null
