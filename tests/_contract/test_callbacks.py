"""Calls of scikit-learn's callbacks by fits."""

import pickle

import numpy as np
import pytest
from anndata import AnnData
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts

callback = pytest.importorskip("sklearn.callback", reason="came with scikit-learn 1.9")

DATA = make_counts(60, 2, mean="~ pseudotime", random_state=0)
MODEL = make_pipeline(FormulaTransformer("~ pseudotime"), ZINBRegressor())

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class RecordingCallback:
    """A callback of scikit-learn 1.9 that records its calls."""

    def __init__(self):
        self.events = []

    def setup(self, estimator, context):
        self.events.append(("setup", type(estimator).__name__, context.task_name))

    def teardown(self, estimator, context):
        self.events.append(("teardown", type(estimator).__name__, context.task_name))

    def on_fit_task_begin(self, estimator, context, **_):
        self.events.append(("begin", type(estimator).__name__, context.task_name))

    def on_fit_task_end(self, estimator, context, **_):
        self.events.append(("end", type(estimator).__name__, context.task_name))


class RecordingCallbackOfSteps(RecordingCallback):
    max_propagation_depth = None


def events(*calls, estimator, task="fit"):
    return [(call, estimator, task) for call in calls]


def test_a_pipeline_calls_back_for_its_steps():
    recorded = RecordingCallback()
    model = clone(MODEL).set_callbacks(recorded).fit(DATA.obs, DATA.counts)
    assert recorded.events[0] == ("setup", "Pipeline", "fit")
    assert recorded.events[-1] == ("teardown", "Pipeline", "fit")
    tasks = [task for what, _, task in recorded.events if what == "end"]
    assert tasks == ["fit-transform-formulatransformer", "fit-final-estimator", "fit"]
    expected = clone(MODEL).fit(DATA.obs, DATA.counts).predict(DATA.obs)
    assert_array_equal(model.predict(DATA.obs), expected)
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    assert_array_equal(opened.predict(DATA.obs), expected)


@pytest.mark.parametrize("step", [FormulaTransformer("~ pseudotime"), NegBinRegressor()])
def test_each_estimator_calls_back_for_its_fit(step):
    recorded = RecordingCallback()
    step = clone(step).set_callbacks(recorded)
    step.fit(DATA.obs[["pseudotime"]], DATA.counts)
    name = type(step).__name__
    assert recorded.events == events("setup", "begin", "end", "teardown", estimator=name)
    assert not any("callback_ctx" in attribute for attribute in vars(step))


def test_a_model_of_anndata_calls_back_for_its_fit():
    recorded = RecordingCallback()
    adata = AnnData(DATA.counts, obs=DATA.obs.set_axis(DATA.obs.index.astype(str)))
    AnnDataRegressor(MODEL).set_callbacks(recorded).fit(adata)
    expected = events("setup", "begin", "end", "teardown", estimator="AnnDataRegressor")
    assert recorded.events == expected


@pytest.mark.parametrize(
    "step", [FormulaTransformer("~ nothing"), NegBinRegressor(alpha={"nothing": 1.0})]
)
def test_a_fit_that_fails_removes_its_callbacks(step):
    recorded = RecordingCallback()
    step = clone(step).set_callbacks(recorded)
    before = dict(vars(step))
    with pytest.raises(ValueError, match="nothing"):
        step.fit(DATA.obs[["pseudotime"]], DATA.counts)
    name = type(step).__name__
    assert recorded.events == events("setup", "begin", "teardown", estimator=name)
    assert vars(step) == before


def test_a_scoring_monitor_gets_the_score_of_the_regressor():
    def own(estimator, X, y, sample_weight):
        return {"own": estimator.score(X, y, sample_weight)}

    monitor = callback.ScoringMonitor(scoring=own)
    X, weights = DATA.obs[["pseudotime"]], np.arange(60.0)
    model = NegBinRegressor().set_callbacks(monitor).fit(X, DATA.counts, sample_weight=weights)
    assert monitor.get_logs().data[-1]["own"] == model.score(X, DATA.counts, weights)


def test_a_search_passes_its_callbacks_to_steps():
    """scikit-learn would warn of steps that do not support them."""
    recorded = RecordingCallbackOfSteps()
    pipeline = make_pipeline(FormulaTransformer(), NegBinRegressor())
    grid = {"formulatransformer__mean": ["~ 1", "~ pseudotime"]}
    search = GridSearchCV(pipeline, grid, cv=2).set_callbacks(recorded)
    search.fit(DATA.obs, DATA.counts)
    fits = [name for what, name, task in recorded.events if (what, task) == ("end", "fit")]
    for name in ("FormulaTransformer", "NegBinRegressor", "Pipeline"):
        assert fits.count(name) == 5, name  # two folds of two formulas, and the refit
    assert recorded.events[-1][:2] == ("teardown", "GridSearchCV")
