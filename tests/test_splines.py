import inspect
import math

import numpy as np
import pandas as pd
import pytest
from formulaic.transforms import TRANSFORMS
from numpy.testing import assert_allclose, assert_array_equal
from scipy.interpolate import CubicSpline

from sc_glm.formula import FormulaTransformer
from sc_glm.splines import SPLINE_MARGIN, with_margin

LOW, HIGH = -2.0, 8.0
WITHIN = SPLINE_MARGIN * (HIGH - LOW)


def bounded(x, *, shift=0.0, _state):
    """A spline's manners in short: it learns its range, and raises outside of it."""
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


def test_inside_nothing_changes(state):
    x = np.array([LOW, 0.1, HIGH])
    assert_array_equal(with_margin(bounded)(x, shift=1.0, _state=state), x + 1)


def test_the_end_is_held_up_to_the_margin(state):
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


def test_errors_of_another_kind_stay_as_they_are(state):
    def broken(*_, **__):
        raise ValueError("df is too small")

    for learnt in (state, {}):
        with pytest.raises(ValueError, match=r"^df is too small$"):
            with_margin(broken)([LOW, HIGH], _state=learnt)


@pytest.mark.parametrize("name", ["bs", "cc", "cr", "cs"])
def test_formulaic_takes_it_for_the_spline(name):
    wrapped = with_margin(TRANSFORMS[name])
    assert wrapped.__is_stateful_transform__
    assert inspect.signature(wrapped) == inspect.signature(TRANSFORMS[name])


def test_a_centred_natural_spline_has_the_curves_of_rs_ns():
    x = np.random.default_rng(0).gamma(2.0, size=60)
    knots = np.quantile(x, [0, 1 / 3, 2 / 3, 1])  # those of ns(x, df = 3)
    curves = CubicSpline(knots, np.eye(4), bc_type="natural")(x)
    design = FormulaTransformer("~ cr(x, df=3, constraints='center')").fit_transform(
        pd.DataFrame({"x": x})
    )
    assert np.linalg.matrix_rank(design) == 4
    assert np.linalg.matrix_rank(np.column_stack([design, curves]), tol=1e-8) == 4
