"""Profile log-likelihoods of groups of cells as functions of the log size.

If each group of cells has a mean of its own, the groups of a gene share the size alone. The
log-likelihood of a group, maximised over its mean, is then a function of one number. It is
evaluated at nodes around the fitted log size when first needed, and interpolated by polynomials of
degree five that agree with its first and second derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from sc_glm._likelihood.level_terms import LevelTerms

_SPACING = 0.5  # of the nodes. The error is 3e-7 of a function's sixth derivative
N_NODES = 40  # on each side of the fit
_TOL = 1e-7  # of the maximisation over a mean, in log-likelihood
_MAX_ITER = 30
_MAX_STEP = 2.0


class Curve(NamedTuple):
    """Values of functions of the log size, with first and second derivatives."""

    value: Tensor
    first: Tensor
    second: Tensor


class LevelProfiles:
    """Profile log-likelihoods of a block of genes by groups of cells.

    Parameters
    ----------
    terms : LevelTerms
    eta : Tensor of shape (n_genes, n_groups)
        Fitted predictors of the means, without the offset.
    fitted : Tensor of shape (n_genes,)
        Fitted log sizes.
    rho : Tensor of shape (n_genes,)
        Log sizes at the centre of the nodes.
    """

    def __init__(self, terms: LevelTerms, eta: Tensor, fitted: Tensor, rho: Tensor) -> None:
        self.terms, self.eta, self.rho, self._fitted = terms, eta, rho, fitted
        n_genes, self._n_groups = eta.shape
        self._row = torch.full((n_genes * (2 * N_NODES + 1),), -1)
        # Value and derivatives of each group, and of all groups with the gamma ratios
        self._table = eta.new_zeros(0, self._n_groups + 1, 3)

    @property
    def max_distance(self) -> float:
        """Distance of the log size from the fit up to which profiles are known."""
        return N_NODES * _SPACING

    def at_fit(self, genes: Tensor) -> Tensor:
        """Return the log-likelihood of the fit."""
        rows, groups = torch.nonzero(self.terms.sum_of_y > 0).unbind(1)
        value = self.terms.gamma_ratio(self._fitted, torch.arange(len(self.rho))).value
        value.index_add_(0, rows, self._profiles(rows, groups, self._fitted[rows])[:, 0])
        return value[genes]

    def of_others(self, genes: Tensor, groups: Tensor, rho: Tensor) -> Curve:
        """Return the sum over all groups but one, with the gamma ratios of all.

        Parameters
        ----------
        genes, groups : Tensor of int of shape (n,)
            Gene, and the group that is left out.
        rho : Tensor of shape (n,)
            Log size, not farther from the fit than :attr:`max_distance`.
        """
        position = (rho - self.rho[genes]) / _SPACING
        node = position.floor().clamp(-N_NODES, N_NODES - 1)
        t = position - node
        left = genes * (2 * N_NODES + 1) + node.long() + N_NODES
        self._evaluate(torch.cat([left, left + 1]))
        ends = []
        for key in (left, left + 1):
            rows = self._row[key] * (self._n_groups + 1)
            flat = self._table.view(-1, 3)
            ends.append((flat[rows + self._n_groups] - flat[rows + groups]).unbind(1))
        return _interpolate(ends, t)

    def _evaluate(self, keys: Tensor) -> None:
        """Evaluate the profiles of genes at nodes, unless they are known."""
        missing = torch.unique(keys[self._row[keys] < 0])
        if not len(missing):
            return
        gene = missing // (2 * N_NODES + 1)
        distance = (missing % (2 * N_NODES + 1) - N_NODES) * _SPACING
        rho = self.rho[gene] + distance
        ratios = self.terms.gamma_ratio(rho, gene)
        table = self._table.new_zeros(len(missing), self._n_groups + 1, 3)
        rows, groups = torch.nonzero(self.terms.sum_of_y[gene] > 0).unbind(1)
        table[rows, groups] = self._profiles(gene[rows], groups, rho[rows])
        table[:, -1] = table.sum(1) + torch.stack(ratios, 1)
        self._row[missing] = len(self._table) + torch.arange(len(missing))
        self._table = torch.cat([self._table, table])

    def _profiles(self, genes: Tensor, groups: Tensor, rho: Tensor) -> Tensor:
        """Maximise over the mean of a group in each row; return value and derivatives."""
        eta = self.eta[genes, groups]
        result = torch.full((len(genes), 3), torch.nan, dtype=rho.dtype)
        active = torch.arange(len(genes))
        for _ in range(_MAX_ITER):
            at = self.terms.at(genes[active], groups[active], eta[active], rho[active])
            (s_eta, s_rho), (h_ee, h_er, h_rr) = at.score, at.hessian
            step = s_eta / h_ee.neg()
            gain = 0.5 * step * s_eta
            found = gain <= _TOL
            slope = h_er / h_ee
            values = at.value + gain, s_rho - slope * s_eta, h_rr - slope * h_er
            result[active[found]] = torch.stack(values, 1)[found]
            eta[active] += step.clamp(-_MAX_STEP, _MAX_STEP)
            active = active[~found]
            if not len(active):
                break
        return result


def _interpolate(ends: list[tuple[Tensor, ...]], t: Tensor) -> Curve:
    """Interpolate between nodes, at fractions ``t`` of their distance."""
    (f, g, c), (f1, g1, c1) = (
        (value, first * _SPACING, second * _SPACING**2) for value, first, second in ends
    )
    value, first, second = f1 - f - g - 0.5 * c, g1 - g - c, c1 - c
    a3 = 10 * value - 4 * first + 0.5 * second
    a4 = -15 * value + 7 * first - second
    a5 = 6 * value - 3 * first + 0.5 * second
    return Curve(
        f + t * (g + t * (0.5 * c + t * (a3 + t * (a4 + t * a5)))),
        (g + t * (c + t * (3 * a3 + t * (4 * a4 + t * 5 * a5)))) / _SPACING,
        (c + t * (6 * a3 + t * (12 * a4 + t * 20 * a5))) / _SPACING**2,
    )
