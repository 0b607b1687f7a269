"""Fitted formulas in pickles and files of skops."""

import pickle
import subprocess
import sys

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from sc_glm.formula import FormulaTransformer
from tests.formula.designs import STATEFUL, fit
from tests.saved_models import CELLS, through_pickle, through_skops

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


@pytest.mark.parametrize("formula", STATEFUL)
def test_pickles_are_small_and_whole(cells, formula):
    big = pd.concat([cells] * 500, ignore_index=True)
    model = fit(big, formula)
    stored = pickle.dumps(model)
    assert len(stored) < 20_000
    assert_frame_equal(pickle.loads(stored).transform(cells), model.transform(cells))  # noqa: S301


def test_pickle_opens_in_another_process(cells, tmp_path):
    model = fit(cells, "~ bs(x, df=5) + C(kind, contr.sum)")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    cells.to_pickle(tmp_path / "cells.pkl")
    code = (
        "import pickle, sys, pandas as pd; p = sys.argv[1];"
        "m = pickle.load(open(p + '/model.pkl', 'rb'));"
        "m.transform(pd.read_pickle(p + '/cells.pkl').head(2)).to_pickle(p + '/out.pkl')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)  # noqa: S603
    assert_frame_equal(pd.read_pickle(tmp_path / "out.pkl"), model.transform(cells.head(2)))  # noqa: S301


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


@pytest.mark.parametrize("copied", [through_skops, through_pickle])
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
