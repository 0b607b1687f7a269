"""Compare how well residuals separate cell types, for given sizes and for estimated ones.

``python doc/benchmarks/residuals.py`` fits the PBMC set with the mean ``~ 1`` and the log depth as
offset: once with the size 100 for all genes, and once with the size of maximum likelihood for each
gene. Pearson residuals are clipped at the root of the number of cells, and their first 50
principal components are compared by the silhouette of the annotated cell types. A larger silhouette
means types that are farther apart than the cells within them. Genes are the 2000 with the largest
variance of these residuals, and for comparison the 2000 with the largest mean count. The
environment variable ``SC_GLM_DATA`` names the folder of the data. It takes about a minute.
"""

import os
import warnings
from pathlib import Path

import anndata
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score

from sc_glm import FormulaTransformer, NegBinRegressor, adata, make_pipeline
from sc_glm.diagnostics import pearson_residuals

MIN_CELLS = 3  # with a count of the gene
N_GENES, N_COMPONENTS = 2000, 50
MODELS = {"size 100": 100.0, "maximum likelihood": None}


def silhouette(residuals, types):
    """Silhouette of the types in the principal components of residuals."""
    components = PCA(N_COMPONENTS, random_state=0).fit_transform(residuals)
    return silhouette_score(components, types)


def main():
    """Print a line for each model."""
    cells = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pbmc3k_raw.h5ad")
    cells = cells[cells.obs["seurat_annotations"].notna()].copy()
    cells = cells[:, np.asarray((cells.X > 0).sum(axis=0)).ravel() >= MIN_CELLS].copy()
    cells.obs["log_depth"] = np.log(np.asarray(cells.X.sum(axis=1)).ravel())
    means = np.asarray(cells.X.mean(axis=0)).ravel()
    types = cells.obs["seurat_annotations"]
    print(f"{cells.n_obs} cells, {cells.n_vars} genes, {types.nunique()} types")
    columns = ("most variable", "largest mean", "largest variance")
    print(f"{'silhouette of':20}", *(f"{name:>16}" for name in columns))
    for name, size in MODELS.items():
        design = FormulaTransformer("~ 1", offset="log_depth")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = adata.fit(cells, make_pipeline(design, NegBinRegressor(size=size)))
        residuals = pearson_residuals(model, cells.obs, cells.X, clip="sqrt_n")
        variance = residuals.var(axis=0)
        values = [
            silhouette(residuals[:, np.argsort(-order)[:N_GENES]], types)
            for order in (variance, means)
        ]
        print(f"{name:20} {values[0]:16.3f} {values[1]:16.3f} {variance.max():16.1f}")


if __name__ == "__main__":
    main()
