"""Residuals, zeros and goodness of fit: against references, exact values and simulated truth."""

import warnings
from types import SimpleNamespace

import mpmath
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.diagnostics import (
    deviance_residuals,
    goodness_of_fit,
    pearson_residuals,
    quantile_residuals,
    residual_blocks,
    zero_test,
)
from sc_glm.distributions import NB
from sc_glm.metrics import mean_deviance
from tests.references import ORDINARY, fit_reference, needs_references


def seeded_quantile_residuals(*args, **kwargs):
    return quantile_residuals(*args, random_state=0, **kwargs)


KINDS = {
    "quantile": seeded_quantile_residuals,
    "pearson": pearson_residuals,
    "deviance": deviance_residuals,
}
every_kind = pytest.mark.parametrize("residuals", KINDS.values(), ids=KINDS)


@pytest.fixture(scope="module")
def data():
    formulas = {"mean": "~ pseudotime", "zero_inflation": "~ 1", "offset": "np.log(size_factor)"}
    return make_counts(400, 5, **formulas, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), ZINBRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


# ---------------------------------------------------------------------------- references


def of_reference(name):
    """Return what is known of a fit, the fit with its data, and where the file's rows begin."""
    exact, model, (X, y, weight) = fit_reference(name)
    rows = np.repeat(np.arange(len(y)), weight)  # what weights stand for
    X, y = (data.iloc[rows].reset_index(drop=True) for data in (X, y))
    return exact["diagnostics"], (model, X, y), (np.cumsum(weight) - weight).to_numpy()


def assert_summary(x, expected):
    low, q1, median, q3, high = np.quantile(x, [0, 0.25, 0.5, 0.75, 1])
    found = {"min": low, "q1": q1, "median": median, "q3": q3, "max": high}
    found |= {"mean": x.mean(), "sd": x.std(ddof=1)}
    assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-7)


def always(number):
    """Return what stands in for streams of random numbers, and has one."""
    return lambda *_: SimpleNamespace(random=lambda out: out.fill(number))


@pytest.mark.data
@needs_references
@pytest.mark.parametrize("name", ORDINARY)
def test_diagnostics_agree_with_other_software(name, monkeypatch):
    exact, fit, first = of_reference(name)
    pearson = pearson_residuals(*fit)
    assert_allclose(pearson[first[:5]], exact["pearson"]["first5"], rtol=1e-6)
    assert_allclose((pearson**2).sum(), exact["pearson"]["sum_sq"], rtol=1e-7)
    assert_summary(pearson[first], exact["pearson"]["summary"])
    if "deviance" in exact:
        deviance = deviance_residuals(*fit)
        assert_allclose(deviance[first[:5]], exact["deviance"]["resid_first5"], rtol=1e-6)
        assert_allclose((deviance**2).sum(), exact["deviance"]["value"], rtol=1e-7)
    probability = stats.norm.cdf(quantile_residuals(*fit, random_state=0))[first[:5]]
    assert (probability > exact["quantile"]["cdf_lower_first5"]).all()
    assert (probability < exact["quantile"]["cdf_upper_first5"]).all()
    monkeypatch.setattr("sc_glm.diagnostics.residuals.stream", always(0.5))
    middle = quantile_residuals(*fit)
    assert_allclose(middle[first[:5]], exact["quantile"]["mid_first5"], rtol=1e-6)
    assert_summary(middle[first], exact["quantile"]["mid_summary"])
    zeros = zero_test(*fit).iloc[0]
    assert zeros["observed"] == exact["observed_zeros"]
    assert_allclose(zeros["expected"], exact["expected_zeros"], rtol=1e-7)


# ---------------------------------------------------------------------------- residuals


def test_residuals_are_their_definitions(model, data):
    dist, y = model.predict_dist(data.obs), data.counts.to_numpy()
    pearson = pearson_residuals(model, data.obs, data.counts)
    assert_allclose(pearson, (y - dist.mean()) / dist.std(), rtol=1e-12)
    deviance = deviance_residuals(model, data.obs, data.counts)
    raw = mean_deviance(y, dist, multioutput="raw_values")
    assert_allclose((deviance**2).mean(axis=0), raw, rtol=1e-12)
    assert_array_equal(np.sign(deviance), np.sign(y - dist.mean()))
    quantile = quantile_residuals(model, data.obs, data.counts, random_state=0)
    probability = stats.norm.cdf(quantile)
    assert ((probability >= dist.cdf(y - 1)) & (probability <= dist.cdf(y))).all()


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_quantile_residuals_are_normal_at_all_means(regressor):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4000, 1))
    mu = np.exp(0.5 + 1.5 * x)
    y = rng.negative_binomial(1.5, 1.5 / (1.5 + mu), size=(4000, 2))
    if regressor is ZINBRegressor:
        y *= rng.random(y.shape) > 0.3
    high, low = x[:, 0] > 1, x[:, 0] < -1
    residuals = quantile_residuals(regressor().fit(x, y), x, y, random_state=0)
    for own in (residuals, residuals[high], residuals[low]):
        assert stats.kstest(own.ravel(), "norm").pvalue > 0.02
    blind = np.zeros_like(x)
    residuals = quantile_residuals(regressor().fit(blind, y), blind, y, random_state=0)
    assert stats.kstest(residuals[high].ravel(), "norm").pvalue < 1e-10


