"""What is not what it should be is refused, in words that name it, and nothing is changed."""

import copy
from decimal import Decimal

import anndata
import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline as stock_make_pipeline

from sc_glm import FormulaTransformer, NegBinRegressor, Pipeline, ZINBRegressor, make_pipeline
from sc_glm import adata as scg
from sc_glm.datasets import make_counts
from sc_glm.distributions import NB, ZINB
from sc_glm.metrics import crps, d2_scorer

pytestmark = [
    pytest.mark.timeout(60),  # nothing here takes a second
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

Y = np.array([[0, 3], [3, 9], [1, 4], [2, 5], [5, 2], [4, 1], [9, 3], [7, 0]])
X = np.arange(8.0)[:, None]
CELLS = list("abcdefgh")
FRAME = pd.DataFrame({"x": X[:, 0], "z": 1 / (1 + X[:, 0])}, index=CELLS)
COUNTS = pd.DataFrame(Y, columns=["Ins1", "Gcg"], index=CELLS)
WEIGHT = np.arange(8.0)


def put(array, where, value):
    """A copy with another value."""
    array = array.copy()
    if isinstance(array, pd.DataFrame):
        array.loc[where] = value
    else:
        array[where] = value
    return array


def damaged(form, **changes):
    """A sparse matrix, one of whose arrays is another one."""
    matrix = form(Y.astype(float))
    for name, change in changes.items():
        setattr(matrix, name, change(getattr(matrix, name)))
    return matrix


def renamed(frame, *columns):
    return frame.set_axis(list(columns), axis="columns")


OBJECT = "(object|str)"  # the type of text, before pandas 3 and since
TEXT = np.array([["a"]] * 8)
DATES = np.array(["2020-01-01"] * 8, dtype="M8[D]")
RECORDS = np.array([(1, 2.0)] * 8, dtype=[("a", int), ("b", float)])
RAGGED = [[1], [1, 2]] * 4
LEVELS = pd.MultiIndex.from_tuples([("mean", "x"), ("mean", "z")])
SPARSE_WITH_TWO = pd.DataFrame({"Ins1": pd.arrays.SparseArray([-2] * 7 + [3], fill_value=-2)})
MISSING = pd.DataFrame({"Ins1": pd.array([1, 2, None, 3, 4, 5, 6, 7], dtype="Int64")})
SPARSE_MISSING = MISSING.astype(float).astype(pd.SparseDtype(float, np.nan))

# What is given in place of X, y, sample_weight or a parameter; the error; what it says.
FIT = {
    # Shapes
    "X is a number": ({"X": 1.0}, ValueError, "2D array"),
    "X is None": ({"X": None}, ValueError, "2D array"),
    "X is a vector": ({"X": X[:, 0]}, ValueError, "2D array, got 1D array"),
    "X has three axes": ({"X": X[..., None]}, ValueError, "dim 3"),
    "X without rows": ({"X": X[:0]}, ValueError, r"0 sample\(s\)"),
    "X without columns": ({"X": X[:, :0]}, ValueError, r"0 feature\(s\)"),
    "frame without columns": ({"X": FRAME[[]]}, ValueError, "X has no columns"),
    "y is a number": ({"y": 3}, TypeError, "y is not a matrix of counts.*at least 1 dimension"),
    "y is None": ({"y": None}, ValueError, "y is None"),
    "y is a dict": ({"y": {"Ins1": 1}}, TypeError, "y is not a matrix of counts"),
    "y has three axes": ({"y": Y[..., None]}, ValueError, "y is not a matrix of counts.*dim 3"),
    "y without rows": ({"y": Y[:0]}, ValueError, r"y is not.*0 sample\(s\)"),
    "y without genes": ({"y": Y[:, :0]}, ValueError, r"y is not.*0 feature\(s\)"),
    "sparse y without genes": ({"y": sp.csr_array((8, 0))}, ValueError, r"y is not.*0 feature"),
    "empty list": ({"y": []}, ValueError, r"y is not.*0 sample\(s\)"),
    "counts without columns": ({"y": COUNTS[[]]}, ValueError, "y has no columns"),
    "too few counts": ({"y": Y[:5]}, ValueError, "X has 8 rows, y has 5"),
    "too few sparse counts": ({"y": sp.csr_array(Y[:5])}, ValueError, "X has 8 rows, y has 5"),
    "a row of counts": ({"y": Y[:, :1].T}, ValueError, "X has 8 rows, y has 1"),
    "ragged X": ({"X": RAGGED}, ValueError, "X is not an array.*inhomogeneous"),
    "ragged y": ({"y": RAGGED}, ValueError, "y is not an array.*inhomogeneous"),
    # Types
    "X of text": ({"X": TEXT}, ValueError, "X must hold numbers, not <U1"),
    "X of digits": ({"X": [["1"]] * 8}, ValueError, "X must hold numbers, not <U1"),
    "X of dates": ({"X": DATES[:, None]}, ValueError, "X must hold numbers, not datetime64"),
    "complex X": ({"X": X * 1j}, ValueError, "X must hold numbers, not complex128"),
    "X of records": ({"X": RECORDS}, ValueError, "X must hold numbers, not .*'a', '<i8'"),
    "sparse X": ({"X": sp.csr_array(X)}, TypeError, "[Ss]parse data was passed for X"),
    "sparse columns": (
        {"X": FRAME.astype(pd.SparseDtype(float, 0.0))},
        TypeError,
        "[Ss]parse data was passed for X",
    ),
    "a column of text": (
        {"X": FRAME.assign(kind="a")},
        ValueError,
        rf"X must.*'kind' \({OBJECT}\)",
    ),
    "a column of digits": (
        {"X": FRAME.assign(kind="1")},
        ValueError,
        rf"X must.*'kind' \({OBJECT}",
    ),
    "a column of categories": (
        {"X": FRAME.assign(leiden=pd.Categorical([1, 2] * 4))},
        ValueError,
        r"X must.*'leiden' \(category\)",
    ),
    "a column of dates": (
        {"X": FRAME.assign(day=pd.to_datetime(DATES))},
        ValueError,
        r"X must.*'day' \(datetime64",
    ),
    "a column of durations": (
        {"X": FRAME.assign(age=pd.to_timedelta(WEIGHT))},
        ValueError,
        r"X must.*'age' \(timedelta64",
    ),
    "a complex column": ({"X": FRAME.assign(c=1j)}, ValueError, r"X must.*'c' \(complex128\)"),
    "y of text": ({"y": ["a"] * 8}, ValueError, "y must hold numbers, not <U1"),
    "y of digits": ({"y": ["1"] * 8}, ValueError, "y must hold numbers, not <U1"),
    "y of bytes": ({"y": np.array([b"1"] * 8)}, ValueError, r"y must hold numbers, not \|S1"),
    "y of dates": ({"y": DATES}, ValueError, "y must hold numbers, not datetime64"),
    "y of durations": ({"y": Y.astype("m8[s]")}, ValueError, "y must hold.*not timedelta64"),
    "complex y": ({"y": Y * 1j}, ValueError, "Complex data not supported: y"),
    "complex sparse y": ({"y": sp.csr_array(Y * 1j)}, ValueError, "Complex data.*: y must"),
    "y of records": ({"y": RECORDS}, ValueError, "y must hold numbers, not .*'a', '<i8'"),
    "categorical y": ({"y": pd.Categorical(WEIGHT)}, ValueError, "y must hold.*not category"),
    "categorical series": (
        {"y": pd.Series(WEIGHT, dtype="category")},
        ValueError,
        "y must hold.*not category",
    ),
    "objects that are no numbers": (
        {"y": np.array([1, "a"] * 4, dtype=object)},
        ValueError,
        "y is not a matrix of counts.*'a'",
    ),
    "a gene of text": (
        {"y": COUNTS.assign(Sst="many")},
        ValueError,
        rf"y must.*'Sst' \({OBJECT}\)",
    ),
    "a gene of dates": ({"y": COUNTS.assign(Sst=DATES)}, ValueError, r"y must.*'Sst' \(datetime"),
    "a tensor with a gradient": (
        {"y": torch.ones(8, requires_grad=True)},
        ValueError,
        "y is not a matrix of counts.*requires grad",
    ),
    # Values
    "NaN in X": ({"X": put(X, 3, np.nan)}, ValueError, "X contains NaN in column 'x0', row 3"),
    "infinity in X": ({"X": put(X, 3, -np.inf)}, ValueError, "infinity in column 'x0', row 3"),
    "NaN in a column": (
        {"X": put(FRAME, ("d", "z"), np.nan)},
        ValueError,
        "X contains NaN in column 'z', row 3, and 1 such",
    ),
    "NA in a column": (
        {"X": FRAME.assign(q=MISSING["Ins1"].to_numpy())},
        ValueError,
        "(X contains NaN in column 'q', row 2|'q')",
    ),
    "masked X": ({"X": np.ma.masked_equal(X, 3)}, ValueError, "X has 1 masked.*row 3"),
    "masked y": ({"y": np.ma.masked_equal(Y, 9)}, ValueError, "y has 2 masked.*first in row 1"),
    "NaN in y": (
        {"y": put(COUNTS.astype(float), ("d", "Gcg"), np.nan)},
        ValueError,
        "'Gcg'.*row 3",
    ),
    "NA in y": ({"y": MISSING}, ValueError, "NaN for gene 'Ins1' in row 2"),
    "NaN as what a sparse column leaves out": (
        {"y": SPARSE_MISSING},
        ValueError,
        "NaN for gene 'Ins1' in row 2",
    ),
    "a negative number as what a sparse column leaves out": (
        {"y": SPARSE_WITH_TWO},
        ValueError,
        "negative: -2 for gene 'Ins1' in row 0, and 7 such",
    ),
    "infinity in y": ({"y": put(Y.astype(float), (3, 1), np.inf)}, ValueError, "'y1' in row 3"),
    "a negative count": ({"y": put(COUNTS, ("d", "Gcg"), -4)}, ValueError, "-4 for gene 'Gcg'.*3"),
    "a count that is none": (
        {"y": put(Y, (3, 1), 2**53 + 1)},
        ValueError,
        "9007199254740993.*'y1'",
    ),
    "a count that fits would lose digits of": (
        {"y": put(Y, (3, 1), 10**9 + 1)},
        ValueError,
        "1000000001 for gene 'y1' in row 3.*up to 1000000000",
    ),
    "an integer beyond 64 bits": ({"y": [2**70] + [1] * 7}, ValueError, "too large.*'y0' in row 0"),
    "an integer beyond floats": ({"y": [10**400] + [1] * 7}, ValueError, "y is not.*too large"),
    "NaN in the offset": (
        {"X": put(FRAME.add_prefix("mean__").assign(offset__o=0.0), ("d", "offset__o"), np.nan)},
        ValueError,
        "NaN in column 'offset__o', row 3",
    ),
    "a large offset": (
        {"X": FRAME.add_prefix("mean__").assign(offset__o=WEIGHT * 100)},
        ValueError,
        "offset is 700 in row 7",
    ),
    # Names and labels
    "columns twice": ({"X": renamed(FRAME, "x", "x")}, ValueError, "'?x'?"),
    "an intercept twice": (
        {"X": renamed(FRAME, "x", "Intercept")},
        ValueError,
        "'mean' has more than one column named 'Intercept'. fit_intercept=False",
    ),
    "columns of two levels": (
        {"X": FRAME.set_axis(LEVELS, axis=1)},
        ValueError,
        "X has MultiIndex",
    ),
    "names of two types": ({"X": renamed(FRAME, "x", 1)}, TypeError, "'int', 'str'"),
    "a part of another model": (
        {"X": FRAME.add_prefix("zero_inflation__")},
        ValueError,
        "'zero_inflation'.*'x', 'z'",
    ),
    "genes twice": ({"y": renamed(COUNTS, "Gcg", "Gcg")}, ValueError, r"once: \['Gcg'\]"),
    "genes of two levels": ({"y": COUNTS.set_axis(LEVELS, axis=1)}, ValueError, "y has MultiIndex"),
    "rows in another order": (
        {"X": FRAME, "y": COUNTS.loc[CELLS[::-1]]},
        ValueError,
        "rows of y .* row 0 has 'h', but 'a' in X",
    ),
    "weights in another order": (
        {"X": FRAME, "sample_weight": pd.Series(WEIGHT, index=[*CELLS[:6], "h", "g"])},
        ValueError,
        "rows of sample_weight .* row 6 has 'h', but 'g' in X",
    ),
    # Sparse matrices whose arrays do not fit
    "a column too far": (
        {"y": damaged(sp.csr_array, indices=lambda a: put(a, 1, 2))},
        ValueError,
        "y is a damaged sparse matrix.*(indices|values) must be < 2",
    ),
    "a column out of memory": (
        {"y": damaged(sp.csr_matrix, indices=lambda a: put(a, 1, 10**9))},
        ValueError,
        "y is a damaged.*< 2",
    ),
    "a row out of memory": (
        {"y": damaged(sp.csc_array, indices=lambda a: put(a, 1, 10**9))},
        ValueError,
        "y is a damaged.*< 8",
    ),
    "a negative index": (
        {"y": damaged(sp.csc_matrix, indices=lambda a: put(a, 1, -(10**9)))},
        ValueError,
        "y is a damaged.*>= 0",
    ),
    "pointers that decrease": (
        {"y": damaged(sp.csr_array, indptr=lambda a: put(a, 1, 12))},
        ValueError,
        "y is a damaged.*non-decreasing",
    ),
    "pointers that decrease to zero": (
        {"y": damaged(sp.csr_array, indptr=lambda a: put(a, slice(7, 9), 0))},
        ValueError,
        "y is a damaged.*must not decrease",
    ),
    "pointers beyond the data": (
        {"y": damaged(sp.csr_array, indptr=lambda a: put(a, 8, 10**8))},
        ValueError,
        "y is a damaged.*[Ii]ndex pointer",
    ),
    "pointers from the second on": (
        {"y": damaged(sp.csr_array, indptr=lambda a: a + 1)},
        ValueError,
        "y is a damaged.*start with 0",
    ),
    "pointers of seven rows": (
        {"y": damaged(sp.csr_array, indptr=lambda a: a[:-1])},
        ValueError,
        r"y is a damaged.*size \(?8\)? should be \(?9",
    ),
    "fewer values than indices": (
        {"y": damaged(sp.csr_array, data=lambda a: a[:-3])},
        ValueError,
        "y is a damaged.*same size",
    ),
    "fewer indices than values": (
        {"y": damaged(sp.csc_array, indices=lambda a: a[:-3])},
        ValueError,
        "y is a damaged.*same size",
    ),
    "values in a column": (
        {"y": damaged(sp.csr_array, data=lambda a: a[:, None])},
        ValueError,
        "y is a damaged.*1-D",
    ),
    "fractions as indices": (
        {"y": damaged(sp.csr_array, indices=lambda a: a + 0.5)},
        ValueError,
        "y is a damaged.*integers",
    ),
    "a triplet too far": (
        {"y": damaged(sp.coo_array, coords=lambda c: (put(c[0], 1, 10**6), c[1]))},
        ValueError,
        "y is a damaged.*1000000",
    ),
    "a block too far": (
        {"y": damaged(sp.bsr_array, indices=lambda a: put(a, 0, 10**6))},
        ValueError,
        "y is a damaged.*< 1",
    ),
    # Weights
    "too few weights": (
        {"sample_weight": WEIGHT[:3]},
        ValueError,
        r"sample_weight.*\(3,\).*\(8,\)",
    ),
    "a column of weights": ({"sample_weight": X}, ValueError, "weights must be 1D"),
    "a frame of weights": ({"sample_weight": FRAME[["z"]]}, ValueError, "weights must be 1D"),
    "a negative weight": ({"sample_weight": WEIGHT - 1}, ValueError, "Negative.*sample_weight"),
    "no weight at all": ({"sample_weight": WEIGHT * 0}, ValueError, "(?i)sample.weight.*zero"),
    "NaN as a weight": (
        {"sample_weight": put(WEIGHT, 3, np.nan)},
        ValueError,
        "sample_weight.*NaN",
    ),
    "an infinite weight": (
        {"sample_weight": put(WEIGHT, 3, np.inf)},
        ValueError,
        "sample_weight.*inf",
    ),
    "weights of text": ({"sample_weight": ["a"] * 8}, ValueError, "sample_weight must.*<U1"),
    "a word for weights": ({"sample_weight": "balanced"}, ValueError, "sample_weight must.*<U8"),
    "weights of dates": ({"sample_weight": DATES}, ValueError, "sample_weight must.*datetime64"),
    "complex weights": ({"sample_weight": WEIGHT * 1j}, ValueError, "sample_weight must.*complex"),
    "masked weights": (
        {"sample_weight": np.ma.masked_equal(WEIGHT, 3)},
        ValueError,
        "sample_weight has 1 masked.*row 3",
    ),
    "sparse weights": ({"sample_weight": sp.coo_array(WEIGHT)}, TypeError, "[Ss]parse data"),
    # Parameters
    "alpha: negative": ({"alpha": -1}, ValueError, "'alpha' parameter.*Got -1"),
    "alpha: NaN": ({"alpha": np.nan}, ValueError, "'alpha' parameter.*Got nan"),
    "alpha: infinite": ({"alpha": np.inf}, ValueError, "alpha.*inf"),
    "alpha: text": ({"alpha": "a"}, ValueError, "'alpha' parameter.*Got 'a'"),
    "alpha: None": ({"alpha": None}, ValueError, "'alpha' parameter.*Got None"),
    "alpha: a list": ({"alpha": [1.0]}, ValueError, "'alpha' parameter"),
    "alpha: text for a part": ({"alpha": {"mean": "a"}}, TypeError, r"alpha\['mean'\].*not str"),
    "alpha: NaN for a part": ({"alpha": {"mean": np.nan}}, ValueError, r"alpha\['mean'\].*nan"),
    "alpha: negative for a part": ({"alpha": {"mean": -1}}, ValueError, r"alpha\['mean'\].*-1"),
    "alpha: of no part": ({"alpha": {"zero_inflation": 1}}, ValueError, "'zero_inflation'"),
    "alpha: of a number": ({"alpha": {3: 1}}, ValueError, "the part 3"),
    "fit_intercept: text": ({"fit_intercept": "no"}, ValueError, "'fit_intercept'.*Got 'no'"),
    "max_iter: zero": ({"max_iter": 0}, ValueError, "'max_iter'.*Got 0"),
    "max_iter: a fraction": ({"max_iter": 1.5}, ValueError, "'max_iter'.*Got 1.5"),
    "tol: zero": ({"tol": 0}, ValueError, "'tol'.*Got 0"),
    "tol: NaN": ({"tol": np.nan}, ValueError, "'tol'.*Got nan"),
    "tol: None": ({"tol": None}, ValueError, "'tol'.*Got None"),
    "batch_size: zero": ({"batch_size": 0}, ValueError, "'batch_size'.*Got 0"),
    "batch_size: a word": ({"batch_size": "all"}, ValueError, "'batch_size'.*Got 'all'"),
    "n_jobs: zero": ({"n_jobs": 0}, ValueError, "n_jobs == 0"),
    "n_jobs: a fraction": ({"n_jobs": 1.5}, ValueError, "'n_jobs'.*Got 1.5"),
    "device: no such thing": ({"device": "gpu"}, ValueError, "device='gpu'.*not available"),
    "device: the hundredth": ({"device": "cuda:99"}, ValueError, "device='cuda:99'.*not avail"),
    "device: one without values": ({"device": "meta"}, ValueError, "device='meta'.*not avail"),
    "device: one to be installed": ({"device": "hpu"}, ValueError, "device='hpu'.*not avail"),
    "device: empty": ({"device": ""}, ValueError, "device=''.*not available"),
    "device: a number": ({"device": 3}, ValueError, "'device'.*Got 3"),
    "device: None": ({"device": None}, ValueError, "'device'.*Got None"),
    "dtype: integers": ({"dtype": "int8"}, ValueError, "'dtype'.*Got 'int8'"),
    "dtype: a type": ({"dtype": np.float64}, ValueError, "'dtype'.*Got"),
    "warm_start: None": ({"warm_start": None}, ValueError, "'warm_start'.*Got None"),
    "checkpoint_dir: a number": ({"checkpoint_dir": 3}, ValueError, "'checkpoint_dir'.*Got 3"),
    "verbose: negative": ({"verbose": -1}, ValueError, "'verbose'.*Got -1"),
}


def fingerprint(given):
    """What tells whether anything in the arguments of a call has changed; flags count."""
    return joblib.hash(
        {
            name: _contents(value)
            for name, value in given.items()
            if name != "model"  # to be fitted
        }
    )


def _contents(value):
    if isinstance(value, np.ma.MaskedArray):
        return value.data, value.mask
    # A copy is without what pandas notes for itself in arrays that were read.
    return value.copy() if isinstance(value, pd.DataFrame | pd.Series) else value


def split(changes):
    data = {"X": X, "y": Y} | {k: v for k, v in changes.items() if k in ("X", "y", "sample_weight")}
    return data, {k: v for k, v in changes.items() if k not in data}


@pytest.mark.parametrize("case", FIT)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_fit_refuses(case):
    changes, error, words = FIT[case]
    data, parameters = split(changes)
    before = fingerprint(data)
    model = NegBinRegressor(**parameters)
    given = dict(vars(model))
    with pytest.raises(error, match=f"(?s){words}"):
        model.fit(**data)
    assert vars(model) == given
    assert fingerprint(data) == before


FITTED = NegBinRegressor().fit(FRAME, COUNTS)


@pytest.mark.parametrize("case", FIT)
def test_a_refit_that_fails_leaves_the_fit_as_it_was(case):
    changes, error, _ = FIT[case]
    data, parameters = split(changes)
    model = copy.deepcopy(FITTED).set_params(**parameters)
    before = joblib.hash(vars(model))
    with pytest.raises(error):
        model.fit(**data)
    assert joblib.hash(vars(model)) == before
    assert_array_equal(model.predict(FRAME), FITTED.predict(FRAME))


# What is unusual, and still means what it says.
COUNTED = NegBinRegressor().fit(X, Y)
ACCEPTED = {
    "booleans and counts": {"X": X.astype(int), "y": Y.astype(np.uint8)},
    "lists": {"X": X.tolist(), "y": Y.tolist()},
    "tensors": {"X": torch.tensor(X), "y": torch.tensor(Y)},
    "decimal numbers": {"X": X, "y": [[Decimal(int(v)) for v in row] for row in Y]},
    "nullable integers": {"X": FRAME[["x"]].astype("Int64"), "y": COUNTS.astype("Int64")},
    "arrays without a masked value": {"X": np.ma.array(X), "y": np.ma.array(Y)},
    "labels twice": {
        "X": FRAME[["x"]].set_axis([*"aabbccdd"]),
        "y": COUNTS.set_axis([*"aabbccdd"]),
    },
    "rows of two levels": {
        "X": FRAME[["x"]].set_axis(pd.MultiIndex.from_product([[1, 2], CELLS[:4]])),
        "y": COUNTS,
    },
    "labels of another kind": {"X": FRAME[["x"]], "y": COUNTS.set_axis(range(10, 18))},
    "no labels": {"X": FRAME[["x"]].set_axis(range(7, -1, -1)), "y": COUNTS.reset_index(drop=True)},
    "column labels that are numbers": {"X": renamed(FRAME[["x"]], 3), "y": Y},
    "sparse columns": {"X": X, "y": COUNTS.astype(pd.SparseDtype(int, 0))},
    "sparse columns that leave out threes": {"X": X, "y": COUNTS.astype(pd.SparseDtype(int, 3))},
    "a column sparse, one not": {"X": X, "y": COUNTS.astype({"Gcg": pd.SparseDtype(int, 0)})},
} | {
    f"{form.__name__}": {"X": X, "y": form(Y)}
    for name in ("coo", "csc", "csr", "bsr", "dia", "dok", "lil")
    for form in (getattr(sp, f"{name}_array"), getattr(sp, f"{name}_matrix"))
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_fit_accepts(case):
    data = ACCEPTED[case]
    before = fingerprint(data)
    model = NegBinRegressor().fit(**data)
    assert_array_equal(model.predict(data["X"]), COUNTED.predict(X))
    assert model.score(**data) == COUNTED.score(X, Y)
    assert fingerprint(data) == before


def test_a_sparse_vector_is_one_gene():
    expected = NegBinRegressor().fit(X, Y[:, 0]).predict(X)
    assert expected.shape == (8,)
    assert_array_equal(NegBinRegressor().fit(X, sp.coo_array(Y[:, 0])).predict(X), expected)


def test_cells_without_counts_count():
    silent = np.vstack([Y, np.zeros_like(Y)])
    for y in (silent, sp.csr_array(silent)):
        model = NegBinRegressor().fit(np.vstack([X, X]), y)
        assert (model.predict(X) < COUNTED.predict(X)).any()
        assert model.converged_.all()


def test_labels_of_rows_are_kept_twice_as_they_are():
    obs = FRAME.set_axis([*"aabbccdd"])
    model = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).fit(obs, COUNTS)
    assert list(model[:-1].transform(obs).index) == [*"aabbccdd"]
    assert model.predict(obs).shape == (8, 2)


DIST = NB([1.0, 2.0], 3.0)
FITTED_PIPELINE = make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()).fit(FRAME, COUNTS)
LINEAR = LinearRegression().fit(FRAME, COUNTS)
BROKEN = damaged(sp.csr_array, indices=lambda a: put(a, 1, 10**9))


