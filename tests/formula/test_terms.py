"""Terms of fitted formulas: their columns, their levels, and the covariates that they read."""

import numpy as np
import pandas as pd
import pytest

from sc_glm import FormulaTransformer

RNG = np.random.default_rng(0)
OBS = pd.DataFrame(
    {
        "type": list("ABC") * 10,
        "condition": ["x", "y"] * 15,
        "t": RNG.uniform(1, 2, 30),
        "donor": RNG.integers(1, 4, 30),
        "flag": RNG.random(30) > 0.5,
        "cell size": list("uv") * 15,
    }
)
FORMULA = "~ type * condition + bs(t, df=4) + C(donor) + flag + `cell size` + np.log(t):type"
FITTED = FormulaTransformer(FORMULA, dispersion="~ 0 + type").fit(OBS)
TERMS = FITTED.terms_of("mean")
COLUMNS = list(FITTED.model_specs_["mean"].column_names)


@pytest.mark.parametrize(
    ("text", "first", "n_columns"),
    [
        ("type", "type[T.B]", 2),
        ("bs(t,df=4)", "bs(t, df=4)[1]", 4),
        (" bs( t, df = 4 ) ", "bs(t, df=4)[1]", 4),
        ("type:condition", "type[T.B]:condition[T.y]", 2),
        ("condition:type", "type[T.B]:condition[T.y]", 2),
        ("C(donor)", "C(donor)[T.2]", 2),
        ("flag", "flag", 1),
        ("cell size", "cell size[T.v]", 1),
        ("`cell size`", "cell size[T.v]", 1),
        ("type:np.log(t)", "np.log(t):type[A]", 3),
    ],
)
def test_terms_are_found_however_they_are_written(text, first, n_columns):
    positions = TERMS.term_columns(text)
    assert COLUMNS[positions[0]] == first
    assert len(positions) == n_columns


@pytest.mark.parametrize(
    "text", ["donor", "t", "type*condition", "type[T.B]", "bs(t, df=5)", "", "("]
)
def test_other_texts_are_no_terms(text):
    assert TERMS.term_columns(text) is None


@pytest.mark.parametrize(
    ("name", "column", "levels", "is_additive"),
    [
        ("type", "type", ["A", "B", "C"], False),
        ("donor", "donor", [1, 2, 3], True),
        ("C(donor)", "donor", [1, 2, 3], True),
        ("flag", "flag", [False, True], True),
        ("t", "t", [], False),
        ("cell size", "cell size", ["u", "v"], True),
    ],
)
def test_covariates_have_levels(name, column, levels, is_additive):
    found = TERMS.covariate(name)
    assert (found.column, found.levels, found.is_additive) == (column, levels, is_additive)


def test_an_unknown_covariate_is_none():
    assert TERMS.covariate("celltype") is None
