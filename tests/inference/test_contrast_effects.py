"""Fractions of cells with counts, whose sets of cells are counted piece by piece."""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from sc_glm._counts.count_matrix import CountMatrix
from sc_glm.inference import contrast_effects


@pytest.mark.parametrize("kind", [np.asarray, sp.csc_array, sp.csr_array])
@pytest.mark.parametrize("entries", [1, 90, 10**6])
def test_fractions_with_counts(monkeypatch, kind, entries):
    monkeypatch.setattr(contrast_effects, "_MAX_DENSE_ENTRIES", entries)
    rng = np.random.default_rng(0)
    y, weights = rng.poisson(0.7, (30, 4)), rng.integers(0, 3, 30).astype(float)
    sets = [*(rng.random((5, 30)) < 0.4), np.zeros(30, dtype=bool)]
    counts = CountMatrix.of(kind(y), n_cells=30)
    found = contrast_effects.fractions_with_counts(counts, weights, sets)
    for number, of_set in enumerate(sets[:-1]):
        expected = (weights * of_set) @ (y > 0) / weights[of_set].sum()
        assert_allclose(found[:, number], expected)
    assert np.isnan(found[:, -1]).all()
