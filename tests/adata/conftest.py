"""Cells of the tests of AnnData, and a model that is fitted to them."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from sc_glm.datasets import make_counts
from tests.adata.cells import GENES, LEVELS, pipeline


@pytest.fixture(scope="module")
def source():
    data = make_counts(150, len(GENES), mean="~ pseudotime + cell_type", random_state=7)
    obs = data.obs.rename(index=lambda cell: f"cell{cell}")
    obs["cell_type"] = obs["cell_type"].cat.rename_categories(LEVELS)
    obs["donor"] = pd.Categorical([f"donor{i % 4}" for i in range(len(obs))])
    obs["quality"] = np.where(np.arange(len(obs)) % 7 == 0, np.nan, 1.0)  # no formula reads it
    counts = sp.csr_matrix(data.counts.to_numpy())
    adata = AnnData(counts, obs=obs, var=pd.DataFrame({"length": 1.0}, index=GENES))
    adata.layers["counts"] = counts.copy()
    adata.layers["logcounts"] = counts.log1p()
    adata.uns["title"] = "a test"
    adata.raw = AnnData(counts * 1000, obs=obs, var=adata.var)  # never to be fitted
    return adata


@pytest.fixture
def adata(source):
    return source.copy()


@pytest.fixture(scope="module")
def fitted(source):
    return pipeline().fit(source.obs, source.to_df())
