import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._design.design import PartDesign

RNG = np.random.default_rng(11)
N = 40
LEVELS = np.eye(4)[RNG.integers(0, 4, size=N)]
NORMAL = RNG.normal(size=(N, 3))
MATRICES = {
    "full rank": np.c_[np.ones(N), NORMAL],
    "one column": NORMAL[:, :1],
    "constant": np.full((N, 1), 3.0),
    "intercept and levels": np.c_[np.ones(N), LEVELS],
    "an unused level": np.c_[np.ones(N), LEVELS, np.zeros(N)],
    "doubled": np.c_[NORMAL[:, :2], NORMAL[:, 0]],
    "wild scales": np.c_[np.ones(N), NORMAL] * [1e8, 1e-8, 1, 1e4],
    "wild scales, aliased": np.c_[1e-2 * LEVELS, 1e2 * np.ones(N), NORMAL],
    "far from zero": np.c_[np.ones(N), 1e5 + NORMAL[:, :1]],
    "more columns than cells": RNG.normal(size=(5, 8)),
    "one cell": np.array([[2.0, 3.0, 0.0]]),
    "nothing": np.zeros((N, 2)),
}
RANKS = dict(
    zip(MATRICES, [4, 1, 1, 4, 4, 2, 4, 7, 2, 5, 1, 0], strict=True),
)


def coordinates(design, predictor):
    return np.linalg.lstsq(design.U, predictor, rcond=None)[0]


def check(X, design, *, tolerance=1e-9):
    rank = design.U.shape[1]
    assert_allclose(design.U.T @ design.U / len(X), np.eye(rank), atol=1e-12)
    scale = np.abs(X).max(axis=0)
    # Column by column, so that a column of 1e-8 counts as much as one of 1e8.
    assert_allclose(X @ design.to_coef, design.U, atol=tolerance)
    # U spans X: what is left of each column is rounding.
    left = X - design.U @ (design.U.T @ X) / len(X)
    assert (np.abs(left) <= 1e-10 * scale).all()


@pytest.mark.parametrize("name", MATRICES)
def test_orthonormal_coordinates_of_the_same_predictors(name):
    X = MATRICES[name]
    before = X.copy()
    design = PartDesign.of(X)
    assert_array_equal(X, before)
    assert design.U.shape == (len(X), RANKS[name])
    assert design.to_coef.shape == (X.shape[1], RANKS[name])
    check(X, design)
    assert_array_equal(design.penalty, np.zeros((RANKS[name], RANKS[name])))
    theta = RNG.normal(size=(RANKS[name], 2))
    assert_allclose(coordinates(design, design.U @ theta), theta, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in MATRICES if "wild" not in name])
def test_coefficients_have_the_smallest_norm(name):
    X = MATRICES[name]
    design = PartDesign.of(X)
    least = np.linalg.pinv(X, rcond=1e-12) @ design.U
    assert_allclose(design.to_coef, least, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", [1e2, 1e5, 1e8])
def test_smallest_norm_on_wild_scales(scale):
    """Nothing of the null space is left in the coefficients, which still make the predictors."""
    X = np.c_[LEVELS / scale, scale * np.ones(N), NORMAL]
    design = PartDesign.of(X)
    null = np.r_[np.ones(4), -(scale**-2), np.zeros(3)]
    assert_allclose(X @ null, 0, atol=1e-15 / scale)
    largest = np.abs(design.to_coef).max()
    assert (np.abs(null @ design.to_coef) <= 1e-12 * largest).all()
    check(X, design)


def test_columns_of_zeros_have_zero_coefficients_and_equal_columns_equal_ones():
    X = np.c_[NORMAL[:, 0], np.zeros(N), NORMAL[:, 1], NORMAL[:, 0]]
    coef = PartDesign.of(X).to_coef
    assert coef.shape == (4, 2)
    assert_allclose(coef[1], 0, atol=1e-15)
    assert_allclose(coef[0], coef[3], atol=1e-14)
    single = PartDesign.of(X[:, [0, 2]])
    predictor = NORMAL[:, :2] @ [3.0, -2.0]
    ours = coef @ coordinates(PartDesign.of(X), predictor)
    theirs = single.to_coef @ coordinates(single, predictor)
    assert_allclose(ours, [theirs[0] / 2, 0, theirs[1], theirs[0] / 2], atol=1e-12)
    assert_allclose(theirs, [3, -2], atol=1e-12)


@pytest.mark.parametrize("value", [1.0, -0.25, 1e-9, 7e8])
def test_a_constant_column_stays_exactly_constant(value):
    """The objective evaluates such a part once per gene."""
    for weights in (None, np.linspace(0.5, 3, 31)):
        design = PartDesign.of(np.full((31, 1), value), weights)
        assert_array_equal(design.U, np.ones((31, 1)))
        assert_allclose(design.to_coef, [[1 / value]], rtol=1e-15)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e8])
