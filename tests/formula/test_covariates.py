import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from sc_glm.formula.covariates import Columns, check_levels, missing_column_message, read_columns

INDEX = ["u", "v", "w"]


@pytest.mark.parametrize(
    ("values", "is_categorical"),
    [
        (["a", "b", "c"], True),
        (pd.array(["a", "b", "c"], dtype="string"), True),
        (pd.Categorical([1, 2, 1]), True),
        (np.array([1, 2.5, 3], dtype=object), False),
        (pd.array([1, 2, None], dtype="Int64"), False),
        ([0.5, np.nan, np.inf], False),
        ([True, False, True], False),
        (pd.date_range("2020", periods=3), True),
        (pd.date_range("2020", periods=3, tz="UTC"), True),
        (pd.timedelta_range(0, periods=3), True),
        (pd.period_range("2020", periods=3, freq="D"), True),
        (pd.interval_range(0, 3), True),
    ],
)
def test_which_columns_are_categorical(values, is_categorical):
    assert Columns(pd.DataFrame({"x": values})).is_categorical("x") is is_categorical


def test_a_kind_is_determined_once():
    frame = pd.DataFrame({"x": ["a", "b"]})
    columns = Columns(frame)
    assert columns.is_categorical("x")
    frame["x"] = [1.0, 2.0]
    assert columns.is_categorical("x")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([1, 2, 3], dtype="i1"), np.int64),
        (np.array([1, 2, 3], dtype="u1"), np.int64),
        (np.array([1, 2, 3], dtype="f4"), np.float64),
        (pd.array([1, 2, 3], dtype="Int8"), np.int64),
        (np.array([1, 2, 3], dtype=object), np.int64),
        (pd.arrays.SparseArray([0, 2, 0]), np.int64),
        ([True, False, True], np.int64),
    ],
)
def test_numbers_become_64_bit(values, dtype):
    frame = pd.DataFrame({"x": values}, index=INDEX)
    found = read_columns(frame, {"x": False}, set(), "mean='x'")["x"]
    assert found.dtype == dtype
    assert_array_equal(found, np.asarray(frame["x"]))


@pytest.mark.parametrize("dtype", ["i1", "u8", "f4", "Int64", "boolean", "bool", "object"])
def test_a_column_that_was_boolean_at_fit_stays_boolean(dtype):
    frame = pd.DataFrame({"x": pd.Series([1, 0, 1], INDEX).astype(dtype)})
    found = read_columns(frame, {"x": False}, {"x"}, "mean='x'")["x"]
    assert found.dtype == np.bool_
    assert_array_equal(found, [True, False, True])
    frame = pd.DataFrame({"x": [1, 0, 2]}, index=INDEX)
    with pytest.raises(ValueError, match=r"'x' was True and False at fit.* \(2\) in row 'w'"):
        read_columns(frame, {"x": False}, {"x"}, "mean='x'")


@pytest.mark.parametrize(
    ("values", "is_boolean"),
    [
        ([True, False], True),
        (pd.array([True, False], dtype="boolean"), True),
        (np.array([True, False], dtype=object), True),
        ([1, 0], False),
        (["True", "False"], False),
        (pd.Categorical([True, False]), False),
    ],
)
def test_which_columns_are_boolean(values, is_boolean):
    assert Columns(pd.DataFrame({"x": values})).is_boolean("x") is is_boolean


def test_levels_stay_unchanged():
    level = pd.Categorical(["b", "a", "b"], categories=["b", "c", "a"], ordered=True)
    frame = pd.DataFrame({"kind": ["a", "b", "a"], "level": level, "n": [1, 2, 3]})
    found = read_columns(frame, {"level": True, "kind": True, "n": True}, set(), "mean='x'")
    assert list(found) == ["level", "kind", "n"]
    assert list(found["level"].categories) == ["b", "c", "a"]
    for name in ("kind", "n"):
        assert found[name].dtype == object
        assert_array_equal(found[name], frame[name])


def test_columns_that_are_not_read_may_hold_anything():
    frame = pd.DataFrame({"x": [1, 2], "other": [None, np.nan], "date": pd.NaT})
    assert list(read_columns(frame, {"x": False}, set(), "mean='x'")) == ["x"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0, np.inf, np.inf], ["is not finite (inf) in row 'v'", "2 of 3"]),
        ([1.0, 2.0, None], ["is missing (nan) in row 'w'", "1 of 3"]),
        (["1", "2", "3"], ["is read as numbers, but holds '1'", "(dtype {dtype})"]),
        (pd.date_range("2020", periods=3), ["holds 2020-01-01 00:00:00 (dtype {dtype})"]),
        (np.array([1, 2**63, 3], dtype="u8"), ["beyond 2**63 (9223372036854775808) in row 'v'"]),
    ],
)
def test_a_column_that_cannot_be_read_is_named(values, words):
    frame = pd.DataFrame({"x": values}, index=INDEX)
    with pytest.raises(ValueError, match=r"^mean='x': column 'x'") as caught:
        read_columns(frame, {"x": False}, set(), "mean='x'")
    for word in words:
        assert word.format(dtype=frame["x"].dtype) in str(caught.value)


def test_unknown_levels_are_named():
    values = pd.Series(["a", "b", "z"])
    check_levels(values, ["a", "b", "z"], pd.Index(INDEX), "'kind'")
    with pytest.raises(
        ValueError, match=r"^'kind' .* 'z' in row 'w' \(1 of 3 rows .*: 'a', 'b'\.$"
    ):
        check_levels(values, ["a", "b"], pd.Index(INDEX), "'kind'")
    many = [*"abcdefghijkl"]
    with pytest.raises(ValueError, match=r"'i', 'j', \.\.\.\.$"):
        check_levels(values, many, pd.Index(INDEX), "'kind'")


@pytest.mark.parametrize(
    ("name", "names", "words"),
    [
        ("Clusters", ["a", "clusters"], "^X has no column 'Clusters'. Did you mean 'clusters'?$"),
        ("cluster", ["clusters", "Cluster"], "'Cluster'?"),
        ("CLUSTER", ["Cluster", "cluster"], "'Cluster'?"),
        ("depth", ["batch", "donor"], "It has 2: 'batch', 'donor'.$"),
        ("zzz", [*"abcdef"], "It has 6: 'a', 'b', 'c', 'd', 'e', ....$"),
        ("zzz", ["x1", "x0"], "It has 2: 'x1', 'x0'.$"),
        (
            "zzz",
            ["x0", "x1"],
            "It has 2: 'x0', 'x1'. Columns of an array get these.*set_output",
        ),
        ("zzz", [], "^X has no column 'zzz'. It has no columns at all.$"),
        (3, ["x"], "^X has no column 3. It has 1: 'x'.$"),
        ("zzz", [1, None], "It has 2: '1', 'None'.$"),
    ],
)
def test_message_for_a_missing_column(name, names, words):
    assert re.search(words.replace("?", r"\?"), missing_column_message(name, names))
