"""A block of genes with their designs, and how predictors move from one design to another."""

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
from sc_glm._likelihood.objective import Objective, PartBasis, tile_cells
from sc_glm._likelihood.tiles import CountBlock, Shares
from sc_glm._solver.gamma_ratio_curves import GammaRatioCurves

_ENTRIES = 4_000_000  # of a predictor at a time
_CELLS_OF_LEVEL = 8  # on average, at the most, in a likeness of the problem


@dataclass(frozen=True)
class Problem:
    """A block of genes with everything that their likelihood needs.

    Cells that are alike may be one cell here, of their summed weight. Such a cell may have several
    counts of a gene, and the tally says which share of its weight each of them has.

    Attributes
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells)
        Positive counts by gene.
    bases : sequence of PartBasis
        One per part.
    offset, weights : Tensor of shape (n_cells,)
    tally : Tally or None
        With the same ``counts``; None where no cell stands for several.
    groups : Groups or None
        Cells of equal designs, where there are few and no cell stands for several.
    is_likeness : bool
        Whether cells are one that are but similar.
    """

    family: Family
    counts: sp.csr_array
    bases: Sequence[PartBasis]
    offset: Tensor
    weights: Tensor
    tally: Tally | None = None
    groups: Groups | None = None
    is_approximation: bool = False

    def objective(self, block: CountBlock, family: Family, bases: Sequence[PartBasis]) -> Objective:
        """Return the objective of a model on these cells."""
        model = family, block, bases, self.offset, self.weights
        if self.groups is None or not self._is_grouped(family, bases):
            return Objective(*model)
        return GroupedObjective(*model, groups=self.groups)

    def own_objective(self) -> Objective:
        """Return the objective of the problem's own model, of all its genes."""
        return self.objective(self.block(), self.family, self.bases)

    def _is_grouped(self, family: Family, bases: Sequence[PartBasis]) -> bool:
        """Whether what zeros contribute is a function that all genes share."""
        return (
            family == NegBinFamily()
            and is_constant(bases[1].U)
            and self.offset.dtype == torch.float64
        )

    def distinct(self, basis: PartBasis) -> tuple[Tensor, Tensor]:
        """Return a basis's rows, those of equal cells once if such are known, and their weights."""
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
            tile=tile_cells([basis.U.shape[1] for basis in self.bases]),
            shares=shares,
            curves=self._curves(),
        )

    def _curves(self) -> GammaRatioCurves | None:
        """Approximate what counts add through a regressed size, if starts are but told apart.

        Whether there are few counts or many, on which genes of one block may differ.
        """
        n_places = math.prod(self.counts.shape)
        if not self.is_approximation or self.tally is None or self.bases[1].U.shape[1] <= 1:
            return None
        rows = np.repeat(np.arange(self.counts.shape[0]), np.diff(self.counts.indptr))
        places = rows * self.counts.shape[1] + self.counts.indices
        return GammaRatioCurves(
            places, self.counts.data, self.tally.shares, n_places, self.offset.device
        )

    def project(self, predictor: Tensor, basis: PartBasis) -> Tensor:
        """Coordinates in ``basis`` of what is nearest to each of several predictors."""
        across = rowwise.product((self.weights[:, None] * basis.U).mT, predictor)
        others = across / self.weights.sum()
        if basis.indicators is None:
            return others
        rows = predictor.mT * (self.weights / self.weights.sum())
        return torch.cat([basis.indicators.sums(rows).mT, others])

    def constant(self, basis: PartBasis) -> Tensor:
        """Coordinates of the predictor that is nearest to one in all cells."""
        return self.project(torch.ones_like(self.weights)[:, None], basis)[:, 0]

    def lift(self, theta: Tensor, old: Sequence[PartBasis], new: Sequence[PartBasis]) -> Tensor:
        """Project each part's predictor from one set of bases onto another."""
        widths = [basis.rank for basis in old]
        parts = [
            part if a is b else rowwise.product(part, self.project(a.U, b).mT)
            for part, a, b in zip(torch.split(theta, widths, dim=1), old, new, strict=True)
        ]
        return torch.cat(parts, 1)

    @property
    def is_simple(self) -> bool:
        """Whether it has one size per gene and no zero inflation: in practice, one maximum."""
        return len(self.bases) == 2 and self.bases[1].U.shape[1] <= 1

    def coarse(self, size: int, narrow: float) -> "Problem":
        """Return a likeness of the problem, in which similar cells have one predictor.

        All counts are there, but at most ``size`` cells, and no more than it takes for predictors
        of unit length to differ by about ``narrow`` among those that a cell stands for. Cells of
        different levels are never merged. With many levels, ``size`` is raised to a few cells each.
        """
        if self.offset.dtype != torch.float64:
            return self._double().coarse(size, narrow)
        everything = torch.cat([*(basis.U for basis in self.bases), self.offset[:, None]], 1)
        levels = self.bases[0].indicators
        codes = None if levels is None else levels.codes.cpu().numpy()
        size = max(size, _CELLS_OF_LEVEL * self.bases[0].n_levels)
        groups = Grouping(
            similar_rows(everything.cpu().numpy(), size, narrow, codes), self.weights.cpu().numpy()
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
            # By differences, so that what is equal in all cells is so to the last digit.
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
        """Return the same with all basis vectors of each part as columns."""
        return replace(self, bases=[basis.unpacked() for basis in self.bases])

    def _double(self) -> "Problem":
        """Return the same in double precision."""
        return replace(
            self,
            bases=[basis.double() for basis in self.bases],
            offset=self.offset.double(),
            weights=self.weights.double(),
        )

    def sample(self, n_cells: int) -> "Problem":
        """Return the problem of some of the cells, drawn at random, with the weight of all.

        For problems whose cells are single ones.
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

    def some(self, genes: Tensor) -> "Problem":
        """Return the problem of some of the genes."""
        index = genes.cpu().numpy()
        if self.tally is None:
            return replace(self, counts=sp.csr_array(self.counts[index]))
        tally = self.tally.of_genes(index)
        return replace(self, counts=tally.counts, tally=tally)

    @cached_property
    def n_positive(self) -> NDArray[np.int64]:
        """Number of each gene's cells with a positive count, all those that a cell stands for."""
        if self.tally is None:
            return np.diff(self.counts.indptr)
        return self.tally.n_positive()

    @cached_property
    def positive(self) -> NDArray[np.float64]:
        """A one for each positive count."""
        return np.ones_like(self.counts.data)

    def sum(self, at_counts: NDArray[np.float64], over_cells: Tensor) -> Tensor:
        """Weighted sum over a gene's positive counts of what is given for counts and for cells.

        Parameters
        ----------
        at_counts : ndarray of shape (n_counts,)
            Such as the counts themselves.
        over_cells : Tensor of shape (n_cells,) or (n_cells, k)
            Values by which those of the counts are multiplied.

        Returns
        -------
        Tensor of shape (n_genes,) or (n_genes, k)
        """
        weights = self.weights if over_cells.ndim == 1 else self.weights[:, None]
        values = (over_cells * weights).cpu().numpy().astype(float)
        if self.tally is not None:
            at_counts = at_counts * self.tally.shares
        matrix = copy.copy(self.counts)  # whose structure SciPy need not check again
        matrix.data = at_counts
        return torch.as_tensor(matrix @ values).to(over_cells)

    def sum_in(self, at_counts: NDArray[np.float64], basis: PartBasis) -> Tensor:
        """Weighted sum over a gene's positive counts of what is given for them, times a basis.

        Returns
        -------
        Tensor of shape (n_genes, rank)
        """
        others = self.sum(at_counts, basis.U)
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

    def sum_of_distinct(self, over_rows: Tensor) -> Tensor:
        """Weighted sum over a gene's cells with a positive count of what their rows have.

        Parameters
        ----------
        over_rows : Tensor of shape (n_rows, k)
            With the rows of :meth:`distinct`.

        Returns
        -------
        Tensor of shape (n_genes, k)
        """
        if self._seen is None:
            return self.sum(self.positive, over_rows)
        return rowwise.product(self._seen, over_rows)

    @cached_property
    def _seen(self) -> Tensor | None:
        """Weight of each gene's cells with a positive count, genes x groups."""
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

    def at_counts(self, basis: PartBasis, theta: Tensor) -> Tensor:
        """Return a part's predictor at each positive count."""
        value = torch.zeros_like(self.cells, dtype=theta.dtype)
        others = theta[:, basis.n_levels :].mT
        for across, own in zip(basis.U.mT, others, strict=True):  # counts x rank may be large
            value += across[self.cells] * own[self.genes]
        if basis.indicators is not None:
            level = basis.indicators.codes[self.cells]
            value += (theta[:, : basis.n_levels] * basis.indicators.scale)[self.genes, level]
        return value

    def by_gene(self, at_counts: Tensor, how: str) -> Tensor:
        """Reduce values at positive counts to one for each gene, zero where it has none."""
        zero = at_counts.new_zeros(self.counts.shape[0])
        return zero.scatter_reduce(0, self.genes, at_counts, how, include_self=False)

    def cells_at_a_time(self, n_genes: int) -> list[slice]:
        """Cut the cells so that a predictor of so many genes is no large array."""
        n_cells = self.counts.shape[1]
        step = max(1, _ENTRIES // max(1, n_genes))
        return [slice(*ends) for ends in pairwise([*range(0, n_cells, step), n_cells])]

    def range_of(self, basis: PartBasis, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smallest and the largest value of a part's predictor over the cells."""
        low, high = (
            theta.new_full((len(theta),), torch.inf),
            theta.new_full((len(theta),), -torch.inf),
        )
        for cells in self.cells_at_a_time(len(theta)):
            predictor = basis.predictor(theta, cells)
            low = torch.minimum(low, predictor.amin(1))
            high = torch.maximum(high, predictor.amax(1))
        return low, high
