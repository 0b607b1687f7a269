import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm import block, fitting
from sc_glm.block import Designs, GeneFits, Settings
from sc_glm.counts import CountMatrix
from sc_glm.design import PartDesign
from sc_glm.family import NegBinFamily, ZINBFamily
from sc_glm.fitting import fit_genes
from sc_glm.status import Status

N_CELLS, N_GENES = 150, 7
SETTINGS = Settings(max_iter=100, tol=1e-9, device=torch.device("cpu"), dtype=torch.float64)


def simulate():
    rng = np.random.default_rng(8)
    x = rng.normal(size=N_CELLS)
    offset = rng.normal(scale=0.3, size=N_CELLS)
    weights = rng.integers(1, 3, size=N_CELLS).astype(float)
    mu = np.exp(1.5 + np.outer(x, rng.normal(scale=0.4, size=N_GENES)) + offset[:, None])
    y = rng.negative_binomial(2, 2 / (2 + mu)) * (rng.uniform(size=mu.shape) > 0.2)
    y[:, 3] = 0
    return x, offset, weights, y


X, OFFSET, WEIGHTS, Y = simulate()
INTERCEPT = np.ones((N_CELLS, 1))
COVARIATE = np.c_[INTERCEPT, X]


def designs(*matrices):
    parts = dict(zip(("mean", "dispersion", "zero_inflation"), matrices, strict=False))
    return Designs({k: PartDesign.of(m, WEIGHTS) for k, m in parts.items()}, OFFSET, WEIGHTS)


NB = (NegBinFamily(), designs(COVARIATE, COVARIATE))
ZINB = (ZINBFamily(), designs(COVARIATE, INTERCEPT, INTERCEPT))
MODELS = {"nb": NB, "zinb": ZINB}


def fit(family, parts, *, y=Y, settings=SETTINGS, **options):
    options = {"batch_size": "auto", "n_jobs": None, "start": None, "progress": False} | options
    return fit_genes(family, CountMatrix.of(y, n_cells=N_CELLS), parts, settings, **options)


def assert_same(a, b, tolerance=1e-9):
    assert a.coef.keys() == b.coef.keys()
    for part, coef in a.coef.items():
        some = np.delete(np.arange(coef.shape[1]), 3)  # no counts: a mean of any small size
        assert_allclose(coef[:, some], b.coef[part][:, some], rtol=tolerance, atol=tolerance)
    assert_allclose(a.log_likelihood, b.log_likelihood, rtol=tolerance, atol=tolerance)
    assert_array_equal(a.n_iter, b.n_iter)
    assert a.status == b.status


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_blocks_do_not_change_the_fits(model, batch_size):
    assert_same(fit(*MODELS[model], batch_size=batch_size), fit(*MODELS[model]))


def test_workers_do_not_change_the_fits():
    assert_same(fit(*NB, n_jobs=2, batch_size=3), fit(*NB))


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_matrix])
def test_sparse_counts_give_the_same_fits(form):
    assert_same(fit(*NB, y=form(Y), batch_size=2), fit(*NB))


def test_genes_may_come_in_any_order():
    order = np.array([6, 2, 0, 3, 5, 1, 4])
    fits, permuted = fit(*NB), fit(*NB, y=Y[:, order])
    assert_allclose(permuted.log_likelihood, fits.log_likelihood[order], rtol=1e-10)
    assert permuted.status == [fits.status[g] for g in order]


@pytest.mark.parametrize(
    ("batch_size", "n_jobs", "n_genes", "n_cells", "expected"),
    [
        (4, None, 7, 10, 4),
        ("auto", None, 7, 10, 7),
        ("auto", 2, 7, 10, 4),
        ("auto", 1, 900, 10, fitting._BLOCK_GENES),
        ("auto", 2, 900, 10, fitting._BLOCK_GENES),
        ("auto", None, 7, 20_000_000, 2),
        ("auto", None, 7, 10**9, 1),
    ],
)
def test_size_of_a_block(batch_size, n_jobs, n_genes, n_cells, expected):
    matrix = sp.csc_array((n_cells, n_genes), dtype=np.int8)
    counts = CountMatrix(matrix, np.arange(n_genes).astype(object), one_dimensional=False)
    assert fitting._block_size(batch_size, counts, n_jobs) == expected


def test_log_likelihood_is_scipys_and_weighted():
    fits = fit(*NB)
    eta = COVARIATE @ fits.coef["mean"] + OFFSET[:, None]
    r = np.exp(COVARIATE @ fits.coef["dispersion"])
    terms = stats.nbinom.logpmf(Y, r, r / (r + np.exp(eta)))
    assert_allclose(WEIGHTS @ terms, fits.log_likelihood, rtol=1e-9, atol=1e-7)


