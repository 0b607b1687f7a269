"""Hessians of a mean with many levels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._design import levels
from sc_glm._likelihood.arrow_hessian import (
    Elimination,
    Indicators,
    eigenvalues_exceed,
    is_arrow,
    unpacked,
)
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.objective import PartBasis
from sc_glm._solver import initial_values
from sc_glm._solver.gene_block import Designs
from sc_glm._solver.multistart import maximize_from_many_starts
from sc_glm._solver.status import flat_directions, flat_directions_of_arrows
from sc_glm._solver.trust_region import maximize
from sc_glm.inference import coefficient_table
from tests.problems import CURVE, LINE, N_CELLS, ONE, alike, build_problem, frame_of, simulate

RNG = np.random.default_rng(8)
N_LEVELS = levels.MIN_LEVELS + 3
CODES = np.arange(N_CELLS) % N_LEVELS
DUMMIES = np.eye(N_LEVELS)[CODES]
WEIGHTS = RNG.integers(1, 4, N_CELLS).astype(float)
OFFSET = RNG.normal(0, 0.4, N_CELLS)
MEAN = np.c_[DUMMIES, CURVE[:, 1:]]


def by_levels(family, y, *others, mean=MEAN, weights=WEIGHTS, offset=OFFSET):
    """A problem whose mean has levels."""
    problem = build_problem(family, y, mean, *others, weights=weights, offset=offset)
    design = levels.decompose(mean, weights)
    codes, scale = (torch.as_tensor(x) for x in design.levels)
    U = torch.from_numpy(design.U)
    basis = PartBasis(U, U.new_zeros(U.shape[1], U.shape[1]), Indicators(codes, scale))
    return replace(problem, bases=[basis, *problem.bases[1:]])


def evaluated(problem, theta):
    return problem.model_objective().evaluate(theta, torch.arange(len(theta)))


def points(problem, n_genes):
    rank = sum(basis.rank for basis in problem.bases)
    return torch.from_numpy(RNG.normal(0, 0.3, (n_genes, rank)))


MODELS = {
    "one size": (NegBinFamily(), [ONE]),
    "regressed size": (NegBinFamily(), [LINE]),
    "same covariates": (NegBinFamily(), [CURVE]),
    "zero inflation": (ZINBFamily(), [ONE, LINE]),
}


@pytest.mark.parametrize("name", MODELS)
def test_an_unpacked_arrow_is_the_dense_hessian(name):
    family, others = MODELS[name]
    problem = by_levels(family, simulate(5, RNG), *others)
    theta = points(problem, 5)
    ours, plain = evaluated(problem, theta), evaluated(problem.unpacked(), theta)
    assert is_arrow(ours.hessian)
    assert ours.hessian.shape[2] == 1 + theta.shape[1] - N_LEVELS
    assert_allclose(ours.value, plain.value, rtol=1e-12)
    assert_allclose(ours.gradient, plain.gradient, atol=1e-9)
    assert_allclose(unpacked(ours.hessian), plain.hessian, atol=1e-9)
    assert unpacked(plain.hessian) is plain.hessian


def test_equal_cells_and_groups_have_the_same_arrow():
    y = simulate(4, RNG)
    each = by_levels(NegBinFamily(), y, ONE, mean=DUMMIES, offset=0 * OFFSET)
    theta = points(each, 4)
    rows = each.bases[0].of_cells(torch.arange(N_LEVELS))
    few = replace(alike(each, CODES), bases=[rows, each.bases[1].of_cells(torch.arange(N_LEVELS))])
    for ours in (evaluated(few, theta), evaluated(each.unpacked(), theta)):
        assert_allclose(ours.value, evaluated(each, theta).value, rtol=1e-11)
        assert_allclose(unpacked(ours.hessian), unpacked(evaluated(each, theta).hessian), atol=1e-8)
    each = by_levels(NegBinFamily(), y, ONE, mean=DUMMIES)
    grouped = replace(each, groups=Groups(torch.from_numpy(CODES), each.offset, each.weights))
    assert_allclose(evaluated(grouped, theta).hessian, evaluated(each, theta).hessian, atol=1e-8)


def test_levels_are_eliminated():
    problem = by_levels(NegBinFamily(), simulate(6, RNG), ONE)
    at = evaluated(problem, points(problem, 6))
    elimination = Elimination.of(-at.hessian, *torch.zeros(2, 6, dtype=torch.float64))
    slope = elimination.reduce(at.gradient)
    others = torch.linalg.solve(elimination.schur_complement, slope[:, N_LEVELS:])
    step = elimination.back_substitute(
        torch.cat([slope[:, :N_LEVELS] / elimination.diagonal, others], 1)
    )
    assert_allclose(step, torch.linalg.solve(-unpacked(at.hessian), at.gradient), rtol=1e-8)


def test_a_level_of_negative_curvature_is_not_flat():
    """Under zero inflation, the mean of a level's zeros may be where its curvature is negative."""
    y = simulate(3, RNG, lowest=0.0)
    y[CODES < 5] = 0
    problem = by_levels(ZINBFamily(), y, ONE, ONE)
    theta = points(problem, 3)
    theta[:, :5] = 2.0 / problem.bases[0].indicators.scale[:5]
    theta[:, -2:] = 1.0
    at = evaluated(problem, theta)
    nothing = torch.zeros(3, dtype=torch.float64)
    elimination = Elimination.of(-at.hessian, nothing, nothing)
    assert (elimination.diagonal < -1e-3).any(1).all()
    # As many eigenvalues are negative as of the matrix (Sylvester's law of inertia).
    negative = (elimination.diagonal < 0).sum(1)
    negative += (torch.linalg.eigvalsh(elimination.schur_complement) < 0).sum(1)
    assert torch.equal(negative, (torch.linalg.eigvalsh(-unpacked(at.hessian)) < 0).sum(1))


