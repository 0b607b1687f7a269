"""Expected distances of negative binomial counts, elementwise.

The continuous ranked probability score consists of the expected distance of a count from the
observed one, and half the expected distance of two independent counts. All functions take and
return 1-D arrays of one length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sc_glm.distributions.log_mass import POISSON_SIZE
from sc_glm.distributions.tail_probabilities import tails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]


def mean_distance(y: FloatArray, mu: FloatArray, r: FloatArray) -> FloatArray:
    """Return E|X - y| of the negative binomial.

    The partial expectation is ``E[X; X > k] = mu P(X* >= k)``. Here ``X*`` has the size ``r + 1``
    and the same probability of success, thus the mean ``mu (r + 1) / r``.
    """
    value = mu + np.abs(y)  # for y <= 0
    above = y > 0
    y, mu, r = y[above], mu[above], r[above]
    k = np.floor(y)
    at_least_k = np.where(k > 0, tails(np.maximum(k - 1, 0), mu + mu / r, r + 1)[1], 1.0)
    value[above] = y - mu + 2 * (mu * at_least_k - y * tails(k, mu, r)[1])
    return value


def half_mean_difference(mu: FloatArray, r: FloatArray) -> FloatArray:
    r"""Return E|X - X'| / 2 of the negative binomial.

    For integers ``|d| = (1/2pi) \int (1 - cos d t) / (1 - cos t) dt``. Thus the expectation is an
    integral of the squared modulus of the characteristic function. Integration by parts with
    ``s = tan(t / 2)`` and ``v = mu / r (1 + mu / r)`` gives

    .. math:: \frac{4 r v}{\pi} \int_0^\infty
        \left(1 + \frac{4 v s^2}{1 + s^2}\right)^{-r-1} \frac{ds}{(1 + s^2)^2}.

    With ``s = c sinh(x)`` the integrand is even and analytic for ``|Im x| < pi / 2``. The
    trapezoidal rule then converges geometrically.
    """
    r = np.minimum(r, POISSON_SIZE)
    rv = mu * (1 + mu / r)
    four_v = 4 * rv / r
    c = 1 / np.sqrt(1 + four_v + 4 * rv)
    # Bounds beyond which the integrand is negligible. It decreases like exp(-3x) where s > 1. Where
    # s < 1 it decreases at least like exp(-(2r+1)x), if it becomes negligible there.
    last = np.arcsinh(1 / c) + 13
    is_steep = (r + 1) * np.log1p(four_v / 2) > 40
    last[is_steep] = np.minimum(last[is_steep], 18 / (r[is_steep] + 0.5) + 3)
    step = 1 / 7
    total = np.full_like(mu, 0.5)
    for n in range(1, int(last.max(initial=0.0) / step) + 1):
        x = n * step
        s2 = (c * np.sinh(x)) ** 2
        weight = np.cosh(x) / (1 + s2) ** 2
        total += weight * np.exp(-(r + 1) * np.log1p(four_v * s2 / (1 + s2)))
    return 4 / np.pi * rv * c * step * total
