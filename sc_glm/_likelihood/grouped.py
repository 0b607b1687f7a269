r"""The objective where designs are categorical and the offset is not, such as a log depth.

With one size per gene, all that the cells of a group of equal designs contribute, whatever their
counts, is a function of one number, ``x = eta - rho`` without the offset. With
``m_i = 1 / (1 + exp(-x - offset_i))`` and ``L_i = -log(1 - m_i)`` that is

.. math::

    \sum_i w_i L_i, \qquad \sum_i w_i m_i, \qquad \sum_i w_i m_i (1 - m_i),

the same for all genes. It is tabulated once, so that a pass costs the positive counts alone.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood.family import LARGEST_LOG_SIZE, Family, Terms
from sc_glm._likelihood.objective import Objective, PartBasis, on_tangent
from sc_glm._likelihood.special import log1p_and_rest
from sc_glm._likelihood.tiles import CountBlock, entries_of

# Polynomials on intervals of length one. The functions are analytic up to pi from the real axis,
# and an error falls by a factor of 12.6 with each degree.
_NODES = 14
_FAR = 37  # where exp(-x) is lost beside one
_ENTRIES = 16_384  # of counts at a time, few enough for temporaries to stay in cache


class Sums(NamedTuple):
    """Weighted sums over the cells of a group, none of which cancels.

    The sum of ``m`` is that of ``square`` and ``variance``, and the sum of ``L`` has ``rest`` on
    top.
    """

    rest: Tensor  # L - m
    square: Tensor  # m**2
    variance: Tensor  # m (1 - m)


class Groups:
    """Cells of equal designs.

    Parameters
    ----------
    numbers : Tensor of int of shape (n_cells,)
        Number of each cell's group, from zero on, in the order in which they first occur.
    offset, weights : Tensor of shape (n_cells,)

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

    def sums(self, x: Tensor) -> Sums:
        """Return the sums at ``x``, genes x groups: ``eta - rho`` of the lowest offset."""
        place = x + (self._n_intervals - _FAR)
        inside = place.clamp(0, self._n_intervals)
        interval = inside.floor().nan_to_num_().clamp_max_(self._n_intervals - 1)
        t = (inside - interval - 0.5).mul_(2)
        powers = torch.ones(*x.shape, _NODES, dtype=x.dtype, device=x.device)
        torch.cumprod(t[..., None].expand(*x.shape, _NODES - 1), -1, out=powers[..., 1:])
        rows = interval.long().add_(self._begin).view(-1)
        terms = self._table.index_select(0, rows).view(*x.shape, 3, _NODES)
        rest, square, variance = terms.mul_(powers[..., None, :]).sum(-1).unbind(-1)
        beyond = place - inside
        far = beyond.abs().neg_().exp_()
        below = far.where(beyond < 0, 1.0).square_()
        return Sums(
            (rest * below).addcmul_(self.total, beyond.clamp_min_(0.0)),
            square * below,
            variance * far,
        )

    @cached_property
    def _n_bins(self) -> int:
        """Number of intervals of length one that hold the offsets."""
        return int(self._above.amax()) + 1

    @cached_property
    def _n_intervals(self) -> int:
        """Number of intervals of ``x``, from where all cells are near zero to where none is."""
        return 2 * _FAR + self._n_bins

    @cached_property
    def _begin(self) -> Tensor:
        """Where in the table each group's rows begin."""
        return torch.arange(len(self), device=self.first.device) * self._n_intervals

    @cached_property
    def _table(self) -> Tensor:
        """Coefficients of the polynomials: (groups x intervals) x 3 sums x degree.

        A sum over cells is one over few nodes: Chebyshev's, in intervals of the offset. As these
        are as long as the intervals of ``x``, sums of one of both fall on few numbers.
        """
        n_bins, n_intervals = self._n_bins, self._n_intervals
        nodes, chebyshev, powers = _polynomials(self._weights)
        bins = self._above.floor()
        cells = self.numbers * n_bins + bins.long()
        moments = self._weights.new_zeros(len(self) * n_bins, _NODES)
        t = (self._above - bins - 0.5).mul_(2)
        before, own = t, torch.ones_like(t)  # Chebyshev's polynomials, from one to the next
        for degree in range(_NODES):
            moments[:, degree].index_add_(0, cells, own * self._weights)
            before, own = own, 2 * t * own - before
        at_nodes = (moments @ chebyshev).view(len(self), -1)  # groups x (bins x nodes)

        centre = torch.arange(1 - _FAR - n_bins, _FAR + n_bins, device=t.device)
        x = centre[:, None, None] + 0.5 * (nodes[:, None] + nodes)  # sum x node of x x of offset
        u = x.exp()
        q = (u + 1).reciprocal()
        m = u * q
        of_cell = Sums(-log1p_and_rest(-m, q)[1], m.square(), m * q)
        table = self._weights.new_empty(len(self), n_intervals, 3, _NODES)
        for one, values in enumerate(of_cell):
            by_bin = values.unfold(0, n_bins, 1).transpose(2, 3).reshape(-1, at_nodes.shape[1])
            summed = (by_bin @ at_nodes.mT).view(n_intervals, _NODES, len(self))
            table[:, :, one] = summed.permute(2, 0, 1) @ chebyshev.mT @ powers
        return table.view(-1, 3, _NODES)


