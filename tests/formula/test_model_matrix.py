"""Values, names and levels of the columns that formulas make."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal

from sc_glm.formula.model_matrix import MAX_COLUMNS
from tests.formula.designs import fit

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


@pytest.mark.parametrize(
    "offset",
    [
        "np.log(depth) + x",
        "np.log(depth) - x",
        "2 * x",
        "1",
        "0",
        "",
        "~",
        "~ .",
        "x + 1",
        "x - 1",
        "-x",
        "y ~ x",
        "kind",
        "C(batch)",
        "bs(x, df=4)",
        "poly(x, 2)",
    ],
)
def test_offset_that_is_not_one_numeric_column(cells, offset):
    with pytest.raises(ValueError, match=r"^offset=.*an offset is one numeric"):
        fit(cells, offset=offset)


def test_offset_log_of_zero(cells):
    cells.loc["cell7", "depth"] = 0
    with pytest.raises(ValueError, match=r"offset=.*np.log\(depth\)' is not finite.*-inf.*'cell7'"):
        fit(cells, offset="np.log(depth)")


def test_expressions_over_several_columns(cells):
    design = fit(cells, "~ 0 + {(x + depth) ** 2} + np.maximum(batch, 2)").transform(cells)
    assert_allclose(design.iloc[:, 0], (cells["x"] + cells["depth"]) ** 2)
    assert_array_equal(design.iloc[:, 1], cells["batch"].clip(lower=2))


def test_duplicated_index(cells):
    cells.index = ["same"] * len(cells)
    design = fit(cells, "~ C(kind) * x + bs(x, df=4)").transform(cells)
    assert design.index.equals(cells.index)
    assert_array_equal(design["mean__x"], cells["x"])


@pytest.mark.parametrize("categories", ["czab", "zcab", "cabz"])
@pytest.mark.parametrize("factor", ["kind", "C(kind)"])
def test_a_category_without_a_cell_is_not_a_level(cells, categories, factor):
    """As a reference level it would alias the coefficients of all others."""
    used = cells.assign(kind=pd.Categorical(cells["kind"], categories=list("cab"), ordered=True))
    cells["kind"] = pd.Categorical(cells["kind"], categories=list(categories), ordered=True)
    model = fit(cells, f"~ {factor}")
    assert list(model.transform(cells)) == [
        "mean__Intercept",
        f"mean__{factor}[T.a]",
        f"mean__{factor}[T.b]",
    ]
    assert_frame_equal(model.transform(cells), fit(used, f"~ {factor}").transform(used))
    assert list(cells["kind"].cat.categories) == list(categories)  # the caller's are left
    assert_array_equal(model.transform(cells[cells["kind"] == "c"].head(1)), [[1, 0, 0]])
    new = cells.head(1).assign(kind=pd.Categorical(["z"], categories=list(categories)))
    with pytest.raises(ValueError, match=r"unknown level 'z'.*cells of the fit: 'c', 'a', 'b'\.$"):
        model.transform(new)


def test_levels_in_a_formula_are_kept(cells):
    cells["kind"] = pd.Categorical(cells["kind"], categories=list("zcab"))
    model = fit(cells, "~ C(kind, levels=['c', 'a', 'b', 'z'])")
    assert model.transform(cells).shape[1] == 4


def test_comparisons_know_categories_without_a_cell(cells):
    cells["kind"] = pd.Categorical(cells["kind"], categories=list("azbc"), ordered=True)
    design = fit(cells, "~ np.where(kind < 'z', 1, 0)").transform(cells)
    assert_array_equal(design.iloc[:, 1], cells["kind"] == "a")


def test_categories_without_a_cell_do_not_count_as_columns(cells):
    few = cells["kind"].astype(pd.CategoricalDtype([*"abc", *range(MAX_COLUMNS)]))
    assert fit(cells.assign(kind=few), "~ kind").transform(cells).shape[1] == 3


def test_single_level():
    X = pd.DataFrame({"g": ["a", "a"]})
    assert list(fit(X, "~ g").transform(X)) == ["mean__Intercept"]
    assert list(fit(X, "~ 0 + g").transform(X)) == ["mean__g[a]"]


DTYPES = ["int8", "uint8", "int64", "float32", "float64", "Int64", "Float32", "boolean", "bool"]


@pytest.mark.parametrize("new", [*DTYPES, "object", "category", "Sparse[int64]"])
@pytest.mark.parametrize("old", [*DTYPES, "object", "Sparse[int64]"])
def test_numeric_dtypes_agree(old, new):
    X = pd.DataFrame({"x": [0, 1, 1, 0], "z": [1.0, 2, 3, 5]})
    model = fit(X.astype({"x": old}), "~ x + scale(x) + z + x:z")
    expected = fit(X, "~ x + scale(x) + z + x:z").transform(X)
    assert_frame_equal(model.transform(X.astype({"x": new})), expected)


@pytest.mark.parametrize("new", ["object", "string", "category"])
@pytest.mark.parametrize("old", ["object", "string", "category"])
def test_text_dtypes_agree(old, new):
    X = pd.DataFrame({"g": ["b", "a", "c", "b"]})
    model = fit(X.astype(old), "~ g")
    assert list(model.transform(X)) == ["mean__Intercept", "mean__g[T.b]", "mean__g[T.c]"]
    assert_frame_equal(model.transform(X.astype(new)), fit(X, "~ g").transform(X))


def test_small_integers_do_not_overflow():
    X = pd.DataFrame({"x": np.array([100, 7], dtype=np.int8)})
    assert_array_equal(fit(X, "~ 0 + {x**2} + {x * 100}").transform(X), [[1e4, 1e4], [49, 700]])


OTHER_WHOLE = ["int32", "uint32", "int64", "uint64", "Int64", "UInt32", "object", "Sparse[int64]"]


@pytest.mark.parametrize("dtype", OTHER_WHOLE)
def test_whole_numbers_do_not_overflow(dtype):
    """NumPy's would overflow silently."""
    reads, umis = np.array([3.1e6, 4e9, 2.0]), np.array([7.0, 4.2e9, 5])
    X = pd.DataFrame({"reads": reads, "umis": umis}).astype("int64").astype(dtype, errors="ignore")
    if dtype in ("int32", "uint32", "UInt32"):
        reads, umis = np.array([3.1e6, 2e9, 2.0]), np.array([7.0, 2e9, 5])
        X = pd.DataFrame({"reads": reads, "umis": umis}).astype(dtype)
    model = fit(
        X,
        "~ 0 + I(reads**3) + {reads * umis * 5} + reads:umis + {umis - reads} + np.square(reads)"
        " + {np.where(reads > 0, reads, umis)**3} + poly(reads, 2, raw=True) + {reads**-1}"
        " + scale(reads, center=False) + np.power(umis, 3) + np.add(reads, umis) + {-reads}",
    )
    expected = [
        reads**3,
        5 * reads * umis,
        umis - reads,
        reads**2,
        reads**3,
        reads,
        reads**2,
        1 / reads,
        reads / np.sqrt(np.sum(reads**2) / 2),
        umis**3,
        reads + umis,
        -reads,
        reads * umis,
    ]
    design = model.transform(X)
    assert list(design)[-1] == "mean__reads:umis"
    assert_allclose(design, np.column_stack(expected), rtol=1e-14)
    assert_allclose(model.transform(X.astype(float)), design, rtol=1e-14)


