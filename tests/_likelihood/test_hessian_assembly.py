from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood import hessian_assembly as module
from sc_glm._likelihood.family import Terms, pairs
from sc_glm._likelihood.hessian_assembly import HessianAssembly

N_CELLS, N_GENES = 47, 5
RNG = np.random.default_rng(8)
ONES = np.ones((N_CELLS, 1))
NOTHING = np.ones((N_CELLS, 0))
LINE = np.c_[ONES, RNG.normal(size=N_CELLS)]
OTHER = np.c_[ONES, RNG.normal(size=(N_CELLS, 2))]
WIDE = RNG.normal(size=(N_CELLS, 6))
WEIGHTS = RNG.uniform(0.5, 2, size=N_CELLS)

DESIGNS = {
    "one constant": [LINE, ONES],
    "constants of other sizes": [LINE, 0.5 * ONES, -3 * ONES],
    "all constant": [2 * ONES, ONES, ONES],
    "the same": [WIDE, WIDE.copy()],
    "the same three": [LINE, LINE.copy(), LINE],
    "different": [OTHER, LINE],
    "in another order": [LINE, OTHER, LINE],
    "the last two": [OTHER, WIDE, WIDE],
    "with a constant between": [WIDE, ONES, OTHER],
    "no columns": [LINE, NOTHING, LINE],
    "no columns of the mean": [NOTHING, LINE],
}


def terms_of(n_parts):
    def term():
        return torch.from_numpy(RNG.normal(size=(N_GENES, N_CELLS)))

    return Terms(
        term(), tuple(term() for _ in range(n_parts)), tuple(term() for _ in pairs(n_parts))
    )


def cut(terms, genes, cells):
    return Terms(
        terms.value[genes, cells],
        tuple(x[genes, cells] for x in terms.score),
        tuple(x[genes, cells] for x in terms.hessian),
    )


def contract(designs, terms, bounds, gene_bounds=(0, 3, N_GENES)):
    given = HessianAssembly(
        [torch.from_numpy(x) for x in designs], torch.from_numpy(WEIGHTS), bounds
    )
    sums = given.begin(N_GENES)
    for _ in range(2):  # what is kept of the first pass serves the second
        sums = given.begin(N_GENES)
        for tile, ends in enumerate(pairwise(bounds)):
            for first, stop in pairwise(gene_bounds):
                genes = slice(first, stop)
                given.add(sums, genes, tile, cut(terms, genes, slice(*ends)))
    return given.end(sums)


def plain(designs, terms):
    """The same sums, one by one."""
    gradient = [
        np.einsum("gi,i,ik->gk", score, WEIGHTS, x)
        for score, x in zip(terms.score, designs, strict=True)
    ]
    blocks = {
        (a, b): np.einsum("gi,i,ik,il->gkl", weight, WEIGHTS, designs[a], designs[b])
        for (a, b), weight in zip(pairs(len(designs)), terms.hessian, strict=True)
    }
    rows = [
        [blocks[a, b] if a <= b else blocks[b, a].transpose(0, 2, 1) for b in range(len(designs))]
        for a in range(len(designs))
    ]
    return terms.value.numpy() @ WEIGHTS, np.concatenate(gradient, 1), np.block(rows)


@pytest.mark.parametrize("kept", [0, 10**6])
@pytest.mark.parametrize("bounds", [[0, N_CELLS], [0, 16, 32, N_CELLS]])
@pytest.mark.parametrize("name", DESIGNS)
def test_sums_equal_those_of_single_terms(name, bounds, kept, monkeypatch):
    monkeypatch.setattr(module, "_MAX_CACHED_ENTRIES", kept)
    designs = DESIGNS[name]
    terms = terms_of(len(designs))
    for ours, theirs in zip(contract(designs, terms, bounds), plain(designs, terms), strict=True):
        assert ours.shape == theirs.shape
        assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_equal_and_constant_designs_are_recognised():
    tensors = [torch.from_numpy(x) for x in (LINE, OTHER, LINE.copy(), ONES, NOTHING)]
    given = HessianAssembly(tensors, torch.from_numpy(WEIGHTS), [0, N_CELLS])
    assert given.design_numbers == [0, 1, 0, None, None]
    assert [x.shape[1] for x in given.distinct_designs] == [2, 3]


def test_terms_are_not_changed():
    designs = DESIGNS["in another order"]
    terms = terms_of(3)
    before = [x.clone() for x in (terms.value, *terms.score, *terms.hessian)]
    contract(designs, terms, [0, N_CELLS])
    for x, y in zip(before, (terms.value, *terms.score, *terms.hessian), strict=True):
        assert torch.equal(x, y)
