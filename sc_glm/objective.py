"""The log-likelihood of a block of genes with its gradient and Hessian, in one pass over the counts.

Genes share their designs, so a pass computes elementwise terms for a tile of genes x cells and
contracts them with the designs by matrix products that serve all genes of the tile. Every entry is
first treated as a zero; the positive counts, a minority in single-cell data, are then put in place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm.family import Counts, Family, Shape, Terms, pairs, positive_counts

# Entries of a tile: a dozen temporaries of this many float64 stay within a core's
# caches, and each below the size (128 KiB) from which malloc asks the kernel for fresh pages.
_TILE = 32_768
_TILE_CELLS = 4_096


class PositiveCounts(NamedTuple):
    """The positive counts of a block of genes in compressed rows, one row per gene."""

    indptr: Tensor
    cells: Tensor
    y: Tensor


class PartBasis(NamedTuple):
    """One part's basis ``U`` (cells x rank) and its curvature penalty (rank x rank)."""

    U: Tensor
    penalty: Tensor


@dataclass(frozen=True)
class Evaluation:
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
    counts : PositiveCounts
        Positive counts of the block; every other entry is a zero.
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
        counts: PositiveCounts,
        bases: Sequence[PartBasis],
        offset: Tensor,
        weights: Tensor,
    ) -> None:
        self.family = family
        self.bases = list(bases)
        self.offset = offset
        self.weights = weights
        self.n_genes = counts.indptr.numel() - 1
        self.n_cells = offset.numel()
        self.ranks = [basis.U.shape[1] for basis in bases]
        self.slices = _slices(self.ranks)
        self.penalty = torch.block_diag(*(basis.penalty for basis in bases))
        self._cells = counts.cells
        self._counts = positive_counts(counts.y)
        self._bounds = list(range(0, self.n_cells, _TILE_CELLS)) + [self.n_cells]
        self._pointers = _tile_pointers(counts, self._bounds, self.n_cells)
        # A part whose predictor is the same in all cells is evaluated once per gene.
        self._constant = [
            part > 0 and bool((basis.U == basis.U[:1]).all())
            for part, basis in enumerate(self.bases)
        ]
        self._distinct = _distinct_counts(counts) if self._constant[1] else None
        self._weighted = [basis.U * weights[:, None] for basis in self.bases]

    @property
    def n_params(self) -> int:
        """Number of coefficients of a gene, all parts together."""
        return sum(self.ranks)

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` (indices into the block) at ``theta`` (one row per gene)."""
        n = genes.numel()
        value = theta.new_zeros(n)
        gradient = theta.new_zeros(n, self.n_params)
        hessian = theta.new_zeros(n, self.n_params, self.n_params)
        known = self._known_shapes(theta, genes)
        for tile, (start, stop) in enumerate(zip(self._bounds, self._bounds[1:], strict=False)):
            cells = slice(start, stop)
            products = self._products(cells)
            step = max(1, _TILE // (stop - start))
            for first in range(0, n, step):
                rows = slice(first, min(first + step, n))
                terms = self._terms(theta[rows], genes[rows], tile, known and known.from_row(first))
                value[rows] += terms.value @ self.weights[cells]
                for part, score in enumerate(terms.score):
                    gradient[rows, self.slices[part]] += score @ self._weighted[part][cells]
                for (a, b), weight, product in zip(
                    pairs(len(self.ranks)), terms.hessian, products, strict=True
                ):
                    if weight is not None:
                        hessian[rows, self.slices[a], self.slices[b]] += (weight @ product).view(
                            -1, self.ranks[a], self.ranks[b]
                        )
        for a, b in pairs(len(self.ranks)):
            if a != b:
                hessian[:, self.slices[b], self.slices[a]] = hessian[
                    :, self.slices[a], self.slices[b]
                ].mT
        pull = theta @ self.penalty
        value -= 0.5 * (pull * theta).sum(1)
        gradient -= pull
        hessian -= self.penalty
        return Evaluation(value, gradient, hessian)

    def _known_shapes(self, theta: Tensor, genes: Tensor) -> "_KnownShapes | None":
        """With one size per gene, evaluate its shape terms once per distinct count."""
        if self._distinct is None:
            return None
        indptr, y, position = self._distinct
        starts = indptr[genes]
        lengths = indptr[genes + 1] - starts
        entries, rows = _ranges(starts, lengths)
        rho = (theta[:, self.slices[1]] @ self.bases[1].U[0])[rows]
        counts = Counts(*(x.index_select(0, entries) for x in y))
        shift = (lengths.cumsum(0) - lengths) - starts
        return _KnownShapes(self.family.shape(counts, rho), position, shift)

    def _products(self, cells: slice) -> list[Tensor]:
        """Row-wise Kronecker products of the weighted designs, one per pair of parts."""
        products = []
        for a, b in pairs(len(self.ranks)):
            left, right = self._weighted[a][cells], self.bases[b].U[cells]
            products.append((left[:, :, None] * right[:, None, :]).flatten(1))
        return products

    def _terms(
        self, theta: Tensor, genes: Tensor, tile: int, known: "_KnownShapes | None"
    ) -> Terms:
        cells = slice(self._bounds[tile], self._bounds[tile + 1])
        predictors = []
        for part, basis in enumerate(self.bases):
            U = basis.U[cells][:1] if self._constant[part] else basis.U[cells]
            predictors.append(theta[:, self.slices[part]] @ U.mT)
        predictors[0] += self.offset[cells]
        terms = self.family.zeros(predictors)
        starts = self._pointers[genes, tile]
        lengths = self._pointers[genes, tile + 1] - starts
        entries, rows = _ranges(starts, lengths)
        if entries.numel():
            width = cells.stop - cells.start
            flat = rows * width + (self._cells[entries] - cells.start)
            at_counts = [
                p.view(-1).index_select(0, rows if constant else flat)
                for p, constant in zip(predictors, self._constant, strict=True)
            ]
            counts = Counts(*(x.index_select(0, entries) for x in self._counts))
            shape = (
                self.family.shape(counts, at_counts[1])
                if known is None
                else known.take(entries, rows)
            )
            _put(terms, self.family.positives(counts, at_counts, shape), flat)
        return terms


class _KnownShapes(NamedTuple):
    """Shape terms of distinct (gene, count) pairs, to be looked up by entry."""

    shape: Shape
    position: Tensor  # of each entry's pair among all genes' pairs
    shift: Tensor  # from there to the row in ``shape``, by gene

    def from_row(self, first: int) -> "_KnownShapes":
        """Return the same with genes counted from ``first``."""
        return self._replace(shift=self.shift[first:])

    def take(self, entries: Tensor, rows: Tensor) -> Shape:
        """Return the shape terms of ``entries``, which belong to genes ``rows``."""
        index = self.position.index_select(0, entries) + self.shift.index_select(0, rows)
        return Shape(*(x.index_select(0, index) for x in self.shape))


def _distinct_counts(counts: PositiveCounts) -> tuple[Tensor, Counts, Tensor]:
    """Return each gene's distinct counts (pointers, counts) and every entry's place among them."""
    n_genes = counts.indptr.numel() - 1
    values, rank = torch.unique(counts.y, return_inverse=True)
    genes = torch.arange(n_genes, device=rank.device)
    rows = torch.repeat_interleave(genes, counts.indptr.diff())
    key, position = torch.unique(rows * values.numel() + rank, return_inverse=True)
    indptr = torch.searchsorted(key, torch.arange(n_genes + 1, device=rank.device) * values.numel())
    return indptr, positive_counts(values[key % max(values.numel(), 1)]), position


def _put(terms: Terms, positive: Terms, flat: Tensor) -> None:
    """Overwrite entries ``flat`` of the zeros' ``terms`` by those of the positive counts."""
    for whole, part in zip(
        (terms.value, *terms.score, *terms.hessian),
        (positive.value, *positive.score, *positive.hessian),
        strict=True,
    ):
        if whole is not None:
            if part is None:
                whole.view(-1).index_fill_(0, flat, 0.0)
            else:
                whole.view(-1).scatter_(0, flat, part)


def _ranges(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate ``range(start, start + length)``; also return each entry's range number."""
    rows = torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)
    before = lengths.cumsum(0) - lengths
    entries = torch.arange(rows.numel(), device=rows.device) + (starts - before)[rows]
    return entries, rows


def _tile_pointers(counts: PositiveCounts, bounds: list[int], n_cells: int) -> Tensor:
    """Return where each gene's entries of each tile begin: genes x (tiles + 1)."""
    n_genes = counts.indptr.numel() - 1
    genes = torch.arange(n_genes, device=counts.indptr.device)
    rows = torch.repeat_interleave(genes, counts.indptr.diff())
    key = rows * n_cells + counts.cells  # ascending: rows in order, cells sorted within a row
    edges = torch.tensor(bounds, device=genes.device)
    return torch.searchsorted(key, genes[:, None] * n_cells + edges[None, :])


def _slices(ranks: Sequence[int]) -> list[slice]:
    stops = torch.tensor(list(ranks)).cumsum(0).tolist()
    return [slice(stop - rank, stop) for stop, rank in zip(stops, ranks, strict=True)]


def gene_tiles(n_genes: int, size: int) -> Iterator[slice]:
    """Cut ``range(n_genes)`` into consecutive slices of at most ``size``."""
    for start in range(0, n_genes, size):
        yield slice(start, min(start + size, n_genes))
