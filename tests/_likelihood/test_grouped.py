"""Sums over cells of equal designs from a table, and the objective that is made of them."""

from dataclasses import replace

import mpmath
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.grouped import GroupedObjective, Groups
from sc_glm._likelihood.objective import Objective
from sc_glm._solver import initial_values, problem
from sc_glm.estimators import fit_designs
from tests.problems import N_CELLS, ONE, build_problem

RNG = np.random.default_rng(17)
NUMBERS = np.r_[np.arange(N_CELLS - 1) % 3, 3]  # the last cell is alone
DESIGN = np.eye(4)[NUMBERS]
OFFSET = RNG.uniform(-5, 3, N_CELLS)
WEIGHTS = RNG.uniform(0.1, 3, N_CELLS)
Y = RNG.negative_binomial(0.7, 0.4, size=(N_CELLS, 8)) * (RNG.uniform(size=(N_CELLS, 8)) < 0.4)
Y[:, 1] = 0
Y[NUMBERS == 1, 2] = 0  # silent in a group
Y[:, 3] = 0
Y[10, 3] = 1_000_000
Y[-1] = 2


def groups_of(offset=OFFSET, weights=WEIGHTS, numbers=NUMBERS):
    return Groups(*(torch.as_tensor(x) for x in (numbers, offset, weights)))


def grouped(given, numbers=NUMBERS):
    return replace(given, groups=Groups(torch.as_tensor(numbers), given.offset, given.weights))


def objectives(*, offset=OFFSET, strength=0.0):
    """The plain objective and the grouped one of the same problem."""
    given = build_problem(NegBinFamily(), Y, DESIGN, ONE, offset=offset, weights=WEIGHTS)
    penalty = strength * torch.eye(4, dtype=torch.float64)
    bases = [given.bases[0]._replace(penalty=penalty), given.bases[1]]
    return [each.objective(given.block(), given.family, bases) for each in (given, grouped(given))]


def theta_of(objective, eta, rho):
    """Coordinates of a mean's predictor of each group, and of a log size."""
    rows, size = (basis.U for basis in objective.bases)
    mean = torch.linalg.solve(rows, torch.as_tensor(eta, dtype=torch.float64).mT).mT
    return torch.cat([mean, torch.as_tensor(rho)[:, None] / size[0]], 1)


# The table


@pytest.mark.parametrize("x", [-300.0, -60.0, -37.5, -21.3, -4.0, -0.01, 0.5, 3.0, 36.0, 55.0, 300])
def test_sums_keep_their_digits_in_the_table_and_beyond(x):
    """They are multiplied by a size that may be as large as they are small."""
    groups = groups_of()
    sums = groups.sums(torch.full((1, 4), x, dtype=torch.float64) + groups.lowest)
    with mpmath.workdps(300):  # L - m is of the order of m squared
        for k in range(4):
            expected = [mpmath.mpf(0)] * 3
            for i in np.flatnonzero(k == NUMBERS):
                u = mpmath.exp(x + mpmath.mpf(OFFSET[i]))
                m = u / (1 + u)
                terms = mpmath.log1p(u) - m, m**2, m * (1 - m)
                expected = [e + WEIGHTS[i] * t for e, t in zip(expected, terms, strict=True)]
            actual = [float(s[0, k]) for s in sums]
            assert_allclose(actual, [float(e) for e in expected], rtol=2e-13)


def test_sums_are_continuous_between_intervals():
    groups = groups_of()
    at = groups.lowest + torch.arange(-50.0, 50, dtype=torch.float64)[:, None].expand(-1, 4)
    before, after = groups.sums(at - 1e-12), groups.sums(at + 1e-12)
    for a, b in zip(before, after, strict=True):
        assert_allclose(a, b, rtol=1e-11)


def test_a_predictor_of_nan_gives_nan():
    groups = groups_of()
    x = torch.zeros(3, 4, dtype=torch.float64)
    x[1] = torch.nan
    for values in groups.sums(x):
        assert_array_equal(values.isnan(), x.isnan())


def test_one_offset_for_all_cells():
    groups = groups_of(offset=np.full(N_CELLS, 2.5))
    x = torch.tensor([[-1.0, 0, 1, 2]], dtype=torch.float64)
    m = torch.sigmoid(x + 2.5)
    sums = groups.sums(x + 2.5)
    total = torch.from_numpy(np.bincount(NUMBERS, WEIGHTS))
    assert_allclose(sums.square, total * m**2, rtol=1e-12)
    assert_allclose(sums.variance, total * m * (1 - m), rtol=1e-12)
    assert_allclose(sums.rest, total * (-torch.log1p(-m) - m), rtol=1e-12)


