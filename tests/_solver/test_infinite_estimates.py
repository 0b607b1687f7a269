import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor
from sc_glm._likelihood.family import NegBinFamily
from sc_glm._likelihood.objective import Evaluation, PartBasis
from sc_glm._solver import infinite_estimates
from sc_glm._solver.infinite_estimates import LogCoordinates
from sc_glm._solver.multistart import maximize_from_many_starts
from sc_glm._solver.trust_region import Solution
from tests.problems import build_problem

# Sizes that are infinite beyond a knot of a spline. Cells next to the knot have a large size only
# at coefficients of many millions.

N_CELLS, N_GENES = 401, 6
RNG = np.random.default_rng(0)
TIME = np.sort(RNG.uniform(size=N_CELLS))
MU = np.exp(2 + TIME)[:, None]
CLUMPED = RNG.negative_binomial(2, 2 / (2 + MU), (N_CELLS, N_GENES))
NARROW = RNG.binomial(30, MU / 30, (N_CELLS, N_GENES))
COUNTS = np.where(TIME[:, None] < 0.5, CLUMPED, NARROW)
FORMULAS = FormulaTransformer(mean="~ x", dispersion="~ bs(x, df=4)")
X = FORMULAS.fit_transform(pd.DataFrame({"x": TIME}))
MEAN, SIZE = (X.filter(regex=f"^{part}__").to_numpy() for part in ("mean", "dispersion"))
TOL = 1e-6


def limit(y):
    """Highest log-likelihood where a gene's counts are Poisson from the knot on."""
    start = np.r_[np.log(y.mean()), np.zeros(MEAN.shape[1] + SIZE.shape[1] - 2)]

    def loss(theta):
        mu = np.exp(MEAN @ theta[: MEAN.shape[1]])
        r = np.exp(SIZE[:, :-1] @ theta[MEAN.shape[1] :])
        clumped = scipy.stats.nbinom.logpmf(y, r, r / (r + mu))
        return -np.where(SIZE[:, -1] > 0, scipy.stats.poisson.logpmf(y, mu), clumped).sum()

    return -scipy.optimize.minimize(loss, start).fun


@pytest.fixture(scope="module")
def followed():
    return NegBinRegressor().fit(X, COUNTS)


def test_a_size_that_is_infinite_from_a_knot_on_is_followed_there(followed):
    assert set(followed.status_) == {"Poisson boundary"}
    assert (np.abs(followed.params_["dispersion"]).max() > 1e7).all()
    limits = np.array([limit(y) for y in COUNTS.T])
    assert (followed.log_likelihood_ > limits - 1e-3).all()
    assert (followed.log_likelihood_ < limits).all()


def test_only_the_infinite_coefficient_is_undetermined(followed):
    undetermined = followed.undetermined_["dispersion"]
    assert undetermined.loc["bs(x, df=4)[4]"].all()
    assert not undetermined.drop(index="bs(x, df=4)[4]").any(axis=None)
    assert not followed.undetermined_["mean"].any(axis=None)


def test_its_predictions_are_those_that_were_fitted(followed):
    assert np.isfinite(followed.predict(X)).all()
    log_mass = followed.predict_dist(X).logpmf(COUNTS).sum(axis=0)
    assert_allclose(log_mass, followed.log_likelihood_, rtol=0, atol=1e-6)


def test_its_fit_does_not_depend_on_other_genes(followed):
    alone = NegBinRegressor().fit(X, COUNTS[:, [3]])
    for part, table in followed.params_.items():
        assert_array_equal(alone.params_[part].iloc[:, 0], table.iloc[:, 3])
    assert alone.log_likelihood_[0] == followed.log_likelihood_[3]
    assert alone.n_iter_[0] == followed.n_iter_[3]


def test_it_is_followed_under_zero_inflation():
    model = ZINBRegressor().fit(X, COUNTS[:, :3])
    assert set(model.status_) == {"Poisson boundary, no zero inflation"}
    limits = np.array([limit(y) for y in COUNTS[:, :3].T])
    assert (model.log_likelihood_ > limits - 1e-3).all()


# Genes whose maximisation is continued, and genes that are left unchanged


def given(max_iter, y=COUNTS, penalty=0.0):
    problem = build_problem(NegBinFamily(), y, MEAN, SIZE)
    mean, size = problem.bases
    size = PartBasis(size.U, penalty * torch.diag(torch.arange(5.0, dtype=torch.float64)))
    problem = replace(problem, bases=[mean, size])
    objective = problem.model_objective()
    solution = maximize_from_many_starts(problem, objective, max_iter=max_iter, tol=TOL)
    return problem, objective, solution


@pytest.fixture(scope="module")
def unfinished():
    found = given(100)
    assert not found[2].converged.any()
    return found


def copy_of(solution):
    return solution.rows(torch.arange(len(solution.value)))


def assert_same(a, b, genes):
    for name in Solution.__dataclass_fields__:
        assert torch.equal(getattr(a, name)[genes], getattr(b, name)[genes]), name


def test_genes_at_their_maximum_are_left_as_they_are():
    problem, objective, before = given(100, np.hstack([COUNTS[:, :2], CLUMPED[:, :2]]))
    assert before.converged.tolist() == [False, False, True, True]
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=TOL)
    assert after.converged.all()
    assert (after.value > before.value)[:2].all()
    assert_same(after, before, slice(2, None))


def test_genes_with_moderate_coordinates_are_left_as_they_are():
    problem, objective, before = given(2)
    assert not before.converged.any()
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=TOL)
    assert_same(after, before, slice(None))


