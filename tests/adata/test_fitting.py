"""Fits of models to an AnnData: views, weights, searches."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sklearn
from anndata import AnnData
from pandas.testing import assert_frame_equal
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import make_counts
from tests.adata.cells import GENES, assert_params, assert_unchanged, pipeline


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


def test_a_search_must_keep_a_model(adata):
    search = GridSearchCV(pipeline(), {"formulatransformer__mean": ["~ 1"]}, cv=2, refit=False)
    with pytest.raises(ValueError, match=r"^refit=False: this GridSearchCV would keep no model"):
        scg.AnnDataRegressor(search).fit(adata)


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
