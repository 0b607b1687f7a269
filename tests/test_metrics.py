import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.metrics import d2_tweedie_score, mean_poisson_deviance
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sc_glm import metrics
from sc_glm.distributions import NB, ZINB

FUNCTIONS = [
    metrics.mean_log_likelihood,
    metrics.mean_deviance,
    metrics.d2_deviance_score,
    metrics.brier_score_zeros,
    metrics.crps,
]
SCORERS = {
    "log_likelihood": metrics.log_likelihood_scorer,
    "deviance": metrics.neg_deviance_scorer,
    "d2": metrics.d2_scorer,
    "brier": metrics.neg_brier_zeros_scorer,
    "crps": metrics.neg_crps_scorer,
}

every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


class MeanRegressor(RegressorMixin, BaseEstimator):
    """The least that a scorer needs: each gene's mean count, with one size."""

    def __init__(self, r=1.0):
        self.r = r

    def fit(self, X, y):
        self.n_features_in_ = X.shape[1]
        self.mu_ = np.asarray(y.mean(axis=0)).ravel()
        return self

    def predict(self, X):
        return np.tile(self.mu_, (X.shape[0], 1))

    def predict_dist(self, X):
        return NB(self.predict(X), self.r)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    mu, r = rng.gamma(1.0, 4.0, size=(60, 5)), rng.gamma(2.0, size=5)
    dist = ZINB(mu, r, rng.random(5) / 2)
    return dist.rvs(random_state=0), dist, rng


def test_against_definitions(data):
    y, dist, _ = data
    assert_allclose(metrics.mean_log_likelihood(y, dist), np.log(dist.pmf(y)).mean())
    assert_allclose(metrics.brier_score_zeros(y, dist), np.mean(((y == 0) - dist.pmf(0)) ** 2))
    k = np.arange(dist.isf(1e-12).max())[:, None, None]
    squares = ((dist.cdf(k) - (y <= k)) ** 2).sum(axis=0)
    assert_allclose(metrics.crps(y, dist, multioutput="raw_values"), squares.mean(axis=0))

    best = np.where(y > 0, NB(np.maximum(y, 1), dist.r).logpmf(y), 0)
    deviance = 2 * (best - dist.logpmf(y)).mean(axis=0)
    assert_allclose(metrics.mean_deviance(y, dist, multioutput="raw_values"), deviance)
    null = NB(y.mean(axis=0), dist.r)
    null_deviance = 2 * (best - null.logpmf(y)).mean(axis=0)
    d2 = metrics.d2_deviance_score(y, dist, multioutput="raw_values")
    assert_allclose(d2, 1 - deviance / null_deviance)


def test_poisson_limit_against_scikit_learn(data):
    y, dist, rng = data
    poisson = NB(dist.mu, np.inf)
    weight = rng.random(len(y))
    expected = mean_poisson_deviance(y[:, 0], dist.mu[:, 0], sample_weight=weight)
    actual = metrics.mean_deviance(y[:, 0], poisson[:, 0], sample_weight=weight)
    assert_allclose(actual, expected)
    expected = d2_tweedie_score(y[:, 0], dist.mu[:, 0], power=1, sample_weight=weight)
    actual = metrics.d2_deviance_score(y[:, 0], poisson[:, 0], sample_weight=weight)
    assert_allclose(actual, expected)


@every_function
@pytest.mark.parametrize(
    "container",
    [
        sparse.csr_array,
        sparse.csc_array,
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.coo_array,
        pd.DataFrame,
        np.asfortranarray,
        lambda y: y.astype(np.float32),
        lambda y: y.tolist(),
    ],
)
def test_containers(function, container, data):
    y, dist, _ = data
    assert_array_equal(function(container(y), dist), function(y, dist))


@every_function
def test_sparse_counts_are_never_dense_as_a_whole(function, data, monkeypatch):
    y, dist, _ = data
    expected = function(y, dist)
    monkeypatch.setattr(metrics, "_MAX_DENSE_ENTRIES", 7 * y.shape[1] + 2)
    made_dense = []

    def toarray(self):
        made_dense.append(self.shape)
        return original(self)

    original = sparse.csr_array.toarray
    monkeypatch.setattr(sparse.csr_array, "toarray", toarray)
    assert_allclose(function(sparse.csc_array(y), dist), expected, rtol=1e-13)
    assert max(shape[0] for shape in made_dense) == 7


