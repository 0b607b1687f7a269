"""Names of columns are taken apart as formulaic put them together."""

import numpy as np
import pandas as pd
import pytest

from sc_glm import FormulaTransformer
from sc_glm.formula.column_names import term_and_level

OBS = pd.DataFrame(
    {
        "type": ["A:1", "B[2]", "T cell"] * 10,
        "condition": ["x", "y"] * 15,
        "t": np.linspace(1, 2, 30),
        "donor": np.arange(30) % 3,
        "cell size": list("uv") * 15,
    }
)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("type", [("type", "A:1"), ("type", "B[2]"), ("type", "T cell")]),
        ("bs(t, df=4)", [("bs(t, df=4)", "")] * 4),
        ("poly(t, 2)", [("poly(t, 2)", "")] * 2),
        ("C(donor)", [("C(donor)", "0"), ("C(donor)", "1"), ("C(donor)", "2")]),
        ("`cell size`", [("cell size", "u"), ("cell size", "v")]),
        ("np.log(t)", [("np.log(t)", "")]),
        ("t:condition", [("t:condition", "x"), ("t:condition", "y")]),
        (
            "C(donor):condition",
            [("C(donor):condition", f"{i}:{c}") for c in "xy" for i in range(3)],
        ),
    ],
)
def test_columns_of_formulaic(formula, expected):
    design = FormulaTransformer(f"~ 0 + {formula}").fit(OBS)
    names = [name.removeprefix("mean__") for name in design.get_feature_names_out()]
    assert [term_and_level(name) for name in names] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Intercept", ("Intercept", "")),
        ("type[T.B cells]", ("type", "B cells")),
        ("C(day, contr.sum)[S.2]", ("C(day, contr.sum)", "2")),
        ("a[T.u]:bs(t, df=3)[2]", ("a:bs(t, df=3)", "u")),
    ],
)
def test_levels_of_contrasts(name, expected):
    assert term_and_level(name) == expected
