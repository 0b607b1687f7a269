"""Refuse input that NumPy, SciPy or pandas would take for something else than it is.

scikit-learn's own checks come after these and are not repeated: masked values would lose their
mask, dates and the labels of categories would become numbers, rows of another order would be
matched by position, and a damaged sparse matrix would be read beyond its arrays.
"""

import difflib
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

_ALIKE = 0.7  # names that may be one misspelled, as difflib compares them


def quoted(value: Any) -> str:
    """Return a label or a level as messages show it: as Python writes it, without NumPy's types.

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
    """Return a frame or a series of polars as one of pandas, and all else as it is.

    Parameters
    ----------
    data : object
        Of polars, the levels of an Enum keep their order, and nulls are missing values.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If it is a query of polars that was not run.
    """
    polars = sys.modules.get("polars")  # without it, nobody can have made one
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


def similar_names(name: str, names: Iterable[Any], most: int) -> list[str]:
    """Return the names that may have been meant, the nearest first; case does not matter.

    Parameters
    ----------
    name : str
        What was given.
    names : iterable
        What there is.
    most : int
        How many to return.

    Returns
    -------
    list of str
    """
    lower = {text.lower(): text for text in reversed([str(other) for other in names])}
    close = difflib.get_close_matches(name.lower(), lower, n=most, cutoff=_ALIKE)
    return [lower[text] for text in close]


def check_no_anndata(data: Any, name: str) -> None:
    """Refuse an AnnData, which NumPy would try to make an array of.

    Parameters
    ----------
    data : object
        Any input; what is none passes.
    name : str
        What to call it.

    Raises
    ------
    TypeError
        It says what takes one.
    """
    if _is_anndata(data):
        raise TypeError(
            f"{name} is an AnnData. sc_glm.adata.fit(adata, model) fits it and "
            "sc_glm.adata.predict(adata, model) predicts for it; sc_glm.adata.AnnDataRegressor("
            "model) takes one as its X. Here, X is adata.obs, and y is adata.X or a layer."
        )


def _is_anndata(data: Any) -> bool:
    return any(kind.__name__ == "AnnData" for kind in type(data).__mro__)


def check_numbers(data: Any, name: str, advice: str = "") -> None:
    """Refuse lists, arrays, series and frames that hold no real numbers, or mask some of them.

    Arrays of objects are left to the conversion that follows, but for text in a frame. An AnnData
    is refused as well.

    Parameters
    ----------
    data : object
        Any input; what is none of these passes.
    name : str
        What to call it.
    advice : str, default=""
        What to say of columns of other types beside that they are.

    Raises
    ------
    TypeError
        If it is an AnnData.
    ValueError
        If there are other types than numbers and booleans, masked values, or several levels of
        column names.
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
            f"{name} has {len(where)} masked value(s), the first in row {where[0][0]}: no value "
            "is left out. Take these rows away, or fill them."
        )
    if isinstance(data, pd.DataFrame):
        if isinstance(data.columns, pd.MultiIndex):
            raise ValueError(  # noqa: TRY004 - the frame is fine, its columns are not
                f"{name} has MultiIndex columns; names must be one level."
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
        # The first words are those that scikit-learn's checks of an estimator look for.
        complex_ = "Complex data not supported: " if getattr(dtype, "kind", "") == "c" else ""
        raise ValueError(f"{complex_}{name} must hold numbers, not {dtype}.")


def _is_real(dtype: Any) -> bool:
    if not isinstance(dtype, np.dtype | pd.api.extensions.ExtensionDtype):
        return True  # none, or one of another library
    if dtype.kind == "c":
        return False
    return dtype == np.dtype(object) or bool(pd.api.types.is_numeric_dtype(dtype))


def _is_text(column: pd.Series) -> bool:
    return column.dtype == object and pd.api.types.infer_dtype(column) in ("string", "bytes")


def check_same_order(X: Any, other: Any, name: str, *, of: str = "X") -> None:
    """Refuse rows whose labels are those of `X` in another order.

    As in scikit-learn, rows belong together by their position. Labels that contradict it are a
    mistake, whatever their type. Other labels than those of `X` say nothing, nor do the numbers
    from zero on that pandas gives to rows without labels (a ``RangeIndex``).

    Parameters
    ----------
    X : object
        The covariates; the labels of an AnnData are the names of its cells.
    other : object
        What goes with them.
    name : str
        What to call it.
    of : str, default="X"
        What to call the covariates.

    Raises
    ------
    ValueError
        If both are series or frames with the same labels, not all in the same row.
    """
    of_X, own = _labels(X), _labels(other)
    if of_X is None or own is None or len(of_X) != len(own) or of_X.nlevels != own.nlevels:
        return
    if of_X.equals(own):
        return
    of_one_type = of_X.nlevels > 1 or of_X.inferred_type == own.inferred_type
    if not of_one_type:  # an AnnData makes texts of numbers
        of_X, own = of_X.map(str), own.map(str)
    if not (of_X.isin(own).all() and own.isin(of_X).all()):
        return
    row = next((i for i, (a, b) in enumerate(zip(of_X, own, strict=True)) if not _same(a, b)), None)
    if row is None:
        return
    if not of_X.is_unique:
        mend = "Some labels stand there more than once: make them unique in both."
    elif of_one_type:
        mend = f"{name}.loc[{of}.index] puts them in order."
    else:
        mend = "Give both labels of one type, and put them in one order."
    raise ValueError(
        f"The rows of {name} have the labels of {of} in another order: in row {row} stands "
        f"{quoted(own[row])}, in {of} {quoted(of_X[row])}. {mend} Where rows belong together by "
        f"position, give {name}.to_numpy(), which has no labels."
    )


def _same(a: Any, b: Any) -> bool:
    return a is b or a == b


def _labels(data: Any) -> pd.Index | None:
    if _is_anndata(data):
        return pd.Index(data.obs_names)
    if not isinstance(data, pd.DataFrame | pd.Series):
        return None
    numbered = isinstance(data.index, pd.RangeIndex) and data.index.equals(pd.RangeIndex(len(data)))
    return None if numbered else data.index


def group_codes(groups: Any, X: Any, n_cells: int) -> NDArray[np.intp]:
    """Return a number for the group of each cell, such as its donor.

    Parameters
    ----------
    groups : array-like of shape (n_cells,)
    X : object
        The covariates, whose rows they belong to.
    n_cells : int

    Returns
    -------
    ndarray of int of shape (n_cells,)
        Numbers from zero on, in the order in which groups first occur.

    Raises
    ------
    ValueError
        If there is not one for each cell, or their order contradicts that of `X`.
    """
    check_same_order(X, groups, "groups")
    # NumPy would make a text of a NaN among texts.
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
    """Return the arrays of a sparse matrix in a sparse array of their own, checked.

    SciPy trusts indices, in compiled code that reads and writes where they point.

    Parameters
    ----------
    matrix : sparse matrix or array
        It is left as it is, and shares its arrays with the result where it can.
    name : str
        What to call it.

    Returns
    -------
    sparse array
        In the same format, but COO for DIA, DOK and LIL.

    Raises
    ------
    ValueError
        If indices are out of range, or the arrays do not fit each other.
    """
    try:
        if matrix.format in ("dia", "dok", "lil"):
            return checked_sparse(matrix.tocoo(), name)
        build = getattr(sp, f"{matrix.format}_array")
        if matrix.format == "coo":
            indices = matrix.coords
            own = build((matrix.data, indices), shape=matrix.shape)
        else:
            indices = (matrix.indices, matrix.indptr)
            own = build((matrix.data, *indices), shape=matrix.shape)
            own.check_format()
            # SciPy looks at these only where the last of them is positive.
            if (np.diff(own.indptr) < 0).any():
                raise ValueError("index pointers must not decrease")  # noqa: TRY301
        if any(index.dtype.kind not in "iu" for index in indices):
            raise ValueError("indices must be integers")  # noqa: TRY301
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{name} is a damaged sparse matrix: {error}.") from error
    return own


def check_finite(X: NDArray[np.float64], names: Any) -> None:
    """Refuse values that are missing or infinite.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_columns)
    names : sequence of str
        Names of the columns.

    Raises
    ------
    ValueError
        It names the value, the column and the row.
    """
    with np.errstate(all="ignore"):
        if np.isfinite(np.einsum("ij->", X)):  # in one pass: a sum is not, if a term of it is not
            return
    wrong = ~np.isfinite(X)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        word = "NaN" if np.isnan(X[row, column]) else "infinity"
        raise ValueError(
            f"Input X contains {word} in column {quoted(names[column])}, row {row}, and "
            f"{int(wrong.sum())} such value(s) in all."
        )
