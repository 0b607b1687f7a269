"""How often intervals hold the expected counts and the counts of new cells, after few cells."""

import numpy as np
import pandas as pd
from draws import cells, draw
from judging import fit, percent, share

from sc_glm.distributions import NB
from sc_glm.inference import prediction_intervals, predictions

MEANS = (20.0, 200.0)  # large enough that integers do not widen the intervals of counts much
N_NEW = 5
LEVEL = 0.95


def find(n_cells, n_genes):
    """Return a table, a row for each gene and new cell: what intervals hold, by kind.

    ``mean`` is whether an interval holds the expected count. ``plug-in`` and ``average`` are
    probabilities of a new count within the interval: of the estimated distribution, and of its
    average over the errors of the coefficients.
    """
    rng = np.random.default_rng(7)
    obs, new = cells(rng, n_cells), cells(rng, N_NEW)
    slope = rng.normal(scale=0.5, size=n_genes)
    data = draw(rng, obs, n_genes, log_fold=obs["x"].to_numpy()[:, None] * slope, means=MEANS)
    model = fit(data, "~ x")
    log_mean = new["log_depth"].to_numpy()[:, None] + new["x"].to_numpy()[:, None] * slope
    truth = NB(data.mean * np.exp(log_mean), data.size)
    of_mean = predictions(model, data.obs, data.counts, new)
    of_count = prediction_intervals(model, data.obs, data.counts, new)
    inside = (of_mean["lower"] <= truth.mu) & (truth.mu <= of_mean["upper"])
    known = (of_mean["reason"] == "") & (of_count["reason"] == "")
    held = {
        "mean": inside.to_numpy(dtype=float),
        "plug-in": _held(truth, *model.predict_dist(new).interval(LEVEL)),
        "average": _held(truth, of_count["lower"].to_numpy(), of_count["upper"].to_numpy()),
    }
    return {name: np.where(known, values, np.nan) for name, values in held.items()}


def _held(truth, lower, upper):
    """Return the true probabilities of counts within intervals."""
    return truth.cdf(upper) - truth.cdf(lower - 1)


def tables(n_cells, n_genes):
    """Write out the coverage after fits of several numbers of cells."""
    yield f"{100 * LEVEL:g} % intervals of {N_NEW} new cells, {n_genes} genes: mean and counts"
    found = {n: find(n, n_genes) for n in n_cells}
    yield pd.DataFrame(
        {
            "cells of the fit": n,
            "none": percent(np.isnan(held["mean"]).mean()),
            **{name: share(pd.Series(by_gene(values))) for name, values in held.items()},
        }
        for n, held in found.items()
    )


def by_gene(values):
    """Return the mean over the new cells of each gene that has intervals."""
    return np.nanmean(values[:, ~np.isnan(values).all(axis=0)], axis=0)
