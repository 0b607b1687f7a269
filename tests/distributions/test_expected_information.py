"""Expected information against sums over all counts, and zeros against the distributions."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily, positive_counts
from sc_glm.distributions import NB, ZINB
from sc_glm.distributions.expected_information import Zeros, expected_information

COUNTS = torch.arange(1.0, 30_000.0, dtype=torch.float64)


def summed_information(family, predictors):
    """Expectation of the products of the scores, over all counts that have any probability."""
    at = [torch.full_like(COUNTS, x) for x in predictors]
    counts = positive_counts(COUNTS)
    terms = family.positives(counts, at, family.saturated(counts, at[1]))
    zero = family.zeros([torch.tensor([x], dtype=torch.float64) for x in predictors])
    mass = torch.cat([zero.value, terms.value]).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    scores = torch.stack([torch.cat([a, b]) for a, b in zip(zero.score, terms.score, strict=True)])
    return ((scores * mass) @ scores.T).numpy()


def draws(n_parts):
    rng = np.random.default_rng(4)
    eta, rho, zeta = rng.uniform(-7, 5, 30), rng.uniform(-2, 8, 30), rng.uniform(-4, 4, 30)
    return [eta, rho, zeta][:n_parts]


@pytest.mark.parametrize("family", [NegBinFamily(), ZINBFamily()])
def test_expected_information_is_the_sum_over_all_counts(family):
    predictors = draws(len(family.parts))
    information = expected_information(Zeros.of(family, predictors), predictors)
    for entry, at in enumerate(zip(*predictors, strict=True)):
        expected = summed_information(family, at)
        scale = np.sqrt(np.diag(expected))
        for (i, j), values in information.items():
            error = (values[entry] - expected[i, j]) / (scale[i] * scale[j])
            assert abs(error) < 2e-3, (at, i, j)


def test_information_beyond_the_table_follows_its_limits():
    """A Poisson count tells ``mu**2 / 2 r**2``, many counts ``r**2 trigamma(r) - r``."""
    predictors = [np.array([-30.0, 2.0, 40.0]), np.array([1.0, 30.0, 0.0])]
    information = expected_information(Zeros.of(NegBinFamily(), predictors), predictors)[1, 1]
    small = np.exp(-60.0) / (2 * np.e * (np.e + 1))
    limits = [small, np.exp(4.0 - 60.0) / 2, np.pi**2 / 6 - 1]
    assert_allclose(information, limits, rtol=2e-3)


@pytest.mark.parametrize("family", [NegBinFamily(), ZINBFamily()])
def test_zeros_have_the_mass_of_the_distribution_and_its_derivatives(family, monkeypatch):
    monkeypatch.setattr("sc_glm.distributions.expected_information.BLOCK_ENTRIES", 7)
    predictors = [p.reshape(5, 6).T for p in draws(len(family.parts))]

    def log_mass(eta, rho, *zeta):
        component = np.exp(eta), np.exp(rho)
        dist = ZINB(*component, 1 / (1 + np.exp(-zeta[0]))) if zeta else NB(*component)
        return dist.logpmf(0)

    zeros = Zeros.of(family, predictors)
    assert_allclose(zeros.log_mass, log_mass(*predictors), rtol=1e-12)
    for part, score in enumerate(zeros.score):
        above, below = (
            [p + (i == part) * h for i, p in enumerate(predictors)] for h in (1e-5, -1e-5)
        )
        slope = (log_mass(*above) - log_mass(*below)) / 2e-5
        assert_allclose(score, slope, rtol=1e-5, atol=1e-9)


def test_other_families_are_refused():
    class OtherFamily:
        parts = ZINBFamily.parts
        zeros = ZINBFamily().zeros

    predictors = draws(3)
    with pytest.raises(ValueError, match="information of OtherFamily is not known"):
        expected_information(Zeros.of(OtherFamily(), predictors), predictors)
