"""A table of the gamma ratios of small counts, for sizes that differ between cells.

Each positive count needs two sets of gamma functions if the size differs between cells. For the
counts 1, 2, ... they are smooth functions of the size, the same for all genes. Polynomials on short
intervals of the log size compute them at a fifth of the cost. For large sizes, the polynomials are
in the inverse of the size, with which the derivatives vanish.
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

MAX_TABULATED_COUNT = 64  # largest count in the table

# Log sizes of the table. Below the lower limit, the function is linear. Above the upper limit, the
# polynomials are in the inverse of the size.
_LOWEST = -24.0
_INVERSE_FROM = 5.5

# Width of an interval in the log size, and degree of its polynomial. Singularities are pi away from
# the real line, which is 25 half-widths of an interval.
_WIDTH = 0.25
_DEGREE = 7

# The inverse size, relative to its value at the upper limit, decreases from one to zero. Its
# intervals have the same width.
_FIRST_OF_INVERSE = round((_INVERSE_FROM - _LOWEST) / _WIDTH)
_INTERVALS = _FIRST_OF_INVERSE + round(1 / _WIDTH)


class GammaRatioTable:
    """Piecewise polynomials for the gamma ratios of counts from 1 to ``MAX_TABULATED_COUNT``.

    Parameters
    ----------
    device : torch.device
        Device of the table.

    Attributes
    ----------
    coefficients : Tensor of shape (degree + 1, (n_counts + 1) * n_intervals)
        Coefficients of ascending powers of the position in an interval, from -1/2 to 1/2. The
        coefficients of a count of zero are zero.
    """

    def __init__(self, device: torch.device) -> None:
        powers = torch.arange(_DEGREE + 1).double()
        nodes = 0.5 * torch.cos(torch.pi * (powers + 0.5) / (_DEGREE + 1))
        centres = _WIDTH * (torch.arange(_INTERVALS).double() + 0.5) + _LOWEST
        x = centres[:, None] + _WIDTH * nodes
        rho = x.clamp_max(_INVERSE_FROM) - (1 - (x - _INVERSE_FROM).clamp_min(0)).log()
        y = torch.arange(1, MAX_TABULATED_COUNT + 1).double()
        counts = positive_counts(y.repeat_interleave(rho.numel()))
        value = gamma_ratio(counts, rho.flatten().repeat(MAX_TABULATED_COUNT)).value
        solved = torch.linalg.solve(nodes[:, None] ** powers, value.view(-1, _DEGREE + 1).mT)
        self.coefficients = torch.nn.functional.pad(solved, (_INTERVALS, 0)).to(device)

    @classmethod
    @cache
    def on(cls, device: torch.device) -> "GammaRatioTable":
        """Return the table on a device; it is computed once."""
        return cls(device)

    def gamma_ratio(self, y: Tensor, rho: Tensor) -> GammaRatio:
        """Return the gamma ratios of counts of at most ``MAX_TABULATED_COUNT``.

        Parameters
        ----------
        y : Tensor of shape (n_counts,)
            Whole numbers from 1 to ``MAX_TABULATED_COUNT``.
        rho : Tensor of shape (n_counts,)
            Log sizes.

        Returns
        -------
        GammaRatio
            Gamma ratios, of shape (n_counts,). The first derivative lacks a summand: the count.
        """
        bounded = rho.clamp_min(_LOWEST)
        # The inverse size relative to its value at _INVERSE_FROM; one for smaller sizes
        inverse = (_INVERSE_FROM - bounded).clamp_max_(0.0).exp_()
        position = (
            bounded.clamp_max(_INVERSE_FROM)
            .sub_(inverse)
            .sub_(_LOWEST - 1)
            .mul_(1 / _WIDTH)
            .sub_(0.5)
        )
        interval = position.round().clamp_max_(_INTERVALS - 1)
        t = position.sub_(interval)
        uses_inverse = interval >= _FIRST_OF_INVERSE
        index = interval.add_(y, alpha=_INTERVALS).long()
        *others, last_but_one, last = (
            row.index_select(0, index) for row in self.coefficients.unbind()
        )
        value, first, half_second = torch.addcmul(last_but_one, last, t), last, torch.zeros_like(t)
        for coefficient in reversed(others):
            half_second = torch.addcmul(first, half_second, t)
            first = first.mul_(t).add_(value)
            value = value.mul_(t).add_(coefficient)
        slope = inverse.mul_(1 / _WIDTH)  # dt/drho; its derivative is minus itself, or zero
        first *= slope
        change_of_slope = torch.where(uses_inverse, first, 0.0)
        second = half_second.mul_(2).mul_(slope).mul_(slope).sub_(change_of_slope)
        value.addcmul_(1 - y, rho.clamp_min(-LARGEST_LOG_SIZE) - bounded)
        return GammaRatio(value, first, second)


class SmallCounts(NamedTuple):
    """Counts of a tile whose gamma ratios are in the table.

    Attributes
    ----------
    table : GammaRatioTable
        The table.
    flat : Tensor of int of shape (n_counts,)
        Positions of the counts in the flat tile of genes x cells.
    y : Tensor of shape (n_counts,)
        The counts.
    shares : Tensor of shape (n_counts,) or None
        Share of each count in its cell's weight; None means one.
    """

    table: GammaRatioTable
    flat: Tensor
    y: Tensor
    shares: Tensor | None


def tile_terms(
    family: Family,
    predictors: Sequence[Tensor],
    y: Tensor,
    zeros: Tensor | None = None,
    small: SmallCounts | None = None,
) -> Terms:
    """Return the terms of a tile, with the gamma ratios of small counts.

    Parameters
    ----------
    family : Family
        Distribution of the counts.
    predictors : sequence of Tensor of shape (n_genes, n_cells)
        Linear predictors. The predictor of the mean is overwritten. Other predictors may have one
        column for all cells.
    y : Tensor of shape (n_genes, n_cells)
        Counts, or the mean count of the cells of an entry.
    zeros : Tensor of shape (n_genes, n_cells), optional
        Share of zeros among the cells of an entry. By default, an entry is one cell.
    small : SmallCounts, optional
        Small counts of the tile except zeros and ones, if the size differs between cells. Then the
        linear part of the gamma ratio is added for all counts, and the rest for these.
    """
    terms = family.tile(predictors, y, zeros)
    if small is None:
        return terms
    terms.score[1].add_(y)
    if len(small.y):
        rho = predictors[1].view(-1).index_select(0, small.flat)
        add_gamma_ratios(terms, small.flat, small.table.gamma_ratio(small.y, rho), small.shares)
    return terms


def size_terms(terms: Terms) -> tuple[Tensor, Tensor, Tensor]:
    """Return the value, and its first and second derivative in the log size."""
    return terms.value, terms.score[1], terms.hessian[len(terms.score)]


def add_gamma_ratios(
    terms: Terms, flat: Tensor, gamma_ratios: GammaRatio, shares: Tensor | None
) -> None:
    """Add gamma ratios of counts, times their shares, at positions of the flat tile."""
    for target, values in zip(size_terms(terms), gamma_ratios, strict=True):
        target.view(-1).scatter_add_(0, flat, values if shares is None else values.mul_(shares))
