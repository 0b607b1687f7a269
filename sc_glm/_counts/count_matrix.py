"""Count matrices in all forms that users have, checked once and read by blocks of genes."""

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

# Largest count of a fit in double precision. A log-likelihood sums terms as large as its counts,
# which cancel; up to this one, six digits are right.
_LARGEST_COUNT = 10**9

# Largest count of a fit in single precision, which cannot represent all larger whole numbers.
_LARGEST_SINGLE = 2**24

_BLOCK_ENTRIES = 4_000_000  # entries of the matrix that are read at a time
SAMPLED_VALUES = 20_000  # values of a matrix by which it is tested for counts


@dataclass(frozen=True)
class CountMatrix:
    """Checked counts, cells x genes.

    Attributes
    ----------
    matrix : ndarray, csr_array or csc_array of shape (n_cells, n_genes)
        Finite counts from 0 to 10**9. A sparse matrix has sorted indices, no duplicates and no
        stored zeros.
    names : ndarray of str of shape (n_genes,)
        Names of the genes.
    one_dimensional : bool
        Whether the user gave the counts of a single gene as a vector.
    """

    matrix: Any
    names: NDArray[np.object_]
    one_dimensional: bool

    in_memory: ClassVar[bool] = True

    @classmethod
    def of(cls, y: Any, *, n_cells: int, names: NDArray[np.object_] | None = None) -> "CountMatrix":
        """Check counts and return them as a matrix; `y` itself is not changed.

        Parameters
        ----------
        y : array-like, DataFrame, sparse matrix or CountMatrix
            Counts.
        n_cells : int
            Number of rows that `y` must have.
        names : ndarray of str, default=None
            Names of the genes, if `y` has none.

        Raises
        ------
        ValueError
            If `y` is not a matrix of finite, non-negative numbers with `n_cells` rows, or if two
            genes have the same name. The message names the gene, the row and the value.
        TypeError
            If `y` is not an array.
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
        own_names = _gene_names(y)
        names = names if own_names is None else own_names
        values = _as_array(y)
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
        """Return the counts of some cells; scikit-learn splits rows by ``y[cells, ...]``."""
        rows = cells[0] if isinstance(cells, tuple) else cells
        return CountMatrix(self.matrix[rows], self.names, self.one_dimensional)

    def check_single_precision(self) -> None:
        """Raise an error if single precision cannot represent a count in memory.

        Raises
        ------
        ValueError
            If a count is too large. The message names the gene, the row and the value.
        """
        if self.in_memory:
            check_values(self.matrix, self.names, largest=_LARGEST_SINGLE)

    def look_like_counts(self) -> bool:
        """Return whether values look like counts, and not like normalised values or logarithms."""
        is_sparse = sp.issparse(self.matrix)
        return are_counts(self.matrix.data if is_sparse else self.matrix.flat)

    @cached_property
    def by_column(self) -> Any:
        """The matrix in the form from which genes are read: dense, or CSC.

        A matrix in CSR is converted once.
        """
        return self.matrix.tocsc() if isinstance(self.matrix, sp.csr_array) else self.matrix

    @property
    def by_row(self) -> Any:
        """The matrix in the form from which cells are read: dense, or CSR."""
        return self.matrix.tocsr() if isinstance(self.matrix, sp.csc_array) else self.matrix

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts."""
        if sp.issparse(self.matrix):
            return np.diff(self.by_column.indptr).astype(np.int64)
        step = max(1, _BLOCK_ENTRIES // self.n_genes)
        cells = range(0, len(self), step)
        return sum(np.count_nonzero(self.matrix[i : i + step], axis=0) for i in cells)

    def cell_digests(self) -> NDArray[np.uint64]:
        """Return a hash of each cell's counts, which does not depend on the form of the matrix."""
        digests = np.zeros(len(self), dtype=np.uint64)
        step = max(1, _BLOCK_ENTRIES // len(self))
        for first in range(0, self.n_genes, step):
            add_digests(digests, self.by_gene(slice(first, first + step)).T, first)
        return digests

    def gene_groups(self, max_genes: int) -> list[slice]:  # noqa: ARG002
        """Return the groups of genes that are loaded at a time: one, as all are in memory."""
        return [slice(0, self.n_genes)]

    def select_genes(self, genes: slice) -> "CountMatrix":
        """Return the counts of some genes."""
        if genes == slice(0, self.n_genes):
            return self  # SciPy would copy them
        return replace(self, matrix=self.by_column[:, genes], names=self.names[genes])

    def of_genes(self, genes: NDArray[np.intp]) -> "CountMatrix":
        """Return the counts of genes at some positions, in this order."""
        return replace(self, matrix=self.by_column[:, genes], names=self.names[genes])

    def load(self) -> "CountMatrix":
        """Return the counts in memory: these, as they are there already."""
        return self

    def dense(self, genes: slice) -> NDArray[Any]:
        """Return the counts of some genes as a dense array."""
        block = self.by_column[:, genes]
        return block.toarray() if isinstance(block, sp.csc_array) else block

    def by_gene(self, genes: slice) -> sp.csr_array:
        """Return the positive counts of some genes in compressed rows, one per gene.

        Counts from a sparse matrix keep their type, and may share its memory.
        """
        if not sp.issparse(self.matrix):
            rows = np.ascontiguousarray(self.matrix[:, genes].T, dtype=np.float64)
            flat = rows.ravel()
            is_positive = rows != 0
            positions = np.flatnonzero(is_positive)
            lengths = np.count_nonzero(is_positive, axis=1)
            cells = positions - np.repeat(np.arange(len(rows)) * len(self), lengths)
            indptr = np.append(0, np.cumsum(lengths))
            return sp.csr_array((flat[positions], cells, indptr), shape=rows.shape)
        matrix = self.by_column
        first, stop, _ = genes.indices(self.n_genes)
        indptr = matrix.indptr[first : stop + 1]
        entries = slice(indptr[0], indptr[-1])
        block = sp.csr_array(
            (matrix.data[entries], matrix.indices[entries], indptr - indptr[0]),
            shape=(stop - first, len(self)),
        )
        # Indices are unsorted if cells were selected in another order. SciPy checks this once for
        # the matrix, and would check it again for each block.
        block.has_sorted_indices = matrix.has_sorted_indices
        return block if block.has_sorted_indices else block.sorted_indices()


def check_genes(y: Any, genes: Iterable[str]) -> None:
    """Raise an error if the columns of a frame are not the genes of a fit in their order.

    Parameters
    ----------
    y : object
        Counts. Only a frame names its genes; other objects are accepted.
    genes : iterable of str
        Names of the genes of a fit.

    Raises
    ------
    ValueError
        If a column differs. The message names the first one.
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
    """Raise an error unless a matrix has a row for each cell."""
    if shape[0] != n_cells:
        turned = len(shape) == 2 and shape[1] == n_cells
        hint = f" It has {n_cells} columns: y must be cells x genes. Give y.T." if turned else ""
        raise ValueError(
            "Found input variables with inconsistent numbers of samples: "
            f"X has {n_cells} rows, y has {shape[0]}.{hint}"
        )


def _gene_names(y: Any) -> NDArray[np.object_] | None:
    """Return the names of genes that `y` has, or None."""
    labels: list[Any]
    if isinstance(y, pd.DataFrame):
        labels = list(y.columns)
    elif isinstance(y, pd.Series):
        labels = ["y0" if y.name is None else y.name]
    else:
        return None
    names = pd.Index([str(label) for label in labels])
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise ValueError(
            f"y has {len(repeated)} gene name(s) more than once: {list(repeated[:5])}. "
            "Make them unique."
        )
    return np.asarray(names, dtype=object)


def _as_array(y: Any) -> Any:
    """Return `y` as an array of numbers, dense or sparse with valid indices."""
    if isinstance(y, pd.DataFrame):
        # A sparse matrix cannot hold other fill values than zero.
        zeros = [getattr(dtype, "fill_value", None) == 0 for dtype in y.dtypes]
        y = y.sparse.to_coo() if all(zeros) else y.to_numpy()  # type: ignore[attr-defined]
    if sp.issparse(y):
        y = checked_sparse(y, "y")
        y = y.reshape(-1, 1) if y.ndim == 1 else y
    if hasattr(y, "to_memory"):  # anndata's sparse matrix on disk; NumPy would make it a scalar
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
        if values.dtype in (object, np.float16):  # the largest number in half precision is 65504
            values = values.astype(np.float64)
    except Exception as error:  # an array-like may raise any error when it is converted
        kind = TypeError if isinstance(error, TypeError) else ValueError
        reason = next(iter(str(error).splitlines()), repr(error))
        raise kind(f"y is not a matrix of counts: {reason}") from error
    check_numbers(values, "y")
    return values


def canonical(values: Any) -> sp.csc_array:
    """Return a matrix in CSC without duplicates, stored zeros or unsorted indices.

    The caller's matrix is not changed.
    """
    result = sp.csc_array(values)
    if not _is_canonical(result):
        result = result.copy()
        result.sum_duplicates()
        result.eliminate_zeros()
    return result


def _is_canonical(values: Any) -> bool:
    """Return whether a CSR or CSC matrix has no duplicates, stored zeros or unsorted indices."""
    return values.has_canonical_format and np.count_nonzero(values.data) == values.nnz


def check_values(
    values: Any,
    names: NDArray[np.object_],
    *,
    name: str = "y",
    first_row: int = 0,
    largest: int = _LARGEST_COUNT,
) -> None:
    """Raise an error if a value cannot be a count.

    Parameters
    ----------
    values : ndarray, csr_array or csc_array of shape (n_cells, n_genes)
        Values to check.
    names : ndarray of str of shape (n_genes,)
        Names of the genes.
    name : str, default="y"
        Name of the matrix in messages.
    first_row : int, default=0
        Row of the matrix at which `values` begin.
    largest : int, default=10**9
        Largest count that is accepted.

    Raises
    ------
    ValueError
        If a value is not finite, negative or too large. The message names its gene and row.
    """
    is_sparse = sp.issparse(values)
    data = values.data if is_sparse else values
    if data.size == 0:
        return
    low, high = data.min(), data.max()  # both are NaN if any value is
    if low >= 0 and high <= largest:
        return
    if isinstance(values, sp.csr_array):  # so that the message names the same value in any form
        values = values.tocsc()
        data = values.data
    precision = " in single precision" if largest < _LARGEST_COUNT else ""
    for wrong, flaw, hint in (
        (~np.isfinite(data), "is not finite", ""),
        (data < 0, "is negative", f" (Negative {name} means that these are not counts.)"),
        (
            data > largest,
            "is too large for a count",
            f" (Counts may be up to {largest}{precision}.)",
        ),
    ):
        if wrong.any():
            row, column, value = _first_value(values, wrong)
            shown = "NaN" if np.isnan(value) else "infinity" if np.isinf(value) else value
            raise ValueError(
                f"{name} {flaw}: {shown} for gene {names[column]!r} in row {first_row + row}, and "
                f"{int(wrong.sum())} such value(s) in all.{hint}"
            )


def _first_value(values: Any, chosen: NDArray[np.bool_]) -> tuple[int, int, Any]:
    """Return row, column and value of the first chosen entry of a dense or a CSC matrix."""
    if isinstance(values, sp.csc_array):
        entry = int(np.flatnonzero(chosen)[0])
        column = int(np.searchsorted(values.indptr, entry, side="right")) - 1
        return int(values.indices[entry]), column, values.data[entry]
    row, column = (int(i) for i in np.argwhere(chosen)[0])
    return row, column, values[row, column]


def are_counts(values: Any) -> bool:
    """Return whether a sample of values has no negative ones, and mostly whole positive ones.

    Parameters
    ----------
    values : 1-D ndarray or flat iterator
        Values of a matrix.

    Returns
    -------
    bool
        Whether the values look like counts.
    """
    index: Any = slice(None)
    if len(values) > SAMPLED_VALUES:  # at random, as values at equal distances may be of one gene
        index = np.random.default_rng(0).integers(len(values), size=SAMPLED_VALUES)
    sample = values[index]
    sample = sample[sample != 0]
    return bool((sample >= 0).all() and 2 * np.sum(sample == np.floor(sample)) >= sample.size)


def add_digests(
    digests: NDArray[np.uint64], counts: Any, first_gene: int, first_cell: int = 0
) -> None:
    """Add hashes of some counts to the hashes of their cells.

    A cell's hash is a sum, so that it does not depend on the order in which a matrix is read.

    Parameters
    ----------
    digests : ndarray of uint64 of shape (n_cells,)
        Hash of each cell, which is changed in place.
    counts : csc_array
        Positive counts of consecutive cells and genes.
    first_gene, first_cell : int
        Numbers of the first gene and the first cell of `counts`.
    """
    genes = np.arange(first_gene, first_gene + counts.shape[1], dtype=np.uint64)
    keys = np.repeat(_split_mix(genes), np.diff(counts.indptr))
    keys ^= counts.data.astype(np.float64).view(np.uint64)
    np.add.at(digests, counts.indices + first_cell, _split_mix(keys))


def _split_mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 hash of each number (Steele, Lea and Flood 2014, OOPSLA)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def consecutive_blocks(
    amounts: Sequence[int] | NDArray[np.int64],
    max_amount: float,
    *,
    longest: int,
    shortest: int = 1,
) -> list[slice]:
    """Divide items into blocks of consecutive ones with a bounded total amount.

    Parameters
    ----------
    amounts : sequence of int
        Amount of each item.
    max_amount : float
        Largest total of a block. A block of `shortest` items may exceed it.
    longest : int
        Largest number of items in a block.
    shortest : int, default=1
        Smallest number of items in a block, except the last one.

    Returns
    -------
    list of slice
        The blocks.
    """
    starts, total = [0], 0
    for item, amount in enumerate(amounts):
        length = item - starts[-1]
        if length == longest or (length >= shortest and total + amount > max_amount):
            starts.append(item)
            total = 0
        total += int(amount)
    return [slice(*ends) for ends in pairwise([*starts, len(amounts)])]
