import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sc_glm._design.layout import Layout

NB = ("mean", "dispersion")
ZINB = ("mean", "dispersion", "zero_inflation")

# Layout


def test_a_plain_matrix_belongs_to_the_mean():
    layout = Layout.of(None, 2, ZINB, intercept=True)
    assert layout.columns == {
        "mean": ["Intercept", "x0", "x1"],
        "dispersion": ["Intercept"],
        "zero_inflation": ["Intercept"],
    }
    X = np.array([[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]])
    designs = layout.designs(X)
    assert_array_equal(designs["mean"], [[1, 1.5, 2.5], [1, 3.5, 4.5], [1, 5.5, 6.5]])
    assert_array_equal(designs["dispersion"], np.ones((3, 1)))
    assert_array_equal(designs["zero_inflation"], np.ones((3, 1)))
    assert_array_equal(layout.offset_of(X), np.zeros(3))


def test_a_plain_frame_keeps_its_names():
    layout = Layout.of(["depth", "batch__2"], 2, NB, intercept=False)
    assert layout.columns == {"mean": ["depth", "batch__2"], "dispersion": ["Intercept"]}
    assert layout.positions["mean"] == [0, 1]


def test_a_design_frame_is_cut_into_parts_in_any_order_of_columns():
    names = ["dispersion__k", "mean__x", "offset__log(n)", "mean__Intercept", "mean__a__b"]
    layout = Layout.of(names, 5, ZINB, intercept=True)
    assert layout.columns == {
        "mean": ["x", "Intercept", "a__b"],
        "dispersion": ["k"],
        "zero_inflation": ["Intercept"],
    }
    X = np.arange(10.0).reshape(2, 5)
    designs = layout.designs(X)
    assert_array_equal(designs["mean"], [[1, 3, 4], [6, 8, 9]])
    assert_array_equal(designs["dispersion"], [[0], [5]])
    assert_array_equal(designs["zero_inflation"], [[1], [1]])
    assert_array_equal(layout.offset_of(X), [2, 7])


def test_a_missing_part_has_an_intercept_also_without_intercept():
    layout = Layout.of(["dispersion__x"], 1, NB, intercept=False)
    assert layout.columns == {"mean": ["Intercept"], "dispersion": ["x"]}


def test_the_formula_owns_the_intercept():
    assert Layout.of(["mean__x"], 1, NB, intercept=True).columns["mean"] == ["x"]


@pytest.mark.parametrize(
    ("names", "parts", "words"),
    [
        (["mean__x", "age", "sex"], NB, ["part__column", "'age'", "'sex'"]),
        (["mean__x", "zero_inflation__z"], NB, ["'zero_inflation'", "'z'", "'dispersion'"]),
        (["mean__x", "offset__a", "offset__b"], NB, ["2 offset", "'a'", "'b'"]),
        (["offset__a", "b"], NB, ["part__column", "'b'"]),
    ],
)
def test_errors_of_a_layout(names, parts, words):
    with pytest.raises(ValueError) as error:
        Layout.of(names, len(names), parts, intercept=True)
    for word in words:
        assert word in str(error.value)
