"""Marginal means against averages by hand, other parametrisations and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.exceptions import ConvergenceWarning

from sc_glm import (
    FormulaTransformer,
    NegBinRegressor,
    ZINBRegressor,
    inference,
    make_pipeline,
)
from sc_glm.datasets import make_counts
from tests.inference.simulated import COUNTS, DONOR, OBS, N, pipeline

LEVELS = ["a", "b", "c"]
HALVES = OBS.assign(half=np.where(np.arange(N) % 2, "odd", "even"))


def without(counts, cells, gene=0):
    counts = counts.copy()
    counts.iloc[cells, gene] = 0
    return counts


@pytest.fixture(scope="module")
def crossed():
    return pipeline(mean="~ cell_type * half + pseudotime").fit(HALVES, COUNTS)


def test_they_are_averages_of_predictors_with_the_factor_set(model):
    table = inference.marginal_means(model, OBS, COUNTS, "cell_type")
    assert list(table["cell_type"]) == LEVELS * COUNTS.shape[1]
    covariance = inference.covariance(model, OBS, COUNTS)
    for level in LEVELS:
        cells = OBS.assign(cell_type=level)
        log_mean = np.log(model.predict(cells)).mean(axis=0)
        design = model[:-1].transform(cells)
        row = np.r_[design.filter(like="mean__").mean(), 0.0]
        error = np.sqrt(np.einsum("i,gij,j->g", row, covariance, row))
        own = table[table["cell_type"] == level]
        assert_allclose(own["estimate"], log_mean)
        assert_allclose(own["standard_error"], error)
        assert_allclose(own["lower"], log_mean - 1.959964 * error, rtol=1e-6)
        assert_allclose(own["mean_upper"], np.exp(log_mean + 1.959964 * error), rtol=1e-6)
    assert (table["reason"] == "").all()
    assert np.isinf(table["df"]).all()


def test_at_sets_covariates_and_offset_is_added(model):
    at = {"pseudotime": 0.25, "size_factor": 2.0}
    table = inference.marginal_means(model, OBS, COUNTS, "cell_type", at=at)
    cells = pd.DataFrame({"cell_type": LEVELS, **at})
    assert_allclose(table["mean"].to_numpy().reshape(-1, 3).T, model.predict(cells))
    by_offset = inference.marginal_means(
        model, OBS, COUNTS, "cell_type", at={"pseudotime": 0.25}, offset=np.log(2.0)
    )
    assert_frame_equal(table, by_offset)


def test_without_by_they_are_averages_of_all_cells(model):
    table = inference.marginal_means(model, OBS, COUNTS)
    assert_allclose(table["estimate"], np.log(model.predict(OBS)).mean(axis=0))
    assert list(table["gene"]) == list(model[-1].target_names_)


@pytest.mark.parametrize("kind", ["observed", "robust", "cluster"])
def test_they_do_not_depend_on_the_reference_level(model, kind):
    how = {"kind": kind, "groups": DONOR if kind == "cluster" else None}
    releveled = OBS.assign(cell_type=OBS["cell_type"].cat.reorder_categories(["c", "a", "b"]))
    other = pipeline().fit(releveled, COUNTS)
    for function, names in (
        (inference.marginal_means, ["gene", "cell_type"]),
        (inference.marginal_comparisons, ["gene", "level"]),
    ):
        more = how | ({"compare": "rest"} if "level" in names else {})
        found = function(model, OBS, COUNTS, "cell_type", **more).reset_index()
        again = function(other, releveled, COUNTS, "cell_type", **more).reset_index()
        found, again = (table.drop(columns="index", errors="ignore") for table in (found, again))
        first, second = (table.set_index(names).sort_index() for table in (found, again))
        assert_frame_equal(first, second, rtol=2e-4, atol=2e-5)


def test_repeated_cells_have_the_weight_of_their_number():
    weight = np.arange(N) % 3
    cells = np.repeat(np.arange(N), weight)
    model = pipeline().fit(OBS, COUNTS, negbinregressor__sample_weight=weight)
    repeated = pipeline().fit(OBS.iloc[cells], COUNTS.iloc[cells])
    found = inference.marginal_means(model, OBS, COUNTS, "cell_type", sample_weight=weight)
    expected = inference.marginal_means(repeated, OBS.iloc[cells], COUNTS.iloc[cells], "cell_type")
    assert_frame_equal(found, expected, rtol=1e-4)


def test_other_parts_have_their_own_scale():
    counts = make_counts(3000, 3, zero_inflation="~ cell_type", random_state=2)
    formulas = {"dispersion": "~ cell_type", "zero_inflation": "~ cell_type", "offset": None}
    model = pipeline(ZINBRegressor, **formulas).fit(counts.obs, counts.counts)
    for part, name in (("dispersion", "size"), ("zero_inflation", "probability")):
        table = inference.marginal_means(
            model, counts.obs, counts.counts, "cell_type", part=part, offset=3.0
        )
        cells = pd.DataFrame({"cell_type": LEVELS, "pseudotime": 0.5})
        known = (table["reason"] == "").to_numpy()
        expected = model.predict_params(cells)[part].T.ravel()
        assert known.any()
        assert_allclose(table[name][known], expected[known])
        assert (table[f"{name}_lower"][known] < table[name][known]).all()
        assert table[name][~known].isna().all()


def test_combinations_of_levels(crossed):
    table = inference.marginal_means(
        crossed, HALVES, COUNTS, ["half", "cell_type"], at={"pseudotime": 0.5, "size_factor": 1.0}
    )
    assert list(table.columns[:3]) == ["gene", "half", "cell_type"]
    cells = table.loc[table["gene"] == "gene_0", ["half", "cell_type"]]
    expected = crossed.predict(cells.assign(pseudotime=0.5, size_factor=1.0))
    assert_allclose(table["mean"].to_numpy().reshape(-1, 6).T, expected)


def test_a_combination_that_no_cell_has_is_not_estimable():
    there = ~((HALVES["cell_type"] == "b") & (HALVES["half"] == "odd")).to_numpy()
    obs, counts = HALVES[there], COUNTS[there]
    model = pipeline(mean="~ cell_type * half + pseudotime").fit(obs, counts)
    table = inference.marginal_means(model, obs, counts, ["cell_type", "half"])
    missing = (table["cell_type"] == "b") & (table["half"] == "odd")
    assert (table["reason"][missing] == "aliased").all()
    assert table.loc[missing, ["estimate", "standard_error", "mean", "lower"]].isna().all(axis=None)
    assert (table["reason"][~missing] == "").all()
    assert table[["estimate", "standard_error"]][~missing].notna().all(axis=None)
    averages = inference.marginal_means(model, obs, counts, "cell_type")
    assert_array_equal(averages["reason"] == "aliased", averages["cell_type"] == "b")


def test_a_level_without_counts_has_a_mean_of_zero():
    counts = without(COUNTS, (OBS["cell_type"] == "b").to_numpy())
    with pytest.warns(ConvergenceWarning, match="separated"):
        silent = pipeline().fit(OBS, counts)
    wald = inference.marginal_means(silent, OBS, counts, "cell_type").head(3)
    first, row, last = (wald.iloc[i] for i in range(3))
    assert row["reason"] == "separated"
    assert row["estimate"] == row["lower"] == -np.inf
    assert row["mean"] == row["mean_lower"] == 0
    assert np.isnan(row["standard_error"])
    assert np.isnan(row["mean_upper"])
    assert first["reason"] == last["reason"] == ""
    profile = inference.marginal_means(
        silent, OBS, counts, "cell_type", genes="gene_0", method="profile"
    )
    # 1.92 / n for n Poisson counts of zero and one mean
    n_silent = (OBS["cell_type"] == "b").sum()
    assert 1.5 / n_silent < profile["mean_upper"][1] < 10 / n_silent
    same = ["estimate", "mean", "mean_lower", "reason"]
    assert_frame_equal(profile.loc[[1], same], wald.loc[[1], same])
    assert_allclose(profile["upper"][[0, 2]], wald["upper"][[0, 2]], atol=0.2)
    differences = inference.marginal_comparisons(silent, OBS, counts, "cell_type").loc["gene_0"]
    assert list(differences["log2_fold_change"].iloc[[0, 2]]) == [-np.inf, np.inf]
    assert list(differences["test"]) == ["lr", "wald", "lr"]
    assert differences["p_value"].notna().all()


def test_comparisons_are_wald_tests(model):
    table = inference.marginal_comparisons(model, OBS, COUNTS, "cell_type")
    constraints = {
        "b:a": "cell_type[T.b]",
        "c:a": "cell_type[T.c]",
        "c:b": "cell_type[T.c] - cell_type[T.b]",
    }
    for pair, constraint in constraints.items():
        level, reference = pair.split(":")
        own = table[(table["level"] == level) & (table["reference"] == reference)]
        test = inference.wald_test(model, OBS, COUNTS, constraint)
        for column in ("log2_fold_change", "p_value", "p_adjusted"):
            assert_allclose(own[column], test[column])
        assert_allclose(own["standard_error"], test["standard_error"] / np.log(2))
        assert_allclose(own["statistic"] ** 2, test["statistic"])
    assert len(table) == 3 * COUNTS.shape[1]
    reference = inference.marginal_comparisons(model, OBS, COUNTS, "cell_type", compare="reference")
    assert_frame_equal(reference, table[table["reference"] == "a"])


def test_a_comparison_with_the_rest(model):
    table = inference.marginal_comparisons(model, OBS, COUNTS, "cell_type", compare="rest")
    means = inference.marginal_means(model, OBS, COUNTS, "cell_type")["estimate"]
    means = means.to_numpy().reshape(-1, 3).T
    others = (np.exp(means).sum(axis=0) - np.exp(means)) / 2
    assert_allclose(table["log2_fold_change"], ((means - np.log(others)) / np.log(2)).ravel())
    assert set(table["reference"]) == {"rest"}


def test_comparisons_where_a_factor_has_an_interaction(crossed):
    table = inference.marginal_comparisons(
        crossed, HALVES, COUNTS, "half", at={"cell_type": "b"}, kind="robust"
    )
    test = inference.wald_test(
        crossed, HALVES, COUNTS, "half[T.odd] + cell_type[T.b]:half[T.odd]", kind="robust"
    )
    for column in ("log2_fold_change", "p_value"):
        assert_allclose(table[column], test[column])
    pairs = inference.marginal_comparisons(crossed, HALVES, COUNTS, ["half", "cell_type"])
    assert set(pairs["level"]) | set(pairs["reference"]) == {
        f"{half}:{cell_type}" for half in ("even", "odd") for cell_type in LEVELS
    }
    assert len(pairs) == 15 * COUNTS.shape[1]


def test_intervals_hold_the_truth():
    data = make_counts(N, 400, random_state=5)
    model = pipeline(offset=None)
    with pytest.warns(ConvergenceWarning, match="3 separated"):
        model.fit(data.obs, data.counts)
    table = inference.marginal_means(model, data.obs, data.counts, "cell_type")
    truth = np.column_stack(
        [
            data.params["mean"].T
            @ model[:-1].transform(cells).filter(like="mean__").mean().to_numpy()
            for cells in (data.obs.assign(cell_type=level) for level in LEVELS)
        ]
    ).ravel()
    known = table["reason"] == ""
    inside = ((table["lower"] <= truth) & (truth <= table["upper"]))[known]
    assert known.mean() > 0.95
    # three levels of a gene are nearly independent; Wald intervals of scarce genes are a bit short
    assert inside.mean() == pytest.approx(0.95, abs=3.5 * np.sqrt(0.95 * 0.05 / len(inside)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"by": "celltype"}, "no factor 'celltype'.*Similar: .*cell_type"),
        ({"by": "pseudotime"}, "number, not a factor: set it to a value by at={'pseudotime'"),
        ({"at": {"pseudotim": 0.5}}, "no formula reads.*Similar: .*pseudotime"),
        ({"at": {"cell_type": "a"}}, "in by as well as in at"),
        ({"at": {"pseudotime": [0.1, 0.2]}}, "one value for 'pseudotime'"),
        ({"part": "zero_inflation"}, "no part 'zero_inflation'"),
        ({"part": "dispersion"}, "no factor 'cell_type'"),
        ({"level": 95}, "level == 95"),
        ({"kind": "cluster"}, "needs groups"),
        ({"compare": "all"}, "compare must be one of"),
        ({"by": None}, "at least two levels"),
    ],
)
def test_arguments_that_are_refused(model, more, message):
    with pytest.raises(ValueError, match=message):
        inference.marginal_comparisons(model, OBS, COUNTS, **{"by": "cell_type", **more})


def test_a_profile_interval_is_that_of_the_coefficient(model):
    at = {"pseudotime": 0.0, "cell_type": "a"}
    how = {"level": 0.9, "method": "profile"}
    table = inference.marginal_means(model, OBS, COUNTS, at=at, offset=0.0, **how)
    coefficients = inference.confidence_intervals(model, OBS, COUNTS, **how)
    own = coefficients[(coefficients["part"] == "mean") & (coefficients["feature"] == "Intercept")]
    for column in ("lower", "estimate", "upper"):
        assert_allclose(table[column], own[column], rtol=1e-4)
    with pytest.raises(ValueError, match="goes with kind='observed'"):
        inference.marginal_means(model, OBS, COUNTS, method="profile", kind="robust")


def test_an_unseen_level_in_at_is_refused(model):
    with pytest.raises(ValueError, match=r"cell_type.*'d'"):
        inference.marginal_means(model, OBS, COUNTS, at={"cell_type": "d"})


def test_a_model_without_formulas_is_refused():
    model = NegBinRegressor().fit(OBS[["pseudotime"]], COUNTS)
    with pytest.raises(ValueError, match="need a model with formulas"):
        inference.marginal_means(model, OBS[["pseudotime"]], COUNTS)


def test_a_factor_with_the_name_of_a_column_is_refused():
    obs = OBS.assign(mean=OBS["cell_type"])
    formula = FormulaTransformer("~ mean")
    model = make_pipeline(formula, NegBinRegressor()).fit(obs, COUNTS)
    with pytest.raises(ValueError, match="column of the result: 'mean'"):
        inference.marginal_means(model, obs, COUNTS, "mean")
