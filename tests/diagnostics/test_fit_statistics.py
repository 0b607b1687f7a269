"""Goodness of fit, for the cells of the fit and for new cells."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor
from sc_glm.diagnostics import (
    deviance_residuals,
    goodness_of_fit,
    pearson_residuals,
    quantile_residuals,
    zero_test,
)
from tests.diagnostics.simulated import distance_from_uniform, drawn


def seeded_quantile_residuals(*args, **kwargs):
    return quantile_residuals(*args, random_state=0, **kwargs)


@pytest.mark.parametrize("is_new", [False, True], ids=["of the fit", "new"])
def test_weights_are_repeated_cells(is_new):
    x, y = drawn(120, 1, 8)
    weights = np.random.default_rng(0).integers(0, 4, 120)
    rows = np.repeat(np.arange(120), weights)
    if is_new:
        model = NegBinRegressor().fit(*drawn(150, 2, 8))
    else:
        model = NegBinRegressor().fit(x, y, sample_weight=weights)
    found = goodness_of_fit(model, x, y, sample_weight=weights, random_state=0)
    expected = goodness_of_fit(model, x[rows], y[rows], random_state=0)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
    found = zero_test(model, x, y, sample_weight=pd.Series(weights))
    pd.testing.assert_frame_equal(found, zero_test(model, x[rows], y[rows]), rtol=1e-6)
    # Half a cell each is as the cells are, but for what their number says.
    half = goodness_of_fit(model, x[rows], y[rows], sample_weight=np.full(len(rows), 0.5))
    assert_allclose(half["deviance"], expected["deviance"])
    assert_allclose(2 * half["expected_zeros"], expected["expected_zeros"])


def test_residuals_of_unequal_weights_are_normal():
    """Draws that count unequally tell as much as fewer that count alike."""
    x, y = drawn(400, 3, 600)
    weights = np.random.default_rng(1).gamma(0.5, size=400)
    model = NegBinRegressor().fit(x, y)
    table = goodness_of_fit(model, x, y, sample_weight=weights, random_state=0)
    assert (table["ks_p_value"] < 0.05).mean() < 0.07
    naive = stats.kstwo.sf(table["ks_statistic"], 400)
    assert (naive < 0.05).mean() > 0.15


@pytest.mark.parametrize("sizes", [(300, 300), (200, 600)], ids=str)
def test_true_models_are_not_rejected_by_new_cells(sizes):
    """Coefficients do not follow the counts of new cells: their error adds to the variance."""
    model = NegBinRegressor().fit(*drawn(sizes[0], 4))
    new = drawn(sizes[1], 5)
    table = zero_test(model, *new)
    assert (table["reason"] == "").all()
    within = 3 * np.sqrt(0.05 * 0.95 / len(table))
    assert (table["p_value"] < 0.05).mean() == pytest.approx(0.05, abs=within)
    assert distance_from_uniform(table["p_value"]) < 0.045
    fit = goodness_of_fit(model, *new, random_state=0)
    assert (fit["ks_p_value"] < 0.05).mean() < 0.05 + within
    assert_array_equal(fit["zeros_p_value"], table["p_value"])
    # Pearson residuals have no coefficient taken off.
    squares = (pearson_residuals(model, *new) ** 2).mean(axis=0)
    assert_allclose(fit["pearson"], squares)


def test_a_misfit_is_seen_in_new_cells_too():
    model = NegBinRegressor().fit(*drawn(300, 8, 100))
    x, y = drawn(300, 9, 100)
    y = y * (np.random.default_rng(0).random(y.shape) < 0.6)
    table = goodness_of_fit(model, x, y, random_state=0)
    assert (table["zeros_p_value"] < 0.05).mean() > 0.9
    assert (table["ks_p_value"] < 0.05).mean() > 0.9


def test_goodness_of_fit_sums_up_the_other_diagnostics(model, data, monkeypatch):
    at = model, data.obs, data.counts
    table = goodness_of_fit(*at, random_state=0)
    assert_array_equal(table["status"], model[-1].status_)
    ordinary = table["status"] == "converged"
    assert ordinary.sum() >= 2
    # The mean's intercept and slope, a size and an inflation
    expected = (pearson_residuals(*at) ** 2).sum(axis=0) / (400 - 4)
    assert_allclose(table["pearson"][ordinary], expected[ordinary])
    assert_allclose(table["deviance"], (deviance_residuals(*at) ** 2).mean(axis=0))
    tests = [stats.kstest(own, "norm") for own in seeded_quantile_residuals(*at).T]
    assert_allclose(table["ks_statistic"], [test.statistic for test in tests])
    assert_allclose(table["ks_p_value"], [test.pvalue for test in tests])
    zeros = zero_test(*at)
    assert list(table.index) == list(zeros.index) == list(data.counts.columns)
    assert_array_equal(table["observed_zeros"], zeros["observed"])
    assert_array_equal(table["expected_zeros"], zeros["expected"])
    assert_array_equal(table["zeros_p_value"], zeros["p_value"])
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs))
    in_blocks = goodness_of_fit(*at, random_state=0)
    pd.testing.assert_frame_equal(in_blocks, table, rtol=1e-8)


def test_misfits_are_seen(null):
    _, x, y = null
    y = y[:, :3].copy()
    y[:2, 1] = 300
    y[:, 2] = y[:, 2] // 3 * 3
    table = goodness_of_fit(NegBinRegressor().fit(x, y), x, y, random_state=0).reset_index()
    assert list(table["n_outliers"]) == [0, 2, 0]
    assert table["pearson"][1] > 2 > table["pearson"][0]
    assert table["ks_p_value"][2] < 0.01 < table["ks_p_value"][0]


def test_one_gene_in_a_hundred_of_the_model_has_an_outlier(null):
    _, x, y = null
    y = y[:, :600]
    table = goodness_of_fit(NegBinRegressor().fit(x, y), x, y, random_state=0)
    assert 1 <= (table["n_outliers"] > 0).sum() <= 13  # of six expected
    assert table["pearson"].mean() == pytest.approx(1, abs=0.02)


def test_what_counts_leave_open_takes_no_degree_of_freedom():
    y = np.random.default_rng(0).binomial(8, 0.2, size=(100, 1))
    x = np.zeros((100, 1))
    model = NegBinRegressor().fit(x, y)
    assert model.status_ == ["Poisson boundary"]
    expected = (pearson_residuals(model, x, y) ** 2).sum() / 99
    assert_allclose(goodness_of_fit(model, x, y)["pearson"], expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = NegBinRegressor().fit(x[:1], y[:1])
    alone = goodness_of_fit(model, x[:1], y[:1], random_state=0)
    assert alone["pearson"].isna().all()
