"""The log-likelihood of a block of genes, with gradient and Hessian in one pass over the counts.

All genes have the same designs. A pass computes the terms of a tile of genes x cells elementwise,
and then sums their products with the designs by matrix products for all genes of the tile.
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
from sc_glm._likelihood.gamma_ratio_table import (
    SmallCounts,
    add_gamma_ratios,
    size_terms,
    tile_terms,
)
from sc_glm._likelihood.hessian_assembly import HessianAssembly
from sc_glm._likelihood.tiles import CountBlock, Entries

# Genes x cells of a tile: so many that the cost of calling an operation is negligible, and so few
# that the temporaries stay in the processor's cache.
_TILE_ENTRIES = 65_536
_TILE_CELLS = 4_096  # largest number of cells of a tile

# Largest numbers of entries of a tile's designs and of their products. With many columns, a tile
# has fewer cells and more genes, which all use the same designs.
_TILE_DESIGN_ENTRIES = 32_768
_TILE_PRODUCT_ENTRIES = 4_000_000

# Ceiling of a mean, as a multiple of the gene's largest count at equal exposure. The supremum of
# the likelihood may be at an infinite mean, in cells whose zeros another part explains. Predictions
# must be finite, and near the supremum the likelihood hardly depends on the mean.
_CEILING_MULTIPLE = 100.0


def cells_per_tile(ranks: Sequence[int]) -> int:
    """Return the number of cells of a tile, given the number of columns of each design."""
    rank = max(1, sum(ranks))
    max_cells = min(_TILE_DESIGN_ENTRIES // rank, _TILE_PRODUCT_ENTRIES // rank**2)
    return max(1, min(_TILE_CELLS, max_cells - max_cells % rowwise.KERNEL_ROWS))


class _TileTerms(Protocol):
    """Signature of :func:`~sc_glm._likelihood.gamma_ratio_table.tile_terms` without the family."""

    def __call__(
        self,
        predictors: Sequence[Tensor],
        y: Tensor,
        zeros: Tensor | None = None,
        small: SmallCounts | None = None,
    ) -> Terms: ...


class PartBasis(NamedTuple):
    """Basis of a part's design, with its penalty.

    Attributes
    ----------
    U : Tensor of shape (n_cells, rank)
        Basis vectors, except indicators.
    penalty : Tensor of shape (rank, rank)
        Penalty as a quadratic form in the coordinates of `U`.
    indicators : Indicators, optional
        Indicators of many levels. They are basis vectors before those in `U`, and have no penalty.
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
        """Return the basis of some cells."""
        indicators = self.indicators
        if indicators is not None:
            indicators = indicators._replace(codes=indicators.codes[index])
        return self._replace(U=self.U[index], indicators=indicators)

    def double(self) -> "PartBasis":
        """Return the basis in double precision."""
        indicators = self.indicators
        if indicators is not None:
            indicators = indicators._replace(scale=indicators.scale.double())
        return PartBasis(self.U.double(), self.penalty.double(), indicators)

    def unpacked(self) -> "PartBasis":
        """Return the basis with all basis vectors as columns of `U`."""
        if self.indicators is None:
            return self
        codes, scale = self.indicators
        indicators = torch.nn.functional.one_hot(codes, len(scale)) * scale
        U = torch.cat([indicators.to(self.U), self.U], 1)
        return PartBasis(U, self.U.new_zeros(self.rank, self.rank))

    def sum(self, values: Tensor) -> Tensor:
        """Return the products of all basis vectors with values of shape (n_cells,)."""
        others = rowwise.product(values[None], self.U)[0]
        if self.indicators is None:
            return others
        return torch.cat([self.indicators.sums(values[None])[0], others])

    def predictor(self, theta: Tensor, cells: slice) -> Tensor:
        """Return the predictors of some cells, (n_genes, n_cells)."""
        product = rowwise.product(theta[:, self.n_levels :], self.U[cells].mT)
        if self.indicators is None:
            return product
        return product + self.indicators.predictor(theta[:, : self.n_levels], cells)


