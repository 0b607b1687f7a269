"""Input that is refused before anything is computed, and input that passes unchanged."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_array_equal

from sc_glm._contract.validation import (
    as_pandas,
    check_finite,
    check_no_anndata,
    check_numbers,
    check_same_order,
    checked_sparse,
    quoted,
)


@pytest.mark.parametrize(
    "data",
    [
        None,
        3.0,
        [[1, 2.5], [True, 3]],
        np.ones(3, dtype=bool),
        np.array([1, 2], dtype=object),
        np.ma.array([1, 2], mask=[False, False]),
        pd.DataFrame({"a": [1, 2], "b": [True, False], "c": pd.array([1, None], dtype="Int64")}),
        pd.DataFrame({"a": np.array([1, 2.5], dtype=object), "_mask": [1, 0]}),
        pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]),
        pd.Series([1.5, 2], dtype=object),
        sp.csr_array(np.eye(2)),
    ],
)
def test_numbers_pass(data):
    assert check_numbers(data, "X") is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (["1", "2"], "Z must hold numbers, not <U1"),
        ([[1], [1, 2]], "Z is not an array"),
        (np.array(["2020"], dtype="M8[D]"), r"Z must hold numbers, not datetime64\[D\]"),
        (pd.Series(["1"]), "Z must hold numbers, not (object|str)"),
        (pd.Series(pd.Categorical([1, 2])), "Z must hold numbers, not category"),
        (sp.csr_array(np.eye(2) * 1j), "Z must hold numbers, not complex128"),
        (np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [1, 1]]), "Z has 2 masked.* row 1"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), r"Z .* 1 column\(s\).* 'b' \((object|str)\)\."),
        (pd.DataFrame({i: ["x"] for i in range(9)}), r"9 column\(s\).* 4 \((object|str)\)\."),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_product([["a"], [1, 2]])), "MultiIndex"),
        (pd.DataFrame(index=[1, 2]), "Z has no columns"),
    ],
)
def test_values_that_are_not_numbers(data, words):
    with pytest.raises(ValueError, match=words):
        check_numbers(data, "Z")


CELLS = ["a", "b", "c"]
X = pd.DataFrame({"x": [1, 2, 3]}, index=CELLS)


@pytest.mark.parametrize(
    "labels",
    [
        CELLS,
        ["a", "b", "d"],
        ["c", "b"],
        [2, 1, 0],
        [0, 1, 2],
        pd.MultiIndex.from_product([["c", "b", "a"], [1]]),
        pd.CategoricalIndex(CELLS, categories=["c", "b", "a"]),
    ],
)
def test_labels_that_do_not_contradict_the_order(labels):
    other = pd.Series(1.0, index=labels)
    assert check_same_order(X, other, "y") is None
    assert check_same_order(X.to_numpy(), other, "y") is None
    assert check_same_order(X.reset_index(drop=True), other, "y") is None


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        (CELLS, ["a", "c", "b"]),
        ([4, 5, 6], [4, 6, 5]),
        (["a", "a", "b"], ["a", "b", "a"]),
        (pd.Index(["a", 1, None]), pd.Index(["a", None, 1])),
        (pd.date_range("2020", periods=3), pd.date_range("2020", periods=3)[[0, 2, 1]]),
        (
            pd.MultiIndex.from_product([CELLS, [1]]),
            pd.MultiIndex.from_product([["a", "c", "b"], [1]]),
        ),
    ],
)
def test_labels_in_another_order(labels, others):
    with pytest.raises(ValueError, match=r"rows of weights .* row 1 has .*, but .* in X"):
        check_same_order(X.set_axis(labels), pd.Series(1.0, index=others), "weights")


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_a_valid_matrix_keeps_its_entries(form, kind):
    matrix = getattr(sp, f"{form}_{kind}")(np.arange(6).reshape(2, 3))
    own = checked_sparse(matrix, "y")
    assert own is not matrix
    assert isinstance(own, sp.sparray)
    assert_array_equal(own.toarray(), matrix.toarray())
    if form in ("csr", "csc", "coo", "bsr"):
        assert own.format == form
        assert np.shares_memory(own.data, matrix.data)


def test_entries_that_are_not_finite():
    check_finite(np.ones((2, 2)), ["a", "b"])
    with pytest.raises(ValueError, match="X contains infinity in column 'b', row 0, and 2 such"):
        check_finite(np.array([[1, -np.inf], [np.nan, 2]]), ["a", "b"])


def test_an_anndata_is_refused_with_a_message():
    adata = AnnData(np.ones((2, 2)))
    for check in (check_no_anndata, check_numbers):
        with pytest.raises(TypeError, match=r"^Z is an AnnData\. sc_glm\.adata\.fit"):
            check(adata, "Z")
    with pytest.raises(TypeError, match=r"^Z is an AnnData"):
        check_no_anndata(type("Own", (AnnData,), {})(np.ones((2, 2))), "Z")
    check_no_anndata(adata.obs, "Z")
    check_no_anndata(adata[:1].X, "Z")  # of a type of anndata's, and an array


def test_advice_on_columns_of_text():
    with pytest.raises(ValueError, match=r"'a' \((object|str)\)\. Do this$"):
        check_numbers(pd.DataFrame({"a": ["x"]}), "Z", " Do this")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.int64(3), "3"),
        (np.str_("a'b"), '"a\'b"'),
        ("T", "'T'"),
        ((np.int64(1), "a"), "(1, 'a')"),
        ((np.float64(0.5),), "(0.5,)"),
        ([np.bool_(True), None], "[True, None]"),
        (np.datetime64("2020-01-02"), "2020-01-02"),
        (pd.Timestamp("2020-01-02"), "2020-01-02 00:00:00"),
        (pd.Period("2020-01"), "2020-01"),
    ],
)
def test_labels_are_quoted_without_types(value, words):
    assert quoted(value) == words


NUMBERED = pd.DataFrame({"x": np.arange(4.0)})


@pytest.mark.parametrize("rows", [[3, 2, 1, 0], [2, 0, 3, 1], slice(3, 0, -1), slice(1, 3), [3, 1]])
def test_numbers_are_labels_unless_pandas_only_counts_the_rows(rows):
    cells = NUMBERED.iloc[rows]
    for other in (cells["x"], cells.to_numpy(), cells.reset_index(drop=True)):
        check_same_order(cells, other, "y")
        check_same_order(other, cells, "y")
    # pandas 3 takes evenly spaced labels for counted rows, unless an array gives them.
    turned = cells.iloc[::-1].set_axis(pd.Index(cells.index.to_numpy()[::-1]))
    with pytest.raises(ValueError, match=rf"row 0 has {turned.index[0]}, but \d in X\. y\.loc"):
        check_same_order(cells, turned, "y")


def test_numbers_that_anndata_made_strings_are_the_same_labels():
    cells = NUMBERED.iloc[[2, 0, 3, 1]]
    adata = AnnData(np.ones((4, 2)), obs=cells.set_axis(cells.index.astype(str)))
    check_same_order(adata, cells["x"], "groups")
    check_same_order(adata, pd.Series([1, 2, 3, 4]), "groups")
    with pytest.raises(ValueError, match=r"groups .* row 0 has '0', but '2' in X\. Give both"):
        check_same_order(adata, cells["x"].loc[[0, 1, 2, 3]], "groups")


def test_labels_that_occur_twice():
    cells = pd.DataFrame({"x": range(4)}, index=[0, 1, 0, 1])
    check_same_order(cells, cells["x"], "y")
    with pytest.raises(ValueError, match=r"row 1 has 0, but 1 in X\. Some labels .* more than"):
        check_same_order(cells, cells["x"].set_axis([0, 0, 1, 1]), "y")


def test_frames_of_polars_become_those_of_pandas():
    stages = pl.Enum(["late", "early"])
    frame = pl.DataFrame(
        {
            "number": [1.5, None, 2.0],
            "count": [1, 2, 3],
            "text": ["a", None, "b"],
            "flag": [True, False, True],
            "stage": pl.Series(["early", "late", "early"], dtype=stages),
        }
    )
    result = as_pandas(frame)
    assert list(result) == frame.columns
    assert_array_equal(result["number"], [1.5, np.nan, 2.0])
    assert_array_equal(result["count"], [1, 2, 3])
    assert list(result["text"].isna()) == [False, True, False]
    assert result["flag"].dtype == bool
    assert list(result["stage"].cat.categories) == ["late", "early"]
    assert as_pandas(frame.clear()).shape == (0, 5)
    assert as_pandas(pl.Series("Ins1", [1, 2])).name == "Ins1"
    assert as_pandas(pl.Series([1, 2])).name is None
    with pytest.raises(ValueError, match=r"LazyFrame .*\.collect\(\)"):
        as_pandas(frame.lazy())


@pytest.mark.parametrize("data", [None, [1], np.ones(2), pd.Series([1]), pd.DataFrame({"a": [1]})])
def test_data_of_other_packages_pass_unchanged(data):
    assert as_pandas(data) is data
