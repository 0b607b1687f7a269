import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.plots import CovariateDisplay

pytestmark = pytest.mark.usefixtures("pyplot")


@pytest.fixture(scope="module")
def data():
    return make_counts(
        400,
        3,
        mean="~ pseudotime + cell_type + batch",
        zero_inflation="~ 1",
        offset="np.log(size_factor)",
        random_state=2,
    )


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), ZINBRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def predicted(model, frame, gene, quantiles=(0.05, 0.95)):
    dist = model.predict_dist(frame)[:, gene]
    return {"mean": dist.mean()} | {
        name: dist.ppf(q) for name, q in zip(("lower", "upper"), quantiles, strict=True)
    }


def check_curves(curves, expected):
    for name, values in expected.items():
        assert_allclose(curves[name], values, rtol=1e-9, err_msg=name)


def test_curves_are_predictions_with_other_covariates_fixed(model, data):
    display = CovariateDisplay.from_estimator(
        model, data.obs, data.counts, gene="gene_1", covariate="pseudotime", grid_resolution=30
    )
    x = data.obs["pseudotime"]
    frame = pd.DataFrame({"pseudotime": np.linspace(x.min(), x.max(), 30)})
    frame["size_factor"] = np.sort(data.obs["size_factor"])[199]  # the lower median of 400
    frame["cell_type"] = data.obs["cell_type"].value_counts().idxmax()
    frame["batch"] = "x"  # as common as y, and before it
    check_curves(display.curves, predicted(model, frame, 1))
    assert display.held == frame.drop(columns="pseudotime").iloc[0].to_dict()


def test_values_may_be_chosen(model, data):
    at = {"batch": "y", "cell_type": "c", "size_factor": 2.0}
    display = CovariateDisplay.from_estimator(
        model,
        data.obs,
        data.counts,
        gene="gene_1",
        covariate="pseudotime",
        at=at,
        quantiles=(0.25, 0.75),
    )
    assert len(display.curves) == 100
    frame = display.curves[["covariate"]].set_axis(["pseudotime"], axis=1).assign(**at)
    check_curves(display.curves, predicted(model, frame, 1, (0.25, 0.75)))
    assert display.held == at
    assert at == {"batch": "y", "cell_type": "c", "size_factor": 2.0}


def test_artists_hold_cells_and_curves(model, data):
    display = CovariateDisplay.from_estimator(
        model, data.obs, data.counts, gene="gene_2", covariate="pseudotime"
    )
    cells = np.c_[data.obs["pseudotime"], data.counts["gene_2"]]
    assert_array_equal(display.points_[0].get_xydata(), cells)
    curve = display.curves[["covariate", "mean"]]
    assert_array_equal(display.lines_[0].get_xydata(), curve)
    corners = display.bands_[0].get_paths()[0].vertices[:, 1]
    assert_allclose(np.unique(corners), np.unique(display.curves[["lower", "upper"]]))
    assert display.ax_.get_xlabel() == "pseudotime"
    assert display.ax_.get_title(loc="left") == "gene_2"
    assert display.ax_.get_ylim()[1] > data.counts["gene_2"].max()


def test_each_level_has_a_curve_where_it_has_cells(model, data):
    obs = data.obs.query("cell_type != 'a' or pseudotime < 0.5")
    counts = data.counts.loc[obs.index]
    display = CovariateDisplay.from_estimator(
        model, obs, counts, gene="gene_0", covariate="pseudotime", by="cell_type"
    )
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["a", "b", "c"]
    for level, points, line in zip("abc", display.points_, display.lines_, strict=True):
        rows = obs["cell_type"] == level
        x = obs.loc[rows, "pseudotime"]
        assert_array_equal(points.get_xydata(), np.c_[x, counts.loc[rows, "gene_0"]])
        assert_allclose(line.get_xdata()[[0, -1]], [x.min(), x.max()])
        frame = pd.DataFrame({"pseudotime": line.get_xdata(), "cell_type": level})
        frame = frame.assign(**display.held)
        assert_allclose(line.get_ydata(), predicted(model, frame, 0)["mean"])
    assert len({line.get_color() for line in display.lines_}) == 3


def test_levels_of_a_covariate_are_dodged(model, data):
    display = CovariateDisplay.from_estimator(
        model, data.obs, data.counts, gene="gene_0", covariate="cell_type", by="batch"
    )
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["a", "b", "c"]
    centres = []
    for batch, points, line in zip("xy", display.points_, display.lines_, strict=True):
        frame = pd.DataFrame({"cell_type": list("abc"), "batch": batch}).assign(**display.held)
        assert_allclose(line.get_ydata(), predicted(model, frame, 0)["mean"])
        rows = data.obs["batch"] == batch
        assert_array_equal(points.get_ydata(), data.counts.loc[rows, "gene_0"])
        position = data.obs.loc[rows, "cell_type"].cat.codes
        assert np.abs(points.get_xdata() - line.get_xdata()[position]).max() < 0.2
        centres.append(line.get_xdata())
    assert_allclose(np.mean(centres, axis=0), [0, 1, 2], atol=1e-12)
    assert_allclose(centres[1] - centres[0], 0.4)


