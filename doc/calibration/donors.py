"""Cells of donors that differ: tests and intervals where donors, not cells, are the sample."""

import numpy as np
import pandas as pd
from draws import donor_effects, donors, draw, pseudobulk
from judging import covered, fit, rejected, rejections, share, wald

from sc_glm.inference import confidence_intervals

MEANS = (0.1, 20.0)
# By name: numbers of the donors' cells, and which donors are treated.
DESIGNS = {
    "2 v 2": ([50] * 4, range(2)),
    "3 v 3": ([50] * 6, range(3)),
    "4 v 4": ([50] * 8, range(4)),
    "3 v 5": ([50] * 8, range(3)),
    "6 v 6": ([50] * 12, range(6)),
    "2 v 10": ([50] * 12, range(2)),
    "10 v 10": ([50] * 20, range(10)),
    "4 v 4, 10 to 120 cells": ([10, 20, 50, 120] * 2, range(4)),
    "6 v 6, 10 to 110 cells": ([10, 20, 30, 50, 80, 110] * 2, range(6)),
    "6 v 6, 5 to 220 cells": ([5, 5, 10, 10, 50, 220] * 2, range(6)),
    "10 v 10, 5 to 175 cells": ([5, 10, 10, 20, 20, 30, 50, 80, 100, 175] * 2, range(10)),
}


def simulate(design, n_genes, scale=0.4, *, effects=0.0):
    """Draw genes whose donors differ in the log mean, and half as much in that of a cell type.

    The effects of the condition and of the cell type are normal with a standard deviation
    ``effects``; they are returned, too.
    """
    rng = np.random.default_rng(7)
    obs = donors(rng, *DESIGNS[design])
    condition, cell_type = rng.normal(scale=effects, size=(2, n_genes))
    both = obs[["condition", "cell_type"]].to_numpy()
    log_fold = both @ [condition, cell_type] + donor_effects(rng, obs, n_genes, scale)
    log_fold += both[:, 1:] * donor_effects(rng, obs, n_genes, scale / 2)
    truth = {"condition": condition, "cell_type": cell_type}
    return draw(rng, obs, n_genes, log_fold=log_fold, means=MEANS), truth


def nulls(design, n_genes, scale=0.4):
    """Test covariates without an effect: by cells, by clusters, and by sums of donors."""
    data, _ = simulate(design, n_genes, scale)
    model = fit(data, "~ condition + cell_type")
    sums = pseudobulk(data)
    of_sums = fit(sums, "~ condition")
    return {
        ("condition", "observed"): wald(model, data, "condition"),
        ("condition", "robust"): wald(model, data, "condition", "robust"),
        ("condition", "pseudobulk"): wald(of_sums, sums, "condition"),
        ("condition", "cluster"): wald(model, data, "condition", "cluster"),
        ("cell_type", "observed"): wald(model, data, "cell_type"),
        ("cell_type", "cluster"): wald(model, data, "cell_type", "cluster"),
        ("both", "observed"): wald(model, data, "condition, cell_type"),
        ("both", "cluster"): wald(model, data, "condition, cell_type", "cluster"),
    }


def coverage(design, n_genes):
    """Return which intervals of effects that are there hold them."""
    data, truth = simulate(design, n_genes, effects=0.5)
    model = fit(data, "~ condition + cell_type")
    result = {}
    for kind in ("observed", "cluster"):
        groups = data.obs["donor"] if kind == "cluster" else None
        table = confidence_intervals(model, data.obs, data.counts, kind=kind, groups=groups)
        for feature, values in truth.items():
            own = table[table["feature"] == feature].reset_index(drop=True)
            result[feature, kind] = covered(own, values)
    return result


def tables(results, n_genes):
    """Write out rejections of all designs, and the coverage of some."""
    yield f"No effect, {n_genes} genes: p-values below 0.05"
    yield pd.DataFrame(
        {
            "donors": design,
            **{" ".join(which): rejected(test["p_value"]) for which, test in tests.items()},
        }
        for design, tests in results.items()
    )
    yield 'No effect, kind="cluster"'
    yield pd.DataFrame(
        {"donors": design, "tested": tested, **rejections(test["p_value"])}
        for design, tests in results.items()
        for (tested, kind), test in tests.items()
        if kind == "cluster"
    )
    yield "95 % intervals of effects whose standard deviation is 0.5"
    yield pd.DataFrame(
        {
            "donors": design,
            **{
                " ".join(which): share(inside.dropna())
                for which, inside in coverage(design, n_genes).items()
            },
        }
        for design in ("4 v 4", "6 v 6", "10 v 10", "6 v 6, 10 to 110 cells")
    )
