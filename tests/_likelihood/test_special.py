import mpmath as mp
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.special import log1p_and_rest, stirling_error

DIGITS = 60
GRID = np.unique(np.r_[np.logspace(-8, 12, 301), np.arange(1, 21), np.nextafter(10, [0, 20])])


def exactly(function, x):
    """Evaluate in multiple precision at the exact floats ``x``, then round to double."""
    with mp.workdps(DIGITS):
        return np.array([float(function(mp.mpf(float(v)))) for v in x])


STIRLING = {
    "value": lambda x: mp.loggamma(x) - (x - 0.5) * mp.log(x) + x - mp.log(2 * mp.pi) / 2,
    "first": lambda x: mp.psi(0, x) - mp.log(x) + 1 / (2 * x),
    "second": lambda x: mp.psi(1, x) - 1 / x - 1 / (2 * x * x),
}


# From 10 on the asymptotic series keeps its relative accuracy. Below, the recurrence from x + 8
# rounds at the size of its own terms: k-th derivatives are of the order of x**-k for small x.
@pytest.mark.parametrize(
    ("order", "name", "relative", "absolute"),
    [(0, "value", 1e-15, 1e-14), (1, "first", 1e-14, 2e-15), (2, "second", 1e-13, 2e-15)],
)
def test_stirling_error_is_exact_to_rounding(order, name, relative, absolute):
    ours = getattr(stirling_error(torch.from_numpy(GRID)), name).numpy()
    exact = exactly(STIRLING[name], GRID)
    far = GRID >= 10
    assert_allclose(ours[far], exact[far], rtol=relative, atol=0)
    error = np.abs(ours - exact)[~far] * np.minimum(GRID[~far], 1.0) ** order
    assert error.max() <= absolute
    near_zero = GRID < 1
    assert_allclose(ours[near_zero], exact[near_zero], rtol=2e-14, atol=0)


def test_stirling_error_completes_stirlings_formula():
    x = torch.logspace(-3, 3, 50, dtype=torch.float64)
    stirling = (x - 0.5) * x.log() - x + 0.5 * np.log(2 * np.pi)
    assert_allclose(stirling + stirling_error(x).value, torch.lgamma(x), rtol=1e-12, atol=1e-12)


def test_stirling_error_in_single_precision():
    x = torch.from_numpy(GRID).float()
    for ours, (name, function) in zip(stirling_error(x), STIRLING.items(), strict=True):
        assert ours.dtype == torch.float32, name
        assert torch.isfinite(ours).all(), name
        exact = exactly(function, x.numpy())
        assert_allclose(ours, exact, rtol=1e-5, atol=4e-6, err_msg=name)


def test_stirling_error_does_not_depend_on_other_elements():
    x = torch.tensor([[0.3, 12.0], [9.999, 1e9]], dtype=torch.float64)
    together = stirling_error(x)
    for i in range(2):
        for j in range(2):
            alone = stirling_error(x[i, j])
            for a, b in zip(together, alone, strict=True):
                assert a.shape == x.shape
                assert a[i, j] == b


MAGNITUDES = np.logspace(-150, 12, 325)
ARGUMENTS = np.r_[
    MAGNITUDES,
    -MAGNITUDES[MAGNITUDES < 0.99],
    -(1 - np.logspace(-15, -1, 29)),
    np.linspace(-0.9, 2, 300),  # none of them zero
    np.nextafter(0.1, [0, 1]),
    -np.nextafter(0.1, [0, 1]),
]


def test_log1p_and_rest_are_exact_to_rounding():
    one_plus = exactly(lambda t: 1 + t, ARGUMENTS)
    log, rest = log1p_and_rest(torch.from_numpy(ARGUMENTS), torch.from_numpy(one_plus))
    assert ARGUMENTS.all()
    with mp.workdps(360):  # the rest is about t**2 / 2: down to 1e-300 beside 1e-150
        exact = [mp.log1p(mp.mpf(float(t))) for t in ARGUMENTS]
        exact_rest = [float(e - mp.mpf(float(t))) for e, t in zip(exact, ARGUMENTS, strict=True)]
    assert_allclose(log, np.array(exact, float), rtol=1e-15, atol=0)
    # Where the series ends, at 0.1, the rest is a twentieth of the terms that cancel.
    assert_allclose(rest, exact_rest, rtol=3e-14, atol=0)


def test_log1p_and_rest_use_the_sum_that_the_caller_gives():
    """Near -1, ``1 + t`` from a quotient holds digits that the rounded ``t`` has lost."""
    q = torch.tensor([1e-20, 1e-200], dtype=torch.float64)
    log, rest = log1p_and_rest(q - 1, q)
    assert_allclose(log, q.log(), rtol=1e-15)
    assert_allclose(rest, q.log() + 1, rtol=1e-15)


def test_log1p_and_rest_at_zero_and_in_single_precision():
    t = torch.tensor([0.0, 1e-30, -1e-3, 0.3, -0.999, 1e12])
    log, rest = log1p_and_rest(t, 1 + t)
    assert log.dtype == rest.dtype == torch.float32
    assert log[0] == rest[0] == 0
    assert (rest <= 0).all()
    exact = np.log1p(t.double().numpy())
    assert_allclose(log, exact, rtol=5e-6)
    assert_allclose(rest[2:], (exact - t.double().numpy())[2:], rtol=1e-5)
