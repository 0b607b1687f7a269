import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver import candidate_starts, initial_values, multistart, trust_region
from sc_glm._solver.trust_region import maximize
from tests.problems import CURVE, GROUP, LINE, N_CELLS, ONE, X, alike, build_problem, simulate

RNG = np.random.default_rng(22)


def solve(*args, tol=1e-8, **kwargs):
    return solution_of(build_problem(*args, **kwargs), tol)


def solution_of(given, tol=1e-8):
    objective = given.objective(given.block(), given.family, given.bases)
    solution = multistart.maximize_from_many_starts(given, objective, max_iter=200, tol=tol)
    genes = torch.arange(given.counts.shape[0])
    again = objective.evaluate(solution.theta, genes).value
    # What is reported is the value there, and no further step gains anything.
    assert_allclose(solution.value, again, rtol=1e-9, atol=1e-5)
    return solution


def assert_no_worse(model, contained):
    gap = model.value - contained.value
    assert (gap > -1e-6).all(), gap


# Nested models


@pytest.fixture(scope="module")
def counts():
    return simulate(30, np.random.default_rng(3))


@pytest.fixture(scope="module")
def nb(counts):
    return solve(NegBinFamily(), counts, LINE, ONE)


@pytest.fixture(scope="module")
def zinb(counts):
    return solve(ZINBFamily(), counts, LINE, ONE, ONE)


@pytest.fixture(scope="module")
def full(counts):
    return solve(ZINBFamily(), counts, LINE, LINE, LINE)


def test_every_gene_converges(nb, zinb, full):
    for solution in (nb, zinb, full):
        assert solution.converged.all()
        assert solution.theta.isfinite().all()


def test_a_regressed_mean_is_no_worse(counts, nb):
    assert_no_worse(nb, solve(NegBinFamily(), counts, ONE, ONE))
    assert_no_worse(solve(NegBinFamily(), counts, CURVE, ONE), nb)


def test_a_regressed_size_is_no_worse(counts, nb):
    line = solve(NegBinFamily(), counts, LINE, LINE)
    assert_no_worse(line, nb)
    assert_no_worse(solve(NegBinFamily(), counts, LINE, CURVE), line)
    assert_no_worse(solve(NegBinFamily(), counts, LINE, GROUP), nb)


def test_zero_inflation_is_no_worse(counts, nb, zinb):
    assert_no_worse(zinb, nb)
    assert_no_worse(solve(ZINBFamily(), counts, LINE, ONE, LINE), zinb)
    assert_no_worse(solve(ZINBFamily(), counts, LINE, LINE, ONE), zinb)


def test_all_parts_regressed_are_no_worse(counts, full, zinb):
    assert_no_worse(full, zinb)
    assert_no_worse(full, solve(NegBinFamily(), counts, LINE, LINE))
    assert_no_worse(full, solve(ZINBFamily(), counts, LINE, ONE, LINE))
    assert_no_worse(full, solve(ZINBFamily(), counts, LINE, LINE, ONE))


def test_the_truth_is_no_better_than_the_fit():
    """The likelihood of the coefficients that drew the counts is a lower bound of its maximum."""
    rng = np.random.default_rng(4)
    coef = rng.normal(size=(3, 2, 12)) * 0.7 + np.array([1.0, 0.5, -1.0])[:, None, None] * [
        [1],
        [0],
    ]
    mean, size, inflation = (LINE @ c for c in coef)
    structural = rng.uniform(size=mean.shape) < 1 / (1 + np.exp(-inflation))
    r = np.exp(size)
    y = np.where(structural, 0, rng.negative_binomial(r, r / (r + np.exp(mean))))
    given = build_problem(ZINBFamily(), y, LINE, LINE, LINE)
    objective = given.objective(given.block(), given.family, given.bases)
    U = PartDesign.of(LINE).U
    truth = np.vstack([np.linalg.lstsq(U, p, rcond=None)[0] for p in (mean, size, inflation)]).T
    at_truth = objective.evaluate(torch.from_numpy(truth), torch.arange(12)).value
    gap = solve(ZINBFamily(), y, LINE, LINE, LINE).value - at_truth
    assert (gap > 0).all()
    assert gap.mean() < 10  # half as many units as coefficients are expected


