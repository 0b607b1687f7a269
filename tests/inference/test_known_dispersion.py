"""Fits at known dispersions solve the score equations of the negative binomial."""

import numpy as np
import pytest
from scipy import optimize, stats

from sc_glm.inference.known_dispersion import Samples, orthonormal


@pytest.fixture
def samples():
    rng = np.random.default_rng(0)
    columns = np.column_stack([np.ones(9), np.arange(9) % 3 == 0, rng.normal(60, 10, 9)])
    design, _ = orthonormal(columns)
    counts = rng.negative_binomial(3.0, 3.0 / 23.0, (6, 9)).astype(float)
    return Samples(counts, design, rng.normal(scale=0.4, size=9))


def log_likelihood(samples, gene, coef, phi):
    mean = np.exp(samples.design @ coef + samples.offset)
    return stats.nbinom.logpmf(samples.counts[gene], 1 / phi, 1 / (1 + phi * mean)).sum()


@pytest.mark.parametrize("phi", [1e-4, 0.1, 5.0])
def test_the_likelihood_is_maximal(samples, phi):
    phis = np.full(6, phi)
    coef = samples.fit(phis, samples.start())
    for gene in range(6):
        best = optimize.minimize(
            lambda x, gene=gene: -log_likelihood(samples, gene, x, phi), coef[gene] * 0.9
        )
        assert log_likelihood(samples, gene, coef[gene], phi) >= -best.fun - 1e-5


def test_log_likelihoods_differ_as_those_of_scipy(samples):
    coef = samples.start()
    values = []
    for phi in (0.01, 0.5):
        phis = np.full(6, phi)
        found = samples.log_likelihood(samples.at(coef, phis), phis)
        values.append(found - [log_likelihood(samples, g, coef[g], phi) for g in range(6)])
    assert values[0] == pytest.approx(values[1], abs=1e-8)


def test_a_group_without_counts_ends_finite(samples):
    counts = samples.counts.copy()
    counts[0, ::3] = 0
    silent = Samples(counts, samples.design[:, :2], samples.offset)
    coef = silent.fit(np.full(6, 0.1), silent.start())
    assert np.isfinite(coef).all()


def test_a_design_in_an_orthonormal_basis():
    x = np.arange(8.0)
    columns = np.column_stack([np.ones(8), x, 2 * x + 1])
    basis, to_coef = orthonormal(columns)
    assert basis.shape == (8, 2)
    assert basis.T @ basis / 8 == pytest.approx(np.eye(2), abs=1e-12)
    assert columns @ to_coef == pytest.approx(basis, abs=1e-9)