def test_eigenvalues_of_arrows_exceed_what_those_of_the_dense_matrix_exceed():
    problem = by_levels(NegBinFamily(), simulate(5, RNG), LINE)
    end = maximize_from_many_starts(problem, problem.model_objective(), max_iter=50, tol=1e-8)
    lowest = torch.linalg.eigvalsh(-unpacked(end.hessian))[:, 0]
    for least in lowest:
        assert torch.equal(eigenvalues_exceed(-end.hessian, 0.999 * least), lowest > 0.999 * least)
        assert torch.equal(eigenvalues_exceed(-end.hessian, 1.001 * least), lowest > 1.001 * least)
        assert torch.equal(
            eigenvalues_exceed(-unpacked(end.hessian), 1.001 * least),
            eigenvalues_exceed(-end.hessian, 1.001 * least),
        )


def test_similar_cells_of_different_levels_are_never_merged():
    y = simulate(4, RNG)
    problem = by_levels(ZINBFamily(), y, ONE, LINE)
    few = problem.coarsened(max_cells=8, width=0.5)
    n_cells = len(few.weights)
    assert N_LEVELS <= n_cells <= 8 * N_LEVELS < N_CELLS
    assert_allclose(few.weights.sum(), WEIGHTS.sum())
    of_levels = torch.zeros(N_LEVELS, dtype=torch.float64)
    of_levels.index_add_(0, few.bases[0].indicators.codes, few.weights)
    assert_allclose(of_levels, np.bincount(CODES, WEIGHTS))
    # Coordinates mean the same, so that constants do.
    assert_allclose(few.intercept(few.bases[0]), problem.intercept(problem.bases[0]), atol=1e-9)


