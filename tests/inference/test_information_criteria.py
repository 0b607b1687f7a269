"""Information criteria from the log-likelihoods of fits."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import inference
from tests.inference.simulated import COUNTS, OBS, N, pipeline


def test_information_criteria(model):
    log_likelihood = model[-1].log_likelihood_
    assert_allclose(inference.aic(model, OBS, COUNTS), 2 * 5 - 2 * log_likelihood)
    assert_allclose(inference.bic(model, OBS, COUNTS), np.log(N) * 5 - 2 * log_likelihood)
    assert_array_equal(inference.aic(model, OBS, COUNTS).index, COUNTS.columns)
    twice = pipeline().fit(OBS, COUNTS, negbinregressor__sample_weight=np.full(N, 2.0))
    found = inference.bic(twice, OBS, COUNTS, sample_weight=np.full(N, 2.0))
    assert_allclose(found, np.log(2 * N) * 5 - 4 * log_likelihood, rtol=1e-6)
