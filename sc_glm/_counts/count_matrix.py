"""Count matrices in every form that users have them, checked once and read by blocks of genes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import check_array

from sc_glm._contract.validation import as_pandas, check_numbers, checked_sparse

# Counts up to which fits are right to six digits, as a log-likelihood sums terms as large as these,
# which cancel; and up to which single precision tells a count from the next.
_LARGEST_COUNT, _LARGEST_SINGLE = 10**9, 2**24
_ENTRIES = 4_000_000  # of the matrix at a time
JUDGED_VALUES = 20_000  # of a matrix, to tell whether they are counts


@dataclass(frozen=True)
class CountMatrix:
    """Checked counts, cells x genes.

    Attributes
    ----------
    matrix : ndarray, csr_array or csc_array of shape (n_cells, n_genes)
        Finite, not negative, at most 10**9; a sparse matrix has sorted indices, no duplicates, no
        stored zeros.
    names : ndarray of str of shape (n_genes,)
        Genes' names.
    one_dimensional : bool
        Whether the counts of a single gene were given as a vector.
    """

    matrix: Any
    names: NDArray[np.object_]
    one_dimensional: bool

    in_memory: ClassVar[bool] = True

    @classmethod
    def of(cls, y: Any, *, n_cells: int, names: NDArray[np.object_] | None = None) -> "CountMatrix":
        """Check ``y``, which is left as it is.

        Parameters
        ----------
        y : array-like, DataFrame, sparse matrix or CountMatrix
        n_cells : int
            Number of rows that it must have.
        names : ndarray of str, default=None
            Genes' names, if ``y`` does not bring them.

        Raises
        ------
        ValueError
            If ``y`` is not a matrix of finite, non-negative numbers with ``n_cells`` rows, or two
            genes have one name. The message names the gene, the row and the value.
        TypeError
            If it is no array at all.
        """
        if isinstance(y, CountMatrix):
            _check_rows(y.shape, n_cells)
            return y
        if y is None:
            raise ValueError(
                "This estimator requires y to be passed, but the target y is None. y holds the "
                "counts, cells x genes."
            )
        y = as_pandas(y)
        check_numbers(y, "y")
        own_names = _names(y)
        names = names if own_names is None else own_names
        values = _array(y)
        _check_rows(values.shape, n_cells)
        one_dimensional = getattr(y, "ndim", values.ndim) == 1
        if values.ndim == 1:
            values = values[:, None]
        if names is None:
            names = np.array([f"y{g}" for g in range(values.shape[1])], dtype=object)
        if sp.issparse(values) and not _is_canonical(values):
            values = canonical(values)
        check_values(values, names)
        return cls(values, names, one_dimensional)

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return int(self.matrix.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of cells and genes."""
        return len(self), self.n_genes

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, cells: Any) -> "CountMatrix":
        """Return some of the cells: scikit-learn splits rows by ``y[cells, ...]``."""
        rows = cells[0] if isinstance(cells, tuple) else cells
        return CountMatrix(self.matrix[rows], self.names, self.one_dimensional)

    def check_single_precision(self) -> None:
        """Refuse counts in memory that single precision does not tell from the next.

        Raises
        ------
        ValueError
            It names the gene, the row and the value.
        """
        if self.in_memory:
            check_values(self.matrix, self.names, largest=_LARGEST_SINGLE)

    def look_like_counts(self) -> bool:
        """Judge whether values are counts, not normalised or their logarithms."""
        is_sparse = sp.issparse(self.matrix)
        return are_counts(self.matrix.data if is_sparse else self.matrix.flat)

    @cached_property
    def by_column(self) -> Any:
        """The matrix as genes are read from it: CSC, into which CSR is converted once, or dense."""
        return self.matrix.tocsc() if isinstance(self.matrix, sp.csr_array) else self.matrix

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts."""
        if sp.issparse(self.matrix):
            return np.diff(self.by_column.indptr).astype(np.int64)
        step = max(1, _ENTRIES // self.n_genes)
        cells = range(0, len(self), step)
        return sum(np.count_nonzero(self.matrix[i : i + step], axis=0) for i in cells)

    def cell_digests(self) -> NDArray[np.uint64]:
        """Return a number for each cell that tells its counts from others, whatever their form."""
        digests = np.zeros(len(self), dtype=np.uint64)
        step = max(1, _ENTRIES // len(self))
        for first in range(0, self.n_genes, step):
            add_digests(digests, self.by_gene(slice(first, first + step)).T, first)
        return digests

    def groups(self, most_genes: int) -> list[slice]:  # noqa: ARG002
        """Cut the genes into those that are loaded at a time: all, as they are in memory."""
        return [slice(0, self.n_genes)]

    def only(self, genes: slice) -> "CountMatrix":
        """Return the counts of some genes."""
        if genes == slice(0, self.n_genes):
            return self  # SciPy would copy them
        return replace(self, matrix=self.by_column[:, genes], names=self.names[genes])

    def load(self) -> "CountMatrix":
        """Return the counts in memory, where they are."""
        return self

    def dense(self, genes: slice) -> NDArray[Any]:
        """Return the counts of some genes as a dense array."""
        block = self.by_column[:, genes]
        return block.toarray() if isinstance(block, sp.csc_array) else block

    def by_gene(self, genes: slice) -> sp.csr_array:
        """Return the positive counts of some genes in compressed rows, one per gene.

        Those of a sparse matrix keep their type, and may share its memory.
        """
        if not sp.issparse(self.matrix):
            rows = np.ascontiguousarray(self.matrix[:, genes].T, dtype=np.float64)
            flat = rows.ravel()
            is_positive = rows != 0
            places = np.flatnonzero(is_positive)
            lengths = np.count_nonzero(is_positive, axis=1)
            cells = places - np.repeat(np.arange(len(rows)) * len(self), lengths)
            pointers = np.append(0, np.cumsum(lengths))
            return sp.csr_array((flat[places], cells, pointers), shape=rows.shape)
        matrix = self.by_column
        first, stop, _ = genes.indices(self.n_genes)
        indptr = matrix.indptr[first : stop + 1]
        own = slice(indptr[0], indptr[-1])
        block = sp.csr_array(
            (matrix.data[own], matrix.indices[own], indptr - indptr[0]),
            shape=(stop - first, len(self)),
        )
        # A choice of cells in another order leaves them unsorted; SciPy looks once at the matrix.
        block.has_sorted_indices = matrix.has_sorted_indices
        return block if block.has_sorted_indices else block.sorted_indices()


def check_genes(y: Any, genes: Iterable[str]) -> None:
    """Refuse a frame whose columns are not these genes in this order.

    Parameters
    ----------
    y : object
        Counts; what names no genes passes.
    genes : iterable of str
        The genes of a fit.

    Raises
    ------
    ValueError
        It names the first gene that is another one.
    """
    y = as_pandas(y)
    if not isinstance(y, pd.DataFrame):
        return
    for column, gene in zip(y.columns, genes, strict=False):
        if str(column) != gene:
            raise ValueError(
                f"y's genes are not those of the fit, in its order: found {str(column)!r} where "
                f"{gene!r} was."
            )


def _check_rows(shape: tuple[int, ...], n_cells: int) -> None:
    if shape[0] != n_cells:
        turned = len(shape) == 2 and shape[1] == n_cells
        hint = f" It has {n_cells} columns: y is cells x genes, as y.T may be." if turned else ""
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {n_cells} rows, y has {shape[0]}.{hint}"
        )


def _names(y: Any) -> NDArray[np.object_] | None:
    labels: list[Any]
    if isinstance(y, pd.DataFrame):
        labels = list(y.columns)
    elif isinstance(y, pd.Series):
        labels = ["y0" if y.name is None else y.name]
    else:
        return None
    names = pd.Index([str(label) for label in labels])
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        raise ValueError(
            f"y has {len(twice)} gene name(s) more than once: {list(twice[:5])}. Make them unique."
        )
    return np.asarray(names, dtype=object)


def _array(y: Any) -> Any:
    """Return ``y`` as an array of numbers, or a sparse array of them with sound indices."""
    if isinstance(y, pd.DataFrame):
        # Other fill values than zero would be lost.
        zeros = [getattr(dtype, "fill_value", None) == 0 for dtype in y.dtypes]
        y = y.sparse.to_coo() if all(zeros) else y.to_numpy()  # type: ignore[attr-defined]
    if sp.issparse(y):
        y = checked_sparse(y, "y")
        y = y.reshape(-1, 1) if y.ndim == 1 else y
    if hasattr(y, "to_memory"):  # anndata's sparse matrix on disk, which NumPy takes for a scalar
        raise TypeError("y is not in memory: give y.to_memory().")
    try:
        values = check_array(
            y,
            accept_sparse=("csc", "csr"),
            dtype="numeric",
            ensure_2d=False,
            allow_nd=False,
            ensure_all_finite=False,
            input_name="y",
        )
        if values.dtype in (object, np.float16):  # half precision reaches 65504 only
            values = values.astype(np.float64)
    except Exception as error:  # an array-like may raise anything where it becomes an array
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = next(iter(str(error).splitlines()), repr(error))
        raise kind(f"y is not a matrix of counts: {reason}") from error
    check_numbers(values, "y")
    return values


def canonical(values: Any) -> sp.csc_array:
    """Return CSC without duplicates, stored zeros or unsorted indices; never touch the caller's."""
    result = sp.csc_array(values)
    if not _is_canonical(result):
        result = result.copy()
        result.sum_duplicates()
        result.eliminate_zeros()
    return result


