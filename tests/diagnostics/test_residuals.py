"""Residuals: against other software, their definitions and exact tails."""

from types import SimpleNamespace

import mpmath
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.diagnostics import (
    deviance_residuals,
    goodness_of_fit,
    pearson_residuals,
    quantile_residuals,
    residual_blocks,
    zero_test,
)
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
    monkeypatch.setattr("sc_glm.diagnostics.residuals.random_stream", always(0.5))
    middle = quantile_residuals(*fit)
    assert_allclose(middle[first[:5]], exact["quantile"]["mid_first5"], rtol=1e-6)
    assert_summary(middle[first], exact["quantile"]["mid_summary"])
    zeros = zero_test(*fit).iloc[0]
    assert zeros["observed"] == exact["observed_zeros"]
    assert_allclose(zeros["expected"], exact["expected_zeros"], rtol=1e-7)


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
    monkeypatch.setattr("sc_glm.diagnostics.residuals.random_stream", always(0.9))
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


def test_weights_and_groups_in_another_order_are_refused(model, data):
    weights = pd.Series(1.0, index=data.obs.index)
    for function in (zero_test, goodness_of_fit):
        with pytest.raises(ValueError, match=r"rows of sample_weight .* another order"):
            function(model, data.obs, data.counts, sample_weight=weights[::-1])
    with pytest.raises(ValueError, match=r"rows of y .* another order"):
        pearson_residuals(model, data.obs, data.counts[::-1])


def scanpy_residuals(y, mu, theta):
    """Analytic Pearson residuals as scanpy computes them, at means `mu`."""
    n = len(y)
    return ((y - mu) / np.sqrt(mu + mu**2 / theta)).clip(-np.sqrt(n), np.sqrt(n))


def analytic_residuals(y, theta):
    """The residuals of the model of which scanpy's are an approximation."""
    obs = pd.DataFrame({"log_depth": np.log(y.sum(axis=1))})
    design = FormulaTransformer("~ 1", offset="log_depth")
    model = make_pipeline(design, NegBinRegressor(size=theta, tol=1e-12)).fit(obs, y)
    return pearson_residuals(model, obs, y, clip="sqrt_n")


def test_poisson_residuals_are_the_analytic_ones():
    """At infinite size, the fitted means are the products of totals that scanpy takes."""
    rng = np.random.default_rng(0)
    y = rng.poisson(rng.uniform(0.3, 3, size=(80, 1)) * np.exp(rng.normal(size=30)))
    y[0, 0] = 400  # clipped
    mu = y.sum(axis=1, keepdims=True) * y.sum(axis=0) / y.sum()
    found = analytic_residuals(y, np.inf)
    assert_allclose(found, scanpy_residuals(y, mu, np.inf), rtol=1e-5, atol=1e-7)
    assert found.max() == np.sqrt(len(y))


def test_residuals_of_a_given_size_are_the_analytic_ones_at_equal_depths():
    rng = np.random.default_rng(1)
    proportions = rng.dirichlet(np.full(30, 0.5), size=80)
    y = np.stack([rng.multinomial(500, p) for p in proportions])
    y = y[:, y.any(axis=0)]
    expected = scanpy_residuals(y, np.broadcast_to(y.mean(axis=0), y.shape), 100.0)
    assert_allclose(analytic_residuals(y, 100.0), expected, rtol=1e-5, atol=1e-7)


def test_clipped_residuals_are_bounded_and_the_others_unchanged(model, data):
    raw = pearson_residuals(model, data.obs, data.counts)
    clipped = pearson_residuals(model, data.obs, data.counts, clip=1.5)
    assert_array_equal(clipped, np.clip(raw, -1.5, 1.5))
    pieces = residual_blocks(model, data.obs, data.counts, kind="pearson", clip=1.5)
    blocks = {genes.start: values for genes, values in pieces}
    assert_array_equal(np.hstack([blocks[first] for first in sorted(blocks)]), clipped)


@pytest.mark.parametrize("clip", [0, -1.0, np.nan, True, "sqrt", [1.0]])
def test_wrong_clips(model, data, clip):
    with pytest.raises(ValueError, match="clip must be a positive number, 'sqrt_n' or None"):
        pearson_residuals(model, data.obs, data.counts, clip=clip)


def test_only_pearson_residuals_are_clipped(model, data):
    with pytest.raises(ValueError, match="goes with kind='pearson'"):
        residual_blocks(model, data.obs, data.counts, clip=2.0)
