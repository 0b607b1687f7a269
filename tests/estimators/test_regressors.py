"""The regressors against exact fits, and under transformations of the data."""

import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline as stock_make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm.inference import wald_test
from tests.estimators.simulations import BOTH, TIGHT, dense, design_of, simulated
from tests.references import DATA, ORDINARY, REGRESSORS, fit_reference, needs_references, of_part


@pytest.mark.filterwarnings("ignore:Most values of y are not integers:UserWarning")
@pytest.mark.filterwarnings("ignore:The fit does not determine:UserWarning")
@parametrize_with_checks(
    [NegBinRegressor(), ZINBRegressor()],
    expected_failed_checks=lambda _: {
        "check_regressor_multioutput": "its y is negative; see the twin below"
    },
)
def test_scikit_learn_estimator_checks(estimator, check):
    check(estimator)


@BOTH
def test_multioutput_as_scikit_learn_checks_it_with_counts(regressor):
    rng = np.random.default_rng(42)
    X = rng.normal(size=(100, 5))
    y = rng.poisson(np.exp(0.3 * X @ rng.normal(size=(5, 5)))).astype(float)
    model = regressor().fit(X, y)
    prediction = model.predict(X)
    assert prediction.dtype == np.float64
    assert prediction.shape == y.shape
    assert model.coef_.shape == (5, 5)
    assert model.intercept_.shape == (5,)


HARD_STATUS = {
    "hard_leverage_y": "converged",
    "hard_poisson": "Poisson boundary",
    "hard_rank_deficient": "converged",
    "hard_scaling": "converged",
    "hard_separated": "separated",
    "hard_tiny_n": "converged",
    "hard_underdispersed": "Poisson boundary",
    "hard_zinb_pi_zero": "no zero inflation",
    "hard_zip_as_zinb": "Poisson boundary",
}


@pytest.mark.parametrize("name", HARD_STATUS)
def test_hard_fits_reach_the_supremum_with_a_true_status(name):
    exact, model, _ = fit_reference(name)
    best = (exact["limit"] or exact)["loglik"]
    assert model.log_likelihood_[0] == pytest.approx(best, abs=1e-5)
    assert model.status_[0] == HARD_STATUS[name]
    assert all(np.isfinite(table.to_numpy()).all() for table in model.params_.values())


@pytest.mark.data
@needs_references
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_fits_agree_in_every_coefficient(name):
    exact, model, _ = fit_reference(name)
    assert model.log_likelihood_[0] == pytest.approx(exact["loglik"], abs=1e-6)
    assert model.status_[0] == "converged"
    for part, table in model.params_.items():
        errors = of_part(exact["se"], part)
        for column, value in of_part(exact["coef"], part).items():
            fitted = table.loc[column].item()
            assert fitted == pytest.approx(value, abs=1e-4 * errors[column]), (part, column)


@pytest.mark.parametrize(("name", "total"), [("nb", -350817.4423), ("zinb", -154037.5279)])
def test_every_benchmark_gene_is_at_its_maximum(name, total):
    arrays = np.load(DATA / f"bench_{name}.npz")
    best = json.loads((DATA / "bench_loglik.json").read_text())[f"bench_{name}"]["per_gene_loglik"]
    X = pd.DataFrame({f"mean__{i}": column for i, column in enumerate(arrays["X"].T)})
    if name == "zinb":
        X[["zero_inflation__0", "zero_inflation__1"]] = arrays["Z"]
    model = REGRESSORS[name.upper()]().fit(X, arrays["Y"])
    assert_allclose(model.log_likelihood_, best, rtol=0, atol=1e-4)
    assert model.log_likelihood_.sum() == pytest.approx(total, abs=1e-3)


