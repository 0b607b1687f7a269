import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm.distributions import NB, ZINB
from sc_glm.distributions.log_mass import log_mass, log_mass_of_matrix
from tests.exact_probabilities import exact_log_mass

SIZES = 10.0 ** np.arange(-8, 13, 4)
MEANS = 10.0 ** np.arange(-12, 10, 3)
COUNTS = np.array([0.0, 1, 2, 7, 40, 1e3, 1e6])


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


def test_non_integers_extend_the_mass():
    with mpmath.workdps(40):
        expected = float(exact_log_mass(2.5, 3.0, 2.0))
    assert_allclose(NB(3.0, 2.0).logpmf(2.5), expected, rtol=1e-12)


def test_unit_deviance_refers_to_the_largest_mass_of_any_mean():
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


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array], ids=["dense", "sparse"])
@pytest.mark.parametrize("n_sizes", [1, 300], ids=["one size", "size regressed"])
@pytest.mark.parametrize("family", [NegBinFamily(), ZINBFamily()], ids=["NB", "ZINB"])
def test_log_mass_of_a_matrix_is_that_of_its_entries(family, n_sizes, form, monkeypatch):
    """Small and large counts, with fractions, at means and sizes of many orders of magnitude."""
    monkeypatch.setattr("sc_glm.distributions.log_mass._TILE_ENTRIES", 70)
    rng = np.random.default_rng(0)
    shape = 300, 20
    eta, rho = rng.uniform(-15, 12, shape), rng.uniform(-10, 60, (n_sizes, 20))
    y = np.floor(np.exp(rng.uniform(-3, 9, shape)))
    y[::17] += 0.25
    predictors = [eta, rho, rng.uniform(-40, 40, (n_sizes, 20))][: len(family.parts)]

    def predictors_of(cells):
        return [eta[cells], *(p[cells] if n_sizes > 1 else p for p in predictors[1:])]

    found = log_mass_of_matrix(family, form(y), predictors_of)
    expected = log_mass(family, y, [np.broadcast_to(p, shape) for p in predictors])
    assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    with mpmath.workdps(60):
        for cell, gene in rng.integers(0, shape, (60, 2)):
            at = [np.broadcast_to(p, shape)[cell, gene] for p in predictors]
            mu, r = mpmath.exp(at[0]), mpmath.exp(at[1])
            pi = 1 / (1 + mpmath.exp(-at[2])) if len(at) > 2 else 0
            exact = float(exact_log_mass(y[cell, gene], mu, r, pi))
            assert_allclose(found[cell, gene], exact, rtol=1e-9, atol=1e-12)


def test_log_mass_of_what_is_no_count():
    y = np.array([-1.0, np.nan, np.inf, 0.0, 2.0])
    found = log_mass(NegBinFamily(), y, [np.zeros(5), np.zeros(5)])
    assert_array_equal(found[:3], [-np.inf, np.nan, -np.inf])
    assert_allclose(found[3:], np.log([1 / 2, 1 / 8]))
