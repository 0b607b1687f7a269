"""The estimators against exact fits, under transformations of the data, and on bad input."""

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
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline as stock_make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from sc_glm._counts.equal_rows import group_rows
from sc_glm._solver import gene_block
from sc_glm.datasets import make_counts
from sc_glm.diagnostics import goodness_of_fit, quantile_residuals
from sc_glm.estimators import base
from sc_glm.inference import wald_test
from tests.references import DATA, ORDINARY, REGRESSORS, fit_reference, needs_references, of_part

BOTH = pytest.mark.parametrize("regressor", REGRESSORS.values())
# Settings under which two runs agree as far as arithmetic allows.
TIGHT = {"tol": 1e-10}


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


# ---------------------------------------------------------------------------- exact fits


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
def test_single_precision_ends_near_the_maximum(name):
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


def test_a_step_far_beyond_all_counts_finds_its_way_back():
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


# ------------------------------------------------------------------------- invariances


def simulated(seed=0, n_cells=150, n_genes=4, **formulas):
    return make_counts(
        n_cells,
        n_genes,
        random_state=seed,
        **({"mean": "~ pseudotime", "dispersion": "~ cell_type"} | formulas),
    )


def design_of(data):
    return FormulaTransformer(**data.formulas).fit_transform(data.obs)


def dense(counts):
    return counts.toarray() if sp.issparse(counts) else np.asarray(counts)


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


def categorical(n_cells=400, seed=3):
    """Return columns of few values, and counts of 6 ordinary genes and 6 hard ones."""
    rng = np.random.default_rng(seed)
    group, batch = rng.integers(0, 4, n_cells), rng.integers(0, 2, n_cells)
    dummies = {f"g{k}": (group == k).astype(float) for k in range(4)}
    columns = pd.DataFrame({"one": 1.0, "batch": batch, **dummies, "depth": 0.5 * batch - 0.2})
    mu = np.exp(rng.normal(0.5, 1, 6) + rng.normal(0, 0.7, (4, 6))[group])
    size = np.exp(rng.normal(0.5, 0.4, 6) + rng.normal(0, 0.4, (4, 6))[group])
    y = rng.negative_binomial(size, size / (size + mu)) * (rng.uniform(size=mu.shape) > 0.2)
    rare = np.eye(n_cells)[7] * 3
    silent = np.where(group == 2, 0, rng.poisson(2, n_cells))
    even, high = rng.binomial(4, 0.5, n_cells), rng.poisson(200, n_cells)
    halves = rng.poisson(1, n_cells) / 2
    return columns, np.column_stack([y, 0 * rare, rare, silent, even, high, halves]).astype(float)


