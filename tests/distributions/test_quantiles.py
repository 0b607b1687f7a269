import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy import stats

from sc_glm.distributions import NB, ZINB
from tests.exact_probabilities import exact_tails

EXTREMES = st.tuples(st.floats(-12, 9).map(lambda x: 10**x), st.floats(-8, 12).map(lambda x: 10**x))


@pytest.mark.parametrize(
    ("k", "mu", "r"),
    [
        (0, 1e-12, 1e12),
        (2, 18.5, 2.3e9),
        (90, 200.0, 50.0),
        (400, 328.0, 5e9),
        (1100, 73.5, 57.0),
    ],
)
@pytest.mark.parametrize("pi", [0.0, 1e-12, 0.3])
def test_quantiles_are_exact_on_either_side_of_a_step(k, mu, r, pi):
    with mpmath.workdps(50):
        lower, upper = exact_tails(k, mu, r)
        cdf, sf = float(pi + (1 - mpmath.mpf(pi)) * lower), float((1 - mpmath.mpf(pi)) * upper)
    dist = ZINB(mu, r, pi) if pi else NB(mu, r)
    if cdf < 0.9:
        assert_array_equal(dist.ppf([cdf * (1 - 1e-11), cdf * (1 + 1e-11)]), [k, k + 1])
    if sf < 0.9:
        assert_array_equal(dist.isf([sf * (1 + 1e-11), sf * (1 - 1e-11)]), [k, k + 1])
    assert min(cdf, sf) < 0.9


@pytest.mark.parametrize("q", [-0.1, 0, 1e-12, 1 - 1e-12, 1, 1.1, np.nan])
def test_extreme_quantiles_as_in_scipy(q):
    dist, scipy_dist = NB(3.0, 2.0), stats.nbinom(2.0, 0.4)
    assert_array_equal(dist.ppf(q), scipy_dist.ppf(q))
    assert_array_equal(dist.isf(q), scipy_dist.isf(q))


@settings(max_examples=200, deadline=None)
@given(EXTREMES, st.sampled_from([0.0, 0.3, 0.999]), st.floats(1e-12, 1, exclude_max=True))
def test_quantiles_are_the_smallest_counts_that_reach_a_probability(params, pi, q):
    dist = ZINB(*params, pi) if pi else NB(*params)
    k = dist.ppf(q)
    assert dist.cdf(k) >= q
    if 0 < k < 2**52:
        assert dist.cdf(k - 1) < q
    k = dist.isf(q)
    assert dist.sf(k) <= q
    if 0 < k < 2**52:
        assert dist.sf(k - 1) > q


@settings(max_examples=100, deadline=None)
@given(st.floats(0.01, 1e4), st.floats(0.01, 1e12), st.integers(0, 10_000))
def test_quantile_inverts_the_distribution_function(mu, r, k):
    dist = NB(mu, r)
    cdf = dist.cdf(k)
    if dist.pmf(k) > 1e-12 * cdf and 0 < cdf < 1:
        assert dist.ppf(cdf) == k