SINGLE = {
    "bench_nb": ("~ 1", None),
    "bench_zinb": ("~ 1", "~ x"),
    "pancreas, one size": ("~ 1", None),
    "pancreas, all columns": ("~ . - total_counts", None),
    "pancreas, inflated": ("~ 1", "~ 1"),
    "pancreas, all regressed": ("~ pseudotime", "~ pseudotime"),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # silent groups
@pytest.mark.parametrize("name", SINGLE)
def test_single_precision_is_close_to_the_maximum(name):
    """Within 0.03 of the log-likelihood in double precision; 0.1 of a supremum far away."""
    dispersion, zero_inflation = SINGLE[name]
    regressor = NegBinRegressor if zero_inflation is None else ZINBRegressor
    if name.startswith("bench"):
        arrays = np.load(DATA / f"{name}.npz")
        X, y = pd.DataFrame(arrays["X"]).add_prefix("mean__"), arrays["Y"]
        if zero_inflation is not None:
            X = X.join(pd.DataFrame(arrays["Z"]).add_prefix("zero_inflation__"))
    else:
        anndata = pytest.importorskip("anndata")
        path = Path(os.environ.get("SC_GLM_DATA", "nowhere")) / "pancreas_100.h5ad"
        if not path.is_file():
            pytest.skip("SC_GLM_DATA has no pancreas_100.h5ad")
        cells = anndata.read_h5ad(path)
        formulas = FormulaTransformer("~ pseudotime", dispersion, zero_inflation)
        X, y = formulas.fit_transform(cells.obs), cells.layers["counts"]
    single, double = regressor(dtype="float32").fit(X, y), regressor().fit(X, y)
    below = double.log_likelihood_ - single.log_prob(X, y).sum(axis=0)
    assert (below < np.where(double.status_ == "separated", 0.1, 0.03)).all()


# Cells, cells with a count, and the largest count in nine cell types; counts are one but for it.
# The outlier lets a Newton step of the smallest type go far beyond any count.
WITH_OUTLIER = {
    "B": (344, 81, 33),
    "monocyte": (480, 218, 103),
    "CD8 T": (271, 83, 22),
    "dendritic": (32, 22, 14),
    "FCGR3A+": (162, 95, 70),
    "memory T": (483, 178, 54),
    "NK": (155, 60, 92),
    "naive T": (697, 149, 30),
    "platelet": (14, 11, 18),
}


def test_a_newton_step_beyond_all_counts_converges():
    """With a mean for each group, the maximum has each group's average, whatever the size."""
    counts, groups = [], []
    for name, (n_cells, n_seen, largest) in WITH_OUTLIER.items():
        counts.append(np.r_[largest, np.ones(n_seen - 1), np.zeros(n_cells - n_seen)])
        groups += [name] * n_cells
    y, cells = np.concatenate(counts), pd.DataFrame({"cell_type": groups})
    X = FormulaTransformer("~ cell_type").fit_transform(cells)
    model = NegBinRegressor().fit(X, y)
    assert model.status_ == ["converged"]
    averages = pd.Series(y).groupby(groups).transform("mean")
    assert_allclose(model.predict(X), averages, rtol=1e-5)


def assert_same_fit(a, b, *, tol=1e-6):
    """A coefficient that runs to infinity stops where it happens to; all else must agree."""
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=1e-9, atol=1e-6)
    assert_array_equal(a.status_, b.status_)
    finite = a.status_ == "converged"
    assert finite.any()
    for part in a.params_:
        assert_allclose(
            a.params_[part].loc[:, finite], b.params_[part].loc[:, finite], rtol=tol, atol=tol
        )


@BOTH
def test_integer_weights_equal_repeated_rows(regressor):
    data = simulated()
    X, y = design_of(data), dense(data.counts)
    weights = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = regressor(**TIGHT).fit(X, y, sample_weight=weights)
    repeated = regressor(**TIGHT).fit(X.loc[X.index.repeat(weights)], np.repeat(y, weights, axis=0))
    assert_same_fit(weighted, repeated)


@BOTH
def test_weights_of_zero_equal_dropped_rows(regressor):
    data = simulated()
    X, y = design_of(data), dense(data.counts).copy()
    keep = np.arange(len(y)) % 3 > 0
    y[~keep] += 1000
    weighted = regressor(**TIGHT).fit(X, y, sample_weight=keep.astype(float))
    assert_same_fit(weighted, regressor(**TIGHT).fit(X[keep], y[keep]))


