"""Objectives with one contrast fixed: their points hold it, and their derivatives are right."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily
from sc_glm._likelihood.objective import Evaluation
from sc_glm.inference.restricted_objective import MeanRestrictedObjective, RestrictedObjective
from tests.problems import LINE, ONE, build_problem, simulate

RNG = np.random.default_rng(1)
SLOPE = torch.tensor(RNG.normal(size=5))
ROWS = torch.tensor(RNG.normal(size=(4, 5)))
VALUES = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
GENES = torch.arange(3)


class Wave:
    """A function with derivatives of all orders in every direction."""

    def evaluate(self, theta, genes):  # noqa: ARG002
        along = theta @ SLOPE
        value = torch.sin(along) - theta.square().sum(1)
        gradient = torch.cos(along)[:, None] * SLOPE - 2 * theta
        hessian = -torch.sin(along)[:, None, None] * torch.outer(SLOPE, SLOPE)
        return Evaluation(value, gradient, hessian - 2 * torch.eye(5), value.abs())


def log_ratio_of_means(theta):
    return theta @ ROWS[0] - torch.exp(theta @ ROWS[1:].mT).mean(1).log()


@pytest.mark.parametrize(
    ("restricted", "contrast"),
    [
        (RestrictedObjective(Wave(), ROWS[0], VALUES), lambda theta: theta @ ROWS[0]),
        (MeanRestrictedObjective(Wave(), ROWS, VALUES), log_ratio_of_means),
    ],
    ids=["combination", "mean of levels"],
)
def test_points_hold_the_contrast_and_derivatives_are_those_of_the_values(restricted, contrast):
    nuisance = torch.tensor(RNG.normal(size=(3, 4)))
    theta = restricted.to_theta(nuisance, GENES)
    torch.testing.assert_close(contrast(theta), VALUES)
    torch.testing.assert_close(restricted.to_nuisance(theta), nuisance)
    at = restricted.evaluate(nuisance, GENES)
    step = 1e-5
    for parameter in range(4):
        change = torch.zeros(4, dtype=torch.float64)
        change[parameter] = step
        ends = [restricted.evaluate(nuisance + sign * change, GENES) for sign in (1, -1)]
        slope = (ends[0].value - ends[1].value) / (2 * step)
        torch.testing.assert_close(at.gradient[:, parameter], slope, rtol=1e-6, atol=1e-8)
        bend = (ends[0].gradient - ends[1].gradient) / (2 * step)
        torch.testing.assert_close(at.hessian[:, parameter], bend, rtol=1e-6, atol=1e-7)


def test_a_fixed_combination_stays_and_the_rest_has_its_derivatives():
    problem = build_problem(NegBinFamily(), simulate(4, np.random.default_rng(8)), LINE, ONE)
    objective = problem.objective(problem.block(), problem.family, problem.bases)
    direction = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    values = torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=torch.float64)
    restricted = RestrictedObjective(objective, direction, values)
    genes = torch.tensor([3, 0, 1])
    free = torch.from_numpy(np.random.default_rng(8).normal(0, 0.3, (3, 2)))
    theta = restricted.to_theta(free, genes)
    assert_allclose(theta @ direction, values[genes], atol=1e-12)
    assert_allclose(restricted.to_nuisance(theta), free, atol=1e-12)
    at = restricted.evaluate(free, genes)
    for k in range(2):
        shift = 1e-5 * torch.eye(2, dtype=torch.float64)[k]
        high, low = (restricted.evaluate(free + sign * shift, genes) for sign in (1, -1))
        assert_allclose((high.value - low.value) / 2e-5, at.gradient[:, k], rtol=1e-5, atol=1e-3)
        slope = (high.gradient - low.gradient) / 2e-5
        assert_allclose(slope, at.hessian[:, :, k], rtol=1e-5, atol=1e-3)
