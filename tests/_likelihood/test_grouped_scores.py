"""Products of scores by groups of cells, against those of single cells."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.observed_information import outer_products_of_scores

N = 600


def setting(scale, n_levels=3):
    """Return data with equal designs in groups, and random coordinates."""
    rng = np.random.default_rng(3)
    levels = np.eye(n_levels)[rng.integers(0, n_levels, N)][:, 1:]
    X = pd.DataFrame(levels, columns=[f"mean__{i}" for i in range(n_levels - 1)])
    X.insert(0, "mean__one", 1.0)
    X["offset__depth"] = rng.normal(0, 0.8, N)
    mu = scale * np.exp(X["offset__depth"].to_numpy())[:, None] * rng.uniform(0.3, 2, 5)
    y = rng.negative_binomial(2, 2 / (2 + mu)).astype(float)
    y[:3, 0] += 0.5  # counts need not be integers
    weights = rng.uniform(0.5, 2, N)
    model = NegBinRegressor().fit(X, y, sample_weight=weights)
    data = FittedData.of(model, X, y)
    counts, designs = data.counts_and_designs(weights)
    theta = data.coordinates(designs)
    theta += rng.normal(0, 0.2, theta.shape)
    return data.family, counts.by_gene(slice(None)), designs, theta


@pytest.mark.parametrize("scale", [0.1, 1.0, 20.0, 1000.0])
def test_groups_have_the_products_of_their_cells(scale):
    family, counts, designs, theta = setting(scale)
    assert designs.groups is not None
    found = outer_products_of_scores(family, counts, designs, theta)
    by_cell = replace(designs, groups=None)
    expected = outer_products_of_scores(family, counts, by_cell, theta)
    size = np.sqrt(np.einsum("gii->gi", expected))
    error = (found - expected) / (size[:, :, None] * size[:, None])
    assert np.abs(error).max() < 1e-10


def test_genes_of_large_means_are_not_differences(monkeypatch):
    """Their zeros would have scores many times as large as those of the counts."""
    family, counts, designs, theta = setting(1000.0)
    expected = outer_products_of_scores(family, counts, replace(designs, groups=None), theta)
    assert_allclose(outer_products_of_scores(family, counts, designs, theta), expected, rtol=1e-12)
    monkeypatch.setattr("sc_glm._likelihood.grouped_scores._LARGEST_LOG_MEAN", np.inf)
    found = outer_products_of_scores(family, counts, designs, theta)
    assert torch.from_numpy(found).isfinite().all()
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
