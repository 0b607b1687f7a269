"""The positive counts of a block of genes, prepared for passes over tiles of cells."""

from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sc_glm._likelihood.family import Counts, GammaRatio, positive_counts
from sc_glm._likelihood.gamma_ratio_table import MAX_TABULATED_COUNT, GammaRatioTable, SmallCounts

# Share of positive counts from which on tiles are kept as dense arrays. These then take no more
# memory than the sparse counts and the indices that are prepared for each count.
_MIN_DENSE_SHARE = 0.15


class Shares(NamedTuple):
    """Shares of the counts in the weight of a cell that stands for several cells.

    Attributes
    ----------
    zeros : Tensor of shape (n_genes, n_cells)
        Share of zeros.
    positives : Tensor of shape (n_counts,)
        Share of each positive count.
    """

    zeros: Tensor
    positives: Tensor


class Curves(Protocol):
    """Sums of the gamma ratios of the counts of a gene and cell, as functions of the log size."""

    def gamma_ratio(self, positions: Tensor, rho: Tensor) -> GammaRatio:
        """Return the sums at some positions, which are ``gene * n_cells + cell``.

        The first derivative lacks a summand: the sum of the counts.
        """


class CountBlock:
    """Positive counts of a block of genes, prepared once for all objectives that use them.

    Parameters
    ----------
    indptr : Tensor of int of shape (n_genes + 1,)
        Row pointers of the counts in compressed rows, one row per gene.
    cells : Tensor of int of shape (n_counts,)
        Cell of each count, sorted within a gene.
    y : Tensor of shape (n_counts,)
        Positive counts. All other counts are zero.
    n_cells : int
        Number of cells.
    cells_per_tile : int
        Number of cells in a tile.
    shares : Shares, optional
        Shares of the counts, if a gene may have several counts in a cell.
    curves : Curves, optional
        Approximate sums of gamma ratios, if an approximation is enough.
    """

    def __init__(
        self,
        indptr: Tensor,
        cells: Tensor,
        y: Tensor,
        n_cells: int,
        *,
        cells_per_tile: int,
        shares: Shares | None = None,
        curves: Curves | None = None,
    ) -> None:
        self.indptr, self.cells, self.y, self.n_cells = indptr, cells, y, n_cells
        self.n_genes = indptr.numel() - 1
        self.bounds = [*range(0, n_cells, cells_per_tile), n_cells]
        self.shares, self.curves = shares, curves
        self.genes = torch.repeat_interleave(
            torch.arange(self.n_genes, device=y.device), indptr.diff()
        )

    @cached_property
    def _outside_table(self) -> tuple[Counts, Tensor]:
        """Counts that are not in the table of gamma ratios, and the number of each among them."""
        outside = ~self._in_table
        return positive_counts(self.y[outside]), outside.cumsum(0).sub_(1)

    def counts_outside_table(self, which: Tensor) -> Counts:
        """Return some counts that are not in the table of gamma ratios."""
        counts, number = self._outside_table
        return counts.at(number.index_select(0, which))

    @cached_property
    def _in_table(self) -> Tensor:
        """Whether each count is in the table of gamma ratios, which is in double precision."""
        is_small = (self.y <= MAX_TABULATED_COUNT) & (self.y == self.y.floor())
        return is_small & (self.y.dtype == torch.float64)

    @cached_property
    def largest(self) -> Tensor:
        """Largest count of each gene, or zero."""
        return self.y.new_zeros(self.n_genes).scatter_reduce_(0, self.genes, self.y, "amax")

    @cached_property
    def dense(self) -> list[Tensor] | None:
        """Dense arrays of the counts of each tile times their shares; None if most are zero."""
        if len(self.y) < _MIN_DENSE_SHARE * self.n_genes * self.n_cells:
            return None
        dense = self.y.new_zeros(self.n_genes, self.n_cells)
        dense.view(-1).index_add_(0, self.genes * self.n_cells + self.cells, self._shared_y)
        return [tile.contiguous() for tile in torch.split(dense, self.bounds[1], dim=1)]

    def flat_positions(self, genes: Tensor, tile: int) -> Tensor:
        """Return the positions of genes x cells of a tile: ``gene * n_cells + cell``."""
        cells = torch.arange(*self.bounds[tile : tile + 2], device=genes.device)
        return (genes[:, None] * self.n_cells + cells).view(-1)

    @property
    def _shared_y(self) -> Tensor:
        return self.y if self.shares is None else self.y * self.shares.positives

    @cached_property
    def _runs(self) -> tuple[Tensor, Tensor]:
        """Order of the counts in which ones come first in a tile, then others in the table.

        Also returned are the bounds of the three kinds of counts, by gene and tile: an array of
        shape (4, n_genes, n_tiles).
        """
        edges = torch.tensor(self.bounds, device=self.y.device)
        first = torch.arange(self.n_genes, device=self.y.device) * self.n_cells
        pointers = torch.searchsorted(
            self.genes * self.n_cells + self.cells, first[:, None] + edges[None, :]
        )
        order, ends_of_table = _partition_runs(pointers, self._in_table)
        halves = torch.stack([pointers[:, :-1], ends_of_table], 2).flatten(1)
        halves = torch.cat([halves, pointers[:, -1:]], 1)
        order_in_halves, ends_of_ones = _partition_runs(halves, (self.y == 1)[order])
        bounds = [pointers[:, :-1], ends_of_ones[:, ::2], ends_of_table, pointers[:, 1:]]
        return order[order_in_halves], torch.stack(bounds)

    def entries(self, genes: Tensor, tile: int, *, ones: bool = True) -> "Entries":
        """Return the positive counts of some genes in a tile, with or without ones."""
        start, stop = self.bounds[tile : tile + 2]
        order, bounds = self._runs
        bounds = bounds[0 if ones else 1 :, genes, tile]
        lengths = bounds.diff(dim=0)
        positions, runs = concatenated_ranges(bounds[:-1].flatten(), lengths.flatten())
        which = order.index_select(0, positions)
        width = stop - start
        shifts = torch.arange(-start, len(genes) * width - start, width, device=bounds.device)
        flat = self.cells.index_select(0, which)
        flat += shifts.repeat(len(lengths)).index_select(0, runs)
        *n_ones, n_in_table, _ = lengths.sum(1).tolist()
        return Entries(which, flat, sum(n_ones), n_in_table)

    def small_counts(self, entries: "Entries") -> SmallCounts:
        """Return the entries that are in the table of gamma ratios, except ones."""
        in_table = slice(entries.n_ones, entries.n_ones + entries.n_in_table)
        which = entries.which[in_table]
        table, y = GammaRatioTable.on(self.y.device), self.y.index_select(0, which)
        return SmallCounts(table, entries.flat[in_table], y, self.shares_of(which))

    def shares_of(self, which: Tensor) -> Tensor | None:
        """Return the shares of some of the counts; None if an entry is one cell."""
        return None if self.shares is None else self.shares.positives.index_select(0, which)

    def dense_tile(self, genes: Tensor, tile: int, entries: "Entries | None" = None) -> Tensor:
        """Return a dense array of the counts of some genes in a tile times their shares.

        The positive counts among them are `entries`, if these were computed before.
        """
        if self.dense is not None:
            return self.dense[tile].index_select(0, genes)
        start, stop = self.bounds[tile : tile + 2]
        which, flat, *_ = entries or self.entries(genes, tile)
        y = self.y.index_select(0, which)
        shares = self.shares_of(which)
        if shares is not None:
            y *= shares
        dense = y.new_zeros(len(genes), stop - start)
        dense.view(-1).index_add_(0, flat, y)
        return dense


