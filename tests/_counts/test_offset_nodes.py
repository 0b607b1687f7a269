"""Sums over nodes of the offset, against sums over cells."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._counts.offset_nodes import N_NODES, offset_nodes

RNG = np.random.default_rng(0)
GROUPS = RNG.integers(0, 3, 900)
WEIGHTS = RNG.uniform(0.5, 2, 900)


@pytest.mark.parametrize("spread", [0.01, 0.6, 3.0])
@pytest.mark.parametrize("mean", [1e-8, 0.01, 1.0, 30.0])
def test_sums_of_functions_of_a_predictor(spread, mean):
    """Probabilities of zeros and scores of several sizes, relative to the sum of weights."""
    offset = RNG.normal(2, spread, 900)
    nodes = offset_nodes(GROUPS, offset, WEIGHTS)
    assert (nodes.weights > 0).all()
    assert nodes.offset.min() >= offset.min() - 1e-12
    assert nodes.offset.max() <= offset.max() + 1e-12

    def sums(groups, offset, weights, function):
        return np.bincount(groups, weights * function(mean * np.exp(offset - 2)))

    for function in (
        lambda mu: np.exp(-mu),
        lambda mu: (1 + mu / 0.3) ** -0.3,
        lambda mu: mu / (1 + mu),
        lambda mu: np.log1p(mu / 2) ** 2 / (1 + mu),
    ):
        expected = sums(GROUPS, offset, WEIGHTS, function)
        found = sums(*nodes, function)
        assert_allclose(found, expected, rtol=1e-10, atol=1e-11 * WEIGHTS.sum())


def test_few_distinct_offsets_are_kept():
    offset = np.array([0.5, 0.0, 0.5, 7.0] * 50)
    nodes = offset_nodes(np.zeros(200, dtype=int), offset, np.ones(200))
    assert_array_equal(nodes.offset, [0.0, 0.5, 7.0])
    assert_array_equal(nodes.weights, [50.0, 100.0, 50.0])


def test_offsets_that_differ_by_rounding():
    """They give fewer nodes than the quadrature has, without a division by zero."""
    offset = np.concatenate([1 + np.arange(60) * 2e-16, [2.0]])
    nodes = offset_nodes(np.zeros(61, dtype=int), offset, np.ones(61))
    assert len(nodes.offset) <= 2 * N_NODES
    assert_allclose(nodes.weights @ nodes.offset**3, (offset**3).sum(), rtol=1e-12)


def test_one_interval_of_many_cells_has_the_nodes_of_the_quadrature():
    nodes = offset_nodes(np.repeat([4, 1], 100), np.tile(np.linspace(0, 1, 100), 2), np.ones(200))
    assert_array_equal(nodes.groups, np.repeat([1, 4], N_NODES))
    for power in range(2 * N_NODES):
        total = (np.linspace(0, 1, 100) ** power).sum()
        of_group = nodes.groups == 1
        assert_allclose(nodes.weights[of_group] @ nodes.offset[of_group] ** power, total)
