"""The calibration in ``doc/calibration``: few genes of it, and one run of all."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

FOLDER = Path(__file__).parents[1] / "doc" / "calibration"


@pytest.fixture(scope="module", autouse=True)
def importable():
    """Its modules are scripts beside each other, of no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield
    for name, module in list(sys.modules.items()):
        if Path(getattr(module, "__file__", None) or "/").parent == FOLDER:
            del sys.modules[name]


def study(name):
    return importlib.import_module(name)


def rate(p_value, level=0.05):
    return float((p_value.dropna() < level).mean())


def near(share, n, *, errors=3.0):
    """Compare with a share that binomial draws would have."""
    return pytest.approx(share, abs=errors * np.sqrt(share * (1 - share) / n))


@pytest.mark.parametrize("name", ["continuous", "two_groups"])
def test_p_values_of_true_hypotheses_are_uniform(name):
    data, tests = getattr(study("nulls"), name)(3000)
    known = data.positive > 100
    n = known.sum()
    assert n > 1400
    assert len(tests) == 3
    for test in tests.values():
        p = test["p_value"][known]
        assert p.notna().all()
        assert stats.kstest(p, "uniform").pvalue > 0.001
        assert rate(p) == near(0.05, n, errors=3.5)
        assert rate(p, 0.01) == near(0.01, n, errors=3.5)


def test_likelihood_ratio_of_a_zero_inflation_that_is_none():
    nulls = study("nulls")
    data, tests = nulls.zero_inflation(2000)
    known = data.positive > 100
    test = tests["likelihood ratio"][known]
    assert 0.4 < (test["statistic"] < nulls.NOTHING).mean() < 0.6
    for level in (0.05, 0.2):
        assert rate(test["p_value"], level) == near(level, known.sum())


@pytest.mark.parametrize(("method", "n_genes"), [("wald", 3000), ("profile", 600)])
def test_intervals_hold_the_truth(method, n_genes):
    data, holds = study("intervals").find(n_genes, method)
    for name in ("Intercept", "x"):
        assert holds[name].notna().all()
        assert holds[name].mean() == near(0.95, n_genes, errors=3.5)
    known = data.positive > 100
    assert holds["log size"][known].mean() == near(0.95, known.sum(), errors=3.5)
    scarce = data.positive < 50
    assert holds["log size"][scarce].isna().any() == (method == "wald")
    assert (holds["log size"][scarce].mean() > 0.93) == (method == "profile")


@pytest.mark.parametrize("design", ["4 v 4", "10 v 10"])
def test_cells_of_a_donor_are_no_replicates(design):
    n_genes = 800
    tests = study("donors").nulls(design, n_genes)
    p = {which: test["p_value"] for which, test in tests.items()}
    for kind in ("observed", "robust"):
        assert rate(p["condition", kind]) > 0.25
    for tested in ("age", "both"):
        assert rate(p[tested, "observed"]) > 0.25
    for tested in ("condition", "cell_type", "both"):
        assert p[tested, "cluster"].isna().mean() < 0.03
        assert rate(p[tested, "cluster"]) == near(0.05, n_genes)
    assert rate(p["age", "cluster"]) < 0.07


def test_weights_of_donors_with_unequal_numbers_of_cells():
    n_genes = 800
    tests = study("donors").nulls("6 v 6, 5 to 220 cells", n_genes)
    rates = {which: rate(test["p_value"]) for which, test in tests.items()}
    assert rates["condition", "cluster"] > 0.07
    assert rates["condition", "weighted"] == near(0.05, n_genes)
    assert rates["cell_type", "weighted"] == near(0.05, n_genes)


def test_intervals_of_donors():
    n_genes = 800
    donors, judging = study("donors"), study("judging")
    truth, found = donors.find("6 v 6", n_genes)
    holds = {
        which: judging.covered(intervals, truth[which[0]]).mean()
        for which, intervals in found.items()
    }
    for feature in ("condition", "cell_type"):
        assert holds[feature, "cluster"] == near(0.95, n_genes)
    assert holds["condition", "observed"] < 0.7