def test_levels_without_cells_are_not_drawn(model, data):
    obs = data.obs[data.obs["cell_type"] != "b"]
    counts = data.counts.loc[obs.index]
    options = {"gene": "gene_0", "by": "cell_type"}
    by = CovariateDisplay.from_estimator(model, obs, counts, covariate="pseudotime", **options)
    assert [line.get_label() for line in by.lines_] == ["a", "c"]
    options = {"gene": "gene_0", "covariate": "cell_type"}
    along = CovariateDisplay.from_estimator(model, obs, counts, **options)
    assert [text.get_text() for text in along.ax_.get_xticklabels()] == ["a", "c"]
    assert list(data.obs["cell_type"].cat.categories) == ["a", "b", "c"]


def test_every_form_of_a_model_is_the_same(model, data):
    options = {"gene": "gene_1", "covariate": "pseudotime", "by": "batch"}
    expected = CovariateDisplay.from_estimator(model, data.obs, data.counts, **options).curves
    adata = AnnData(sp.csr_matrix(data.counts), obs=data.obs)
    adata.var_names = data.counts.columns
    of_adata = AnnDataRegressor(model)
    search = GridSearchCV(of_adata, {"model__zinbregressor__tol": [1e-6]}, cv=2)
    for fitted in (of_adata.fit(adata), search.fit(adata)):
        found = CovariateDisplay.from_estimator(fitted, adata, **options)
        check_curves(found.curves, expected[["mean", "lower", "upper"]])
    plain = NegBinRegressor().fit(data.obs[["pseudotime", "size_factor"]], data.counts)
    display = CovariateDisplay.from_estimator(
        plain,
        data.obs[["pseudotime", "size_factor"]],
        data.counts,
        gene="gene_1",
        covariate="size_factor",
    )
    frame = pd.DataFrame(
        {"pseudotime": display.held["pseudotime"], "size_factor": display.curves["covariate"]}
    )
    check_curves(display.curves, predicted(plain, frame, 1))


def test_numbers_that_are_levels_are_fixed_at_one_of_them():
    """Of two batches with as many cells each, the median is neither."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"x": rng.normal(size=60), "batch": np.repeat([1, 2], 30)})
    obs["treated"] = rng.uniform(size=60) < 0.3
    counts = pd.DataFrame({"g": rng.poisson(3, 60)})
    model = make_pipeline(FormulaTransformer("~ x + C(batch) + treated"), NegBinRegressor())
    model.fit(obs, counts)
    display = CovariateDisplay.from_estimator(model, obs, counts, gene="g", covariate="x")
    assert display.held == {"batch": 1, "treated": False}
    display = CovariateDisplay.from_estimator(model, obs, counts, gene="g", covariate="treated")
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["False", "True"]


def test_invalid_arguments_raise(model, data):
    def draw(X=data.obs, y=data.counts, *, gene="gene_0", covariate="pseudotime", **options):
        CovariateDisplay.from_estimator(model, X, y, gene=gene, covariate=covariate, **options)

    with pytest.raises(ValueError, match="X has no column 'time'"):
        draw(covariate="time")
    with pytest.raises(ValueError, match="X has no column 'donor'"):
        draw(by="donor")
    with pytest.raises(ValueError, match="X has no column 'donor'"):
        draw(at={"donor": 1})
    with pytest.raises(ValueError, match="at has a value for 'batch', which varies"):
        draw(by="batch", at={"batch": "x"})
    with pytest.raises(ValueError, match="same column, 'pseudotime'"):
        draw(by="pseudotime")
    for quantiles in ((0.0, 0.5), (0.6, 0.4), (0.5, 95), 0.9, [0.9], "ab", (0.1, 0.5, 0.9)):
        with pytest.raises(ValueError, match="quantiles must be two probabilities"):
            draw(quantiles=quantiles)
    with pytest.raises(ValueError, match="grid_resolution == 0, must be >= 2"):
        draw(grid_resolution=0)
    with pytest.raises(TypeError, match="grid_resolution must be an instance of int"):
        draw(grid_resolution="a")
    with pytest.raises(ValueError, match="unknown level 'z'"):
        draw(at={"batch": "z"})
    with pytest.raises(ValueError, match=r"not genes of the fit: \['gene_7'\]"):
        draw(gene="gene_7")
    cells = data.obs.assign(cell=data.obs.index)
    with pytest.raises(ValueError, match="by='cell' has 400 levels, more than the 10 colours"):
        draw(cells, by="cell")
    cells = data.obs.assign(donor=pd.Categorical([None] + ["d"] * 399))
    with pytest.raises(ValueError, match=r"column 'donor' is missing \(nan\) in row 'cell_0'"):
        draw(cells, by="donor")
    plain = NegBinRegressor().fit(np.zeros((4, 1)), [1, 2, 3, 4])
    with pytest.raises(TypeError, match=r"X must be a DataFrame.*not ndarray"):
        CovariateDisplay.from_estimator(
            plain, np.zeros((4, 1)), [1, 2, 3, 4], gene="y0", covariate="x0"
        )


def test_names_are_written_literally(data):
    """A pair of dollar signs would begin a formula, and an underscore hide a level."""
    counts = data.counts.set_axis(["$\\frac{$", "b", "c"], axis=1)
    levels = {"a": "_Rik", "b": "$^$", "c": "c"}
    obs = pd.DataFrame({"$_$": data.obs["cell_type"].map(levels), "batch$": data.obs["batch"]})
    model = make_pipeline(FormulaTransformer("~ 1"), NegBinRegressor()).fit(obs, counts)
    for covariate, by in (("$_$", "batch$"), ("batch$", "$_$")):
        display = CovariateDisplay.from_estimator(
            model, obs, counts, gene="$\\frac{$", covariate=covariate, by=by
        )
        display.figure_.draw_without_rendering()
        assert display.ax_.get_xlabel() == covariate
        assert display.ax_.get_title(loc="left") == "$\\frac{$"
        shown = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert shown == list(obs[by].cat.categories)


@pytest.mark.parametrize(("size", "rotated"), [(6, False), (24, True)])
def test_names_of_categories_do_not_cover_each_other(size, rotated, data):
    obs = data.obs.assign(
        cell_type=data.obs["cell_type"].cat.rename_categories(["Ngn3 low", "Ngn3 high", "Beta"])
    )
    model = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    model.fit(obs, data.counts)
    with mpl.rc_context({"font.size": size}):
        display = CovariateDisplay.from_estimator(
            model, obs, data.counts, gene="gene_0", covariate="cell_type"
        )
    assert [label.get_rotation() != 0 for label in display.ax_.get_xticklabels()] == [rotated] * 3


def coded():
    """Cells whose batch and dose are numbers, some of which no cell has."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"batch": rng.choice([1, 2, 4], 200), "dose": rng.choice([0.1, 1, 10], 200)})
    obs["x"] = rng.normal(size=200)
    return obs, rng.poisson(obs["batch"].to_numpy()[:, None], (200, 2))