@pytest.mark.parametrize("name", ["full rank", "intercept and levels", "doubled"])
def test_units_do_not_change_the_rank(name, scale):
    X = MATRICES[name].copy()
    X[:, 0] *= scale
    design = PartDesign.of(X)
    assert design.U.shape[1] == RANKS[name]
    check(X, design)


# Weights


@pytest.mark.parametrize("name", ["full rank", "an unused level", "doubled", "wild scales"])
def test_coordinates_are_orthonormal_under_the_weights(name):
    X = MATRICES[name]
    weights = np.random.default_rng(2).uniform(0.01, 5, size=len(X))
    design = PartDesign.of(X, weights)
    square = design.U.T @ (weights[:, None] * design.U) / weights.sum()
    assert_allclose(square, np.eye(RANKS[name]), atol=1e-12)
    assert_allclose(X @ design.to_coef, design.U, atol=1e-9)


@pytest.mark.parametrize("name", ["full rank", "an unused level", "doubled", "constant"])
def test_integer_weights_are_repeated_rows(name):
    """Up to the directions of the axes, which are not unique."""
    X = MATRICES[name]
    times = np.random.default_rng(2).integers(1, 4, size=len(X))
    penalised = np.arange(X.shape[1]) > 0
    weighted = PartDesign.of(X, times.astype(float), penalised=penalised)
    repeated = PartDesign.of(np.repeat(X, times, axis=0), penalised=penalised)
    for ours, theirs in (
        (weighted.to_coef @ weighted.to_coef.T, repeated.to_coef @ repeated.to_coef.T),
        (
            np.repeat(weighted.U @ weighted.to_coef.T, times, axis=0),
            repeated.U @ repeated.to_coef.T,
        ),
        (np.linalg.eigvalsh(weighted.penalty), np.linalg.eigvalsh(repeated.penalty)),
    ):
        assert_allclose(ours, theirs, atol=1e-12)


# Penalty


def test_the_penalty_is_the_squared_norm_of_the_penalised_coefficients():
    X = MATRICES["full rank"]
    which = np.array([False, True, True, False])
    design = PartDesign.of(X, penalised=which)
    assert_allclose(design.to_coef, PartDesign.of(X).to_coef)
    theta = RNG.normal(size=4)
    coef = design.to_coef @ theta
    assert_allclose(theta @ design.penalty @ theta, coef[1] ** 2 + coef[2] ** 2, rtol=1e-12)


@pytest.mark.parametrize("name", ["intercept and levels", "an unused level", "doubled"])
def test_aliased_coefficients_are_the_least_penalised_ones(name):
    X = MATRICES[name]
    which = np.ones(X.shape[1], dtype=bool)
    which[0] = False
    design = PartDesign.of(X, penalised=which)
    check(X, design)
    theta = RNG.normal(size=design.U.shape[1])
    coef = design.to_coef @ theta
    penalty = np.sum(coef[which] ** 2)
    assert_allclose(theta @ design.penalty @ theta, penalty, rtol=1e-10, atol=1e-12)
    null = np.linalg.svd(X)[2][design.U.shape[1] :]
    for direction in null:
        for step in (1e-3, -1e-3):
            other = coef + step * direction
            assert np.sum(other[which] ** 2) >= penalty - 1e-12
    plain = PartDesign.of(X).to_coef @ theta
    assert penalty <= np.sum(plain[which] ** 2) + 1e-12


def test_an_intercept_with_all_levels_has_no_penalty():
    """Levels that share one value put all of it in the intercept, which is not penalised."""
    X = np.c_[np.ones(N), LEVELS]
    design = PartDesign.of(X, penalised=np.array([False, True, True, True, True]))
    coef = design.to_coef @ coordinates(design, np.full(N, 2.5))
    assert_allclose(coef, [2.5, 0, 0, 0, 0], atol=1e-12)


def test_of_coefficients_with_equal_penalty_the_smallest_are_taken():
    X = np.c_[np.ones(N), NORMAL[:, 0], NORMAL[:, 0], NORMAL[:, 1]]
    design = PartDesign.of(X, penalised=np.array([False, False, False, True]))
    coef = design.to_coef @ coordinates(design, X @ [1.0, 4.0, 0.0, 2.0])
    assert_allclose(coef, [1, 2, 2, 2], atol=1e-12)


# Any matrix

MATRIX = st.tuples(st.integers(1, 9), st.integers(1, 6)).flatmap(
    lambda shape: arrays(float, shape, elements=st.integers(-2, 2).map(float))
)


