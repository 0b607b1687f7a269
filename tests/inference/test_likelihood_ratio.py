"""Likelihood ratio tests and their distributions."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sc_glm import NegBinRegressor, ZINBRegressor, inference
from tests.inference.simulated import COUNTS, OBS, pipeline


@pytest.mark.parametrize("mean", ["~ cell_type", "~ cell_type + pseudotime"])
def test_likelihood_ratios(mean):
    reduced = pipeline(mean="~ 1").fit(OBS, COUNTS)
    full = pipeline(mean=mean).fit(OBS, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    expected = 2 * (full[-1].log_likelihood_ - reduced[-1].log_likelihood_)
    assert_allclose(test["statistic"], expected, atol=1e-6)
    assert_allclose(test["p_value"], stats.chi2.sf(expected, test["df"]), rtol=1e-6)
    assert (test["df"] == (2 if mean == "~ cell_type" else 3)).all()
    wald = inference.wald_test(full, OBS, COUNTS, ["cell_type[T.b]", "cell_type[T.c]"])
    if mean == "~ cell_type":  # close to each other in large samples
        assert_allclose(np.log10(wald["p_value"]), np.log10(test["p_value"]), rtol=0.25, atol=0.3)


def test_regressors_of_some_columns_of_a_frame_are_compared():
    X = OBS[["pseudotime", "size_factor"]]
    reduced = NegBinRegressor().fit(X[["size_factor"]], COUNTS)
    full = NegBinRegressor().fit(X, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, X, COUNTS)
    assert_allclose(test["statistic"], 2 * (full.log_likelihood_ - reduced.log_likelihood_))
    with pytest.raises(ValueError, match="pseudotime"):
        inference.likelihood_ratio_test(reduced, full, X[["size_factor"]], COUNTS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_zero_inflation_is_tested_by_a_mixture():
    """Half of the chi-squared distribution where the null is at the end of the range."""
    rng = np.random.default_rng(0)
    mu, r = 4.0, 2.0
    counts = rng.negative_binomial(r, r / (r + mu), (400, 40))
    counts[:, 20:] *= rng.random((400, 20)) > 0.4
    X = np.zeros((400, 1))
    reduced, full = NegBinRegressor().fit(X, counts), ZINBRegressor().fit(X, counts)
    test = inference.likelihood_ratio_test(reduced, full, X, counts)
    none = test["statistic"] < 1e-5
    assert 4 < none[:20].sum() < 20
    assert (test.loc[test["statistic"] == 0, "p_value"] == 1).all()
    some = test["statistic"] > 0
    half = 0.5 * stats.chi2.sf(test["statistic"][some], 1)
    assert_allclose(test["p_value"][some], half)
    assert (test["p_value"][20:] < 1e-3).all()


def test_two_more_coefficients_one_of_them_at_its_bound():
    reduced = pipeline(mean="~ 1").fit(OBS, COUNTS)
    full = pipeline(ZINBRegressor, mean="~ pseudotime", zero_inflation="~ 1").fit(OBS, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    mixture = [stats.chi2.sf(test["statistic"], df) for df in (1, 2)]
    assert_allclose(test["p_value"], np.mean(mixture, axis=0))
    assert (test["df"] == 2).all()


def test_a_full_model_below_the_reduced_one_has_a_reason():
    reduced = pipeline(mean="~ cell_type").fit(OBS, COUNTS)
    worse = pipeline().fit(OBS, COUNTS)
    # A maximum that is none, with the likelihood that belongs to it
    for part in worse[-1].params_:
        worse[-1].params_[part].loc[:, "gene_0"] = 0.0
    worse[-1].log_likelihood_[0] = worse.log_prob(OBS, COUNTS)[:, 0].sum()
    test = inference.likelihood_ratio_test(reduced, worse, OBS, COUNTS)
    assert test.loc["gene_0", "reason"] == "a higher maximum was missed"
    assert np.isnan(test.loc["gene_0", "p_value"])
    assert (test["reason"][1:] == "").all()
