"""Cells of donors that differ: tests and intervals where donors, not cells, are the sample."""

import numpy as np
import pandas as pd
from draws import donor_effects, donors, draw, pseudobulk
from judging import covered, fit, rejected, rejections, share, wald

from sc_glm.inference import confidence_intervals

MEANS = (0.1, 20.0)
DIFFER = 0.4  # standard deviation of donors' log means
MODEL = "~ condition + cell_type"
# By name: numbers of the donors' cells, and which donors have the condition.
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
    "10 v 10, one of 400 cells": ([400] + [30] * 19, range(10)),
}
WITH_INTERVALS = (
    "2 v 2",
    "3 v 3",
    "2 v 10",
    "4 v 4",
    "6 v 6",
    "10 v 10",
    "6 v 6, 10 to 110 cells",
    "6 v 6, 5 to 220 cells",
)


def simulate(design, n_genes, *, effects=0.0):
    """Draw genes whose donors differ in the log mean, and half as much in the fold of a cell type.

    The effects of the condition and of the cell type are normal with a standard deviation
    ``effects``; they are returned, too.
    """
    rng = np.random.default_rng(7)
    obs = donors(rng, *DESIGNS[design])
    truth = {name: rng.normal(scale=effects, size=n_genes) for name in ("condition", "cell_type")}
    log_fold = donor_effects(rng, obs, n_genes, DIFFER)
    of_type = obs["cell_type"].to_numpy()[:, None]
    log_fold += of_type * donor_effects(rng, obs, n_genes, DIFFER / 2)
    log_fold += obs["condition"].to_numpy()[:, None] * truth["condition"]
    log_fold += of_type * truth["cell_type"]
    return draw(rng, obs, n_genes, log_fold=log_fold, means=MEANS), truth


def equal_donors(data):
    """Return weights of cells by which all donors weigh the same."""
    donor = data.obs["donor"]
    weight = 1 / donor.map(donor.value_counts()).to_numpy()
    return weight / weight.mean()


def nulls(design, n_genes):
    """Test covariates without an effect: by cells, by clusters, and by sums of donors."""
    data, _ = simulate(design, n_genes)
    weights, sums = equal_donors(data), pseudobulk(data)
    of_cells = {mean: fit(data, mean) for mean in (MODEL, "~ age")}
    weighted = {mean: fit(data, mean, sample_weight=weights) for mean in of_cells}
    of_sums = fit(sums, "~ condition")
    tests = {
        ("condition", "robust"): wald(of_cells[MODEL], data, "condition", "robust"),
        ("condition", "pseudobulk"): wald(of_sums, sums, "condition"),
    }
    for tested, constraint, mean in (
        ("condition", "condition", MODEL),
        ("age", "age", "~ age"),
        ("cell_type", "cell_type", MODEL),
        ("both", "condition, cell_type", MODEL),
    ):
        model, of_donors = of_cells[mean], weighted[mean]
        tests[tested, "observed"] = wald(model, data, constraint)
        tests[tested, "cluster"] = wald(model, data, constraint, "cluster")
        tests[tested, "weighted"] = wald(
            of_donors, data, constraint, "cluster", sample_weight=weights
        )
    return tests


def find(design, n_genes):
    """Return effects that are there, and by coefficient and kind their intervals."""
    data, truth = simulate(design, n_genes, effects=0.5)
    donor, weights = data.obs["donor"], equal_donors(data)
    plain, weighted = fit(data, MODEL), fit(data, MODEL, sample_weight=weights)
    kinds = {
        "observed": (plain, {}),
        "cluster": (plain, {"kind": "cluster", "groups": donor}),
        "weighted": (weighted, {"kind": "cluster", "groups": donor, "sample_weight": weights}),
    }
    result = {}
    for kind, (model, options) in kinds.items():
        table = confidence_intervals(model, data.obs, data.counts, **options)
        for feature in truth:
            own = table[table["feature"] == feature]
            result[feature, kind] = own.reset_index(drop=True)
    return truth, result


def tables(results, n_genes):
    """Write out rejections of all designs, and the intervals of some."""
    for tested in ("condition", "age", "cell_type", "both"):
        yield f"{tested}, without effect: p-values below 0.05, {n_genes} genes"
        yield pd.DataFrame(
            {
                "donors": design,
                **{
                    kind: rejected(tests[tested, kind]["p_value"])
                    for kind in ("observed", "robust", "pseudobulk", "cluster", "weighted")
                    if (tested, kind) in tests
                },
            }
            for design, tests in results.items()
        )
    yield "condition, without effect: all p-values"
    yield pd.DataFrame(
        {"donors": design, "kind": kind, **rejections(tests["condition", kind]["p_value"])}
        for design, tests in results.items()
        for kind in ("cluster", "weighted")
        if kind == "cluster" or len(set(DESIGNS[design][0])) > 1
    )
    found = {design: find(design, n_genes) for design in WITH_INTERVALS}
    for feature in ("condition", "cell_type"):
        yield f"{feature}, effects of 0.5: 95 % intervals that hold it, and that do not hold zero"
        yield pd.DataFrame(
            {
                "donors": design,
                **{
                    kind: share(covered(intervals[feature, kind], truth[feature]).dropna())
                    for kind in ("observed", "cluster", "weighted")
                },
                **{
                    f"{kind}, not zero": share(1 - covered(intervals[feature, kind], 0.0).dropna())
                    for kind in ("cluster", "weighted")
                },
            }
            for design, (truth, intervals) in found.items()
        )
