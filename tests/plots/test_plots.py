"""What all displays share: whose axes they draw on, and what they leave alone."""

import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline, plots
from sc_glm.datasets import make_counts
from sc_glm.plots import (
    CovariateDisplay,
    CurveHeatmapDisplay,
    MeanFoldChangeDisplay,
    MeanVarianceDisplay,
    PValueDisplay,
    QuantileQuantileDisplay,
    RootogramDisplay,
    SimulatedSummariesDisplay,
    VolcanoDisplay,
)

OPTIONS = {
    CovariateDisplay: {"gene": "gene_1", "covariate": "pseudotime"},
    CurveHeatmapDisplay: {"covariate": "pseudotime"},
    MeanFoldChangeDisplay: {"contrast": "pseudotime"},
    MeanVarianceDisplay: {},
    PValueDisplay: {"contrast": "pseudotime"},
    QuantileQuantileDisplay: {"random_state": 0},
    RootogramDisplay: {"genes": ["gene_1", "gene_2"]},
    SimulatedSummariesDisplay: {"random_state": 0},
    VolcanoDisplay: {"contrast": "pseudotime"},
}
STYLES = dict.fromkeys(OPTIONS, "line_kwargs") | {
    CurveHeatmapDisplay: "mesh_kwargs",
    PValueDisplay: "bar_kwargs",
    RootogramDisplay: "bar_kwargs",
}
OF_TESTS = MeanFoldChangeDisplay, PValueDisplay, VolcanoDisplay


def each(displays):
    return pytest.mark.parametrize("display", displays, ids=lambda display: display.__name__)


every_display = each(OPTIONS)
# The others leave the counts to the test, which has to be of the counts of the fit.
of_counts = each([display for display in OPTIONS if display not in OF_TESTS])
with_lines = each([display for display in OPTIONS if display is not CurveHeatmapDisplay])
pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    return make_counts(200, 5, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), NegBinRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def arrays(display):
    """All that a display was computed to hold, as arrays."""
    found = {}
    for name, value in vars(display).items():
        if name.endswith("_"):
            continue
        if isinstance(value, dict):
            found |= {f"{name}.{key}": np.asarray(part) for key, part in value.items()}
        else:
            found[name] = np.asarray(value)
    return found


def test_public_names():
    displays = {display.__name__ for display in OPTIONS}
    assert set(plots.__all__) == displays | {"style"}


@every_display
def test_a_new_figure_is_one(display, model, data, pyplot):
    drawn = display.from_estimator(model, data.obs, data.counts, **OPTIONS[display])
    assert pyplot.get_fignums() == [drawn.figure_.number]
    for ax in np.ravel(drawn.ax_):
        assert ax.figure is drawn.figure_
        assert ax.get_xlabel()
        assert ax.get_ylabel()
        assert ax.has_data()


@every_display
def test_the_given_axes_are_drawn_on_and_nothing_else(display, model, data, pyplot):
    n_panels = 4 if display is SimulatedSummariesDisplay else 1
    figure, axes = pyplot.subplots(1, n_panels + 1)
    given = axes[:n_panels] if n_panels > 1 else axes[0]
    drawn = display.from_estimator(model, data.obs, data.counts, ax=given, **OPTIONS[display])
    assert pyplot.get_fignums() == [figure.number]
    assert figure.axes == list(axes)
    assert drawn.figure_ is figure
    assert list(np.ravel(drawn.ax_)) == list(np.ravel(given))
    assert not axes[-1].has_data()


@every_display
def test_a_display_can_be_drawn_again(display, model, data, pyplot):
    first = display.from_estimator(model, data.obs, data.counts, **OPTIONS[display])
    held, axes = arrays(first), first.ax_
    second = first.plot()
    assert second is first
    assert len(pyplot.get_fignums()) == 2
    assert list(np.ravel(second.ax_)) != list(np.ravel(axes))
    assert arrays(second).keys() == held.keys()
    for name, value in arrays(second).items():
        assert_array_equal(value, held[name], err_msg=name)


