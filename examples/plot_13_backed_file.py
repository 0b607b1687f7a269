"""
How do I fit a file that is larger than memory?
===============================================

An atlas need not be loaded to be fitted. Counts of a backed ``.h5ad`` are read by groups of genes
that fit a memory budget, several processes share the genes, and finished genes are kept in a folder,
from which a fit that was cut short goes on. Results are those of a fit in memory.
"""

import tempfile
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import make_counts

# %%
# A file
# ------
#
# 20 000 cells x 2000 genes, drawn from a model of some hundred simulated cells. The cells and their
# counts stand in for your atlas.

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "atlas.h5ad"

formulas = {"mean": "~ cell_type", "offset": "np.log(size_factor)"}
small = make_counts(300, 2000, **formulas, effect_scale=0.5, random_state=0)
template = make_pipeline(FormulaTransformer(**formulas), NegBinRegressor(alpha=1e-3))
template.fit(small.obs, small.counts)
obs = small.obs.sample(20_000, replace=True, random_state=0)
obs.index = [f"cell_{i}" for i in range(len(obs))]
atlas = scg.sample(obs, template, random_state=0)
atlas.write_h5ad(path)
print(f"{path.stat().st_size / 1e6:.0f} MB in the file")
print(f"{atlas.X.nnz / 1e6:.1f} million positive counts of {np.prod(atlas.shape) / 1e6:.0f} million")
atlas
