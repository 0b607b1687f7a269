import matplotlib as mpl
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm.plots.axes import (
    DATA,
    LEVELS,
    MODEL,
    legend,
    legend_of_names,
    line_style,
    log1p_counts,
    log_log,
    panels,
    point_style,
    style,
    title,
)

pytestmark = pytest.mark.usefixtures("pyplot")


def test_the_number_of_axes_is_that_of_the_panels(pyplot):
    figure, axes = pyplot.subplots(2, 2)
    assert list(panels(axes, "A.plot", (2, 2))) == list(axes.ravel())
    assert list(panels(axes[0, 0], "A.plot")) == [axes[0, 0]]
    with pytest.raises(ValueError, match=r"A.plot draws 4 panel\(s\), but ax holds 1 axes"):
        panels(axes[0, 0], "A.plot", (2, 2))
    with pytest.raises(ValueError, match=r"draws 1 panel\(s\), but ax holds 4 axes"):
        panels(axes, "A.plot")
    assert pyplot.get_fignums() == [figure.number]


def test_abbreviated_properties_have_full_names():
    style = line_style({"c": "red", "ls": "--"}, color="blue", linewidth=2.0)
    assert style == {"color": "red", "linestyle": "--", "linewidth": 2.0}
    assert point_style({"ms": 9}, 10)["markersize"] == 9


def test_many_points_are_rasterised():
    assert not point_style(None, 100)["rasterized"]
    assert point_style(None, 100_000)["rasterized"]


@pytest.mark.parametrize("largest", [0, 1, 4, 10, 11, 300, 1e4, 1e6, 2.0**53])
def test_an_axis_of_counts_shows_zero_and_the_largest(largest, pyplot):
    ax = pyplot.subplots()[1]
    log1p_counts(ax, largest)
    low, high = ax.get_ylim()
    ticks = ax.get_yticks()
    assert low < 0 <= largest < high
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 17
    assert np.all(np.diff(ticks) > 0)
    assert np.all(ticks < high)
    assert len({label.get_text() for label in ax.get_yticklabels()}) == len(ticks)


@pytest.mark.parametrize("values", [[0.3], [2.0, 3.0], [1e-3, 1e5]])
def test_logarithmic_axes_span_a_decade_and_have_several_ticks(values, pyplot):
    ax = pyplot.subplots()[1]
    log_log(ax, np.array(values), np.array(values))
    ax.figure.draw_without_rendering()
    for low, high, axis in ((*ax.get_xlim(), ax.xaxis), (*ax.get_ylim(), ax.yaxis)):
        assert low < min(values) <= max(values) < high
        assert high / low >= 9.99
        ticks = axis.get_majorticklocs()
        assert np.sum((ticks >= low) & (ticks <= high)) >= 2


def test_colours_of_levels_are_distinct():
    rgb = np.array([mpl.colors.to_rgb(color) for color in LEVELS])
    apart = np.abs(rgb[:, None] - rgb).sum(axis=2)[np.triu_indices(len(rgb), 1)]
    assert apart.min() > 0.2
    assert_allclose(rgb.shape, (10, 3))


def test_names_are_written_literally(pyplot):
    """A pair of dollar signs would begin a formula, and an underscore hide a name."""
    names = ["_Rik", "$\\frac{$", "100 %"]
    ax = pyplot.subplots()[1]
    lines = [ax.plot([0, 1], [0, i])[0] for i in range(3)]
    legend_of_names(ax, lines, names, title="$a_$")
    title(ax, names[1], names[1])
    ax.figure.draw_without_rendering()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    colours = [line.get_color() for line in ax.get_legend().get_lines()]
    assert colours == [line.get_color() for line in lines]


@pytest.mark.parametrize(
    ("note", "lines"), [("1 untested", 1), ("100 untested (too few groups)", 2)]
)
def test_a_title_and_its_note_do_not_cover_each_other(note, lines):
    ax = panels(None, "A.plot")[0]
    title(ax, "1000 down, 1000 up, FDR 10 %" if lines == 2 else "10 down", note)
    ax.figure.draw_without_rendering()
    left, right = ax._left_title, ax._right_title
    assert left.get_text().count("\n") + 1 == lines
    upper = left.get_window_extent()
    lowest = upper.y0 + upper.height * (1 - 1 / lines)  # of the line that has letters
    assert lowest > right.get_window_extent().y1 - 1 or upper.x1 < right.get_window_extent().x0


def test_a_title_that_is_not_given_leaves_the_users(pyplot):
    ax = pyplot.subplots(figsize=(1, 1))[1]
    ax.set_title("mine", loc="left")
    title(ax, None, "1000 constant gene(s) not shown")
    assert ax.get_title(loc="left") == "mine"


def test_a_plot_of_the_users_has_the_style_of_the_displays(pyplot):
    with pyplot.style.context(style()):
        ax = pyplot.subplots()[1]
        lines = [ax.plot([0, 1], label="a")[0] for _ in LEVELS]
        assert [line.get_color() for line in lines] == list(LEVELS)
        ax.set_title("left")
        ax.legend()
        theirs = panels(None, "A.plot")[0]
        legend(theirs, handles=lines[:1], labels=["a"])
    plain = pyplot.subplots()[1]
    assert plain.spines["top"].get_visible()  # no other figure is changed
    assert ax.get_title(loc="left") == "left"
    assert_allclose(ax.figure.get_size_inches(), theirs.figure.get_size_inches())
    for side in ("top", "left"):
        spines = ax.spines[side], theirs.spines[side]
        assert spines[0].get_visible() == spines[1].get_visible()
        assert spines[0].get_linewidth() == spines[1].get_linewidth()
    labels = [axes.get_xticklabels()[0].get_fontsize() for axes in (ax, theirs)]
    assert labels[0] == labels[1]
    fonts = [axes.get_legend().get_texts()[0].get_fontsize() for axes in (ax, theirs)]
    assert fonts[0] == fonts[1]


def test_colours_of_data_and_model_are_named_in_the_style(pyplot):
    with pyplot.style.context(style()):
        assert mpl.colors.to_hex("C0") == DATA
        assert mpl.colors.to_hex("C2") == MODEL
