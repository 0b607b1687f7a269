import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.plots import CurveHeatmapDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    return make_counts(
        400, 6, mean="~ pseudotime + cell_type", offset="np.log(size_factor)", random_state=2
    )


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), NegBinRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def test_means_are_predictions_with_other_covariates_fixed(model, data):
    display = CurveHeatmapDisplay.from_estimator(
        model, data.obs, covariate="pseudotime", genes=["gene_3", "gene_1"], grid_resolution=30
    )
    x = data.obs["pseudotime"]
    frame = pd.DataFrame({"pseudotime": np.linspace(x.min(), x.max(), 30)})
    frame["size_factor"] = np.sort(data.obs["size_factor"])[199]  # the lower median of 400
    frame["cell_type"] = data.obs["cell_type"].value_counts().idxmax()
    assert_allclose(display.mean.T, model.predict_dist(frame).mean()[:, [3, 1]], rtol=1e-9)
    assert_array_equal(display.points, frame["pseudotime"])
    for name in ("size_factor", "cell_type"):
        assert display.held[name] == frame[name].iloc[0]
    at = {"cell_type": "c", "size_factor": 2.0}
    chosen = CurveHeatmapDisplay.from_estimator(
        model, data.obs, covariate="pseudotime", grid_resolution=30, at=at
    )
    assert_allclose(chosen.mean.T, model.predict_dist(frame.assign(**at)).mean(), rtol=1e-9)
    assert chosen.genes == list(data.counts.columns)


def test_rows_are_ordered_by_their_peaks_and_scaled():
    points = np.linspace(0, 1, 50)
    peaks = np.array([0.8, 0.2, 0.5, 0.35])
    scale = np.array([1e-3, 1.0, 50.0, 1e4])
    mean = scale[:, None] * np.exp(-20 * np.square(points - peaks[:, None]))
    display = CurveHeatmapDisplay(
        mean=mean, points=points, genes=["d", "a", "c", "b"], covariate="time"
    ).plot()
    assert_array_equal(display.order, [1, 3, 2, 0])
    colours = np.asarray(display.mesh_.get_array())
    assert_allclose(colours, mean[display.order] / mean[display.order].max(axis=1, keepdims=True))
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["a", "b", "c", "d"]
    first, last = display.ax_.transData.transform([[0, 0], [0, 3]])[:, 1]
    assert first > last  # the first row is the upper one


def test_rows_of_the_same_peak_are_ordered_by_their_centre():
    mean = np.array([[4.0, 3.0, 3.0], [4.0, 1.0, 0.0], [4.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    display = CurveHeatmapDisplay(mean=mean, points=[0, 1, 2], genes="abcd", covariate="time")
    assert_array_equal(display.order, [3, 1, 2, 0])
    shown = np.asarray(display.plot().mesh_.get_array())
    assert_array_equal(shown[0], 0.0)  # a gene without counts is not NaN


def test_many_rows_have_no_names():
    mean = np.random.default_rng(0).uniform(size=(300, 5))
    genes = [f"Gene{i}" for i in range(300)]
    display = CurveHeatmapDisplay(mean=mean, points=range(5), genes=genes, covariate="time").plot()
    assert not len(display.ax_.get_yticklabels())
    assert display.figure_.get_size_inches()[1] < 4
    named = CurveHeatmapDisplay(
        mean=mean[:50], points=range(5), genes=genes[:50], covariate="time"
    ).plot()
    named.figure_.draw_without_rendering()
    boxes = [label.get_window_extent() for label in named.ax_.get_yticklabels()]
    assert len(boxes) == 50
    apart = np.diff([(box.y0 + box.y1) / 2 for box in boxes])
    assert np.abs(apart).min() > 0.8 * max(box.height for box in boxes)


def test_colours_are_the_users(model, data):
    display = CurveHeatmapDisplay.from_estimator(
        model, data.obs, covariate="pseudotime", mesh_kwargs={"cmap": "cividis", "vmin": 0.5}
    )
    assert display.mesh_.get_cmap().name == "cividis"
    assert display.mesh_.get_clim() == (0.5, 1.0)
    assert display.scale_.ax.get_ylabel() == "fitted mean / its maximum"


def test_the_median_depth_is_named(model, data):
    def note(fitted=model, obs=data.obs, covariate="pseudotime", **at):
        display = CurveHeatmapDisplay.from_estimator(fitted, obs, covariate=covariate, at=at)
        return display.ax_.get_title(loc="right")

    assert note() == "at the median depth"
    assert note(cell_type="a") == "at the median depth"
    assert note(size_factor=1.5) == ""
    assert note(covariate="size_factor") == ""
    without = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    assert note(without.fit(data.obs, data.counts)) == ""
    frame = pd.DataFrame(
        {
            "mean__Intercept": 1.0,
            "mean__pseudotime": data.obs["pseudotime"],
            "offset__depth": np.log(data.obs["size_factor"]),
        }
    )
    of_frame = NegBinRegressor().fit(frame, data.counts)
    assert note(of_frame, frame, "mean__pseudotime") == "at the median depth"


def test_searches_and_anndata_show_what_their_pipelines_show(model, data):
    expected = CurveHeatmapDisplay.from_estimator(model, data.obs, covariate="pseudotime").mean
    search = GridSearchCV(model, {"formulatransformer__mean": [data.formulas["mean"]]}, cv=2)
    search.fit(data.obs, data.counts)
    adata = AnnData(data.counts.to_numpy().astype(float), obs=data.obs)
    adata.var_names = data.counts.columns
    of_adata = AnnDataRegressor(model).fit(adata)
    for fitted, X in ((search, data.obs), (of_adata, adata)):
        display = CurveHeatmapDisplay.from_estimator(fitted, X, covariate="pseudotime")
        assert_allclose(display.mean, expected, rtol=1e-6)


def test_input_is_checked(model, data):
    def draw(obs=data.obs, covariate="pseudotime", **options):
        CurveHeatmapDisplay.from_estimator(model, obs, covariate=covariate, **options)

    with pytest.raises(ValueError, match="'cell_type' holds levels"):
        draw(covariate="cell_type")
    with pytest.raises(ValueError, match="pseudotme"):
        draw(covariate="pseudotme")
    with pytest.raises(ValueError, match="'pseudotime', which varies"):
        draw(at={"pseudotime": 1.0})
    with pytest.raises(ValueError, match=r"not genes of the fit: \['nope'\]"):
        draw(genes=["nope"])
    with pytest.raises(ValueError, match="grid_resolution"):
        draw(grid_resolution=1)
    with pytest.raises(TypeError, match="X must be a DataFrame"):
        draw(obs=data.obs.to_numpy())
    missing = data.obs.copy()
    missing.iloc[3, missing.columns.get_loc("pseudotime")] = np.nan
    with pytest.raises(ValueError, match="'pseudotime' is missing"):
        draw(obs=missing)
