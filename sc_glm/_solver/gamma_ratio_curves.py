"""What the counts of similar cells add to the log-mass through their size, as one curve.

Where many cells share a predictor, a gene may have many different counts among them. What all these
add is one smooth function of the log size. To tell starts apart it need not be exact: piecewise
polynomials make a pass cost the same however many counts there are.
"""

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from sc_glm._likelihood.family import LARGEST_LOG_SIZE, GammaRatio, gamma_ratio, positive_counts

# Between these log sizes polynomials meet at whole numbers, with two derivatives. Beyond, the
# second derivative falls like an exponential: so do the next terms in the size or its inverse.
_LOWEST, _HIGHEST = -6, 14
_INTERVALS = _HIGHEST - _LOWEST
_COEFFICIENTS = 6


class GammaRatioCurves:
    """Curves of many places, each with some counts.

    Parameters
    ----------
    places : ndarray of int of shape (n_counts,)
        Where each count is.
    y, shares : ndarray of shape (n_counts,)
        Positive counts, and what each is multiplied by.
    n_places : int
    device : torch.device
        Where the curves are asked for.
    """

    def __init__(
        self,
        places: NDArray[np.int64],
        y: NDArray[np.float64],
        shares: NDArray[np.float64],
        n_places: int,
        device: torch.device,
    ) -> None:
        distinct, which = np.unique(y, return_inverse=True)
        counts = sp.csr_array((shares, (places, which)), shape=(n_places, len(distinct)))
        curves = counts @ _curves_of(torch.from_numpy(distinct)).flatten(1).numpy()
        self._coefficients = torch.from_numpy(curves).to(device).view(-1, _COEFFICIENTS)

    def gamma_ratio(self, places: Tensor, rho: Tensor) -> GammaRatio:
        """Return what is added in some places, less what is linear in the log size.

        Parameters
        ----------
        places : Tensor of int of shape (n,)
        rho : Tensor of shape (n,)
            Log size of each.

        Returns
        -------
        GammaRatio
            As :func:`~sc_glm._likelihood.family.gamma_ratio`, but that the sum of the counts is
            missing in ``first``.
        """
        inside = rho.clamp(_LOWEST, _HIGHEST)
        place = inside - _LOWEST
        interval = place.floor().clamp_max_(_INTERVALS - 1)
        t = place.sub_(interval)
        rows = places.mul(_INTERVALS).add_(interval.long())
        *others, value = self._coefficients.index_select(0, rows).unbind(1)
        first, second = torch.zeros_like(t), torch.zeros_like(t)
        for coefficient in reversed(others):
            second = torch.addcmul(first, second, t)
            first = torch.addcmul(value, first, t)
            value = torch.addcmul(coefficient, value, t)
        second.mul_(2)
        beyond = rho.clamp(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE) - inside
        less = beyond.abs().neg_().expm1_()  # exp(-distance) - 1
        value.addcmul_(first, beyond).addcmul_(second, less + beyond.abs())
        first.addcmul_(second, less * beyond.sign(), value=-1)
        return GammaRatio(value, first, second.addcmul_(second, less))


def _curves_of(y: Tensor) -> Tensor:
    """Return the polynomials of single counts: counts x intervals x powers in ascending order."""
    nodes = torch.arange(_LOWEST, _HIGHEST + 1).to(y)
    counts = positive_counts(y.repeat_interleave(len(nodes)))
    value, first, second = (
        x.view(len(y), len(nodes)) for x in gamma_ratio(counts, nodes.repeat(len(y)))
    )
    first = first - y[:, None]
    half = 0.5 * second
    rise_of = value.diff() - first[:, :-1] - half[:, :-1]
    slope = first.diff() - second[:, :-1]
    bend = second.diff()
    return torch.stack(
        [
            value[:, :-1],
            first[:, :-1],
            half[:, :-1],
            10 * rise_of - 4 * slope + 0.5 * bend,
            -15 * rise_of + 7 * slope - bend,
            6 * rise_of - 3 * slope + 0.5 * bend,
        ],
        2,
    )
