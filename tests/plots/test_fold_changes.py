import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import differential_expression
from sc_glm.plots import MeanFoldChangeDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "base_mean": [100.0, 0.01, 3.0, 2.0, 0.5, 0.0],
            "log2_fold_change": [2.0, -3.0, 0.5, np.inf, -np.inf, 0.0],
            "p_value": [1e-20, 1e-50, 0.4, 1e-9, 0.3, 1.0],
            "p_adjusted": [2e-20, 2e-50, 0.4, 1e-8, 0.3, 1.0],
            "log2_low": [1.5, -3.5, 0.1, 4.0, -np.inf, 0.0],
            "log2_high": [2.5, -2.5, 0.9, np.inf, 1.0, 0.0],
        },
        index=["up", "down", "small", "only_up", "rare", "none"],
    )


def test_points_are_means_and_fold_changes(table):
    display = MeanFoldChangeDisplay.from_table(table)
    points = {name: line.get_xydata() for name, line in display.points_.items()}
    assert_allclose(points["up"], [[100.0, 2.0]])
    assert_allclose(points["down"], [[0.01, -3.0]])
    assert_allclose(points["other"], [[3.0, 0.5]])
    assert display.ax_.get_xscale() == "log"
    assert display.ax_.get_title(loc="left") == "1 down, 2 up, FDR 5 %"
    assert display.ax_.get_title(loc="right") == "2 separated, 1 of mean 0"


def test_separated_genes_are_triangles_at_the_edge(table):
    display = MeanFoldChangeDisplay.from_table(table, genes="rare")
    low, high = display.ax_.get_ylim()
    ((x_up, y_up),) = display.points_["separated_up"].get_xydata()
    ((x_rare, y_rare),) = display.points_["separated_other_down"].get_xydata()
    assert (x_up, x_rare) == (2.0, 0.5)
    assert 4.0 < y_up < high
    assert low < y_rare < -3.0
    assert display.points_["separated_up"].get_marker() == "^"
    assert display.points_["separated_other_down"].get_marker() == "v"
    segments = display.intervals_.get_segments()  # vertical ones, to the finite ends
    assert_allclose(segments, [[[0.5, 1.0], [0.5, y_rare]], [[2.0, 4.0], [2.0, y_up]]])
    assert {"rare", "only_up", "up", "down"} == {label.get_text() for label in display.labels_}


def test_the_ends_of_the_axis_name_what_is_compared(table):
    display = MeanFoldChangeDisplay.from_table(table, sides=("B cells", "T cells"))
    low, high = [text for text in display.ax_.texts if text.get_text().startswith("higher in")]
    assert (low.get_text(), high.get_text()) == ("higher in B cells", "higher in T cells")
    display.figure_.draw_without_rendering()
    boxes = low.get_window_extent(), high.get_window_extent()
    assert boxes[0].y1 < boxes[1].y0
    assert max(box.x1 for box in boxes) <= display.ax_.yaxis.label.get_window_extent().x0
    long = ("CD14+ monocytes of healthy donors", "FCGR3A+ monocytes of all donors")
    display = MeanFoldChangeDisplay.from_table(table, sides=long)
    assert display.ax_.texts[1].get_text() == f"higher in {long[1]}\n"


def test_tables_that_cannot_be_drawn(table):
    with pytest.raises(ValueError, match=r"table has no column\(s\) \['base_mean'\]"):
        MeanFoldChangeDisplay.from_table(table.drop(columns="base_mean"))
    with pytest.raises(ValueError, match="tests without fold changes"):
        MeanFoldChangeDisplay.from_table(table.assign(log2_fold_change=np.nan))
    empty = MeanFoldChangeDisplay.from_table(table.loc[["none"]], genes="none")
    assert [text.get_text() for text in empty.ax_.texts] == ["nothing to show"]
    assert empty.ax_.get_title(loc="right") == "1 of mean 0, not shown: none"


def test_tests_and_means_are_those_of_the_data():
    data = make_counts(150, 4, random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    display = MeanFoldChangeDisplay.from_estimator(model, data.obs, data.counts, "pseudotime")
    expected = differential_expression(model, data.obs, data.counts, "pseudotime")
    for column in ("log2_fold_change", "p_value", "p_adjusted"):
        assert_array_equal(getattr(display, column), expected[column])
    assert_allclose(display.base_mean, data.counts.mean())
    with pytest.raises(TypeError, match="contrast"):
        MeanFoldChangeDisplay.from_estimator(model, data.obs, data.counts)
