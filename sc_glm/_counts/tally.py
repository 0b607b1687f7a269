"""The counts of each gene, tabulated by the distinct rows of a design.

Cells with equal covariates are interchangeable. The likelihood of a gene depends only on how often
each count occurs in each distinct row. This is tabulated once, however many cells there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sc_glm._counts.equal_rows import first_rows

# Number of counts that are tabulated at a time and stay in the processor's cache.
_BLOCK_COUNTS = 2**17

# Entries of a table per count that is tabulated. If it needs more, sorting the counts is as fast.
_MAX_ENTRIES_PER_COUNT = 16

# Entries of the table of all genes, which stays in the processor's cache. It has an entry for every
# gene, row and count up to the first limit. With many genes and rows the limit is lower, and from
# the second limit on there is no such table. At most this share of the counts may be larger.
_MAX_TABLE_ENTRIES = 2**17
_MAX_TABULATED_COUNT = 16
_MIN_TABULATED_COUNT = 4
_MAX_SHARE_OF_LARGER = 1 / 8


@dataclass(frozen=True)
class Grouping:
    """Assignment of cells to the distinct rows of a design, with the cells' weights.

    Attributes
    ----------
    rows : ndarray of int of shape (n_cells,)
        Number of each cell's row.
    weights : ndarray of shape (n_cells,)
        Weight of each cell.
    """

    rows: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def n_rows(self) -> int:
        """Number of distinct rows."""
        return int(self.rows.max()) + 1

    def first(self) -> NDArray[np.intp]:
        """Return the first cell of each row."""
        return first_rows(self.rows)

    def row_weights(self) -> NDArray[np.float64]:
        """Return the sum of the weights of each row's cells."""
        return np.bincount(self.rows, self.weights).astype(np.float64)

    def unequal_weights(self) -> NDArray[np.float64] | None:
        """Return the weights, or None if all are equal."""
        return None if np.ptp(self.weights) == 0 else self.weights


class _DistinctCounts(NamedTuple):
    """The distinct positive counts of each gene in each row.

    Attributes
    ----------
    place : ndarray of int of shape (n_counts,)
        Gene and row as one number, ``gene * n_rows + row``; ascending.
    y : ndarray of shape (n_counts,)
        The count, ascending within a place.
    times : ndarray of int of shape (n_counts,)
        Number of cells that have it.
    weight : ndarray of shape (n_counts,)
        Sum of the weights of these cells, or `times` if there are no weights.
    """

    place: NDArray[np.intp]
    y: NDArray[np.float64]
    times: NDArray[np.intp]
    weight: NDArray[np.float64]

    @classmethod
    def join(cls, tables: Iterable["_DistinctCounts"]) -> "_DistinctCounts":
        """Join tables of different genes, or of smaller and larger counts of the same genes."""
        joined = cls(*(np.concatenate(x) for x in zip(*tables, strict=True)))
        order = np.argsort(joined.place, kind="stable")
        place, y, times, weight = joined
        return cls(place[order], y[order], times[order], weight[order])


