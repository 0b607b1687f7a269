import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sc_glm._likelihood.gamma_ratio_table import MAX_TABULATED_COUNT
from sc_glm._likelihood.tiles import CountBlock, Shares, concatenated_ranges
from tests.problems import block_of

RNG = np.random.default_rng(4)
Y = RNG.negative_binomial(0.4, 0.05, size=(6, 37)).astype(float)
Y[2] = 0
Y[3, :4] = [1, 0.5, 100, 2.5]


@pytest.mark.parametrize("genes", [[0, 1, 2, 3, 4, 5], [5, 3], [2], [3, 3, 0]])
@pytest.mark.parametrize("tile", [37, 16, 1])
def test_entries_are_the_positive_counts_of_a_tile(tile, genes):
    block, index = block_of(Y, tile=tile), torch.tensor(genes)
    for number, (start, stop) in enumerate(zip(block.bounds, block.bounds[1:], strict=False)):
        expected = Y[genes, start:stop]
        entries = block.entries(index, number)
        found = np.zeros(expected.size)
        found[entries.flat] = block.y[entries.which]
        assert_array_equal(found.reshape(expected.shape), expected)
        assert len(entries.flat) == np.count_nonzero(expected)
        y = block.y[entries.which]
        ones, known, others = y.tensor_split([entries.n_ones, entries.n_ones + entries.n_in_table])
        assert (ones == 1).all()
        assert ((known > 1) & (known <= MAX_TABULATED_COUNT) & (known == known.floor())).all()
        assert ((others > MAX_TABULATED_COUNT) | (others != others.floor())).all()
    assert (Y == 1).any()
    assert (Y > MAX_TABULATED_COUNT).any()


@pytest.mark.parametrize("share", [0.0, 0.9])
@pytest.mark.parametrize("tile", [37, 16])
def test_dense_and_sparse_tiles_have_all_counts(share, tile, monkeypatch):
    monkeypatch.setattr("sc_glm._likelihood.tiles._MIN_DENSE_SHARE", share)
    block, genes = block_of(Y, tile=tile), torch.tensor([4, 0, 3])
    assert (block.dense is None) == (share > 0.5)
    tiles = [block.dense_tile(genes, number) for number in range(len(block.bounds) - 1)]
    assert_array_equal(torch.cat(tiles, 1), Y[genes])


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_counts_of_one_cell_are_summed_by_their_shares(share, monkeypatch):
    monkeypatch.setattr("sc_glm._likelihood.tiles._MIN_DENSE_SHARE", share)
    block = CountBlock(
        torch.tensor([0, 3, 4]),
        torch.tensor([1, 1, 2, 0]),
        torch.tensor([1.0, 4, 2, 7]).double(),
        3,
        cells_per_tile=3,
        shares=Shares(torch.zeros(2, 3), torch.tensor([0.25, 0.5, 1, 0.5]).double()),
    )
    genes = torch.tensor([0, 1])
    for whole in (block.dense_tile(genes, 0), block.dense_tile(genes, 0, block.entries(genes, 0))):
        assert_array_equal(whole, [[0, 2.25, 2], [3.5, 0, 0]])


def test_ranges():
    entries, rows = concatenated_ranges(torch.tensor([5, 2, 9]), torch.tensor([2, 0, 3]))
    assert_array_equal(entries, [5, 6, 9, 10, 11])
    assert_array_equal(rows, [0, 0, 2, 2, 2])
