"""AnnData: fits kept in it and in its files, predictions, simulations and cross-validation."""

import copy
import os
import pickle
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
import zarr
from anndata import AnnData
from anndata.io import sparse_dataset
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline as StockPipeline

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline, metrics
from sc_glm import adata as scg
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix
from sc_glm.datasets import make_counts

# Names that files take for paths, that formulas bracket, that are not ASCII.
FORMULAS = {"mean": "~ bs(pseudotime, df=3) + cell_type"}
LEVELS = {"a": "Ngn3 high EP", "b": "a/b β", "c": "c"}
GENES = ["Ins1", "H2-K1", "a/b", "β2m"]
ZARR_FORMAT = "ignore:Writing zarr v2 data:UserWarning"  # anndata 0.12, whenever it writes


def pipeline(mean=FORMULAS["mean"], regressor=None, **formulas):
    return make_pipeline(FormulaTransformer(mean, **formulas), regressor or NegBinRegressor())


@pytest.fixture(scope="module")
def source():
    data = make_counts(150, len(GENES), mean="~ pseudotime + cell_type", random_state=7)
    obs = data.obs.rename(index=lambda cell: f"cell{cell}")
    obs["cell_type"] = obs["cell_type"].cat.rename_categories(LEVELS)
    obs["donor"] = pd.Categorical([f"donor{i % 4}" for i in range(len(obs))])
    obs["quality"] = np.where(np.arange(len(obs)) % 7 == 0, np.nan, 1.0)  # no formula reads it
    counts = sp.csr_matrix(data.counts.to_numpy())
    adata = AnnData(counts, obs=obs, var=pd.DataFrame({"length": 1.0}, index=GENES))
    adata.layers["counts"] = counts.copy()
    adata.layers["logcounts"] = counts.log1p()
    adata.uns["title"] = "a test"
    adata.raw = AnnData(counts * 1000, obs=obs, var=adata.var)  # never to be fitted
    return adata


@pytest.fixture
def adata(source):
    return source.copy()


@pytest.fixture(scope="module")
def fitted(source):
    return pipeline().fit(source.obs, source.to_df())


def assert_params(params, expected):
    assert list(params) == list(expected)
    for part, table in expected.items():
        assert_frame_equal(params[part], table, check_exact=True)


def assert_unchanged(adata, before, key=None):
    """Compare all but what `key` names."""
    frames = [(adata.obs, before.obs), (adata.var, before.var)]
    own = [column for column in adata.var if key and column.startswith(f"{key}_")]
    for frame, earlier in frames:
        assert_frame_equal(frame.drop(columns=own, errors="ignore"), earlier, check_exact=True)
    assert list(adata.layers) == list(before.layers)
    for layer in (None, *before.layers):
        now, then = (a.X if layer is None else a.layers[layer] for a in (adata, before))
        assert type(now) is type(then)
        assert now.dtype == then.dtype
        assert abs(now - then).sum() == 0
    assert {name for name in adata.uns if name != key} == set(before.uns)
    assert {name for name in adata.varm if not (key and name.startswith(key))} == set(before.varm)
    assert list(adata.obsm) == list(before.obsm)


STORAGE = {
    "dense": lambda counts: counts.toarray(),
    "fortran": lambda counts: np.asfortranarray(counts.toarray().astype(np.float32)),
    "csr": sp.csr_matrix,
    "csc": sp.csc_matrix,
    "csr_array": sp.csr_array,
}


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


def test_fit_writes_what_the_key_names_and_no_more(adata):
    before = adata.copy()
    model = scg.fit(adata, pipeline(dispersion="~ cell_type"), layer="counts", key_added="nb")
    assert_unchanged(adata, before, key="nb")
    assert {"nb_mean", "nb_dispersion"} == set(adata.varm)
    summary = model[-1].summary()
    for name in summary:
        assert list(adata.var[f"nb_{name}"]) == list(summary[name])
    assert list(adata.var["nb_converged"]) == list(model[-1].converged_)
    for name in ("converged", "n_iter", "log_likelihood"):
        assert_array_equal(adata.var[f"nb_{name}"], getattr(model[-1], f"{name}_"))
    entry = adata.uns["nb"]
    assert entry["layer"] == "counts"
    assert entry["formulas"] == {"mean": FORMULAS["mean"], "dispersion": "~ cell_type"}
    assert list(entry["columns"]["dispersion"]) == list(model.params_["dispersion"].index)


