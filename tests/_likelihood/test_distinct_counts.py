import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.distinct_counts import DistinctCounts
from sc_glm._likelihood.family import gamma_ratio, positive_counts

RNG = np.random.default_rng(2)
COUNTS = [
    RNG.poisson(2, 200) + 1.0,
    [],
    [1.0],
    [1.0, 1024, 1025, 3],
    [0.5, 2.5, 2.0, 2.5],
    [5000.0, 5000, 70000],
    RNG.negative_binomial(0.3, 0.001, 300) + 1.0,
]
GENES = torch.from_numpy(np.repeat(np.arange(len(COUNTS)), [len(y) for y in COUNTS]))
Y = torch.from_numpy(np.concatenate(COUNTS))
WEIGHTS = torch.from_numpy(RNG.uniform(0.2, 3, len(Y)))
ALL = torch.arange(len(COUNTS))


def steps(weights=WEIGHTS, dtype=torch.float64):
    return DistinctCounts(GENES, Y.to(dtype), weights.to(dtype), len(COUNTS))


def one_by_one(rho):
    """Sums over counts of what each adds, in double precision, and of how large that is."""
    counts, at = positive_counts(Y), rho.double()[GENES]
    gamma_ratios = gamma_ratio(counts, at)
    scale = (1 + counts.log_y.abs() + at.abs()) * Y
    return [
        torch.zeros(len(COUNTS)).double().index_add(0, GENES, x * WEIGHTS)
        for x in (*gamma_ratios, scale)
    ]


@pytest.mark.parametrize("rho", [-300.0, -20.0, -3.0, 0.0, 1.5, 9.0, 30.0, 300.0])
def test_sums_equal_those_over_all_counts(rho):
    at = torch.full((len(COUNTS),), rho, dtype=torch.float64)
    *expected, scale = one_by_one(at)
    for ours, theirs in zip(steps().gamma_ratio(at, ALL), expected, strict=True):
        assert ((ours - theirs).abs() <= 1e-13 * scale).all()


def test_second_derivatives_vanish_with_the_inverse_of_the_size():
    """To full relative accuracy, or Poisson genes would seem to have a maximum elsewhere."""
    at = torch.full((len(COUNTS),), 35.0, dtype=torch.float64)
    limit = Y * (Y - 1) / 2 * WEIGHTS * math.exp(-35)
    whole = [0, 2]
    expected = [limit[gene == GENES].sum() for gene in whole]
    assert_allclose(steps().gamma_ratio(at, ALL).second[whole], expected, rtol=1e-7)


def test_a_gene_does_not_depend_on_the_others():
    rho = torch.linspace(-2, 4, len(COUNTS), dtype=torch.float64)
    whole = steps().gamma_ratio(rho, ALL)
    for genes in ([6, 0, 3], [1], [5, 5]):
        index = torch.tensor(genes)
        for ours, theirs in zip(steps().gamma_ratio(rho[index], index), whole, strict=True):
            assert torch.equal(ours, theirs[index])
    for gene in ALL:
        own = gene == GENES
        single = DistinctCounts(0 * GENES[own], Y[own], WEIGHTS[own], 1)
        gamma_ratios = single.gamma_ratio(rho[gene : gene + 1], torch.tensor([0]))
        for ours, theirs in zip(gamma_ratios, whole, strict=True):
            assert torch.equal(ours[0], theirs[gene])


def test_weights_are_repeated_counts():
    rho = torch.linspace(-2, 4, len(COUNTS), dtype=torch.float64)
    genes, y = GENES.repeat_interleave(2), Y.repeat_interleave(2)
    twice = DistinctCounts(genes, y, torch.ones_like(y), len(COUNTS))
    weighted = steps(torch.full_like(WEIGHTS, 2.0))
    for ours, theirs in zip(
        weighted.gamma_ratio(rho, ALL), twice.gamma_ratio(rho, ALL), strict=True
    ):
        assert_allclose(ours, theirs, rtol=1e-13)


def test_single_precision_follows():
    rho = torch.linspace(-2, 4, len(COUNTS))
    *expected, scale = one_by_one(rho)
    for ours, theirs in zip(
        steps(dtype=torch.float32).gamma_ratio(rho, ALL), expected, strict=True
    ):
        assert ours.dtype == torch.float32
        assert ((ours - theirs).abs() <= 1e-5 * scale).all()
