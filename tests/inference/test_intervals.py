"""Wald intervals; profile intervals are tested with their search."""

import pytest
from numpy.testing import assert_array_equal

from sc_glm import inference
from tests.inference.simulated import COUNTS, DONOR, OBS


def test_wald_intervals_hold_what_the_test_does_not_reject(model):
    for kind, groups in (("observed", None), ("cluster", DONOR)):
        table = inference.coefficient_table(model, OBS, COUNTS, kind=kind, groups=groups)
        level = 1 - float(table["p_value"].median())
        ends = inference.confidence_intervals(
            model, OBS, COUNTS, level=level, kind=kind, groups=groups
        )
        holds_zero = (ends["lower"] < 0) & (ends["upper"] > 0)
        assert_array_equal(holds_zero, table["p_value"] > 1 - level)
        assert 5 < holds_zero.sum() < len(table) - 5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"level": 1.0}, "level == 1.0, must be < 1"),
        ({"level": 0.0}, "level == 0.0, must be > 0"),
        ({"method": "bootstrap"}, "method must be"),
        ({"method": "profile", "kind": "robust"}, "goes with kind='observed'"),
    ],
)
def test_intervals_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.confidence_intervals(model, OBS, COUNTS, **more)