# The objective


def points():
    """Predictors of each group and log sizes: ordinary ones, and of every kind of extreme."""
    n = Y.shape[1]
    eta, rho = [RNG.normal(size=(n, 4))], [RNG.normal(size=n)]
    for size in (-400.0, -8.0, 0.0, 12.0, 40.0, 400.0):
        eta += [RNG.normal(size=(n, 4)), RNG.uniform(-3, 2, (n, 4))]
        eta[-1][:, 1] = -40
        rho += [np.full(n, size)] * 2
    eta.append(np.tile(np.log(Y.mean(0, keepdims=True).T + 1e-9), (1, 4)))
    rho.append(np.full(n, -1.0))
    return eta, rho


@pytest.mark.parametrize(
    ("offset", "level", "strength"),
    [(OFFSET, 0.0, 0.0), (OFFSET, 0.0, 2.0), (4.5 * OFFSET - 200, 200.0, 0.0)],
)
def test_values_and_derivatives_equal_the_general_objective(offset, level, strength):
    plain, other = objectives(offset=offset, strength=strength)
    assert type(plain) is Objective
    assert type(other) is GroupedObjective
    genes = torch.arange(Y.shape[1])
    for eta, rho in zip(*points(), strict=True):
        theta = theta_of(other, eta + level, rho)
        expected, actual = plain.evaluate(theta, genes), other.evaluate(theta, genes)
        assert torch.isfinite(expected.hessian).all()
        rounding = 2e-14 * expected.magnitude  # that of y rho, of sizes that are hardly finite
        assert_allclose(actual.value / rounding, expected.value / rounding, rtol=1e-11, atol=1)
        assert_allclose(actual.magnitude, expected.magnitude, rtol=1e-11)
        for a, e in zip(actual[1:3], expected[1:3], strict=True):
            # At the smallest sizes, all that the plain objective's derivatives have is rounding
            scale = torch.maximum(e.abs().flatten(1).amax(1), 1e-4 * expected.magnitude)
            scale = scale.view(-1, *[1] * (e.ndim - 1))
            assert_allclose(a / scale, e / scale, rtol=0, atol=1e-11)


def test_above_the_ceiling_terms_continue_along_the_tangent():
    plain, other = objectives()
    genes = torch.arange(Y.shape[1])
    assert_array_equal(plain.ceiling, other.ceiling)
    eta = np.tile(other.ceiling[:, None].numpy() + 3, (1, 4))
    eta[:, ::2] -= 20
    theta = theta_of(other, eta, np.full(len(eta), 0.5))
    expected, actual = plain.evaluate(theta, genes), other.evaluate(theta, genes)
    for a, e in zip(actual, expected, strict=True):
        assert_allclose(a, e, rtol=1e-9, atol=1e-9 * float(e.abs().max()))


def test_any_genes_in_any_order_and_in_pieces(monkeypatch):
    _, other = objectives()
    eta, rho = points()
    theta = theta_of(other, eta[0], rho[0])
    whole = other.evaluate(theta, torch.arange(len(theta)))
    monkeypatch.setattr("sc_glm._likelihood.grouped._BLOCK_COUNTS", 7)
    monkeypatch.setattr("sc_glm._likelihood.objective._TILE_ENTRIES", 4 * 8)
    for genes in ([3], [7, 1, 0], [2, 2, 4, 5, 6, 0, 1, 3, 7, 2]):
        index = torch.tensor(genes)
        at = other.evaluate(theta[index], index)
        for a, e in zip(at, whole, strict=True):
            assert_array_equal(a, e[index])


# Where it is used


@pytest.mark.parametrize(
    ("family", "size", "dtype", "expected"),
    [
        (NegBinFamily(), ONE, torch.float64, GroupedObjective),
        (NegBinFamily(), 3 * ONE, torch.float64, GroupedObjective),
        (NegBinFamily(), DESIGN, torch.float64, Objective),
        (ZINBFamily(), ONE, torch.float64, Objective),
        (NegBinFamily(), ONE, torch.float32, Objective),
    ],
)
def test_which_objective_a_problem_has(family, size, dtype, expected):
    designs = [DESIGN, size, ONE][: len(family.parts)]
    given = grouped(build_problem(family, Y, *designs, offset=OFFSET, dtype=dtype))
    assert type(given.objective(given.block(), family, given.bases)) is expected
    coarse = given.coarsened(64, 0.005)
    assert type(coarse.objective(coarse.block(), family, coarse.bases)) is Objective
    some = given.of_genes(torch.tensor([1, 4]))
    assert type(some.objective(some.block(), family, some.bases)) is expected


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_initial_values_equal_those_of_single_cells(weights):
    given = build_problem(NegBinFamily(), Y, DESIGN, ONE, offset=OFFSET, weights=weights)
    other, basis = grouped(given), given.bases[0]
    rows, total = other.distinct_rows(basis)
    assert rows.shape == (4, 4)
    assert_allclose(total.sum(), given.weights.sum())
    seen = given.weighted_sum(given.ones_at_counts, basis.U**2)
    assert_allclose(other.weighted_sum_of_distinct(rows**2), seen, rtol=1e-12)
    separation_step = initial_values.separation_step(given)
    assert separation_step[2].abs().max() > 1
    assert_allclose(initial_values.separation_step(other), separation_step, atol=1e-9)