BY_GROUP = ["one", "g0", "g1", "g2", "g3"]  # one column too many
FEW_ROWS = {
    "group means": (NegBinRegressor, {"mean": BY_GROUP}, {}),
    "one row": (NegBinRegressor, {"mean": ["one"]}, {}),
    "one row of two parts": (ZINBRegressor, {"mean": ["one"]}, {}),
    "group sizes": (NegBinRegressor, {"mean": BY_GROUP, "dispersion": BY_GROUP}, {}),
    "group inflations": (ZINBRegressor, {"mean": BY_GROUP, "zero_inflation": BY_GROUP}, {}),
    "all by two factors": (
        ZINBRegressor,
        {
            "mean": [*BY_GROUP, "batch"],
            "dispersion": ["one", "batch"],
            "zero_inflation": BY_GROUP,
            "offset": ["depth"],
        },
        {},
    ),
    "offset and ridge": (
        NegBinRegressor,
        {"mean": ["one", "batch", "g0"], "dispersion": ["one", "g1"], "offset": ["depth"]},
        {"alpha": 0.01},
    ),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", FEW_ROWS)
def test_cells_with_equal_covariates_are_fitted_as_one_by_one(monkeypatch, name, weighted):
    regressor, parts, options = FEW_ROWS[name]
    columns, y = categorical()
    X = pd.DataFrame({f"{part}__{c}": columns[c] for part, own in parts.items() for c in own})
    weights = None
    if weighted:
        weights = np.random.default_rng(4).uniform(0.2, 2, len(y))
        weights[::9] = 0
    few = regressor(**TIGHT, **options).fit(X, y, sample_weight=weights)
    rows = group_rows(X.to_numpy())
    assert rows is not None
    monkeypatch.setattr(base, "group_rows", lambda _: None)
    each = regressor(**TIGHT, **options).fit(X, y, sample_weight=weights)

    assert_allclose(few.log_likelihood_, each.log_likelihood_, rtol=1e-9, atol=1e-9)
    assert_array_equal(few.status_, each.status_)
    assert len(set(few.status_)) > 1
    own = 1.0 if weights is None else weights[:, None]
    assert_allclose(few.log_likelihood_, (own * few.log_prob(X, y)).sum(0), rtol=1e-9, atol=1e-8)
    inner = few.status_ == "converged"
    for part, table in few.params_.items():
        assert_array_equal(few.undetermined_[part], each.undetermined_[part])
        assert_array_equal(few.aliased_[part], each.aliased_[part])
        assert_allclose(table.loc[:, inner], each.params_[part].loc[:, inner], rtol=1e-4, atol=1e-5)
    # With a single count, the mean is arbitrary where zero inflation explains all.
    several = (y > 0).sum(0) != 1
    means = few.predict(X)[:, several], each.predict(X)[:, several]
    assert_allclose(*means, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:Most values of y are not integers:UserWarning")
@pytest.mark.parametrize("name", ["group sizes", "group inflations"])
def test_cells_with_equal_covariates_leave_a_gene_apart_from_others(name, tmp_path):
    """To the last digit, and whatever order the cells are in, as counts are summed by row."""
    regressor, parts, _ = FEW_ROWS[name]
    columns, y = categorical(120)
    X = pd.DataFrame({f"{part}__{c}": columns[c] for part, own in parts.items() for c in own})
    together = regressor(checkpoint_dir=tmp_path).fit(X, y)
    again = regressor(checkpoint_dir=tmp_path).fit(X, y)
    pairs = [(slice(None), again)]
    pairs += [([g], regressor().fit(X, y[:, [g]])) for g in (0, 6, 7, 8, 11)]
    pairs.append((slice(None), regressor(batch_size=5).fit(X, sp.csr_array(y))))
    later = np.argsort(group_rows(X.to_numpy()), kind="stable")  # no row's first cell moves ahead
    pairs.append((slice(None), regressor().fit(X.iloc[later], y[later])))
    for genes, other in pairs:
        for part, table in together.params_.items():
            assert_array_equal(table.to_numpy()[:, genes], other.params_[part].to_numpy())
        for attribute in ("log_likelihood_", "n_iter_", "status_"):
            assert_array_equal(getattr(together, attribute)[genes], getattr(other, attribute))


@BOTH
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_few_distinct_rows_in_single_precision(regressor):
    columns, y = categorical()
    X = columns[["g0", "g1", "g2", "batch"]]
    single, double = (regressor(dtype=d).fit(X, y) for d in ("float32", "float64"))
    assert_allclose(single.log_likelihood_, double.log_likelihood_, rtol=1e-4, atol=1e-3)


def test_a_warm_start_where_few_rows_are_distinct():
    columns, y = categorical()
    X = columns[["g0", "g1", "g2"]]
    model = NegBinRegressor(warm_start=True).fit(X, y[:, :6])
    before = model.log_likelihood_
    model.fit(X, y[:, :6])
    assert_allclose(model.log_likelihood_, before, rtol=1e-9)
    assert (model.n_iter_ <= 2).all()


def test_cells_with_equal_covariates_are_read_once(monkeypatch):
    """What a pass costs is the number of distinct counts in each row."""
    seen = []
    problem_of = gene_block.problem_of

    def spy(*args):
        problem = problem_of(*args)
        seen.append((problem.counts.shape, problem.counts.nnz, len(args[2].offset)))
        return problem

    monkeypatch.setattr(gene_block, "problem_of", spy)
    columns, y = categorical()
    NegBinRegressor().fit(columns[["g0", "g1"]], y[:, :3])
    ((shape, n_counts, n_rows),) = seen
    assert shape == (3, 3)
    assert n_rows == 3
    rows = 2 * columns["g0"] + columns["g1"]
    distinct = {(g, rows[i], y[i, g]) for i, g in zip(*np.nonzero(y[:, :3]), strict=True)}
    assert n_counts == len(distinct)


def test_equal_rows_are_not_seen_where_the_offset_is_continuous(monkeypatch):
    seen = []
    monkeypatch.setattr(gene_block.Tally, "of", seen.append)
    columns, y = categorical()
    X = pd.DataFrame({"mean__g0": columns["g0"], "offset__depth": np.linspace(-1, 1, len(y))})
    NegBinRegressor().fit(X, y[:, :3])
    assert seen == []


def test_an_offset_that_is_no_logarithm_is_named_by_its_cell():
    columns, y = categorical()
    X = pd.DataFrame({"mean__one": columns["one"], "offset__depth": 0.0})
    X.loc[123, "offset__depth"] = 5e4
    with pytest.raises(ValueError, match="The offset is 50000 in row 123"):
        NegBinRegressor().fit(X, y)


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


# --------------------------------------------------------------- estimates and penalties


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


# -------------------------------------------------------------------------- predictions


@BOTH
def test_predictions_agree_with_each_other(regressor):
    data = simulated(offset="np.log(size_factor)")
    X, y = design_of(data), dense(data.counts)
    model = regressor().fit(X, y)
    params, dist = model.predict_params(X), model.predict_dist(X)
    assert list(params) == list(model.params_)
    assert all(values.shape == y.shape for values in params.values())
    assert_allclose(model.predict(X), dist.mean())
    assert_allclose(model.log_prob(X, y), dist.logpmf(y))
    assert model.score(X, y) == pytest.approx(model.log_prob(X, y).mean())
    assert_allclose(model.log_likelihood_, model.log_prob(X, y).sum(axis=0), rtol=1e-9)
    weights = np.arange(len(y), dtype=float)
    expected = np.average(model.log_prob(X, y).mean(axis=1), weights=weights)
    assert model.score(X, y, sample_weight=weights) == pytest.approx(expected)


@BOTH
def test_samples_are_reproducible_and_follow_the_fit(regressor):
    data = simulated(n_genes=2)
    X = design_of(data)
    model = regressor().fit(X, data.counts)
    once = model.sample(X, random_state=1)
    assert once.shape == data.counts.shape
    assert once.dtype == np.int64
    assert_array_equal(once, model.sample(X, random_state=1))
    many = model.sample(X, n_draws=400, random_state=1)
    assert many.shape == (400, *data.counts.shape)
    assert_array_equal(many[0], once)
    error = np.sqrt(model.predict_dist(X).var() / 400)
    assert (np.abs(many.mean(axis=0) - model.predict(X)) < 6 * error).all()


@BOTH
def test_sparse_samples_are_those_of_the_same_seed_in_any_number_of_jobs(regressor):
    data = simulated(n_genes=2, offset="np.log(size_factor)")
    n_copies = 200
    X = pd.concat([design_of(data)] * n_copies, ignore_index=True)
    assert len(X) * 2 > 3 * 2**14  # several blocks of cells
    model = regressor().fit(design_of(data), data.counts)
    expected = model.sample(X, random_state=1)
    for n_jobs in (None, 2):
        counts = model.set_params(n_jobs=n_jobs).sample_sparse(X, random_state=1)
        assert isinstance(counts, sp.csr_array)
        assert_array_equal(counts.toarray(), expected)
        assert_array_equal(model.sample(X, random_state=1), expected)
    assert (model.sample_sparse(X, random_state=2) != counts).nnz > 0
    mean = expected.reshape(n_copies, *data.counts.shape).mean(axis=0)
    dist = model.predict_dist(design_of(data))
    assert (np.abs(mean - dist.mean()) < 6 * np.sqrt(dist.var() / n_copies)).all()


@BOTH
def test_one_gene_gives_vectors(regressor):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 2)), rng.poisson(3, 100)
    model = regressor().fit(X, y)
    assert model.predict(X).shape == (100,)
    assert model.coef_.shape == (2,)
    assert model.sample(X, random_state=0).shape == (100,)
    assert model.sample(X, n_draws=3, random_state=0).shape == (3, 100)
    assert model.log_prob(X, y).shape == (100,)
    assert np.isscalar(model.score(X, y))
    column = regressor().fit(X, y[:, None])
    assert column.predict(X).shape == (100, 1)


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


