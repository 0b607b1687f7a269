"""Predictions, samples and scores, and rows that the fit does not determine."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.diagnostics import goodness_of_fit, quantile_residuals
from tests.estimators.simulations import BOTH, X_VALID, Y_VALID, dense, design_of, simulated


@BOTH
def test_predictions_agree_with_each_other(regressor):
    data = simulated(offset="np.log(size_factor)")
    X, y = design_of(data), dense(data.counts)
    model = regressor().fit(X, y)
    params, dist = model.predict_params(X), model.predict_dist(X)
    assert list(params) == list(model.params_)
    assert all(values.shape == y.shape for values in params.values())
    assert_allclose(model.predict(X), dist.mean())
    assert_allclose(model.log_prob(X, y), dist.logpmf(y))
    assert model.score(X, y) == pytest.approx(model.log_prob(X, y).mean())
    assert_allclose(model.log_likelihood_, model.log_prob(X, y).sum(axis=0), rtol=1e-9)
    weights = np.arange(len(y), dtype=float)
    expected = np.average(model.log_prob(X, y).mean(axis=1), weights=weights)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)


@BOTH
def test_samples_are_reproducible_and_follow_the_fit(regressor):
    data = simulated(n_genes=2)
    X = design_of(data)
    model = regressor().fit(X, data.counts)
    once = model.sample(X, random_state=1)
    assert once.shape == data.counts.shape
    assert once.dtype == np.int64
    assert_array_equal(once, model.sample(X, random_state=1))
    many = model.sample(X, n_draws=400, random_state=1)
    assert many.shape == (400, *data.counts.shape)
    assert_array_equal(many[0], once)
    error = np.sqrt(model.predict_dist(X).var() / 400)
    assert (np.abs(many.mean(axis=0) - model.predict(X)) < 6 * error).all()


@BOTH
def test_sparse_samples_are_those_of_the_same_seed_in_any_number_of_jobs(regressor):
    data = simulated(n_genes=2, offset="np.log(size_factor)")
    n_copies = 200
    X = pd.concat([design_of(data)] * n_copies, ignore_index=True)
    assert len(X) * 2 > 3 * 2**14  # several blocks of cells
    model = regressor().fit(design_of(data), data.counts)
    expected = model.sample(X, random_state=1)
    for n_jobs in (None, 2):
        counts = model.set_params(n_jobs=n_jobs).sample_sparse(X, random_state=1)
        assert isinstance(counts, sp.csr_array)
        assert_array_equal(counts.toarray(), expected)
        assert_array_equal(model.sample(X, random_state=1), expected)
    assert (model.sample_sparse(X, random_state=2) != counts).nnz > 0
    mean = expected.reshape(n_copies, *data.counts.shape).mean(axis=0)
    dist = model.predict_dist(design_of(data))
    assert (np.abs(mean - dist.mean()) < 6 * np.sqrt(dist.var() / n_copies)).all()


@BOTH
def test_one_gene_gives_vectors(regressor):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 2)), rng.poisson(3, 100)
    model = regressor().fit(X, y)
    assert model.predict(X).shape == (100,)
    assert model.coef_.shape == (2,)
    assert model.sample(X, random_state=0).shape == (100,)
    assert model.sample(X, n_draws=3, random_state=0).shape == (3, 100)
    assert model.log_prob(X, y).shape == (100,)
    assert np.isscalar(model.score(X, y))
    column = regressor().fit(X, y[:, None])
    assert column.predict(X).shape == (100, 1)


@pytest.mark.parametrize(
    "method", ["predict", "predict_params", "predict_dist", "sample", "sample_sparse"]
)
def test_an_unfitted_model_raises(method):
    with pytest.raises(NotFittedError):
        getattr(NegBinRegressor(), method)(X_VALID)


def test_scoring_other_genes_raises():
    model = NegBinRegressor().fit(X_VALID, Y_VALID)
    with pytest.raises(ValueError, match="2 genes"):
        model.score(X_VALID, np.ones((8, 2)))
    with pytest.raises(ValueError, match="n_draws"):
        model.sample(X_VALID, n_draws=0)


def crossed(n=300):
    """Cells of two factors, counts, and which cells are of one combination."""
    rng = np.random.default_rng(4)
    obs = pd.DataFrame(
        {
            "kind": rng.choice(["A", "B", "C"], n),
            "dose": rng.choice(["none", "low", "high"], n),
            "x": rng.normal(size=n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    counts = rng.negative_binomial(2, 0.3, size=(n, 2))
    return obs, counts, ((obs["kind"] == "B") & (obs["dose"] == "high")).to_numpy()


METHODS = {
    "predict_dist": lambda model, X, _: model.predict_dist(X),
    "sample": lambda model, X, _: model.sample(X, random_state=0),
    "sample_sparse": lambda model, X, _: model.sample_sparse(X, random_state=0),
    "log_prob": lambda model, X, y: model.log_prob(X, y),
    "score": lambda model, X, y: model.score(X, y),
    "quantile_residuals": quantile_residuals,
    "goodness_of_fit": goodness_of_fit,
}


CODINGS = [
    "~ kind * dose",
    "~ 0 + kind:dose",
    "~ C(kind, contr.sum) * dose + x",
    "~ C(kind, contr.treatment('B')) * C(dose, contr.helmert)",
]


@pytest.mark.parametrize("part", ["mean", "dispersion"])
@pytest.mark.parametrize("formula", CODINGS)
def test_a_combination_without_cells_raises_in_any_coding(formula, part):
    obs, counts, absent = crossed()
    model = make_pipeline(FormulaTransformer(**{part: formula}), NegBinRegressor())
    model.fit(obs[~absent], counts[~absent])
    words = rf"does not determine the {part} in row cell\d+: no cell of the fit had"
    for method in METHODS.values():
        method(model, obs[~absent], counts[~absent])
        with pytest.raises(ValueError, match=rf"{words}.* Leave such rows out"):
            method(model, obs, counts)
    expected = model.predict_params(obs[~absent])
    label = obs.index[np.flatnonzero(absent)[0]]
    with pytest.warns(UserWarning, match=rf"row {label}: .*{absent.sum()} of 300 rows"):
        params = model.predict_params(obs)
    for own, values in params.items():
        assert_array_equal(np.isnan(values), np.outer(absent & (own == part), [True, True]))
        assert_allclose(values[~absent], expected[own])
    if part == "mean":
        with pytest.warns(UserWarning, match=rf"{words}.* Predictions there are NaN"):
            assert_array_equal(np.isnan(model.predict(obs)), np.outer(absent, [True, True]))
    else:
        assert np.isfinite(model.predict(obs)).all()


def test_cells_of_weight_zero_do_not_make_rows_estimable():
    obs, counts, absent = crossed()
    weights = np.where(absent, 0.0, 1.0)
    model = make_pipeline(FormulaTransformer("~ kind * dose"), NegBinRegressor())
    model.fit(obs, counts, negbinregressor__sample_weight=weights)
    with pytest.warns(UserWarning, match="does not determine the mean"):
        assert_array_equal(np.isnan(model.predict(obs)[:, 0]), absent)
    few = make_pipeline(FormulaTransformer("~ kind * dose"), NegBinRegressor())
    few.fit(obs[~absent], counts[~absent])
    design = model[0].transform(obs)
    score = model[-1].score(design, counts, sample_weight=weights)
    assert score == pytest.approx(few.score(obs[~absent], counts[~absent]))


def test_rows_that_separate_confounded_columns_raise():
    """Batch and condition are one; a row with one and not the other has no prediction."""
    rng = np.random.default_rng(0)
    batch = np.repeat([0.0, 1.0], 50)
    X = pd.DataFrame({"batch": batch, "stim": batch, "x": rng.normal(size=100)})
    model = NegBinRegressor().fit(X, rng.poisson(3, 100))
    ends = X.iloc[[0, -1]]
    assert np.isfinite(model.predict(ends)).all()
    with pytest.raises(ValueError, match=r"in row 0: .* like batch = 0, stim = 1\. Leave"):
        model.sample(ends.assign(stim=1.0))
    plain = NegBinRegressor().fit(X.to_numpy(), rng.poisson(3, 100))
    with pytest.raises(ValueError, match=r"in row 1: .* like x0 = 0, x1 = 1\. Leave"):
        plain.sample([[0, 0, 1], [0, 1, 1.0]])


def test_a_penalty_makes_all_rows_estimable():
    obs, counts, absent = crossed()
    design = FormulaTransformer("~ kind * dose")
    model = make_pipeline(design, NegBinRegressor(alpha=0.1)).fit(obs[~absent], counts[~absent])
    assert np.isfinite(model.predict(obs)).all()
    model.set_params(negbinregressor__alpha={"dispersion": 0.1}).fit(obs[~absent], counts[~absent])
    with pytest.raises(ValueError, match="does not determine the mean"):
        model.sample(obs)


@given(exponents=st.lists(st.integers(-6, 6), min_size=5, max_size=5))
@settings(max_examples=10, deadline=None)
def test_rows_of_the_fit_are_estimable(exponents):
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, 60))
    X = np.column_stack([x, z, x + z, 3 * x - 2, np.zeros(60)]) * 10.0 ** np.array(exponents)
    model = NegBinRegressor(max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, rng.poisson(3, 60))
    assert model.predict(X).shape == (60,)
    beyond = np.column_stack([x, z, x + z, 3 * x - 2, np.zeros(60)]) * 1e3
    beyond[:, 3] = 3 * beyond[:, 0] - 2
    model.predict(beyond * 10.0 ** np.array(exponents))


def test_a_fold_without_a_combination_has_no_score():
    obs, counts, absent = crossed()
    folds = [(np.flatnonzero(~absent), np.flatnonzero(absent)), (np.arange(150), np.arange(20))]
    search = GridSearchCV(
        make_pipeline(FormulaTransformer(), NegBinRegressor()),
        {"formulatransformer__mean": ["~ kind + dose", "~ kind * dose"]},
        cv=folds,
    )
    with (
        pytest.warns(UserWarning, match="test scores are non-finite"),
        pytest.warns(UserWarning, match="does not determine the mean"),
    ):
        search.fit(obs, counts)
    scores = [search.cv_results_[f"split{k}_test_score"] for k in (0, 1)]
    assert_array_equal(np.isnan(scores), [[False, True], [False, False]])
    assert search.best_params_ == {"formulatransformer__mean": "~ kind + dose"}
