"""Hard genes, beside ordinary ones: suprema, finite results, true words, no harm to neighbours.

By default the reference climbs from few starts, for all genes under the negative binomial and for
a fixed sample of each set under the zero-inflated models. With ``SC_GLM_THOROUGH=1`` it climbs from
many, for every gene.
"""

import functools
import os
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from tests.stress_sets import CASES, N_HARD, N_TYPES, build
from tests.supremum import log_mass, suprema

THOROUGH = os.environ.get("SC_GLM_THOROUGH") == "1"
N_RANDOM = 12 if THOROUGH else 2
N_INFLATED = N_HARD if THOROUGH else 60

ON_EVERY_CASE = pytest.mark.parametrize(("name", "model"), CASES)
WORDS = {
    "converged",
    "Poisson boundary",
    "no zero inflation",
    "Poisson boundary, no zero inflation",
    "separated",
    "all zero",
    "not identified",
    "iteration limit",
}
POISSON_SIZE = np.log(1e12)  # the limit, to all the digits that matter
# A maximum-likelihood mean may exceed the counts where a steep slope meets a long tail.
LARGEST_SHARE = 100


def fit(model, X, y):
    """Fit, and return the model with its warnings."""
    regressor = NegBinRegressor if model == "NB" else ZINBRegressor
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return regressor().fit(X, y), caught


@functools.cache
def case(name, model):
    """A set, its design frame, and the fit of its hard genes with what it warned of."""
    genes = build(name)
    X = genes.frame(model)
    return genes, X, *fit(model, X, genes.counts)


@functools.cache
def reference(name, model):
    """Genes that the reference was found for, and their suprema."""
    genes = build(name)
    chosen = np.arange(N_HARD)
    if model != "NB":
        chosen = np.sort(np.random.default_rng(0).permutation(N_HARD)[:N_INFLATED])
    designs = {part: table.to_numpy() for part, table in genes.designs(model).items()}
    return chosen, suprema(genes.counts[:, chosen], designs, genes.offset, n_random=N_RANDOM)


def predictors_at(genes, model, fitted):
    """Each part's predictor at the fitted coefficients, as far as numbers go."""
    designs = genes.designs(model)
    at = {
        part: np.clip(designs[part].to_numpy() @ table.to_numpy(), -600, 600)
        for part, table in fitted.params_.items()
    }
    at["mean"] += genes.offset[:, None]
    at["dispersion"] = np.minimum(at["dispersion"], POISSON_SIZE)
    return at


# The reference itself


def test_the_reference_tends_to_the_poisson_limit():
    y = np.array([0.0, 1, 3, 100, 1000])
    eta = np.log([1e-3, 0.5, 3, 90, 1100])
    value, _ = log_mass(y, {"mean": eta, "dispersion": np.full(5, POISSON_SIZE)})
    assert_allclose(value, scipy.stats.poisson.logpmf(y, np.exp(eta)), rtol=1e-7)


def test_the_reference_is_the_negative_binomial_with_its_derivatives():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, (50, 8)).astype(float)
    eta, rho, zeta = rng.normal(size=(3, 50, 8)) * 2
    pi, r = 1 / (1 + np.exp(-zeta)), np.exp(rho)
    plain = scipy.stats.nbinom.pmf(y, r, r / (r + np.exp(eta)))
    models = {
        ("mean",): scipy.stats.poisson.pmf(y, np.exp(eta)),
        ("mean", "dispersion"): plain,
        ("mean", "dispersion", "zero_inflation"): (1 - pi) * plain + pi * (y == 0),
    }
    at = {"mean": eta, "dispersion": rho, "zero_inflation": zeta}
    for parts, mass in models.items():
        predictors = {part: at[part] for part in parts}
        value, scores = log_mass(y, predictors)
        assert_allclose(value, np.log(mass), rtol=1e-9, atol=1e-9)
        for part in parts:
            up, down = (
                log_mass(y, predictors | {part: at[part] + step})[0] for step in (1e-5, -1e-5)
            )
            assert_allclose(scores[part], (up - down) / 2e-5, rtol=1e-6, atol=1e-7)


@ON_EVERY_CASE
def test_the_reference_is_rarely_missed_itself(name, model):
    _, _, fitted, _ = case(name, model)
    chosen, best = reference(name, model)
    gap = best["full"] - fitted.log_likelihood_[chosen]
    assert np.mean(gap > -1e-3) > 0.8


# What a fit must give


@ON_EVERY_CASE
def test_no_gene_is_below_its_supremum(name, model):
    _, _, fitted, _ = case(name, model)
    chosen, best = reference(name, model)
    gap = best["full"] - fitted.log_likelihood_[chosen]
    missed = {int(chosen[i]): round(float(gap[i]), 4) for i in np.flatnonzero(~(gap < 1e-3))}
    assert not missed