def test_log_likelihood_excludes_the_penalty():
    free = PartDesign.of(COVARIATE, WEIGHTS)
    ridge = PartDesign.of(COVARIATE, WEIGHTS, penalised=np.array([False, True]))
    ridge = PartDesign(ridge.U, ridge.to_coef, 50 * ridge.penalty)
    size = PartDesign.of(INTERCEPT, WEIGHTS)
    plain, shrunk = (
        fit(NegBinFamily(), Designs({"mean": mean, "dispersion": size}, OFFSET, WEIGHTS))
        for mean in (free, ridge)
    )
    some = np.delete(np.arange(N_GENES), 3)
    assert (np.abs(shrunk.coef["mean"][1, some]) < np.abs(plain.coef["mean"][1, some])).all()
    assert (shrunk.log_likelihood[some] < plain.log_likelihood[some]).all()
    r = np.exp(shrunk.coef["dispersion"][0])
    mu = np.exp(COVARIATE @ shrunk.coef["mean"] + OFFSET[:, None])
    terms = stats.nbinom.logpmf(Y, r, r / (r + mu))
    assert_allclose(WEIGHTS @ terms, shrunk.log_likelihood, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("model", MODELS)
def test_a_start_at_the_maximum_ends_there(model):
    first = fit(*MODELS[model])
    again = fit(*MODELS[model], start=first.coef, batch_size=3)
    assert (again.n_iter <= 2).all()
    assert_allclose(again.log_likelihood, first.log_likelihood, rtol=1e-9, atol=1e-6)


def test_a_start_on_an_aliased_design():
    aliased = np.c_[COVARIATE, 1 - X]
    model = NegBinFamily(), designs(aliased, INTERCEPT)
    first = fit(*model)
    again = fit(*model, start={k: v + (k == "mean") * 0.01 for k, v in first.coef.items()})
    assert_allclose(again.log_likelihood, first.log_likelihood, rtol=1e-9, atol=1e-7)
    some = np.delete(np.arange(N_GENES), 3)
    assert_allclose(again.coef["mean"][:, some], first.coef["mean"][:, some], atol=1e-4)


def test_the_iteration_limit_is_told():
    settings = Settings(max_iter=1, tol=1e-9, device=torch.device("cpu"), dtype=torch.float64)
    fits = fit(*NB, settings=settings)
    assert (fits.n_iter == 1).all()
    assert fits.status[0] is Status.ITERATION_LIMIT
    assert fits.status[3] is Status.ALL_ZERO


def test_single_precision():
    settings = Settings(max_iter=100, tol=1e-4, device=torch.device("cpu"), dtype=torch.float32)
    single, double = fit(*NB, settings=settings), fit(*NB)
    assert single.log_likelihood.dtype == np.float64
    assert_allclose(single.log_likelihood, double.log_likelihood, rtol=1e-4, atol=1e-2)
    assert single.status == double.status


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_blocks_run_on_one_thread_which_is_undone(monkeypatch):
    seen = []
    search = block.search

    def spy(*args, **options):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return search(*args, **options)

    monkeypatch.setattr(block, "search", spy)
    fit(*NB, batch_size=4)
    assert seen == [(1, True), (1, True)]
    assert torch.get_num_threads() == 3
    assert not torch.is_inference_mode_enabled()


@pytest.mark.usefixtures("three_threads")
def test_threads_are_given_back_after_an_error(monkeypatch):
    def fail(*_args, **_options):
        message = "no"
        raise RuntimeError(message)

    monkeypatch.setattr(block, "search", fail)
    with pytest.raises(RuntimeError, match="no"):
        fit(*NB)
    assert torch.get_num_threads() == 3
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("progress", [False, True])
def test_progress(capsys, progress):
    fit(*NB, batch_size=2, progress=progress)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("7/7" in captured.err) == progress
    assert ("gene" in captured.err) == progress


def test_join_puts_blocks_side_by_side():
    blocks = [
        GeneFits({"mean": np.ones((2, 1))}, np.array([-1.0]), np.array([3]), [Status.POISSON]),
        GeneFits(
            {"mean": np.zeros((2, 2))},
            np.array([-2.0, -3.0]),
            np.array([4, 5]),
            [Status.CONVERGED, Status.ALL_ZERO],
        ),
    ]
    fits = GeneFits.join(blocks)
    assert_array_equal(fits.coef["mean"], [[1, 0, 0], [1, 0, 0]])
    assert_array_equal(fits.log_likelihood, [-1, -2, -3])
    assert_array_equal(fits.n_iter, [3, 4, 5])
    assert fits.status == [Status.POISSON, Status.CONVERGED, Status.ALL_ZERO]


def test_results_own_their_memory_and_are_numpys():
    fits = fit(*NB)
    for array in (*fits.coef.values(), fits.log_likelihood, fits.n_iter):
        assert type(array) is np.ndarray
    assert fits.n_iter.dtype.kind == "i"
