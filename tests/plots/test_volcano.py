from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import wald_test
from sc_glm.plots import VolcanoDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "log2_fold_change": [2.0, -3.0, 0.5, 1.0, np.nan, -1.5],
            "p_value": [1e-20, 1e-50, 0.4, 0.04, np.nan, 0.0],
            "p_adjusted": [2e-20, 2e-50, 0.4, 0.06, np.nan, 0.0],
        },
        index=["up", "down", "small", "unsure", "untested", "surest"],
    )


def many(n=800, seed=0):
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=n)
    p_value = np.exp(-5 * effect**2) * rng.uniform(size=n)
    return pd.DataFrame(
        {"log2_fold_change": effect, "p_value": p_value, "p_adjusted": np.minimum(1, 3 * p_value)},
        index=[f"Gene{i}" for i in range(n)],
    )


def test_points_are_at_the_values_of_the_table(table):
    points = VolcanoDisplay.from_table(table).points_
    assert_allclose(points["up"].get_xydata(), [[2.0, 20.0]])
    assert_allclose(points["down"].get_xydata(), [[-3.0, 50.0]])
    assert_allclose(points["other"].get_xydata(), [[0.5, -np.log10(0.4)], [1, -np.log10(0.04)]])


def test_a_p_value_of_zero_is_at_the_top_and_marked(table):
    display = VolcanoDisplay.from_table(table)
    ((x, y),) = display.points_["clipped"].get_xydata()
    assert x == -1.5
    assert 50 < y < display.ax_.get_ylim()[1] < 60
    assert display.points_["clipped"].get_marker() != display.points_["up"].get_marker()
    zeros = VolcanoDisplay.from_table(table.loc[["surest"]])
    assert_allclose(zeros.points_["clipped"].get_ydata(), 307.65, atol=0.01)


def test_p_values_that_underflow_are_ordered_by_their_logarithms(table):
    logs = np.array([-20.0, -50.0, np.log10(0.4), np.log10(0.04), np.nan, -4000.0])
    table = pd.concat([table, table.loc[["surest"]].set_axis(["second"])])
    table["log10_p_value"] = np.r_[logs, -900.0]
    table["p_value"] = np.maximum(table["p_value"], np.finfo(float).tiny)
    display = VolcanoDisplay.from_table(table, n_labels=2)
    assert_allclose(display.points_["down"].get_xydata()[:, 1], [50.0, 4000.0, 900.0])
    assert not len(display.points_["clipped"].get_xdata())
    assert [label.get_text() for label in display.labels_] == ["surest", "second"]
    table.loc["second", "log10_p_value"] = -np.inf
    display = VolcanoDisplay.from_table(table, n_labels=1)
    assert display.points_["clipped"].get_ydata() > 4000
    assert [label.get_text() for label in display.labels_] == ["second"]


def test_the_numbers_of_genes_are_stated(table):
    display = VolcanoDisplay.from_table(table)
    assert display.ax_.get_title(loc="left") == "2 down, 1 up, FDR 5 %"
    assert display.ax_.get_title(loc="right") == "1 at p = 0, 1 untested"
    strict = VolcanoDisplay.from_table(table.drop(index=["untested", "surest"]), alpha=1e-30)
    assert strict.ax_.get_title(loc="left") == "1 down, 0 up, FDR 1e-28 %"
    assert strict.ax_.get_title(loc="right") == ""


def test_a_reason_that_all_untested_genes_share_is_named(table):
    reason = ["", "", "", "", "aliased", ""]
    display = VolcanoDisplay.from_table(table.assign(reason=reason))
    assert display.ax_.get_title(loc="right") == "1 at p = 0, 1 untested (aliased)"
    two = pd.concat([table.assign(reason=reason), table[-2:-1].set_axis(["b"])])
    two = two.fillna({"reason": "separated"})
    display = VolcanoDisplay.from_table(two)
    assert display.ax_.get_title(loc="right") == "1 at p = 0, 2 untested"


def test_genes_of_smallest_p_values_are_labelled(table):
    display = VolcanoDisplay.from_table(table)
    assert [label.get_text() for label in display.labels_] == ["surest", "down", "up"]
    display = VolcanoDisplay.from_table(table, n_labels=1)
    assert [label.get_text() for label in display.labels_] == ["surest"]
    assert VolcanoDisplay.from_table(table, n_labels=0).labels_ == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 3)])
