"""No gene's likelihood is lower than that of a special case of its model."""

import itertools
import os
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from sc_glm import NegBinRegressor, ZINBRegressor
from sc_glm._likelihood.family import NegBinFamily, ZINBFamily
from sc_glm._solver.submodels import Submodel
from sc_glm._solver.trust_region import maximize
from sc_glm.inference import likelihood_ratio_test
from tests.problems import GROUP, LINE, ONE, X, build_problem, frame_of, simulate

DESIGNS = {"one": ONE, "line": LINE, "group": GROUP, "curve": np.c_[LINE, X**2]}


def fit(frame, y, **options):
    has_inflation = any(column.startswith("zero_inflation") for column in frame)
    model = ZINBRegressor(**options) if has_inflation else NegBinRegressor(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(frame, y)


def hard_genes(rng, n_genes=24):
    """Genes with outliers, with ones alone, seen on one side only, and with few counts."""
    y = simulate(n_genes, rng, lowest=-4.0)
    y[:, ::6] = np.minimum(y[:, ::6], 1)
    y[rng.integers(len(y), size=4), 1::6] = 300
    y[:, 2::6] = np.where(X[:, None] > rng.uniform(-0.5, 0.9, y[:, 2::6].shape[1]), y[:, 2::6], 0)
    return y


def value_of(model):
    return model.log_likelihood_


@pytest.mark.parametrize("offset", [None, 0.4])
@pytest.mark.parametrize(
    ("mean", "larger"), [("line", "line"), ("line", "curve"), ("group", "group")]
)
def test_nested_models_are_ordered(mean, larger, offset):
    rng = np.random.default_rng(len(mean) + len(larger))
    y = hard_genes(rng)
    kinds = ["one", larger]
    fits = {}
    for size, inflation in itertools.product(kinds, [None, *kinds]):
        parts = {"mean": DESIGNS[mean], "dispersion": DESIGNS[size]}
        if inflation is not None:
            parts["zero_inflation"] = DESIGNS[inflation]
        frame = frame_of(**parts)
        if offset is not None:
            frame["offset__depth"] = np.random.default_rng(0).normal(scale=offset, size=len(X))
        fits[size, inflation] = value_of(fit(frame, y))
    for (size, inflation), full in fits.items():
        for (own_size, own_inflation), reduced in fits.items():
            is_nested = own_size in {"one", size} and own_inflation in {None, "one", inflation}
            if is_nested and not (inflation is None and own_inflation is not None):
                assert (full - reduced > -1e-4).all(), (size, inflation, own_size, own_inflation)


@pytest.mark.data
@pytest.mark.skipif("SC_GLM_DATA" not in os.environ, reason="SC_GLM_DATA is not set")
def test_a_gene_whose_zero_inflation_has_a_lower_maximum():
    adata = anndata.read_h5ad(Path(os.environ["SC_GLM_DATA"]) / "pbmc3k_raw.h5ad")
    adata = adata[adata.obs["seurat_annotations"].notna()]
    depth = np.log(np.asarray(adata.X.sum(axis=1)).ravel())
    y = np.asarray(adata[:, "GZMB"].X.todense())
    types = pd.get_dummies(adata.obs["seurat_annotations"]).to_numpy(float)
    one = np.ones((len(y), 1))
    frame = frame_of(mean=types, dispersion=one).assign(offset__depth=depth)
    inflated = frame_of(mean=types, dispersion=one, zero_inflation=one)
    inflated["offset__depth"] = depth
    nb, zinb = fit(frame, y), fit(inflated, y)
    assert nb.log_likelihood_[0] == pytest.approx(-1299.27366, abs=1e-4)
    assert zinb.log_likelihood_[0] > nb.log_likelihood_[0] - 1e-6
    test = likelihood_ratio_test(nb, zinb, inflated, y)
    assert test["statistic"].iloc[0] >= 0

    # A warm start at the lower maximum leads out of it as well.
    zinb.params_["mean"].loc[:] += 0.3
    zinb.params_["dispersion"].loc[:] = 0.144
    zinb.params_["zero_inflation"].loc[:] = -1.17
    again = zinb.set_params(warm_start=True).fit(inflated, y)
    assert again.log_likelihood_[0] > nb.log_likelihood_[0] - 1e-6


def test_submodels_of_a_design():
    without_constant = X[:, None]
    y = simulate(2, np.random.default_rng(1))

    def contained(size, inflation):
        problem = build_problem(ZINBFamily(), y, LINE, size, inflation)
        return {submodel.regressed for submodel in Submodel.all_of(problem)}

    assert contained(ONE, ONE) == {(False,)}
    assert contained(LINE, ONE) == {(False,), (True,), (False, False)}
    assert contained(ONE, LINE) == {(False,), (False, False)}
    assert contained(GROUP, LINE) == {
        (False,),
        (True,),
        (False, False),
        (False, True),
        (True, False),
    }
    assert contained(ONE, without_constant) == set()
    assert contained(without_constant, ONE) == {(True,)}


@pytest.mark.parametrize("regressed", [(False,), (True,), (False, True), (True, False)])
def test_an_embedded_submodel_has_its_likelihood(regressed):
    y = simulate(5, np.random.default_rng(2))
    problem = build_problem(ZINBFamily(), y, LINE, GROUP, LINE)
    submodel = Submodel(regressed)
    own = problem.objective(problem.block(), submodel.family(problem), submodel.bases(problem))
    genes = torch.arange(5)
    theta = torch.randn(5, own.n_params, generator=torch.Generator().manual_seed(3)).double()
    embedded = submodel.embed(problem, theta)
    expected = own.evaluate(theta, genes).value
    torch.testing.assert_close(problem.model_objective().evaluate(embedded, genes).value, expected)
    torch.testing.assert_close(submodel.restrict(problem, embedded), theta)


def test_a_penalised_zero_inflation_stays_finite():
    """The penalty of its intercept rules out the submodel without zero inflation."""
    y = simulate(6, np.random.default_rng(4))
    frame = frame_of(mean=LINE, dispersion=ONE, zero_inflation=GROUP)
    penalised = fit(frame, y, alpha={"zero_inflation": 0.1})
    assert np.abs(penalised.params_["zero_inflation"].to_numpy()).max() < 10


def test_the_poisson_limit_is_nested():
    """A gene with few counts; a run from a moderate size misses its higher maximum."""
    y = hard_genes(np.random.default_rng(9), 60)
    y = y[:, (y > 0).sum(axis=0) <= 100]
    for parts in ({}, {"zero_inflation": ONE}, {"zero_inflation": GROUP}):
        problem_parts = {"mean": np.c_[GROUP, X], "dispersion": ONE} | parts
        model = fit(frame_of(**problem_parts), y)
        family = NegBinFamily() if not parts else ZINBFamily()
        problem = build_problem(family, y, *problem_parts.values())
        held = Held(problem.model_objective())
        theta = torch.zeros(y.shape[1], held.objective.n_params).double()
        size = held.objective.slices[1]
        theta[:, size] = 30.0
        limit = maximize(held, theta, max_iter=200, tol=1e-8)
        assert (model.log_likelihood_ - limit.value.numpy() > -1e-4).all()


class Held:
    """An objective whose size stays where it is."""

    def __init__(self, objective):
        self.objective = objective

    def evaluate(self, theta, genes):
        at = self.objective.evaluate(theta, genes)
        gradient, hessian = at.gradient.clone(), at.hessian.clone()
        own = self.objective.slices[1]
        gradient[:, own], hessian[:, own], hessian[:, :, own] = 0.0, 0.0, 0.0
        hessian[:, own, own] = -1.0
        return at._replace(gradient=gradient, hessian=hessian)
