import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.plots import MeanVarianceDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    return make_counts(300, 6, zero_inflation="~ 1", offset="np.log(size_factor)", random_state=0)


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), ZINBRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def test_moments_are_those_of_counts_and_of_the_model(model, data, monkeypatch):
    monkeypatch.setattr(
        "sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs)
    )  # several blocks
    display = MeanVarianceDisplay.from_estimator(model, data.obs, data.counts)
    assert_allclose(display.mean, data.counts.mean())
    assert_allclose(display.variance, data.counts.var(ddof=0))
    # The law of total variance, here by the mean of squares.
    dist = model.predict_dist(data.obs)
    mean = dist.mean().mean(axis=0)
    assert_allclose(display.fitted_mean, mean)
    squares = (dist.var() + dist.mean() ** 2).mean(axis=0)
    assert_allclose(display.fitted_variance, squares - mean**2)


def test_artists_hold_the_moments(model, data):
    display = MeanVarianceDisplay.from_estimator(model, data.obs, data.counts)
    assert_array_equal(display.observed_.get_xydata(), np.c_[display.mean, display.variance])
    fitted = np.c_[display.fitted_mean, display.fitted_variance]
    assert_array_equal(display.fitted_.get_xydata(), fitted)
    assert (display.ax_.get_xscale(), display.ax_.get_yscale()) == ("log", "log")


def test_the_curve_is_of_the_median_gene():
    mean = np.array([1.0, 2.0, 10.0])
    phi = np.array([0.5, 0.2, 3.0])
    variance = mean + phi * mean**2
    display = MeanVarianceDisplay(
        mean=mean, variance=variance, fitted_mean=mean, fitted_variance=variance
    ).plot()
    x, y = display.trend_.get_data()
    assert_allclose(y, x + 0.5 * x**2)
    assert display.trend_.get_label() == "mean + 0.5 mean$^2$"
    poisson = MeanVarianceDisplay(
        mean=mean, variance=mean, fitted_mean=mean, fitted_variance=mean
    ).plot()
    assert poisson.trend_ is None


def test_the_number_of_constant_genes_is_in_the_title(data):
    counts = data.counts.assign(gene_0=0, gene_3=2)
    model = make_pipeline(FormulaTransformer("~ 1"), ZINBRegressor())
    with pytest.warns(ConvergenceWarning):
        model.fit(data.obs, counts)
    display = MeanVarianceDisplay.from_estimator(model, data.obs, counts)
    assert display.ax_.get_title(loc="right") == "2 constant gene(s) not shown"
    assert len(display.observed_.get_xdata()) == len(display.fitted_.get_xdata()) == 4
    assert len(display.mean) == 6
    alone = MeanVarianceDisplay.from_estimator(model, data.obs, counts, genes="gene_0")
    assert [text.get_text() for text in alone.ax_.texts] == ["nothing to show"]
    alone.figure_.draw_without_rendering()


def test_some_genes(model, data):
    display = MeanVarianceDisplay.from_estimator(
        model, data.obs, data.counts, genes=["gene_4", "gene_1"]
    )
    assert_allclose(display.mean, data.counts[["gene_4", "gene_1"]].mean())
