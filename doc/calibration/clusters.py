"""Clusters: leverages of donors from the observed or from the expected information.

``kind="cluster"`` adjusts the donors' scores by their leverages. Here the same sandwich is made
with leverages of the observed information, and both are compared.
"""

import numpy as np
import pandas as pd
from draws import donor_effects, donors, draw, inflations
from judging import fit
from scipy import stats

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.inference import coefficient_table
from sc_glm.inference.cluster_robust import AdjustedClusters, root_of_inverse
from sc_glm.inference.covariance_estimators import covariance_estimator
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.linear_combinations import LinearCombinations
from sc_glm.inference.observed_information import score_and_information_by_cluster

MODEL = "~ condition + cell_type"
EFFECTS = {"condition": 0.8, "cell_type": 0.4}
MEANS = (0.1, 20.0)
DIFFER = (0.1, 0.4, 0.7)  # standard deviations of donors' log means
# By name: numbers of the donors' cells, and which donors have the condition.
DESIGNS = {
    "3 v 3": ([40] * 6, range(3)),
    "4 v 4": ([100] * 8, range(4)),
    "6 v 6": ([40] * 12, range(6)),
    "6 v 6 of 300 cells": ([300] * 12, range(6)),
    "10 v 10": ([40] * 20, range(10)),
    "2 v 10": ([40] * 12, range(2)),
    "4 v 4, 10 to 120 cells": ([10, 20, 50, 120] * 2, range(4)),
    "10 v 10, 5 to 175 cells": ([5, 10, 10, 20, 20, 30, 50, 80, 100, 175] * 2, range(10)),
}
OF_MEANS = {"low": (0.1, 1.0), "high": (3.0, 30.0)}
OF_ZINB = ("3 v 3", "6 v 6", "10 v 10")
_MAX_ENTRIES = 4_000_000  # cells x genes, so that designs of many cells have fewer genes