# ----------------------------------------------------------------------- model selection


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


# ------------------------------------------------------------------- warnings and errors


def test_one_warning_sums_up_what_went_wrong():
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


X_OK, Y_OK = np.arange(8.0)[:, None], np.arange(8)
FRAME = pd.DataFrame({"mean__Intercept": np.ones(8)})
BAD_FIT = {
    "negative alpha": ({"alpha": -1.0}, X_OK, Y_OK, ValueError, "alpha"),
    "alpha of a foreign part": (
        {"alpha": {"zero_inflation": 1.0}},
        X_OK,
        Y_OK,
        ValueError,
        "zero_inflation",
    ),
    "negative alpha of a part": ({"alpha": {"mean": -1.0}}, X_OK, Y_OK, ValueError, "mean"),
    "infinite alpha": ({"alpha": {"mean": np.inf}}, X_OK, Y_OK, ValueError, "finite"),
    "no iterations": ({"max_iter": 0}, X_OK, Y_OK, ValueError, "max_iter"),
    "no tolerance": ({"tol": 0.0}, X_OK, Y_OK, ValueError, "tol"),
    "bad batch size": ({"batch_size": 0}, X_OK, Y_OK, ValueError, "batch_size"),
    "bad dtype": ({"dtype": "int8"}, X_OK, Y_OK, ValueError, "dtype"),
    "unknown device": ({"device": "abacus"}, X_OK, Y_OK, ValueError, "abacus"),
    "negative count": ({}, X_OK, Y_OK - 1, ValueError, "negative: -1 for gene 'y0' in row 0"),
    "missing count": ({}, X_OK, np.where(Y_OK == 3, np.nan, Y_OK), ValueError, "NaN.*row 3"),
    "infinite count": ({}, X_OK, np.where(Y_OK == 3, np.inf, Y_OK), ValueError, "infinity.*row 3"),
    "a count that is none": (
        {},
        X_OK,
        np.where(Y_OK == 3, 1e200, Y_OK),
        ValueError,
        "too large for a count: 1e[+]200 for gene 'y0' in row 3",
    ),
    "missing covariate": ({}, np.where(X_OK == 2, np.nan, X_OK), Y_OK, ValueError, "NaN"),
    "no counts": ({}, X_OK, None, ValueError, "y"),
    "text": ({}, X_OK, ["a"] * 8, ValueError, "."),
    "complex": ({}, X_OK, Y_OK * 1j, ValueError, "[Cc]omplex"),
    "rows that differ": ({}, X_OK, Y_OK[:5], ValueError, "8.*5"),
    "no genes": ({}, X_OK, np.zeros((8, 0)), ValueError, "."),
    "three dimensions": ({}, X_OK, np.zeros((8, 2, 2)), ValueError, "dim"),
    "duplicated genes": (
        {},
        X_OK,
        pd.DataFrame(np.ones((8, 2)), columns=["a", "a"]),
        ValueError,
        "'a'",
    ),
    "a part that the model lacks": (
        {},
        FRAME.assign(zero_inflation__x=1.0),
        Y_OK,
        ValueError,
        "zero_inflation",
    ),
    "a mixed frame": ({}, FRAME.assign(age=1.0), Y_OK, ValueError, "age"),
    "an offset without its logarithm": (
        {},
        FRAME.assign(offset__depth=5000.0),
        Y_OK,
        ValueError,
        "5000 in row 0.*logarithm",
    ),
    "two offsets": ({}, FRAME.assign(offset__a=0.0, offset__b=0.0), Y_OK, ValueError, "offset"),
}