@BOTH
def test_a_gene_alone_is_the_gene_in_a_matrix(regressor):
    data = simulated()
    X, y = design_of(data), dense(data.counts)
    together = regressor(**TIGHT).fit(X, y)
    for gene in range(y.shape[1]):
        alone = regressor(**TIGHT).fit(X, y[:, gene])
        assert alone.log_likelihood_[0] == pytest.approx(together.log_likelihood_[gene], rel=1e-9)
        assert alone.status_[0] == together.status_[gene]
        if alone.status_[0] == "converged":
            for part, table in alone.params_.items():
                assert_allclose(table.iloc[:, 0], together.params_[part].iloc[:, gene], rtol=1e-7)


@BOTH
@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_matrix, sp.csr_array, sp.csc_array])
def test_sparse_counts_equal_dense_counts(regressor, form):
    data = simulated()
    X, y = design_of(data), dense(data.counts)
    a, b = regressor().fit(X, form(y)), regressor().fit(X, y)
    for part in a.params_:
        assert_array_equal(a.params_[part], b.params_[part])
    assert a.score(X, form(y)) == pytest.approx(b.score(X, y), rel=1e-12)
    assert_allclose(a.log_prob(X, form(y)), b.log_prob(X, y))


@BOTH
@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31))
def test_order_of_rows_and_genes_does_not_matter(regressor, seed):
    data = simulated()
    X, y = design_of(data), dense(data.counts)
    rng = np.random.default_rng(seed)
    rows, genes = rng.permutation(len(y)), rng.permutation(y.shape[1])
    a = regressor(**TIGHT).fit(X, y)
    b = regressor(**TIGHT).fit(X.iloc[rows], y[rows][:, genes])
    assert_allclose(a.log_likelihood_[genes], b.log_likelihood_, rtol=1e-9)
    assert_allclose(a.predict(X)[:, genes], b.predict(X), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-6, 1e4, 1e9])
def test_units_of_a_covariate_do_not_matter(scale):
    data = simulated(dispersion=None)
    X, y = design_of(data), dense(data.counts)
    rescaled = X.assign(mean__pseudotime=X["mean__pseudotime"] * scale + 3 * scale)
    a, b = NegBinRegressor(**TIGHT).fit(X, y), NegBinRegressor(**TIGHT).fit(rescaled, y)
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=1e-10)
    assert_allclose(
        a.params_["mean"].loc["pseudotime"], b.params_["mean"].loc["pseudotime"] * scale, rtol=1e-5
    )


@BOTH
def test_aliased_columns_share_the_effect_and_empty_ones_get_zero(regressor):
    data = simulated()
    X, y = design_of(data), dense(data.counts)
    aliased = X.assign(mean__again=X["mean__pseudotime"], mean__empty=0.0, dispersion__empty=0.0)
    a, b = regressor(**TIGHT).fit(X, y), regressor(**TIGHT).fit(aliased, y)
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=1e-9)
    mean = b.params_["mean"]
    assert_allclose(mean.loc["again"], mean.loc["pseudotime"])
    assert_allclose(mean.loc["again"] * 2, a.params_["mean"].loc["pseudotime"], rtol=1e-5)
    assert_allclose(mean.loc["empty"], 0.0, atol=1e-12)
    assert_allclose(b.params_["dispersion"].loc["empty"], 0.0, atol=1e-12)


@BOTH
def test_a_shifted_offset_is_a_shifted_intercept(regressor):
    data = simulated(offset="np.log(size_factor)")
    X, y = design_of(data), dense(data.counts)
    offset = X.columns[X.columns.str.startswith("offset__")][0]
    a = regressor(**TIGHT).fit(X, y)
    b = regressor(**TIGHT).fit(X.assign(**{offset: X[offset] + 2.5}), y)
    assert_allclose(
        a.params_["mean"].loc["Intercept"], b.params_["mean"].loc["Intercept"] + 2.5, rtol=1e-6
    )
    assert_allclose(a.predict(X), b.predict(X.assign(**{offset: X[offset] + 2.5})), rtol=1e-6)
    assert not np.allclose(a.predict(X), a.predict(X.assign(**{offset: 0.0})))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.int8, bool])
