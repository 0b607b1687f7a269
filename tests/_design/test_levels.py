"""Designs with a factor of many levels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._design.design import PartDesign
from sc_glm._design.levels import MIN_LEVELS, decompose, find_levels

RNG = np.random.default_rng(5)
N = 600
N_DONORS = MIN_LEVELS + 8
DONOR = np.concatenate([RNG.permutation(N_DONORS), RNG.integers(0, N_DONORS - 3, N - N_DONORS)])
DUMMIES = np.eye(N_DONORS)[DONOR]  # the last donors have one cell each
ONE = np.ones((N, 1))
TREATED = (DONOR % 2 == 1).astype(float)[:, None]
X = RNG.normal(size=(N, 1))
TYPE = np.eye(3)[RNG.integers(0, 3, N)]
SUM = np.vstack([np.eye(N_DONORS - 1), -np.ones(N_DONORS - 1)])[DONOR]
WEIGHTS = RNG.integers(1, 4, N).astype(float)
BY_DONOR = {
    "treatment": np.c_[ONE, DUMMIES[:, 1:], X],
    "cell means": np.c_[DUMMIES, X],
    "in units": np.c_[3.0 * ONE, -2.0 * DUMMIES[:, 1:], 1e5 + 1e3 * X],
    "sums": np.c_[ONE, SUM, X],
    "nested": np.c_[ONE, TREATED, DUMMIES[:, 1:], X],
    "nested in full": np.c_[TREATED, 1 - TREATED, DUMMIES[:, 1:], X],
    "others before": np.c_[ONE, TYPE[:, 1:], X, DUMMIES[:, 1:]],
    "of the donor": np.c_[ONE, DONOR[:, None] * 7.0 % 23, DUMMIES[:, 1:], X],
    "zero and twice": np.c_[ONE, 0 * ONE, DUMMIES[:, 1:], DUMMIES[:, 1:], X, 2 * X],
    "nothing else": np.c_[ONE, DUMMIES[:, 1:]],
}


def numbers(codes):
    """Numbers of groups in the order in which they first occur."""
    return np.unique(np.unique(codes, return_index=True)[1][codes], return_inverse=True)[1]


@pytest.mark.parametrize("name", BY_DONOR)
def test_donors_are_found_in_any_coding(name):
    assert_array_equal(numbers(find_levels(BY_DONOR[name])), numbers(DONOR))


def test_combinations_of_crossed_factors_are_levels():
    both = np.einsum("ij,ik->ijk", DUMMIES, TYPE).reshape(N, -1)
    seen = both[:, both.any(axis=0)]
    crossed = np.c_[ONE, DUMMIES[:, 1:], TYPE[:, 1:], seen]
    assert_array_equal(numbers(find_levels(crossed)), numbers(seen.argmax(axis=1)))


@pytest.mark.parametrize(
    "design",
    [
        np.c_[ONE, np.eye(MIN_LEVELS - 1)[DONOR % (MIN_LEVELS - 1)], X],
        np.c_[DUMMIES[:, 1:], X],  # the first donor has no indicator, and there are no ones
        np.c_[ONE, DUMMIES * X],
        np.c_[ONE, RNG.normal(size=(N, N_DONORS))],
        np.c_[ONE, DUMMIES[:, 1:], RNG.normal(size=(N, N_DONORS))],
    ],
    ids=["few levels", "no ones", "slopes", "no levels", "many others"],
)
def test_no_levels_if_few_or_not_in_the_span(design):
    assert find_levels(design) is None
    assert_array_equal(decompose(design, WEIGHTS).U, PartDesign.of(design, WEIGHTS).U)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["equal", "weighted"])
@pytest.mark.parametrize("name", BY_DONOR)
def test_a_decomposition_by_levels_equals_that_of_the_columns(name, weights):
    matrix = BY_DONOR[name]
    ours, plain = decompose(matrix, weights), PartDesign.of(matrix, weights)
    assert ours.levels is not None
    assert ours.U.shape == (N, ours.rank - N_DONORS)
    assert ours.source == plain.source
    assert_array_equal(ours.aliased, plain.aliased)
    basis, w = ours.basis(), np.ones(N) if weights is None else weights
    assert basis.shape == plain.U.shape
    assert_allclose((w[:, None] * basis).T @ basis / w.sum(), np.eye(ours.rank), atol=1e-12)
    size = np.abs(matrix).max(axis=0).clip(1)
    assert_allclose(basis @ ours.from_coef / size, matrix / size, atol=1e-11)
    assert_allclose(matrix @ ours.to_coef, basis, atol=1e-8)
    # Coefficients of a predictor are the same: with aliased columns, those of smallest norm
    turn = (w[:, None] * plain.U).T @ basis / w.sum()
    assert_allclose(
        ours.to_coef * size[:, None], plain.to_coef @ turn * size[:, None], rtol=1e-7, atol=1e-7
    )


def test_some_cells_have_the_same_coordinates():
    design = decompose(BY_DONOR["treatment"])
    some = np.arange(0, N, 7)
    own = design.of_cells(some)
    assert_array_equal(own.basis(), design.basis()[some])
    assert own.rank == design.rank
