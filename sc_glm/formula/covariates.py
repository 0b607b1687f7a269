"""Columns of a frame as formulas read them: complete, and of the same kind as at fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sc_glm._contract.validation import quoted, similar_names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = [
    "FRAME_HINT",
    "Columns",
    "check_cells",
    "check_column_names",
    "check_levels",
    "missing_column_message",
    "read_columns",
]

FRAME_HINT = (
    " A DataFrame has names, text and categories. set_output(transform='pandas') makes an earlier "
    "step of a pipeline return one."
)
_MAX_LISTED = 5  # names of columns in a message, where no name is similar to the missing one


class Columns:
    """Names and kinds of a frame's columns. Each kind is determined once, when it is needed."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.names = frame.columns
        self._frame = frame
        self._is_categorical_by_name: dict[str, bool] = {}

    def is_categorical(self, name: str) -> bool:
        """Return whether a column holds strings or other levels, not numbers."""
        if name not in self._is_categorical_by_name:
            self._is_categorical_by_name[name] = _is_categorical(self._frame[name])
        return self._is_categorical_by_name[name]

    def is_boolean(self, name: str) -> bool:
        """Return whether a column holds True and False."""
        return not self.is_categorical(name) and _as_numpy(self._frame[name]).dtype.kind == "b"


def missing_column_message(name: Any, names: Iterable[Any]) -> str:
    """Return a message that `X` lacks a column, with the most similar name or a list of names."""
    texts = [str(other) for other in names]
    similar = similar_names(str(name), texts, 1)
    if similar:
        return f"X has no column {name!r}. Did you mean {similar[0]!r}?"
    if not texts:
        return f"X has no column {name!r}. It has no columns at all."
    listed = ", ".join(map(repr, texts[:_MAX_LISTED])) + ", ..." * (len(texts) > _MAX_LISTED)
    is_array = texts == [f"x{i}" for i in range(len(texts))]
    hint = f" Columns of an array get these names, since an array has none.{FRAME_HINT}"
    return f"X has no column {name!r}. It has {len(texts)}: {listed}.{hint if is_array else ''}"


def check_column_names(X: pd.DataFrame) -> None:
    """Refuse a frame if formulas could not name each of its columns."""
    if isinstance(X.columns, pd.MultiIndex):
        raise ValueError("X has MultiIndex columns: formulas need one name per column.")  # noqa: TRY004
    not_strings = [name for name in X.columns if not isinstance(name, str)]
    if not_strings:
        raise ValueError(
            f"Column names of X must be strings, got {not_strings[0]!r} "
            f"({type(not_strings[0]).__name__}). X.add_prefix('x') turns them into names such as "
            "'x0'."
        )
    if not X.columns.is_unique:
        repeated = X.columns[X.columns.duplicated()][0]
        raise ValueError(f"X has more than one column named {repeated!r}.")


def _is_categorical(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    return _as_numpy(column).dtype.kind in "OUSMm"  # dates are not numbers either


def _as_numpy(column: pd.Series) -> NDArray[Any]:
    """Return a column as a NumPy array, in which objects that are numbers become numbers."""
    values = column.to_numpy()
    if values.dtype == object:
        values = pd.Series(values, copy=False).infer_objects().to_numpy()
    return values


def read_columns(
    frame: pd.DataFrame, used: Mapping[str, bool], booleans: Collection[str], where: str
) -> dict[str, Any]:
    """Return the columns that a formula reads, each of the kind that it had at fit.

    Parameters
    ----------
    frame : DataFrame
        The cells' covariates.
    used : mapping of str to bool
        Names of the columns; True where a column was categorical at fit.
    booleans : collection of str
        Names of the columns that were boolean at fit.
    where : str
        Part and formula, with which messages begin.

    Returns
    -------
    dict of str to array
        Categorical columns are categoricals or objects, booleans are bool, and numbers are int64
        or float64. So no dtype of new data overflows or rounds where the dtype at fit did not.

    Raises
    ------
    ValueError
        If a column is missing or occurs twice, or if one of its values is missing, infinite or of
        another kind than at fit.
    """
    data: dict[str, Any] = {}
    for name, categorical in used.items():
        if name not in frame.columns:
            raise ValueError(f"{where}: {missing_column_message(name, frame.columns)}")
        column = frame[name]
        if column.ndim > 1:
            raise ValueError(f"{where}: X has more than one column named {name!r}.")
        missing = column.isna().to_numpy()
        check_cells(missing, column, f"{where}: column {name!r} is missing")
        if categorical:
            is_level = isinstance(column.dtype, pd.CategoricalDtype)
            data[name] = column.array if is_level else column.to_numpy(dtype=object)
            continue
        values = _as_numpy(column)
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"{where}: column {name!r} is read as numbers, but holds {quoted(column.iloc[0])} "
                f"(dtype {column.dtype})."
            )
        if name in booleans:
            check_cells(
                (values != 0) & (values != 1),
                column,
                f"{where}: column {name!r} was True and False at fit, but now has another value",
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
    """Raise an error if any row is bad.

    Parameters
    ----------
    bad : ndarray of bool, shape (n_cells,)
        Which rows are bad.
    column : Series
        The values, with the labels of the rows.
    problem : str
        Beginning of the message, to which the value and the row of the first bad cell are added.

    Raises
    ------
    ValueError
        If any row is bad.
    """
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{problem} ({column.iloc[first]}) in row {quoted(column.index[first])}; "
            f"{int(bad.sum())} of {len(bad)} rows are affected."
        )


def check_levels(values: pd.Series, levels: list[Any], index: pd.Index, what: str) -> None:
    """Refuse values that are not among the known levels, and different levels with one name."""
    if len({str(level) for level in levels}) < len(levels):
        raise ValueError(f"{what} has several levels of the same name: {quoted(list(levels))}.")
    known = set(levels)
    unseen = [value for value in values.unique() if value not in known]
    if unseen:
        rows = values.isin(unseen).to_numpy()
        raise ValueError(
            f"{what} has the unknown level {quoted(unseen[0])} in row "
            f"{quoted(index[int(rows.argmax())])} "
            f"({int(rows.sum())} of {len(rows)} rows have unknown levels). "
            "The known levels are those of the cells of the fit: "
            f"{', '.join(map(quoted, levels[:10]))}{', ...' if levels[10:] else ''}."
        )
