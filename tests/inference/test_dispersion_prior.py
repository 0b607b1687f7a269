"""The distribution of dispersions is found from likelihoods that hold it."""

import numpy as np
import pytest

from sc_glm.inference.dispersion_prior import LOG_OVERDISPERSION, posterior_dispersions


def draw(n_genes, *, slope=0.0, noise=0.5):
    """Draw two kinds of genes, and normal likelihoods of their log overdispersions."""
    rng = np.random.default_rng(0)
    log_mean = rng.uniform(0, 6, n_genes)
    truth = np.where(rng.random(n_genes) < 0.5, -4.0, -1.0) + slope * log_mean
    seen = truth + rng.normal(scale=noise, size=n_genes)
    z = (LOG_OVERDISPERSION - seen[:, None]) / noise
    return truth, np.exp(log_mean), -(z**2) / 2


def test_two_kinds_of_genes_are_told_apart():
    truth, mean, log_likelihood = draw(2000)
    found = posterior_dispersions(log_likelihood, mean)
    assert found.weight.sum(axis=1) == pytest.approx(np.ones(2000))
    error = found.mean(LOG_OVERDISPERSION) - truth
    assert np.sqrt(np.mean(error**2)) < 0.35  # a likelihood alone has 0.5
    assert found.trend == pytest.approx(-2.5, abs=0.3)


def test_the_distribution_follows_the_mean():
    _, mean, log_likelihood = draw(4000, slope=-0.3)
    trend = posterior_dispersions(log_likelihood, mean).trend
    for at in (1.0, 5.0):
        near = np.abs(np.log(mean) - at) < 0.2
        assert trend[near].mean() == pytest.approx(-2.5 - 0.3 * at, abs=0.35)


def test_flat_likelihoods_have_the_distribution_of_the_others():
    _, mean, log_likelihood = draw(2000)
    log_likelihood[:10] = 0.0
    found = posterior_dispersions(log_likelihood, mean)
    assert found.mean(LOG_OVERDISPERSION)[:10] == pytest.approx(found.trend[:10])
