"""
Do my counts need zero inflation?
=================================

Nearly all counts of a droplet experiment are zero, and zero-inflated models are often used only for
that reason. But a negative binomial with a small mean has as many zeros. Here we compare the zeros
of blood cells with the number that it expects. We test the difference, and see what causes most
apparent zero inflation.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import fetch_pbmc3k, make_counts
from sc_glm.diagnostics import zero_test
from sc_glm.inference import likelihood_ratio_test
from sc_glm.plots import RootogramDisplay, style
from sc_glm.selection import choose_model, compare_models

plt.style.use(style())  # the style of the displays

# %%
# The example uses the 300 genes with the largest means, because zero inflation is easiest to see
# where counts are large. The offset is each cell's depth.

adata = fetch_pbmc3k()
print(f"{1 - adata.X.nnz / np.prod(adata.shape):.1%} of all counts are zero")
adata.obs["depth"] = adata.obs["total_counts"] / adata.obs["total_counts"].median()
means = np.asarray(adata.X.mean(axis=0)).ravel()
adata = adata[:, means >= np.sort(means)[-300]].copy()
print(f"{adata.n_obs} cells, {adata.n_vars} genes with means from {np.sort(means)[-300]:.2f}")

# %%
# Zeros with and without cell types
# ---------------------------------
#
# Two formulas are each fitted without and with zero inflation. The likelihood-ratio test of both
# fits accounts for the boundary: no zero inflation is the end of the parameter's range. For a gene
# without zero inflation, the statistic is zero in half of the cases. The p-value comes from a
# mixture of chi-squared distributions.


def fit(mean, regressor):
    formula = FormulaTransformer(mean, offset="np.log(depth)")
    return AnnDataRegressor(make_pipeline(formula, regressor)).fit(adata)


fits, tests = {}, {}
for mean in ("~ 1", "~ cell_type"):
    fits[mean] = fit(mean, NegBinRegressor()), fit(mean, ZINBRegressor())
    tests[mean] = likelihood_ratio_test(*fits[mean], adata)
pi = pd.DataFrame(
    {mean: zinb.predict_params(adata)["zero_inflation"][0] for mean, (_, zinb) in fits.items()},
    index=adata.var_names,
)
inflated = pd.DataFrame({mean: test["p_adjusted"] < 0.05 for mean, test in tests.items()})

zeros = zero_test(fits["~ 1"][0], adata)
figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.4))
for which, color in ((~inflated["~ 1"], "C0"), (inflated["~ 1"], "C2")):
    shares = zeros.loc[which, ["expected", "observed"]] / adata.n_obs
    axes[0].plot(shares["expected"], shares["observed"], ".", color=color, alpha=0.7)
    axes[1].plot(pi["~ 1"][which], pi["~ cell_type"][which], ".", color=color, alpha=0.7)
for ax, end in zip(axes, (1.0, 0.65), strict=True):
    ax.plot([0, end], [0, end], color="0.6", linewidth=1, zorder=0)
axes[0].set(title="Share of zeros", xlabel="expected by NB, mean ~ 1", ylabel="observed")
axes[1].set(title="Zero inflation pi", xlabel="mean ~ 1", ylabel="mean ~ cell_type")
plt.show()

# %%
# Each point is a gene. Red genes have significant zero inflation in the model *without* cell types.
# On the left, even that model's negative binomial expects about as many zeros as there are. On the
# right, the model without cell types treats up to half of a red gene's counts, and more, as
# structural zeros. A model with cell types has **few or none**. These genes are markers that have
# no counts in other cell types:

first = tests["~ 1"].sort_values("p_value").index[:6]
pi.loc[first].round(3)

# %%
# The plot has rootograms of one of these genes for the two negative binomials. Bars hang from the
# expected frequencies, and in a good model they end at zero. The first model lacked a covariate.

figure, axes = plt.subplots(1, 2, figsize=(6.6, 3.2), sharey=True)
for ax, (mean, (nb, _)) in zip(axes, fits.items(), strict=True):
    RootogramDisplay.from_estimator(nb, adata, genes="TYROBP", ax=ax)
    ax.set_title(f"TYROBP, mean {mean}")
plt.show()

# %%
# Remaining zero inflation
# ------------------------
#
# With cell types, the zero-inflated fit of most genes *is* the negative binomial one. Their
# ``status_`` is ``no zero inflation``. The few significant genes have a ``pi`` of at most a tenth.
# (There are four types, derived from markers. Finer types would leave less.) The opposite is more
# common: *fewer* zeros than expected with one size for all cell types. No zero inflation can
# explain this.

nb, zinb = fits["~ cell_type"]
zeros = zero_test(nb, adata).query("p_adjusted < 0.05")
print(pd.Series(zinb.model_[-1].status_).value_counts().to_string())
print(f"too many zeros: {(zeros['ratio'] > 1).sum()}, too few: {(zeros['ratio'] < 1).sum()} genes")
left = tests["~ cell_type"][inflated["~ cell_type"]].assign(pi=pi["~ cell_type"])
left[["statistic", "p_adjusted", "pi"]].round(4)

# %%
# Or compare, for each gene (here every third), which model predicts held-out cells best, beginning
# with the simplest model. Cell types improve the prediction, and zero inflation almost never does.

models = {
    f"{name}, {mean}": model
    for mean, pair in fits.items()
    for name, model in zip(("NB", "ZINB"), pair, strict=True)
}
some = adata[:, ::3].copy()
table = compare_models(models, some, cv=KFold(3, shuffle=True, random_state=0))
choose_model(table).value_counts(sort=False)

# %%
# Simulated zero inflation
# ------------------------
#
# In these simulated genes, every cell loses its count with a probability of about a fifth. The test
# finds this where means are large. If means are small, most counts are zero anyway, and no method
# can distinguish structural zeros from others.

data = make_counts(1000, 150, mean="~ 1", zero_inflation="~ 1", random_state=0)
formula = FormulaTransformer("~ 1")
nb, zinb = (
    make_pipeline(formula, regressor).fit(data.obs, data.counts)
    for regressor in (NegBinRegressor(), ZINBRegressor())
)
print(f"true pi: {data.dist.pi[0].mean():.2f} on average")
found = likelihood_ratio_test(nb, zinb, data.obs, data.counts)["p_value"] < 0.05
mean = pd.cut(pd.Series(data.dist.mu[0], index=found.index), [0, 0.3, 1, 3, np.inf])
pd.DataFrame(
    {"genes": mean.value_counts(sort=False), "found": found.groupby(mean, observed=True).mean()}
).rename_axis("mean count").round(2)

# %%
# Summary
# -------
#
# Include the covariates that you know in the mean, and test zero inflation before you believe in
# it. :class:`~sc_glm.NegBinRegressor` is enough for nearly all genes of these counts. Use
# :class:`~sc_glm.ZINBRegressor` if cells lack a gene for a reason that no covariate explains. Many
# zeros alone are no reason.
#
# See :func:`~sc_glm.inference.likelihood_ratio_test`, :func:`~sc_glm.selection.compare_models`,
# :doc:`/zero_inflation` and :doc:`/model_choice`.
