"""Fits that are kept in an AnnData and in its files."""

import pickle

import anndata
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal

from sc_glm import ZINBRegressor
from sc_glm import adata as scg
from tests.adata.cells import (
    FORMULAS,
    GENES,
    ZARR_FORMAT,
    assert_params,
    assert_unchanged,
    pipeline,
)


def test_fit_writes_only_entries_of_the_key(adata):
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


def test_a_missing_fit_names_the_existing_fits(adata):
    with pytest.raises(ValueError, match=r"no fit under 'nb'.*\[\]"):
        scg.read_params(adata, "nb")
    scg.fit(adata, pipeline("~ 1"), key_added="mine")
    with pytest.raises(ValueError, match=r"'title'.*\['mine'\]"):
        scg.read_params(adata, "title")
    with pytest.raises(ValueError, match="'/'"):
        scg.fit(adata, pipeline("~ 1"), key_added="a/b")
