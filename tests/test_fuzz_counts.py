"""Random count matrices, sound and broken, in every form: they are read right, or refused."""

from collections import Counter

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from numpy.testing import assert_array_equal

from sc_glm import NegBinRegressor
from sc_glm import adata as scg
from sc_glm._counts.count_matrix import CountMatrix

REFUSED = (ValueError, TypeError)
DTYPES = np.array(["?", "i1", "u1", "i2", ">i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">f8"])
RARE = np.array(["f2", "g", "O"])  # SciPy has code for sparse matrices of some of them
RARE_TYPES = [np.dtype(name) for name in RARE]


def strided(y):
    return np.repeat(np.repeat(y, 2, axis=0), 3, axis=1)[::2, ::3]


def read_only(y):
    y = y.copy()
    y.flags.writeable = False
    return y


def frame(y):
    return pd.DataFrame(y, columns=[f"gene {i}" for i in range(y.shape[1])])


DENSE = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "strided": strided,
    "reversed": lambda y: y[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "list": lambda y: y.tolist(),
    "tuples": lambda y: tuple(map(tuple, y.tolist())),
    "frame": frame,
    "frame of objects": lambda y: frame(y).astype(object),
    "unmasked": np.ma.array,
}
OTHER_SPARSE = ["coo", "bsr", "dia", "dok", "lil"]


def draw_counts(rng):
    shape = rng.integers(1, 7), rng.integers(1, 5)
    if rng.random() < 0.03:
        shape = tuple(rng.permutation([0, rng.integers(0, 4)]))
    dtype = rng.choice(DTYPES if rng.random() < 0.9 else RARE)
    # Six of them, which might be duplicates, fit eight bits.
    return rng.poisson(rng.choice([0.2, 2.0, 10.0]), shape).clip(max=20).astype(dtype)


def bad_value(rng, dtype):
    """A value that is no count, if the type has one."""
    values = []
    if dtype.kind == "f":
        values += [np.nan, np.inf, -np.inf, -1.5]
    if dtype.kind == "i":
        values += [-1, np.iinfo(dtype).min]
    if dtype.itemsize >= 8 and dtype.kind in "iuf":
        values += [10**9 + 1, 2**62]
    return rng.choice(np.array(values, dtype=dtype)) if values else None


def draw_dense(rng):
    """Counts, and what they are (None: no counts)."""
    y = draw_counts(rng)
    sound = 0 not in y.shape
    if sound and rng.random() < 0.3:
        value = bad_value(rng, y.dtype)
        if value is not None:
            y[tuple(rng.integers(y.shape))] = value
            sound = False
    form = rng.choice(list(DENSE))
    given = DENSE[form](y)
    if sound and rng.random() < 0.05:
        broken = [y[..., None], y[:1, 0], y.astype(complex), y.astype("M8[s]"), y.astype(str)]
        given, sound = broken[rng.integers(5)] if y.dtype != object else y[..., None], False
        sound = given.shape == (1,) and len(y) == 1
        y = given[:, None] if sound else y
    return given, np.array(y, dtype=float) if sound else None, len(y)


def draw_compressed(rng):
    """CSR or CSC with zeros, duplicates and indices in any order, and sometimes broken."""
    dense = draw_counts(rng)
    is_csr = rng.random() < 0.5
    lines = dense if is_csr else dense.T
    data, indices, indptr = [], [], [0]
    for line in lines:
        stored = [i for i, value in enumerate(line) if value or rng.random() < 0.2]
        entries = [(i, line[i]) for i in stored]
        if dense.dtype.kind in "iuf":
            entries += [(i, 0) for i in stored if rng.random() < 0.1]
        if rng.random() < 0.3:
            entries = [entries[i] for i in rng.permutation(len(entries))]
        indices += [i for i, _ in entries]
        data += [value for _, value in entries]
        indptr.append(len(data))
    kind = rng.choice(["i4", "i8"])
    arrays = {
        "data": np.array(data, dtype=dense.dtype),
        "indices": np.array(indices, dtype=kind),
        "indptr": np.array(indptr, dtype=kind),
    }
    for _ in range(rng.integers(1, 3) if rng.random() < 0.4 else 0):
        break_something(rng, arrays)
    form = f"{'csr' if is_csr else 'csc'}_{rng.choice(['array', 'matrix'])}"
    y = getattr(sp, form)(dense.shape, dtype=np.float64)
    for name, array in arrays.items():
        setattr(y, name, array)
        if rng.random() < 0.2:
            array.flags.writeable = False
    if rng.random() < 0.1:  # which may be a lie
        y.has_sorted_indices = y.has_canonical_format = True
    return y, content(arrays, lines.shape, transposed=not is_csr), len(dense)


def break_something(rng, arrays):
    name = rng.choice(list(arrays))
    array = arrays[name]
    what = rng.choice(["value", "shorter", "longer", "shape", "floats"])
    if what == "shorter":
        arrays[name] = array[: rng.integers(len(array) + 1)]
    elif what == "longer":
        arrays[name] = np.append(array, array[:2])
    elif what == "shape" and rng.random() < 0.3:
        arrays[name] = array[:, None]
    elif what == "floats" and name != "data":
        arrays[name] = array + 0.5
    elif what == "value" and len(array):
        if name == "data":
            value = bad_value(rng, array.dtype)
        else:
            value = rng.choice([-(10**9), -7, -1, 0, 1, 2, 3, 5, 10**9])
        if value is not None:
            arrays[name][rng.integers(len(array))] = value


def content(arrays, shape, *, transposed):
    """Read a compressed matrix entry by entry; None if it is broken, or holds no counts."""
    data, indices, indptr = arrays["data"], arrays["indices"], arrays["indptr"]
    n_lines, width = shape
    if (
        0 in shape
        or any(array.ndim != 1 for array in arrays.values())
        or indices.dtype.kind == "f"
        or indptr.dtype.kind == "f"
        or len(indptr) != n_lines + 1
        or indptr[0] != 0
        or len(data) != len(indices)
        or (np.diff(indptr) < 0).any()
        or indptr[-1] > len(data)
    ):
        return None
    dense = np.zeros(shape)
    for line in range(n_lines):
        for entry in range(indptr[line], indptr[line + 1]):
            if not 0 <= indices[entry] < width:
                return None
            dense[line, indices[entry]] += float(data[entry])
    if not ((dense >= 0) & (dense <= 10**9)).all():
        return None
    return dense.T if transposed else dense


def draw_other_sparse(rng):
    dense = draw_counts(rng)
    if dense.dtype in RARE_TYPES or dense.dtype.byteorder == ">":
        dense = dense.astype(np.float64)
    y = getattr(sp, f"{rng.choice(OTHER_SPARSE)}_{rng.choice(['array', 'matrix'])}")(dense)
    sound = 0 not in y.shape
    if y.format == "coo" and y.nnz and rng.random() < 0.3:
        coords = [axis.copy() for axis in y.coords]
        coords[rng.integers(2)][rng.integers(y.nnz)] = rng.choice([-1, -(10**6), 7, 10**6])
        y.coords = tuple(coords)
        sound = False
    return y, dense.astype(float) if sound else None, len(dense)


DRAWS = [draw_dense, draw_compressed, draw_compressed, draw_other_sparse]


def draw(rng):
    y, expected, n_cells = DRAWS[rng.integers(len(DRAWS))](rng)
    if rng.random() < 0.03:
        return y, None, n_cells + 1
    return y, expected, n_cells


def is_rare(y):
    """Whether a sparse matrix has a type for which SciPy has no code."""
    return sp.issparse(y) and y.dtype in RARE_TYPES


@pytest.mark.parametrize("seed", range(20))
def test_count_matrices_are_read_right_or_refused(seed):
    rng = np.random.default_rng(seed)
    outcomes = Counter()
    for _ in range(500):
        y, expected, n_cells = draw(rng)
        before = joblib.hash(y)
        try:
            counts = CountMatrix.of(y, n_cells=n_cells)
        except REFUSED:
            if expected is not None and not is_rare(y):
                raise
            outcomes["refused"] += 1
        else:
            assert expected is not None, repr(y)
            assert_array_equal(counts.dense(slice(None)).astype(float), expected)
            by_gene = counts.by_gene(slice(None))
            assert_array_equal(by_gene.toarray(), expected.T)
            assert by_gene.has_canonical_format
            assert (by_gene.data > 0).all()
            if sp.issparse(y):
                assert counts.matrix.has_canonical_format
                assert counts.matrix.nnz == np.count_nonzero(expected)
            outcomes["read"] += 1
        assert joblib.hash(y) == before
    assert min(outcomes["read"], outcomes["refused"]) > 100


def fit(y, n_cells):
    """Through a fit, and what it calls of the counts again."""
    X = np.linspace(0, 1, n_cells)[:, None]
    model = NegBinRegressor(max_iter=2).fit(X, y)
    assert np.isfinite(model.score(X, y))
    return model.predict(X)


def fit_anndata(y, n_cells):
    obs = pd.DataFrame({"x": np.linspace(0, 1, n_cells)}, index=map(str, range(n_cells)))
    var = pd.DataFrame(index=[f"gene {i}" for i in range(y.shape[1])])
    adata = AnnData(obs=obs, var=var)
    adata.X = y
    model = scg.fit(adata, NegBinRegressor(max_iter=2))
    assert np.isfinite(scg.AnnDataRegressor(NegBinRegressor(max_iter=2)).fit(adata).score(adata))
    return scg.predict(adata, model).X


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("through", [fit, fit_anndata])
@pytest.mark.parametrize("seed", range(100, 104))
def test_fits_end_or_are_refused(through, seed):
    rng = np.random.default_rng(seed)
    outcomes = Counter()
    while outcomes.total() < 40:
        y, expected, n_cells = draw(rng)
        is_matrix = isinstance(y, np.ndarray) or getattr(y, "format", None) in ("csr", "csc")
        is_matrix = is_matrix and y.ndim == 2 and all(y.shape) and y.shape[0] == n_cells
        if through is fit_anndata and not is_matrix:
            continue  # AnnData would not hold it
        before = joblib.hash(y)
        try:
            predicted = through(y, n_cells)
        except REFUSED:
            if expected is not None and not is_rare(y):
                raise
            outcomes["refused"] += 1
        else:
            assert expected is not None, repr(y)
            assert np.isfinite(predicted).all()
            outcomes["fitted"] += 1
        assert joblib.hash(y) == before
    assert min(outcomes["fitted"], outcomes["refused"]) > 5
