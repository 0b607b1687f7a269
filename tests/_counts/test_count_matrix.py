import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from sc_glm._counts.count_matrix import CountMatrix, are_counts

Y = np.array([[0, 3, 0], [1, 0, 0], [0, 250, 7], [2, 1, 0]])


def with_explicit_zeros():
    rows, columns = np.indices(Y.shape)
    return sp.csr_array((Y.ravel(), (rows.ravel(), columns.ravel())), shape=Y.shape)


def with_duplicates():
    """Every count in two entries, one of them one."""
    rows, columns = np.nonzero(Y)
    values = np.r_[Y[rows, columns] - 1, np.ones(len(rows), dtype=int)]
    order = np.argsort(np.r_[rows, rows], kind="stable")
    indptr = np.r_[0, np.cumsum(2 * np.count_nonzero(Y, axis=1))]
    return sp.csr_array((values[order], np.r_[columns, columns][order], indptr), shape=Y.shape)


def with_unsorted_indices(form):
    matrix = form(Y)
    for start, stop in zip(matrix.indptr, matrix.indptr[1:], strict=False):
        matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
        matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
    matrix.has_sorted_indices = False
    return matrix


def with_long_indices():
    matrix = sp.csc_array(Y)
    matrix.indices, matrix.indptr = matrix.indices.astype("i8"), matrix.indptr.astype("i8")
    return matrix


def read_only(matrix):
    arrays = [matrix] if isinstance(matrix, np.ndarray) else [matrix.data, matrix.indices]
    for array in arrays:
        array.flags.writeable = False
    return matrix


DENSE = {
    "lists": Y.tolist,
    "int64": Y.copy,
    "uint16": lambda: Y.astype("u2"),
    "int8 where it fits": lambda: Y.clip(max=127).astype("i1"),
    "bool": lambda: Y > 0,
    "float32": lambda: Y.astype("f4"),
    "float64": lambda: Y.astype(float),
    "Fortran order": lambda: np.asfortranarray(Y),
    "strided": lambda: np.repeat(np.repeat(Y, 2, axis=0), 3, axis=1)[::2, ::3],
    "read-only": lambda: read_only(Y.copy()),
    "DataFrame": lambda: pd.DataFrame(Y, columns=list("abc")),
    "DataFrame of several types": lambda: pd.DataFrame(Y, columns=list("abc")).astype(
        {"a": "u1", "b": "f4"}
    ),
    "DataFrame of nullable integers": lambda: pd.DataFrame(Y).astype("Int64"),
    "DataFrame of objects": lambda: pd.DataFrame(Y, dtype=object),
}
SPARSE = {
    "CSR array": lambda: sp.csr_array(Y),
    "CSC array": lambda: sp.csc_array(Y),
    "COO array": lambda: sp.coo_array(Y),
    "CSR matrix": lambda: sp.csr_matrix(Y.astype("f4")),
    "CSC matrix": lambda: sp.csc_matrix(Y.astype("u2")),
    "read-only CSC": lambda: read_only(sp.csc_array(Y)),
    "frame of sparse columns": lambda: pd.DataFrame(Y).astype(pd.SparseDtype(float, 0.0)),
    "read-only CSR": lambda: read_only(sp.csr_array(Y)),
    "explicit zeros": with_explicit_zeros,
    "explicit zeros in CSC": lambda: sp.csc_array(with_explicit_zeros()),
    "read-only explicit zeros": lambda: read_only(with_explicit_zeros()),
    "duplicates": with_duplicates,
    "unsorted CSR": lambda: with_unsorted_indices(sp.csr_array),
    "unsorted CSC": lambda: with_unsorted_indices(sp.csc_array),
    "read-only unsorted CSC": lambda: read_only(with_unsorted_indices(sp.csc_matrix)),
    "int64 indices": with_long_indices,
}


def parts(y):
    """What makes up ``y``, to see whether it is left as it is."""
    if sp.issparse(y):
        arrays = (y.row, y.col) if y.format == "coo" else (y.indices, y.indptr)
        return [array.copy() for array in (y.data, *arrays)]
    return [np.array(y)]


