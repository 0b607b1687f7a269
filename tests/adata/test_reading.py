"""Counts in every storage, in memory and in files, and their checks."""

import os
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from anndata.io import sparse_dataset
from pandas.testing import assert_frame_equal
from sklearn.base import clone

from sc_glm import NegBinRegressor
from sc_glm import adata as scg
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix
from tests.adata.cells import GENES, STORAGE, ZARR_FORMAT, assert_params, assert_unchanged, pipeline


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("layer", [None, "other"])
def test_every_storage_gives_the_fit_of_frames(adata, fitted, storage, layer):
    counts = STORAGE[storage](adata.X)
    if layer is None:
        adata.X = counts
    else:
        adata.layers[layer] = counts
        adata.X = None
    model = pipeline()
    assert scg.fit(adata, model, layer=layer) is model
    assert list(model[-1].target_names_) == GENES
    assert list(model.params_) == list(fitted.params_)
    for part, table in fitted.params_.items():
        assert_frame_equal(model.params_[part], table, rtol=1e-6)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_backed_files_are_read_and_not_written(adata, fitted, tmp_path, storage, monkeypatch):
    monkeypatch.setattr("sc_glm._counts.anndata_matrix._MAX_DENSE_ENTRIES", 10 * len(GENES))
    adata.X = STORAGE[storage](adata.X)
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    before = path.read_bytes()
    backed = anndata.read_h5ad(path, backed="r")
    model = scg.fit(backed, pipeline())
    assert_frame_equal(model.params_["mean"], fitted.params_["mean"], rtol=1e-6)
    assert_params(scg.read_params(backed), model.params_)
    assert scg.predict(backed, model).shape == adata.shape
    if storage != "dense":
        with pytest.raises(TypeError, match=r"y is not in memory: give y\.to_memory\(\)"):
            model.score(backed.obs, backed.X)
        assert np.isfinite(model.score(backed.obs, backed.X.to_memory()))
    with pytest.raises(ValueError, match="view of a backed"):
        scg.fit(backed[:50], pipeline())
    backed.file.close()
    assert path.read_bytes() == before


@pytest.fixture
def loaded(monkeypatch):
    """Return the bytes of each group of genes that is loaded from a file."""
    n_bytes = []
    load = StoredCounts.load

    def spy(counts):
        matrix = load(counts).matrix
        n_bytes.append(matrix.data.nbytes + matrix.indices.nbytes)
        return load(counts)

    monkeypatch.setattr(StoredCounts, "load", spy)
    return n_bytes


@pytest.mark.filterwarnings(ZARR_FORMAT)
@pytest.mark.parametrize("layer", [None, "stored"])
@pytest.mark.parametrize("name", ["csr.h5ad", "csc.h5ad", "dense.h5ad", "csr.zarr", "dense.zarr"])
def test_a_file_larger_than_the_budget_gives_the_same_fit(adata, tmp_path, loaded, name, layer):
    storage, suffix = name.split(".")
    expected = scg.fit(adata.copy(), pipeline())
    adata.X = STORAGE[storage](adata.X)
    path = tmp_path / name
    getattr(adata, f"write_{suffix}")(path)
    stored = h5py.File(path, "r")["X"] if suffix == "h5ad" else zarr.open_group(path)["X"]
    matrix = stored if storage == "dense" else sparse_dataset(stored)
    if layer is None:
        adata.X = matrix
    else:
        adata.layers[layer], adata.X = matrix, None
    before = None if suffix == "zarr" else path.read_bytes()
    budget = adata.n_obs * 16 + 1  # that holds any gene
    model = scg.fit(adata, pipeline(), layer=layer, memory_budget=budget)
    assert_params(model.params_, expected.params_)
    assert len(loaded) > 1
    assert max(loaded) <= budget
    meta = scg.AnnDataRegressor(pipeline(), layer=layer, memory_budget=budget).fit(adata)
    assert_params(meta.params_, expected.params_)
    if suffix == "h5ad":
        stored.file.close()
        assert path.read_bytes() == before


@pytest.fixture
def backed(adata, tmp_path):
    """Return a function that puts counts into a file and opens it."""

    def write(counts):
        adata.X = counts
        path = tmp_path / f"{len(files)}.h5ad"
        adata.write_h5ad(path)
        files.append(anndata.read_h5ad(path, backed="r"))
        return files[-1]

    files = []
    yield write
    for file in files:
        file.file.close()


