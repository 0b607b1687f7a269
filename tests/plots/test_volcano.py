from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import differential_expression
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
    expected = differential_expression(model, data.obs, data.counts, "pseudotime")
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
    with pytest.raises(ValueError, match="one contrast, not a dict of 2"):
        VolcanoDisplay.from_estimator(model, data.obs, data.counts, {"a": "x", "b": "y"})
    with pytest.raises(TypeError, match="contrast"):
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


@pytest.fixture
def separated(table):
    """The table with two separated genes that are significant, and one that is not."""
    more = pd.DataFrame(
        {
            "log2_fold_change": [np.inf, -np.inf, np.inf],
            "p_value": [1e-12, 1e-3, 0.5],
            "p_adjusted": [1e-11, 2e-3, 0.6],
            "log2_low": [2.5, -np.inf, np.nan],
            "log2_high": [np.inf, -6.0, np.inf],
        },
        index=["only_b", "only_a", "rare"],
    )
    return pd.concat([table, more])


def test_separated_genes_are_triangles_at_the_edge(separated):
    display = VolcanoDisplay.from_table(separated)
    low, high = display.ax_.get_xlim()
    points = {name: line.get_xydata() for name, line in display.points_.items()}
    (x_up, y_up), (x_down, y_down) = points["separated_up"][0], points["separated_down"][0]
    assert (y_up, y_down) == (12.0, 3.0)
    assert low < x_down < -6.0  # beyond the finite fold changes and ends of intervals
    assert 2.5 < x_up < high
    assert_allclose(points["separated_other_up"], [[x_up, -np.log10(0.5)]])
    assert not len(points["separated_other_down"])
    assert display.points_["separated_up"].get_marker() == ">"
    assert display.points_["separated_down"].get_marker() == "<"
    colour = display.points_["up"].get_color()
    assert display.points_["separated_up"].get_color() == colour
    assert display.points_["separated_other_up"].get_color() != colour
    for line in display.points_.values():
        assert np.all((low < line.get_xdata()) & (line.get_xdata() < high))


def test_separated_genes_count(separated):
    display = VolcanoDisplay.from_table(separated)
    assert display.ax_.get_title(loc="left").strip() == "3 down, 2 up, FDR 5 %"
    assert display.ax_.get_title(loc="right") == "3 separated, 1 at p = 0, 1 untested"
    assert {"only_a", "only_b"} < {label.get_text() for label in display.labels_}


def test_labelled_separated_genes_have_a_line_to_the_end_of_their_interval(separated):
    display = VolcanoDisplay.from_table(separated)
    edges = {name: display.points_[f"separated_{name}"].get_xdata()[0] for name in ("up", "down")}
    ends = [segment[:, 0] for segment in display.intervals_.get_segments()]
    assert_allclose(sorted(ends, key=list), [[-6.0, edges["down"]], [2.5, edges["up"]]])
    without = VolcanoDisplay.from_table(separated, n_labels=0)
    assert without.intervals_.get_segments() == []
    names = ["log2_low", "log2_high"]
    unknown = VolcanoDisplay.from_table(separated.drop(columns=names))
    assert unknown.intervals_.get_segments() == []


def test_a_separated_gene_of_p_value_zero_is_in_the_corner(separated):
    separated.loc["only_b", ["p_value", "p_adjusted"]] = 0.0
    display = VolcanoDisplay.from_table(separated)
    assert display.points_["separated_up"].get_ydata() > 50
    assert display.ax_.get_title(loc="right") == "3 separated, 2 at p = 0, 1 untested"


def test_only_separated_genes(separated):
    display = VolcanoDisplay.from_table(separated.loc[["only_a", "only_b"]])
    display.figure_.draw_without_rendering()
    assert len(display.labels_) == 2


def test_named_genes_are_labelled_always(separated):
    names = ["small", "only_a", "untested"]
    display = VolcanoDisplay.from_table(separated, genes=names, n_labels=0)
    assert {label.get_text() for label in display.labels_} == {"small", "only_a"}
    assert display.ax_.get_title(loc="right").endswith("1 untested, not shown: untested")
    both = VolcanoDisplay.from_table(separated, genes="small", n_labels=1)
    assert [label.get_text() for label in both.labels_] == ["small", "surest"]
    with pytest.raises(ValueError, match=r"have no test: \['Small'\]. Names similar.*'small'"):
        VolcanoDisplay.from_table(separated, genes=["Small"])


