import inspect
import math

import numpy as np
import pandas as pd
import pytest
from formulaic.transforms import TRANSFORMS
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import CubicSpline

from sc_glm.formula import FormulaTransformer
from sc_glm.formula.splines import SPLINE_MARGIN, with_margin

LOW, HIGH = -2.0, 8.0
WITHIN = SPLINE_MARGIN * (HIGH - LOW)


def bounded(x, *, shift=0.0, _state):
    """A transform that learns its range, and raises outside it, as splines do."""
    x = np.asarray(x)
    low = _state.setdefault("lower_bound", x.min())
    high = _state.setdefault("upper_bound", x.max())
    if (x < low).any() or (x > high).any():
        raise ValueError("outside")
    return x + shift


@pytest.fixture
def state():
    learnt = {}
    with_margin(bounded)([LOW, 1.0, HIGH], _state=learnt)
    assert learnt == {"lower_bound": LOW, "upper_bound": HIGH}
    return learnt


def test_values_in_the_range_do_not_change(state):
    x = np.array([LOW, 0.1, HIGH])
    assert_array_equal(with_margin(bounded)(x, shift=1.0, _state=state), x + 1)


def test_a_spline_is_constant_up_to_the_margin(state):
    x = np.array([LOW - WITHIN, 3.0, HIGH + WITHIN])
    before = x.copy()
    assert_allclose(with_margin(bounded)(x, shift=1.0, _state=state), [LOW + 1, 4, HIGH + 1])
    assert_array_equal(x, before)
    assert state == {"lower_bound": LOW, "upper_bound": HIGH}


@pytest.mark.parametrize(
    ("far", "named"), [(math.nextafter(HIGH + WITHIN, 9), "8.5"), (-30.0, "-30.0"), (8.7, "8.7")]
)
def test_beyond_the_margin_the_farthest_value_is_named(state, far, named):
    x = [1.0, HIGH + 0.1, far, 2.0]
    with pytest.raises(ValueError, match=rf"value {named}\d* .*\[-2\.0, 8\.0\] \(2 of 4 rows"):
        with_margin(bounded)(x, _state=state)


def test_other_errors_stay_unchanged(state):
    def broken(*_, **__):
        raise ValueError("df is too small")

    for learnt in (state, {}):
        with pytest.raises(ValueError, match=r"^df is too small$"):
            with_margin(broken)([LOW, HIGH], _state=learnt)


@pytest.mark.parametrize("name", ["bs", "cc", "cr", "cs"])
def test_formulaic_accepts_the_wrapped_spline(name):
    wrapped = with_margin(TRANSFORMS[name])
    assert wrapped.__is_stateful_transform__
    assert inspect.signature(wrapped) == inspect.signature(TRANSFORMS[name])


def design(formula, x):
    return FormulaTransformer(f"~ 0 + {formula}").fit_transform(pd.DataFrame({"x": x}))


PERIOD = "lower_bound=0, upper_bound=24"
TEN = np.arange(10.0)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("bs(x, df=2)", "df=2, but it must be a whole number of at least 3 with degree=3"),
        ("bs(x, df=3, include_intercept=True)", "df=3, but .* at least 4"),
        ("bs(x, df=0)", "df=0, but"),
        ("bs(x, df=4.0)", "df=4.0, but"),
        ("bs(x, df=True)", "df=True, but"),
        ("bs(x, df=5, degree=-1)", "degree=-1, but"),
        ("bs(x, df=5, degree=1.5)", "degree=1.5, but"),
        ("bs(x, knots=[7, 3])", r"knots=\[7, 3\] must increase"),
        ("bs(x, knots=[0, 3])", "the knot 0 is not within the range from 0.0 to 9.0"),
        ("bs(x, knots=[3, 30])", "the knot 30 is not within"),
        ("bs(x, knots=[3, 3, 3, 3])", "jump at 3.0, where 4 knots are"),
        ("bs(x, knots=3)", "knots must be a list of numbers, not 3"),
        ("bs(x, knots=['3'])", "knots must be a list of numbers"),
        ("bs(x, df=5, knots=[3])", "df and knots are both given"),
        ("bs(x, df=5, lower_bound=9, upper_bound=0)", "the range from 9.0 to 0.0 is empty"),
        ("bs(x, df=5, lower_bound='a')", "lower_bound must be a finite number, not 'a'"),
        ("bs(x, df=5, lower_bound=20, upper_bound=30)", r"0 value\(s\) from 20.0 to 30.0"),
        ("bs(x - x, df=5)", "all cells of the fit have the value 0.0"),
        ("cr(x, df=2)", "df=2, but it must be a whole number of at least 3"),
        ("cr(x, df=1, constraints='center')", "df=1, but it must be a whole number of at least 2"),
        ("cs(x, df=3.5)", "df=3.5, but"),
        ("cr(x)", "df or knots must be given"),
        ("cr(x, knots=[])", "knots is empty"),
        ("cr(x, knots=[9])", "the knot 9 is not within"),
        ("cr(x * 0, df=4)", "all cells of the fit have the value 0.0"),
        ("cc(x, df=4)", "needs the two ends of its period.*lower_bound=0, upper_bound=24"),
        ("cc(x, df=4, upper_bound=24)", "needs the two ends of its period"),
        (f"cc(x, df=2, {PERIOD})", "df=2, but it must be a whole number of at least 3"),
        (f"cc(x, df=1, constraints='center', {PERIOD})", "df=1, but .* at least 2"),
        (f"cc(x, knots=[5], {PERIOD})", "at least two different knots"),
        (f"cc(x * 0, df=4, {PERIOD})", r"1 value\(s\) from 0.0 to 24.0"),
        ("poly(x, 0)", "degree=0, but"),
        ("poly(x, 1.5)", "degree=1.5, but"),
        ("poly(x, 10)", r"degree=10, but the cells of the fit have 10 value\(s\)"),
    ],
)
def test_curves_that_cannot_be_made_are_refused(formula, words):
    with pytest.raises(ValueError, match=rf"^mean=.*{words}"):
        design(formula, TEN)


