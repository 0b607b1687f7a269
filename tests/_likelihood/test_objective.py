import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import expit, logsumexp

from sc_glm._likelihood import objective as module
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._likelihood.objective import Objective, PartBasis, cells_per_tile
from sc_glm._likelihood.tiles import CountBlock, Shares
from tests.problems import block_of

N_CELLS = 61
RNG = np.random.default_rng(5)
CONSTANT = np.ones((N_CELLS, 1))
COVARIATE = np.c_[CONSTANT, RNG.normal(size=N_CELLS)]
GROUPS = np.eye(3)[RNG.integers(0, 3, size=N_CELLS)]
# The gene in the middle has no counts, the last none but in the last cell.
Y = RNG.negative_binomial(0.7, 0.3, size=(5, N_CELLS)).astype(float)
Y[2] = 0
Y[4] = 0
Y[4, -1] = 2.5
Y[0, 7] = 300
OFFSET = RNG.normal(scale=0.5, size=N_CELLS)
WEIGHTS = RNG.uniform(0, 3, size=N_CELLS)

MODELS = {
    "one size": (NegBinFamily(), [COVARIATE, CONSTANT]),
    "one size, scaled": (NegBinFamily(), [COVARIATE, 0.5 * CONSTANT]),
    "size regressed": (NegBinFamily(), [GROUPS, COVARIATE]),
    "inflated": (ZINBFamily(), [COVARIATE, CONSTANT, CONSTANT]),
    "inflation regressed": (ZINBFamily(), [CONSTANT, CONSTANT, GROUPS]),
    "all regressed": (ZINBFamily(), [COVARIATE, GROUPS, COVARIATE]),
}


def penalty_of(rank, strength):
    root = np.random.default_rng(rank).normal(size=(rank, rank))
    return torch.from_numpy(strength * root.T @ root)


def make(family, designs, *, y=Y, offset=OFFSET, weights=WEIGHTS, strength=0.0):
    return Objective(
        family,
        block_of(y, tile=cells_per_tile([U.shape[1] for U in designs])),
        [PartBasis(torch.from_numpy(U), penalty_of(U.shape[1], strength)) for U in designs],
        torch.from_numpy(offset),
        torch.from_numpy(weights),
    )


def points(objective):
    generator = torch.Generator().manual_seed(1)
    theta = torch.randn(len(Y), objective.n_params, generator=generator, dtype=torch.float64)
    return 0.8 * theta  # no mean near its ceiling


def all_genes(objective):
    return torch.arange(objective.block.n_genes)


def log_likelihood(theta, y, designs, offset, weights):
    """The textbook's, of one gene, by torch operations that can be differentiated twice."""
    widths = [U.shape[1] for U in designs]
    eta, rho, *inflation = (
        torch.from_numpy(U) @ part for U, part in zip(designs, theta.split(widths), strict=True)
    )
    eta = eta + torch.from_numpy(offset)
    y, r, total = torch.from_numpy(y), rho.exp(), torch.logaddexp(eta, rho)
    terms = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
    terms = terms + r * (rho - total) + y * (eta - total)
    for zeta in inflation:
        none = -torch.logaddexp(zeta, torch.zeros_like(zeta))
        terms = torch.where(y == 0, torch.logaddexp(zeta + none, terms + none), terms + none)
    return terms @ torch.from_numpy(weights)


