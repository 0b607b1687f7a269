"""Log-likelihoods show whether data are those of the fit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sc_glm import NegBinRegressor
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.log_likelihood import log_likelihoods

N = 100
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 1))
Y = RNG.negative_binomial(3, 3 / (3 + np.exp(1 + 0.4 * X) * np.array([0.5, 1.0, 4.0])))


def log_likelihoods_of(fitted, weights):
    return log_likelihoods(fitted, *fitted.counts_and_designs(fitted.weights(weights)))


def test_the_data_must_be_those_of_the_fit():
    model = NegBinRegressor(tol=1e-10).fit(X, Y)
    fitted = FittedData.of(model, X, Y)
    changed = Y.copy()
    changed[0, 1] += 1
    for data in ((X, changed), (X + 0.1, Y), (X[::-1], Y)):
        with pytest.raises(ValueError, match=r"must be those of the fit: .* gene 'y\d'"):
            log_likelihoods_of(FittedData.of(model, *data), None)
    with pytest.raises(ValueError, match="must be those of the fit"):
        log_likelihoods_of(fitted, np.r_[2.0, np.ones(N - 1)])
    assert_allclose(log_likelihoods_of(fitted, None), model.log_likelihood_, rtol=1e-10)