def test_quantile_knots_at_which_a_curve_would_jump_are_refused():
    x = np.r_[np.zeros(60), np.linspace(-1, 1, 40)]
    with pytest.raises(ValueError, match=r"jump at 0\.0, where \d knots are"):
        design("bs(x, df=12)", x)
    assert design("bs(x, df=4)", x).shape == (100, 4)
    assert design("bs(x, df=4, degree=0)", TEN).shape == (10, 4)  # steps are what it is for


@pytest.mark.parametrize("df", [3, 4, 7])
def test_a_cyclic_spline_is_periodic(df):
    """Hours 0 and 24 are equal, and 0 and 23 differ, whatever hours the cells of the fit have."""
    model = FormulaTransformer(f"~ 0 + cc(x, df={df}, {PERIOD})")
    model.fit(pd.DataFrame({"x": np.linspace(0.0, 23.0, 24)}))
    at = lambda *hours: model.transform(pd.DataFrame({"x": hours})).to_numpy()  # noqa: E731
    assert_allclose(at(0, 1, -3, 47), at(24, 25, 21, 23), atol=1e-12)
    assert np.abs(at(0) - at(23)).max() > 0.05
    assert_allclose(at(*range(24)).sum(axis=1), 1, atol=1e-12)
    step = 1e-5
    slopes = (at(step, 24) - at(0, 24 - step)) / step
    assert_allclose(slopes[0], slopes[1], atol=1e-3)


@pytest.mark.parametrize(
    "spline", ["bs(x, df=5", "cs(x, df=4", "cr(x, df=4", "cc(x, df=4, lower_bound=0, upper_bound=9"]
)
def test_extrapolation_raise(spline):
    model = FormulaTransformer(f"~ {spline}, extrapolation='raise')").fit(pd.DataFrame({"x": TEN}))
    assert model.transform(pd.DataFrame({"x": [0.0, 9.0]})).notna().all(axis=None)
    for value in (-0.01, 9.01, 50):
        with pytest.raises(ValueError, match=rf"^mean=.*value {value}.*\(1 of 2 rows are\)"):
            model.transform(pd.DataFrame({"x": [value, 5.0]}))


def test_a_curve_is_checked_only_at_fit():
    model = FormulaTransformer("~ cr(x, df=4) + poly(x, 3)").fit(pd.DataFrame({"x": TEN}))
    assert_allclose(
        model.transform(pd.DataFrame({"x": [4.0]})),
        model.transform(pd.DataFrame({"x": TEN})).iloc[[4]],
        atol=1e-12,
    )


def test_a_centred_natural_spline_has_the_curves_of_rs_ns():
    x = np.random.default_rng(0).gamma(2.0, size=60)
    knots = np.quantile(x, [0, 1 / 3, 2 / 3, 1])  # those of ns(x, df = 3)
    curves = CubicSpline(knots, np.eye(4), bc_type="natural")(x)
    design = FormulaTransformer("~ cr(x, df=3, constraints='center')").fit_transform(
        pd.DataFrame({"x": x})
    )
    assert np.linalg.matrix_rank(design) == 4
    assert np.linalg.matrix_rank(np.column_stack([design, curves]), tol=1e-8) == 4