@dataclass(frozen=True)
class Tally:
    """How often each count of a gene occurs in each distinct row of a design.

    Attributes
    ----------
    counts : csr_array of shape (n_genes, n_rows)
        Distinct positive counts. A gene may have several in a row, which are in ascending order.
    n_cells : ndarray of int of shape (n_counts,)
        Number of cells that have each of `counts`.
    shares : ndarray of shape (n_counts,)
        Share of the row's weight that these cells have.
    zeros : ndarray of shape (n_genes, n_rows)
        Share of the row's weight that cells with a count of zero have.
    """

    counts: sp.csr_array
    n_cells: NDArray[np.intp]
    shares: NDArray[np.float64]
    zeros: NDArray[np.float64]

    @classmethod
    def of(cls, counts: sp.csr_array, cells: Grouping) -> "Tally":
        """Tabulate counts that are stored by gene.

        Parameters
        ----------
        counts : csr_array of shape (n_genes, n_cells)
            Positive counts by gene, with sorted indices of cells.
        cells : Grouping
            Row of each cell, and its weight.
        """
        n_genes, n_rows = counts.shape[0], cells.n_rows
        rows = cells.rows.astype(np.min_scalar_type(n_rows))  # a smaller type is read faster
        weights = cells.unequal_weights()
        tables = []
        for first, stop in pairwise(_block_bounds(counts.indptr)):
            entries = slice(counts.indptr[first], counts.indptr[stop])
            columns = counts.indices[entries]
            table = _tabulate(
                np.diff(counts.indptr[first : stop + 1]),
                rows.take(columns),
                counts.data[entries],
                None if weights is None else weights.take(columns),
                n_rows=n_rows,
            )
            tables.append(table._replace(place=table.place + first * n_rows))
        return cls._from_distinct_counts(_DistinctCounts.join(tables), cells, weights, n_genes)

    @classmethod
    def of_cells(cls, counts: sp.csr_array, cells: Grouping) -> "Tally | None":
        """Tabulate counts that are stored by cell, with the same digits as :meth:`of`.

        Parameters
        ----------
        counts : csr_array of shape (n_cells, n_genes)
            Positive counts, at most one for a cell and gene.
        cells : Grouping
            Row of each cell, and its weight.

        Returns
        -------
        Tally or None
            None where :meth:`of` is faster: counts are not whole, many are large, or there are too
            many genes and rows.
        """
        n_genes, n_rows = counts.shape[1], cells.n_rows
        largest = min(_MAX_TABULATED_COUNT, _MAX_TABLE_ENTRIES // max(1, n_genes * n_rows))
        if largest < _MIN_TABULATED_COUNT:
            return None
        weights = cells.unequal_weights()
        table = _tabulate_by_cell(counts, cells.rows, weights, largest=largest, n_rows=n_rows)
        return None if table is None else cls._from_distinct_counts(table, cells, weights, n_genes)

    @classmethod
    def _from_distinct_counts(
        cls,
        table: _DistinctCounts,
        cells: Grouping,
        weights: NDArray[np.float64] | None,
        n_genes: int,
    ) -> "Tally":
        """Return the tally of distinct counts. The weights are None if all cells' are equal."""
        place, y, n_cells, weight = table
        row_weights, row_cells = cells.row_weights(), np.bincount(cells.rows)
        if weights is None:
            weight = weight * cells.weights[0]
        n_rows = len(row_cells)
        gene, row = np.divmod(place, n_rows)
        shape = (n_genes, n_rows)
        indptr = np.searchsorted(gene, np.arange(n_genes + 1))
        # Zeros are found by numbers of cells: a difference of weights may leave rounding errors.
        no_zeros = np.bincount(place, n_cells, n_genes * n_rows).reshape(shape) == row_cells
        zeros = row_weights - np.bincount(place, weight, n_genes * n_rows).reshape(shape)
        return cls(
            sp.csr_array((y, row, indptr), shape=shape),
            n_cells,
            weight / row_weights[row],
            np.where(no_zeros, 0.0, zeros.clip(0.0) / row_weights),
        )

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts."""
        return np.diff(np.append(0, np.cumsum(self.n_cells))[self.counts.indptr])

    def of_genes(self, genes: NDArray[np.intp]) -> "Tally":
        """Return the tally of some of the genes."""
        # Positions are selected first, as SciPy would add up counts of the same gene and row.
        positions = sp.csr_array(
            (np.arange(self.counts.nnz), self.counts.indices, self.counts.indptr),
            shape=self.counts.shape,
        )[genes]
        kept = positions.data
        counts = sp.csr_array(
            (self.counts.data[kept], positions.indices, positions.indptr), positions.shape
        )
        return Tally(counts, self.n_cells[kept], self.shares[kept], self.zeros[genes])

    def of_groups(self, groups: Grouping) -> "Tally":
        """Return the tally by groups of rows.

        Parameters
        ----------
        groups : Grouping
            Group of each row, and its weight.
        """
        weights, columns = groups.row_weights(), self.counts.indices
        n_groups = len(weights)
        tabulate = partial(
            _tabulate,
            np.diff(self.counts.indptr),
            groups.rows[columns].astype(np.int32),
            self.counts.data,
            n_rows=n_groups,
        )
        place, y, _, weight = tabulate(self.shares * groups.weights[columns])
        *_, n_cells = tabulate(self.n_cells.astype(np.float64))
        gene, group = np.divmod(place, n_groups)
        shape = (self.counts.shape[0], n_groups)
        indptr = np.searchsorted(gene, np.arange(shape[0] + 1))
        membership = sp.csr_array((groups.weights, groups.rows, np.arange(len(groups.rows) + 1)))
        return Tally(
            sp.csr_array((y, group, indptr), shape=shape),
            n_cells.astype(np.intp),
            weight / weights[group],
            np.asarray(self.zeros @ membership) / weights,
        )


def _block_bounds(indptr: NDArray[np.integer]) -> list[int]:
    """Return bounds of blocks of genes or cells that have few counts each."""
    bounds = [0]
    while bounds[-1] < len(indptr) - 1:
        stop = int(np.searchsorted(indptr, indptr[bounds[-1]] + _BLOCK_COUNTS, side="right")) - 1
        bounds.append(max(stop, bounds[-1] + 1))
    return bounds


def _tabulate(
    lengths: NDArray[np.integer],
    rows: NDArray[np.integer],
    y: NDArray[Any],
    weights: NDArray[np.float64] | None,
    *,
    n_rows: int,
) -> _DistinctCounts:
    """Find the distinct counts of each gene and row.

    Parameters
    ----------
    lengths : ndarray of int of shape (n_genes,)
        Number of counts of each gene.
    rows, y : ndarray of shape (n_counts,)
        Row and value of each count, gene by gene.
    weights : ndarray of shape (n_counts,), or None
        Weight of each count; None is one.
    n_rows : int
        Number of rows.
    """
    largest: NDArray[Any] = np.zeros(len(lengths))
    has_counts = lengths > 0
    largest[has_counts] = np.maximum.reduceat(y, (np.cumsum(lengths) - lengths)[has_counts])
    n_entries = n_rows * largest.sum()
    if n_entries <= min(_MAX_ENTRIES_PER_COUNT * len(y), np.iinfo(np.int32).max):
        whole = y.astype(np.int32, copy=False)
        if whole is y or np.array_equal(whole, y):
            largest = largest.astype(np.int32)
            return _tabulate_small(lengths, rows, whole, weights, largest=largest, n_rows=n_rows)
    return _tabulate_by_sorting(lengths, rows, y, weights, n_rows=n_rows)


def _tabulate_by_sorting(
    lengths: NDArray[np.integer],
    rows: NDArray[np.integer],
    y: NDArray[Any],
    weights: NDArray[np.float64] | None,
    *,
    n_rows: int,
) -> _DistinctCounts:
    """Find the distinct counts of each gene and row, for counts of any size."""
    values, rank = np.unique(y, return_inverse=True)
    place = _repeat(np.arange(len(lengths)) * n_rows, lengths) + rows
    key, inverse, times = np.unique(
        place * len(values) + rank, return_inverse=True, return_counts=True
    )
    place, rank = np.divmod(key, len(values))
    weight = times if weights is None else np.bincount(inverse, weights)
    return _DistinctCounts(place, values[rank].astype(np.float64), times, weight.astype(np.float64))


def _tabulate_small(
    lengths: NDArray[np.integer],
    rows: NDArray[np.integer],
    y: NDArray[np.int32],
    weights: NDArray[np.float64] | None,
    *,
    largest: NDArray[np.int32],
    n_rows: int,
) -> _DistinctCounts:
    """Find the distinct counts of each gene and row, for small whole numbers.

    The table has an entry for each gene, row and number up to the gene's largest count.
    """
    begin = np.cumsum(n_rows * largest, dtype=np.int32) - n_rows * largest
    key = rows * _repeat(largest, lengths) + y + _repeat(begin - 1, lengths)
    table = np.bincount(key)
    used = np.flatnonzero(table)
    times = table[used]
    gene = np.searchsorted(begin, used, side="right") - 1
    row, y_less_one = np.divmod(used - begin[gene], largest[gene])
    weight = times if weights is None else np.bincount(key, weights)[used]
    return _DistinctCounts(gene * n_rows + row, y_less_one + 1.0, times, weight.astype(np.float64))


def _tabulate_by_cell(
    counts: sp.csr_array,
    rows: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    *,
    largest: int,
    n_rows: int,
) -> _DistinctCounts | None:
    """Find the distinct counts of each gene and row, for counts that are stored by cell.

    One table has an entry for each gene, row and number up to `largest`. Larger counts have a table
    of their own. None is returned if counts are not whole, or if many are larger.

    Parameters
    ----------
    counts : csr_array of shape (n_cells, n_genes)
        Positive counts.
    rows : ndarray of int of shape (n_cells,)
        Row of each cell.
    weights : ndarray of shape (n_cells,), or None
        Weight of each cell; None is one.
    largest : int
        Largest count in the table.
    n_rows : int
        Number of rows.
    """
    n_genes = counts.shape[1]
    times = np.zeros(n_genes * n_rows * largest + 1, dtype=np.intp)  # the last is of larger counts
    weight = np.zeros(0 if weights is None else len(times))
    begin = (rows * largest - 1).astype(np.int32)
    larger, n_larger = [], 0
    for first, stop in pairwise(_block_bounds(counts.indptr)):
        indptr = counts.indptr[first : stop + 1]
        gene = counts.indices[indptr[0] : indptr[-1]].astype(np.int32, copy=False)
        y = counts.data[indptr[0] : indptr[-1]]
        bounded = np.minimum(y, largest + 1) if y.max(initial=0) > largest else y
        whole = bounded.astype(np.int32, copy=False)
        if whole is not bounded and not np.array_equal(whole, bounded):
            return None
        lengths = np.diff(indptr)
        key = np.repeat(begin[first:stop], lengths)
        key += gene * np.int32(n_rows * largest)
        key += whole
        if bounded is not y:
            index = np.flatnonzero(whole > largest)
            key[index] = len(times) - 1
            n_larger += len(index)
            if n_larger > _MAX_SHARE_OF_LARGER * counts.nnz:
                return None
            offsets = indptr - indptr[0]
            cell = np.searchsorted(offsets, index.astype(indptr.dtype), side="right") - 1 + first
            larger.append((gene[index], cell, y[index]))
        np.add.at(times, key, 1)
        if weights is not None:
            np.add.at(weight, key, np.repeat(weights[first:stop], lengths))
    used = np.flatnonzero(times[:-1])
    place, y_less_one = np.divmod(used, largest)
    used_weight = times[used] if weights is None else weight[used]
    table = _DistinctCounts(place, y_less_one + 1.0, times[used], used_weight.astype(np.float64))
    if not larger:
        return _DistinctCounts.join([table])
    gene, cell, y = (np.concatenate(x) for x in zip(*larger, strict=True))
    order = np.argsort(gene, kind="stable")
    cell = cell[order]
    table_of_larger = _tabulate(
        np.bincount(gene, minlength=n_genes),
        rows[cell],
        y[order],
        None if weights is None else weights[cell],
        n_rows=n_rows,
    )
    return _DistinctCounts.join([table, table_of_larger])


def _repeat(of_genes: NDArray[Any], lengths: NDArray[np.integer]) -> NDArray[Any]:
    """Repeat each gene's number for its counts; the number of a single gene is broadcast."""
    return of_genes if len(of_genes) == 1 else np.repeat(of_genes, lengths)
