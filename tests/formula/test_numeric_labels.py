"""Whole numbers that may be labels, and get one slope."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.formula.designs import fit


def slopes(X, *formulas, **parts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(X, *formulas, **parts)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ([1, 2, 3, 4, 5, 6], True),
        ([0, 1, 2], True),
        ([1, 2, 4, 5, 6], True),
        (list(range(101, 116)), True),
        ([0, 1], False),
        ([1, 2], False),
        ([0, 6, 12, 24], False),
        ([0, 3, 7], False),
        (list(range(16)), False),
        ([1.0, 2.0, 3.0], False),
    ],
)
@pytest.mark.parametrize("dtype", [None, "Int32", "object"])
def test_warning_of_whole_numbers_like_labels(values, warns, dtype):
    series = pd.Series(values * 3)
    X = pd.DataFrame({"donor": series if dtype is None or not warns else series.astype(dtype)})
    for formula in ("~ donor", "~ .", "~ 0 + donor:I(donor > 2)"):
        messages = slopes(X, formula)
        assert len(messages) == warns
        for message in messages:
            assert f"'donor' ({len(values)} values)" in message
            assert "C(donor)" in message
            assert "I(donor)" in message


def test_uses_of_whole_numbers_without_a_warning():
    X = pd.DataFrame({"my donor": [1, 2, 3, 4] * 3, "x": np.arange(12.0)})
    for formula in (
        "~ C(`my donor`)",
        "~ I(`my donor`)",
        "~ . - `my donor`",
        "~ bs(`my donor`, df=3)",
        "~ {`my donor` / 2}",
        "~ Q('my donor')",
    ):
        assert not slopes(X, formula)
    assert not slopes(X, offset="my donor".join("``"))
    assert not slopes(X.astype(float), "~ .")
    (message,) = slopes(X, "~ .", dispersion="~ `my donor`")
    assert "C(`my donor`)" in message