def test_numbers_that_the_formula_makes_categorical_are_levels():
    obs, y = coded()
    steps = FormulaTransformer("~ C(batch) + C(dose) + x"), NegBinRegressor()
    model = make_pipeline(*steps).fit(obs, y)
    options = {"model": model, "X": obs, "y": y, "gene": "y0"}
    for covariate, levels in {"batch": [1, 2, 4], "dose": [0.1, 1.0, 10.0]}.items():
        display = CovariateDisplay.from_estimator(**options, covariate=covariate)
        assert list(display.curves["covariate"]) == levels
        ticks = [label.get_text() for label in display.ax_.get_xticklabels()]
        assert ticks == [str(level) for level in levels]
        frame = pd.DataFrame({covariate: levels}).assign(**display.held)
        check_curves(display.curves, predicted(model, frame, 0))
    each = CovariateDisplay.from_estimator(**options, covariate="batch", by="dose")
    assert len(each.curves) == 9
    beside = CovariateDisplay.from_estimator(**options, covariate="x", by="batch")
    assert [len(line.get_xdata()) for line in beside.lines_] == [100] * 3
    # Of the columns that are held, some cell has the value.
    for name, value in beside.held.items():
        assert value in obs[name].to_numpy()


def test_numeric_covariates_are_numbers():
    obs, y = coded()
    model = make_pipeline(FormulaTransformer("~ I(batch) + x"), NegBinRegressor()).fit(obs, y)
    options = {"model": model, "y": y, "gene": "y0", "covariate": "batch"}
    assert len(CovariateDisplay.from_estimator(X=obs, **options).curves) == 100
    alone = obs.assign(batch=2)
    assert CovariateDisplay.from_estimator(X=alone, **options).curves["covariate"].unique() == [2]


def test_the_median_depth_is_named(model, data):
    """The fit is at the median of the offset's columns, unless the user chooses their values."""

    def note(**options):
        options = {"gene": "gene_1", "covariate": "pseudotime"} | options
        display = CovariateDisplay.from_estimator(model, data.obs, data.counts, **options)
        assert display.ax_.get_ylabel() == "count (log1p scale)"
        return display.ax_.get_title(loc="right")

    assert note() == "fit at the median depth"
    assert note(at={"size_factor": 2.0}) == ""
    assert note(covariate="size_factor") == ""