@every_display
def test_nothing_of_the_user_is_changed(display, model, data):
    rc, obs, counts = dict(mpl.rcParams), data.obs.copy(), data.counts.copy()
    style = {"alpha": 0.3}
    options = OPTIONS[display] | {STYLES[display]: style}
    display.from_estimator(model, data.obs, data.counts, **options)
    assert dict(mpl.rcParams) == rc
    assert_frame_equal(data.obs, obs)
    assert_frame_equal(data.counts, counts)
    assert style == {"alpha": 0.3}


@of_counts
def test_sparse_counts_show_the_same(display, model, data):
    dense = display.from_estimator(model, data.obs, data.counts, **OPTIONS[display])
    matrix = sp.csr_array(data.counts.to_numpy())
    sparse = display.from_estimator(model, data.obs, matrix, **OPTIONS[display])
    for name, value in arrays(sparse).items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(value, arrays(dense)[name], rtol=1e-9, err_msg=name)
        else:
            assert_array_equal(value, arrays(dense)[name], err_msg=name)


@with_lines
def test_the_style_is_the_users(display, model, data):
    options = OPTIONS[display] | {STYLES[display]: {"color": "#123456", "alpha": 0.25}}
    drawn = display.from_estimator(model, data.obs, data.counts, **options)
    artists = [artist for ax in np.ravel(drawn.ax_) for artist in (*ax.lines, *ax.patches)]
    colors = [
        getattr(artist, "get_color", getattr(artist, "get_facecolor", None))() for artist in artists
    ]
    mine = [
        artist
        for artist, color in zip(artists, colors, strict=True)
        if mpl.colors.to_hex(color) == "#123456"
    ]
    assert mine
    assert {artist.get_alpha() for artist in mine} == {0.25}


@every_display
def test_without_matplotlib_it_says_what_to_install(display, model, data, monkeypatch):
    for name in list(sys.modules):
        if name.split(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    message = rf"{display.__name__}.from_estimator needs matplotlib.*'sc_glm\[plots\]'"
    with pytest.raises(ImportError, match=message):
        display.from_estimator(model, data.obs, data.counts, **OPTIONS[display])


@of_counts
def test_all_genes_without_counts(display, data, model):
    """Nothing of them has a place on a logarithmic axis; the picture is drawn all the same."""
    counts = pd.DataFrame(0, index=data.counts.index, columns=data.counts.columns)
    drawn = display.from_estimator(model, data.obs, counts, **OPTIONS[display])
    drawn.figure_.draw_without_rendering()


@with_lines
def test_text_is_visible_on_a_dark_background(display, model, data, pyplot):
    with pyplot.style.context("dark_background"):
        drawn = display.from_estimator(model, data.obs, data.counts, **OPTIONS[display])
    for ax in np.ravel(drawn.ax_):
        colours = [mpl.colors.to_rgb(line.get_color()) for line in ax.get_lines()]
        assert len(colours) > 0
        assert min(max(colour) for colour in colours) > 0.3


@each([display for display in OPTIONS if display not in (CovariateDisplay, CurveHeatmapDisplay)])
def test_weights_are_repeated_cells(display, data):
    weights = pd.Series(np.random.default_rng(0).integers(0, 3, 200), index=data.obs.index)
    rows = np.repeat(np.arange(200), weights)
    model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    model.fit(data.obs, data.counts, negbinregressor__sample_weight=weights)
    at = model, data.obs, data.counts
    drawn = display.from_estimator(*at, sample_weight=weights, **OPTIONS[display])
    repeated = model, data.obs.iloc[rows], data.counts.iloc[rows]
    expected = arrays(display.from_estimator(*repeated, **OPTIONS[display]))
    for name, values in arrays(drawn).items():
        if values.dtype.kind == "f":
            assert_allclose(values, expected[name], rtol=1e-5, atol=1e-9, err_msg=name)
        else:
            assert_array_equal(values, expected[name])
    # Scaled weights have the same shapes of everything that is no number of cells.
    if display in (MeanVarianceDisplay, SimulatedSummariesDisplay):
        half = display.from_estimator(*at, sample_weight=weights / 2, **OPTIONS[display])
        for name, values in arrays(half).items():
            if "simulated" not in name:
                assert_allclose(values, arrays(drawn)[name], rtol=1e-9, err_msg=name)
    with pytest.raises(ValueError, match="rows of sample_weight"):
        display.from_estimator(*at, sample_weight=weights[::-1], **OPTIONS[display])