def _is_canonical(values: Any) -> bool:
    """Whether a matrix in CSR or CSC has neither duplicates, stored zeros nor unsorted indices."""
    return values.has_canonical_format and np.count_nonzero(values.data) == values.nnz


def check_values(
    values: Any,
    names: NDArray[np.object_],
    *,
    name: str = "y",
    first_row: int = 0,
    largest: int = _LARGEST_COUNT,
) -> None:
    """Refuse what no count can be.

    Parameters
    ----------
    values : ndarray, csr_array or csc_array of shape (n_cells, n_genes)
    names : ndarray of str of shape (n_genes,)
    name : str, default="y"
        What to call the matrix.
    first_row : int, default=0
        Row of the matrix in which ``values`` begin.
    largest : int, default=10**9
        The largest count that there may be.

    Raises
    ------
    ValueError
        If a value is not finite, negative or too large. The message names its gene and row.
    """
    is_sparse = sp.issparse(values)
    data = values.data if is_sparse else values
    if data.size == 0:
        return
    low, high = data.min(), data.max()  # NaN spreads to both
    if low >= 0 and high <= largest:
        return
    if isinstance(values, sp.csr_array):  # to name the same value in any form
        values = values.tocsc()
        data = values.data
    for wrong, what in (
        (~np.isfinite(data), "is not finite"),
        (data < 0, "is negative"),
        (data > largest, "is too large for a count"),
    ):
        if wrong.any():
            if isinstance(values, sp.csc_array):
                entry = int(np.flatnonzero(wrong)[0])
                row = int(values.indices[entry])
                column = int(np.searchsorted(values.indptr, entry, side="right")) - 1
                value = data[entry]
            else:
                row, column = (int(i) for i in np.argwhere(wrong)[0])
                value = data[row, column]
            hint = ""
            if what == "is negative":
                hint = f" (Negative {name} means that these are not counts.)"
            if what == "is too large for a count":
                hint = f" (Counts may be up to {largest}"
                hint += " in single precision.)" if largest < _LARGEST_COUNT else ".)"
            word = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else value
            raise ValueError(
                f"{name} {what}: {word} for gene {names[column]!r} in row {first_row + row}, and "
                f"{int(wrong.sum())} such value(s) in all.{hint}"
            )