def test_whole_numbers_beyond_double_precision_are_refused():
    X = pd.DataFrame({"barcode": np.array([2**53 + 1, 2**53, 5]), "x": [1.0, 2, 3]})
    for formula in ("~ {barcode - 2}", "~ np.log(barcode)", "~ scale(barcode)"):
        with pytest.raises(ValueError, match=r"^mean=.*9007199254740993 is a whole number beyond"):
            fit(X, formula)
    assert fit(X, "~ C(barcode)").transform(X).shape == (3, 3)  # levels stay apart
    assert_array_equal(fit(X, "~ {barcode > 2**53}").transform(X).iloc[:, 1], [1, 0, 0])
    assert_array_equal(fit(X, "~ barcode").transform(X).iloc[:, 1], [2.0**53, 2.0**53, 5])


@pytest.mark.parametrize(
    ("factor", "names"),
    [
        ("C(batch)", ["[T.2]", "[T.3]"]),
        ("C(batch // 2)", ["[T.1]"]),
        ("C(batch % 2 + 1)", ["[T.2]"]),
        ("C(np.where(batch > 2, 0, batch))", ["[T.1]", "[T.2]"]),
        ("C(batch / 2)", ["[T.1.0]", "[T.1.5]"]),
        ("C(batch - 1.0)", ["[T.1.0]", "[T.2.0]"]),
        ("C(flag + flag)", ["[T.2.0]"]),
        ("C(flag)", ["[T.True]"]),
        ("C(batch > 1)", ["[T.True]"]),
        ("C(batch ** 40)", ["[T.1099511627776.0]", "[T.1.2157665459056929e+19]"]),
    ],
)
def test_names_of_levels_that_are_numbers(cells, factor, names):
    model = fit(cells, f"~ {factor}")
    assert list(model.transform(cells))[1:] == [f"mean__{factor}{name}" for name in names]
    assert_frame_equal(model.transform(cells.head(1)), model.transform(cells).head(1))


