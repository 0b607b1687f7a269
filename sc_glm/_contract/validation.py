"""Checks of input that NumPy, SciPy or pandas would silently misread.

Without them, masked values would lose their mask. Dates and labels of categories would become
numbers. Rows in another order would be matched by position. A damaged sparse matrix would be read
beyond its arrays. scikit-learn's own checks come later and are not repeated here.
"""

import difflib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

_MIN_SIMILARITY = 0.7  # ratio of difflib from which on a name may be a misspelled one


def quoted(value: Any) -> str:
    """Return a label or a level for a message: its repr, without NumPy's types.

    Parameters
    ----------
    value : object
        A value, or a list or tuple of values.

    Returns
    -------
    str

    Examples
    --------
    >>> import numpy as np
    >>> quoted(np.int64(3)), quoted([np.str_("a"), 1.5]), quoted(np.datetime64("2020-01-01"))
    ('3', "['a', 1.5]", '2020-01-01')
    """
    if isinstance(value, list | tuple):
        inside = ", ".join(map(quoted, value))
        if isinstance(value, list):
            return f"[{inside}]"
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, np.datetime64 | np.timedelta64 | pd.Timestamp | pd.Timedelta | pd.Period):
        return str(value)
    return repr(value.item() if isinstance(value, np.generic) else value)


def as_pandas(data: Any) -> Any:
    """Return a frame or a series of polars as one of pandas, and everything else unchanged.

    Parameters
    ----------
    data : object
        Any input. The levels of a polars Enum keep their order, and nulls become missing values.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If it is a query of polars that was not collected.
    """
    polars = sys.modules.get("polars")  # if it was not imported, data cannot be of polars
    if polars is None:
        return data
    if isinstance(data, polars.LazyFrame):
        raise ValueError("A polars LazyFrame holds no values yet: give its .collect().")  # noqa: TRY004
    if isinstance(data, polars.Series):
        values = data.to_list() if isinstance(data.dtype, polars.Enum) else data.to_numpy()
        if isinstance(data.dtype, polars.Enum):
            values = pd.Categorical(values, categories=data.dtype.categories.to_list())
        return pd.Series(values, name=data.name or None)
    if isinstance(data, polars.DataFrame):
        columns = {column.name: as_pandas(column) for column in data}
        return pd.DataFrame(columns, index=pd.RangeIndex(len(data)))
    return data


def similar_names(name: str, names: Iterable[Any], max_names: int) -> list[str]:
    """Return names similar to one that does not exist, the most similar first, ignoring case.

    Parameters
    ----------
    name : str
        The name that was given.
    names : iterable
        The names that exist.
    max_names : int
        Largest number of names to return.

    Returns
    -------
    list of str
    """
    lower = {text.lower(): text for text in reversed([str(other) for other in names])}
    similar = difflib.get_close_matches(name.lower(), lower, n=max_names, cutoff=_MIN_SIMILARITY)
    return [lower[text] for text in similar]


def check_no_anndata(data: Any, name: str) -> None:
    """Refuse an AnnData, which NumPy would try to convert to an array.

    Parameters
    ----------
    data : object
        Any input.
    name : str
        Name of the argument, for the message.

    Raises
    ------
    TypeError
        If it is an AnnData. The message names the functions that take one.
    """
    if is_anndata(data):
        raise TypeError(
            f"{name} is an AnnData. sc_glm.adata.fit(adata, model) fits it and "
            "sc_glm.adata.predict(adata, model) predicts for it; sc_glm.adata.AnnDataRegressor("
            "model) takes one as its X. Here, X is adata.obs, and y is adata.X or a layer."
        )


def is_anndata(data: Any) -> bool:
    """Return whether an object is an AnnData, without importing anndata.

    Parameters
    ----------
    data : object
        Any input.

    Returns
    -------
    bool
    """
    return any(kind.__name__ == "AnnData" for kind in type(data).__mro__)


def covariates_in(X: Any) -> Any:
    """Return the covariates of the cells of an AnnData, and everything else unchanged.

    Parameters
    ----------
    X : object
        Any input.

    Returns
    -------
    object
        The ``obs`` of an AnnData, as a DataFrame in memory.
    """
    if not is_anndata(X):
        return X
    # A lazily loaded frame is read; the frame of a view would warn when it is written to.
    return X.obs.to_memory() if hasattr(X.obs, "to_memory") else pd.DataFrame(X.obs)