@pytest.mark.parametrize("form", {**DENSE, **SPARSE})
def test_every_form_gives_the_same_counts(form):
    y = {**DENSE, **SPARSE}[form]()
    expected = y.toarray() if sp.issparse(y) else np.array(y)
    if form not in ("bool", "int8 where it fits"):
        assert_array_equal(expected, Y)
    before = parts(y)
    counts = CountMatrix.of(y, n_cells=4)
    assert counts.n_genes == 3
    assert not counts.one_dimensional
    for genes in (slice(0, 3), slice(1, 2), slice(1, 9)):
        assert_array_equal(counts.dense(genes), expected[:, genes])
        rows = counts.by_gene(genes)
        assert_array_equal(rows.toarray(), expected[:, genes].T)
        assert rows.dtype == (counts.matrix.dtype if sp.issparse(y) else np.float64)
        assert rows.format == "csr"
        assert rows.has_canonical_format
        assert (rows.data > 0).all()
    for a, b in zip(parts(y), before, strict=True):
        assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("form", SPARSE)
def test_sparse_counts_stay_sparse_and_canonical(form):
    counts = CountMatrix.of(SPARSE[form](), n_cells=4)
    for matrix in (counts.matrix, counts.by_column):
        assert isinstance(matrix, sp.csr_array | sp.csc_array)
        assert matrix.has_canonical_format
        assert matrix.nnz == np.count_nonzero(Y)
    assert isinstance(counts.by_column, sp.csc_array)


def test_canonical_sparse_counts_are_not_copied():
    y = sp.csc_array(Y)
    counts = CountMatrix.of(y, n_cells=4)
    assert np.shares_memory(counts.matrix.data, y.data)
    assert np.shares_memory(counts.by_gene(slice(1, 3)).data, y.data)
    by_cell = sp.csr_array(Y)
    assert np.shares_memory(CountMatrix.of(by_cell, n_cells=4).matrix.data, by_cell.data)


@pytest.mark.parametrize("form", [*DENSE, *SPARSE])
def test_some_cells(form):
    y = {**DENSE, **SPARSE}[form]()
    expected = y.toarray() if sp.issparse(y) else np.array(y)
    counts = CountMatrix.of(y, n_cells=4)
    for cells in ([3, 1], np.array([3, 1]), (np.array([3, 1]), ...)):
        some = counts[cells]
        assert some.shape == (2, 3)
        assert_array_equal(some.dense(slice(None)), expected[[3, 1]])
        block = some.by_gene(slice(0, 2))
        assert_array_equal(block.toarray(), expected[[3, 1], :2].T)
        assert all(
            (np.diff(cells) > 0).all() for cells in np.split(block.indices, block.indptr[1:-1])
        )
        assert list(some.names) == list(counts.names)


def test_checked_counts_are_checked_for_their_number_of_rows_only():
    counts = CountMatrix.of(Y, n_cells=4)
    assert CountMatrix.of(counts, n_cells=4) is counts
    with pytest.raises(ValueError, match="X has 5 rows, y has 4"):
        CountMatrix.of(counts, n_cells=5)


ONE_GENE = {
    "list": ([0, 3, 1], True),
    "vector": (np.array([0, 3, 1]), True),
    "Series": (pd.Series([0, 3, 1], name="Ins1"), True),
    "column vector": (np.array([[0], [3], [1]]), False),
    "DataFrame": (pd.DataFrame({"Ins1": [0, 3, 1]}), False),
    "CSC": (sp.csc_array(np.array([[0], [3], [1]])), False),
}


@pytest.mark.parametrize("form", ONE_GENE)
def test_one_gene(form):
    y, one_dimensional = ONE_GENE[form]
    counts = CountMatrix.of(y, n_cells=3)
    assert counts.one_dimensional is one_dimensional
    assert counts.n_genes == 1
    assert_array_equal(counts.dense(slice(None)), [[0], [3], [1]])
    assert list(counts.names) == ["Ins1" if hasattr(y, "iloc") else "y0"]


def test_names():
    assert list(CountMatrix.of(Y, n_cells=4).names) == ["y0", "y1", "y2"]
    frame = pd.DataFrame(Y, columns=["Pyy", 5, "Gcg"], index=list("wxyz"))
    assert list(CountMatrix.of(frame, n_cells=4).names) == ["Pyy", "5", "Gcg"]
    assert list(CountMatrix.of(pd.Series([1, 2]), n_cells=2).names) == ["y0"]
    given = np.array(["k", "l", "m"], dtype=object)
    assert list(CountMatrix.of(Y, n_cells=4, names=given).names) == ["k", "l", "m"]
    assert list(CountMatrix.of(frame, n_cells=4, names=given).names) == ["Pyy", "5", "Gcg"]


def test_counts_need_not_be_integers():
    y = np.array([[0.0, 0.3], [2.75, 0.0]])
    for form in (y, sp.csr_array(y)):
        assert_array_equal(CountMatrix.of(form, n_cells=2).by_gene(slice(0, 2)).toarray(), y.T)


