import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm.distributions import NB, ZINB

DOC = Path(__file__).parents[2] / "doc"
EXTREMES = st.tuples(st.floats(-12, 9).map(lambda x: 10**x), st.floats(-8, 12).map(lambda x: 10**x))


@pytest.fixture
def moderate():
    rng = np.random.default_rng(0)
    mu, r = rng.gamma(1.0, 10.0, size=(40, 6)), rng.gamma(1.0, 2.0, size=6)
    return NB(mu, r), stats.nbinom(r, r / (r + mu))


@settings(max_examples=200, deadline=None)
@given(EXTREMES, st.floats(0, 6).map(lambda x: np.floor(10**x) - 1), st.floats(0, 1))
def test_extreme_parameters_give_probabilities(params, k, pi):
    for dist in (NB(*params), ZINB(*params, pi)):
        assert np.isfinite(dist.logpmf(k)) or (pi == 1 and k > 0)
        assert dist.logpmf(k) <= 1e-12
        assert_allclose(dist.cdf(k) + dist.sf(k), 1, rtol=1e-12)
        assert dist.cdf(k) >= dist.cdf(k - 1) - 1e-15
        assert_allclose(np.exp(dist.logcdf(k)), dist.cdf(k), rtol=1e-10, atol=1e-300)
        assert_allclose(np.exp(dist.logsf(k)), dist.sf(k), rtol=1e-10, atol=1e-300)
        assert np.isfinite(dist.crps(k))


def test_agrees_with_scipy(moderate):
    dist, scipy_dist = moderate
    k = dist.rvs(random_state=0)
    for method in ("pmf", "logpmf", "cdf", "sf", "logcdf", "logsf"):
        expected = getattr(scipy_dist, method)(k)
        assert_allclose(getattr(dist, method)(k), expected, rtol=1e-9, atol=1e-11)
    for method in ("mean", "var", "std", "median"):
        assert_allclose(getattr(dist, method)(), getattr(scipy_dist, method)(), rtol=1e-12)
    q = np.random.default_rng(1).random(dist.shape)
    assert_array_equal(dist.ppf(q), scipy_dist.ppf(q))
    assert_array_equal(dist.isf(q), scipy_dist.isf(q))
    assert_array_equal(dist.interval(0.9), scipy_dist.interval(0.9))


@pytest.mark.parametrize("k", [-1, -0.5, 0.5, 2.7, np.inf, -np.inf, np.nan])
def test_unusual_arguments_as_in_scipy(k):
    dist, scipy_dist = NB(3.0, 2.0), stats.nbinom(2.0, 0.4)
    for method in ("cdf", "sf", "logcdf", "logsf"):
        assert_allclose(getattr(dist, method)(k), getattr(scipy_dist, method)(k), rtol=1e-12)
    if k < 0 or np.isinf(k):
        assert dist.logpmf(k) == -np.inf
        assert dist.pmf(k) == 0
        assert dist.unit_deviance(k) == np.inf


def test_infinite_size_is_poisson():
    mu = np.array([1e-12, 0.3, 5.0, 1e4])
    k = np.array([[0.0], [1], [8], [10_100]])
    dist, poisson = NB(mu, np.inf), stats.poisson(mu)
    assert_allclose(dist.logpmf(k), poisson.logpmf(k), rtol=1e-9, atol=1e-12)
    assert_allclose(dist.cdf(k), poisson.cdf(k), rtol=1e-11)
    assert_allclose(dist.sf(k), poisson.sf(k), rtol=1e-11, atol=1e-305)
    assert_allclose(dist.var(), mu)
    assert_array_equal(dist.overdispersion, 0)
    q = np.array([[0.01], [0.5], [0.999]])
    assert_array_equal(dist.ppf(q), poisson.ppf(q))
    draws = dist.rvs((2000, 4), random_state=0)
    assert_allclose(draws.mean(axis=0), mu, atol=5 * np.sqrt(mu.max() / 2000))


def test_huge_sizes_reach_poisson_smoothly():
    k, mu = np.arange(30), 7.0
    assert_allclose(NB(mu, 1e15).cdf(k), NB(mu, np.inf).cdf(k), rtol=1e-12)
    assert_allclose(NB(mu, 1e15).logpmf(k), NB(mu, np.inf).logpmf(k), rtol=1e-12)
    for r in (1e16, 1e20, 1e30, 1e39):
        assert_allclose(NB(mu, r).sf(k), NB(mu, np.inf).sf(k), rtol=1e-12)


