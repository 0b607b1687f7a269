"""Genes are fitted on a Dask cluster."""

import joblib
import numpy as np
from distributed import Client

import sc_glm as sg

data = sg.datasets.make_counts(80, 4, random_state=0)
model = sg.make_pipeline(
    sg.FormulaTransformer("~ pseudotime"), sg.NegBinRegressor(batch_size=2, n_jobs=2)
)
alone = model.fit(data.obs, data.counts).predict(data.obs)
with Client(processes=False, dashboard_address=None), joblib.parallel_config("dask"):
    together = model.fit(data.obs, data.counts).predict(data.obs)
np.testing.assert_array_equal(together, alone)
