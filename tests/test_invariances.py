"""What a fit must not depend on, on random designs and counts.

What is arithmetic of the same numbers in the same order (which genes stand beside a gene, how they
are shared out, how they are stored) changes nothing, to the last digit. What changes the order of
sums or the coordinates changes nothing but rounding.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm import NegBinRegressor, ZINBRegressor

REGRESSORS = {"NB": NegBinRegressor, "ZINB": ZINBRegressor}
PARTS = ("mean", "dispersion", "zero_inflation")
OFFSET = "offset__log_depth"
# A gain of less than this ends a fit. Where the counts hold about one unit of information on a
# predictor, it is then within 1e-5 of the maximum.
TIGHT = {"tol": 1e-10, "max_iter": 300}
CLOSE = {"rtol": 1e-4, "atol": 1e-7}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@dataclass(frozen=True)
class Data:
    """Cells, genes and a model for them."""

    model: str
    X: pd.DataFrame
    y: np.ndarray

    def fit(self, weights=None, **options):
        return REGRESSORS[self.model](**options).fit(self.X, self.y, sample_weight=weights)

    def columns(self, part):
        return [column for column in self.X if column.startswith(f"{part}__")]

    @property
    def parts(self):
        return PARTS[:2] if self.model == "NB" else PARTS


@st.composite
def datasets(draw, model, *, hard=False):
    """Counts of 5 ordinary genes, and at will of 5 hard ones, with a design for each part."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(50, 80))
    x, z, offset = rng.uniform(-1, 1, n), rng.normal(size=n), rng.normal(0, 0.3, n)
    group = (np.arange(n) % 2).astype(float)
    if draw(st.booleans()):  # few distinct rows
        x, z = np.where(x < 0, -0.8, 0.8), np.sign(z)
        offset = 0.3 * x * z
    columns = {"mean__Intercept": 1.0, "mean__x": x, "mean__z": z, "mean__group": group}
    columns["dispersion__Intercept"] = 1.0
    if draw(st.booleans()):
        columns["dispersion__group"] = group
    if model == "ZINB":
        columns["zero_inflation__Intercept"] = 1.0
        if draw(st.booleans()):
            columns["zero_inflation__x"] = x
    X = pd.DataFrame(columns, index=[f"cell_{i}" for i in range(n)]).assign(**{OFFSET: offset})

    log_mean = rng.uniform(0.5, 2, 5) + np.outer(x, rng.normal(0, 0.5, 5)) + offset[:, None]
    size = rng.uniform(1, 4, 5)
    y = rng.negative_binomial(size, size / (size + np.exp(log_mean))).astype(float)
    if model == "ZINB":
        y *= rng.uniform(size=y.shape) > 0.3
    if hard:
        rare = np.zeros(n)
        rare[rng.choice(n, 2, replace=False)] = rng.integers(1, 4, 2)
        silent = np.where(group > 0, 0, rng.poisson(2, n))
        y = np.c_[y, rng.poisson(1, n), rng.binomial(3, 0.5, n), rare, silent, np.zeros(n)]
    return Data(model, X, y)


def examples(n):
    """Few, as each is a fit or two; not shrunk, as a smaller seed is no simpler."""
    return settings(max_examples=n, phases=[Phase.generate])


def on_random_data(*more, hard=False, n_examples=4):
    """Run a test for both models, on random data and what else it draws."""

    def decorate(test):
        def run(model, data):
            test(data.draw(datasets(model, hard=hard)), *(data.draw(other) for other in more))

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return pytest.mark.parametrize("model", REGRESSORS)(
            examples(n_examples)(given(data=st.data())(run))
        )

    return decorate


# To the last digit


def assert_identical(a, b, genes=slice(None)):
    """Genes of the fit ``a`` are what the fit ``b`` has."""
    for part, table in a.params_.items():
        assert_array_equal(table.to_numpy()[:, genes], b.params_[part].to_numpy())
    for attribute in ("log_likelihood_", "n_iter_", "status_", "converged_"):
        assert_array_equal(getattr(a, attribute)[genes], getattr(b, attribute))


@on_random_data(st.permutations(range(10)), st.integers(1, 10), hard=True)
def test_which_genes_are_fitted_with_a_gene(data, order, n_genes):
    """In another order, with fewer neighbours, alone, or twice."""
    together = data.fit()
    for genes in (order[:n_genes], order[:1], [*order[:2], order[0]]):
        assert_identical(together, replace(data, y=data.y[:, genes]).fit(), genes)
    assert_identical(together, replace(data, y=data.y[:, order[0]]).fit(), order[:1])


@on_random_data(st.integers(1, 12), hard=True)
def test_how_many_genes_make_a_block(data, batch_size):
    assert_identical(data.fit(), data.fit(batch_size=batch_size))


@on_random_data(hard=True, n_examples=1)
def test_how_many_workers_share_the_genes(data):
    alone = data.fit(n_jobs=1)
    for batch_size in (3, "auto"):
        assert_identical(alone, data.fit(n_jobs=2, batch_size=batch_size))