@pytest.mark.parametrize("case", BAD_FIT)
def test_bad_input_is_refused_in_words(case):
    parameters, X, y, error, words = BAD_FIT[case]
    with pytest.raises(error, match=words):
        NegBinRegressor(**parameters).fit(X, y)


@pytest.mark.parametrize(
    ("weights", "words"),
    [(np.zeros(8), "zero"), (-np.ones(8), "[Nn]egative"), (np.ones(3), "shape")],
)
def test_bad_weights_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        NegBinRegressor().fit(X_OK, Y_OK, sample_weight=weights)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_a_clear_error():
    with pytest.raises(ValueError, match="device='cuda'"):
        NegBinRegressor(device="cuda").fit(X_OK, Y_OK)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@BOTH
def test_a_gpu_gives_the_same_fit(regressor):
    data = simulated(n_cells=1000, n_genes=20)
    X = design_of(data)
    a = regressor(**TIGHT).fit(X, data.counts)
    b = regressor(device="cuda", **TIGHT).fit(X, data.counts)
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=1e-9)


@pytest.mark.parametrize(
    "method", ["predict", "predict_params", "predict_dist", "sample", "sample_sparse"]
)
def test_an_unfitted_model_says_so(method):
    with pytest.raises(NotFittedError):
        getattr(NegBinRegressor(), method)(X_OK)