def exact_tails(y, mu, r):
    """P(Y <= y) and P(Y > y)."""
    if y < 0:
        return np.array([mpmath.mpf(0), mpmath.mpf(1)])
    success = mpmath.mpf(r) / (mpmath.mpf(r) + mpmath.mpf(mu))
    lower = mpmath.betainc(r, y + 1, 0, success, regularized=True)
    upper = mpmath.betainc(y + 1, r, 0, 1 - success, regularized=True)
    return np.array([lower, upper])


@pytest.mark.parametrize("y", [0, 1, 25, 45, 55, 80, 118, 400, 3000])
def test_quantile_residuals_are_exact_far_out(y, monkeypatch):
    """Counts of mean 50, whose residuals are from -9 to 50."""
    monkeypatch.setattr("sc_glm.diagnostics.residuals.stream", always(0.9))
    x = np.ones((20, 1))
    model = NegBinRegressor(fit_intercept=False).fit(x, np.full(20, 50))
    model.params_["mean"].iloc[:], model.params_["dispersion"].iloc[:] = np.log(50), np.log(200)
    residual = quantile_residuals(model, x[:1], [y])[0]
    dist = model.predict_dist(x[:1])
    with mpmath.workdps(60):
        at = dist.mu[0], dist.r[0]
        tails = 0.1 * exact_tails(y - 1, *at) + 0.9 * exact_tails(y, *at)
        lower, upper = (float(mpmath.log(tail)) for tail in tails)
    if y < 50:  # elsewhere it is the other tail that has digits
        assert_allclose(stats.norm.logcdf(residual), lower, rtol=1e-9)
    else:
        assert_allclose(stats.norm.logsf(residual), upper, rtol=1e-9)


def test_an_impossible_count_is_at_infinity_and_a_certain_zero_is_as_expected():
    x, y = np.zeros((50, 1)), np.r_[np.zeros(25), np.full(25, 4)]
    model = ZINBRegressor().fit(x, y)
    model.params_["zero_inflation"].iloc[:] = 800.0
    at = model, x[:2], [0, 3]
    assert_array_equal(pearson_residuals(*at), [0, np.inf])
    assert_array_equal(deviance_residuals(*at), [0, np.inf])
    quantile = quantile_residuals(*at, random_state=0)
    assert np.isfinite(quantile[0])
    assert quantile[1] == np.inf


def test_counts_that_are_no_integers_are_on_the_nearest_step(model, data):
    near = data.counts + np.random.default_rng(0).uniform(-0.4, 0.4, data.counts.shape)
    near = near.clip(lower=0)
    at = model, data.obs
    expected = quantile_residuals(*at, data.counts, random_state=0)
    assert_array_equal(quantile_residuals(*at, near, random_state=0), expected)
    assert (pearson_residuals(*at, near) != pearson_residuals(*at, data.counts)).any(axis=0).all()


def test_random_numbers_depend_on_the_seed_and_the_gene_alone(model, data, monkeypatch):
    at = model, data.obs, data.counts
    whole = quantile_residuals(*at, random_state=0)
    assert_array_equal(quantile_residuals(*at, random_state=0), whole)
    genes = ["gene_3", "gene_1"]
    some = quantile_residuals(*at, genes=genes, random_state=0)
    assert_allclose(some, whole[:, [3, 1]], rtol=1e-9)
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs))
    assert_allclose(quantile_residuals(*at, random_state=0), whole, rtol=1e-9)
    rng = np.random.default_rng(0)
    one, two = (quantile_residuals(*at, random_state=rng) for _ in range(2))
    assert (one != two).all()


def test_genes_of_equal_counts_have_random_numbers_of_their_own():
    x, y = np.zeros((100, 1)), np.tile(np.arange(100) % 3, (2, 1)).T
    residuals = quantile_residuals(NegBinRegressor().fit(x, y), x, y, random_state=0)
    assert (residuals[:, 0] != residuals[:, 1]).all()
    assert len(np.unique(residuals)) == residuals.size