def cells(**layers):
    adata = AnnData(Y.astype(float), obs=FRAME.assign(kind=[*"abababab"]))
    adata.var_names = ["Ins1", "Gcg"]
    adata.layers.update({"log": np.log1p(adata.X), "scaled": adata.X - 1.0} | layers)
    return adata


def fit_anndata(adata, model=None, **options):
    return scg.fit(adata, FITTED_PIPELINE if model is None else model, **options)


def duplicated_genes():
    adata = cells()
    adata.var_names = ["Ins1", "Ins1"]
    return adata


def on_anndata(method):
    return lambda X, model=FITTED_PIPELINE, **options: getattr(
        scg.AnnDataRegressor(model).fit(cells()), method
    )(X, **options)


# What is called, with what; the error; what it says.
CALLS = {
    # Predictions
    "predict: columns in another order": (
        FITTED.predict,
        {"X": FRAME[["z", "x"]]},
        ValueError,
        "same order",
    ),
    "predict: a missing column": (FITTED.predict, {"X": FRAME[["x"]]}, ValueError, "missing.*z"),
    "predict: another column": (
        FITTED.predict,
        {"X": FRAME.assign(q=1)},
        ValueError,
        "unseen at fit time.*q",
    ),
    "predict: NaN": (
        FITTED.predict,
        {"X": put(FRAME, ("d", "z"), np.nan)},
        ValueError,
        "'z', row 3",
    ),
    "predict: text": (FITTED.predict, {"X": FRAME.assign(z="1")}, ValueError, f"'z' .{OBJECT}"),
    "predict: no rows": (FITTED.predict, {"X": FRAME[:0]}, ValueError, r"0 sample\(s\)"),
    "predict: a vector": (COUNTED.predict, {"X": X[:, 0]}, ValueError, "2D array"),
    "predict: sparse": (COUNTED.predict, {"X": sp.csr_array(X)}, TypeError, "[Ss]parse"),
    "predict: masked": (
        COUNTED.predict_params,
        {"X": np.ma.masked_equal(X, 3)},
        ValueError,
        "masked.*row 3",
    ),
    "sample: no draws": (FITTED.sample, {"X": FRAME, "n_draws": 0}, ValueError, "n_draws == 0"),
    "sample: half a draw": (
        FITTED.sample,
        {"X": FRAME, "n_draws": 0.5},
        TypeError,
        "n_draws.*not float",
    ),
    "sample: a seed of text": (
        FITTED.sample,
        {"X": FRAME, "random_state": "a"},
        ValueError,
        "'a' cannot be used to seed",
    ),
    "sample: a negative seed": (
        FITTED.sample,
        {"X": FRAME, "random_state": -1},
        ValueError,
        "Seed must be",
    ),
    "sample_sparse: a missing value": (
        FITTED.sample_sparse,
        {"X": put(FRAME, ("d", "z"), np.nan)},
        ValueError,
        "'z', row 3",
    ),
    "sample_sparse: a seed of text": (
        FITTED.sample_sparse,
        {"X": FRAME, "random_state": "a"},
        ValueError,
        "'a' cannot be used to seed",
    ),
    "log_prob: no counts": (FITTED.log_prob, {"X": FRAME, "y": None}, ValueError, "y is None"),
    "log_prob: a damaged matrix": (
        FITTED.log_prob,
        {"X": FRAME, "y": BROKEN},
        ValueError,
        "y is a damaged sparse matrix",
    ),
    "score: one gene of two": (
        FITTED.score,
        {"X": FRAME, "y": Y[:, 0]},
        ValueError,
        "y has 1 genes.*fitted on 2",
    ),
    "score: genes in another order": (
        FITTED.score,
        {"X": FRAME, "y": COUNTS[["Gcg", "Ins1"]]},
        ValueError,
        "'Gcg' where 'Ins1'",
    ),
    "score: cells in another order": (
        FITTED.score,
        {"X": FRAME, "y": COUNTS[::-1]},
        ValueError,
        "rows of y.*'h', but 'a' in X",
    ),
    "score: too few counts": (
        FITTED.score,
        {"X": FRAME, "y": COUNTS[:3]},
        ValueError,
        "X has 8 rows, y has 3",
    ),
    "score: a negative count": (
        FITTED.score,
        {"X": FRAME, "y": put(COUNTS, ("d", "Gcg"), -4)},
        ValueError,
        "'Gcg' in row 3",
    ),
    "score: no weight": (
        FITTED.score,
        {"X": FRAME, "y": COUNTS, "sample_weight": WEIGHT * 0},
        ValueError,
        "(?i)sample.weight.*zero",
    ),
    "score: weights in another order": (
        FITTED.score,
        {"X": FRAME, "y": COUNTS, "sample_weight": pd.Series(WEIGHT, index=CELLS[::-1])},
        ValueError,
        "rows of sample_weight",
    ),
    "pipeline: a missing column": (
        FITTED_PIPELINE.sample,
        {"X": FRAME[["z"]]},
        ValueError,
        "mean='~ x'.*no column 'x'",
    ),
    # Metrics
    "crps: counts for distributions": (
        crps,
        {"y_true": [1, 2], "dist": np.ones(2)},
        TypeError,
        "dist must be.*not a ndarray",
    ),
    "crps: another shape": (crps, {"y_true": [1, 2, 3], "dist": DIST}, ValueError, "y_true.*(3,)"),
    "crps: a number": (
        crps,
        {"y_true": 1, "dist": DIST},
        ValueError,
        "y_true must have one or two",
    ),
    "crps: a negative count": (crps, {"y_true": [1, -2], "dist": DIST}, ValueError, "row 1.*-2.0"),
    "crps: text": (crps, {"y_true": ["1", "2"], "dist": DIST}, ValueError, "y_true must.*<U1"),
    "crps: dates": (crps, {"y_true": DATES[:2], "dist": DIST}, ValueError, "y_true.*datetime64"),
    "crps: complex": (crps, {"y_true": [1j, 2], "dist": DIST}, ValueError, "y_true.*complex128"),
    "crps: masked": (
        crps,
        {"y_true": np.ma.masked_equal([1, 2], 2), "dist": DIST},
        ValueError,
        "y_true.*row 1",
    ),
    "crps: a damaged matrix": (
        crps,
        {"y_true": BROKEN, "dist": COUNTED.predict_dist(X)},
        ValueError,
        "y_true is a damaged",
    ),
    "crps: weights of text": (
        crps,
        {"y_true": [1, 2], "dist": DIST, "sample_weight": ["a", "b"]},
        ValueError,
        "sample_weight must hold numbers",
    ),
    "crps: an average of another kind": (
        crps,
        {"y_true": [1, 2], "dist": DIST, "multioutput": "all"},
        ValueError,
        "multi.*'all'",
    ),
    "crps: an average of nothing": (
        crps,
        {"y_true": [1, 2], "dist": DIST, "multioutput": [0]},
        ValueError,
        "multi.*sum is 0",
    ),
    "scorer: no counts": (d2_scorer, {"estimator": FITTED, "X": FRAME}, ValueError, "y is None"),
    "scorer: another estimator": (
        d2_scorer,
        {"estimator": LINEAR, "X": FRAME, "y": COUNTS},
        AttributeError,
        "predict_dist",
    ),
    "scorer: genes in another order": (
        d2_scorer,
        {"estimator": FITTED, "X": FRAME, "y": COUNTS[["Gcg", "Ins1"]]},
        ValueError,
        "'Gcg' where 'Ins1'",
    ),
    "scorer: cells in another order": (
        d2_scorer,
        {"estimator": FITTED_PIPELINE, "X": FRAME, "y": COUNTS[::-1]},
        ValueError,
        "rows of y",
    ),
    # Distributions
    "NB: a negative mean": (NB, {"mu": [1, -1], "r": 1}, ValueError, "mu must be.*-1.0"),
    "NB: an infinite mean": (NB, {"mu": np.inf, "r": 1}, ValueError, "mu must be.*inf"),
    "NB: a missing mean": (NB, {"mu": None, "r": 1}, ValueError, "mu must be.*nan"),
    "NB: a size of zero": (NB, {"mu": 1, "r": [1, 0]}, ValueError, "r must be.*0.0"),
    "NB: a missing size": (NB, {"mu": 1, "r": np.nan}, ValueError, "r must be.*nan"),
    "NB: text": (NB, {"mu": "3", "r": 1}, ValueError, "mu must hold numbers, not <U1"),
    "NB: complex": (NB, {"mu": 1, "r": np.array([1j])}, ValueError, "r must hold numbers"),
    "NB: dates": (NB, {"mu": DATES, "r": 1}, ValueError, "mu must hold numbers"),
    "NB: masked": (
        NB,
        {"mu": np.ma.masked_equal([1, 2], 2), "r": 1},
        ValueError,
        "mu has 1 masked",
    ),
    "NB: ragged": (NB, {"mu": RAGGED, "r": 1}, ValueError, "mu is not an array"),
    "NB: sparse": (NB, {"mu": 1, "r": sp.csr_array(X)}, ValueError, "r is not an array of numbers"),
    "NB: beyond floats": (NB, {"mu": 10**400, "r": 1}, ValueError, "mu is not.*too large"),
    "NB: shapes": (NB, {"mu": [1, 2], "r": [1, 2, 3]}, ValueError, r"mu \(2,\), r \(3,\)"),
    "ZINB: a negative probability": (
        ZINB,
        {"mu": 1, "r": 1, "pi": -0.1},
        ValueError,
        "pi must be.*-0.1",
    ),
    "ZINB: a probability above one": (
        ZINB,
        {"mu": 1, "r": 1, "pi": [0, 1.5]},
        ValueError,
        "pi must be.*1.5",
    ),
    "ZINB: a missing probability": (
        ZINB,
        {"mu": 1, "r": 1, "pi": np.nan},
        ValueError,
        "pi must be.*nan",
    ),
    "pmf: text": (DIST.pmf, {"k": "1"}, ValueError, "argument must hold numbers"),
    "cdf: complex": (DIST.cdf, {"k": np.array([1j])}, ValueError, "argument must hold numbers"),
    "pmf: shapes": (DIST.pmf, {"k": [1, 2, 3]}, ValueError, "shape"),
    "rvs: shapes": (DIST.rvs, {"size": 3}, ValueError, r"\(2,\) do not broadcast to \(3,\)"),
    "rvs: text": (DIST.rvs, {"size": "a"}, TypeError, "integer"),
    "rvs: a seed of text": (DIST.rvs, {"random_state": "a"}, ValueError, "'a' cannot be used"),
    # Simulated data
    "make_counts: no cells": (make_counts, {"n_samples": 0}, ValueError, "n_samples.*got 0"),
    "make_counts: half a cell": (make_counts, {"n_samples": 0.5}, TypeError, "n_samples.*got 0.5"),
    "make_counts: text": (make_counts, {"n_targets": "a"}, TypeError, "n_targets.*got 'a'"),
    "make_counts: no number": (make_counts, {"n_targets": True}, TypeError, "n_targets.*got True"),
    "make_counts: effects of text": (
        make_counts,
        {"effect_scale": "a"},
        TypeError,
        "effect_scale.*got 'a'",
    ),
    "make_counts: infinite effects": (
        make_counts,
        {"effect_scale": np.inf},
        ValueError,
        "effect_scale.*got inf",
    ),
    "make_counts: effects that overflow": (
        make_counts,
        {"effect_scale": 1e6, "random_state": 0},
        ValueError,
        r"effect_scale=1000000.0 or an offset is too large",
    ),
    "make_counts: a formula of another column": (
        make_counts,
        {"dispersion": "~ age"},
        ValueError,
        "dispersion='~ age'.*'age'",
    ),
    "make_counts: a formula that is none": (make_counts, {"mean": 3}, TypeError, "mean=3"),
    "make_counts: a seed of text": (make_counts, {"random_state": "a"}, ValueError, "'a' cannot"),
    # AnnData
    "fit: a frame": (
        fit_anndata,
        {"adata": FRAME},
        TypeError,
        "must be an AnnData, not a DataFrame",
    ),
    "fit: no such layer": (
        fit_anndata,
        {"adata": cells(), "layer": "raw"},
        ValueError,
        "no layer 'raw'.*'scaled'",
    ),
    "fit: two layers": (
        fit_anndata,
        {"adata": cells(), "layer": ["log"]},
        ValueError,
        r"no layer \['log'\]",
    ),
    "fit: scaled values": (
        fit_anndata,
        {"adata": cells(), "layer": "scaled"},
        ValueError,
        r"layers\['scaled'\] has negative values.*in adata.X",
    ),
    "fit: missing counts": (
        fit_anndata,
        {"adata": cells(holes=put(Y.astype(float), (3, 1), np.nan)), "layer": "holes"},
        ValueError,
        r"layers\['holes'\] has missing",
    ),
    "fit: logarithms": (
        fit_anndata,
        {"adata": cells(), "layer": "log"},
        UserWarning,
        r"layers\['log'\] are not int",
    ),
    "fit: a damaged layer": (
        fit_anndata,
        {"adata": cells(broken=damaged(sp.csr_matrix)), "layer": "broken"},
        ValueError,
        r"layers\['broken'\] is a damaged sparse matrix",
    ),
    "fit: genes twice": (
        fit_anndata,
        {"adata": duplicated_genes()},
        ValueError,
        r"var_names.*\['Ins1'\]",
    ),
    "fit: a key that is none": (
        fit_anndata,
        {"adata": cells(), "key_added": 3},
        TypeError,
        "key_added.*not 3",
    ),
    "fit: an empty key": (
        fit_anndata,
        {"adata": cells(), "key_added": ""},
        TypeError,
        "key_added.*not ''",
    ),
    "fit: another regressor": (
        fit_anndata,
        {"adata": cells(), "model": LINEAR},
        TypeError,
        "not LinearRegression",
    ),
    "fit: a pipeline to another regressor": (
        fit_anndata,
        {"adata": cells(), "model": stock_make_pipeline(FormulaTransformer("~ x"), LINEAR)},
        TypeError,
        "not LinearRegression",
    ),
    "fit: a class": (
        fit_anndata,
        {"adata": cells(), "model": NegBinRegressor},
        TypeError,
        "not <class",
    ),
    "fit: covariates of text": (
        fit_anndata,
        {"adata": cells(), "model": NegBinRegressor()},
        ValueError,
        r"\['kind'\] are not numbers",
    ),
    "fit: no such covariate": (
        fit_anndata,
        {"adata": cells(), "model": make_pipeline(FormulaTransformer("~ age"), NegBinRegressor())},
        ValueError,
        "mean='~ age'.*'age'",
    ),
    "fit: too few weights": (
        fit_anndata,
        {"adata": cells(), "sample_weight": [1, 2]},
        ValueError,
        r"weight.*\(2,\)",
    ),
    "predict: no cells": (
        scg.predict,
        {"adata_or_obs": 3, "model": FITTED_PIPELINE},
        TypeError,
        "not a int",
    ),
    "predict: another model": (
        scg.predict,
        {"adata_or_obs": cells(), "model": LINEAR},
        TypeError,
        "not LinearRegression",
    ),
    "predict: a model that is not fitted": (
        scg.predict,
        {"adata_or_obs": cells(), "model": make_pipeline(FormulaTransformer(), NegBinRegressor())},
        NotFittedError,
        "not fitted",
    ),
    "predict: obs without a column": (
        scg.predict,
        {"adata_or_obs": FRAME[["z"]], "model": FITTED_PIPELINE},
        ValueError,
        "'x'",
    ),
    "sample: a seed that is none": (
        scg.sample,
        {"adata_or_obs": FRAME, "model": FITTED_PIPELINE, "random_state": "a"},
        ValueError,
        "'a' cannot be used to seed",
    ),
    "read_params: a frame": (scg.read_params, {"adata": FRAME}, TypeError, "not a DataFrame"),
    "read_params: no fit": (
        scg.read_params,
        {"adata": cells()},
        ValueError,
        "'sc_glm'.*fits under",
    ),
    "read_params: a key that is none": (
        scg.read_params,
        {"adata": cells(), "key": ["nb"]},
        ValueError,
        r"no fit under \['nb'\]",
    ),
    "AnnDataRegressor: counts beside it": (
        on_anndata("fit"),
        {"X": cells(), "y": Y},
        ValueError,
        "y must be None",
    ),
    "AnnDataRegressor: a frame": (
        on_anndata("score"),
        {"X": FRAME},
        TypeError,
        "not a DataFrame",
    ),
    "AnnDataRegressor: a gene less": (
        on_anndata("score"),
        {"X": cells()[:, :1].copy()},
        ValueError,
        r"1 genes.*\['Gcg'\]",
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_calls_refuse(case):
    call, given, error, words = CALLS[case]
    if "broken" in getattr(given.get("adata"), "layers", {}):
        given["adata"].layers["broken"].indices[1] = 10**9  # AnnData would not copy it
    before = fingerprint(given)
    with pytest.raises(error, match=f"(?s){words}"):
        call(**given)
    assert fingerprint(given) == before


VERBS = {
    "predict": {},
    "predict_params": {},
    "predict_dist": {},
    "sample": {},
    "log_prob": {"y": Y},
    "score": {"y": Y},
}


@pytest.mark.parametrize("verb", [*VERBS, "sample_sparse"])
@pytest.mark.parametrize(
    "model",
    [
        NegBinRegressor(),
        ZINBRegressor(),
        make_pipeline(FormulaTransformer("~ x"), NegBinRegressor()),
    ],
)
def test_a_model_that_is_not_fitted_says_so(model, verb):
    data = {"X": FRAME} | VERBS.get(verb, {})
    with pytest.raises(NotFittedError):
        getattr(model, verb)(**data)
    assert isinstance(model, Pipeline) or verb != "score" or not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("verb", [*VERBS, "counts"])
def test_an_anndata_regressor_that_is_not_fitted_says_so(verb):
    with pytest.raises(NotFittedError):
        getattr(scg.AnnDataRegressor(FITTED_PIPELINE), verb)(cells())


def test_a_first_fit_that_fails_is_none():
    model = NegBinRegressor()
    with pytest.raises(ValueError, match="negative"):
        model.fit(X, -Y)
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_a_file_that_was_closed_is_opened_again_or_missed(tmp_path):
    adata = cells()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    backed.file.close()
    model = scg.fit(backed, copy.deepcopy(FITTED_PIPELINE))
    assert_array_equal(model.predict(FRAME), FITTED_PIPELINE.predict(FRAME))
    backed.file.close()
    (tmp_path / "cells.h5ad").unlink()
    with pytest.raises(FileNotFoundError, match=r"cells\.h5ad"):
        scg.fit(backed, copy.deepcopy(FITTED_PIPELINE))
