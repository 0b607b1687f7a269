import ast

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sc_glm.formula.rewriting import (
    alias_quoted_names,
    as_number,
    in_double_precision,
    makes_levels,
    restore_quoted_names,
)


@pytest.mark.parametrize(
    "expression",
    ["np.log(`a b`)", "`x`+`lambda`", "`it's` + `µ`", "np.where(`k` == '`k`', \"`a`\", 'b')", "x"],
)
def test_names_in_backquotes_are_restored(expression):
    code, aliases = alias_quoted_names(expression)
    assert restore_quoted_names(code) == expression
    assert len(set(aliases.values())) == len(aliases)
    ast.parse(code)


@pytest.mark.parametrize(
    ("code", "rewritten", "columns"),
    [
        ("a + 2", "_number(a) + 2", {"a"}),
        ("-(a > 1)", "-_number(a > 1)", {"a"}),
        ("~a & (b == 2)", "~a & (b == 2)", {"a", "b"}),
        ("np.where(a, b, 1)", "np.where(a, b, 1)", {"a", "b"}),
        ("np.exp(a)", "np.exp(_number(a))", {"a"}),
        ("bs(a, knots=[np.log(2)])", "bs(_number(a), knots=[np.log(2)])", {"a"}),
        ("C(a, contr.treatment('b'))", "C(a, contr.treatment('b'))", {"a"}),
        ("I(Q('a b'))", "I(_column_612062_)", {"a b"}),
        ("a * np.pi", "_number(a) * _number(np.pi)", {"a"}),
    ],
)
def test_arguments_that_are_converted_to_numbers(code, rewritten, columns):
    found = in_double_precision(code, {})
    assert found.code == rewritten
    assert set(found.columns.values()) == columns
    assert "_number" not in in_double_precision(code, {}, numbers=False).code


def test_no_column_has_the_name_of_a_function():
    names = ["x", "np", "bs", "_number", "_x", "a b", "a-b", "µ", "\u03bc", "class"]
    code = " + ".join(f"Q({name!r})" for name in names)
    found = in_double_precision(code, {})
    assert sorted(found.columns.values()) == sorted(names)
    assert "x" in found.columns
    assert found.columns.keys().isdisjoint({"np", "bs", "_number"})


@pytest.mark.parametrize(
    ("code", "levels"),
    [("C(a)", True), ("hashed(a, levels=3)", True), ("I(a)", False), ("a", False)],
)
def test_which_expressions_make_levels(code, levels):
    assert makes_levels(code) is levels


@pytest.mark.parametrize("kind", [np.array, pd.Series])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint32", "int64", "float32", "float64"])
def test_whole_numbers_and_conditions_become_float64(kind, dtype):
    values = kind(np.array([0, 1, 1], dtype=dtype))
    found = as_number(values)
    assert found.dtype == (dtype if dtype.startswith("float") else np.float64)
    assert_array_equal(found, [0, 1, 1])
    assert values.dtype == dtype


@pytest.mark.parametrize("values", [[2**53 + 1, 0], [0, -(2**53) - 1], [-(2**63), 0]])
def test_whole_numbers_that_would_be_rounded_are_named(values):
    with pytest.raises(ValueError, match=rf"-?{max(values, key=abs)} is a whole number beyond"):
        as_number(np.array(values))
    assert as_number(np.array([2**53, -(2**53)])).tolist() == [2.0**53, -(2.0**53)]


def test_values_that_are_not_columns_stay_unchanged():
    for value in (3, 2.5, True, "a", np.array(["a"])):
        assert as_number(value) is value
    assert as_number(np.array([], dtype=int)).dtype == np.float64
