"""State of estimators after a failed fit, and from pickles and files of skops."""

import copy
import io
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from anndata import AnnData
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm._contract import state
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


CELLS = pd.DataFrame(
    {
        "x": [0.1, 0.5, 0.2, 0.9, 0.7, 0.3, 0.8, 0.6],
        "n": [0, 1, 2, 3, 0, 1, 2, 3],
        "kind": list("abbaabcc"),
        "stage": pd.Categorical(list("uvuvwwuv"), ["w", "v", "u"], ordered=True),
        "cut": pd.cut([1, 2, 3, 4, 1, 2, 3, 4], [0, 2, 4]),
        "flag": [True, False] * 4,
        "b b": np.arange(8.0),
    }
)
FORMULAS = {
    "numbers": {"mean": "~ x + np.log1p(n) + flag"},
    "all columns": {"mean": "~ . - n", "dispersion": "~ 1"},
    "factors": {"mean": "~ kind * stage + C(n, contr.sum)", "zero_inflation": "~ 0 + C(flag)"},
    "intervals": {"mean": "~ cut"},
    "order of levels": {"mean": "~ I(stage > 'w') + x:kind - 1"},
    "splines": {
        "mean": "~ bs(x, df=4) + cc(n, df=3, lower_bound=0, upper_bound=4) + poly(`b b`, 2)",
        "offset": "np.log(x)",
    },
    "state": {"mean": "~ center(x) + scale(`b b`) + cr(x, df=3, constraints='center')"},
    "hashed": {"mean": "~ hashed(kind, levels=3) + C(kind, contr.treatment('b'))"},
}


def through_skops(model):
    """Return a model that skops wrote and read, with trust in its own types only."""
    written = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=written)
    assert {name for name in untrusted if not name.startswith("sc_glm.")} <= {
        "pandas.Interval",  # of pandas 3
        "pandas._libs.interval.Interval",
    }
    return skops.io.loads(written, trusted=untrusted)


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


@pytest.mark.parametrize("copied", [through_skops, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
@pytest.mark.parametrize("name", FORMULAS)
def test_a_saved_formula_keeps_its_state(name, copied):
    model = FormulaTransformer(**FORMULAS[name]).fit(CELLS)
    again = copied(model)
    for cells in (CELLS, CELLS.iloc[[3]]):
        pd.testing.assert_frame_equal(again.transform(cells), model.transform(cells))
    for part, spec in model.model_specs_.items():
        assert list(again.model_specs_[part].formula) == list(spec.formula)
        assert again.model_specs_[part].structure == spec.structure
        assert again.model_specs_[part].encoder_state.keys() == spec.encoder_state.keys()
    with pytest.raises(ValueError, match="has no column"):
        again.transform(pd.DataFrame({"other": [1.0]}))
    pd.testing.assert_frame_equal(copied(again).transform(CELLS), model.transform(CELLS))


def test_parameters_set_after_the_fit_do_not_change_the_fitted_formula():
    model = FormulaTransformer("~ x").fit(CELLS).set_params(mean="~ x + n")
    pd.testing.assert_frame_equal(through_skops(model).transform(CELLS), model.transform(CELLS))


def test_a_pipeline_through_skops_predicts_and_refuses_as_before():
    model = make_pipeline(FormulaTransformer("~ kind"), NegBinRegressor()).fit(CELLS, Y)
    again = through_skops(model)
    assert_array_equal(again.predict(CELLS), model.predict(CELLS))
    with pytest.raises(ValueError, match="unknown level 'z'"):
        again.predict(CELLS.assign(kind="z"))


@pytest.mark.parametrize("code", ["__import__('os').getcwd()", "x.sum()", "np.load('x')"])
def test_code_that_a_formula_may_not_hold_is_not_read_from_a_file(code):
    model = FormulaTransformer("~ np.log(x)").fit(CELLS)
    written = model.__getstate__()
    written["model_specs_"]["mean"]["terms"][1] = [(code, "python")]
    with pytest.raises(ValueError, match="the saved 'mean'"):
        FormulaTransformer.__new__(FormulaTransformer).__setstate__(written)


def test_a_formula_that_now_makes_other_columns_does_not_open():
    written = FormulaTransformer("~ x").fit(CELLS).__getstate__()
    written["model_specs_"]["mean"]["columns"] = ["Intercept", "X"]
    with pytest.raises(ValueError, match=r"had the columns .* Fit it again"):
        FormulaTransformer.__new__(FormulaTransformer).__setstate__(written)


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
