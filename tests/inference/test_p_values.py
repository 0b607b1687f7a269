"""Logarithms of p-values, against many digits."""

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

from sc_glm.inference.p_values import (
    MIN_P_VALUE,
    _log_two_sided_by_one_sided,
    adjust_p_values,
    log_f_tail,
    log_kolmogorov_tail,
    p_value_columns,
)


def exact(f, q, d):
    """Return the logarithm of a tail: of F by its continued fraction (DLMF 8.17.22)."""
    with mpmath.workdps(40):
        f, b = mpmath.mpf(f), mpmath.mpf(q) / 2
        if np.isinf(d):
            return float(mpmath.log(mpmath.gammainc(b, b * f, mpmath.inf, regularized=True)))
        a = mpmath.mpf(d) / 2
        x, fraction = a / (a + b * f), mpmath.mpf(0)
        for m in range(200, 0, -1):
            n = m // 2
            odd = -(a + n) * (a + b + n) / ((a + 2 * n) * (a + 2 * n + 1))
            even = n * (b - n) / ((a + 2 * n - 1) * (a + 2 * n)) if n else 0
            fraction = (odd if m % 2 else even) * x / (1 + fraction)
        log_beta = mpmath.log(mpmath.beta(a, b))
        tail = a * mpmath.log(x) + b * mpmath.log1p(-x) - mpmath.log(a) - log_beta
        return float(tail - mpmath.log1p(fraction))


@pytest.mark.parametrize("d", [np.inf, 2.3, 17.7, 1234.5, 1e6])
@pytest.mark.parametrize("q", [1, 2, 40])
def test_tails_as_far_as_there_are_numbers(q, d):
    statistics = [3.0, 50.0, 1280.0, 1300.0, 2e4, 1e6] + [1e60, 1e250] * int(np.isfinite(d))
    expected = [exact(f, q, d) for f in statistics]
    assert min(expected) < -700 or d < 3
    assert_allclose(log_f_tail(statistics, q, d), expected, rtol=1e-10)


def test_tails_of_two_sides():
    z = np.array([0.0, 1.0, 5.0, 30.0, 37.0, 38.0, 1e3, 1e7])
    assert_allclose(log_f_tail(z**2, 1, np.inf), np.log(2) + special.log_ndtr(-z), rtol=1e-12)
    t = np.array([0.0, 1.0, 5.0, 1e10])
    assert_allclose(log_f_tail(t**2, 1, 4.5), np.log(2 * stats.t.sf(t, 4.5)), rtol=1e-12)


def test_what_has_no_tail():
    found = log_f_tail([np.inf, np.nan, 1.0, 2e3], 1, [5.0, 5.0, np.nan, np.nan])
    assert_array_equal(found, [-np.inf, np.nan, np.nan, np.nan])


def test_tails_fall():
    for d in (np.inf, 2.0, 30.0, 1e4):
        f = np.geomspace(1, 1e5 if np.isinf(d) else 1e300, 2000)
        assert (np.diff(log_f_tail(f, 3, d)) < 0).all()


def test_kolmogorov_and_smirnovs_tail():
    n = 60
    distance = np.array([0.2, 0.5, 0.7])
    known = stats.kstwo.sf(distance, n)
    assert_allclose(log_kolmogorov_tail(distance, np.full(3, n)), np.log(known), rtol=1e-12)
    for where in (1, 2):
        assert _log_two_sided_by_one_sided(distance[where], n) == pytest.approx(
            np.log(known[where]), rel=1e-10
        )
    far = log_kolmogorov_tail(np.array([0.5, 0.9, 1 - 1e-9, 1.0]), np.full(4, 3000))
    assert (np.diff(far) < 0).all()
    with mpmath.workdps(50):
        d, m = mpmath.mpf("0.5"), 3000
        terms = [
            mpmath.binomial(m, i)
            * (d + mpmath.mpf(i) / m) ** (i - 1)
            * (1 - d - mpmath.mpf(i) / m) ** (m - i)
            for i in range(m // 2 + 1)
        ]
        assert far[0] == pytest.approx(float(mpmath.log(2 * d * mpmath.fsum(terms))), rel=1e-10)


def test_columns_hold_no_zero():
    columns = p_value_columns(np.array([0.0, -1.0, -800.0, -np.inf, np.nan]), "ks_")
    assert list(columns) == ["ks_p_value", "ks_log10_p_value"]
    assert_allclose(columns["ks_p_value"], [1, np.exp(-1), MIN_P_VALUE, MIN_P_VALUE, np.nan])
    logs = [0, np.log10(np.e) * -1, -800 * np.log10(np.e), -np.inf, np.nan]
    assert_allclose(columns["ks_log10_p_value"], logs)


def test_adjusted_p_values_are_of_those_that_have_one():
    p = np.array([0.01, np.nan, 0.04, MIN_P_VALUE])
    found = adjust_p_values(p)
    assert_allclose(found[[0, 2, 3]], [0.015, 0.04, 3 * MIN_P_VALUE])
    assert np.isnan(found[1])


def test_series_of_the_kolmogorov_distribution():
    """It takes many p-values at once where SciPy evaluates the same series one by one."""
    for n in (141, 2638, 100_000):
        statistic = np.linspace(0.4, 1.48, 60) / np.sqrt(n)
        found = np.exp(log_kolmogorov_tail(statistic, np.full(60, float(n))))
        assert_allclose(found, stats.kstwo.sf(statistic, n), rtol=1e-12)
