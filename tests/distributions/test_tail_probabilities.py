import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm.distributions import NB, ZINB
from sc_glm.distributions.tail_probabilities import lower_tail, tails
from tests.exact_probabilities import exact_tails


@pytest.mark.parametrize(
    ("k", "mu", "r"),
    [
        (0, 1e-12, 1.0),
        (3, 1e-6, 1e12),
        (2, 18.5, 2.3e9),
        (700, 10.0, 3.0),
        (5, 900.0, 1e12),
        (90, 200.0, 50.0),
        (400, 328.0, 5e9),
        (0, 1e9, 1e-8),
        (10, 1e5, 1e-3),
        (1100, 73.5, 57.0),
    ],
)
def test_tails_against_sums(k, mu, r):
    with mpmath.workdps(50):
        lower, upper = exact_tails(k, mu, r)
        cdf, sf = float(lower), float(upper)
    dist = NB(mu, r)
    assert_allclose(dist.cdf(k), cdf, rtol=1e-11)
    assert_allclose(dist.sf(k), sf, rtol=1e-11)
    with mpmath.workdps(50):
        log_cdf, log_sf = (
            float(mpmath.log1p(-b) if b < 0.5 else mpmath.log(a))
            for a, b in ((lower, upper), (upper, lower))
        )
    assert_allclose(dist.logcdf(k), log_cdf, rtol=1e-11)
    assert_allclose(dist.logsf(k), log_sf, rtol=1e-11)


@pytest.mark.parametrize(
    ("k", "mu", "r"),
    [
        (5000, 20.0, 5.0),
        (5000, 1.0, 1e12),
        (1000, 0.01, 1e3),
        (300, 4000.0, 1e12),
        (20, 2e4, 300.0),
    ],
)
def test_log_tails_beyond_underflow(k, mu, r):
    dist = NB(mu, r)
    with mpmath.workdps(50):
        lower, upper = exact_tails(k, mu, r)
        expected = float(mpmath.log(min(lower, upper)))
    far, near = (dist.logcdf, dist.logsf) if k < mu else (dist.logsf, dist.logcdf)
    assert expected < -600
    assert_allclose(far(k), expected, rtol=1e-11)
    assert near(k) == 0
    assert_allclose(ZINB(mu, r, 0.0).logcdf(k), dist.logcdf(k), rtol=1e-15)
    assert_allclose(ZINB(mu, r, 0.25).logsf(k), dist.logsf(k) + np.log(0.75), rtol=1e-12)


@pytest.mark.parametrize("k", [0, 1, 5, 300])
def test_log_tails_are_continuous_where_tails_underflow(k):
    # Along the mean, the tail passes from one method to the other.
    mu = np.geomspace(400.0, 2500.0, 400) + k
    for dist in (NB(mu, np.inf), NB(mu, 1e12), NB(mu, 1e4)):
        slope = np.gradient(dist.logcdf(k), mu)
        assert_allclose(slope[1:], slope[:-1], atol=0.02)


def test_lower_tails_by_sums_equal_beta_functions():
    rng = np.random.default_rng(0)
    mu, r = 10 ** rng.uniform(-8, 4, 4000), 10 ** rng.uniform(-4, 14, 4000)
    r[::50] = np.inf
    k = np.floor(mu * rng.uniform(0, 3, 4000)) + rng.integers(0, 3, 4000)
    expected = tails(k, mu, r)[0]
    assert_allclose(lower_tail(k, mu, r), expected, rtol=1e-10, atol=1e-250)
