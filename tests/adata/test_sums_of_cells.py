"""Sums of cells equal those of pandas, for each form of storage, and their covariates."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sc_glm import adata as scg
from tests.adata.cells import STORAGE, assert_unchanged


def expected(adata, by):
    return adata.to_df().groupby([adata.obs[column] for column in by], observed=True).sum()


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("by", [["donor"], ["donor", "cell_type"]])
def test_sums_are_those_of_pandas(adata, storage, by):
    adata.X = STORAGE[storage](adata.X)
    before = adata.copy()
    sums = scg.pseudobulk(adata, by)
    assert_unchanged(adata, before)
    table = expected(adata, by)
    assert np.array_equal(sums.to_df().to_numpy(), table.to_numpy())
    assert sp.issparse(sums.X) == sp.issparse(adata.X)
    assert list(sums.obs["donor"]) == list(table.index.get_level_values(0))
    sizes = adata.obs.groupby(by, observed=True).size()
    assert list(sums.obs["n_cells"]) == list(sizes)
    assert sums.obs["log_depth"].to_numpy() == pytest.approx(np.log(table.sum(axis=1).to_numpy()))
    assert list(sums.var_names) == list(adata.var_names)
    assert list(sums.var["length"]) == list(adata.var["length"])


def test_names_and_order(adata):
    adata.obs["donor"] = adata.obs["donor"].cat.reorder_categories(
        ["donor2", "donor0", "donor3", "donor1"]
    )
    adata.obs["number"] = np.arange(adata.n_obs) % 3 + 8
    sums = scg.pseudobulk(adata, ["donor", "number"])
    assert list(sums.obs_names[:4]) == ["donor2_8", "donor2_9", "donor2_10", "donor0_8"]
    assert list(sums.obs["donor"].cat.categories) == list(adata.obs["donor"].cat.categories)
    assert scg.pseudobulk(adata, "donor").obs_names[0] == "donor2"
    shuffled = adata[np.random.default_rng(0).permutation(adata.n_obs)]
    pd.testing.assert_frame_equal(
        scg.pseudobulk(shuffled, "donor").to_df(), scg.pseudobulk(adata, "donor").to_df()
    )


def test_columns_that_are_constant_within_sums_are_kept(adata):
    adata.obs["age"] = adata.obs["donor"].cat.codes * 10.0
    adata.obs["treated"] = pd.Categorical(np.where(adata.obs["age"] > 10, "yes", "no"))
    adata.obs["unknown"] = np.where(adata.obs["age"] > 20, np.nan, 1.0)
    sums = scg.pseudobulk(adata, "donor")
    assert list(sums.obs) == ["donor", "n_cells", "log_depth", "age", "treated", "unknown"]
    assert list(sums.obs["age"]) == [0.0, 10.0, 20.0, 30.0]
    assert list(sums.obs["treated"]) == ["no", "no", "yes", "yes"]
    assert list(sums.obs["unknown"].isna()) == [False, False, False, True]


def test_few_cells_are_left_out(adata):
    adata.obs["part"] = np.where(np.arange(adata.n_obs) < 20, "few", "many")
    assert list(scg.pseudobulk(adata, "part", min_cells=21).obs_names) == ["many"]
    assert list(scg.pseudobulk(adata, "part", min_cells=20).obs_names) == ["few", "many"]
    with pytest.raises(ValueError, match=r"min_cells=1000 cells: the largest has 130"):
        scg.pseudobulk(adata, "part", min_cells=1000)


def test_a_layer_and_a_file(adata, tmp_path):
    sums = scg.pseudobulk(adata, "donor")
    adata.layers["twice"] = adata.X * 2
    assert (scg.pseudobulk(adata, "donor", layer="twice").X != 2 * sums.X).nnz == 0
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    backed = anndata.read_h5ad(path, backed="r")
    assert (scg.pseudobulk(backed, "donor").X != sums.X).nnz == 0
    backed.file.close()


def test_labels_that_join_to_the_same_name_stay_apart():
    obs = pd.DataFrame({"a": ["x_y", "x"], "b": ["z", "y_z"]}, index=["1", "2"])
    cells = anndata.AnnData(np.ones((2, 1)), obs=obs)
    assert scg.pseudobulk(cells, ["a", "b"]).obs_names.is_unique


def test_what_is_missing_is_named(adata):
    adata.obs.loc[adata.obs_names[3], "donor"] = np.nan
    with pytest.raises(
        ValueError, match=rf"\['donor'\] has no value for cell '{adata.obs_names[3]}'"
    ):
        scg.pseudobulk(adata, "donor")
    with pytest.raises(ValueError, match=r"no column 'donors'. Similar: \['donor'\]"):
        scg.pseudobulk(adata, "donors")
    with pytest.raises(ValueError, match="by is empty"):
        scg.pseudobulk(adata, [])
    with pytest.raises(ValueError, match="names a column twice"):
        scg.pseudobulk(adata, ["donor", "donor"])
    adata.obs["n_cells"] = 1
    with pytest.raises(ValueError, match="that pseudobulk writes"):
        scg.pseudobulk(adata, "n_cells")


def test_sums_without_counts_are_refused(adata):
    counts = adata.X.toarray()
    counts[adata.obs["donor"] == "donor1"] = 0
    adata.X = counts
    with pytest.raises(ValueError, match="'donor1' have no counts"):
        scg.pseudobulk(adata, "donor")


def test_logarithms_are_reported(adata):
    with pytest.warns(UserWarning, match="not integers"):
        scg.pseudobulk(adata, "donor", layer="logcounts")
