from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import logsumexp

from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver import problem as module
from tests.problems import CURVE, GROUP, LINE, N_CELLS, ONE, alike, build_problem, simulate

RNG = np.random.default_rng(31)
WEIGHTS = RNG.uniform(0.1, 3, N_CELLS)
OFFSET = RNG.normal(size=N_CELLS)
Y = simulate(6, np.random.default_rng(2))
Y[:, [2, 5]] = 0  # genes without counts, the last one of them
Y[:, 3] = np.eye(N_CELLS)[17]


@pytest.fixture
def given():
    return build_problem(ZINBFamily(), Y, CURVE, LINE, GROUP, offset=OFFSET, weights=WEIGHTS)


def points(problem, part):
    generator = torch.Generator().manual_seed(part)
    shape = (problem.counts.shape[0], problem.bases[part].U.shape[1])
    return torch.randn(shape, generator=generator, dtype=problem.offset.dtype)


# From predictors to coordinates


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_projection_gives_back_a_predictors_coordinates(given, part):
    basis, theta = given.bases[part], points(given, part)
    assert_allclose(given.project(basis.U @ theta.T, basis).T, theta, atol=1e-12)


def test_a_projection_is_weighted_least_squares(given):
    wanted = RNG.normal(size=N_CELLS)
    root = np.sqrt(WEIGHTS)
    U = given.bases[0].U.numpy()
    expected = np.linalg.lstsq(U * root[:, None], wanted * root, rcond=None)[0]
    found = given.project(torch.from_numpy(wanted)[:, None], given.bases[0])
    assert_allclose(found[:, 0], expected, rtol=1e-10)


def test_the_intercept_is_one_in_all_cells_if_the_design_contains_it(given):
    for basis in given.bases:
        assert_allclose(basis.U @ given.intercept(basis), np.ones(N_CELLS), rtol=1e-12)
    steep = build_problem(NegBinFamily(), Y, LINE[:, 1:], ONE, weights=WEIGHTS)
    x = LINE[:, 1]
    nearest = x * (WEIGHTS @ x) / (WEIGHTS @ x**2)
    assert_allclose(steep.bases[0].U @ steep.intercept(steep.bases[0]), nearest, rtol=1e-10)


def test_a_change_of_bases_keeps_predictors_that_the_new_designs_contain(given):
    small = build_problem(ZINBFamily(), Y, LINE, ONE, GROUP, weights=WEIGHTS)
    old = [small.bases[0], small.bases[1], given.bases[2]]
    ranks = [b.U.shape[1] for b in old]
    theta = torch.cat([points(small, 0), points(small, 1), points(given, 2)], 1)
    lifted = given.change_bases(theta, old, given.bases)
    assert lifted.shape == (len(theta), sum(b.U.shape[1] for b in given.bases))
    new_ranks = [b.U.shape[1] for b in given.bases]
    for a, b, before, after in zip(
        old, given.bases, theta.split(ranks, 1), lifted.split(new_ranks, 1), strict=True
    ):
        assert_allclose(after @ b.U.T, before @ a.U.T, atol=1e-11)
    assert torch.equal(lifted[:, -3:], theta[:, -3:])  # the same basis: not touched
    back = given.change_bases(lifted, given.bases, old)
    assert_allclose(back, theta, atol=1e-11)


def test_a_change_to_other_coordinates_of_the_same_rank(given):
    other = build_problem(
        ZINBFamily(), Y, CURVE, LINE, np.c_[ONE, GROUP[:, 1:]], weights=WEIGHTS
    ).bases
    theta = torch.cat([points(given, part) for part in range(3)], 1)
    lifted = given.change_bases(theta, given.bases, other)
    assert_allclose(lifted[:, -3:] @ other[2].U.T, theta[:, -3:] @ given.bases[2].U.T, atol=1e-11)


def test_a_change_of_bases_does_not_depend_on_other_genes(given):
    rank_five = np.c_[CURVE, GROUP]
    old = build_problem(NegBinFamily(), Y, rank_five, ONE).bases
    new = build_problem(NegBinFamily(), Y, rank_five, LINE, weights=WEIGHTS).bases
    theta = torch.from_numpy(np.random.default_rng(0).normal(size=(29, 6)))
    whole = given.change_bases(theta, old, new)
    for g in range(29):
        assert torch.equal(given.change_bases(theta[g : g + 1], old, new)[0], whole[g])


