"""The log-likelihood of a block of genes, its gradient and Hessian in one pass over the counts.

Genes share their designs, so a pass computes elementwise terms for a tile of genes x cells and
contracts them with the designs by matrix products that serve all genes of the tile.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm import rowwise
from sc_glm.family import Counts, Family, Positives, Rise, Terms, pairs, positive_counts, rise
from sc_glm.rises import LARGEST_COUNT, RiseTable

# Entries of a tile: enough to outweigh the cost of calling an operation, few enough for its
# temporaries to stay in cache.
_TILE = 32_768
_TILE_CELLS = 4_096
_TILE_PRODUCTS = 4_000_000  # entries of a tile's products of designs

# A mean beyond so many times a gene's largest count, at equal exposure, is taken for that. Few
# counts may have their supremum where the mean is infinite in cells whose zeros another part
# explains: the likelihood hardly tells, but no prediction should be infinite.
_LARGEST_MULTIPLE = 100.0


def tile_cells(ranks: Sequence[int]) -> int:
    """Return the number of cells of a tile, fewer where designs have many columns."""
    return max(1, min(_TILE_CELLS, _TILE_PRODUCTS // max(1, sum(ranks)) ** 2))


class Shares(NamedTuple):
    """What part of a cell's weight each count has, where a cell stands for several.

    ``zeros`` is genes x cells; ``positives`` has one entry for each positive count.
    """

    zeros: Tensor
    positives: Tensor


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
    """

    def __init__(
        self,
        indptr: Tensor,
        cells: Tensor,
        y: Tensor,
        n_cells: int,
        *,
        tile: int = _TILE_CELLS,
        shares: Shares | None = None,
    ) -> None:
        self.n_cells = n_cells
        self.n_genes = indptr.numel() - 1
        self.bounds = [*range(0, n_cells, tile), n_cells]
        genes = torch.arange(self.n_genes, device=y.device)
        rows = torch.repeat_interleave(genes, indptr.diff())
        edges = torch.tensor(self.bounds, device=y.device)
        # Where each gene's entries of each tile of cells begin: genes x (tiles + 1).
        self.pointers = torch.searchsorted(
            rows * n_cells + cells, genes[:, None] * n_cells + edges[None, :]
        )
        # Among these, counts that the table knows come first.
        known = (y <= LARGEST_COUNT) & (y == y.floor()) & (y.dtype == torch.float64)
        order, self.middles = _first_in_runs(self.pointers, known)
        self.indptr, self.cells, self.rows = indptr, cells[order], rows
        self.shares = shares and shares._replace(positives=shares.positives[order])
        # Counts repeat: what depends on the count alone is computed once for each value.
        values, self._rank = torch.unique(y[order], return_inverse=True)
        self._values = positive_counts(values)
        self.counts = _take(self._values, self._rank)

    @cached_property
    def distinct(self) -> tuple[Tensor, Counts, Tensor]:
        """Each gene's distinct counts (pointers, counts) and every entry's place among them."""
        n_values = max(self._values.y.numel(), 1)
        key, position = torch.unique(self.rows * n_values + self._rank, return_inverse=True)
        genes = torch.arange(self.n_genes + 1, device=key.device)
        indptr = torch.searchsorted(key, genes * n_values)
        return indptr, _take(self._values, key % n_values), position

    def entries(self, genes: Tensor, tile: int) -> tuple[Tensor, Tensor, int]:
        """Positive counts of some genes in a tile: which they are, and where in the tile.

        Also returns the number of those that the table knows, which come first.
        """
        start, stop = self.bounds[tile : tile + 2]
        first, middle, last = (
            x[genes, tile] for x in (self.pointers, self.middles, self.pointers[:, 1:])
        )
        entries, rows = ranges(
            torch.cat([first, middle]), torch.cat([middle - first, last - middle])
        )
        rows = rows % len(genes)
        flat = self.cells.index_select(0, entries).add_(rows * (stop - start) - start)
        return entries, flat, int((middle - first).sum())


class PartBasis(NamedTuple):
    """One part's basis ``U`` (cells x rank) and its curvature penalty (rank x rank)."""

    U: Tensor
    penalty: Tensor