@every_function
def test_weights_are_repetitions(function, data):
    y, dist, rng = data
    weight = rng.integers(0, 3, size=len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    for y_true in (y, sparse.csr_array(y)):
        weighted = function(y_true, dist, sample_weight=weight)
        assert_allclose(weighted, function(y_true[rows], dist[rows]), rtol=1e-12)


@every_function
def test_multioutput(function, data):
    y, dist, rng = data
    raw = function(y, dist, multioutput="raw_values")
    assert raw.shape == (5,)
    assert_allclose(raw, [function(y[:, g], dist[:, g]) for g in range(5)])
    value = function(y, dist)
    assert isinstance(value, float)
    assert_allclose(value, raw.mean())
    weights = rng.random(5)
    assert_allclose(function(y, dist, multioutput=weights), np.average(raw, weights=weights))
    with pytest.raises(ValueError, match=r"'raw_values', 'uniform_average'.* got 'mean'"):
        function(y, dist, multioutput="mean")
    with pytest.raises(ValueError, match=r"multioutput has the shape \(2,\), expected \(5,\)"):
        function(y, dist, multioutput=[0.5, 0.5])


@every_function
def test_a_single_gene_is_a_vector_or_a_column(function, data):
    y, dist, _ = data
    expected = function(y[:, :1], dist[:, :1])
    assert function(y[:, 0], dist[:, :1]) == expected
    assert function(y[:, :1], dist[:, 0]) == expected
    assert function(pd.Series(y[:, 0]), dist[:, 0]) == expected


@pytest.mark.parametrize("value", [0, 3])
def test_d2_of_constant_genes(value):
    y = np.full(7, value)
    assert metrics.d2_deviance_score(y, NB(y, 2.0)) == pytest.approx(1.0)
    assert metrics.d2_deviance_score(y, NB(y + 1.0, 2.0)) == 0.0


def test_d2_of_constant_genes_counts_rows_with_weight():
    y, weight = np.array([0, 0, 5]), np.array([1.0, 2.0, 0.0])
    assert metrics.d2_deviance_score(y, NB([1.0, 1, 1], 2.0), sample_weight=weight) == 0.0


def test_impossible_counts():
    y = np.array([0, 2])
    dist = NB(np.array([1.0, 0.0]), 1.0)
    assert metrics.mean_log_likelihood(y, dist) == -np.inf
    assert metrics.mean_deviance(y, dist) == np.inf
    assert np.isfinite(metrics.mean_log_likelihood(y, dist, sample_weight=[1, 0]))


@every_function
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y[:-1], r"y_true has the shape \(59, 5\), but dist has \(60, 5\)"),
        (lambda y: y[:, 0], r"y_true has the shape \(60,\), but dist has \(60, 5\)"),
        (lambda y: y[None], r"one or two dimensions, got the shape \(1, 60, 5\)"),
        (lambda y: np.where(y == y[3, 2], -1, y), r"row \d+ of target \d is -1.0"),
        (lambda y: sparse.csr_array(y - 1), r"row \d+ of target \d is -1.0"),
    ],
)
def test_bad_counts(function, change, message, data):
    y, dist, _ = data
    with pytest.raises(ValueError, match=message):
        function(change(y), dist)


@every_function
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_bad_counts_are_named(function, value, data, monkeypatch):
    y, dist, _ = data
    monkeypatch.setattr(metrics, "_MAX_DENSE_ENTRIES", 50)
    frame = pd.DataFrame(y, columns=list("abcde"), dtype=float)
    frame.loc[42, "d"] = value
    with pytest.raises(ValueError, match=f"row 42 of target 'd' is {value}"):
        function(frame, dist)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"sample_weight has the shape \(3,\), expected \(60,\)"),
        (np.zeros(60), "0 in every row"),
        (np.arange(60) - 1.0, "row 0 has -1.0"),
        (np.full(60, np.nan), "row 0 has nan"),
    ],
)
def test_bad_weights(weight, message, data):
    y, dist, _ = data
    with pytest.raises(ValueError, match=message):
        metrics.crps(y, dist, sample_weight=weight)


def test_no_entries():
    with pytest.raises(ValueError, match="no entries"):
        metrics.crps(np.empty((0, 3)), NB(np.empty((0, 3)), 1.0))


def test_scorers_are_greater_for_better(data):
    y, _, rng = data
    X = rng.normal(size=(len(y), 2))
    model = MeanRegressor().fit(X, y)
    weight = rng.random(len(y))
    dist = model.predict_dist(X)
    for scorer, function, sign in zip(SCORERS.values(), FUNCTIONS, [1, -1, 1, -1, -1], strict=True):
        assert scorer(model, X, y) == sign * function(y, dist)
        assert scorer(model, X, y, weight) == sign * function(y, dist, sample_weight=weight)


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_scorers_pickle(scorer):
    assert pickle.loads(pickle.dumps(scorer)) == scorer  # noqa: S301
    assert "scorer" in repr(scorer)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_scorers_in_cross_validation(n_jobs, data):
    y, _, rng = data
    X = rng.normal(size=(len(y), 2))
    scores = cross_validate(MeanRegressor(), X, y, scoring=SCORERS, cv=3, n_jobs=n_jobs)
    for name, scorer in SCORERS.items():
        single = cross_val_score(MeanRegressor(), X, y, scoring=scorer, cv=3)
        assert_array_equal(scores[f"test_{name}"], single)


