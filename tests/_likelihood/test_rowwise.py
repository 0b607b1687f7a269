"""NumPy's results, and rows that are the same to the last digit whatever stands beside them."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm._likelihood import rowwise

DTYPES = [torch.float64, torch.float32]
RANKS = [*range(1, 10), 25]
CELLS = [1, 3, 7, 8, 33, 100, 257, 1001, 2087]
N_ROWS = 203
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_rank = pytest.mark.parametrize("rank", RANKS)


def random(*shape, dtype):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=dtype)


def positive_definite(n, order, dtype):
    root = random(n, order, order, dtype=dtype)
    return root @ root.mT / order


def subsets():
    """Rows alone, in runs of all lengths, shuffled and repeated."""
    for length in [*range(1, 18), 64, 150]:
        for start in (0, 1, N_ROWS - length):
            yield torch.arange(start, start + length)
    yield torch.from_numpy(np.random.default_rng(0).permutation(N_ROWS))
    yield torch.full((N_ROWS + 4,), N_ROWS // 2)


def assert_rows_stand_alone(function, *by_row):
    whole = function(*by_row)
    for rows in subsets():
        assert torch.equal(function(*(x[rows] for x in by_row)), whole[rows]), rows


@each_dtype
@each_rank
def test_product_of_coordinates_and_cells(rank, dtype):
    for n_cells in CELLS:
        theta, U = random(N_ROWS, rank + 2, dtype=dtype), random(n_cells, rank, dtype=dtype)
        own = slice(1, rank + 1)  # a part's coordinates lie between those of others
        found = rowwise.product(theta[:, own], U.mT)
        assert found.shape == (N_ROWS, n_cells)
        expected = theta.numpy()[:, own] @ U.numpy().T
        assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * rank)
        assert_rows_stand_alone(lambda x, U=U, own=own: rowwise.product(x[:, own], U.mT), theta)


@each_dtype
@each_rank
def test_product_of_cells_and_designs(rank, dtype):
    for n_cells in CELLS:
        values, U = random(N_ROWS, n_cells, dtype=dtype), random(n_cells, rank, dtype=dtype)
        padded_width = rowwise.pad_columns(U)
        found = rowwise.product(values, U)
        assert found.shape == (N_ROWS, rank)
        expected = values.numpy() @ U.numpy()
        assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * n_cells)
        assert torch.equal(rowwise.product(values, padded_width)[:, :rank], found)
        assert_rows_stand_alone(lambda x, U=U: rowwise.product(x, U), values)


@each_dtype
@pytest.mark.parametrize("rank", [1, 2, 5, 24, 48])
def test_products_do_not_depend_on_alignment_in_memory(rank, dtype):
    """NumPy's arrays begin anywhere, and in workers elsewhere."""
    values, U = random(11, 257, dtype=dtype), random(257, rank, dtype=dtype)
    expected = rowwise.product(values, U)
    for shift in (1, 2, 3, 5, 6, 7):
        there = [torch.empty(x.numel() + 8, dtype=dtype)[shift:][: x.numel()] for x in (values, U)]
        moved = [x.view_as(y).copy_(y) for x, y in zip(there, (values, U), strict=True)]
        assert torch.equal(rowwise.product(*moved), expected)
        own = there[1].view(rank, 257).copy_(U.mT).mT  # as it is taken for few columns
        assert torch.equal(rowwise.product(values, own), expected)
        # Some processors round alike even so; all do from where torch's own tensors begin.
        assert own.data_ptr() % 64
        assert rowwise.pad_columns(own).data_ptr() % 64 == 0


@each_dtype
def test_a_row_does_not_depend_on_rows_that_are_not_finite(dtype):
    rows, columns = random(11, 5, dtype=dtype), random(5, 13, dtype=dtype)
    expected = rowwise.product(rows, columns)
    spoilt = rows.clone()
    spoilt[3], spoilt[10] = torch.nan, torch.inf
    others = [i for i in range(11) if i not in (3, 10)]
    found = rowwise.product(spoilt, columns)
    assert torch.equal(found[others], expected[others])
    assert not found[[3, 10]].isfinite().any()


@each_rank
def test_padded_columns_are_zeros(rank):
    U = random(6, rank, dtype=torch.float64)
    padded_width = rowwise.pad_columns(U)
    assert torch.equal(padded_width[:, :rank], U)
    assert not padded_width[:, rank:].any()
    assert padded_width.shape[1] == rowwise.padded_width(rank)
    few = rank <= rowwise.MAX_UNPADDED_COLUMNS
    assert padded_width.shape[1] == (rank if few else -(-rank // 24) * 24)
    assert (padded_width.mT if few else padded_width).is_contiguous()


@pytest.mark.parametrize(("n", "k", "m"), [(0, 3, 4), (4, 0, 3), (3, 2, 0)])
def test_products_of_empty_matrices(n, k, m):
    found = rowwise.product(torch.ones(n, k), torch.ones(k, m))
    assert_array_equal(found, np.ones((n, k)) @ np.ones((k, m)))


@each_dtype
@each_rank
def test_apply(rank, dtype):
    matrices = random(N_ROWS, rank + 2, rank, dtype=dtype)
    vectors = random(N_ROWS, rank, dtype=dtype)
    expected = np.einsum("nkm,nm->nk", matrices.numpy(), vectors.numpy())
    found = rowwise.matvec(matrices, vectors)
    assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * rank)
    assert_rows_stand_alone(rowwise.matvec, matrices, vectors)
    assert_rows_stand_alone(lambda a, b: rowwise.matvec(a.mT, b), matrices.mT.contiguous(), vectors)


@each_dtype
@each_rank
def test_eigh(rank, dtype):
    matrices = positive_definite(N_ROWS, rank, dtype)
    values, vectors = rowwise.eigh(matrices)
    assert values.shape == (N_ROWS, rank)
    assert vectors.shape == (N_ROWS, rank, rank)
    slack = TOLERANCE[dtype] * rank
    assert_allclose(values, np.linalg.eigvalsh(matrices.numpy()), rtol=0, atol=slack)
    assert_allclose(vectors.mT @ vectors, np.eye(rank)[None].repeat(N_ROWS, 0), atol=slack)
    assert_allclose((vectors * values[:, None, :]) @ vectors.mT, matrices, atol=slack)
    assert_rows_stand_alone(lambda x: rowwise.eigh(x)[0], matrices)
    assert_rows_stand_alone(lambda x: rowwise.eigh(x)[1], matrices)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e100])
def test_eigh_of_all_magnitudes_and_signs(order, scale):
    """The row and column that an odd order is given never come back."""
    matrices = scale * random(7, order, order, dtype=torch.float64)
    matrices = matrices + matrices.mT
    values, vectors = rowwise.eigh(matrices)
    expected = np.linalg.eigvalsh(matrices.numpy())
    assert_allclose(values, expected, rtol=1e-12, atol=1e-12 * scale + 1e-15 * (scale < 1))
    assert_allclose(vectors.norm(dim=1), np.ones((7, order)), rtol=1e-12)


def test_eigh_does_not_change_its_argument():
    for order in (3, 4):
        matrices = positive_definite(2, order, torch.float64)
        before = matrices.clone()
        rowwise.eigh(matrices)
        assert torch.equal(matrices, before)
