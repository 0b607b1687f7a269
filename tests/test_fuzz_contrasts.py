"""Random small designs with silent groups, odd names of levels, and fits that run away."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.inference import differential_expression, likelihood_ratio_test

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

LEVELS = ["T", "B:1", "rest", "a[1]", "é", "10", "2", "NK cell"]


def pipeline(formula, regressor=NegBinRegressor, **formulas):
    return make_pipeline(FormulaTransformer(formula, **formulas), regressor(tol=1e-8, max_iter=500))


def random_cells(seed):
    """Few cells, some levels silent in some genes, counts up to a million, and fractions."""
    rng = np.random.default_rng(seed)
    n, n_genes = int(rng.choice([12, 30, 80])), 8
    levels = list(rng.permutation(LEVELS)[: rng.integers(2, 7)])
    codes = rng.permutation(np.concatenate([np.arange(len(levels))] * n)[:n])
    obs = pd.DataFrame(
        {
            "g": np.array(levels)[codes],
            "x": rng.uniform(size=n),
            "depth": rng.normal(0, 0.4, n),
        }
    )
    log_mean = rng.normal(-0.5, 1.2, n_genes) + rng.normal(0, 0.8, (len(levels), n_genes))[codes]
    mean = np.exp(log_mean + obs[["depth"]].to_numpy())
    size = np.exp(rng.normal(0.5, 1.5, n_genes))
    y = rng.negative_binomial(size, size / (size + mean)).astype(float)
    for gene in range(0, n_genes, 2):
        y[np.isin(codes, rng.permutation(len(levels))[: rng.integers(1, len(levels))]), gene] = 0
    y[:, -1] *= 100_000
    y[:, 1] *= 0.37
    return obs, pd.DataFrame(y, columns=[f"gene_{i}" for i in range(n_genes)]), levels


@pytest.mark.parametrize("seed", range(8))
def test_random_designs(seed):
    """Genes with counts have p-values, signs are right, and ratios those of two fits."""
    obs, y, levels = random_cells(seed)
    rng = np.random.default_rng(seed)
    formula = ["~ g", "~ 0 + g", "~ g + x"][seed % 3]
    offset = [None, "depth"][seed % 2]
    model = pipeline(formula, offset=offset).fit(obs, y)
    level, reference = rng.permutation(levels)[:2]
    contrast = ("g", level, reference)
    table = differential_expression(model, obs, y, contrast)
    counts = [(y[obs["g"] == side] > 0).any() for side in (level, reference)]
    has_counts = counts[0] | counts[1]
    assert table["p_value"][has_counts].between(0, 1, inclusive="right").all()
    assert (table["reason"][~has_counts] != "").all()
    assert table["p_value"][~has_counts].isna().all()
    one_sided = has_counts & (counts[0] != counts[1])
    infinite = np.where(counts[0], np.inf, -np.inf)[one_sided]
    assert ((table["log2_fold_change"][one_sided] == infinite) | (formula == "~ g + x")).all()

    exchanged = differential_expression(model, obs, y, ("g", reference, level))
    assert_allclose(
        exchanged["log10_p_value"], table["log10_p_value"], rtol=1e-3, atol=1e-4, equal_nan=True
    )
    assert_allclose(exchanged["log2_fold_change"], -table["log2_fold_change"], rtol=1e-9)

    merged = obs.assign(h=obs["g"].replace({reference: level}))
    null = formula.replace("g", "h") if len(levels) > 2 else {"~ g + x": "~ x"}.get(formula, "~ 1")
    reduced = pipeline(null, offset=offset).fit(merged, y)
    full = pipeline(formula, offset=offset).fit(merged, y)
    expected = likelihood_ratio_test(reduced, full, merged, y)["statistic"].to_numpy()
    is_ratio = (table["test"] == "lr").to_numpy() & np.isfinite(expected)
    assert_allclose((table["statistic"] ** 2)[is_ratio], expected[is_ratio], rtol=2e-3, atol=2e-3)

    genes = rng.permutation(y.columns)
    cells = rng.permutation(len(obs))
    shuffled = pipeline(formula, offset=offset).fit(obs.iloc[cells], y.iloc[cells][genes])
    again = differential_expression(shuffled, obs.iloc[cells], y.iloc[cells][genes], contrast)
    assert_allclose(
        again.loc[y.columns, "log10_p_value"],
        table["log10_p_value"],
        rtol=1e-2,
        atol=1e-3,
        equal_nan=True,
    )


def simulated(seed=1, n=240):
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "g": rng.choice(["a", "b", "c"], n),
            "h": rng.choice(["u", "v"], n),
            "x": rng.uniform(size=n),
        }
    )
    obs["h2"] = np.where(obs["g"] == "b", "u", obs["h"])  # no cell of b and v
    obs["donor"] = [f"{g}_{i % 2}" for i, g in enumerate(obs["g"])]
    obs["is_a"] = (obs["g"] == "a") * 1.0
    y = rng.negative_binomial(2.0, 0.5, (n, 5)).astype(float)
    y[obs["g"] == "b", 0] = 0
    y[obs["g"] == "a", 1] = 0
    y[obs["g"] != "c", 2] = 0
    y[obs["x"] > 0.3, 3] = 0
    return obs, pd.DataFrame(y, columns=["without_b", "without_a", "only_c", "low_x", "all"])


OBS, Y = simulated()


@pytest.mark.parametrize("high", [0.35, 0.5, 0.9])
def test_a_spline_that_falls_where_counts_end(high):
    """The fit leaves coefficients at millions; the test is the likelihood ratio all the same."""
    model = pipeline("~ bs(x, df=5)").fit(OBS, Y)
    contrast = ("x", high, 0.1)
    table = differential_expression(model, OBS, Y, contrast)
    ratio = differential_expression(model, OBS, Y, contrast, method="lr")
    gene = table.loc["low_x"]
    assert gene["test"] == "lr"
    assert gene["log2_fold_change"] < 0
    assert gene["statistic"] == pytest.approx(ratio["statistic"]["low_x"], rel=1e-3)
    assert gene["log2_high"] == np.inf or (gene["log2_high"] > 0) == (gene["p_value"] > 0.05)


def test_counts_in_the_last_cells_of_a_covariate_are_seen():
    """The Wald test of such a steep slope has no power."""
    rng = np.random.default_rng(8)
    obs = pd.DataFrame({"x": np.sort(rng.uniform(size=300))})
    y = pd.DataFrame({"gene": np.where(np.arange(300) >= 298, 2.0, 0.0), "other": 1.0})
    y["other"] = rng.poisson(1.0, 300)
    model, null = pipeline("~ x").fit(obs, y), pipeline("~ 1").fit(obs, y)
    expected = likelihood_ratio_test(null, model, obs, y)["statistic"].to_numpy()
    for contrast in ("x", ("x", 1.0, 0.0)):
        table = differential_expression(model, obs, y, contrast)
        assert list(table["test"]) == ["lr", "wald"]
        assert table["statistic"]["gene"] ** 2 == pytest.approx(expected[0], rel=1e-3)
        assert table["log2_fold_change"]["gene"] > 0
    wald = differential_expression(model, obs, y, "x", method="wald")
    assert wald["p_value"]["gene"] > 0.05


@pytest.mark.parametrize("formulas", [{"zero_inflation": "~ g"}, {"dispersion": "~ g"}])
def test_silence_that_another_part_explains_says_nothing_about_the_mean(formulas):
    """The gene has counts on one side, and the likelihood is the same for any difference."""
    regressor = ZINBRegressor if "zero_inflation" in formulas else NegBinRegressor
    model = pipeline("~ g", regressor, **formulas).fit(OBS, Y)
    for contrast in [("g", "a", "b"), ("g", "a", "rest")]:
        table = differential_expression(model, OBS, Y, contrast)
        gene = table.loc["without_a"]
        assert gene["p_value"] == pytest.approx(1, abs=0.02)
        assert np.isnan(gene["log2_fold_change"])
        assert (gene["log2_low"], gene["log2_high"]) == (-np.inf, np.inf)


def test_an_interaction_without_intercept_is_tested_for_equal_means():
    """As with an intercept, where the same cells' means are other coefficients."""
    model = pipeline("~ 0 + g:h").fit(OBS, Y)
    with_intercept = pipeline("~ g:h").fit(OBS, Y)
    for method in ("auto", "lr"):
        table = differential_expression(model, OBS, Y, "g:h", method=method)
        other = differential_expression(with_intercept, OBS, Y, "g:h", method=method)
        assert (table["df"] == 5).all()
        assert_allclose(table["statistic"], other["statistic"], rtol=1e-3, atol=1e-4)


