"""
Which formula for which part? A grid search
===========================================

A formula is a parameter like any other, so scikit-learn's grid search can cross the formulas of
mean, dispersion and offset. Its score, the log-likelihood of held-out counts, sees all of them: one
of the mean alone, such as R², cannot see a dispersion.
"""

# %%
# Cells whose formulas are known
# ------------------------------
#
# 900 simulated cells. Each gene's mean was drawn as a spline of pseudotime, in proportion to depth,
# and its dispersion by cell type. The search is not told; rare genes, which can tell little, are
# left out.

import matplotlib.pyplot as plt
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.model_selection import GridSearchCV, KFold

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.plots import CovariateDisplay

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
# The parameters of a step have its name, two underscores and their own. Cells are shuffled before
# they are cut into folds, as those of a real AnnData often stand in the order of their type.

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
# The search finds what the counts were drawn from. As a picture: held-out log-likelihood per count
# below the best, with depth as the offset. Too simple a mean costs most, a spline with needless
# columns least. A wrong dispersion is seen as well.

results = pd.DataFrame(search.cv_results_).rename(
    columns=lambda name: name.removeprefix("param_formulatransformer__")
)
results["shortfall"] = results["mean_test_score"].max() - results["mean_test_score"]
table = (
    results[results["offset"].notna()]
    .pivot_table("shortfall", "mean", "dispersion")
    .loc[means, dispersions]
)

figure, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
ax.imshow(table, cmap="YlOrBr", vmax=0.12, aspect="auto")
for row, values in enumerate(table.to_numpy()):
    for column, value in enumerate(values):
        color = "white" if value > 0.08 else "black"
        ax.text(column, row, f"{value:.4f}", ha="center", va="center", color=color)
ax.set_xticks(range(len(dispersions)), dispersions)
ax.set_yticks(range(len(means)), means)
_ = ax.set(xlabel="dispersion", ylabel="mean", title="Log-likelihood per count below the best")

# %%
# The table behind it
# -------------------
#
# ``std_test_score`` is between folds, and shared by all formulas: differences between formulas in
# the same cells are much more certain than it suggests.

columns = ["mean", "dispersion", "offset", "mean_test_score", "std_test_score", "mean_fit_time"]
results.sort_values("rank_test_score")[columns].head(6).round(4)

# %%
# The best model is fitted again
# ------------------------------
#
# ``best_estimator_`` is that model, fitted to all cells, and the search predicts with it. The
# displays take the search as it is.

display = CovariateDisplay.from_estimator(
    search, data.obs, counts, gene=counts.mean().idxmax(), covariate="pseudotime"
)

# %%
# A step is a parameter, too
# --------------------------
#
# Whether zeros are inflated is another question to held-out counts. They are not in these genes,
# and ZINB does no better. Counts may be sparse, and stay so.

families = {"negbinregressor": [NegBinRegressor(), ZINBRegressor()]}
by_family = GridSearchCV(search.best_estimator_, families, cv=folds)
by_family.fit(data.obs, csr_matrix(counts))
pd.Series(by_family.cv_results_["mean_test_score"], ["NB", "ZINB"], name="score").round(
    4
).to_frame()

# %%
# What to take away
# -----------------
#
# Cross the formulas of all parts in one grid, and let the log-likelihood of held-out counts decide.
# That is one answer for all genes; :doc:`plot_06_cross_validation` has one for each.
#
# See :doc:`/model_choice`, :doc:`/formulas` and :class:`~sc_glm.FormulaTransformer`.
