"""
How do I fit counts that do not fit into memory?
================================================

You can fit an atlas without loading it. Counts of a backed ``.h5ad`` are read in groups of genes
that fit into a memory budget. Processes share the genes. Finished genes are kept in a folder, and
an interrupted fit continues from there. The results are the same as in memory.
"""

import tempfile
import tracemalloc
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import make_counts
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

# %%
# A large .h5ad file
# ------------------
#
# This example replaces your atlas by 20 000 cells x 2000 genes. A model of a few hundred simulated
# cells draws them. (Its small penalty keeps genes finite that have no counts in a cell type.)

folder = tempfile.TemporaryDirectory()
path = Path(folder.name) / "atlas.h5ad"
few = make_counts(500, 2000, preset="donors", random_state=0)
formula = FormulaTransformer(**few.formulas)
template = make_pipeline(formula, NegBinRegressor(alpha=1e-3)).fit(few.obs, few.counts)

obs = few.obs.sample(20_000, replace=True, random_state=0)
atlas = scg.sample(obs.set_axis([f"cell_{i}" for i in range(len(obs))]), template, random_state=0)
atlas.write_h5ad(path)
print(f"{path.stat().st_size / 1e6:.0f} MB, {atlas.X.nnz / 1e6:.1f} million positive counts")
del atlas

# %%
# Fitting with a memory budget
# ----------------------------
#
# ``backed="r"`` leaves the counts in the file. A matrix that needs more than half of
# ``memory_budget`` is read in groups of genes. The bars are peaks of the memory that Python and
# NumPy request, from opening the file to the end of the fit.


def fit(budget=None, **options):
    """Fit the file, and return the coefficients and the peak of memory in MB."""
    tracemalloc.start()
    cells = anndata.read_h5ad(path, backed="r" if budget else None)
    model = make_pipeline(formula, NegBinRegressor(**options))
    scg.fit(cells, model, memory_budget=budget or "4GB")
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    cells.file.close()
    return model.params_, peak


checkpoint = Path(folder.name) / "checkpoint"
fits = {"in memory": fit(), "budget 20 MB": fit("20MB", checkpoint_dir=checkpoint)}
peaks = pd.Series({name: peak for name, (_, peak) in fits.items()})

figure, ax = plt.subplots(figsize=(6, 2))
bars = ax.barh(peaks.index[::-1], peaks[::-1], color="C0")
ax.bar_label(bars, fmt=" %.0f MB")
ax.set(xlabel="peak of memory, MB", xlim=(0, 1.15 * peaks.max()))
plt.show()

# %%
# The budget is for counts. Here, about 100 MB come on top of it, whatever the size of the file.
# They are needed for the first pass through the file, which checks all values, and for fitting a
# group of genes. The numbers are the same to the last digit:

(in_memory, _), (params, _) = fits.values()
all(params[part].equals(in_memory[part]) for part in params)

# %%
# Continuing after an interruption
# --------------------------------
#
# The last fit had a ``checkpoint_dir``. This folder has a file for each finished block of genes,
# and a manifest that describes the fit:

blocks = sorted(checkpoint.glob("genes-*.npz"))
print(f"{len(blocks)} blocks, the first {blocks[0].name}, the last {blocks[-1].name}")

# %%
# A killed fit leaves some of these files. Here we delete every other one instead. The same call
# then fits only the missing genes. It may have another budget or number of workers. A folder of
# another fit is refused, so results cannot be mixed up.

for block in blocks[::2]:
    block.unlink()

params, _ = fit("20MB", checkpoint_dir=checkpoint, n_jobs=2)
all(params[part].equals(in_memory[part]) for part in params)

# %%
# The example does not need its files any more:

folder.cleanup()

# %%
# Summary
# -------
#
# Open the file with ``backed="r"``. Give :func:`sc_glm.adata.fit` a ``memory_budget``, and the
# regressor a ``checkpoint_dir`` and ``n_jobs``. The memory of the fit then depends on the budget
# rather than on the file. An interrupted fit continues where it stopped.
#
# See :class:`~sc_glm.NegBinRegressor`. The page :doc:`/scale` covers clusters and the cost of a
# fit.
