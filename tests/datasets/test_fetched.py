"""Real data sets: read, downloaded from a local server, checked and cached."""

import io
import os
import sys
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData, read_h5ad
from numpy.testing import assert_array_equal
from scipy.io import mmwrite

from sc_glm.datasets import fetch_pancreas, fetch_pbmc3k, fetched
from sc_glm.datasets.dataset_files import counts_hash, names_hash

REAL = os.environ.get("SC_GLM_DATA")
real_data = pytest.mark.skipif(REAL is None, reason="SC_GLM_DATA names no folder")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and no folder of data."""
    monkeypatch.setenv("SC_GLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SC_GLM_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def small_pbmc3k():
    """Return counts like those of the data set, with two genes of one symbol."""
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(0.5, size=(7, 5)).astype(np.int32))
    genes = ["MS4A1", "MT-CO1", "EFNA3", "EFNA3.1", "LYZ"]
    cells = [f"AAAC{i}-1" for i in range(7)]
    total = counts.sum(axis=1).A1.astype(np.int32)
    obs = pd.DataFrame(
        {
            "total_counts": total,
            "n_genes": counts.getnnz(axis=1).astype(np.int32),
            "percent_mito": (100 * counts[:, 1].toarray().ravel() / total).astype(np.float32),
        },
        index=cells,
    )
    return AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))


def write_archive(file, adata, symbols):
    """Write an archive like that of 10x Genomics."""
    matrix = io.BytesIO()
    mmwrite(matrix, adata.X.T.tocoo(), field="integer")
    texts = {
        "matrix.mtx": matrix.getvalue(),
        "genes.tsv": "".join(f"ENSG{i}\t{name}\n" for i, name in enumerate(symbols)).encode(),
        "barcodes.tsv": "".join(f"{name}\n" for name in adata.obs_names).encode(),
    }
    with tarfile.open(file, "w:gz", compresslevel=1) as archive:
        for name, text in texts.items():
            member = tarfile.TarInfo(f"filtered_gene_bc_matrices/hg19/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))


def fingerprint_of(adata, like):
    return replace(
        like,
        shape=adata.shape,
        cells=names_hash(adata.obs_names),
        genes=names_hash(adata.var_names),
        counts=counts_hash(adata.X),
    )


@pytest.fixture
def pbmc3k(server, monkeypatch):
    """Replace the real data set by a small one, and publish its file."""
    folder, address = server
    adata = small_pbmc3k()
    published = folder / "pbmc3k_filtered_gene_bc_matrices.tar.gz"
    write_archive(published, adata, ["MS4A1", "MT-CO1", "EFNA3", "EFNA3", "LYZ"])
    small = replace(
        fetched._PBMC3K,
        fingerprint=fingerprint_of(adata, fetched._PBMC3K.fingerprint),
        url=f"{address}/{published.name}",
        sha256=sha256(published),
    )
    monkeypatch.setattr(fetched, "_PBMC3K", small)
    monkeypatch.setattr(fetched, "_MARKERS", {"B": ["MS4A1"], "Monocyte": ["LYZ"]})
    return adata, published


@pytest.fixture
def pancreas(server, monkeypatch):
    """Replace the real data set by a small one of 100 genes, and publish its file."""
    folder, address = server
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(2.0, size=(4, 120)))
    total = np.array([3020, 6093, 15877, 5739], dtype=np.int32)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(["Beta", "Beta", "Alpha", "Beta"]),
            "pseudotime": [0.0, 0.3, 0.5, 1.0],
            "sizeFactor": total / fetched._PANCREAS_MEAN_TOTAL,
        },
        index=list("abcd"),
    )
    var = pd.DataFrame(index=[f"gene_{i}" for i in range(120)])
    adata = AnnData(counts.astype(np.float64), obs=obs, var=var)
    published = folder / "PANCREAS.h5ad"
    adata.write_h5ad(published)
    usual = fetched._PANCREAS[100]
    small = replace(
        usual,
        fingerprint=fingerprint_of(adata[:, :100], usual.fingerprint),
        url=f"{address}/{published.name}",
    )
    monkeypatch.setitem(fetched._PANCREAS, 100, small)
    obs["total_counts"] = total
    return adata, published


def sha256(file):
    import pooch  # noqa: PLC0415 - an extra

    return pooch.file_hash(str(file))


def assert_same(found, expected):
    assert isinstance(found.X, sp.csr_matrix)
    assert found.X.dtype == np.int32
    assert_array_equal(found.X.toarray(), expected.X.toarray())
    assert found.obs_names.equals(expected.obs_names)
    assert found.var_names.equals(expected.var_names)
    for column in expected.obs:
        assert_array_equal(found.obs[column], expected.obs[column], err_msg=column)


def test_download_of_pbmc3k(pbmc3k, cache):
    expected, published = pbmc3k
    first = fetch_pbmc3k()
    assert_same(first, expected)
    assert first.obs[expected.obs.columns].dtypes.to_dict() == expected.obs.dtypes.to_dict()
    # Only the data set is kept.
    assert [file.name for file in cache.iterdir()] == ["pbmc3k_raw.h5ad"]
    published.unlink()
    assert_same(fetch_pbmc3k(), expected)


def test_download_of_the_pancreas(pancreas, cache):
    expected, published = pancreas
    expected = expected[:, :100]
    for _ in range(2):
        found = fetch_pancreas()
        assert_same(found, expected)
        assert_array_equal(found.layers["counts"].toarray(), expected.X.toarray())
        found.layers["counts"].data[:] = 0
        assert found.X.sum() > 0
        published.unlink(missing_ok=True)  # the second comes from the cache
    assert found.obs["total_counts"].tolist() == [3020, 6093, 15877, 5739]
    assert [file.name for file in cache.iterdir()] == ["pancreas_100.h5ad"]


def test_a_local_file_or_folder_comes_first(pbmc3k, tmp_path, monkeypatch, cache):
    expected, published = pbmc3k
    published.unlink()
    own = tmp_path / "own"
    own.mkdir()
    expected.obs["seurat_annotations"] = "B"
    expected.write_h5ad(own / "pbmc3k_raw.h5ad")
    (own / "pbmc3k_raw.h5ad").rename(own / "renamed.h5ad")
    found = fetch_pbmc3k(path=own / "renamed.h5ad")
    assert_same(found, expected)
    assert (found.obs["seurat_annotations"] == "B").all()
    with pytest.raises(FileNotFoundError, match=r"no file '.*own.pbmc3k_raw.h5ad'"):
        fetch_pbmc3k(path=str(own))
    (own / "renamed.h5ad").rename(own / "pbmc3k_raw.h5ad")
    assert_same(fetch_pbmc3k(path=own), expected)
    monkeypatch.setenv("SC_GLM_DATA", str(own))
    assert_same(fetch_pbmc3k(), expected)
    assert not cache.exists()
    # A folder without this file is no reason not to download it.
    monkeypatch.setenv("SC_GLM_DATA", str(tmp_path))
    with pytest.raises(OSError, match="could not be downloaded"):
        fetch_pbmc3k()


def shorter(adata):
    return adata[:-1].copy()


def renamed_cells(adata):
    adata.obs_names = adata.obs_names[::-1]
    return adata


def renamed_genes(adata):
    adata.var_names = ["CD20", *adata.var_names[1:]]
    return adata


def one_count_more(adata):
    adata.X = (adata.X + sp.csr_matrix(([1], ([2], [3])), shape=adata.shape)).tocsr()
    return adata


def normalised(adata):
    adata.X = adata.X / 3.0
    return adata


def infinite(adata):
    adata.X = adata.X * np.inf
    return adata


def without_counts(adata):
    adata.X = None
    return adata


def without_a_column(adata):
    del adata.obs["n_genes"]
    return adata


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorter, "6 cells x 5 genes, not 7 x 5"),
        (renamed_cells, "cells' names differ"),
        (renamed_genes, "genes' names differ"),
        (one_count_more, "counts in X differ"),
        (normalised, "counts in X differ"),
        (infinite, "counts in X differ"),
        (without_counts, "counts in X differ"),
        (without_a_column, "no column 'n_genes' in obs"),
    ],
)
def test_a_file_with_other_contents_is_refused(pbmc3k, tmp_path, change, message):
    file = tmp_path / "own.h5ad"
    change(pbmc3k[0]).write_h5ad(file)
    with pytest.raises(ValueError, match=f"own.h5ad.*{message}"):
        fetch_pbmc3k(path=file)


def test_counts_become_sparse_int32(pbmc3k, tmp_path):
    expected, _ = pbmc3k
    own = expected.copy()
    own.X = own.X.toarray().astype(np.float32)
    own.write_h5ad(tmp_path / "own.h5ad")
    assert_same(fetch_pbmc3k(path=tmp_path / "own.h5ad"), expected)


def test_a_file_of_another_format(tmp_path):
    file = tmp_path / "own.h5ad"
    file.write_text("<html>")
    with pytest.raises(ValueError, match=r"own\.h5ad' cannot be read as an h5ad file"):
        fetch_pbmc3k(path=file)


def test_a_corrupted_download_by_its_checksum(pbmc3k, cache):
    published = pbmc3k[1]
    published.write_bytes(published.read_bytes()[:-20])
    with pytest.raises(OSError, match=r"(?s)pbmc3k_raw\.h5ad could not be .*SC_GLM_DATA") as caught:
        fetch_pbmc3k()
    assert "hash" in str(caught.value.__cause__)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("change", [shorter, renamed_genes, one_count_more, None])
def test_a_download_of_other_contents(pancreas, cache, change):
    """Contents are compared if no checksum is published."""
    adata, published = pancreas
    if change is None:
        published.write_text("<html>no such page</html>")
    else:
        change(adata).write_h5ad(published)
    with pytest.raises(
        ValueError, match=r"file from .*PANCREAS\.h5ad .* The download was deleted.* path="
    ):
        fetch_pancreas()
    assert list(cache.iterdir()) == []


def test_a_download_that_does_not_exist(pbmc3k, cache):
    pbmc3k[1].unlink()
    with pytest.raises(OSError, match=r"(?s)http://127.*path=.*SC_GLM_DATA") as caught:
        fetch_pbmc3k()
    with caught.value.__cause__.response as response:
        assert response.status_code == 404
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("pancreas")
def test_no_network(monkeypatch):
    usual = fetched._PANCREAS[100]
    # Port 9 discards; nobody listens there.
    offline = replace(usual, url="http://127.0.0.1:9/PANCREAS.h5ad")
    monkeypatch.setitem(fetched._PANCREAS, 100, offline)
    message = r"pancreas_100.h5ad could not be downloaded from http://127.0.0.1:9/PANCREAS.h5ad"
    with pytest.raises(OSError, match=message) as caught:
        fetch_pancreas()
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.usefixtures("pbmc3k")
def test_a_cached_file_that_was_changed(cache):
    fetch_pbmc3k()
    file = cache / "pbmc3k_raw.h5ad"
    one_count_more(read_h5ad(file)).write_h5ad(file)
    with pytest.raises(ValueError, match="counts in X differ"):
        fetch_pbmc3k()


def test_pooch_is_needed_for_a_download_only(pbmc3k, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "sc_glm\[datasets\]"'):
        fetch_pbmc3k()
    pbmc3k[0].write_h5ad(tmp_path / "pbmc3k_raw.h5ad")
    assert fetch_pbmc3k(path=tmp_path).n_obs == 7


def test_number_of_genes():
    with pytest.raises(ValueError, match="n_genes must be 100 or 1000, got 50"):
        fetch_pancreas(50)


@real_data
@pytest.mark.data
@pytest.mark.parametrize("n_genes", [100, 1000])
def test_the_real_pancreas(n_genes):
    adata = fetch_pancreas(n_genes, path=REAL)
    assert adata.shape == (2087, n_genes)
    assert (adata.layers["counts"] != adata.X).nnz == 0
    # Its published file is that of scDesign3Py, of which total counts are no column.
    found = fetched._pancreas_converter(100)(Path(REAL) / f"pancreas_{n_genes}.h5ad")
    assert_array_equal(found.obs["total_counts"], adata.obs["total_counts"])
    assert fetched._PANCREAS[100].fingerprint.difference(found) is None


@real_data
@pytest.mark.data
def test_the_real_pbmc3k_from_an_archive(tmp_path):
    """An archive as 10x Genomics publishes it, written from the data set, gives the data set."""
    adata = fetch_pbmc3k(path=REAL)
    names = set(adata.var_names)
    symbols = []
    for name in adata.var_names:
        base, _, suffix = name.rpartition(".")
        repeated = base in names and (suffix == "1" or (suffix == "2" and f"{base}.1" in names))
        symbols.append(base if repeated else name)
    assert len(names) - len(set(symbols)) > 50
    write_archive(tmp_path / "archive.tar.gz", adata, symbols)
    found = fetched._convert_pbmc3k(tmp_path / "archive.tar.gz")
    assert fetched._PBMC3K.fingerprint.difference(found) is None
    for column in ("total_counts", "n_genes", "percent_mito"):
        np.testing.assert_allclose(found.obs[column], adata.obs[column], rtol=1e-6)


@real_data
@pytest.mark.data
def test_types_by_markers_agree_with_the_published_ones():
    adata = fetch_pbmc3k(path=REAL)
    assert adata.obs["cell_type"].cat.categories.tolist() == ["B", "Monocyte", "NK", "T"]
    published = adata.obs["seurat_annotations"].astype(object)
    others = {"CD14+ Mono": "Monocyte", "FCGR3A+ Mono": "Monocyte", "DC": "Monocyte"}
    others |= dict.fromkeys(["Naive CD4 T", "Memory CD4 T", "CD8 T"], "T")
    published = published.replace(others)
    known = published.notna() & (published != "Platelet")
    assert (adata.obs["cell_type"].astype(object) == published)[known].mean() > 0.965