def test_a_mean_without_coefficients_is_a_null_model():
    model = pipeline("~ 0 + x").fit(OBS, Y)
    table = differential_expression(model, OBS, Y, "x", method="lr")
    assert table["p_value"].between(0, 1, inclusive="right").all()


def test_nested_factors_are_tested_where_they_are_estimable():
    model = pipeline("~ g / donor").fit(OBS, Y)
    crossed = pipeline("~ g + donor").fit(OBS, Y)
    nested = differential_expression(model, OBS, Y, "g:donor")
    assert (nested["df"] == 3).all()
    assert_allclose(
        nested["statistic"],
        differential_expression(crossed, OBS, Y, "donor")["statistic"],
        rtol=1e-3,
        atol=1e-4,
    )
    for contrast in ("g", ("donor", "a_0", "rest"), ("g", "a", "b")):
        table = differential_expression(crossed, OBS, Y, contrast)
        assert (table["reason"] == "aliased").all()
        assert table["p_value"].isna().all()


def test_one_estimable_difference_of_a_term_has_the_size_of_two_levels():
    model = pipeline("~ g + is_a").fit(OBS, Y)
    term = differential_expression(model, OBS, Y, "g")
    levels = differential_expression(model, OBS, Y, ("g", "b", "c"))
    assert_allclose(term["log2_fold_change"].abs(), levels["log2_fold_change"].abs())
    assert_allclose(term["p_value"].drop("only_c"), levels["p_value"].drop("only_c"))


