import pickle
import shutil

import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata import AnnData
from anndata.io import sparse_dataset
from numpy.testing import assert_array_equal

from sc_glm._counts import on_disk
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix, parse_bytes

# anndata 0.12, whenever it writes
pytestmark = pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")

N_CELLS, N_GENES = 60, 9
NAMES = np.array([f"g{i}" for i in range(N_GENES)], dtype=object)
ENTRY_BYTES = 8  # a single-precision value and its row
STORAGE = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}
FILES = ["h5ad", "zarr"]


def simulate():
    rng = np.random.default_rng(5)
    y = rng.poisson(rng.gamma(0.5, 1.5, N_GENES), (N_CELLS, N_GENES)).astype(np.float32)
    y[:, 4] = 0
    y[11] = 0
    return y


Y = simulate()
MEMORY = CountMatrix.of(sp.csc_array(Y), n_cells=N_CELLS, names=NAMES)
LARGEST = int(ENTRY_BYTES * MEMORY.n_positive().max())


def opened(path):
    """Return the matrix of a file as anndata has it, and what closes the file."""
    file = h5py.File(path, "r") if path.suffix == ".h5ad" else zarr.open_group(path, mode="r")
    stored = file["X"]
    is_sparse = isinstance(stored, h5py.Group | zarr.Group)
    return sparse_dataset(stored) if is_sparse else stored


@pytest.fixture
def store(tmp_path, request):
    """Return a function that writes a matrix, and says where it is."""

    def write(y, storage="csr", suffix="h5ad"):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}-{storage}.{suffix}"
        getattr(AnnData(STORAGE[storage](y)), f"write_{suffix}")(path)
        matrix = opened(path)
        stored = StoredMatrix.of(matrix, "adata.X")
        if suffix == "h5ad":
            request.addfinalizer(getattr(matrix, "group", matrix).file.close)
        return stored

    return write


@pytest.fixture(params=STORAGE)
def storage(request, monkeypatch):
    monkeypatch.setattr(on_disk, "_READ_ENTRIES", 25)  # that there are several pieces
    return request.param


@pytest.mark.parametrize(
    ("amount", "n_bytes"),
    [
        (1, 1),
        (np.int64(5), 5),
        ("7B", 7),
        ("500MB", 500_000_000),
        ("1.5 GiB", 3 * 2**29),
        (" 2kb ", 2000),
        ("1TB", 10**12),
    ],
)
def test_amounts_of_memory(amount, n_bytes):
    assert parse_bytes(amount, "memory_budget") == n_bytes


@pytest.mark.parametrize("amount", [0, -1, "", "0GB", "much", "3", "4 PB", "-1GB", "1e9B", "IB"])
def test_amounts_of_no_memory_are_errors(amount):
    with pytest.raises(ValueError, match=r"memory_budget=.* is not an amount of memory.*'2GB'"):
        parse_bytes(amount, "memory_budget")


@pytest.mark.parametrize("amount", [None, 1.5, True, [1]])
def test_other_types_are_no_amounts(amount):
    with pytest.raises(TypeError, match=r"memory_budget must be .*'2GB'"):
        parse_bytes(amount, "memory_budget")


def test_matrices_in_memory_are_not_stored():
    assert StoredMatrix.of(Y, "y") is None
    assert StoredMatrix.of(sp.csr_matrix(Y), "y") is None


@pytest.mark.parametrize("suffix", FILES)
def test_groups_of_genes_have_the_counts_of_memory(store, storage, suffix):
    counts = StoredCounts.scan(store(Y, storage, suffix), NAMES, 2 * LARGEST)
    assert counts.shape == MEMORY.shape
    assert_array_equal(counts.n_positive(), MEMORY.n_positive())
    groups = counts.gene_groups(N_GENES)
    assert len(groups) > 2
    assert [g for group in groups for g in range(group.start, group.stop)] == [*range(N_GENES)]
    for group in groups:
        loaded = counts.select_genes(group).load()
        assert loaded.matrix.nnz * ENTRY_BYTES <= 2 * LARGEST
        assert loaded.matrix.has_canonical_format
        assert loaded.matrix.dtype == np.float32
        assert_array_equal(loaded.matrix.toarray(), Y[:, group])
        assert_array_equal(loaded.names, NAMES[group])
    genes = slice(2, 7)
    assert_array_equal(counts.dense(genes), Y[:, genes])
    assert_array_equal(counts.select_genes(genes).by_gene(slice(1, 3)).toarray(), Y.T[3:5])


def test_groups_have_a_largest_number_of_genes(store):
    counts = StoredCounts.scan(store(Y), NAMES, 10**9)
    assert counts.gene_groups(N_GENES) == [slice(0, N_GENES)]
    assert [group.stop - group.start for group in counts.gene_groups(4)] == [4, 4, 1]


@pytest.mark.parametrize("cells", [np.array([5, 3, 40]), slice(10, 50), np.arange(60) % 3 > 0])
def test_some_cells(store, storage, cells):
    counts = StoredCounts.scan(store(Y, storage), NAMES, 10**9)
    some = counts[cells]
    assert len(some) == len(Y[cells])
    assert_array_equal(some.select_genes(slice(1, 4)).load().matrix.toarray(), Y[cells][:, 1:4])
    assert_array_equal(some[[2, 0], ...].load().matrix.toarray(), Y[cells][[2, 0]])
    assert_array_equal(some.cell_digests(), MEMORY.cell_digests()[cells])
    assert len(some.gene_groups(N_GENES)) == 1
    tight = StoredCounts.scan(store(Y, storage), NAMES, 2 * LARGEST)
    assert len(tight[cells].gene_groups(N_GENES)) > len(
        tight.gene_groups(N_GENES)
    )  # a choice is a copy