def best_of_random_starts(n_starts, family, y, *designs):
    given = build_problem(family, y, *designs)
    objective = given.objective(given.block(), given.family, given.bases)
    generator = torch.Generator().manual_seed(0)
    shape = (y.shape[1], objective.n_params)
    points = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(n_starts))
    ends = [maximize(objective, point, max_iter=200, tol=1e-6) for point in points]
    return torch.stack([end.value for end in ends]).amax(0)


@pytest.mark.parametrize(
    ("family", "designs", "missed"),
    [
        (NegBinFamily(), (LINE, ONE), 0),
        (NegBinFamily(), (LINE, LINE), 0),
        (ZINBFamily(), (LINE, ONE, ONE), 0),
        (ZINBFamily(), (LINE, LINE, LINE), 1),
    ],
)
def test_random_starts_are_no_better(counts, family, designs, missed):
    """Maximising from many random points finds no higher maximum than the candidate starts do."""
    y = counts[:, :12]
    gap = solve(family, y, *designs).value - best_of_random_starts(10, family, y, *designs)
    assert (gap < -1e-3).sum() <= missed, gap
    assert gap.min() > -0.2


def test_a_steep_inflation_and_a_steep_mean_are_both_tried():
    """Either part may explain zeros at one end of the covariate; each is a local maximum."""
    rng = np.random.default_rng(3)
    n_genes = 20

    def predictor(level, slope):
        middle = rng.uniform(*level, n_genes)
        slopes = rng.choice([-1, 1], n_genes) * rng.uniform(*slope, n_genes)
        return middle + np.outer(X, slopes)

    mean, size = predictor((0, 2), (0, 3)), predictor((-1, 1), (0, 2))
    inflation = predictor((-3, 0), (2, 6))
    structural = rng.uniform(size=mean.shape) < 1 / (1 + np.exp(-inflation))
    r = np.exp(size)
    y = np.where(structural, 0, rng.negative_binomial(r, r / (r + np.exp(mean))))
    found = solve(ZINBFamily(), y, LINE, LINE, LINE)
    gap = found.value - best_of_random_starts(10, ZINBFamily(), y, LINE, LINE, LINE)
    assert (gap > -1e-3).all(), gap


# Offset, weights, hard genes


def test_an_offset_is_taken_off_the_intercept(counts, nb):
    shifted = solve(NegBinFamily(), counts, LINE, ONE, offset=np.full(N_CELLS, 3.5))
    assert_allclose(shifted.value, nb.value, atol=1e-6)
    used = np.linalg.lstsq(PartDesign.of(LINE).U, 3.5 * ONE[:, 0], rcond=None)[0]
    some = counts.any(axis=0)
    gap = shifted.theta.numpy()[some, :2] + used - nb.theta.numpy()[some, :2]
    assert_allclose(gap, 0, atol=1e-3)


@pytest.mark.parametrize("designs", [(LINE, ONE), (LINE, LINE, LINE)])
def test_integer_weights_are_repeated_cells(counts, designs):
    family = NegBinFamily() if len(designs) == 2 else ZINBFamily()
    times = np.random.default_rng(0).integers(1, 4, size=N_CELLS)
    index = np.repeat(np.arange(N_CELLS), times)
    y = counts[:, :8]
    weighted = solve(family, y, *designs, weights=times)
    repeated = solve(family, y[index], *(d[index] for d in designs))
    assert_allclose(weighted.value, repeated.value, rtol=1e-8, atol=1e-5)


HARD = {
    "all zero": np.zeros(N_CELLS),
    "one cell": np.eye(N_CELLS)[100],
    "one cell, many": 1e6 * np.eye(N_CELLS)[100],
    "an outlier": np.where(np.arange(N_CELLS) == 7, 1e6, RNG.poisson(0.3, N_CELLS)),
    "constant": np.full(N_CELLS, 4),
    "one group only": GROUP[:, 0] * RNG.poisson(3, N_CELLS),
    "under-dispersed": 5 + RNG.integers(0, 2, N_CELLS),
    "fractions": RNG.gamma(0.5, 2, N_CELLS),
}