def test_labels_do_not_overlap_labels_or_points(shape, pyplot):
    size = 5 * shape[1], 4 * shape[0]
    figure, axes = pyplot.subplots(*shape, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle("one\nthree\nthat take room\nonly as it is drawn", fontsize=30)
    display = VolcanoDisplay.from_table(many(), n_labels=60, ax=axes[-1, -1])
    display.figure_.draw_without_rendering()
    boxes = [label.get_window_extent() for label in display.labels_]
    assert 5 < len(boxes) < 60
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    points = np.vstack([line.get_xydata() for line in display.points_.values()])
    pixels = display.ax_.transData.transform(points)
    assert len(pixels) == 800
    for box in boxes:
        assert not ((pixels > box.min) & (pixels < box.max)).all(axis=1).any()
    assert len(display.ax_.texts) == len(boxes)  # those without a place are gone


def test_axes_in_a_part_of_a_figure(table, pyplot):
    part = pyplot.figure().subfigures(1, 2)[1]
    display = VolcanoDisplay.from_table(table, ax=part.subplots())
    assert display.figure_ is part
    assert len(display.labels_) == 3


def test_a_table_of_untested_genes(table):
    display = VolcanoDisplay.from_table(table.loc[["untested"]])
    assert display.ax_.get_title(loc="right") == "1 untested"
    assert [text.get_text() for text in display.ax_.texts] == ["nothing to show"]
    display.figure_.draw_without_rendering()


def test_a_table_of_coefficients_is_that_of_one(table):
    both = pd.concat([table.assign(feature=name) for name in ("x", "z")])
    both = both.rename_axis("gene").reset_index()
    one = VolcanoDisplay.from_table(both[both["feature"] == "z"])
    assert_array_equal(one.genes, table.index)
    assert_array_equal(one.log2_fold_change, table["log2_fold_change"])
    with pytest.raises(ValueError, match="several rows of 'up': choose those of one part"):
        VolcanoDisplay.from_table(both)
    with pytest.raises(ValueError, match=r"table has no column\(s\) \['p_adjusted'\]"):
        VolcanoDisplay.from_table(table.drop(columns="p_adjusted"))
    with pytest.raises(ValueError, match="table has tests without fold changes"):
        VolcanoDisplay.from_table(table.assign(log2_fold_change=np.nan))


def test_the_tests_are_those_of_inference():
    data = make_counts(150, 4, random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    display = VolcanoDisplay.from_estimator(model, data.obs, data.counts, "pseudotime")
    expected = wald_test(model, data.obs, data.counts, "pseudotime")
    for column in ("log2_fold_change", "p_value", "p_adjusted"):
        assert_array_equal(getattr(display, column), expected[column])
    assert_array_equal(display.genes, expected.index)
    clustered = VolcanoDisplay.from_estimator(
        model,
        data.obs,
        data.counts,
        "cell_type[T.b] = cell_type[T.c]",
        kind="cluster",
        groups=np.arange(150) % 30,
    )
    assert np.all(clustered.p_value != display.p_value)
    with pytest.raises(ValueError, match="tests without fold changes"):
        VolcanoDisplay.from_estimator(model, data.obs, data.counts, "pseudotime, cell_type[T.b]")
    with pytest.raises(TypeError, match="constraint"):
        VolcanoDisplay.from_estimator(model, data.obs, data.counts)
    weight = np.random.default_rng(0).uniform(0.5, 2, 150)
    model.fit(data.obs, data.counts, negbinregressor__sample_weight=weight)
    weighted = VolcanoDisplay.from_estimator(
        model, data.obs, data.counts, "pseudotime", sample_weight=weight
    )
    assert np.all(weighted.p_value != display.p_value)


def test_dollar_signs_in_names_are_literal(table):
    display = VolcanoDisplay.from_table(table.rename(index={table.index[0]: "$\\frac{$"}))
    display.figure_.draw_without_rendering()
    assert "$\\frac{$" in [label.get_text() for label in display.labels_]
