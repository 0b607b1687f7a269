import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import joblib
import numpy as np
import psutil
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose, assert_array_equal, assert_equal
from pandas.testing import assert_frame_equal
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor
from sc_glm._counts.count_matrix import CountMatrix, consecutive_blocks
from sc_glm._counts.tally import Grouping
from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver import fitting, gene_block
from sc_glm._solver.checkpoint import Checkpoint
from sc_glm._solver.fitting import fit_genes
from sc_glm._solver.gene_block import Designs, GeneFits, Settings, fit_block
from sc_glm._solver.status import Status

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


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("dtype", [float, np.int32])
def test_counts_by_cell_are_fitted_without_a_conversion(monkeypatch, n_jobs, dtype):
    rows = np.arange(N_CELLS) % 3
    groups = PartDesign.of(np.eye(3), np.bincount(rows, WEIGHTS))
    one = PartDesign.of(np.ones((3, 1)), np.bincount(rows, WEIGHTS))
    cells = Grouping(rows, WEIGHTS)
    parts = {"mean": groups, "dispersion": one}
    few = Designs(parts, np.zeros(3), cells.row_weights(), cells)
    y = Y.astype(dtype)
    expected = fit(NegBinFamily(), few, y=sp.csc_array(y), n_jobs=n_jobs, batch_size=3)
    monkeypatch.setattr(CountMatrix, "by_column", property(lambda _: pytest.fail("converted")))
    found = fit(NegBinFamily(), few, y=sp.csr_array(y), n_jobs=n_jobs, batch_size=3)
    for part, coef in expected.coef.items():
        assert_array_equal(found.coef[part], coef)
    assert_array_equal(found.log_likelihood, expected.log_likelihood)
    assert found.status == expected.status


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


def assert_identical(fits, expected):
    for field in fields(GeneFits):
        assert_equal(getattr(fits, field.name), getattr(expected, field.name))


def sizes(blocks):
    return [block.stop - block.start for block in blocks]


