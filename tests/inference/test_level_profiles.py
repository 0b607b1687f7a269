"""Profiles over the log size: between nodes, they agree with a maximisation there."""

import numpy as np
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.level_terms import LevelTerms
from sc_glm._likelihood.tiles import CountBlock
from sc_glm.inference.level_profiles import LevelProfiles

N_CELLS, N_GENES, N_GROUPS = 150, 4, 3


def terms():
    rng = np.random.default_rng(0)
    numbers = np.arange(N_CELLS) % N_GROUPS
    counts = rng.negative_binomial(1.5, 0.4, (N_CELLS, N_GENES))
    counts[numbers == 1, 2] = 0
    by_gene = sp.csr_array(counts.T.astype(float))
    offset, weights = torch.from_numpy(rng.normal(size=N_CELLS)), torch.ones(N_CELLS).double()
    pointers = (torch.from_numpy(x.astype(np.int64)) for x in (by_gene.indptr, by_gene.indices))
    block = CountBlock(*pointers, torch.from_numpy(by_gene.data), N_CELLS, cells_per_tile=N_CELLS)
    return LevelTerms(block, Groups(torch.from_numpy(numbers), offset, weights), offset, weights)


def profile(level_terms, gene, group, rho):
    """Maximise over the mean on a fine grid."""
    eta = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    same = [torch.full_like(eta, x, dtype=torch.long) for x in (gene, group)]
    return float(level_terms.at(*same, eta, torch.full_like(eta, rho)).value.max())


def test_interpolation_agrees_with_maximisation():
    level_terms = terms()
    zeros = torch.zeros(N_GENES, N_GROUPS, dtype=torch.float64)
    centre = torch.full((N_GENES,), 0.3).double()
    profiles = LevelProfiles(level_terms, zeros, centre, centre)
    rng = np.random.default_rng(1)
    for distance in rng.uniform(-4, 4, 10):
        rho = 0.3 + distance
        for gene in range(N_GENES):
            row = torch.tensor([gene]), torch.tensor([0]), torch.tensor([rho]).double()
            expected = sum(
                profile(level_terms, gene, group, rho)
                for group in (1, 2)
                if level_terms.sum_of_y[gene, group] > 0
            )
            expected += float(level_terms.gamma_ratio(row[2], row[0]).value)
            assert_allclose(profiles.of_others(*row).value, expected, atol=2e-4)


def test_derivatives_are_those_of_the_interpolation():
    zeros = torch.zeros(N_GENES).double()
    profiles = LevelProfiles(terms(), torch.zeros(N_GENES, N_GROUPS).double(), zeros, zeros)
    genes, groups = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 2, 0])
    rho, step = torch.tensor([0.2, -1.3, 2.1, -0.6]).double(), 1e-5
    at = profiles.of_others(genes, groups, rho)
    up, down = (profiles.of_others(genes, groups, rho + sign * step) for sign in (1, -1))
    assert_allclose(at.first, (up.value - down.value) / (2 * step), rtol=1e-6)
    assert_allclose(at.second, (up.first - down.first) / (2 * step), rtol=1e-5)


def test_the_likelihood_of_the_fit_is_the_sum_of_all_profiles():
    level_terms = terms()
    rho = torch.tensor([0.0, 20.0, 1.0, -1.0]).double()  # of which one is Poisson in practice
    profiles = LevelProfiles(level_terms, torch.zeros(N_GENES, N_GROUPS).double(), rho, rho)
    found = profiles.at_fit(torch.arange(N_GENES))
    for gene in range(N_GENES):
        expected = sum(
            profile(level_terms, gene, group, float(rho[gene]))
            for group in range(N_GROUPS)
            if level_terms.sum_of_y[gene, group] > 0
        )
        ratio = level_terms.gamma_ratio(rho[[gene]], torch.tensor([gene]))
        assert_allclose(found[gene], expected + float(ratio.value), atol=2e-4)
