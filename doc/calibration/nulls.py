"""p-values of hypotheses that are true, with independent cells."""

import numpy as np
from draws import cells, draw, inflations
from judging import by_class, fit, overall, reasons, share, wald

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.inference import likelihood_ratio_test

NOTHING = 1e-9  # a likelihood ratio that is zero but for rounding


def compare(data, tested, part="mean", *, regressor=NegBinRegressor):
    """Test a covariate of one part, by Wald's statistic of both kinds and the likelihood ratio."""
    reduced = fit(data, "~ 1", regressor=regressor)
    full = fit(data, **({"mean": "~ 1"} | {part: f"~ {tested}"}), regressor=regressor)
    return {
        "Wald, observed": wald(full, data, tested, part=part),
        "Wald, robust": wald(full, data, tested, "robust", part=part),
        "likelihood ratio": likelihood_ratio_test(reduced, full, data.obs, data.counts),
    }


def continuous(n_genes, n_cells=300):
    """A continuous covariate of the mean, with an offset."""
    rng = np.random.default_rng(1)
    data = draw(rng, cells(rng, n_cells), n_genes)
    return data, compare(data, "x")


def two_groups(n_genes, n_cells=300):
    """Two groups of cells, one in three and the others, without an offset."""
    rng = np.random.default_rng(2)
    obs = cells(rng, n_cells, share=1 / 3).assign(log_depth=0.0)
    data = draw(rng, obs, n_genes)
    return data, compare(data, "group")


def dispersion(n_genes, n_cells=300):
    """A continuous covariate of the dispersion."""
    rng = np.random.default_rng(3)
    data = draw(rng, cells(rng, n_cells), n_genes)
    return data, compare(data, "x", "dispersion")


def zero_inflation(n_genes, n_cells=300):
    """Negative binomial counts, tested for zero inflation."""
    rng = np.random.default_rng(4)
    data = draw(rng, cells(rng, n_cells), n_genes)
    reduced, full = fit(data, "~ 1"), fit(data, "~ 1", regressor=ZINBRegressor)
    return data, {"likelihood ratio": likelihood_ratio_test(reduced, full, data.obs, data.counts)}


def inflated_trend(n_genes, n_cells=300):
    """Zero-inflated counts, with a continuous covariate of the mean."""
    rng = np.random.default_rng(5)
    obs = cells(rng, n_cells)
    data = draw(rng, obs, n_genes, inflation=inflations(rng, n_genes))
    return data, compare(data, "x", regressor=ZINBRegressor)


NULLS = {
    "A covariate of the mean, mean ~ x": continuous,
    "Two groups, 100 and 200 cells, mean ~ group": two_groups,
    "A covariate of the dispersion, dispersion ~ x": dispersion,
    "NB or ZINB, counts are NB": zero_inflation,
    "A covariate of the mean of ZINB counts, mean ~ x": inflated_trend,
}


def tables(results):
    """Write the results of all of these out."""
    for title, (data, tests) in results.items():
        n_cells, n_genes = data.counts.shape
        yield f"{title}: {n_genes} genes x {n_cells} cells"
        yield overall(tests)
        yield from reasons(tests)
        table = by_class(data, tests)
        if NULLS[title] is zero_inflation:
            nothing = tests["likelihood ratio"]["statistic"] < NOTHING
            shares = [share(nothing[genes]) for _, genes in data.classes()]
            table["statistic is zero"] = shares
        yield table
