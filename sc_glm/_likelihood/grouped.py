r"""The objective for categorical designs with an offset that differs between cells.

Such an offset is the logarithm of a cell's total count. Cells with equal designs are a group. With
one size per gene, the part of the objective that does not depend on a group's counts is a function
of one number: ``x = eta - rho`` without the offset. With ``m_i = 1 / (1 + exp(-x - offset_i))`` and
``L_i = -log(1 - m_i)`` it consists of the sums

.. math::

    \sum_i w_i L_i, \qquad \sum_i w_i m_i, \qquad \sum_i w_i m_i (1 - m_i),

which are the same for all genes. They are tabulated once. A pass then takes time only for positive
counts.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood.family import LARGEST_LOG_SIZE, Family, Terms
from sc_glm._likelihood.objective import Objective, PartBasis, continue_along_tangent
from sc_glm._likelihood.special import log1p_and_rest
from sc_glm._likelihood.tiles import CountBlock, entries_of_rows

# Number of coefficients of a polynomial on an interval of length one. The functions are analytic up
# to a distance of pi from the real axis, so that each degree divides the error by 12.6.
_NODES = 14

# Distance of x from the offsets at which exp(-x) is smaller than the rounding error of one.
_NEGLIGIBLE = 37

# Number of counts that are summed at a time. Their temporaries stay in the processor's cache.
_BLOCK_COUNTS = 16_384


class Sums(NamedTuple):
    """Weighted sums over the cells of a group, chosen so that no digits cancel.

    The sum of ``m`` is ``square + variance``, and the sum of ``L`` is ``rest + square + variance``.
    """

    rest: Tensor  # L - m
    square: Tensor  # m**2
    variance: Tensor  # m (1 - m)


class Groups:
    """Groups of cells with equal designs.

    Parameters
    ----------
    numbers : Tensor of int of shape (n_cells,)
        Number of each cell's group, from zero, in the order in which the groups first occur.
    offset, weights : Tensor of shape (n_cells,)
        Offset and weight of each cell.

    Attributes
    ----------
    first : Tensor of int of shape (n_groups,)
        The first cell of each group.
    total : Tensor of shape (n_groups,)
        Sum of the weights of its cells.
    """

    def __init__(self, numbers: Tensor, offset: Tensor, weights: Tensor) -> None:
        self.numbers = numbers
        n_groups, n_cells = int(numbers.max()) + 1, len(numbers)
        cells = torch.arange(n_cells, device=numbers.device)
        self.first = torch.full_like(cells[:n_groups], n_cells)
        self.first.scatter_reduce_(0, numbers, cells, "amin")
        self.total = weights.new_zeros(n_groups).index_add_(0, numbers, weights)
        self.lowest = offset.amin()
        self._above, self._weights = offset - self.lowest, weights

    def __len__(self) -> int:
        """Return the number of groups."""
        return len(self.first)

    def sums(self, x: Tensor, numbers: Tensor | None = None) -> Sums:
        """Return the sums at ``x``, ``eta - rho`` at the lowest offset.

        Parameters
        ----------
        x : Tensor of shape (n_genes, n_groups) or (n,)
        numbers : Tensor of int of shape (n,), optional
            The group of each entry of ``x``; by default, each column is a group.
        """
        begin, total = self._begin, self.total
        if numbers is not None:
            begin, total = begin[numbers], total[numbers]
        position = x + (self._n_intervals - _NEGLIGIBLE)
        bounded = position.clamp(0, self._n_intervals)
        interval = bounded.floor().nan_to_num_().clamp_max_(self._n_intervals - 1)
        t = (bounded - interval - 0.5).mul_(2)
        powers = torch.ones(*x.shape, _NODES, dtype=x.dtype, device=x.device)
        torch.cumprod(t[..., None].expand(*x.shape, _NODES - 1), -1, out=powers[..., 1:])
        rows = interval.long().add_(begin).view(-1)
        terms = self._table.index_select(0, rows).view(*x.shape, 3, _NODES)
        rest, square, variance = terms.mul_(powers[..., None, :]).sum(-1).unbind(-1)
        # Beyond the table, the functions have reached their asymptotes.
        excess = position - bounded
        decay = excess.abs().neg_().exp_()
        decay_below = decay.where(excess < 0, 1.0).square_()
        return Sums(
            (rest * decay_below).addcmul_(total, excess.clamp_min_(0.0)),
            square * decay_below,
            variance * decay,
        )

    @cached_property
    def _n_bins(self) -> int:
        """Number of intervals of length one that hold the offsets."""
        return int(self._above.amax()) + 1

    @cached_property
    def _n_intervals(self) -> int:
        """Number of intervals of ``x``, from ``m`` near zero in all cells to near one in all."""
        return 2 * _NEGLIGIBLE + self._n_bins

    @cached_property
    def _begin(self) -> Tensor:
        """First row of each group in the table."""
        return torch.arange(len(self), device=self.first.device) * self._n_intervals

    @cached_property
    def _table(self) -> Tensor:
        """Coefficients of the polynomials, of shape (groups x intervals, 3 sums, coefficients).

        A sum over cells is replaced by a weighted sum over Chebyshev nodes in intervals of the
        offset. These intervals have the same length as those of ``x``. Thus the sums of a node of
        ``x`` and a node of the offset have few distinct values.
        """
        n_bins, n_intervals = self._n_bins, self._n_intervals
        nodes, chebyshev, powers = _polynomials(self._weights)
        bins = self._above.floor()
        cells = self.numbers * n_bins + bins.long()
        moments = self._weights.new_zeros(len(self) * n_bins, _NODES)
        t = (self._above - bins - 0.5).mul_(2)
        # Recurrence of the Chebyshev polynomials
        previous, current = t, torch.ones_like(t)
        for degree in range(_NODES):
            moments[:, degree].index_add_(0, cells, current * self._weights)
            previous, current = current, 2 * t * current - previous
        at_nodes = (moments @ chebyshev).view(len(self), -1)  # groups x (bins x nodes)

        centre = torch.arange(1 - _NEGLIGIBLE - n_bins, _NEGLIGIBLE + n_bins, device=t.device)
        # Axes: sum of the intervals' numbers, node of x, node of the offset
        x = centre[:, None, None] + 0.5 * (nodes[:, None] + nodes)
        u = x.exp()
        q = (u + 1).reciprocal()
        m = u * q
        of_cell = Sums(-log1p_and_rest(-m, q)[1], m.square(), m * q)
        table = self._weights.new_empty(len(self), n_intervals, 3, _NODES)
        for number, values in enumerate(of_cell):
            by_bin = values.unfold(0, n_bins, 1).transpose(2, 3).reshape(-1, at_nodes.shape[1])
            sums = (by_bin @ at_nodes.mT).view(n_intervals, _NODES, len(self))
            table[:, :, number] = sums.permute(2, 0, 1) @ chebyshev.mT @ powers
        return table.view(-1, 3, _NODES)


class GroupedObjective(Objective):
    """Objective of a negative binomial with one size per gene, summed by groups of cells.

    Parameters
    ----------
    family : Family
        Negative binomial.
    block : CountBlock
        Counts of the genes.
    bases : sequence of PartBasis
        Bases of mean and size, equal in the cells of a group. The size's basis is constant.
    offset : Tensor of shape (n_cells,)
        Offset of the mean's predictor.
    weights : Tensor of shape (n_cells,)
        Weight of each cell.
    groups : Groups
        Groups of the cells.

    Attributes
    ----------
    numbers_of_counts : Tensor of int of shape (n_counts,)
        Number of the group of each positive count.
    """

    def __init__(
        self,
        family: Family,
        block: CountBlock,
        bases: Sequence[PartBasis],
        offset: Tensor,
        weights: Tensor,
        *,
        groups: Groups,
    ) -> None:
        self._groups, self._weights_of_cells = groups, weights
        super().__init__(
            family,
            block,
            [basis.of_cells(groups.first) for basis in bases],
            offset,
            torch.ones_like(groups.total),
        )
        # Numbers that do not change between passes: of each positive count, and their sums by gene
        # and group.
        above = (offset - groups.lowest).index_select(0, block.cells)
        self.numbers_of_counts = groups.numbers.index_select(0, block.cells)
        self._odds = above.exp()
        self._y = self.weights_of_counts() * block.y
        target = self.numbers_of_counts + block.genes * len(groups)
        sums = weights.new_zeros(2, block.n_genes * len(groups))
        sums[0].scatter_add_(0, target, self._y)
        sums[1].scatter_add_(0, target, above.add_(groups.lowest).mul_(self._y))
        self._sum_of_y, self._sum_of_offsets = sums.view(2, block.n_genes, -1)

    def _row_bounds(self) -> Sequence[int]:
        return [0, len(self._groups)]

    def weights_of_counts(self) -> Tensor:
        """Return the weight of each positive count."""
        return self._weights_of_cells.index_select(0, self.block.cells)

    def terms(self, theta: Tensor, genes: Tensor, tile: int) -> Terms:
        """Return the terms of genes x groups, which are sums over the cells of a group.

        The formulas are those of a tile in :mod:`sc_glm._likelihood.family`.
        """
        (eta, rho), excess = self.predictors(theta, genes, tile)
        rho = rho.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)
        x, r = (eta - rho).add_(self._groups.lowest), rho.exp()
        y_log, y_rest, y_variance = self._at_counts(x.exp(), genes)
        rest, square, variance = self._groups.sums(x)
        sum_of_m = square + variance
        r_square = square.mul_(r)
        h_er = y_variance - r_square
        r_rest = rest.mul_(r)
        value = (self._sum_of_y[genes] * eta).add_(self._sum_of_offsets[genes])
        terms = Terms(
            value.sub_(y_log).sub_(r_rest).sub_(r * sum_of_m),
            (y_rest.sub(r * sum_of_m), (r_rest + y_rest).neg_()),
            ((variance * r).add_(y_variance).neg_(), h_er, (r_rest + h_er).neg_()),
        )
        return terms if excess is None else continue_along_tangent(terms, excess)

    def _at_counts(self, odds: Tensor, genes: Tensor) -> Tensor:
        """Sum ``y L``, ``y (1 - m)`` and ``y m (1 - m)`` over each group's positive counts.

        `odds` are ``exp(eta - rho)`` at the lowest offset, genes x groups.
        """
        entries, rows = entries_of_rows(self.block.indptr, genes)
        targets = rows.mul_(len(self._groups)).add_(self.numbers_of_counts.index_select(0, entries))
        sums = odds.new_zeros(3, odds.numel())
        odds = odds.view(-1)
        blocks = (torch.split(x, _BLOCK_COUNTS) for x in (targets, entries))
        for target, counts in zip(*blocks, strict=True):
            u = odds.index_select(0, target).mul_(self._odds.index_select(0, counts))
            y = self._y.index_select(0, counts)
            q = (u + 1).reciprocal_()
            y_rest = q * y
            sums[1].scatter_add_(0, target, y_rest)
            sums[2].scatter_add_(0, target, y_rest.mul_(q).mul_(u))
            sums[0].scatter_add_(0, target, u.log1p_().mul_(y))
        return sums.view(3, genes.numel(), -1)


def _polynomials(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the Chebyshev nodes in (-1, 1), and two matrices of the type of a tensor.

    The first matrix, degrees x nodes, transforms values at the nodes to coefficients of the
    Chebyshev polynomials. The rows of the second are these polynomials' coefficients of powers.
    """
    degrees = torch.arange(_NODES).to(like)
    angles = (degrees + 0.5) * (math.pi / _NODES)
    chebyshev = torch.cos(degrees[:, None] * angles) * (2 / _NODES)
    chebyshev[0] /= 2
    in_powers = torch.zeros_like(chebyshev)
    in_powers[0, 0] = in_powers[1, 1] = 1
    for degree in range(2, _NODES):
        in_powers[degree, 1:] = 2 * in_powers[degree - 1, :-1]
        in_powers[degree] -= in_powers[degree - 2]
    return angles.cos(), chebyshev, in_powers
