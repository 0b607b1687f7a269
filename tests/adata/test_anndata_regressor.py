"""The regressor whose X is an AnnData: methods, cross-validation and searches."""

import copy
import pickle

import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, cross_val_score, cross_validate

from sc_glm import NegBinRegressor, metrics
from sc_glm import adata as scg
from sc_glm._counts.count_matrix import CountMatrix
from tests.adata.cells import FORMULAS, GENES, assert_params, assert_unchanged, pipeline


class SparseOnly(NegBinRegressor):
    """Refuses counts that were made dense."""

    def fit(self, X, y, sample_weight=None):
        assert sp.issparse(y.matrix if isinstance(y, CountMatrix) else y)
        return super().fit(X, y, sample_weight)

    def score(self, X, y, sample_weight=None):
        assert sp.issparse(y.matrix if isinstance(y, CountMatrix) else y)
        return super().score(X, y, sample_weight)


def test_the_meta_estimator_has_the_model_s_methods(adata, fitted):
    before = adata.copy()
    meta = scg.AnnDataRegressor(pipeline())
    assert not hasattr(meta, "params_")
    assert meta.fit(adata) is meta
    obs, y = adata.obs, adata.X
    assert_allclose(meta.predict(adata), fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.predict_params(adata)["mean"], fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.predict_dist(adata).mu, fitted.predict(obs), rtol=1e-6)
    assert_allclose(meta.log_prob(adata), fitted.log_prob(obs, y), rtol=1e-6)
    assert meta.score(adata) == pytest.approx(fitted.score(obs, y))
    assert meta.sample(adata, n_draws=2, random_state=0).shape == (2, *adata.shape)
    assert list(meta.params_["mean"].columns) == GENES
    assert_unchanged(adata, before)


def test_the_meta_estimator_is_an_estimator(adata):
    model = pipeline()
    meta = scg.AnnDataRegressor(model, layer="counts")
    assert meta.get_params()["model__formulatransformer__mean"] == FORMULAS["mean"]
    meta.set_params(model__formulatransformer__mean="~ 1", layer=None)
    assert "AnnDataRegressor(model=Pipeline" in repr(meta)
    assert "AnnDataRegressor" in meta._repr_html_()
    meta.fit(adata)
    assert not hasattr(model[-1], "params_")  # a clone was fitted
    assert not hasattr(clone(meta), "model_")
    again = pickle.loads(pickle.dumps(meta))  # noqa: S301
    assert_array_equal(again.predict(adata), meta.predict(adata))
    assert_params(copy.deepcopy(meta).params_, meta.params_)
    for wrong in ({"X": adata, "y": adata.X}, {"X": adata.obs}):
        with pytest.raises((TypeError, ValueError), match="AnnData"):
            meta.fit(**wrong)


def test_genes_are_found_by_name(adata):
    meta = scg.AnnDataRegressor(pipeline()).fit(adata[:, GENES[:3]])
    expected = meta.score(adata[:, GENES[:3]])
    assert meta.score(adata) == expected
    assert meta.score(adata[:, GENES[::-1]]) == expected
    with pytest.raises(ValueError, match=r"1 genes of the fit .*'Ins1'"):
        meta.score(adata[:, GENES[1:]])


def test_cross_validation_is_that_of_frames(adata):
    before = adata.copy()
    model = scg.AnnDataRegressor(pipeline(regressor=SparseOnly()), layer="counts")
    cv = GroupKFold(4)
    scores = cross_val_score(model, adata, groups=adata.obs["donor"], cv=cv, error_score="raise")
    assert_unchanged(adata, before)
    expected = cross_val_score(
        pipeline(), adata.obs, adata.to_df(), groups=adata.obs["donor"], cv=cv
    )
    assert_allclose(scores, expected, rtol=1e-6)


def test_scorers_take_the_counts_from_the_estimator(adata):
    model = scg.AnnDataRegressor(pipeline("~ pseudotime"))
    scoring = {
        "log_likelihood": metrics.log_likelihood_scorer,
        "zeros": metrics.neg_brier_zeros_scorer,
    }
    results = cross_validate(model, adata, cv=3, scoring=scoring, error_score="raise")
    assert_allclose(results["test_log_likelihood"], cross_val_score(model, adata, cv=3), rtol=1e-9)
    assert (results["test_zeros"] < 0).all()


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_grid_search_finds_the_formula(adata, n_jobs):
    before = adata.copy()
    model = scg.AnnDataRegressor(pipeline("~ 1", SparseOnly() if n_jobs == 1 else None))
    grid = {"model__formulatransformer__mean": ["~ 1", "~ pseudotime + cell_type"]}
    cv = KFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(model, grid, cv=cv, n_jobs=n_jobs, error_score="raise").fit(adata)
    assert search.best_params_ == {"model__formulatransformer__mean": "~ pseudotime + cell_type"}
    assert_unchanged(adata, before)
    assert_array_equal(scg.predict(adata, search).X, search.predict(adata))
    assert search.score(adata) == search.best_estimator_.score(adata)


def test_levels_without_training_cells_are_unknown(adata):
    rare = (adata.obs["cell_type"] == "c").to_numpy()
    meta = scg.AnnDataRegressor(pipeline("~ cell_type")).fit(adata[~rare])
    with pytest.raises(ValueError, match="unknown level 'c'"):
        meta.score(adata[rare])


def test_a_summary_is_that_of_the_regressor(adata):
    model = scg.AnnDataRegressor(pipeline("~ 1")).fit(adata)
    assert_frame_equal(model.summary(), model.model_[-1].summary())
