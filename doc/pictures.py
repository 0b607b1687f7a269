"""Draw the pictures of the pages on the model and on diagnostics and plots.

``python doc/pictures.py`` writes into ``doc/_static/plots``. It fits 100 or 1000 genes of the
pancreas set, and the blood cells for fold changes. It looks for both in the folder that
``SC_GLM_DATA`` names.
"""

import os
import warnings
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import fetch_pbmc3k
from sc_glm.distributions import ZINB
from sc_glm.inference import differential_expression
from sc_glm.plots import (
    CovariateDisplay,
    CurveHeatmapDisplay,
    MeanFoldChangeDisplay,
    MeanVarianceDisplay,
    PValueDisplay,
    QuantileQuantileDisplay,
    RootogramDisplay,
    SimulatedSummariesDisplay,
    VolcanoDisplay,
    style,
)

FOLDER = Path(__file__).parent / "_static" / "plots"
GENE = "Pyy"
CONTRAST = "clusters", "Beta", "Pre-endocrine"
MONOCYTES = "seurat_annotations", "CD14+ Mono", "FCGR3A+ Mono"


def draw_parts():
    """Draw what each part of the model does to the probabilities of counts."""
    typical = {"mu": 4.0, "r": 2.0, "pi": 0.0}
    panels = [
        ("mean", "mu", "μ", [2, 4, 8]),
        ("dispersion", "r", "r", [0.5, 2, 50]),
        ("zero_inflation", "pi", "π", [0.0, 0.2, 0.4]),
    ]
    counts = np.arange(16)
    with plt.style.context(style()):
        figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True)
        for axis, (part, name, symbol, values) in zip(axes, panels, strict=True):
            for value, colour in zip(values, ("#9ecae1", "#4292c6", "#08306b"), strict=True):
                mass = ZINB(**typical | {name: value}).pmf(counts)
                axis.plot(
                    counts, mass, "o-", ms=3.5, lw=1, color=colour, label=f"{symbol} = {value:g}"
                )
            axis.set(title=part, xlabel="count")
            axis.legend()
        axes[0].set(ylabel="probability", ylim=(0, None))
    figure.savefig(FOLDER / "parts.png", dpi=110)


def draw_fold_changes():
    """Draw which genes differ between two kinds of monocytes, some of them in one kind alone."""
    adata = fetch_pbmc3k()
    adata = adata[adata.obs[MONOCYTES[0]].notna(), adata.X.getnnz(axis=0) >= 10].copy()
    formula = FormulaTransformer(f"~ {MONOCYTES[0]}", offset="np.log(total_counts)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # separated genes are in the pictures
        model = scg.fit(adata, make_pipeline(formula, NegBinRegressor()))
    table = differential_expression(model, adata, contrast=MONOCYTES)
    _, level, reference = MONOCYTES
    options = {"sides": (reference, level), "genes": ["CLEC4E", "LYPD2"], "n_labels": 8}
    return {
        "volcano": VolcanoDisplay.from_table(table, **options),
        "fold_changes": MeanFoldChangeDisplay.from_table(table, **options),
    }


def main():
    """Draw one picture of each kind."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    draw_parts()
    adata, more_genes = (
        anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / f"pancreas_{n_genes}.h5ad")
        for n_genes in (100, 1000)
    )
    spline = FormulaTransformer(
        "~ bs(pseudotime, df=5)", dispersion="~ pseudotime", offset="np.log(sizeFactor)"
    )
    model = AnnDataRegressor(make_pipeline(spline, NegBinRegressor()), layer="counts").fit(adata)
    clusters = FormulaTransformer("~ clusters", offset="np.log(sizeFactor)")
    by_cluster = AnnDataRegressor(make_pipeline(clusters, NegBinRegressor()), layer="counts")
    few_cells = more_genes[::6].copy()  # in which fewer differences are significant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        by_cluster.fit(few_cells)
    displays = {
        "covariate": CovariateDisplay.from_estimator(
            model, adata, gene=GENE, covariate="pseudotime"
        ),
        "rootogram": RootogramDisplay.from_estimator(model, adata, genes=GENE),
        "quantiles": QuantileQuantileDisplay.from_estimator(
            model, adata, genes=GENE, random_state=0
        ),
        "moments": MeanVarianceDisplay.from_estimator(model, adata),
        "summaries": SimulatedSummariesDisplay.from_estimator(model, adata, random_state=0),
        "curve_heatmap": CurveHeatmapDisplay.from_estimator(
            model, adata, covariate="pseudotime", genes=list(adata.var_names[:30])
        ),
        "p_values": PValueDisplay.from_estimator(by_cluster, few_cells, None, CONTRAST),
        **draw_fold_changes(),
    }
    for name, display in displays.items():
        display.figure_.savefig(FOLDER / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
