"""A fitted model beside counts, in whatever form both come."""

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline as stock_make_pipeline

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.inference.fitted_model import FittedData, predicted_distributions


@pytest.fixture(scope="module")
def data():
    return make_counts(400, 5, zero_inflation="~ 1", offset="np.log(size_factor)", random_state=0)


@pytest.fixture(scope="module")
def model(data):
    steps = FormulaTransformer(**data.formulas), ZINBRegressor()
    return make_pipeline(*steps).fit(data.obs, data.counts)


def joined(fitted):
    blocks = list(fitted.blocks())
    assert [i for b in blocks for i in range(b.genes.start, b.genes.stop)] == [
        *range(len(fitted.names))
    ]
    params = [[b.dist.mu, b.dist.r, b.dist.pi] for b in blocks]
    return np.hstack([b.counts for b in blocks]), *(np.hstack(x) for x in zip(*params, strict=True))


def test_blocks_hold_the_counts_and_the_predicted_distributions(model, data, monkeypatch):
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs))
    for y in (data.counts, sp.csr_array(data.counts)):
        counts, mu, r, pi = joined(FittedData.of(model, data.obs, y))
        params = model.predict_params(data.obs)
        assert_array_equal(counts, data.counts)
        assert_allclose(mu, params["mean"], rtol=1e-12)
        assert_allclose(r, params["dispersion"], rtol=1e-12)
        assert_allclose(pi, params["zero_inflation"], rtol=1e-12)


def test_log_probabilities_are_those_of_the_model(model, data, monkeypatch):
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 2 * len(data.obs))
    names = ["gene_3", "gene_1", "gene_4"]
    blocks = list(FittedData.of(model, data.obs, data.counts, genes=names).log_probs())
    assert [genes for genes, _ in blocks] == [slice(0, 2), slice(2, 3)]
    expected = model.log_prob(data.obs, data.counts)[:, [3, 1, 4]]
    assert_allclose(np.hstack([values for _, values in blocks]), expected, rtol=1e-12)


def test_some_genes_are_those_of_all(model, data):
    names = ["gene_3", "gene_1"]
    fitted = FittedData.of(model, data.obs, data.counts, genes=names)
    counts, mu, *_ = joined(fitted)
    assert_array_equal(fitted.names, names)
    assert_array_equal(counts, data.counts[names])
    assert_allclose(mu, model.predict_params(data.obs)["mean"][:, [3, 1]], rtol=1e-12)
    assert_array_equal(FittedData.of(model, data.obs, data.counts, genes="gene_3").genes, [3])


def test_every_form_of_a_model_is_the_same(model, data):
    expected = joined(FittedData.of(model, data.obs, data.counts))
    design = model[:-1].transform(data.obs)
    forms = [
        (model[-1], design, data.counts),
        (stock_make_pipeline(*(step for _, step in model.steps)), data.obs, data.counts),
    ]
    search = GridSearchCV(model, {"zinbregressor__tol": [1e-6]}, cv=2)
    forms.append((search.fit(data.obs, data.counts), data.obs, data.counts))
    adata = AnnData(sp.csr_matrix(data.counts), obs=data.obs)
    adata.var_names = data.counts.columns
    forms.append((AnnDataRegressor(model).fit(adata), adata, None))
    for form in forms:
        for found, one in zip(joined(FittedData.of(*form)), expected, strict=True):
            assert_allclose(found, one, rtol=1e-9)


def test_distributions_of_cells_without_counts(model, data):
    cells = data.obs.head(7)
    dist, expected = (
        predicted_distributions(model, cells, ["gene_3", "gene_1"]),
        model.predict_params(cells),
    )
    assert_allclose(dist.mu, expected["mean"][:, [3, 1]], rtol=1e-12)
    assert_allclose(dist.r, expected["dispersion"][:, [3, 1]], rtol=1e-12)
    assert_allclose(dist.pi, expected["zero_inflation"][:, [3, 1]], rtol=1e-12)
    with pytest.raises(ValueError, match=r"not genes of the fit: \['gene_9'\]"):
        predicted_distributions(model, cells, "gene_9")


def test_what_is_refused(model, data):
    with pytest.raises(ValueError, match=r"1 gene\(s\) are not genes of the fit: \['gene_9'\]"):
        FittedData.of(model, data.obs, data.counts, genes=["gene_0", "gene_9"])
    with pytest.raises(ValueError, match=r"Names similar to 'GENE_3': \['gene_3', "):
        FittedData.of(model, data.obs, data.counts, genes="GENE_3")
    for genes in (3, [0, 1], [True, False], np.ones(5, dtype=bool)):
        with pytest.raises(TypeError, match="genes must be names of genes"):
            FittedData.of(model, data.obs, data.counts, genes=genes)
    with pytest.raises(ValueError, match="genes is empty"):
        FittedData.of(model, data.obs, data.counts, genes=[])
    with pytest.raises(ValueError, match="target y is None"):
        FittedData.of(model, data.obs)
    with pytest.raises(ValueError, match="y has 4 genes"):
        FittedData.of(model, data.obs, data.counts.iloc[:, :4])
    with pytest.raises(NotFittedError):
        FittedData.of(NegBinRegressor(), [[0.0]], [[1]])
    other = PoissonRegressor().fit([[0.0], [1.0]], [1, 2])
    with pytest.raises(TypeError, match="ends in a PoissonRegressor"):
        FittedData.of(other, [[0.0], [1.0]], [1, 2])
