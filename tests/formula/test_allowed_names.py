import numpy as np
import pytest

from sc_glm.formula import allowed_names
from sc_glm.formula.allowed_names import (
    NUMPY_CONSTANTS,
    NUMPY_FUNCTIONS,
    UNQUALIFIED_FUNCTIONS,
    Signature,
)


@pytest.mark.parametrize("name", ["log1p", "exp", "maximum", "power", "isnan", "where", "clip"])
def test_common_functions_are_allowed(name):
    assert name in NUMPY_FUNCTIONS


@pytest.mark.parametrize("name", allowed_names.ROW_MIXING)
def test_functions_that_mix_rows_are_not_allowed(name):
    assert name not in NUMPY_FUNCTIONS
    assert name not in UNQUALIFIED_FUNCTIONS
    assert "other rows" in allowed_names.replacement_hint(name)


def test_ufuncs_take_as_many_columns_as_numpys_and_no_place_for_a_result():
    for name, signature in NUMPY_FUNCTIONS.items():
        function = getattr(np, name)
        if isinstance(function, np.ufunc):
            assert signature == Signature(function.nin)
    assert not {"modf", "divmod", "frexp", "matmul", "vecdot"} & set(NUMPY_FUNCTIONS)


def test_constants_are_those_of_numpy():
    assert NUMPY_CONSTANTS["pi"] == np.pi
    assert all(isinstance(number, float) for number in NUMPY_CONSTANTS.values())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("log", "write np.log(...)"),
        ("astype", "C(x)"),
        ("open", "the allowed functions are"),
        ("In", "np.isin"),
        ("factor", "C(x)"),
        ("standardise", "standardize may be meant"),
        ("logg1p", "np.log1p may be meant"),
    ],
)
def test_what_to_write_instead(name, words):
    assert words in allowed_names.replacement_hint(name)
