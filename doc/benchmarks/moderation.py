"""Compare moderated dispersions with those of the largest likelihood, where the truth is known.

``python doc/benchmarks/moderation.py [FILE.png]`` simulates 1000 genes (250 for a zero-inflated
model) of log-normal means, with two covariates, and prints root mean squared errors before and
after moderation, of

- the square root of the overdispersion ``1 / r``: on this scale, which is that of the coefficient
  of variation between cells, a gene at the Poisson boundary has the estimate zero;
- its logarithm, of those genes alone whose estimate of the largest likelihood is finite, for both.

Genes are told apart by whether their mean is above the median one. Worlds are: a *trend*, from
which log sizes are 0.4 away in the standard deviation; *none*, where genes have the same
overdispersion but for that; *outliers*, where in addition to the trend one gene in twenty is ten
times as overdispersed; and *two kinds* of genes of equal means, one four times above and one four
times below the trend, of which no trend knows. Then it prints processor times of fits and
moderations. With a file, fits of the pancreas and PBMC sets are drawn into it; the environment
variable ``SC_GLM_DATA`` names their folder. It takes about a minute.
"""

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.moderation import moderate_dispersion

N_GENES = 1000
WORLDS = ("trend", "none", "outliers", "two kinds")


def simulate(world, n_cells, rng, *, n_genes=N_GENES, inflation=0.0):
    """Covariates, counts and true log sizes."""
    X = rng.normal(size=(n_cells, 2))
    log_mean = rng.normal(0, 1.2, size=n_genes)
    log_size = -np.log(0.2 + 0.4 * np.exp(-log_mean))
    if world == "none":
        log_size[:] = 0.5
    log_size += rng.normal(scale=0.4, size=n_genes)
    if world == "outliers":
        log_size[rng.uniform(size=n_genes) < 0.05] -= np.log(10)
    if world == "two kinds":
        log_size += np.log(4) * rng.choice([-1, 1], size=n_genes)
    mu, r = np.exp(log_mean + X @ rng.normal(scale=0.3, size=(2, n_genes))), np.exp(log_size)
    y = rng.negative_binomial(r, r / (r + mu)) * (rng.uniform(size=mu.shape) >= inflation)
    seen = y.any(axis=0)
    return X, y[:, seen], log_size[seen]


def errors(table, log_size):
    """One row of the table: errors of genes of small and of large means."""
    truth = np.exp(-log_size)
    high = table["mean"].to_numpy() > table["mean"].median()
    finite = (table["overdispersion"] > 1e-6).to_numpy()
    row = [f"{np.mean(~finite):.2f}"]
    scales = ((np.sqrt, np.ones_like(finite)), (np.log, finite))
    for scale, counted in scales:
        for own in (~high, high):
            genes = own & counted
            pair = [
                np.sqrt(np.mean((scale(table[name][genes]) - scale(truth[genes])) ** 2))
                for name in ("overdispersion", "moderated")
            ]
            row.append(" -> ".join(f"{error:.3f}" for error in pair))
    return row


def print_errors():
    """Print one table for each family."""
    heads = ["root, low means", "root, high means", "log, low means", "log, high means"]
    heads = ["model", "world", "cells", "at the boundary", *heads, "spread"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    cases = [(NegBinRegressor, 0.0, world) for world in WORLDS] + [(ZINBRegressor, 0.2, "trend")]
    for family, inflation, world in cases:
        for n_cells in (50, 100, 200, 1000):
            rng = np.random.default_rng(n_cells)
            n_genes = N_GENES if family is NegBinRegressor else N_GENES // 4
            X, y, log_size = simulate(world, n_cells, rng, n_genes=n_genes, inflation=inflation)
            model = family().fit(X, y)
            result = moderate_dispersion(model, X, y)
            row = [family.__name__, world, str(n_cells), *errors(result.table, log_size)]
            print("| " + " | ".join([*row, f"{result.trend.spread:.2f}"]) + " |", flush=True)


def print_times():
    """Print processor seconds of fits and moderations, each the best of three."""
    print("\n| model | genes | cells | fit, s | moderation, s |\n|---|---|---|---|---|")
    for family, n_genes, n_cells in (
        (NegBinRegressor, 100, 2000),
        (NegBinRegressor, 2000, 200),
        (ZINBRegressor, 250, 200),
    ):
        rng = np.random.default_rng(0)
        X, y, _ = simulate("trend", n_cells, rng, n_genes=n_genes)
        model = family()
        jobs = (lambda: model.fit(X, y), lambda: moderate_dispersion(model, X, y))  # noqa: B023
        best = [min(_seconds(job) for _ in range(3)) for job in jobs]
        seconds = " | ".join(f"{second:.2f}" for second in best)
        print(f"| {family.__name__} | {n_genes} | {n_cells} | {seconds} |", flush=True)


def _seconds(job):
    begin = time.process_time()
    job()
    return time.process_time() - begin


def draw(path):
    """Draw dispersions of real genes over their means, before and after."""
    import anndata  # noqa: PLC0415 - only here
    import matplotlib.pyplot as plt  # noqa: PLC0415

    folder = Path(os.environ["SC_GLM_DATA"])
    pancreas = anndata.read_h5ad(folder / "pancreas_100.h5ad")
    blood = anndata.read_h5ad(folder / "pbmc3k_raw.h5ad")
    blood = blood[:, np.asarray((blood.X > 0).sum(axis=0)).ravel() >= 10]
    some = np.random.default_rng(0).choice(len(pancreas), 200, replace=False)
    model = make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    by_depth = make_pipeline(
        FormulaTransformer("~ 1", offset="np.log(total_counts)"), NegBinRegressor()
    )
    cases = {
        "pancreas, 200 cells": (model, pancreas.obs.iloc[some], pancreas.layers["counts"][some]),
        "PBMC": (by_depth, blood.obs, blood.X),
    }
    _, axes = plt.subplots(1, len(cases), figsize=(9, 4), layout="constrained")
    for ax, (title, (case, X, y)) in zip(axes, cases.items(), strict=True):
        result = moderate_dispersion(case.fit(X, y), X, y)
        table = result.table.sort_values("mean")
        few = len(table) < 1000
        size = 4 if few else 1.5
        fitted, moderated = (table[x].clip(1e-3) for x in ("overdispersion", "moderated"))
        if few:
            ax.vlines(table["mean"], fitted, moderated, color="0.8", linewidth=0.6, zorder=0)
        ax.plot(table["mean"], fitted, "o", ms=size, mec="0.5", mfc="none", mew=0.5, label="fitted")
        ax.plot(table["mean"], moderated, "o", ms=size, c="#3f90da", mew=0, label="moderated")
        ax.plot(table["mean"], table["trend"], c="#bd1f01", label="trend")
        ax.set(title=title, xlabel="mean count", xscale="log", yscale="log")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("overdispersion 1 / r (up to 0.001 at the bottom)")
    axes[1].legend(frameon=False)
    plt.savefig(path, dpi=110)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        print_errors()
        print_times()
        if len(sys.argv) > 1:
            draw(sys.argv[1])