def are_counts(values: Any) -> bool:
    """Judge from a sample: no value is negative, and most of the others are integers.

    Parameters
    ----------
    values : 1-D ndarray or flat iterator

    Returns
    -------
    bool
    """
    chosen: Any = slice(None)
    if len(values) > JUDGED_VALUES:  # not every so many: these may all be of one gene
        chosen = np.random.default_rng(0).integers(len(values), size=JUDGED_VALUES)
    judged = values[chosen]
    judged = judged[judged != 0]
    return bool((judged >= 0).all() and 2 * np.sum(judged == np.floor(judged)) >= judged.size)


def add_digests(
    digests: NDArray[np.uint64], counts: Any, first_gene: int, first_cell: int = 0
) -> None:
    """Add to each cell's digest what some of its counts contribute.

    Sums of well mixed numbers do not depend on the order in which a matrix is read.

    Parameters
    ----------
    digests : ndarray of uint64 of shape (n_cells,)
        Is changed.
    counts : csc_array
        Positive counts of consecutive cells and genes.
    first_gene, first_cell : int
        The first of them.
    """
    genes = np.arange(first_gene, first_gene + counts.shape[1], dtype=np.uint64)
    keys = np.repeat(_mixed(genes), np.diff(counts.indptr))
    keys ^= counts.data.astype(np.float64).view(np.uint64)
    np.add.at(digests, counts.indices + first_cell, _mixed(keys))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's mix of each number (Steele, Lea and Flood 2014, OOPSLA)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def consecutive_blocks(
    amounts: Sequence[int] | NDArray[np.int64], most: float, *, longest: int, shortest: int = 1
) -> list[slice]:
    """Cut consecutive items so that each stretch holds at most so much.

    Parameters
    ----------
    amounts : sequence of int
        What each item amounts to.
    most : float
        What a stretch may amount to; one of ``shortest`` items may exceed it.
    longest, shortest : int
        Number of items in a stretch; the last one may be shorter.

    Returns
    -------
    list of slice
    """
    starts, total = [0], 0
    for item, amount in enumerate(amounts):
        length = item - starts[-1]
        if length == longest or (length >= shortest and total + amount > most):
            starts.append(item)
            total = 0
        total += int(amount)
    return [slice(*ends) for ends in pairwise([*starts, len(amounts)])]
