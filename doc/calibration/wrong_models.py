"""p-values of a true hypothesis about the mean, where the fitted distribution is another one."""

import numpy as np
import pandas as pd
from draws import cells, draw, inflations
from judging import fit, rejections, wald

MEANS = (0.5, 20.0)


def constant_inflation(rng, n_genes, n_cells):
    """Zero inflation that is the same in all cells."""
    obs = cells(rng, n_cells)
    return draw(rng, obs, n_genes, inflation=inflations(rng, n_genes), means=MEANS)


def inflation_of_a_group(rng, n_genes, n_cells):
    """Zero inflation in one cell of five, whose other counts are larger: means are equal."""
    obs = cells(rng, n_cells, share=0.2)
    inflation = inflations(rng, n_genes) * obs["group"].to_numpy()[:, None]
    log_fold = -np.log1p(-inflation)
    return draw(rng, obs, n_genes, inflation=inflation, log_fold=log_fold, means=MEANS)


def size_of_a_group(rng, n_genes, n_cells, *, more):
    """A group of one cell in five, whose size is another."""
    obs = cells(rng, n_cells, share=0.2)
    log_size = more * obs["group"].to_numpy()[:, None]
    return draw(rng, obs, n_genes, log_size=log_size, means=MEANS)


WRONG = {
    "ZINB, the same in all cells": (constant_inflation, {}),
    "ZINB, in one cell of five": (inflation_of_a_group, {}),
    "a third of the size in one cell of five": (size_of_a_group, {"more": -np.log(3)}),
    "three times the size in one cell of five": (size_of_a_group, {"more": np.log(3)}),
}


def nulls(name, n_genes, n_cells=300):
    """Test the group of cells, and a continuous covariate, in an NB model of one size."""
    simulate, options = WRONG[name]
    rng = np.random.default_rng(8)
    data = simulate(rng, n_genes, n_cells, **options)
    model = fit(data, "~ group + x")
    return {
        (tested, kind): wald(model, data, tested, kind)
        for tested in ("group", "x")
        for kind in ("observed", "robust")
    }


def tables(n_genes):
    """Write out the rejections of all of these."""
    yield f"NB of one size fitted to other counts, {n_genes} genes x 300 cells"
    yield pd.DataFrame(
        {"counts": name, "tested": tested, "kind": kind, **rejections(test["p_value"])}
        for name in WRONG
        for (tested, kind), test in nulls(name, n_genes).items()
    )
