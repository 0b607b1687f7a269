"""Names and operators of formulas, and formulas that do not parse."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm.formula import FormulaTransformer
from tests.formula.designs import fit

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


@pytest.mark.parametrize(
    ("name", "formula", "what"),
    [
        ("1", "~ .", "the intercept"),
        ("1", "~ `1`", "the intercept"),
        ("1", "~ 0 + x + `1`", "the intercept"),
        ("1", "~ x - `1`", "the intercept"),
        ("1", "~ `1`:x", "the intercept"),
        ("2", "~ `2` + 2:x", "a number"),
        ("np.log(y)", "~ `np.log(y)` + np.log( y )", "an expression"),
        ("x + y", "~ . + {x+y}", "an expression"),
    ],
)
def test_columns_that_a_formula_cannot_distinguish_from_something_else(name, formula, what):
    X = pd.DataFrame({name: [1.0, 2, 5], "x": [2.0, 1, 1], "y": [1.0, 3, 4]})
    with pytest.raises(ValueError, match=r"^mean=.*cannot distinguish the column") as caught:
        fit(X, formula)
    assert f"{name!r} from {what}." in str(caught.value)


def test_columns_named_by_numbers():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 4)), columns=[*"012x"])
    design = fit(X, "~ 0 + `0` + `2` + I(`1`) + Q('1') + 3:x").transform(X[[*"x210"]])
    expected = [X["0"], X["2"], X["1"], X["1"], 3 * X["x"]]
    assert_array_equal(design, np.column_stack(expected))
    assert fit(X, "~ 1 + `0`").transform(X).shape == (5, 2)  # one that is not read is no trouble


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        ("~ 0 + np.log(depth)", "np.log(depth)"),
        ("0 + np.log(depth)", "np.log(depth)"),
        ("~ x", "x"),
        ("{np.log(depth) - x}", "np.log(depth) - x"),
        ("I(np.log(depth) + x)", "I(np.log(depth) + x)"),
        ("flag", "flag"),
    ],
)
def test_offset_spellings(cells, offset, name):
    assert list(fit(cells, offset=offset).transform(cells)) == [f"offset__{name}"]


def test_dot_minus_a_column(cells):
    assert list(fit(cells, ". - kind - level - batch - flag").transform(cells)) == [
        "mean__Intercept",
        "mean__x",
        "mean__depth",
    ]
    assert "mean__Intercept" not in fit(cells, "0 + .").transform(cells)


def test_odd_names():
    names = ["a b", "c.d", "e[f]", "100%", "it's", "scale", "np", "class", "x:y", "ü"]
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(9, len(names))), columns=names)
    design = fit(X, "~ .").transform(X)
    assert list(design) == ["mean__Intercept", *(f"mean__{name}" for name in names)]
    assert_array_equal(design.iloc[:, 1:], X)


@pytest.mark.parametrize("name", ["a b", "c.d", "e[f]", "100%", "1a", "scale", "C", "log", "a"])
def test_odd_names_in_expressions(name):
    X = pd.DataFrame({name: [1.0, 2, 4], "np": 0.0, "center": 1.0, "c": 2.0})
    model = fit(X, f"0 + `{name}` + center(`{name}`) + np.log(`{name}`)")
    assert list(model.covariates_["mean"]) == [name]
    design = model.transform(X[[name]].iloc[[2]])
    assert_allclose(design, [[4, 4 - 7 / 3, np.log(4)]])


def test_columns_of_similar_names_are_distinguished():
    X = pd.DataFrame({"a b": [1.0, 2, 6], "a_b": [1.0, 0, 5], "a-b": [7.0, 8, 9]})
    design = fit(X, "~ center(`a b`) + a_b + center(`a-b`) + {`a b` - a_b} + Q('a b')").transform(X)
    assert_array_equal(design, [[1, -2, 1, -1, 0, 1], [1, -1, 0, 0, 2, 2], [1, 3, 5, 1, 1, 6]])


@pytest.mark.parametrize("formula", ["~ zz", "~ . - zz", "~ np.log(zz)", "~ x:zz", "~ `z z`"])
def test_unknown_column_at_fit(cells, formula):
    with pytest.raises(ValueError, match=r"^mean=.*z ?z"):
        fit(cells, formula)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x",
        "x ~ kind",
        "~ x | kind",
        "x | kind",
        "x ~ kind ~ x",
        "[x ~ kind]",
        "~ x +",
        "~ bs(x",
        "~ x)",
        "~ np.log(x y)",
        "~ x + 'a'",
        "~ 2",
        "~ x kind",
        "~ x $ kind",
        "import os",
        "",
        "  ",
        "~",
        "~ 0",
        "~ np",
        "~ bs",
        "~ x[:3]",
        "~ np.unique(batch)",
        "~ I(kind + 1)",
        "~ np.where(x > 0, 'a', 'b')",
        "~ I(1j * x)",
        "~ 1/0",
        "~ {1/0}",
    ],
)
@pytest.mark.parametrize("part", ["mean", "zero_inflation"])
def test_formulas_that_cannot_be_used(cells, formula, part):
    with pytest.raises(ValueError, match=rf"^{part}=") as caught:
        FormulaTransformer(**{"mean": "~ 1", part: formula}).fit(cells)
    assert repr(formula) in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_name_with_spaces_needs_backquotes(cells):
    spaced = cells.rename(columns={"kind": "cell type"})
    with pytest.raises(ValueError, match=r"does not parse\. .*in backquotes: `cell type`\.$"):
        FormulaTransformer("~ cell type").fit(spaced)
    FormulaTransformer("~ `cell type`").fit(spaced)
    with pytest.raises(ValueError, match=r"does not parse\. (?!.*backquotes)"):
        FormulaTransformer("~ `cell type` x").fit(spaced)