def test_flat_directions_of_arrows_and_dense_matrices_are_equal():
    y = simulate(6, RNG, lowest=0.0)
    y[:, :3] = RNG.binomial(4, 0.5, (N_CELLS, 3))  # less than Poisson
    y[CODES < 2] = 0
    problem = by_levels(NegBinFamily(), y, ONE)
    start = initial_values.moments(problem)
    start[:, :-1] += initial_values.separation_step(problem)
    end = maximize(problem.model_objective(), start, max_iter=50, tol=1e-8)
    theta, information = end.theta.numpy(), -end.hessian
    directions, silent = flat_directions_of_arrows(information.numpy(), theta)
    assert silent[:, :2].all()
    assert directions.any()
    expected = flat_directions(unpacked(information).numpy(), theta)
    ours = directions @ directions.transpose(0, 2, 1)
    ours += np.einsum("gk,kl->gkl", silent, np.eye(theta.shape[1]))
    assert_allclose(ours, expected @ expected.transpose(0, 2, 1), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_digits_of_a_gene_do_not_depend_on_other_genes(name):
    family, others = MODELS[name]
    problem = by_levels(family, simulate(11, RNG), *others)
    start = initial_values.moments(problem)
    everything = maximize_from_many_starts(
        problem, problem.model_objective(), max_iter=50, tol=1e-8
    )
    for some in (torch.tensor([3]), torch.tensor([9, 3, 4])):
        part = problem.of_genes(some)
        assert torch.equal(initial_values.moments(part), start[some])
        found = maximize_from_many_starts(part, part.model_objective(), max_iter=50, tol=1e-8)
        assert torch.equal(found.theta, everything.theta[some])
        assert torch.equal(found.hessian, everything.hessian[some])


def test_levels_without_counts_have_low_initial_values():
    y = simulate(4, RNG, lowest=1.0)
    y[CODES == 3, 1] = 0
    problem = by_levels(NegBinFamily(), y, ONE)
    step = initial_values.separation_step(problem)
    predictor = problem.bases[0].predictor(step, slice(None))
    assert (predictor[1, CODES == 3] < -18).all()
    assert not predictor[1, CODES != 3].any()
    assert not predictor[[0, 2, 3]][:, (y > 0).all(axis=1)].any()


# Fits


N = 900
N_DONORS = 40


def screen():
    """Donors, two of one cell; cell types and a covariate, with silent donors and types."""
    rng = np.random.default_rng(3)
    donor = rng.integers(0, N_DONORS - 2, N)
    donor[:2] = N_DONORS - 2, N_DONORS - 1
    kind, x = rng.integers(0, 3, N), rng.normal(size=N)
    eta = rng.uniform(-2, 2, 16) + rng.normal(0, 0.7, (N_DONORS, 16))[donor]
    eta += np.outer(x, rng.normal(0, 0.3, 16))
    eta[:, ::4][donor % 5 == 1] = -30
    eta[:, 1::4][kind == 2] = -30
    size = np.exp(rng.uniform(-1, 2, 16))
    size[::3] = 1e6
    return donor, kind, x, rng.negative_binomial(size, size / (size + np.exp(eta)))


DONOR, KIND, COVARIATE, COUNTS = screen()
COUNTS[:, -1] = 0
OF_DONORS, OF_KINDS = np.eye(N_DONORS)[DONOR][:, 1:], np.eye(3)[KIND][:, 1:]
OF_TREATMENT = DONOR[:, None] % 2
DESIGNS = {
    "a covariate": np.c_[OF_DONORS, COVARIATE],
    "unscaled": np.c_[OF_DONORS, 1e4 + 1e3 * COVARIATE],
    "another factor": np.c_[OF_KINDS, OF_DONORS, COVARIATE],
    "nested": np.c_[OF_TREATMENT, OF_DONORS, COVARIATE],
    "zero and twice": np.c_[OF_DONORS, 0 * COVARIATE, OF_DONORS, COVARIATE],
    "nothing else": OF_DONORS,
}


def fit(monkeypatch, regressor, X, *, least, **data):
    monkeypatch.setattr(levels, "MIN_LEVELS", least)
    return regressor().fit(X, COUNTS, **data)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_fits_equal_those_of_dense_designs(monkeypatch, name, weighted):
    weights = np.random.default_rng(0).integers(0, 4, N) if weighted else None
    ours, plain = (
        fit(monkeypatch, NegBinRegressor, DESIGNS[name], least=least, sample_weight=weights)
        for least in (8, 10_000)
    )
    assert_allclose(ours.log_likelihood_, plain.log_likelihood_, rtol=1e-8, atol=1e-8)
    assert_array_equal(ours.status_, plain.status_)
    assert set(plain.status_) >= {"converged", "separated", "all zero"}
    assert list(ours.aliased_["mean"]) == list(plain.aliased_["mean"])
    certain = plain.status_ == "converged"
    for part, table in ours.params_.items():
        off = np.abs(table - plain.params_[part]).to_numpy()[:, certain]
        assert (off < 1e-5).all()
    predictions = [model.predict(DESIGNS[name])[:, certain] for model in (ours, plain)]
    assert_allclose(*predictions, rtol=1e-5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_standard_errors_equal_those_of_dense_designs(monkeypatch):
    tables = []
    for least in (8, 10_000):
        model = fit(monkeypatch, NegBinRegressor, DESIGNS["a covariate"], least=least)
        tables += [
            coefficient_table(model, DESIGNS["a covariate"], COUNTS, kind=kind)
            for kind in ("observed", "robust")
        ]
    for ours, plain in zip(tables[:2], tables[2:], strict=True):
        assert plain["standard_error"].notna().sum() > 200
        assert_allclose(ours["standard_error"], plain["standard_error"], rtol=1e-3)
        assert list(ours["reason"]) == list(plain["reason"])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_zero_inflation_keeps_its_starts(monkeypatch):
    ours, plain = (
        fit(monkeypatch, ZINBRegressor, DESIGNS["a covariate"], least=least)
        for least in (8, 10_000)
    )
    assert_allclose(ours.log_likelihood_, plain.log_likelihood_, rtol=1e-6, atol=1e-6)


COLUMN = np.c_[np.ones(N), COVARIATE]
OTHERS = {
    "regressed size": (NegBinRegressor, {"dispersion": COLUMN}),
    "zero inflation": (ZINBRegressor, {}),
    "regressed inflation": (ZINBRegressor, {"zero_inflation": COLUMN}),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("many_cells", [False, True])
@pytest.mark.parametrize("name", OTHERS)
def test_models_of_several_maxima_find_the_maxima_of_dense_designs(monkeypatch, name, many_cells):
    """Which of several maxima a climb comes to may differ; none is to be lower on the whole."""
    if many_cells:  # and starts told apart on groups
        monkeypatch.setattr("sc_glm._solver.multistart._MIN_CELLS_TO_COARSEN", 100)
        monkeypatch.setattr("sc_glm._solver.multistart._MIN_CELLS_TO_COARSEN_INFLATION", 100)
    regressor, parts = OTHERS[name]
    mean = np.c_[np.ones(N), DESIGNS["a covariate"]]
    designs = {"mean": mean, "dispersion": COLUMN[:, :1]} | parts
    if regressor is ZINBRegressor:
        designs.setdefault("zero_inflation", COLUMN[:, :1])
    frame = frame_of(**designs)
    ours, plain = (fit(monkeypatch, regressor, frame, least=least) for least in (8, 10_000))
    gain = ours.log_likelihood_ - plain.log_likelihood_
    assert (gain > -1e-3).all() if name == "zero inflation" else gain.sum() > -1.0
    same = np.abs(gain) < 1e-6
    assert same.mean() > 0.8
    assert_array_equal(ours.status_[same], plain.status_[same])
    certain = same & (plain.status_ == "converged")
    assert_allclose(ours.predict(frame)[:, certain], plain.predict(frame)[:, certain], rtol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_five_hundred_donors_and_a_covariate():
    """Which took minutes: a product of 500 x 500 columns in each cell."""
    rng = np.random.default_rng(1)
    donor, x = rng.integers(0, 500, 6000), rng.normal(size=6000)
    own = rng.normal(1.0, 0.5, 500)
    mu = np.exp(own[donor][:, None] + 0.3 * x[:, None])
    y = rng.negative_binomial(2.0, 2.0 / (2.0 + mu), (6000, 2))
    X = np.c_[np.eye(500)[donor], x]
    model = NegBinRegressor(fit_intercept=False).fit(X, y)
    mean = model.params_["mean"]
    assert_allclose(mean.loc["x500"], 0.3, atol=0.05)
    seen = np.bincount(donor, minlength=500) > 5
    assert np.corrcoef(mean.iloc[:500, 0][seen], own[seen])[0, 1] > 0.7
    assert (model.n_iter_ < 20).all()


def test_block_sizes_follow_the_memory_of_an_arrow():
    mean, size = levels.decompose(MEAN, WEIGHTS), levels.decompose(ONE, WEIGHTS)
    n_params = N_LEVELS + 3
    designs = Designs({"mean": mean, "dispersion": size}, OFFSET, WEIGHTS)
    assert designs.hessian_entries == n_params * 4
    sizes = levels.decompose(LINE, WEIGHTS)
    designs = Designs({"mean": mean, "dispersion": sizes}, OFFSET, WEIGHTS)
    assert designs.hessian_entries == (n_params + 1) * 5


@pytest.mark.parametrize("name", ["one size", "zero inflation"])
@pytest.mark.parametrize("is_packed", [True, False])
def test_known_sizes_replace_their_coordinate(name, is_packed):
    """Other derivatives are those at the known size; that coordinate is a parabola of its own."""
    family, others = MODELS[name]
    problem = by_levels(family, simulate(5, RNG), *others)
    problem = problem if is_packed else problem.unpacked()
    theta, log_size = points(problem, 5), torch.linspace(-1, 3, 5, dtype=torch.float64)
    size = problem.model_objective().slices[1]
    at_size = theta.clone()
    at_size[:, size] = log_size[:, None] / problem.bases[1].U[0]
    found, plain = (
        evaluated(replace(problem, log_size=log_size), theta),
        evaluated(problem, at_size),
    )
    assert_allclose(found.value, plain.value, rtol=1e-14)
    free = torch.ones(theta.shape[1], dtype=torch.bool)
    free[size] = False
    assert_allclose(found.gradient[:, free], plain.gradient[:, free], rtol=1e-12)
    assert not found.gradient[:, size].any()
    hessian, expected = unpacked(found.hessian), unpacked(plain.hessian)
    assert_allclose(hessian[:, free][:, :, free], expected[:, free][:, :, free], rtol=1e-12)
    assert not hessian[:, free][:, :, size].any()
    assert not hessian[:, size][:, :, free].any()
    assert (hessian[:, size, size] == -1).all()
    some = torch.tensor([3, 1])
    of_some = evaluated(replace(problem, log_size=log_size).of_genes(some), theta[some][:2])
    assert_allclose(of_some.value, found.value[some], rtol=1e-12)