def assert_same(a, b, rtol=1e-12, atol=1e-11):
    for ours, theirs in zip(a, b, strict=True):
        assert_allclose(ours, theirs, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", MODELS)
def test_the_value_equals_that_of_scipy(name):
    family, designs = MODELS[name]
    objective = make(family, designs)
    theta = points(objective)
    value = objective.evaluate(theta, all_genes(objective)).value
    widths = np.cumsum([U.shape[1] for U in designs])[:-1]
    for g, y in enumerate(Y):
        eta, rho, *inflation = (
            U @ part for U, part in zip(designs, np.split(theta[g].numpy(), widths), strict=True)
        )
        mu, r = np.exp(eta + OFFSET), np.exp(rho)
        if g == 4:  # SciPy takes integers only
            continue
        terms = stats.nbinom.logpmf(y, r, r / (r + mu))
        if inflation:
            pi = expit(inflation[0])
            zero = logsumexp([np.log(pi), np.log1p(-pi) + terms], axis=0)
            terms = np.where(y == 0, zero, np.log1p(-pi) + terms)
        assert_allclose(value[g], WEIGHTS @ terms, rtol=1e-10)


@pytest.mark.parametrize("strength", [0.0, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_derivatives_equal_automatic_ones(name, strength):
    family, designs = MODELS[name]
    objective = make(family, designs, strength=strength)
    theta = points(objective)
    at = objective.evaluate(theta, all_genes(objective))
    penalty = torch.block_diag(*(penalty_of(U.shape[1], strength) for U in designs))

    for g, y in enumerate(Y):

        def penalised(x, y=y):
            return log_likelihood(x, y, designs, OFFSET, WEIGHTS) - 0.5 * x @ penalty @ x

        expected = (
            penalised(theta[g]),
            torch.autograd.functional.jacobian(penalised, theta[g]),
            torch.autograd.functional.hessian(penalised, theta[g]),
        )
        # torch's own trigamma, in the expected Hessian, is good to eight digits.
        assert_same([x[g] for x in at[:3]], expected, rtol=1e-8, atol=1e-6)
    half = 0.5 * np.einsum("gi,ij,gj->g", theta, penalty, theta)
    assert_allclose(objective.penalty_of(theta), half, rtol=1e-12)


@pytest.mark.parametrize("family", [NegBinFamily(), ZINBFamily()])
def test_one_size_equals_the_general_path(family):
    """A second column of zeros hides from the objective that the predictors are constant."""
    inflation = [CONSTANT] if len(family.parts) == 3 else []
    known = make(family, [COVARIATE, CONSTANT, *inflation])
    hidden = [np.c_[CONSTANT, RNG.normal(size=N_CELLS)] for _ in (0, *inflation)]
    general = make(family, [COVARIATE, *hidden])
    theta = points(known)
    mean, *others = theta.split(known.ranks, dim=1)
    wide = torch.cat([mean, *(torch.cat([o, torch.zeros_like(o)], 1) for o in others)], 1)
    a, b = known.evaluate(theta, all_genes(known)), general.evaluate(wide, all_genes(known))
    keep = [0, 1, 2, 4][: known.n_params]
    # Where sizes differ by cell, what small counts add through them comes from a table.
    expected = b.value, b.gradient[:, keep], b.hessian[:, keep][:, :, keep]
    assert_same(a[:3], expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("name", ["one size", "size regressed", "inflated", "all regressed"])
@pytest.mark.parametrize(("cells", "entries"), [(7, 14), (61, 61), (16, 1), (60, 10_000)])
def test_tiles_do_not_change_the_result(monkeypatch, name, cells, entries):
    family, designs = MODELS[name]
    whole = make(family, designs, strength=1.0)
    theta = points(whole)
    expected = whole.evaluate(theta, all_genes(whole))
    monkeypatch.setattr(module, "_TILE_CELLS", cells)
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    tiled = make(family, designs, strength=1.0)
    assert len(tiled.block.bounds) == -(-N_CELLS // cells) + 1
    assert_same(tiled.evaluate(theta, all_genes(tiled)), expected)
    subset = torch.tensor([4, 1, 2])
    assert_same(tiled.evaluate(theta[subset], subset), [x[subset] for x in expected])


def test_a_tile_has_fewer_cells_if_designs_have_many_columns():
    assert cells_per_tile([2, 1, 1]) == module._TILE_CELLS
    sizes = [cells_per_tile([rank, 1]) for rank in (10, 100, 1000, 100_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sizes[2] * 1000**2 <= module._TILE_PRODUCT_ENTRIES


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("genes", [[3], [2], [4, 0], [2, 3, 1, 0], [1, 1]])
def test_any_genes_in_any_order(name, genes):
    objective = make(*MODELS[name])
    theta = points(objective)
    expected = objective.evaluate(theta, all_genes(objective))
    some = objective.evaluate(theta[genes], torch.tensor(genes))
    assert_same(some, [x[genes] for x in expected])


@pytest.mark.parametrize("name", MODELS)
def test_integer_weights_are_repeated_cells(name):
    family, designs = MODELS[name]
    times = np.random.default_rng(3).integers(0, 4, size=N_CELLS)
    index = np.repeat(np.arange(N_CELLS), times)
    weighted = make(family, designs, weights=times.astype(float))
    repeated = make(
        family,
        [U[index] for U in designs],
        y=Y[:, index],
        offset=OFFSET[index],
        weights=np.ones(len(index)),
    )
    theta = points(weighted)
    assert_same(
        weighted.evaluate(theta, all_genes(weighted)),
        repeated.evaluate(theta, all_genes(weighted)),
    )


def several_at_once(family, designs, *, strength=0.0):
    """Return an objective in which each cell of three others stands for them, and those three."""
    index = np.repeat(np.arange(N_CELLS // 3), 3)
    y, weights = Y[:, : len(index)], WEIGHTS[: len(index)]
    each = make(
        family,
        [U[index] for U in designs],
        y=y,
        offset=OFFSET[index],
        weights=weights,
        strength=strength,
    )
    summed = np.bincount(index, weights)
    share = weights / summed[index]
    genes, cells = np.nonzero(y)
    zeros = np.zeros((len(y), N_CELLS // 3))
    for g in range(len(y)):
        zeros[g] = np.bincount(index, share * (y[g] == 0))
    indptr = np.searchsorted(genes, np.arange(len(y) + 1))
    block = CountBlock(
        torch.from_numpy(indptr),
        torch.from_numpy(index[cells]),
        torch.from_numpy(y[genes, cells]),
        N_CELLS // 3,
        cells_per_tile=cells_per_tile([U.shape[1] for U in designs]),
        shares=Shares(torch.from_numpy(zeros), torch.from_numpy(share[cells])),
    )
    few = Objective(
        family,
        block,
        [PartBasis(b.U[::3], b.penalty) for b in each.bases],
        torch.from_numpy(OFFSET[: N_CELLS // 3]),
        torch.from_numpy(summed),
    )
    return each, few


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("cells", "entries"), [(4096, 32_768), (7, 14), (16, 1)])
def test_a_cell_may_stand_for_several(monkeypatch, name, cells, entries):
    monkeypatch.setattr(module, "_TILE_CELLS", cells)
    monkeypatch.setattr(module, "_TILE_ENTRIES", entries)
    each, few = several_at_once(*MODELS[name], strength=1.0)
    theta = points(each)
    theta[1] *= 3  # some means beyond the ceiling
    theta[1, 0] += 9
    assert_allclose(few.ceiling, each.ceiling)
    genes = torch.tensor([3, 1, 1, 0, 2])
    assert_same(few.evaluate(theta[genes], genes), each.evaluate(theta[genes], genes))


def test_coordinates_are_not_changed():
    objective = make(*MODELS["all regressed"])
    theta = points(objective)
    before = theta.clone()
    first = objective.evaluate(theta, all_genes(objective))
    assert torch.equal(theta, before)
    assert_same(objective.evaluate(theta, all_genes(objective)), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["one size", "all regressed"])
def test_a_block_without_counts(name):
    family, designs = MODELS[name]
    empty = make(family, designs, y=np.zeros((2, N_CELLS)))
    theta = points(empty)[:2]
    at = empty.evaluate(theta, all_genes(empty))
    full = make(family, designs).evaluate(theta[[0, 0, 0]], torch.tensor([0, 1, 2]))
    assert_same([x[0] for x in at], [x[2] for x in full])


def test_no_mean_exceeds_its_ceiling():
    """A hundred times a gene's largest count at equal exposure, or one count where it has none."""
    objective = make(NegBinFamily(), [CONSTANT, CONSTANT])
    largest = np.array([(y * np.exp(-OFFSET)).max() for y in Y])
    largest[2] = np.exp(-OFFSET).max()
    assert_allclose(objective.ceiling, np.log(100 * largest))

    genes = all_genes(objective)
    # Beyond it, the value goes on along its tangent: a plateau would have no way back.
    at = torch.stack([objective.ceiling, torch.zeros(len(Y))], 1)
    further = torch.tensor([5.0, 0.0])
    reached, beyond = (objective.evaluate(theta, genes) for theta in (at, at + further))
    assert (reached.gradient[:, 0] < 0).all()
    assert_allclose(beyond.gradient[:, 0], reached.gradient[:, 0])
    assert_allclose(beyond.value, reached.value + 5 * reached.gradient[:, 0])


@pytest.mark.parametrize("name", ["size regressed", "all regressed"])
def test_gradients_above_the_ceiling_are_derivatives_of_the_value(name):
    family, designs = MODELS[name]
    objective = make(family, designs)
    theta = points(objective)
    theta[:, 0] += 9.0
    genes = all_genes(objective)
    gradient = objective.evaluate(theta, genes).gradient
    step = 1e-6
    for k in range(objective.n_params):
        change = torch.zeros(objective.n_params, dtype=torch.float64)
        change[k] = step
        ahead, behind = (objective.evaluate(theta + d, genes).value for d in (change, -change))
        assert_allclose(gradient[:, k], (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-4)


def test_parts_of_rank_zero_take_no_coordinates():
    nothing = np.zeros((N_CELLS, 0))
    objective = make(ZINBFamily(), [CONSTANT, nothing, nothing])
    theta = points(objective)
    assert objective.ranks == [1, 0, 0]
    at = objective.evaluate(theta, all_genes(objective))
    for g, y in enumerate(Y):
        value = log_likelihood(theta[g], y, [CONSTANT, nothing, nothing], OFFSET, WEIGHTS)
        assert_allclose(at.value[g], value, rtol=1e-10)
    assert at.hessian.shape == (len(Y), 1, 1)


def test_single_precision_follows():
    family, designs = MODELS["all regressed"]
    double = make(family, designs)
    single = Objective(
        family,
        CountBlock(
            double.block.indptr,
            double.block.cells,
            double.block.y.float(),
            N_CELLS,
            cells_per_tile=N_CELLS,
        ),
        [PartBasis(b.U.float(), b.penalty.float()) for b in double.bases],
        double.offset.float(),
        double.weights.float(),
    )
    theta = points(double)
    at = single.evaluate(theta.float(), all_genes(double))
    assert {x.dtype for x in at} == {torch.float32}
    assert_same(at, double.evaluate(theta, all_genes(double)), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", MODELS)
def test_no_count_is_likelier_than_certain(name):
    """Whatever the coefficients; searches try steep ones."""
    family, designs = MODELS[name]
    objective = make(family, designs, y=np.floor(Y))
    for scale in (1.0, 30.0, 1e3, 1e5):
        at = objective.evaluate(scale * points(objective), all_genes(objective))
        assert at.value.isfinite().all()
        assert (at.value <= 0).all()
