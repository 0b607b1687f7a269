"""How often intervals hold the truth, with independent cells."""

import numpy as np
import pandas as pd
from draws import cells, draw
from judging import covered, fit, percent, share

from sc_glm.inference import confidence_intervals


def find(n_genes, method, n_cells=300):
    """Return a draw, and for each coefficient which intervals hold the truth."""
    rng = np.random.default_rng(6)
    obs = cells(rng, n_cells)
    slope = rng.normal(scale=0.5, size=n_genes)
    data = draw(rng, obs, n_genes, log_fold=obs["x"].to_numpy()[:, None] * slope)
    model = fit(data, "~ x")
    table = confidence_intervals(model, data.obs, data.counts, method=method)
    by_coefficient = table.groupby(["part", "feature"], sort=False)
    truth = {"Intercept": np.log(data.mean), "x": slope, "log size": np.log(data.size)}
    coefficients = (own.reset_index(drop=True) for _, own in by_coefficient)
    return data, {
        name: covered(own, values)
        for own, (name, values) in zip(coefficients, truth.items(), strict=True)
    }


def tables(n_genes):
    """Write out the coverage of both methods, for as many genes of each."""
    for method, number in n_genes.items():
        data, holds = find(number, method)
        yield f"95 % intervals, {method}: {number} genes x {data.counts.shape[0]} cells"
        yield pd.DataFrame(
            {
                "positive cells": name,
                "genes": int(genes.sum()),
                **{which: share(inside[genes].dropna()) for which, inside in holds.items()},
                "no log size": percent(holds["log size"][genes].isna().mean()),
            }
            for name, genes in data.classes()
        )
