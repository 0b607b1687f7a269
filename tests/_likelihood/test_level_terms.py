"""Terms of single groups add up to the likelihood of all cells, and have its derivatives."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.testing import assert_allclose
from scipy import stats

from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.level_terms import LevelTerms
from sc_glm._likelihood.tiles import CountBlock

N_CELLS, N_GENES, N_GROUPS = 60, 3, 4


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    numbers = np.r_[range(N_GROUPS), rng.integers(0, N_GROUPS, N_CELLS - N_GROUPS)]
    counts = rng.negative_binomial(0.7, 0.2, (N_CELLS, N_GENES))
    counts[numbers == 2, 1] = 0
    offset, weights = rng.normal(size=N_CELLS), rng.integers(1, 4, N_CELLS).astype(float)
    return numbers, counts, offset, weights


def terms_of(case):
    numbers, counts, offset, weights = case
    by_gene = sp.csr_array(counts.T.astype(float))
    offset, weights = torch.from_numpy(offset), torch.from_numpy(weights)
    block = CountBlock(
        torch.from_numpy(by_gene.indptr.astype(np.int64)),
        torch.from_numpy(by_gene.indices.astype(np.int64)),
        torch.from_numpy(by_gene.data),
        N_CELLS,
        cells_per_tile=N_CELLS,
    )
    return LevelTerms(block, Groups(torch.from_numpy(numbers), offset, weights), offset, weights)


def rows():
    gene, group = (x.ravel() for x in np.mgrid[:N_GENES, :N_GROUPS])
    rng = np.random.default_rng(1)
    eta, rho = rng.normal(size=len(gene)), rng.normal(size=N_GENES)[gene]
    return [torch.from_numpy(x) for x in (gene, group, eta, rho)]


def test_groups_add_up_to_the_likelihood_of_all_cells(case):
    numbers, counts, offset, weights = case
    terms = terms_of(case)
    gene, group, eta, rho = rows()
    by_group = terms.at(gene, group, eta, rho).value.view(N_GENES, -1)
    ratios = terms.gamma_ratio(rho[::N_GROUPS], torch.arange(N_GENES))
    log_mean = eta.view(N_GENES, -1).numpy()[:, numbers].T + offset[:, None]
    r = rho[::N_GROUPS].exp().numpy()
    log_mass = stats.nbinom.logpmf(counts, r, r / (r + np.exp(log_mean)))
    assert_allclose(by_group.sum(1) + ratios.value, weights @ log_mass, rtol=1e-11)


@pytest.mark.parametrize("variable", [2, 3])
def test_derivatives_are_those_of_the_value(case, variable):
    terms, point = terms_of(case), rows()
    at = terms.at(*point)
    step = 1e-5
    near = []
    for sign in (1, -1):
        other = list(point)
        other[variable] = other[variable] + sign * step
        near.append(terms.at(*other))
    part = variable - 2
    numeric = (near[0].value - near[1].value) / (2 * step)
    assert_allclose(at.score[part], numeric, rtol=1e-6, atol=1e-6)
    for other, entry in enumerate([(0, 1), (1, 2)][part]):
        numeric = (near[0].score[other] - near[1].score[other]) / (2 * step)
        assert_allclose(at.hessian[entry], numeric, rtol=1e-6, atol=1e-6)


def test_the_derivative_of_the_gamma_ratio_is_that_of_its_value(case):
    terms, genes = terms_of(case), torch.arange(N_GENES)
    rho = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64)
    at, step = terms.gamma_ratio(rho, genes), 1e-5
    up, down = (terms.gamma_ratio(rho + sign * step, genes) for sign in (1, -1))
    assert_allclose(at.first, (up.value - down.value) / (2 * step), rtol=1e-6)
    assert_allclose(at.second, (up.first - down.first) / (2 * step), rtol=1e-6)


def test_a_group_without_counts_has_the_terms_of_its_zeros(case):
    terms = terms_of(case)
    assert (terms.sum_of_y == 0).nonzero().tolist() == [[1, 2]]
    gene, group, eta, rho = (x[[6]] for x in rows())
    assert (gene, group) == (1, 2)
    all_terms, of_zeros = terms.at(gene, group, eta, rho), terms.of_silent(group, eta, rho)
    assert_allclose(all_terms.value, of_zeros.value)
    assert_allclose(all_terms.score, of_zeros.score)
    assert_allclose(all_terms.hessian, of_zeros.hessian)
