"""
What does a model say of real cells?
====================================

2087 cells of the developing pancreas and 100 of their genes: the mean follows pseudotime, and the
dispersion depends on every column of ``obs``. Looked at in turn are a gene, the coefficients, how
each gene's fit ended, what is predicted, and simulated cells.
"""

# %%
# An AnnData and two formulas
# ---------------------------
#
# Counts are in a layer, covariates in ``obs``. ``~ .`` names all columns of ``obs``; of these,
# ``clusters``, ``clusters_coarse`` and ``cell_type`` divide the cells in the same way.

import warnings

import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import fetch_pancreas
from sc_glm.plots import CovariateDisplay, SimulatedSummariesDisplay

adata = fetch_pancreas()
del adata.obs["total_counts"]  # sizeFactor in other units
adata

# %%
# A gene over pseudotime
# ----------------------
#
# The gene with the most counts is switched on late. The band is to hold nine cells of ten; it comes
# from mean and dispersion together, and here both follow pseudotime.

trend = "~ pseudotime"
smooth = make_pipeline(FormulaTransformer(mean=trend, dispersion=trend), NegBinRegressor())
scg.fit(adata, smooth, layer="counts", key_added="trend")
counts = adata.to_df("counts")
gene = counts.mean().idxmax()
display = CovariateDisplay.from_estimator(
    smooth, adata.obs, counts, gene=gene, covariate="pseudotime"
)

# %%
# Columns that say the same
# -------------------------
#
# With ``~ .``, each of the three groupings of the cells has three columns. Many coefficients give
# the same prediction, and the fit takes the smallest: equal columns have equal coefficients.

model = make_pipeline(FormulaTransformer(mean=trend, dispersion="~ ."), NegBinRegressor())
with warnings.catch_warnings():
    # It says of how many genes coefficients are not determined: the tables below name them.
    warnings.simplefilter("ignore", ConvergenceWarning)
    scg.fit(adata, model, layer="counts")
model.params_["dispersion"].iloc[:, :6].round(2)

# %%
# Predictions and the likelihood do not depend on that choice. A test of such a coefficient would,
# and has ``aliased`` in the place of a number: leave out the columns that repeat others where you
# want to interpret coefficients.

table = inference.coefficient_table(model, adata.obs, counts)
own = table[(table["target"] == gene) & (table["part"] == "dispersion")].set_index("feature")
own[["estimate", "standard_error", "p_value", "reason"]].round(3)

# %%
# How each gene ended
# -------------------
#
# Nearly all genes have converged. The few *separated* ones lack counts in some group of cells, and
# a gene at the *Poisson boundary* lacks overdispersion there, so that some coefficient is infinite.
# ``undetermined`` names it; what is predicted is finite.

summary = model[-1].summary()
summary["status"].value_counts().to_frame()

# %%

summary[summary["status"] != "converged"]

# %%
# What is expected of each cell
# -----------------------------
#
# :func:`sc_glm.adata.predict` returns an AnnData: expected counts in ``X``, and each part's value
# in a layer. Here is the size :math:`r` of the first cells; the overdispersion is :math:`1 / r`.

predicted = scg.predict(adata, model)
predicted.to_df("dispersion").iloc[:4, :6].round(2)

# %%
# How much does a formula explain?
# --------------------------------
#
# A dispersion that differs between cells is worth thousands of units of log-likelihood, and more
# than a zero inflation. AIC, which charges for each coefficient, says the same.

constant = make_pipeline(FormulaTransformer(mean=trend), NegBinRegressor())
inflated = make_pipeline(
    FormulaTransformer(mean=trend, dispersion=trend, zero_inflation=trend), ZINBRegressor()
)
scg.fit(adata, constant, layer="counts", key_added="constant")
with warnings.catch_warnings():
    # All zeros of one gene's earliest cells are structural: that coefficient is infinite.
    warnings.simplefilter("ignore", ConvergenceWarning)
    scg.fit(adata, inflated, layer="counts", key_added="inflated")
models = {
    "NB, dispersion ~ 1": constant,
    "NB, dispersion ~ pseudotime": smooth,
    "NB, dispersion ~ .": model,
    "ZINB, all ~ pseudotime": inflated,
}
likelihoods = pd.DataFrame(
    {
        "log-likelihood": {name: fit[-1].log_likelihood_.sum() for name, fit in models.items()},
        "AIC": {name: inference.aic(fit, adata.obs, counts).sum() for name, fit in models.items()},
    }
)
likelihoods.round(2)

# %%
# Simulated cells
# ---------------
#
# Zeros and most means of cells that are drawn from the fit are those of the real ones. Where they
# are not, a straight line on the logarithmic scale is too simple for the gene: see
# :doc:`plot_04_pseudotime_splines`.

simulated = scg.sample(adata, inflated, random_state=0)
summaries = SimulatedSummariesDisplay.from_estimator(inflated, adata.obs, counts, random_state=0)

# %%
# What to take away
# -----------------
#
# Redundant columns, silent groups and Poisson-like genes end in predictions that are finite, and in
# words that say which coefficients are open. Mean and dispersion are predicted for each cell, which
# is what bands and simulated counts need.
#
# See :doc:`/formulas`, :doc:`/fits`, :doc:`/real_data`, and :mod:`sc_glm.adata`.
