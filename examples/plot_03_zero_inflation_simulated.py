"""
Can a fit distinguish zero inflation from dispersion?
=====================================================

A zero may come from a small mean, a small size or zero inflation. If covariates affect each of the
three, a large number of cells distinguishes them. This example has 50000 simulated cells with a
known truth.
"""

# %%
# Counts with a known truth
# -------------------------
#
# As in :doc:`plot_01_simulated_counts`, two covariates affect the mean and two the size. Two more
# affect the probability :math:`\pi` of a structural zero. Such a zero replaces the count.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.plots import style

plt.style.use(style())  # the style of the displays

rng = np.random.default_rng(0)
n_cells, n_genes = 50_000, 20
x_mean, x_dispersion = rng.normal(size=(2, n_cells, 2))
true_mean, true_dispersion = rng.normal(size=(2, 2, n_genes))
mu = np.exp(x_mean @ true_mean)
r = np.exp(x_dispersion @ true_dispersion)
uninflated = rng.negative_binomial(r, r / (r + mu))

x_inflation, true_inflation = rng.normal(size=(n_cells, 2)), rng.normal(size=(2, n_genes))
pi = expit(x_inflation @ true_inflation)
counts = uninflated * (rng.uniform(size=pi.shape) >= pi)

truth = {"mean": true_mean, "dispersion": true_dispersion, "zero_inflation": true_inflation}
columns = [f"{part}_dim{i}" for part in truth for i in range(2)]
obs = pd.DataFrame(np.hstack([x_mean, x_dispersion, x_inflation]), columns=columns)
zeros = pd.Series({"before inflation": (uninflated == 0).mean(), "after": (counts == 0).mean()})
zeros.rename("share of zeros").to_frame().round(2)

# %%
# A formula for each of three parts
# ---------------------------------
#
# The model has 120 coefficients, and one fit estimates all of them.

formulas = {part: f"~ {part}_dim0 + {part}_dim1 - 1" for part in truth}
model = make_pipeline(FormulaTransformer(**formulas), ZINBRegressor())
model.fit(obs, counts)
model[-1].summary()["status"].value_counts().to_frame()

# %%
# Estimates and true coefficients
# -------------------------------
#
# With so many cells, the estimates are close to the truth. Dispersion and zero inflation are less
# certain than the mean. The information on them comes only from the spread of the counts and from
# the zeros.


def compare(model):
    """Return the coefficients of a fit and the true ones, one row for each."""
    tables = []
    for part, estimates in model.params_.items():
        slopes = estimates.drop(index="Intercept", errors="ignore")
        table = slopes.melt(var_name="gene", value_name="estimate", ignore_index=False)
        tables.append(table.assign(part=part, truth=truth[part].T.ravel()))
    return pd.concat(tables).rename_axis("feature").reset_index()


def draw(table, title):
    """Draw estimate against truth, a colour for each part."""
    _, ax = plt.subplots(figsize=(5, 4.2))
    for part, rows in table.groupby("part", sort=False):
        ax.plot(rows["truth"], rows["estimate"], "o", markersize=4, label=part)
    ax.axline((0, 0), slope=1, color="0.6", linewidth=1, zorder=0)
    ax.set(title=title, xlabel="true coefficient", ylabel="estimate")
    ax.legend()


table = compare(model)
draw(table, "ZINB: all three parts")
error = (table["estimate"] - table["truth"]).abs()
error.groupby(table["part"], sort=False).mean().rename("mean absolute error").to_frame().round(4)

# %%
# What if the inflation is left out?
# ----------------------------------
#
# The second model is a negative binomial without zero inflation. Its intercepts allow a smaller
# mean and size. Its dispersion has to explain the additional zeros, and the coefficients of the
# dispersion are drawn towards zero. The coefficients of the mean stay near the truth. The
# likelihood shows that something is missing.

without = make_pipeline(
    FormulaTransformer("~ mean_dim0 + mean_dim1", "~ dispersion_dim0 + dispersion_dim1"),
    NegBinRegressor(),
)
without.fit(obs, counts)
# sphinx_gallery_thumbnail_number = 2
draw(compare(without), "NB: zero inflation left out")

# %%

models = {"ZINB": model, "NB": without}
likelihoods = pd.Series({name: fit[-1].log_likelihood_.sum() for name, fit in models.items()})
likelihoods.rename("log-likelihood").to_frame().round(2)

# %%
# Summary
# -------
#
# If there is zero inflation that depends on covariates, the fit finds it. Leaving it out distorts
# the dispersion first. Most genes of droplet data have no zero inflation: see
# :doc:`plot_09_zero_inflation_or_not` before you add it.
#
# See :doc:`/zero_inflation`, :doc:`/fits` for the statuses in ``status_``, and
# :class:`~sc_glm.ZINBRegressor`.