@pytest.mark.parametrize("scoring", [metrics.log_likelihood_scorer, SCORERS])
def test_scorers_in_grid_search_of_sparse_counts(scoring, data):
    y, _, rng = data
    X = rng.normal(size=(len(y), 2))
    # scikit-learn's own pipeline does not pass predict_dist on
    model = make_pipeline(StandardScaler(), MeanRegressor())
    grid = {"meanregressor__r": [1e-3, 1.0, 1e6]}
    refit = "log_likelihood" if isinstance(scoring, dict) else True
    search = GridSearchCV(model, grid, scoring=scoring, refit=refit, cv=3)
    search.fit(X, sparse.csr_array(y))
    assert search.best_params_ == {"meanregressor__r": 1.0}
    dense = GridSearchCV(model, grid, scoring=scoring, refit=refit, cv=3).fit(X, y)
    key = "mean_test_log_likelihood" if isinstance(scoring, dict) else "mean_test_score"
    assert_allclose(search.cv_results_[key], dense.cv_results_[key])


class WeightedRegressor(MeanRegressor):
    def fit(self, X, y, sample_weight=None):
        self.n_features_in_ = X.shape[1]
        self.mu_ = np.average(y, axis=0, weights=sample_weight)
        return self


@pytest.fixture
def weighted_folds(data):
    """Counts with weights, and the mean score over folds if weights reach both fit and score."""
    y, _, rng = data
    X, weight = rng.normal(size=(len(y), 2)), rng.uniform(0.1, 3, size=len(y))
    folds = list(KFold(3).split(X))

    def expected(scorer):
        scores = []
        for train, test in folds:
            model = WeightedRegressor().fit(X[train], y[train], weight[train])
            scores.append(scorer(model, X[test], y[test], weight[test]))
        return np.mean(scores)

    return X, y, weight, folds, expected


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=SCORERS)
def test_weights_are_routed_to_scorers_that_request_them(scorer, weighted_folds):
    X, y, weight, folds, expected = weighted_folds
    with config_context(enable_metadata_routing=True):
        model = WeightedRegressor().set_fit_request(sample_weight=True)

        def score(scorer, **params):
            result = cross_validate(model, X, y, scoring=scorer, cv=folds, params=params)
            return result["test_score"].mean()

        requesting = scorer.set_score_request(sample_weight=True)
        assert_allclose(score(requesting, sample_weight=weight), expected(scorer))
        renamed = scorer.set_score_request(sample_weight="shares")
        both = score(renamed, sample_weight=weight, shares=weight)
        assert_allclose(both, expected(scorer))
        with pytest.raises(UnsetMetadataPassedError, match="sample_weight"):
            score(scorer, sample_weight=weight)


def test_weights_of_a_search_with_several_scorers_are_those_of_each_alone(weighted_folds):
    X, y, weight, folds, _ = weighted_folds

    def search(scoring):
        grid = GridSearchCV(
            WeightedRegressor(), {"r": [1.0]}, scoring=scoring, refit=False, cv=folds
        )
        return grid.fit(X, y, sample_weight=weight).cv_results_

    found = search(SCORERS)
    for name, scorer in SCORERS.items():
        assert_allclose(found[f"mean_test_{name}"], search(scorer)["mean_test_score"])


def test_a_request_without_routing_raises():
    with pytest.raises(RuntimeError, match="enable_metadata_routing=True"):
        metrics.neg_crps_scorer.set_score_request(sample_weight=True)


def test_scorers_of_other_estimators():
    X, y = np.ones((5, 1)), np.arange(5)
    with pytest.raises(AttributeError, match="predict_dist"):
        metrics.neg_crps_scorer(StandardScaler().fit(X), X, y)


@pytest.mark.parametrize(
    "function", [metrics.mean_log_likelihood, metrics.d2_deviance_score, metrics.crps]
)
def test_weights_in_another_order_are_refused(function):
    y = pd.DataFrame({"gene": [0, 1, 4]}, index=[7, 5, 6])
    dist = NB([[1.0], [1.0], [3.0]], r=2.0)
    weights = pd.Series([1.0, 2.0, 3.0], index=[7, 5, 6])
    assert np.isfinite(function(y, dist, sample_weight=weights))
    with pytest.raises(
        ValueError, match=r"sample_weight have the labels of y_true .* row 0 has 5, but"
    ):
        function(y, dist, sample_weight=weights.sort_index())
