"""What scikit-learn's callbacks hear of fits."""

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


class Heard:
    """A callback of scikit-learn 1.9 that keeps what it is told."""

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


class HeardEverywhere(Heard):
    max_propagation_depth = None


def told(*whats, estimator, task="fit"):
    return [(what, estimator, task) for what in whats]


def test_a_pipeline_tells_of_its_steps():
    heard = Heard()
    model = clone(MODEL).set_callbacks(heard).fit(DATA.obs, DATA.counts)
    assert heard.events[0] == ("setup", "Pipeline", "fit")
    assert heard.events[-1] == ("teardown", "Pipeline", "fit")
    tasks = [task for what, _, task in heard.events if what == "end"]
    assert tasks == ["fit-transform-formulatransformer", "fit-final-estimator", "fit"]
    expected = clone(MODEL).fit(DATA.obs, DATA.counts).predict(DATA.obs)
    assert_array_equal(model.predict(DATA.obs), expected)
    opened = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    assert_array_equal(opened.predict(DATA.obs), expected)


@pytest.mark.parametrize("step", [FormulaTransformer("~ pseudotime"), NegBinRegressor()])
def test_each_estimator_tells_of_its_fit(step):
    heard = Heard()
    step = clone(step).set_callbacks(heard)
    step.fit(DATA.obs[["pseudotime"]], DATA.counts)
    name = type(step).__name__
    assert heard.events == told("setup", "begin", "end", "teardown", estimator=name)
    assert not any("callback_ctx" in attribute for attribute in vars(step))


def test_a_model_of_anndata_tells_of_its_fit():
    heard = Heard()
    adata = AnnData(DATA.counts, obs=DATA.obs.set_axis(DATA.obs.index.astype(str)))
    AnnDataRegressor(MODEL).set_callbacks(heard).fit(adata)
    expected = told("setup", "begin", "end", "teardown", estimator="AnnDataRegressor")
    assert heard.events == expected


@pytest.mark.parametrize(
    "step", [FormulaTransformer("~ nothing"), NegBinRegressor(alpha={"nothing": 1.0})]
)
def test_a_fit_that_fails_dismisses_its_callbacks(step):
    heard = Heard()
    step = clone(step).set_callbacks(heard)
    before = dict(vars(step))
    with pytest.raises(ValueError, match="nothing"):
        step.fit(DATA.obs[["pseudotime"]], DATA.counts)
    name = type(step).__name__
    assert heard.events == told("setup", "begin", "teardown", estimator=name)
    assert vars(step) == before


def test_a_monitor_of_scores_gets_the_regressors_own():
    def own(estimator, X, y, sample_weight):
        return {"own": estimator.score(X, y, sample_weight)}

    monitor = callback.ScoringMonitor(scoring=own)
    X, weights = DATA.obs[["pseudotime"]], np.arange(60.0)
    model = NegBinRegressor().set_callbacks(monitor).fit(X, DATA.counts, sample_weight=weights)
    assert monitor.get_logs().data[-1]["own"] == model.score(X, DATA.counts, weights)


def test_a_search_hands_its_callbacks_on():
    """Without scikit-learn's warning of steps that support none."""
    heard = HeardEverywhere()
    pipeline = make_pipeline(FormulaTransformer(), NegBinRegressor())
    grid = {"formulatransformer__mean": ["~ 1", "~ pseudotime"]}
    search = GridSearchCV(pipeline, grid, cv=2).set_callbacks(heard)
    search.fit(DATA.obs, DATA.counts)
    fits = [name for what, name, task in heard.events if (what, task) == ("end", "fit")]
    for name in ("FormulaTransformer", "NegBinRegressor", "Pipeline"):
        assert fits.count(name) == 5, name  # two folds of two formulas, and the best one
    assert heard.events[-1][:2] == ("teardown", "GridSearchCV")
