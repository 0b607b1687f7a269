"""
How do I combine sc_glm with scikit-learn's preprocessing?
==========================================================

Covariates often need preprocessing before a formula can use them. Missing values are imputed,
numbers are scaled or binned, and a hundred genes are reduced to a few components. If these are
steps of one pipeline, they are learnt from the training cells alone, tuned with the model, and
saved in the same file.
"""

import io

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn import pipeline as sklearn_pipeline
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts
from sc_glm.inference import wald_test
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

# %%
# Cells with missing values
# -------------------------
#
# The data are simulated cells of three types along a pseudotime. We hide the cell types, and the
# pseudotime of one cell in ten. The model is for 40 of the 160 genes. The other 120 genes may
# replace the information of the cell types.

data = make_counts(800, 160, offset="np.log(size_factor)", random_state=0)
rng = np.random.default_rng(0)
targets, others = data.counts.columns[:40], list(data.counts.columns[40:])
normalised = np.log1p(data.counts[others].div(data.obs["size_factor"], axis=0))
X = data.obs[["pseudotime", "batch", "size_factor"]].join(normalised)
X.loc[rng.random(len(X)) < 0.1, "pseudotime"] = np.nan
y = data.counts[targets]
X.iloc[:3, :5].round(2)

# %%
# One pipeline
# ------------
#
# Each group of columns has its own steps. ``set_output(transform="pandas")`` keeps the column
# names, which the formula needs: ``pca0``, ``pca1`` and so on are covariates like any other. (The
# components are computed by an exact solver. The randomised default gives slightly other components
# when the same cells are transformed again. Tests refuse cells that differ from those of the fit.)

filled = sklearn_pipeline.make_pipeline(SimpleImputer(), StandardScaler())
columns = ColumnTransformer(
    [
        ("time", filled, ["pseudotime"]),
        ("components", PCA(n_components=2, svd_solver="full"), others),
        ("kept", "passthrough", ["batch", "size_factor"]),
    ],
    verbose_feature_names_out=False,
).set_output(transform="pandas")
formula = FormulaTransformer("~ . - size_factor", offset="np.log(size_factor)")
model = make_pipeline(columns, formula, NegBinRegressor()).fit(X, y)

model.params_["mean"].iloc[:, :4].round(2)

# %%
# How many components?
# --------------------
#
# Nested parameters can set every step. The search compares numbers of components by the likelihood
# of held-out cells, which were not used to compute the components.

cv = KFold(3, shuffle=True, random_state=0)
numbers = [1, 2, 3, 4, 6, 8]
grid = {"columntransformer__components__n_components": numbers}
search = GridSearchCV(model, grid, cv=cv).fit(X, y)

without = clone(model).set_params(formulatransformer__mean="~ pseudotime + batch")
known = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
figure, ax = plt.subplots(figsize=(6, 3.6))
ax.plot(numbers, search.cv_results_["mean_test_score"], "o-", color="C0", label="components")
for name, score, line in (
    ("none", cross_val_score(without, X, y, cv=cv).mean(), ":"),
    ("true formula, nothing missing", cross_val_score(known, data.obs, y, cv=cv).mean(), "--"),
):
    ax.axhline(score, color="black", linestyle=line, linewidth=1, label=name)
ax.set(xlabel="number of components", ylabel="log-likelihood per held-out count")
ax.legend()
plt.show()

# %%
# The first components contain most of the information of the cell types. Further ones add little,
# and cost coefficients. The search chose:

search.best_params_

# %%
# Whole steps are parameters, too. This search compares bins of pseudotime with a slope.

bins = sklearn_pipeline.make_pipeline(
    SimpleImputer(), KBinsDiscretizer(4, encode="onehot-dense", strategy="uniform")
)
steps = GridSearchCV(
    search.best_estimator_, {"columntransformer__time": [filled, bins]}, cv=cv
).fit(X, y)
pd.Series(steps.cv_results_["mean_test_score"], index=["slope", "4 bins"]).round(4)

# %%
# After the search
# ----------------
#
# All functions of this package accept the search as a fitted model. This example tests the batch
# effect, which these cells do not have.

best = search.best_estimator_
test = wald_test(search, X, y, "batch[T.y] = 0")
print(f"{(test['p_value'] < 0.05).sum()} of {len(test)} genes with p < 0.05")
best

# %%
# All steps are saved together, with what each has learnt. The loaded pipeline gives the same
# predictions. (Open only files that you trust, as with any pickle.)

buffer = io.BytesIO()
joblib.dump(best, buffer)
buffer.seek(0)
np.array_equal(joblib.load(buffer).predict(X), best.predict(X))

# %%
# scikit-learn's own pipeline
# ---------------------------
#
# ``sc_glm.make_pipeline`` adds methods such as ``sample`` and ``predict_dist`` to scikit-learn's
# pipeline. scikit-learn's own pipeline works as well, in searches and for all functions of this
# package. For methods that it does not have, use its two parts, as in ``stock[-1].sample``.

stock = sklearn_pipeline.make_pipeline(columns, formula, NegBinRegressor()).fit(X, y)
simulated = stock[-1].sample(stock[:-1].transform(X), random_state=0)
print(simulated.shape, f"{stock.score(X, y):.4f}")
wald_test(stock, X, y, "pseudotime = 0").iloc[:3, [0, 1, 6]].round(4)

# %%
# Summary
# -------
#
# Put all preprocessing of covariates into the pipeline, with pandas output before the formula. Then
# it is fitted, tuned and saved as one object.
#
# See :class:`~sc_glm.FormulaTransformer`, :func:`~sc_glm.make_pipeline` and :doc:`/formulas`.
