"""Cells with equal covariates are interchangeable: count matrices by row of the design.

With categorical covariates, a few rows stand for all cells. The likelihood of a gene then depends
on how often each count occurs in each row, which is counted once, however many cells there are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

_LARGEST_SHARE = 0.25  # of the cells: with more distinct rows, grouping gains little
_SAMPLE = 4096  # cells by which a matrix of many cells is judged first
_NEARLY_ALL = 0.99  # distinct rows of the sample, by which most rows of all cells are
_LEAST_CELLS = 20  # of a group whose offsets differ, from which on sums over it are worth a table
_MOST_GROUPS = 512  # so that their tables stay small,
_LONGEST_RANGE = 40.0  # as do those of such a range of offsets
_CHUNK = 2**17  # numbers at a time, few enough to stay in cache
_LARGEST_TABLE = 16  # places per count, from which on sorting the counts is as fast
_ONE_TABLE = 2**17  # places for counts of all genes, few enough to stay in cache,
_HIGHEST = 16  # which they are up to this one, or a lower one of more genes and rows,
_LEAST_HIGHEST = 4  # down to this,
_MOST_HIGHER = 1 / 8  # as long as no larger share of the counts is higher


def group_rows(X: NDArray[np.float64]) -> NDArray[np.intp] | None:
    """Tell which rows of a matrix are equal.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers.

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        Number of each cell's row among the distinct rows, in the order in which they first occur.
        None if so many are distinct that it does not pay.

    Examples
    --------
    >>> import numpy as np
    >>> group_rows(np.array([[1.0, 0], [1, 1], [1, 0], [1, 1]] * 2))
    array([0, 1, 0, 1, 0, 1, 0, 1])
    >>> group_rows(np.arange(8.0)[:, None]) is None
    True
    """
    n_cells = len(X)
    if n_cells > _SAMPLE:
        sample = np.random.default_rng(0).choice(n_cells, _SAMPLE, replace=False)
        if _distinct(X[sample], int(_NEARLY_ALL * _SAMPLE)) is None:
            return None
    most = int(_LARGEST_SHARE * n_cells)
    rows = _by_sums(X, most)
    return _distinct(X, most) if rows is None else rows


def group_but_offset(
    X: NDArray[np.float64], offset: NDArray[np.float64]
) -> NDArray[np.intp] | None:
    """Tell which rows of a matrix are equal where cells have offsets of their own.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers, without the offset.
    offset : ndarray of shape (n_cells,)

    Returns
    -------
    ndarray of int of shape (n_cells,), or None
        As of :func:`group_rows`; None if the groups are too many or too small, or the offsets too
        far apart, for sums over a group to be worth a table.

    Examples
    --------
    >>> import numpy as np
    >>> rows = group_but_offset(np.arange(100.0)[:, None] % 2, np.linspace(0, 1, 100))
    >>> np.bincount(rows)
    array([50, 50])
    >>> group_but_offset(np.arange(100.0)[:, None] % 10, np.linspace(0, 1, 100)) is None
    True
    """
    rows = group_rows(X)
    if rows is None or np.ptp(offset) > _LONGEST_RANGE:
        return None
    return rows if rows.max() < min(_MOST_GROUPS, len(X) // _LEAST_CELLS) else None


def similar_rows(
    X: NDArray[np.float64], most: int, narrow: float, groups: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Group rows that are near each other.

    Groups are halved, each at its mean in the column in which it is widest, until another round
    could make too many of them or all are narrow.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers, in units in which one is a large difference; at least one column.
    most : int
        Number of groups that are not exceeded.
    narrow : float
        Standard deviation of a group's columns from which on it is not divided any more.
    groups : ndarray of int of shape (n_cells,), optional
        Numbers of groups to begin with; all rows are one by default.

    Returns
    -------
    ndarray of int of shape (n_cells,)
        Number of each cell's group, in the order in which they first occur.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0, 5], [1, 5], [0.001, 5], [3, 5], [1, 5]])
    >>> similar_rows(X, most=8, narrow=0.005)
    array([0, 1, 0, 2, 1])
    >>> similar_rows(X, most=3, narrow=0.005)
    array([0, 0, 0, 1, 0])
    """
    groups = np.zeros(len(X), dtype=np.intp) if groups is None else pd.factorize(groups)[0]
    n_groups = int(groups.max()) + 1
    while 2 * n_groups <= most:
        groups, uniques = pd.factorize(2 * groups + _in_upper_half(X, groups, narrow))
        if len(uniques) == n_groups:
            break
        n_groups = len(uniques)
    return groups