@ON_EVERY_CASE
def test_log_likelihood_is_that_of_the_coefficients(name, model):
    """Of the fitted coefficients, by the reference's formula."""
    genes, _, fitted, _ = case(name, model)
    value = log_mass(genes.counts, predictors_at(genes, model, fitted))[0].sum(axis=0)
    assert_allclose(fitted.log_likelihood_, value, rtol=1e-9, atol=1e-3)


@ON_EVERY_CASE
def test_coefficients_and_predictions_are_finite_and_sensible(name, model):
    genes, X, fitted, _ = case(name, model)
    with np.errstate(all="raise", under="ignore"):
        params, dist, expected = fitted.predict_params(X), fitted.predict_dist(X), fitted.predict(X)
        tables = fitted.params_.items()
        values = {
            **{f"coefficients of {part}": table.to_numpy() for part, table in tables},
            **params,
            "log-likelihood": fitted.log_likelihood_,
            "expected count": expected,
            "mean": dist.mean(),
            "variance": dist.var(),
            "log-mass": fitted.log_prob(X, genes.counts),
        }
    infinite = {
        what: np.flatnonzero(~np.isfinite(np.atleast_2d(value)).all(axis=0)).tolist()
        for what, value in values.items()
    }
    assert not {what: which for what, which in infinite.items() if which}
    # One less the probability of a structural zero is rounded, and the expected count is not.
    assert_allclose(values["mean"], expected, rtol=1e-7, atol=1e-9)
    depth = np.exp(genes.offset)[:, None]
    largest = np.maximum((genes.counts / depth).max(axis=0), 1)
    assert np.flatnonzero((expected / depth > LARGEST_SHARE * largest).any(axis=0)).tolist() == []


@ON_EVERY_CASE
def test_samples_are_sensible(name, model):
    genes, X, fitted, _ = case(name, model)
    drawn = fitted.sample(X, n_draws=20, random_state=0)
    assert (drawn >= 0).all()
    silent = ~genes.counts.any(axis=0)
    assert (drawn[:, :, silent] == 0).all()
    # Twenty draws of a long tail may exceed the largest count, but not by orders of magnitude.
    largest = np.maximum(genes.counts.max(axis=0), 1)
    assert (drawn <= 100 * LARGEST_SHARE * largest).all()
    if name.startswith("silent_types") and model == "NB":
        by_type = [genes.counts[k::N_TYPES].any(axis=0) for k in range(N_TYPES)]
        for k, seen in enumerate(by_type):
            assert (~seen).any()
            assert (drawn[:, k::N_TYPES, ~seen] == 0).all()


@pytest.mark.parametrize("name", ["pure_poisson", "under_dispersed", "constant"])
def test_a_gene_at_the_poisson_boundary_is_poisson(name):
    """Its variance is its mean, in what is predicted and in what is drawn."""
    _, X, fitted, _ = case(name, "NB")
    boundary = fitted.status_ == "Poisson boundary"
    assert boundary.sum() >= 20
    dist = fitted.predict_dist(X)
    mean = dist.mean()[:, boundary]
    assert_allclose(dist.var()[:, boundary], mean, rtol=0.01)
    drawn = fitted.sample(X, n_draws=200, random_state=0)[:, :, boundary]
    index = ((drawn - mean) ** 2 / mean).mean(axis=(0, 1))
    # Of 200 draws of 60 cells or more; the fourth moment of a rare count is 1 / mean.
    error = np.sqrt((2 + 1 / mean.min(axis=0)) / drawn[:, :, 0].size)
    assert (np.abs(index - 1) < 5 * error).all()


# Words


def frees_a_direction(X, seen):
    """Whether a direction lowers the mean of cells without counts and leaves the others.

    Complete or quasi-complete separation, of the mean, as a linear program.
    """
    if np.linalg.matrix_rank(X[seen]) == X.shape[1]:
        return False
    found = scipy.optimize.linprog(
        X[~seen].sum(axis=0),
        A_ub=X[~seen],
        b_ub=np.zeros((~seen).sum()),
        A_eq=X[seen],
        b_eq=np.zeros(seen.sum()),
        bounds=(-1, 1),
    )
    return found.fun < -1e-6


def levels(X):
    """Which cells are in each level."""
    _, level = np.unique(X, axis=0, return_inverse=True)
    return [level == k for k in range(level.max() + 1)]