class Evaluation(NamedTuple):
    """Value (genes,), gradient (genes, K) and Hessian (genes, K, K) at a point.

    ``summed`` (genes,) is about how large the terms are of which the value is the sum, and to which
    its rounding is in proportion.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    summed: Tensor


class Objective:
    """Penalised log-likelihood of a block of genes as a function of all parts' coefficients.

    Parameters
    ----------
    family : Family
        Distribution of the counts.
    block : CountBlock
        Counts of the genes.
    bases : sequence of PartBasis
        One per part of the family, with as many rows as there are cells.
    offset : Tensor of shape (n_cells,)
        Added to the mean's predictor.
    weights : Tensor of shape (n_cells,)
        Weight of each cell.
    """

    def __init__(
        self,
        family: Family,
        block: CountBlock,
        bases: Sequence[PartBasis],
        offset: Tensor,
        weights: Tensor,
    ) -> None:
        self.family = family
        self.block = block
        self.bases = list(bases)
        self.offset = offset
        self.weights = weights
        self.ranks = [basis.U.shape[1] for basis in bases]
        stops = [sum(self.ranks[: i + 1]) for i in range(len(self.ranks))]
        self.slices = [slice(stop - k, stop) for stop, k in zip(stops, self.ranks, strict=True)]
        self.n_params = stops[-1]
        self.ceiling = self._ceiling()
        self.penalty = torch.block_diag(  # type: ignore[no-untyped-call]
            *(basis.penalty for basis in bases)
        )
        # A part whose predictor is the same in all cells is evaluated once per gene.
        self._constant = [
            part > 0 and bool((basis.U[:1] == basis.U).all())
            for part, basis in enumerate(self.bases)
        ]
        self._across = [basis.U.mT.contiguous() for basis in self.bases]
        self._weighted = [rowwise.pad_columns(basis.U * weights[:, None]) for basis in self.bases]
        self._weights = rowwise.pad_columns(weights[:, None])
        self._products: list[Tensor] | None = None
        self._bounds = block.bounds  # of the bases' rows that a tile has

    def _ceiling(self) -> Tensor:
        """Return the largest predictor of each gene's mean, without the offset."""
        block, offset = self.block, self.offset
        largest = offset.new_full((block.n_genes,), float(-offset.min()))
        exposed = block.counts.log_y - offset[block.cells]
        largest.scatter_reduce_(0, block.rows, exposed, "amax", include_self=False)
        return largest + math.log(_LARGEST_MULTIPLE)

    def penalty_of(self, theta: Tensor) -> Tensor:
        """Return what the penalty takes off the log-likelihood."""
        return 0.5 * (rowwise.product(theta, self.penalty) * theta).sum(1)

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` (indices into the block) at ``theta`` (one row per gene)."""
        n = genes.numel()
        value = theta.new_zeros(n)
        gradient = theta.new_zeros(n, self.n_params)
        hessian = theta.new_zeros(n, self.n_params, self.n_params)
        part_pairs = pairs(len(self.ranks))
        for tile, (start, stop) in enumerate(pairwise(self._bounds)):
            cells = slice(start, stop)
            products = self._tile_products(cells)
            step = rowwise.WIDTH * max(1, round(_TILE / (stop - start) / rowwise.WIDTH))
            for first in range(0, n, step):
                rows = slice(first, min(first + step, n))
                terms = self._terms(theta[rows], genes[rows], tile)
                value[rows] += rowwise.product(terms.value, self._weights[cells])[:, 0]
                for part, score in enumerate(terms.score):
                    contracted = rowwise.product(score, self._weighted[part][cells])
                    gradient[rows, self.slices[part]] += contracted[:, : self.ranks[part]]
                for (a, b), weight, product in zip(
                    part_pairs, terms.hessian, products, strict=True
                ):
                    shape = (weight.shape[0], self.ranks[a], self.ranks[b])
                    contracted = rowwise.product(weight, product)[:, : shape[1] * shape[2]]
                    hessian[rows, self.slices[a], self.slices[b]] += contracted.reshape(shape)
        if self._constant[1]:
            self._add_rises(theta, genes, value, gradient, hessian)
        for a, b in part_pairs:
            if a != b:
                upper = hessian[:, self.slices[a], self.slices[b]]
                hessian[:, self.slices[b], self.slices[a]] = upper.mT
        value -= self.penalty_of(theta)
        gradient -= rowwise.product(theta, self.penalty)
        hessian -= self.penalty
        return Evaluation(value, gradient, hessian, value.abs() + self._size_of_counts[genes])

    def _tile_products(self, cells: slice) -> list[Tensor]:
        """Row-wise Kronecker products of two parts' designs, one of them weighted, by pair."""
        if self._products is not None:
            return self._products
        products = [
            rowwise.pad_columns(
                (
                    self._weighted[a][cells, : self.ranks[a], None]
                    * self.bases[b].U[cells, None, :]
                ).flatten(1)
            )
            for a, b in pairs(len(self.ranks))
        ]
        if len(self._bounds) == 2:  # one tile: they are the same in every pass
            self._products = products
        return products

    def _terms(self, theta: Tensor, genes: Tensor, tile: int) -> Terms:
        predictors, beyond = self._predictors(theta, genes, tile)
        cells = slice(*self._bounds[tile : tile + 2])
        predictors[0] += self.offset[cells]
        entries, flat, n_known = self.block.entries(genes, tile)
        if self._constant[1]:
            y, rises = self.block.counts.y.index_select(0, entries), None
        else:
            rho = predictors[1].view(-1).index_select(0, flat)
            y, rises = self._rises(entries, rho, n_known)
        positives = Positives(flat, y, rises)
        shares = self.block.shares
        if shares is not None:
            at_counts = shares.positives.index_select(0, entries)
            positives = positives.shared(at_counts, shares.zeros[genes, cells])
        terms = self.family.tile(predictors, positives)
        return terms if beyond is None else on_tangent(terms, beyond)

    def _rises(self, entries: Tensor, rho: Tensor, n_known: int) -> tuple[Tensor, Rise]:
        """Return counts, and what they add through the size, the first ``n_known`` by the table."""
        counts = self.block.counts
        y = counts.y.index_select(0, entries)
        if n_known == 0:  # in single precision, too
            return y, self._rise(_take(counts, entries), rho)
        known = RiseTable.on(y.device).rise(y[:n_known], rho[:n_known])
        others = self._rise(_take(counts, entries[n_known:]), rho[n_known:])
        return y, Rise(*(torch.cat(pair) for pair in zip(known, others, strict=True)))

    def _rise(self, counts: Counts, rho: Tensor) -> Rise:
        return rise(counts, rho, self.family.shape(counts, rho))

    def _add_rises(
        self, theta: Tensor, genes: Tensor, value: Tensor, gradient: Tensor, hessian: Tensor
    ) -> None:
        """Add what counts do through a size that all cells share: once for each distinct count."""
        indptr, distinct, _ = self.block.distinct
        starts = indptr[genes]
        entries, rows = ranges(starts, indptr[genes + 1] - starts)
        unit = self._across[1][:, :1]
        rho = rowwise.product(theta[:, self.slices[1]], unit)[:, 0].index_select(0, rows)
        counts = _take(distinct, entries)
        rises = self._rise(counts, rho)
        times = self._times.index_select(0, entries)

        def total(x: Tensor) -> Tensor:
            return torch.zeros_like(value).index_add_(0, rows, x.mul_(times))

        size = self.slices[1]
        value += total(rises.value)
        gradient[:, size] += total(rises.first)[:, None] * unit[:, 0]
        hessian[:, size, size] += total(rises.second)[:, None, None] * (unit @ unit.mT)

    @cached_property
    def _size_of_counts(self) -> Tensor:
        """About how large each gene's terms are for its counts, whose roundings add in squares."""
        counts = self.block.counts
        terms = (counts.y * (1 + counts.log_y.abs())).square_().mul_(self._weights_of_counts())
        squares = self.weights.new_zeros(self.block.n_genes)
        return squares.index_add_(0, self.block.rows, terms).sqrt_()

    def _weights_of_counts(self) -> Tensor:
        weights = self.weights.index_select(0, self.block.cells)
        shares = self.block.shares
        return weights if shares is None else weights.mul_(shares.positives)

    @cached_property
    def _times(self) -> Tensor:
        """Weight of the cells in which each gene has each distinct count."""
        _, distinct, position = self.block.distinct
        times = torch.zeros_like(distinct.y)
        return times.index_add_(0, position, self._weights_of_counts())

    def _predictors(
        self, theta: Tensor, genes: Tensor, tile: int
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return each part's predictor without the offset; one column where it is constant.

        The mean's is cut at its ceiling. Also returned is how far it was beyond, or None if it
        nowhere was.
        """
        start, stop = self._bounds[tile : tile + 2]
        predictors = [
            rowwise.product(
                theta[:, self.slices[part]],
                across[:, start : start + 1] if self._constant[part] else across[:, start:stop],
            ).contiguous()
            for part, across in enumerate(self._across)
        ]
        ceiling = self.ceiling[genes]
        if not (predictors[0].amax(1) > ceiling).any():
            return predictors, None
        beyond = (predictors[0] - ceiling[:, None]).clamp_min_(0.0)
        predictors[0] -= beyond
        return predictors, beyond


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


def _take(counts: Counts, index: Tensor) -> Counts:
    return Counts(*(x.index_select(0, index) for x in counts))


def on_tangent(terms: Terms, beyond: Tensor) -> Terms:
    """Let the value go on along its tangent where the mean is beyond its ceiling.

    A plateau would have no way back. Where the likelihood hardly tells, neither does the tangent.
    """
    slope, *others = terms.score
    curvature, *mixed = terms.hessian
    return Terms(
        terms.value + slope * beyond,
        (slope, *(score + by * beyond for score, by in zip(others, mixed, strict=False))),
        (torch.where(beyond > 0, 0.0, curvature), *mixed),
    )


def ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ``range(start, start + length)``; also return each entry's range number."""
    numbers = torch.arange(lengths.numel(), device=lengths.device)
    rows = torch.repeat_interleave(numbers, lengths)
    shift = starts - (lengths.cumsum(0) - lengths)
    entries = torch.arange(rows.numel(), device=rows.device).add_(shift.index_select(0, rows))
    return entries, rows