class Evaluation(NamedTuple):
    """Value of an objective at a point, with its derivatives.

    Attributes
    ----------
    value : Tensor of shape (n_genes,)
        Penalised log-likelihood.
    gradient : Tensor of shape (n_genes, n_params)
        First derivatives.
    hessian : Tensor of shape (n_genes, n_params, n_params)
        Second derivatives. They are packed if the mean has many levels, see
        :mod:`~sc_glm._likelihood.arrow_hessian`.
    magnitude : Tensor of shape (n_genes,)
        Approximate size of the sums in `value`, to which rounding errors are in proportion.
    """

    value: Tensor
    gradient: Tensor
    hessian: Tensor
    magnitude: Tensor


class Objective:
    """Penalised log-likelihood of a block of genes as a function of the coordinates of all parts.

    The attribute ``tile_terms`` is the function that computes the terms of a tile. A compiled
    function of the same terms may replace it. The attribute ``assembly`` sums terms over the cells.
    If ``log_size`` is set, it holds the known log size of each gene. The coordinate of the size is
    then ignored: it has no slope, and a curvature of minus one.

    Parameters
    ----------
    family : Family
        Distribution of the counts.
    block : CountBlock
        Counts of the genes.
    bases : sequence of PartBasis
        Basis of each part of the family, with a row for each cell.
    offset : Tensor of shape (n_cells,)
        Offset of the mean's predictor.
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
        self.tile_terms: _TileTerms = partial(tile_terms, family)
        self.block = block
        self.bases = list(bases)
        self.offset = offset
        self.weights = weights
        self.log_size: Tensor | None = None
        self.n_levels = bases[0].n_levels
        self.ranks = [basis.rank for basis in bases]
        stops = [sum(self.ranks[: i + 1]) for i in range(len(self.ranks))]
        self.slices = [slice(stop - k, stop) for stop, k in zip(stops, self.ranks, strict=True)]
        self.n_params = stops[-1]
        # Positions of the parts among the parameters that do not belong to levels
        self.slices_without_levels = [
            slice(max(0, params.start - self.n_levels), params.stop - self.n_levels)
            for params in self.slices
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
        self._transposed_designs = [  # of each tile
            [
                rowwise.pad_columns(design[slice(*ends)].mT)
                for design in self.assembly.distinct_designs
            ]
            for ends in pairwise(self._bounds)
        ]

    def _row_bounds(self) -> Sequence[int]:
        """Return the first row of the bases of each tile, and the number of rows."""
        return self.block.bounds

    @property
    def _has_one_size(self) -> bool:
        """Whether the size of a gene is the same in all cells."""
        return self.assembly.design_numbers[1] is None

    def _ceiling(self) -> Tensor:
        """Return the largest predictor of each gene's mean, without the offset."""
        block, lowest = self.block, self.offset.min()
        exposures = (lowest - self.offset).double().exp_()  # may underflow in single precision
        largest = block.largest.double()
        if exposures.min() < 1:
            exposed = block.y * exposures.index_select(0, block.cells)
            largest = torch.zeros_like(largest).scatter_reduce_(0, block.genes, exposed, "amax")
        largest = torch.where(largest > 0, largest, 1.0)  # genes without counts
        return largest.log_().to(lowest) - lowest + math.log(_CEILING_MULTIPLE)

    def penalty_of(self, theta: Tensor) -> Tensor:
        """Return the penalty of each gene, which is subtracted from the log-likelihood."""
        others = theta[:, self.n_levels :]
        return 0.5 * (rowwise.product(others, self.penalty) * others).sum(1)

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Return value and derivatives of some genes of the block.

        Parameters
        ----------
        theta : Tensor of shape (n, n_params)
            Coordinates of each gene.
        genes : Tensor of int of shape (n,)
            Numbers of the genes in the block.
        """
        theta = self.with_known_sizes(theta, genes)
        sums = self.assembly.begin(genes.numel())
        for tile, rows in self.pieces(genes.numel()):
            terms = self.terms(theta[rows], genes[rows], tile)
            self.assembly.add(sums, rows, tile, terms)
        value, gradient, hessian = self.assembly.end(sums)
        others = theta[:, self.n_levels :]
        slope = gradient[:, self.n_levels :]
        corner = hessian[:, self.n_levels :, hessian.shape[2] - others.shape[1] :]
        if self._has_one_size:
            size, row = self.slices_without_levels[1], self.bases[1].U[0]
            gamma_ratios = self._distinct_counts.gamma_ratio((others[:, size] * row).sum(1), genes)
            value += gamma_ratios.value
            slope[:, size].add_(gamma_ratios.first[:, None] * row)
            corner[:, size, size].add_(gamma_ratios.second[:, None, None] * (row[:, None] * row))
        value -= self.penalty_of(theta)
        slope -= rowwise.product(others, self.penalty)
        corner -= self.penalty
        if self.log_size is not None:
            params = self.slices_without_levels[1]
            slope[:, params] = 0.0
            hessian[:, self.slices[1], :] = 0.0
            hessian[:, :, hessian.shape[2] - others.shape[1] :][:, :, params] = 0.0
            corner[:, params, params] = -1.0
        magnitude = value.abs() + self._magnitude_of_counts[genes]
        return Evaluation(value, gradient, hessian, magnitude)

    def with_known_sizes(self, theta: Tensor, genes: Tensor) -> Tensor:
        """Return coordinates of some genes with the known size of each, if sizes are known."""
        if self.log_size is None:
            return theta
        theta = theta.clone()
        theta[:, self.slices[1]] = self.log_size[genes, None] / self.bases[1].U[0]
        return theta

    def pieces(self, n_genes: int) -> Iterator[tuple[int, slice]]:
        """Yield the pieces of a pass over some genes: numbers of tiles, and slices of genes."""
        for tile, (start, stop) in enumerate(pairwise(self._bounds)):
            step = rowwise.KERNEL_ROWS * max(
                1, round(_TILE_ENTRIES / (stop - start) / rowwise.KERNEL_ROWS)
            )
            for first in range(0, n_genes, step):
                yield tile, slice(first, min(first + step, n_genes))

    def terms(self, theta: Tensor, genes: Tensor, tile: int) -> Terms:
        """Return the terms of some genes, at coordinates `theta`, in a tile of cells."""
        predictors, excess = self.predictors(theta, genes, tile)
        cells = slice(*self._bounds[tile : tile + 2])
        predictors[0] += self.offset[cells]
        block = self.block
        zeros = None if block.shares is None else block.shares.zeros[genes, cells]
        if self._has_one_size:
            terms = self.tile_terms(predictors, block.dense_tile(genes, tile), zeros)
        elif block.curves is not None:
            y, rho = block.dense_tile(genes, tile), predictors[1]
            terms = self.tile_terms(predictors, y, zeros)
            gamma_ratios = block.curves.gamma_ratio(block.flat_positions(genes, tile), rho.view(-1))
            gamma_ratios.first.add_(y.view(-1))
            for target, values in zip(size_terms(terms), gamma_ratios, strict=True):
                target.view(-1).add_(values)
        else:
            # The gamma ratio of a one is linear in the log size. If the tile is dense, this is
            # added for all counts, and ones need not be listed.
            entries = block.entries(genes, tile, ones=block.dense is None)
            y = block.dense_tile(genes, tile, entries)
            terms = self.tile_terms(predictors, y, zeros, block.small_counts(entries))
            self._add_gamma_ratios_outside_table(terms, entries, predictors[1])
        return terms if excess is None else continue_along_tangent(terms, excess)

    def _add_gamma_ratios_outside_table(self, terms: Terms, entries: Entries, rho: Tensor) -> None:
        """Add the gamma ratios of counts that are not in the table, without their linear part."""
        others = slice(entries.n_ones + entries.n_in_table, None)
        which, flat = entries.which[others], entries.flat[others]
        if len(which):
            counts = self.block.counts_outside_table(which)
            gamma_ratios = gamma_ratio(counts, rho.view(-1).index_select(0, flat))
            gamma_ratios.first.sub_(counts.y)
            add_gamma_ratios(terms, flat, gamma_ratios, self.block.shares_of(which))

    @cached_property
    def _distinct_counts(self) -> DistinctCounts:
        block = self.block
        return DistinctCounts(block.genes, block.y, self.weights_of_counts(), block.n_genes)

    @cached_property
    def _magnitude_of_counts(self) -> Tensor:
        """Approximate size of each gene's sums over counts, to which rounding is in proportion.

        Rounding errors of different counts are independent, so that their squares add up.
        """
        block = self.block
        weighted_squares = block.y.square().mul_(self.weights_of_counts())
        squares = self.weights.new_zeros(block.n_genes).index_add_(0, block.genes, weighted_squares)
        return squares.sqrt_() * (1 + block.largest.clamp_min(1.0).log())

    def weights_of_counts(self) -> Tensor:
        """Return the weight of each positive count."""
        weights = self.weights.index_select(0, self.block.cells)
        shares = self.block.shares
        return weights if shares is None else weights.mul_(shares.positives)

    def predictors(
        self, theta: Tensor, genes: Tensor, tile: int
    ) -> tuple[list[Tensor], Tensor | None]:
        """Return the linear predictors of some genes in a tile, without the offset.

        Parameters
        ----------
        theta : Tensor of shape (n, n_params)
            Coordinates of each gene.
        genes : Tensor of int of shape (n,)
            Numbers of the genes in the block.
        tile : int
            Number of the tile.

        Returns
        -------
        predictors : list of Tensor of shape (n, n_cells) or (n, 1)
            Predictor of each part; one column if it is constant. The predictor of the mean is
            bounded by its ceiling.
        excess : Tensor of shape (n, n_cells) or None
            Excess of the mean's predictor over the ceiling; None if it is zero everywhere.
        """
        numbers = self.assembly.design_numbers
        n_cells = self._bounds[tile + 1] - self._bounds[tile]
        levels, theta = theta[:, : self.n_levels], theta[:, self.n_levels :]
        predictors: list[Tensor] = [theta] * len(numbers)
        for part in (part for part, number in enumerate(numbers) if number is None):
            constant = (theta[:, self.slices_without_levels[part]] * self.bases[part].U[0]).sum(
                1, keepdim=True
            )
            predictors[part] = constant if part else constant.repeat(1, n_cells)
        for number, transposed in enumerate(self._transposed_designs[tile]):
            parts = [part for part, other in enumerate(numbers) if other == number]
            rows = torch.cat([theta[:, self.slices_without_levels[part]] for part in parts])
            product = rowwise.product(rows, transposed)[:, :n_cells]
            for part, predictor in zip(parts, torch.split(product, len(theta)), strict=True):
                predictors[part] = predictor.contiguous()
        indicators = self.bases[0].indicators
        if indicators is not None:
            cells = slice(*self._bounds[tile : tile + 2])
            predictors[0] += indicators.predictor(levels, cells)
        ceiling = self.ceiling[genes]
        if not (predictors[0].amax(1) > ceiling).any():
            return predictors, None
        excess = (predictors[0] - ceiling[:, None]).clamp_min_(0.0)
        predictors[0] -= excess
        return predictors, excess


def continue_along_tangent(terms: Terms, excess: Tensor) -> Terms:
    """Continue terms along their tangent where the mean's predictor exceeds its ceiling.

    On a constant continuation, the gradient would vanish and a maximisation would not return.

    Parameters
    ----------
    terms : Terms
        Terms at the ceiling.
    excess : Tensor of shape (n_genes, n_cells)
        Excess of the predictor over the ceiling, or zero.
    """
    slope, *others = terms.score
    curvature, *mixed = terms.hessian
    return Terms(
        terms.value + slope * excess,
        (slope, *(score + by * excess for score, by in zip(others, mixed, strict=False))),
        (torch.where(excess > 0, 0.0, curvature), *mixed),
    )