@pytest.mark.parametrize(
    ("family", "designs"),
    [
        (NegBinFamily(), (GROUP, ONE)),
        (NegBinFamily(), (GROUP, GROUP)),
        (ZINBFamily(), (GROUP, ONE, ONE)),
        (ZINBFamily(), (LINE, LINE, LINE)),
        (ZINBFamily(), (GROUP, GROUP, GROUP)),
    ],
)
def test_hard_genes_end_finite_and_leave_the_others_alone(counts, family, designs):
    easy = counts[:, [2, 8, 14]]
    y = np.c_[easy, np.column_stack(list(HARD.values()))]
    together = solve(family, y, *designs)
    assert together.theta.isfinite().all()
    assert together.value.isfinite().all()
    assert together.converged.all()
    alone = solve(family, easy, *designs)
    assert_allclose(together.value[:3], alone.value, rtol=1e-10)
    assert_allclose(together.theta[:3], alone.theta, atol=1e-6)


@pytest.mark.parametrize("designs", [(GROUP, ONE), (np.c_[LINE, GROUP], ONE), (GROUP, GROUP)])
def test_a_separated_group_costs_few_passes(monkeypatch, designs):
    """Its maximum is at minus infinity, which takes a pass for each unit without a step there."""
    rng = np.random.default_rng(0)
    some = GROUP[:, 0] * rng.negative_binomial(2, 0.3, N_CELLS)
    most = np.where(GROUP[:, 2], 0, rng.negative_binomial(2, 0.01, N_CELLS))
    y = np.c_[most, some, rng.negative_binomial(2, 0.3, N_CELLS)]
    started = solve(NegBinFamily(), y, *designs)
    assert started.n_iter.max() <= 12
    # Extrapolated steps would hide how many passes the start saves.
    monkeypatch.setattr(trust_region, "_MAX_STEP_LENGTH", 1.0)
    near = solve(NegBinFamily(), y, *designs)
    monkeypatch.setattr(initial_values, "_SEPARATION_DECREASE", 0.0)
    stepwise = solve(NegBinFamily(), y, *designs)
    for other in (near, stepwise):
        assert_allclose(started.value, other.value, atol=1e-5)
    if designs[1] is ONE:  # elsewhere, passes are counted in the last of several runs
        assert (near.n_iter[:2] < stepwise.n_iter[:2] - 5).all()


# Many cells


@pytest.fixture
def grouped(monkeypatch):
    """Return a function that has starts screened on so many groups of similar cells at most.

    It returns a list, which fills with the numbers of cells on which starts were screened.
    """
    n_cells = []
    screen = candidate_starts.screen_starts

    def spy(problem, *args, **options):
        n_cells.append(problem.counts.shape[1])
        return screen(problem, *args, **options)

    def use(n_groups):
        for module in (candidate_starts, multistart):
            monkeypatch.setattr(module, "screen_starts", spy)
        monkeypatch.setattr(multistart, "_MIN_CELLS_TO_COARSEN", 0)
        monkeypatch.setattr(multistart, "_MIN_CELLS_TO_COARSEN_INFLATION", 0)
        monkeypatch.setattr(multistart, "_MAX_COARSE_CELLS", n_groups)
        return n_cells

    return use


@pytest.mark.parametrize(
    ("family", "designs", "missed"),
    [
        (NegBinFamily(), (CURVE, LINE), 0),
        (NegBinFamily(), (GROUP, np.c_[GROUP, X]), 0),
        (ZINBFamily(), (LINE, ONE, LINE), 0),
        (ZINBFamily(), (LINE, LINE, LINE), 1),
    ],
)
def test_groups_of_similar_cells_lead_to_the_same_maxima(grouped, family, designs, missed):
    y = simulate(15, np.random.default_rng(6), lowest=0.0)
    whole = solve(family, y, *designs).value
    screened = grouped(64)
    gap = solve(family, y, *designs).value - whole
    assert screened
    assert max(screened) <= 64
    assert (gap < -1e-3).sum() <= missed, gap
    assert gap.min() > -0.5


def test_groups_follow_the_offset_and_the_weights(grouped):
    rng = np.random.default_rng(10)
    y = simulate(8, rng, lowest=0.0)
    options = {"offset": rng.normal(size=N_CELLS), "weights": rng.uniform(0.1, 3, N_CELLS)}
    whole = solve(ZINBFamily(), y, LINE, LINE, ONE, **options)
    grouped(64)
    assert_no_worse(solve(ZINBFamily(), y, LINE, LINE, ONE, **options), whole)


def test_groups_do_not_hide_edges(grouped):
    """Beyond some cell there are no counts: maxima to which only that cell's place leads."""
    y = np.random.default_rng(0).negative_binomial(3, 0.75, size=(N_CELLS, 6))
    for gene, edge in enumerate((0.75, 0.8, 0.85)):
        y[edge < X, gene] = 0
        y[-edge > X, 3 + gene] = 0
    whole = solve(NegBinFamily(), y, LINE, LINE)
    grouped(64)
    assert_no_worse(solve(NegBinFamily(), y, LINE, LINE), whole)