def test_large_coordinates_with_curvature_are_left_as_they_are():
    """Their coordinates do not tend to infinity, wherever an interrupted run has left them."""
    problem, objective, before = given(100, CLUMPED[:, :2])
    before.theta[:, 2:] *= 1e4
    at = objective.evaluate(before.theta, torch.arange(2))
    before = replace(
        before,
        value=at.value,
        hessian=-torch.eye(7, dtype=torch.float64).repeat(2, 1, 1),
        converged=torch.zeros(2, dtype=torch.bool),
    )
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=TOL)
    assert_same(after, before, slice(None))


@pytest.mark.parametrize("max_iter", [1, 3, 30])
def test_a_continued_maximisation_never_ends_lower_and_takes_no_more_passes(
    unfinished, max_iter, monkeypatch
):
    monkeypatch.setattr(infinite_estimates, "_ITER_PER_DIRECTION", 2)
    problem, objective, before = unfinished
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(
        problem, objective, after, max_iter=max_iter, tol=TOL
    )
    assert (after.value >= before.value).all()
    higher = after.value > before.value
    assert higher.any()
    assert (after.n_iter[higher] <= max_iter).all()
    assert (after.n_iter[higher & ~after.converged] == max_iter).all()
    assert after.converged.any() == (max_iter == 30)
    at = objective.evaluate(after.theta, torch.arange(N_GENES))
    assert_allclose(after.value, at.value, rtol=1e-12)


def test_coordinates_are_bounded_by_the_rounding_of_predictors(unfinished, monkeypatch):
    problem, objective, before = unfinished
    bound = 3e6
    assert (before.theta[:, 2:].norm(dim=1) < bound).all()
    monkeypatch.setattr(
        infinite_estimates, "_PREDICTOR_ROUNDING", bound * torch.finfo(torch.float64).eps
    )
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=TOL)
    assert after.converged.all()
    assert_allclose(after.theta[:, 2:].norm(dim=1), bound, rtol=1e-3)


def test_a_gene_without_a_finite_likelihood_is_left_as_it_is(unfinished):
    problem, objective, before = unfinished
    after = copy_of(before)
    after.value[0], after.theta[0], after.hessian[0] = -np.inf, np.nan, np.nan
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=TOL)
    assert after.value[0] == -np.inf
    assert after.theta[0].isnan().all()
    assert after.converged.tolist() == [False, *[True] * (N_GENES - 1)]


def test_a_penalty_is_rotated_with_its_part():
    """A small penalty makes the maximum finite, where its gradient balances the likelihood."""
    problem, objective, before = given(100, penalty=1e-16)
    assert not before.converged.any()
    after = copy_of(before)
    infinite_estimates.follow_infinite_estimates(problem, objective, after, max_iter=100, tol=1e-9)
    assert after.converged.all()
    size = after.theta[:, 2:]
    of_penalty = ((size @ problem.bases[1].penalty) * size).sum(1)
    gradient = objective.evaluate(after.theta, torch.arange(N_GENES)).gradient
    assert ((gradient[:, 2:] * size).sum(1).abs() < 1e-3 * of_penalty).all()


def quartic(x, gene):
    return (1 + gene) * (-((x[0] - 2 * x[1] * x[2]) ** 2) - (x[1] - x[0] + 3) ** 2 - x[2] ** 4)


class Quartic:
    """Of two genes, with all mixed derivatives."""

    def evaluate(self, x, genes):
        return derived(quartic, x, genes)


def derived(function, x, genes):
    rows = []
    for one, gene in zip(x, genes.tolist(), strict=True):
        of = partial(function, gene=gene)
        gradient = torch.autograd.functional.jacobian(of, one)
        hessian = torch.autograd.functional.hessian(of, one)
        rows.append((of(one), gradient, hessian, of(one).abs()))
    return Evaluation(*(torch.stack(column) for column in zip(*rows, strict=True)))


def test_derivatives_in_logarithms_of_some_coordinates():
    x = torch.tensor([[3.0, -1.0, 0.5], [0.2, 4.0, 2.0]], dtype=torch.float64)
    is_log = torch.tensor([[True, False, True]] * 2)
    objective = LogCoordinates(Quartic(), x, is_log)
    assert_allclose(objective.coordinates(objective.start), x, rtol=1e-14)

    def in_logarithms(s, gene):
        return quartic(torch.stack([s[0].exp(), s[1], s[2].exp()]), gene)

    genes = torch.tensor([1, 0])
    wanted = derived(in_logarithms, objective.start, genes)
    for ours, expected in zip(objective.evaluate(objective.start, genes), wanted, strict=True):
        assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.data
def test_a_real_size_that_is_infinite_from_a_knot_on():
    folder = os.environ.get("SC_GLM_DATA")
    if not folder:
        pytest.skip("SC_GLM_DATA does not name the folder of the real data sets")
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(Path(folder) / "pancreas_100.h5ad")
    formulas = FormulaTransformer(
        mean="~ bs(pseudotime, df=5)",
        dispersion="~ bs(pseudotime, df=4)",
        offset="np.log(sizeFactor)",
    )
    model = NegBinRegressor().fit(formulas.fit_transform(adata.obs), adata[:, ["Mt1"]].X)
    assert list(model.status_) == ["Poisson boundary"]
    undetermined = model.undetermined_["dispersion"].iloc[:, 0]
    assert list(undetermined.index[undetermined]) == ["bs(pseudotime, df=4)[4]"]
    assert model.log_likelihood_[0] > -2954.3
