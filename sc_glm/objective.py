"""The log-likelihood of a block of genes, its gradient and Hessian in one pass over the counts.

Genes share their designs, so a pass computes elementwise terms for a tile of genes x cells and
contracts them with the designs by matrix products that serve all genes of the tile. Every entry is
first treated as a zero; the positive counts, a minority in single-cell data, are then put in place,
or added where a cell stands for several and has a share of zeros.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm import rowwise
from sc_glm.family import Counts, Family, Shape, Terms, pairs, positive_counts

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
        self.indptr, self.cells, self.shares = indptr, cells, shares
        # Counts repeat: what depends on the count alone is computed once for each value.
        values, self._rank = torch.unique(y, return_inverse=True)
        self._values = positive_counts(values)
        self.counts = _take(self._values, self._rank)
        self.n_cells = n_cells
        self.n_genes = indptr.numel() - 1
        self.bounds = [*range(0, n_cells, tile), n_cells]
        genes = torch.arange(self.n_genes, device=y.device)
        self.rows = torch.repeat_interleave(genes, indptr.diff())
        key = self.rows * n_cells + cells
        edges = torch.tensor(self.bounds, device=y.device)
        # Where each gene's entries of each tile of cells begin: genes x (tiles + 1).
        self.pointers = torch.searchsorted(key, genes[:, None] * n_cells + edges[None, :])

    @cached_property
    def distinct(self) -> tuple[Tensor, Counts, Tensor]:
        """Each gene's distinct counts (pointers, counts) and every entry's place among them."""
        n_values = max(self._values.y.numel(), 1)
        key, position = torch.unique(self.rows * n_values + self._rank, return_inverse=True)
        genes = torch.arange(self.n_genes + 1, device=key.device)
        indptr = torch.searchsorted(key, genes * n_values)
        return indptr, _take(self._values, key % n_values), position


class PartBasis(NamedTuple):
    """One part's basis ``U`` (cells x rank) and its curvature penalty (rank x rank)."""

    U: Tensor
    penalty: Tensor


class Evaluation(NamedTuple):
    """Value (genes,), gradient (genes, K) and Hessian (genes, K, K) at a point."""

    value: Tensor
    gradient: Tensor
    hessian: Tensor


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
        known = self._known_shapes(theta, genes)
        part_pairs = pairs(len(self.ranks))
        for tile, (start, stop) in enumerate(pairwise(self.block.bounds)):
            cells = slice(start, stop)
            products = self._tile_products(cells)
            step = rowwise.WIDTH * max(1, round(_TILE / (stop - start) / rowwise.WIDTH))
            for first in range(0, n, step):
                rows = slice(first, min(first + step, n))
                terms = self._terms(theta[rows], genes[rows], tile, known and known.rows(rows))
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
        for a, b in part_pairs:
            if a != b:
                upper = hessian[:, self.slices[a], self.slices[b]]
                hessian[:, self.slices[b], self.slices[a]] = upper.mT
        value -= self.penalty_of(theta)
        gradient -= rowwise.product(theta, self.penalty)
        hessian -= self.penalty
        return Evaluation(value, gradient, hessian)

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
        if len(self.block.bounds) == 2:  # one tile: they are the same in every pass
            self._products = products
        return products

    def _terms(
        self, theta: Tensor, genes: Tensor, tile: int, known: "_KnownShapes | None"
    ) -> Terms:
        block = self.block
        start, stop = block.bounds[tile : tile + 2]
        predictors = []
        for part, across in enumerate(self._across):
            U = across[:, start : start + 1] if self._constant[part] else across[:, start:stop]
            predictors.append(rowwise.product(theta[:, self.slices[part]], U).contiguous())
        beyond = (predictors[0] - self.ceiling[genes][:, None]).clamp_min_(0.0)
        predictors[0] += self.offset[start:stop] - beyond
        terms = self.family.zeros(predictors)
        if block.shares is not None:
            zeros = block.shares.zeros[genes, start:stop]
            for term in _each(terms):
                term.mul_(zeros)
        first, last = block.pointers[genes, tile], block.pointers[genes, tile + 1]
        entries, rows = _ranges(first, last - first)
        if entries.numel():
            flat = block.cells.index_select(0, entries).add_(rows * (stop - start) - start)
            at_counts = [
                p.view(-1).index_select(0, rows if constant else flat)
                for p, constant in zip(predictors, self._constant, strict=True)
            ]
            counts = _take(block.counts, entries)
            if known is None:
                shape = self.family.shape(counts, at_counts[1])
            else:
                shape = known.take(entries, rows)
            positives = self.family.positives(counts, at_counts, shape)
            if block.shares is None:
                _put(terms, positives, flat)
            else:
                _add(terms, positives, flat, block.shares.positives.index_select(0, entries))
        return _on_tangent(terms, beyond) if bool(beyond.amax() > 0) else terms

    def _known_shapes(self, theta: Tensor, genes: Tensor) -> "_KnownShapes | None":
        """With one size per gene, evaluate its shape terms once per distinct count."""
        if not self._constant[1]:
            return None
        indptr, y, position = self.block.distinct
        starts = indptr[genes]
        lengths = indptr[genes + 1] - starts
        entries, rows = _ranges(starts, lengths)
        rho = rowwise.product(theta[:, self.slices[1]], self._across[1][:, :1])[rows, 0]
        counts = _take(y, entries)
        shift = (lengths.cumsum(0) - lengths) - starts
        return _KnownShapes(self.family.shape(counts, rho), position, shift)


class _KnownShapes(NamedTuple):
    """Shape terms of distinct (gene, count) pairs, to be looked up by entry."""

    shape: Shape
    position: Tensor  # of each entry's pair among all genes' pairs
    shift: Tensor  # from there to the row in ``shape``, by gene

    def rows(self, rows: slice) -> "_KnownShapes":
        """Return the same for some of the genes."""
        return self._replace(shift=self.shift[rows])

    def take(self, entries: Tensor, rows: Tensor) -> Shape:
        """Return the shape terms of ``entries``, which belong to genes ``rows``."""
        index = self.position.index_select(0, entries).add_(self.shift.index_select(0, rows))
        return Shape(*(x.index_select(0, index) for x in self.shape))


def _take(counts: Counts, index: Tensor) -> Counts:
    return Counts(*(x.index_select(0, index) for x in counts))


def _on_tangent(terms: Terms, beyond: Tensor) -> Terms:
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


def _put(terms: Terms, positive: Terms, flat: Tensor) -> None:
    """Overwrite entries ``flat`` of the zeros' ``terms`` by those of the positive counts."""
    for whole, part in zip(_each(terms), _each(positive), strict=True):
        whole.view(-1).scatter_(0, flat, part)


def _add(terms: Terms, positive: Terms, flat: Tensor, shares: Tensor) -> None:
    """Add the shares of the positive counts to entries ``flat`` of the zeros' ``terms``."""
    for whole, part in zip(_each(terms), _each(positive), strict=True):
        whole.view(-1).scatter_add_(0, flat, part * shares)


def _each(terms: Terms) -> tuple[Tensor, ...]:
    return terms.value, *terms.score, *terms.hessian


def _ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ``range(start, start + length)``; also return each entry's range number."""
    numbers = torch.arange(lengths.numel(), device=lengths.device)
    rows = torch.repeat_interleave(numbers, lengths)
    shift = starts - (lengths.cumsum(0) - lengths)
    entries = torch.arange(rows.numel(), device=rows.device).add_(shift.index_select(0, rows))
    return entries, rows