def column_or_values(X: Any, values: Any, name: str) -> Any:
    """Return the column of covariates that ``values`` names, or ``values`` themselves.

    Parameters
    ----------
    X : object
        Covariates of cells.
    values : str or array-like
        Name of a column of a DataFrame, or of the ``obs`` of an AnnData; or a value for each cell.
    name : str
        Name of the argument, for the message.

    Returns
    -------
    Series or array-like

    Raises
    ------
    ValueError
        If `X` has no such column, or no names of columns.
    """
    if not isinstance(values, str):
        return values
    frame = as_pandas(covariates_in(X))
    if not isinstance(frame, pd.DataFrame):
        raise ValueError(  # noqa: TRY004 - the name is what cannot be used
            f"{name}={values!r} names a column, but X has no names of columns: give a DataFrame, "
            "an AnnData, or a value for each cell."
        )
    if values not in frame.columns:
        similar = similar_names(values, frame.columns, 1)
        hint = f"Did you mean {similar[0]!r}?" if similar else f"It has {list(frame.columns)[:10]}."
        raise ValueError(f"{name}={values!r}: X has no column {values!r}. {hint}")
    return frame[values]


def check_numbers(data: Any, name: str, advice: str = "") -> None:
    """Refuse lists, arrays, series and frames with values that are not real numbers, or masked.

    Arrays of objects pass, except for text in a frame or series: a later conversion checks them.
    An AnnData is refused, too.

    Parameters
    ----------
    data : object
        Any input. Other types than these pass.
    name : str
        Name of the argument, for the message.
    advice : str, default=""
        Advice that is added to the message about columns of other types.

    Raises
    ------
    TypeError
        If it is an AnnData.
    ValueError
        If it holds other types than numbers and booleans, or masked values, or if column names
        have several levels.
    """
    check_no_anndata(data, name)
    if isinstance(data, list | tuple | str):
        try:
            data = np.asarray(data)
        except ValueError as error:
            raise ValueError(f"{name} is not an array: {error}") from error
    if isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data):
        where = np.argwhere(np.ma.getmaskarray(data))
        raise ValueError(
            f"{name} has {len(where)} masked value(s), the first in row {where[0][0]}. No value "
            "is left out: remove these rows, or fill them."
        )
    if isinstance(data, pd.DataFrame):
        if isinstance(data.columns, pd.MultiIndex):
            raise ValueError(  # noqa: TRY004 - the frame is fine, its columns are not
                f"{name} has MultiIndex columns, but names of columns must have one level."
            )
        if not data.shape[1]:
            raise ValueError(f"{name} has no columns (0 feature(s)): at least one is needed.")
        wrong = [
            f"{quoted(column)} ({dtype})"
            for i, (column, dtype) in enumerate(data.dtypes.items())
            if not _is_real(dtype) or _is_text(data.iloc[:, i])
        ]
        if wrong:
            raise ValueError(
                f"{name} must hold numbers, but has {len(wrong)} column(s) of other types: "
                f"{', '.join(wrong[:5])}.{advice}"
            )
        return
    dtype = getattr(data, "dtype", None)
    if not _is_real(dtype) or (isinstance(data, pd.Series) and _is_text(data)):
        # scikit-learn's checks of an estimator look for the first words.
        complex_ = "Complex data not supported: " if getattr(dtype, "kind", "") == "c" else ""
        raise ValueError(f"{complex_}{name} must hold numbers, not {dtype}.")


def _is_real(dtype: Any) -> bool:
    if not isinstance(dtype, np.dtype | pd.api.extensions.ExtensionDtype):
        return True  # without a dtype, or with one of another library
    if dtype.kind == "c":
        return False
    return dtype == np.dtype(object) or bool(pd.api.types.is_numeric_dtype(dtype))


def _is_text(column: pd.Series) -> bool:
    return column.dtype == object and pd.api.types.infer_dtype(column) in ("string", "bytes")


def check_same_order(X: Any, other: Any, name: str, *, of: str = "X") -> None:
    """Refuse rows that have the labels of `X` in another order.

    As in scikit-learn, rows are matched by their position. Labels that contradict the positions
    are a mistake, whatever their type. Labels are ignored if they are not those of `X`, or if they
    are the numbers from zero on that pandas gives to rows without labels (a ``RangeIndex``).

    Parameters
    ----------
    X : object
        The covariates. The labels of an AnnData are the names of its cells.
    other : object
        Values for the same rows, such as counts or weights.
    name : str
        Name of `other`, for the message.
    of : str, default="X"
        Name of the covariates, for the message.

    Raises
    ------
    ValueError
        If both are series or frames with the same labels, not all in the same row.
    """
    labels_of_X, labels = _row_labels(X), _row_labels(other)
    if (
        labels_of_X is None
        or labels is None
        or len(labels_of_X) != len(labels)
        or labels_of_X.nlevels != labels.nlevels
    ):
        return
    if labels_of_X.equals(labels):
        return
    same_type = labels_of_X.nlevels > 1 or labels_of_X.inferred_type == labels.inferred_type
    if not same_type:  # AnnData converts numbers to strings
        labels_of_X, labels = labels_of_X.map(str), labels.map(str)
    if not (labels_of_X.isin(labels).all() and labels.isin(labels_of_X).all()):
        return
    row = next(
        (
            i
            for i, (a, b) in enumerate(zip(labels_of_X, labels, strict=True))
            if not _are_equal(a, b)
        ),
        None,
    )
    if row is None:
        return
    if not labels_of_X.is_unique:
        advice = "Some labels occur more than once: make them unique in both."
    elif same_type:
        advice = f"{name}.loc[{of}.index] puts them in order."
    else:
        advice = "Give both labels of one type, in the same order."
    raise ValueError(
        f"The rows of {name} have the labels of {of} in another order: row {row} has "
        f"{quoted(labels[row])}, but {quoted(labels_of_X[row])} in {of}. {advice} If rows are "
        f"matched by position, use {name}.to_numpy(), which has no labels."
    )


