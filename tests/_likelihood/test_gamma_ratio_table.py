import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm._likelihood.family import gamma_ratio, positive_counts
from sc_glm._likelihood.gamma_ratio_table import MAX_TABULATED_COUNT, GammaRatioTable

CPU = torch.device("cpu")
RHO = np.concatenate(
    [np.linspace(-24, 40, 1500), -24 + 0.25 * np.arange(124), [-1e5, -300, -60, -30, 60, 300, 1e5]]
)


@pytest.fixture(scope="module")
def both():
    """Exact gamma ratios and those of the table, of all counts at all sizes."""
    y = torch.arange(1.0, MAX_TABULATED_COUNT + 1).double().repeat_interleave(len(RHO))
    rho = torch.from_numpy(np.tile(RHO, MAX_TABULATED_COUNT))
    counts = positive_counts(y)
    exact = gamma_ratio(counts, rho)
    exact.first.sub_(y)
    return exact, GammaRatioTable.on(CPU).gamma_ratio(y, rho)


@pytest.mark.parametrize(
    ("name", "relative", "absolute"),
    [("value", 1e-12, 5e-11), ("first", 1e-9, 1e-9), ("second", 1e-8, 2e-7)],
)
def test_the_table_agrees_with_exact_gamma_ratios(both, name, relative, absolute):
    """Also at the ends of intervals and far beyond the table."""
    exact, table = (getattr(x, name) for x in both)
    assert_allclose(table, exact, rtol=relative, atol=absolute)


def test_derivatives_vanish_with_the_inverse_of_the_size(both):
    """To full relative accuracy, or Poisson genes would seem to have a maximum elsewhere."""
    exact, table = both
    rho = np.tile(RHO, MAX_TABULATED_COUNT)
    y = np.repeat(np.arange(1, MAX_TABULATED_COUNT + 1), len(RHO))
    large = (rho > 10) & (y > 1)
    assert_allclose(table.first[large], exact.first[large], rtol=1e-9, atol=1e-13)
    assert_allclose(table.second[large], exact.second[large], rtol=1e-9, atol=1e-13)


def test_digits_do_not_depend_on_the_position_of_a_count():
    y = torch.from_numpy(np.random.default_rng(0).integers(1, MAX_TABULATED_COUNT + 1, 1000) * 1.0)
    rho = torch.linspace(-30, 50, 1000, dtype=torch.float64)
    table = GammaRatioTable.on(CPU)
    together = table.gamma_ratio(y, rho)
    for start, stop in ((0, 1), (3, 10), (17, 1000)):
        apart = table.gamma_ratio(y[start:stop].clone(), rho[start:stop].clone())
        for a, b in zip(apart, together, strict=True):
            assert torch.equal(a, b[start:stop])


def test_the_table_is_computed_once():
    assert GammaRatioTable.on(CPU) is GammaRatioTable.on(torch.device("cpu"))
