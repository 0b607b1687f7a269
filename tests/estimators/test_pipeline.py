"""The pipeline: scikit-learn's own, and the methods of a count distribution."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.pipeline import Pipeline as StockPipeline
from sklearn.preprocessing import StandardScaler

from sc_glm import (
    FormulaTransformer,
    NegBinRegressor,
    Pipeline,
    ZINBRegressor,
    inference,
    make_pipeline,
)
from sc_glm.datasets import make_counts


@pytest.fixture(scope="module")
def data():
    return make_counts(
        120, 3, mean="~ pseudotime", dispersion="~ cell_type", zero_inflation="~ 1", random_state=0
    )


@pytest.fixture(scope="module")
def model(data):
    return make_pipeline(FormulaTransformer(**data.formulas), ZINBRegressor()).fit(
        data.obs, data.counts
    )


def test_methods_are_those_of_the_last_step(model, data):
    X = model[:-1].transform(data.obs)
    last = model[-1]
    assert_array_equal(model.sample(data.obs, random_state=0), last.sample(X, random_state=0))
    assert model.sample(data.obs, n_draws=2, random_state=0).shape == (2, *data.counts.shape)
    sparse = model.sample_sparse(data.obs, random_state=0)
    assert_array_equal(sparse.toarray(), model.sample(data.obs, random_state=0))
    assert_array_equal(model.log_prob(data.obs, data.counts), last.log_prob(X, data.counts))
    assert_array_equal(model.predict_dist(data.obs).mu, last.predict_dist(X).mu)
    for part, values in model.predict_params(data.obs).items():
        assert_array_equal(values, last.predict_params(X)[part])
    assert model.params_ is last.params_


def test_it_is_a_scikit_learn_pipeline(model, data):
    assert isinstance(model, StockPipeline)
    assert list(model.named_steps) == ["formulatransformer", "zinbregressor"]
    stock = StockPipeline(clone(model).steps).fit(data.obs, data.counts)
    assert_array_equal(stock.predict(data.obs), model.predict(data.obs))
    assert stock.score(data.obs, data.counts) == model.score(data.obs, data.counts)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert_array_equal(again.predict(data.obs), model.predict(data.obs))


def test_a_slice_keeps_the_methods(model, data):
    assert isinstance(model[1:], Pipeline)
    X = model[:-1].transform(data.obs)
    assert_allclose(model[1:].predict(X), model.predict(data.obs))


def test_other_transformers_may_come_first(data):
    X = data.obs[["pseudotime"]].to_numpy()
    model = make_pipeline(StandardScaler(), NegBinRegressor()).fit(X, data.counts)
    assert model.sample(X, random_state=0).shape == data.counts.shape


def test_one_row_and_permuted_rows(model, data):
    whole = model.predict(data.obs)
    assert_allclose(model.predict(data.obs.iloc[[7]]), whole[[7]])
    rows = np.random.default_rng(0).permutation(len(whole))
    assert_allclose(model.predict(data.obs.iloc[rows]), whole[rows])


def test_methods_that_the_last_step_lacks_are_absent():
    model = make_pipeline(StandardScaler(), DummyRegressor())
    methods = ("sample", "sample_sparse", "predict_params", "predict_dist", "log_prob", "summary")
    methods = (*methods, "params_")
    for method in methods:
        assert not hasattr(model, method)


def test_an_unfitted_pipeline_raises(data):
    model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    with pytest.raises(NotFittedError):
        model.sample(data.obs)


def test_summary_is_that_of_the_last_step(model):
    assert_frame_equal(model.summary(), model[-1].summary())


@pytest.mark.parametrize("step", ["scaler", "columns"])
def test_steps_that_make_frames_may_come_before_a_formula(data, step):
    scaler = StandardScaler()
    if step == "columns":
        kept = ("kept", "passthrough", ["cell_type"])
        scaler = ColumnTransformer(
            [("scaled", scaler, ["pseudotime"]), kept], verbose_feature_names_out=False
        )
    formula = "~ pseudotime" + " + cell_type" * (step == "columns")
    obs = data.obs if step == "columns" else data.obs[["pseudotime"]]
    model = make_pipeline(scaler, FormulaTransformer(formula), NegBinRegressor())
    model.set_output(transform="pandas").fit(obs, data.counts)
    plain = make_pipeline(FormulaTransformer(formula), NegBinRegressor()).fit(obs, data.counts)
    assert list(model.params_["mean"].index) == list(plain.params_["mean"].index)
    assert_allclose(model.predict(obs), plain.predict(obs), rtol=1e-3)


def test_labels_in_another_order_raise_even_if_a_step_drops_labels(data):
    obs = data.obs[["pseudotime"]].set_axis(range(10, 10 + len(data.obs)))
    obs = obs.sample(frac=1, random_state=1)
    counts = data.counts.set_axis(sorted(obs.index))
    weights = pd.Series(1.0, index=counts.index)
    model = make_pipeline(StandardScaler(), NegBinRegressor())
    message = r"The rows of {} have the labels of X in another order: row \d+ has \d+, but \d+ in X"
    with pytest.raises(ValueError, match=message.format("y")):
        model.fit(obs, counts)
    name = "negbinregressor__sample_weight"
    with pytest.raises(ValueError, match=message.format(name)):
        model.fit(obs, counts.loc[obs.index], **{name: weights})
    model.fit(obs, counts.loc[obs.index], **{name: weights.loc[obs.index]})
    for method in (model.score, model.log_prob):
        with pytest.raises(ValueError, match=message.format("y")):
            method(obs, counts)
    with pytest.raises(ValueError, match=message.format("sample_weight")):
        model.score(obs, counts.loc[obs.index], sample_weight=weights)
    assert np.isfinite(model.score(obs, counts.to_numpy()))
    train, test, y_train, y_test = train_test_split(obs, counts.loc[obs.index], random_state=0)
    model.fit(train, y_train).score(test, y_test)
    model.fit(train, y_train.reset_index(drop=True)).score(test, y_test.reset_index(drop=True))


def of_polars(frame):
    return pl.DataFrame({str(name): frame[name].to_list() for name in frame})


def test_polars_and_pandas_input_give_the_same_fit(data):
    """Also levels, names of genes and everything that is asked of the fit."""
    obs = data.obs.assign(cell_type=data.obs["cell_type"].astype(str)).reset_index(drop=True)
    counts = data.counts.reset_index(drop=True)
    pipeline = make_pipeline(FormulaTransformer("~ pseudotime + cell_type"), NegBinRegressor())
    expected = clone(pipeline).fit(obs, counts)
    cells, y = of_polars(obs), of_polars(counts)
    model = clone(pipeline).fit(cells, y)
    assert list(model.params_["mean"]) == list(counts)
    for part, table in expected.params_.items():
        assert_frame_equal(model.params_[part], table)
    assert_array_equal(model.predict(cells), expected.predict(obs))
    assert_array_equal(cross_val_score(pipeline, cells, y), cross_val_score(pipeline, obs, counts))
    assert_frame_equal(
        inference.wald_test(model, cells, y, "pseudotime = 0"),
        inference.wald_test(expected, obs, counts, "pseudotime = 0"),
    )
    with pytest.raises(ValueError, match="y's genes are not those of the fit"):
        model.score(cells, y.select(reversed(y.columns)))
    one = NegBinRegressor().fit(cells.select("pseudotime"), y["gene_0"])
    assert list(one.target_names_) == ["gene_0"]
    assert list(one.params_["mean"].index) == ["Intercept", "pseudotime"]


def test_an_enum_of_polars_keeps_the_order_of_its_levels():
    levels = ["c", "a", "b"]
    enum = pl.Series("kind", ["a", "b", "c", "a"] * 30, dtype=pl.Enum(levels))
    columns = FormulaTransformer("~ kind").fit(pl.DataFrame([enum])).get_feature_names_out()
    assert list(columns) == ["mean__Intercept", "mean__kind[T.a]", "mean__kind[T.b]"]


def test_a_null_of_polars_is_a_missing_value():
    cells = pl.DataFrame({"x": [1.0, None, 3.0]})
    with pytest.raises(ValueError, match=r"column 'x' is missing .* in row 1"):
        FormulaTransformer("~ x").fit(cells)


@pytest.mark.parametrize("container", ["polars", "pandas", "default"])
def test_output_of_each_container_fits_the_same(data, container):
    pipeline = make_pipeline(FormulaTransformer(**data.formulas), ZINBRegressor())
    expected = clone(pipeline).fit(data.obs, data.counts)
    model = clone(pipeline).set_output(transform=container).fit(data.obs, data.counts)
    design = model[:-1].transform(data.obs)
    assert isinstance(design, pl.DataFrame if container == "polars" else pd.DataFrame)
    assert list(design.columns) == list(model[0].get_feature_names_out())
    assert_array_equal(model.predict(data.obs), expected.predict(data.obs))
