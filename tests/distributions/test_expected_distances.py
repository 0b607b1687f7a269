import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm.distributions import NB, ZINB


@pytest.mark.parametrize(
    ("mu", "r"),
    [
        *itertools.product([1e-6, 0.2, 5.0, 300.0], [0.1, 1.0, 50.0, 1e6, np.inf]),
        (1e-6, 1e-8),
        (5.0, 0.01),
        (2e4, 50.0),
        (1e5, 1e5),
        (1e5, np.inf),
    ],
)
@pytest.mark.parametrize("pi", [0.0, 0.3])
def test_crps_is_the_sum_of_squared_errors(mu, r, pi):
    dist = ZINB(mu, r, pi) if pi else NB(mu, r)
    y = np.array([0, 1, np.floor(mu), np.floor(3 * mu) + 2])
    k = np.arange(max(dist.isf(1e-12), y.max()) + 1)
    cdf = dist.cdf(k)
    expected = [((cdf - (k >= count)) ** 2).sum() for count in y]
    assert_allclose(dist.crps(y), expected, rtol=1e-9, atol=1e-10)


def test_crps_of_fractions():
    dist, y = NB(0.8, 2.0), np.array([0.25, 0.75, 2.5])
    x = (np.arange(400_000) + 0.5) / 8000
    cdf = dist.cdf(x)
    expected = [((cdf - (x >= count)) ** 2).sum() / 8000 for count in y]
    assert_allclose(dist.crps(y), expected, rtol=1e-8)
