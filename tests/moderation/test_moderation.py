"""Moderated dispersion: nearer to the truth than maximum likelihood, and a model like others."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.inference import aic, coefficient_table, confidence_intervals, standard_errors
from sc_glm.moderation import moderate_dispersion

N_GENES = 120


def truth_of(log_mean):
    """Log size of a typical gene."""
    return -np.log(0.2 + 0.2 * np.exp(-log_mean))


def simulated(n_cells, *, seed, n_genes=N_GENES, inflation=0.0, cells_seed=0):
    """Covariates, counts and log sizes of genes around the trend."""
    log_mean = np.linspace(-2, 2.5, n_genes)
    deviations = np.random.default_rng(seed).normal(scale=0.4, size=n_genes)
    log_size = truth_of(log_mean) + deviations
    rng = np.random.default_rng([seed, cells_seed])
    X = pd.DataFrame({"x": rng.normal(size=n_cells)})
    mu, r = np.exp(log_mean + 0.3 * X.to_numpy()), np.exp(log_size)
    y = rng.negative_binomial(r, r / (r + mu)) * (rng.uniform(size=mu.shape) >= inflation)
    return X, pd.DataFrame(y, columns=[f"gene_{g}" for g in range(n_genes)]), log_size


def sizes(model):
    return model.params_["dispersion"].to_numpy()[0]


def error(found, log_size):
    """Root mean square on a scale on which an infinite size is zero."""
    return np.sqrt(np.mean((np.exp(-found / 2) - np.exp(-log_size / 2)) ** 2))


@pytest.fixture(scope="module")
def case():
    X, y, log_size = simulated(100, seed=0)
    model = NegBinRegressor().fit(X, y)
    return X, y, log_size, model, moderate_dispersion(model, X, y)


def test_error_is_much_lower_than_that_of_maximum_likelihood(case):
    _, _, log_size, model, result = case
    assert error(sizes(result.model), log_size) < 0.6 * error(sizes(model), log_size)
    deviation = sizes(result.model) - log_size
    assert np.sqrt(np.mean(deviation**2)) < 0.4  # less than what any trend alone leaves
    assert abs(deviation.mean()) < 0.1
    assert 0.7 < np.sqrt(np.mean((deviation / result.table["spread"]) ** 2)) < 1.3


def test_zero_inflated_too():
    X, y, log_size = simulated(150, seed=1, inflation=0.2)
    model = ZINBRegressor().fit(X, y)
    found = moderate_dispersion(model, X, y).model
    assert error(sizes(found), log_size) < 0.6 * error(sizes(model), log_size)
    assert np.sqrt(np.mean((sizes(found) - log_size) ** 2)) < 0.6


def test_trend_and_spread_are_found():
    X, y, _ = simulated(400, seed=2, n_genes=300)
    trend = moderate_dispersion(NegBinRegressor().fit(X, y), X, y).trend
    log_mean = np.linspace(-1, 2, 7)
    found = -np.log(trend.overdispersion(np.exp(log_mean)))
    assert_allclose(found, truth_of(log_mean), atol=0.25)
    # Scale of the t distribution that is nearest to the normal one
    assert 0.28 < trend.spread < 0.42
    low, high = np.exp(trend.log_mean[[0, -1]])
    assert trend.overdispersion([low / 50])[0] == pytest.approx(trend.overdispersion([low])[0])
    assert trend.overdispersion([high * 50])[0] == pytest.approx(trend.overdispersion([high])[0])


def test_genes_at_the_poisson_boundary_get_a_size_near_the_trend(case):
    *_, model, result = case
    boundary = model.status_ == "Poisson boundary"
    assert boundary.sum() >= 5
    table = result.table[boundary]
    assert (table["overdispersion"] == 0).all()
    ratio = np.log(table["moderated"] / table["trend"])
    assert (ratio < 0).all()
    assert (ratio > -4 * result.trend.spread).all()
    assert (result.model.status_ == "converged").all()
    assert not result.model.undetermined_["dispersion"].to_numpy().any()


def test_estimates_of_many_cells_are_kept():
    moved = {}
    for n_cells in (200, 3200):
        X, y, _ = simulated(n_cells, seed=3, n_genes=40)
        model = NegBinRegressor().fit(X, y)
        moved[n_cells] = np.abs(sizes(moderate_dispersion(model, X, y).model) - sizes(model))
    assert np.median(moved[3200]) < 0.2 * np.median(moved[200])
    assert moved[3200].max() < 0.3


def test_a_gene_far_from_the_trend_stays_where_it_is():
    X, y, _ = simulated(800, seed=4)
    rng = np.random.default_rng(4)
    mu = np.exp(2 + 0.3 * X["x"])
    y["gene_90"] = rng.negative_binomial(0.05, 0.05 / (0.05 + mu))
    table = moderate_dispersion(NegBinRegressor().fit(X, y), X, y).table
    assert table["moderated"]["gene_90"] == pytest.approx(
        table["overdispersion"]["gene_90"], rel=0.1
    )
    assert table["moderated"]["gene_90"] > 20 * table["trend"]["gene_90"]


def test_table(case):
    _, y, _, model, result = case
    table = result.table
    assert list(table.index) == list(y.columns)
    assert_allclose(table["mean"], y.mean(), rtol=1e-12)
    finite = ~model.undetermined_["dispersion"].to_numpy()[0]
    assert_allclose(table["overdispersion"][finite], np.exp(-sizes(model)[finite]))
    assert_allclose(table["moderated"], np.exp(-sizes(result.model)))
    assert_allclose(table["trend"], result.trend.overdispersion(table["mean"]))
    assert (table["spread"] > 0).all()


def test_arguments_stay_as_they_are():
    X, y, _ = simulated(60, seed=5, n_genes=20)
    model = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).fit(X, y)
    before = pickle.dumps(model), copy.deepcopy(X), copy.deepcopy(y)
    moderate_dispersion(model, X, y)
    assert pickle.dumps(model) == before[0]
    pd.testing.assert_frame_equal(X, before[1])
    pd.testing.assert_frame_equal(y, before[2])


def test_other_coefficients_are_at_the_maximum_for_the_moderated_size(case):
    X, y, _, _, result = case
    found = result.model
    assert_allclose(found.log_prob(X, y).sum(axis=0), found.log_likelihood_, rtol=1e-10)
    for part, change in (("Intercept", 1e-2), ("x", -1e-2)):
        other = copy.deepcopy(found)
        other.params_["mean"].loc[part] += change
        assert (other.log_prob(X, y).sum(axis=0) < found.log_likelihood_).all()
    assert_allclose(found.coef_[:, 0], found.params_["mean"].loc["x"])
    assert_allclose(found.intercept_, found.params_["mean"].loc["Intercept"])
    assert found.converged_.all()


def test_the_moderated_model_is_a_model_like_others(case):
    X, y, _, model, result = case
    found = pickle.loads(pickle.dumps(result.model))  # noqa: S301 - our own
    assert type(found) is type(model)
    assert_allclose(found.predict_params(X)["dispersion"][0], 1 / result.table["moderated"])
    assert_array_equal(found.sample(X, random_state=0), result.model.sample(X, random_state=0))
    X_new, y_new, _ = simulated(100, seed=0, cells_seed=1)
    assert found.score(X_new, y_new) > model.score(X_new, y_new)
    assert_allclose(clone(found).fit(X, y).log_likelihood_, model.log_likelihood_)
    assert coefficient_table(clone(found).fit(X, y), X, y)["reason"].ne("moderated").all()


def test_every_form_of_a_model():
    X, y, _ = simulated(120, seed=5, n_genes=20)
    pipeline = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor())
    expected = moderate_dispersion(NegBinRegressor().fit(X, y), X, y).table
    adata = AnnData(sp.csr_matrix(y, dtype=float), obs=X.set_axis(X.index.astype(str)))
    adata.var_names = y.columns
    search = GridSearchCV(pipeline, {"negbinregressor__tol": [1e-6]}, cv=2)
    for model, *data in (
        (clone(pipeline).fit(X, y), X, y),
        (search.fit(X, y), X, y),
        (AnnDataRegressor(pipeline).fit(adata), adata),
    ):
        result = moderate_dispersion(model, *data)
        pd.testing.assert_frame_equal(result.table, expected, rtol=1e-5)
        assert type(result.model) is type(model)
        assert_allclose(result.model.predict(data[0]), model.predict(data[0]), rtol=0.5)


def test_permuted_genes_permute_results(case):
    X, y, _, _, result = case
    order = np.random.default_rng(0).permutation(list(y.columns))
    found = moderate_dispersion(NegBinRegressor().fit(X, y[order]), X, y[order])
    pd.testing.assert_frame_equal(found.table, result.table.loc[order], rtol=1e-5)


def test_neither_sparse_counts_nor_names_change_anything(case):
    X, y, _, model, result = case
    found = moderate_dispersion(model, X, sp.csr_array(y))
    pd.testing.assert_frame_equal(found.table, result.table)
    assert list(found.model.target_names_) == list(y.columns)


def test_blocks_change_nothing(case, monkeypatch):
    X, y, _, model, result = case
    monkeypatch.setattr("sc_glm._solver.fitting._MAX_BLOCK_GENES", 7)
    found = moderate_dispersion(model, X, y)
    pd.testing.assert_frame_equal(found.table, result.table, rtol=1e-6)
    assert_allclose(found.model.log_likelihood_, result.model.log_likelihood_, rtol=1e-9)


@pytest.mark.parametrize("offset", [None, "x2"])
def test_integer_weights_are_repeated_rows(offset):
    X, y, _ = simulated(60, seed=6, n_genes=15)
    X["x2"] = np.linspace(-1, 1, len(X))
    weights = np.arange(len(X)) % 4  # some are zero
    rows = np.repeat(np.arange(len(X)), weights)
    pipeline = make_pipeline(FormulaTransformer("~ x", offset=offset), NegBinRegressor())
    weighted = clone(pipeline).fit(X, y, negbinregressor__sample_weight=weights)
    found = moderate_dispersion(weighted, X, y, sample_weight=weights)
    many = X.iloc[rows], y.iloc[rows]
    expected = moderate_dispersion(clone(pipeline).fit(*many), *many)
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-5)


def test_genes_without_counts_get_the_trend():
    X, y, _ = simulated(80, seed=7, n_genes=20)
    y[["gene_3", "gene_8"]] = 0
    y.loc[5, "gene_8"] = 1
    with pytest.warns(ConvergenceWarning, match="all zero"):
        model = NegBinRegressor().fit(X, y)
    result = moderate_dispersion(model, X, y)
    table = result.table
    assert np.isnan(table["overdispersion"]["gene_3"])
    both = table.loc[["gene_3", "gene_8"]]
    assert_allclose(both["moderated"], both["trend"], rtol=0.3)
    assert result.model.status_[3] == "all zero"
    assert result.model.predict(X)[:, 3].max() < 1e-3
    assert np.isfinite(result.model.score(X, y))


def test_too_few_genes_are_refused():
    X, y, _ = simulated(80, seed=7, n_genes=12)
    for n_genes in (1, 2, 9):
        some = y.iloc[:, :n_genes]
        model = NegBinRegressor().fit(X, some)
        message = rf"at least 10 genes .* of these {n_genes} genes, \d do"
        with pytest.raises(ValueError, match=message):
            moderate_dispersion(model, X, some)
    assert len(moderate_dispersion(NegBinRegressor().fit(X, y), X, y).table) == 12


def test_what_else_is_refused(case):
    X, y, _, model, result = case
    with pytest.raises(ValueError, match="not a moderated one"):
        moderate_dispersion(result.model, X, y)
    several = make_pipeline(FormulaTransformer("~ x", "~ x"), NegBinRegressor())
    several.fit(X, y.iloc[:, -20:])
    with pytest.raises(ValueError, match=r"dispersion='~ 1'.*\['Intercept', 'x'\]"):
        moderate_dispersion(several, X, y.iloc[:, -20:])
    with pytest.raises(ValueError, match="must be those of the fit"):
        moderate_dispersion(model, X, y.iloc[::-1].set_axis(y.index))
    with pytest.raises(ValueError, match="must be those of the fit"):
        moderate_dispersion(model, X, y, sample_weight=np.arange(len(X)))


def test_inference_takes_the_size_as_known(case):
    X, y, _, _, result = case
    table = coefficient_table(result.model, X, y)
    of_size = table["part"] == "dispersion"
    assert (table.loc[of_size, "reason"] == "moderated").all()
    assert table.loc[of_size, "p_value"].isna().all()
    assert (table.loc[~of_size, "reason"] == "").all()
    groups = np.arange(len(X)) % 12
    gene = "gene_60"
    expected = known_size_errors(X, y[gene], result.model, gene, groups)
    for kind, more in (("observed", {}), ("robust", {}), ("cluster", {"groups": groups})):
        found = standard_errors(result.model, X, y, kind=kind, **more)
        assert_allclose(found["mean"][gene], expected[kind], rtol=1e-8)
        assert found["dispersion"].isna().to_numpy().all()


def known_size_errors(X, y, model, gene, groups):
    """Standard errors of the mean's coefficients of a negative binomial whose size is known."""
    D = np.c_[np.ones(len(X)), X]
    mu, r = (
        np.exp(D @ model.params_["mean"][gene]),
        np.exp(model.params_["dispersion"].loc["Intercept", gene]),
    )
    scores = D * (r * (y - mu) / (r + mu)).to_numpy()[:, None]
    shares = (
        D[:, :, None] * D[:, None] * (mu * r * (r + y) / (r + mu) ** 2).to_numpy()[:, None, None]
    )
    observed = np.linalg.inv(shares.sum(axis=0))
    expected = D[:, :, None] * D[:, None] * (mu * r / (r + mu))[:, None, None]
    root = np.linalg.cholesky(np.linalg.inv(expected.sum(axis=0)))
    clustered = np.zeros((2, 2))
    for group in np.unique(groups):  # CR2, where the expected information is one
        own = groups == group
        values, vectors = np.linalg.eigh(np.eye(2) - root.T @ expected[own].sum(axis=0) @ root)
        enlarged = vectors / np.sqrt(values) @ vectors.T @ root.T @ scores[own].sum(axis=0)
        error = observed @ np.linalg.solve(root.T, enlarged)
        clustered += np.outer(error, error)
    robust = observed @ scores.T @ scores @ observed
    covariances = {"observed": observed, "robust": robust, "cluster": clustered}
    return {kind: np.sqrt(np.diag(covariance)) for kind, covariance in covariances.items()}


def test_inference_refuses_what_needs_the_largest_likelihood(case):
    X, y, _, _, result = case
    for question in (aic, lambda *data: confidence_intervals(*data, method="profile")):
        with pytest.raises(ValueError, match="as it was fitted, not a moderated dispersion"):
            question(result.model, X, y)
