"""Sums of log gamma ratios of many counts, as one piecewise polynomial of the log size.

Where many similar cells are merged, a gene may have many different counts among them. The sum of
what they add to the log-mass is one smooth function of the log size. It need not be exact to screen
candidate starts. The cost of a pass over piecewise polynomials does not depend on the number of
counts.
"""

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from sc_glm._likelihood.family import LARGEST_LOG_SIZE, GammaRatio, gamma_ratio, positive_counts

# Nodes are whole numbers between these log sizes; neighbouring polynomials agree in value and two
# derivatives there. Beyond them, the second derivative decays exponentially, as do the next terms
# of the expansions in the size and in its inverse.
_FIRST_NODE, _LAST_NODE = -6, 14
_INTERVALS = _LAST_NODE - _FIRST_NODE
_COEFFICIENTS = 6  # of a quintic polynomial


class GammaRatioCurves:
    """Curves of many sets of counts, such as those of a gene in a merged cell.

    Parameters
    ----------
    numbers : ndarray of int of shape (n_counts,)
        The number of the curve that each count belongs to.
    y, shares : ndarray of shape (n_counts,)
        Positive counts, and their weights in the sums.
    n_curves : int
    device : torch.device
        The device on which the curves are evaluated.
    """

    def __init__(
        self,
        numbers: NDArray[np.int64],
        y: NDArray[np.float64],
        shares: NDArray[np.float64],
        n_curves: int,
        device: torch.device,
    ) -> None:
        distinct, which = np.unique(y, return_inverse=True)
        counts = sp.csr_array((shares, (numbers, which)), shape=(n_curves, len(distinct)))
        curves = counts @ _quintic_coefficients(torch.from_numpy(distinct)).flatten(1).numpy()
        self._coefficients = torch.from_numpy(curves).to(device).view(-1, _COEFFICIENTS)

    def gamma_ratio(self, positions: Tensor, rho: Tensor) -> GammaRatio:
        """Evaluate curves at log sizes, without the term that is linear in the log size.

        Parameters
        ----------
        positions : Tensor of int of shape (n,)
            The numbers of the curves.
        rho : Tensor of shape (n,)
            A log size for each of them.

        Returns
        -------
        GammaRatio
            Value and derivatives as in :func:`~sc_glm._likelihood.family.gamma_ratio`. The sum of
            the counts is missing in ``first``.
        """
        clamped = rho.clamp(_FIRST_NODE, _LAST_NODE)
        position = clamped - _FIRST_NODE
        interval = position.floor().clamp_max_(_INTERVALS - 1)
        t = position.sub_(interval)
        rows = positions.mul(_INTERVALS).add_(interval.long())
        *others, value = self._coefficients.index_select(0, rows).unbind(1)
        first, second = torch.zeros_like(t), torch.zeros_like(t)
        for coefficient in reversed(others):
            second = torch.addcmul(first, second, t)
            first = torch.addcmul(value, first, t)
            value = torch.addcmul(coefficient, value, t)
        second.mul_(2)
        excess = rho.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE) - clamped
        decay = excess.abs().neg_().expm1_()  # exp(-distance) - 1
        value.addcmul_(first, excess).addcmul_(second, decay + excess.abs())
        first.addcmul_(second, decay * excess.sign(), value=-1)
        return GammaRatio(value, first, second.addcmul_(second, decay))


def _quintic_coefficients(y: Tensor) -> Tensor:
    """Return Hermite interpolants of single counts: counts x intervals x ascending powers."""
    nodes = torch.arange(_FIRST_NODE, _LAST_NODE + 1).to(y)
    counts = positive_counts(y.repeat_interleave(len(nodes)))
    value, first, second = (
        x.view(len(y), len(nodes)) for x in gamma_ratio(counts, nodes.repeat(len(y)))
    )
    first = first - y[:, None]
    half = 0.5 * second
    value_error = value.diff() - first[:, :-1] - half[:, :-1]
    first_error = first.diff() - second[:, :-1]
    second_error = second.diff()
    return torch.stack(
        [
            value[:, :-1],
            first[:, :-1],
            half[:, :-1],
            10 * value_error - 4 * first_error + 0.5 * second_error,
            -15 * value_error + 7 * first_error - second_error,
            6 * value_error - 3 * first_error + 0.5 * second_error,
        ],
        2,
    )
