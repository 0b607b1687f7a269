"""Profile likelihoods of sizes, against maximisations at each size."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._solver.gene_block import build_problem
from sc_glm._solver.trust_region import maximize
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.observed_information import SETTINGS
from sc_glm.inference.restricted_objective import RestrictedObjective
from sc_glm.moderation.size_profile import N_GRID, size_likelihood

N_CELLS, N_GENES = 150, 40


def case(regressor, inflation):
    """A fit, its likelihoods of the sizes, and the objective behind them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_CELLS, 1))
    mu = np.exp(np.linspace(-1.5, 2, N_GENES) + 0.4 * X)
    r = np.exp(rng.normal(0.3, 0.7, N_GENES))
    y = rng.negative_binomial(r, r / (r + mu)) * (rng.uniform(size=mu.shape) >= inflation)
    model = regressor.fit(X, y)
    fitted = FittedData.of(model, X, y)
    counts, designs = fitted.counts_and_designs(fitted.weights(None))
    theta = designs.coordinates({part: x.to_numpy() for part, x in fitted.params.items()})
    genes = size_likelihood(fitted.family, counts, designs, theta, None)
    problem = build_problem(fitted.family, counts.by_gene(slice(None)), designs, SETTINGS)
    return model, genes, theta, problem.objective(problem.block(), fitted.family, problem.bases)


def expected_at(objective, theta, log_size):
    """The adjusted profile by maximisations from several starts."""
    direction = torch.zeros(objective.n_params, dtype=torch.float64)
    direction[2] = 1.0
    restricted = RestrictedObjective(objective, direction, torch.from_numpy(log_size.copy()))
    solutions = []
    for inflation in (None, -6.0, -2.0, 0.0, 1.5):
        start = torch.from_numpy(theta.copy())
        if inflation is not None:
            start[:, 3:] = inflation
        solutions.append(
            maximize(restricted, restricted.to_nuisance(start), max_iter=300, tol=1e-9)
        )
    values = torch.stack([solution.value for solution in solutions])
    best = values.argmax(0)
    hessian = torch.stack([solution.hessian for solution in solutions])[best, range(N_GENES)]
    _, logdet = torch.linalg.slogdet(torch.eye(hessian.shape[1]) - hessian)
    return (values.amax(0) - 0.5 * logdet).numpy()


@pytest.mark.parametrize(
    ("regressor", "inflation", "most", "worst"),
    [(NegBinRegressor(), 0.0, 0.03, 0.06), (ZINBRegressor(), 0.25, 0.2, 1.0)],
)
def test_likelihoods_are_those_of_maximisations_at_each_size(regressor, inflation, most, worst):
    model, genes, theta, objective = case(regressor, inflation)
    if inflation:  # absent at the fitted sizes of some genes, and present at other sizes
        assert (model.status_ == "no zero inflation").sum() > 3
    points = np.arange(0, N_GRID, 6)
    with torch.inference_mode():
        expected = np.stack(
            [expected_at(objective, theta, genes.log_size[:, point]) for point in points], 1
        )
    found = genes.value[:, points]
    matters = found > -7
    level = np.array(
        [np.median((e - f)[m]) for e, f, m in zip(expected, found, matters, strict=True)]
    )
    error = np.where(matters, expected - found - level[:, None], 0.0)
    assert_allclose(error, 0, atol=worst)
    assert np.quantile(np.abs(error[matters]), 0.9) < most
    assert matters.sum() > 200


def test_grids_cover_the_range_of_the_likelihood():
    model, genes, *_ = case(NegBinRegressor(), 0.0)
    assert (genes.value.max(axis=1) == 0).all()
    assert (genes.value[:, 0] < -6).all()
    poisson = model.status_ == "Poisson boundary"
    assert poisson.any()
    assert (genes.log_size[poisson, -1] >= 10).all()
    assert (genes.value[poisson, -1] > -3).all()
    has_upper_end = genes.value[:, -1] < -6
    assert has_upper_end.sum() > N_GENES / 2
    assert (np.diff(genes.log_size, axis=1) > 0).all()
