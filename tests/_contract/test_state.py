"""State of estimators after a failed fit, and from pickles and files of skops."""

import copy
import io
import pickle

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm._contract import state
from sc_glm.adata import AnnDataRegressor
from tests.saved_models import CELLS, through_skops

X, Y = np.arange(8.0)[:, None], np.array([0, 3, 1, 2, 5, 4, 9, 7])

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def anndata():
    adata = AnnData(Y[:, None].astype(float))
    adata.obs["x"] = X[:, 0]
    return adata


FITTED = {
    "NegBinRegressor": lambda: NegBinRegressor().fit(X, Y),
    "ZINBRegressor": lambda: ZINBRegressor().fit(X, Y),
    "Pipeline": lambda: make_pipeline(NegBinRegressor()).fit(X, Y),
    "AnnDataRegressor": lambda: AnnDataRegressor(NegBinRegressor()).fit(anndata()),
}
EVERY = pytest.mark.parametrize("name", FITTED)


def reopened(model, *, without=(), **changes):
    """Return a model from a saved state with some changes."""
    written = {k: v for k, v in model.__getstate__().items() if k not in without} | changes
    again = type(model).__new__(type(model))
    again.__setstate__(written)
    return again


@EVERY
@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("fitted", [False, True])
def test_a_pickle_of_this_version_opens(name, fitted, pickled):
    model = FITTED[name]() if fitted else clone(FITTED[name]())
    again = pickle.loads(pickle.dumps(model)) if pickled else copy.deepcopy(model)  # noqa: S301
    assert repr(again.get_params()) == repr(model.get_params())
    assert vars(again).keys() == vars(model).keys()
    if fitted:
        data = anndata() if name == "AnnDataRegressor" else X
        assert_array_equal(again.predict(data), model.predict(data))


@EVERY
@pytest.mark.parametrize("form", [1, 3, "2", None])
def test_a_pickle_of_another_format_names_both_versions(name, form):
    model = FITTED[name]()
    with pytest.raises(ValueError, match=rf"{name}.*sc_glm 9\.8.*by sc_glm \d.*format is {form}"):
        reopened(model, _sc_glm_format=form, _sc_glm_version="9.8")


@EVERY
def test_a_pickle_without_a_format_does_not_open(name):
    with pytest.raises(ValueError, match=r"saved by sc_glm unknown.*fit it again"):
        reopened(FITTED[name](), without=["_sc_glm_format", "_sc_glm_version"])


@EVERY
def test_another_version_of_the_same_format_opens(name):
    model = FITTED[name]()
    again = reopened(model, _sc_glm_version="9.8")
    assert vars(again).keys() == vars(model).keys()


@EVERY
def test_a_pickle_without_a_parameter_or_an_attribute_does_not_open(name):
    model = FITTED[name]()
    needed = [*model._get_param_names(), *model._fitted_state]
    assert len(needed) >= 2
    for lacking in needed:
        with pytest.raises(ValueError, match=rf"it lacks \['{lacking}'\]"):
            reopened(model, without=[lacking])


@EVERY
@pytest.mark.parametrize("fitted", [False, True])
def test_skops_writes_and_reads_every_model(name, fitted):
    model = FITTED[name]() if fitted else clone(FITTED[name]())
    again = through_skops(model)
    assert repr(again.get_params()) == repr(model.get_params())
    assert vars(again).keys() == vars(model).keys()
    if fitted:
        data = anndata() if name == "AnnDataRegressor" else X
        assert_array_equal(again.predict(data), model.predict(data))
        assert again.summary().equals(model.summary())
        for part, table in model.params_.items():
            pd.testing.assert_frame_equal(again.params_[part], table)


def test_a_pipeline_through_skops_predicts_and_refuses_as_before():
    model = make_pipeline(FormulaTransformer("~ kind"), NegBinRegressor()).fit(CELLS, Y)
    again = through_skops(model)
    assert_array_equal(again.predict(CELLS), model.predict(CELLS))
    with pytest.raises(ValueError, match="unknown level 'z'"):
        again.predict(CELLS.assign(kind="z"))


def test_fitted_models_have_the_state_that_they_need():
    for make in FITTED.values():
        model = make()
        assert set(model._fitted_state) <= set(vars(model))
        assert not set(model._fitted_state) & set(vars(clone(model)))


def test_a_regressor_without_its_number_of_cells_does_not_open():
    with pytest.raises(ValueError, match=r"it lacks \['n_cells_'\]"):
        reopened(NegBinRegressor().fit(X, Y), without=["n_cells_"])


def test_a_pickle_in_a_file_is_refused(monkeypatch):
    written = io.BytesIO(pickle.dumps(FITTED["Pipeline"]()))
    monkeypatch.setattr(state, "_STATE_FORMAT", 3)
    with pytest.raises(ValueError, match=r"NegBinRegressor was saved .* format is 2"):
        pickle.load(written)  # noqa: S301


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_attributes_are_restored_on_failure(error):
    model = BaseEstimator()
    model.old_ = 1

    def change():
        del model.old_
        model.new_ = 2
        raise error

    with pytest.raises(error), state.restore_on_failure(model):
        change()
    assert vars(model) == {"old_": 1}
    with state.restore_on_failure(model):
        model.new_ = 2
    assert vars(model) == {"old_": 1, "new_": 2}
