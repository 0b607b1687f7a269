"""The posterior probability of a structural zero."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, adata, make_pipeline
from sc_glm.diagnostics import zero_probability

RNG = np.random.default_rng(2)
N_CELLS = 1500
OBS = pd.DataFrame({"x": RNG.normal(size=N_CELLS)}, index=[f"cell{i}" for i in range(N_CELLS)])
MEAN = np.exp(1 + OBS["x"].to_numpy())[:, None] * np.array([0.5, 1.0, 4.0])
STRUCTURAL = RNG.uniform(size=MEAN.shape) < 0.35
SAMPLED = RNG.negative_binomial(2, 2 / (2 + MEAN))
COUNTS = pd.DataFrame(np.where(STRUCTURAL, 0, SAMPLED), OBS.index, ["A", "B", "C"])


@pytest.fixture(scope="module")
def model():
    return make_pipeline(FormulaTransformer("~ x", zero_inflation="~ 1"), ZINBRegressor()).fit(
        OBS, COUNTS
    )


def test_probabilities_follow_from_bayes_rule(model):
    found = zero_probability(model, OBS, COUNTS)
    params = model.predict_params(OBS)
    pi, mu, r = params["zero_inflation"], params["mean"], params["dispersion"]
    expected = pi / (pi + (1 - pi) * (r / (r + mu)) ** r)
    assert_allclose(found, np.where(COUNTS > 0, 0.0, expected), rtol=1e-9)


def test_the_mean_probability_is_the_fitted_inflation(model):
    """The score equation of the zero inflation's intercept."""
    found = zero_probability(model, OBS, COUNTS).mean(axis=0)
    assert_allclose(found, model.predict_params(OBS)["zero_inflation"][0], rtol=1e-3)


def test_probabilities_are_calibrated(model):
    """Among zeros with similar probabilities, this share is structural."""
    found = zero_probability(model, OBS, COUNTS)
    zero = (COUNTS == 0).to_numpy()
    probability, truth = found[zero], STRUCTURAL[zero]
    for low, high in ((0.3, 0.6), (0.6, 0.9), (0.9, 1.0)):
        some = (probability > low) & (probability <= high)
        error = np.sqrt(0.25 / some.sum())
        assert truth[some].mean() == pytest.approx(probability[some].mean(), abs=4 * error)


def test_containers_and_selected_genes(model):
    expected = zero_probability(model, OBS, COUNTS)
    sparse = zero_probability(model, OBS, sp.csr_array(COUNTS.to_numpy()))
    assert_allclose(sparse, expected, rtol=1e-12)
    chosen = zero_probability(model, OBS, COUNTS, genes="C")
    assert_allclose(chosen[:, 0], expected[:, 2], rtol=1e-12)
    one = make_pipeline(FormulaTransformer("~ x"), ZINBRegressor()).fit(OBS, COUNTS["A"])
    assert zero_probability(one, OBS, COUNTS["A"]).shape == (N_CELLS,)


def test_an_anndata_holds_the_counts():
    cells = AnnData(
        sp.csr_matrix(COUNTS.to_numpy()), obs=OBS, var=pd.DataFrame(index=["A", "B", "C"])
    )
    regressor = adata.AnnDataRegressor(make_pipeline(FormulaTransformer("~ x"), ZINBRegressor()))
    found = zero_probability(regressor.fit(cells), cells)
    assert found.shape == COUNTS.shape
    assert (found[COUNTS.to_numpy() > 0] == 0).all()


def test_extreme_predictors_lead_to_zero_and_one():
    x = np.array([-1.0, 0.0, 1.0] * 50)[:, None]
    y = np.where(x[:, 0] > 0, 10**6, 0) * (np.arange(150) % 2)
    with pytest.warns(match="Of 1 genes"):
        model = ZINBRegressor(size=np.inf).fit(x, y)
    found = zero_probability(model, x, y)
    assert np.isfinite(found).all()
    assert_allclose(found[(x[:, 0] > 0) & (y == 0)], 1.0)


def test_a_model_without_inflation_is_refused():
    model = NegBinRegressor().fit(OBS, COUNTS)
    with pytest.raises(ValueError, match="a NegBinRegressor has no structural zeros"):
        zero_probability(model, OBS, COUNTS)