def test_scoring_other_genes_is_an_error():
    model = NegBinRegressor().fit(X_OK, Y_OK)
    with pytest.raises(ValueError, match="2 genes"):
        model.score(X_OK, np.ones((8, 2)))
    with pytest.raises(ValueError, match="n_draws"):
        model.sample(X_OK, n_draws=0)


# What newcomers give by mistake


@pytest.mark.parametrize("form", [np.asarray, sp.csr_array, pd.DataFrame])
def test_what_looks_like_no_counts_is_told(form):
    data = make_counts(60, 3, random_state=0)
    X, counts = data.obs[["pseudotime"]], data.counts.to_numpy().astype(float)
    model = NegBinRegressor()
    model.fit(X, form(counts))  # without a warning, which would be an error
    model.fit(X, form(np.where(counts > 2, counts - 0.5, counts)))  # corrected here and there
    with pytest.warns(UserWarning, match="Most values of y are not integers") as caught:
        model.fit(X, form(np.log1p(counts)))
    assert len([w for w in caught if w.category is UserWarning]) == 1
    assert caught[0].filename == __file__


def test_the_cells_of_a_fit_are_counted():
    X, y = np.arange(8.0)[:, None], np.array([3, 1, 4, 1, 5, 9, 2, 6])
    assert NegBinRegressor().fit(X, y).n_cells_ == 8
    assert NegBinRegressor().fit(X, y, sample_weight=[0, 1, 2, 1, 1, 1, 1, 1]).n_cells_ == 7


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "mps"])
def test_a_device_that_is_not_there(device):
    with pytest.raises(ValueError, match=f"^device='{device}' with dtype='float64'") as caught:
        NegBinRegressor(device=device).fit([[0.0], [1.0]], [1, 2])
    assert "Devices are 'cpu'" in str(caught.value)
    assert len(str(caught.value)) < 350