# Fits


def cells_and_counts(n_cells=600, seed=11):
    """Cells of three types with a depth each, and genes of all kinds."""
    rng = np.random.default_rng(seed)
    kind, depth = rng.integers(0, 3, n_cells), rng.normal(0, 0.7, n_cells)
    columns = {f"mean__k{k}": (kind == k).astype(float) for k in range(3)}
    columns["offset__depth"] = depth
    mu = np.exp(rng.normal(0.5, 1, 6) + rng.normal(0, 0.7, (3, 6))[kind] + depth[:, None])
    y = rng.negative_binomial(1.5, 1.5 / (1.5 + mu))
    poisson = rng.poisson(np.exp(depth))
    silent = np.where(kind == 2, 0, rng.poisson(2, n_cells))
    once = np.eye(n_cells)[3]
    return pd.DataFrame(columns), np.column_stack([y, poisson, silent, once, 0 * once])


X, COUNTS = cells_and_counts()
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def used(monkeypatch):
    """Notes of each time that cells are grouped for an objective."""
    notes = []

    def spy(*args, **kwargs):
        notes.append(kwargs["groups"])
        return GroupedObjective(*args, **kwargs)

    monkeypatch.setattr(problem, "GroupedObjective", spy)
    return notes


@pytest.mark.parametrize(
    ("regressor", "options"),
    [
        (NegBinRegressor, {}),
        (NegBinRegressor, {"alpha": {"mean": 0.01}}),
        (ZINBRegressor, {}),
    ],
)
def test_fits_equal_those_of_single_cells(monkeypatch, used, regressor, options):
    weights = np.random.default_rng(2).integers(0, 3, len(X))
    model = regressor(tol=1e-8, warm_start=True, **options)
    again = clone(model).fit(X, COUNTS, sample_weight=weights).fit(X, COUNTS, sample_weight=weights)
    model.fit(X, COUNTS, sample_weight=weights)
    assert used
    used.clear()
    monkeypatch.setattr(fit_designs, "group_rows_ignoring_offset", lambda *_: None)
    plain = clone(model).fit(X, COUNTS, sample_weight=weights)
    assert not used
    for fitted in (model, again):
        assert_allclose(fitted.log_likelihood_, plain.log_likelihood_, rtol=1e-9, atol=1e-7)
        assert_array_equal(fitted.status_, plain.status_)
    assert_allclose(model.n_iter_, plain.n_iter_, rtol=0, atol=2)  # rounding ends a climb


def test_a_fit_does_not_depend_on_the_other_genes(used):
    together = NegBinRegressor().fit(X, COUNTS)
    for genes in ([3], [8, 0, 7], [0, 0, 9, 5, 6]):
        few = NegBinRegressor(batch_size=2).fit(X, COUNTS[:, genes])
        for part, table in together.params_.items():
            assert_array_equal(few.params_[part].to_numpy(), table.to_numpy()[:, genes])
        assert_array_equal(few.log_likelihood_, together.log_likelihood_[genes])
    assert len(used) > 4


def test_workers_and_checkpoints_do_not_change_fits(tmp_path):
    alone = NegBinRegressor().fit(X, COUNTS)
    shared = NegBinRegressor(n_jobs=2, batch_size=4, checkpoint_dir=tmp_path).fit(X, COUNTS)
    again = NegBinRegressor(checkpoint_dir=tmp_path).fit(X, COUNTS)
    for fitted in (shared, again):
        assert_array_equal(fitted.log_likelihood_, alone.log_likelihood_)
        assert_array_equal(fitted.params_["mean"], alone.params_["mean"])


def test_cells_with_distinct_designs_are_not_grouped(used):
    columns = X.assign(mean__x=np.linspace(-1, 1, len(X)))
    NegBinRegressor().fit(columns, COUNTS[:, :2])
    assert not used