def many_columns(model, k):
    """Return 1000 cells, of which there are likenesses, with k columns for the mean."""
    rng = np.random.default_rng(k)
    n = 1000
    covariates = np.c_[np.ones(n), rng.normal(size=(n, k - 1))]
    offset = rng.normal(0, 0.3, n)
    X = pd.DataFrame(covariates, columns=[f"mean__x{i}" for i in range(k)])
    X = X.join(X.iloc[:, :2].rename(columns=lambda name: name.replace("mean", "dispersion")))
    X[OFFSET] = offset
    if model == "ZINB":
        X["zero_inflation__Intercept"] = 1.0
    # From no cell without a count to few with one
    level = np.array([5.0, -3.0, 0.0, 4.5, 1.0, -1.0])
    mu = np.exp(level + 0.2 * covariates[:, 1:2].sum(1, keepdims=True) + offset[:, None])
    r = np.array([9.0, 1.0, 0.5, 12.0, 2.0, 3.0])
    y = rng.negative_binomial(r, r / (r + mu)).astype(float)
    if model == "ZINB":
        y[:, 1:] *= rng.uniform(size=y[:, 1:].shape) > 0.2
    return Data(model, X, y)


@pytest.mark.parametrize(
    ("model", "k"),
    [("NB", k) for k in (1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 24, 25, 40)]
    + [("ZINB", k) for k in (1, 5, 8, 13, 40)],
)
def test_how_many_columns_a_design_has(model, k):
    """Every product and sum meets its columns, in blocks of any number of genes."""
    data = many_columns(model, k)
    together = data.fit()
    for batch_size in (1, 4):
        assert_identical(together, data.fit(batch_size=batch_size))
    genes = [3, 1, 2, 0, 3]
    assert_identical(together, replace(data, y=data.y[:, genes]).fit(), genes)
    if k == 7:
        assert_identical(together, data.fit(n_jobs=2, batch_size=2))


@pytest.mark.parametrize("k", [1, 4, 9, 25])
def test_what_a_warm_start_is_fitted_with(k):
    data = many_columns("NB", k)
    begun = data.fit(max_iter=3, warm_start=True)

    def gone_on(batch_size):
        model = copy.deepcopy(begun).set_params(max_iter=100, batch_size=batch_size)
        return model.fit(data.X, data.y)

    assert_identical(gone_on("auto"), gone_on(1))


def with_explicit_zeros(y):
    """Return the counts in CSR with all zeros stored and each row's columns reversed."""
    n, m = y.shape
    columns = np.tile(np.arange(m)[::-1], n)
    return sp.csr_array((y[:, ::-1].ravel(), columns, np.arange(n + 1) * m), shape=y.shape)


def strided(y):
    """Return every other entry of a larger array."""
    larger = np.full((2 * y.shape[0], 2 * y.shape[1]), -1.0)
    larger[::2, 1::2] = y
    return larger[::2, 1::2]


def locked(y):
    own = y.copy()
    own.setflags(write=False)
    return own


LAYOUTS = {
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "explicit zeros, unsorted": with_explicit_zeros,
    "Fortran order": np.asfortranarray,
    "strided": strided,
    "backwards": lambda y: y[::-1].copy()[::-1],
    "read-only": locked,
    "lists": np.ndarray.tolist,
    "frame": lambda y: pd.DataFrame(y, columns=[f"y{g}" for g in range(y.shape[1])]),
}


@on_random_data(n_examples=2)
def test_how_counts_are_stored(data):
    plain = data.fit()
    for layout, stored_as in LAYOUTS.items():
        stored = stored_as(data.y)
        if layout == "frame":
            stored.index = data.X.index
        assert_identical(plain, replace(data, y=stored).fit())
        assert_array_equal(stored.toarray() if sp.issparse(stored) else stored, data.y)


@on_random_data(st.sampled_from(["Fortran order", "strided", "backwards", "read-only"]))
def test_how_covariates_are_stored(data, layout):
    """Unlike counts, covariates are stored as one array of many kinds of columns."""
    covariates = data.X.filter(like="mean__").iloc[:, 1:].to_numpy()
    fits = [replace(data, X=own).fit() for own in (covariates, LAYOUTS[layout](covariates))]
    assert_identical(*fits)


TYPES = [np.float32, np.float64, np.int64, np.int32, np.uint16, np.uint8, np.int8]


@on_random_data(st.sampled_from([np.asarray, sp.csr_array]), n_examples=2)
def test_which_type_counts_have(data, form):
    y = np.minimum(data.y, 100)
    plain = replace(data, y=y).fit()
    for dtype in TYPES:
        assert_identical(plain, replace(data, y=form(y.astype(dtype))).fit())


@on_random_data(st.sampled_from([np.asarray, sp.csc_array]), hard=True)
def test_whether_a_cell_has_counts_can_be_boolean(data, form):
    y = data.y > 0
    plain = replace(data, y=y.astype(float)).fit()
    assert_identical(plain, replace(data, y=form(y)).fit())


