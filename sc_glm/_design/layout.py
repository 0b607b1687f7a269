"""Which columns of `X` belong to which part of a model.

A *design frame* spells each column ``part__column``, as :class:`~sc_glm.FormulaTransformer` and
scikit-learn's ``ColumnTransformer`` do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

OFFSET = "offset"
INTERCEPT = "Intercept"
_SEPARATOR = "__"
_KNOWN_PARTS = ("mean", "dispersion", "zero_inflation", OFFSET)

# Largest absolute value of an offset. Its exponential is larger than any count.
_LARGEST_OFFSET = 300.0


@dataclass(frozen=True)
class Layout:
    """Which columns of ``X`` make which part: the fitted state of a design.

    Attributes
    ----------
    columns : dict of str to list of str
        Names of each part's coefficients, in the order of the family's parts.
    positions : dict of str to list of int
        Positions of each part's columns in `X`; -1 is a column of ones.
    offset : int or None
        Position of the offset in `X`; None if there is none.
    """

    columns: dict[str, list[str]]
    positions: dict[str, list[int]]
    offset: int | None

    @classmethod
    def of(
        cls, names: Sequence[str] | None, n_columns: int, parts: Sequence[str], *, intercept: bool
    ) -> "Layout":
        """Read the layout from the columns of a training `X`.

        Parameters
        ----------
        names : sequence of str or None
            Column names; None if `X` has none.
        n_columns : int
            Number of columns.
        parts : sequence of str
            Parts of the model. The first one has all columns of an `X` that is not a design frame.
        intercept : bool
            Whether the first part has an intercept if `X` is not a design frame.

        Raises
        ------
        ValueError
            If only some columns are spelled ``part__column``, if the model lacks a part, or if
            there are two offsets.
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
            positions_of_part = [i for i, (p, _) in enumerate(split) if p == part]
            columns[part] = [split[i][1] for i in positions_of_part] or [INTERCEPT]
            positions[part] = positions_of_part or [-1]
        offsets = [i for i, (part, _) in enumerate(split) if part == OFFSET]
        return cls(columns, positions, offsets[0] if offsets else None)

    def designs(self, X: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return each part's design matrix."""
        return {part: _take(X, positions) for part, positions in self.positions.items()}

    def offset_of(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the offset of each cell, which is added to the first part's predictor.

        Raises
        ------
        ValueError
            If an offset is too large to be a logarithm. The message names the row and the value.
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
    """Return the part and the column of a name; the part is empty if there is none."""
    part, separator, column = name.partition(_SEPARATOR)
    return (part, column) if separator and part in _KNOWN_PARTS else ("", name)


def _check_spelling(split: Sequence[tuple[str, str]], parts: Sequence[str]) -> None:
    """Raise an error if a column has no part or an unknown one, or if there are two offsets."""
    unprefixed = [column for part, column in split if not part]
    if unprefixed:
        raise ValueError(
            "X mixes columns of a design frame, spelled part__column, with others: "
            f"{unprefixed[:5]}. Rename these, or prefix them by the part that they belong to."
        )
    unknown_parts = sorted({part for part, _ in split} - {*parts, OFFSET})
    if unknown_parts:
        columns = [column for part, column in split if part == unknown_parts[0]]
        raise ValueError(
            f"X has columns for {unknown_parts[0]!r} ({columns[:5]}), a part that this model "
            f"lacks: its parts are {list(parts)}. Take a regressor that has it, such as "
            f"ZINBRegressor, or give it no formula: {unknown_parts[0]}=None."
        )
    offsets = [column for part, column in split if part == OFFSET]
    if len(offsets) > 1:
        raise ValueError(
            f"X has {len(offsets)} offset columns, {offsets[:5]}. Keep one of them, or their sum."
        )


def _take(X: NDArray[np.float64], positions: Sequence[int]) -> NDArray[np.float64]:
    """Return columns of a matrix; -1 is a column of ones."""
    return np.column_stack([np.ones(len(X)) if i < 0 else X[:, i] for i in positions])