# Sums and ranges over the cells


def test_sums_over_cells_are_weighted(given):
    values = RNG.normal(size=(N_CELLS, 3))
    y = given.counts.data
    for at_counts, dense in ((y, Y), (given.ones_at_counts, Y > 0), (y**2, Y**2)):
        expected = (dense * WEIGHTS[:, None]).T @ values
        found = given.weighted_sum(at_counts, torch.from_numpy(values))
        assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        one = given.weighted_sum(at_counts, torch.from_numpy(values[:, 1].copy()))
        assert_allclose(one, expected[:, 1], rtol=1e-12, atol=1e-12)


def test_sums_keep_single_precision_of_the_cells():
    """They are accumulated in double precision, and rounded once."""
    y = np.full((N_CELLS, 1), 16_777_217.0)  # no number of single precision
    given = build_problem(NegBinFamily(), y, ONE, ONE, dtype=torch.float32)
    total = given.weighted_sum(given.counts.data, torch.ones(N_CELLS))
    assert total.dtype == torch.float32
    assert total == torch.tensor([16_777_217.0 * N_CELLS], dtype=torch.float64).float()


def test_values_at_the_counts_and_their_extremes_by_gene(given):
    basis, theta = given.bases[0], points(given, 0)
    predictor = (theta @ basis.U.T).numpy()
    genes, cells = np.nonzero(Y.T)
    assert_array_equal(given.genes, genes)
    assert_array_equal(given.cells, cells)
    at_counts = given.predictor_at_counts(basis, theta)
    assert_allclose(at_counts, predictor[genes, cells], atol=1e-12)
    for how, extreme in (("amin", np.min), ("amax", np.max)):
        expected = [
            extreme(p[y > 0]) if y.any() else 0.0 for p, y in zip(predictor, Y.T, strict=True)
        ]
        assert_allclose(given.reduce_by_gene(at_counts, how), expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("entries", [1, 100, 6 * 37, 6 * N_CELLS - 1, 6 * N_CELLS, 10**9])
def test_ranges_are_those_of_the_dense_predictor(monkeypatch, entries, dtype):
    given = build_problem(NegBinFamily(), Y, CURVE, ONE, dtype=dtype)
    monkeypatch.setattr(module, "_MAX_PREDICTOR_ENTRIES", entries)
    for part in (0, 1):
        basis, theta = given.bases[part], points(given, part)
        predictor = theta @ basis.U.T
        low, high = given.predictor_range(basis, theta)
        slack = 1e3 * torch.finfo(dtype).eps
        assert_allclose(low, predictor.amin(1), atol=slack)
        assert_allclose(high, predictor.amax(1), atol=slack)
        some = given.predictor_range(basis, theta[:1])
        assert torch.equal(torch.stack(some)[:, 0], torch.stack([low, high])[:, 0])


def test_the_range_of_no_genes(given):
    low, high = given.predictor_range(given.bases[0], points(given, 0)[:0])
    assert low.shape == high.shape == (0,)


# Part of a problem


def test_some_genes_in_the_order_asked_for(given):
    asked = torch.tensor([4, 0, 2])
    given.cells, given.genes, given.n_positive  # noqa: B018  # computed already for all genes
    some = given.of_genes(asked)
    assert_array_equal(some.counts.toarray(), Y.T[[4, 0, 2]])
    assert_array_equal(some.n_positive, np.count_nonzero(Y, axis=0)[[4, 0, 2]])
    assert_array_equal(np.bincount(some.genes, minlength=3), some.n_positive)
    assert some.bases is given.bases
    assert some.offset is given.offset


def test_a_block_holds_the_counts(given):
    block = given.block()
    found = sp.csr_array((block.y, block.cells, block.indptr), shape=Y.T.shape)
    assert_array_equal(found.toarray(), Y.T)
    assert block.y.dtype == given.offset.dtype


@pytest.mark.parametrize(
    ("designs", "simple"),
    [
        ((CURVE, ONE), True),
        ((CURVE, 0 * ONE), True),
        ((ONE, LINE), False),
        ((LINE, ONE, ONE), False),
        ((LINE, LINE, LINE), False),
    ],
)
def test_a_model_is_unimodal_with_one_size_and_no_zero_inflation(designs, simple):
    family = NegBinFamily() if len(designs) == 2 else ZINBFamily()
    assert build_problem(family, Y, *designs).is_unimodal == simple


# Deduplicated cells

ROWS = np.random.default_rng(6).integers(0, 30, N_CELLS)


@pytest.fixture
def both():
    """Return a problem of all cells, and the same problem with cells deduplicated."""
    designs = [design[ROWS] for design in (CURVE, LINE, GROUP)]
    each = build_problem(ZINBFamily(), Y, *designs, offset=OFFSET[ROWS], weights=WEIGHTS)
    return each, alike(each, ROWS)


def test_sums_over_deduplicated_cells(both):
    each, few = both
    for k in (0, 1, 2):
        wanted = each.weighted_sum(each.counts.data**k, each.bases[0].U)
        assert_allclose(
            few.weighted_sum(few.counts.data**k, few.bases[0].U), wanted, rtol=1e-10, atol=1e-10
        )


def test_deduplicated_cells_are_counted_one_by_one(both):
    each, few = both
    assert few.counts.nnz < each.counts.nnz
    assert_array_equal(few.n_positive, np.count_nonzero(Y, axis=0))
    assert_array_equal(each.n_positive, few.n_positive)
    some = few.of_genes(torch.tensor([4, 1, 0]))
    assert_array_equal(some.n_positive, few.n_positive[[4, 1, 0]])


def test_predictors_at_the_counts_of_deduplicated_cells(both):
    each, few = both
    theta = points(each, 1)
    for how in ("amin", "amax"):
        ours, theirs = (
            p.reduce_by_gene(p.predictor_at_counts(p.bases[1], theta), how) for p in (few, each)
        )
        assert_allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("genes", [[0, 1, 2, 3, 4, 5], [4, 0]])
def test_the_likelihood_of_deduplicated_cells(both, genes):
    theta = torch.cat([points(both[0], part) for part in range(3)], 1)[genes]
    theta[0, 0] += 9  # a mean beyond its ceiling
    index = torch.tensor(genes)
    ends = [p.objective(p.block(), p.family, p.bases).evaluate(theta, index) for p in both]
    for each, few in zip(*ends, strict=True):
        assert_allclose(few, each, rtol=1e-10, atol=1e-8)


# Groups of similar cells


@pytest.mark.parametrize("size", [1, 20, 100])
def test_a_coarse_problem_has_all_counts_and_weights_in_few_cells(given, size):
    coarse = given.coarsened(size, 0.005)
    n_cells = coarse.counts.shape[1]
    assert size / 4 < n_cells <= size
    assert_array_equal(coarse.n_positive, given.n_positive)
    assert_allclose(coarse.weights.sum(), WEIGHTS.sum(), rtol=1e-12)
    totals = [p.weighted_sum(p.counts.data, torch.ones_like(p.weights)) for p in (coarse, given)]
    assert_allclose(*totals, rtol=1e-12)
    for ours, theirs in zip(coarse.bases, given.bases, strict=True):
        assert ours.U.shape == (n_cells, theirs.U.shape[1])
        assert_allclose(coarse.weights @ ours.U, given.weights @ theirs.U, atol=1e-10)
        assert ours.penalty is theirs.penalty
    assert_allclose(
        coarse.weights @ coarse.offset.exp(), given.weights @ given.offset.exp(), rtol=1e-12
    )
    assert torch.equal(given.weights, torch.from_numpy(WEIGHTS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_values_have_an_exact_mean_in_groups(dtype):
    """A size that all cells share is evaluated once for all, if it is seen to be one."""
    options = {"offset": np.full(N_CELLS, 0.1), "weights": WEIGHTS, "dtype": dtype}
    given = build_problem(NegBinFamily(), Y, CURVE, ONE, **options)
    coarse = given.coarsened(64, 0.005)
    assert coarse.offset.dtype == torch.float64
    assert torch.equal(coarse.offset, given.offset[:1].double().expand_as(coarse.offset))
    assert torch.equal(coarse.bases[1].U, given.bases[1].U[: len(coarse.offset)].double())


def test_exposures_of_any_size_are_averaged():
    offset = np.repeat([-2000.0, 2000], N_CELLS // 2) + 0.01 * OFFSET
    coarse = build_problem(NegBinFamily(), Y, ONE, ONE, offset=offset).coarsened(2, 0.005)
    halves = offset.reshape(2, -1)
    expected = logsumexp(halves, axis=1) - np.log(N_CELLS // 2)
    assert_allclose(coarse.offset, expected, rtol=1e-12)


LEVELS = np.random.default_rng(5).integers(0, 6, N_CELLS)


def leveled():
    designs = [np.eye(6)[LEVELS], np.c_[ONE, LEVELS], ONE]
    return build_problem(ZINBFamily(), Y, *designs, offset=0.3 * LEVELS, weights=WEIGHTS)


def assert_likelihood(a, b):
    theta = torch.cat([points(a, part) for part in range(3)], 1)
    ends = [p.objective(p.block(), p.family, p.bases) for p in (a, b)]
    for x, y in zip(*(o.evaluate(theta, torch.arange(6)) for o in ends), strict=True):
        assert_allclose(x, y, rtol=1e-9, atol=1e-8)


def test_groups_of_equal_cells_are_exact():
    given = leveled()
    coarse = given.coarsened(1000, 0.005)
    assert coarse.counts.shape[1] == 6
    assert_likelihood(replace(coarse, is_approximation=False), given)


def test_an_approximation_has_nearly_the_likelihood_of_its_cells():
    """Counts add through a regressed size what a curve says."""
    coarse = leveled().coarsened(1000, 0.005)
    exact = replace(coarse, is_approximation=False)
    assert coarse.block().curves is not None
    assert exact.block().curves is None
    genes = torch.arange(6)
    theta = torch.cat([points(coarse, part) for part in range(3)], 1)
    near, true = (problem.model_objective().evaluate(theta, genes) for problem in (coarse, exact))
    assert_allclose(near.value, true.value, atol=0.01)
    assert not torch.equal(near.value, true.value)
    assert_allclose(near.gradient, true.gradient, atol=0.1)
    assert_allclose(near.hessian, true.hessian, atol=0.5)


def test_genes_without_a_count_have_an_approximation():
    given = build_problem(NegBinFamily(), 0 * Y, CURVE, LINE)
    coarse = given.coarsened(64, 0.005)
    theta = torch.cat([points(coarse, part) for part in range(2)], 1)
    exact = replace(coarse, is_approximation=False)
    ends = [p.model_objective().evaluate(theta, torch.arange(6)) for p in (coarse, exact)]
    for near, true in zip(*ends, strict=True):
        assert_allclose(near, true, rtol=1e-12, atol=1e-12)


def test_a_sample_has_the_weight_of_all_cells():
    options = {"offset": OFFSET, "weights": WEIGHTS}
    given = build_problem(ZINBFamily(), Y, LINE, CURVE, ONE, **options)
    drawn = given.subsample(60)
    assert drawn.counts.shape == (given.counts.shape[0], 60)
    assert_allclose(drawn.weights.sum(), WEIGHTS.sum())
    cells = [int(np.flatnonzero(x == OFFSET)[0]) for x in drawn.offset.numpy()]
    assert len(set(cells)) == 60
    assert_array_equal(drawn.counts.toarray(), given.counts.toarray()[:, cells])
    ratio = drawn.weights.numpy() / WEIGHTS[cells]
    assert_allclose(ratio, ratio[0])
    for basis, own in zip(given.bases, drawn.bases, strict=True):
        assert torch.equal(own.U, basis.U[cells])


@pytest.mark.parametrize("size", [1, 1000])
def test_deduplicated_cells_have_the_groups_of_each(size):
    given = leveled()
    few = alike(given, 2 * LEVELS + np.arange(N_CELLS) % 2)
    ours, theirs = few.coarsened(size, 0.005), given.coarsened(size, 0.005)
    assert ours.counts.shape == theirs.counts.shape
    assert_array_equal(ours.n_positive, theirs.n_positive)
    assert_likelihood(ours, theirs)
