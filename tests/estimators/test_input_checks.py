"""Covariates, counts, weights and parameters that are not valid."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sc_glm import NegBinRegressor
from sc_glm.datasets import make_counts
from tests.estimators.simulations import X_VALID, Y_VALID

FRAME = pd.DataFrame({"mean__Intercept": np.ones(8)})


BAD_FIT = {
    "negative alpha": ({"alpha": -1.0}, X_VALID, Y_VALID, ValueError, "alpha"),
    "alpha of a foreign part": (
        {"alpha": {"zero_inflation": 1.0}},
        X_VALID,
        Y_VALID,
        ValueError,
        "zero_inflation",
    ),
    "negative alpha of a part": ({"alpha": {"mean": -1.0}}, X_VALID, Y_VALID, ValueError, "mean"),
    "infinite alpha": ({"alpha": {"mean": np.inf}}, X_VALID, Y_VALID, ValueError, "finite"),
    "no iterations": ({"max_iter": 0}, X_VALID, Y_VALID, ValueError, "max_iter"),
    "no tolerance": ({"tol": 0.0}, X_VALID, Y_VALID, ValueError, "tol"),
    "bad batch size": ({"batch_size": 0}, X_VALID, Y_VALID, ValueError, "batch_size"),
    "bad dtype": ({"dtype": "int8"}, X_VALID, Y_VALID, ValueError, "dtype"),
    "unknown device": ({"device": "abacus"}, X_VALID, Y_VALID, ValueError, "abacus"),
    "negative count": ({}, X_VALID, Y_VALID - 1, ValueError, "negative: -1 for gene 'y0' in row 0"),
    "missing count": (
        {},
        X_VALID,
        np.where(Y_VALID == 3, np.nan, Y_VALID),
        ValueError,
        "NaN.*row 3",
    ),
    "infinite count": (
        {},
        X_VALID,
        np.where(Y_VALID == 3, np.inf, Y_VALID),
        ValueError,
        "infinity.*row 3",
    ),
    "a count that is none": (
        {},
        X_VALID,
        np.where(Y_VALID == 3, 1e200, Y_VALID),
        ValueError,
        "too large for a count: 1e[+]200 for gene 'y0' in row 3",
    ),
    "missing covariate": ({}, np.where(X_VALID == 2, np.nan, X_VALID), Y_VALID, ValueError, "NaN"),
    "no counts": ({}, X_VALID, None, ValueError, "y"),
    "text": ({}, X_VALID, ["a"] * 8, ValueError, "."),
    "complex": ({}, X_VALID, Y_VALID * 1j, ValueError, "[Cc]omplex"),
    "rows that differ": ({}, X_VALID, Y_VALID[:5], ValueError, "8.*5"),
    "no genes": ({}, X_VALID, np.zeros((8, 0)), ValueError, "."),
    "three dimensions": ({}, X_VALID, np.zeros((8, 2, 2)), ValueError, "dim"),
    "duplicated genes": (
        {},
        X_VALID,
        pd.DataFrame(np.ones((8, 2)), columns=["a", "a"]),
        ValueError,
        "'a'",
    ),
    "a part that the model lacks": (
        {},
        FRAME.assign(zero_inflation__x=1.0),
        Y_VALID,
        ValueError,
        "zero_inflation",
    ),
    "a mixed frame": ({}, FRAME.assign(age=1.0), Y_VALID, ValueError, "age"),
    "an offset without its logarithm": (
        {},
        FRAME.assign(offset__depth=5000.0),
        Y_VALID,
        ValueError,
        "5000 in row 0.*logarithm",
    ),
    "two offsets": ({}, FRAME.assign(offset__a=0.0, offset__b=0.0), Y_VALID, ValueError, "offset"),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_invalid_input_raises_a_message_with_its_value(case):
    parameters, X, y, error, words = BAD_FIT[case]
    with pytest.raises(error, match=words):
        NegBinRegressor(**parameters).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "words"),
    [(np.zeros(8), "zero"), (-np.ones(8), "[Nn]egative"), (np.ones(3), "shape")],
)
def test_invalid_weights_raise(weights, words):
    with pytest.raises(ValueError, match=words):
        NegBinRegressor().fit(X_VALID, Y_VALID, sample_weight=weights)


# What newcomers give by mistake
@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, pd.DataFrame])
def test_values_that_are_not_counts_warn(form):
    data = make_counts(60, 3, random_state=0)
    X, counts = data.obs[["pseudotime"]], data.counts.to_numpy().astype(float)
    model = NegBinRegressor()
    model.fit(X, form(counts))  # without a warning, which would be an error
    model.fit(X, form(np.where(counts > 2, counts - 0.5, counts)))  # corrected here and there
    with pytest.warns(UserWarning, match="Most values of y are not integers") as caught:
        model.fit(X, form(np.log1p(counts)))
    assert len([w for w in caught if w.category is UserWarning]) == 1
    assert caught[0].filename == __file__


def test_single_precision_refuses_counts_that_it_cannot_represent():
    y = np.array([1, 5, 2**24 + 1, 3])
    X = np.arange(4.0)[:, None]
    with pytest.raises(ValueError, match=r"16777217 for gene 'y0' in row 2.*single precision"):
        NegBinRegressor(dtype="float32").fit(X, y)
