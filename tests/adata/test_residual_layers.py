"""Residuals as layers: the values of the diagnostics, in the order of the AnnData's genes."""

import anndata
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import adata as scg
from sc_glm import diagnostics
from tests.adata.cells import GENES, assert_unchanged, pipeline

KINDS = {
    "pearson": diagnostics.pearson_residuals,
    "deviance": diagnostics.deviance_residuals,
    "quantile": lambda *data: diagnostics.quantile_residuals(*data, random_state=1),
}


@pytest.fixture
def model(adata):
    return scg.fit(adata.copy(), pipeline(), layer="counts")


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_has_the_residuals_of_each_kind(adata, model, kind):
    adata.X = adata.layers["logcounts"]
    before = adata.copy()
    options = {"random_state": 1} if kind == "quantile" else {}
    assert scg.residuals(adata, model, kind=kind, **options) is None
    layer = adata.layers.pop(f"{kind}_residuals")
    assert_unchanged(adata, before)
    assert layer.dtype == np.float32
    assert_allclose(layer, KINDS[kind](model, adata.obs, adata.layers["counts"]), rtol=1e-6)
    scg.residuals(adata, model, kind=kind, key_added="r", dtype="float64", **options)
    assert_array_equal(adata.layers["r"].astype("float32"), layer)


def test_genes_in_another_order_and_new_cells(adata, model):
    expected = diagnostics.pearson_residuals(model, adata.obs, adata.layers["counts"])
    cells = adata[20:60, ::-1]
    scg.residuals(cells, model, dtype="float64")
    assert not cells.is_view
    assert_allclose(cells.layers["pearson_residuals"], expected[20:60, ::-1], rtol=1e-12)
    assert "pearson_residuals" not in adata.layers
    meta = scg.AnnDataRegressor(pipeline(), layer="counts").fit(adata)
    scg.residuals(adata, meta, dtype="float64")
    assert_allclose(adata.layers["pearson_residuals"], expected, rtol=1e-5)


def test_pearson_residuals_may_be_clipped(adata, model):
    scg.residuals(adata, model, clip=1.5, dtype="float64")
    expected = diagnostics.pearson_residuals(model, adata.obs, adata.layers["counts"], clip=1.5)
    assert_allclose(adata.layers["pearson_residuals"], expected, rtol=1e-12)
    assert abs(expected).max() == 1.5


def test_counts_in_a_file_and_a_file_with_residuals(adata, model, tmp_path):
    scg.residuals(adata, model)
    names = [name.replace("/", "_") for name in adata.obs["cell_type"].cat.categories]
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.rename_categories(names)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert_array_equal(again.layers["pearson_residuals"], adata.layers["pearson_residuals"])


def test_wrong_requests_write_nothing(adata, model):
    layers = list(adata.layers)
    some = scg.fit(adata[:, :2].copy(), pipeline(), layer="counts")
    for match, wanted, options in [
        ("kind must be one of", model, {"kind": "raw"}),
        ("dtype must be one of", model, {"dtype": "int"}),
        ("cannot hold a key with '/'", model, {"key_added": "a/b"}),
        (r"2 genes of adata are not genes of the fit: \['a/b', 'β2m'\]", some, {}),
        ("fitted to arrays", pipeline().fit(adata.obs, adata.to_df("counts")), {}),
    ]:
        with pytest.raises(ValueError, match=match):
            scg.residuals(adata, wanted, **options)
    with pytest.raises(ValueError, match=r"not in adata.var_names: \['Ins1'\]"):
        scg.residuals(adata[:, GENES[1:]].copy(), model)
    with pytest.raises(TypeError, match="must be an AnnData"):
        scg.residuals(adata.obs, model)
    assert list(adata.layers) == layers
