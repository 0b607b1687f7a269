r"""What counts add to the log-likelihood through a size that is the same in all cells.

As :math:`\Gamma(y + 1 + r) = (y + r)\,\Gamma(y + r)`, whole counts add up in steps from one to the
next, and each step is taken once for all counts of a gene that are beyond it: a logarithm in place
of gamma functions, and few of them however many cells there are.
"""

import torch
from torch import Tensor

from sc_glm._likelihood.family import Counts, GammaRatio, gamma_ratio, positive_counts, size_of
from sc_glm._likelihood.tiles import entries_of

_HIGHEST = 1024  # count that is reached by steps; there are few distinct ones beyond


class DistinctCounts:
    """The positive counts of each gene of a block, as steps and a few by themselves.

    Parameters
    ----------
    genes, y, weights : Tensor of shape (n_counts,)
        Gene, value and weight of each count, by gene.
    n_genes : int
    """

    def __init__(self, genes: Tensor, y: Tensor, weights: Tensor, n_genes: int) -> None:
        y, weights = y.double(), weights.double()  # sums of many and large terms
        reached = (y <= _HIGHEST) & (y == y.floor())
        self._others: tuple[Tensor, Counts, Tensor] | None = None
        others = torch.nonzero(~reached)[:, 0]
        if len(others):
            self._others = _distinct(genes[others], y[others], weights[others], n_genes)
            genes, y, weights = genes[reached], y[reached], weights[reached]
        n_values = 1 + (int(y.amax()) if len(y) else 0)
        times = weights.new_zeros(n_genes * n_values)
        times = times.index_add_(0, genes * n_values + y.long(), weights).view(n_genes, -1)
        # Steps leave out what does not depend on the size, or is one for each of them. Summed over
        # distinct counts, as each addition rounds.
        of, distinct = torch.nonzero(times).unbind(1)
        distinct = distinct.to(y)
        self._left_out = weights.new_zeros(3, n_genes)
        for sums, own in zip(self._left_out, (-torch.lgamma(distinct + 1), distinct), strict=False):
            sums.index_add_(0, of, own * times[times != 0])
        beyond = times.flip(1).cumsum(1).flip(1)[:, 2:]
        taken = beyond > 0
        self._indptr = torch.nn.functional.pad(taken.sum(1).cumsum(0), (1, 0))
        self._y, self._times = torch.nonzero(taken)[:, 1].to(y).add_(1), beyond[taken]

    def gamma_ratio(self, rho: Tensor, genes: Tensor) -> GammaRatio:
        """Sum up what the counts of some genes add at sizes of their own.

        Parameters
        ----------
        rho : Tensor of shape (n,)
            Log size of each.
        genes : Tensor of int of shape (n,)

        Returns
        -------
        GammaRatio
            Of shape (n,) and the type of ``rho``, as ``family.gamma_ratio``.
        """
        dtype, rho = rho.dtype, rho.double()
        total = self._left_out[:, genes]
        entries, rows = entries_of(self._indptr, genes)
        y = self._y.index_select(0, entries)
        r = size_of(rho).index_select(0, rows)
        inverse = (r + y).reciprocal_()
        share = y * inverse
        steps = (y / r).log1p_(), share.neg(), inverse.mul_(r).mul_(share)
        times = self._times.index_select(0, entries)
        for sums, own in zip(total, steps, strict=True):
            sums.index_add_(0, rows, own.mul_(times))
        if self._others is not None:
            indptr, counts, times = self._others
            entries, rows = entries_of(indptr, genes)
            if len(entries):
                gamma_ratios = gamma_ratio(counts.at(entries), rho.index_select(0, rows))
                times = times.index_select(0, entries)
                for sums, one in zip(total, gamma_ratios, strict=True):
                    sums.index_add_(0, rows, one * times)
        return GammaRatio(*total.to(dtype))


def _distinct(
    genes: Tensor, y: Tensor, weights: Tensor, n_genes: int
) -> tuple[Tensor, Counts, Tensor]:
    """Return the distinct counts of each gene, as pointers and counts, with their weights."""
    values, rank = torch.unique(y, return_inverse=True)
    key, position = torch.unique(genes * len(values) + rank, return_inverse=True)
    first = torch.arange(n_genes + 1, device=y.device) * len(values)
    counts = positive_counts(values).at(key % len(values))
    times = torch.zeros_like(counts.y).index_add_(0, position, weights)
    return torch.searchsorted(key, first), counts, times
