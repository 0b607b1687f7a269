"""Inference for models with given sizes: these are constants, and the rest is at a maximum."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.moderation import moderate_dispersion

DATA = make_counts(300, 3, random_state=0)
OBS, COUNTS = DATA.obs, DATA.counts
SIZES = [1.0, 20.0, np.inf]


def fitted(mean="~ pseudotime", size=SIZES, regressor=NegBinRegressor, **parts):
    return make_pipeline(FormulaTransformer(mean, **parts), regressor(size=size)).fit(OBS, COUNTS)


def test_standard_errors_are_those_of_a_generalised_linear_model():
    """The observed information of the mean at size r is the sum of r mu (r + y) / (r + mu)**2."""
    model = fitted()
    table = inference.coefficient_table(model, OBS, COUNTS)
    X = np.c_[np.ones(len(OBS)), OBS["pseudotime"]]
    for gene, size in enumerate(SIZES):
        mu, y = model.predict(OBS)[:, gene], COUNTS.iloc[:, gene].to_numpy()
        weight = mu if np.isinf(size) else size * mu * (size + y) / (size + mu) ** 2
        errors = np.sqrt(np.diag(np.linalg.inv(X.T @ (weight[:, None] * X))))
        rows = table[table["gene"] == COUNTS.columns[gene]]
        assert_allclose(rows["standard_error"].iloc[:2], errors, rtol=1e-4)
        assert rows["reason"].tolist() == ["", "", "given"]


@pytest.mark.parametrize("kind", ["robust", "cluster"])
def test_sandwiches_take_sizes_as_known(kind):
    groups = np.arange(len(OBS)) % 30 if kind == "cluster" else None
    model = fitted(size=[np.inf] * 3)
    errors = inference.standard_errors(model, OBS, COUNTS, kind=kind, groups=groups)
    assert np.isfinite(errors["mean"].to_numpy()).all()
    X = np.c_[np.ones(len(OBS)), OBS["pseudotime"]]
    if kind == "robust":  # of a Poisson regression
        mu, y = model.predict(OBS), COUNTS.to_numpy()
        for gene in range(3):
            inverse = np.linalg.inv(X.T @ (mu[:, [gene]] * X))
            scores = X * (y - mu)[:, [gene]]
            covariance = inverse @ scores.T @ scores @ inverse
            assert_allclose(errors["mean"].iloc[:, gene], np.sqrt(np.diag(covariance)), rtol=1e-4)


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_likelihood_ratios_of_equal_sizes(regressor):
    reduced, full = (fitted(mean, regressor=regressor) for mean in ("~ 1", "~ cell_type"))
    table = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    expected = 2 * (full[-1].log_likelihood_ - reduced[-1].log_likelihood_)
    assert (expected > -1e-6).all()
    assert_allclose(table["statistic"], expected, atol=1e-5)
    assert (table["df"] == 2).all()
    assert_allclose(table["p_value"], stats.chi2.sf(table["statistic"], 2), rtol=1e-8)


def test_a_zero_inflation_is_tested_at_given_sizes():
    reduced, full = fitted(size=2.0), fitted(size=2.0, regressor=ZINBRegressor)
    table = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    assert (table["df"] == 1).all()
    expected = 0.5 * stats.chi2.sf(table["statistic"], 1)
    positive = table["statistic"] > 1e-6
    assert_allclose(table["p_value"][positive], expected[positive])


def test_given_sizes_are_tested_against_estimated_ones():
    estimated = fitted(size=None)
    interior = inference.likelihood_ratio_test(fitted(size=2.0), estimated, OBS, COUNTS)
    assert (interior["df"] == 1).all()
    assert_allclose(interior["p_value"], stats.chi2.sf(interior["statistic"], 1))
    boundary = inference.likelihood_ratio_test(fitted(size=np.inf), estimated, OBS, COUNTS)
    assert_allclose(boundary["p_value"], 0.5 * stats.chi2.sf(boundary["statistic"], 1))


@pytest.mark.parametrize(
    ("reduced", "full", "message"),
    [
        ({"size": 2.0}, {"size": 3.0, "mean": "~ cell_type + pseudotime"}, "different sizes"),
        ({"size": SIZES}, {"size": None}, "sizes of all genes are infinite"),
        ({"size": np.inf}, {"size": None, "dispersion": "~ batch"}, "the dispersion of the full"),
        ({"size": np.inf}, {"size": None, "regressor": ZINBRegressor}, "two boundaries"),
        ({"size": None}, {"size": 2.0}, "Exchange the two models"),
        ({"size": 2.0, "mean": "~ cell_type"}, {"size": 2.0, "mean": "~ 1"}, "Exchange the two"),
        ({"size": 2.0, "regressor": ZINBRegressor}, {"size": 2.0}, "Exchange the two models"),
        ({"size": None, "mean": "~ 1"}, {"size": 2.0}, "estimates the sizes"),
        ({"size": 2.0}, {"size": 2.0}, "are equal"),
    ],
)
def test_likelihood_ratios_that_have_no_distribution(reduced, full, message):
    with pytest.raises(ValueError, match=message):
        inference.likelihood_ratio_test(fitted(**reduced), fitted(**full), OBS, COUNTS)


def test_sizes_do_not_count_as_coefficients():
    model = fitted()
    log_likelihood = model[-1].log_likelihood_
    assert_allclose(inference.aic(model, OBS, COUNTS), 4 - 2 * log_likelihood)
    expected = 2 * np.log(len(OBS)) - 2 * log_likelihood
    assert_allclose(inference.bic(model, OBS, COUNTS), expected)
    assert inference.gene_summary(model, OBS, COUNTS, gene="gene_1").aic == pytest.approx(
        4 - 2 * log_likelihood[1]
    )


def test_profile_intervals_end_where_the_deviance_does():
    model = fitted()
    table = inference.confidence_intervals(model, OBS, COUNTS, method="profile")
    slopes = table[table["feature"] == "pseudotime"]
    for column in ("lower", "upper"):
        for gene, slope in enumerate(slopes[column]):
            at_end = make_pipeline(
                FormulaTransformer("~ 1", offset=f"{{{slope!r} * pseudotime}}"),
                NegBinRegressor(size=SIZES),
            ).fit(OBS, COUNTS)
            loss = model[-1].log_likelihood_[gene] - at_end[-1].log_likelihood_[gene]
            assert 2 * loss == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-3)
    of_size = table[table["part"] == "dispersion"]
    assert (of_size["reason"] == "given").all()
    assert of_size[["lower", "upper"]].isna().all(axis=None)


def test_given_sizes_are_not_moderated():
    with pytest.raises(ValueError, match="the model was given sizes"):
        moderate_dispersion(fitted(), OBS, COUNTS)
