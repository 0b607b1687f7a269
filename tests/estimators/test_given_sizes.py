"""Fits with given sizes: at their maximum, and a constant of the model in all that follows."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import optimize, stats
from scipy.special import expit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from sc_glm import FormulaTransformer, NegBinRegressor, ZINBRegressor, make_pipeline
from tests.saved_models import through_pickle, through_skops

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(5)
N_CELLS = 300
X = RNG.normal(size=N_CELLS)
GROUP = np.arange(N_CELLS) % 3
OFFSET = RNG.normal(scale=0.4, size=N_CELLS)
MEAN = np.c_[np.ones(N_CELLS), X, GROUP == 1, GROUP == 2].astype(float)
TRUE_MEAN = np.exp(0.5 + 0.6 * X + OFFSET)[:, None] * np.array([1.0, 0.1, 5.0, 2.0])
COUNTS = RNG.negative_binomial(2, 2 / (2 + TRUE_MEAN))
INFLATED = COUNTS * (RNG.uniform(size=COUNTS.shape) > 0.3)
NAMES = np.array(["A", "B", "C", "D"], dtype=object)
Y = pd.DataFrame(COUNTS, columns=NAMES)
DESIGN = pd.DataFrame(MEAN, columns=[f"mean__{name}" for name in ("Intercept", "x", "b", "c")])
DESIGN["offset__depth"] = OFFSET
SIZES = np.array([0.5, 2.0, 100.0, np.inf])


def log_mass(y, mu, size):
    if np.isinf(size):
        return stats.poisson.logpmf(y, mu)
    return stats.nbinom.logpmf(y, size, size / (size + mu))


def maximum(loss, start):
    found = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    return found.x, -found.fun


def test_the_mean_maximises_the_likelihood_at_each_size():
    model = NegBinRegressor(size=SIZES, tol=1e-10).fit(DESIGN, Y)
    for gene, size in enumerate(SIZES):

        def loss(coef, gene=gene, size=size):
            return -log_mass(
                COUNTS[:, gene], np.exp((MEAN @ coef + OFFSET).clip(-30, 30)), size
            ).sum()

        coef, value = maximum(loss, np.zeros(4))
        assert_allclose(model.params_["mean"].iloc[:, gene], coef, atol=1e-5)
        assert model.log_likelihood_[gene] == pytest.approx(value, abs=1e-7)
    assert_array_equal(model.status_, "converged")
    assert_allclose(np.exp(model.params_["dispersion"].loc["Intercept"].iloc[:3]), SIZES[:3])
    assert_array_equal(model.undetermined_["dispersion"], np.zeros((1, 4), dtype=bool))


@pytest.mark.parametrize("size", [0.7, 3.0, np.inf])
def test_no_start_leads_above_a_zero_inflated_fit(size):
    design = DESIGN.assign(zero_inflation__Intercept=1.0, zero_inflation__x=X)
    model = ZINBRegressor(size=size, tol=1e-9).fit(design, INFLATED)
    inflation, rng = MEAN[:, :2], np.random.default_rng(0)
    for gene in range(4):
        y = INFLATED[:, gene]

        def loss(coef, y=y):
            pi = expit(inflation @ coef[4:])
            logs = log_mass(y, np.exp((MEAN @ coef[:4] + OFFSET).clip(-30, 30)), size)
            mass = pi * (y == 0) + (1 - pi) * np.exp(logs.clip(-700))
            return -np.log(mass.clip(1e-300)).sum()

        values = [maximum(loss, rng.normal(size=6))[1] for _ in range(6)]
        assert model.log_likelihood_[gene] > max(values) - 1e-5


@pytest.mark.parametrize("size", [0.3, 5.0, np.inf])
def test_the_zero_inflated_model_never_ends_below_the_model_that_it_contains(size):
    rng = np.random.default_rng(1)
    mean = np.exp(rng.normal(-1, 1.5, size=40))
    y = rng.negative_binomial(1, 1 / (1 + mean), size=(120, 40))
    covariates = rng.normal(size=(120, 2))
    smaller = NegBinRegressor(size=size).fit(covariates, y)
    larger = ZINBRegressor(size=size).fit(covariates, y)
    assert (larger.log_likelihood_ >= smaller.log_likelihood_ - 1e-5).all()


def test_fitted_means_of_groups_are_their_averages_whatever_the_size():
    cells = pd.DataFrame({"group": [f"g{i}" for i in RNG.integers(40, size=N_CELLS)]})
    averages = Y.groupby(cells["group"].to_numpy()).transform("mean")
    for size in (0.1, 7.0, np.inf):
        model = make_pipeline(FormulaTransformer("~ group"), NegBinRegressor(size=size))
        found = model.fit(cells, Y).predict(cells)
        assert_allclose(found, averages, rtol=1e-3, atol=1e-5)


def test_poisson_means_with_an_offset_have_the_totals_of_groups():
    """The score equations of the Poisson distribution, for grouped cells with an offset."""
    cells = pd.DataFrame({"group": list("abc") * 100, "depth": OFFSET})
    design = FormulaTransformer("~ group", offset="depth")
    model = make_pipeline(design, NegBinRegressor(size=np.inf, tol=1e-10)).fit(cells, Y)
    totals = pd.DataFrame(model.predict(cells), columns=NAMES).groupby(cells["group"]).sum()
    assert_allclose(totals, Y.groupby(cells["group"]).sum(), rtol=1e-6)


def test_a_group_without_counts_is_separated_and_the_others_do_not_change():
    y = COUNTS.copy()
    y[GROUP == 1, 0] = 0
    model = NegBinRegressor(size=2.0).fit(DESIGN, y)
    assert model.status_[0] == "separated"
    assert model.undetermined_["mean"].loc["b", "y0"]
    others = NegBinRegressor(size=2.0).fit(
        DESIGN[GROUP != 1].drop(columns="mean__b"), y[GROUP != 1]
    )
    assert_allclose(
        model.params_["mean"].drop(index="b")["y0"], others.params_["mean"]["y0"], atol=1e-4
    )
    assert model.log_likelihood_[0] == pytest.approx(others.log_likelihood_[0], abs=1e-5)


def test_genes_without_counts_are_said_to_be_all_zero():
    y = COUNTS.copy()
    y[:, 2] = 0
    assert NegBinRegressor(size=SIZES).fit(DESIGN, y).status_[2] == "all zero"
    assert ZINBRegressor(size=2.0).fit(DESIGN, y).status_[2] == "all zero"


@pytest.mark.parametrize("regressor", [NegBinRegressor, ZINBRegressor])
@pytest.mark.parametrize(
    "options", [{"n_jobs": 2, "batch_size": 1}, {"batch_size": 3}, {"dtype": "float32"}]
)
def test_blocks_and_workers_keep_each_gene_with_its_size(regressor, options):
    expected = regressor(size=SIZES).fit(DESIGN, Y)
    found = regressor(size=SIZES, **options).fit(DESIGN, Y)
    tolerance = 1e-3 if "dtype" in options else 1e-6
    assert_allclose(found.log_likelihood_, expected.log_likelihood_, rtol=tolerance)
    assert_frame_equal(found.params_["dispersion"], expected.params_["dispersion"])


def test_sparse_counts_equal_dense_ones():
    dense, sparse = (
        ZINBRegressor(size=SIZES).fit(DESIGN, y) for y in (COUNTS, sp.csr_array(COUNTS))
    )
    assert_allclose(sparse.log_likelihood_, dense.log_likelihood_, rtol=1e-9)


def test_integer_weights_equal_repeated_rows():
    weight = RNG.integers(1, 4, size=N_CELLS)
    rows = np.repeat(np.arange(N_CELLS), weight)
    weighted = NegBinRegressor(size=SIZES).fit(DESIGN, Y, sample_weight=weight)
    repeated = NegBinRegressor(size=SIZES).fit(DESIGN.iloc[rows], Y.iloc[rows])
    assert_allclose(weighted.log_likelihood_, repeated.log_likelihood_, rtol=1e-9)
    assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)


def test_a_series_is_matched_by_the_names_of_genes():
    series = pd.Series(SIZES, index=NAMES)
    shuffled = pd.concat([series.iloc[[2, 0, 3, 1]], pd.Series({"other gene": 9.0})])
    expected = NegBinRegressor(size=SIZES).fit(DESIGN, Y)
    found = NegBinRegressor(size=shuffled).fit(DESIGN, Y)
    assert_frame_equal(found.params_["dispersion"], expected.params_["dispersion"])
    assert_array_equal(found.log_likelihood_, expected.log_likelihood_)


def test_one_number_is_the_size_of_all_genes():
    one = NegBinRegressor(size=3).fit(DESIGN, Y)
    each = NegBinRegressor(size=[3.0] * 4).fit(DESIGN, Y)
    assert_array_equal(one.log_likelihood_, each.log_likelihood_)


def test_a_penalty_applies_to_the_mean():
    free, ridge = (NegBinRegressor(size=2.0, alpha=a).fit(DESIGN, Y) for a in (0.0, 10.0))
    assert (np.abs(ridge.coef_[:, 0]) < np.abs(free.coef_[:, 0])).all()
    assert_frame_equal(ridge.params_["dispersion"], free.params_["dispersion"])


def test_warm_starts_follow_a_change_of_the_sizes():
    model = NegBinRegressor(size=np.inf, warm_start=True).fit(DESIGN, Y)
    for size in (2.0, SIZES, None):
        expected = NegBinRegressor(size=size).fit(DESIGN, Y)
        model.set_params(size=size).fit(DESIGN, Y)
        assert_allclose(model.log_likelihood_, expected.log_likelihood_, rtol=1e-7)


def test_a_checkpoint_belongs_to_its_sizes(tmp_path):
    model = NegBinRegressor(size=SIZES, checkpoint_dir=tmp_path / "fit").fit(DESIGN, Y)
    again = clone(model).fit(DESIGN, Y)
    assert_array_equal(again.log_likelihood_, model.log_likelihood_)
    for size in (2.0, None):
        with pytest.raises(ValueError, match="differs in: size"):
            clone(model).set_params(size=size).fit(DESIGN, Y)


@pytest.mark.parametrize("size", [SIZES, pd.Series(SIZES, index=NAMES), 2.0])
def test_parameters_are_kept_as_given_and_copied_by_clone(size):
    model = NegBinRegressor(size=size)
    assert model.get_params()["size"] is size
    copy = clone(model)
    assert_array_equal(copy.size, size)
    before = np.array(size)
    fitted = copy.fit(DESIGN, Y)
    assert_array_equal(size, before)
    assert "size" in repr(model)
    for saved in (through_pickle, through_skops):
        again = saved(fitted)
        assert type(again.size) is type(size)
        assert_array_equal(again.size, size)
        assert_array_equal(again.predict(DESIGN), fitted.predict(DESIGN))
        assert_array_equal(clone(again).fit(DESIGN, Y).log_likelihood_, fitted.log_likelihood_)


def test_a_grid_of_sizes():
    grid = {"size": [0.01, 2.0, np.inf]}
    search = GridSearchCV(NegBinRegressor(), grid, cv=3, error_score="raise").fit(DESIGN, Y)
    assert search.best_params_ == {"size": 2.0}


def test_distributions_and_samples_of_an_infinite_size_are_poisson():
    model = NegBinRegressor(size=np.inf).fit(DESIGN, Y)
    dist, mean = model.predict_dist(DESIGN), model.predict(DESIGN)
    assert_allclose(dist.logpmf(COUNTS), stats.poisson.logpmf(COUNTS, mean), rtol=1e-10)
    assert_allclose(dist.cdf(COUNTS), stats.poisson.cdf(COUNTS, mean), rtol=1e-10)
    assert_allclose(dist.var(), mean)
    drawn = np.asarray(model.sample(DESIGN, n_draws=200, random_state=0))
    assert_allclose(drawn.var(axis=0).sum(), mean.sum(), rtol=0.02)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0.0, "must be a float in the range"),
        (-1.0, "must be a float in the range"),
        (np.nan, "must be a float in the range"),
        ("2", "must be a float in the range"),
        ([1.0, 0.0, 2.0, 3.0], "that of gene 'B' is 0.0; 1 of 4 genes"),
        ([1.0, 2.0, 2.0, np.nan], "that of gene 'D' is nan"),
        ([1.0, 2.0], r"size has the shape \(2,\), but there are 4 genes"),
        (np.ones((4, 1)), r"size has the shape \(4, 1\)"),
        (["a", "b", "c", "d"], "sizes are numbers"),
        (pd.Series([1.0, 2.0], index=["A", "B"]), "without 2 of 4 genes, such as 'C'"),
        (pd.Series(1.0, index=list("ABCdD")).drop("D"), r"such as 'D'\. Similar: \['d'\]"),
        (pd.Series(1.0, index=list("ABCDA")), "more than one value for the gene 'A'"),
    ],
)
def test_wrong_sizes(size, message):
    with pytest.raises(ValueError, match=message):
        NegBinRegressor(size=size).fit(DESIGN, Y)


def test_a_formula_of_the_dispersion_excludes_sizes():
    design = DESIGN.assign(dispersion__Intercept=1.0)
    plain = NegBinRegressor(size=2.0).fit(design, Y)  # '~ 1' is what a given size is
    assert_allclose(plain.params_["dispersion"], np.log(2.0))
    for extra in ({"dispersion__x": X}, {"dispersion__Intercept": 2.0}):
        with pytest.raises(ValueError, match=re.escape("size=2.0 gives one size for each gene")):
            NegBinRegressor(size=2.0).fit(design.assign(**extra), Y)


def test_a_fit_with_given_sizes_needs_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NegBinRegressor(size=SIZES).fit(DESIGN, Y)