def test_a_refit_replaces_the_fit_under_its_key_alone(adata):
    scg.fit(adata, pipeline("~ pseudotime", ZINBRegressor()), layer="counts")
    kept = scg.fit(adata, pipeline("~ cell_type"), key_added="other")
    model = scg.fit(adata, pipeline("~ 1"))
    assert set(adata.varm) == {"sc_glm_mean", "sc_glm_dispersion", "other_mean", "other_dispersion"}
    assert "layer" not in adata.uns["sc_glm"]
    assert_params(scg.read_params(adata), model.params_)
    assert_params(scg.read_params(adata, "other"), kept.params_)


@pytest.mark.filterwarnings(ZARR_FORMAT)
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_params_survive_files(adata, tmp_path, suffix):
    model = scg.fit(
        adata, pipeline(regressor=ZINBRegressor(), zero_inflation="~ I(pseudotime / 2)")
    )
    assert any("/" in column for column in model.params_["mean"].index)
    assert_params(scg.read_params(adata), model.params_)
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    stored = getattr(anndata, f"read_{suffix}")(path)
    assert_params(scg.read_params(stored), model.params_)
    assert_frame_equal(stored.var, adata.var)
    assert stored.uns["sc_glm"]["formulas"] == adata.uns["sc_glm"]["formulas"]

    again = scg.fit(stored, pipeline("~ 1"))
    assert_params(scg.read_params(stored), again.params_)
    assert "sc_glm_zero_inflation" not in stored.varm


