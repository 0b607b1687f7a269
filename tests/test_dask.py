"""Genes fitted on a Dask cluster of two processes: the same results, and workers that are lost."""

import contextlib
import os
import signal
import sys
from dataclasses import replace

import anndata
import cloudpickle
import joblib
import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from dask.sizeof import sizeof
from distributed import Client, LocalCluster
from pandas.testing import assert_frame_equal

from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm._counts.tally import Grouping
from sc_glm._design.design import PartDesign
from sc_glm._likelihood import family
from sc_glm._solver.gene_block import Designs
from sc_glm.datasets import make_counts

MARK = 5000  # a count at which a worker dies
N_GENES = 24
FORMULA = "~ pseudotime"


class NegBinFamily(family.NegBinFamily):
    """In name the original; the first worker that meets the mark is killed."""

    def __init__(self, flag):
        super().__init__()
        object.__setattr__(self, "flag", flag)

    def tile(self, predictors, y, zeros=None):
        if bool((y == MARK).any()):
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
        return super().tile(predictors, y, zeros)


@pytest.fixture(scope="module")
def cluster():
    environment = dict(os.environ)  # to which Dask adds
    # Workers cannot import this module.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # Any free port: two runs of the tests on one machine must not ask for the same one.
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with LocalCluster(processes=True, **options) as local, Client(local) as client:
        yield client
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="module")
def adata():
    data = make_counts(150, N_GENES, mean=FORMULA, random_state=3)
    counts = data.counts.to_numpy(copy=True)
    counts[7, 13] = MARK
    obs = data.obs.set_axis(data.obs.index.astype(str))
    return AnnData(sp.csr_matrix(counts), obs=obs)


@pytest.fixture(scope="module")
def expected(adata):
    return scg.AnnDataRegressor(pipeline(NegBinRegressor())).fit(adata).params_


@pytest.fixture(params=["in memory", "h5ad"])
def cells(request, adata, tmp_path):
    if request.param == "in memory":
        yield adata
        return
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    yield backed
    backed.file.close()


def pipeline(regressor):
    return make_pipeline(FormulaTransformer(FORMULA), regressor)


def fit(client, cells, regressor):
    client.wait_for_workers(2)  # of one alone, joblib makes no use
    model = scg.AnnDataRegressor(pipeline(regressor), memory_budget="20kB")
    with joblib.parallel_config(backend="dask"):
        return model.fit(cells).params_


def assert_params(params, expected):
    for part, table in expected.items():
        assert_frame_equal(params[part], table, check_exact=True)


def test_a_cluster_does_not_change_the_fits(cluster, cells, expected):
    assert_params(fit(cluster, cells, NegBinRegressor()), expected)


def test_a_fit_survives_the_death_of_a_worker(cluster, cells, expected, tmp_path):
    flag, folder = tmp_path / "killed", tmp_path / "checkpoint"

    class Regressor(NegBinRegressor):
        _family = NegBinFamily(str(flag))

    regressor = Regressor(checkpoint_dir=folder, batch_size=2)
    try:
        params = fit(cluster, cells, regressor)
    except RuntimeError as error:  # what only the lost worker had cannot be computed again
        assert "A worker was killed" in str(error)  # noqa: PT017
        assert "checkpoint_dir" in str(error)  # noqa: PT017
        params = fit(cluster, cells, regressor)
    assert flag.exists()
    assert len(list(folder.glob("genes-*.npz"))) >= N_GENES // 2
    assert_params(params, expected)


def test_designs_are_large_enough_to_be_sent_once():
    """Joblib's Dask backend asks for their size."""
    design = PartDesign.of(np.ones((1000, 1)))
    designs = Designs({"mean": design}, np.zeros(1000), np.ones(1000))
    assert sizeof(designs) >= 3 * 1000 * 8
    cells = Grouping(np.zeros(50_000, dtype=np.intp), np.ones(50_000))
    assert sizeof(replace(designs, cells=cells)) >= 2 * 50_000 * 8
