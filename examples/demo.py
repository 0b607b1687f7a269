"""Run the first examples of the gallery and keep their results.

``python examples/demo.py --output output`` writes coefficients with their true values,
log-likelihoods, all pictures, and simulated cells as an .h5ad. The real cells are in
``pancreas_100.h5ad``, in the folder that ``SC_GLM_DATA`` names. Without this file, simulated cells
replace them. Everything runs on one core.
"""

import argparse
import os
import runpy
import warnings
from pathlib import Path
from unittest import mock

import matplotlib as mpl
import pandas as pd
from anndata import AnnData
from sklearn.exceptions import ConvergenceWarning

import sc_glm.datasets
from sc_glm.plots import CovariateDisplay

mpl.use("Agg")
import matplotlib.pyplot as plt


def run(name, output):
    """Run an example, save its pictures, and return its variables."""
    print(f"{name}.py")
    variables = runpy.run_path(str(Path(__file__).with_name(f"{name}.py")))
    for number in plt.get_fignums():
        plt.figure(number).savefig(output / f"{name}_{number}.png", dpi=150)
    plt.close("all")
    return variables


def cells_like_the_pancreas():
    """Simulate as many cells and genes as the real data have."""
    data = sc_glm.datasets.make_counts(2087, 100, preset="pancreas", random_state=0)
    adata = AnnData(data.counts.astype(float), obs=data.obs)
    adata.obs["total_counts"] = adata.X.sum(axis=1)
    adata.layers["counts"] = adata.X
    return adata


def run_real_cells(name, output):
    """Run an example with the pancreas cells, or with simulated ones in their place."""
    if (Path(os.environ.get("SC_GLM_DATA", "")) / "pancreas_100.h5ad").is_file():
        return run(name, output)
    print("SC_GLM_DATA has no pancreas_100.h5ad: simulated cells take their place.")
    with (
        mock.patch("sc_glm.datasets.fetch_pancreas", cells_like_the_pancreas),
        warnings.catch_warnings(),
    ):
        # The example expects no warning for the real cells. Some genes of simulated cells may be
        # separated.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return run(name, output)


def draw_overview(nb, cells, path):
    """Draw coefficients against their true values, a gene over pseudotime, and simulated zeros."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for part, rows in nb["table"].groupby("part", sort=False):
        axes[0].plot(rows["truth"], rows["estimate"], "o", markersize=4, alpha=0.8, label=part)
    axes[0].set(xlabel="truth", ylabel="estimate")
    axes[0].set_title("Coefficients of 20 genes", loc="left")
    axes[0].legend(frameon=False)
    CovariateDisplay.from_estimator(
        cells["inflated"],
        cells["adata"].obs,
        cells["counts"],
        gene=cells["gene"],
        covariate="pseudotime",
        ax=axes[1],
    )
    summaries = cells["summaries"]
    observed, simulated = summaries.observed["zeros"], summaries.simulated["zeros"]
    axes[2].plot(observed, simulated, "o", markersize=4, alpha=0.8)
    axes[2].set(xlabel="observed", ylabel="simulated from the fit")
    axes[2].set_title("Fraction of zeros per gene", loc="left")
    for axis in (axes[0], axes[2]):
        axis.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main():
    """Run three examples, write their tables and pictures, and print their log-likelihoods."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    nb = run("plot_01_simulated_counts", output)
    cells = run_real_cells("plot_02_real_cells", output)
    zinb = run("plot_03_zero_inflation_simulated", output)

    likelihoods = pd.concat(
        {
            "simulated, 1000 x 20": pd.Series({"NB": nb["model"][-1].log_likelihood_.sum()}),
            "simulated, 50000 x 20": zinb["likelihoods"],
            "cells, 2087 x 100": cells["likelihoods"]["log-likelihood"],
        },
        names=["counts", "model"],
    ).rename("log_likelihood")
    print(f"\nLog-likelihoods, sums over genes\n{likelihoods.round(2).to_string()}\n")

    nb["table"].to_csv(output / "simulated_nb.csv", index=False)
    zinb["table"].to_csv(output / "simulated_zinb.csv", index=False)
    likelihoods.to_csv(output / "log_likelihoods.csv")
    cells["simulated"].write_h5ad(output / "simulated.h5ad")
    draw_overview(nb, cells, output / "overview.png")
    print("Written:", *sorted(path.name for path in output.iterdir()), sep="\n  ")


if __name__ == "__main__":
    main()
