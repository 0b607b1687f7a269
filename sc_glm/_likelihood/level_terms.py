"""Terms of single groups of cells, for one gene and one group in each row.

Some questions about a gene involve few groups of cells with equal designs. The sums over the other
groups are then not needed.
"""

import torch
from torch import Tensor

from sc_glm._likelihood.distinct_counts import DistinctCounts
from sc_glm._likelihood.family import LARGEST_LOG_SIZE, GammaRatio, Terms
from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.tiles import CountBlock, entries_of_rows


class LevelTerms:
    """Log-likelihood of a negative binomial in groups of cells, with one size per gene.

    Parameters
    ----------
    block : CountBlock
        Counts of the genes.
    groups : Groups
        Groups of cells with equal designs.
    offset, weights : Tensor of shape (n_cells,)

    Attributes
    ----------
    sum_of_y : Tensor of shape (n_genes, n_groups)
        Weighted sum of the counts of a gene in a group.
    exposure : Tensor of shape (n_groups,)
        Weighted sum of ``exp(offset)`` over the cells of a group.
    """

    def __init__(self, block: CountBlock, groups: Groups, offset: Tensor, weights: Tensor) -> None:
        self._groups = groups
        n_groups = len(groups)
        place = block.genes * n_groups + groups.numbers.index_select(0, block.cells)
        place, order = torch.sort(place, stable=True)
        cells = block.cells[order]
        above = (offset - groups.lowest)[cells]
        weights_of_counts = weights.index_select(0, block.cells)
        if block.shares is not None:
            weights_of_counts *= block.shares.positives
        self._odds, self._y = above.exp(), (weights_of_counts * block.y)[order]
        n_places = block.n_genes * n_groups
        self._indptr = torch.searchsorted(place, torch.arange(n_places + 1))
        sums = weights.new_zeros(2, n_places)
        sums[0].index_add_(0, place, self._y)
        sums[1].index_add_(0, place, (above + groups.lowest).mul_(self._y))
        self._sum_of_y, self._sum_of_offsets = sums
        self.sum_of_y = self._sum_of_y.view(-1, n_groups)
        self.exposure = weights.new_zeros(n_groups)
        self.exposure.index_add_(0, groups.numbers, offset.exp() * weights)
        self._distinct_counts = DistinctCounts(
            block.genes, block.y, weights_of_counts, block.n_genes
        )

    def gamma_ratio(self, rho: Tensor, genes: Tensor) -> GammaRatio:
        """Return the sum of the gamma ratios over all cells, which no other terms include.

        The derivatives are those of the value, without the log size that the other terms include.
        """
        ratios = self._distinct_counts.gamma_ratio(rho, genes)
        return ratios._replace(first=ratios.first - self.sum_of_y.sum(1)[genes])

    def of_silent(self, groups: Tensor, eta: Tensor, rho: Tensor) -> Terms:
        """Return the terms of groups in which a gene has no counts, a row for each."""
        r, rest, square, variance = self._sums(groups, eta, rho)
        score = (square + variance).mul_(r).neg_()
        r_rest, r_square = rest.mul_(r), square.mul_(r)
        return Terms(
            score - r_rest,
            (score, r_rest.neg()),
            (variance.mul_(r).neg_(), r_square.neg(), r_square - r_rest),
        )

    def at(self, genes: Tensor, groups: Tensor, eta: Tensor, rho: Tensor) -> Terms:
        """Return the terms of a gene in a group, a row for each.

        Parameters
        ----------
        genes, groups : Tensor of int of shape (n,)
        eta : Tensor of shape (n,)
            Predictor of the mean without the offset.
        rho : Tensor of shape (n,)
            Log size, bounded by the largest one.
        """
        zeros = self.of_silent(groups, eta, rho)
        place = genes * len(self._groups) + groups
        entries, rows = entries_of_rows(self._indptr, place)
        y = self._y.index_select(0, entries)
        odds = (eta - rho + self._groups.lowest).exp_()
        u = odds.index_select(0, rows).mul_(self._odds.index_select(0, entries))
        q = (u + 1).reciprocal_()
        y_rest = q * y
        sums = eta.new_zeros(3, len(eta))
        sums[1].index_add_(0, rows, y_rest)
        sums[2].index_add_(0, rows, y_rest.mul_(q).mul_(u))
        sums[0].index_add_(0, rows, u.log1p_().mul_(y))
        y_log, y_rest, y_variance = sums
        (s_eta, s_rho), (h_ee, h_er, h_rr) = zeros.score, zeros.hessian
        sum_of_y = self._sum_of_y[place]
        value = (sum_of_y * eta).add_(self._sum_of_offsets[place])
        return Terms(
            value.sub_(y_log).add_(zeros.value),
            (s_eta + y_rest, s_rho + sum_of_y.sub_(y_rest)),
            (h_ee - y_variance, h_er + y_variance, h_rr - y_variance),
        )

    def _sums(
        self, groups: Tensor, eta: Tensor, rho: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rho = rho.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)
        return rho.exp(), *self._groups.sums(eta - rho + self._groups.lowest, groups)
