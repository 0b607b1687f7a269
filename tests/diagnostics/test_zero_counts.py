"""Tests of zeros: their p-values under the model, and their power."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.diagnostics import goodness_of_fit, zero_test
from sc_glm.distributions import NB
from tests.diagnostics.simulated import distance_from_uniform, drawn


def test_p_values_of_zeros_are_uniform_where_the_model_is_true(null):
    """Unlike those that take the fitted mean and size for the true ones."""
    model, x, y = null
    table = zero_test(model, x, y)
    assert (table["reason"] == "").all()
    assert distance_from_uniform(table["p_value"]) < 0.045  # under which 99.5 % of samples are
    assert (table["p_adjusted"] < 0.05).sum() <= 1
    p = model.predict_dist(x).prob_zero()
    naive = (table["observed"] - table["expected"]) / np.sqrt((p * (1 - p)).sum(axis=0))
    assert distance_from_uniform(2 * stats.norm.sf(naive.abs())) > 0.3


def test_zero_inflation_is_found_and_gone_once_it_is_fitted(null):
    _, x, y = null
    rng = np.random.default_rng(5)
    y = y[:, :200] * (rng.random((300, 200)) > 1 / (1 + np.exp(1 - 2 * x)))
    without = zero_test(NegBinRegressor().fit(x, y), x, y)
    one = np.ones(300)
    X = pd.DataFrame({"mean__Intercept": one, "mean__x": x[:, 0]})
    X = X.assign(zero_inflation__Intercept=one, zero_inflation__x=x[:, 0])
    within = zero_test(ZINBRegressor().fit(X, y), X, y)
    assert (without["p_value"] < 0.05).mean() > 0.4
    assert (without["statistic"] > 0)[without["p_value"] < 0.05].mean() > 0.9
    assert (without["ratio"] > 1)[without["p_value"] < 0.05].mean() > 0.9
    assert within["p_value"].notna().mean() > 0.5
    assert (within["p_value"].dropna() < 0.05).mean() < 0.1


def test_poisson_zeros_have_van_den_broeks_score_test():
    """A size at its boundary has not been estimated; equal means have a closed form."""
    y = np.random.default_rng(0).binomial(8, 0.2, size=(500, 1))
    x = np.zeros((500, 1))
    model = NegBinRegressor().fit(x, y)
    assert model.status_ == ["Poisson boundary"]
    p = np.exp(-y.mean())
    score = ((y == 0) / p - 1).sum()
    expected = score**2 / (500 * (1 / p - 1 - y.mean()))
    assert_allclose(zero_test(model, x, y)["statistic"] ** 2, expected, rtol=1e-3)


def test_a_reference_group_of_zeros_and_dependent_columns_change_nothing():
    rng = np.random.default_rng(7)
    groups = np.eye(3)[np.repeat([0, 1, 2], [60, 120, 120])]
    mu = groups @ np.c_[np.zeros(40), rng.uniform(1, 4, (40, 2))].T
    y = NB(mu, 2.0).rvs(random_state=0)
    columns = {"mean__Intercept": np.ones(300), "mean__b": groups[:, 1], "mean__c": groups[:, 2]}
    X = pd.DataFrame(columns)
    aliased = X.assign(mean__a=groups[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the group of zeros
        tables = [zero_test(NegBinRegressor().fit(cells, y), cells, y) for cells in (X, aliased)]
    seen = groups[:, 0] == 0
    alone = X[seen].drop(columns="mean__b")
    expected = zero_test(NegBinRegressor().fit(alone, y[seen]), alone, y[seen])
    for table in tables:
        assert (table["reason"] == "").all()
        assert_allclose(table["statistic"], expected["statistic"], rtol=1e-3, atol=5e-3)


def test_reasons_stand_where_there_is_no_p_value():
    rng = np.random.default_rng(0)
    y = pd.DataFrame(
        {
            "silent": np.zeros(200, dtype=int),
            "high": rng.negative_binomial(50, 0.05, size=200),
            "rare": np.r_[2, 1, 1, 1, np.zeros(196, dtype=int)],
            "usual": rng.negative_binomial(3, 0.5, size=200),
            "other": rng.negative_binomial(1, 0.2, size=200),
        }
    )
    x = rng.normal(size=(200, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        table = zero_test(NegBinRegressor().fit(x, y), x, y)
        unfinished = NegBinRegressor(max_iter=1).fit(x, y)
        cut_short = zero_test(unfinished, x, y)
        penalised = zero_test(NegBinRegressor(alpha={"mean": 0.1}).fit(x, y), x, y)
    assert list(table.index) == list(y.columns)
    certain = "zeros are next to certain or impossible"
    assert list(table["reason"]) == [
        *[certain, certain, "the coefficients explain the zeros"],
        *["", ""],
    ]
    known = table["reason"] == ""
    for column in ("statistic", "p_value", "p_adjusted"):
        assert_array_equal(table[column].notna(), known)
    expected = stats.false_discovery_control(table["p_value"][known])
    assert_allclose(table["p_adjusted"][known], expected)
    assert_array_equal(table["observed"], (y == 0).sum())
    assert_allclose(table["ratio"], table["observed"] / table["expected"])
    assert "iteration limit" in unfinished.status_
    found = cut_short["reason"] == "no maximum was reached"
    assert_array_equal(found, unfinished.status_ == "iteration limit")
    assert set(penalised["reason"]) == {"the fit has a penalty"}
    assert penalised["p_adjusted"].isna().all()


def test_new_cells_of_another_kind_have_the_error_of_the_fit_there():
    """Few cells of the fit are like these, so that it knows little of them."""
    rng = np.random.default_rng(6)
    n_genes = 1500
    level = rng.uniform(0, 1.5, n_genes)

    def cells(n, share):
        group = (rng.random(n) < share).astype(float)[:, None]
        group[:5] = 1
        return group, rng.negative_binomial(1.0, 1 / (1 + np.exp(level + 0.3 * group)))

    model = NegBinRegressor().fit(*cells(1000, 0.05))
    p_value = zero_test(model, *cells(100, 1.0))["p_value"].dropna()
    assert len(p_value) > 1400
    assert 0.02 < (p_value < 0.05).mean() < 0.08


def test_a_part_of_the_cells_of_the_fit_rejects_too_little():
    x, y = drawn(300, 7)
    model = NegBinRegressor().fit(x, y)
    assert (zero_test(model, x[:200], y[:200])["p_value"] < 0.05).mean() < 0.03
    weights = np.random.default_rng(0).integers(1, 4, 300)
    assert (zero_test(model, x, y, sample_weight=weights)["p_value"] < 0.05).mean() < 0.2


@pytest.mark.parametrize("size", [1.5, np.inf])
def test_given_sizes_do_not_explain_zeros(size):
    """The statistic is standard normal if only the mean is taken to be fitted."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, 1))
    mu = np.exp(0.2 + 0.4 * x)
    draw = rng.poisson(np.broadcast_to(mu, (300, 800))) if np.isinf(size) else None
    y = rng.negative_binomial(size, size / (size + mu), (300, 800)) if draw is None else draw
    model = NegBinRegressor(size=size).fit(x, y)
    statistic = zero_test(model, x, y)["statistic"]
    assert statistic.mean() == pytest.approx(0, abs=4 / np.sqrt(800))
    assert statistic.std() == pytest.approx(1, abs=4 / np.sqrt(2 * 800))
    new = zero_test(model, x, y[rng.permutation(300)])
    assert np.isfinite(new["statistic"]).all()


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_a_few_offsets_stand_for_those_of_many_cells(regressor, monkeypatch):
    """Sums by cell and by group differ by the interpolation of the information alone."""
    rng = np.random.default_rng(2)
    X = pd.DataFrame({"mean__one": 1.0, "mean__b": np.repeat([0.0, 1.0], 300)})
    X["offset__depth"] = rng.normal(0, 0.7, 600)
    mu = np.exp(0.3 + 0.5 * X["mean__b"] + X["offset__depth"]).to_numpy()[:, None]
    y = rng.negative_binomial(2, 2 / (2 + mu), size=(600, 4)) * (rng.random((600, 4)) < 0.8)
    weights = rng.uniform(0.5, 2, 600)
    model = regressor().fit(X, y, sample_weight=weights)
    tables = []
    for largest in (0.5, 0.0):
        monkeypatch.setattr("sc_glm.diagnostics.evaluated_cells._MAX_SHARE_OF_ROWS", largest)
        tables.append(
            [
                zero_test(model, X, y, sample_weight=weights),
                zero_test(model, X[::2], y[::2]),
                goodness_of_fit(model, X, y, random_state=0),
            ]
        )
    for by_group, by_cell in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(by_group, by_cell, rtol=1e-5)