def _are_equal(a: Any, b: Any) -> bool:
    return a is b or a == b


def _row_labels(data: Any) -> pd.Index | None:
    if is_anndata(data):
        return pd.Index(data.obs_names)
    if not isinstance(data, pd.DataFrame | pd.Series):
        return None
    numbered = isinstance(data.index, pd.RangeIndex) and data.index.equals(pd.RangeIndex(len(data)))
    return None if numbered else data.index


def group_codes(groups: Any, X: Any, n_cells: int) -> NDArray[np.intp]:
    """Return a code for the group of each cell, such as its donor.

    Parameters
    ----------
    groups : str or array-like of shape (n_cells,)
        Labels of the groups, or the name of a column of `X`.
    X : object
        The covariates of the same cells.
    n_cells : int
        Number of cells.

    Returns
    -------
    ndarray of int of shape (n_cells,)
        Codes from zero on, in the order in which groups first occur.

    Raises
    ------
    ValueError
        If there is not a label for each cell, or their order contradicts the labels of `X`.
    """
    groups = column_or_values(X, groups, "groups")
    check_same_order(X, groups, "groups")
    # NumPy would convert a NaN among strings to a string.
    values = np.asarray(groups, dtype=object if isinstance(groups, list | tuple) else None)
    if values.shape != (n_cells,):
        raise ValueError(
            f"groups has the shape {values.shape}, expected ({n_cells},): a label for each cell, "
            "such as obs['donor']."
        )
    codes, _ = pd.factorize(values)
    if (codes < 0).any():
        raise ValueError(f"groups has no value in row {(codes < 0).argmax()}.")
    return codes


def checked_sparse(matrix: Any, name: str) -> Any:
    """Return a new sparse array with the arrays of a sparse matrix, after checking them.

    SciPy's compiled code reads and writes where indices point, without checking them.

    Parameters
    ----------
    matrix : sparse matrix or array
        The matrix, which is not changed. It shares arrays with the result where possible.
    name : str
        Name of the argument, for the message.

    Returns
    -------
    sparse array
        Of the same format, except for COO in place of DIA, DOK and LIL.

    Raises
    ------
    ValueError
        If indices are out of range, or the lengths of the arrays do not match.
    """
    try:
        if matrix.format in ("dia", "dok", "lil"):
            return checked_sparse(matrix.tocoo(), name)
        build = getattr(sp, f"{matrix.format}_array")
        if matrix.format == "coo":
            indices = matrix.coords
            result = build((matrix.data, indices), shape=matrix.shape)
        else:
            indices = (matrix.indices, matrix.indptr)
            result = build((matrix.data, *indices), shape=matrix.shape)
            result.check_format()
            # SciPy checks them only if the last one is positive.
            if (np.diff(result.indptr) < 0).any():
                raise ValueError("index pointers must not decrease")  # noqa: TRY301
        if any(index.dtype.kind not in "iu" for index in indices):
            raise ValueError("indices must be integers")  # noqa: TRY301
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{name} is a damaged sparse matrix: {error}.") from error
    return result


def check_finite(X: NDArray[np.float64], names: Any) -> None:
    """Refuse values that are missing or infinite.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
        The values.
    names : sequence of str
        Names of the columns.

    Raises
    ------
    ValueError
        If a value is not finite. The message names the value, the column and the row.
    """
    with np.errstate(all="ignore"):
        if np.isfinite(np.einsum("ij->", X)):  # one pass: a sum is finite only if its terms are
            return
    wrong = ~np.isfinite(X)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        word = "NaN" if np.isnan(X[row, column]) else "infinity"
        raise ValueError(
            f"Input X contains {word} in column {quoted(names[column])}, row {row}, and "
            f"{int(wrong.sum())} such value(s) in all."
        )