def typical_rows(
    X: NDArray[np.float64], weights: NDArray[np.float64], most: int, narrow: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a few rows that stand for many: the means of similar ones, with their weights.

    Parameters
    ----------
    X : ndarray of shape (n_cells, n_columns)
        Finite numbers.
    weights : ndarray of shape (n_cells,)
        Positive.
    most : int
        Number of rows that is not exceeded.
    narrow : float
        As in :func:`similar_rows`, in standard deviations of the columns.

    Returns
    -------
    rows : ndarray of shape (n_rows, n_columns)
    weights : ndarray of shape (n_rows,)

    Examples
    --------
    >>> import numpy as np
    >>> typical_rows(np.array([[0.0], [7], [7], [0]]), np.array([1.0, 1, 2, 3]), 8, 0.1)
    (array([[0.],
           [7.]]), array([4., 3.]))
    """
    largest = np.abs(X).max(axis=0)
    unit = X / np.where(largest > 0, largest, 1.0)
    spread = unit.std(axis=0)
    groups, told = _rarest_levels(X, spread, most)
    halved = np.setdiff1d(np.arange(X.shape[1]), told)
    if len(halved):
        scaled = unit[:, halved] / np.where(spread > 0, spread, 1.0)[halved]
        groups = similar_rows(scaled, most, narrow, groups)
    whole = np.bincount(groups, weights).astype(np.float64)
    summing = sp.csr_array((weights, (groups, np.arange(len(X)))), shape=(len(whole), len(X)))
    return np.asarray(summing @ unit) / whole[:, None] * largest, whole


def _rarest_levels(
    X: NDArray[np.float64], spread: NDArray[np.float64], most: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group rows by indicators, as halving would take rare levels off one by one.

    Of indicators whose combinations are too many, those of the most common levels are left out.
    Returns the rows' groups, and the columns by which they are told apart.
    """
    indicators = np.flatnonzero(((X.min(axis=0) == X) | (X.max(axis=0) == X)).all(axis=0))
    told = indicators[np.argsort(spread[indicators], kind="stable")]
    left_out = 0
    while (groups := _distinct(X[:, told], most)) is None:
        left_out = max(1, 2 * left_out)
        told = told[: max(0, len(indicators) - left_out)]
    return groups, told


def _in_upper_half(
    X: NDArray[np.float64], groups: NDArray[np.intp], narrow: float
) -> NDArray[np.bool_]:
    """Tell which rows are above the mean of their group, in its widest column; none if narrow."""
    sizes = np.bincount(groups)
    means = np.stack([np.bincount(groups, x) / sizes for x in X.T])
    variances = np.stack(
        [
            np.bincount(groups, (x - mean[groups]) ** 2) / sizes
            for x, mean in zip(X.T, means, strict=True)
        ]
    )
    widest = variances.argmax(0)
    middle = np.where(variances.max(0) > narrow**2, means[widest, np.arange(len(sizes))], np.inf)
    return X[np.arange(len(X)), widest[groups]] > middle[groups]


def _by_sums(X: NDArray[np.float64], most: int) -> NDArray[np.intp] | None:
    """Do what ``_distinct`` does, in less time; None if sums leave it open, or there are more."""
    rows, sums = pd.factorize(_sums(X).view(np.uint64))
    if len(sums) > most:
        return None
    distinct = _last(X, rows, len(sums))
    if _differ(X, distinct, rows).any():
        return None
    # Rounding may differ between equal rows.
    numbers = _distinct(distinct, len(distinct))
    return rows if numbers is None or numbers[-1] == len(sums) - 1 else numbers[rows]


def _distinct(X: NDArray[np.float64], most: int) -> NDArray[np.intp] | None:
    """Return the number of each row's first equal, unless there are more than ``most``."""
    rows, keys = pd.factorize(_keys(X))
    if len(keys) > most:
        return None
    differs = _differ(X, _last(X, rows, len(keys)), rows)
    if differs.any():  # rows that are not equal, of one key: the last and its equals keep it
        others = _distinct(X[differs], most - len(keys))
        if others is None:
            return None
        rows[differs] = len(keys) + others
        rows, _ = pd.factorize(rows)
    return rows


def _last(X: NDArray[np.float64], rows: NDArray[np.intp], n_rows: int) -> NDArray[np.float64]:
    """Return the last row of each number."""
    last = np.empty(n_rows, dtype=np.intp)
    last[rows] = np.arange(len(X))
    return np.ascontiguousarray(X[last])


def _differ(
    X: NDArray[np.float64], distinct: NDArray[np.float64], rows: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Tell which rows are not equal to that of ``distinct`` that they are said to be."""
    differs = np.zeros(len(X), dtype=bool)
    for part in _parts(X):
        unequal = np.ascontiguousarray(X[part]) != distinct.take(rows[part], axis=0)
        if unequal.any():
            differs[part] = unequal.any(axis=1)
    return differs


def _sums(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a weighted sum of each row, which tells most rows of dummies apart."""
    with np.errstate(all="ignore"):
        sums: NDArray[np.float64] = np.einsum(
            "ij,j->i", X, np.random.default_rng(0).uniform(size=X.shape[1])
        )
    return sums


def _keys(X: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return a number for each row, the same for equal rows, and hardly ever for others."""
    keys = np.empty(len(X), dtype=np.uint64)
    factors = 1 | np.random.default_rng(0).integers(2**64, size=(X.shape[1], 1), dtype=np.uint64)
    for part in _parts(X):
        bits = np.add(X[part].T, 0.0, order="C").view(np.uint64)  # of 0.0 where it is -0.0
        bits ^= bits >> 32  # whole numbers have theirs in the upper half, out of which a factor
        bits *= factors  # would move most of them
        np.sum(bits, axis=0, out=keys[part])
    return keys


def _parts(X: NDArray[np.float64]) -> list[slice]:
    """Cut the rows so that a run of them stays in cache."""
    step = max(1, _CHUNK // max(1, X.shape[1]))
    return [slice(begin, begin + step) for begin in range(0, len(X), step)]


@dataclass(frozen=True)
class Cells:
    """Which row of a design each cell has, and its weight.

    Attributes
    ----------
    rows : ndarray of int of shape (n_cells,)
    weights : ndarray of shape (n_cells,)
    """

    rows: NDArray[np.intp]
    weights: NDArray[np.float64]

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.rows.max()) + 1

    def first(self) -> NDArray[np.intp]:
        """Return the first cell of each row."""
        first = np.empty(self.n_rows, dtype=np.intp)
        first[self.rows[::-1]] = np.arange(len(self.rows))[::-1]  # of equal ones the last is kept
        return first

    def row_weights(self) -> NDArray[np.float64]:
        """Return the sum of the weights of each row's cells."""
        return np.bincount(self.rows, self.weights).astype(np.float64)

    def unequal_weights(self) -> NDArray[np.float64] | None:
        """Return the weights, or None where all are equal."""
        return None if np.ptp(self.weights) == 0 else self.weights


class _Occurrences(NamedTuple):
    """The distinct counts of each gene and row.

    Attributes
    ----------
    place : ndarray of int of shape (n_counts,)
        Number of rows times the gene, plus the row; ascending.
    y : ndarray of shape (n_counts,)
        Value, ascending where the place is the same.
    times : ndarray of int of shape (n_counts,)
        Number of times that it occurs there.
    weight : ndarray of shape (n_counts,)
        Sum of its weights, or ``times`` where none are given.
    """

    place: NDArray[np.intp]
    y: NDArray[np.float64]
    times: NDArray[np.intp]
    weight: NDArray[np.float64]

    @classmethod
    def join(cls, found: Iterable["_Occurrences"]) -> "_Occurrences":
        """Put those of several genes, or of higher counts, after each other."""
        joined = cls(*(np.concatenate(x) for x in zip(*found, strict=True)))
        order = np.argsort(joined.place, kind="stable")
        place, y, times, weight = joined
        return cls(place[order], y[order], times[order], weight[order])


@dataclass(frozen=True)
class Tally:
    """How often each count of a gene occurs in each row of the design.

    Attributes
    ----------
    counts : csr_array of shape (n_genes, n_rows)
        Distinct positive counts, of which a gene may have several in a row, in ascending order.
    n_cells : ndarray of int of shape (n_counts,)
        Number of cells that have each of ``counts``.
    shares : ndarray of shape (n_counts,)
        What they have of the row's weight.
    zeros : ndarray of shape (n_genes, n_rows)
        What cells with a count of zero have of it.
    """

    counts: sp.csr_array
    n_cells: NDArray[np.intp]
    shares: NDArray[np.float64]
    zeros: NDArray[np.float64]

    @classmethod
    def of(cls, counts: sp.csr_array, cells: Cells) -> "Tally":
        """Count the counts.

        Parameters
        ----------
        counts : csr_array of shape (n_genes, n_cells)
            Positive counts by gene, of sorted cells.
        cells : Cells
        """
        n_genes, n_rows = counts.shape[0], cells.n_rows
        rows = cells.rows.astype(np.min_scalar_type(n_rows))  # the less of it, the faster read
        weights = cells.unequal_weights()
        found = []
        for first, stop in pairwise(_cuts(counts.indptr)):
            entries = slice(counts.indptr[first], counts.indptr[stop])
            where = counts.indices[entries]
            own = _occurrences(
                np.diff(counts.indptr[first : stop + 1]),
                rows.take(where),
                counts.data[entries],
                None if weights is None else weights.take(where),
                n_rows=n_rows,
            )
            found.append(own._replace(place=own.place + first * n_rows))
        return cls._of_occurrences(_Occurrences.join(found), cells, weights, n_genes)

    @classmethod
    def of_cells(cls, counts: sp.csr_array, cells: Cells) -> "Tally | None":
        """Count the counts of a matrix as it is read cell by cell, to the same last digit.

        Parameters
        ----------
        counts : csr_array of shape (n_cells, n_genes)
            Positive counts, no two of one cell and gene.
        cells : Cells

        Returns
        -------
        Tally or None
            None if counts are not whole, or too high or of too many genes and rows for this to be
            faster than sorting them by gene.
        """
        n_genes, n_rows = counts.shape[1], cells.n_rows
        highest = min(_HIGHEST, _ONE_TABLE // max(1, n_genes * n_rows))
        if highest < _LEAST_HIGHEST:
            return None
        weights = cells.unequal_weights()
        found = _by_one_table(counts, cells.rows, weights, highest=highest, n_rows=n_rows)
        return None if found is None else cls._of_occurrences(found, cells, weights, n_genes)

    @classmethod
    def _of_occurrences(
        cls,
        found: _Occurrences,
        cells: Cells,
        weights: NDArray[np.float64] | None,
        n_genes: int,
    ) -> "Tally":
        """Return the tally of what was found with the weights of cells, None if all are equal."""
        place, y, n_cells, weight = found
        row_weights, row_cells = cells.row_weights(), np.bincount(cells.rows)
        if weights is None:
            weight = weight * cells.weights[0]
        n_rows = len(row_cells)
        gene, row = np.divmod(place, n_rows)
        shape = (n_genes, n_rows)
        indptr = np.searchsorted(gene, np.arange(n_genes + 1))
        # Counted, as a difference of sums of weights would leave a rounding of them.
        none_left = np.bincount(place, n_cells, n_genes * n_rows).reshape(shape) == row_cells
        left = row_weights - np.bincount(place, weight, n_genes * n_rows).reshape(shape)
        return cls(
            sp.csr_array((y, row, indptr), shape=shape),
            n_cells,
            weight / row_weights[row],
            np.where(none_left, 0.0, left.clip(0.0) / row_weights),
        )

    def n_positive(self) -> NDArray[np.int64]:
        """Return each gene's number of positive counts."""
        return np.diff(np.append(0, np.cumsum(self.n_cells))[self.counts.indptr])

    def of_genes(self, genes: NDArray[np.intp]) -> "Tally":
        """Return the tally of some of the genes."""
        # Where each count stands: SciPy would add up those of one gene and row.
        places = sp.csr_array(
            (np.arange(self.counts.nnz), self.counts.indices, self.counts.indptr),
            shape=self.counts.shape,
        )[genes]
        kept = places.data
        counts = sp.csr_array((self.counts.data[kept], places.indices, places.indptr), places.shape)
        return Tally(counts, self.n_cells[kept], self.shares[kept], self.zeros[genes])

    def of_groups(self, groups: Cells) -> "Tally":
        """Return the tally of groups of rows.

        Parameters
        ----------
        groups : Cells
            Group of each row, and its weight.
        """
        weights, where = groups.row_weights(), self.counts.indices
        n_groups = len(weights)
        occurrences = partial(
            _occurrences,
            np.diff(self.counts.indptr),
            groups.rows[where].astype(np.int32),
            self.counts.data,
            n_rows=n_groups,
        )
        place, y, _, weight = occurrences(self.shares * groups.weights[where])
        *_, n_cells = occurrences(self.n_cells.astype(np.float64))
        gene, group = np.divmod(place, n_groups)
        shape = (self.counts.shape[0], n_groups)
        indptr = np.searchsorted(gene, np.arange(shape[0] + 1))
        member = sp.csr_array((groups.weights, groups.rows, np.arange(len(groups.rows) + 1)))
        return Tally(
            sp.csr_array((y, group, indptr), shape=shape),
            n_cells.astype(np.intp),
            weight / weights[group],
            np.asarray(self.zeros @ member) / weights,
        )


def _cuts(indptr: NDArray[np.integer]) -> list[int]:
    """Cut the genes so that a run of them has few counts."""
    cuts = [0]
    while cuts[-1] < len(indptr) - 1:
        stop = int(np.searchsorted(indptr, indptr[cuts[-1]] + _CHUNK, side="right")) - 1
        cuts.append(max(stop, cuts[-1] + 1))
    return cuts


def _occurrences(
    lengths: NDArray[np.integer],
    rows: NDArray[np.integer],
    y: NDArray[Any],
    weights: NDArray[np.float64] | None,
    *,
    n_rows: int,
) -> _Occurrences:
    """Find the distinct counts of each gene and row.

    Parameters
    ----------
    lengths : ndarray of int of shape (n_genes,)
        How many of the counts are each gene's.
    rows, y : ndarray of shape (n_counts,)
        Row and value of each count, gene by gene.
    weights : ndarray of shape (n_counts,), or None
    n_rows : int
    """
    highest: NDArray[Any] = np.zeros(len(lengths))
    some = lengths > 0
    highest[some] = np.maximum.reduceat(y, (np.cumsum(lengths) - lengths)[some])
    size = n_rows * highest.sum()
    if size <= min(_LARGEST_TABLE * len(y), np.iinfo(np.int32).max):
        whole = y.astype(np.int32, copy=False)
        if whole is y or np.array_equal(whole, y):
            highest = highest.astype(np.int32)
            return _by_table(lengths, rows, whole, weights, highest=highest, n_rows=n_rows)
    values, rank = np.unique(y, return_inverse=True)
    place = _spread(np.arange(len(lengths)) * n_rows, lengths) + rows
    key, inverse, times = np.unique(
        place * len(values) + rank, return_inverse=True, return_counts=True
    )
    place, rank = np.divmod(key, len(values))
    weight = times if weights is None else np.bincount(inverse, weights)
    return _Occurrences(place, values[rank].astype(np.float64), times, weight.astype(np.float64))


def _by_table(
    lengths: NDArray[np.integer],
    rows: NDArray[np.integer],
    y: NDArray[np.int32],
    weights: NDArray[np.float64] | None,
    *,
    highest: NDArray[np.int32],
    n_rows: int,
) -> _Occurrences:
    """Do the same for small whole numbers, by a table with a place for each that there may be."""
    begin = np.cumsum(n_rows * highest, dtype=np.int32) - n_rows * highest
    key = rows * _spread(highest, lengths) + y + _spread(begin - 1, lengths)
    table = np.bincount(key)
    used = np.flatnonzero(table)
    times = table[used]
    gene = np.searchsorted(begin, used, side="right") - 1
    row, below = np.divmod(used - begin[gene], highest[gene])
    weight = times if weights is None else np.bincount(key, weights)[used]
    return _Occurrences(gene * n_rows + row, below + 1.0, times, weight.astype(np.float64))


def _by_one_table(
    counts: sp.csr_array,
    rows: NDArray[np.intp],
    weights: NDArray[np.float64] | None,
    *,
    highest: int,
    n_rows: int,
) -> _Occurrences | None:
    """Do the same for counts by cell, by a table of all genes for those up to ``highest``.

    ``rows`` and ``weights`` are the cells'. None is returned where counts are not whole, or many
    are higher.
    """
    n_genes = counts.shape[1]
    times = np.zeros(n_genes * n_rows * highest + 1, dtype=np.intp)  # the last is of higher ones
    weight = np.zeros(0 if weights is None else len(times))
    begin = (rows * highest - 1).astype(np.int32)
    higher, n_higher = [], 0
    for first, stop in pairwise(_cuts(counts.indptr)):
        own = counts.indptr[first : stop + 1]
        gene = counts.indices[own[0] : own[-1]].astype(np.int32, copy=False)
        y = counts.data[own[0] : own[-1]]
        low = np.minimum(y, highest + 1) if y.max(initial=0) > highest else y
        whole = low.astype(np.int32, copy=False)
        if whole is not low and not np.array_equal(whole, low):
            return None
        lengths = np.diff(own)
        key = np.repeat(begin[first:stop], lengths)
        key += gene * np.int32(n_rows * highest)
        key += whole
        if low is not y:
            high = np.flatnonzero(whole > highest)
            key[high] = len(times) - 1
            n_higher += len(high)
            if n_higher > _MOST_HIGHER * counts.nnz:
                return None
            cell = np.searchsorted(own - own[0], high.astype(own.dtype), side="right") - 1 + first
            higher.append((gene[high], cell, y[high]))
        np.add.at(times, key, 1)
        if weights is not None:
            np.add.at(weight, key, np.repeat(weights[first:stop], lengths))
    used = np.flatnonzero(times[:-1])
    place, below = np.divmod(used, highest)
    of_used = times[used] if weights is None else weight[used]
    found = [_Occurrences(place, below + 1.0, times[used], of_used.astype(np.float64))]
    if higher:
        gene, cell, y = (np.concatenate(x) for x in zip(*higher, strict=True))
        order = np.argsort(gene, kind="stable")
        cell = cell[order]
        found.append(
            _occurrences(
                np.bincount(gene, minlength=n_genes),
                rows[cell],
                y[order],
                None if weights is None else weights[cell],
                n_rows=n_rows,
            )
        )
    return _Occurrences.join(found)


def _spread(of_genes: NDArray[Any], lengths: NDArray[np.integer]) -> NDArray[Any]:
    """Repeat a number of each gene for its counts; that of a single gene is broadcast."""
    return of_genes if len(of_genes) == 1 else np.repeat(of_genes, lengths)
