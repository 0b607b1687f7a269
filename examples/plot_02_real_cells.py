"""
What does a model of real cells show?
=====================================

The data are 2087 cells of the developing pancreas and 100 of their genes. This example shows the
curve of one gene over pseudotime, the genes that differ between two cell types, the status of each
gene, predictions, and simulated cells.
"""

# %%
# An AnnData
# ----------
#
# Counts are in a layer, covariates in ``obs``.

import warnings

import pandas as pd
from sklearn.exceptions import ConvergenceWarning

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, inference, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import fetch_pancreas
from sc_glm.plots import CovariateDisplay, SimulatedSummariesDisplay, VolcanoDisplay

adata = fetch_pancreas()
del adata.obs["total_counts"]  # sizeFactor in other units
adata

# %%
# A gene over pseudotime
# ----------------------
#
# The gene with the most counts is switched on late. Its mean follows a spline, and its dispersion a
# line. The band should contain nine of ten cells: it depends on both. The model knows its layer, so
# that plots and tests take the AnnData as it is.

trend = "~ pseudotime"
curve = make_pipeline(
    FormulaTransformer(mean="~ bs(pseudotime, df=5)", dispersion=trend), NegBinRegressor()
)
curve = scg.fit(adata, curve, layer="counts", key_added="curve")
gene = adata.to_df("counts").mean().idxmax()
display = CovariateDisplay.from_estimator(curve, adata, gene=gene, covariate="pseudotime")

# %%
# Two cell types
# --------------
#
# This model has a mean for each type, at the cell's depth. The contrast names the factor and the
# two levels. A positive fold change means more counts in beta cells.

types = make_pipeline(
    FormulaTransformer("~ cell_type", offset="np.log(sizeFactor)"), NegBinRegressor()
)
types = scg.fit(adata, types, layer="counts", key_added="types")
contrast = ("cell_type", "Beta", "Pre-endocrine")
tests = inference.differential_expression(types, adata, contrast=contrast)
columns = ["fraction", "fraction_reference", "log2_fold_change", "log10_p_value", "test"]
tests.nsmallest(6, "log10_p_value")[columns].round(2)

# %%

volcano = VolcanoDisplay.from_table(tests, sides=("Pre-endocrine", "Beta"))

# %%
# Redundant columns
# -----------------
#
# ``~ .`` stands for all columns of ``obs``. Three of these columns, ``clusters``,
# ``clusters_coarse`` and ``cell_type``, divide the cells in the same way, and each has three
# columns in the design. Many coefficients give the same prediction. The fit chooses the
# coefficients of smallest norm, so equal columns have equal coefficients.

model = make_pipeline(FormulaTransformer(mean=trend, dispersion="~ ."), NegBinRegressor())
with warnings.catch_warnings():
    # The warning counts the genes with undetermined coefficients. The tables below name them.
    warnings.simplefilter("ignore", ConvergenceWarning)
    model = scg.fit(adata, model, layer="counts")
model.params_["dispersion"].iloc[:, :6].round(2)

# %%
# Predictions and the likelihood do not depend on that choice. A test of such a coefficient would
# depend on it, so the test has the reason ``aliased`` and no number. Leave out redundant columns if
# you want to interpret coefficients.

table = inference.coefficient_table(model, adata)
own = table[(table["gene"] == gene) & (table["part"] == "dispersion")].set_index("feature")
own[["estimate", "standard_error", "p_value", "reason"]].round(3)

# %%
# Status of each gene
# -------------------
#
# Nearly all genes have converged. The few *separated* genes have no counts in some group of cells.
# A gene at the *Poisson boundary* has no overdispersion there. In both cases some coefficient is
# infinite, and ``undetermined`` names it. Predictions are finite.

summary = model[-1].summary()
summary["status"].value_counts().to_frame()

# %%

summary[summary["status"] != "converged"]

# %%
# Predictions for each cell
# -------------------------
#
# :func:`sc_glm.adata.predict` returns an AnnData. It has expected counts in ``X``, and the values
# of each part in a layer. This table has the size :math:`r` of the first cells. The overdispersion
# is :math:`1 / r`.

predicted = scg.predict(adata, model)
predicted.to_df("dispersion").iloc[:4, :6].round(2)

# %%
# How much does a formula explain?
# --------------------------------
#
# For a mean that is a line in pseudotime, a dispersion that differs between cells increases the
# log-likelihood by thousands of units. This is more than zero inflation adds. The curve adds more
# than both. AIC, which has a penalty for each coefficient, leads to the same conclusion.

line = make_pipeline(FormulaTransformer(mean=trend, dispersion=trend), NegBinRegressor())
constant = make_pipeline(FormulaTransformer(mean=trend), NegBinRegressor())
inflated = make_pipeline(
    FormulaTransformer(mean=trend, dispersion=trend, zero_inflation=trend), ZINBRegressor()
)
line = scg.fit(adata, line, layer="counts", key_added="line")
constant = scg.fit(adata, constant, layer="counts", key_added="constant")
with warnings.catch_warnings():
    # In the earliest cells of one gene, all zeros are structural: that coefficient is infinite.
    warnings.simplefilter("ignore", ConvergenceWarning)
    inflated = scg.fit(adata, inflated, layer="counts", key_added="inflated")
models = {
    "NB, dispersion ~ 1": constant,
    "NB, dispersion ~ pseudotime": line,
    "NB, dispersion ~ .": model,
    "ZINB, all ~ pseudotime": inflated,
    "NB, mean ~ bs(pseudotime, df=5)": curve,
}
likelihoods = pd.DataFrame(
    {
        "log-likelihood": {name: fit[-1].log_likelihood_.sum() for name, fit in models.items()},
        "AIC": {name: inference.aic(fit, adata).sum() for name, fit in models.items()},
    }
)
likelihoods.round(2)

# %%
# Simulated cells
# ---------------
#
# Simulated cells have the zeros, and most of the means, of the real cells. Where means differ, a
# straight line on the logarithmic scale is too simple for the gene: see
# :doc:`plot_04_pseudotime_splines`.

simulated = scg.sample(adata, inflated, random_state=0)
summaries = SimulatedSummariesDisplay.from_estimator(inflated, adata, random_state=0)

# %%
# Summary
# -------
#
# Predictions are finite even with redundant columns, groups without counts and Poisson-like genes.
# ``status`` and ``undetermined`` say which coefficients are not determined. Mean and dispersion are
# predicted for each cell, and bands and simulated counts need both.
#
# See :doc:`/formulas`, :doc:`/fits`, :doc:`/real_data`, and :mod:`sc_glm.adata`.
