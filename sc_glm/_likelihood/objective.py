"""The log-likelihood of a block of genes, its gradient and Hessian in one pass over the counts.

Genes share their designs, so a pass computes elementwise terms for a tile of genes x cells and
contracts them with the designs by matrix products that serve all genes of the tile.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import ArrowAssembly, Indicators
from sc_glm._likelihood.distinct_counts import DistinctCounts
from sc_glm._likelihood.family import Family, Terms, gamma_ratio
from sc_glm._likelihood.gamma_ratio_table import SmallCounts, add_gamma_ratios, tile_of
from sc_glm._likelihood.hessian_assembly import HessianAssembly
from sc_glm._likelihood.tiles import CountBlock, Entries

# Entries of a tile: enough to outweigh the cost of calling an operation, few enough for its
# temporaries to stay in cache.
_TILE = 65_536
_TILE_CELLS = 4_096
_TILE_DESIGNS = 32_768  # entries of a tile's designs: with many columns, genes should share them
_TILE_PRODUCTS = 4_000_000  # and of their products

# A mean beyond so many times a gene's largest count, at equal exposure, is taken for that. Few
# counts may have their supremum where the mean is infinite in cells whose zeros another part
# explains: the likelihood hardly tells, but no prediction should be infinite.
_LARGEST_MULTIPLE = 100.0


def tile_cells(ranks: Sequence[int]) -> int:
    """Return the number of cells of a tile, fewer where designs have many columns."""
    rank = max(1, sum(ranks))
    most = min(_TILE_DESIGNS // rank, _TILE_PRODUCTS // rank**2)
    return max(1, min(_TILE_CELLS, most - most % rowwise.WIDTH))


class _Tile(Protocol):
    """What :func:`~sc_glm._likelihood.gamma_ratio_table.tile_of` returns for a family."""

    def __call__(
        self,
        predictors: Sequence[Tensor],
        y: Tensor,
        zeros: Tensor | None = None,
        small: SmallCounts | None = None,
    ) -> Terms: ...


class PartBasis(NamedTuple):
    """One part's basis ``U`` (cells x rank) and its curvature penalty (rank x rank).

    A mean of many levels has their ``indicators`` before what is in ``U``, and no penalty on them.
    """

    U: Tensor
    penalty: Tensor
    indicators: Indicators | None = None

    @property
    def n_levels(self) -> int:
        """Number of indicators."""
        return 0 if self.indicators is None else len(self.indicators.scale)

    @property
    def rank(self) -> int:
        """Number of coordinates."""
        return self.n_levels + self.U.shape[1]

    def of_cells(self, index: Tensor) -> "PartBasis":
        """Return that of some cells."""
        levels = self.indicators
        own = levels and levels._replace(codes=levels.codes[index])
        return self._replace(U=self.U[index], indicators=own)

    def double(self) -> "PartBasis":
        """Return the same in double precision."""
        levels = self.indicators
        own = levels and levels._replace(scale=levels.scale.double())
        return PartBasis(self.U.double(), self.penalty.double(), own)

    def unpacked(self) -> "PartBasis":
        """Return the same with all basis vectors as columns of ``U``."""
        if self.indicators is None:
            return self
        codes, scale = self.indicators
        indicators = torch.nn.functional.one_hot(codes, len(scale)) * scale
        U = torch.cat([indicators.to(self.U), self.U], 1)
        return PartBasis(U, self.U.new_zeros(self.rank, self.rank))

    def sum(self, values: Tensor) -> Tensor:
        """Return the products of all basis vectors with values of the cells, (n_cells,)."""
        others = rowwise.product(values[None], self.U)[0]
        if self.indicators is None:
            return others
        return torch.cat([self.indicators.sums(values[None])[0], others])

    def predictor(self, theta: Tensor, cells: slice) -> Tensor:
        """Return the predictor of some cells, genes x cells."""
        product = rowwise.product(theta[:, self.n_levels :], self.U[cells].mT)
        if self.indicators is None:
            return product
        return product + self.indicators.predictor(theta[:, : self.n_levels], cells)


class Evaluation(NamedTuple):
    """Value (genes,), gradient (genes, K) and Hessian (genes, K, K) at a point.

    The Hessian of a mean with many levels is packed, see :mod:`~sc_glm._likelihood.arrow_hessian`.
    ``summed`` (genes,) is about how large the terms are of which the value is the sum, and to which
    its rounding is in proportion.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    magnitude: Tensor


