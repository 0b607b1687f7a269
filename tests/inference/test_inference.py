"""Standard errors, tables, tests and intervals, as their users see them."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from tests.references import HARD, ORDINARY, fit_reference, needs_references, of_part

N = 300
DATA = make_counts(N, 6, offset="np.log(size_factor)", random_state=3)
OBS, COUNTS = DATA.obs, DATA.counts
DONOR = np.arange(N) % 12
CALLS = {
    "covariance": inference.covariance,
    "standard_errors": inference.standard_errors,
    "coefficient_table": inference.coefficient_table,
    "confidence_intervals": inference.confidence_intervals,
    "profile": lambda *data, **more: inference.confidence_intervals(
        *data, method="profile", **more
    ),
    "wald_test": lambda model, X, y=None, **more: inference.wald_test(
        model, X, y, "pseudotime = 0", **more
    ),
    "aic": inference.aic,
    "bic": inference.bic,
}


def pipeline(regressor=NegBinRegressor, mean="~ pseudotime + cell_type", **formulas):
    more = {"offset": "np.log(size_factor)", **formulas}
    return make_pipeline(FormulaTransformer(mean, **more), regressor())


@pytest.fixture(scope="module")
def model():
    return pipeline().fit(OBS, COUNTS)


def assert_same(found, expected, **tolerance):
    """Compare two answers of any of the functions."""
    tolerance = {"rtol": 1e-5, "atol": 1e-7} | tolerance
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for part, table in expected.items():
            assert_frame_equal(found[part], table, **tolerance)
    elif isinstance(expected, pd.DataFrame):
        assert_frame_equal(found, expected, **tolerance)
    else:
        assert_allclose(found, expected, **tolerance)


# ---------------------------------------------------------------------------- exact fits


@pytest.mark.data
@needs_references
@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize(("kind", "key"), [("observed", "se"), ("robust", "se_robust_hc0")])
def test_standard_errors_are_the_references(name, kind, key):
    exact, model, (X, y, weights) = fit_reference(name, tol=1e-10)
    errors = inference.standard_errors(model, X, y, kind=kind, sample_weight=weights)
    compared = 0
    for part, table in errors.items():
        for column, value in of_part(exact[key], part).items():
            assert table.loc[column].item() == pytest.approx(value, rel=1e-6), (part, column)
            compared += 1
    assert compared == sum(len(table) for table in errors.values())


REASONS = {
    "hard_poisson": {"dispersion__(Intercept)": "Poisson boundary"},
    "hard_rank_deficient": dict.fromkeys(["mean__x1", "mean__x2", "mean__x3"], "aliased"),
    "hard_separated": {"mean__gc": "separated"},
    "hard_underdispersed": {"dispersion__(Intercept)": "Poisson boundary"},
    "hard_zinb_pi_zero": {"zero_inflation__(Intercept)": "no zero inflation"},
    "hard_zip_as_zinb": {"dispersion__(Intercept)": "Poisson boundary"},
}


@pytest.mark.parametrize("name", HARD)
def test_hard_fits_have_an_error_or_a_reason(name):
    exact, model, (X, y, _) = fit_reference(name, tol=1e-10)
    table = inference.coefficient_table(model, X, y)
    table.index = table["part"] + "__" + table["feature"]
    reasons = table["reason"]
    assert reasons[reasons != ""].to_dict() == REASONS.get(name, {})
    assert (table["standard_error"].isna() == (reasons != "")).all()
    # Those of a gene at infinity come from numerical derivatives next to it.
    exactness = 1e-6 if exact["converged"] else 1e-4
    for part in model.params_:
        for column, value in of_part(exact["se"], part).items():
            own = table.loc[f"{part}__{column}"]
            if not own["reason"]:
                assert own["standard_error"] == pytest.approx(value, rel=exactness), column


def test_a_separated_fit_has_the_errors_of_a_fit_without_the_silent_group():
    _, model, (X, y, _) = fit_reference("hard_separated")
    seen = X["mean__gc"] == 0
    without = X[seen].drop(columns="mean__gc")
    expected = inference.standard_errors(NegBinRegressor().fit(without, y[seen]), without, y[seen])
    found = inference.standard_errors(model, X, y)
    assert_allclose(found["mean"].drop("gc"), expected["mean"], rtol=1e-5)
    assert_allclose(found["dispersion"], expected["dispersion"], rtol=1e-5)


# ---------------------------------------------------------------------------- whatever the form


@pytest.mark.parametrize("name", CALLS)
def test_sparse_counts_regressors_and_anndata_give_the_same(model, name):
    call = CALLS[name]
    expected = call(model, OBS, COUNTS)
    assert_same(call(model, OBS, sp.csr_array(COUNTS)), expected)
    design = model[:-1].transform(OBS)
    assert_same(call(model[-1], design, COUNTS), expected)
    adata = AnnData(sp.csr_matrix(COUNTS), obs=OBS)
    adata.var_names = COUNTS.columns
    assert_same(call(AnnDataRegressor(pipeline()).fit(adata), adata), expected)


@pytest.mark.parametrize("name", CALLS)
def test_a_gene_alone_is_the_gene_in_a_matrix(model, name):
    together = CALLS[name](model, OBS, COUNTS)
    gene = COUNTS[["gene_2"]]
    alone = CALLS[name](pipeline().fit(OBS, gene), OBS, gene)
    if isinstance(together, dict):
        together = {part: table[["gene_2"]] for part, table in together.items()}
    elif name in ("coefficient_table", "confidence_intervals", "profile"):
        together = together[together["target"] == "gene_2"].reset_index(drop=True)
        together, alone = (x.drop(columns="p_adjusted", errors="ignore") for x in (together, alone))
    elif name == "wald_test":
        together = together.loc[["gene_2"]].drop(columns="p_adjusted")
        alone = alone.drop(columns="p_adjusted")
    else:
        together = together[2:3]
    assert_same(alone, together)


@pytest.mark.parametrize("name", ["coefficient_table", "profile", "wald_test"])
def test_units_change_estimates_and_errors_alike(name):
    """A covariate in other units has other coefficients, and the same tests."""
    found = {}
    for factor in (1.0, 1e4):
        X = OBS[["pseudotime"]] * factor
        found[factor] = CALLS[name](NegBinRegressor(tol=1e-10).fit(X, COUNTS), X, COUNTS)
    one, other = found.values()
    slopes = one["feature"] == "pseudotime" if "feature" in one else [True] * len(one)
    for column in {"estimate", "standard_error", "log2_fold_change", "lower", "upper"} & {*one}:
        other.loc[slopes, column] *= 1e4
    assert_same(other, one, rtol=1e-4, atol=1e-4)


def test_cells_of_no_weight_change_nothing(model):
    weights = np.r_[np.ones(N), np.zeros(20)]
    more = pd.concat([OBS, OBS[:20].assign(pseudotime=0.99)]).reset_index(drop=True)
    counts = pd.concat([COUNTS, COUNTS[:20] + 50]).reset_index(drop=True)
    weighted = pipeline().fit(more, counts, negbinregressor__sample_weight=weights)
    for kind, groups in (("robust", None), ("cluster", np.r_[DONOR, np.full(20, 77)])):
        found = inference.coefficient_table(
            weighted, more, counts, kind=kind, groups=groups, sample_weight=weights
        )
        own = None if groups is None else DONOR
        expected = inference.coefficient_table(model, OBS, COUNTS, kind=kind, groups=own)
        assert_same(found, expected)


def test_the_callers_objects_are_left_alone(model):
    obs, counts, donor = OBS.copy(), COUNTS.copy(), DONOR.copy()
    before = {part: table.copy() for part, table in model.params_.items()}
    inference.coefficient_table(model, obs, counts, kind="cluster", groups=donor)
    inference.confidence_intervals(model, obs, counts, method="profile")
    assert_frame_equal(obs, OBS)
    assert_frame_equal(counts, COUNTS)
    assert_array_equal(donor, DONOR)
    for part, table in before.items():
        assert_frame_equal(model.params_[part], table)


# ---------------------------------------------------------------------------- tables


def test_covariances_standard_errors_and_tables_agree(model):
    covariance = inference.covariance(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    errors = inference.standard_errors(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    table = inference.coefficient_table(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    diagonal = np.sqrt(np.einsum("gkk->gk", covariance))
    assert_allclose(np.vstack([*errors.values()]).T, diagonal)
    assert_allclose(table["standard_error"], diagonal.ravel())
    assert_array_equal(table["target"].unique(), COUNTS.columns)
    for part, own in errors.items():
        assert own.shape == model.params_[part].shape
        wide = table[table["part"] == part].pivot_table(
            index="feature", columns="target", values="estimate", sort=False
        )
        assert_allclose(wide, model.params_[part])


def test_the_columns_of_a_table_follow_from_each_other(model):
    for kind, groups in (("observed", None), ("cluster", DONOR)):
        table = inference.coefficient_table(model, OBS, COUNTS, kind=kind, groups=groups)
        assert (table["reason"] == "").all()
        assert_allclose(table["statistic"], table["estimate"] / table["standard_error"])
        two_sided = 2 * stats.t.sf(table["statistic"].abs(), table["df"])
        assert_allclose(table["p_value"], two_sided)
        assert np.isinf(table["df"]).all() == (kind == "observed")
        is_fold = table["log2_fold_change"].notna()
        expected = (table["part"] == "mean") & (table["feature"] != "Intercept")
        assert_array_equal(is_fold, expected)
        assert_allclose(2 ** table["log2_fold_change"][is_fold], np.exp(table["estimate"][is_fold]))
        for _, own in table.groupby(["part", "feature"]):
            adjusted = stats.false_discovery_control(own["p_value"])
            assert_allclose(own["p_adjusted"], adjusted)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_genes_without_numbers_do_not_count_in_the_adjustment():
    counts = COUNTS.assign(silent=0)
    model = pipeline().fit(OBS, counts)
    test = inference.wald_test(model, OBS, counts, "pseudotime")
    assert test.loc["silent", "reason"] == "all zero"
    assert test.loc["silent"].drop(["reason", "df"]).isna().all()
    known = test["p_value"].drop("silent")
    assert_allclose(test["p_adjusted"].drop("silent"), stats.false_discovery_control(known))
    ratio = inference.likelihood_ratio_test(
        pipeline(mean="~ cell_type").fit(OBS, counts), model, OBS, counts
    )
    assert ratio.loc["silent", "reason"] == "all zero"
    assert np.isnan(ratio.loc["silent", "p_value"])
    assert (ratio["reason"].drop("silent") == "").all()


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


# ---------------------------------------------------------------------------- tests


def test_a_test_of_one_coefficient_is_that_of_the_table(model):
    for kind, groups in (("observed", None), ("robust", None), ("cluster", DONOR)):
        table = inference.coefficient_table(model, OBS, COUNTS, kind=kind, groups=groups)
        own = table[(table["feature"] == "cell_type[T.b]")].set_index("target")
        test = inference.wald_test(
            model, OBS, COUNTS, "cell_type[T.b] = 0", kind=kind, groups=groups
        )
        shared = ["estimate", "standard_error", "log2_fold_change", "p_value", "p_adjusted"]
        assert_frame_equal(test[shared], own[shared], check_names=False)
        assert_allclose(test["statistic"], own["statistic"] ** 2)
        assert_allclose(test["df_denominator"], own["df"])


def test_a_contrast_is_a_coefficient_of_another_reference_level(model):
    releveled = OBS.assign(cell_type=OBS["cell_type"].cat.reorder_categories(["c", "a", "b"]))
    other = pipeline().fit(releveled, COUNTS)
    for kind, groups in (("robust", None), ("cluster", DONOR)):
        more = {"kind": kind, "groups": groups}
        contrast = inference.wald_test(
            model, OBS, COUNTS, "cell_type[T.b] - cell_type[T.c] = 0", **more
        )
        direct = inference.wald_test(other, releveled, COUNTS, "cell_type[T.b]", **more)
        assert_frame_equal(contrast, direct, rtol=1e-4)


def test_a_joint_test_does_not_depend_on_how_it_is_written(model):
    ways = ["cell_type[T.b] = 0, cell_type[T.c] = 0", ["cell_type[T.b]", "cell_type[T.c]"]]
    ways.append("cell_type[T.b] - cell_type[T.c] = 0, cell_type[T.b] + 3 * cell_type[T.c] = 0")
    for kind, groups in (("observed", None), ("cluster", DONOR)):
        first, *others = (
            inference.wald_test(model, OBS, COUNTS, way, kind=kind, groups=groups) for way in ways
        )
        for other in others:
            assert_frame_equal(other, first, rtol=1e-8)
        assert (first["df"] == 2).all()
        assert first[["estimate", "standard_error", "log2_fold_change"]].isna().all(axis=None)
        if kind == "observed":
            assert_allclose(first["p_value"], stats.chi2.sf(first["statistic"], 2))
        else:
            df = first["df_denominator"]
            scaled = first["statistic"] * df / (df + 1) / 2
            assert_allclose(first["p_value"], stats.f.sf(scaled, 2, df))


def test_a_value_on_the_right_hand_side(model):
    estimate = model.params_["mean"].loc["pseudotime"]
    test = inference.wald_test(
        model, OBS, COUNTS, f"2 * pseudotime = {2 * float(estimate['gene_1'])!r}"
    )
    assert test.loc["gene_1", "p_value"] == pytest.approx(1)
    assert_allclose(test["estimate"], 2 * (estimate - estimate["gene_1"]), atol=1e-9)


def test_p_values_beyond_the_smallest_number_have_logarithms():
    """Two groups with next to no overlap: z is in the hundreds, and no p-value is zero."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": np.repeat([0.0, 1.0], 3000)})
    counts = np.column_stack(
        [rng.poisson(np.exp(1 + slope * X["x"])) for slope in (3.0, 2.0, 0.1, 1.5)]
    )
    full = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).fit(X, counts)
    reduced = make_pipeline(FormulaTransformer("~ 1"), NegBinRegressor()).fit(X, counts)
    wald = inference.wald_test(full, X, counts, "x")
    table = inference.coefficient_table(full, X, counts)
    table = table[table["feature"] == "x"].set_index("target")
    ratio = inference.likelihood_ratio_test(reduced, full, X, counts)
    least = np.finfo(float).tiny
    for found in (wald, table, ratio):
        logs = found["log10_p_value"]
        assert np.isfinite(logs).all()
        assert list(np.argsort(logs)) == [0, 1, 3, 2]
        assert (logs.iloc[[0, 1, 3]] < -400).all()
        assert (found["p_value"].iloc[[0, 1, 3]] == least).all()
        assert found["p_value"].iloc[2] == pytest.approx(10 ** logs.iloc[2])
        assert (found["p_adjusted"] >= least).all()
    logs = stats.norm.logsf(np.sqrt(wald["statistic"])) + np.log(2)
    assert_allclose(wald["log10_p_value"], logs / np.log(10), rtol=1e-10)
    assert_allclose(table["log10_p_value"], wald["log10_p_value"], rtol=1e-9)
    clustered = inference.wald_test(
        full, X, counts, "x", kind="cluster", groups=np.arange(len(X)) % 500
    )
    assert (clustered["log10_p_value"].iloc[[0, 1]] < -308).all()
    text = str(inference.gene_summary(full, X, counts, "y0"))
    assert f"e{np.floor(wald['log10_p_value'].iloc[0]):.0f} " in text


