"""Simulated cells with a fitted model, which tests of several modules share."""

import numpy as np

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm.datasets import make_counts

N = 300
DATA = make_counts(N, 6, offset="np.log(size_factor)", random_state=3)
OBS, COUNTS = DATA.obs, DATA.counts
DONOR = np.arange(N) % 12


def pipeline(regressor=NegBinRegressor, mean="~ pseudotime + cell_type", **formulas):
    more = {"offset": "np.log(size_factor)", **formulas}
    return make_pipeline(FormulaTransformer(mean, **more), regressor())