def test_numbers_in_categories_stay_levels():
    X = pd.DataFrame({"g": pd.Categorical([2, 1, 10, 1])})
    model = fit(X, "~ g")
    assert list(model.transform(X)) == ["mean__Intercept", "mean__g[T.2]", "mean__g[T.10]"]
    assert_array_equal(model.transform(pd.DataFrame({"g": [10, 1]})), [[1, 0, 1], [1, 0, 0]])


CONDITIONS = ["flag", "I(x > 0)", "x > 0", "~flag", "np.isin(kind, ['a'])", "flag & (x > 0)"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_a_condition_is_a_factor(cells, condition, dtype):
    """As in R and patsy. Next to an intercept it is one column of zeros and ones."""
    cells["flag"] = cells["flag"].astype(dtype)
    term = condition if condition[0] not in "~x" and "&" not in condition else f"{{{condition}}}"
    true = fit(cells, f"~ {term}").transform(cells).iloc[:, 1].to_numpy()
    assert set(true) == {0.0, 1.0}
    x, b = cells["x"].to_numpy(), (cells["kind"] == "b").to_numpy(float)
    both = {"[False]": 1 - true, "[True]": true}
    expected = {
        f"~ {term}": {"Intercept": 1.0, condition: true},
        f"~ 0 + {term}": {f"{condition}{level}": side for level, side in both.items()},
        f"~ x + {term}:x": {"Intercept": 1.0, "x": x, f"{condition}:x": x * true},
        f"~ 0 + {term}:x": {f"{condition}{level}:x": x * side for level, side in both.items()},
        f"~ {term} * level": {
            "Intercept": 1.0,
            condition: true,
            "level[T.hi]": cells["level"] == "hi",
            f"{condition}:level[T.hi]": true * (cells["level"] == "hi"),
        },
        f"~ 0 + {term} + {{kind == 'b'}}": {
            **{f"{condition}{level}": side for level, side in both.items()},
            "kind == 'b'": b,
        },
    }
    for formula, columns in expected.items():
        design = fit(cells, formula).transform(cells)
        wanted = pd.DataFrame(columns, index=cells.index).add_prefix("mean__").astype(float)
        assert_frame_equal(design[sorted(design)], wanted[sorted(wanted)], check_exact=True)
        assert np.linalg.matrix_rank(design) == design.shape[1]


@pytest.mark.parametrize("value", [True, False])
def test_a_condition_has_both_levels_even_if_one_does_not_occur(cells, value):
    model = fit(cells.assign(flag=value), "~ 0 + flag", dispersion="~ flag")
    names = ["mean__flag[False]", "mean__flag[True]", "dispersion__Intercept", "dispersion__flag"]
    design = model.transform(cells)
    assert list(design) == names
    flag = cells["flag"].to_numpy(float)
    assert_array_equal(design, np.column_stack([1 - flag, flag, np.ones(60), flag]))
    assert_frame_equal(pickle.loads(pickle.dumps(model)).transform(cells), design)  # noqa: S301


def test_conditions_in_arithmetic_are_numbers(cells):
    flag, positive = cells["flag"].to_numpy(float), (cells["x"] > 0).to_numpy(float)
    design = fit(
        cells,
        "~ 0 + {flag + (x > 0)} + {flag - (x > 0)} + {-flag} + {flag * x} + np.exp(flag)"
        " + np.add(flag, x > 0) + np.log1p(x > 0) + {(x > 0) * flag} + center(flag)"
        " + bs(flag, df=3)",
    ).transform(cells)
    expected = [
        flag + positive,
        flag - positive,
        -flag,
        flag * cells["x"],
        np.exp(flag),
        flag + positive,
        np.log1p(positive),
        flag * positive,
        flag - flag.mean(),
        0 * flag,
        0 * flag,
        flag,
    ]
    assert_allclose(design, np.column_stack(expected), rtol=1e-14, atol=1e-14)
    for offset in ("flag", "{x > 0}", "{flag + flag}"):
        assert fit(cells, offset=offset).transform(cells).shape[1] == 1


def test_a_column_that_was_boolean_at_fit_is_boolean_in_new_data(cells):
    model = fit(cells, "~ {~flag} + 0")
    assert_frame_equal(model.transform(cells.astype({"flag": int})), model.transform(cells))
    with pytest.raises(ValueError, match=r"column 'flag' was True and False at fit.*\(3\)"):
        model.transform(cells.assign(flag=3))
    number = fit(cells.astype({"flag": float}), "~ 0 + flag")
    assert_array_equal(number.transform(cells).iloc[:, 0], cells["flag"])


def test_level_outside_of_declared_levels(cells):
    with pytest.raises(ValueError, match="unknown level 'c'"):
        fit(cells, "~ C(kind, levels=['a', 'b'])")


@pytest.mark.parametrize(
    ("formula", "name"),
    [
        ("~ np.log(x)", r"np.log\(x\)"),
        ("~ np.sqrt(x):kind", "np.sqrt"),
        ("~ I(1 / (batch - 1))", "I"),
        ("~ bs(x, df=4, lower_bound=-9, upper_bound=0, extrapolation='na')", "bs"),
    ],
)
def test_results_that_are_not_finite(cells, formula, name):
    with pytest.raises(ValueError, match=rf"^mean=.*['\"]{name}.*is not finite \(.*in row 'cell"):
        fit(cells, formula)


def test_computed_unknown_level(cells):
    model = fit(cells, "~ C(np.where(x > -9, kind, 'low'))")
    with pytest.raises(ValueError, match=r"^mean=.*unknown level 'low'"):
        model.transform(cells.assign(x=-10))


@pytest.mark.parametrize(
    ("dates", "named"),
    [
        (pd.to_datetime(["2020-01-02", "2020-01-01"]), "2020-01-02 00:00:00"),
        (pd.to_datetime(["2020-01-02", "2020-01-01"]).tz_localize("UTC"), "2020-01-02 00:00:00+00"),
        (pd.to_timedelta([2, 1], unit="D"), "2 days"),
        (pd.PeriodIndex(["2020-02", "2020-01"], freq="M"), "2020-02"),
        (pd.IntervalIndex.from_tuples([(1, 2), (0, 1)]), "(1, 2]"),
    ],
)
def test_dates_are_levels_if_in_c(dates, named):
    X = pd.DataFrame({"day": dates.repeat(2)})
    model = fit(X, "~ C(day)")
    assert list(model.transform(X))[1].startswith(f"mean__C(day)[T.{named}")
    assert_array_equal(model.transform(X.tail(3)), [[1, 1], [1, 0], [1, 0]])
    with pytest.raises(ValueError, match="unknown level"):
        fit(X.tail(2), "~ C(day)").transform(X)
    for formula in ("~ day", "~ 0 + day"):
        with pytest.raises(ValueError, match=r"^mean=.*'day' holds .*, not numbers\. C\(\) makes"):
            fit(X, formula)
    with pytest.raises(ValueError, match=r"^mean='~ day': column 'day' is read as numbers, but"):
        fit(X.assign(day=[1.0, 2, 4, 8]), "~ day").transform(X)


def test_levels_of_the_same_name():
    X = pd.DataFrame({"g": [1, "1", 2, "a"]})
    with pytest.raises(ValueError, match="several levels of the same name"):
        fit(X, "~ g")


def test_columns_that_share_a_name():
    X = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 5, 4], "a:b": [0.0, 1, 1]})
    with pytest.raises(ValueError, match="two columns share a name"):
        fit(X, "~ a:b + `a:b`")
