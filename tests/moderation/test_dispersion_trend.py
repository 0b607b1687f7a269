"""The trend of the dispersion, from likelihoods whose answer is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm.moderation.dispersion_trend import DF, DispersionTrend, fit_trend, posterior
from sc_glm.moderation.size_profile import SizeLikelihood

SPREAD = 0.4


def likelihoods(log_mean, centre, error):
    """Genes whose log-likelihoods are parabolas around ``centre``."""
    centre, error = (np.broadcast_to(x, log_mean.shape)[:, None] for x in (centre, error))
    log_size = centre + error * np.linspace(-5, 5, 128)
    return SizeLikelihood(np.exp(log_mean), log_size, -0.5 * ((log_size - centre) / error) ** 2)


def drawn(truth, n_genes, *, error, seed):
    rng = np.random.default_rng(seed)
    log_mean = rng.uniform(-3, 3, n_genes)
    true = truth(log_mean) + SPREAD * rng.standard_t(DF, size=n_genes)
    return log_mean, true, likelihoods(log_mean, true + error * rng.normal(size=n_genes), error)


@pytest.mark.parametrize("error", [0.05, 0.8])
def test_trend_and_spread_are_those_of_the_truth(error):
    def truth(log_mean):
        return 1 + np.tanh(log_mean)

    log_mean, true, genes = drawn(truth, 2000, error=error, seed=0)
    trend = fit_trend(genes)
    inside = np.abs(log_mean) < 2.8
    assert np.abs(trend.at(genes.mean) - truth(log_mean))[inside].max() < 0.15
    assert trend.spread == pytest.approx(SPREAD, rel=0.1)
    found = posterior(genes, trend)
    z = (found.mean - true) / found.spread
    assert np.sqrt(np.mean(z**2)) == pytest.approx(1, abs=0.05)
    assert np.sqrt(np.mean((found.mean - true) ** 2)) < error


def test_few_genes_without_a_trend_have_none():
    bends = []
    for seed in range(8):
        *_, genes = drawn(np.zeros_like, 30, error=1.0, seed=seed)
        bends.append(np.ptp(np.diff(fit_trend(genes).log_size)))
    assert np.median(bends) < 1


def test_genes_without_information_change_nothing():
    log_mean, _, genes = drawn(np.sin, 60, error=0.3, seed=1)
    trend = fit_trend(genes)
    blank = SizeLikelihood(
        np.exp(np.append(log_mean, [-1.0, 2.0])),
        np.vstack([genes.log_size, np.tile(np.linspace(-20, 20, 128), (2, 1))]),
        np.vstack([genes.value, np.zeros((2, 128))]),
    )
    found = fit_trend(blank)
    assert_allclose(found.log_size, trend.log_size, atol=1e-2)
    assert found.spread == pytest.approx(trend.spread, rel=1e-2)
    of_blank = posterior(blank, trend).mean[-2:]
    assert_allclose(of_blank, trend.at(blank.mean[-2:]), atol=1e-2)


def test_genes_far_from_the_trend_are_left_there():
    trend = DispersionTrend(np.zeros(1), np.zeros(1), 0.3)
    centre = np.array([-6.0, -0.3, 0.3, 6.0])
    found = posterior(likelihoods(np.zeros(4), centre, 0.3), trend).mean
    assert_allclose(found[[0, 3]], centre[[0, 3]], atol=0.15)
    assert_allclose(found[1:3], centre[1:3] / 2, atol=0.05)


def test_genes_of_one_mean_have_a_constant_trend():
    rng = np.random.default_rng(2)
    genes = likelihoods(np.full(50, 0.5), 1 + SPREAD * rng.standard_t(DF, size=50), 0.2)
    trend = fit_trend(genes)
    assert len(trend.log_mean) == 1
    assert_allclose(trend.overdispersion([1e-3, 1.0, 1e3]), np.exp(-1), rtol=0.2)


def test_few_genes_without_a_spread_are_not_taken_for_certain():
    log_mean = np.linspace(-2, 2, 12)
    spreads = [fit_trend(likelihoods(log_mean, 0.5, error)).spread for error in (0.5, 1.0)]
    assert min(spreads) > 0.11
    assert spreads[1] > spreads[0]