def test_no_counts_at_all():
    for y in (np.zeros((3, 2)), sp.csc_array((3, 2))):
        assert CountMatrix.of(y, n_cells=3).by_gene(slice(0, 2)).nnz == 0


BAD_VALUES = [
    (-4.0, "negative", "-4.0"),
    (np.nan, "not finite", "NaN"),
    (np.inf, "not finite", "infinity"),
    (-np.inf, "not finite", "infinity"),
]


@pytest.mark.parametrize(("value", "what", "word"), BAD_VALUES)
@pytest.mark.parametrize("form", [np.array, sp.csr_array, sp.csc_matrix, pd.DataFrame])
def test_a_bad_value_is_named_with_its_gene_and_row(form, value, what, word):
    y = Y.astype(float)
    y[2, 1] = value
    y[3, 2] = value
    y = pd.DataFrame(y, columns=["Pyy", "Ins1", "Gcg"]) if form is pd.DataFrame else form(y)
    with pytest.raises(ValueError) as error:
        CountMatrix.of(y, n_cells=4)
    message = str(error.value)
    gene = "'Ins1'" if form is pd.DataFrame else "'y1'"
    for words in (what, word, gene, "row 2", "2 such"):
        assert words in message
    assert ("not counts" in message) == (what == "negative")


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("gene", range(5))
def test_a_bad_value_is_found_at_any_position(gene, row):
    """In a sparse matrix some of whose genes have no counts."""
    y = np.array([[0, 1, 0, 2, 0], [0, 1, 0, 0, 0], [0, 1, 0, 2, 0]], dtype=float)
    y[row, gene] = -8
    with pytest.raises(ValueError, match=rf"-8.0 for gene 'y{gene}' in row {row},"):
        CountMatrix.of(sp.csc_array(y), n_cells=3)


def test_a_value_that_is_not_finite_comes_before_one_that_is_negative():
    y = Y.astype(float)
    y[0, 0], y[3, 1] = -1, np.nan
    with pytest.raises(ValueError, match=r"NaN for gene 'y1' in row 3, and 1 such"):
        CountMatrix.of(y, n_cells=4)


def test_a_negative_value_in_integers():
    with pytest.raises(ValueError, match=r"negative: -2 for gene 'y0' in row 1"):
        CountMatrix.of(np.array([[1, 2], [-2, 0]], dtype="i2"), n_cells=2)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "target y is None"),
        (Y[:3], "X has 4 rows, y has 3"),
        (sp.csr_array(Y[:3]), "X has 4 rows, y has 3"),
        (np.zeros((4, 0)), "0 feature"),
        (np.array([["a", "b"]] * 4), "numbers, not <U1"),
        (np.full(4, 1j), "Complex"),
        (np.zeros((4, 2, 2)), "dim 3"),
        (pd.DataFrame(np.ones((4, 3)), columns=["Ins1", "Gcg", "Ins1"]), "'Ins1'"),
        (pd.DataFrame(np.ones((4, 2)), columns=[1, "1"]), "'1'"),
        (
            pd.DataFrame(np.ones((4, 2)), columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])),
            "MultiIndex",
        ),
        (pd.DataFrame({"a": ["x"] * 4}, dtype=object), "'a' (object)"),
        (pd.DataFrame({"a": pd.to_datetime(["2020"] * 4)}), "datetime64"),
        (
            pd.DataFrame({"a": pd.array([1, 2, None, 4], dtype="Int64")}),
            "NaN for gene 'a' in row 2",
        ),
    ],
)
def test_errors_of_other_objects(y, words):
    with pytest.raises(ValueError) as error:
        CountMatrix.of(y, n_cells=4)
    assert words in str(error.value)


def test_a_transposed_matrix_is_an_error_with_a_hint():
    with pytest.raises(ValueError, match=r"X has 4 rows, y has 3\. It has 4 columns.*y\.T"):
        CountMatrix.of(np.ones((3, 4)), n_cells=4)
    with pytest.raises(ValueError, match=r"X has 4 rows, y has 3\.$"):
        CountMatrix.of(np.ones((3, 5)), n_cells=4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0, 0], True),
        ([1, 2, 3], True),
        ([0, 0, 0, 0.5], False),  # zeros say nothing
        ([0.5, 1, 2], True),
        ([0.5, 1], True),
        ([0.5, 0.5, 1], False),
        ([-1, 1, 1], False),
        ([True, False], True),
        ([], True),
    ],
)
def test_values_that_look_like_counts(values, expected):
    assert are_counts(np.array(values)) is expected
    large = np.tile(np.array(values), 300_000)
    assert are_counts(large) is expected
