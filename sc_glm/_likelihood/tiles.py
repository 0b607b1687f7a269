"""The positive counts of a block of genes, as passes over tiles of cells want them."""

from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sc_glm._likelihood.family import Counts, GammaRatio, positive_counts
from sc_glm._likelihood.gamma_ratio_table import LARGEST_COUNT, GammaRatioTable, SmallCounts

# Share of positive counts from which on tiles are kept with their zeros, which takes no more memory
# than the counts themselves with all that is prepared for each.
_DENSE = 0.15


class Shares(NamedTuple):
    """What part of a cell's weight each count has, where a cell stands for several.

    ``zeros`` is genes x cells; ``positives`` has one entry for each positive count.
    """

    zeros: Tensor
    positives: Tensor


class Curves(Protocol):
    """What the counts of many places add to the log-mass through the size."""

    def gamma_ratio(self, places: Tensor, rho: Tensor) -> GammaRatio:
        """Return it for some places, at a log size each, less the sum of the counts."""


class CountBlock:
    """The positive counts of a block of genes, prepared once for all objectives on them.

    Parameters
    ----------
    indptr, cells, y : Tensor
        Compressed rows, one per gene: pointers, sorted cell indices, positive counts.
    n_cells : int
        Number of cells, of which those not listed have a count of zero.
    tile : int
        Number of cells that a pass takes at a time.
    shares : Shares, optional
        Given where a gene may have several counts in a cell.
    curves : Curves, optional
        Of genes x cells, if what counts add through the size may be approximated.
    """

    def __init__(
        self,
        indptr: Tensor,
        cells: Tensor,
        y: Tensor,
        n_cells: int,
        *,
        tile: int,
        shares: Shares | None = None,
        curves: Curves | None = None,
    ) -> None:
        self.indptr, self.cells, self.y, self.n_cells = indptr, cells, y, n_cells
        self.n_genes = indptr.numel() - 1
        self.bounds = [*range(0, n_cells, tile), n_cells]
        self.shares, self.curves = shares, curves
        self.genes = torch.repeat_interleave(
            torch.arange(self.n_genes, device=y.device), indptr.diff()
        )

    @cached_property
    def _others(self) -> tuple[Counts, Tensor]:
        """Counts that the table does not know, and the place of each among them."""
        others = ~self._known
        return positive_counts(self.y[others]), others.cumsum(0).sub_(1)

    def counts_of(self, which: Tensor) -> Counts:
        """Return some of the counts, none of which the table knows, with what they need."""
        others, place = self._others
        return others.at(place.index_select(0, which))

    @cached_property
    def _known(self) -> Tensor:
        known = (self.y <= LARGEST_COUNT) & (self.y == self.y.floor())
        return known & (self.y.dtype == torch.float64)

    @cached_property
    def largest(self) -> Tensor:
        """Largest count of each gene, zero where there is none."""
        return self.y.new_zeros(self.n_genes).scatter_reduce_(0, self.genes, self.y, "amax")

    @cached_property
    def dense(self) -> list[Tensor] | None:
        """Counts by tile, zeros and all, multiplied by their shares; None if they are few."""
        if len(self.y) < _DENSE * self.n_genes * self.n_cells:
            return None
        whole = self.y.new_zeros(self.n_genes, self.n_cells)
        whole.view(-1).index_add_(0, self.genes * self.n_cells + self.cells, self._shared_y)
        return [tile.contiguous() for tile in torch.split(whole, self.bounds[1], dim=1)]

    def places(self, genes: Tensor, tile: int) -> Tensor:
        """Return where genes x cells of a tile stand among those of the block."""
        cells = torch.arange(*self.bounds[tile : tile + 2], device=genes.device)
        return (genes[:, None] * self.n_cells + cells).view(-1)

    @property
    def _shared_y(self) -> Tensor:
        return self.y if self.shares is None else self.y * self.shares.positives

    @cached_property
    def _runs(self) -> tuple[Tensor, Tensor]:
        """Counts in an order in which each tile has first the ones, then those that are known.

        Also where each gene's begin in each tile, those of the three kinds, and where they end:
        4 x genes x tiles.
        """
        edges = torch.tensor(self.bounds, device=self.y.device)
        first = torch.arange(self.n_genes, device=self.y.device) * self.n_cells
        pointers = torch.searchsorted(
            self.genes * self.n_cells + self.cells, first[:, None] + edges[None, :]
        )
        order, ends_of_known = _first_in_runs(pointers, self._known)
        halves = torch.stack([pointers[:, :-1], ends_of_known], 2).flatten(1)
        halves = torch.cat([halves, pointers[:, -1:]], 1)
        again, ends_of_ones = _first_in_runs(halves, (self.y == 1)[order])
        cuts = [pointers[:, :-1], ends_of_ones[:, ::2], ends_of_known, pointers[:, 1:]]
        return order[again], torch.stack(cuts)

    def entries(self, genes: Tensor, tile: int, *, ones: bool = True) -> "Entries":
        """Return the positive counts of some genes in a tile, with or without ones."""
        start, stop = self.bounds[tile : tile + 2]
        order, cuts = self._runs
        cuts = cuts[0 if ones else 1 :, genes, tile]
        lengths = cuts.diff(dim=0)
        places, runs = ranges(cuts[:-1].flatten(), lengths.flatten())
        which = order.index_select(0, places)
        width = stop - start
        shifts = torch.arange(-start, len(genes) * width - start, width, device=cuts.device)
        flat = self.cells.index_select(0, which)
        flat += shifts.repeat(len(lengths)).index_select(0, runs)
        *n_ones, n_known, _ = lengths.sum(1).tolist()
        return Entries(which, flat, sum(n_ones), n_known)

    def small(self, entries: "Entries") -> SmallCounts:
        """Return those of the entries that the table knows, ones aside."""
        known = slice(entries.n_ones, entries.n_ones + entries.n_known)
        which = entries.which[known]
        table, y = GammaRatioTable.on(self.y.device), self.y.index_select(0, which)
        return SmallCounts(table, entries.flat[known], y, self.shares_of(which))

    def shares_of(self, which: Tensor) -> Tensor | None:
        """Return the shares of some of the counts; None if an entry is one cell."""
        return None if self.shares is None else self.shares.positives.index_select(0, which)

    def tile(self, genes: Tensor, tile: int, entries: "Entries | None" = None) -> Tensor:
        """Return the counts of some genes in a tile, zeros and all, multiplied by their shares.

        ``entries`` are those positive ones, if known already.
        """
        if self.dense is not None:
            return self.dense[tile].index_select(0, genes)
        start, stop = self.bounds[tile : tile + 2]
        which, flat, *_ = entries or self.entries(genes, tile)
        y = self.y.index_select(0, which)
        shares = self.shares_of(which)
        if shares is not None:
            y *= shares
        whole = y.new_zeros(len(genes), stop - start)
        whole.view(-1).index_add_(0, flat, y)
        return whole