def test_groups_do_not_hide_rare_counts(grouped):
    y = simulate(6, np.random.default_rng(7), lowest=1.0)
    y[:, 1] = 0
    y[::40, 1] = 1 + np.arange(len(y[::40]))
    y[:, 2] = 0
    y[[20, 300], 2] = 5
    y[:, 4] = np.eye(N_CELLS)[13]
    whole = solve(NegBinFamily(), y, LINE, LINE)
    grouped(64)
    assert_allclose(solve(NegBinFamily(), y, LINE, LINE).value, whole.value, atol=1e-5)


def both_ways(*designs):
    """Return a problem with many duplicated cells, and the same problem with cells deduplicated."""
    rows = np.arange(N_CELLS) % 100
    y = simulate(12, np.random.default_rng(8), lowest=0.0)[rows]  # equal where X is equal
    y += np.random.default_rng(9).poisson(0.5, y.shape)
    family = NegBinFamily() if len(designs) == 2 else ZINBFamily()
    each = build_problem(family, y, *(design[rows] for design in designs))
    return each, alike(each, rows)


@pytest.mark.parametrize("designs", [(LINE, LINE), (LINE, ONE, LINE)])
def test_deduplicated_cells_have_the_same_maxima(designs):
    each, few = (solution_of(given) for given in both_ways(*designs))
    assert_allclose(few.value, each.value, atol=1e-5)


@pytest.mark.parametrize("designs", [(LINE, LINE), (LINE, ONE, LINE)])
def test_groups_of_deduplicated_cells_lead_to_the_same_maxima(grouped, designs):
    _, few = both_ways(*designs)
    whole = solution_of(few)
    screened = grouped(40)
    assert_allclose(solution_of(few).value, whole.value, atol=1e-5)
    assert max(screened) <= 40


@pytest.mark.parametrize("n_groups", [None, 100])
def test_the_maxima_are_deterministic(grouped, counts, n_groups):
    if n_groups:
        grouped(n_groups)
    before = torch.get_rng_state()
    first, second = (solve(ZINBFamily(), counts[:, :6], LINE, LINE, LINE) for _ in range(2))
    assert torch.equal(first.theta, second.theta)
    assert torch.equal(first.n_iter, second.n_iter)
    assert torch.equal(before, torch.get_rng_state())


def test_with_few_cells_starts_are_screened_on_each(grouped, monkeypatch, counts):
    screened = grouped(64)
    monkeypatch.setattr(multistart, "_MIN_CELLS_TO_COARSEN", N_CELLS + 1)
    monkeypatch.setattr(multistart, "_MIN_CELLS_TO_COARSEN_INFLATION", N_CELLS + 1)
    solve(NegBinFamily(), counts[:, :3], LINE, LINE)
    assert screened == [N_CELLS]


# Real data: totals of the best maxima known, from many random starts


@pytest.fixture(scope="module")
def pancreas():
    folder = os.environ.get("SC_GLM_DATA")
    if not folder:
        pytest.skip("SC_GLM_DATA does not name the folder of the real data sets")
    anndata = pytest.importorskip("anndata")
    adata = anndata.read_h5ad(Path(folder) / "pancreas_100.h5ad")
    time = adata.obs["pseudotime"].to_numpy(float)
    parts = ("mean", "dispersion", "zero_inflation")
    columns = {
        f"{part}__{name}": x
        for part in parts
        for name, x in (("Intercept", 1.0), ("pseudotime", time))
    }
    return pd.DataFrame(columns), adata.X


@pytest.mark.data
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("model", "regressed", "least"),
    [
        (NegBinRegressor(), ["mean"], -425384.95),
        (NegBinRegressor(), ["mean", "dispersion"], -415980.7),
        (ZINBRegressor(), ["mean", "dispersion", "zero_inflation"], -411720.4),
    ],
)
def test_the_best_known_maxima_of_real_genes(pancreas, model, regressed, least):
    X, y = pancreas
    design = X[[c for c in X if c.split("__")[0] in regressed]]
    model.set_params(n_jobs=1).fit(design, y)
    assert model.log_likelihood_.sum() >= least
    assert model.converged_.all()