@BOTH
def test_parameters_have_names_and_formulas_another_place(regressor):
    name = regressor.__name__
    formula = r"Formulas go to a FormulaTransformer .*make_pipeline\(FormulaTransformer\('~ x'\)"
    for positional, words in [
        (("~ x",), f"^{name} takes its parameters by name.*'~ x' was given.*{formula}"),
        ((0.5,), rf"^{name} takes .*{name}\(alpha=0.1\), but 0.5 was given"),
    ]:
        with pytest.raises(TypeError, match=words):
            regressor(*positional)
    with pytest.raises(TypeError, match=f"^{name} has no parameter 'mean'.*{formula}"):
        regressor(mean="~ x")
    with pytest.raises(TypeError, match=r"has no parameter 'n_job'\. Did you mean 'n_jobs'"):
        regressor(n_job=2)


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


def test_single_precision_refuses_counts_beyond_its_own():
    y = np.array([1, 5, 2**24 + 1, 3])
    X = np.arange(4.0)[:, None]
    with pytest.raises(ValueError, match=r"16777217 for gene 'y0' in row 2.*single precision"):
        NegBinRegressor(dtype="float32").fit(X, y)


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


# ---------------------------------------------------------------------------- what no cell had


def crossed(n=300):
    """Cells of two factors, counts, and which cells are of one combination."""
    rng = np.random.default_rng(4)
    obs = pd.DataFrame(
        {
            "kind": rng.choice(["A", "B", "C"], n),
            "dose": rng.choice(["none", "low", "high"], n),
            "x": rng.normal(size=n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    counts = rng.negative_binomial(2, 0.3, size=(n, 2))
    return obs, counts, ((obs["kind"] == "B") & (obs["dose"] == "high")).to_numpy()


VERBS = {
    "predict_dist": lambda model, X, _: model.predict_dist(X),
    "sample": lambda model, X, _: model.sample(X, random_state=0),
    "sample_sparse": lambda model, X, _: model.sample_sparse(X, random_state=0),
    "log_prob": lambda model, X, y: model.log_prob(X, y),
    "score": lambda model, X, y: model.score(X, y),
    "quantile_residuals": quantile_residuals,
    "goodness_of_fit": goodness_of_fit,
}
CODINGS = [
    "~ kind * dose",
    "~ 0 + kind:dose",
    "~ C(kind, contr.sum) * dose + x",
    "~ C(kind, contr.treatment('B')) * C(dose, contr.helmert)",
]


@pytest.mark.parametrize("part", ["mean", "dispersion"])
@pytest.mark.parametrize("formula", CODINGS)
def test_a_combination_that_no_cell_had_is_refused_in_any_coding(formula, part):
    obs, counts, absent = crossed()
    model = make_pipeline(FormulaTransformer(**{part: formula}), NegBinRegressor())
    model.fit(obs[~absent], counts[~absent])
    words = rf"does not determine the {part} in row cell\d+: no cell of the fit had"
    for verb in VERBS.values():
        verb(model, obs[~absent], counts[~absent])
        with pytest.raises(ValueError, match=rf"{words}.* Leave such rows out"):
            verb(model, obs, counts)
    expected = model.predict_params(obs[~absent])
    label = obs.index[np.flatnonzero(absent)[0]]
    with pytest.warns(UserWarning, match=rf"row {label}: .*Of 300 rows, {absent.sum()} are so"):
        params = model.predict_params(obs)
    for own, values in params.items():
        assert_array_equal(np.isnan(values), np.outer(absent & (own == part), [True, True]))
        assert_allclose(values[~absent], expected[own])
    if part == "mean":
        with pytest.warns(UserWarning, match=rf"{words}.* Predictions there are NaN"):
            assert_array_equal(np.isnan(model.predict(obs)), np.outer(absent, [True, True]))
    else:
        assert np.isfinite(model.predict(obs)).all()


def test_cells_without_a_weight_determine_nothing():
    obs, counts, absent = crossed()
    weights = np.where(absent, 0.0, 1.0)
    model = make_pipeline(FormulaTransformer("~ kind * dose"), NegBinRegressor())
    model.fit(obs, counts, negbinregressor__sample_weight=weights)
    with pytest.warns(UserWarning, match="does not determine the mean"):
        assert_array_equal(np.isnan(model.predict(obs)[:, 0]), absent)
    few = make_pipeline(FormulaTransformer("~ kind * dose"), NegBinRegressor())
    few.fit(obs[~absent], counts[~absent])
    design = model[0].transform(obs)
    score = model[-1].score(design, counts, sample_weight=weights)
    assert score == pytest.approx(few.score(obs[~absent], counts[~absent]))


def test_confounded_columns_are_told_apart_by_no_row():
    """Batch and condition are one; a row with one and not the other has no prediction."""
    rng = np.random.default_rng(0)
    batch = np.repeat([0.0, 1.0], 50)
    X = pd.DataFrame({"batch": batch, "stim": batch, "x": rng.normal(size=100)})
    model = NegBinRegressor().fit(X, rng.poisson(3, 100))
    ends = X.iloc[[0, -1]]
    assert np.isfinite(model.predict(ends)).all()
    with pytest.raises(ValueError, match=r"in row 0: .* like batch = 0, stim = 1\. Leave"):
        model.sample(ends.assign(stim=1.0))
    plain = NegBinRegressor().fit(X.to_numpy(), rng.poisson(3, 100))
    with pytest.raises(ValueError, match=r"in row 1: .* like x0 = 0, x1 = 1\. Leave"):
        plain.sample([[0, 0, 1], [0, 1, 1.0]])


def test_a_penalty_determines_what_the_cells_leave_open():
    obs, counts, absent = crossed()
    design = FormulaTransformer("~ kind * dose")
    model = make_pipeline(design, NegBinRegressor(alpha=0.1)).fit(obs[~absent], counts[~absent])
    assert np.isfinite(model.predict(obs)).all()
    model.set_params(negbinregressor__alpha={"dispersion": 0.1}).fit(obs[~absent], counts[~absent])
    with pytest.raises(ValueError, match="does not determine the mean"):
        model.sample(obs)


@given(exponents=st.lists(st.integers(-6, 6), min_size=5, max_size=5))
@settings(max_examples=10, deadline=None)
def test_rows_of_the_fit_are_never_refused(exponents):
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(2, 60))
    X = np.column_stack([x, z, x + z, 3 * x - 2, np.zeros(60)]) * 10.0 ** np.array(exponents)
    model = NegBinRegressor(max_iter=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, rng.poisson(3, 60))
    assert model.predict(X).shape == (60,)
    beyond = np.column_stack([x, z, x + z, 3 * x - 2, np.zeros(60)]) * 1e3
    beyond[:, 3] = 3 * beyond[:, 0] - 2
    model.predict(beyond * 10.0 ** np.array(exponents))


def test_a_fold_without_a_combination_has_no_score():
    obs, counts, absent = crossed()
    folds = [(np.flatnonzero(~absent), np.flatnonzero(absent)), (np.arange(150), np.arange(20))]
    search = GridSearchCV(
        make_pipeline(FormulaTransformer(), NegBinRegressor()),
        {"formulatransformer__mean": ["~ kind + dose", "~ kind * dose"]},
        cv=folds,
    )
    with (
        pytest.warns(UserWarning, match="test scores are non-finite"),
        pytest.warns(UserWarning, match="does not determine the mean"),
    ):
        search.fit(obs, counts)
    scores = [search.cv_results_[f"split{k}_test_score"] for k in (0, 1)]
    assert_array_equal(np.isnan(scores), [[False, True], [False, False]])
    assert search.best_params_ == {"formulatransformer__mean": "~ kind + dose"}
