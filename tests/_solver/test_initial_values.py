from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import expit

from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.objective import PartBasis
from sc_glm._solver import initial_values
from tests.problems import CURVE, GROUP, LINE, N_CELLS, ONE, X, alike, build_problem, simulate

RNG = np.random.default_rng(41)
WEIGHTS = RNG.integers(1, 4, N_CELLS).astype(float)
OFFSET = RNG.normal(scale=0.5, size=N_CELLS)
WIDE = np.c_[CURVE, RNG.normal(size=(N_CELLS, 4))]
MIXED = np.c_[CURVE, GROUP]  # of rank 5
MANY = np.c_[WIDE, RNG.normal(size=(N_CELLS, 2))]
Y = simulate(9, np.random.default_rng(5), lowest=-1.0)
SOME = (Y > 0).sum(0) >= 20  # genes that say something on every direction
RARE = np.eye(N_CELLS)[[3]].T
HARD = np.c_[Y, RARE, 0 * RARE, 1e6 * RARE, 1 + 0 * RARE, GROUP[:, [0, 2]] * Y[:, [0, 3]]]

SHAPES = ((-1.0, 0.0), (-3.0, -4.0), (2.0, 1.5))


def given(*designs, y=Y, family=None, weights=WEIGHTS, offset=OFFSET, dtype=torch.float64):
    family = family or (NegBinFamily() if len(designs) == 2 else ZINBFamily())
    return build_problem(family, y, *designs, offset=offset, weights=weights, dtype=dtype)


def predictor(problem, part, theta):
    """Genes x cells."""
    return (theta @ problem.bases[part].U.T).numpy()


def average(values, weights=WEIGHTS):
    return np.average(values, axis=-1, weights=weights)


# Moments


def test_moments_match_mean_and_variance():
    problem = given(ONE, ONE)
    mean, size = initial_values.moments(problem).T.numpy()
    assert_allclose(average(np.exp(mean[:, None] + OFFSET)), average(Y.T), rtol=1e-12)
    m, v = average(Y.T), average(Y.T**2) - average(Y.T) ** 2
    square = average(np.exp(2 * (mean[:, None] + OFFSET)))  # of the means of cells
    excess = v - m - (square - m**2)
    with np.errstate(divide="ignore"):
        fitting = np.where(excess > 0, square / excess, np.inf)
    lowest, highest = initial_values._SIZE_BOUNDS
    assert_allclose(np.exp(size), fitting.clip(lowest, highest), rtol=1e-10)
    assert ((fitting > lowest) & (fitting < highest)).sum() >= 3


