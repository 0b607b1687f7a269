"""Draw the pictures of the page on diagnostics and plots.

``python doc/pictures.py`` fits 100 genes of the pancreas set, which it looks for in the folder that
``SC_GLM_DATA`` names, and writes into ``doc/_static/plots``.
"""

import os
from pathlib import Path

import anndata
import matplotlib as mpl

mpl.use("Agg")

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
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


def main():
    """Draw one picture of each kind."""
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
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, display in displays.items():
        display.figure_.savefig(FOLDER / f"{name}.png", dpi=110)


if __name__ == "__main__":
    main()