def test_other_parts(model):
    test = inference.wald_test(model, OBS, COUNTS, "Intercept = 0", part="dispersion")
    assert_allclose(test["estimate"], model.params_["dispersion"].loc["Intercept"])
    assert test["log2_fold_change"].isna().all()


def test_aliased_columns_have_no_test_but_their_differences_do():
    """A column for every level beside an intercept: differences are what they always are."""
    levels = pd.get_dummies(OBS["cell_type"], dtype=float)
    X = pd.concat([OBS[["pseudotime"]], levels], axis=1)
    model = NegBinRegressor().fit(X, COUNTS)
    reference = NegBinRegressor().fit(X.drop(columns="a"), COUNTS)
    found = inference.wald_test(model, X, COUNTS, "b - c = 0")
    expected = inference.wald_test(reference, X.drop(columns="a"), COUNTS, "b - c = 0")
    assert_frame_equal(found, expected, rtol=1e-4)
    assert (found["reason"] == "").all()
    alone = inference.wald_test(model, X, COUNTS, "b = 0")
    assert (alone["reason"] == "aliased").all()
    assert alone["p_value"].isna().all()
    profile = inference.confidence_intervals(model, X, COUNTS, method="profile")
    is_aliased = profile["feature"].isin(["a", "b", "c"]) | (
        (profile["feature"] == "Intercept") & (profile["part"] == "mean")
    )
    assert_array_equal(profile["reason"] == "aliased", is_aliased)


