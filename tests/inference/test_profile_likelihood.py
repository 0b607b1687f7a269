"""Profile likelihoods against a general optimiser's."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.inference import confidence_intervals
from sc_glm.inference.constrained_fits import FittedCells
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.linear_combinations import LinearCombinations
from sc_glm.inference.observed_information import score_and_information
from sc_glm.inference.profile_likelihood import profile_limits

RNG = np.random.default_rng(8)
N = 150
X = RNG.normal(size=(N, 1))
MU = np.exp(0.5 + 0.4 * X)
ROOT = np.sqrt(scipy.stats.chi2.ppf(0.95, 1))


def limits(model, y, *, weights=None):
    fitted = FittedData.of(model, X, y)
    cells = FittedCells.of(fitted, weights)
    n_coef = sum(len(table) for table in fitted.params.values())
    combinations = LinearCombinations.of(np.eye(n_coef)[:, None], cells.designs)
    steps = np.full((len(fitted.names), n_coef), np.nan)
    return profile_limits(cells, combinations, steps, 0.95)


def loss_at(model, y, coefficient, value):
    """Maximise over all but one coefficient, with another optimiser and from the estimate."""
    fitted = FittedData.of(model, X, y)
    counts, designs = fitted.counts_and_designs(np.ones(N))
    block = counts.by_gene(slice(None))
    coef = np.vstack([table.to_numpy() for table in fitted.params.values()])[:, 0]
    sizes = np.cumsum([len(table) for table in fitted.params.values()])[:-1]
    free = np.arange(len(coef)) != coefficient

    def minus(point):
        full = coef.copy()
        full[coefficient], full[free] = value, point
        parts = dict(zip(fitted.params, np.split(full[:, None], sizes), strict=True))
        return -score_and_information(
            fitted.family, block, designs, designs.coordinates(parts)
        ).log_likelihood[0]

    best = scipy.optimize.minimize(minus, coef[free], method="L-BFGS-B")
    return model.log_likelihood_[0] + best.fun


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
def test_the_loss_at_an_end_is_what_the_level_allows(regressor):
    y = RNG.negative_binomial(2, 2 / (2 + MU)).ravel() * (RNG.random(N) > 0.25)
    model = regressor(tol=1e-10).fit(X, y)
    lower, upper = limits(model, y)
    estimate = np.vstack([table.to_numpy() for table in model.params_.values()])[:, 0]
    assert (lower[0] < estimate).all()
    assert (upper[0] > estimate).all()
    for coefficient in range(len(estimate)):
        for end in (lower[0, coefficient], upper[0, coefficient]):
            if np.isfinite(end):
                loss = loss_at(model, y, coefficient, end)
                assert 2 * loss == pytest.approx(ROOT**2, abs=2e-3)
    assert np.isfinite(lower[0, :3]).all()


@pytest.mark.parametrize("seed", [4, 9, 23])
def test_ends_are_of_the_highest_profile_though_the_first_try_is_far_beyond(seed):
    """The maximum nearest to a point beyond leads along a lower profile, or nowhere."""
    rng = np.random.default_rng(seed)
    y = rng.negative_binomial(2, 2 / (2 + MU)).ravel() * (rng.random(N) > 0.25)
    model = ZINBRegressor(tol=1e-10).fit(X, y)
    lower, upper = limits(model, y)
    for coefficient in (0, 1):
        for end in (lower[0, coefficient], upper[0, coefficient]):
            loss = loss_at(model, y, coefficient, end)
            assert 2 * loss == pytest.approx(ROOT**2, abs=2e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_infinite_estimate_has_one_finite_end():
    """Of n empty cells with a Poisson mean m, the log-likelihood is -n m."""
    empty = np.arange(N) < 60
    y = np.where(empty, 0, RNG.poisson(3.0, N))
    model = NegBinRegressor().fit(empty[:, None], y)
    assert model.status_[0] == "separated"
    cells = FittedCells.of(FittedData.of(model, empty[:, None], y), None)
    combinations = LinearCombinations.of(np.eye(3)[:, None], cells.designs)
    lower, upper = profile_limits(cells, combinations, np.full((1, 3), np.nan), 0.95)
    mean = y[~empty].mean()
    assert (lower[0, 1], upper[0, 2]) == (-np.inf, np.inf)
    assert upper[0, 1] == pytest.approx(np.log(ROOT**2 / 2 / 60 / mean), abs=0.01)
    # The other group's own interval, of a Poisson mean
    half = ROOT / np.sqrt(y.sum())
    assert_allclose([lower[0, 0], upper[0, 0]], np.log(mean) + half * np.r_[-1, 1], atol=0.01)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_differences_from_an_empty_reference_have_their_lower_ends():
    """Of two Poisson groups, the profile of the log ratio is that of a binomial share."""
    group = np.arange(N) % 4
    y = np.where(group == 0, 0, np.random.default_rng(2).poisson(3.0, N))
    design = (group[:, None] == [1, 2, 3]).astype(float)
    model = NegBinRegressor().fit(design, y)
    assert model.status_[0] == "separated"
    table = confidence_intervals(model, design, y, method="profile").iloc[1:4]
    assert (table["upper"] == np.inf).all()
    assert (table["reason"] == "").all()
    # A group's sum of counts times the logarithm of its share is the profile of its ratio.
    share = np.exp(-(ROOT**2) / 2 / (design.T @ y))
    ratio = (group == 0).sum() / design.sum(axis=0)
    assert_allclose(table["lower"], np.log(ratio * share / (1 - share)), atol=0.01)


def test_a_gene_without_numbers_harms_no_other():
    y = RNG.negative_binomial(2, 2 / (2 + MU), (N, 2))
    model = NegBinRegressor().fit(X, y)
    expected = limits(model, y)
    model.params_["mean"].iloc[:, 0] = np.nan
    found = limits(model, y)
    assert np.isnan(found.lower[0]).all()
    assert_array_equal(found.lower[1], expected.lower[1])
    assert_array_equal(found.upper[1], expected.upper[1])


def test_integer_weights_are_repeated_rows():
    y = RNG.negative_binomial(2, 2 / (2 + MU)).ravel()
    weights = RNG.integers(1, 4, N)
    weighted = NegBinRegressor(tol=1e-10).fit(X, y, sample_weight=weights)
    rows = np.repeat(np.arange(N), weights)
    repeated = NegBinRegressor(tol=1e-10).fit(X[rows], y[rows])
    cells = FittedCells.of(FittedData.of(repeated, X[rows], y[rows]), None)
    combinations = LinearCombinations.of(np.eye(3)[:, None], cells.designs)
    expected = profile_limits(cells, combinations, np.full((1, 3), np.nan), 0.95)
    assert_allclose(limits(weighted, y, weights=weights), expected, atol=1e-3)
