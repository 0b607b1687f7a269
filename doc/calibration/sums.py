"""Sums of the cells of donors whose standard deviations differ by gene, tested between conditions.

If R has the package glmGamPoi, its test of the same sums stands beside ours.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import donors
import numpy as np
import pandas as pd
from draws import SIZES, log_uniform, pseudobulk
from judging import fit, rejected, share, wald
from scipy import stats

from sc_glm.inference import quasi_likelihood_test

HERE = Path(__file__).parent
MEANS = (0.02, 10.0)  # counts of a cell
DONOR_SD = (0.1, 0.6)  # of log means, by gene
EFFECT_SD = 0.7  # of the condition's effects on log means
TRUE = 0.15  # share of genes that have an effect
EVEN = 150  # cells of a donor
UNEVEN = (20, 600)
# Depths of cells are those of a log-normal distribution, in few classes: sums of cells that are
# alike can be drawn as one number.
DEPTHS = np.exp(0.3 * stats.norm.ppf((np.arange(5) + 0.5) / 5))
DESIGNS = {
    f"{treated} v {others}{cells}": (treated, others, cells != "")
    for treated, others in ((3, 3), (4, 4), (6, 6), (2, 10), (10, 10))
    for cells in ("", f", {UNEVEN[0]} to {UNEVEN[1]} cells")
}
BESIDE_CLUSTERS = ("3 v 3", "4 v 4", "6 v 6")
OF_CELLS = 1500  # genes whose cells are drawn one by one
NOT_INSTALLED = 3  # exit status of the script in R


class Sums(NamedTuple):
    """Sums (donors x genes) with the covariates of donors and the effects of the condition."""

    obs: pd.DataFrame
    counts: np.ndarray
    effects: np.ndarray


def simulate(design, n_null, seed=8):
    """Draw sums of genes without an effect, as many as are asked for, and of others with one."""
    rng = np.random.default_rng(seed)
    treated, others, is_uneven = DESIGNS[design]
    n = treated + others
    n_genes = round(n_null / (1 - TRUE))
    n_cells = np.full(n, EVEN)
    if is_uneven:
        n_cells = rng.permutation(np.geomspace(*UNEVEN, n).round().astype(int))
    mean, size = log_uniform(rng, MEANS, n_genes), log_uniform(rng, SIZES, n_genes)
    effects = np.where(np.arange(n_genes) < n_null, 0.0, rng.normal(0, EFFECT_SD, n_genes))
    condition = (np.arange(n) < treated).astype(float)
    log_fold = rng.normal(size=(n, n_genes)) * rng.uniform(*DONOR_SD, n_genes)
    mu = mean * np.exp(log_fold + condition[:, None] * effects)
    in_class = np.array([rng.multinomial(cells, np.full(5, 0.2)) for cells in n_cells])
    counts = np.zeros((n, n_genes))
    for number, depth in zip(in_class.T, DEPTHS, strict=True):
        r = np.maximum(number, 1)[:, None] * size
        drawn = rng.negative_binomial(r, size / (size + depth * mu))
        counts += np.where(number[:, None] > 0, drawn, 0)
    obs = pd.DataFrame({"condition": condition, "log_depth": np.log(in_class @ DEPTHS)})
    detected = counts.any(axis=0)
    return Sums(obs, counts[:, detected], effects[detected])


def by_r(sums):
    """Return the p-values of glmGamPoi; None if it is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("counts.csv", "obs.csv", "p_values.csv")]
        np.savetxt(paths[0], sums.counts.T, fmt="%d", delimiter=",")
        sums.obs.to_csv(paths[1], index=False)
        script = ["Rscript", HERE / "sums.R", *paths]
        try:
            done = subprocess.run(script, check=False, capture_output=True, text=True)  # noqa: S603
        except FileNotFoundError:
            return None
        if done.returncode == NOT_INSTALLED:
            return None
        if done.returncode:
            raise RuntimeError(done.stderr)
        return pd.read_csv(paths[2])["p_value"]


def find(design, n_null, *, with_r=True):
    """Return the sums, and by test the p-values of their genes."""
    sums = simulate(design, n_null)
    test = quasi_likelihood_test(sums.obs, "~ condition", "condition", y=sums.counts)
    p_values = {"quasi_likelihood_test": test["p_value"].reset_index(drop=True)}
    of_r = by_r(sums) if with_r else None
    if of_r is not None:
        p_values["glmGamPoi"] = of_r
    return sums, p_values


def called(p_value):
    """Return which genes are called at a false discovery rate of 5 %."""
    return stats.false_discovery_control(p_value) < 0.05


def beside_clusters(design, n_genes):
    """Return shares of genes that are called by the test of sums and by the cluster-robust one."""
    data, _ = donors.simulate(design, n_genes, effects=EFFECT_SD)
    of_cells = wald(fit(data, donors.MODEL), data, "condition", "cluster")
    sums = pseudobulk(data)
    of_sums = quasi_likelihood_test(sums.obs, "~ condition", "condition", y=sums.counts)
    tests = {"cluster": of_cells, "quasi_likelihood_test": of_sums}
    return {name: share(test["p_adjusted"] < 0.05) for name, test in tests.items()}


def tables(n_null):
    """Write out how often true hypotheses are rejected, and what is called."""
    nulls, calls = [], []
    for design in DESIGNS:
        sums, p_values = find(design, n_null)
        null = sums.effects == 0
        for name, p in p_values.items():
            of = {"donors": design, "test": name}
            levels = {f"below {level:g}": rejected(p[null], level) for level in (0.05, 0.01, 0.001)}
            nulls.append({**of, **levels})
            chosen = called(p)
            calls.append(
                {
                    **of,
                    "called": int(chosen.sum()),
                    "of these false": share(null[chosen]),
                    "true ones called": share(chosen[~null]),
                    "true ones below 0.05": rejected(p[~null]),
                }
            )
    yield f"A condition without effect: p-values of {n_null} genes"
    yield pd.DataFrame(nulls)
    yield f"Called at FDR 5 %, where {100 * TRUE:.0f} % of the genes have effects of {EFFECT_SD}"
    yield pd.DataFrame(calls)
    n_genes = min(n_null, OF_CELLS)
    yield f"Called at FDR 5 %, of {n_genes} genes that all have an effect, 50 cells a donor"
    yield pd.DataFrame(
        {"donors": design, **beside_clusters(design, n_genes)} for design in BESIDE_CLUSTERS
    )