def test_any_numeric_type_of_counts(dtype):
    data = simulated(dispersion=None)
    X, y = design_of(data), np.minimum(dense(data.counts), 100).astype(dtype)
    y.setflags(write=False)
    a, b = NegBinRegressor().fit(X, y), NegBinRegressor().fit(X, np.array(y, dtype=float))
    assert_array_equal(a.params_["mean"], b.params_["mean"])


@BOTH
def test_the_truth_is_within_the_likelihood_ratio_of_the_estimate(regressor):
    zeros = {"zero_inflation": "~ pseudotime"} if regressor is ZINBRegressor else {}
    data = simulated(seed=1, n_cells=4000, n_genes=40, dispersion="~ pseudotime", **zeros)
    X = design_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # zero inflation may be a step
        model = regressor().fit(X, data.counts)
    fitted, estimate = model.log_likelihood_, model.params_
    model.params_ = {part: data.params[part].loc[table.index] for part, table in estimate.items()}
    ratio = 2 * (fitted - model.log_prob(X, data.counts).sum(axis=0))
    n_params = sum(len(table) for table in estimate.values())
    assert (ratio > 0).all()
    # A chi-square variable of n_params degrees: its mean over 40 genes within 4 standard errors.
    assert abs(ratio.mean() - n_params) < 4 * np.sqrt(2 * n_params / 40)


def penalised_reference(X, y, alpha):
    """Minimise the penalised mean negative log-likelihood of NB by a general optimiser."""
    y, n = torch.as_tensor(y), len(y)

    def loss(beta):
        b = torch.tensor(beta, requires_grad=True)
        mu, r = torch.exp(torch.as_tensor(X) @ b[:-1]), b[-1].exp()
        value = torch.lgamma(y + r) - torch.lgamma(r) - torch.lgamma(y + 1)
        value = value + r * (r / (r + mu)).log() + y * (mu / (r + mu)).log()
        total = -value.sum() / n + 0.5 * alpha * (b[1:-1] ** 2).sum()
        total.backward()
        return total.item(), b.grad.numpy()

    start = np.zeros(X.shape[1] + 1)
    return scipy.optimize.minimize(loss, start, jac=True, method="BFGS", tol=1e-10).x


def test_ridge_penalises_all_but_intercepts():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3))
    y = rng.negative_binomial(2, 2 / (2 + np.exp(1 + X[:, 0]))).astype(float)
    model = NegBinRegressor(alpha={"mean": 0.5}, **TIGHT).fit(X, y)
    exact = penalised_reference(np.column_stack([np.ones(300), X]), y, 0.5)
    assert_allclose(model.params_["mean"].iloc[:, 0], exact[:-1], atol=1e-5)
    assert_allclose(model.params_["dispersion"].iloc[0, 0], exact[-1], atol=1e-5)
    assert model.log_likelihood_[0] == pytest.approx(model.log_prob(X, y).sum())
    same = NegBinRegressor(alpha=0.5, **TIGHT).fit(X, y)
    assert_allclose(same.params_["mean"], model.params_["mean"], atol=1e-8)


def test_a_tiny_ridge_tends_to_the_minimum_norm_fit():
    data = simulated(dispersion=None)
    X = design_of(data).assign(mean__again=lambda d: d["mean__pseudotime"] * 2)
    y = dense(data.counts)
    free = NegBinRegressor(**TIGHT).fit(X, y)
    ridge = NegBinRegressor(alpha=1e-9, **TIGHT).fit(X, y)
    slopes = ["pseudotime", "again"]
    assert_allclose(ridge.params_["mean"].loc["again"], 2 * ridge.params_["mean"].loc["pseudotime"])
    assert_allclose(ridge.predict(X), free.predict(X), rtol=1e-4)
    assert (ridge.params_["mean"].loc[slopes].pow(2).sum() > 0).all()


