import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._counts import tally as tally_module
from sc_glm._counts.tally import Grouping, Tally

N_CELLS, N_ROWS = 60, 4
RNG = np.random.default_rng(17)
ROWS = np.r_[np.arange(N_ROWS), RNG.integers(0, N_ROWS, N_CELLS - N_ROWS)]
WEIGHTS = RNG.uniform(0.1, 3, N_CELLS)
# Genes of many counts and of few; the second has none, the last has no zeros in one row.
Y = RNG.negative_binomial(1, [0.2, 0.5, 0.7, 0.9, 0.01, 0.5], size=(N_CELLS, 6)).astype(float)
Y[:, 1] = 0
Y[ROWS == 2, 5] += 1
FRACTIONS = Y * np.where(RNG.uniform(size=Y.shape) < 0.3, 0.5, 1.0)


def test_first_cells_and_summed_weights_of_rows():
    cells = Grouping(np.array([0, 1, 0, 2, 1, 0]), np.array([1.0, 2, 0.5, 4, 8, 16]))
    assert_array_equal(cells.first(), [0, 1, 3])
    assert_array_equal(cells.row_weights(), [17.5, 10, 4])


def rows_of(y):
    return sp.csr_array(y.T)


def tally_of(y, weights=WEIGHTS, rows=ROWS):
    return Tally.of(rows_of(y), Grouping(rows, np.asarray(weights, float)))


def assert_identical(a, b):
    for ours, theirs in (
        (a.counts.data, b.counts.data),
        (a.counts.indices, b.counts.indices),
        (a.counts.indptr, b.counts.indptr),
        (a.n_cells, b.n_cells),
        (a.shares, b.shares),
        (a.zeros, b.zeros),
    ):
        assert_array_equal(ours, theirs)


@pytest.mark.parametrize("y", [Y, FRACTIONS, 1e15 * Y, 0 * Y], ids=["small", "half", "huge", "no"])
@pytest.mark.parametrize("weights", [np.ones(N_CELLS), np.full(N_CELLS, 0.3), WEIGHTS])
def test_a_tally_equals_counting_one_by_one(y, weights):
    tally = tally_of(y, weights)
    assert tally.counts.shape == (y.shape[1], N_ROWS)
    n_entries = 0
    for g in range(y.shape[1]):
        own = slice(*tally.counts.indptr[g : g + 2])
        found = list(zip(tally.counts.indices[own], tally.counts.data[own], strict=True))
        assert found == sorted(set(zip(ROWS[y[:, g] > 0], y[y[:, g] > 0, g], strict=True)))
        n_entries += len(found)
        for (row, value), n_cells, share in zip(
            found, tally.n_cells[own], tally.shares[own], strict=True
        ):
            in_row = row == ROWS
            same = in_row & (y[:, g] == value)
            assert n_cells == same.sum()
            assert_allclose(share, weights[same].sum() / weights[in_row].sum(), rtol=1e-14)
        for row in range(N_ROWS):
            in_row = row == ROWS
            zero = in_row & (y[:, g] == 0)
            share = weights[zero].sum() / weights[in_row].sum()
            assert_allclose(tally.zeros[g, row], share, rtol=1e-12)
    assert tally.counts.nnz == n_entries == len(tally.shares)


def test_the_share_of_zeros_is_exactly_zero_without_zeros():
    """Not even one of rounding, either way: a zero may be next to impossible there."""
    for seed in range(20):
        weights = np.random.default_rng(seed).uniform(0.1, 3, N_CELLS)
        tally = tally_of(np.c_[Y, FRACTIONS], weights)
        assert (tally.zeros >= 0).all()
        assert tally.zeros[5, 2] == 0
        assert tally.zeros[11, 2] == 0


@pytest.mark.parametrize("y", [Y, FRACTIONS])
@pytest.mark.parametrize(
    ("name", "value"), [("_MAX_ENTRIES_PER_COUNT", 0), ("_BLOCK_COUNTS", 1), ("_BLOCK_COUNTS", 70)]
)
def test_the_method_of_counting_does_not_change_a_digit(monkeypatch, y, name, value):
    expected = tally_of(y)
    monkeypatch.setattr(tally_module, name, value)
    assert_identical(tally_of(y), expected)


@pytest.mark.parametrize("others", [0, 1])
def test_a_tally_does_not_depend_on_other_genes(others):
    """With neighbours of whole counts, and of others, which are counted in another way."""
    y = np.c_[Y, [Y, FRACTIONS][others]]
    whole = tally_of(y)
    for g in range(Y.shape[1]):
        assert_identical(tally_of(y[:, [g]]), whole.of_genes(np.array([g])))


