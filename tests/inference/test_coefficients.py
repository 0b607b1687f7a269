"""Standard errors against references, and tables of coefficients."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from sc_glm import NegBinRegressor, inference
from tests.inference.simulated import COUNTS, DONOR, OBS
from tests.references import HARD, ORDINARY, fit_reference, needs_references, of_part


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


def test_a_separated_fit_has_the_errors_of_a_fit_without_the_group_of_zeros():
    _, model, (X, y, _) = fit_reference("hard_separated")
    seen = X["mean__gc"] == 0
    without = X[seen].drop(columns="mean__gc")
    expected = inference.standard_errors(NegBinRegressor().fit(without, y[seen]), without, y[seen])
    found = inference.standard_errors(model, X, y)
    assert_allclose(found["mean"].drop("gc"), expected["mean"], rtol=1e-5)
    assert_allclose(found["dispersion"], expected["dispersion"], rtol=1e-5)


def test_covariances_standard_errors_and_tables_agree(model):
    covariance = inference.covariance(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    errors = inference.standard_errors(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    table = inference.coefficient_table(model, OBS, COUNTS, kind="cluster", groups=DONOR)
    diagonal = np.sqrt(np.einsum("gkk->gk", covariance))
    assert_allclose(np.vstack([*errors.values()]).T, diagonal)
    assert_allclose(table["standard_error"], diagonal.ravel())
    assert_array_equal(table["gene"].unique(), COUNTS.columns)
    for part, own in errors.items():
        assert own.shape == model.params_[part].shape
        wide = table[table["part"] == part].pivot_table(
            index="feature", columns="gene", values="estimate", sort=False
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