class Entries(NamedTuple):
    """Positive counts of some genes in a tile: first ones, then others in the table, then the rest.

    Attributes
    ----------
    which : Tensor of int of shape (n_entries,)
        Numbers of the counts in the block.
    flat : Tensor of int of shape (n_entries,)
        Positions of the counts in the flat tile of genes x cells.
    n_ones : int
        Number of ones, or zero if they were left out.
    n_in_table : int
        Number of other counts that are in the table of gamma ratios.
    """

    which: Tensor
    flat: Tensor
    n_ones: int
    n_in_table: int


def _partition_runs(pointers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return an order in which chosen entries come first in each run, and where others begin."""
    before = torch.nn.functional.pad(chosen.cumsum(0), (1, 0))  # number of chosen entries before
    starts, stops = pointers[:, :-1], pointers[:, 1:]
    middles = starts + before[stops] - before[starts]
    lengths = (stops - starts).flatten()
    run = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    start, middle = starts.flatten()[run], middles.flatten()[run]
    position = torch.arange(len(chosen), device=lengths.device)
    n_chosen = before[:-1] - before[start]  # in the run, before the entry
    target = torch.where(chosen, start + n_chosen, middle + (position - start) - n_chosen)
    return torch.empty_like(target).scatter_(0, target, position), middles


def concatenated_ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the concatenated ranges ``start, ..., start + length - 1``, and their numbers."""
    rows = torch.repeat_interleave(lengths)
    shift = starts - (lengths.cumsum(0) - lengths)
    entries = torch.arange(rows.numel(), device=rows.device).add_(shift.index_select(0, rows))
    return entries, rows


def entries_of_rows(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the entries of some rows of a compressed matrix, and the position of each in `rows`.

    Parameters
    ----------
    indptr : Tensor of int of shape (n_rows + 1,)
        Row pointers.
    rows : Tensor of int of shape (n,)
        Numbers of rows.
    """
    starts = indptr[rows]
    return concatenated_ranges(starts, indptr[rows + 1] - starts)