@given(X=MATRIX, copies=st.integers(0, 2), exponents=st.lists(st.integers(-8, 8), max_size=8))
def test_any_integer_matrix_on_any_scales(X, copies, exponents):
    X = np.c_[X, X[:, :copies]]
    rank = np.linalg.matrix_rank(X)
    scales = 10.0 ** np.array(exponents + [0] * X.shape[1])[: X.shape[1]]
    design = PartDesign.of(X * scales)
    assert design.U.shape == (len(X), rank)
    check(X * scales, design, tolerance=1e-7)


@given(X=MATRIX, which=st.lists(st.booleans(), min_size=6, max_size=6))
def test_any_integer_matrix_with_a_penalty(X, which):
    penalised = np.array(which[: X.shape[1]])
    design = PartDesign.of(X, penalised=penalised)
    check(X, design)
    assert_allclose(design.penalty, design.to_coef[penalised].T @ design.to_coef[penalised])
    # The gradient of the penalty vanishes along everything that X does not see.
    null = np.linalg.svd(X)[2][design.U.shape[1] :]
    assert_allclose(null[:, penalised] @ design.to_coef[penalised], 0, atol=1e-9)
    # And what the penalty does not see either is as small as it can be.
    unseen = null @ np.diag(~penalised) @ null.T
    values, vectors = np.linalg.eigh(unseen)
    unidentified = vectors[:, values > 1 - 1e-9].T @ null
    assert_allclose(unidentified @ design.to_coef, 0, atol=1e-9)


# The null space


@given(
    X=MATRIX,
    row=arrays(float, 6, elements=st.integers(-2, 2).map(float)),
    copies=st.integers(0, 2),
    exponents=st.lists(st.integers(-8, 8), max_size=8),
)
def test_a_row_outside_the_row_space_is_not_estimable(X, row, copies, exponents):
    row = row[: X.shape[1]]
    X, row = np.c_[X, X[:, :copies]], np.r_[row, row[:copies]]
    scales = 10.0 ** np.array(exponents + [0] * X.shape[1])[: X.shape[1]]
    null = PartDesign.of(X * scales).null
    assert not null.not_estimable(X * scales, unit=1.0).any()
    outside = np.linalg.matrix_rank(np.vstack([X, row])) > np.linalg.matrix_rank(X)
    for unit in (0.0, 1.0):
        assert null.not_estimable((row * scales)[None], unit)[0] == outside
    if outside:
        assert len(null.columns_of(row * scales))


@pytest.mark.parametrize("name", MATRICES)
def test_rows_of_the_fit_are_estimable_and_aliased_columns_are_not(name):
    X = MATRICES[name]
    design = PartDesign.of(X)
    assert bool(design.null) == (RANKS[name] < X.shape[1])
    assert not design.null.not_estimable(X, unit=1.0).any()
    whole = np.linalg.matrix_rank(X / np.maximum(np.abs(X).max(axis=0), 1e-300))
    for column, aliased in enumerate(design.aliased):
        rest = np.delete(X / np.maximum(np.abs(X).max(axis=0), 1e-300), column, axis=1)
        assert aliased == (np.linalg.matrix_rank(rest) == whole)


def test_rounding_of_columns_leaves_rows_estimable():
    """A column rounded beside larger numbers differs from its copy by much, of a small number."""
    x = np.r_[1e-12, 1e-9, np.linspace(0.1, 1, 20)]
    X = np.c_[x, (x + 1) - 1]
    null = PartDesign.of(X).null
    assert null
    assert not null.not_estimable(X, unit=1.0).any()


def test_any_number_in_a_column_of_zeros_is_not_estimable():
    """Its units are unknown: a dose of 1e-9 is as far from none as any."""
    null = PartDesign.of(np.c_[np.ones(5), np.zeros(5)]).null
    assert_array_equal(
        null.not_estimable(np.array([[1, 0], [3, 0], [1, 1e-9], [0, 1e-300]])), [0, 0, 1, 1]
    )


def test_a_penalty_identifies_the_penalised_columns():
    X = np.c_[np.ones(N), LEVELS, np.zeros(N)]
    rows = np.array([[1.0, 0, 0, 0, 0, 0], [1.0, 1, 0, 0, 0, 1]])
    for penalised, expected in (
        ([0, 1, 1, 1, 1, 1], [False, False]),
        ([0, 1, 1, 1, 1, 0], [False, True]),
        ([0, 0, 0, 0, 0, 0], [True, True]),
        ([0, 0, 0, 0, 0, 1], [True, False]),
    ):
        design = PartDesign.of(X, penalised=np.array(penalised, dtype=bool))
        assert_array_equal(design.unidentified.not_estimable(rows, unit=1.0), expected)
        assert_array_equal(design.null.not_estimable(rows, unit=1.0), [True, True])
