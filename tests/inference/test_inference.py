"""Properties that all functions of the room share, and designs with empty cells."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import stats

from sc_glm import FormulaTransformer, NegBinRegressor, inference, make_pipeline
from sc_glm.adata import AnnDataRegressor
from tests.inference.simulated import COUNTS, DONOR, OBS, N, pipeline

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
        together = together[together["gene"] == "gene_2"].reset_index(drop=True)
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
    table = table[table["feature"] == "x"].set_index("gene")
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
