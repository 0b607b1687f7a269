"""
How do I fit counts that do not fit into memory?
================================================

An atlas need not be loaded to be fitted. Counts of a backed ``.h5ad`` are read by groups of genes
that fit a memory budget, processes share the genes, and finished ones are kept in a folder, from
which a fit that was cut short goes on. The results are those of a fit in memory.
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

# %%
# A file
# ------
#
# The place of your atlas is taken by 20 000 cells x 2000 genes, which a model of a few hundred
# simulated cells draws. (Its small penalty keeps genes that are silent in a cell type finite.)

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
# A budget
# --------
#
# ``backed="r"`` leaves the counts in the file. A matrix that takes more than half of
# ``memory_budget`` is read by groups of genes. The bars are peaks of the memory that Python and
# NumPy ask for, of all that happens from opening the file to the end of the fit.


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

figure, ax = plt.subplots(figsize=(6, 2), layout="constrained")
bars = ax.barh(peaks.index[::-1], peaks[::-1], color="#3f90da")
ax.bar_label(bars, fmt=" %.0f MB")
ax.set(xlabel="peak of memory, MB", xlim=(0, 1.15 * peaks.max()))
ax.spines[["top", "right"]].set_visible(False)
plt.show()

# %%
# The budget is for counts, and about 100 MB come on top of it here, whatever the size of the file:
# the first walk through it, which checks all values, and what fits a group of genes. The numbers
# are the same to the last digit:

(in_memory, _), (params, _) = fits.values()
all(params[part].equals(in_memory[part]) for part in params)

# %%
# Going on after an interruption
# ------------------------------
#
# The last fit had a ``checkpoint_dir``. It holds a file for each block of genes that is finished,
# and a manifest that says of which fit:

blocks = sorted(checkpoint.glob("genes-*.npz"))
print(f"{len(blocks)} blocks, the first {blocks[0].name}, the last {blocks[-1].name}")

# %%
# A fit that is killed leaves some of them, as when we delete every other one. The same call fits
# the genes that are missing, and may have another budget or number of workers. A folder of another
# fit is refused, so that nothing is mixed up.

for block in blocks[::2]:
    block.unlink()

params, _ = fit("20MB", checkpoint_dir=checkpoint, n_jobs=2)
all(params[part].equals(in_memory[part]) for part in params)

# %%
# The example is done with its files:

folder.cleanup()

# %%
# What to take away
# -----------------
#
# Open the file ``backed="r"``, and give :func:`sc_glm.adata.fit` a ``memory_budget`` and the
# regressor a ``checkpoint_dir`` and ``n_jobs``: the fit then takes memory by the budget rather
# than by the file, and goes on where it was cut short.
#
# See :class:`~sc_glm.NegBinRegressor`, and :doc:`/scale` for clusters and for what a fit costs.
