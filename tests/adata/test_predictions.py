"""Predicted and simulated cells."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline as StockPipeline

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor
from sc_glm import adata as scg
from tests.adata.cells import FORMULAS, GENES, assert_unchanged, pipeline


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