class GroupedObjective(Objective):
    """The same objective of a negative binomial with one size per gene, by groups of cells.

    Parameters
    ----------
    family, block, bases, offset, weights
        As for :class:`~sc_glm._likelihood.objective.Objective`, with a basis of constants for the
        size.
    groups : Groups
        Of the same cells. The bases are equal in the cells of a group.
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
        # Of each positive count, and summed by gene and group: what is the same in every pass
        above = (offset - groups.lowest).index_select(0, block.cells)
        self._numbers = groups.numbers.index_select(0, block.cells)
        self._odds = above.exp()
        self._y = self._weights_of_counts() * block.y
        place = self._numbers + block.genes * len(groups)
        sums = weights.new_zeros(2, block.n_genes * len(groups))
        sums[0].scatter_add_(0, place, self._y)
        sums[1].scatter_add_(0, place, above.add_(groups.lowest).mul_(self._y))
        self._sum_of_y, self._sum_of_offsets = sums.view(2, block.n_genes, -1)

    def _row_bounds(self) -> Sequence[int]:
        return [0, len(self._groups)]

    def _weights_of_counts(self) -> Tensor:
        return self._weights_of_cells.index_select(0, self.block.cells)

    def terms(self, theta: Tensor, genes: Tensor, tile: int) -> Terms:
        """Return the terms of genes x groups, each summed over the cells of the group.

        They are those of :mod:`sc_glm._likelihood.family`, with what a positive count adds to its
        group.
        """
        (eta, rho), beyond = self.predictors(theta, genes, tile)
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
        return terms if beyond is None else on_tangent(terms, beyond)

    def _at_counts(self, odds: Tensor, genes: Tensor) -> Tensor:
        """Sum ``y L``, ``y (1 - m)`` and ``y m (1 - m)`` over each group's positive counts.

        ``odds`` are those at the lowest offset: ``exp`` of what the table is looked up at.
        """
        entries, rows = entries_of(self.block.indptr, genes)
        place = rows.mul_(len(self._groups)).add_(self._numbers.index_select(0, entries))
        sums = odds.new_zeros(3, odds.numel())
        odds = odds.view(-1)
        pieces = (torch.split(x, _ENTRIES) for x in (place, entries))
        for at, own in zip(*pieces, strict=True):
            u = odds.index_select(0, at).mul_(self._odds.index_select(0, own))
            y = self._y.index_select(0, own)
            q = (u + 1).reciprocal_()
            y_rest = q * y
            sums[1].scatter_add_(0, at, y_rest)
            sums[2].scatter_add_(0, at, y_rest.mul_(q).mul_(u))
            sums[0].scatter_add_(0, at, u.log1p_().mul_(y))
        return sums.view(3, genes.numel(), -1)


def _polynomials(like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Chebyshev's nodes in (-1, 1), and two matrices.

    The first, degrees x nodes, takes values at the nodes to coefficients of Chebyshev's
    polynomials; the second has the coefficients of these, one row each, for powers.
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