def test_the_order_of_cells_does_not_change_a_digit():
    order = RNG.permutation(N_CELLS)
    ones = np.ones(N_CELLS)
    assert_identical(tally_of(Y[order], ones, ROWS[order]), tally_of(Y, ones))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64, np.int64, np.float32])
def test_counts_of_any_type(dtype):
    y = np.minimum(Y, 200)
    tally = tally_of(y.astype(dtype))
    assert_identical(tally, tally_of(y))
    assert tally.counts.dtype == np.float64
    assert_identical(tally_of(y > 0), tally_of((y > 0).astype(float)))


@pytest.mark.parametrize("n_rows", [255, 256, 300, 70_000])
def test_many_rows_are_counted_separately(n_rows):
    y = 1.0 + np.arange(n_rows) % 3
    counts = tally_of(y[:, None], np.ones(n_rows), np.arange(n_rows)).counts
    assert_array_equal(counts.indices, np.arange(n_rows))
    assert_array_equal(counts.data, y)


def test_counts_and_cells_are_not_changed():
    counts, cells = rows_of(Y), Grouping(ROWS.copy(), WEIGHTS.copy())
    before = [x.copy() for x in (counts.data, counts.indices, counts.indptr)]
    tally = Tally.of(counts, cells)
    tally.of_genes(np.array([0]))
    tally.of_groups(Grouping(np.zeros(N_ROWS, int), np.ones(N_ROWS)))
    for x, copy in zip((counts.data, counts.indices, counts.indptr), before, strict=True):
        assert_array_equal(x, copy)
    assert_array_equal(cells.rows, ROWS)
    assert_array_equal(cells.weights, WEIGHTS)
    assert_identical(tally, tally_of(Y))


LOW = np.minimum(Y, [20, 3, 16, 17, 40, 4])  # a few above what the table of all genes holds


@pytest.mark.parametrize("weights", [np.ones(N_CELLS), np.full(N_CELLS, 0.3), WEIGHTS])
@pytest.mark.parametrize("chunk", [2**17, 1, 70])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_counts_read_by_cell_have_the_same_tally(monkeypatch, weights, chunk, dtype):
    monkeypatch.setattr(tally_module, "_BLOCK_COUNTS", chunk)
    monkeypatch.setattr(tally_module, "_MAX_SHARE_OF_LARGER", 0.5)
    assert (LOW > tally_module._MAX_TABULATED_COUNT).any()
    cells = Grouping(ROWS, weights)
    assert_identical(Tally.of_cells(sp.csr_array(LOW.astype(dtype)), cells), tally_of(LOW, weights))


@pytest.mark.parametrize("y", [FRACTIONS, 1e15 * Y, np.ones((N_CELLS, 10_000))])
def test_counts_by_cell_have_no_tally_if_that_by_gene_is_faster(y):
    """Fractions, counts of which many are high, and too many genes for the table."""
    assert Tally.of_cells(sp.csr_array(y), Grouping(ROWS, WEIGHTS)) is None


def test_an_empty_matrix_by_cell():
    assert_identical(Tally.of_cells(sp.csr_array(0 * Y), Grouping(ROWS, WEIGHTS)), tally_of(0 * Y))


def test_the_number_of_positive_counts_in_a_tally():
    assert_array_equal(tally_of(Y).n_positive(), (Y > 0).sum(axis=0))


@pytest.mark.parametrize("genes", [[4, 0, 2], [1], [0, 0]])
def test_the_tally_of_some_genes(genes):
    assert_identical(tally_of(Y).of_genes(np.array(genes)), tally_of(Y[:, genes]))


@pytest.mark.parametrize("y", [Y, FRACTIONS, 1e15 * Y, 0 * Y], ids=["small", "half", "huge", "no"])
def test_the_tally_of_groups_equals_that_of_their_cells(y):
    groups = np.array([1, 0, 1, 2])
    rows = tally_of(y)
    found = rows.of_groups(Grouping(groups, Grouping(ROWS, WEIGHTS).row_weights()))
    expected = tally_of(y, rows=groups[ROWS])
    assert_array_equal(found.counts.indptr, expected.counts.indptr)
    assert_array_equal(found.counts.indices, expected.counts.indices)
    assert_array_equal(found.counts.data, expected.counts.data)
    assert_array_equal(found.n_cells, expected.n_cells)
    assert found.n_cells.dtype == expected.n_cells.dtype
    assert_allclose(found.shares, expected.shares, rtol=1e-12)
    assert_allclose(found.zeros, expected.zeros, rtol=1e-12)
    # Without a zero in any of a group's rows there is no share of them, not even one of rounding.
    assert_array_equal(found.zeros == 0, expected.zeros == 0)
