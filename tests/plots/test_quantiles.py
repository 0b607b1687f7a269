import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.diagnostics import quantile_residuals
from sc_glm.plots import QuantileQuantileDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


def normal(n, n_genes, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n_genes))


def test_every_residual_of_few_cells_is_shown_in_order():
    residuals = normal(100, 3)
    display = QuantileQuantileDisplay.from_residuals(residuals)
    assert_array_equal(display.ordered, np.sort(residuals, axis=0))
    for line, gene in zip(display.lines_, np.sort(residuals, axis=0).T, strict=True):
        assert_array_equal(line.get_ydata(), gene)
        assert_array_equal(line.get_xdata(), display.theoretical)


def test_the_envelope_holds_each_point_of_normal_samples():
    n = 60
    display = QuantileQuantileDisplay.from_residuals(normal(n, 1), confidence=0.9)
    ordered = np.sort(normal(n, 4000, seed=1), axis=0)
    share = np.mean(
        (ordered >= display.lower[:, None]) & (ordered <= display.upper[:, None]), axis=1
    )
    assert_allclose(share, 0.9, atol=0.02)  # four standard errors
    assert_allclose(np.mean(ordered < display.theoretical[:, None], axis=1), 0.5, atol=0.035)


def test_of_many_cells_the_extremes_are_kept():
    residuals = normal(30_000, 2)
    display = QuantileQuantileDisplay.from_residuals(residuals)
    n_points = len(display.theoretical)
    assert 300 < n_points <= 500
    ordered = np.sort(residuals, axis=0)
    assert_array_equal(display.ordered[:3], ordered[:3])
    assert_array_equal(display.ordered[-3:], ordered[-3:])
    gaps = np.diff(display.theoretical)[5:-5]
    assert gaps.max() < 0.1
    # Each point is the order statistic that its quantile says.
    rank = stats.norm.cdf(display.theoretical) * 30_000
    assert_allclose(display.ordered[:, 0], ordered[np.round(rank - 0.5).astype(int), 0], atol=0.02)


def test_genes_are_named(pyplot):
    names = ["_Rik", "$\\frac{$", "Gcg"]
    frame = pd.DataFrame(normal(50, 3), columns=names)
    display = QuantileQuantileDisplay.from_residuals(frame)
    assert display.genes == names
    texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert texts == names
    display.figure_.draw_without_rendering()
    one = QuantileQuantileDisplay.from_residuals(frame["Gcg"], genes=["Gcg"])
    assert one.ax_.get_title(loc="left") == "Gcg"
    assert one.lines_[0].get_linestyle() == "None"
    many = QuantileQuantileDisplay.from_residuals(normal(50, 30))
    assert many.ax_.get_legend() is None
    assert many.ax_.get_title(loc="left") == "30 genes"
    pyplot.close("all")


def test_infinite_residuals_are_counted():
    residuals = normal(40, 1)
    residuals[:2] = np.inf
    display = QuantileQuantileDisplay.from_residuals(residuals)
    assert display.ax_.get_title(loc="right") == "2 infinite not shown"
    assert np.isfinite(display.ax_.get_ylim()).all()
    assert QuantileQuantileDisplay.from_residuals(normal(40, 1)).ax_.get_title(loc="right") == ""


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match=r"2 residual\(s\) are NaN"):
        QuantileQuantileDisplay.from_residuals([[0.0, np.nan], [np.nan, 1.0]])
    for confidence in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match=f"confidence == {confidence}, must be [<>] [01]"):
            QuantileQuantileDisplay.from_residuals([0.0, 1.0], confidence=confidence)
    with pytest.raises(TypeError, match="confidence must be an instance of float"):
        QuantileQuantileDisplay.from_residuals([0.0, 1.0], confidence="a")


def test_residuals_are_those_of_diagnostics():
    data = make_counts(150, 4, random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    genes = ["gene_2", "gene_0"]
    display = QuantileQuantileDisplay.from_estimator(
        model, data.obs, data.counts, genes=genes, random_state=3
    )
    residuals = quantile_residuals(model, data.obs, data.counts, genes=genes, random_state=3)
    assert_array_equal(display.ordered, np.sort(residuals, axis=0))
    assert display.genes == genes


def test_fractional_weights_have_weighted_quantiles():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 1))
    y = rng.negative_binomial(2, 2 / (2 + np.exp(1 + 0.5 * x)))
    weights = rng.uniform(0.1, 0.9, 4000)
    model = NegBinRegressor().fit(x, y)
    display = QuantileQuantileDisplay.from_estimator(
        model, x, y, sample_weight=weights, random_state=0
    )
    residuals = quantile_residuals(model, x, y, random_state=0)[:, 0]
    place = np.argsort(residuals)
    share = (np.cumsum(weights[place]) - weights[place] / 2) / weights.sum()
    expected = np.interp(stats.norm.cdf(display.theoretical), share, residuals[place])
    middle = np.abs(display.theoretical) < 2
    assert_allclose(display.ordered[middle, 0], expected[middle], atol=0.02)
    # They tell less than as many cells of equal weight.
    alone = QuantileQuantileDisplay.from_estimator(model, x, y, random_state=0)
    assert alone.theoretical[-1] > display.theoretical[-1]
