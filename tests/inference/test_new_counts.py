"""Prediction intervals of counts against simulated mixtures; their coverage is in calibration."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sc_glm import NegBinRegressor, ZINBRegressor, inference
from sc_glm.datasets import make_counts
from sc_glm.distributions import ZINB
from sc_glm.moderation import moderate_dispersion
from tests.inference.simulated import COUNTS, OBS, pipeline


def probabilities(draws, interval):
    """Return the shares of draws below the interval and above it."""
    lower, upper = (interval[end].to_numpy() for end in ("lower", "upper"))
    return (draws < lower).mean(axis=0), (draws > upper).mean(axis=0)


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_they_are_quantiles_over_draws_of_coefficients(regressor):
    rng = np.random.default_rng(0)
    X = np.linspace(-1, 1, 60)[:, None]
    truth = ZINB(60 * np.exp(0.5 * X), 3.0, 0.3 if regressor is ZINBRegressor else 0.0)
    y = truth.rvs((60, 1), random_state=1)
    model = regressor().fit(X, y)
    new = np.array([[-1.0], [0.0], [2.0]])
    interval = inference.prediction_intervals(model, X, y, new)
    coef = np.concatenate([table.to_numpy()[:, 0] for table in model.params_.values()])
    covariance = inference.covariance(model, X, y)[0]
    draws = rng.multivariate_normal(coef, covariance, 200_000)
    mu = np.exp(draws[:, :1] + draws[:, 1:2] * new[:, 0])
    pi = 1 / (1 + np.exp(-draws[:, 3:4])) if regressor is ZINBRegressor else np.zeros((1, 1))
    counts = ZINB(mu, np.exp(draws[:, 2:3]), pi).rvs(mu.shape, random_state=2)
    below, above = probabilities(counts, {end: table["y0"] for end, table in interval.items()})
    # a count at an end has a probability; quadrature and draws are accurate to 0.003
    assert (below < 0.025 + 0.003).all()
    assert (above < 0.025 + 0.003).all()
    assert (above > 0.025 - 0.008).all()


def test_they_are_wider_than_those_of_the_fitted_distribution(model):
    for level in (0.5, 0.95):
        interval = inference.prediction_intervals(model, OBS, COUNTS, level=level)
        lower, upper = model.predict_dist(OBS).interval(level)
        assert (interval["lower"] <= lower).mean(axis=None) > 0.99
        assert (interval["upper"] >= upper).mean(axis=None) > 0.99
        assert (interval["upper"] > upper).any(axis=None)
        assert (interval["reason"] == "").all(axis=None)


def test_after_many_cells_they_are_those_of_the_fitted_distribution():
    data = make_counts(20_000, 4, offset=None, random_state=0)
    model = pipeline(offset=None).fit(data.obs, data.counts)
    new = data.obs.iloc[:200]
    interval = inference.prediction_intervals(model, data.obs, data.counts, new)
    lower, upper = model.predict_dist(new).interval(0.95)
    assert (interval["lower"] == lower).mean(axis=None) > 0.95
    assert (interval["upper"] == upper).mean(axis=None) > 0.95
    assert (np.abs(interval["upper"] - upper) <= 1 + 0.02 * upper).all(axis=None)


def test_offsets_count_and_genes_may_be_chosen(model):
    new = OBS.iloc[:3].assign(size_factor=[1.0, 100.0, 100.0])
    interval = inference.prediction_intervals(model, OBS, COUNTS, new, genes=["gene_2", "gene_0"])
    assert list(interval["upper"].columns) == ["gene_2", "gene_0"]
    assert list(interval["upper"].index) == list(new.index)
    expected = model.predict(new)[:, [2, 0]]
    assert (interval["upper"] >= expected).all(axis=None)
    assert (interval["lower"] <= expected).all(axis=None)
    whole = inference.prediction_intervals(model, OBS, COUNTS, new)
    for name, table in interval.items():
        assert_array_equal(table, whole[name][["gene_2", "gene_0"]])


def test_parts_at_a_limit_are_known():
    rng = np.random.default_rng(3)
    X = pd.DataFrame({"x": rng.normal(size=100)})
    counts = rng.poisson(30.0, (100, 12))
    model = ZINBRegressor().fit(X, counts)
    assert (model.status_ == "Poisson boundary, no zero inflation").any()
    interval = inference.prediction_intervals(model, X, counts, X[:5])
    assert (interval["reason"] == "").all(axis=None)
    lower, upper = model.predict_dist(X[:5]).interval(0.95)
    assert (np.abs(interval["lower"] - lower) <= 2).all(axis=None)
    assert (np.abs(interval["upper"] - upper) <= 2).all(axis=None)


def test_moderated_sizes_are_known():
    data = make_counts(200, 60, offset=None, random_state=0)
    model = pipeline(mean="~ pseudotime", offset=None).fit(data.obs, data.counts)
    moderated = moderate_dispersion(model, data.obs, data.counts).model
    interval = inference.prediction_intervals(
        moderated, data.obs, data.counts, data.obs.iloc[:2], genes=["gene_0", "gene_1"]
    )
    assert (interval["reason"] == "").all(axis=None)
    assert (interval["upper"] >= moderated.predict(data.obs.iloc[:2])[:, :2]).all(axis=None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"level": 1.0}, "level == 1.0"),
        ({"genes": []}, "genes is empty"),
        ({"X_new": OBS[["pseudotime"]]}, "cell_type"),
    ],
)
def test_arguments_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.prediction_intervals(model, OBS, COUNTS, **more)
