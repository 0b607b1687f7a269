"""Linear hypotheses about coefficients, read from text."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sc_glm.formula.constraints import linear_constraints
from tests.formula.designs import fit

NAMES = ["Intercept", "a[T.x y]", "a[T.z]", "a[T.z]:b", "bs(t, df=5)[1]", "Pre-b[T.1]"]


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("a[T.x y] - a[T.z] = 0", [0, 1, -1, 0, 0, 0], 0),
        ("a[T.z]", [0, 0, 1, 0, 0, 0], 0),
        ("a[T.z]:b", [0, 0, 0, 1, 0, 0], 0),
        ("`a[T.z]:b` / 2 = a[T.z]", [0, 0, -1, 0.5, 0, 0], 0),
        ("bs(t, df=5)[1] = -0.25", [0, 0, 0, 0, 1, 0], -0.25),
        ("Pre-b[T.1]", [0, 0, 0, 0, 0, 1], 0),
        ("`Pre-b[T.1]` + 1 = 3", [0, 0, 0, 0, 0, 1], 2),
        ("a[T.z] = 1e-05", [0, 0, 1, 0, 0, 0], 1e-5),
        ("a[T.z] = -2.5E3", [0, 0, 1, 0, 0, 0], -2500),
    ],
)
def test_one_constraint(text, row, value):
    matrix, values = linear_constraints(text, NAMES)
    assert_array_equal(matrix, [row])
    assert_array_equal(values, [value])


@pytest.mark.parametrize(
    "name", ["bs(t, lower_bound=-1, df=4)[1]", "np.log(np.exp(t) + 1e-3)", "g[T.k=-1]", "g[1e-05]"]
)
def test_names_that_hold_numbers_and_signs(name):
    for text in (f"`{name}` = 2", f"{name} = 2"):
        matrix, values = linear_constraints(text, ["t", name])
        assert_array_equal(matrix, [[0, 1]])
        assert_array_equal(values, [2])


SIGNS = st.text(alphabet="abT1é_ .,:;=-+*/'\"`[](){}", max_size=8)


@given(names=st.lists(SIGNS, min_size=2, max_size=5, unique=True))
def test_any_name_works_alone_or_in_backquotes(names):
    for number, name in enumerate(names):
        assert_array_equal(linear_constraints(name, names)[0], np.eye(len(names))[[number]])
    assume(not any("` " in name or " `" in name for name in names))
    matrix, values = linear_constraints(f"2 * `{names[0]}` - `{names[-1]}` = -1e-3", names)
    assert_array_equal(matrix, [2.0 * np.eye(len(names))[0] - np.eye(len(names))[-1]])
    assert_array_equal(values, [-1e-3])


def test_names_that_formulas_make_need_no_backquotes():
    rng = np.random.default_rng(0)
    cells = pd.DataFrame(
        {
            "cell type": rng.choice(["T, helper's = 1", 'the "B" cells', "a-b/c:d", "CD4+"], 60),
            "my x": rng.uniform(1, 2, 60),
            "größe": rng.normal(size=60),
            "HLA-A": rng.normal(size=60),
        }
    )
    odd = """~ C(`cell type`, contr.treatment("CD4+")) * `my x` + bs(`my x`, df=4, degree=2)
        + np.log(`my x` + 1e-3) + I((`my x` - 1) * (größe + 2)) + größe + `HLA-A`"""
    names = list(fit(cells, odd.replace("\n", " ")).transform(cells).columns.str.slice(6))
    assert sum("`" in name for name in names) >= 8
    for number, name in enumerate(names):
        unit = np.eye(len(names))[number]
        for text in (name, f"{name} = 0", f"`{name}` = 0"):
            assert_array_equal(linear_constraints(text, names)[0], [unit])
        if number:
            matrix, values = linear_constraints(
                f"Intercept + 3 = 2 * {name}, {name} / 4 = 1", names
            )
            assert_array_equal(matrix, [np.eye(len(names))[0] - 2 * unit, unit / 4])
            assert_array_equal(values, [-3, 1])


def test_without_backquotes_an_ambiguous_name_is_a_sum_or_a_number():
    names = ["a", "b", "a-b", "1", "c-d", "(a)"]
    for text, row, value in (
        ("a-b + b", [1, 0, 0, 0, 0, 0], 0),
        ("`a-b` + b", [0, 1, 1, 0, 0, 0], 0),
        ("a-b", [0, 0, 1, 0, 0, 0], 0),
        ("2 * c-d", [0, 0, 0, 0, 2, 0], 0),
        ("b = 1", [0, 1, 0, 0, 0, 0], 1),
        ("b = `1`", [0, 1, 0, -1, 0, 0], 0),
        ("2 * (a) - (b + -1) / 2 = -+.5", [2, -0.5, 0, 0, 0, 0], -1),
    ):
        matrix, values = linear_constraints(text, names)
        assert_array_equal(matrix, [row])
        assert_array_equal(values, [value])


@pytest.mark.parametrize(
    "text",
    ["a * b", "a / b", "a / 0", "1e999 * a", "2 a", "a +", "(a", "a = b = 0", "a, , b", "a // b"],
)
def test_text_that_is_not_a_linear_equation(text):
    with pytest.raises(ValueError, match=r"does not parse\. A constraint is an equation"):
        linear_constraints(text, ["a", "b"])


def test_a_constraint_has_one_equals_sign():
    with pytest.raises(ValueError, match="one equals sign"):
        linear_constraints("a[T.z] = 1 = Intercept", NAMES)


def test_several_constraints():
    expected = linear_constraints("a[T.z] = 1, Intercept = -2", NAMES)
    assert_array_equal(expected[0], np.eye(6)[[2, 0]])
    assert_array_equal(expected[1], [1, -2])
    for found, one in zip(
        linear_constraints(["a[T.z] = 1", "Intercept = -2"], NAMES), expected, strict=True
    ):
        assert_array_equal(found, one)


@pytest.mark.parametrize("text", ["__import__('os')", "open('x')", "a[T.z] ** 2", "[1, 2]", "'b'"])
def test_a_constraint_is_not_evaluated(text):
    with pytest.raises(ValueError, match="constraint"):
        linear_constraints(text, NAMES)


def test_the_reference_level_has_no_coefficient():
    with pytest.raises(ValueError, match=r"'a\[T.w\]'.*If 'w' is the reference level"):
        linear_constraints("a[T.z] - a[T.w] = 0", NAMES)
    with pytest.raises(ValueError, match=r"If 'w' is the reference level of a, its .* zero\.$"):
        linear_constraints("`a[T.w]:b` = 0", NAMES)
    with pytest.raises(ValueError, match=r"no coefficient 'c'\. There are 6, such as") as raised:
        linear_constraints("c = 0", NAMES)
    assert "reference" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("kind[T.T]:cond[T.stim]", ["'T' is the reference level of kind,"]),
        ("kind[T.b]:cond[T.ctrl]", ["'ctrl' is the reference level of cond,"]),
        ("kind[T.T]:cond[T.ctrl]", ["'T' is the reference", "'ctrl' is the reference"]),
        ("kind[T.a:b]:cond[T.stim]", ["'a:b' is the reference level of kind,"]),
        ("C(d, contr.treatment('x:[y'))[T.z]", ["'z' is the reference level of C(d, contr.trea"]),
        ("cond[T.stim]:kind[T.b]", []),
        ("other[T.a]", []),
        ("kind", []),
    ],
)
def test_the_reference_level_of_an_interaction_is_named_with_its_factor(name, levels):
    names = ["kind[T.b]:cond[T.stim]", "C(d, contr.treatment('x:[y'))[T.w]"]
    with pytest.raises(ValueError, match="no coefficient") as caught:
        linear_constraints(f"`{name}` = 0", names)
    assert str(caught.value).count("If ") == len(levels)
    for words in levels:
        assert f"If {words}" in str(caught.value)
