"""
Which genes follow pseudotime, and how?
=======================================

Genes that are switched on for a while rise and fall along pseudotime, and a straight line cannot
follow them. A spline can, in the mean and in the dispersion. This example measures for each gene
how flexible the spline has to be.
"""

# %%
# A line and a spline
# -------------------
#
# ``bs(pseudotime, df=5)`` stands for five smooth columns instead of one. Its knots come from the
# cells of the fit, and do not change for new cells.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sc_glm import FormulaTransformer, NegBinRegressor, inference, make_pipeline
from sc_glm.datasets import fetch_pancreas
from sc_glm.plots import CovariateDisplay, CurveHeatmapDisplay, style

plt.style.use(style())  # the style of the displays

adata = fetch_pancreas()
obs, counts = adata.obs[["pseudotime"]], adata.to_df("counts")


def fit(mean, dispersion="~ pseudotime"):
    """Fit a model of two formulas to all genes."""
    model = make_pipeline(FormulaTransformer(mean, dispersion=dispersion), NegBinRegressor())
    return model.fit(obs, counts)


line = fit("~ pseudotime")
spline = fit("~ bs(pseudotime, df=5)")

# %%
# Neurog3 is on for a short time on the way to endocrine cells. The spline (red, with a band for
# nine of ten cells) rises and falls with it. The line (dashed) can only fall. It predicts the
# highest expression for the cells that express the gene least.

display = CovariateDisplay.from_estimator(
    spline, obs, counts, gene="Neurog3", covariate="pseudotime"
)
grid = pd.DataFrame({"pseudotime": np.linspace(0, 1, 100)})
straight = line.predict(grid)[:, counts.columns.get_loc("Neurog3")]
_ = display.ax_.plot(grid["pseudotime"], straight, "--", color="0.3", linewidth=1.6)

# %%
# Curves of several genes
# -----------------------
#
# Genes may be on late, early, for a while, or hardly change. With one formula, each gene has its
# own curve. Where a gene is being switched, cells of equal pseudotime differ by orders of
# magnitude.

figure, axes = plt.subplots(2, 2, figsize=(6, 5.4))
for ax, gene in zip(axes.flat, ["Ins2", "Spp1", "Cck", "Xist"], strict=True):
    CovariateDisplay.from_estimator(spline, obs, counts, gene=gene, covariate="pseudotime", ax=ax)
    ax.get_legend().remove()

# %%
# A heat map has room for all genes. Each row is a fitted mean, divided by its maximum, and the rows
# are ordered by the position of the maximum.

_ = CurveHeatmapDisplay.from_estimator(spline, obs, covariate="pseudotime")

# %%
# How flexible must the mean be?
# ------------------------------
#
# AIC has a penalty for each coefficient, and smaller is better. The AIC of the median gene is
# hundreds of units worse with a line, and about ten units worse with five columns instead of seven.

means = {
    "constant": "~ 1",
    "line": "~ pseudotime",
    "3 columns": "~ bs(pseudotime, df=3)",
    "5 columns": "~ bs(pseudotime, df=5)",
    "7 columns": "~ bs(pseudotime, df=7)",
}
aic = pd.DataFrame({name: inference.aic(fit(mean), obs, counts) for name, mean in means.items()})
above_best = aic.sub(aic.min(axis=1), axis=0)

figure, ax = plt.subplots(figsize=(5.4, 3.6))
ax.boxplot(above_best.to_numpy(), tick_labels=list(means), whis=(0, 100))
ax.set_yscale("symlog", linthresh=10)
_ = ax.set(ylabel="AIC above the gene's best", ylim=(-1, None))

# %%

above_best.median().round(1).rename("median AIC above the best").to_frame()

# %%
# This table has the genes that gain least and most from five columns over a line. Only Xist does
# not need them: it depends on the sex of an embryo, and not on the age of a cell.

gain = (aic["line"] - aic["5 columns"]).sort_values()
pd.concat([gain.head(3), gain.tail(3)]).round(1).rename("AIC gained").to_frame()

# %%
# Does the dispersion need a curve, too?
# --------------------------------------
#
# With a spline in the mean, most genes also need a curve in the dispersion.

dispersions = {"constant": "~ 1", "line": "~ pseudotime", "3 columns": "~ bs(pseudotime, df=3)"}
fits = {name: fit("~ bs(pseudotime, df=5)", formula) for name, formula in dispersions.items()}
by_dispersion = pd.DataFrame({name: inference.aic(m, obs, counts) for name, m in fits.items()})
by_dispersion.idxmin(axis=1).value_counts().reindex(list(fits)).rename("genes").to_frame()

# %%
# Pyy is an example. Around the middle, some cells have switched it on and others have not, and the
# overdispersion has its peak. A constant and a line have no peak. (In the plot, one of them covers
# the other.)

pyy = counts.columns.get_loc("Pyy")
figure, ax = plt.subplots(figsize=(5, 3.4))
for (name, model), line in zip(fits.items(), ["-", "--", "-"], strict=True):
    overdispersion = 1 / model.predict_params(grid)["dispersion"][:, pyy]
    ax.plot(grid["pseudotime"], overdispersion, line, label=name)
ax.set(title="Pyy", xlabel="pseudotime", ylabel="overdispersion, 1 / r")
_ = ax.legend()

# %%
# Summary
# -------
#
# Give pseudotime a spline of about five columns, in the mean first and then in the dispersion. AIC
# shows which genes do not need it. All genes are fitted together, so a few formulas take only
# seconds.
#
# :doc:`plot_06_cross_validation` compares models on held-out cells. See :doc:`/formulas` for
# splines, :doc:`/model_choice`, :func:`sc_glm.inference.aic`,
# :class:`~sc_glm.plots.CovariateDisplay` and :class:`~sc_glm.plots.CurveHeatmapDisplay`.
