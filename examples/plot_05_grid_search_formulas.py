"""
Grid search: which formula for which part?
==========================================

A formula is a parameter like any other. So scikit-learn's grid search can combine formulas of mean,
dispersion and offset. Its score is the log-likelihood of held-out counts, which depends on all of
them. A score of the mean alone, such as R², does not depend on the dispersion.
"""

# %%
# Cells whose formulas are known
# ------------------------------
#
# The data are 900 simulated cells. Each gene's mean is drawn as a spline of pseudotime,
# proportional to depth, and its dispersion by cell type. The search does not know this. Rare genes
# carry little information and are left out.

import matplotlib.pyplot as plt
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.model_selection import GridSearchCV, KFold

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.plots import CovariateDisplay, style

plt.style.use(style())  # the style of the displays

data = make_counts(
    900,
    30,
    mean="~ bs(pseudotime, df=5)",
    dispersion="~ cell_type",
    offset="np.log(size_factor)",
    random_state=0,
)
counts = data.counts.loc[:, data.counts.mean() > 0.5]
data.obs.head()

# %%
# A grid of formulas
# ------------------
#
# The name of a parameter has three parts: the name of the step, two underscores, and the step's own
# parameter. Cells are shuffled before they are cut into folds, because the cells of a real AnnData
# are often ordered by type.

means = ["~ 1", "~ pseudotime", "~ bs(pseudotime, df=5)", "~ bs(pseudotime, df=9)"]
dispersions = ["~ 1", "~ pseudotime", "~ cell_type"]
grid = {
    "formulatransformer__mean": means,
    "formulatransformer__dispersion": dispersions,
    "formulatransformer__offset": [None, "np.log(size_factor)"],
}
model = make_pipeline(FormulaTransformer(), NegBinRegressor())
folds = KFold(3, shuffle=True, random_state=0)
search = GridSearchCV(model, grid, cv=folds).fit(data.obs, counts)
pd.Series(search.best_params_, name="best").to_frame()

# %%
# The search finds the true formulas. The picture shows how far the held-out log-likelihood per
# count is below the best, with depth as the offset. Too simple a mean costs most, and a spline with
# unneeded columns costs least. The score also detects a wrong dispersion.

results = pd.DataFrame(search.cv_results_).rename(
    columns=lambda name: name.removeprefix("param_formulatransformer__")
)
results["shortfall"] = results["mean_test_score"].max() - results["mean_test_score"]
table = (
    results[results["offset"].notna()]
    .pivot_table("shortfall", "mean", "dispersion")
    .loc[means, dispersions]
)

figure, ax = plt.subplots(figsize=(6.4, 4))
ax.imshow(table, cmap="YlOrBr", vmax=0.12, aspect="auto")
for row, values in enumerate(table.to_numpy()):
    for column, value in enumerate(values):
        color = "white" if value > 0.08 else "black"
        ax.text(column, row, f"{value:.4f}", ha="center", va="center", color=color)
ax.set_xticks(range(len(dispersions)), dispersions)
ax.set_yticks(range(len(means)), means)
_ = ax.set(xlabel="dispersion", ylabel="mean", title="Log-likelihood per count below the best")

# %%
# Table of the results
# --------------------
#
# ``std_test_score`` is the standard deviation between folds, and all formulas share most of it. In
# the same cells, differences between formulas are much more certain than it suggests.

columns = ["mean", "dispersion", "offset", "mean_test_score", "std_test_score", "mean_fit_time"]
results.sort_values("rank_test_score")[columns].head(6).round(4)

# %%
# The best model is fitted again
# ------------------------------
#
# ``best_estimator_`` is the best model, fitted to all cells. The search uses it for predictions.
# Displays accept the search itself.

display = CovariateDisplay.from_estimator(
    search, data.obs, counts, gene=counts.mean().idxmax(), covariate="pseudotime"
)

# %%
# Comparing NB and ZINB
# ---------------------
#
# A step is a parameter, too. So held-out counts also show whether genes have zero inflation. These
# genes have none, and ZINB is no better. Counts may be sparse, and stay sparse.

families = {"negbinregressor": [NegBinRegressor(), ZINBRegressor()]}
by_family = GridSearchCV(search.best_estimator_, families, cv=folds)
by_family.fit(data.obs, csr_matrix(counts))
pd.Series(by_family.cv_results_["mean_test_score"], ["NB", "ZINB"], name="score").round(
    4
).to_frame()

# %%
# Summary
# -------
#
# Combine the formulas of all parts in one grid, and let the log-likelihood of held-out counts
# decide. This gives one answer for all genes. :doc:`plot_06_cross_validation` gives an answer for
# each gene.
#
# See :doc:`/model_choice`, :doc:`/formulas` and :class:`~sc_glm.FormulaTransformer`.
