"""Compare the default fit with the best of many random starts, on 100 genes of the pancreas set.

``python doc/benchmarks/random_starts.py [STARTS]`` prints, for five models, the log-likelihood of
the default fit, that of the best of 50 random starts of each gene, and by how much the default fit
is below it in the genes where it is. The environment variable ``SC_GLM_DATA`` names the folder of
``pancreas_100.h5ad``. It takes some ten minutes.
"""

import os
import sys
from pathlib import Path

import anndata
import numpy as np
import torch

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor
from sc_glm._counts.count_matrix import CountMatrix
from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver.gene_block import Designs, Settings, build_problem
from sc_glm._solver.initial_values import moments
from sc_glm._solver.trust_region import maximize

MODELS = {
    "NB, dispersion `~ 1`": ("~ 1", None),
    "NB, dispersion `~ pseudotime`": ("~ pseudotime", None),
    "NB, dispersion `~ .`": ("~ . - total_counts", None),
    "ZINB, dispersion and zero inflation `~ 1`": ("~ 1", "~ 1"),
    "ZINB, all parts `~ pseudotime`": ("~ pseudotime", "~ pseudotime"),
}
SETTINGS = Settings(max_iter=100, tol=1e-4, device=torch.device("cpu"), dtype=torch.float64)


def best_of_random_starts(family, X, counts, n_starts):
    """Maximise each gene from random points, spread about its moments; return its best value."""
    designs = {
        part: PartDesign.of(X.filter(regex=f"^{part}__").to_numpy()) for part in family.parts
    }
    n_cells = len(X)
    shared = Designs(designs, np.zeros(n_cells), np.ones(n_cells))
    problem = build_problem(family, counts.by_gene(slice(None)), shared, SETTINGS)
    objective = problem.model_objective()
    generator = torch.Generator().manual_seed(0)
    width = objective.ranks[0]
    centre = torch.zeros(counts.n_genes, objective.n_params, dtype=torch.float64)
    centre[:, :width] = moments(problem)[:, :width]
    best = torch.full((counts.n_genes,), -torch.inf, dtype=torch.float64)
    for start in range(n_starts):
        spread = (0.5, 1.5, 4.0)[start % 3]
        point = centre + spread * torch.randn(
            centre.shape, generator=generator, dtype=torch.float64
        )
        value = maximize(objective, point, max_iter=SETTINGS.max_iter, tol=SETTINGS.tol).value
        best = torch.maximum(best, value.nan_to_num(-torch.inf))
    return best.numpy()


def main(n_starts):
    """Print one table."""
    torch.set_num_threads(1)
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pancreas_100.h5ad")
    y = adata.layers["counts"]
    print(
        f"| model | default fit | best of {n_starts} random starts | genes below | below in all |"
    )
    print("|---|---|---|---|---|")
    for name, (dispersion, zero_inflation) in MODELS.items():
        formulas = FormulaTransformer("~ pseudotime", dispersion, zero_inflation)
        X = formulas.fit_transform(adata.obs)
        inflated = zero_inflation is not None
        model = (ZINBRegressor if inflated else NegBinRegressor)().fit(X, y)
        family = ZINBFamily() if inflated else NegBinFamily()
        with torch.inference_mode():
            counts = CountMatrix.of(y, n_cells=len(X))
            best = best_of_random_starts(family, X, counts, n_starts)
        below = np.maximum(best - model.log_likelihood_, 0.0)
        print(
            f"| {name} | {model.log_likelihood_.sum():.3f} | {best.sum():.3f} "
            f"| {(below > 0.01).sum()} | {below.sum():.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
