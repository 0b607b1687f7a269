"""Random counts against the distribution, in each of the ways in which they are drawn."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm.distributions import NB, ZINB
from sc_glm.distributions.random_variates import LARGEST_RATE, negative_binomial

N = 50_000

# Both sides of the mean from which a gamma rate is drawn, which is 2.
MEANS = [1e-3, 0.1, 0.9, 1.99, 2.0, 9.0, 1e3, 1e5]
SIZES = [1e-3, 0.05, 0.7, 4.0, 300.0, 1e12, np.inf]


def draws_of(mu, r, seed=0, n=N):
    rng = np.random.default_rng(seed)
    return negative_binomial(rng, np.full(n, float(mu)), np.full(n, float(r)))


def p_value(draws, dist):
    """Chi-square over cells between quantiles of the counts and, finer, of the positive ones."""
    zero = dist.prob_zero()
    levels = np.append(np.linspace(0.05, 0.95, 19), zero + (1 - zero) * np.linspace(0.1, 0.9, 9))
    ends = np.unique(dist.ppf(np.append(levels, zero)))
    mass = np.diff(np.concatenate([[0.0], dist.cdf(ends), [1.0]]))
    observed = np.bincount(np.searchsorted(ends, draws), minlength=len(mass))
    while len(mass) > 2 and mass.min() * len(draws) < 10:
        i = int(mass.argmin())
        j = i - 1 if i else 1
        for cells in (mass, observed):
            cells[j] += cells[i]
        mass, observed = np.delete(mass, i), np.delete(observed, i)
    assert mass.min() * len(draws) >= 10, "no test of this distribution with so few draws"
    return stats.chisquare(observed, len(draws) * mass / mass.sum()).pvalue


@pytest.mark.parametrize("r", SIZES)
@pytest.mark.parametrize("mu", MEANS)
def test_counts_follow_the_mass(mu, r):
    assert p_value(draws_of(mu, r), NB(mu, r)) > 1e-4


@pytest.mark.parametrize("pi", [1e-3, 0.4, 0.998])
@pytest.mark.parametrize(("mu", "r"), [(0.6, 0.5), (1.5, np.inf), (40.0, 1.2)])
def test_zero_inflated_counts_follow_the_mass(mu, r, pi):
    dist = ZINB(mu, r, pi)
    assert p_value(dist.rvs(N, np.random.default_rng(0)), dist) > 1e-4


@pytest.mark.parametrize("mu", [0.5, 8.0])
def test_the_older_generator_draws_the_same_distribution(mu):
    dist = NB(mu, 0.8)
    assert p_value(dist.rvs(N, np.random.RandomState(0)), dist) > 1e-4


@pytest.mark.parametrize("other", [NB(1.05, 0.5), NB(1.0, 0.55), ZINB(1.05, 0.5, 0.05)])
def test_the_test_detects_a_slightly_different_distribution(other):
    assert p_value(draws_of(1.0, 0.5), other) < 1e-4


@pytest.mark.parametrize("r", [0.3, 5.0, np.inf])
@pytest.mark.parametrize("mu", [0.02, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("pi", [0.0, 0.3, 0.9])
def test_moments_and_zeros(mu, r, pi):
    dist = ZINB(mu, r, pi)
    draws = dist.rvs(N, np.random.default_rng(1))
    squares = (draws - dist.mean()) ** 2
    assert abs(draws.mean() - dist.mean()) < 5 * dist.std() / np.sqrt(N)
    assert abs(squares.mean() - dist.var()) < 5 * squares.std() / np.sqrt(N)
    zero = dist.prob_zero()
    # A share that is next to none, or next to all, is off by a few draws at most.
    assert abs((draws == 0).mean() - zero) < 5 * np.sqrt(zero * (1 - zero) / N) + 3 / N


def test_rare_counts_have_their_probability():
    for mu in (1e-4, 1e-6):
        n = int(400 / mu**0.5)
        mean = n * mu
        total = draws_of(mu, 2.0, n=n).sum()
        assert abs(total - mean) < 5 * np.sqrt(mean) + 1


def test_each_count_has_its_own_mean_and_size():
    mu, r = np.array([0.0, 0.5, 1.9, 7.0, 900.0]), np.array([1.0, 0.2, np.inf, 0.5, 30.0])
    dist, n = NB(mu, r), 20_000
    rng = np.random.default_rng(0)
    draws = negative_binomial(rng, np.tile(mu, n), np.tile(r, n)).reshape(n, -1)
    error = dist.std() / np.sqrt(n)
    assert (np.abs(draws.mean(axis=0) - dist.mean()) <= 5 * error).all()
    assert_array_equal(draws[:, 0], 0)
    correlation = np.corrcoef(draws[:, 1:].T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("r", [5e-324, 1e-300, 1e-8])
@pytest.mark.parametrize("mu", [5e-324, 1.0, 1e20])
def test_the_smallest_sizes_give_zeros(mu, r):
    assert_array_equal(draws_of(mu, r, n=1000), 0)


def test_counts_that_exceed_64_bits_are_the_largest():
    assert_allclose(draws_of(1e300, 1.0, n=1000), LARGEST_RATE, rtol=1e-6)
    assert draws_of(1e17, 2.0, n=1000).max() < LARGEST_RATE


def test_no_draws():
    assert negative_binomial(np.random.default_rng(0), np.empty(0), np.empty(0)).shape == (0,)


def test_parameters_are_not_changed():
    mu, r = np.full(50, 1.5), np.full(50, np.inf)
    negative_binomial(np.random.default_rng(0), mu, r)
    assert_array_equal(mu, 1.5)
    assert_array_equal(r, np.inf)