@every_kind
def test_every_form_of_a_model_has_the_same_residuals(residuals, model, data):
    expected = residuals(model, data.obs, data.counts)
    assert expected.shape == data.counts.shape
    assert_array_equal(residuals(model, data.obs, sp.csr_array(data.counts)), expected)
    design = model[:-1].transform(data.obs)
    assert_allclose(residuals(model[-1], design, data.counts), expected, rtol=1e-9)
    adata = AnnData(sp.csr_matrix(data.counts), obs=data.obs)
    adata.var_names = data.counts.columns
    fitted = AnnDataRegressor(model).fit(adata)
    assert_allclose(residuals(fitted, adata), expected, rtol=1e-9)


@every_kind
def test_one_gene_is_a_vector_if_it_was_in_the_fit(residuals):
    x, y = np.zeros((30, 1)), np.arange(30) % 4
    vector, column = NegBinRegressor().fit(x, y), NegBinRegressor().fit(x, y[:, None])
    assert residuals(vector, x, y).shape == (30,)
    assert residuals(column, x, y[:, None]).shape == (30, 1)
    assert_array_equal(residuals(vector, x, y), residuals(column, x, y[:, None])[:, 0])


def test_blocks_are_the_residuals_and_sparse_counts_stay_sparse(model, data, monkeypatch):
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs))
    dense = []

    def toarray(self, *args, **kwargs):
        dense.append(self.shape)
        return original(self, *args, **kwargs)

    original = sp.csc_array.toarray
    monkeypatch.setattr(sp.csc_array, "toarray", toarray)
    at = model, data.obs, sp.csr_array(data.counts)
    for kind, residuals in KINDS.items():
        found = np.full(data.counts.shape, np.nan)
        for genes, block in residual_blocks(*at, kind=kind, random_state=0):
            found[:, genes] = block
        assert_array_equal(found, residuals(*at))
    zero_test(*at)
    goodness_of_fit(*at)
    assert set(dense) == {(400, 2), (400, 1)}


def test_what_is_refused(model, data):
    with pytest.raises(ValueError, match=r"kind must be one of \['quantile', .*got 'working'"):
        residual_blocks(model, data.obs, data.counts, kind="working")
    with pytest.raises(ValueError, match="y has 4 genes"):
        residual_blocks(model, data.obs, data.counts.iloc[:, :4])
    for function in (*KINDS.values(), zero_test, goodness_of_fit):
        with pytest.raises(ValueError, match="target y is None"):
            function(model, data.obs)


# ---------------------------------------------------------------------------- zeros


def distance_from_uniform(p_values):
    return stats.kstest(p_values, "uniform").statistic


@pytest.fixture(scope="module")
def null():
    """A fit to 1500 genes of the model, whose means go up or down with a covariate."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 1))
    mu = np.exp(rng.uniform(0, 1.5, 1500) + x * rng.normal(0, 0.4, 1500))
    y = rng.negative_binomial(1.0, 1 / (1 + mu))
    return NegBinRegressor().fit(x, y), x, y


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


def test_a_silent_reference_group_and_dependent_columns_change_nothing():
    rng = np.random.default_rng(7)
    groups = np.eye(3)[np.repeat([0, 1, 2], [60, 120, 120])]
    mu = groups @ np.c_[np.zeros(40), rng.uniform(1, 4, (40, 2))].T
    y = NB(mu, 2.0).rvs(random_state=0)
    columns = {"mean__Intercept": np.ones(300), "mean__b": groups[:, 1], "mean__c": groups[:, 2]}
    X = pd.DataFrame(columns)
    aliased = X.assign(mean__a=groups[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the silent group
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


# ---------------------------------------------------------------------------- weights, new cells


def drawn(n_cells, seed, n_genes=1500):
    """Cells of genes that are the same for any seed."""
    truth = np.random.default_rng(2)
    level, slope = truth.uniform(0, 1.5, n_genes), truth.normal(0, 0.4, n_genes)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_cells, 1))
    return x, rng.negative_binomial(1.0, 1 / (1 + np.exp(level + x * slope)))


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


def test_a_misfit_is_seen_in_new_cells_too():
    model = NegBinRegressor().fit(*drawn(300, 8, 100))
    x, y = drawn(300, 9, 100)
    y = y * (np.random.default_rng(0).random(y.shape) < 0.6)
    table = goodness_of_fit(model, x, y, random_state=0)
    assert (table["zeros_p_value"] < 0.05).mean() > 0.9
    assert (table["ks_p_value"] < 0.05).mean() > 0.9


def test_weights_and_groups_in_another_order_are_refused(model, data):
    weights = pd.Series(1.0, index=data.obs.index)
    for function in (zero_test, goodness_of_fit):
        with pytest.raises(ValueError, match=r"rows of sample_weight .* another order"):
            function(model, data.obs, data.counts, sample_weight=weights[::-1])
    with pytest.raises(ValueError, match=r"rows of y .* another order"):
        pearson_residuals(model, data.obs, data.counts[::-1])


# ---------------------------------------------------------------------------- goodness of fit


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
