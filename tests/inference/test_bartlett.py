"""Bartlett's correction has the values that are known for one mean."""

import numpy as np
import pytest

from sc_glm.inference.bartlett import lawley_epsilon
from sc_glm.inference.known_dispersion import Samples


def epsilon(mean, phi, n, design=None):
    design = np.ones((n, 1)) if design is None else design
    samples = Samples(np.ones((1, n)), design, np.full(n, np.log(mean)))
    phis = np.array([phi])
    fit = samples.at(np.zeros((1, design.shape[1])), phis)
    return lawley_epsilon(design, fit, phis)[0]


def test_the_poisson_limit():
    assert epsilon(3.0, 1e-9, 4) == pytest.approx(1 / (6 * 3.0 * 4), rel=1e-5)


def test_the_gamma_limit():
    assert epsilon(1e7, 0.4, 4) == pytest.approx(0.4 / (6 * 4), rel=1e-5)


def test_groups_add_up():
    groups = np.repeat(np.eye(2), [3, 5], axis=0)
    assert epsilon(7.0, 0.2, 8, groups) == pytest.approx(
        epsilon(7.0, 0.2, 3) + epsilon(7.0, 0.2, 5)
    )


def test_the_mean_of_a_likelihood_ratio():
    rng = np.random.default_rng(0)
    phi, mean, n = 0.4, 20.0, 3
    counts = rng.negative_binomial(1 / phi, 1 / (1 + phi * mean), (100_000, n)).astype(float)
    samples = Samples(counts, np.ones((n, 1)), np.zeros(n))
    phis = np.full(len(counts), phi)
    truth = np.full((len(counts), 1), np.log(mean))
    at = [samples.at(coef, phis) for coef in (samples.fit(phis, truth), truth)]
    ratio = 2 * np.subtract(*(samples.log_likelihood(fit, phis) for fit in at))
    error = ratio.std() / np.sqrt(len(ratio))
    assert ratio.mean() == pytest.approx(1 + epsilon(mean, phi, n), abs=4 * error)
