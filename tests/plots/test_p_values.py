import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import differential_expression
from sc_glm.plots import PValueDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


def mixture(n=4000, null=0.7, seed=0):
    """P-values of which a fraction is uniform and the others are close to zero."""
    rng = np.random.default_rng(seed)
    p_value = np.where(np.arange(n) < null * n, rng.uniform(size=n), rng.beta(0.1, 20.0, size=n))
    return pd.DataFrame({"p_value": p_value}, index=[f"Gene{i}" for i in range(n)])


def test_the_fraction_of_genes_without_an_effect_is_recovered():
    # The standard error is 2 sqrt(.35 * .65 / 4000) = .015.
    assert_allclose(PValueDisplay.from_table(mixture()).null_fraction, 0.7, atol=0.05)
    assert PValueDisplay(p_value=np.linspace(0.4, 1.0, 50)).null_fraction == 1.0
    assert PValueDisplay(p_value=[0.1, 0.2, np.nan]).null_fraction == 0.0


def test_bars_count_genes_and_lines_are_their_expected_heights():
    table = mixture()
    table.iloc[:3] = np.nan
    display = PValueDisplay.from_table(table, n_bins=10)
    heights = [bar.get_height() for bar in display.bars_]
    inside = table["p_value"].between(0.2, 0.3, inclusive="left")
    assert len(heights) == 10
    assert sum(heights) == 3997
    assert heights[2] == inside.sum()
    assert_allclose(display.uniform_.get_ydata(), 399.7)
    assert_allclose(display.null_.get_ydata(), 399.7 * display.null_fraction)
    assert display.ax_.get_title(loc="left") == "3997 tests"
    assert display.ax_.get_title(loc="right") == "3 untested"
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[1] == f"genes without an effect: {100 * display.null_fraction:.0f} %"


def test_p_values_of_zero_and_one_are_in_the_outer_bars():
    display = PValueDisplay(p_value=[0.0, 1.0, 1.0]).plot(n_bins=4)
    assert [bar.get_height() for bar in display.bars_] == [1, 0, 0, 2]


def test_untested_genes_alone():
    display = PValueDisplay(p_value=[np.nan, np.nan]).plot()
    assert np.isnan(display.null_fraction)
    assert [text.get_text() for text in display.ax_.texts] == ["nothing to show"]


def test_input_is_checked():
    table = mixture(20)
    with pytest.raises(ValueError, match=r"table has no column\(s\) \['p_value'\]"):
        PValueDisplay.from_table(table.rename(columns={"p_value": "p"}))
    with pytest.raises(ValueError, match="n_bins"):
        PValueDisplay.from_table(table, n_bins=1)
    with pytest.raises(TypeError, match="n_bins"):
        PValueDisplay.from_table(table, n_bins=2.5)


def test_the_tests_are_those_of_inference():
    """Joint tests, which have no fold changes, too."""
    data = make_counts(150, 4, random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    for contrast in ("pseudotime", "cell_type[T.b], cell_type[T.c]"):
        display = PValueDisplay.from_estimator(model, data.obs, data.counts, contrast)
        expected = differential_expression(model, data.obs, data.counts, contrast)
        assert_array_equal(display.p_value, expected["p_value"])
