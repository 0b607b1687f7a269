import itertools
import pickle
import runpy
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm.distributions import NB, ZINB

DOC = Path(__file__).parents[2] / "doc"
SIZES = 10.0 ** np.arange(-8, 13, 4)
MEANS = 10.0 ** np.arange(-12, 10, 3)
COUNTS = np.array([0.0, 1, 2, 7, 40, 1e3, 1e6])
EXTREMES = st.tuples(st.floats(-12, 9).map(lambda x: 10**x), st.floats(-8, 12).map(lambda x: 10**x))


@pytest.fixture
def moderate():
    rng = np.random.default_rng(0)
    mu, r = rng.gamma(1.0, 10.0, size=(40, 6)), rng.gamma(1.0, 2.0, size=6)
    return NB(mu, r), stats.nbinom(r, r / (r + mu))


def exact_log_mass(y, mu, r, pi=None):
    y, mu, r = mpmath.mpf(y), mpmath.mpf(mu), mpmath.mpf(r)
    value = mpmath.loggamma(y + r) - mpmath.loggamma(r) - mpmath.loggamma(y + 1)
    value += r * mpmath.log(r / (r + mu)) + y * mpmath.log(mu / (r + mu))
    if pi is None:
        return value
    pi = mpmath.mpf(pi)
    mass = (1 - pi) * mpmath.exp(value)
    return mpmath.log(pi + mass) if y == 0 else mpmath.log(1 - pi) + value


def exact_tails(k, mu, r):
    """Sum the mass from k down and from k + 1 up until terms are negligible."""
    mu, r = mpmath.mpf(mu), mpmath.mpf(r)
    odds = mu / (r + mu)
    term, lower, j = mpmath.exp(exact_log_mass(k, mu, r)), mpmath.mpf(0), k
    while j >= 0 and term > lower * mpmath.mpf(10) ** -25:
        lower += term
        term *= j / (odds * (r + j - 1)) if j else 0
        j -= 1
    if r < 1:  # too long a sum
        return lower, 1 - lower
    term, upper, j = mpmath.exp(exact_log_mass(k + 1, mu, r)), mpmath.mpf(0), k + 1
    while j <= k + 2 or term > upper * mpmath.mpf(10) ** -25:
        upper += term
        term *= odds * (r + j) / (j + 1)
        j += 1
    return lower, upper


