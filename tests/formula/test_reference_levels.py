import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sc_glm import NegBinRegressor, make_pipeline
from sc_glm.formula import FormulaTransformer
from tests.saved_models import through_pickle, through_skops

CELLS = pd.DataFrame(
    {
        "kind": list("abcabcab"),
        "stage": pd.Categorical(list("uvuvwwuv"), ["w", "v", "u", "unused"]),
        "batch": [1, 2, 3, 1, 2, 3, 1, 2],
        "flag": [True, False] * 4,
        "b b": list("xyxyxyyy"),
        "x": np.arange(8.0),
    }
)


def names(formula, reference, **parts):
    model = FormulaTransformer(formula, **parts, reference=reference).fit(CELLS)
    return [name.removeprefix("mean__") for name in model.get_feature_names_out()]


@pytest.mark.parametrize(
    ("formula", "reference", "expected"),
    [
        ("~ kind", {"kind": "b"}, ["Intercept", "kind[T.a]", "kind[T.c]"]),
        ("~ stage", {"stage": "v"}, ["Intercept", "stage[T.w]", "stage[T.u]"]),
        ("~ C(kind)", {"kind": "c"}, ["Intercept", "C(kind)[T.a]", "C(kind)[T.b]"]),
        ("~ C(batch)", {"batch": 2}, ["Intercept", "C(batch)[T.1]", "C(batch)[T.3]"]),
        ("~ `b b`", {"b b": "y"}, ["Intercept", "b b[T.x]"]),
        ("~ C(`b b`)", {"b b": "y"}, ["Intercept", "C(`b b`)[T.x]"]),
        ("~ Q('b b')", {"b b": "y"}, ["Intercept", "Q('b b')[T.x]"]),
        ("~ 0 + kind", {"kind": "b"}, ["kind[b]", "kind[a]", "kind[c]"]),
        ("~ flag", {"flag": False}, ["Intercept", "flag"]),
        ("~ C(flag)", {"flag": True}, ["Intercept", "C(flag)[T.False]"]),
        (
            "~ kind * x",
            {"kind": "b"},
            ["Intercept", "kind[T.a]", "kind[T.c]", "x", "kind[T.a]:x", "kind[T.c]:x"],
        ),
        (
            "~ C(kind, contr.treatment)",
            {"kind": "b"},
            ["Intercept", "C(kind, contr.treatment)[T.a]", "C(kind, contr.treatment)[T.c]"],
        ),
        ("~ x", {"kind": "b"}, ["Intercept", "x"]),
    ],
)
def test_the_reference_has_no_column_wherever_its_factor_occurs(formula, reference, expected):
    assert names(formula, reference) == expected


def test_all_parts_share_the_reference():
    found = names("~ kind", {"kind": "b"}, dispersion="~ C(kind)", zero_inflation="~ kind:x")
    assert "dispersion__C(kind)[T.a]" in found
    assert "dispersion__C(kind)[T.b]" not in found


def test_contrasts_of_a_formula_have_precedence():
    explicit = "C(kind, contr.treatment('a'))"
    both = names(f"~ {explicit}", {"kind": "b"}, dispersion="~ kind")
    assert both[1:3] == [f"{explicit}[T.b]", f"{explicit}[T.c]"]
    assert both[4:] == ["dispersion__kind[T.a]", "dispersion__kind[T.c]"]


def test_a_reference_equals_the_same_order_of_a_categorical():
    reordered = CELLS.assign(kind=pd.Categorical(CELLS["kind"], ["c", "a", "b"]))
    by_order = FormulaTransformer("~ kind * stage").fit_transform(reordered)
    by_reference = FormulaTransformer("~ kind * stage", reference={"kind": "c"})
    pd.testing.assert_frame_equal(by_reference.fit_transform(CELLS), by_order)


def test_the_reference_changes_coefficients_and_no_mean():
    y = np.random.default_rng(0).poisson(5, (8, 2))
    plain, chosen = (
        make_pipeline(FormulaTransformer("~ kind", reference=reference), NegBinRegressor()).fit(
            CELLS, y
        )
        for reference in (None, {"kind": "c"})
    )
    assert_allclose(chosen.predict(CELLS), plain.predict(CELLS), rtol=1e-6)
    difference = plain.params_["mean"].loc["kind[T.c]"]
    assert_allclose(chosen.params_["mean"].loc["kind[T.a]"], -difference, atol=1e-5)


@pytest.mark.parametrize("saved", [through_pickle, through_skops])
def test_saved_models_keep_the_reference(saved):
    model = FormulaTransformer("~ kind + C(batch)", reference={"kind": "c", "batch": 3}).fit(CELLS)
    again = saved(model)
    assert again.reference == model.reference
    one = CELLS.iloc[[0]]
    pd.testing.assert_frame_equal(again.transform(one), model.transform(one))
    assert_array_equal(
        clone(again).fit(CELLS).get_feature_names_out(), model.get_feature_names_out()
    )


def test_levels_that_the_fit_did_not_see_are_refused_as_without_a_reference():
    model = FormulaTransformer("~ kind", reference={"kind": "b"}).fit(CELLS)
    with pytest.raises(ValueError, match="unknown level 'd'"):
        model.transform(CELLS.assign(kind="d"))


def test_a_grid_of_formulas_shares_a_reference():
    y = np.random.default_rng(0).poisson(5, 8)
    model = make_pipeline(FormulaTransformer(reference={"kind": "b"}), NegBinRegressor())
    grid = {
        "formulatransformer__mean": ["~ 1", "~ kind"],
        "formulatransformer__reference": [{"kind": "b"}, {"kind": "a"}],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(CELLS, y)
    assert search.best_estimator_[0].reference in grid["formulatransformer__reference"]


@pytest.mark.parametrize(
    ("formula", "reference", "message"),
    [
        ("~ kind", {"knd": "b"}, "X has no column 'knd'. Did you mean 'kind'"),
        ("~ kind", {"kind": "B"}, r"no cell has the level 'B' of the column 'kind'. Similar: 'b'"),
        ("~ x", {"kind": "q"}, "no cell has the level 'q'"),
        ("~ stage", {"stage": "unused"}, "no cell has the level 'unused'"),
        ("~ C(batch)", {"batch": "2"}, "no cell has the level '2' .* Its levels are 1, 2, 3"),
        ("~ x", {"x": 1.0}, r"'x' is read as a number, which has no levels. Write C\(x\)"),
        ("~ flag", {"flag": True}, r"Write C\(flag\)"),
        ("~ flag", {"flag": "yes"}, "False and True"),
        ("~ C(kind, contr.sum)", {"kind": "b"}, "in mean, the column 'kind' is only used with"),
        ("~ C(kind, levels=['a', 'b', 'c'])", {"kind": "b"}, "states itself"),
    ],
)
def test_wrong_references(formula, reference, message):
    with pytest.raises(ValueError, match=message):
        FormulaTransformer(formula, reference=reference).fit(CELLS)


@pytest.mark.parametrize("reference", ["b", ["kind"], {1: "b"}])
def test_a_reference_is_a_dict(reference):
    with pytest.raises(TypeError, match="a dict of columns"):
        FormulaTransformer("~ kind", reference=reference).fit(CELLS)