@pytest.mark.parametrize(
    ("options", "n_genes", "n_positive", "expected"),
    [
        ((4, 9), 7, 10, [4, 3]),
        ((4, 9), 7, 10**9, [4, 3]),
        (("auto", 9), 7, 10, [7]),
        (("auto", 3), 7, 10, [3, 3, 1]),
        (("auto", 900), 300, 10, [fitting._MAX_BLOCK_GENES, 300 - fitting._MAX_BLOCK_GENES]),
        (("auto", 9), 7, fitting._MAX_BLOCK_COUNTS // 5, [5, 2]),
        (("auto", 9), 7, fitting._MAX_BLOCK_COUNTS, [fitting._MIN_BLOCK_GENES, 3]),
        (("auto", 2), 7, fitting._MAX_BLOCK_COUNTS, [2, 2, 2, 1]),
    ],
)
def test_sizes_of_blocks(options, n_genes, n_positive, expected, monkeypatch):
    monkeypatch.setattr(CountMatrix, "n_positive", lambda _: np.full(n_genes, n_positive))
    counts = CountMatrix.of(np.zeros((1, n_genes)), n_cells=1)
    assert sizes(fitting.gene_blocks(counts, NB[1], *options)) == expected


def test_sizes_of_blocks_where_cells_are_in_groups(monkeypatch):
    numbers = np.arange(N_CELLS) % 3
    grouped = replace(designs(np.eye(3)[numbers], INTERCEPT), groups=numbers)
    monkeypatch.setattr(CountMatrix, "n_positive", lambda _: np.full(3000, 10))
    counts = CountMatrix.of(np.zeros((1, 3000)), n_cells=1)
    longest = fitting._MAX_BLOCK_GENES_GROUPED
    assert sizes(fitting.gene_blocks(counts, grouped, "auto", 3000)) == [longest, longest, 952]
    assert sizes(fitting.gene_blocks(counts, grouped, "auto", 600)) == [600] * 5
    monkeypatch.setattr(fitting, "_MAX_BLOCK_HESSIANS", 4**2 * 700)
    assert sizes(fitting.gene_blocks(counts, grouped, "auto", 3000))[0] == 700


def blocks_of_few_rows(monkeypatch, n_genes, n_positive, *, n_columns=3, most=10**6, row_cells=100):
    """Return how many genes make a block where 12 rows stand for all cells."""
    groups = np.eye(n_columns)[np.arange(12) % n_columns]
    rows = Designs(
        {"mean": PartDesign.of(groups), "dispersion": PartDesign.of(np.ones((12, 1)))},
        np.zeros(12),
        np.full(12, row_cells),
        Grouping(np.repeat(np.arange(12), row_cells), np.ones(12 * row_cells)),
    )
    monkeypatch.setattr(CountMatrix, "n_positive", lambda _: np.full(n_genes, n_positive))
    counts = CountMatrix.of(np.zeros((1, n_genes)), n_cells=1)
    return sizes(fitting.gene_blocks(counts, rows, "auto", most))[0]


def test_sizes_of_blocks_of_deduplicated_cells(monkeypatch):
    assert blocks_of_few_rows(monkeypatch, 9000, 10) == fitting._MAX_BLOCK_GENES_DEDUPLICATED
    assert blocks_of_few_rows(monkeypatch, 9000, 10, most=1000) == 1000
    # No more than whose Hessians, rows, or counts fit the memory
    for name, value in (("_MAX_BLOCK_HESSIANS", 13**2 * 700), ("_MAX_BLOCK_ROWS", 12 * 700)):
        with monkeypatch.context() as patch:
            patch.setattr(fitting, name, value)
            assert blocks_of_few_rows(patch, 9000, 10, n_columns=12) == 700
            patch.setattr(fitting, name, 0)
            assert blocks_of_few_rows(patch, 9000, 10) == 1
    n_positive = fitting._MAX_BLOCK_COUNTS_DEDUPLICATED // 100
    assert blocks_of_few_rows(monkeypatch, 9000, n_positive) == 100
    # Those of a row differ where it has few cells.
    n_positive = fitting._MAX_BLOCK_COUNTS // 100
    assert blocks_of_few_rows(monkeypatch, 9000, n_positive, row_cells=4) == 400


class Tasks:
    """In place of joblib.Parallel: runs tasks here, and keeps what they are given."""

    def __init__(self):
        self.given = []

    def __call__(self, **_):
        return self.run

    def run(self, tasks):
        for function, given, _ in tasks:
            self.given.append(given)
            yield function(*given)


@pytest.fixture
def tasks(monkeypatch):
    tasks = Tasks()
    monkeypatch.setattr(joblib, "Parallel", tasks)
    return tasks


def test_workers_have_several_blocks_each(tasks):
    fit(*NB, y=np.tile(Y, 5), n_jobs=2)
    assert [counts.shape for _, counts, *_ in tasks.given] == [(5, N_CELLS)] * 7


def test_workers_are_sent_their_block_alone(tasks):
    log_size = np.linspace(0, 1, N_GENES)
    fit(*NB, n_jobs=2, batch_size=2, start=fit(*NB).coef, log_size=log_size)
    own = [given for task in tasks.given[-4:] for given in task]
    assert [x.shape[0] for x in own if sp.issparse(x)] == [2, 2, 2, 1]
    assert not any(isinstance(x, CountMatrix) for x in own)
    of_genes = [x for x in own if hasattr(x, "log_size")]
    assert [x.start["mean"].shape[1] for x in of_genes] == [2, 2, 2, 1]
    assert [len(x.log_size) for x in of_genes] == [2, 2, 2, 1]


class Elsewhere(CountMatrix):
    """Counts that are loaded by groups of two genes, as from a file."""

    in_memory = False
    loaded: ClassVar = []

    def gene_groups(self, max_genes):
        return consecutive_blocks(np.ones(self.n_genes), 2, longest=max_genes)

    def load(self):
        self.loaded.append(self.n_genes)
        return CountMatrix(self.matrix, self.names, self.one_dimensional)


def fit_elsewhere(**options):
    counts = CountMatrix.of(sp.csc_array(Y), n_cells=N_CELLS)
    counts = Elsewhere(counts.matrix, counts.names, one_dimensional=False)
    Elsewhere.loaded.clear()
    options = {"batch_size": 3, "n_jobs": None, "start": None, "progress": False} | options
    return fit_genes(NB[0], counts, NB[1], SETTINGS, **options)


@pytest.mark.parametrize("start", [None, fit(*NB).coef])
def test_groups_are_loaded_one_by_one(tasks, start):
    fits = fit_elsewhere(start=start)
    assert Elsewhere.loaded == [2, 2, 2, 1]
    assert [counts.shape[0] for _, counts, *_ in tasks.given] == [2, 1, 1, 2, 1]  # cut at 3 and 6
    assert_identical(fits, fit(*NB, start=start))


@pytest.mark.parametrize("start", [None, fit(*NB).coef])
def test_workers_load_their_own_groups(tasks, start):
    fits = fit_elsewhere(n_jobs=2, start=start)
    assert [counts.n_genes for _, counts, *_ in tasks.given] == [1] * N_GENES
    assert Elsewhere.loaded == [1] * N_GENES
    assert_identical(fits, fit(*NB, start=start))


def test_log_likelihood_is_scipys_and_weighted():
    fits = fit(*NB)
    eta = COVARIATE @ fits.coef["mean"] + OFFSET[:, None]
    r = np.exp(COVARIATE @ fits.coef["dispersion"])
    terms = stats.nbinom.logpmf(Y, r, r / (r + np.exp(eta)))
    assert_allclose(WEIGHTS @ terms, fits.log_likelihood, rtol=1e-9, atol=1e-7)


def test_log_likelihood_excludes_the_penalty():
    free = PartDesign.of(COVARIATE, WEIGHTS)
    ridge = PartDesign.of(COVARIATE, WEIGHTS, penalised=np.array([False, True]))
    ridge = replace(ridge, penalty=50 * ridge.penalty)
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


def test_the_iteration_limit_is_reported():
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


def test_arrays_that_are_mapped_into_a_worker_do_not_cause_a_warning(monkeypatch):
    """Joblib maps what is large, read-only; torch warns of such arrays, but only once."""
    writable = []
    as_tensor = torch.as_tensor

    def spy(x, *args, **options):
        if isinstance(x, np.ndarray):
            writable.append(x.flags.writeable)
        return as_tensor(x, *args, **options)

    monkeypatch.setattr(torch, "as_tensor", spy)
    counts = CountMatrix.of(Y, n_cells=N_CELLS).by_gene(slice(0, 3))
    shared = replace(designs(COVARIATE, INTERCEPT), offset=OFFSET.copy(), weights=WEIGHTS.copy())
    mean = shared.parts["mean"]
    for array in (
        counts.data,
        counts.indices,
        counts.indptr,
        shared.offset,
        shared.weights,
        mean.U,
    ):
        array.flags.writeable = False
    fit_block(NB[0], counts, shared, SETTINGS, None)
    assert len(writable) > 5
    assert all(writable)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_blocks_run_on_one_thread_which_is_undone(monkeypatch):
    seen = []
    maximize_from_many_starts = gene_block.maximize_from_many_starts

    def spy(*args, **options):
        seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled()))
        return maximize_from_many_starts(*args, **options)

    monkeypatch.setattr(gene_block, "maximize_from_many_starts", spy)
    fit(*NB, batch_size=4)
    assert seen == [(1, True), (1, True)]
    assert torch.get_num_threads() == 3
    assert not torch.is_inference_mode_enabled()


