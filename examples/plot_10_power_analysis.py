"""
Power analysis: how many cells do I need?
=========================================

Power depends on the effect, on the number of cells, and on a gene's expression and variation. A
model of pilot cells estimates the last two. Set an effect in this model, draw new cells from it,
fit and test them, and count the significant genes. The result is the power of exactly the analysis
that you plan.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import wald_test
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

# %%
# Pilot cells
# -----------
#
# The pilot cells are the monocytes among simulated blood cells. The genes are those with at least
# one expected count in ten of these cells. Every other cell is called ``treated``, which does not
# change its counts. A covariate that is zero in all cells would have no coefficient to set.

data = make_counts(2000, 3000, preset="pbmc", random_state=0)
pilot = data.obs[data.obs["cell_type"] == "CD14+ Mono"]
pilot = pilot.assign(treated=np.arange(len(pilot)) % 2)
counts = data.counts.loc[pilot.index]
counts = counts.loc[:, counts.mean() >= 0.1]

formula = FormulaTransformer("~ treated", offset="np.log(size_factor)")
reference = make_pipeline(formula, NegBinRegressor()).fit(pilot, counts)
means = reference.predict(pilot).mean(axis=0)
print(f"{counts.shape[0]} pilot cells, {counts.shape[1]} genes")
pd.Series(means).quantile([0.05, 0.5, 0.95]).round(2).rename("mean count").to_frame().T

# %%
# Draw, fit, test
# ---------------
#
# A simulated experiment has equally many cells in each group, depths drawn from the pilot cells,
# and the same fold change in all genes. As genes are independent, each gene is a separate trial.

ALPHA = 0.01


def experiment(n_cells, fold_change, seed):
    """Return which genes have p < ALPHA in an experiment of n_cells in each group."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {
            "treated": np.repeat([0.0, 1.0], n_cells),
            "size_factor": rng.choice(pilot["size_factor"], 2 * n_cells),
        }
    )
    truth = copy.deepcopy(reference)
    truth[-1].params_["mean"].loc["treated"] = np.log(fold_change)
    drawn = pd.DataFrame(truth.sample(obs, random_state=rng), columns=counts.columns)
    model = make_pipeline(formula, NegBinRegressor()).fit(obs, drawn)
    return wald_test(model, obs, drawn, "treated = 0")["p_value"] < ALPHA


sizes, folds, n_repeats = [100, 200, 400, 800], [1.0, 1.25, 1.5, 2.0], 2
found = {
    (fold, n_cells): pd.concat([experiment(n_cells, fold, seed) for seed in range(n_repeats)])
    for fold in folds
    for n_cells in sizes
}

# %%
# Power over the number of cells
# ------------------------------
#
# Bars are two Monte-Carlo standard errors. They show how far another run of the simulation may
# differ.


def share(trials):
    """Return the share of trials with p < ALPHA in per cent, and its standard error."""
    p = trials.mean()
    return pd.Series({"share": 100 * p, "error": 100 * np.sqrt(p * (1 - p) / len(trials))})


def draw(ax, shares, name):
    """Draw shares over numbers of cells, with two standard errors."""
    ax.errorbar(shares.index, shares["share"], 2 * shares["error"], marker="o", label=name)
    ax.set(xlabel="cells in each group", ylabel=f"genes with p < {ALPHA}, %", ylim=(0, 105))
    ax.set_xscale("log")
    ax.set_xticks(sizes, sizes)
    ax.minorticks_off()


power = pd.DataFrame({key: share(trials) for key, trials in found.items()}).T
figure, ax = plt.subplots(figsize=(6, 3.8))
for fold in folds[::-1]:
    draw(ax, power.loc[fold], f"{fold:g}")
ax.axhline(100 * ALPHA, color="0.6", linewidth=1, zorder=0)
ax.legend(title="fold change")
plt.show()

# %%
# With two hundred cells in each group, most genes with a fold change of 2 are found. With eight
# hundred, less than half of the genes with a fold change of 1.25 are found. Without a change, the
# share must be the level of 1 % (the grey line). Otherwise all other numbers are worthless. It is 1
# % within the error:

power.loc[1.0].round(2).rename_axis("cells in each group")

# %%
# Power over the expression
# -------------------------
#
# The average over all genes hides large differences. In most genes with a mean of at least one
# count per cell, a hundred cells in each group find a fold change of 1.5. Genes with low means need
# eight times as many.

names = ["below 0.3", "0.3 to 1", "1 and more"]
level = pd.cut(pd.Series(means, index=counts.columns), [0, 0.3, 1, np.inf], labels=names)
figure, ax = plt.subplots(figsize=(6, 3.6))
for name, genes in level.groupby(level, observed=True):
    own = pd.DataFrame({n: share(found[1.5, n].loc[genes.index]) for n in sizes}).T
    draw(ax, own, f"{name} ({len(genes)} genes)")
ax.legend(title="mean count, fold change 1.5")
plt.show()

# %%
# Summary
# -------
#
# Simulate the analysis that you plan, with genes like yours and an effect that matters to you.
# Always simulate no effect as well. If single cells are assigned to treatments, they are
# replicates, as here. If donors are treated, simulate donors:
# :ref:`sphx_glr_gallery_plot_08_donors.py`.
#
# See :doc:`/simulation`, :func:`~sc_glm.make_pipeline` and :func:`~sc_glm.inference.wald_test`.
