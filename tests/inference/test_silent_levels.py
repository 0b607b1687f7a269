"""Differences from silent levels: a search over few numbers agrees with one over all parameters."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.inference import differential_expression
from sc_glm.inference.constrained_fits import FittedCells, constrained_maxima
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.silent_levels import are_level_means, profiles_of_silent_levels

N_CELLS, LOSS = 420, stats.chi2.ppf(0.95, 1) / 2
LEVELS = list("abcde")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def simulate():
    """Covariates, counts and weights: levels of 8 to 200 cells, most genes silent in some."""
    rng = np.random.default_rng(2)
    codes = np.repeat(range(5), [200, 100, 80, 32, 8])
    batch = np.tile(range(3), N_CELLS // 3)
    depth = rng.normal(0, 0.5, N_CELLS) + 0.7 * batch
    log_mean = rng.uniform(-3.5, 1.5, 40) + rng.normal(0, 0.7, (5, 40))
    silent = rng.random((5, 40)) < 0.3
    mean = np.where(silent, 0.0, np.exp(log_mean))[codes] * np.exp(depth - 0.5)[:, None]
    size = np.exp(rng.uniform(-2, 3, 40))
    counts = rng.poisson(rng.gamma(size, mean / size))
    counts[:, :4] = rng.poisson(np.where(codes == 0, 0.03, 0.0), (4, N_CELLS)).T
    obs = pd.DataFrame({"kind": np.array(LEVELS)[codes], "depth": depth})
    return obs, counts, rng.integers(1, 4, N_CELLS).astype(float)


def fitted_cells(offset, weights, size=None):
    obs, counts, given = simulate()
    model = make_pipeline(FormulaTransformer("~ kind", offset=offset), NegBinRegressor(size=size))
    weight = given if weights else None
    model.fit(obs, counts, negbinregressor__sample_weight=weight)
    cells = FittedCells.of(FittedData.of(model, obs, counts), weight)
    return cells, counts, np.searchsorted(LEVELS, obs["kind"])


def differences(cells):
    """Differences of all pairs of levels as combinations of coordinates."""
    design = cells.designs.parts["mean"]
    rows = np.eye(5)
    rows[:, 0] = 1.0
    rows = rows @ design.to_coef
    pairs = [(j, k) for j in range(5) for k in range(j)]
    return pairs, np.array([np.append(rows[j] - rows[k], 0.0) for j, k in pairs])


@pytest.mark.parametrize(
    ("offset", "weights", "size"),
    [
        ("depth", False, None),
        ("depth", True, None),
        (None, False, None),
        (None, True, None),
        ("depth", False, 0.8),
        (None, False, 1e7),
    ],
)
def test_profiles_are_those_of_all_parameters(offset, weights, size):
    cells, counts, codes = fitted_cells(offset, weights, size)
    assert are_level_means(cells)
    pairs, tests = differences(cells)
    sums = np.array([counts[codes == k].sum(axis=0) for k in range(5)])
    signs = np.array([np.sign(1.0 * (sums[j] > 0) - (sums[k] > 0)) for j, k in pairs]).T
    assert (signs != 0).sum() > 100
    values = np.tile([0.5, -0.5], (len(tests), 1))
    found = profiles_of_silent_levels(cells, tests, signs, values, 0.95)
    rank = cells.designs.parts["mean"].rank
    for number, test in enumerate(tests):
        genes = np.flatnonzero(signs[:, number])
        assert_allclose(
            found.supremum[genes, number],
            cells.fitted.log_likelihood[genes],
            atol=1e-3,
        )
        of_genes = cells.of_genes(genes)
        for position, value in enumerate(values[number]):
            at = constrained_maxima(of_genes, "mean", test[None, :rank], np.array([value]))
            excess = found.log_likelihood[genes, number, position] - at.log_likelihood
            assert excess.min() > -5e-4
            # The general search may miss the higher of two maxima.
            assert np.quantile(excess, 0.95) < 5e-4
        for gene in genes[::4]:
            end = found.end[gene, number]
            at = constrained_maxima(
                cells.of_genes(np.array([gene])), "mean", test[None, :rank], np.array([end])
            )
            lost = found.supremum[gene, number] - at.log_likelihood[0]
            assert lost == pytest.approx(LOSS, rel=0.01)
            assert np.sign(end) * signs[gene, number] != 0


def test_other_genes_and_contrasts_are_left_to_the_general_search():
    cells, counts, codes = fitted_cells("depth", weights=False)
    pairs, tests = differences(cells)
    joint = tests[0] + 0.5 * tests[1]
    signs = np.ones((counts.shape[1], 2))
    values = np.zeros((2, 1))
    found = profiles_of_silent_levels(cells, np.array([tests[0], joint]), signs, values, 0.95)
    j, k = pairs[0]
    sums = np.array([counts[codes == level].sum(axis=0) for level in (j, k)])
    here = (sums[0] > 0) & (sums[1] == 0)  # in the direction of the sign
    neither = (sums == 0).all(axis=0)
    assert (np.isfinite(found.end[:, 0]) == here).all()
    assert (np.isinf(found.end[:, 0]) == neither).all()
    assert neither.any()
    assert np.isnan(found.end[:, 1]).all()


@pytest.mark.parametrize("offset", ["depth", None])
def test_two_silent_levels_are_not_compared(offset):
    obs, counts, _ = simulate()
    model = make_pipeline(FormulaTransformer("~ kind", offset=offset), NegBinRegressor())
    model.fit(obs, counts)
    table = differential_expression(model, obs, counts, ("kind", "d", "e"))
    codes = np.searchsorted(LEVELS, obs["kind"])
    is_empty = counts[codes >= 3].sum(axis=0) == 0
    assert is_empty.any()
    reason = table["reason"].to_numpy()
    assert set(reason[is_empty]) <= {"no counts in the cells compared", "all zero"}
    assert (reason[~is_empty] == "").all()
    assert table["log2_fold_change"].isna().to_numpy().tolist() == is_empty.tolist()


def test_robust_tests_of_contrasts_together_are_those_alone():
    obs, counts, _ = simulate()
    model = make_pipeline(FormulaTransformer("~ kind", offset="depth"), NegBinRegressor())
    model.fit(obs, counts)
    contrasts = {level: ("kind", level, "a") for level in "bcde"}
    table = differential_expression(model, obs, counts, contrasts, kind="robust")
    assert (table["test"] == "score").sum() > 20
    for name, contrast in contrasts.items():
        alone = differential_expression(model, obs, counts, contrast, kind="robust")
        together = table[table["contrast"] == name]
        together = together.drop(columns=["contrast", "p_adjusted_all"])
        pd.testing.assert_frame_equal(together, alone, rtol=1e-8)


def test_contrasts_together_are_those_alone():
    obs, counts, _ = simulate()
    model = make_pipeline(FormulaTransformer("~ kind", offset="depth"), NegBinRegressor())
    model.fit(obs, counts)
    contrasts = {
        "a-e": ("kind", "a", "e"),
        "rest": ("kind", "d", "rest"),
        "e-a": ("kind", "e", "a"),
        "line": "kind[T.b] = 1",
    }
    table = differential_expression(model, obs, counts, contrasts, log2_threshold=0.5)
    for name, contrast in contrasts.items():
        alone = differential_expression(model, obs, counts, contrast, log2_threshold=0.5)
        together = table[table["contrast"] == name]
        together = together.drop(columns=["contrast", "p_adjusted_all"])
        pd.testing.assert_frame_equal(together, alone, rtol=1e-9)
    forth, back = (table[table["contrast"] == name] for name in ("a-e", "e-a"))
    assert_allclose(forth["log2_low"], -back["log2_high"], rtol=1e-6)
    assert_allclose(forth["p_value"], back["p_value"], rtol=1e-6)


def test_regressed_sizes_and_penalties_are_left_to_the_general_search():
    obs, counts, _ = simulate()
    for transformer, regressor in (
        (FormulaTransformer("~ kind", dispersion="~ kind"), NegBinRegressor()),
        (FormulaTransformer("~ kind + depth"), NegBinRegressor()),
        (FormulaTransformer("~ kind"), NegBinRegressor(alpha=1.0)),
    ):
        model = make_pipeline(transformer, regressor).fit(obs, counts)
        assert not are_level_means(FittedCells.of(FittedData.of(model, obs, counts), None))