class Entries(NamedTuple):
    """Positive counts of some genes in a tile.

    ``which`` of a block's they are, and where in the ``flat`` tile of genes x cells.
    The first ``n_ones`` are ones, and the next ``n_known`` others that the table knows.
    """

    which: Tensor
    flat: Tensor
    n_ones: int
    n_known: int


def _first_in_runs(pointers: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the chosen of each run's entries to its front; also return where the others begin."""
    before = torch.nn.functional.pad(chosen.cumsum(0), (1, 0))  # chosen ones, from the beginning
    starts, stops = pointers[:, :-1], pointers[:, 1:]
    middles = starts + before[stops] - before[starts]
    lengths = (stops - starts).flatten()
    run = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    start, middle = starts.flatten()[run], middles.flatten()[run]
    place = torch.arange(len(chosen), device=lengths.device)
    ahead = before[:-1] - before[start]
    target = torch.where(chosen, start + ahead, middle + (place - start) - ahead)
    return torch.empty_like(target).scatter_(0, target, place), middles


def ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ``range(start, start + length)``; also return each entry's range number."""
    rows = torch.repeat_interleave(lengths)
    shift = starts - (lengths.cumsum(0) - lengths)
    entries = torch.arange(rows.numel(), device=rows.device).add_(shift.index_select(0, rows))
    return entries, rows


def entries_of(indptr: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Entries of some of the rows that pointers tell apart, and each entry's place among these."""
    starts = indptr[rows]
    return ranges(starts, indptr[rows + 1] - starts)
