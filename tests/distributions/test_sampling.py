"""Counts of many cells: the same in any number of jobs, and no stream used twice."""

import itertools
import threading
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sc_glm.distributions import NB, ZINB, sampling
from sc_glm.distributions.sampling import sample_dense, sample_sparse

N_GENES = 1000
IN_A_BLOCK = 2**14 // N_GENES  # cells


@pytest.fixture(scope="module")
def dist():
    """Cells in eight whole blocks and a part of one."""
    rng = np.random.default_rng(0)
    shape = (8 * IN_A_BLOCK + 5, N_GENES)
    return ZINB(np.exp(rng.normal(-0.5, 1.5, shape)), rng.gamma(2.0, size=N_GENES), rng.random())


def dense(dist, seed=0, n_draws=1, n_jobs=None):
    shape = (n_draws, *dist.shape)
    return sample_dense(dist.__getitem__, shape, random_state=seed, n_jobs=n_jobs)


def sparse(dist, seed=0, n_jobs=None):
    return sample_sparse(dist.__getitem__, dist.shape, random_state=seed, n_jobs=n_jobs)


@pytest.mark.parametrize("n_jobs", [1, 2, 5])
@pytest.mark.parametrize("entries", [1, 40_000, 10**9])
def test_counts_do_not_depend_on_jobs_or_tasks(dist, monkeypatch, n_jobs, entries):
    expected = dense(dist, n_draws=2)
    monkeypatch.setattr(sampling, "_TASK_ENTRIES", entries)
    assert_array_equal(dense(dist, n_draws=2, n_jobs=n_jobs), expected)
    assert_array_equal(sparse(dist, n_jobs=n_jobs).toarray(), expected[0])


def test_more_cells_or_draws_do_not_change_earlier_blocks(dist):
    expected = dense(dist, n_draws=3)
    assert_array_equal(dense(dist), expected[:1])
    some = slice(0, 3 * IN_A_BLOCK)
    assert_array_equal(dense(dist[some]), expected[:1, some])


@pytest.mark.parametrize("n_genes", [1, 7, 2**14 + 3])
def test_any_number_of_genes(n_genes):
    dist = NB(np.full((3, n_genes), 4.0), 2.0)
    counts = dense(dist, n_draws=2)
    assert (counts > 0).mean() > 0.6
    assert_array_equal(sparse(dist).toarray(), counts[0])


def test_each_cell_and_gene_follows_its_own_distribution():
    rng = np.random.default_rng(0)
    shape = (2 * IN_A_BLOCK + 5, N_GENES)
    dist = NB(np.exp(rng.normal(0, 1, shape)), rng.uniform(1, 5, shape))
    gap = (dense(dist, n_draws=30) - dist.mean()).sum(axis=0)
    for axis in (0, 1):  # totals of the genes and of the cells
        z = gap.sum(axis) / np.sqrt(30 * dist.var().sum(axis))
        assert np.abs(z).max() < 5
        assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)


def test_no_stream_is_used_twice():
    """Of one distribution: blocks, draws, cells, genes and seeds have nothing in common."""
    dist = NB(np.full((6 * IN_A_BLOCK, N_GENES), 1.0), 1.0)
    counts = np.stack([dense(dist, seed, n_draws=3) for seed in (0, 1)]).astype(float)
    assert abs(counts.mean() - 1) < 5 * np.sqrt(2 / counts.size)
    blocks = counts.reshape(2 * 3 * 6, -1)
    for a, b in itertools.combinations(blocks, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(a.size)
    cells = counts.reshape(-1, N_GENES)
    for rows in (cells, cells.T):
        assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 6 / np.sqrt(rows.shape[1])
    later = counts.ravel()
    for lag in (1, 2, N_GENES, IN_A_BLOCK * N_GENES):
        assert abs(np.corrcoef(later[:-lag], later[lag:])[0, 1]) < 5 / np.sqrt(later.size)


@pytest.mark.parametrize("draw", [dense, lambda *args: sparse(*args).toarray()])
def test_seeds_of_every_kind(dist, draw):
    some = dist[:IN_A_BLOCK]
    expected = draw(some, 3)
    assert_array_equal(draw(some, 3), expected)
    assert (draw(some, 4) != expected).any()
    for make in (np.random.RandomState, np.random.default_rng):
        random = make(3)
        first, second = draw(some, random), draw(some, random)
        assert (first != second).any()
        assert_array_equal(draw(some, make(3)), first)
    np.random.seed(3)  # noqa: NPY002
    first, second = draw(some, None), draw(some, None)
    assert (first != second).any()
    np.random.seed(3)  # noqa: NPY002
    assert_array_equal(draw(some, None), first)


@pytest.mark.parametrize(
    ("seed", "error"), [("a", ValueError), (-1, ValueError), (2**40, ValueError), (0.5, ValueError)]
)
def test_an_invalid_seed_is_an_error_before_any_work(dist, seed, error):
    for sample, shape in ((sample_dense, (1, *dist.shape)), (sample_sparse, dist.shape)):
        with pytest.raises(error, match=r"seed|Seed"):
            sample(None, shape, random_state=seed, n_jobs=None)


def test_a_sparse_sample_is_canonical(dist):
    counts = sparse(dist)
    assert counts.format == "csr"
    assert counts.shape == dist.shape
    assert counts.dtype == np.int64
    assert counts.indices.dtype == counts.indptr.dtype == np.int32
    assert (counts.data > 0).all()
    assert counts.has_canonical_format
    counts.check_format(full_check=True)
    counts.data[0] = 7  # it is the caller's own


def test_cells_and_genes_without_counts():
    nothing = sparse(NB(np.zeros((40, N_GENES)), 1.0))
    assert nothing.shape == (40, N_GENES)
    assert nothing.nnz == 0
    mu = np.zeros((40, N_GENES))
    mu[17:30, 5] = 50.0
    assert_array_equal(np.argwhere(sparse(NB(mu, np.inf)).toarray()), np.argwhere(mu))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_sparse_sample_needs_little_more_memory_than_its_result(n_jobs):
    shape = (40_000, 100)

    def dist_of(cells):
        assert (cells.stop - cells.start) * shape[1] <= 2**14
        return NB(np.full((cells.stop - cells.start, shape[1]), 0.6), 0.5)

    sampling.sample_sparse(dist_of, (100, 100), random_state=0, n_jobs=n_jobs)
    tracemalloc.start()
    counts = sample_sparse(dist_of, shape, random_state=0, n_jobs=n_jobs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = counts.data.nbytes + counts.indices.nbytes + counts.indptr.nbytes
    assert size > 10e6
    assert size < peak < 1.25 * size + 5e6 * (n_jobs or 1)


def test_jobs_draw_at_the_same_time(dist, monkeypatch):
    """Neither of two threads goes on before the other has begun."""
    monkeypatch.setattr(sampling, "_TASK_ENTRIES", 1)
    both, begun = threading.Barrier(2), set()

    def dist_of(cells):
        if threading.get_ident() not in begun:
            begun.add(threading.get_ident())
            both.wait(timeout=60)
        return dist[cells]

    counts = sample_sparse(dist_of, dist.shape, random_state=0, n_jobs=2)
    assert len(begun) == 2
    assert_array_equal(counts.toarray(), dense(dist)[0])
