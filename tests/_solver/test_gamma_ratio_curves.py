"""Curves against the exact function, and curves against each other."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import LARGEST_LOG_SIZE, gamma_ratio, positive_counts
from sc_glm._solver.gamma_ratio_curves import GammaRatioCurves

CPU = torch.device("cpu")
RHO = torch.linspace(-25, 30, 1101).double()


def curves_of(*sets_of_counts):
    """Places with counts (value, share)."""
    numbers = np.repeat(np.arange(len(sets_of_counts)), [len(own) for own in sets_of_counts])
    y, shares = np.array([pair for own in sets_of_counts for pair in own], float).T
    return GammaRatioCurves(numbers, y, shares, len(sets_of_counts), CPU)


def exact(y, rho=RHO):
    value, first, second = gamma_ratio(positive_counts(torch.full_like(rho, y)), rho)
    return value, first - y, second


# Counts of which there are many per cell have errors far below the tolerance of the screening.
@pytest.mark.parametrize(
    ("y", "atol"),
    [(1.0, 1e-12), (0.5, 1e-3), (2.0, 2e-4), (10.0, 6e-4), (100.0, 5e-3), (1e3, 0.06)],
)
def test_curves_are_near_the_exact_function(y, atol):
    found = curves_of([(y, 1.0)]).gamma_ratio(torch.zeros(len(RHO), dtype=torch.long), RHO)
    for near, true in zip(found, exact(y), strict=True):
        assert_allclose(near, true, rtol=1e-12, atol=atol)


def test_derivatives_are_those_of_the_value():
    curves, h = curves_of([(7.0, 0.5), (40.0, 0.25)]), 1e-5
    numbers = torch.zeros(len(RHO), dtype=torch.long)
    below, at, above = (curves.gamma_ratio(numbers, RHO + d) for d in (-h, 0.0, h))
    assert_allclose((above.value - below.value) / (2 * h), at.first, rtol=1e-6, atol=1e-6)
    assert_allclose((above.first - below.first) / (2 * h), at.second, rtol=1e-4, atol=1e-4)


def test_sizes_beyond_those_that_can_be_told_apart_are_one():
    curves, numbers = curves_of([(7.0, 1.0)]), torch.zeros(2, dtype=torch.long)
    limits = torch.tensor([-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE]).double()
    for one, other in zip(
        curves.gamma_ratio(numbers, 2 * limits), curves.gamma_ratio(numbers, limits), strict=True
    ):
        assert torch.equal(one, other)


def test_counts_of_a_place_add_up_by_their_shares():
    several = [(3.0, 0.25), (3.0, 0.5), (12.0, 2.0)]
    curves = curves_of([(5.0, 1.0)], several, [(3.0, 1.0)])
    found = curves.gamma_ratio(torch.ones(len(RHO), dtype=torch.long), RHO)
    parts = [
        curves_of([pair]).gamma_ratio(torch.zeros(len(RHO), dtype=torch.long), RHO)
        for pair in several
    ]
    for whole, *own in zip(found, *parts, strict=True):
        assert_allclose(whole, sum(own), rtol=1e-12, atol=1e-12)


def test_a_place_without_counts_adds_nothing():
    curves = curves_of([(5.0, 1.0)], [], [(2.0, 1.0)])
    for one in curves.gamma_ratio(torch.ones(len(RHO), dtype=torch.long), RHO):
        assert not one.any()
