"""Quasi-likelihood tests: invariances, genes of every kind, simulated donors, and bad input."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from pandas.testing import assert_frame_equal
from scipy import stats

from sc_glm.inference import quasi_likelihood_test

N_GENES = 400
RNG = np.random.default_rng(0)
OBS = pd.DataFrame(
    {
        "condition": ["control"] * 4 + ["case"] * 4,
        "batch": list("abcabcab"),
        "age": RNG.normal(50, 10, 8),
        "log_depth": RNG.normal(8.0, 0.4, 8),
    },
    index=[f"donor{i}" for i in range(8)],
)
EFFECT = np.where(np.arange(N_GENES) < 40, 2.0, 0.0)


def draw():
    share = np.exp(RNG.uniform(-7, -3, N_GENES))
    log_fold = RNG.normal(scale=RNG.uniform(0.1, 0.6, N_GENES), size=(8, N_GENES))
    log_fold += (OBS["condition"] == "case").to_numpy()[:, None] * EFFECT
    mean = np.exp(OBS["log_depth"].to_numpy()[:, None] + log_fold) * share
    counts = pd.DataFrame(RNG.poisson(mean), index=OBS.index).rename(columns="g{}".format)
    counts["g50"] = 0
    counts.loc[OBS["condition"] == "control", "g0"] = 0
    counts.loc[OBS["condition"] == "case", "g1"] = 0
    return counts


COUNTS = draw()
CONTRAST = ("condition", "case", "control")


@pytest.fixture(scope="module")
def table():
    return quasi_likelihood_test(OBS, "~ condition", CONTRAST, y=COUNTS)


def test_effects_are_found(table):
    assert list(table.index) == list(COUNTS)
    assert table.index.name == "gene"
    found = table["p_adjusted"] < 0.05
    assert found[:40].mean() > 0.7
    assert found[40:].sum() <= 4
    assert table["log2_fold_change"][2:40].mean() == pytest.approx(2 / np.log(2), abs=0.3)
    assert (table["test"] == "ql").all()
    assert (table["df"] == 1).all()


def test_genes_that_one_side_lacks_have_infinite_effects_and_p_values(table):
    assert list(table["log2_fold_change"][:2]) == [np.inf, -np.inf]
    assert table["standard_error"][:2].isna().all()
    assert (table["p_value"][:2] < 0.01).all()
    assert (table["reason"][:2] == "").all()


def test_a_gene_without_counts_has_a_reason(table):
    assert table.loc["g50", "reason"] == "all zero"
    assert np.isnan(table.loc["g50", "p_value"])
    others = table.drop("g50")
    assert (others["reason"] == "").all()
    assert np.isfinite(others[["statistic", "p_value", "p_adjusted", "overdispersion"]]).all(
        axis=None
    )


def test_p_values_are_near_the_f_distribution(table):
    known = table.drop("g50")
    tail = stats.f.sf(known["statistic"], 1, known["df_denominator"])
    assert (known["df_denominator"] > 2).all()
    assert np.abs(tail - known["p_value"]).max() < 0.05
    assert np.allclose(np.log10(known["p_value"]), known["log10_p_value"])


def test_dispersions_are_moderated(table):
    known = table.drop("g50").iloc[40:]
    raw, moderated = np.log(known["quasi_dispersion_raw"]), np.log(known["quasi_dispersion"])
    assert moderated.std() < 0.7 * raw.std()
    assert np.corrcoef(raw, moderated)[0, 1] > 0.7


@pytest.mark.parametrize(
    "contrast",
    ["condition", "condition[T.control] = 0", [0.0, 1.0], ("condition", "case", "rest")],
)
def test_contrasts_are_named_in_many_ways(table, contrast):
    other = quasi_likelihood_test(OBS, "~ condition", contrast, y=COUNTS)
    assert other["p_value"].to_numpy() == pytest.approx(table["p_value"].to_numpy(), nan_ok=True)


def test_a_joint_test_has_a_range_of_effects():
    table = quasi_likelihood_test(OBS, "~ batch", "batch", y=COUNTS).drop("g50")
    assert (table["df"] == 2).all()
    assert (table["log2_fold_change"] >= 0).all()
    assert table["standard_error"].isna().all()
    assert table["p_value"].between(0, 1).all()


def test_a_right_hand_side_is_tested(table):
    shifted = quasi_likelihood_test(OBS, "~ condition", "condition[T.control] = -2", y=COUNTS)
    assert shifted["p_value"][2:40].mean() > 0.3
    expected = -table["log2_fold_change"] + 2 / np.log(2)
    close = shifted["log2_fold_change"].drop("g50") - expected.drop("g50")
    assert np.nan_to_num(close.to_numpy()[2:]) == pytest.approx(0.0, abs=0.2)


def test_units_and_order_do_not_matter(table):
    obs = OBS.assign(log_depth=OBS["log_depth"] - 3.0).iloc[::-1]
    other = quasi_likelihood_test(obs, "~ condition", CONTRAST, y=COUNTS.iloc[::-1, ::-1])
    assert_frame_equal(other.iloc[::-1], table, rtol=1e-5, atol=1e-8)


def test_sparse_sums_and_an_anndata_are_taken(table):
    sparse = sp.csr_array(COUNTS.to_numpy())
    adata = SimpleNamespace(obs=OBS, X=sparse, var_names=COUNTS.columns, n_obs=len(OBS))
    before = OBS.copy()
    assert_frame_equal(quasi_likelihood_test(adata, "~ condition", CONTRAST), table)
    assert_frame_equal(OBS, before)
    with pytest.raises(ValueError, match="y must be None"):
        quasi_likelihood_test(adata, "~ condition", CONTRAST, y=COUNTS)


def test_designs_that_answer_nothing_are_refused():
    with pytest.raises(ValueError, match="no degrees of freedom"):
        quasi_likelihood_test(OBS.iloc[[0, 4]], "~ condition", CONTRAST, y=COUNTS.iloc[[0, 4]])
    nested = OBS.assign(site=OBS["condition"])
    with pytest.raises(ValueError, match="do not determine"):
        quasi_likelihood_test(nested, "~ condition + site", CONTRAST, y=COUNTS)
    with pytest.raises(ValueError, match="at least 10 genes"):
        quasi_likelihood_test(OBS, "~ condition", CONTRAST, y=COUNTS.iloc[:, :9])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="give the sums as y="):
        quasi_likelihood_test(OBS, "~ condition", CONTRAST)
    with pytest.raises(TypeError, match="AnnData from"):
        quasi_likelihood_test(COUNTS.to_numpy(), "~ condition", CONTRAST, y=COUNTS)
    with pytest.raises(ValueError, match="another order"):
        quasi_likelihood_test(OBS, "~ condition", CONTRAST, y=COUNTS.iloc[::-1])
    with pytest.raises(ValueError, match="no level 'cases'"):
        quasi_likelihood_test(OBS, "~ condition", ("condition", "cases", "control"), y=COUNTS)
    with pytest.raises(ValueError, match="depth"):
        quasi_likelihood_test(OBS, "~ condition", CONTRAST, y=COUNTS, offset="depth")


def test_the_mean_of_other_levels_is_no_combination():
    with pytest.raises(ValueError, match="mean of several other levels"):
        quasi_likelihood_test(OBS, "~ batch", ("batch", "a", "rest"), y=COUNTS)
    with pytest.raises(TypeError, match="not a dict"):
        quasi_likelihood_test(OBS, "~ batch", {"one": "batch"}, y=COUNTS)
    cells = OBS.drop(columns="log_depth")
    with pytest.raises(ValueError, match=r"no column 'log_depth'.*adata\.pseudobulk"):
        quasi_likelihood_test(cells, "~ condition", CONTRAST, y=COUNTS)