def simulate(design, n_genes, differ, *, means=MEANS, effect=0.0, inflated=False):
    """Draw genes of donors; the fold of a cell type varies half as much as the mean does."""
    rng = np.random.default_rng(17)
    obs = donors(rng, *DESIGNS[design])
    n_genes = min(n_genes, _MAX_ENTRIES // len(obs))
    of_type, condition = (obs[name].to_numpy()[:, None] for name in ("cell_type", "condition"))
    log_fold = donor_effects(rng, obs, n_genes, differ)
    log_fold += of_type * donor_effects(rng, obs, n_genes, differ / 2)
    log_fold += effect * (EFFECTS["condition"] * condition + EFFECTS["cell_type"] * of_type)
    inflation = inflations(rng, n_genes) if inflated else 0.0
    return draw(rng, obs, n_genes, log_fold=log_fold, means=means, inflation=inflation)


def observed_leverages(model, data):
    """Return the groups of all genes with leverages of the observed information."""
    fitted = FittedData.of(model, data.obs, data.counts)
    estimator, counts = covariance_estimator("cluster", fitted, data.obs["donor"], None)
    groups = score_and_information_by_cluster(
        fitted.family,
        counts.by_gene(slice(None)),
        estimator.clusters,
        fitted.coordinates(estimator.designs),
    )
    information = np.stack([group.information for group in groups], 1)
    root = root_of_inverse(information.sum(axis=1))[1]
    inverse = root @ np.swapaxes(root, 1, 2)
    scores = np.stack([group.score for group in groups], 1)
    names = [name for params in fitted.params.values() for name in params.index]
    rows = np.stack([np.eye(len(names))[[names.index(feature)]] for feature in EFFECTS])
    combinations = LinearCombinations.of(rows, estimator.designs).theta_matrix
    clusters = AdjustedClusters.of(scores, information, information.sum(axis=1), inverse)
    return clusters, dict(zip(EFFECTS, combinations, strict=True))


def with_observed_leverages(table, clusters, test):
    """Repeat the test of ``table`` with groups that have other leverages."""
    df, full_leverage = clusters.degrees_of_freedom(test)
    error = np.sqrt(np.einsum("k,gkl,l->g", test[0], clusters.covariance(), test[0]))
    known = ~full_leverage & (df >= 1) & (table["reason"] == "").to_numpy()
    estimate = table["estimate"].to_numpy()
    p_value = 2 * stats.t.sf(np.abs(estimate) / np.where(known, error, 1.0), np.maximum(df, 1.0))
    return pd.DataFrame(
        {
            "estimate": estimate,
            "standard_error": np.where(known, error, np.nan),
            "p_value": np.where(known, p_value, np.nan),
        }
    )


def compare(design, n_genes, differ, *, inflated=False, **options):
    """Test both covariates with both leverages; return a table by covariate and information."""
    data = simulate(design, n_genes, differ, inflated=inflated, **options)
    model = fit(data, MODEL, regressor=ZINBRegressor if inflated else NegBinRegressor)
    coefficients = coefficient_table(
        model, data.obs, data.counts, kind="cluster", groups=data.obs["donor"]
    )
    clusters, combinations = observed_leverages(model, data)
    result = {}
    for feature, test in combinations.items():
        table = coefficients[coefficients["feature"] == feature].reset_index(drop=True)
        result[feature, "expected"] = table
        result[feature, "observed"] = with_observed_leverages(table, clusters, test)
    return result


def row_of(table, with_effect):
    """Return what a test comes to: rejections, standard errors, missing p-values, finds."""
    p, ratio = table["p_value"].dropna(), table["standard_error"].dropna()
    own = table.loc[table["p_value"].notna(), "estimate"]
    return {
        "below 0.05": f"{100 * (p < 0.05).mean():.1f}",
        "below 0.01": f"{100 * (p < 0.01).mean():.1f}",
        "error / sd": f"{ratio.mean() / own.std():.2f}",
        "no p": f"{100 * table['p_value'].isna().mean():.1f}",
        "found": f"{100 * (with_effect['p_value'] < 0.05).mean():.1f}",
    }


def rows(design, n_genes, differ, **options):
    """Return a row by covariate, with columns by measure and information."""
    without = compare(design, n_genes, differ, **options)
    effects = compare(design, n_genes, differ, effect=1.0, **options)
    result = {}
    for feature in EFFECTS:
        measures = {
            information: row_of(without[feature, information], effects[feature, information])
            for information in ("observed", "expected")
        }
        result[feature] = {
            (measure, information): measures[information][measure]
            for measure in measures["observed"]
            for information in measures
        }
    return result


def frame(labels, measures):
    """Make a table of labels and measures with two header lines."""
    table = pd.DataFrame(
        [
            {("", name): value for name, value in label.items()} | row
            for label, row in zip(labels, measures, strict=True)
        ]
    )
    table.columns = pd.MultiIndex.from_tuples(table.columns)
    return table


def tables(n_genes):
    """Write out all designs, then means, then zero-inflated counts."""
    studies = {
        f"NB, at most {n_genes} genes": (
            [{"donors": design, "sd": differ} for design in DESIGNS for differ in DIFFER],
            {},
        ),
        "NB, genes of low means (0.1 to 1) and of high means (3 to 30)": (
            [
                {"donors": "6 v 6", "sd": differ, "means": means}
                for means in OF_MEANS
                for differ in DIFFER
            ],
            {},
        ),
        "ZINB": (
            [{"donors": design, "sd": differ} for design in OF_ZINB for differ in DIFFER],
            {"inflated": True},
        ),
    }
    for title, (labels, options) in studies.items():
        found = []
        for label in labels:
            means = OF_MEANS[label["means"]] if "means" in label else MEANS
            found.append(rows(label["donors"], n_genes, label["sd"], means=means, **options))
        for feature, effect in EFFECTS.items():
            yield f"{title}: {feature}, without effect; found: with an effect of {effect}"
            yield frame(labels, [row[feature] for row in found])
