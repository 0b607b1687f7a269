"""The information on the mean is the block of the whole expected information."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm._design.design import PartDesign
from sc_glm._likelihood.family import NegBinFamily
from sc_glm._solver.gene_block import Designs
from sc_glm.distributions.expected_information import (
    Zeros,
    expected_information,
    information_in_bases,
)
from sc_glm.inference.mean_information import information_on_mean


@pytest.mark.parametrize("with_groups", [True, False])
@pytest.mark.parametrize("size_varies", [True, False])
def test_it_is_a_block_of_the_whole_information(with_groups, size_varies):
    rng = np.random.default_rng(0)
    codes = np.r_[0, 1, 2, rng.integers(0, 3, 97)]
    weights = rng.integers(1, 4, 100).astype(float)
    mean = PartDesign.of(np.eye(3)[codes], weights)
    column = (codes + 1.0)[:, None] if size_varies else np.ones((100, 1))
    size = PartDesign.of(column, weights)
    designs = Designs({"mean": mean, "dispersion": size}, rng.normal(size=100), weights)
    if with_groups:
        designs = replace(designs, groups=codes)
    theta = rng.normal(size=(5, 4))
    theta[0, :3] = -40  # a gene without counts
    bases = [mean.basis(), size.basis()]
    predictors = [bases[0] @ theta[:, :3].T + designs.offset[:, None], bases[1] @ theta[:, 3:].T]
    entries = expected_information(Zeros.of(NegBinFamily(), predictors), predictors)
    weighted = {pair: weights[:, None] * values for pair, values in entries.items()}
    expected = information_in_bases(weighted, bases)[:, :3, :3]
    assert_allclose(information_on_mean(designs, theta), expected, rtol=1e-9, atol=1e-25)
