"""Products of scores, against each cell's own."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.scores import score_products
from sc_glm.distributions.log_mass import log_mass
from tests.problems import CURVE, GROUP, LINE, N_CELLS, ONE, alike, build_problem, simulate

RNG = np.random.default_rng(5)
Y = simulate(6, RNG)
Y[:, 5] = 0
WEIGHTS = RNG.uniform(0.5, 2, N_CELLS)
MODELS = {
    "one size": (NegBinFamily(), (LINE, ONE)),
    "size regressed": (NegBinFamily(), (GROUP, LINE)),
    "one size, inflated": (ZINBFamily(), (LINE, ONE, ONE)),
    "all regressed": (ZINBFamily(), (CURVE, GROUP, LINE)),
}


def setting(name):
    family, designs = MODELS[name]
    problem = build_problem(family, Y, *designs, offset=0.2 * GROUP[:, 0], weights=WEIGHTS)
    theta = torch.from_numpy(RNG.normal(0, 0.4, (6, sum(d.shape[1] for d in designs))))
    return problem, theta


def objective_of(problem):
    return problem.objective(problem.block(), problem.family, problem.bases)


def scores_of_cells(problem, theta):
    """Differentiate each cell's log-mass numerically: genes x cells x parameters."""
    bases = [basis.U.numpy() for basis in problem.bases]
    stops = np.cumsum([0, *(U.shape[1] for U in bases)])
    parts = [slice(*ends) for ends in pairwise(stops)]

    def log_masses(point):
        predictors = [U @ point[:, own].T for U, own in zip(bases, parts, strict=True)]
        predictors[0] = predictors[0] + problem.offset.numpy()[:, None]
        return log_mass(problem.family, Y.astype(float), predictors).T

    step, point = 1e-5, theta.numpy()
    scores = np.empty((*Y.T.shape, stops[-1]))
    for k in range(stops[-1]):
        shift = step * np.eye(stops[-1])[k]
        scores[:, :, k] = (log_masses(point + shift) - log_masses(point - shift)) / (2 * step)
    return scores


@pytest.mark.parametrize("name", MODELS)
def test_products_equal_those_of_single_cells(name):
    problem, theta = setting(name)
    scores = scores_of_cells(problem, theta)
    expected = np.einsum("gik,gil,i->gkl", scores, scores, WEIGHTS)
    found = score_products(objective_of(problem), theta).numpy()
    assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["one size", "all regressed"])
def test_equal_cells_are_counted_separately(name):
    """A row of several counts has the mean of their products, not the product of their means."""
    family, designs = MODELS[name]
    rows = np.arange(N_CELLS) % 3
    few = [design[rows] for design in designs]
    problem = build_problem(family, Y, *few, weights=WEIGHTS)
    theta = torch.from_numpy(RNG.normal(0, 0.4, (6, sum(b.U.shape[1] for b in problem.bases))))
    whole = score_products(objective_of(problem), theta)
    merged = alike(problem, rows)
    assert merged.counts.shape[1] == 3
    assert_allclose(score_products(objective_of(merged), theta), whole, rtol=1e-9, atol=1e-9)


def test_tiles_add_up(monkeypatch):
    problem, theta = setting("all regressed")
    whole = score_products(objective_of(problem), theta)
    monkeypatch.setattr("sc_glm._solver.problem.cells_per_tile", lambda _: 64)
    assert len(problem.block().bounds) > 5
    assert_allclose(score_products(objective_of(problem), theta), whole, rtol=1e-11, atol=1e-11)
