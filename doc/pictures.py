"""Draw the pictures of the pages on the model and on diagnostics and plots.

``python doc/pictures.py`` writes into ``doc/_static/plots``. For the page on diagnostics it fits
100 genes of the pancreas set, which it looks for in the folder that ``SC_GLM_DATA`` names.
"""

import os
from pathlib import Path

import anndata
import matplotlib as mpl
import numpy as np

mpl.use("Agg")

from matplotlib import pyplot as plt

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.distributions import ZINB
from sc_glm.plots import (
    CovariateDisplay,
    MeanVarianceDisplay,
    QuantileQuantileDisplay,
    RootogramDisplay,
    SimulatedSummariesDisplay,
    VolcanoDisplay,
)

FOLDER = Path(__file__).parent / "_static" / "plots"
GENE = "Pyy"


def draw_parts():
    """Draw what each part of the model does to the probabilities of counts."""
    typical = {"mu": 4.0, "r": 2.0, "pi": 0.0}
    panels = [
        ("mean", "mu", "μ", [2, 4, 8]),
        ("dispersion", "r", "r", [0.5, 2, 50]),
        ("zero_inflation", "pi", "π", [0.0, 0.2, 0.4]),
    ]
    counts = np.arange(16)
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9), sharey=True, layout="constrained")
    for axis, (part, name, symbol, values) in zip(axes, panels, strict=True):
        for value, colour in zip(values, ("#9ecae1", "#4292c6", "#08306b"), strict=True):
            mass = ZINB(**typical | {name: value}).pmf(counts)
            axis.plot(counts, mass, "o-", ms=3.5, lw=1, color=colour, label=f"{symbol} = {value:g}")
        axis.set(title=part, xlabel="count")
        axis.legend(frameon=False)
    axes[0].set(ylabel="probability", ylim=(0, None))
    figure.savefig(FOLDER / "parts.png", dpi=110)


def main():
    """Draw one picture of each kind."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    draw_parts()
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pancreas_100.h5ad")
    spline = FormulaTransformer("~ bs(pseudotime, df=5)", dispersion="~ pseudotime")
    model = AnnDataRegressor(make_pipeline(spline, NegBinRegressor()), layer="counts").fit(adata)
    by_cluster = AnnDataRegressor(
        make_pipeline(FormulaTransformer("~ clusters"), NegBinRegressor()), layer="counts"
    ).fit(adata)
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
        "volcano": VolcanoDisplay.from_estimator(
            by_cluster, adata, constraint="clusters[T.Beta] - clusters[T.Pre-endocrine] = 0"
        ),
    }
    for name, display in displays.items():
        display.figure_.savefig(FOLDER / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