class Objective:
    """Penalised log-likelihood of a block of genes as a function of all parts' coefficients.

    Its ``tile`` is that of :func:`~sc_glm._likelihood.gamma_ratio_table.tile_of`, in whose place
    another of the same terms may be put; its ``contraction`` sums such terms over the cells.

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
        self.tile: _Tile = partial(tile_of, family)
        self.block = block
        self.bases = list(bases)
        self.offset = offset
        self.weights = weights
        self.n_levels = bases[0].n_levels
        self.ranks = [basis.rank for basis in bases]
        stops = [sum(self.ranks[: i + 1]) for i in range(len(self.ranks))]
        self.slices = [slice(stop - k, stop) for stop, k in zip(stops, self.ranks, strict=True)]
        self.n_params = stops[-1]
        # Where parts stand among the parameters that are no level's
        self.others = [
            slice(max(0, own.start - self.n_levels), own.stop - self.n_levels)
            for own in self.slices
        ]
        self.ceiling = self._ceiling()
        self.penalty = torch.block_diag(  # type: ignore[no-untyped-call]
            *(basis.penalty for basis in bases)
        )
        self._bounds = self._row_bounds()
        designs, indicators = [basis.U for basis in bases], bases[0].indicators
        self.assembly = (
            HessianAssembly(designs, weights, self._bounds)
            if indicators is None
            else ArrowAssembly(designs, weights, self._bounds, indicators)
        )
        # Transposed designs of each tile
        self._across = [
            [rowwise.pad_columns(design[slice(*ends)].mT) for design in self.assembly.distinct]
            for ends in pairwise(self._bounds)
        ]

    def _row_bounds(self) -> Sequence[int]:
        """Return where the bases' rows of each tile begin."""
        return self.block.bounds

    @property
    def _has_one_size(self) -> bool:
        """Whether the size of a gene is the same in all cells."""
        return self.assembly.number[1] is None

    def _ceiling(self) -> Tensor:
        """Return the largest predictor of each gene's mean, without the offset."""
        block, lowest = self.block, self.offset.min()
        exposures = (lowest - self.offset).double().exp_()  # single precision may have none
        largest = block.largest.double()
        if exposures.min() < 1:
            exposed = block.y * exposures.index_select(0, block.cells)
            largest = torch.zeros_like(largest).scatter_reduce_(0, block.genes, exposed, "amax")
        largest = torch.where(largest > 0, largest, 1.0)  # where there is no count
        return largest.log_().to(lowest) - lowest + math.log(_LARGEST_MULTIPLE)

    def penalty_of(self, theta: Tensor) -> Tensor:
        """Return what the penalty takes off the log-likelihood."""
        others = theta[:, self.n_levels :]
        return 0.5 * (rowwise.product(others, self.penalty) * others).sum(1)

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` (indices into the block) at ``theta`` (one row per gene)."""
        sums = self.assembly.begin(genes.numel())
        for tile, rows in self.pieces(genes.numel()):
            terms = self.terms(theta[rows], genes[rows], tile)
            self.assembly.add(sums, rows, tile, terms)
        value, gradient, hessian = self.assembly.end(sums)
        others = theta[:, self.n_levels :]
        slope = gradient[:, self.n_levels :]
        corner = hessian[:, self.n_levels :, hessian.shape[2] - others.shape[1] :]
        if self._has_one_size:
            own, unit = self.others[1], self.bases[1].U[0]
            gamma_ratios = self._distinct_counts.gamma_ratio((others[:, own] * unit).sum(1), genes)
            value += gamma_ratios.value
            slope[:, own].add_(gamma_ratios.first[:, None] * unit)
            corner[:, own, own].add_(gamma_ratios.second[:, None, None] * (unit[:, None] * unit))
        value -= self.penalty_of(theta)
        slope -= rowwise.product(others, self.penalty)
        corner -= self.penalty
        return Evaluation(value, gradient, hessian, value.abs() + self._size_of_counts[genes])

    def pieces(self, n_genes: int) -> Iterator[tuple[int, slice]]:
        """Cut a pass over so many genes into tiles of cells, and genes at a time."""
        for tile, (start, stop) in enumerate(pairwise(self._bounds)):
            step = rowwise.WIDTH * max(1, round(_TILE / (stop - start) / rowwise.WIDTH))
            for first in range(0, n_genes, step):
                yield tile, slice(first, min(first + step, n_genes))

    def terms(self, theta: Tensor, genes: Tensor, tile: int) -> Terms:
        """Return the terms of some genes, with a row of ``theta`` each, in a tile of cells."""
        predictors, beyond = self.predictors(theta, genes, tile)
        cells = slice(*self._bounds[tile : tile + 2])
        predictors[0] += self.offset[cells]
        block = self.block
        zeros = None if block.shares is None else block.shares.zeros[genes, cells]
        if self._has_one_size:
            terms = self.tile(predictors, block.tile(genes, tile), zeros)
        elif block.curves is not None:
            y, rho = block.tile(genes, tile), predictors[1]
            terms = self.tile(predictors, y, zeros)
            gamma_ratios = block.curves.gamma_ratio(block.places(genes, tile), rho.view(-1))
            gamma_ratios.first.add_(y.view(-1))
            for sums, own in zip(
                (terms.value, terms.score[1], terms.hessian[len(predictors)]),
                gamma_ratios,
                strict=True,
            ):
                sums.view(-1).add_(own)
        else:
            # With zeros at hand, ones need not be listed: they add what is linear in the log size.
            entries = block.entries(genes, tile, ones=block.dense is None)
            y = block.tile(genes, tile, entries)
            terms = self.tile(predictors, y, zeros, block.small(entries))
            self._add_others(terms, entries, predictors[1])
        return terms if beyond is None else on_tangent(terms, beyond)

    def _add_others(self, terms: Terms, entries: Entries, rho: Tensor) -> None:
        """Add what counts beyond the table add through a size, less what is linear in its log."""
        others = slice(entries.n_ones + entries.n_known, None)
        which, flat = entries.which[others], entries.flat[others]
        if len(which):
            counts = self.block.counts_of(which)
            gamma_ratios = gamma_ratio(counts, rho.view(-1).index_select(0, flat))
            gamma_ratios.first.sub_(counts.y)
            add_gamma_ratios(terms, flat, gamma_ratios, self.block.shares_of(which))

    @cached_property
    def _distinct_counts(self) -> DistinctCounts:
        block = self.block
        return DistinctCounts(block.genes, block.y, self._weights_of_counts(), block.n_genes)

    @cached_property
    def _size_of_counts(self) -> Tensor:
        """About how large each gene's terms are for its counts, whose roundings add in squares."""
        block = self.block
        of_counts = block.y.square().mul_(self._weights_of_counts())
        squares = self.weights.new_zeros(block.n_genes).index_add_(0, block.genes, of_counts)
        return squares.sqrt_() * (1 + block.largest.clamp_min(1.0).log())

    def _weights_of_counts(self) -> Tensor:
        weights = self.weights.index_select(0, self.block.cells)
        shares = self.block.shares
        return weights if shares is None else weights.mul_(shares.positives)

    def predictors(
        self, theta: Tensor, genes: Tensor, tile: int
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return each part's predictor without the offset; one column where it is constant.

        The mean's is cut at its ceiling. Also returned is how far it was beyond, or None if it
        nowhere was.
        """
        numbers = self.assembly.number
        n_cells = self._bounds[tile + 1] - self._bounds[tile]
        of_levels, theta = theta[:, : self.n_levels], theta[:, self.n_levels :]
        predictors: list[Tensor] = [theta] * len(numbers)
        for part in (part for part, number in enumerate(numbers) if number is None):
            once = (theta[:, self.others[part]] * self.bases[part].U[0]).sum(1, keepdim=True)
            predictors[part] = once if part else once.repeat(1, n_cells)
        for number, across in enumerate(self._across[tile]):
            parts = [part for part, own in enumerate(numbers) if own == number]
            rows = torch.cat([theta[:, self.others[part]] for part in parts])
            product = rowwise.product(rows, across)[:, :n_cells]
            for part, predictor in zip(parts, torch.split(product, len(theta)), strict=True):
                predictors[part] = predictor.contiguous()
        indicators = self.bases[0].indicators
        if indicators is not None:
            cells = slice(*self._bounds[tile : tile + 2])
            predictors[0] += indicators.predictor(of_levels, cells)
        ceiling = self.ceiling[genes]
        if not (predictors[0].amax(1) > ceiling).any():
            return predictors, None
        beyond = (predictors[0] - ceiling[:, None]).clamp_min_(0.0)
        predictors[0] -= beyond
        return predictors, beyond


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