def test_mean_of_zero_is_a_point_mass():
    for dist in (NB(0.0, 2.0), NB(0.0, np.inf), ZINB(0.0, 2.0, 0.3), ZINB(5.0, 2.0, 1.0)):
        assert_array_equal(dist.pmf([0, 1, 7]), [1, 0, 0])
        assert_array_equal(dist.cdf([-1, 0, 7]), [0, 1, 1])
        assert_array_equal(dist.logsf([0, 7]), -np.inf)
        assert_array_equal(dist.logcdf([0, 7]), 0)
        assert_array_equal(dist.ppf([0.1, 0.999]), 0)
        assert dist.mean() == dist.var() == 0
        assert_array_equal(dist.rvs(10, random_state=0), 0)
        assert_allclose(dist.crps([0, 3]), [0, 3], atol=1e-15)


def test_no_zero_inflation_is_negative_binomial(moderate):
    dist, _ = moderate
    plain = ZINB(dist.mu, dist.r, 0.0)
    k, q = dist.rvs(random_state=0), np.random.default_rng(0).random(dist.shape)
    for method in ("logpmf", "cdf", "sf", "logcdf", "logsf", "crps"):
        assert_allclose(getattr(plain, method)(k), getattr(dist, method)(k), rtol=1e-12)
    assert_array_equal(plain.ppf(q), dist.ppf(q))
    for method in ("mean", "var", "std", "prob_zero"):
        assert_allclose(getattr(plain, method)(), getattr(dist, method)(), rtol=1e-14)


def test_zero_inflated_moments_are_sums_over_the_mass():
    dist = ZINB([2.0, 9.0], [1.5, 4.0], [0.2, 0.7])
    k = np.arange(2000)[:, None]
    mass = dist.pmf(k)
    mean = (k * mass).sum(axis=0)
    assert_allclose(mass.sum(axis=0), 1)
    assert_allclose(dist.mean(), mean)
    assert_allclose(dist.var(), (k**2 * mass).sum(axis=0) - mean**2)
    assert_allclose(dist.cdf(k), mass.cumsum(axis=0))
    assert_allclose(np.exp(dist.logcdf(k)), mass.cumsum(axis=0))
    assert_array_equal(dist.prob_zero(), mass[0])


@pytest.mark.parametrize("r", [0.05, 2.0, 1e3, 1e12, np.inf])
@pytest.mark.parametrize("pi", [0.0, 0.4])
def test_random_counts_follow_the_mass(r, pi):
    dist = ZINB(3.0, r, pi)
    draws = dist.rvs(20_000, random_state=0)
    last = 6
    observed = np.bincount(np.minimum(draws, last), minlength=last + 1)
    expected = 20_000 * np.append(dist.pmf(np.arange(last)), dist.sf(last - 1))
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert draws.dtype == np.int64


def test_random_counts_of_tiny_sizes():
    assert_array_equal(NB(1.0, [1e-8, 1e-300]).rvs((1000, 2), random_state=0), 0)
    assert NB(1e9, 1e-8).rvs(10, random_state=0).min() >= 0


def test_the_table_of_errors_in_the_documentation(capsys):
    """Its script runs, every function is within the bound, and the page has the same rows."""
    script = runpy.run_path(str(DOC / "benchmarks" / "numerics.py"))
    script["main"](n_random=100)
    rows = table_rows(capsys.readouterr().out)
    documented = table_rows((DOC / "numerics.rst").read_text())
    assert [row[0] for row in rows] == [row[0] for row in documented]
    assert len(rows) == 13 + 17
    for table in (rows, documented):
        for name, points, error, *_ in table:
            assert int(points) > 300, name
            if name.endswith("ppf"):
                assert error == "exact", name
            elif "float32" in name:
                assert float(error) < (1e-4 if "y <=" in name else 0.1), name
            else:
                assert 0 < float(error) <= 1e-9, name


def table_rows(text):
    table = text[text.index("function  ") :].split("\n\n")[0]
    return [re.split(r"  +", line.strip()) for line in table.strip().splitlines()[1:]]
