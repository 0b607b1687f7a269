"""
Does a fit recover known coefficients? Simulated counts
=======================================================

Before you fit real cells, check that a fit finds known coefficients. Here the mean and the
dispersion of 20 genes depend on covariates of 1000 cells. Counts are drawn from the negative
binomial distribution, and the fit is compared with the true coefficients.
"""

# %%
# Counts with a known truth
# -------------------------
#
# Two covariates affect the mean :math:`\mu` of a gene, and two others affect its size :math:`r`.
# The variance is :math:`\mu + \mu^2 / r`: the *larger* the size, the *smaller* the overdispersion
# :math:`1 / r`.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, inference, make_pipeline
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

rng = np.random.default_rng(0)
n_cells, n_genes = 1000, 20
x_mean, x_dispersion = rng.normal(size=(2, n_cells, 2))
truth = dict(zip(["mean", "dispersion"], rng.normal(size=(2, 2, n_genes)), strict=True))
mu = np.exp(x_mean @ truth["mean"])
r = np.exp(x_dispersion @ truth["dispersion"])
counts = rng.negative_binomial(r, r / (r + mu))

obs = pd.DataFrame(
    np.hstack([x_mean, x_dispersion]),
    columns=["mean_dim0", "mean_dim1", "dispersion_dim0", "dispersion_dim1"],
)
obs.head()

# %%
# A formula for each part
# -----------------------
#
# Each gene is fitted to the maximum of its likelihood, all parts together. ``params_`` has a table
# for each part, covariates by genes. Genes without a name are called y0, y1 and so on.

model = make_pipeline(
    FormulaTransformer(
        mean="~ mean_dim0 + mean_dim1 - 1",
        dispersion="~ dispersion_dim0 + dispersion_dim1 - 1",
    ),
    NegBinRegressor(),
)
model.fit(obs, counts)
model.params_["dispersion"].iloc[:, :6].round(2)

# %%
# Estimates and true coefficients
# -------------------------------
#
# :func:`~sc_glm.inference.coefficient_table` adds the standard error of each estimate, which shows
# its uncertainty.

table = inference.coefficient_table(model, obs, counts)
table.insert(3, "truth", np.vstack([truth["mean"], truth["dispersion"]]).T.ravel())
table.loc[table["gene"] == "y0", ["part", "feature", "truth", "estimate", "standard_error"]]

# %%
# All coefficients of all genes lie along the diagonal. The coefficients of the dispersion scatter
# more. The bars are 95 % intervals.

colors = {"mean": "C0", "dispersion": "C1"}
figure, ax = plt.subplots(figsize=(5, 4.2))
for part, rows in table.groupby("part", sort=False):
    bars = 1.96 * rows["standard_error"]
    ax.errorbar(rows["truth"], rows["estimate"], bars, fmt=".", color=colors[part], label=part)
ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
ax.set(xlabel="true coefficient", ylabel="estimate")
legend = ax.legend()

# %%
# This table has the mean absolute error, the average standard error, and the share of intervals
# that contain the truth. This share should be near 0.95.

table["error"] = (table["estimate"] - table["truth"]).abs()
table["covered"] = table["error"] < 1.96 * table["standard_error"]
table.groupby("part", sort=False)[["error", "standard_error", "covered"]].mean().round(3)

# %%
# Why is the dispersion less certain?
# -----------------------------------
#
# Every count carries information about its mean, but only the *spread* of counts carries
# information about the dispersion. If the mean is small, the spread hardly depends on the
# dispersion, because :math:`\mu^2 / r` is much smaller than :math:`\mu`. So the dispersion is more
# certain for genes with large counts. The certainty of the mean's coefficients is about the same
# for all of these genes.

errors = table.pivot_table("standard_error", "gene", "part")
average = pd.Series(counts.mean(axis=0), index=model.params_["mean"].columns)
figure, ax = plt.subplots(figsize=(5, 3.4))
for part, color in colors.items():
    ax.plot(average[errors.index], errors[part], "o", color=color, label=part)
ax.set(xscale="log", xlabel="mean count of the gene", ylabel="standard error", ylim=(0, None))
legend = ax.legend()

# %%
# Summary
# -------
#
# One fit finds the coefficients of the mean and of the dispersion together. Its standard errors
# show how far to trust each coefficient. Statements about a dispersion need more cells, or larger
# counts, than statements about a mean.
#
# See :doc:`/model` for the three parts of the model, :doc:`/inference` for standard errors and
# tests, and :class:`~sc_glm.NegBinRegressor`.
