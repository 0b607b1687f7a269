"""The likelihood around a fit, by cells and by groups of cells."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm.datasets import make_counts
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.observed_information import (
    Clusters,
    outer_products_of_scores,
    score_and_information,
    score_and_information_by_cluster,
)

N = 240
CODES = np.random.default_rng(0).integers(0, 4, N)


def setting(columns, regressor=NegBinRegressor, *, weighted=False, alpha=0.0):
    data = make_counts(N, 5, offset="np.log(size_factor)", random_state=1)
    X = data.obs[["pseudotime"]].copy()
    X["batch"] = (data.obs["batch"] == "x").astype(float)
    X = X[columns]
    weights = np.random.default_rng(2).integers(1, 4, N).astype(float) if weighted else None
    model = regressor(alpha=alpha).fit(X, data.counts, sample_weight=weights)
    fitted = FittedData.of(model, X, data.counts)
    counts, designs = fitted.counts_and_designs(fitted.weights(weights))
    theta = designs.coordinates({part: x.to_numpy() for part, x in fitted.params.items()})
    return model, (fitted.family, sp.csr_array(counts.by_gene(slice(None))), designs, theta)


SETTINGS = {
    "cells of their own": {"columns": ["pseudotime"]},
    "equal cells": {"columns": ["batch"]},
    "weighted": {"columns": ["pseudotime", "batch"], "weighted": True},
    "weighted equal cells": {"columns": ["batch"], "weighted": True},
    "penalised": {"columns": ["pseudotime"], "alpha": 0.1},
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
@pytest.mark.parametrize("name", SETTINGS)
def test_groups_add_up_to_all_cells(name, regressor):
    model, (family, counts, designs, theta) = setting(**SETTINGS[name], regressor=regressor)
    whole = score_and_information(family, counts, designs, theta)
    assert_allclose(whole.log_likelihood, model.log_likelihood_, rtol=1e-9)
    groups = score_and_information_by_cluster(family, counts, Clusters.of(CODES, designs), theta)
    assert len(groups) == 4
    penalties = [part.penalty for part in designs.parts.values()]
    if model.alpha:
        assert any(penalty.any() for penalty in penalties)
    else:
        assert_allclose(sum(group.score for group in groups), whole.score, rtol=1e-7, atol=1e-7)
        assert_allclose(
            sum(group.information for group in groups), whole.information, rtol=1e-7, atol=1e-7
        )
    assert_allclose(sum(group.log_likelihood for group in groups), whole.log_likelihood, rtol=1e-9)
    assert not np.allclose(groups[0].log_likelihood, groups[1].log_likelihood)


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
@pytest.mark.parametrize("name", ["weighted", "weighted equal cells"])
def test_products_are_those_of_groups_of_one_cell(name, regressor):
    _, (family, counts, designs, theta) = setting(**SETTINGS[name], regressor=regressor)
    cells = score_and_information_by_cluster(
        family, counts, Clusters.of(np.arange(N), designs), theta
    )
    scores = np.stack([cell.score for cell in cells], 1)
    expected = np.einsum("gik,gil->gkl", scores, scores)
    found = outer_products_of_scores(family, counts, designs, theta)
    assert_allclose(found, expected, rtol=1e-7, atol=1e-7)
