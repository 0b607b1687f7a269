"""
Library size: offset or covariate?
==================================

If twice as many molecules of a cell are sequenced, every gene has about twice the counts. The model
can account for this in the mean, without changing the counts. An offset makes the mean proportional
to depth. A covariate estimates the effect of depth.
"""

# %%
# Cell types differ in depth
# --------------------------
#
# ``depth`` is a cell's total over all genes, relative to the median cell. Monocytes have more
# molecules than B cells. The example uses the 300 genes that are found in the most cells.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold, cross_val_score

from sc_glm import FormulaTransformer, NegBinRegressor, inference, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import fetch_pbmc3k
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

adata = fetch_pbmc3k()
adata.obs["depth"] = adata.obs["total_counts"] / adata.obs["total_counts"].median()
n_cells_with = np.asarray((adata.X > 0).sum(axis=0)).ravel()
adata = adata[:, np.sort(n_cells_with.argsort()[-300:])].copy()
adata.obs.groupby("cell_type", observed=True)["depth"].median().round(2).to_frame()

# %%
# Three models
# ------------
#
# The first model has no depth. The second has its logarithm as the offset of log mu. The third has
# its logarithm as a covariate.

formulas = {
    "no depth": {"mean": "~ cell_type"},
    "offset": {"mean": "~ cell_type", "offset": "np.log(depth)"},
    "covariate": {"mean": "~ cell_type + np.log(depth)"},
}
models = {
    name: AnnDataRegressor(make_pipeline(FormulaTransformer(**parts), NegBinRegressor()))
    for name, parts in formulas.items()
}
for model in models.values():
    model.fit(adata)

# %%
# The effect of a cell type
# -------------------------
#
# Without depth, two of three genes seem to be higher in monocytes than in B cells. In fact, the
# number of molecules is higher. With the offset, about as many genes are higher as lower.

effects = {
    name: model.params_["mean"].loc["cell_type[T.Monocyte]"] for name, model in models.items()
}
fold_changes = pd.DataFrame(effects) / np.log(2)

figure, ax = plt.subplots(figsize=(5.4, 3.6))
for name in ["no depth", "offset"]:
    ax.hist(fold_changes[name], bins=np.arange(-4, 6.5, 0.25), alpha=0.6, label=name)
ax.axvline(0, color="0.3", linewidth=1)
ax.set(xlabel=r"$\log_2$ fold change, monocytes against B cells", ylabel="genes")
_ = ax.legend()

# %%

summary = fold_changes.agg(["median"]).T.round(2)
summary.assign(share_higher=(fold_changes > 0).mean().round(2))

# %%
# The dispersion
# --------------
#
# A model without depth treats the variation of depth as overdispersion. With the offset, the
# overdispersion :math:`1 / r` of nearly every gene is smaller. What remains is the gene's own.

overdispersion = pd.DataFrame(
    {name: np.exp(-model.params_["dispersion"].loc["Intercept"]) for name, model in models.items()}
)
figure, ax = plt.subplots(figsize=(4.6, 4))
ax.loglog(overdispersion["no depth"], overdispersion["offset"], "o", markersize=4, alpha=0.6)
ax.axline((0.1, 0.1), (1, 1), color="0.6", linewidth=1, zorder=0)
_ = ax.set(xlabel="overdispersion without depth", ylabel="overdispersion with the offset")

# %%

overdispersion.median().round(2).rename("median overdispersion").to_frame()

# %%
# Offset or covariate?
# --------------------
#
# An offset is a covariate with a coefficient of 1. If the coefficient is estimated, it is near 1
# for most genes, and cell types have nearly the same effects. Because there are so many cells,
# small deviations are still significant in half of the genes.

slopes = models["covariate"].params_["mean"].loc["np.log(depth)"]
slopes.describe().loc[["25%", "50%", "75%"]].round(2).rename("coefficient of log depth").to_frame()

# %%

tests = inference.wald_test(models["covariate"], adata, constraint="`np.log(depth)` = 1")
pd.Series(
    {
        "tested": len(tests),
        "not 1, adjusted p < 0.05": (tests["p_adjusted"] < 0.05).sum(),
        "preferred by AIC to the offset": (
            inference.aic(models["covariate"], adata) < inference.aic(models["offset"], adata)
        ).sum(),
    },
    name="genes",
).to_frame()

# %%
# Offsets of held-out cells
# -------------------------
#
# The offset is a part of the formula, and its depth is a column of ``obs``. So held-out cells are
# scored with their own depth, without metadata routing. Depth improves the score of a held-out
# count. This gain is many times larger than the gain from a coefficient of its own.

cv = KFold(3, shuffle=True, random_state=0)
scores = {name: cross_val_score(model, adata, cv=cv).mean() for name, model in models.items()}
pd.Series(scores).round(4).rename("held-out log-likelihood per count").to_frame()

# %%
# For expected counts at another depth, set the depth. These expected counts compare cells of equal
# depth:

at_median = adata.copy()
at_median.obs["depth"] = 1.0
expected = pd.DataFrame(models["offset"].predict(at_median), adata.obs_names, adata.var_names)
expected.groupby(adata.obs["cell_type"], observed=True).mean().iloc[:, :6].round(2)

# %%
# Any size factors
# ----------------
#
# A size factor is a column of ``obs`` and may come from any tool. Examples are pooled or
# median-of-ratios size factors, totals without some genes, and spike-ins. Here it is the total
# without the ribosomal genes among these 300. Likelihoods show which one suits the counts. For
# these genes, it is the total of all genes.

ribosomal = adata.var_names.str.match("RP[LS]")
totals = adata.obs["total_counts"] - np.asarray(adata.X[:, ribosomal].sum(axis=1)).ravel()
adata.obs["size_factor"] = totals / totals.median()
by_size_factor = AnnDataRegressor(
    make_pipeline(
        FormulaTransformer("~ cell_type", offset="np.log(size_factor)"), NegBinRegressor()
    )
)
by_size_factor.fit(adata)
pd.Series(
    {
        "offset: depth": models["offset"].model_[-1].log_likelihood_.sum(),
        "offset: size factor": by_size_factor.model_[-1].log_likelihood_.sum(),
    }
).round(1).rename("log-likelihood").to_frame()

# %%
# Summary
# -------
#
# Put the logarithm of depth, or of any size factor, into the formula as an offset. Fold changes
# then compare cells of equal depth, and the dispersion is the genes' own. Estimate a coefficient of
# log depth if you doubt that counts are proportional to depth.
#
# See :doc:`/offsets`, :class:`~sc_glm.FormulaTransformer` and
# :class:`~sc_glm.adata.AnnDataRegressor`.
