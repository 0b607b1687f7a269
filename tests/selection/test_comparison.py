"""Comparison of models by held-out likelihood, against plain loops and scikit-learn."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    RepeatedKFold,
    cross_validate,
)
from sklearn.pipeline import make_pipeline as stock_make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.adata import AnnDataRegressor
from sc_glm.datasets import make_counts
from sc_glm.distributions import NB, ZINB
from sc_glm.selection import choose_model, compare_models

N_CELLS = 240


def nb(mean="~ 1", **params):
    return make_pipeline(FormulaTransformer(mean), NegBinRegressor(**params))


MODELS = {
    "constant": nb(),
    "types": nb("~ cell_type"),
    "both": nb("~ cell_type + pseudotime"),
}


@pytest.fixture(scope="module")
def data():
    return make_counts(N_CELLS, 4, effect_scale=0.5, random_state=0)


@pytest.fixture(scope="module")
def table(data):
    return compare_models(MODELS, data.obs, data.counts, cv=3)


@pytest.fixture(scope="module")
def by_cell(data):
    """Held-out log-likelihoods by a plain loop, models x cells x genes."""
    logs = np.empty((len(MODELS), *data.counts.shape))
    for train, test in KFold(3).split(data.obs):
        for log, model in zip(logs, MODELS.values(), strict=True):
            fitted = clone(model).fit(data.obs.iloc[train], data.counts.iloc[train])
            log[test] = fitted.log_prob(data.obs.iloc[test], data.counts.iloc[test])
    return logs


@pytest.fixture(scope="module")
def donors():
    """Return 30 groups of 2 to 14 cells, in no order."""
    rng = np.random.default_rng(0)
    sizes = np.resize([2, 14, 8, 5, 11], 30)
    return rng.permutation([f"d{i}" for i in np.repeat(np.arange(30), sizes)])


def column(table, name):
    """Return a column as an array models x genes, in the order of the rows."""
    return table[name].to_numpy().reshape(-1, table["model"].nunique()).T


def adata_of(data):
    adata = AnnData(sp.csr_matrix(data.counts, dtype=np.float64), obs=data.obs)
    adata.var_names = data.counts.columns
    return adata


# The table
def test_against_a_plain_loop(table, by_cell):
    mean = by_cell.mean(axis=1)
    assert_allclose(column(table, "log_likelihood"), mean, rtol=1e-10)
    best = mean.argmax(axis=0)
    assert len(set(best)) > 1  # of models, so that the shortfall is not the difference
    top = by_cell[best, :, np.arange(4)].T
    for value, error, difference in [
        ("difference", "standard_error", by_cell - by_cell[0]),
        ("shortfall", "shortfall_error", top - by_cell),
    ]:
        assert_allclose(column(table, value), difference.mean(axis=1), atol=1e-12)
        expected = difference.std(axis=1, ddof=1) / np.sqrt(N_CELLS)
        assert_allclose(column(table, error), expected, rtol=1e-7, atol=1e-12)
    assert (column(table, "difference")[0] == 0).all()
    assert (column(table, "standard_error")[0] == 0).all()
    assert (column(table, "shortfall_error").min(axis=0) == 0).all()
    assert (column(table, "shortfall").min(axis=0) == 0).all()
    assert (table["n_failed"] == 0).all()


def test_against_scikit_learn(table, data):
    for name, model in MODELS.items():
        scores = cross_validate(model, data.obs, data.counts, cv=3)["test_score"]
        own = table.loc[table["model"] == name, "log_likelihood"].mean()
        assert_allclose(own, scores.mean(), rtol=1e-10)


def test_rows_are_in_the_order_of_genes_and_models(data):
    genes = ["gene_2", "gene_0", "gene_3"]
    models = {"zzz": MODELS["constant"], "aaa": MODELS["types"]}
    table = compare_models(models, data.obs, data.counts[genes], cv=2)
    assert list(table["gene"]) == list(np.repeat(genes, 2))
    assert list(table["model"]) == ["zzz", "aaa"] * 3
    assert list(table["model"].cat.categories) == ["zzz", "aaa"]
    assert table["model"].cat.ordered
    wide = table[::-1].pivot_table("shortfall", "gene", "model", observed=True)
    assert list(wide) == ["zzz", "aaa"]


@pytest.mark.parametrize(
    "form", [np.asarray, sp.csr_array, sp.csc_matrix, sp.coo_array, lambda y: y.to_numpy().tolist()]
)
def test_every_form_of_counts_is_the_same(table, data, form):
    found = compare_models(MODELS, data.obs, form(data.counts), cv=3)
    assert list(found["gene"].unique()) == ["y0", "y1", "y2", "y3"]
    assert_frame_equal(found.drop(columns="gene"), table.drop(columns="gene"), rtol=1e-10)


def test_counts_of_one_gene(table, data):
    found = compare_models(MODELS, data.obs, data.counts["gene_1"], cv=3)
    expected = table[table["gene"] == "gene_1"].reset_index(drop=True)
    assert_frame_equal(found, expected, rtol=1e-10)


def test_blocks_and_jobs_change_nothing(table, data, monkeypatch):
    counts = sp.csr_array(data.counts)
    found = compare_models(MODELS, data.obs, counts, cv=3, n_jobs=2)
    assert_frame_equal(found, compare_models(MODELS, data.obs, counts, cv=3))
    monkeypatch.setattr("sc_glm.inference.fitted_model._MAX_DENSE_ENTRIES", 1)
    dense = []
    toarray = sp.csc_array.toarray
    monkeypatch.setattr(
        sp.csc_array, "toarray", lambda self: dense.append(self.shape) or toarray(self)
    )
    found = compare_models(MODELS, data.obs, counts, cv=3)
    assert set(dense) == {(N_CELLS // 3, 1)}
    assert_frame_equal(found.drop(columns="gene"), table.drop(columns="gene"), rtol=1e-10)


def test_every_form_of_a_model_is_the_same(data):
    trend = nb("~ pseudotime")
    stock = stock_make_pipeline(*(step for _, step in trend.steps))
    search = GridSearchCV(trend, {"negbinregressor__max_iter": [100]}, cv=2)
    models = {"constant": nb(), "own": trend, "stock": stock, "search": search}
    table = compare_models(models, data.obs, data.counts, cv=2)
    rows = {name: rows.iloc[:, 2:] for name, rows in table.groupby("model", observed=True)}
    assert (rows["own"]["difference"] != 0).all()
    for name in ("stock", "search"):
        assert_array_equal(rows[name], rows["own"])

    wrapped = {name: AnnDataRegressor(model) for name, model in models.items()}
    assert_frame_equal(compare_models(wrapped, adata_of(data), cv=2), table, rtol=1e-8)


def test_a_regressor_alone(data):
    X = data.obs[["pseudotime"]].to_numpy()
    found = compare_models({"trend": NegBinRegressor()}, X, data.counts, cv=2)
    expected = compare_models({"trend": nb("~ pseudotime")}, data.obs, data.counts, cv=2)
    assert_frame_equal(found, expected, rtol=1e-8)
    assert (found["difference"] == 0).all()


def test_equal_models_are_fitted_once(data, monkeypatch):
    fits = []
    fit = NegBinRegressor.fit
    monkeypatch.setattr(
        NegBinRegressor, "fit", lambda self, *args: fits.append(self.tol) or fit(self, *args)
    )
    models = {
        "a": nb(),
        "b": nb("~ pseudotime"),
        "again a": nb("~ " + "1", tol=1e-6),
        "other": nb(tol=1e-5),
    }
    table = compare_models(models, data.obs, data.counts, cv=3)
    assert sorted(fits) == [1e-6] * 6 + [1e-5] * 3
    rows = {name: rows.iloc[:, 2:] for name, rows in table.groupby("model", observed=True)}
    assert_array_equal(rows["again a"], rows["a"])
    assert (rows["b"]["difference"] != 0).all()

    # Functions have no value to compare by, but one object is itself.
    fits.clear()
    X = data.obs[["pseudotime"]]
    squared = stock_make_pipeline(FunctionTransformer(lambda x: x**2), NegBinRegressor())
    compare_models({"one": squared, "same": squared}, X, data.counts, cv=2)
    assert len(fits) == 2


def test_arguments_are_not_changed(data):
    model, counts = nb("~ pseudotime"), sp.coo_array(data.counts)
    before = data.obs.copy(), counts.toarray()
    compare_models({"trend": model}, data.obs, counts, cv=2)
    assert not hasattr(model[-1], "params_")
    assert_frame_equal(data.obs, before[0])
    assert_array_equal(counts.toarray(), before[1])


def test_cells_that_no_fold_holds_out_do_not_count(data, by_cell):
    train, test = next(KFold(3).split(data.obs))
    mask = np.zeros(N_CELLS, dtype=bool)
    mask[test] = True
    for cv in ([(train, test)], [(~mask, mask)]):
        table = compare_models(MODELS, data.obs, data.counts, cv=cv)
        expected = by_cell[:, test].mean(axis=1)
        assert_allclose(column(table, "log_likelihood"), expected, rtol=1e-10)


# Which models genes need
def test_zero_inflation_is_found_where_it_is():
    rng = np.random.default_rng(0)
    mu, r = rng.uniform(3, 8, 8), rng.uniform(1.5, 4, 8)
    inflated = np.arange(8) % 2 == 1
    counts = ZINB(mu, r, np.where(inflated, 0.35, 0.0))
    y = ZINB(*(np.tile(p, (500, 1)) for p in (counts.mu, counts.r, counts.pi))).rvs(random_state=0)
    X = np.zeros((500, 1))
    models = {"nb": NegBinRegressor(), "zinb": ZINBRegressor()}
    chosen = choose_model(compare_models(models, X, y))
    assert_array_equal(chosen == "zinb", inflated)


def test_a_trend_is_found_where_it_is():
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, size=(400, 1))
    slope = np.resize([0.0, 0.6], 8)
    y = NB(np.exp(1.0 + x * slope), 2.0).rvs(random_state=1)
    obs = pd.DataFrame(x, columns=["x"])
    models = {"constant": nb(), "trend": nb("~ x")}
    chosen = choose_model(compare_models(models, obs, y))
    assert_array_equal(chosen == "trend", slope > 0)


# Groups
def test_standard_errors_between_groups(data, donors):
    folds = list(GroupKFold(5).split(data.obs, groups=donors))
    table = compare_models(MODELS, data.obs, data.counts, groups=donors)
    alone = compare_models(MODELS, data.obs, data.counts, cv=folds)
    same = ["log_likelihood", "difference", "shortfall"]
    assert_frame_equal(table[same], alone[same])
    assert_frame_equal(
        compare_models(MODELS, data.obs, data.counts, cv=GroupKFold(5), groups=donors), table
    )

    d = held_out(MODELS["both"], data, folds) - held_out(MODELS["constant"], data, folds)
    units = np.unique(donors, return_inverse=True)[1]
    sums, sizes = np.zeros((30, 4)), np.bincount(units)
    np.add.at(sums, units, d)
    rng = np.random.default_rng(0)
    draws = rng.multinomial(30, np.full(30, 1 / 30), size=20_000)
    bootstrap = (draws @ sums / (draws @ sizes)[:, None]).std(axis=0)
    assert_allclose(column(table, "standard_error")[2], bootstrap, rtol=0.08)
    # It is neither that of cells nor of the groups' means, which weigh small groups too much.
    of_means = (sums / sizes[:, None]).std(axis=0, ddof=1) / np.sqrt(30)
    for other in (column(alone, "standard_error")[2], of_means):
        assert (np.abs(other / bootstrap - 1) > 0.08).any()


def held_out(model, data, folds):
    logs = np.empty(data.counts.shape)
    for train, test in folds:
        fitted = clone(model).fit(data.obs.iloc[train], data.counts.iloc[train])
        logs[test] = fitted.log_prob(data.obs.iloc[test], data.counts.iloc[test])
    return logs


def test_groups_of_equal_size_are_as_their_means(data):
    groups = np.repeat(np.arange(8), N_CELLS // 8)
    cv = LeaveOneGroupOut()
    table = compare_models(MODELS, data.obs, data.counts, cv=cv, groups=groups)
    folds = list(cv.split(data.obs, groups=groups))
    d = held_out(MODELS["types"], data, folds) - held_out(MODELS["constant"], data, folds)
    means = d.reshape(8, -1, 4).mean(axis=1)
    expected = means.std(axis=0, ddof=1) / np.sqrt(8)
    assert_allclose(column(table, "standard_error")[1], expected, rtol=1e-8)


def test_a_number_of_folds_holds_out_whole_groups(data, donors):
    three = compare_models(MODELS, data.obs, data.counts, cv=3, groups=donors)
    expected = compare_models(MODELS, data.obs, data.counts, cv=GroupKFold(3), groups=donors)
    assert_frame_equal(three, expected)


# Weights
@pytest.mark.parametrize("grouped", [False, True])
def test_weights_are_repeated_cells(data, donors, grouped):
    weights = np.random.default_rng(0).integers(0, 4, N_CELLS)
    rows = np.repeat(np.arange(N_CELLS), weights)
    folds = list(GroupKFold(3).split(data.obs, groups=donors))
    held_out = np.empty(N_CELLS, dtype=int)
    for fold, (_, test) in enumerate(folds):
        held_out[test] = fold
    repeated = [
        (np.flatnonzero(held_out[rows] != fold), np.flatnonzero(held_out[rows] == fold))
        for fold in range(3)
    ]
    groups = {"groups": donors} if grouped else {}
    found = compare_models(MODELS, data.obs, data.counts, cv=folds, sample_weight=weights, **groups)
    groups = {"groups": donors[rows]} if grouped else {}
    cells = data.obs.iloc[rows], data.counts.iloc[rows]
    expected = compare_models(MODELS, *cells, cv=repeated, **groups)
    assert_frame_equal(found, expected, rtol=1e-5, atol=1e-8)


def test_weights_reach_the_regressor_in_any_model(data):
    weights = pd.Series(np.resize([1.0, 2.0], N_CELLS), index=data.obs.index)
    plain = nb("~ pseudotime")
    options = {"cv": 3, "sample_weight": weights}
    expected = compare_models({"a": plain}, data.obs, data.counts, **options)
    grid = GridSearchCV(plain, {"negbinregressor__tol": [1e-6]}, cv=2)
    found = compare_models({"a": grid}, data.obs, data.counts, **options)
    assert_frame_equal(found, expected)
    stock = stock_make_pipeline(FormulaTransformer("~ pseudotime"), NegBinRegressor())
    found = compare_models({"a": stock}, data.obs, data.counts, **options)
    assert_frame_equal(found, expected)
    found = compare_models({"a": AnnDataRegressor(plain)}, adata_of(data), **options)
    assert_frame_equal(found, expected, rtol=1e-9)
    unweighted = compare_models({"a": plain}, data.obs, data.counts, cv=3)
    assert (found["log_likelihood"] != unweighted["log_likelihood"]).all()
    with pytest.raises(ValueError, match="rows of sample_weight"):
        compare_models(
            {"a": AnnDataRegressor(plain)}, adata_of(data), cv=3, sample_weight=weights[::-1]
        )
    with pytest.raises(ValueError, match="rows of groups"):
        compare_models({"a": AnnDataRegressor(plain)}, adata_of(data), groups=weights[::-1])


# Fits that end elsewhere than at a maximum in finite coefficients
def test_fits_that_did_not_converge_are_counted(data):
    models = {"constant": nb(), "short": nb("~ cell_type", max_iter=1)}
    with pytest.warns(ConvergenceWarning, match=r"Fits of 4 gene\(s\).*gene_0.*\.\.\.") as caught:
        table = compare_models(models, data.obs, data.counts, cv=2)
    assert len(caught) == 1
    assert_array_equal(column(table, "n_failed"), [[0] * 4, [2] * 4])


def test_likelihoods_are_finite_where_coefficients_are_not():
    rng = np.random.default_rng(0)
    held_out = np.repeat([False, True], [120, 30])
    dose = np.where(held_out, 5.0, np.resize([0.0, 1.0], 150))
    y = rng.poisson(4.0, size=(150, 2))
    y[~held_out & (dose > 0), 0] = 0  # so that an inflation at a higher dose rounds to one
    y[~held_out, 1] = 0
    X = pd.DataFrame({"mean__Intercept": 1.0, "zero_inflation__Intercept": 1.0}, index=range(150))
    X["zero_inflation__dose"] = dose
    train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    with pytest.warns(ConvergenceWarning):
        fitted = ZINBRegressor().fit(X.iloc[train], y[train])
    assert fitted.predict_params(X.iloc[test])["zero_inflation"][0, 0] == 1
    table = compare_models({"zinb": ZINBRegressor()}, X, y, cv=[(train, test)])
    assert (table["log_likelihood"] < -20).all()
    assert np.isfinite(table["log_likelihood"]).all()


def refused(error, message, models, X, y=None, **options):
    with pytest.raises(error, match=re.escape(message)):
        compare_models(models, X, y, **options)


def test_objects_that_are_not_models_raise(data):
    data = data.obs, data.counts
    refused(TypeError, "models must be a dict of names and estimators", [nb()], *data)
    refused(ValueError, "models is empty", {}, *data)
    refused(TypeError, "names of models must be strings, not 1", {1: nb()}, *data)
    for wrong in (
        PoissonRegressor(),
        stock_make_pipeline(PoissonRegressor()),
        NegBinRegressor,
        "nb",
    ):
        refused(TypeError, "models['b'] must be a NegBinRegressor", {"a": nb(), "b": wrong}, *data)


def test_inconsistent_data_raise(data):
    obs, counts = data.obs, data.counts
    models = {"nb": nb()}
    refused(ValueError, "y is None, but models['nb'] is not an AnnDataRegressor", models, obs)
    refused(ValueError, "inconsistent numbers of samples", models, obs, counts.iloc[1:])
    wrong = counts.copy()
    wrong.iloc[200, 2] = -3
    refused(ValueError, "negative: -3 for gene 'gene_2' in row 200", models, obs, wrong)
    # In no fold have X and y the same labels.
    rolled = counts.iloc[np.roll(np.arange(N_CELLS), 1)]
    refused(ValueError, "The rows of y have the labels of X", models, obs, rolled)
    adata = {"wrapped": AnnDataRegressor(nb())}
    refused(ValueError, "Model 'wrapped' in fold 1 of 5", adata, adata_of(data), counts)


def test_inconsistent_groups_raise(data, donors):
    data = {"nb": nb()}, data.obs, data.counts
    labelled = pd.Series(donors, index=data[1].index)
    refused(ValueError, "groups has the shape (239,), expected (240,)", *data, groups=donors[1:])
    refused(ValueError, "rows of groups have the labels", *data, groups=labelled[::-1])
    missing = labelled.mask(np.arange(N_CELLS) == 7)
    refused(ValueError, "groups has no value in row 7", *data, groups=missing)
    by_cell = list(KFold(2).split(donors))
    message = "are held out in several folds. A splitter such as GroupKFold"
    refused(ValueError, message, *data, cv=by_cell, groups=donors)


def test_folds_without_a_standard_error(data, donors):
    data = {"nb": nb()}, data.obs, data.counts
    twice = RepeatedKFold(n_splits=2, n_repeats=2, random_state=0)
    message = "The cell in row 1 is held out in folds 2 and 3. The standard errors need"
    refused(ValueError, message, *data, cv=twice)
    rows = np.arange(N_CELLS)
    refused(ValueError, "at least two cells", *data, cv=[(rows[1:], rows[:1])])
    one = rows[donors == "d3"]
    cv = [(np.setdiff1d(rows, one), one)]
    refused(ValueError, "at least two groups", *data, cv=cv, groups=donors)


def test_folds_that_cannot_be_scored_are_named(data):
    rows = np.arange(N_CELLS)
    obs = data.obs.assign(batch=np.where(rows < 80, "new", np.where(rows % 2, "x", "y")))
    models = {"constant": nb(), "batches": nb("~ batch")}
    cv = [(rows[:160], rows[160:]), (rows[80:], rows[:80])]
    message = "Model 'batches' in fold 2 of 2: "
    refused(ValueError, message, models, obs, data.counts, cv=cv)
    with pytest.raises(ValueError, match="'new'"):
        compare_models(models, obs, data.counts, cv=cv)


@pytest.mark.filterwarnings("ignore:overflow encountered in matmul:RuntimeWarning")
def test_likelihoods_that_overflow_are_refused():
    x = np.random.default_rng(0).uniform(size=(100, 1))
    y = NB(np.exp(4 - 3 * x), 2.0).rvs(random_state=0)
    x[3], y[3] = 1e308, 1
    message = "Model 'nb' in fold 1 of 2: the log-likelihood of gene 'y0' in held-out cell 3 is not"
    refused(ValueError, message, {"nb": NegBinRegressor()}, x, y, cv=2)


def test_models_that_cannot_be_compared(data):
    adata = adata_of(data)
    adata.layers["other"] = adata.X.copy()
    models = {"a": AnnDataRegressor(nb()), "b": AnnDataRegressor(nb(), layer="other")}
    table = compare_models(models, adata, cv=2)
    assert (table["difference"] == 0).all()
    adata.layers["other"].data[0] += 1
    refused(
        ValueError,
        "Model 'b' in fold 1 of 2: its counts differ from the counts of 'a'",
        models,
        adata,
        cv=2,
    )
    models["b"] = SomeGenes(nb())
    refused(
        ValueError,
        "Model 'b' in fold 1 of 2: its genes differ from the genes of 'a'",
        models,
        adata,
        cv=2,
    )


class SomeGenes(AnnDataRegressor):
    def fit(self, X, y=None):
        return super().fit(X[:, :2], y)


def test_labels_of_groups_may_be_of_several_types():
    data = make_counts(60, 2, random_state=0)
    models = {
        name: make_pipeline(FormulaTransformer(name), NegBinRegressor())
        for name in ("~ 1", "~ pseudotime")
    }
    labels = np.arange(60) % 6
    mixed = np.array([1, "a", 2, "b", 3, "c"], dtype=object)[labels]
    found, expected = (
        compare_models(models, data.obs, data.counts, groups=groups, cv=3)
        for groups in (mixed, labels)
    )
    assert_frame_equal(found, expected)