def test_digests_do_not_depend_on_the_storage(store, storage):
    digests = StoredCounts.scan(store(Y, storage), NAMES, 10**9).cell_digests()
    assert_array_equal(digests, MEMORY.cell_digests())
    other = Y.copy()
    other[[7, 8]] = Y[[8, 7]]
    other[20, 0] += 1
    differ = StoredCounts.scan(store(other, storage), NAMES, 10**9).cell_digests() != digests
    assert_array_equal(np.flatnonzero(differ), [7, 8, 20])


def test_duplicates_zeros_and_unsorted_indices(store):
    matrix = sp.csr_matrix(Y)
    parts = [
        sp.coo_matrix(part) for part in (matrix, 0 * matrix, matrix)
    ]  # every count twice, with a zero between
    rows, columns, data = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("row", "col", "data")
    )
    order = np.argsort(rows, kind="stable")[::-1]
    order = order[np.argsort(rows[order], kind="stable")]
    indptr = np.r_[0, np.cumsum(np.bincount(rows, minlength=N_CELLS))]
    messy = sp.csr_matrix((data[order], columns[order], indptr), shape=Y.shape)
    stored = store(messy)
    assert stored.n_bytes() > sp.csr_matrix(Y).nnz * ENTRY_BYTES * 2
    counts = StoredCounts.scan(stored, NAMES, 10**9)
    assert_array_equal(counts.n_positive(), MEMORY.n_positive())
    assert_array_equal(counts.load().matrix.toarray(), 2 * Y)


@pytest.mark.parametrize("value", [-2.0, np.nan, np.inf, 2.0**60])
def test_a_bad_value_is_named_with_its_gene_and_row(store, storage, value):
    y = Y.copy()
    y[47, 6] = value
    with pytest.raises(ValueError, match=r"^adata\.X is .* for gene 'g6' in row 47, and 1 such"):
        StoredCounts.scan(store(y, storage), NAMES, 10**9)


def test_a_gene_that_exceeds_the_budget_is_named(store):
    StoredCounts.scan(store(Y), NAMES, LARGEST)
    gene = NAMES[np.argmax(MEMORY.n_positive())]
    with pytest.raises(ValueError, match=rf"memory_budget=.* gene '{gene}', which take {LARGEST}"):
        StoredCounts.scan(store(Y), NAMES, LARGEST - 1)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("indices", lambda x: x + N_GENES),
        ("indices", lambda x: x - 100),
        ("indptr", lambda x: x[::-1]),
        ("indptr", lambda x: x // 2),
    ],
)
def test_damaged_indices_are_refused(tmp_path, name, damage):
    path = tmp_path / "cells.h5ad"
    AnnData(sp.csr_matrix(Y)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X"][name][:] = damage(file["X"][name][:])
    matrix = opened(path)
    stored = StoredMatrix.of(matrix, "adata.X")
    with pytest.raises(ValueError, match=r"^adata\.X is a damaged sparse matrix"):
        StoredCounts.scan(stored, NAMES, 10**9)
    matrix.group.file.close()


@pytest.mark.parametrize("suffix", FILES)
def test_a_pickled_handle_is_small_and_opens_the_file_again(store, suffix):
    counts = StoredCounts.scan(store(Y, "csr", suffix), NAMES, 10**9)
    whole = pickle.loads(pickle.dumps(counts))  # noqa: S301
    assert_array_equal(whole.load().matrix.toarray(), Y)
    assert not whole.in_memory
    some = pickle.dumps(counts.select_genes(slice(0, 1)))
    assert counts.digests.nbytes + sp.csr_matrix(Y).data.nbytes > 1000
    assert len(some) < len(pickle.dumps(counts)) - counts.digests.nbytes
    assert_array_equal(pickle.loads(some).load().matrix.toarray(), Y[:, :1])  # noqa: S301


@pytest.mark.parametrize("change", [lambda y: y + 1, lambda y: np.roll(y, 1, 1), lambda y: 0 * y])
def test_a_file_that_was_changed_is_an_error(store, tmp_path, change):
    stored = store(Y, "dense")
    counts = StoredCounts.scan(stored, NAMES, 10**9)
    other = tmp_path / "other.h5ad"
    AnnData(change(Y)).write_h5ad(other)
    shutil.move(other, stored.path)
    with pytest.raises(ValueError, match=r"adata\.X was changed in its file"):
        counts.load()


def test_a_file_that_cannot_be_opened_is_named(store, tmp_path):
    stored = store(Y)
    counts = StoredCounts.scan(stored, NAMES, 10**9)
    shutil.move(stored.path, tmp_path / "elsewhere.h5ad")
    with pytest.raises(
        OSError, match=r"cannot be read from '.*csr\.h5ad'.*machines of all workers"
    ):
        counts.load()


def test_samples_come_from_all_over_the_file(store, storage):
    stored = store(Y, storage)
    own = Y[Y > 0] if storage != "dense" else Y
    assert np.isin(stored.sample(100), own).all()
    assert 20 <= len(stored.sample(100)) <= 100
    assert len(stored.sample(10**6)) >= np.size(own)