@pytest.mark.filterwarnings(ZARR_FORMAT)
@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_params_are_read_without_unpickling(adata, tmp_path, suffix, monkeypatch):
    model = scg.fit(adata, pipeline("~ pseudotime"))
    path = tmp_path / f"cells.{suffix}"
    getattr(adata, f"write_{suffix}")(path)

    def refuse(*_, **__):
        pytest.fail("a pickle is read")

    for name in ("load", "loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert_params(scg.read_params(getattr(anndata, f"read_{suffix}")(path)), model.params_)


class Payload:
    """Says so when it is unpickled, or spelled out."""

    def __reduce__(self):
        return pytest.fail, ("a payload is run",)

    def __str__(self):
        return pytest.fail("a payload is run")

    __array__ = __float__ = __str__


DAMAGE = {
    "a pickle as column names": (
        lambda entry, _: entry["columns"].update(
            mean=np.frombuffer(pickle.dumps(Payload()), dtype=np.uint8)
        ),
        r"uns\['sc_glm'\]\['columns'\]\['mean'\] is damaged",
    ),
    "a pickle as coefficients": (
        lambda _, varm: varm.update(
            sc_glm_mean=np.tile(np.frombuffer(pickle.dumps(Payload()), np.uint8), (4, 1))
        ),
        r"varm\['sc_glm_mean'\] is damaged.*uint8",
    ),
    "columns of one word": (
        lambda entry, _: entry["columns"].update(mean="Intercept"),
        r"\['mean'\] is damaged",
    ),
    "no columns of a part": (
        lambda entry, _: entry["columns"].pop("mean"),
        r"\['mean'\] is damaged",
    ),
    "one list of columns": (
        lambda entry, _: entry.update(columns=np.array(["Intercept"])),
        r"\['columns'\] is damaged",
    ),
    "no parts": (
        lambda entry, _: entry.update(parts=np.array([1.0])),
        r"\['parts'\] is damaged",
    ),
    "a column too many": (
        lambda entry, _: entry["columns"].update(mean=np.array(["a", "b", "c"], dtype=object)),
        r"varm\['sc_glm_mean'\] is damaged: it must hold 3.*\(4, 2\)",
    ),
    "no coefficients of a part": (
        lambda _, varm: varm.pop("sc_glm_dispersion"),
        r"varm\['sc_glm_dispersion'\] is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("stored", [False, True])
def test_damaged_params_are_refused(adata, tmp_path, damage, stored):
    scg.fit(adata, pipeline("~ pseudotime"))
    change, words = DAMAGE[damage]
    change(adata.uns["sc_glm"], adata.varm)
    if stored:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(ValueError, match=words):
        scg.read_params(adata)


def test_objects_in_place_of_params_are_not_touched(adata):
    scg.fit(adata, pipeline("~ pseudotime"))
    adata.uns["sc_glm"]["columns"]["mean"] = [Payload(), Payload()]
    with pytest.raises(ValueError, match=r"\['mean'\] is damaged"):
        scg.read_params(adata)


def test_params_follow_a_subset_of_the_genes(adata):
    model = scg.fit(adata, pipeline("~ pseudotime"))
    some = [GENES[2], GENES[0]]
    subset = adata[:, some]
    assert_frame_equal(scg.read_params(subset)["mean"], model.params_["mean"][some])


def test_a_missing_fit_names_those_there_are(adata):
    with pytest.raises(ValueError, match=r"no fit under 'nb'.*\[\]"):
        scg.read_params(adata, "nb")
    scg.fit(adata, pipeline("~ 1"), key_added="mine")
    with pytest.raises(ValueError, match=r"'title'.*\['mine'\]"):
        scg.read_params(adata, "title")
    with pytest.raises(ValueError, match="'/'"):
        scg.fit(adata, pipeline("~ 1"), key_added="a/b")


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_backed_files_are_read_and_not_written(adata, fitted, tmp_path, storage, monkeypatch):
    monkeypatch.setattr("sc_glm.adata.reading._MAX_DENSE_ENTRIES", 10 * len(GENES))
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


def test_a_fit_of_a_file_goes_on_with_another_budget(adata, backed, tmp_path, loaded):
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


def test_a_view_gets_results_of_its_own(adata):
    before = adata.copy()
    view = adata[adata.obs["donor"] != "donor0", GENES[:2]]
    model = scg.fit(view, pipeline("~ pseudotime"))
    assert_unchanged(adata, before)
    assert not view.is_view
    assert_params(scg.read_params(view), model.params_)


def test_a_regressor_alone_takes_numeric_covariates(adata):
    with pytest.raises(ValueError, match=r"NegBinRegressor.*'cell_type'.*FormulaTransformer"):
        scg.fit(adata, NegBinRegressor())
    adata.obs = adata.obs[["pseudotime"]]
    model = scg.fit(adata, NegBinRegressor())
    assert_params(scg.read_params(adata), model.params_)
    assert list(model.params_["mean"].index) == ["Intercept", "pseudotime"]
    assert adata.uns["sc_glm"]["formulas"] == {}


def test_weights_reach_the_regressor(adata):
    weights = np.arange(adata.n_obs) % 3
    weighted = scg.fit(adata, pipeline(), sample_weight=weights)
    repeated = pipeline().fit(
        adata.obs.iloc[np.repeat(np.arange(adata.n_obs), weights)],
        adata.to_df().iloc[np.repeat(np.arange(adata.n_obs), weights)],
    )
    assert_frame_equal(weighted.params_["mean"], repeated.params_["mean"], rtol=1e-5)
    meta = scg.AnnDataRegressor(pipeline()).fit(adata, sample_weight=weights)
    assert_params(meta.params_, weighted.params_)
    assert meta.score(adata, sample_weight=weights) == pytest.approx(
        weighted.score(adata.obs, adata.X, sample_weight=weights)
    )
    with sklearn.config_context(enable_metadata_routing=True):
        regressor = NegBinRegressor().set_fit_request(sample_weight=True)
        routed = scg.fit(adata, pipeline(regressor=regressor), sample_weight=weights)
    assert_params(routed.params_, weighted.params_)


def test_sparse_counts_warn_with_the_gene_s_name(adata):
    counts = adata.X.toarray()
    counts[:, 2] = 0
    adata.X = sp.csr_matrix(counts)
    with pytest.warns(ConvergenceWarning, match=r"all zero \(a/b\)"):
        scg.fit(adata, pipeline("~ 1"))
    assert adata.var.loc["a/b", "sc_glm_status"] == "all zero"
    assert "mean__Intercept" in adata.var.loc["a/b", "sc_glm_undetermined"]


# What is refused, in words


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


# Predictions and simulations


@pytest.mark.parametrize("cells", ["adata", "obs", "integer index"])
@pytest.mark.parametrize("regressor", [NegBinRegressor(), ZINBRegressor()])
def test_predict_returns_the_mean_and_each_part(adata, cells, regressor):
    model = pipeline("~ pseudotime", regressor=clone(regressor)).fit(adata.obs, adata.to_df())
    before = adata.copy()
    obs = adata.obs.reset_index(drop=True) if cells == "integer index" else adata.obs
    predicted = scg.predict(adata if cells == "adata" else obs, model)
    assert_frame_equal(predicted.obs, obs.set_axis(obs.index.astype(str)))
    assert list(predicted.var_names) == GENES
    assert_array_equal(predicted.X, model.predict(obs))
    # In anndata 0.13, X is the layer None.
    assert [name for name in predicted.layers if name] == list(model.params_)
    for part, values in model.predict_params(obs).items():
        assert_array_equal(predicted.layers[part], values)
    predicted.obs["donor"] = "new"
    assert_unchanged(adata, before)


def test_sample_is_sparse_and_that_of_the_model(adata, fitted):
    before = adata.copy()
    drawn = scg.sample(adata, fitted, random_state=0)
    assert_unchanged(adata, before)
    assert drawn.shape == adata.shape
    assert sp.issparse(drawn.X)
    assert drawn.X.format == "csr"
    assert drawn.X.dtype.kind == "i"
    assert_array_equal(drawn.X.toarray(), fitted.sample(adata.obs, random_state=0))
    assert (drawn.X != scg.sample(adata.obs, fitted, random_state=0).X).nnz == 0
    assert (drawn.X != scg.sample(adata, fitted, random_state=1).X).nnz > 0
    assert_frame_equal(drawn.obs, adata.obs)
    assert list(drawn.var_names) == GENES

    random = np.random.RandomState(0)
    total = sum(scg.sample(adata, fitted, random_state=random).X for _ in range(100))
    sd = fitted.predict_dist(adata.obs).std().mean(axis=0) / np.sqrt(100 * adata.n_obs)
    gap = np.asarray(total.mean(axis=0)).ravel() / 100 - fitted.predict(adata.obs).mean(axis=0)
    assert (np.abs(gap) < 6 * sd).all()


def test_models_of_every_kind_predict(adata, fitted):
    expected = scg.predict(adata, fitted).X
    steps = [("design", FormulaTransformer(**FORMULAS)), ("counts", NegBinRegressor())]
    stock = scg.fit(adata, StockPipeline(steps))
    assert_allclose(scg.predict(adata, stock).X, expected, rtol=1e-6)
    assert scg.sample(adata, stock, random_state=0).shape == adata.shape
    meta = scg.AnnDataRegressor(pipeline())
    with pytest.raises(NotFittedError):
        scg.predict(adata, meta)
    with pytest.raises(NotFittedError):
        scg.sample(adata, pipeline())
    assert_allclose(scg.predict(adata, meta.fit(adata)).X, expected, rtol=1e-6)
    vector = NegBinRegressor().fit(adata.obs[["pseudotime"]], adata.X.toarray()[:, 0])
    assert scg.predict(adata.obs[["pseudotime"]], vector).shape == (adata.n_obs, 1)
    assert scg.sample(adata.obs[["pseudotime"]], vector).shape == (adata.n_obs, 1)
    with pytest.raises(ValueError, match="no rows"):
        scg.sample(adata.obs[:0], fitted)


# The meta-estimator


class SparseOnly(NegBinRegressor):
    """Refuses counts that were made dense."""

    def fit(self, X, y, sample_weight=None):
        assert sp.issparse(y.matrix if isinstance(y, CountMatrix) else y)
        return super().fit(X, y, sample_weight)

    def score(self, X, y, sample_weight=None):
        assert sp.issparse(y.matrix if isinstance(y, CountMatrix) else y)
        return super().score(X, y, sample_weight)


def test_the_meta_estimator_has_the_model_s_verbs(adata, fitted):
    before = adata.copy()
    meta = scg.AnnDataRegressor(pipeline())
    assert not hasattr(meta, "params_")
    assert meta.fit(adata) is meta
    obs, y = adata.obs, adata.X
    assert_allclose(meta.predict(adata), fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.predict_params(adata)["mean"], fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.predict_dist(adata).mu, fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.log_prob(adata), fitted.log_prob(obs, y), rtol=1e-6)
    assert meta.score(adata) == pytest.approx(fitted.score(obs, y))
    assert meta.sample(adata, n_draws=2, random_state=0).shape == (2, *adata.shape)
    assert list(meta.params_["mean"].columns) == GENES
    assert_unchanged(adata, before)


def test_the_meta_estimator_is_an_estimator(adata):
    model = pipeline()
    meta = scg.AnnDataRegressor(model, layer="counts")
    assert meta.get_params()["model__formulatransformer__mean"] == FORMULAS["mean"]
    meta.set_params(model__formulatransformer__mean="~ 1", layer=None)
    assert "AnnDataRegressor(model=Pipeline" in repr(meta)
    assert "AnnDataRegressor" in meta._repr_html_()
    meta.fit(adata)
    assert not hasattr(model[-1], "params_")  # a clone was fitted
    assert not hasattr(clone(meta), "model_")
    again = pickle.loads(pickle.dumps(meta))  # noqa: S301
    assert_array_equal(again.predict(adata), meta.predict(adata))
    assert_params(copy.deepcopy(meta).params_, meta.params_)
    for wrong in ({"X": adata, "y": adata.X}, {"X": adata.obs}):
        with pytest.raises((TypeError, ValueError), match="AnnData"):
            meta.fit(**wrong)


def test_genes_are_found_by_name(adata):
    meta = scg.AnnDataRegressor(pipeline()).fit(adata[:, GENES[:3]])
    expected = meta.score(adata[:, GENES[:3]])
    assert meta.score(adata) == expected
    assert meta.score(adata[:, GENES[::-1]]) == expected
    with pytest.raises(ValueError, match=r"1 genes of the fit .*'Ins1'"):
        meta.score(adata[:, GENES[1:]])


def test_cross_validation_is_that_of_frames(adata):
    before = adata.copy()
    model = scg.AnnDataRegressor(pipeline(regressor=SparseOnly()), layer="counts")
    cv = GroupKFold(4)
    scores = cross_val_score(model, adata, groups=adata.obs["donor"], cv=cv, error_score="raise")
    assert_unchanged(adata, before)
    expected = cross_val_score(
        pipeline(), adata.obs, adata.to_df(), groups=adata.obs["donor"], cv=cv
    )
    assert_allclose(scores, expected, rtol=1e-6)


def test_scorers_take_the_counts_from_the_estimator(adata):
    model = scg.AnnDataRegressor(pipeline("~ pseudotime"))
    scoring = {
        "log_likelihood": metrics.log_likelihood_scorer,
        "zeros": metrics.neg_brier_zeros_scorer,
    }
    results = cross_validate(model, adata, cv=3, scoring=scoring, error_score="raise")
    assert_allclose(results["test_log_likelihood"], cross_val_score(model, adata, cv=3), rtol=1e-9)
    assert (results["test_zeros"] < 0).all()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_finds_the_formula(adata, n_jobs):
    before = adata.copy()
    model = scg.AnnDataRegressor(pipeline("~ 1", SparseOnly() if n_jobs == 1 else None))
    grid = {"model__formulatransformer__mean": ["~ 1", "~ pseudotime + cell_type"]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(model, grid, cv=cv, n_jobs=n_jobs, error_score="raise").fit(adata)
    assert search.best_params_ == {"model__formulatransformer__mean": "~ pseudotime + cell_type"}
    assert_unchanged(adata, before)
    assert_array_equal(scg.predict(adata, search).X, search.predict(adata))
    assert search.score(adata) == search.best_estimator_.score(adata)


def test_a_slice_forgets_the_levels_that_it_lacks(adata):
    rare = (adata.obs["cell_type"] == "c").to_numpy()
    meta = scg.AnnDataRegressor(pipeline("~ cell_type")).fit(adata[~rare])
    with pytest.raises(ValueError, match="unknown level 'c'"):
        meta.score(adata[rare])


@pytest.mark.data
@pytest.mark.skipif("SC_GLM_DATA" not in os.environ, reason="SC_GLM_DATA is not set")
def test_real_counts_are_told_from_their_logarithms():
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pancreas_100.h5ad")
    model = scg.fit(adata, pipeline("~ pseudotime"), layer="counts")
    assert_params(scg.read_params(adata), model.params_)
    assert adata.var["sc_glm_converged"].all()
    flat = scg.fit(adata, pipeline("~ 1"), layer="counts", key_added="flat")
    assert (model[-1].log_likelihood_ >= flat[-1].log_likelihood_ - 1e-6).all()
    with pytest.warns(UserWarning, match=r"adata.layers\['logcounts'\] are not integers"):
        scg.AnnDataRegressor(pipeline("~ 1"), layer="logcounts").fit(adata)


def test_a_value_that_is_no_count_is_found(adata):
    for dense in (True, False):
        values = adata.X.toarray().astype(float)
        values[3, 2] = np.nan
        adata.layers["holes"] = values if dense else sp.csr_matrix(values)
        where = f"nan in cell '{adata.obs_names[3]}' for gene '{adata.var_names[2]}'"
        with pytest.raises(ValueError, match=f"missing or infinite values, such as {where}"):
            scg.fit(adata, pipeline(), layer="holes")


def test_a_negative_value_is_told_beside_a_missing_one(adata):
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


def test_a_search_must_keep_a_model(adata):
    search = GridSearchCV(pipeline(), {"formulatransformer__mean": ["~ 1"]}, cv=2, refit=False)
    with pytest.raises(ValueError, match=r"^refit=False: this GridSearchCV would keep no model"):
        scg.AnnDataRegressor(search).fit(adata)


def test_a_summary_is_that_of_the_regressor(adata):
    model = scg.AnnDataRegressor(pipeline("~ 1")).fit(adata)
    assert_frame_equal(model.summary(), model.model_[-1].summary())


def test_weights_in_another_order_than_the_cells_are_refused():
    data = make_counts(60, 2, random_state=0)
    obs = data.obs.set_axis(np.random.default_rng(0).permutation(60))
    # An AnnData has texts.
    adata = AnnData(data.counts.to_numpy().astype(float), obs=obs.set_axis(obs.index.astype(str)))
    weights = pd.Series(1.0 + np.arange(60) % 2, index=obs.index)
    model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    wrapped = scg.AnnDataRegressor(model).fit(adata, sample_weight=weights)
    message = r"rows of sample_weight have the labels of (X|adata.obs) in another order"
    with pytest.raises(ValueError, match=message):
        scg.fit(adata, model, sample_weight=weights.sort_index())
    with pytest.raises(ValueError, match=message):
        wrapped.score(adata, sample_weight=weights.sort_index())
    assert wrapped.score(adata, sample_weight=weights) == wrapped.score(
        adata, sample_weight=weights.to_numpy()
    )


def test_weights_reach_the_regressor_in_a_search():
    data = make_counts(60, 2, random_state=0)
    adata = AnnData(data.counts.to_numpy().astype(float), obs=data.obs)
    weights = 1.0 + np.arange(60) % 2
    model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    search = GridSearchCV(model, {"negbinregressor__tol": [1e-6]}, cv=2)
    found = scg.fit(adata, search, sample_weight=weights).best_estimator_.params_["mean"]
    expected = scg.fit(adata, model, sample_weight=weights).params_["mean"]
    assert_frame_equal(found, expected)
