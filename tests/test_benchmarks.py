"""The benchmark suite in ``doc/benchmarks/suite``: what it compares fits by, and one small run."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from scipy import stats

SUITE = Path(__file__).parents[1] / "doc" / "benchmarks" / "suite"


@pytest.fixture(scope="module")
def likelihood():
    spec = importlib.util.spec_from_file_location("likelihood", SUITE / "likelihood.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_case(*parts):
    rng = np.random.default_rng(0)
    designs = {part: np.c_[np.ones(40), rng.normal(size=40)] for part in parts}
    counts = rng.negative_binomial(0.8, 0.2, size=(40, 3))
    offset = rng.normal(size=40)
    coefficients = {part: rng.normal(scale=0.5, size=(2, 3)) for part in parts}
    case = SimpleNamespace(counts=sp.csr_array(counts), designs=designs, offset=offset)
    predictors = {part: designs[part] @ coefficients[part] for part in parts}
    predictors["mean"] += offset[:, None]
    return case, coefficients, counts, predictors


def test_common_log_likelihood_of_negative_binomial_counts(likelihood):
    case, coefficients, y, predictors = small_case("mean", "dispersion")
    mu, r = np.exp(predictors["mean"]), np.exp(predictors["dispersion"])
    expected = stats.nbinom.logpmf(y, r, r / (r + mu)).sum(axis=0)
    assert_allclose(likelihood.per_gene(case, coefficients), expected, rtol=1e-12)


def test_common_log_likelihood_is_poissons_at_an_infinite_size(likelihood):
    case, coefficients, y, predictors = small_case("mean", "dispersion")
    coefficients["dispersion"] = np.array([[np.inf] * 3, [0.0] * 3])
    case.designs["dispersion"] = np.c_[np.ones(40), np.zeros(40)]
    expected = stats.poisson.logpmf(y, np.exp(predictors["mean"])).sum(axis=0)
    assert_allclose(likelihood.per_gene(case, coefficients), expected, rtol=1e-10)


def test_common_log_likelihood_of_zero_inflated_counts(likelihood):
    case, coefficients, y, predictors = small_case("mean", "dispersion", "zero_inflation")
    mu, r = np.exp(predictors["mean"]), np.exp(predictors["dispersion"])
    pi = 1 / (1 + np.exp(-predictors["zero_inflation"]))
    mass = pi * (y == 0) + (1 - pi) * stats.nbinom.pmf(y, r, r / (r + mu))
    assert_allclose(likelihood.per_gene(case, coefficients), np.log(mass).sum(axis=0), rtol=1e-12)

    marginal = {**coefficients, "marginal_mean": coefficients["mean"]}
    del marginal["mean"]
    mu = np.exp(predictors["mean"]) / (1 - pi)
    mass = pi * (y == 0) + (1 - pi) * stats.nbinom.pmf(y, r, r / (r + mu))
    assert_allclose(likelihood.per_gene(case, marginal), np.log(mass).sum(axis=0), rtol=1e-12)


def test_one_case_with_one_tool(tmp_path):
    options = ["bench_nb", "--tools", "sc_glm", "--repeats", "1", "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(SUITE), *options], check=True, capture_output=True)  # noqa: S603 - our own
    (fit,) = json.loads((tmp_path / "bench_nb.json").read_text())["fits"]
    assert fit["log_likelihood"] == pytest.approx(-350817.4423, abs=1e-3)
    assert 0 <= fit["worst_gene_below"] < 1e-4
    assert (fit["failed_genes"], fit["unconverged_genes"]) == (0, 0)
    assert '"sc_glm"' in (tmp_path / "tables.txt").read_text()
    assert (tmp_path / "fits.png").read_bytes().startswith(b"\x89PNG")


def test_the_study_of_the_likelihood_kernel_runs():
    """It measures private functions of the package, so that it breaks when their names change."""
    code = "import studies; print(studies.kernel(1, studies.ZINB, 3, n_cells=200, n_genes=4))"
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], cwd=SUITE, capture_output=True, text=True, check=True
    )
    assert "ns per entry" in done.stdout


def test_the_comparison_of_what_follows_a_fit_runs():
    """It takes the package itself as the other checkout, whose results are the same."""
    options = [str(SUITE.parents[2]), "--simulated", "--repeats", "1", "--genes", "4"]
    script = str(SUITE.parent / "diagnostics_speed.py")
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, script, *options], capture_output=True, text=True, check=True
    )
    this, other, *table = done.stdout.splitlines()
    assert this.split(": ")[1] == other.split(": ")[1]
    assert len(table) == 2 + 6
    assert all(row.endswith(" 0.0e+00 |") for row in table[2:])


def test_the_timing_of_all_pairs_runs():
    options = ["--simulated", "--repeats", "1", "--genes", "20", "--methods", "score"]
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, str(SUITE.parent / "all_pairs.py"), *options],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, *times = done.stdout.splitlines()
    assert first == "20 genes, 400 cells, 6 pairs, one thread"
    assert "'wald': " in second
    assert "'lr': " in second
    assert [line.split(":")[0] for line in times] == [
        "fit",
        "all pairs, method='auto'",
        "all pairs, method='score'",
    ]
