"""Columns of a frame, as formulas read them: complete, and each of the kind that it had at fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.validation import alike, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = [
    "TO_FRAME",
    "Columns",
    "check_cells",
    "check_column_names",
    "check_levels",
    "no_column",
    "plain",
]

TO_FRAME = (
    " A DataFrame has names, text and categories; set_output(transform='pandas') makes a step "
    "before return one."
)
_LISTED = 5  # columns that are named, where no name is like the one that is asked for


class Columns:
    """Names and kinds of a frame's columns; a kind is looked up when it is asked for, once."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.names = frame.columns
        self._frame = frame
        self._is_text: dict[str, bool] = {}

    def is_text(self, name: str) -> bool:
        """Whether a column holds text or other levels, not numbers."""
        if name not in self._is_text:
            self._is_text[name] = _is_categorical(self._frame[name])
        return self._is_text[name]

    def is_boolean(self, name: str) -> bool:
        """Whether a column holds True and False."""
        return not self.is_text(name) and _numpy(self._frame[name]).dtype.kind == "b"


def no_column(name: Any, names: Iterable[Any]) -> str:
    """Say that `X` has no such column, and which one may have been meant."""
    texts = [str(other) for other in names]
    near = alike(str(name), texts, 1)
    if near:
        return f"X has no column {name!r}. Did you mean {near[0]!r}?"
    if not texts:
        return f"X has no column {name!r}. It has none at all."
    listed = ", ".join(map(repr, texts[:_LISTED])) + ", ..." * (len(texts) > _LISTED)
    of_array = texts == [f"x{i}" for i in range(len(texts))]
    hint = f" So the columns of an array are called, which has no names.{TO_FRAME}"
    return f"X has no column {name!r}. It has {len(texts)}: {listed}.{hint if of_array else ''}"


def check_column_names(X: pd.DataFrame) -> None:
    """Refuse a frame of which formulas could not name every column."""
    if isinstance(X.columns, pd.MultiIndex):
        raise ValueError("X has MultiIndex columns: formulas need one name per column.")  # noqa: TRY004
    odd = [name for name in X.columns if not isinstance(name, str)]
    if odd:
        raise ValueError(
            f"Column names of X must be strings, got {odd[0]!r} ({type(odd[0]).__name__}). "
            "X.add_prefix('x') makes names such as 'x0' of them."
        )
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise ValueError(f"X has more than one column named {twice!r}.")


def _is_categorical(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    return _numpy(column).dtype.kind in "OUSMm"  # dates are no numbers either


def _numpy(column: pd.Series) -> NDArray[Any]:
    """Return a column as a NumPy array of its plain type: objects that are numbers as numbers."""
    values = column.to_numpy()
    if values.dtype == object:
        values = pd.Series(values, copy=False).infer_objects().to_numpy()
    return values


def plain(
    frame: pd.DataFrame, used: Mapping[str, bool], booleans: Collection[str], where: str
) -> dict[str, Any]:
    """Return the columns that a formula reads, complete, each of the kind it had at fit.

    Categorical columns become categoricals or objects, booleans bool, numbers int64 or float64 (so
    that no dtype of the new data overflows or rounds where the fitted one did not).
    """
    data: dict[str, Any] = {}
    for name, categorical in used.items():
        if name not in frame.columns:
            raise ValueError(f"{where}: {no_column(name, frame.columns)}")
        column = frame[name]
        if column.ndim > 1:
            raise ValueError(f"{where}: X has more than one column named {name!r}.")
        missing = column.isna().to_numpy()
        check_cells(missing, column, f"{where}: column {name!r} is missing")
        if categorical:
            is_level = isinstance(column.dtype, pd.CategoricalDtype)
            data[name] = column.array if is_level else column.to_numpy(dtype=object)
            continue
        values = _numpy(column)
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"{where}: column {name!r} is read as numbers, but holds {shown(column.iloc[0])} "
                f"(dtype {column.dtype})."
            )
        if name in booleans:
            check_cells(
                (values != 0) & (values != 1),
                column,
                f"{where}: column {name!r} was True and False at fit, and is another value",
            )
            data[name] = values.astype(bool)
            continue
        if values.dtype.kind == "u":
            beyond = values > np.iinfo(np.int64).max
            check_cells(beyond, column, f"{where}: column {name!r} is beyond 2**63")
        whole = values.dtype.kind != "f"
        values = values.astype(np.int64 if whole else np.float64, copy=False)
        check_cells(~np.isfinite(values), column, f"{where}: column {name!r} is not finite")
        data[name] = values
    return data


def check_cells(bad: NDArray[np.bool_], column: pd.Series, problem: str) -> None:
    """Raise an error that begins with `problem`, and names a row, if any row is bad."""
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{problem} ({column.iloc[first]}) in row {shown(column.index[first])}; "
            f"{int(bad.sum())} of {len(bad)} rows are affected."
        )


def check_levels(values: pd.Series, levels: list[Any], index: pd.Index, what: str) -> None:
    """Refuse values that are none of the known levels, and levels with one name for two."""
    if len({str(level) for level in levels}) < len(levels):
        raise ValueError(f"{what} has levels that are spelled alike: {shown(list(levels))}.")
    known = set(levels)
    unseen = [value for value in values.unique() if value not in known]
    if unseen:
        rows = values.isin(unseen).to_numpy()
        raise ValueError(
            f"{what} has the unknown level {shown(unseen[0])} in row "
            f"{shown(index[int(rows.argmax())])} "
            f"({int(rows.sum())} of {len(rows)} rows have unknown levels). "
            "Known are the levels of the cells of the fit: "
            f"{', '.join(map(shown, levels[:10]))}{', ...' if levels[10:] else ''}."
        )