def test_weights_of_zero_leave_cells_out_of_a_file(adata, backed, loaded):
    weights = np.arange(adata.n_obs) % 3
    expected = scg.fit(adata.copy(), pipeline(), sample_weight=weights)
    cells = backed(adata.X)
    model = scg.fit(cells, pipeline(), sample_weight=weights, memory_budget=5000)
    assert len(loaded) > 1
    assert_params(model.params_, expected.params_)


def test_a_fit_of_a_file_resumes_with_another_budget(adata, backed, tmp_path, loaded):
    folder = tmp_path / "checkpoint"
    cells = backed(adata.X)
    model = pipeline(regressor=NegBinRegressor(checkpoint_dir=folder, batch_size=1))
    size = StoredMatrix.of(cells.X, "X").n_bytes()
    scg.fit(cells, model, memory_budget=size)
    assert len(loaded) == 1  # all genes
    for gene, budget in enumerate([2 * size // 3, 10 * size]):
        (folder / f"genes-{gene:06d}-{gene + 1:06d}.npz").unlink()
        loaded.clear()
        again = scg.fit(cells, clone(model), memory_budget=budget)
        assert len(loaded) == (1 if budget < size else 0)  # one group of several; none
        assert sum(loaded) < size
        assert_params(again.params_, model.params_)


def test_values_of_a_file_are_checked(adata, backed, monkeypatch):
    budget = 5000
    logarithms = backed(adata.layers["logcounts"])
    with pytest.warns(UserWarning, match=r"adata\.X are not integers.*\['counts'\]"):
        scg.fit(logarithms, pipeline("~ 1"), memory_budget=budget)
    with pytest.raises(ValueError, match=r"adata\.X has negative values.*\['counts'\]"):
        scg.fit(backed(adata.layers["counts"].toarray() - 1.0), pipeline(), memory_budget=budget)
    counts = adata.layers["counts"].toarray().astype(float)
    counts[-1, 1] = np.nan
    monkeypatch.setattr(StoredMatrix, "sample", lambda *_: np.ones(9))  # that misses it
    with pytest.raises(
        ValueError, match=r"adata\.X is not finite: NaN for gene 'H2-K1' in row 149"
    ):
        scg.fit(backed(counts), pipeline(), memory_budget=budget)


@pytest.mark.parametrize("budget", ["much", 0, -5, None, 1.5])
def test_a_budget_is_an_amount_of_memory(adata, budget):
    before = adata.copy()
    with pytest.raises((ValueError, TypeError), match=r"memory_budget.*'2GB'"):
        scg.fit(adata, pipeline(), memory_budget=budget)
    with pytest.raises((ValueError, TypeError), match=r"memory_budget.*'2GB'"):
        scg.AnnDataRegressor(pipeline(), memory_budget=budget).fit(adata)
    assert_unchanged(adata, before)


def test_lazily_loaded_files(adata, fitted, tmp_path):
    pytest.importorskip("xarray")
    if not hasattr(anndata.experimental, "read_lazy"):
        pytest.skip("this anndata reads nothing lazily")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    lazy = anndata.experimental.read_lazy(tmp_path / "cells.h5ad")
    model = scg.fit(lazy, pipeline(), layer="counts")
    assert_frame_equal(model.params_["mean"], fitted.params_["mean"], rtol=1e-6)
    assert_params(scg.read_params(lazy), model.params_)


def test_gene_names_must_be_unique(adata):
    meta = scg.AnnDataRegressor(pipeline("~ 1")).fit(adata)
    adata.var_names = ["Ins1", "Ins2", "Ins2", "Gcg"]
    for action in (meta.fit, meta.score, lambda cells: scg.fit(cells, pipeline())):
        with pytest.raises(ValueError, match=r"'Ins2'.*var_names_make_unique"):
            action(adata)


def test_missing_matrices_are_named(adata):
    with pytest.raises(ValueError, match=r"no layer 'spliced'.*'counts', 'logcounts'"):
        scg.fit(adata, pipeline(), layer="spliced")
    adata.X = None
    with pytest.raises(ValueError, match=r"adata.X is None.*'counts'"):
        scg.fit(adata, pipeline())
    for empty in (adata[:0], adata[:, :0]):
        with pytest.raises(ValueError, match=r"\b0 (cells|genes)"):
            scg.fit(empty, pipeline(), layer="counts")
    for wrong in (np.ones((3, 2)), adata.obs):
        with pytest.raises(TypeError, match="AnnData"):
            scg.fit(wrong, pipeline())


@pytest.mark.parametrize("dense", [False, True])
def test_matrices_that_are_not_counts_are_named(adata, dense):
    adata.layers["scaled"] = adata.X.toarray() - 1.0
    adata.layers["holes"] = np.where(adata.X.toarray() > 2, np.nan, 0.0)
    if dense:
        adata.layers["logcounts"] = adata.layers["logcounts"].toarray()
    with pytest.raises(ValueError, match=r"adata.layers\['scaled'\] has negative.*\['counts'\]"):
        scg.fit(adata, pipeline(), layer="scaled")
    with pytest.raises(ValueError, match=r"\['holes'\] has missing or infinite"):
        scg.fit(adata, pipeline(), layer="holes")
    with pytest.warns(
        UserWarning, match=r"\['logcounts'\] are not integers.*\['counts'\], adata.X"
    ):
        scg.fit(adata, pipeline("~ 1"), layer="logcounts")
    adata.X = adata.layers["logcounts"]
    del adata.layers["counts"], adata.layers["logcounts"]
    with pytest.warns(UserWarning, match=r"may be in adata\.raw\.X \(.*adata\.raw\.to_adata\(\)"):
        scg.fit(adata, pipeline("~ 1"))
    adata.raw = adata  # as scanpy's tutorials do: these are no counts either
    with pytest.warns(UserWarning, match=r"adata.X are not integers.*of counts\.$"):
        scg.AnnDataRegressor(pipeline("~ 1")).fit(adata)
    adata.X = np.array([["1"] * adata.n_vars] * adata.n_obs, dtype=object)
    with pytest.raises(ValueError, match="not numbers"):
        scg.fit(adata, pipeline())


def test_few_fractions_are_counts_still(adata):
    counts = adata.X.toarray().astype(float)
    counts[::4] += 0.25 * (counts[::4] > 0)
    adata.X = sp.csr_matrix(counts)
    model = scg.fit(adata, pipeline("~ 1"))  # a warning would be an error
    assert model[-1].converged_.all()


@pytest.mark.data
@pytest.mark.skipif("SC_GLM_DATA" not in os.environ, reason="SC_GLM_DATA is not set")
def test_logarithms_of_real_counts_warn():
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pancreas_100.h5ad")
    model = scg.fit(adata, pipeline("~ pseudotime"), layer="counts")
    assert_params(scg.read_params(adata), model.params_)
    assert adata.var["sc_glm_converged"].all()
    flat = scg.fit(adata, pipeline("~ 1"), layer="counts", key_added="flat")
    assert (model[-1].log_likelihood_ >= flat[-1].log_likelihood_ - 1e-6).all()
    with pytest.warns(UserWarning, match=r"adata.layers\['logcounts'\] are not integers"):
        scg.AnnDataRegressor(pipeline("~ 1"), layer="logcounts").fit(adata)


def test_a_missing_value_names_cell_and_gene(adata):
    for dense in (True, False):
        values = adata.X.toarray().astype(float)
        values[3, 2] = np.nan
        adata.layers["holes"] = values if dense else sp.csr_matrix(values)
        where = f"nan in cell '{adata.obs_names[3]}' for gene '{adata.var_names[2]}'"
        with pytest.raises(ValueError, match=f"missing or infinite values, such as {where}"):
            scg.fit(adata, pipeline(), layer="holes")


def test_a_negative_value_is_reported_before_a_missing_one(adata):
    values = adata.X.toarray().astype(float)
    values[:2, 0] = np.nan, -1.0
    adata.layers["both"] = values
    with pytest.raises(ValueError, match=r"negative values, such as -1\.0 in cell"):
        scg.fit(adata, pipeline(), layer="both")


def test_the_model_before_the_adata(adata):
    with pytest.raises(TypeError, match=r"not a DataFrame\.$"):
        scg.fit(adata.obs, pipeline())
    with pytest.raises(TypeError, match=r"not a Pipeline\. It comes first, and the model second"):
        scg.fit(pipeline(), adata)
