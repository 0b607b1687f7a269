"""What small counts add to the log-mass through the size, from a table.

Where the size differs by cell, each positive count takes two sets of gamma functions. But for the
counts 1, 2, ... these are smooth functions of the size, the same for all genes: polynomials on
short intervals of its logarithm give them at a fifth of the cost. For large sizes they are
polynomials in the inverse of the size, as the derivatives vanish with that.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood.family import (
    LARGEST_LOG_SIZE,
    Family,
    GammaRatio,
    Terms,
    gamma_ratio,
    positive_counts,
)

LARGEST_COUNT = 64
_LOWEST = -24.0  # of the log size, below which the function is linear
_HIGHEST = 5.5  # from where on it is a function of the inverse size
_WIDTH = 0.25
_DEGREE = 7  # singularities are pi away from the real line, 25 half-widths of an interval
# The inverse size, one where it begins, goes on at the same slope: down to zero in 1 / _WIDTH more.
_FIRST_OF_INVERSE = round((_HIGHEST - _LOWEST) / _WIDTH)
_INTERVALS = _FIRST_OF_INVERSE + round(1 / _WIDTH)


class GammaRatioTable:
    """Polynomials for the counts from 1 to ``LARGEST_COUNT``.

    Attributes
    ----------
    coefficients : Tensor of shape (degree + 1, (n_counts + 1) * n_intervals)
        Of the powers, in ascending order, of the place in an interval from -1/2 to 1/2. Those of
        a count of zero are zero.
    """

    def __init__(self, device: torch.device) -> None:
        powers = torch.arange(_DEGREE + 1).double()
        nodes = 0.5 * torch.cos(torch.pi * (powers + 0.5) / (_DEGREE + 1))
        centres = _WIDTH * (torch.arange(_INTERVALS).double() + 0.5) + _LOWEST
        at = centres[:, None] + _WIDTH * nodes
        rho = at.clamp_max(_HIGHEST) - (1 - (at - _HIGHEST).clamp_min(0)).log()
        y = torch.arange(1, LARGEST_COUNT + 1).double()
        counts = positive_counts(y.repeat_interleave(rho.numel()))
        value = gamma_ratio(counts, rho.flatten().repeat(LARGEST_COUNT)).value
        solved = torch.linalg.solve(nodes[:, None] ** powers, value.view(-1, _DEGREE + 1).mT)
        self.coefficients = torch.nn.functional.pad(solved, (_INTERVALS, 0)).to(device)

    @classmethod
    @cache
    def on(cls, device: torch.device) -> "GammaRatioTable":
        """Return the table on a device; it is computed once."""
        return cls(device)

    def gamma_ratio(self, y: Tensor, rho: Tensor) -> GammaRatio:
        """Return what counts of at most ``LARGEST_COUNT`` add, less what is linear in log size.

        Parameters
        ----------
        y : Tensor of shape (n_counts,)
            Whole numbers.
        rho : Tensor of shape (n_counts,)
            Log size.

        Returns
        -------
        GammaRatio
            As :func:`~sc_glm._likelihood.family.gamma_ratio`, but that the counts are missing in
            ``first``.
        """
        inside = rho.clamp_min(_LOWEST)
        inverse = (_HIGHEST - inside).clamp_max_(0.0).exp_()  # one where it is not yet in use
        place = (
            inside.clamp_max(_HIGHEST).sub_(inverse).sub_(_LOWEST - 1).mul_(1 / _WIDTH).sub_(0.5)
        )
        interval = place.round().clamp_max_(_INTERVALS - 1)
        t = place.sub_(interval)
        of_inverse = interval >= _FIRST_OF_INVERSE
        index = interval.add_(y, alpha=_INTERVALS).long()
        *others, last_but_one, last = (
            row.index_select(0, index) for row in self.coefficients.unbind()
        )
        value, first, half_second = torch.addcmul(last_but_one, last, t), last, torch.zeros_like(t)
        for coefficient in reversed(others):
            half_second = torch.addcmul(first, half_second, t)
            first = first.mul_(t).add_(value)
            value = value.mul_(t).add_(coefficient)
        slope = inverse.mul_(1 / _WIDTH)  # of t in rho, whose own slope is minus this or zero
        first *= slope
        bend = torch.where(of_inverse, first, 0.0)
        second = half_second.mul_(2).mul_(slope).mul_(slope).sub_(bend)
        value.addcmul_(1 - y, rho.clamp_min(-LARGEST_LOG_SIZE) - inside)
        return GammaRatio(value, first, second)


class SmallCounts(NamedTuple):
    """Counts in a tile that the table knows.

    ``flat`` is where in the flat tile of genes x cells they are, and ``shares`` what they are
    multiplied by, if it is not one.
    """

    table: GammaRatioTable
    flat: Tensor
    y: Tensor
    shares: Tensor | None


def tile_of(
    family: Family,
    predictors: Sequence[Tensor],
    y: Tensor,
    zeros: Tensor | None = None,
    small: SmallCounts | None = None,
) -> Terms:
    """Return the terms of a tile, with what small counts add through a size that differs by cell.

    Parameters
    ----------
    family : Family
    predictors, y, zeros
        As for its :meth:`~sc_glm._likelihood.family.Family.tile`.
    small : SmallCounts, optional
        Counts of the tile, other than zeros and ones, where the size differs between its cells.
        Then what is linear in the log size is added for all counts, and for these the rest.
    """
    terms = family.tile(predictors, y, zeros)
    if small is None:
        return terms
    terms.score[1].add_(y)
    if len(small.y):  # in single precision the table knows none
        rho = predictors[1].view(-1).index_select(0, small.flat)
        add_gamma_ratios(terms, small.flat, small.table.gamma_ratio(small.y, rho), small.shares)
    return terms


def add_gamma_ratios(
    terms: Terms, flat: Tensor, gamma_ratios: GammaRatio, shares: Tensor | None
) -> None:
    """Add to the terms of a tile what some counts add, in ``flat`` places, times their shares."""
    through_size = terms.value, terms.score[1], terms.hessian[len(terms.score)]
    for sums, own in zip(through_size, gamma_ratios, strict=True):
        sums.view(-1).scatter_add_(0, flat, own if shares is None else own.mul_(shares))
