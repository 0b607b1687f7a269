"""What small counts add to the log-mass through the size, from a table.

Where the size differs by cell, each positive count takes two sets of gamma functions. But for the
counts 1, 2, ... these are smooth functions of the size, the same for all genes: polynomials on
short intervals of its logarithm give them at a quarter of the cost. For large sizes it is one
polynomial in the inverse of the size, as the derivatives vanish with that.
"""

from functools import cache

import torch
from torch import Tensor

from sc_glm.family import LARGEST_LOG_SIZE, Rise, positive_counts, rise

LARGEST_COUNT = 64
_LOWEST = -24.0  # of the log size, below which the function is linear
_WIDTH = 0.5
_INTERVALS = 59
_HIGHEST = _LOWEST + _WIDTH * _INTERVALS
_DEGREE = 8  # singularities are pi away from the real line, 13 half-widths of an interval


class RiseTable:
    """Polynomials for the counts from 1 to ``LARGEST_COUNT``.

    Attributes
    ----------
    coefficients : list of Tensor of shape (n_counts * (n_intervals + 1),)
        Of the powers, in ascending order, of the place in an interval from -1 to 1. The last
        interval is that of the inverse size.
    """

    def __init__(self, device: torch.device) -> None:
        powers = torch.arange(_DEGREE + 1).double()
        nodes = torch.cos(torch.pi * (powers + 0.5) / (_DEGREE + 1))
        begins = _LOWEST + _WIDTH * torch.arange(_INTERVALS).double()
        small = begins[:, None] + 0.5 * _WIDTH * (nodes + 1)
        large = _HIGHEST - (0.5 * (nodes + 1)).log()
        rho = torch.cat([small, large[None]]).flatten().repeat(LARGEST_COUNT)
        y = torch.arange(1, LARGEST_COUNT + 1).double()
        counts = positive_counts(y.repeat_interleave(len(rho) // LARGEST_COUNT))
        value = rise(counts, rho).value
        solved = torch.linalg.solve(nodes[:, None] ** powers, value.view(-1, _DEGREE + 1).mT)
        self.coefficients = [row.contiguous().to(device) for row in solved]

    @classmethod
    @cache
    def on(cls, device: torch.device) -> "RiseTable":
        """Return the table on a device; it is computed once."""
        return cls(device)

    def rise(self, y: Tensor, rho: Tensor) -> Rise:
        """Return what counts of at most ``LARGEST_COUNT`` add.

        Parameters
        ----------
        y : Tensor of shape (n_counts,)
            Whole numbers.
        rho : Tensor of shape (n_counts,)
            Log size.

        Returns
        -------
        Rise
        """
        inside = rho.clamp_min(_LOWEST)
        place = (inside - _LOWEST).mul_(1 / _WIDTH)
        interval = place.floor().clamp_max_(_INTERVALS)
        is_large = interval == _INTERVALS
        inverse = (_HIGHEST - inside).exp_().mul_(2)  # inverse size, from 0 to 2
        t = torch.where(is_large, inverse, place.sub_(interval).mul_(2)).sub_(1)
        # Derivatives of t in rho
        slope = torch.where(is_large, -inverse, 2 / _WIDTH)
        bend = torch.where(is_large, inverse, 0.0)
        index = (y - 1).mul_(_INTERVALS + 1).add_(interval).long()
        *others, value = (row.index_select(0, index) for row in self.coefficients)
        first, half_second = torch.zeros_like(t), torch.zeros_like(t)
        for coefficient in reversed(others):
            half_second = torch.addcmul(first, half_second, t)
            first = torch.addcmul(value, first, t)
            value = torch.addcmul(coefficient, value, t)
        second = (first * bend).addcmul_(half_second.mul_(slope), slope, value=2)
        first *= slope
        value.addcmul_(1 - y, rho.clamp_min(-LARGEST_LOG_SIZE) - inside)
        return Rise(value, first.add_(y), second)