@BOTH
def test_plain_covariates_belong_to_the_mean(regressor):
    data = simulated(dispersion=None)
    frame = design_of(data)
    plain = frame[["mean__pseudotime"]].rename(columns={"mean__pseudotime": "t"})
    a, b = regressor().fit(plain, data.counts), regressor().fit(frame, data.counts)
    assert list(a.params_["mean"].index) == ["Intercept", "t"]
    assert_allclose(a.coef_, b.coef_)
    assert_allclose(a.intercept_, b.intercept_)
    without = regressor(fit_intercept=False).fit(plain, data.counts)
    assert list(without.params_["mean"].index) == ["t"]
    assert_array_equal(without.intercept_, 0.0)


def test_warm_start_begins_at_the_last_fit():
    data = simulated(n_cells=400, dispersion=None)
    X = design_of(data)
    model = NegBinRegressor(warm_start=True).fit(X, data.counts)
    first = model.log_likelihood_
    model.fit(X, data.counts)
    assert (model.n_iter_ <= 2).all()
    assert_allclose(model.log_likelihood_, first, rtol=1e-10)
    with pytest.raises(ValueError, match="warm_start"):
        model.fit(X[["mean__Intercept"]], data.counts)


def test_names_come_from_the_frame():
    data = simulated()
    y = pd.DataFrame(
        dense(data.counts), columns=["Ins1", "Gcg", "Sst", "Ppy"], index=data.obs.index
    )
    model = NegBinRegressor().fit(design_of(data), y)
    assert list(model.target_names_) == list(y.columns)
    assert list(model.params_["mean"].columns) == list(y.columns)
    with pytest.raises(ValueError, match="'Gcg' where 'Ins1' was"):
        model.score(design_of(data), y[["Gcg", "Ins1", "Sst", "Ppy"]])


@BOTH
def test_a_fitted_model_is_small_and_free_of_torch(regressor):
    data = simulated(n_cells=2000)
    model = regressor().fit(design_of(data), data.counts)
    pickled = pickle.dumps(model)
    assert len(pickled) < 10_000
    assert b"torch" not in pickled
    X = design_of(data)
    assert_array_equal(pickle.loads(pickled).predict(X), model.predict(X))  # noqa: S301
    assert not hasattr(clone(model), "params_")


@pytest.mark.parametrize("make", [make_pipeline, stock_make_pipeline])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_grid_search_over_formulas_finds_the_truth(make, n_jobs):
    data = simulated(seed=3, n_cells=600, n_genes=10, mean="~ pseudotime", dispersion="~ cell_type")
    grid = {
        "formulatransformer__mean": ["~ 1", "~ pseudotime", "~ bs(pseudotime, df=6)"],
        "formulatransformer__dispersion": ["~ 1", "~ cell_type"],
    }
    search = GridSearchCV(
        make(FormulaTransformer(), NegBinRegressor()), grid, cv=3, n_jobs=n_jobs
    ).fit(data.obs, data.counts)
    assert search.best_params_ == {
        "formulatransformer__mean": "~ pseudotime",
        "formulatransformer__dispersion": "~ cell_type",
    }


def test_cross_validated_score_prefers_zero_inflation_where_it_is():
    data = simulated(seed=2, n_cells=800, n_genes=10, dispersion=None, zero_inflation="~ 1")
    scores = {
        name: cross_val_score(
            make_pipeline(FormulaTransformer("~ pseudotime"), regressor()),
            data.obs,
            dense(data.counts),
            cv=3,
        ).mean()
        for name, regressor in REGRESSORS.items()
    }
    assert scores["ZINB"] > scores["NB"]


