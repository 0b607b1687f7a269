"""A block of genes with its designs: what the likelihood is a function of.

Here are also weighted sums over positive counts, the change of a predictor from one design to
another, and coarse approximations in which similar cells share one row.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from sc_glm._counts.similar_rows import similar_rows
from sc_glm._counts.tally import Grouping, Tally
from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import Family, NegBinFamily
from sc_glm._likelihood.grouped import GroupedObjective, Groups
from sc_glm._likelihood.hessian_assembly import is_constant
from sc_glm._likelihood.objective import Objective, PartBasis, cells_per_tile
from sc_glm._likelihood.tiles import CountBlock, Shares
from sc_glm._solver.gamma_ratio_curves import GammaRatioCurves

_MAX_PREDICTOR_ENTRIES = 4_000_000  # cells x genes of a predictor in memory at a time
_COARSE_CELLS_PER_LEVEL = 8  # rows of an approximation for each level, on average, at most


@dataclass(frozen=True)
class Problem:
    """A block of genes with everything that their likelihood needs.

    Cells with equal designs may be merged into one cell with their summed weight. A merged cell may
    have several counts of a gene. The tally holds the share of the weight that each of them has.

    Attributes
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells)
        Positive counts by gene.
    bases : sequence of PartBasis
        One per part.
    offset, weights : Tensor of shape (n_cells,)
    tally : Tally or None
        Counts of merged cells, with the same ``counts``. None if no cells are merged.
    groups : Groups or None
        Groups of cells with equal designs, if there are few groups and no cells are merged.
    log_size : Tensor of shape (n_genes,) or None
        Log sizes, if they are known. The basis of the size is then constant.
    is_approximation : bool
        Whether cells were merged whose designs are similar and not equal.
    """

    family: Family
    counts: sp.csr_array
    bases: Sequence[PartBasis]
    offset: Tensor
    weights: Tensor
    tally: Tally | None = None
    groups: Groups | None = None
    log_size: Tensor | None = None
    is_approximation: bool = False

    def objective(self, block: CountBlock, family: Family, bases: Sequence[PartBasis]) -> Objective:
        """Return the objective of a model on these cells."""
        model = family, block, bases, self.offset, self.weights
        if self.groups is None or not self._is_grouped(family, bases):
            objective = Objective(*model)
        else:
            objective = GroupedObjective(*model, groups=self.groups)
        objective.log_size = self.log_size
        return objective

    def model_objective(self) -> Objective:
        """Return the objective of the problem's family and bases, for all its genes."""
        return self.objective(self.block(), self.family, self.bases)

    def _is_grouped(self, family: Family, bases: Sequence[PartBasis]) -> bool:
        """Return whether all genes share the function that zeros contribute."""
        return (
            family == NegBinFamily()
            and is_constant(bases[1].U)
            and self.offset.dtype == torch.float64
        )

    def distinct_rows(self, basis: PartBasis) -> tuple[Tensor, Tensor]:
        """Return the rows of a basis and their weights; a known group of equal cells is one row."""
        if self.groups is None:
            return basis.U, self.weights
        return basis.U[self.groups.first], self.groups.total

    def block(self) -> CountBlock:
        """Prepare the counts on the designs' device."""
        dtype, device = self.offset.dtype, self.offset.device
        shares = None
        if self.tally is not None:
            shares = Shares(
                torch.as_tensor(self.tally.zeros, dtype=dtype, device=device),
                torch.as_tensor(self.tally.shares, dtype=dtype, device=device),
            )
        return CountBlock(
            torch.as_tensor(self.counts.indptr.astype(np.int64), device=device),
            self.cells,
            torch.as_tensor(np.require(self.counts.data, requirements="W")).to(device, dtype),
            self.counts.shape[1],
            cells_per_tile=cells_per_tile([basis.U.shape[1] for basis in self.bases]),
            shares=shares,
            curves=self._curves(),
        )

    def _curves(self) -> GammaRatioCurves | None:
        """Approximate the gamma ratios of counts by curves in a regressed size.

        Only approximations of a problem use them. The choice does not depend on the number of
        counts, which differs between the genes of a block.
        """
        n_curves = math.prod(self.counts.shape)
        if not self.is_approximation or self.tally is None or self.bases[1].U.shape[1] <= 1:
            return None
        rows = np.repeat(np.arange(self.counts.shape[0]), np.diff(self.counts.indptr))
        curves = rows * self.counts.shape[1] + self.counts.indices
        return GammaRatioCurves(
            curves, self.counts.data, self.tally.shares, n_curves, self.offset.device
        )

    def project(self, predictor: Tensor, basis: PartBasis) -> Tensor:
        """Return the coordinates of the weighted least-squares fits of predictors by a basis."""
        inner_products = rowwise.product((self.weights[:, None] * basis.U).mT, predictor)
        others = inner_products / self.weights.sum()
        if basis.indicators is None:
            return others
        rows = predictor.mT * (self.weights / self.weights.sum())
        return torch.cat([basis.indicators.sums(rows).mT, others])

    def intercept(self, basis: PartBasis) -> Tensor:
        """Return the coordinates of the predictor that is nearest to one in all cells."""
        return self.project(torch.ones_like(self.weights)[:, None], basis)[:, 0]

    def change_bases(
        self, theta: Tensor, old: Sequence[PartBasis], new: Sequence[PartBasis]
    ) -> Tensor:
        """Project the predictor of each part from one set of bases onto another."""
        widths = [basis.rank for basis in old]
        parts = [
            part if a is b else rowwise.product(part, self.project(a.U, b).mT)
            for part, a, b in zip(torch.split(theta, widths, dim=1), old, new, strict=True)
        ]
        return torch.cat(parts, 1)

    @property
    def is_unimodal(self) -> bool:
        """Whether the likelihood has one maximum in practice: one size and no zero inflation."""
        return len(self.bases) == 2 and self.bases[1].U.shape[1] <= 1

    def coarsened(self, max_cells: int, width: float) -> "Problem":
        """Return an approximation of the problem in which similar cells are merged.

        All counts remain. There are at most ``max_cells`` cells, and fewer if predictors of unit
        length then differ by about ``width`` or less between cells that are merged. Cells of
        different levels are never merged. With many levels, ``max_cells`` is raised to a few cells
        for each.
        """
        if self.offset.dtype != torch.float64:
            return self._double().coarsened(max_cells, width)
        designs_and_offset = torch.cat(
            [*(basis.U for basis in self.bases), self.offset[:, None]], 1
        )
        levels = self.bases[0].indicators
        codes = None if levels is None else levels.codes.cpu().numpy()
        max_cells = max(max_cells, _COARSE_CELLS_PER_LEVEL * self.bases[0].n_levels)
        groups = Grouping(
            similar_rows(designs_and_offset.cpu().numpy(), max_cells, width, codes),
            self.weights.cpu().numpy(),
        )
        tally = (
            Tally.of(self.counts, groups) if self.tally is None else self.tally.of_groups(groups)
        )
        first, group = (
            torch.as_tensor(x, device=self.offset.device) for x in (groups.first(), groups.rows)
        )
        weights = torch.as_tensor(groups.row_weights(), device=self.offset.device)
        shares = (self.weights / weights[group])[:, None]

        def mean(x: Tensor) -> Tensor:
            # Differences make the mean of equal values exact.
            return x[first].index_add(0, group, shares * (x - x[first][group]))

        exposures = (self.offset - self.offset[first][group]).exp()[:, None]
        return replace(
            self,
            counts=tally.counts,
            bases=[basis.of_cells(first)._replace(U=mean(basis.U)) for basis in self.bases],
            offset=self.offset[first] + mean(exposures)[:, 0].log(),
            weights=weights,
            tally=tally,
            groups=None,
            is_approximation=True,
        )

    def unpacked(self) -> "Problem":
        """Return the problem with all basis vectors of each part as columns."""
        return replace(self, bases=[basis.unpacked() for basis in self.bases])

    def _double(self) -> "Problem":
        """Return the problem in double precision."""
        return replace(
            self,
            bases=[basis.double() for basis in self.bases],
            offset=self.offset.double(),
            weights=self.weights.double(),
            log_size=None if self.log_size is None else self.log_size.double(),
        )

    def subsample(self, n_cells: int) -> "Problem":
        """Return the problem of a random sample of the cells, scaled to the weight of all.

        The cells of the problem must not be merged.
        """
        drawn = np.random.default_rng(0).choice(len(self.weights), n_cells, replace=False)
        drawn.sort()
        index = torch.as_tensor(drawn, device=self.offset.device)
        weights = self.weights[index]
        return replace(
            self,
            counts=sp.csr_array(self.counts[:, drawn]),
            bases=[basis.of_cells(index) for basis in self.bases],
            offset=self.offset[index],
            weights=weights * (self.weights.sum() / weights.sum()),
        )

    def of_genes(self, genes: Tensor) -> "Problem":
        """Return the problem of some of the genes."""
        index = genes.cpu().numpy()
        log_size = None if self.log_size is None else self.log_size[genes]
        if self.tally is None:
            return replace(self, counts=sp.csr_array(self.counts[index]), log_size=log_size)
        tally = self.tally.of_genes(index)
        return replace(self, counts=tally.counts, tally=tally, log_size=log_size)

    @cached_property
    def n_positive(self) -> NDArray[np.int64]:
        """Number of cells with a positive count of each gene, before cells were merged."""
        if self.tally is None:
            return np.diff(self.counts.indptr)
        return self.tally.n_positive()

    @cached_property
    def ones_at_counts(self) -> NDArray[np.float64]:
        """A one for each positive count, such that weighted sums of it count cells."""
        return np.ones_like(self.counts.data)

    def weighted_sum(self, at_counts: NDArray[np.float64], over_cells: Tensor) -> Tensor:
        """Return weighted sums over the positive counts of each gene.

        The terms are products of a value for the count and a value for its cell.

        Parameters
        ----------
        at_counts : ndarray of shape (n_counts,)
            A value for each positive count, such as the count.
        over_cells : Tensor of shape (n_cells,) or (n_cells, k)
            One or several values for each cell.

        Returns
        -------
        Tensor of shape (n_genes,) or (n_genes, k)
        """
        weights = self.weights if over_cells.ndim == 1 else self.weights[:, None]
        values = (over_cells * weights).cpu().numpy().astype(float)
        if self.tally is not None:
            at_counts = at_counts * self.tally.shares
        matrix = copy.copy(self.counts)  # a new matrix would have its structure checked again
        matrix.data = at_counts
        return torch.as_tensor(matrix @ values).to(over_cells)

    def weighted_sum_in(self, at_counts: NDArray[np.float64], basis: PartBasis) -> Tensor:
        """Return weighted sums over the positive counts of each gene, for each basis vector.

        The terms are products of a value for the count and the entry of the basis in its cell.

        Parameters
        ----------
        at_counts : ndarray of shape (n_counts,)
            A value for each positive count.
        basis : PartBasis

        Returns
        -------
        Tensor of shape (n_genes, rank)
        """
        others = self.weighted_sum(at_counts, basis.U)
        if basis.indicators is None:
            return others
        codes, scale = basis.indicators
        values = torch.as_tensor(at_counts, dtype=scale.dtype, device=scale.device)
        if self.tally is not None:
            values = values * torch.as_tensor(self.tally.shares).to(scale)
        place = self.genes * len(scale) + codes[self.cells]
        of_levels = scale.new_zeros(len(others) * len(scale))
        of_levels.index_add_(0, place, values * self.weights[self.cells])
        return torch.cat([of_levels.view(-1, len(scale)) * scale, others], 1)

    def weighted_sum_of_distinct(self, over_rows: Tensor) -> Tensor:
        """Return weighted sums of values of rows over the cells with a positive count.

        Parameters
        ----------
        over_rows : Tensor of shape (n_rows, k)
            Values for the rows that :meth:`distinct_rows` returns.

        Returns
        -------
        Tensor of shape (n_genes, k)
        """
        if self._weight_of_positives is None:
            return self.weighted_sum(self.ones_at_counts, over_rows)
        return rowwise.product(self._weight_of_positives, over_rows)

    @cached_property
    def _weight_of_positives(self) -> Tensor | None:
        """Summed weight of the cells with a positive count, (n_genes, n_groups)."""
        if self.groups is None:
            return None
        n_groups = len(self.groups)
        weight = self.weights.new_zeros(self.counts.shape[0] * n_groups)
        place = self.genes * n_groups + self.groups.numbers[self.cells]
        return weight.index_add_(0, place, self.weights[self.cells]).view(-1, n_groups)

    @cached_property
    def cells(self) -> Tensor:
        """Cell of each positive count."""
        return torch.as_tensor(self.counts.indices.astype(np.int64), device=self.offset.device)

    @cached_property
    def genes(self) -> Tensor:
        """Gene of each positive count."""
        indptr = torch.as_tensor(self.counts.indptr.astype(np.int64), device=self.offset.device)
        numbers = torch.arange(self.counts.shape[0], device=self.offset.device)
        return torch.repeat_interleave(numbers, indptr.diff())

    def predictor_at_counts(self, basis: PartBasis, theta: Tensor) -> Tensor:
        """Return the predictor of a part at each positive count."""
        value = torch.zeros_like(self.cells, dtype=theta.dtype)
        others = theta[:, basis.n_levels :].mT
        for column, coordinate in zip(
            basis.U.mT, others, strict=True
        ):  # not at once, to save memory
            value += column[self.cells] * coordinate[self.genes]
        if basis.indicators is not None:
            level = basis.indicators.codes[self.cells]
            value += (theta[:, : basis.n_levels] * basis.indicators.scale)[self.genes, level]
        return value

    def reduce_by_gene(self, at_counts: Tensor, how: str) -> Tensor:
        """Reduce values at positive counts to one value for each gene; zero without counts."""
        zero = at_counts.new_zeros(self.counts.shape[0])
        return zero.scatter_reduce(0, self.genes, at_counts, how, include_self=False)

    def cell_chunks(self, n_genes: int) -> list[slice]:
        """Cut the cells into chunks, such that a predictor of ``n_genes`` fits into memory."""
        n_cells = self.counts.shape[1]
        step = max(1, _MAX_PREDICTOR_ENTRIES // max(1, n_genes))
        return [slice(*ends) for ends in pairwise([*range(0, n_cells, step), n_cells])]

    def predictor_range(self, basis: PartBasis, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the minimum and the maximum over the cells of the predictor of a part."""
        low, high = (
            theta.new_full((len(theta),), torch.inf),
            theta.new_full((len(theta),), -torch.inf),
        )
        for cells in self.cell_chunks(len(theta)):
            predictor = basis.predictor(theta, cells)
            low = torch.minimum(low, predictor.amin(1))
            high = torch.maximum(high, predictor.amax(1))
        return low, high
