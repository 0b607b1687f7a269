"""
Which genes differ between cases and controls?
==============================================

Cells of one donor are more alike than cells of two. A test that counts cells where it should count
donors finds genes everywhere: *pseudo-replication*. Here we know which genes differ, and see what a
test by cells, a test by donors and pseudo-bulk make of them.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import wald_test
from sc_glm.plots import VolcanoDisplay

# %%
# Six cases, six controls
# -----------------------
#
# Simulated cells of twelve donors. One gene in five is changed by the condition; *all* genes vary
# between donors, as they do in people.

data = make_counts(6000, 400, preset="donors", random_state=0)
obs, counts = data.obs, data.counts
truth = data.params["mean"].loc["condition[T.case]"]
cells = obs["donor"].value_counts()
print(f"{(truth != 0).sum()} genes differ, {(truth == 0).sum()} do not")
print(f"{cells.min()} to {cells.max()} cells of a donor")

# %%
# One fit, two tests of it: ``"observed"`` takes each cell for a replicate, ``"cluster"`` each
# donor.

model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor()).fit(obs, counts)
effect = "condition[T.case] = 0"
tests = {
    "by cells": wald_test(model, obs, counts, effect),
    "by donors": wald_test(model, obs, counts, effect, kind="cluster", groups=obs["donor"]),
}

# %%
# Pseudo-bulk has another answer: the sum of each donor's counts is one observation, and the summed
# depth its offset. The same regressor fits it.

sums = counts.groupby(obs["donor"], observed=True).sum()
by_donor = obs.groupby("donor", observed=True)
donors = by_donor.agg(condition=("condition", "first"), depth=("size_factor", "sum"))
formula = FormulaTransformer("~ condition", offset="np.log(depth)")
of_sums = make_pipeline(formula, NegBinRegressor()).fit(donors, sums)
tests["pseudo-bulk"] = wald_test(of_sums, donors, sums, effect)

# %%
# P-values of genes that do not differ
# ------------------------------------
#
# They should be uniform, along the dashed line.

figure, axes = plt.subplots(1, 3, figsize=(6.6, 2.8), sharey=True, layout="constrained")
null = truth == 0
for ax, (name, test) in zip(axes, tests.items(), strict=True):
    p_values = test.loc[null, "p_value"]
    ax.hist(p_values, bins=20, range=(0, 1), color="#3f90da")
    ax.axhline(len(p_values) / 20, color="black", linestyle="--", linewidth=1)
    ax.set(title=name, xlabel="p-value", xticks=[0, 0.5, 1])
axes[0].set_ylabel("genes without effect")
plt.show()

# %%
# Nearly half of the genes that do not differ have a p-value below 0.05 if cells are counted. By
# donors, it is one in twenty, as it should be. Of the genes called at a false discovery rate (FDR)
# of 5 %, two in three are false by cells:

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
# The left volcano is what such a study looks like if nobody asks about donors. The right one has
# the same fold changes, and the evidence that there is for them: note the vertical axes.

figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.6), layout="constrained")
for ax, name in zip(axes, ("by cells", "by donors"), strict=True):
    VolcanoDisplay.from_table(tests[name], n_labels=0, ax=ax)
    ax.set_title(f"{name}\n{ax.get_title(loc='left')}", loc="left", fontsize="medium")
plt.show()

# %%
# What can twelve donors find?
# ----------------------------
#
# The true effects by their size: large ones are found, small ones are not, whatever the number of
# cells. That takes more donors. The test by cells is left out, as it calls genes of any kind.

size = pd.cut(truth[~null].abs() / np.log(2), [0, 0.5, 1, 1.5, np.inf])
found = pd.DataFrame(
    {name: tests[name]["p_adjusted"][~null] < 0.05 for name in ("by donors", "pseudo-bulk")}
)
power = found.groupby(size, observed=True).mean()
power.insert(0, "genes", size.value_counts(sort=False))
power.rename_axis("log2 fold change").round(2)

# %%
# Pseudo-bulk finds more here, and its p-values are somewhat too small: it takes the size, which it
# estimates from twelve sums, as known. The fewer the donors, the worse that gets, while the test
# by donors holds: :doc:`/calibration` measures both, also for donors of very different numbers of
# cells.

# %%
# What to take away
# -----------------
#
# Name the donors (``kind="cluster"``, ``groups=obs["donor"]``) wherever the condition belongs to
# whole donors, and plan for donors rather than cells.
#
# See :func:`~sc_glm.inference.wald_test`, :class:`~sc_glm.plots.VolcanoDisplay` and
# :doc:`/inference`.
