"""
Cross-validation: does a model hold for new cells or new donors?
================================================================

A model is as good as its predictions for new counts. Here the score of all models is the mean
log-likelihood of a held-out count. The choice of held-out cells decides the question that the score
answers. Cells of a donor that the fit has seen are not new.
"""

# %%
# Twelve donors in two conditions
# -------------------------------
#
# The data are simulated blood cells. The condition changes one gene in five. In all genes, donors
# also differ from each other independently of the condition. Genes that are very rare in some cell
# type are left out.

import matplotlib.pyplot as plt
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix
from sklearn.model_selection import GroupKFold, KFold, cross_val_score, cross_validate

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.metrics import neg_brier_zeros_scorer, neg_crps_scorer, neg_deviance_scorer
from sc_glm.plots import style
from sc_glm.selection import choose_model, compare_models

plt.style.use(style())  # the style of the displays

data = make_counts(1500, 200, preset="donors", random_state=0)
groups = [data.obs["condition"], data.obs["cell_type"]]
seen = (data.counts > 0).groupby(groups, observed=True).sum().min() >= 5
counts = data.counts.loc[:, seen]
adata = AnnData(csr_matrix(counts), obs=data.obs, var=pd.DataFrame(index=counts.columns))
donors = adata.obs["donor"]
adata

# %%
# Held-out cells and held-out donors
# ----------------------------------
#
# An :class:`~sc_glm.adata.AnnDataRegressor` works in scikit-learn's cross-validation like any
# estimator. Counts stay sparse, and each cell keeps its own depth. There are six folds of cells,
# and six folds of two donors each:


def make_model(mean):
    """Return a model of counts in an AnnData, with depth as the offset."""
    formulas = FormulaTransformer(mean, offset="np.log(size_factor)")
    return AnnDataRegressor(make_pipeline(formulas, NegBinRegressor()))


models = {
    "cell type": make_model("~ cell_type"),
    "+ condition": make_model("~ cell_type + condition"),
}
cells_apart, donors_apart = KFold(6, shuffle=True, random_state=0), GroupKFold(6)


def score(cv, groups=None):
    """Score all models in the same folds."""
    return pd.DataFrame(
        {
            name: cross_val_score(model, adata, cv=cv, groups=groups)
            for name, model in models.items()
        }
    )


scores = {"cells": score(cells_apart), "donors": score(donors_apart, donors)}
pd.DataFrame({held_out: table.mean() for held_out, table in scores.items()}).round(4)

# %%
# The plot shows the gain from the condition, fold by fold. It is positive for all folds of held-out
# cells, because the condition separates their donors from half of the others. For held-out donors,
# it is positive in some folds and negative in others. Most of what the condition says about known
# donors does not hold for new ones.

figure, ax = plt.subplots(figsize=(5, 3.4))
for place, table in enumerate(scores.values()):
    gain = table["+ condition"] - table["cell type"]
    ax.plot([place] * len(gain), gain, "o", alpha=0.7)
    ax.plot(place, gain.mean(), "_", color="black", markersize=30)
ax.axhline(0, color="0.6", linewidth=1, zorder=0)
ax.set_xticks(range(len(scores)), [f"held-out {held_out}" for held_out in scores])
_ = ax.set(xlim=(-0.5, 1.5), ylabel="gain by the condition, per count")

# %%
# Other scores
# ------------
#
# :mod:`sc_glm.metrics` has scorers for more specific questions. They are negative, so larger is
# better. The deviance is for means, the Brier score for zeros, and CRPS for whole distributions in
# units of counts. On held-out donors, they disagree here: with the condition, the means get worse
# and the distributions a little better. A score of means does not depend on a dispersion formula.

scoring = {
    "deviance": neg_deviance_scorer,
    "Brier score of zeros": neg_brier_zeros_scorer,
    "CRPS": neg_crps_scorer,
}
rows = {}
for name in ["cell type", "+ condition"]:
    results = cross_validate(models[name], adata, cv=donors_apart, groups=donors, scoring=scoring)
    rows[name] = {score: results[f"test_{score}"].mean() for score in scoring}
pd.DataFrame(rows).T.round(4)

# %%
# Gene by gene
# ------------
#
# Genes with large counts dominate one score for all genes. ``compare_models`` gives an answer for
# each gene, with the standard error of the difference. With ``groups``, the standard error is
# between donors.

by_cells = compare_models(models, adata, cv=cells_apart)
by_donors = compare_models(models, adata, cv=donors_apart, groups=donors)
by_donors.head(4).round(4)

# %%
# With held-out cells, the condition is chosen for 16 genes without an effect. With held-out donors,
# it is chosen for 2. The price is that true effects are missed if they are small compared with the
# differences between twelve donors.

affected = (data.params["mean"].loc["condition[T.case]", counts.columns] != 0).map(
    {True: "effect", False: "no effect"}
)
chosen = pd.DataFrame(
    {
        held_out: (choose_model(table) == "+ condition").groupby(affected).sum()
        for held_out, table in {"by cells": by_cells, "by donors": by_donors}.items()
    }
)
chosen.assign(genes=affected.value_counts()).rename_axis("truth")

# %%
# Where the condition has a large effect, both agree, along the diagonal. The gene that gains most
# in held-out cells has no effect: it gains by the donors' own differences, and loses in held-out
# donors.

gains = pd.DataFrame(
    {
        held_out: table[table["model"] == "+ condition"].set_index("gene")["difference"]
        for held_out, table in {"cells": by_cells, "donors": by_donors}.items()
    }
)
figure, ax = plt.subplots(figsize=(5, 4))
for truth, color in {"no effect": "0.6", "effect": "C2"}.items():
    rows = gains[affected == truth]
    ax.plot(rows["cells"], rows["donors"], "o", color=color, markersize=5, label=truth)
ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
ax.axhline(0, color="0.6", linewidth=1, zorder=0)
ax.set(xlabel="gain in held-out cells", ylabel="gain in held-out donors")
_ = ax.legend(title="condition")

# %%
# Summary
# -------
#
# Hold out what will be new when you use the model: donors, if it should hold for new donors. The
# log-likelihood depends on every part of the model. ``compare_models`` computes it gene by gene,
# with its standard error.
#
# :doc:`plot_08_donors` tests such a condition. See :doc:`/model_choice`,
# :class:`~sc_glm.adata.AnnDataRegressor`, :mod:`sc_glm.metrics` and
# :func:`sc_glm.selection.compare_models`.
