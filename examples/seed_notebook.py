"""Fit simulated counts, real counts and zero-inflated counts, then simulate from the fit.

Run ``python examples/seed_notebook.py --output output``. The real data are 100 genes of 2087
pancreas cells, ``pancreas_100.h5ad``, looked for in the folder that ``SC_GLM_DATA`` names; without
it, simulated counts of the same shape take their place. Everything runs on one core.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

import sc_glm.adata
from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts

mpl.use("Agg")
import matplotlib.pyplot as plt


def simulate(n_cells, n_genes=20, *, zero_inflated, seed=0):
    """Draw covariates, coefficients and counts: each part has two covariates, no intercept."""
    rng = np.random.default_rng(seed)
    parts = ["mean", "dispersion"] + ["zero_inflation"] * zero_inflated
    covariates, truth = {}, {}
    covariates["mean"], covariates["dispersion"] = (rng.normal(size=(n_cells, 2)) for _ in "md")
    truth["mean"], truth["dispersion"] = (rng.normal(size=(2, n_genes)) for _ in "md")
    mu = np.exp(covariates["mean"] @ truth["mean"])
    r = np.exp(covariates["dispersion"] @ truth["dispersion"])
    counts = rng.negative_binomial(r, r / (r + mu))
    if zero_inflated:
        covariates["zero_inflation"] = rng.normal(size=(n_cells, 2))
        truth["zero_inflation"] = rng.normal(size=(2, n_genes))
        pi = expit(covariates["zero_inflation"] @ truth["zero_inflation"])
        counts = counts * (rng.uniform(size=counts.shape) >= pi)
    names = {part: [f"{part}_dim0", f"{part}_dim1"] for part in parts}
    obs = pd.DataFrame(
        np.hstack([covariates[part] for part in parts]),
        columns=[name for part in parts for name in names[part]],
    )
    formulas = {part: f"~ {' + '.join(names[part])} - 1" for part in parts}
    return obs, counts, formulas, truth


def fit_simulated(regressor, n_cells, *, zero_inflated):
    """Fit a simulation, print truth and estimate side by side, and return both."""
    obs, counts, formulas, truth = simulate(n_cells, zero_inflated=zero_inflated)
    model = make_pipeline(FormulaTransformer(**formulas), regressor)
    start = time.perf_counter()
    model.fit(obs, counts)
    seconds = time.perf_counter() - start
    tables = []
    for part, estimate in model.params_.items():
        error = np.abs(estimate.to_numpy() - truth[part]).mean()
        print(f"  {part:15s} mean absolute error {error:.4f}")
        tables.append(
            pd.DataFrame(
                {
                    "part": part,
                    "feature": np.repeat(estimate.index, estimate.shape[1]),
                    "gene": np.tile(estimate.columns, len(estimate)),
                    "truth": truth[part].ravel(),
                    "estimate": estimate.to_numpy().ravel(),
                }
            )
        )
    total = model[-1].log_likelihood_.sum()
    print(f"  log-likelihood {total:.2f} after {seconds:.2f} s, all converged: ", end="")
    print(bool(model[-1].converged_.all()))
    table = pd.concat(tables, ignore_index=True)
    first = table[table["gene"] == "y0"].drop(columns="gene")
    print(first.round(3).to_string(index=False), "\n")
    return table


def load_cells():
    """Return the pancreas cells where they can be found, else simulated ones."""
    path = Path(os.environ.get("SC_GLM_DATA", "")) / "pancreas_100.h5ad"
    if path.is_file():
        print(f"  pancreas, from {path.name}")
        adata = anndata.read_h5ad(path)
        adata.obs = adata.obs.drop(columns="total_counts")
        return adata
    print("  pancreas_100.h5ad is not in SC_GLM_DATA: simulated counts in its place")
    data = make_counts(2087, 100, mean="~ pseudotime", dispersion="~ pseudotime", random_state=0)
    adata = anndata.AnnData(data.counts.astype(float), obs=data.obs)
    adata.var_names = list(data.params["mean"].columns)
    adata.layers["counts"] = adata.X.copy()
    return adata


def fit_cells(adata):
    """Fit four models to the cells, print their log-likelihoods and return the best NB one."""
    trend = "~ pseudotime"
    models = {
        "NB, dispersion ~ 1": (NegBinRegressor(), {}),
        "NB, dispersion ~ pseudotime": (NegBinRegressor(), {"dispersion": trend}),
        "NB, dispersion ~ .": (NegBinRegressor(), {"dispersion": "~ ."}),
        "ZINB, ~ pseudotime in all parts": (
            ZINBRegressor(),
            {"dispersion": trend, "zero_inflation": trend},
        ),
    }
    fitted = {}
    for name, (regressor, formulas) in models.items():
        model = make_pipeline(FormulaTransformer(trend, **formulas), regressor)
        start = time.perf_counter()
        fitted[name] = sc_glm.adata.fit(adata, model, layer="counts", key_added=name)
        seconds = time.perf_counter() - start
        total = regressor.log_likelihood_.sum()
        print(f"  {name:32s} log-likelihood {total:13.2f} after {seconds:.2f} s")
        for status, count in pd.Series(regressor.status_).value_counts().items():
            print(f"    {count:4d} genes: {status}")
    print()
    return fitted["NB, dispersion ~ ."], fitted["ZINB, ~ pseudotime in all parts"]


def plot(table, adata, model, simulated, path):
    """Draw truth against estimate, one gene over pseudotime, and simulated against observed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for part, rows in table.groupby("part", sort=False):
        axes[0].scatter(rows["truth"], rows["estimate"], s=14, alpha=0.8, label=part)
    low, high = table["truth"].min(), table["truth"].max()
    axes[0].plot([low, high], [low, high], color="0.6", lw=1, zorder=0)
    axes[0].set(title="Coefficients of 20 genes", xlabel="truth", ylabel="estimate")
    axes[0].legend(frameon=False)

    counts = csr_array(adata.layers["counts"])
    gene = int(np.argmax(counts.mean(axis=0)))
    order = np.argsort(adata.obs["pseudotime"].to_numpy())
    pseudotime = adata.obs["pseudotime"].to_numpy()[order]
    observed = counts[:, [gene]].toarray().ravel()[order]
    fitted = model.predict_dist(adata.obs)[order, gene]
    axes[1].scatter(pseudotime, observed, s=3, color="0.4", alpha=0.5, label="cells", zorder=3)
    for tail in (0.05, 0.25):
        axes[1].fill_between(
            pseudotime,
            fitted.ppf(tail),
            fitted.ppf(1 - tail),
            step="mid",
            color="C0",
            alpha=0.2,
            lw=0,
            label=f"{tail:.0%} to {1 - tail:.0%} of the fit",
        )
    axes[1].plot(pseudotime, fitted.mean(), color="C3", label="fitted mean", zorder=4)
    ticks = [0, 1, 10, 100, 1000]
    axes[1].set_yscale("function", functions=(np.log1p, np.expm1))
    axes[1].set_yticks(ticks, ticks)
    axes[1].set_ylim(0, 2 * observed.max())
    axes[1].set(title=str(adata.var_names[gene]), xlabel="pseudotime", ylabel="counts")
    axes[1].legend(frameon=False, loc="upper left", fontsize="small", markerscale=3)

    zeros, zeros_simulated = (1 - (x > 0).mean(axis=0) for x in (counts, csr_array(simulated.X)))
    axes[2].scatter(zeros, zeros_simulated, s=14, alpha=0.8)
    axes[2].plot([0, 1], [0, 1], color="0.6", lw=1, zorder=0)
    axes[2].set(title="Zeros per gene", xlabel="observed", ylabel="simulated from the fit")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    """Run the three sections and write the simulated cells and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)  # the status of each gene is printed

    print("1. Negative binomial, 1000 simulated cells x 20 genes")
    table = fit_simulated(NegBinRegressor(), 1000, zero_inflated=False)
    table.to_csv(output / "simulated_nb.csv", index=False)

    print("2. Negative binomial and zero inflation on 2087 cells x 100 genes")
    adata = load_cells()
    _, zinb = fit_cells(adata)

    print("3. Zero-inflated negative binomial, 50000 simulated cells x 20 genes")
    fit_simulated(ZINBRegressor(), 50_000, zero_inflated=True).to_csv(
        output / "simulated_zinb.csv", index=False
    )

    print("4. Simulate the cells of section 2 from their zero-inflated fit")
    simulated = sc_glm.adata.sample(adata, zinb, random_state=0)
    simulated.write_h5ad(output / "simulated.h5ad")
    plot(table, adata, zinb, simulated, output / "overview.png")
    for name in ("simulated_nb.csv", "simulated_zinb.csv", "simulated.h5ad", "overview.png"):
        print(f"  wrote {output / name}")


if __name__ == "__main__":
    main()
