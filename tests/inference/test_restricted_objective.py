"""The restricted objective against finite differences."""

import numpy as np
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily
from sc_glm.inference.restricted_objective import RestrictedObjective
from tests.problems import LINE, ONE, build_problem, simulate

RNG = np.random.default_rng(8)


def test_a_fixed_combination_stays_and_the_rest_has_its_derivatives():
    problem = build_problem(NegBinFamily(), simulate(4, RNG), LINE, ONE)
    objective = problem.objective(problem.block(), problem.family, problem.bases)
    direction = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    values = torch.tensor([0.3, -0.2, 0.0, 1.0], dtype=torch.float64)
    restricted = RestrictedObjective(objective, direction, values)
    genes = torch.tensor([3, 0, 1])
    free = torch.from_numpy(RNG.normal(0, 0.3, (3, 2)))
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