def test_named_genes_are_labelled_in_a_crowd():
    table = many()
    named = list(table.index[table["p_value"] > 0.5][:12])
    display = VolcanoDisplay.from_table(table, genes=named, n_labels=60)
    labels = {label.get_text(): label for label in display.labels_}
    assert set(named) < set(labels)
    far = [label for label in labels.values() if label.arrow_patch is not None]
    assert far  # there is no place next to points of the crowd
    assert {label.get_text() for label in far} <= set(named)


def test_the_ends_of_the_axis_name_what_is_compared(table):
    def texts(display):
        return [text for text in display.ax_.texts if text.get_text().startswith(("higher", "\n"))]

    assert texts(VolcanoDisplay.from_table(table)) == []
    for names in (("B", "$T_"), ("CD14+ monocytes of many", "FCGR3A+ monocytes of some")):
        display = VolcanoDisplay.from_table(table, sides=names)
        left, right = texts(display)
        assert (left.get_text(), right.get_text().strip()) == tuple(f"higher in {n}" for n in names)
        display.figure_.draw_without_rendering()
        boxes = [text.get_window_extent() for text in (left, right)]
        below = display.ax_.xaxis.label.get_window_extent()
        assert max(box.y1 for box in boxes) <= below.y0
        for box in boxes:
            assert display.figure_.bbox.x0 <= box.x0 < box.x1 <= display.figure_.bbox.x1
        rows = right.get_text().count("\n")
        assert rows == (names[0] != "B")  # long names are on two lines
        assert rows or left.get_window_extent().x1 < right.get_window_extent().x0


def test_two_levels_name_the_ends_of_the_axis_and_a_joint_test_has_no_direction():
    data = make_counts(150, 6, random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    at = model, data.obs, data.counts
    levels = VolcanoDisplay.from_estimator(*at, ("cell_type", "b", "c"))
    assert levels.sides == ("c", "b")
    same = VolcanoDisplay.from_estimator(*at, "cell_type[T.b] - cell_type[T.c] = 0")
    assert same.sides is None
    assert_allclose(levels.log2_fold_change, same.log2_fold_change)
    term = VolcanoDisplay.from_estimator(*at, "cell_type")
    assert np.all(term.log2_fold_change > 0)
    assert term.ax_.get_xlabel() == r"largest $\log_2$ fold change"
    found = int((term.p_adjusted <= 0.05).sum())
    assert found > 0
    assert term.ax_.get_title(loc="left") == f"{found} significant, FDR 5 %"


def test_silent_groups_are_at_the_edge():
    """Genes without counts in one of the groups have an infinite fold change and a p-value."""
    obs = pd.DataFrame({"group": np.repeat(["a", "b"], 100)})
    counts = np.random.default_rng(0).negative_binomial(2, 0.4, size=(200, 5))
    counts[:100, 0] = counts[100:, 1] = counts[:, 2] = 0
    model = make_pipeline(FormulaTransformer("~ group"), NegBinRegressor())
    with pytest.warns(ConvergenceWarning, match="2 separated"):
        model.fit(obs, counts)
    display = VolcanoDisplay.from_estimator(model, obs, counts, ("group", "b", "a"), n_labels=4)
    left, right = (display.points_[f"separated_{name}"].get_xdata() for name in ("down", "up"))
    assert len(left) == len(right) == 1
    assert left < 0 < right
    assert display.ax_.get_title(loc="left").strip().startswith("1 down, 1 up")
    assert display.ax_.get_title(loc="right") == "2 separated, 1 untested (all zero)"
    segments = display.intervals_.get_segments()
    assert len(segments) == 2
    assert np.all(np.isfinite(segments))


def test_shared_axes_show_the_points_of_both(separated, pyplot):
    axes = pyplot.subplots(1, 2, sharex=True)[1]
    wide = VolcanoDisplay.from_table(separated.assign(log2_low=-20.0), ax=axes[0])
    narrow = VolcanoDisplay.from_table(separated.iloc[2:4], ax=axes[1])
    for display in (wide, narrow):
        low, high = display.ax_.get_xlim()
        for line in display.points_.values():
            assert np.all((low < line.get_xdata()) & (line.get_xdata() < high))
