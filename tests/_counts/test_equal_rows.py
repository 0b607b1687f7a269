import tracemalloc
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal

from sc_glm._counts import equal_rows
from sc_glm._counts.equal_rows import group_rows, group_rows_ignoring_offset

RNG = np.random.default_rng(17)


def enumerate_rows(X):
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
    assert_array_equal(group_rows(X), enumerate_rows(X))
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


EQUAL_HASHES = {
    "all": lambda X: np.zeros(len(X), dtype=np.int64),
    "many": lambda X: (X > 0).sum(axis=1),
}


@pytest.mark.parametrize("keys", EQUAL_HASHES.values(), ids=EQUAL_HASHES.keys())
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_equal_hash_are_distinguished(monkeypatch, keys, order):
    monkeypatch.setattr(equal_rows, "_hash_rows", keys)
    monkeypatch.setattr(equal_rows, "_BLOCK_ENTRIES", 30)
    X = levels(100, 3, 5, 1)
    assert_array_equal(group_rows(np.array(X, order=order)), enumerate_rows(X))
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
def test_distinct_rows_of_a_design_have_distinct_hashes(X):
    """Rows of equal hash take one more round of comparisons each."""
    assert len(np.unique(equal_rows._hash_rows(X))) == len(X)


@pytest.mark.parametrize(
    "sums",
    [
        np.zeros(400),
        np.arange(400.0),
        enumerate_rows(levels(400, 3, 4)) + np.arange(400) % 2 / 2,
    ],
    ids=["all equal", "all different", "some different by rounding"],
)
def test_rows_are_distinguished_whatever_their_sums(monkeypatch, sums):
    X = levels(400, 3, 4)
    expected = group_rows(X)
    assert_array_equal(expected, enumerate_rows(X))
    monkeypatch.setattr(equal_rows, "_weighted_sums", lambda _: sums)
    assert_array_equal(group_rows(X), expected)


def test_blocks_of_rows_do_not_change_the_result(monkeypatch):
    X = levels(200, 4, 3, 2)
    monkeypatch.setattr(equal_rows, "_BLOCK_ENTRIES", 1)
    assert_array_equal(group_rows(X), enumerate_rows(X))


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
    distinct = equal_rows.number_equal_rows

    def spy(X, most):
        looked_at.append(len(X))
        return distinct(X, most)

    monkeypatch.setattr(equal_rows, "number_equal_rows", spy)
    X = np.c_[levels(50_000, 5, 5), RNG.normal(size=50_000)]
    assert group_rows(X) is None
    assert len(looked_at) == 1
    assert looked_at[0] < 5000


@pytest.mark.parametrize(
    ("n_groups", "group_cells", "spread", "pays"),
    [
        (3, equal_rows._MIN_CELLS_PER_GROUP, 1.0, True),
        (3, equal_rows._MIN_CELLS_PER_GROUP - 1, 1.0, False),
        (equal_rows._MAX_GROUPS, equal_rows._MIN_CELLS_PER_GROUP, 1.0, True),
        (equal_rows._MAX_GROUPS + 1, equal_rows._MIN_CELLS_PER_GROUP, 1.0, False),
        (3, 100, equal_rows._MAX_OFFSET_RANGE, True),
        (3, 100, equal_rows._MAX_OFFSET_RANGE + 0.1, False),
    ],
)
def test_groups_whose_offsets_differ_are_few_and_large(n_groups, group_cells, spread, pays):
    X = np.tile(np.arange(float(n_groups)), group_cells)[:, None]
    rows = group_rows_ignoring_offset(X, np.linspace(-7, spread - 7, len(X)))
    if pays:
        assert_array_equal(rows, X[:, 0])
    else:
        assert rows is None


def test_no_groups_where_no_rows_are_equal():
    assert group_rows_ignoring_offset(np.arange(200.0)[:, None], np.zeros(200)) is None
