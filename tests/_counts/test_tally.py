import tracemalloc
from itertools import product

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._counts import tally as compression
from sc_glm._counts.tally import (
    Cells,
    Tally,
    group_but_offset,
    group_rows,
    similar_rows,
    typical_rows,
)

N_CELLS, N_ROWS = 60, 4
RNG = np.random.default_rng(17)
ROWS = np.r_[np.arange(N_ROWS), RNG.integers(0, N_ROWS, N_CELLS - N_ROWS)]
WEIGHTS = RNG.uniform(0.1, 3, N_CELLS)
# Genes of many counts and of few; the second has none, the last has no zeros in one row.
Y = RNG.negative_binomial(1, [0.2, 0.5, 0.7, 0.9, 0.01, 0.5], size=(N_CELLS, 6)).astype(float)
Y[:, 1] = 0
Y[ROWS == 2, 5] += 1
FRACTIONS = Y * np.where(RNG.uniform(size=Y.shape) < 0.3, 0.5, 1.0)


# Equal rows


def first_come(X):
    """Number the distinct rows one by one."""
    seen = {}
    return [seen.setdefault(tuple(row), len(seen)) for row in X.tolist()]


def levels(n_cells, *n_levels, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=k)[rng.integers(0, k, n_cells)] for k in n_levels])


@pytest.mark.parametrize(
    "X",
    [
        np.ones((20, 1)),
        np.ones((4, 3)),
        np.zeros((9, 0)),
        levels(50, 2),
        levels(50, 1, 3, 2),
        levels(200, 7, 5),
        levels(9000, 11, 1, 2, 3),
        np.eye(7)[RNG.integers(0, 7, 80)],
        np.c_[levels(60, 2), np.add.outer(np.arange(60), np.arange(40)) % 4],
        np.asfortranarray(levels(100, 3, 3)),
        levels(200, 3, 3)[::-2],
    ],
)
def test_equal_rows_have_one_number_in_the_order_in_which_they_occur(X):
    before = X.copy()
    assert_array_equal(group_rows(X), first_come(X))
    assert_array_equal(X, before)


NUMBERS = [0.0, -0.0, 1.0, -1.0, 0.3, 0.1 + 0.2, 1e-3, 1e16, 5e-324, 1.7e308, -1.7e308]


@given(
    X=arrays(float, array_shapes(min_dims=2, max_dims=2), elements=st.sampled_from(NUMBERS)),
    order=st.sampled_from("CF"),
    data=st.data(),
)
def test_equal_rows_are_those_of_numpy(X, order, data):
    """Of any numbers, among which negative zeros and neighbours of each other."""
    X = np.tile(X, (4, 1))[data.draw(st.permutations(range(4 * len(X))))]
    _, first, inverse = np.unique(X, axis=0, return_index=True, return_inverse=True)
    assert_array_equal(group_rows(np.array(X, order=order)), np.argsort(np.argsort(first))[inverse])


ONE_KEY = {
    "all": lambda X: np.zeros(len(X), dtype=np.int64),
    "many": lambda X: (X > 0).sum(axis=1),
}


@pytest.mark.parametrize("keys", ONE_KEY.values(), ids=ONE_KEY.keys())
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_are_told_apart_that_have_one_key(monkeypatch, keys, order):
    monkeypatch.setattr(compression, "_keys", keys)
    monkeypatch.setattr(compression, "_CHUNK", 30)
    X = levels(100, 3, 5, 1)
    assert_array_equal(group_rows(np.array(X, order=order)), first_come(X))
    quarter = np.arange(100.0)[:, None] % 25
    assert_array_equal(group_rows(quarter), quarter[:, 0])
    assert group_rows(np.arange(100.0)[:, None] % 26) is None


@pytest.mark.parametrize(
    "X",
    [
        np.array(list(product([0.0, 1.0], repeat=12))),
        np.array(list(product(range(-20, 20), repeat=2)), dtype=float),
        np.array(list(product(np.linspace(0, 1e6, 40), repeat=2))) ** 2,
    ],
    ids=["dummies", "whole", "polynomial"],
)
def test_rows_of_a_design_have_keys_of_their_own(X):
    """Telling apart those of one key takes as many rounds as rows have it."""
    assert len(np.unique(compression._keys(X))) == len(X)