def test_the_rest_of_an_empty_combination_is_not_estimable_for_any_gene():
    model = pipeline("~ g * h2").fit(OBS, Y)
    table = differential_expression(model, OBS, Y, ("g", "c", "rest"))
    assert (table["reason"] == "aliased").all()


def test_levels_that_differ_by_rounding_are_refused():
    model = pipeline("~ g:center(x)").fit(OBS, Y)
    with pytest.raises(ValueError, match="same predictor on average"):
        differential_expression(model, OBS, Y, ("g", "a", "b"))


def test_slopes_of_a_silent_level_are_not_identified():
    """Its average over the levels has no value; a reason says so, not that there are no counts."""
    model = pipeline("~ g * x").fit(OBS, Y)
    table = differential_expression(model, OBS, Y, ("x", 1.0, 0.0))
    assert table["reason"]["without_b"] == "not identified"
    assert table["p_value"]["all"] > 0


@pytest.mark.parametrize("method", ["auto", "lr"])
def test_the_size_of_tests_of_a_rare_level(method):
    """Levels without counts among 15 of 300 cells, of genes with the same mean everywhere."""
    rng = np.random.default_rng(3)
    obs = pd.DataFrame({"g": np.repeat(["rare", "common"], [15, 285])})
    mean = np.exp(rng.uniform(np.log(0.05), np.log(0.5), 400))
    y = rng.negative_binomial(1.0, 1 / (1 + mean), (300, 400)).astype(float)
    model = make_pipeline(FormulaTransformer("~ g"), NegBinRegressor()).fit(obs, y)
    table = differential_expression(model, obs, y, ("g", "rare", "common"), method=method)
    assert table["p_value"].notna().all()
    rejected = (table["p_value"] < 0.05).mean()
    assert 0.02 < rejected < 0.08
