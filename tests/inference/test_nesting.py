"""Which models are special cases of which."""

import numpy as np
import pandas as pd
import pytest

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm._likelihood.family import ZINBFamily
from sc_glm.datasets import make_counts
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.nesting import compare_nested_models

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
DATA = make_counts(200, 2, random_state=0)
COUNTS = DATA.counts


def fitted(mean, dispersion="~ 1", zero_inflation=None, offset=None, counts=COUNTS):
    regressor = NegBinRegressor() if zero_inflation is None else ZINBRegressor()
    steps = FormulaTransformer(mean, dispersion, zero_inflation, offset), regressor
    return FittedData.of(make_pipeline(*steps).fit(DATA.obs, counts), DATA.obs, counts)


NESTED = {
    "a slope": ({"mean": "~ 1"}, {"mean": "~ pseudotime"}, 1, False),
    "a factor": ({"mean": "~ pseudotime"}, {"mean": "~ pseudotime + cell_type"}, 2, False),
    "other columns of one space": (
        {"mean": "~ 0 + cell_type"},
        {"mean": "~ cell_type * batch"},
        3,
        False,
    ),
    "a line in a spline": (
        {"mean": "~ pseudotime"},
        {"mean": "~ bs(pseudotime, df=5, include_intercept=True)"},
        3,
        False,
    ),
    "aliased columns count once": (
        {"mean": "~ 1"},
        {"mean": "~ pseudotime + I(2 * pseudotime)"},
        1,
        False,
    ),
    "a size": ({"mean": "~ 1"}, {"mean": "~ 1", "dispersion": "~ cell_type"}, 2, False),
    "one inflation": ({"mean": "~ 1"}, {"mean": "~ 1", "zero_inflation": "~ 1"}, 1, True),
    "one inflation and a slope": (
        {"mean": "~ 1"},
        {"mean": "~ pseudotime", "zero_inflation": "~ 1"},
        2,
        True,
    ),
    "a slope of the inflation": (
        {"mean": "~ 1", "zero_inflation": "~ 1"},
        {"mean": "~ 1", "zero_inflation": "~ pseudotime"},
        1,
        False,
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_models(name):
    reduced, full, df, on_boundary = NESTED[name]
    assert compare_nested_models(fitted(**reduced), fitted(**full)) == (df, on_boundary)


@pytest.mark.parametrize("name", NESTED)
def test_exchanged_models_are_recognised(name):
    full, reduced, _, _ = NESTED[name]
    with pytest.raises(ValueError, match=r"is the larger one.* Exchange the two models"):
        compare_nested_models(fitted(**reduced), fitted(**full))


@pytest.mark.parametrize(
    ("reduced", "full", "message"),
    [
        (
            {"mean": "~ batch"},
            {"mean": "~ cell_type"},
            "the mean of the reduced model is not a special",
        ),
        ({"mean": "~ 1"}, {"mean": "~ 0 + pseudotime"}, "the mean of the reduced model"),
        (
            {"mean": "~ 1", "dispersion": "~ batch"},
            {"mean": "~ batch", "dispersion": "~ 1"},
            "the dispersion of the reduced model",
        ),
        ({"mean": "~ batch"}, {"mean": "~ 0 + batch"}, "are equal"),
        ({"mean": "~ 1", "zero_inflation": "~ 1"}, {"mean": "~ batch"}, "exchange the two models"),
        (
            {"mean": "~ 1"},
            {"mean": "~ 1", "offset": "np.log(size_factor)"},
            "different offsets",
        ),
        (
            {"mean": "~ 1"},
            {"mean": "~ 1", "zero_inflation": "~ pseudotime"},
            "no known distribution",
        ),
        ({"mean": "~ 1"}, {"mean": "~ 1", "zero_inflation": "~ 0 + pseudotime"}, "no known"),
    ],
)
def test_models_that_are_not_nested(reduced, full, message):
    with pytest.raises(ValueError, match=message):
        compare_nested_models(fitted(**reduced), fitted(**full))


def test_other_genes_are_refused():
    other = fitted("~ pseudotime", counts=COUNTS.rename(columns={"gene_1": "gene_2"}))
    with pytest.raises(ValueError, match="different genes"):
        compare_nested_models(fitted("~ 1"), other)


def test_only_cells_with_a_weight_count():
    """A level of which no cell has a weight is no column more."""
    weights = (DATA.obs["cell_type"] != "c").to_numpy().astype(float)
    reduced, full = fitted("~ 1"), fitted("~ cell_type")
    assert compare_nested_models(reduced, full).df == 2
    assert compare_nested_models(reduced, full, weights).df == 1
    assert compare_nested_models(reduced, full, pd.Series(weights, index=DATA.obs.index)).df == 1
    assert np.count_nonzero(weights) > 100


class OtherFamily:
    """A family of three parts whose zeros have another meaning."""

    parts = ZINBFamily.parts


def test_a_negative_binomial_is_no_special_case_of_any_family_with_three_parts():
    reduced = fitted("~ 1")
    full = fitted("~ 1", zero_inflation="~ 1")
    full.regressor._family = OtherFamily()
    message = "not nested: NegBinFamily is not known to be a special case of OtherFamily"
    with pytest.raises(ValueError, match=message):
        compare_nested_models(reduced, full)
