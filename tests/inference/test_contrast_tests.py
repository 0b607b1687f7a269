"""Tests of contrasts by name: every gene with counts gets a number, and the right one."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
from anndata import AnnData
from numpy.testing import assert_allclose
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm import adata as adapters
from sc_glm.inference import (
    confidence_intervals,
    covariance,
    differential_expression,
    likelihood_ratio_test,
    marginal_means,
    wald_test,
)
from sc_glm.moderation import moderate_dispersion

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N = 400
RNG = np.random.default_rng(11)
OBS = pd.DataFrame(
    {
        "cell_type": RNG.choice(["B", "NK", "T"], N, p=[0.3, 0.2, 0.5]),
        "x": RNG.uniform(size=N),
        "log_depth": RNG.normal(0, 0.3, N),
    }
)
IS = {level: (OBS["cell_type"] == level).to_numpy() for level in ("B", "NK", "T")}


def simulated(n_genes=12, seed=0, size=2.0):
    rng = np.random.default_rng(seed)
    log_mean = rng.normal(0.0, 0.7, (1, n_genes)) + OBS[["log_depth"]].to_numpy()
    log_mean = log_mean + rng.normal(0, 0.5, n_genes) * IS["B"][:, None]
    mean = np.exp(log_mean)
    y = rng.negative_binomial(size, size / (size + mean))
    y[IS["NK"], 0] = 0
    y[IS["B"], 1] = 0
    y[IS["B"] | IS["NK"], 2] = 0
    y[:, 3] = 0
    return pd.DataFrame(y, columns=[f"gene_{i}" for i in range(n_genes)])


COUNTS = simulated()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    MODEL = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(OBS, COUNTS)


def test_finite_estimates_are_those_of_the_wald_test():
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "T", "NK"))
    wald = wald_test(MODEL, OBS, COUNTS, "cell_type[T.T] - cell_type[T.NK]")
    finite = (wald["reason"] == "").to_numpy()
    assert finite.sum() >= 8
    assert (table["test"][finite] == "wald").all()
    for column in ("log2_fold_change", "p_value", "log10_p_value"):
        assert_allclose(table[column][finite], wald[column][finite])
    assert_allclose(table["statistic"][finite] ** 2, wald["statistic"][finite])
    assert_allclose(
        table["standard_error"][finite], wald["standard_error"][finite] / np.log(2), rtol=1e-12
    )


def test_an_infinite_estimate_has_the_likelihood_ratio_of_the_two_models():
    """The model without the contrast has one level for both groups."""
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "B"))
    obs = OBS.assign(merged=OBS["cell_type"].replace({"NK": "B"}))
    reduced = make_pipeline(
        FormulaTransformer("~ merged", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(obs, COUNTS)
    full = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(obs, COUNTS)
    expected = likelihood_ratio_test(reduced, full, obs, COUNTS)
    infinite = ["gene_0", "gene_1"]
    assert list(table["log2_fold_change"][infinite]) == [-np.inf, np.inf]
    assert list(table["test"][infinite]) == ["lr", "lr"]
    assert_allclose(table["statistic"][infinite] ** 2, expected["statistic"][infinite], rtol=1e-4)
    assert_allclose(
        table["log10_p_value"][infinite], expected["log10_p_value"][infinite], rtol=1e-4
    )
    by_ratio = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "B"), method="lr")
    tested = by_ratio["reason"] == ""
    assert_allclose(
        by_ratio["statistic"][tested] ** 2, expected["statistic"][tested], rtol=1e-3, atol=1e-5
    )


def test_the_interval_of_an_infinite_estimate_has_the_finite_end_of_its_profile():
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "B"))
    profile = confidence_intervals(MODEL, OBS, COUNTS, method="profile")
    rows = profile[profile["feature"] == "cell_type[T.NK]"].set_index("gene")  # B is the reference
    assert table["log2_low"]["gene_0"] == -np.inf
    assert table["log2_high"]["gene_1"] == np.inf
    expected = rows["upper"]["gene_0"] / np.log(2), rows["lower"]["gene_1"] / np.log(2)
    found = table["log2_high"]["gene_0"], table["log2_low"]["gene_1"]
    assert_allclose(found, expected, rtol=5e-3)


def test_a_reason_belongs_to_a_contrast():
    """A gene that is silent in one group has numbers for all others."""
    tables = {
        pair: differential_expression(MODEL, OBS, COUNTS, ("cell_type", *pair))
        for pair in [("B", "T"), ("NK", "T"), ("NK", "B")]
    }
    assert MODEL[-1].status_[0] == MODEL[-1].status_[1] == "separated"
    assert tables["B", "T"]["test"]["gene_0"] == "wald"
    assert tables["NK", "T"]["test"]["gene_1"] == "wald"
    assert tables["NK", "B"]["reason"]["gene_2"] == "no counts in the cells compared"
    assert tables["NK", "T"]["test"]["gene_2"] == "lr"
    for table in tables.values():
        assert table["reason"]["gene_3"] == "all zero"
        others = table.drop(index=["gene_2", "gene_3"])
        assert others["p_value"].notna().all()


def test_sizes_of_genes_and_of_groups():
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "B", "NK"))
    assert table.index.name == "gene"
    assert_allclose(table["base_mean"], COUNTS.mean())
    assert_allclose(table["fraction"], (COUNTS[IS["B"]] > 0).mean())
    assert_allclose(table["fraction_reference"], (COUNTS[IS["NK"]] > 0).mean())


def test_a_term_is_tested_by_its_name():
    """Jointly, as two models without and with the term."""
    spline = make_pipeline(
        FormulaTransformer("~ cell_type + bs(x, df=4)", offset="log_depth"), NegBinRegressor()
    ).fit(OBS, COUNTS)
    counts = COUNTS.iloc[:, 4:]
    spline = spline.fit(OBS, counts)
    names = [f"`bs(x, df=4)[{i}]`" for i in range(1, 5)]
    table = differential_expression(spline, OBS, counts, "bs(x,df=4)")
    expected = wald_test(spline, OBS, counts, names)
    assert_allclose(table["statistic"], expected["statistic"])
    assert_allclose(table["p_value"], expected["p_value"])
    assert set(table["df"]) == {4}
    cells = spline[0].transform(OBS)[[f"mean__bs(x, df=4)[{i}]" for i in range(1, 5)]]
    fitted = cells.to_numpy() @ spline.params_["mean"].iloc[-4:].to_numpy()
    assert_allclose(table["log2_fold_change"], np.ptp(fitted, axis=0) / np.log(2))


def test_a_factor_without_an_intercept_is_tested_for_equal_levels():
    model = make_pipeline(
        FormulaTransformer("~ 0 + cell_type", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(OBS, COUNTS)
    expected = differential_expression(MODEL, OBS, COUNTS, "cell_type")
    found = differential_expression(model, OBS, COUNTS, "cell_type")
    tested = expected["reason"] == ""
    assert list(found["reason"]) == list(expected["reason"])
    assert_allclose(found["statistic"][tested], expected["statistic"][tested], rtol=1e-3)


def test_a_silent_level_makes_the_joint_test_a_likelihood_ratio():
    table = differential_expression(MODEL, OBS, COUNTS, "cell_type")
    reduced = make_pipeline(
        FormulaTransformer("~ 1", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(OBS, COUNTS)
    expected = likelihood_ratio_test(reduced, MODEL, OBS, COUNTS)
    silent = ["gene_0", "gene_1", "gene_2"]
    assert set(table["test"][silent]) == {"lr"}
    assert np.isposinf(table["log2_fold_change"][silent]).all()
    assert_allclose(table["statistic"][silent], expected["statistic"][silent], rtol=1e-4)


def test_a_dict_has_rows_for_each_contrast():
    contrasts = {"B v T": ("cell_type", "B", "T"), "any": "cell_type", "NK": "cell_type[T.NK]"}
    table = differential_expression(MODEL, OBS, COUNTS, contrasts)
    assert list(table["contrast"].unique()) == list(contrasts)
    for name, contrast in contrasts.items():
        single = differential_expression(MODEL, OBS, COUNTS, contrast)
        rows = table[table["contrast"] == name].drop(columns=["contrast", "p_adjusted_all"])
        pd.testing.assert_frame_equal(rows, single, rtol=1e-9)
    known = table["p_value"].notna().to_numpy()
    expected = scipy.stats.false_discovery_control(table["p_value"][known])
    assert_allclose(table["p_adjusted_all"][known], expected)


def test_exchanged_sides_exchange_signs():
    there = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "B"))
    back = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "B", "NK"))
    assert_allclose(there["log2_fold_change"], -back["log2_fold_change"])
    assert_allclose(there["log2_low"], -back["log2_high"], rtol=5e-3)
    assert_allclose(there["statistic"], -back["statistic"], rtol=1e-4)
    assert_allclose(there["log10_p_value"], back["log10_p_value"], rtol=1e-4)


def test_one_sided_tests_share_the_two_sided_one():
    contrast = ("cell_type", "NK", "B")
    two, greater, less = (
        differential_expression(MODEL, OBS, COUNTS, contrast, alternative=alternative)
        for alternative in ("two-sided", "greater", "less")
    )
    tested = two["reason"] == ""
    assert_allclose((greater["p_value"] + less["p_value"])[tested], 1.0)
    smaller = np.minimum(greater["p_value"], less["p_value"])
    assert_allclose(2 * smaller[tested], two["p_value"][tested], rtol=1e-10)
    positive = (two["log2_fold_change"] > 0) & tested
    assert (greater["p_value"][positive] < 0.5).all()


def test_a_threshold_asks_for_more_than_zero():
    """At an estimate on the threshold, half of the estimates are beyond it."""
    contrast = ("cell_type", "B", "T")
    plain = differential_expression(MODEL, OBS, COUNTS, contrast)
    gene = "gene_5"
    threshold = abs(plain["log2_fold_change"][gene])
    table = differential_expression(MODEL, OBS, COUNTS, contrast, log2_threshold=threshold)
    error = plain["standard_error"][gene]
    expected = 0.5 + scipy.stats.norm.sf(2 * threshold / error)
    assert table["p_value"][gene] == pytest.approx(expected)
    tested = plain["reason"] == ""
    assert (table["p_value"][tested] >= plain["p_value"][tested]).all()
    beyond = plain["log2_fold_change"].abs() > threshold
    assert (table["statistic"][tested & ~beyond].abs() < 1e-6).all()
    signs = np.sign(plain["log2_fold_change"][tested & beyond])
    assert (np.sign(table["statistic"][tested & beyond]) == signs).all()


def test_a_threshold_of_an_infinite_estimate_is_held_by_the_offset():
    """Its signed root is that of a model whose two groups differ by the threshold."""
    contrast, threshold = ("cell_type", "NK", "B"), 1.0
    table = differential_expression(
        MODEL, OBS, COUNTS, contrast, log2_threshold=threshold, alternative="less"
    )
    obs = OBS.assign(merged=OBS["cell_type"].replace({"NK": "B"}))
    obs["log_depth"] -= threshold * np.log(2) * IS["NK"]
    reduced = make_pipeline(
        FormulaTransformer("~ merged", offset="log_depth"), NegBinRegressor(tol=1e-9)
    ).fit(obs, COUNTS)
    loss = MODEL[-1].log_likelihood_[0] - reduced[-1].log_likelihood_[0]
    assert table["statistic"]["gene_0"] == pytest.approx(-np.sqrt(2 * loss), rel=1e-3)
    assert table["p_value"]["gene_0"] == pytest.approx(
        scipy.stats.norm.sf(np.sqrt(2 * loss)), rel=1e-2
    )
    assert table["p_value"]["gene_1"] > 0.999


def test_values_of_a_number_are_compared():
    model = make_pipeline(
        FormulaTransformer("~ cell_type + x", offset="log_depth"), NegBinRegressor()
    ).fit(OBS, COUNTS)
    table = differential_expression(model, OBS, COUNTS, ("x", 0.75, 0.25))
    slope = wald_test(model, OBS, COUNTS, "x")
    assert_allclose(table["log2_fold_change"], 0.5 * slope["log2_fold_change"])
    assert_allclose(table["p_value"], slope["p_value"])
    assert table["fraction"].isna().all()


def test_interactions_are_averaged_over_the_cells():
    counts = COUNTS.iloc[:, 4:]
    model = make_pipeline(
        FormulaTransformer("~ cell_type * x", offset="log_depth"), NegBinRegressor()
    ).fit(OBS, counts)
    table = differential_expression(model, OBS, counts, ("cell_type", "T", "B"))
    mean = OBS["x"].mean()
    text = f"cell_type[T.T] + {mean} * `cell_type[T.T]:x`"
    expected = wald_test(model, OBS, counts, text)
    assert_allclose(table["log2_fold_change"], expected["log2_fold_change"], rtol=1e-9)
    assert_allclose(table["p_value"], expected["p_value"], rtol=1e-6)


def test_score_tests_are_valid_and_close_to_the_other_two():
    """With no difference, p-values are uniform; the three tests agree for plain alternatives."""
    rng = np.random.default_rng(3)
    mean = np.exp(rng.normal(0.5, 0.5, 600)) * np.exp(OBS[["log_depth"]].to_numpy())
    y = rng.negative_binomial(3, 3 / (3 + mean))
    model = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor()
    ).fit(OBS, y)
    contrasts = {"B": ("cell_type", "B", "T"), "NK": ("cell_type", "NK", "T"), "all": "cell_type"}
    tables = {
        method: differential_expression(model, OBS, y, contrasts, method=method)
        for method in ("wald", "lr", "score")
    }
    error = np.sqrt(0.05 * 0.95 / 600)
    for name in contrasts:
        p_values = {method: t[t["contrast"] == name]["p_value"] for method, t in tables.items()}
        for method in ("lr", "score"):
            assert (p_values[method] < 0.05).mean() == pytest.approx(0.05, abs=4 * error)
        assert np.corrcoef(*(np.log(p_values[m]) for m in ("lr", "score")))[0, 1] > 0.98
    assert set(tables["score"]["test"]) == {"score"}


def test_the_score_test_of_two_groups_has_its_closed_form():
    """With known sizes, cells of one mean each have the information r mu / (r + mu)."""
    rng = np.random.default_rng(4)
    two = np.repeat(["a", "b"], [60, 90])
    y = rng.negative_binomial(1.5, 0.5, (150, 3))
    y[two == "b", 2] = 0
    obs = pd.DataFrame({"group": two})
    model = make_pipeline(FormulaTransformer("~ group"), NegBinRegressor(size=1.5)).fit(obs, y)
    table = differential_expression(model, obs, y, ("group", "b", "a"), method="score")
    mean = y.mean(axis=0)
    variance = mean + mean**2 / 1.5
    difference = y[two == "b"].mean(axis=0) - y[two == "a"].mean(axis=0)
    expected = difference / np.sqrt(variance * (1 / 60 + 1 / 90))
    assert_allclose(table["statistic"], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["robust", "cluster"])
def test_infinite_estimates_of_sandwiches_have_score_tests(kind):
    donors = np.arange(N) % 10
    more = {"groups": donors} if kind == "cluster" else {}
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "B"), kind=kind, **more)
    assert list(table["test"][:2]) == ["score", "score"]
    assert table["statistic"]["gene_0"] < 0 < table["statistic"]["gene_1"]
    assert (table["p_value"][:2] < 1e-3).all()
    assert table["test"]["gene_5"] == "wald"


def test_moderated_and_given_sizes_are_taken_as_known():
    """The likelihood ratio at known sizes, from a fit of two groups with these sizes."""
    counts = simulated(n_genes=60, seed=5)
    formula = FormulaTransformer("~ cell_type", offset="log_depth")
    model = make_pipeline(formula, NegBinRegressor(tol=1e-9)).fit(OBS, counts)
    moderated = moderate_dispersion(model, OBS, counts).model
    table = differential_expression(moderated, OBS, counts, ("cell_type", "NK", "B"))
    obs = OBS.assign(merged=OBS["cell_type"].replace({"NK": "B"}))
    size = np.exp(moderated.params_["dispersion"].iloc[0])
    reduced, full = (
        make_pipeline(FormulaTransformer(f, offset="log_depth"), NegBinRegressor(size=size)).fit(
            obs, counts
        )
        for f in ("~ merged", "~ cell_type")
    )
    expected = likelihood_ratio_test(reduced, full, obs, counts)
    assert_allclose(table["statistic"][:2] ** 2, expected["statistic"][:2], rtol=1e-4)
    given = differential_expression(full, obs, counts, ("cell_type", "NK", "B"))
    assert_allclose(given["statistic"][:2], table["statistic"][:2], rtol=1e-4)


def test_other_parts_and_zero_inflation():
    rng = np.random.default_rng(6)
    size = np.where(IS["B"], 0.5, 4.0)[:, None]
    y = rng.negative_binomial(size, size / (size + 3.0), (N, 5)) * (rng.random((N, 5)) < 0.7)
    model = make_pipeline(
        FormulaTransformer("~ cell_type", dispersion="~ cell_type", zero_inflation="~ 1"),
        ZINBRegressor(),
    ).fit(OBS, y)
    table = differential_expression(model, OBS, y, ("cell_type", "B", "T"), part="dispersion")
    names = model.params_["dispersion"].index
    assert names[0] == "Intercept"
    assert_allclose(
        table["log2_fold_change"], -model.params_["dispersion"].loc["cell_type[T.T]"] / np.log(2)
    )
    assert (table["log2_fold_change"] < 0).all()


def test_weights_are_repeated_cells():
    rng = np.random.default_rng(7)
    weights = rng.integers(1, 3, N)
    rows = np.repeat(np.arange(N), weights)
    formula = FormulaTransformer("~ cell_type", offset="log_depth")
    weighted = make_pipeline(formula, NegBinRegressor(tol=1e-10)).fit(
        OBS, COUNTS, negbinregressor__sample_weight=weights
    )
    repeated = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor(tol=1e-10)
    ).fit(OBS.iloc[rows], COUNTS.iloc[rows])
    for contrast in (("cell_type", "NK", "B"), "cell_type"):
        for method in ("auto", "score"):
            one = differential_expression(
                weighted, OBS, COUNTS, contrast, method=method, sample_weight=weights
            )
            other = differential_expression(
                repeated, OBS.iloc[rows], COUNTS.iloc[rows], contrast, method=method
            )
            assert list(one["reason"]) == list(other["reason"])
            for column in ("base_mean", "fraction", "statistic", "log2_high"):
                assert_allclose(one[column], other[column], rtol=1e-3, atol=1e-6)


def test_vectors_and_constraints_are_the_same_question():
    vector = differential_expression(MODEL, OBS, COUNTS, [0, 1, -1])
    text = differential_expression(MODEL, OBS, COUNTS, "cell_type[T.NK] = cell_type[T.T]")
    pd.testing.assert_frame_equal(vector, text, rtol=1e-9)
    joint = differential_expression(MODEL, OBS, COUNTS, np.eye(3)[1:])
    term = differential_expression(MODEL, OBS, COUNTS, "cell_type")
    assert_allclose(joint["statistic"], term["statistic"], rtol=1e-6)


def test_the_reference_level_does_not_matter():
    recoded = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth", reference={"cell_type": "T"}),
        NegBinRegressor(tol=1e-9),
    ).fit(OBS, COUNTS)
    for contrast in (("cell_type", "NK", "B"), ("cell_type", "T", "rest"), "cell_type"):
        one = differential_expression(MODEL, OBS, COUNTS, contrast)
        other = differential_expression(recoded, OBS, COUNTS, contrast)
        assert list(one["test"]) == list(other["test"])
        for column in ("log2_fold_change", "statistic", "log2_low"):
            assert_allclose(one[column], other[column], rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("contrast", "message"),
    [
        (("celltype", "T", "B"), "no factor 'celltype'.*Similar.*cell_type"),
        (("cell_type", "Tcell", "B"), "no level 'Tcell'"),
        (("cell_type", "T", "T"), "both sides"),
        (("log_depth", 1.0, 0.0), "no factor 'log_depth'"),
        ("cell_typ", "no coefficient 'cell_typ'.*Terms are \\['cell_type'\\]"),
        (("cell_type", "T"), "is \\(factor, level, reference\\)"),
        ([1.0, 2.0], "has 3 coefficients"),
        ([0.0, 0.0, 0.0], "linearly independent"),
        ([0.0, np.nan, 1.0], "missing or infinite"),
        ({}, "at least one contrast"),
        ({"a": ("cell_type", "X", "B")}, "contrast\\['a'\\].*no level 'X'"),
    ],
)
def test_bad_contrasts_are_named(contrast, message):
    with pytest.raises(ValueError, match=message):
        differential_expression(MODEL, OBS, COUNTS, contrast)


@pytest.mark.parametrize("contrast", [None, object(), {1: "cell_type"}])
def test_other_types_are_refused(contrast):
    with pytest.raises(TypeError):
        differential_expression(MODEL, OBS, COUNTS, contrast)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "t"}, "method must be one of"),
        ({"alternative": "bigger"}, "alternative must be one of"),
        ({"method": "lr", "kind": "robust"}, "kind='observed'"),
        ({"method": "score", "log2_threshold": 1.0}, "no log2_threshold"),
        ({"log2_threshold": -1.0}, "log2_threshold"),
        ({"log2_threshold": np.inf}, "finite"),
        ({"part": "zero_inflation"}, "no part 'zero_inflation'"),
        ({"level": 1.0}, "level"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        differential_expression(MODEL, OBS, COUNTS, ("cell_type", "T", "B"), **options)


def test_joint_tests_have_no_direction():
    with pytest.raises(ValueError, match="no direction"):
        differential_expression(MODEL, OBS, COUNTS, "cell_type", alternative="greater")


def test_a_number_is_not_a_factor():
    model = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).fit(OBS, COUNTS)
    with pytest.raises(ValueError, match="reads 'x' as a number"):
        differential_expression(model, OBS, COUNTS, ("x", "high", "low"))


def test_factors_need_formulas():
    X = np.column_stack([IS["NK"], IS["T"]]).astype(float)
    model = NegBinRegressor().fit(X, COUNTS)
    with pytest.raises(ValueError, match="FormulaTransformer"):
        differential_expression(model, X, COUNTS, ("cell_type", "T", "B"))
    table = differential_expression(model, X, COUNTS, "x1 - x0")
    assert table["p_value"].notna().sum() >= 10


def test_penalised_fits_have_wald_tests_alone():
    model = make_pipeline(
        FormulaTransformer("~ cell_type", offset="log_depth"), NegBinRegressor(alpha=0.01)
    ).fit(OBS, COUNTS)
    table = differential_expression(model, OBS, COUNTS, ("cell_type", "NK", "B"))
    assert set(table["test"]) <= {"wald", ""}
    with pytest.raises(ValueError, match="without a penalty"):
        differential_expression(model, OBS, COUNTS, "cell_type", method="lr")


def log_likelihood_of_means(y, log_means, log_size):
    """The negative binomial log-likelihood of cells with these log means."""
    size = np.exp(log_size)
    success = size / (size + np.exp(log_means))
    return scipy.stats.nbinom.logpmf(y, size, success).sum()


def test_the_rest_is_the_mean_of_means():
    """Its estimate, its standard error and its likelihood ratio, computed by other means."""
    levels = MODEL.params_["mean"].to_numpy()
    log_means = np.vstack([levels[0], levels[0] + levels[1], levels[0] + levels[2]])
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "T", "rest"))
    expected = log_means[2] - np.log((np.exp(log_means[0]) + np.exp(log_means[1])) / 2)
    finite = table["test"] == "wald"
    assert_allclose(table["log2_fold_change"][finite], (expected / np.log(2))[finite], atol=1e-6)
    assert finite[["gene_0", "gene_1"]].all()  # one of the others is silent, the other is not
    by_ratio = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "T", "rest"), method="lr")
    depth = OBS["log_depth"].to_numpy()
    for gene in ("gene_0", "gene_2", "gene_5"):
        y = COUNTS[gene].to_numpy()

        def loss(parameters, y=y):
            others, log_size = parameters[:2], parameters[2]
            mean = np.logaddexp(*others) - np.log(2)
            log_mean = np.select([IS["B"], IS["NK"]], others, mean) + depth
            return -log_likelihood_of_means(y, log_mean, log_size)

        found = [
            scipy.optimize.minimize(
                loss,
                start,
                method="Nelder-Mead",
                options={"maxiter": 4000, "fatol": 1e-9, "xatol": 1e-7},
            )
            for start in ([0.0, -1.0, 0.0], [-1.0, 0.0, 1.0])
        ]
        highest = MODEL[-1].log_likelihood_[COUNTS.columns.get_loc(gene)]
        ratio = 2 * (highest + min(result.fun for result in found))
        assert by_ratio["statistic"][gene] ** 2 == pytest.approx(ratio, rel=1e-3)
    assert table["log2_fold_change"]["gene_2"] == np.inf
    assert table["statistic"]["gene_2"] == pytest.approx(by_ratio["statistic"]["gene_2"], rel=1e-4)


def test_the_standard_error_against_the_rest_is_that_of_the_delta_method():
    """It changes by the estimates of all levels, of which derivatives are taken numerically."""
    kinds = [("observed", {}), ("cluster", {"groups": np.arange(N) % 10}), ("robust", {})]
    covariances = {
        kind: covariance(MODEL, OBS, COUNTS, kind=kind, **more)[:, :3, :3] for kind, more in kinds
    }
    coef = MODEL.params_["mean"].to_numpy()

    def contrast(b):
        means = np.exp([b[0], b[0] + b[1], b[0] + b[2]])
        return np.log(means[2]) - np.log(means[:2].mean())

    for kind, more in kinds:
        table = differential_expression(
            MODEL, OBS, COUNTS, ("cell_type", "T", "rest"), kind=kind, **more
        )
        for gene in range(5, 10):
            slope = scipy.optimize.approx_fprime(coef[:, gene], contrast, 1e-7)
            error = np.sqrt(slope @ covariances[kind][gene] @ slope) / np.log(2)
            assert table["standard_error"].iloc[gene] == pytest.approx(error, rel=1e-4)


def test_a_level_that_others_share_no_counts_with_is_compared_with_the_rest():
    """In a large table, most genes are silent in some rare type; only both sides matter."""
    table = differential_expression(MODEL, OBS, COUNTS, ("cell_type", "NK", "rest"))
    assert table["log2_fold_change"]["gene_1"] == pytest.approx(
        np.log2(COUNTS["gene_1"][IS["NK"]].mean() / (COUNTS["gene_1"][IS["T"]].mean() / 2)), abs=0.3
    )
    assert np.isneginf(table["log2_fold_change"][["gene_0", "gene_2"]]).all()
    assert (table["p_value"][["gene_0", "gene_1", "gene_2"]] < 0.05).sum() >= 2


def test_a_list_of_three_names_levels_too():
    """It is the form of DESeq2's users; a list of coefficients is still a joint constraint."""
    pair = differential_expression(MODEL, OBS, COUNTS, ["cell_type", "T", "B"])
    assert pair.equals(differential_expression(MODEL, OBS, COUNTS, ("cell_type", "T", "B")))
    joint = differential_expression(MODEL, OBS, COUNTS, ["cell_type[T.T]", "cell_type[T.NK]"])
    assert set(joint["df"]) == {2}


def test_arguments_in_another_order_are_named():
    adata = AnnData(COUNTS, obs=OBS.set_axis(COUNTS.index.astype(str)))
    model = adapters.fit(adata, make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor()))
    with pytest.raises(TypeError, match="model comes first"):
        differential_expression(adata, model, contrast=("cell_type", "T", "B"))
    with pytest.raises(TypeError, match="y holds counts, but is 'cell_type'"):
        marginal_means(model, adata, "cell_type")
    unfitted = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    with pytest.raises(NotFittedError):
        differential_expression(unfitted, adata, contrast=("cell_type", "T", "B"))
