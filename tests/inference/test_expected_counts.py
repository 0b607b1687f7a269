"""Predictions with errors against the delta method, other parametrisations and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor, inference
from sc_glm.datasets import make_counts
from tests.inference.simulated import COUNTS, DONOR, OBS, N, pipeline

NEW = pd.DataFrame(
    {"pseudotime": [0.1, 0.5, 0.9], "cell_type": ["a", "b", "c"], "size_factor": [1.0, 0.5, 2.0]},
    index=["first", "second", "third"],
)


@pytest.fixture(scope="module")
def inflated():
    data = make_counts(2000, 4, offset=None, zero_inflation="~ pseudotime", random_state=2)
    formulas = {"mean": "~ pseudotime", "zero_inflation": "~ pseudotime", "offset": None}
    counts = data.counts.drop(columns="gene_2")  # its size is infinite
    model = pipeline(ZINBRegressor, **formulas).fit(data.obs, counts)
    assert (model[-1].status_ == "converged").all()
    return model, data.obs, counts


@pytest.mark.parametrize("kind", ["observed", "robust", "cluster"])
def test_errors_are_those_of_the_linear_predictor(model, kind):
    how = {"kind": kind, "groups": DONOR if kind == "cluster" else None}
    found = inference.predictions(model, OBS, COUNTS, NEW, **how)
    covariance = inference.covariance(model, OBS, COUNTS, **how)
    rows = model[:-1].transform(NEW).filter(like="mean__").assign(size=0.0).to_numpy()
    errors = np.sqrt(np.einsum("ni,gij,nj->ng", rows, covariance, rows))
    assert_allclose(found["standard_error"], errors)
    assert_allclose(found["estimate"], model.predict(NEW))
    ratio = found["upper"] / found["estimate"]
    assert_allclose(found["estimate"] / found["lower"], ratio)
    if kind == "observed":
        assert_allclose(np.log(ratio), 1.959964 * errors, rtol=1e-6)
    else:
        assert (np.log(ratio) > 1.96 * errors).all(axis=None)
    assert (found["reason"] == "").all(axis=None)
    for table in found.values():
        assert list(table.index) == list(NEW.index)
        assert list(table.columns) == list(model[-1].target_names_)


def test_a_cell_at_the_reference_has_the_error_of_the_intercept(model):
    cell = pd.DataFrame({"pseudotime": [0.0], "cell_type": ["a"], "size_factor": [1.0]})
    found = inference.predictions(model, OBS, COUNTS, cell)
    intercepts = inference.confidence_intervals(model, OBS, COUNTS)
    of_mean = (intercepts["part"] == "mean") & (intercepts["feature"] == "Intercept")
    for end in ("lower", "estimate", "upper"):
        assert_allclose(np.log(found[end].iloc[0]), intercepts.loc[of_mean, end])


def test_an_offset_scales_and_has_no_error(model):
    one = inference.predictions(model, OBS, COUNTS, NEW)
    two = inference.predictions(model, OBS, COUNTS, NEW.assign(size_factor=2 * NEW.size_factor))
    assert_frame_equal(one["standard_error"], two["standard_error"])
    for end in ("lower", "estimate", "upper"):
        assert_frame_equal(2 * one[end], two[end])


def test_zero_inflation_by_a_numerical_delta_method(inflated):
    model, obs, counts = inflated
    new = pd.DataFrame({"pseudotime": [0.2, 0.8]})
    found = inference.predictions(model, obs, counts, new)
    covariance = inference.covariance(model, obs, counts)
    tables = model[-1].params_
    design = np.column_stack([np.ones(2), new["pseudotime"]])

    def log_expected(coef):
        mean, _, inflation = np.split(coef, np.cumsum([2, 1]))
        return design @ mean - np.log1p(np.exp(design @ inflation))

    for gene, name in enumerate(tables["mean"].columns):
        coef = np.concatenate([table[name] for table in tables.values()])
        steps = 1e-5 * np.eye(len(coef))
        gradient = [(log_expected(coef + h) - log_expected(coef - h)) / 2e-5 for h in steps]
        variance = np.einsum("in,ij,jn->n", gradient, covariance[gene], gradient)
        assert (found["reason"][name] == "").all()
        assert_allclose(found["standard_error"][name], np.sqrt(variance), rtol=1e-6)
    assert_allclose(found["estimate"], model.predict(new))


@pytest.mark.parametrize("part", ["mean", "dispersion", "zero_inflation"])
def test_parts(inflated, part):
    model, obs, counts = inflated
    new = pd.DataFrame({"pseudotime": [0.0]})
    found = inference.predictions(model, obs, counts, new, part=part)
    assert_allclose(found["estimate"], model.predict_params(new)[part])
    errors = inference.standard_errors(model, obs, counts)[part]
    assert_allclose(found["standard_error"].iloc[0], errors.loc["Intercept"])
    assert (found["lower"] < found["estimate"]).all(axis=None)
    assert (found["upper"] > found["estimate"]).all(axis=None)
    if part == "zero_inflation":
        assert (found["upper"] < 1).all(axis=None)


def test_genes_without_zero_inflation_have_the_errors_of_the_smaller_model():
    data = make_counts(400, 5, offset=None, random_state=1)
    formulas = {"mean": "~ pseudotime", "offset": None}
    smaller = pipeline(**formulas).fit(data.obs, data.counts)
    larger = pipeline(ZINBRegressor, **formulas).fit(data.obs, data.counts)
    absent = larger[-1].status_ == "no zero inflation"
    assert absent.any()
    first, second = (
        inference.predictions(model, data.obs, data.counts) for model in (smaller, larger)
    )
    for name in ("estimate", "standard_error", "lower", "upper"):
        assert_allclose(first[name].loc[:, absent], second[name].loc[:, absent], rtol=1e-3)
    assert (second["reason"] == "").all(axis=None)


def test_chosen_genes_and_the_cells_of_the_fit(model):
    all_genes = inference.predictions(model, OBS, COUNTS)
    some = inference.predictions(model, OBS, COUNTS, OBS, genes=["gene_3", "gene_1"])
    for name, table in some.items():
        assert_frame_equal(table, all_genes[name][["gene_3", "gene_1"]])


def test_they_do_not_depend_on_the_reference_level(model):
    releveled = OBS.assign(cell_type=OBS["cell_type"].cat.reorder_categories(["c", "a", "b"]))
    other = pipeline().fit(releveled, COUNTS)
    found = inference.predictions(model, OBS, COUNTS, NEW)
    again = inference.predictions(other, releveled, COUNTS, NEW)
    for name, table in found.items():
        assert_frame_equal(table, again[name], rtol=1e-4)


def test_rows_that_the_fit_does_not_determine_have_no_prediction():
    half = np.where(np.arange(N) % 2, "odd", "even")
    there = ~((OBS["cell_type"] == "b") & (half == "odd")).to_numpy()
    obs, counts = OBS.assign(half=half)[there], COUNTS[there]
    model = pipeline(mean="~ cell_type * half").fit(obs, counts)
    new = pd.DataFrame({"cell_type": ["a", "b"], "half": "odd", "size_factor": 1.0})
    found = inference.predictions(model, obs, counts, new)
    assert (found["reason"].iloc[1] == "aliased").all()
    assert found["estimate"].iloc[1].isna().all()
    assert found["upper"].iloc[1].isna().all()
    assert found["upper"].iloc[0].notna().all()
    counts_of_cells = inference.prediction_intervals(model, obs, counts, new)
    assert (counts_of_cells["reason"].iloc[1] == "aliased").all()
    assert counts_of_cells["upper"].iloc[1].isna().all()
    assert counts_of_cells["upper"].iloc[0].notna().all()


def test_a_level_without_counts_has_a_reason():
    counts = COUNTS.copy()
    counts.iloc[(OBS["cell_type"] == "b").to_numpy(), 0] = 0
    with pytest.warns(ConvergenceWarning, match="separated"):
        model = pipeline().fit(OBS, counts)
    for function in (inference.predictions, inference.prediction_intervals):
        found = function(model, OBS, counts, NEW)
        assert_array_equal(found["reason"]["gene_0"], ["", "separated", ""])
        assert_array_equal(found["upper"]["gene_0"].isna(), [False, True, False])
        assert (found["reason"].drop(columns="gene_0") == "").all(axis=None)
    estimate = inference.predictions(model, OBS, counts, NEW)["estimate"]
    assert estimate.loc["second", "gene_0"] < 1e-6


def test_a_model_without_formulas():
    X = OBS[["pseudotime"]]
    model = NegBinRegressor().fit(X.to_numpy(), COUNTS)
    found = inference.predictions(model, X.to_numpy(), COUNTS, [[0.5]])
    assert_allclose(found["estimate"], model.predict([[0.5]]))
    assert list(found["estimate"].index) == [0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"part": "zero_inflation"}, "no part 'zero_inflation'"),
        ({"level": 0}, "level == 0"),
        ({"genes": "gene_9"}, "not genes of the fit: .*gene_9"),
        ({"X_new": NEW.assign(cell_type="d")}, "cell_type.*'d'"),
        ({"kind": "cluster"}, "needs groups"),
        ({"y": COUNTS + 1}, "must be those of the fit"),
    ],
)
def test_arguments_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.predictions(model, OBS, **{"y": COUNTS, "X_new": NEW, **more})