@pytest.mark.parametrize("design", ["3 v 3", "2 v 10, 20 to 600 cells", "10 v 10"])
def test_sums_of_donors(design):
    sums = study("sums")
    data, p_values = sums.find(design, 4000, with_r=False)
    p, null = p_values["quasi_likelihood_test"], data.effects == 0
    assert p.notna().all()
    n = null.sum()
    for low, level, high in ((0.04, 0.05, 0.06), (0.007, 0.01, 0.014), (0.0005, 0.001, 0.002)):
        error = 3.5 * np.sqrt(level * (1 - level) / n)
        assert low - error < rate(p[null], level) < high + error
    found = sums.called(p)
    assert found.sum() > 15
    assert null[found].mean() < 0.1 + 3 * np.sqrt(0.1 * 0.9 / found.sum())


@pytest.mark.parametrize("inflated", [False, True])
def test_leverages_of_the_expected_information_leave_no_gene_without_a_p_value(inflated):
    n_genes = 500
    tests = study("clusters").compare("6 v 6", n_genes, 0.4, inflated=inflated)
    p = {which: test["p_value"] for which, test in tests.items()}
    for feature in ("condition", "cell_type"):
        assert p[feature, "expected"].isna().mean() < 0.01
        assert rate(p[feature, "expected"]) == near(0.05, n_genes, errors=3.5)
        missing = p[feature, "observed"].isna().mean()
        assert missing > (0.1 if inflated else 0.0)


def test_robust_where_the_model_is_wrong():
    n_genes = 1000
    tests = study("wrong_models").nulls("ZINB, in one cell of five", n_genes)
    assert rate(tests["group", "observed"]["p_value"]) > 0.1
    assert rate(tests["group", "robust"]["p_value"]) < 0.08


def test_counts_of_new_cells_after_few_cells():
    n_genes = 400
    held = study("predictions").find(20, n_genes)
    average, plug_in = (float(np.nanmean(held[name])) for name in ("average", "plug-in"))
    assert all(np.isnan(values).mean() < 0.01 for values in held.values())
    assert average == near(0.95, n_genes)
    assert plug_in < 0.935
    assert average > plug_in + 0.01
    many = study("predictions").find(200, n_genes)
    assert np.nanmean(many["mean"]) == near(0.95, n_genes)
    assert np.nanmean(many["average"]) == near(0.95, n_genes)


def test_a_whole_run(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("calibration", FOLDER / "__main__.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    donors = study("donors")
    few = {name: donors.DESIGNS[name] for name in ("4 v 4", "6 v 6, 5 to 220 cells")}
    monkeypatch.setattr(donors, "DESIGNS", few)
    monkeypatch.setattr(donors, "WITH_INTERVALS", ["4 v 4"])
    monkeypatch.setattr(study("sums"), "DESIGNS", {"4 v 4": (4, 4, False)})
    monkeypatch.setattr(study("sums"), "by_r", lambda _: None)
    monkeypatch.setattr(study("sums"), "BESIDE_CLUSTERS", ["4 v 4"])
    clusters = study("clusters")
    monkeypatch.setattr(clusters, "DESIGNS", {"6 v 6": clusters.DESIGNS["6 v 6"]})
    monkeypatch.setattr(clusters, "DIFFER", [0.4])
    monkeypatch.setattr(clusters, "OF_ZINB", ["6 v 6"])
    monkeypatch.setattr(run, "OF_CLUSTERS", 20)
    monkeypatch.setattr(run, "N_GENES", 60)
    monkeypatch.setattr(run, "OF_DONORS", 20)
    monkeypatch.setattr(run, "WITH_PROFILES", 20)
    monkeypatch.setattr(run, "OF_NEW_CELLS", 20)
    monkeypatch.setattr(sys, "argv", ["calibration", "--output", str(tmp_path)])
    run.main()
    for name in run.STUDIES:
        assert "(" in (tmp_path / f"{name}.txt").read_text()
    for name in ("nulls", "donors"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