@pytest.mark.usefixtures("three_threads")
def test_threads_are_given_back_after_an_error(monkeypatch):
    def fail(*_args, **_options):
        message = "no"
        raise RuntimeError(message)

    monkeypatch.setattr(gene_block, "maximize_from_many_starts", fail)
    with pytest.raises(RuntimeError, match="no"):
        fit(*NB)
    assert torch.get_num_threads() == 3
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("progress", [False, True])
def test_progress(capsys, monkeypatch, progress, n_jobs):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # a terminal
    with joblib.parallel_config("threading"):
        fit(*NB, batch_size=2, progress=progress, n_jobs=n_jobs)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("7/7" in captured.err) == progress
    assert (" genes/s" in captured.err) == progress


def test_progress_is_not_written_to_files(capsys):
    fit(*NB, batch_size=2, progress=True)
    assert capsys.readouterr() == ("", "")


def test_progress_is_shown_in_notebooks(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    fit(*NB, batch_size=2, progress=True)
    assert "7/7" in capsys.readouterr().err


@pytest.mark.parametrize("stream", [None, SimpleNamespace(write=len, flush=int)])
def test_progress_where_standard_error_is_no_file(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    assert len(fit(*NB, batch_size=2, progress=True).status) == 7


def test_join_puts_blocks_side_by_side():
    blocks = [
        GeneFits(
            {"mean": np.ones((2, 1))},
            np.array([-1.0]),
            np.array([3]),
            [Status.POISSON],
            {"mean": np.ones((2, 1), bool)},
            np.array([4.0]),
        ),
        GeneFits(
            {"mean": np.zeros((2, 2))},
            np.array([-2.0, -3.0]),
            np.array([4, 5]),
            [Status.CONVERGED, Status.ALL_ZERO],
            {"mean": np.zeros((2, 2), bool)},
            np.full(2, np.inf),
        ),
    ]
    fits = GeneFits.join(blocks)
    assert_array_equal(fits.coef["mean"], [[1, 0, 0], [1, 0, 0]])
    assert_array_equal(fits.log_likelihood, [-1, -2, -3])
    assert_array_equal(fits.n_iter, [3, 4, 5])
    assert fits.status == [Status.POISSON, Status.CONVERGED, Status.ALL_ZERO]
    assert_array_equal(fits.undetermined["mean"], [[True, False, False]] * 2)
    assert_array_equal(fits.ceiling, [4, np.inf, np.inf])


def test_results_own_their_memory_and_are_numpys():
    fits = fit(*NB)
    for array in (*fits.coef.values(), fits.log_likelihood, fits.n_iter):
        assert type(array) is np.ndarray
    assert fits.n_iter.dtype.kind == "i"


class Counted:
    """Counts the genes that are fitted, and is interrupted before there are too many."""

    def __init__(self, most=N_GENES):
        self.n_genes, self.most = 0, most

    def __call__(self, family, counts, *others, **given):
        if self.n_genes + counts.shape[0] > self.most:
            raise KeyboardInterrupt
        self.n_genes += counts.shape[0]
        return fit_block(family, counts, *others, **given)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Return a function that fits a model up to its fourth gene, and leaves a checkpoint."""

    def begin(*model, **options):
        with monkeypatch.context() as patch:
            patch.setattr(fitting, "fit_block", Counted(most=4))
            with pytest.raises(KeyboardInterrupt):
                fit(*model, batch_size=2, checkpoint_dir=tmp_path / "fit", **options)
        return tmp_path / "fit"

    return begin


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("model", MODELS)
def test_an_interrupted_fit_is_resumed(interrupted, monkeypatch, model, warm):
    start = fit(*MODELS[model]).coef if warm else None
    expected = fit(*MODELS[model], batch_size=2, start=start)
    folder = interrupted(*MODELS[model], start=start)
    counted = Counted()
    monkeypatch.setattr(fitting, "fit_block", counted)
    fits = fit(*MODELS[model], batch_size=2, start=start, checkpoint_dir=folder)
    assert counted.n_genes == 3
    assert_identical(fits, expected)


def test_a_fit_that_is_complete_is_read(tmp_path, monkeypatch):
    fits = fit(*NB, batch_size=3, checkpoint_dir=tmp_path)
    monkeypatch.setattr(fitting, "fit_block", Counted(most=0))
    for options in ({"batch_size": 3}, {"batch_size": 2}, {"y": sp.csr_matrix(Y)}):
        assert_identical(fit(*NB, **options, checkpoint_dir=tmp_path), fits)


@pytest.mark.parametrize("options", [{"batch_size": 3}, {"batch_size": 1}, {"n_jobs": 2}])
def test_a_fit_may_be_resumed_in_other_blocks_and_with_other_workers(interrupted, options):
    fits = fit(*ZINB, **options, checkpoint_dir=interrupted(*ZINB))
    assert_identical(fits, fit(*ZINB, batch_size=2))


def test_a_block_that_was_lost_is_fitted_again(tmp_path, monkeypatch):
    fits = fit(*NB, batch_size=2, checkpoint_dir=tmp_path)
    (tmp_path / "genes-000002-000004.npz").unlink()
    counted = Counted()
    monkeypatch.setattr(fitting, "fit_block", counted)
    assert_identical(fit(*NB, batch_size=2, checkpoint_dir=tmp_path), fits)
    assert counted.n_genes == 2


@pytest.mark.parametrize(
    ("done", "size", "expected"),
    [
        ([], 3, [(0, 3), (3, 6), (6, 7)]),
        ([], 9, [(0, 7)]),
        ([(0, 2), (2, 4)], 2, [(4, 6), (6, 7)]),
        ([(0, 2), (4, 6)], 2, [(2, 4), (6, 7)]),
        ([(2, 5)], 3, [(0, 2), (5, 6), (6, 7)]),
        ([(0, 7)], 2, []),
    ],
)
def test_what_remains_is_cut_where_it_would_have_been(done, size, expected):
    fits = {
        first: GeneFits(
            {},
            np.zeros(0),
            np.zeros(0, int),
            [Status.CONVERGED] * (stop - first),
            {},
            np.zeros(0),
        )
        for first, stop in done
    }
    blocks = [slice(first, first + size) for first in range(0, 7, size)]
    assert fitting._remaining_blocks(fits, 7, blocks) == [slice(*genes) for genes in expected]


def test_a_fit_is_resumed_with_the_groups_that_are_left(tmp_path):
    fits = fit_elsewhere(checkpoint_dir=tmp_path)
    assert len(Elsewhere.loaded) == 4
    (tmp_path / "genes-000004-000006.npz").unlink()
    assert_identical(fit_elsewhere(checkpoint_dir=tmp_path), fits)
    assert Elsewhere.loaded == [2]
    assert_identical(fit(*NB, checkpoint_dir=tmp_path), fits)  # in memory now


def test_progress_begins_at_what_is_done(interrupted, capsys, monkeypatch):
    folder = interrupted(*NB)
    capsys.readouterr()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(*NB, batch_size=2, progress=True, checkpoint_dir=folder)
    shown = capsys.readouterr().err
    assert "4/7" in shown
    assert "7/7" in shown
    assert "0/7" not in shown


def test_another_fit_is_refused_before_fitting(interrupted, monkeypatch):
    folder = interrupted(*NB)
    monkeypatch.setattr(fitting, "fit_block", Counted(most=0))
    with pytest.raises(ValueError, match="differs in: counts"):
        fit(*NB, y=Y + 1, checkpoint_dir=folder)


@pytest.fixture
def _full_disk(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Checkpoint, "write", fail)


@pytest.mark.usefixtures("_full_disk")
def test_an_error_while_workers_are_busy_is_raised_alone(tmp_path):
    with joblib.parallel_config("threading"), pytest.raises(OSError, match="No space") as error:
        fit(*NB, batch_size=1, n_jobs=2, checkpoint_dir=tmp_path)
    assert error.value.__context__ is None


@pytest.mark.usefixtures("_full_disk")
def test_an_error_stops_the_workers_at_once(tmp_path, monkeypatch):
    stopped = []

    def run(tasks):
        try:
            yield from (function(*block) for function, block, _ in tasks)
        finally:
            stopped.append(True)

    monkeypatch.setattr(joblib, "Parallel", lambda **_: run)
    with pytest.raises(OSError, match="No space") as error:  # held, and its frames with it
        fit(*NB, batch_size=1, checkpoint_dir=tmp_path)
    assert error.traceback
    assert stopped


PATIENCE = 120  # seconds, for a machine that is busy with other things


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


class LongFit:
    """A process that runs ``long_fit.py``: of eight genes, the last four are never done."""

    def __init__(self, folder, n_jobs):
        self.folder, self.n_jobs = folder, n_jobs
        self.X = X[:, None]
        self.y = np.c_[Y, Y[:, ::-1]][:, :8]
        self.y[5, 4:] = self.y.max() + 1
        np.savez(folder / "data.npz", X=self.X, y=self.y)
        script = Path(__file__).with_name("long_fit.py")
        self.process = subprocess.Popen(  # noqa: S603 - our own code
            [sys.executable, script, folder, str(n_jobs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):  # the test did it
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def begin(self):
        """Begin a fit; return the processes that fit, once they have done what can be done."""
        for path in self.folder.glob("waiting-*"):
            path.unlink()
        self.process.stdin.write("fit\n")
        self.process.stdin.flush()
        wait_until(self._is_stuck)
        return self.waiting()

    def _is_stuck(self):
        assert len(self.blocks()) <= 2, "genes were fitted that should wait"
        return len(self.blocks()) == 2 and len(self.waiting()) == self.n_jobs

    def waiting(self):
        return [int(path.name.split("-")[1]) for path in self.folder.glob("waiting-*")]

    def blocks(self):
        return sorted(path.name for path in self.folder.glob("checkpoint/*.npz"))

    def ending(self):
        return self.process.stdout.readline()

    def check_going_on(self):
        """Resume from what the process has left, and compare with an uninterrupted fit."""
        assert self.blocks() == ["genes-000000-000002.npz", "genes-000002-000004.npz"]
        model = NegBinRegressor(batch_size=2, checkpoint_dir=self.folder / "checkpoint")
        whole = NegBinRegressor(batch_size=2)
        assert len(self.blocks()) == 2
        for estimator in (model, whole):
            with pytest.warns(ConvergenceWarning, match="1 all zero"):
                estimator.fit(self.X, self.y)
        assert len(self.blocks()) == 4
        for part, table in whole.params_.items():
            assert_frame_equal(model.params_[part], table, check_exact=True)
        assert_array_equal(model.log_likelihood_, whole.log_likelihood_)
        assert_array_equal(model.status_, whole.status_)


def all_gone(pids):
    return not any(psutil.pid_exists(pid) for pid in pids)


def test_a_fit_survives_interruption_and_the_death_of_its_process(tmp_path):
    with LongFit(tmp_path, n_jobs=1) as run:
        assert run.begin() == [run.process.pid]
        os.kill(run.process.pid, signal.SIGINT)
        ending = run.ending()
        assert ending.startswith("KeyboardInterrupt()")
        assert "_'" not in ending  # no attribute of a fitted estimator
        run.begin()
        run.process.kill()
        assert run.process.wait(PATIENCE) == -signal.SIGKILL
        run.check_going_on()


def test_a_fit_survives_the_death_and_the_interruption_of_its_workers(tmp_path):
    with LongFit(tmp_path, n_jobs=2) as run:
        workers = run.begin()
        assert run.process.pid not in workers
        os.kill(workers[0], signal.SIGKILL)
        ending = run.ending()
        assert "A worker was killed, most likely for lack of memory, when 4 of 8 genes" in ending
        assert "TerminatedWorkerError" in ending
        wait_until(lambda: all_gone(workers))
        workers = run.begin()
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
        assert run.ending().startswith("KeyboardInterrupt()")
        wait_until(lambda: all_gone(workers))
        run.check_going_on()


def test_a_function_of_genes_is_shared_by_workers():
    """A hundred genes are one block to a worker alone, and several to two."""
    y = np.random.default_rng(0).poisson(1.0, (40, 100))
    counts, numbers = CountMatrix.of(y, n_cells=40), np.arange(100.0)

    def of_block(rows, own, scale):
        return rows.sum(axis=1), scale * own

    def asked(**options):
        return fitting.map_blocks(of_block, counts, NB[1], [numbers], 2.0, **options)

    alone = asked(n_jobs=1)
    with joblib.parallel_config("threading"):
        shared = asked(n_jobs=2)
    few = asked(n_jobs=1, max_genes=7)
    assert len(alone) == 1
    assert len(shared) >= 4
    assert [len(own) for _, own in few] == [7] * 14 + [2]
    for found in (alone, shared, few):
        sums, scaled = (np.concatenate(pieces) for pieces in zip(*found, strict=True))
        assert_array_equal(sums, y.sum(axis=0))
        assert_array_equal(scaled, 2 * numbers)
