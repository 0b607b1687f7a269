r"""Gamma ratios of a gene's distinct counts, for a size that is the same in all cells.

The recurrence :math:`\Gamma(y + 1 + r) = (y + r)\,\Gamma(y + r)` makes the log gamma ratio of a
whole count a sum of logarithms. Each logarithm is computed once for all counts of a gene that
contain it. Thus a few logarithms replace many gamma functions, however many cells there are.
"""

import torch
from torch import Tensor

from sc_glm._likelihood.family import Counts, GammaRatio, bounded_size, gamma_ratio, positive_counts
from sc_glm._likelihood.tiles import entries_of_rows

# Largest count that uses the recurrence. Genes have few distinct counts that are larger.
_MAX_RECURRENCE_COUNT = 1024


class DistinctCounts:
    """Distinct positive counts of each gene of a block, with their weights.

    Small whole counts are kept as the terms of the recurrence that they contain, and other counts
    by themselves.

    Parameters
    ----------
    genes, y, weights : Tensor of shape (n_counts,)
        Gene, value and weight of each count, sorted by gene.
    n_genes : int
        Number of genes.
    """

    def __init__(self, genes: Tensor, y: Tensor, weights: Tensor, n_genes: int) -> None:
        y, weights = y.double(), weights.double()  # for sums of many and large terms
        is_small = (y <= _MAX_RECURRENCE_COUNT) & (y == y.floor())
        self._not_small: tuple[Tensor, Counts, Tensor] | None = None
        not_small = torch.nonzero(~is_small)[:, 0]
        if len(not_small):
            self._not_small = _distinct(genes[not_small], y[not_small], weights[not_small], n_genes)
            genes, y, weights = genes[is_small], y[is_small], weights[is_small]
        n_values = 1 + (int(y.amax()) if len(y) else 0)
        table = weights.new_zeros(n_genes * n_values)
        table = table.index_add_(0, genes * n_values + y.long(), weights).view(n_genes, -1)
        # Summands that do not depend on the size: log(y!) in the value, y in the first derivative.
        # They are summed over distinct counts, as each addition rounds.
        gene, distinct = torch.nonzero(table).unbind(1)
        distinct = distinct.to(y)
        self._constants = weights.new_zeros(3, n_genes)
        for sums, summand in zip(
            self._constants, (-torch.lgamma(distinct + 1), distinct), strict=False
        ):
            sums.index_add_(0, gene, summand * table[table != 0])
        # A term of the recurrence has the weight of all larger counts.
        term_weights = table.flip(1).cumsum(1).flip(1)[:, 2:]
        is_used = term_weights > 0
        self._indptr = torch.nn.functional.pad(is_used.sum(1).cumsum(0), (1, 0))
        self._y, self._weights = torch.nonzero(is_used)[:, 1].to(y).add_(1), term_weights[is_used]

    def gamma_ratio(self, rho: Tensor, genes: Tensor) -> GammaRatio:
        """Return the weighted sum of the gamma ratios of the counts of some genes.

        Parameters
        ----------
        rho : Tensor of shape (n,)
            Log size of each gene.
        genes : Tensor of int of shape (n,)
            Numbers of the genes.

        Returns
        -------
        GammaRatio
            Sums and their derivatives, of shape (n,) and the type of `rho`.
        """
        dtype, rho = rho.dtype, rho.double()
        total = self._constants[:, genes]
        entries, rows = entries_of_rows(self._indptr, genes)
        y = self._y.index_select(0, entries)
        r = bounded_size(rho).index_select(0, rows)
        inverse = (r + y).reciprocal_()
        share = y * inverse
        terms = (y / r).log1p_(), share.neg(), inverse.mul_(r).mul_(share)
        weights = self._weights.index_select(0, entries)
        for sums, summand in zip(total, terms, strict=True):
            sums.index_add_(0, rows, summand.mul_(weights))
        if self._not_small is not None:
            indptr, counts, weights = self._not_small
            entries, rows = entries_of_rows(indptr, genes)
            if len(entries):
                gamma_ratios = gamma_ratio(counts.at(entries), rho.index_select(0, rows))
                weights = weights.index_select(0, entries)
                for sums, summand in zip(total, gamma_ratios, strict=True):
                    sums.index_add_(0, rows, summand * weights)
        return GammaRatio(*total.to(dtype))


def _distinct(
    genes: Tensor, y: Tensor, weights: Tensor, n_genes: int
) -> tuple[Tensor, Counts, Tensor]:
    """Return the distinct counts of each gene, as row pointers and counts, with their weights."""
    values, rank = torch.unique(y, return_inverse=True)
    key, position = torch.unique(genes * len(values) + rank, return_inverse=True)
    first = torch.arange(n_genes + 1, device=y.device) * len(values)
    counts = positive_counts(values).at(key % len(values))
    total = torch.zeros_like(counts.y).index_add_(0, position, weights)
    return torch.searchsorted(key, first), counts, total
