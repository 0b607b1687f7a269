"""
Which genes differ between cases and controls?
==============================================

Cells of one donor are more alike than cells of different donors. A test that counts cells where it
should count donors finds differences everywhere. This is *pseudo-replication*. Here we know which
genes differ, and compare four tests: by cells, by clusters of cells, and two of sums of cells.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import make_counts
from sc_glm.inference import quasi_likelihood_test, wald_test
from sc_glm.plots import VolcanoDisplay, style

plt.style.use(style())  # the style of the displays

# %%
# Six cases, six controls
# -----------------------
#
# The data are simulated cells of twelve donors. The condition changes one gene in five. *All* genes
# vary between donors, as they do in people.

data = make_counts(6000, 400, preset="donors", random_state=0)
obs, counts = data.obs, data.counts
truth = data.params["mean"].loc["condition[T.case]"]
n_cells = obs["donor"].value_counts()
print(f"{(truth != 0).sum()} genes differ, {(truth == 0).sum()} do not")
print(f"{n_cells.min()} to {n_cells.max()} cells of a donor")

# %%
# Four tests
# ----------
#
# One fit of the cells serves two tests. ``"observed"`` treats each cell as a replicate, and
# ``"cluster"`` each donor.

model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor()).fit(obs, counts)
effect = "condition[T.case] = 0"
tests = {
    "by cells": wald_test(model, obs, counts, effect),
    "by clusters": wald_test(model, obs, counts, effect, kind="cluster", groups=obs["donor"]),
}

# %%
# The other two tests take sums: all counts of a donor are one observation, and their total is its
# depth (*pseudo-bulk*). The sums keep the columns of donors, here the condition.

cells = AnnData(counts.to_numpy(), obs=obs.set_axis(obs.index.astype(str)))
cells.var_names = counts.columns
sums = scg.pseudobulk(cells, "donor")
sums.obs.groupby("condition", observed=True).head(2).round(2)

# %%
# ``log_depth`` is the logarithm of all counts. Of these 400 genes, a few have most of the counts,
# and donors differ in them. The summed size factors are then a better depth:

top = counts.sum().nlargest(10).sum() / counts.sum().sum()
print(f"{100 * top:.0f} % of all counts are of 10 genes")
sums.obs["log_depth"] = np.log(obs.groupby("donor", observed=True)["size_factor"].sum())

# %%
# The same regressor fits them, and a Wald test follows. The quasi-likelihood test fits them by
# itself. It learns from all genes how much donors differ.

formula = FormulaTransformer("~ condition", offset="log_depth")
of_sums = make_pipeline(formula, NegBinRegressor()).fit(sums.obs, sums.to_df())
tests["Wald on sums"] = wald_test(of_sums, sums.obs, sums.to_df(), effect)
tests["quasi-likelihood"] = quasi_likelihood_test(
    sums, "~ condition", ("condition", "case", "control")
)

# %%
# P-values of genes that do not differ
# ------------------------------------
#
# These p-values should be uniform, along the dashed line.

figure, axes = plt.subplots(1, 4, figsize=(7.4, 2.6), sharey=True, layout="constrained")
null = truth == 0
for ax, (name, test) in zip(axes, tests.items(), strict=True):
    p_values = test.loc[null, "p_value"]
    ax.hist(p_values, bins=20, range=(0, 1), color="C0")
    ax.axhline(len(p_values) / 20, color="black", linestyle="--", linewidth=1)
    ax.set(title=name, xlabel="p-value", xticks=[0, 0.5, 1])
axes[0].set_ylabel("genes without effect")
plt.show()

# %%
# By cells, nearly half of the genes that do not differ have a p-value below 0.05. Two in three of
# the genes called at a false discovery rate (FDR) of 5 % are false. The Wald test on sums rejects
# less, but still too often. It takes the size of each gene as known, but twelve sums determine it.
# The other two tests reject no more than one in twenty, and call no gene that does not differ:

pd.DataFrame.from_dict(
    {
        name: {
            "p < 0.05 without effect, %": round(100 * (test["p_value"] < 0.05)[null].mean(), 1),
            "called at FDR 5 %": (test["p_adjusted"] < 0.05).sum(),
            "of these false": (test["p_adjusted"] < 0.05)[null].sum(),
            "of these true": (test["p_adjusted"] < 0.05)[~null].sum(),
        }
        for name, test in tests.items()
    },
    orient="index",
)

# %%
# The left volcano shows such a study if the donors are ignored, and the right volcano shows it with
# correct evidence. Note the vertical axes.

figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.6), layout="constrained")
for ax, name in zip(axes, ("by cells", "quasi-likelihood"), strict=True):
    VolcanoDisplay.from_table(tests[name], n_labels=0, ax=ax)
    ax.set_title(f"{name}\n{ax.get_title(loc='left')}", loc="left", fontsize="medium")
plt.show()

# %%
# What can twelve donors find?
# ----------------------------
#
# This table has the true effects by size, and the shares that the two valid tests find. Large
# effects are found, and small ones are not, whatever the number of cells. To find these, more
# donors are needed.

size = pd.cut(truth[~null].abs() / np.log(2), [0, 0.5, 1, 1.5, np.inf])
valid = ("by clusters", "quasi-likelihood")
found = pd.DataFrame({name: tests[name]["p_adjusted"][~null] < 0.05 for name in valid})
power = found.groupby(size, observed=True).mean()
power.insert(0, "genes", size.value_counts(sort=False))
power.rename_axis("log2 fold change").round(2)

# %%
# With twelve donors, both tests find about as many effects here. With three donors of a condition,
# the test by clusters finds almost nothing. A gene's own counts then hardly determine how much
# donors differ, and the quasi-likelihood test learns it from all genes. :doc:`/calibration` has
# both.

# %%
# Which test is right?
# --------------------
#
# *By cells* is right if the covariate varies between the cells of a donor, as cell types do, and
# donors are in the formula.
#
# *By clusters* is right if the condition belongs to donors, and there are four or more of each. The
# formula may have covariates of cells. Each gene has its own test, so that few genes suffice.
#
# *Quasi-likelihood* is right if the condition belongs to donors, also with only three of each. It
# needs dozens of genes or more.
#
# *Wald on sums* is right only with many donors.
#
# Plan for more donors rather than more cells.
#
# See :func:`~sc_glm.adata.pseudobulk`, :func:`~sc_glm.inference.quasi_likelihood_test`,
# :func:`~sc_glm.inference.wald_test`, :class:`~sc_glm.plots.VolcanoDisplay` and :doc:`/inference`.