def boundary_losses(name, model):
    """What each gene of the reference loses at each boundary, {limit: losses}.

    The boundaries are models of their own; besides, they are tried in the fitted point. Where the
    size is regressed on levels, one level at infinity makes a boundary, if it has counts.
    """
    genes, _, fitted, _ = case(name, model)
    chosen, best = reference(name, model)
    y, at = genes.counts[:, chosen], predictors_at(genes, model, fitted)
    at = {part: value[:, chosen] for part, value in at.items()}
    top = {"full": log_mass(y, at)[0].sum(axis=0)}
    points = {"": at}
    if model != "NB":
        points["plain "] = at | {"zero_inflation": np.full_like(y, -40.0)}
        top["not inflated"] = log_mass(y, points["plain "])[0].sum(axis=0)
    for prefix, point in points.items():
        values = []
        for cells in levels(genes.designs(model)["dispersion"].to_numpy()):
            size = np.where(cells[:, None], POISSON_SIZE, at["dispersion"])
            value = log_mass(y, point | {"dispersion": size})[0].sum(axis=0)
            values.append(np.where(y[cells].any(axis=0), value, -np.inf))
        top[f"{prefix}Poisson"] = np.max(values, axis=0)
    top = {limit: np.maximum(own, best[limit]) for limit, own in top.items()}
    return {limit: top["full"] - own for limit, own in top.items() if limit != "full"}


def expected_words(name, model):
    """Words of which one must be given to each gene of the reference."""
    genes = build(name)
    X = genes.designs(model)["mean"].to_numpy()
    X = X / np.abs(X).max(axis=0)
    losses = boundary_losses(name, model)
    chosen, _ = reference(name, model)
    expected = {}
    for i, gene in enumerate(chosen):
        seen = genes.counts[:, gene] > 0
        if not seen.any():
            expected[gene] = {"all zero"}
        elif frees_a_direction(X, seen):
            expected[gene] = {"separated"}
        else:
            expected[gene] = words_by_loss({limit: loss[i] for limit, loss in losses.items()})
            # A mean that counts do not hold may still rise to infinity where inflation explains
            # the zeros; a regressed inflation may be infinitely steep.
            unheld = np.linalg.matrix_rank(X[seen]) < X.shape[1]
            if model == "ZINB regressed" or (model == "ZINB" and unheld):
                expected[gene] |= {"separated"}
    return expected


def words_by_loss(loss):
    """Words that agree with what is lost at each boundary: nothing, or clearly something.

    Of a loss between the two, either word may be given.
    """
    nothing, something = 1e-6, 1e-3
    words = {
        "Poisson boundary": "Poisson",
        "no zero inflation": "not inflated",
        "Poisson boundary, no zero inflation": "plain Poisson",
    }
    if loss.get("plain Poisson", np.inf) < nothing:
        return {"Poisson boundary, no zero inflation"}
    attained = any(loss.get(limit, np.inf) < nothing for limit in words.values())
    near = {word for word, limit in words.items() if loss.get(limit, np.inf) < something}
    return near if attained else {"converged", *near}


@ON_EVERY_CASE
def test_words_are_true(name, model):
    _, _, fitted, _ = case(name, model)
    assert set(fitted.status_) <= WORDS
    expected = expected_words(name, model)
    wrong = {
        int(gene): (fitted.status_[gene], words)
        for gene, words in expected.items()
        if fitted.status_[gene] not in words
    }
    assert not wrong


@ON_EVERY_CASE
def test_at_most_one_warning_which_counts_the_reasons(name, model):
    _, _, fitted, caught = case(name, model)
    told = {
        word: int((fitted.status_ == word).sum())
        for word in ("separated", "all zero", "not identified", "iteration limit")
    }
    told = {word: count for word, count in told.items() if count}
    assert [w.category for w in caught] == [ConvergenceWarning] * bool(told)
    for word, count in told.items():
        assert f"{count} {word} (" in str(caught[0].message)


# Neighbours


def assert_unchanged(before, after, where):
    for part, table in before.params_.items():
        assert_array_equal(after.params_[part].to_numpy()[:, where], table.to_numpy())
    for attribute in ("log_likelihood_", "n_iter_", "status_"):
        assert_array_equal(getattr(after, attribute)[where], getattr(before, attribute))


@ON_EVERY_CASE
def test_hard_genes_change_nothing_for_ordinary_ones(name, model):
    """To the last digit, whatever their number and wherever they stand."""
    genes, X, _, _ = case(name, model)
    ordinary, n = genes.ordinary, genes.ordinary.shape[1]
    alone, _ = fit(model, X, ordinary)
    rng = np.random.default_rng(0)
    for n_hard in (1, 40):
        order = rng.permutation(n + n_hard)
        beside, _ = fit(model, X, np.hstack([ordinary, genes.counts[:, :n_hard]])[:, order])
        assert_unchanged(alone, beside, np.argsort(order)[:n])
