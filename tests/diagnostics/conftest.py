import numpy as np
import pytest

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.datasets import make_counts


@pytest.fixture(scope="package")
def data():
    formulas = {"mean": "~ pseudotime", "zero_inflation": "~ 1", "offset": "np.log(size_factor)"}
    return make_counts(400, 5, **formulas, random_state=0)


@pytest.fixture(scope="package")
def model(data):
    steps = FormulaTransformer(**data.formulas), ZINBRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


@pytest.fixture(scope="package")
def null():
    """A fit to 1500 genes of the model, whose means go up or down with a covariate."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 1))
    mu = np.exp(rng.uniform(0, 1.5, 1500) + x * rng.normal(0, 0.4, 1500))
    y = rng.negative_binomial(1.0, 1 / (1 + mu))
    return NegBinRegressor().fit(x, y), x, y
