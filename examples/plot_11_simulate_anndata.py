"""
How do I simulate cells like mine?
==================================

To compare methods, plan an experiment or teach a course, you need cells that look real and whose
truth is known. A fitted model simulates them: the same cells again, more cells, cells along another
trajectory, or treated cells with an effect that you set.
"""

import copy
import tempfile
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, mannwhitneyu

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import fetch_pancreas
from sc_glm.inference import wald_test
from sc_glm.plots import CovariateDisplay, SimulatedSummariesDisplay, style

plt.style.use(style())  # the style of the displays

# %%
# Simulating the same cells again
# -------------------------------
#
# The data are 100 genes of 2087 cells of the developing pancreas. The mean has a spline along
# pseudotime, the size has a trend, and each cell's depth is the offset. ``treated`` is a covariate
# for later. Every other cell is called so, which does not change its counts. A covariate that is
# zero in all cells would have no coefficient to set.

adata = fetch_pancreas()
adata.obs["treated"] = np.arange(adata.n_obs) % 2
formula = FormulaTransformer(
    "~ bs(pseudotime, df=5) + treated", dispersion="~ pseudotime", offset="np.log(sizeFactor)"
)
model = scg.fit(adata, make_pipeline(formula, NegBinRegressor()), layer="counts")
again = scg.sample(adata, model, random_state=0)

figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.2), sharey=True)
for ax, cells, counts, name in zip(
    axes, (adata, again), (adata.layers["counts"], again.X), ("real", "simulated"), strict=True
):
    CovariateDisplay.from_estimator(
        model, cells.obs, counts, gene="Iapp", covariate="pseudotime", ax=ax
    )
    ax.set_title(f"Iapp, {name} cells")
plt.show()

# %%
# ``again`` is an AnnData of the same cells and genes, with sparse counts. The simulated genes have
# the means, variances and zeros of the real ones, with one exception. One gene varies too much:
# check it before you rely on it. Even the correlations are right here, although genes are
# independent *given the covariates*. Nearly all correlation between these genes comes from
# pseudotime and depth.

display = SimulatedSummariesDisplay.from_estimator(
    model, adata.obs, adata.layers["counts"], random_state=0
)
display.figure_.set_size_inches(6, 6)

# %%
# Simulating new cells with a known effect
# ----------------------------------------
#
# New cells are a new ``obs``. This one has 4000 cells. Half of them are treated, and treated cells
# are later along the trajectory. In a copy of the model, 20 of the 100 genes get a fold change of
# 1.5 up or down.

rng = np.random.default_rng(0)
treated = np.repeat([0.0, 1.0], 2000)
obs = pd.DataFrame(
    {
        "pseudotime": rng.beta(2 + treated, 2),
        "treated": treated,
        "sizeFactor": rng.choice(adata.obs["sizeFactor"], 4000),
    },
    index=[f"cell_{i}" for i in range(4000)],
)
truth = pd.Series(0.0, index=adata.var_names)
truth.iloc[::5] = np.log(1.5) * np.tile([1, -1], 10)

changed = copy.deepcopy(model)
changed[-1].params_["mean"].loc["treated"] = truth
simulated = scg.sample(obs, changed, random_state=1)
simulated.var["true_log_fold_change"] = truth

# %%
# The simulated counts can be used to try a method. Here they are tested with a Wilcoxon test of
# normalised counts, and with the model that includes pseudotime and depth:

normalised = np.log1p(simulated.X.multiply(1 / obs["sizeFactor"].to_numpy()[:, None]).toarray())
wilcoxon = mannwhitneyu(normalised[treated == 1], normalised[treated == 0], axis=0).pvalue

refit = scg.fit(simulated, make_pipeline(formula, NegBinRegressor()))
test = wald_test(refit, obs, simulated.X, "treated = 0")
found = pd.DataFrame(
    {"Wilcoxon": false_discovery_control(wilcoxon), "sc_glm": test["p_adjusted"]}
).lt(0.05)
found.groupby(np.where(truth == 0, "without effect", "with effect")).sum()

# %%
# The Wilcoxon test calls nearly all genes, because treated cells are later and most genes change
# along pseudotime. The model separates the two effects, and its estimates are around the truth.

order = truth.argsort()
estimates = test.iloc[order]
figure, ax = plt.subplots(figsize=(6.4, 3.4))
rank, half = np.arange(len(truth)), 1.96 * estimates["standard_error"]
ax.errorbar(rank, estimates["estimate"], half, fmt=".", color="C0", label="95 % interval")
ax.step(rank, truth.iloc[order], where="mid", color="C2", label="truth")
ax.set(xlabel="gene, in the order of its true effect", ylabel="log fold change of treatment")
ax.legend(loc="upper left")
plt.show()

# %%
# Saving the simulated cells
# --------------------------
#
# One ``.h5ad`` contains the cells, their truth and the coefficients of the fit.

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "simulated.h5ad"
    simulated.write_h5ad(path)
    stored = anndata.read_h5ad(path)

print(scg.read_params(stored)["mean"].equals(refit.params_["mean"]))
stored.var[["true_log_fold_change", "sc_glm_status"]].head()

# %%
# Summary
# -------
#
# A fitted model and an ``obs`` of your choice make a simulator, and its coefficients are the truth.
# Check the summaries of the simulated counts first.
#
# See :func:`sc_glm.adata.sample`, :class:`~sc_glm.plots.SimulatedSummariesDisplay` and
# :doc:`/simulation`. Use :func:`~sc_glm.datasets.make_counts` to simulate cells without any real
# ones.
