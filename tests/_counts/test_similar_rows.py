import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._counts.equal_rows import group_rows
from sc_glm._counts.similar_rows import representative_rows, similar_rows

RNG = np.random.default_rng(17)


def levels(n_cells, *n_levels, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=k)[rng.integers(0, k, n_cells)] for k in n_levels])


CLOUD = RNG.normal(size=(2000, 3))


@pytest.mark.parametrize("most", [1, 2, 7, 100, 1024])
def test_every_cell_has_a_group_and_groups_are_bounded(most):
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


def test_wide_columns_are_divided_most_often():
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


def test_few_distinct_rows_are_groups_for_any_bound():
    X = np.c_[np.eye(3)[RNG.integers(0, 3, 200)], RNG.integers(0, 4, 200)]
    assert_array_equal(similar_rows(X, 10**9, 0.005), group_rows(X))


@pytest.mark.parametrize(
    "X",
    [
        np.ones((50, 2)),
        np.c_[np.full(50, 0.1), np.full(50, 1e15 + 0.3)],
        0.001 * RNG.uniform(size=(50, 2)),
    ],
    ids=["equal", "equal up to rounding", "nearly equal"],
)
def test_nearly_equal_rows_are_one_group(X):
    assert_array_equal(similar_rows(X, 10**9, 0.005), np.zeros(len(X)))


def test_a_row_far_from_all_others_is_alone():
    X = CLOUD.copy()
    X[17, 1] = 100
    groups = similar_rows(X, 256, 0.005)
    assert_array_equal(np.flatnonzero(groups == groups[17]), [17])


def test_initial_groups_are_divided_but_never_merged():
    begin = np.arange(len(CLOUD)) % 3
    groups = similar_rows(CLOUD, 64, 0.005, begin)
    assert 3 < groups.max() < 64
    assert_array_equal(begin, begin[np.unique(groups, return_index=True)[1]][groups])


@pytest.mark.parametrize("n_columns", [0, 1, 2])
def test_representative_rows_separate_levels_and_keep_means(n_columns):
    rng = np.random.default_rng(0)
    level = rng.integers(0, 60, 2000)
    X = np.c_[np.ones(2000), np.eye(60)[level][:, 1:], rng.normal(size=(2000, n_columns))]
    weights = rng.uniform(0.5, 2, 2000)
    rows, whole = representative_rows(X, weights, 128, 0.1)
    assert len(rows) <= 128
    assert_array_equal(np.isin(rows[:, :60], (0, 1)), np.full((len(rows), 60), fill_value=True))
    assert_allclose(whole.sum(), weights.sum())
    assert_allclose(whole @ rows, weights @ X, atol=1e-9)


def test_levels_stay_separate_if_combinations_with_others_are_too_many():
    rng = np.random.default_rng(0)
    donor, kind = rng.integers(0, 60, 4000), rng.integers(0, 3, 4000)
    X = np.c_[np.ones(4000), np.eye(60)[donor][:, 1:], np.eye(3)[kind][:, 1:]]
    rows, _ = representative_rows(X, np.ones(4000), 128, 0.1)
    assert 60 <= len(rows) <= 128
    assert np.isin(rows[:, :60], (0, 1)).all()