def test_log_mass_against_mpmath():
    y, mu, r = (x.ravel() for x in np.meshgrid(COUNTS, MEANS, SIZES))
    with mpmath.workdps(60):
        expected = [float(exact_log_mass(*entry)) for entry in zip(y, mu, r, strict=True)]
    assert_allclose(NB(mu, r).logpmf(y), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pi", [1e-12, 1e-3, 0.5, 1 - 1e-12])
def test_zero_inflated_log_mass_against_mpmath(pi):
    y, mu, r = (x.ravel() for x in np.meshgrid(COUNTS, MEANS[::2], SIZES[::2]))
    with mpmath.workdps(60):
        expected = [float(exact_log_mass(*entry, pi)) for entry in zip(y, mu, r, strict=True)]
    assert_allclose(ZINB(mu, r, pi).logpmf(y), expected, rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("k", [0, 1, 5, 300])
def test_log_tails_join_where_they_underflow(k):
    # Along the mean, the tail passes from one method to the other.
    mu = np.geomspace(400.0, 2500.0, 400) + k
    for dist in (NB(mu, np.inf), NB(mu, 1e12), NB(mu, 1e4)):
        slope = np.gradient(dist.logcdf(k), mu)
        assert_allclose(slope[1:], slope[:-1], atol=0.02)


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


@pytest.mark.parametrize("q", [-0.1, 0, 1e-12, 1 - 1e-12, 1, 1.1, np.nan])
def test_extreme_quantiles_as_in_scipy(q):
    dist, scipy_dist = NB(3.0, 2.0), stats.nbinom(2.0, 0.4)
    assert_array_equal(dist.ppf(q), scipy_dist.ppf(q))
    assert_array_equal(dist.isf(q), scipy_dist.isf(q))


def test_non_integers_extend_the_mass():
    with mpmath.workdps(40):
        expected = float(exact_log_mass(2.5, 3.0, 2.0))
    assert_allclose(NB(3.0, 2.0).logpmf(2.5), expected, rtol=1e-12)


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


@settings(max_examples=200, deadline=None)
@given(EXTREMES, st.sampled_from([0.0, 0.3, 0.999]), st.floats(1e-12, 1, exclude_max=True))
def test_quantiles_are_where_the_distribution_function_gets_there(params, pi, q):
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


def test_random_counts_are_reproducible():
    dist = ZINB([1.0, 10.0], 2.0, [0.1, 0.5])
    for make in (int, np.random.RandomState, np.random.default_rng):
        assert_array_equal(dist.rvs((5, 2), make(3)), dist.rvs((5, 2), random_state=make(3)))
    np.random.seed(3)  # noqa: NPY002
    expected = dist.rvs()
    np.random.seed(3)  # noqa: NPY002
    assert_array_equal(dist.rvs(), expected)
    assert dist.rvs(random_state=0).shape == (2,)
    assert NB(3.0, 1.0).rvs(random_state=0).shape == ()


def test_random_counts_of_tiny_sizes():
    assert_array_equal(NB(1.0, [1e-8, 1e-300]).rvs((1000, 2), random_state=0), 0)
    assert NB(1e9, 1e-8).rvs(10, random_state=0).min() >= 0


def test_random_counts_that_do_not_fit():
    largest = NB(1e25, 1e12).rvs(5, random_state=0)
    assert_allclose(largest, 9.2e18, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(2,\) do not broadcast to \(3,\)"):
        NB([1.0, 2.0], 1.0).rvs(3)
    with pytest.raises(ValueError, match=r"\(2,\) do not broadcast to \(1,\)"):
        NB([1.0, 2.0], 1.0).rvs(1)


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


def test_unit_deviance_is_from_the_largest_mass_of_any_mean():
    y = np.array([0.0, 1, 5, 200, 2.5])
    for r in (0.1, 3.0, 1e10, np.inf):
        means = np.maximum(y, 1e-300) * np.geomspace(0.5, 2, 101)[:, None]
        best = NB(means, r).logpmf(y).max(axis=0)
        for dist in (NB(2.0, r), ZINB(2.0, r, 0.4)):
            expected = 2 * (best - dist.logpmf(y))
            assert_allclose(dist.unit_deviance(y), expected, rtol=1e-12, atol=1e-14)


def test_unit_deviance_near_the_mean_and_where_a_zero_is_certain():
    mu, r, y = 1000.0, 3.0, 1001.0
    with mpmath.workdps(40):
        expected = float(2 * (exact_log_mass(y, y, r) - exact_log_mass(y, mu, r)))
    assert_allclose(NB(mu, r).unit_deviance(y), expected, rtol=1e-6)
    assert NB(y, r).unit_deviance(y) == 0
    assert_array_equal(ZINB(mu, r, 1.0).unit_deviance([0, 3]), [0, np.inf])


def test_indexing_selects_distributions():
    rng = np.random.default_rng(0)
    mu, r = rng.gamma(1.0, size=(5, 4)), rng.gamma(1.0, size=4)
    pi = rng.random((5, 1))
    dist = ZINB(mu, r, pi)
    zero = dist.prob_zero()
    mask = zero[:, 0] > 0.5
    for key in (2, slice(1, 4), mask, (slice(None), [0, 3]), (slice(None), None, 1), (1, 2)):
        assert_allclose(dist[key].prob_zero(), zero[key], rtol=1e-14)
    assert len(dist) == 5
    assert dist.ndim == 2
    with pytest.raises(TypeError, match="no length"):
        len(dist[1, 2])


def test_large_arrays_are_worked_on_in_blocks():
    mu = np.random.default_rng(0).gamma(1.0, 5.0, size=(300, 40))
    dist = NB(mu, np.linspace(0.1, 5, 40))
    y = dist.rvs(random_state=0)
    for method in ("logpmf", "cdf", "crps", "ppf"):
        k = y if method != "ppf" else np.full(y.shape, 0.7)
        whole = getattr(dist, method)(k)
        rows = [getattr(dist[i], method)(k[i]) for i in range(len(dist))]
        assert_allclose(whole, rows, rtol=1e-13)
        assert_array_equal(getattr(dist, method)(np.asfortranarray(k)), whole)
        assert whole.flags.c_contiguous


def test_empty_arrays():
    dist = NB(np.empty((0, 3)), 1.0)
    assert dist.logpmf(0).shape == dist.ppf(0.5).shape == dist.rvs().shape == (0, 3)
    assert dist.crps(np.empty((0, 3))).shape == (0, 3)


def test_parameters_cannot_be_changed():
    mu = np.array([1.0, 2.0])
    dist = NB(mu, 1.0)
    with pytest.raises(ValueError, match="read-only"):
        dist.mu[0] = -1
    with pytest.raises(AttributeError):
        dist.mu = mu
    mu[0] = 3.0  # the caller's own array stays writeable


def test_pickles_and_prints():
    dist = ZINB([1.0, 2.0], 1.0, 0.5)
    copy = pickle.loads(pickle.dumps(dist))  # noqa: S301
    assert_array_equal(copy.pmf([0, 1]), dist.pmf([0, 1]))
    assert repr(dist) == "<ZINB of shape (2,)>"
    assert repr(NB(1.0, np.inf)) == "NB(mu=1, r=inf)"


def test_scalars_in_scalars_out():
    dist = ZINB(1.0, 2.0, 0.5)
    for value in (dist.pmf(0), dist.cdf(1), dist.ppf(0.5), dist.mean(), dist.var(), dist.std()):
        assert isinstance(value, np.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NB(-1.0, 1.0), "mu must be finite and at least 0, got -1.0"),
        (lambda: NB([1.0, np.nan], 1.0), "mu must be .* got nan"),
        (lambda: NB(np.inf, 1.0), "mu must be .* got inf"),
        (lambda: NB(1.0, 0.0), r"r must be greater than 0 .* got 0.0"),
        (lambda: NB(1.0, np.nan), "r must be .* got nan"),
        (lambda: ZINB(1.0, 1.0, 1.5), "pi must be at least 0 and at most 1, got 1.5"),
        (lambda: ZINB(1.0, 1.0, [[0.5, np.nan]]), "pi must be .* got nan"),
        (lambda: NB([1.0, 2.0], [1.0, 2.0, 3.0]), r"do not broadcast: mu \(2,\), r \(3,\)"),
    ],
)
def test_invalid_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_table_of_errors_in_the_documentation(capsys):
    """Its script runs, every function is within the bound, and the page has the same rows."""
    script = runpy.run_path(str(DOC / "benchmarks" / "numerics.py"))
    script["main"](n_random=100)
    rows = table_rows(capsys.readouterr().out)
    documented = table_rows((DOC / "numerics.rst").read_text())
    assert [row[0] for row in rows] == [row[0] for row in documented]
    assert len(rows) == 13 + 17
    for table in (rows, documented):
        for name, points, error, _ in table:
            assert int(points) > 300, name
            if name.endswith("ppf"):
                assert error == "0 counts off", name
            elif "float32" in name:
                assert float(error) < (1e-4 if "y <=" in name else 0.1), name
            else:
                assert 0 < float(error) <= 1e-9, name


def table_rows(text):
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
