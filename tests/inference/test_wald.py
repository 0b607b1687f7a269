"""Wald tests against tables of coefficients and other parametrisations."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

from sc_glm import NegBinRegressor, inference
from tests.inference.simulated import COUNTS, DONOR, OBS, pipeline


def test_a_test_of_one_coefficient_is_that_of_the_table(model):
    for kind, groups in (("observed", None), ("robust", None), ("cluster", DONOR)):
        table = inference.coefficient_table(model, OBS, COUNTS, kind=kind, groups=groups)
        own = table[(table["feature"] == "cell_type[T.b]")].set_index("gene")
        test = inference.wald_test(
            model, OBS, COUNTS, "cell_type[T.b] = 0", kind=kind, groups=groups
        )
        shared = ["estimate", "standard_error", "log2_fold_change", "p_value", "p_adjusted"]
        assert_frame_equal(test[shared], own[shared], check_names=False)
        assert_allclose(test["statistic"], own["statistic"] ** 2)
        assert_allclose(test["df_denominator"], own["df"])


def test_a_contrast_is_a_coefficient_of_another_reference_level(model):
    releveled = OBS.assign(cell_type=OBS["cell_type"].cat.reorder_categories(["c", "a", "b"]))
    other = pipeline().fit(releveled, COUNTS)
    for kind, groups in (("robust", None), ("cluster", DONOR)):
        more = {"kind": kind, "groups": groups}
        contrast = inference.wald_test(
            model, OBS, COUNTS, "cell_type[T.b] - cell_type[T.c] = 0", **more
        )
        direct = inference.wald_test(other, releveled, COUNTS, "cell_type[T.b]", **more)
        assert_frame_equal(contrast, direct, rtol=1e-4)


def test_a_joint_test_does_not_depend_on_how_it_is_written(model):
    hypotheses = ["cell_type[T.b] = 0, cell_type[T.c] = 0", ["cell_type[T.b]", "cell_type[T.c]"]]
    hypotheses.append(
        "cell_type[T.b] - cell_type[T.c] = 0, cell_type[T.b] + 3 * cell_type[T.c] = 0"
    )
    for kind, groups in (("observed", None), ("cluster", DONOR)):
        first, *others = (
            inference.wald_test(model, OBS, COUNTS, hypothesis, kind=kind, groups=groups)
            for hypothesis in hypotheses
        )
        for other in others:
            assert_frame_equal(other, first, rtol=1e-8)
        assert (first["df"] == 2).all()
        assert first[["estimate", "standard_error", "log2_fold_change"]].isna().all(axis=None)
        if kind == "observed":
            assert_allclose(first["p_value"], stats.chi2.sf(first["statistic"], 2))
        else:
            df = first["df_denominator"]
            scaled = first["statistic"] * df / (df + 1) / 2
            assert_allclose(first["p_value"], stats.f.sf(scaled, 2, df))


def test_a_value_on_the_right_hand_side(model):
    estimate = model.params_["mean"].loc["pseudotime"]
    test = inference.wald_test(
        model, OBS, COUNTS, f"2 * pseudotime = {2 * float(estimate['gene_1'])!r}"
    )
    assert test.loc["gene_1", "p_value"] == pytest.approx(1)
    assert_allclose(test["estimate"], 2 * (estimate - estimate["gene_1"]), atol=1e-9)


def test_other_parts(model):
    test = inference.wald_test(model, OBS, COUNTS, "Intercept = 0", part="dispersion")
    assert_allclose(test["estimate"], model.params_["dispersion"].loc["Intercept"])
    assert test["log2_fold_change"].isna().all()


def test_aliased_columns_have_no_test_but_their_differences_do():
    """A column for every level beside an intercept: differences are what they always are."""
    levels = pd.get_dummies(OBS["cell_type"], dtype=float)
    X = pd.concat([OBS[["pseudotime"]], levels], axis=1)
    model = NegBinRegressor().fit(X, COUNTS)
    reference = NegBinRegressor().fit(X.drop(columns="a"), COUNTS)
    found = inference.wald_test(model, X, COUNTS, "b - c = 0")
    expected = inference.wald_test(reference, X.drop(columns="a"), COUNTS, "b - c = 0")
    assert_frame_equal(found, expected, rtol=1e-4)
    assert (found["reason"] == "").all()
    alone = inference.wald_test(model, X, COUNTS, "b = 0")
    assert (alone["reason"] == "aliased").all()
    assert alone["p_value"].isna().all()
    profile = inference.confidence_intervals(model, X, COUNTS, method="profile")
    is_aliased = profile["feature"].isin(["a", "b", "c"]) | (
        (profile["feature"] == "Intercept") & (profile["part"] == "mean")
    )
    assert_array_equal(profile["reason"] == "aliased", is_aliased)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"constraint": "pseudotimes = 0"}, "no coefficient 'pseudotimes'.*'pseudotime'"),
        ({"constraint": "pseudotime ="}, "does not parse"),
        ({"constraint": "a:b"}, "no coefficient 'a:b'"),
        ({"constraint": "pseudotime ** 2"}, "does not parse.*backquotes"),
        ({"constraint": ""}, "does not parse"),
        ({"constraint": "1 = 1"}, "linearly independent. .* has no coefficient"),
        (
            {"constraint": "pseudotime = 0, 2 * pseudotime = 1"},
            "linearly independent. .*repeats or contradicts",
        ),
        ({"constraint": "pseudotime", "part": "zero_inflation"}, "no part 'zero_inflation'"),
        ({"constraint": "pseudotime", "part": "dispersion"}, "no coefficient 'pseudotime'"),
        ({"constraint": "pseudotime", "kind": "cluster"}, "needs groups"),
        ({"constraint": "x" * 100_000}, "longer than"),
    ],
)
def test_constraints_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.wald_test(model, OBS, COUNTS, **more)


@pytest.mark.parametrize("constraint", [None, 3, ["pseudotime", 0], np.eye(4)])
def test_a_constraint_is_text(model, constraint):
    with pytest.raises(TypeError, match="constraint"):
        inference.wald_test(model, OBS, COUNTS, constraint)


def test_a_constraint_in_the_place_of_counts(model):
    with pytest.raises(TypeError, match="needs a constraint by its name"):
        inference.wald_test(model, OBS, "pseudotime = 0")