def test_one_warning_summarises_the_statuses():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": np.repeat([0.0, 1.0], 50)})
    y = pd.DataFrame(rng.poisson(3, (100, 3)), columns=["fine", "silent", "gone"])
    y.loc[X["a"] == 1, "silent"] = 0
    y["gone"] = 0
    with pytest.warns(ConvergenceWarning) as record:
        model = NegBinRegressor().fit(X, y)
    assert len(record) == 1
    assert record[0].filename == __file__
    message = str(record[0].message)
    assert "1 separated (silent)" in message
    assert "1 all zero (gone)" in message
    assert list(model.status_[1:]) == ["separated", "all zero"]
    assert model.predict(X)[-1, 1] < 1e-6
    assert model.predict(X)[:, 2].max() < 1e-6
    assert np.isfinite(model.score(X, y))


@BOTH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_offset_beyond_single_precision_gives_finite_coefficients(regressor):
    data = simulated(dispersion=None)
    X = design_of(data).assign(offset__o=np.linspace(0, 180, len(data.obs)))
    model = regressor(dtype="float32").fit(X, data.counts)
    assert all(np.isfinite(table.to_numpy()).all() for table in model.params_.values())
    assert np.isfinite(model.log_likelihood_).all()
    assert np.isfinite(model.predict(X)).all()


def test_an_iteration_limit_is_reported():
    data = simulated()
    with pytest.warns(ConvergenceWarning, match="4 iteration limit"):
        model = NegBinRegressor(max_iter=1).fit(design_of(data), data.counts)
    assert not model.converged_.any()
    assert_array_equal(model.n_iter_, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
def test_a_gpu_gives_the_same_fit(regressor):
    data = simulated(n_cells=1000, n_genes=20)
    X = design_of(data)
    a = regressor(**TIGHT).fit(X, data.counts)
    b = regressor(device="cuda", **TIGHT).fit(X, data.counts)
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=1e-9)


def test_the_cells_of_a_fit_are_counted():
    X, y = np.arange(8.0)[:, None], np.array([3, 1, 4, 1, 5, 9, 2, 6])
    assert NegBinRegressor().fit(X, y).n_cells_ == 8
    assert NegBinRegressor().fit(X, y, sample_weight=[0, 1, 2, 1, 1, 1, 1, 1]).n_cells_ == 7


@pytest.mark.parametrize("size", [0.5, 1e3, 1e6, np.inf])
@pytest.mark.parametrize("power", range(4, 9))
def test_large_counts(size, power):
    """The mean of a group is that of its counts, however large these are."""
    rng = np.random.default_rng(power)
    group = np.arange(200) % 2
    mean = 10.0**power * np.where(group == 1, 2.0, 1.0)
    gamma = rng.gamma(size, 1 / size, 200) if np.isfinite(size) else 1.0
    y = rng.poisson(mean * gamma).clip(max=10**9)
    X = pd.DataFrame({"group": group})
    model = NegBinRegressor().fit(X, y)
    levels = np.log([y[group == 0].mean(), y[group == 1].mean()])
    intercept, slope = model.params_["mean"].to_numpy()[:, 0]
    assert_allclose([intercept, intercept + slope], levels, atol=1e-6)
    assert model.status_[0] in {"converged", "Poisson boundary"}
    assert wald_test(model, X, y, "group = 0")["estimate"].notna().all()


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
@pytest.mark.parametrize("unit", [1e-9, 1e-6, 1e6])
def test_the_unit_of_weights_does_not_matter(regressor, unit):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(300, 1))
    mean = np.exp(rng.uniform(-3, 3, 12) + x * rng.normal(size=12))
    y = rng.poisson(mean * rng.gamma(2.0, 0.5, mean.shape))
    y[:, 0], y[x[:, 0] < 0, 1] = rng.poisson(mean[:, 0]), 0
    weights = rng.uniform(0.5, 1.5, 300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        plain = regressor().fit(x, y, sample_weight=weights)
        scaled = regressor().fit(x, y, sample_weight=unit * weights)
    assert list(scaled.status_) == list(plain.status_)
    assert_allclose(scaled.log_likelihood_ / unit, plain.log_likelihood_, rtol=1e-7)
    firm = plain.status_ == "converged"
    assert_allclose(
        scaled.params_["mean"].loc[:, firm], plain.params_["mean"].loc[:, firm], atol=1e-4
    )
