"""Run the first examples of the gallery and keep their results.

``python examples/demo.py --output output`` writes coefficients with their true values,
log-likelihoods, all pictures, and simulated cells as an .h5ad. The real cells are in
``pancreas_100.h5ad`` and ``pbmc3k_raw.h5ad``, in the folder that ``SC_GLM_DATA`` names. Without
these files, simulated cells replace them. Everything runs on one core.
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
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning

import sc_glm.datasets
from sc_glm import FormulaTransformer, NegBinRegressor, inference, make_pipeline
from sc_glm import adata as scg
from sc_glm.plots import CovariateDisplay, VolcanoDisplay, style

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
    obs = data.obs.rename(columns={"size_factor": "sizeFactor"})
    adata = AnnData(data.counts.astype(float), obs=obs)
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


def blood_cells():
    """Return blood cells with their published types, or simulated ones where there are no data."""
    if (Path(os.environ.get("SC_GLM_DATA", "")) / "pbmc3k_raw.h5ad").is_file():
        adata = sc_glm.datasets.fetch_pbmc3k()
        if "seurat_annotations" in adata.obs:
            adata.obs["cell_type"] = adata.obs["seurat_annotations"]
            adata.obs["size_factor"] = adata.obs["total_counts"]
            return adata[adata.obs["cell_type"].notna(), adata.X.getnnz(axis=0) >= 10].copy()
    data = sc_glm.datasets.make_counts(2638, 500, preset="pbmc", random_state=0)
    return AnnData(
        csr_matrix(data.counts), obs=data.obs, var=pd.DataFrame(index=data.counts.columns)
    )


def draw_volcano(ax):
    """Draw which genes differ between two kinds of monocytes; some are in one kind alone."""
    adata = blood_cells()
    formula = FormulaTransformer("~ cell_type", offset="np.log(size_factor)")
    model = make_pipeline(formula, NegBinRegressor())
    with warnings.catch_warnings():
        # Genes without counts in some cell type are separated. The picture shows them.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = scg.fit(adata, model)
    contrast = ("cell_type", "CD14+ Mono", "FCGR3A+ Mono")
    named = [gene for gene in ("CLEC4E", "RNASE2", "LYPD2") if gene in adata.var_names]
    VolcanoDisplay.from_estimator(model, adata, None, contrast, genes=named, n_labels=8, ax=ax)


def draw_curve(adata, ax):
    """Draw a gene that is switched on for a while, and the spline that follows it."""
    formula = FormulaTransformer("~ bs(pseudotime, df=5)", dispersion="~ pseudotime")
    counts = adata.to_df("counts")
    gene = "Neurog3" if "Neurog3" in counts else counts.mean().idxmax()
    counts = counts[[gene]]
    model = make_pipeline(formula, NegBinRegressor()).fit(adata.obs, counts)
    CovariateDisplay.from_estimator(
        model, adata.obs, counts, gene=gene, covariate="pseudotime", ax=ax
    )


def draw_donors(ax):
    """Draw p-values of genes that do not differ between conditions, by cells and by donors."""
    data = sc_glm.datasets.make_counts(6000, 400, preset="donors", random_state=0)
    model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    model.fit(data.obs, data.counts)
    null = data.params["mean"].loc["condition[T.case]"] == 0
    contrast = ("condition", "case", "control")
    by_donors = {"kind": "cluster", "groups": "donor"}
    for label, options in {"by cells": {}, "by donors": by_donors}.items():
        tests = inference.differential_expression(model, data.obs, data.counts, contrast, **options)
        p_values = tests.loc[null, "p_value"]
        share = (p_values < 0.05).mean()
        ax.hist(
            p_values,
            bins=20,
            range=(0, 1),
            histtype="step",
            linewidth=1.8,
            label=f"{label}: {share:.0%} below 0.05",
        )
    ax.axhline(null.sum() / 20, color="0.5", linestyle="--", linewidth=1, label="expected")
    ax.set(xlabel="p-value", ylabel="genes", title="Genes without effect, 6 v 6 donors")
    ax.legend()


def draw_overview(adata, path):
    """Draw a volcano plot, a gene over pseudotime, and tests by cells and by donors."""
    with plt.style.context(style()):
        figure, axes = plt.subplots(1, 3, figsize=(11.2, 3.7), width_ratios=(1.2, 1, 1))
        draw_volcano(axes[0])
        draw_curve(adata, axes[1])
        draw_donors(axes[2])
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
    draw_overview(cells["adata"], output / "overview.png")
    print("Written:", *sorted(path.name for path in output.iterdir()), sep="\n  ")


if __name__ == "__main__":
    main()