def test_sizes_of_moments_are_clamped():
    y = np.c_[np.tile([1, 0], N_CELLS // 2), 1e4 * RARE]
    sizes = initial_values.moments(given(ONE, ONE, y=y))[:, -1].exp()
    assert_allclose(sizes, initial_values._SIZE_BOUNDS[::-1])


@pytest.mark.parametrize("design", [LINE, CURVE, GROUP, WIDE])
def test_sloped_moments_have_a_higher_likelihood(design):
    """Higher than with an equal mean in all cells, for most genes; some have varying sizes."""
    y = np.c_[Y, Y[:, :1] * GROUP[:, :1], Y[:, :1] * (X > 0.5)[:, None]]
    problem, flat = given(design, ONE, y=y), given(ONE, ONE, y=y)
    sloped, constant = initial_values.moments(problem), initial_values.moments(flat)
    genes = torch.arange(y.shape[1])
    gain = (
        problem.model_objective().evaluate(sloped, genes).value
        - flat.model_objective().evaluate(constant, genes).value
    )
    assert (gain > 0).sum() >= y.shape[1] - 3
    assert gain.sum() > 100
    eta = predictor(problem, 0, sloped[:, :-1])
    lengths = np.sqrt(average((eta - average(eta)[:, None]) ** 2))
    assert_allclose(lengths.max(), initial_values._MAX_SLOPE)


def test_moments_of_normal_covariates_are_near_the_truth():
    rng = np.random.default_rng(2)
    covariates, offset = rng.normal(size=(2, 20_000)), rng.normal(scale=0.4, size=20_000)
    truth, size = np.array([0.8, 0.5, -0.3]), 2.0  # a slope within what is cut
    design = np.c_[np.ones(20_000), *covariates]
    mu = np.exp(design @ truth + offset)
    y = rng.negative_binomial(size, size / (size + mu))[:, None]
    problem = build_problem(NegBinFamily(), y, design, np.ones_like(offset)[:, None], offset=offset)
    *_, log_size = found = initial_values.moments(problem)[0]
    coefficients = PartDesign.of(design).to_coef @ found[:-1].numpy()
    assert_allclose(coefficients, truth, atol=0.1)
    assert_allclose(log_size.exp(), size, rtol=0.2)


# Hurdle


def test_a_hurdle_splits_zeros_from_positive_counts():
    y = np.c_[Y, 1 + 0 * RARE, RARE]
    problem = given(LINE, CURVE, LINE, y=y)
    mean, size, inflation = initial_values.hurdle(problem, problem.bases[1]).split([2, 3, 2], 1)
    zeros = average(y.T == 0)
    assert (zeros[:-2] < 0.99).all()
    shares = np.clip(zeros, 0.01, 0.99)
    assert_allclose(expit(predictor(problem, 2, inflation)), shares[:, None] + 0 * y.T, rtol=1e-10)
    positives = [np.average(c[c > 0], weights=WEIGHTS[c > 0]) for c in y.T]
    at_average = predictor(problem, 0, mean) + average(OFFSET)
    assert_allclose(np.exp(at_average), np.array(positives)[:, None] + 0 * y.T, rtol=1e-10)
    assert_allclose(predictor(problem, 1, size), initial_values._HURDLE_LOG_SIZE, rtol=1e-10)


# Towards the counts


@pytest.mark.parametrize("design", [LINE, CURVE, GROUP, WIDE])
def test_slopes_have_their_level_and_deviation_and_point_towards_the_counts(design):
    problem = given(LINE, ONE, design)
    found = initial_values.sloped_predictors(problem, problem.bases[2], SHAPES)
    assert len(found) == len(SHAPES)
    for theta, (level, slope) in zip(found, SHAPES, strict=True):
        values = predictor(problem, 2, theta)
        assert_allclose(average(values), level, rtol=1e-9)
        assert_allclose(np.sqrt(average((values - level) ** 2)), abs(slope), atol=1e-9)
        at_counts = average((values - level) * (Y.T > 0))
        assert (at_counts * slope > 0).all() if slope else (abs(at_counts) < 1e-9).all()


def test_slopes_point_where_the_average_positive_count_is():
    """No direction has a larger difference of the means of those cells and of all."""
    problem = given(ONE, ONE, CURVE)
    (theta,) = initial_values.sloped_predictors(problem, problem.bases[2], [(0.0, 1.0)])
    U = problem.bases[2].U.numpy()
    difference = (Y.T > 0) * WEIGHTS @ U / ((Y.T > 0) @ WEIGHTS)[:, None] - average(U.T)
    assert_allclose((difference * theta.numpy()).sum(1), np.linalg.norm(difference, axis=1))


def test_a_part_that_is_not_regressed_has_a_level_alone():
    problem = given(LINE, ONE, ONE)
    (only,) = initial_values.sloped_predictors(problem, problem.bases[2], SHAPES)
    assert_allclose(predictor(problem, 2, only), SHAPES[0][0])


@pytest.mark.parametrize("design", [LINE, CURVE, GROUP])
def test_steep_predictors_are_zero_at_the_mean_of_the_counts(design):
    problem = given(design, ONE)
    up, down = (
        predictor(problem, 0, t)
        for t in initial_values.steep_predictors(problem, problem.bases[0], 8.0)
    )
    for values in (up, down):
        at_counts = [
            np.average(v[c > 0], weights=WEIGHTS[c > 0]) for v, c in zip(values, Y.T, strict=True)
        ]
        assert_allclose(at_counts, 0, atol=1e-9)
        spread = values - average(values)[:, None]
        assert_allclose(np.sqrt(average(spread**2)), 8, rtol=1e-9)
    assert_allclose(up, -down)
    assert (average(up) < 0).all()  # it rises towards the counts


# Edges


def test_edges_of_a_line_lie_at_the_outermost_counts():
    y = np.where((X > -0.4)[:, None] & (X < 0.7)[:, None], Y, 0)[:, SOME]
    problem = given(LINE, LINE, y=y)
    found = initial_values.edge_predictors(problem, problem.bases[1], 10.0)
    assert len(found) == 2
    values = np.stack([predictor(problem, 1, theta) for theta in found])
    for g, counts in enumerate(y.T):
        at = X[counts > 0]
        below, above = at.min() > X, at.max() < X
        assert below.any()
        assert above.any()
        falling, rising = sorted(values[:, g], key=lambda v: np.corrcoef(v, X)[0, 1])
        for edge, beyond in ((rising, below), (falling, above)):
            assert (edge[beyond] < 0).all()
            assert (edge[~beyond] > -1e-9).all()
            assert_allclose(edge[counts > 0].min(), 0, atol=1e-9)
            assert_allclose(np.sqrt(average((edge - average(edge)) ** 2)), 10, rtol=1e-9)


@pytest.mark.parametrize(("design", "n_directions"), [(ONE, 0), (CURVE, 2), (GROUP, 2), (WIDE, 4)])
def test_edges_are_above_zero_at_all_counts_and_touch_it(design, n_directions):
    problem = given(LINE, design, y=HARD)
    found = initial_values.edge_predictors(problem, problem.bases[1], 10.0)
    assert len(found) == 2 * n_directions
    for rising, falling in zip(found[::2], found[1::2], strict=True):
        pair = [predictor(problem, 1, theta) for theta in (rising, falling)]
        for values in pair:
            assert_allclose(
                [v[c > 0].min() for v, c in zip(values, HARD.T, strict=True) if c.any()],
                0,
                atol=1e-9,
            )
        across = pair[0] + pair[1]
        assert_allclose(across, across[:, :1] + 0 * across, atol=1e-8)  # they oppose each other


def test_edges_lie_along_the_principal_directions_of_the_counts():
    problem = given(LINE, WIDE, y=Y[:, SOME])
    U, constant = problem.bases[1].U.numpy(), problem.intercept(problem.bases[1]).numpy()
    others = np.eye(len(constant)) - np.outer(constant, constant) / (constant @ constant)
    found = torch.stack(initial_values.edge_predictors(problem, problem.bases[1], 1.0)[::2]).numpy()
    for g, counts in enumerate(Y.T[SOME]):
        spread = others @ (U.T * (counts > 0) * WEIGHTS) @ U @ others
        directions = found[:, g] @ others
        largest = np.linalg.eigvalsh(spread)[-4:]
        assert_allclose(np.einsum("di,ij,dj->d", directions, spread, directions), largest)
        assert_allclose(directions @ directions.T, np.eye(4), atol=1e-8)


def assert_same_set(ours, theirs):
    """Predictors, starts x genes x cells, in whatever order."""
    assert ours.shape == theirs.shape
    gap = abs(ours[:, None] - theirs[None]).max(-1)
    for axis in (0, 1):
        assert_allclose(gap.min(axis), 0, atol=1e-6)


@pytest.mark.parametrize("design", [LINE, CURVE, WIDE])
def test_a_rotated_basis_has_the_same_starts(design):
    problem = given(LINE, design, y=Y[:, SOME])
    basis = problem.bases[1]
    rank = basis.U.shape[1]
    Q = torch.from_numpy(np.linalg.qr(np.random.default_rng(rank).normal(size=(rank, rank)))[0])
    turned = replace(problem, bases=[problem.bases[0], PartBasis(basis.U @ Q, basis.penalty)])
    for make in (
        lambda p: initial_values.edge_predictors(p, p.bases[1], 10.0),
        lambda p: initial_values.steep_predictors(p, p.bases[1], 8.0),
        lambda p: initial_values.sloped_predictors(p, p.bases[1], SHAPES),
    ):
        ours, theirs = (
            np.stack([predictor(p, 1, theta) for theta in make(p)]) for p in (problem, turned)
        )
        assert_same_set(ours, theirs)


# Silence

SILENT = np.c_[Y[:, :4] * (1 - GROUP[:, :1]), Y[:, 4] * GROUP[:, 2], Y[:, 5], 0 * X]


@pytest.mark.parametrize("design", [GROUP, np.c_[LINE, GROUP], np.c_[GROUP[:, :2], ONE]])
def test_only_groups_without_counts_are_separated(design):
    problem = given(design, ONE, y=SILENT)
    moved = predictor(problem, 0, initial_values.separation_step(problem))
    for counts, change in zip(SILENT.T, moved, strict=True):
        seen = (counts @ GROUP > 0) @ GROUP.T > 0
        depth = initial_values._SEPARATION_DECREASE + np.log(max(1.0, counts @ WEIGHTS))
        expected = np.where(seen | ~counts.any(), 0.0, -depth)
        assert_allclose(change, expected, atol=1e-6)
    assert (moved[:5] < -1).any(axis=1).all()


def test_chunks_do_not_change_the_separation_step(monkeypatch):
    problem = given(GROUP, ONE, y=SILENT)
    whole = initial_values.separation_step(problem)
    monkeypatch.setattr(initial_values, "_SEPARATION_ENTRIES", 1)
    assert torch.equal(initial_values.separation_step(problem), whole)


def test_a_direction_that_changes_other_cells_is_not_followed():
    """One count leaves a line free to turn about it, which lowers some cells and raises others."""
    problem = given(LINE, ONE, y=np.c_[SILENT, RARE])
    assert not initial_values.separation_step(problem).any()


def test_penalised_groups_are_not_separated():
    problem = given(GROUP, ONE, y=SILENT)
    penalised = PartBasis(problem.bases[0].U, torch.eye(3, dtype=torch.float64))
    assert initial_values.separation_step(problem).any()
    assert not initial_values.separation_step(
        replace(problem, bases=[penalised, problem.bases[1]])
    ).any()


# Ascent


@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_likelihood_rises_the_most_along_the_ascent_direction(part):
    problem = given(LINE, CURVE, LINE)
    objective = problem.objective(problem.block(), problem.family, problem.bases)
    theta = initial_values.hurdle(problem, problem.bases[1])
    direction = initial_values.ascent_direction(objective, theta, part)
    assert_allclose(direction.norm(dim=1), 1)
    elsewhere = direction.clone()
    elsewhere[:, objective.slices[part]] = 0
    assert not elsewhere.any()

    genes = torch.arange(len(theta))

    def gamma_ratio(way):
        ahead, behind = (objective.evaluate(theta + h * way, genes).value for h in (1e-5, -1e-5))
        return ahead - behind

    steepest = gamma_ratio(direction)
    assert (steepest > 0).all()
    for column in range(objective.n_params)[objective.slices[part]]:
        along = torch.zeros_like(theta)
        along[:, column] = 1
        assert (gamma_ratio(along).abs() <= steepest * (1 + 1e-4) + 1e-9).all()


# All starts


def ascents(problem):
    objective = problem.objective(problem.block(), problem.family, problem.bases)
    theta = initial_values.hurdle(problem, problem.bases[1])
    return [initial_values.ascent_direction(objective, theta, part) for part in range(3)]


EVERY = {
    "moments": lambda p: [initial_values.moments(p)],
    "mean of positives": lambda p: [initial_values.mean_of_positives(p)],
    "hurdle": lambda p: [initial_values.hurdle(p, p.bases[1])],
    "slopes": lambda p: initial_values.sloped_predictors(p, p.bases[2], SHAPES),
    "steps": lambda p: initial_values.steep_predictors(p, p.bases[0], 8.0),
    "edges": lambda p: initial_values.edge_predictors(p, p.bases[1], 100.0),
    "separation": lambda p: [initial_values.separation_step(p)],
    "ascent": ascents,
}
each_start = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


@each_dtype
@each_start
def test_every_gene_has_a_finite_start(make, dtype):
    problem = given(GROUP, WIDE, LINE, y=HARD, dtype=dtype)
    for theta in make(problem):
        assert theta.shape[0] == HARD.shape[1]
        assert theta.dtype == dtype
        assert theta.isfinite().all()


@each_dtype
@each_start
@pytest.mark.parametrize("designs", [(MIXED, MANY, LINE), (WIDE, CURVE, GROUP)])
def test_genes_do_not_influence_each_other(make, designs, dtype):
    """All digits: alone, in another order, and together with any number of other genes."""
    problem = given(*designs, y=HARD, dtype=dtype)
    whole = make(problem)
    n = HARD.shape[1]
    for genes in ([g] for g in range(n)), (range(k, n) for k in (1, 4, 6)), (range(n)[::-1],):
        for some in genes:
            index = torch.tensor(list(some))
            for theta, alone in zip(whole, make(problem.of_genes(index)), strict=True):
                assert torch.equal(alone, theta[index])


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"ascent"}))
def test_weights_are_repeated_cells(name):
    index = np.repeat(np.arange(N_CELLS), WEIGHTS.astype(int))
    weighted = given(LINE, CURVE, WIDE, y=HARD[:, :9][:, SOME])
    repeated = replace(
        weighted,
        counts=weighted.counts[:, index],
        bases=[PartBasis(b.U[index], b.penalty) for b in weighted.bases],
        offset=weighted.offset[index],
        weights=torch.ones(len(index), dtype=torch.float64),
    )
    for ours, theirs in zip(EVERY[name](weighted), EVERY[name](repeated), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@each_start
def test_deduplicated_cells_count_as_each_of_them(make):
    rows = np.arange(N_CELLS) % 40
    designs = [design[rows] for design in (LINE, CURVE, WIDE)]
    each = given(*designs, y=HARD[:, :9][:, SOME], offset=OFFSET[rows])
    for ours, theirs in zip(make(alike(each, rows)), make(each), strict=True):
        assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