@pytest.mark.parametrize(
    "sums",
    [np.zeros(400), np.arange(400.0), first_come(levels(400, 3, 4)) + np.arange(400) % 2 / 2],
    ids=["all alike", "all apart", "some rounded apart"],
)
def test_rows_are_told_apart_whatever_their_sums(monkeypatch, sums):
    X = levels(400, 3, 4)
    expected = group_rows(X)
    assert_array_equal(expected, first_come(X))
    monkeypatch.setattr(compression, "_sums", lambda _: sums)
    assert_array_equal(group_rows(X), expected)


def test_cuts_in_the_rows_do_not_show(monkeypatch):
    X = levels(200, 4, 3, 2)
    monkeypatch.setattr(compression, "_CHUNK", 1)
    assert_array_equal(group_rows(X), first_come(X))


@pytest.mark.parametrize("order", ["C", "F"])
def test_no_copy_is_made_of_a_large_matrix(order):
    X = np.array(np.eye(60)[RNG.integers(0, 60, 50_000)], order=order)
    tracemalloc.start()
    try:
        rows = group_rows(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows.max() == 59
    assert peak < X.nbytes / 2


def test_rows_that_differ_in_the_last_digit_differ():
    X = np.repeat([0.1 + 0.2, 0.3, -0.0, 0.0, 5e-324], 4)[:, None]
    assert_array_equal(group_rows(X), np.repeat([0, 1, 2, 2, 3], 4))
    assert_array_equal(group_rows(-X), np.repeat([0, 1, 2, 2, 3], 4))


@pytest.mark.parametrize("n_cells", [40, 40_000])
def test_more_distinct_rows_than_a_quarter_of_the_cells_are_too_many(n_cells):
    quarter = n_cells // 4
    column = np.arange(n_cells) % quarter
    assert_array_equal(group_rows(column[:, None].astype(float)), column)
    column[-1] = quarter
    assert group_rows(column[:, None].astype(float)) is None
    # Each column has few levels, both together have many.
    pairs = np.column_stack([column // 5, column % 5])[RNG.permutation(n_cells)].astype(float)
    assert group_rows(pairs) is None


def test_a_continuous_column_is_seen_in_a_sample(monkeypatch):
    looked_at = []
    distinct = compression._distinct

    def spy(X, most):
        looked_at.append(len(X))
        return distinct(X, most)

    monkeypatch.setattr(compression, "_distinct", spy)
    X = np.c_[levels(50_000, 5, 5), RNG.normal(size=50_000)]
    assert group_rows(X) is None
    assert len(looked_at) == 1
    assert looked_at[0] < 5000


# Similar rows


CLOUD = RNG.normal(size=(2000, 3))


@pytest.mark.parametrize("most", [1, 2, 7, 100, 1024])
def test_every_cell_has_one_of_at_most_so_many_groups(most):
    before = CLOUD.copy()
    groups = similar_rows(CLOUD, most, 0.005)
    assert groups.shape == (len(CLOUD),)
    n_groups = len(np.unique(groups))
    assert_array_equal(np.unique(groups), np.arange(n_groups))
    assert most / 4 < n_groups <= most
    assert_array_equal(CLOUD, before)
    assert_array_equal(similar_rows(CLOUD, most, 0.005), groups)


def test_groups_are_much_narrower_than_all_cells():
    groups = similar_rows(CLOUD, 1024, 0.005)
    sizes = np.bincount(groups)
    for x in CLOUD.T:
        within = x - (np.bincount(groups, x) / sizes)[groups]
        assert within.std() < 0.15 * x.std()


def test_a_column_is_cut_as_often_as_it_is_wide():
    wide, narrow = RNG.uniform(0, 8, 500), RNG.uniform(0, 1, 500)
    groups = similar_rows(np.c_[narrow, wide], 8, 0.005)
    ranges = [(np.ptp(wide[groups == g]), np.ptp(narrow[groups == g])) for g in range(8)]
    assert np.max(ranges, axis=0)[0] < 2
    assert np.min(ranges, axis=0)[1] > 0.8


def test_equal_rows_are_in_one_group():
    X = levels(5000, 40, 30)
    distinct = group_rows(X)
    assert distinct.max() > 1000
    pairs = np.unique(np.c_[distinct, similar_rows(X, 64, 0.005)], axis=0)
    assert_array_equal(pairs[:, 0], np.arange(distinct.max() + 1))


def test_few_distinct_rows_are_their_own_groups_however_many_there_may_be():
    X = np.c_[np.eye(3)[RNG.integers(0, 3, 200)], RNG.integers(0, 4, 200)]
    assert_array_equal(similar_rows(X, 10**9, 0.005), group_rows(X))


@pytest.mark.parametrize(
    "X",
    [
        np.ones((50, 2)),
        np.c_[np.full(50, 0.1), np.full(50, 1e15 + 0.3)],
        0.001 * RNG.uniform(size=(50, 2)),
    ],
    ids=["equal", "equal but for rounding", "all but equal"],
)
def test_rows_that_are_all_but_equal_are_one_group(X):
    assert_array_equal(similar_rows(X, 10**9, 0.005), np.zeros(len(X)))


def test_a_row_far_from_all_others_is_alone():
    X = CLOUD.copy()
    X[17, 1] = 100
    groups = similar_rows(X, 256, 0.005)
    assert_array_equal(np.flatnonzero(groups == groups[17]), [17])


def test_groups_to_begin_with_are_divided_but_never_merged():
    begin = np.arange(len(CLOUD)) % 3
    groups = similar_rows(CLOUD, 64, 0.005, begin)
    assert 3 < groups.max() < 64
    assert_array_equal(begin, begin[np.unique(groups, return_index=True)[1]][groups])


@pytest.mark.parametrize("n_columns", [0, 1, 2])
def test_typical_rows_keep_levels_apart_and_means_as_they_are(n_columns):
    rng = np.random.default_rng(0)
    level = rng.integers(0, 60, 2000)
    X = np.c_[np.ones(2000), np.eye(60)[level][:, 1:], rng.normal(size=(2000, n_columns))]
    weights = rng.uniform(0.5, 2, 2000)
    rows, whole = typical_rows(X, weights, 128, 0.1)
    assert len(rows) <= 128
    assert_array_equal(np.isin(rows[:, :60], (0, 1)), np.full((len(rows), 60), fill_value=True))
    assert_allclose(whole.sum(), weights.sum())
    assert_allclose(whole @ rows, weights @ X, atol=1e-9)


def test_levels_stay_apart_beside_others_with_which_their_combinations_are_too_many():
    rng = np.random.default_rng(0)
    donor, kind = rng.integers(0, 60, 4000), rng.integers(0, 3, 4000)
    X = np.c_[np.ones(4000), np.eye(60)[donor][:, 1:], np.eye(3)[kind][:, 1:]]
    rows, _ = typical_rows(X, np.ones(4000), 128, 0.1)
    assert 60 <= len(rows) <= 128
    assert np.isin(rows[:, :60], (0, 1)).all()


def test_first_cells_and_summed_weights_of_rows():
    cells = Cells(np.array([0, 1, 0, 2, 1, 0]), np.array([1.0, 2, 0.5, 4, 8, 16]))
    assert_array_equal(cells.first(), [0, 1, 3])
    assert_array_equal(cells.row_weights(), [17.5, 10, 4])


@pytest.mark.parametrize(
    ("n_groups", "group_cells", "spread", "pays"),
    [
        (3, compression._LEAST_CELLS, 1.0, True),
        (3, compression._LEAST_CELLS - 1, 1.0, False),
        (compression._MOST_GROUPS, compression._LEAST_CELLS, 1.0, True),
        (compression._MOST_GROUPS + 1, compression._LEAST_CELLS, 1.0, False),
        (3, 100, compression._LONGEST_RANGE, True),
        (3, 100, compression._LONGEST_RANGE + 0.1, False),
    ],
)
def test_groups_whose_offsets_differ_are_few_and_large(n_groups, group_cells, spread, pays):
    X = np.tile(np.arange(float(n_groups)), group_cells)[:, None]
    rows = group_but_offset(X, np.linspace(-7, spread - 7, len(X)))
    if pays:
        assert_array_equal(rows, X[:, 0])
    else:
        assert rows is None


def test_no_groups_where_no_rows_are_equal():
    assert group_but_offset(np.arange(200.0)[:, None], np.zeros(200)) is None


# Counts of counts


def rows_of(y):
    return sp.csr_array(y.T)


def tally_of(y, weights=WEIGHTS, rows=ROWS):
    return Tally.of(rows_of(y), Cells(rows, np.asarray(weights, float)))


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
def test_a_tally_is_what_counting_one_by_one_gives(y, weights):
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
            alike = row == ROWS
            same = alike & (y[:, g] == value)
            assert n_cells == same.sum()
            assert_allclose(share, weights[same].sum() / weights[alike].sum(), rtol=1e-14)
        for row in range(N_ROWS):
            alike = row == ROWS
            zero = alike & (y[:, g] == 0)
            share = weights[zero].sum() / weights[alike].sum()
            assert_allclose(tally.zeros[g, row], share, rtol=1e-12)
    assert tally.counts.nnz == n_entries == len(tally.shares)


def test_where_there_is_no_zero_it_has_no_share():
    """Not even one of rounding, either way: a zero may be next to impossible there."""
    for seed in range(20):
        weights = np.random.default_rng(seed).uniform(0.1, 3, N_CELLS)
        tally = tally_of(np.c_[Y, FRACTIONS], weights)
        assert (tally.zeros >= 0).all()
        assert tally.zeros[5, 2] == 0
        assert tally.zeros[11, 2] == 0


@pytest.mark.parametrize("y", [Y, FRACTIONS])
@pytest.mark.parametrize(("name", "value"), [("_LARGEST_TABLE", 0), ("_CHUNK", 1), ("_CHUNK", 70)])
def test_how_it_is_counted_does_not_change_a_digit(monkeypatch, y, name, value):
    expected = tally_of(y)
    monkeypatch.setattr(compression, name, value)
    assert_identical(tally_of(y), expected)


@pytest.mark.parametrize("others", [0, 1])
def test_a_gene_is_counted_alone_as_among_others(others):
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
def test_many_rows_are_counted_each_for_itself(n_rows):
    y = 1.0 + np.arange(n_rows) % 3
    counts = tally_of(y[:, None], np.ones(n_rows), np.arange(n_rows)).counts
    assert_array_equal(counts.indices, np.arange(n_rows))
    assert_array_equal(counts.data, y)


def test_the_counts_are_left_as_they_are():
    counts, cells = rows_of(Y), Cells(ROWS.copy(), WEIGHTS.copy())
    before = [x.copy() for x in (counts.data, counts.indices, counts.indptr)]
    tally = Tally.of(counts, cells)
    tally.of_genes(np.array([0]))
    tally.of_groups(Cells(np.zeros(N_ROWS, int), np.ones(N_ROWS)))
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
    monkeypatch.setattr(compression, "_CHUNK", chunk)
    monkeypatch.setattr(compression, "_MOST_HIGHER", 0.5)
    assert (LOW > compression._HIGHEST).any()
    cells = Cells(ROWS, weights)
    assert_identical(Tally.of_cells(sp.csr_array(LOW.astype(dtype)), cells), tally_of(LOW, weights))


@pytest.mark.parametrize("y", [FRACTIONS, 1e15 * Y, np.ones((N_CELLS, 10_000))])
def test_counts_read_by_cell_are_left_to_others_where_that_is_faster(y):
    """Fractions, counts of which many are high, and too many genes for the table."""
    assert Tally.of_cells(sp.csr_array(y), Cells(ROWS, WEIGHTS)) is None


def test_no_counts_read_by_cell():
    assert_identical(Tally.of_cells(sp.csr_array(0 * Y), Cells(ROWS, WEIGHTS)), tally_of(0 * Y))


def test_the_number_of_positive_counts_in_a_tally():
    assert_array_equal(tally_of(Y).n_positive(), (Y > 0).sum(axis=0))


@pytest.mark.parametrize("genes", [[4, 0, 2], [1], [0, 0]])
def test_the_tally_of_some_genes(genes):
    assert_identical(tally_of(Y).of_genes(np.array(genes)), tally_of(Y[:, genes]))


@pytest.mark.parametrize("y", [Y, FRACTIONS, 1e15 * Y, 0 * Y], ids=["small", "half", "huge", "no"])
def test_the_tally_of_groups_of_rows_is_that_of_their_cells(y):
    groups = np.array([1, 0, 1, 2])
    rows = tally_of(y)
    found = rows.of_groups(Cells(groups, Cells(ROWS, WEIGHTS).row_weights()))
    wanted = tally_of(y, rows=groups[ROWS])
    assert_array_equal(found.counts.indptr, wanted.counts.indptr)
    assert_array_equal(found.counts.indices, wanted.counts.indices)
    assert_array_equal(found.counts.data, wanted.counts.data)
    assert_array_equal(found.n_cells, wanted.n_cells)
    assert found.n_cells.dtype == wanted.n_cells.dtype
    assert_allclose(found.shares, wanted.shares, rtol=1e-12)
    assert_allclose(found.zeros, wanted.zeros, rtol=1e-12)
    # Without a zero in any of a group's rows there is no share of them, not even one of rounding.
    assert_array_equal(found.zeros == 0, wanted.zeros == 0)
