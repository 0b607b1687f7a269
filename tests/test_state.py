"""What a failed fit leaves of an estimator, and which pickles open."""

import copy
import io
import pickle

import numpy as np
import pytest
from anndata import AnnData
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone

from sc_glm import NegBinRegressor, ZINBRegressor, make_pipeline, state
from sc_glm.adata import AnnDataRegressor

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
    """A pickle of a model, some of whose state was written otherwise."""
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
@pytest.mark.parametrize("form", [0, 2, "1", None])
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


def test_fitted_models_have_the_state_that_they_need():
    for make in FITTED.values():
        model = make()
        assert set(model._fitted_state) <= set(vars(model))
        assert not set(model._fitted_state) & set(vars(clone(model)))


def test_a_regressor_that_did_not_count_its_cells_does_not_open():
    with pytest.raises(ValueError, match=r"it lacks \['n_cells_'\]"):
        reopened(NegBinRegressor().fit(X, Y), without=["n_cells_"])


def test_a_pickle_in_a_file_is_refused(monkeypatch):
    written = io.BytesIO(pickle.dumps(FITTED["Pipeline"]()))
    monkeypatch.setattr(state, "_FORMAT", 2)
    with pytest.raises(ValueError, match=r"NegBinRegressor was saved .* format is 1"):
        pickle.load(written)  # noqa: S301


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_attributes_are_kept_if_it_failed(error):
    model = BaseEstimator()
    model.old_ = 1

    def change():
        del model.old_
        model.new_ = 2
        raise error

    with pytest.raises(error), state.kept_if_failed(model):
        change()
    assert vars(model) == {"old_": 1}
    with state.kept_if_failed(model):
        model.new_ = 2
    assert vars(model) == {"old_": 1, "new_": 2}
