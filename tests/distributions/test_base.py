import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm.distributions import NB, ZINB


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


def test_blocks_of_large_arrays_do_not_change_results():
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


def test_random_counts_that_do_not_fit():
    largest = NB(1e25, 1e12).rvs(5, random_state=0)
    assert_allclose(largest, 9.2e18, rtol=1e-6)
    with pytest.raises(ValueError, match=r"\(2,\) do not broadcast to \(3,\)"):
        NB([1.0, 2.0], 1.0).rvs(3)
    with pytest.raises(ValueError, match=r"\(2,\) do not broadcast to \(1,\)"):
        NB([1.0, 2.0], 1.0).rvs(1)