# Up to rounding


def assert_same_model(a, b, X_a, X_b):
    """Two fits predict alike, of cells that are given in either's columns."""
    assert_allclose(a.log_likelihood_, b.log_likelihood_, rtol=0, atol=1e-6)
    assert_array_equal(a.status_, b.status_)
    inner = a.status_ == "converged"
    assert inner.any()
    ours, theirs = a.predict_params(X_a), b.predict_params(X_b)
    for part, value in ours.items():
        assert_allclose(value[:, inner], theirs[part][:, inner], **CLOSE)
    assert_allclose(a.predict(X_a)[:, inner], b.predict(X_b)[:, inner], **CLOSE)


@on_random_data(st.randoms(use_true_random=False))
def test_the_order_of_cells(data, random):
    rows = random.sample(range(len(data.y)), len(data.y))
    shuffled = replace(data, X=data.X.iloc[rows], y=data.y[rows])
    assert_same_model(data.fit(**TIGHT), shuffled.fit(**TIGHT), data.X, data.X)


@on_random_data(st.lists(st.integers(0, 3), min_size=80, max_size=80))
def test_integer_weights_are_repetitions_and_zeros_drop(data, weights):
    weights = np.array(weights[: len(data.y)])
    weights[:20] = 1  # enough to hold all coefficients
    repeated = replace(
        data, X=data.X.loc[data.X.index.repeat(weights)], y=np.repeat(data.y, weights, axis=0)
    )
    unseen = replace(data, y=np.where(weights[:, None] > 0, data.y, 1000.0))
    weighted = unseen.fit(weights.astype(float), **TIGHT)
    assert_same_model(weighted, repeated.fit(**TIGHT), data.X, data.X)


@on_random_data(st.floats(-6, 6))
def test_a_shifted_offset_is_a_shifted_intercept(data, shift):
    moved = replace(data, X=data.X.assign(**{OFFSET: data.X[OFFSET] + shift}))
    a, b = data.fit(**TIGHT), moved.fit(**TIGHT)
    assert_same_model(a, b, data.X, moved.X)
    inner = a.status_ == "converged"
    back = b.params_["mean"].loc[:, inner].copy()
    back.loc["Intercept"] += shift
    assert_allclose(a.params_["mean"].loc[:, inner], back, rtol=1e-4, atol=1e-5)


@st.composite
def invertible_maps(draw):
    """A square matrix for each number of columns: rotated, sheared, and in wild units."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units = draw(st.sampled_from([1.0, 1e-4, 1e4]))
    maps = {}
    for p in range(1, 5):
        rotation = np.linalg.qr(rng.normal(size=(p, p)))[0]
        shear = np.eye(p) + np.triu(rng.uniform(-1, 1, (p, p)), 1)
        maps[p] = rotation @ shear * np.where(np.arange(p) % 2, units, 1.0)
    return maps


@on_random_data(invertible_maps(), st.sampled_from([(part,) for part in PARTS] + [PARTS]))
def test_coordinates_of_the_columns(data, maps, parts):
    """Any invertible linear map of a part's columns is undone by its coefficients."""
    X = data.X.copy()
    for part in parts:
        columns = data.columns(part)
        if columns:
            X[columns] = X[columns].to_numpy() @ maps[len(columns)]
    a, b = data.fit(**TIGHT), replace(data, X=X).fit(**TIGHT)
    assert_same_model(a, b, data.X, X)
    inner = a.status_ == "converged"
    for part in data.parts:
        mapped = maps[len(data.columns(part))] if part in parts else np.eye(len(b.params_[part]))
        back = mapped @ b.params_[part].loc[:, inner].to_numpy()
        assert_allclose(back, a.params_[part].loc[:, inner], rtol=1e-3, atol=1e-4)


@on_random_data(st.sampled_from(PARTS), st.integers(0, 3), st.sampled_from([1.0, -3.0, 1e3]))
def test_a_doubled_column_shares_the_effect(data, part, which, unit):
    """In the ratio of the units, which of all ways to share it has the smallest coefficients."""
    columns = data.columns(part)
    if not columns:
        part, columns = "mean", data.columns("mean")
    column = columns[which % len(columns)]
    X = data.X.assign(**{f"{part}__again": unit * data.X[column]})
    a, b = data.fit(**TIGHT), replace(data, X=X).fit(**TIGHT)
    assert_same_model(a, b, data.X, X)
    name = column.removeprefix(f"{part}__")
    own, again = b.params_[part].loc[[name, "again"]].to_numpy()
    assert_allclose(again, unit * own, rtol=1e-7, atol=1e-9)
    inner = a.status_ == "converged"
    whole = a.params_[part].loc[name].to_numpy()
    assert_allclose((own + unit * again)[inner], whole[inner], rtol=1e-4, atol=1e-5)