def crossed():
    """Cells of two factors without one of their combinations, and of donors within conditions."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame(
        {
            "kind": rng.choice(["A", "B", "C"], 400),
            "dose": rng.choice(["none", "low", "high"], 400),
            "donor": rng.choice(list("uvwxyz"), 400),
        }
    )
    frame["cond"] = np.where(frame["donor"] < "x", "ctrl", "stim")
    frame["group"] = np.arange(400) % 20
    return frame


MISSING = ("B", "high")
EMPTY_CELLS = {
    "missing": ("~ kind * dose", ["kind", "dose"]),
    "weightless": ("~ kind * dose", ["kind", "dose"]),
    "nested": ("~ cond / donor", ["cond", "donor"]),
}


def with_empty_cells(name):
    cells, weights = crossed(), None
    counts = np.random.default_rng(2).negative_binomial(2, 0.3, size=(len(cells), 2))
    absent = ((cells["kind"] == MISSING[0]) & (cells["dose"] == MISSING[1])).to_numpy()
    if name == "weightless":
        weights = np.where(absent, 0.0, 1.0)
    elif name == "missing":
        cells, counts = cells[~absent].reset_index(drop=True), counts[~absent]
    return cells, counts, weights


@pytest.mark.parametrize("name", EMPTY_CELLS)
def test_empty_cells_leave_the_other_coefficients_as_the_cell_means_have_them(name):
    cells, counts, weights = with_empty_cells(name)
    formula, factors = EMPTY_CELLS[name]
    present = slice(None) if weights is None else weights > 0
    means = pd.get_dummies(cells[factors].agg("_".join, axis=1), dtype=float)
    means = means.loc[:, means[present].any()]
    tight = {"tol": 1e-10}
    model = make_pipeline(FormulaTransformer(formula), NegBinRegressor(**tight))
    model.fit(cells, counts, negbinregressor__sample_weight=weights)
    reference = NegBinRegressor(fit_intercept=False, **tight)
    reference.fit(means, counts, sample_weight=weights)

    design = model[0].transform(cells)
    columns = [column for column in design if column.startswith("mean__")]
    rows = pd.concat([means, design[columns]], axis=1)[present].drop_duplicates()
    rows, to_mean = rows[columns].to_numpy(), rows[means.columns].to_numpy()
    aliased = set(model[-1].aliased_["mean"])
    assert 0 < len(aliased) < len(columns)
    for kind, groups in (("observed", None), ("robust", None), ("cluster", cells["group"])):
        how = {"kind": kind, "groups": groups, "sample_weight": weights}
        table = inference.coefficient_table(model, cells, counts, **how)
        table = table[table["part"] == "mean"].set_index("feature")
        limits = inference.confidence_intervals(model, cells, counts, **how)
        limits = limits[limits["part"] == "mean"].set_index("feature")
        for number, column in enumerate(columns):
            feature = column.removeprefix("mean__")
            own, unit = table.loc[feature], np.eye(len(columns))[number]
            of_rows = np.linalg.lstsq(rows.T, unit, rcond=None)[0]
            estimable = np.allclose(rows.T @ of_rows, unit, atol=1e-9)
            assert (feature in aliased) == (not estimable)
            one = inference.wald_test(model, cells, counts, feature, **how)
            if not estimable:
                assert (own["reason"] == "aliased").all()
                assert (one["reason"] == "aliased").all()
                assert (limits.loc[feature, "reason"] == "aliased").all()
                continue
            share = np.where(np.abs(of_rows) > 1e-12, of_rows, 0) @ to_mean
            terms = zip(share, means.columns, strict=True)
            text = " + ".join(f"{value:.17f} * `{label}`" for value, label in terms)
            expected = inference.wald_test(reference, means, counts, text, **how)
            assert (own["reason"] == "").all()
            for found in (own, one):
                assert_allclose(found["p_value"], expected["p_value"], rtol=1e-6)
                assert_allclose(found["standard_error"], expected["standard_error"], rtol=1e-6)
            assert (limits.loc[feature, "reason"] == "").all()


@pytest.mark.parametrize("name", EMPTY_CELLS)
def test_empty_cells_leave_profiles_and_summaries_of_the_other_coefficients(name):
    cells, counts, weights = with_empty_cells(name)
    model = make_pipeline(FormulaTransformer(EMPTY_CELLS[name][0]), NegBinRegressor())
    model.fit(cells, counts, negbinregressor__sample_weight=weights)
    aliased = set(model[-1].aliased_["mean"])
    profile = inference.confidence_intervals(
        model, cells, counts, method="profile", sample_weight=weights
    )
    profile = profile[profile["part"] == "mean"]
    assert set(profile.loc[profile["reason"] != "", "feature"]) == aliased
    summary = inference.gene_summary(model, cells, counts, "y0", sample_weight=weights)
    reasons = summary.coefficients["mean"]["reason"]
    assert set(reasons.index[reasons != ""]) == aliased
    assert not model[-1].undetermined_["mean"].to_numpy().any()


@pytest.mark.parametrize("mean", ["~ cell_type", "~ cell_type + pseudotime"])
def test_likelihood_ratios(mean):
    reduced = pipeline(mean="~ 1").fit(OBS, COUNTS)
    full = pipeline(mean=mean).fit(OBS, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    expected = 2 * (full[-1].log_likelihood_ - reduced[-1].log_likelihood_)
    assert_allclose(test["statistic"], expected, atol=1e-6)
    assert_allclose(test["p_value"], stats.chi2.sf(expected, test["df"]), rtol=1e-6)
    assert (test["df"] == (2 if mean == "~ cell_type" else 3)).all()
    wald = inference.wald_test(full, OBS, COUNTS, ["cell_type[T.b]", "cell_type[T.c]"])
    if mean == "~ cell_type":  # close to each other in large samples
        assert_allclose(np.log10(wald["p_value"]), np.log10(test["p_value"]), rtol=0.25, atol=0.3)


def test_regressors_of_some_columns_of_a_frame_are_compared():
    X = OBS[["pseudotime", "size_factor"]]
    reduced = NegBinRegressor().fit(X[["size_factor"]], COUNTS)
    full = NegBinRegressor().fit(X, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, X, COUNTS)
    assert_allclose(test["statistic"], 2 * (full.log_likelihood_ - reduced.log_likelihood_))
    with pytest.raises(ValueError, match="pseudotime"):
        inference.likelihood_ratio_test(reduced, full, X[["size_factor"]], COUNTS)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_zero_inflation_is_tested_by_a_mixture():
    """Half of the chi-squared distribution where the null is at the end of the range."""
    rng = np.random.default_rng(0)
    mu, r = 4.0, 2.0
    counts = rng.negative_binomial(r, r / (r + mu), (400, 40))
    counts[:, 20:] *= rng.random((400, 20)) > 0.4
    X = np.zeros((400, 1))
    reduced, full = NegBinRegressor().fit(X, counts), ZINBRegressor().fit(X, counts)
    test = inference.likelihood_ratio_test(reduced, full, X, counts)
    none = test["statistic"] < 1e-5
    assert 4 < none[:20].sum() < 20
    assert (test.loc[test["statistic"] == 0, "p_value"] == 1).all()
    some = test["statistic"] > 0
    half = 0.5 * stats.chi2.sf(test["statistic"][some], 1)
    assert_allclose(test["p_value"][some], half)
    assert (test["p_value"][20:] < 1e-3).all()


def test_two_more_coefficients_one_of_them_at_its_bound():
    reduced = pipeline(mean="~ 1").fit(OBS, COUNTS)
    full = pipeline(ZINBRegressor, mean="~ pseudotime", zero_inflation="~ 1").fit(OBS, COUNTS)
    test = inference.likelihood_ratio_test(reduced, full, OBS, COUNTS)
    mixture = [stats.chi2.sf(test["statistic"], df) for df in (1, 2)]
    assert_allclose(test["p_value"], np.mean(mixture, axis=0))
    assert (test["df"] == 2).all()


def test_a_full_model_below_the_reduced_one_has_a_reason():
    reduced = pipeline(mean="~ cell_type").fit(OBS, COUNTS)
    worse = pipeline().fit(OBS, COUNTS)
    # A maximum that is none, with the likelihood that belongs to it
    for part in worse[-1].params_:
        worse[-1].params_[part].loc[:, "gene_0"] = 0.0
    worse[-1].log_likelihood_[0] = worse.log_prob(OBS, COUNTS)[:, 0].sum()
    test = inference.likelihood_ratio_test(reduced, worse, OBS, COUNTS)
    assert test.loc["gene_0", "reason"] == "a higher maximum was missed"
    assert np.isnan(test.loc["gene_0", "p_value"])
    assert (test["reason"][1:] == "").all()


def test_information_criteria(model):
    log_likelihood = model[-1].log_likelihood_
    assert_allclose(inference.aic(model, OBS, COUNTS), 2 * 5 - 2 * log_likelihood)
    assert_allclose(inference.bic(model, OBS, COUNTS), np.log(N) * 5 - 2 * log_likelihood)
    assert_array_equal(inference.aic(model, OBS, COUNTS).index, COUNTS.columns)
    twice = pipeline().fit(OBS, COUNTS, negbinregressor__sample_weight=np.full(N, 2.0))
    found = inference.bic(twice, OBS, COUNTS, sample_weight=np.full(N, 2.0))
    assert_allclose(found, np.log(2 * N) * 5 - 4 * log_likelihood, rtol=1e-6)


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"constraint": "pseudotimes = 0"}, "no coefficient 'pseudotimes'.*'pseudotime'"),
        ({"constraint": "pseudotime ="}, "does not parse"),
        ({"constraint": "a:b"}, "no coefficient 'a:b'"),
        ({"constraint": "pseudotime ** 2"}, "does not parse.*backquotes"),
        ({"constraint": ""}, "does not parse"),
        ({"constraint": "1 = 1"}, "linearly independent. .* has no coefficient"),
        (
            {"constraint": "pseudotime = 0, 2 * pseudotime = 1"},
            "linearly independent. .*repeats or contradicts",
        ),
        ({"constraint": "pseudotime", "part": "zero_inflation"}, "no part 'zero_inflation'"),
        ({"constraint": "pseudotime", "part": "dispersion"}, "no coefficient 'pseudotime'"),
        ({"constraint": "pseudotime", "kind": "cluster"}, "needs groups"),
        ({"constraint": "x" * 100_000}, "longer than"),
    ],
)
def test_constraints_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.wald_test(model, OBS, COUNTS, **more)


@pytest.mark.parametrize("constraint", [None, 3, ["pseudotime", 0], np.eye(4)])
def test_a_constraint_is_text(model, constraint):
    with pytest.raises(TypeError, match="constraint"):
        inference.wald_test(model, OBS, COUNTS, constraint)


def test_a_constraint_in_the_place_of_counts(model):
    with pytest.raises(TypeError, match="needs a constraint by its name"):
        inference.wald_test(model, OBS, "pseudotime = 0")


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


def test_a_penalty_is_refused_where_the_likelihood_is_asked():
    X = OBS[["pseudotime"]]
    free, penalised = (NegBinRegressor(alpha=a).fit(X, COUNTS) for a in (0, {"mean": 0.1}))
    null = NegBinRegressor().fit(0 * X, COUNTS)
    calls = [
        lambda: inference.aic(penalised, X, COUNTS),
        lambda: inference.bic(penalised, X, COUNTS),
        lambda: inference.likelihood_ratio_test(null, penalised, X, COUNTS),
        lambda: inference.confidence_intervals(penalised, X, COUNTS, method="profile"),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="without a penalty, not alpha="):
            call()
    errors = [inference.standard_errors(m, X, COUNTS)["mean"] for m in (free, penalised)]
    assert (errors[1].loc["pseudotime"] < errors[0].loc["pseudotime"]).all()
