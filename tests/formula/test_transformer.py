import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sc_glm.formula.transformer import MAX_COLUMNS, FormulaTransformer, linear_constraints

# Of the cells' batches, which are numbers here. The warning has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")

STATEFUL = [
    "~ bs(x, df=5)",
    "~ cs(x, df=4) + cc(depth, df=3, lower_bound=0, upper_bound=6000)",
    "~ scale(x) + center(depth)",
    "~ standardize(np.log(depth))",
    "~ poly(x, 3)",
    "~ C(kind)",
    "~ C(kind, contr.sum) * x",
    "~ C(kind, Treatment('b')) + C(batch, contr.helmert):x",
    "~ kind + level:x + flag",
    "~ 0 + level",
    "~ bs(scale(x), df=4) + scale(center(depth))",
    "~ hashed(kind, levels=3)",
    "~ np.log(depth) + {x**2 / depth} + I(x > 0)",
    "~ .",
]


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    n = 60
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "depth": rng.integers(500, 5000, size=n),
            "kind": rng.choice(["a", "b", "c"], size=n),
            "level": pd.Categorical(rng.choice(["hi", "lo"], size=n), categories=["lo", "hi"]),
            "batch": rng.integers(1, 4, size=n),
            "flag": rng.random(n) < 0.5,
        },
        index=[f"cell{i}" for i in range(n)],
    )


def fit(X, mean=None, **parts):
    return FormulaTransformer(mean=mean, **parts).fit(X)


@parametrize_with_checks([FormulaTransformer()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


# Columns and containers


def test_columns_of_every_part(cells):
    model = FormulaTransformer(
        mean="~ x + kind",
        dispersion="level",
        zero_inflation="~ 0 + x",
        offset="np.log(depth)",
    ).fit(cells)
    design = model.transform(cells)
    names = [
        "mean__Intercept",
        "mean__x",
        "mean__kind[T.b]",
        "mean__kind[T.c]",
        "dispersion__Intercept",
        "dispersion__level[T.hi]",
        "zero_inflation__x",
        "offset__np.log(depth)",
    ]
    assert list(design.columns) == names
    assert_array_equal(model.get_feature_names_out(), names)
    assert list(model.model_specs_) == ["mean", "dispersion", "zero_inflation", "offset"]
    assert model.n_features_in_ == 6
    assert_array_equal(model.feature_names_in_, cells.columns)
    assert (design.dtypes == np.float64).all()
    assert design.index.equals(cells.index)
    assert_array_equal(design["offset__np.log(depth)"], np.log(cells["depth"]))
    assert_array_equal(design["dispersion__level[T.hi]"], cells["level"] == "hi")


def test_offset_alone_and_y_ignored(cells):
    model = FormulaTransformer(mean=None, offset="x").fit(cells, y="anything")
    assert list(model.transform(cells)) == ["offset__x"]


@pytest.mark.parametrize(
    ("offset", "name"),
    [
        ("~ 0 + np.log(depth)", "np.log(depth)"),
        ("0 + np.log(depth)", "np.log(depth)"),
        ("~ x", "x"),
        ("{np.log(depth) - x}", "np.log(depth) - x"),
        ("I(np.log(depth) + x)", "I(np.log(depth) + x)"),
        ("flag", "flag"),
    ],
)
def test_offset_spellings(cells, offset, name):
    assert list(fit(cells, offset=offset).transform(cells)) == [f"offset__{name}"]


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


def test_dot_is_frozen(cells):
    model = fit(cells, "~ .")
    extra = cells.assign(new="z", scale=1.0, np=2.0)[["new", "np", "scale", *cells.columns[::-1]]]
    assert_frame_equal(model.transform(extra), model.transform(cells))


def test_dot_less_a_column(cells):
    assert list(fit(cells, ". - kind - level - batch - flag").transform(cells)) == [
        "mean__Intercept",
        "mean__x",
        "mean__depth",
    ]
    assert "mean__Intercept" not in fit(cells, "0 + .").transform(cells)


def test_odd_names():
    names = ["a b", "c.d", "e[f]", "100%", "it's", "scale", "np", "class", "x:y", "ü"]
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(9, len(names))), columns=names)
    design = fit(X, "~ .").transform(X)
    assert list(design) == ["mean__Intercept", *(f"mean__{name}" for name in names)]
    assert_array_equal(design.iloc[:, 1:], X)


@pytest.mark.parametrize("name", ["a b", "c.d", "e[f]", "100%", "1a", "scale", "C", "log", "a"])
def test_odd_names_in_expressions(name):
    X = pd.DataFrame({name: [1.0, 2, 4], "np": 0.0, "center": 1.0, "c": 2.0})
    model = fit(X, f"0 + `{name}` + center(`{name}`) + np.log(`{name}`)")
    assert list(model.covariates_["mean"]) == [name]
    design = model.transform(X[[name]].iloc[[2]])
    assert_allclose(design, [[4, 4 - 7 / 3, np.log(4)]])


def test_columns_whose_names_are_alike_are_told_apart():
    X = pd.DataFrame({"a b": [1.0, 2, 6], "a_b": [1.0, 0, 5], "a-b": [7.0, 8, 9]})
    design = fit(X, "~ center(`a b`) + a_b + center(`a-b`) + {`a b` - a_b} + Q('a b')").transform(X)
    assert_array_equal(design, [[1, -2, 1, -1, 0, 1], [1, -1, 0, 0, 2, 2], [1, 3, 5, 1, 1, 6]])


def test_expressions_over_several_columns(cells):
    design = fit(cells, "~ 0 + {(x + depth) ** 2} + np.maximum(batch, 2)").transform(cells)
    assert_allclose(design.iloc[:, 0], (cells["x"] + cells["depth"]) ** 2)
    assert_array_equal(design.iloc[:, 1], cells["batch"].clip(lower=2))


def test_duplicated_index(cells):
    cells.index = ["same"] * len(cells)
    design = fit(cells, "~ C(kind) * x + bs(x, df=4)").transform(cells)
    assert design.index.equals(cells.index)
    assert_array_equal(design["mean__x"], cells["x"])


def test_arrays_are_named_by_position():
    X = np.arange(12.0).reshape(4, 3)
    model = FormulaTransformer("~ x0 + center(x2)").fit(X)
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 3
    design = model.transform(X)
    assert isinstance(design, pd.DataFrame)
    assert list(design) == ["mean__Intercept", "mean__x0", "mean__center(x2)"]
    with pytest.raises(ValueError, match=r"expecting 3 features"):
        model.transform(X[:, :2])
    with pytest.warns(UserWarning, match=r"fitted without feature names"):
        assert_array_equal(model.transform(pd.DataFrame(X, columns=list("abc"))), design)


def test_array_after_frame():
    X = pd.DataFrame({"a": [1.0, 2, 3], "b": [3.0, 4, 4]})
    model = fit(X, "~ b")
    with pytest.warns(UserWarning, match="valid feature names"):
        assert_array_equal(model.transform(X.to_numpy()), model.transform(X))


def test_frame_without_columns():
    X = pd.DataFrame(index=["a", "b"])
    assert_array_equal(fit(X, "~ 1").transform(X), [[1.0], [1.0]])


def test_sparse_is_refused():
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        FormulaTransformer().fit(sparse.eye(3, format="csr"))


# scikit-learn's ways


def test_set_output_clone_and_parameters(cells):
    model = FormulaTransformer("~ x", offset="depth")
    assert clone(model).get_params() == model.get_params()
    design = model.fit(cells).transform(cells)
    assert_frame_equal(model.set_output(transform="pandas").transform(cells), design)
    assert_frame_equal(model.set_output(transform="default").fit_transform(cells), design)


def test_grid_search_crosses_parts(cells):
    model = make_pipeline(FormulaTransformer(), LinearRegression())
    grid = {
        "formulatransformer__mean": ["~ 1", "~ x", "~ kind"],
        "formulatransformer__dispersion": [None, "~ level"],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(cells, cells["x"])
    assert search.best_params_["formulatransformer__mean"] == "~ x"


@pytest.mark.parametrize("formula", STATEFUL)
def test_pickles_are_small_and_whole(cells, formula):
    big = pd.concat([cells] * 500, ignore_index=True)
    model = fit(big, formula)
    stored = pickle.dumps(model)
    assert len(stored) < 20_000
    assert_frame_equal(pickle.loads(stored).transform(cells), model.transform(cells))  # noqa: S301


def test_pickle_opens_in_another_process(cells, tmp_path):
    model = fit(cells, "~ bs(x, df=5) + C(kind, contr.sum)")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    cells.to_pickle(tmp_path / "cells.pkl")
    code = (
        "import pickle, sys, pandas as pd; p = sys.argv[1];"
        "m = pickle.load(open(p + '/model.pkl', 'rb'));"
        "m.transform(pd.read_pickle(p + '/cells.pkl').head(2)).to_pickle(p + '/out.pkl')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)  # noqa: S603
    assert_frame_equal(pd.read_pickle(tmp_path / "out.pkl"), model.transform(cells.head(2)))  # noqa: S301


@pytest.mark.parametrize("formula", STATEFUL)
def test_nothing_of_the_callers_or_the_fitted_state_changes(cells, formula):
    before = cells.copy(deep=True)
    model = fit(cells, formula)
    state = pickle.dumps(model)
    seeded = np.random.get_state()[1].copy()  # noqa: NPY002
    design = model.transform(cells.head(1))
    design.iloc[:] = -1.0
    model.transform(cells)
    assert_frame_equal(cells, before)
    assert pickle.dumps(model) == state
    assert_array_equal(np.random.get_state()[1], seeded)  # noqa: NPY002


def test_names_of_the_caller_are_out_of_reach(cells):
    secret = np.ones(len(cells))
    assert secret.any()
    with pytest.raises(ValueError, match=r"mean=.*'?secret'?"):
        fit(cells, "~ secret")
    with pytest.raises(ValueError, match="secret"):
        fit(cells, "~ np.log(secret)")
    with pytest.raises(ValueError, match="sparse"):
        fit(cells, "~ I(sparse.eye(60))")


# State


@pytest.mark.parametrize("formula", STATEFUL)
def test_state_comes_from_fit(cells, formula):
    model = fit(cells, formula)
    whole = model.transform(cells)
    order = np.random.default_rng(1).permutation(len(cells))
    assert_frame_equal(model.transform(cells.iloc[order]), whole.iloc[order], rtol=1e-12)
    for row in range(5):
        assert_frame_equal(model.transform(cells.iloc[[row]]), whole.iloc[[row]], rtol=1e-12)
    one_level = (cells["kind"] == "b").to_numpy()
    assert_frame_equal(model.transform(cells[one_level]), whole[one_level], rtol=1e-12)
    recoded = cells.assign(
        kind=pd.Categorical(cells["kind"], categories=list("cdab")),
        level=cells["level"].astype(str),
        batch=cells["batch"].astype(float),
        flag=cells["flag"].astype(object),
    )
    assert_frame_equal(model.transform(recoded), whole, rtol=1e-12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_row_is_transformed_alone(data):
    n = data.draw(st.integers(6, 14))
    number = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
    X = pd.DataFrame(
        {
            "x": data.draw(st.lists(number, min_size=n, max_size=n, unique=True)),
            "i": data.draw(st.lists(st.integers(-5, 5), min_size=n, max_size=n)),
            "b": data.draw(st.lists(st.booleans(), min_size=n, max_size=n)),
            "g": data.draw(st.lists(st.sampled_from("pqrs"), min_size=n, max_size=n)),
        },
        index=data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)),
    )
    if data.draw(st.booleans()):
        X["g"] = pd.Categorical(X["g"], categories=data.draw(st.permutations("pqrst")))
    formula = data.draw(
        st.sampled_from(
            [
                "~ .",
                "0 + g:x + b",
                "bs(x, df=4) + C(i)",
                "scale(x) * g",
                "poly(x, 2) + np.exp(-x**2)",
                "C(g, contr.sum) + cs(x, df=3)",
            ]
        )
    )
    order = data.draw(st.permutations(range(n)))

    model = fit(X, formula)
    whole = model.transform(X)
    options = {"rtol": 1e-12, "atol": 1e-12}
    assert_frame_equal(model.transform(X.iloc[order]), whole.iloc[order], **options)
    stacked = pd.concat([model.transform(X.iloc[[row]]) for row in range(n)])
    assert_frame_equal(stacked, whole, **options)


@pytest.mark.parametrize(
    "formula",
    [
        "~ I(x - x.mean())",
        "~ I(x - np.min(x))",
        "~ x.rank()",
        "~ I(np.arange(len(x)))",
        "~ {np.mean(x)}",
        "~ lag(x)",
        "~ {center(x) + center(x)}",  # formulaic keeps no state for the first of two equal calls
    ],
)
def test_expressions_that_mix_rows_are_refused(cells, formula):
    with pytest.raises(ValueError, match=r"^mean=.*(depends on the other rows|not finite)"):
        fit(cells, formula)


@pytest.mark.parametrize("categories", ["czab", "zcab", "cabz"])
@pytest.mark.parametrize("factor", ["kind", "C(kind)"])
def test_a_category_that_no_cell_has_is_no_level(cells, categories, factor):
    """It would leave the coefficients of all others open where it is the reference."""
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


def test_levels_that_a_formula_names_stay(cells):
    cells["kind"] = pd.Categorical(cells["kind"], categories=list("zcab"))
    model = fit(cells, "~ C(kind, levels=['c', 'a', 'b', 'z'])")
    assert model.transform(cells).shape[1] == 4


def test_comparisons_know_the_categories_that_no_cell_has(cells):
    cells["kind"] = pd.Categorical(cells["kind"], categories=list("azbc"), ordered=True)
    design = fit(cells, "~ np.where(kind < 'z', 1, 0)").transform(cells)
    assert_array_equal(design.iloc[:, 1], cells["kind"] == "a")


def test_categories_that_no_cell_has_do_not_count_towards_a_design_s_size(cells):
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
    """Also where NumPy's would turn around without a word."""
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


def test_whole_numbers_beyond_double_precision_are_not_computed_with():
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
def test_levels_are_called_as_the_numbers_that_they_are(cells, factor, names):
    model = fit(cells, f"~ {factor}")
    assert list(model.transform(cells))[1:] == [f"mean__{factor}{name}" for name in names]
    assert_frame_equal(model.transform(cells.head(1)), model.transform(cells).head(1))


def test_numbers_in_categories_stay_levels():
    X = pd.DataFrame({"g": pd.Categorical([2, 1, 10, 1])})
    model = fit(X, "~ g")
    assert list(model.transform(X)) == ["mean__Intercept", "mean__g[T.2]", "mean__g[T.10]"]
    assert_array_equal(model.transform(pd.DataFrame({"g": [10, 1]})), [[1, 0, 1], [1, 0, 0]])


# Conditions


CONDITIONS = ["flag", "I(x > 0)", "x > 0", "~flag", "np.isin(kind, ['a'])", "flag & (x > 0)"]


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_a_condition_is_a_factor(cells, condition, dtype):
    """As in R and patsy. Beside an intercept it looks like the number that it is."""
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
def test_a_condition_has_both_levels_whichever_occur(cells, value):
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


def test_a_boolean_of_the_fit_is_one_in_later_data(cells):
    model = fit(cells, "~ {~flag} + 0")
    assert_frame_equal(model.transform(cells.astype({"flag": int})), model.transform(cells))
    with pytest.raises(ValueError, match=r"column 'flag' was True and False at fit.*\(3\)"):
        model.transform(cells.assign(flag=3))
    number = fit(cells.astype({"flag": float}), "~ 0 + flag")
    assert_array_equal(number.transform(cells).iloc[:, 0], cells["flag"])


# Names


@pytest.mark.parametrize(
    ("name", "formula", "what"),
    [
        ("1", "~ .", "the intercept"),
        ("1", "~ `1`", "the intercept"),
        ("1", "~ 0 + x + `1`", "the intercept"),
        ("1", "~ x - `1`", "the intercept"),
        ("1", "~ `1`:x", "the intercept"),
        ("2", "~ `2` + 2:x", "a number"),
        ("np.log(y)", "~ `np.log(y)` + np.log( y )", "an expression"),
        ("x + y", "~ . + {x+y}", "an expression"),
    ],
)
def test_columns_that_a_formula_cannot_tell_from_something_else(name, formula, what):
    X = pd.DataFrame({name: [1.0, 2, 5], "x": [2.0, 1, 1], "y": [1.0, 3, 4]})
    with pytest.raises(ValueError, match=r"^mean=.*cannot tell the column") as caught:
        fit(X, formula)
    assert f"{name!r} from {what}." in str(caught.value)


def test_columns_named_by_numbers():
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(5, 4)), columns=[*"012x"])
    design = fit(X, "~ 0 + `0` + `2` + I(`1`) + Q('1') + 3:x").transform(X[[*"x210"]])
    expected = [X["0"], X["2"], X["1"], X["1"], 3 * X["x"]]
    assert_array_equal(design, np.column_stack(expected))
    assert fit(X, "~ 1 + `0`").transform(X).shape == (5, 2)  # one that is not read is no trouble


# Whole numbers that may be labels


def slopes(X, *formulas, **parts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(X, *formulas, **parts)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ([1, 2, 3, 4, 5, 6], True),
        ([0, 1, 2], True),
        ([1, 2, 4, 5, 6], True),
        (list(range(101, 116)), True),
        ([0, 1], False),
        ([1, 2], False),
        ([0, 6, 12, 24], False),
        ([0, 3, 7], False),
        (list(range(16)), False),
        ([1.0, 2.0, 3.0], False),
    ],
)
@pytest.mark.parametrize("dtype", [None, "Int32", "object"])
def test_whole_numbers_like_labels_are_warned_of(values, warns, dtype):
    series = pd.Series(values * 3)
    X = pd.DataFrame({"donor": series if dtype is None or not warns else series.astype(dtype)})
    for formula in ("~ donor", "~ .", "~ 0 + donor:I(donor > 2)"):
        messages = slopes(X, formula)
        assert len(messages) == warns
        for message in messages:
            assert f"'donor' ({len(values)} values)" in message
            assert "C(donor)" in message
            assert "I(donor)" in message


def test_which_uses_of_whole_numbers_are_not_warned_of():
    X = pd.DataFrame({"my donor": [1, 2, 3, 4] * 3, "x": np.arange(12.0)})
    for formula in (
        "~ C(`my donor`)",
        "~ I(`my donor`)",
        "~ . - `my donor`",
        "~ bs(`my donor`, df=3)",
        "~ {`my donor` / 2}",
        "~ Q('my donor')",
    ):
        assert not slopes(X, formula)
    assert not slopes(X, offset="my donor".join("``"))
    assert not slopes(X.astype(float), "~ .")
    (message,) = slopes(X, "~ .", dispersion="~ `my donor`")
    assert "C(`my donor`)" in message


# Errors


@pytest.mark.parametrize("formula", ["~ kind", "~ C(kind)", "~ 0 + kind:x"])
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_unseen_level(cells, formula, dtype):
    model = fit(cells, "~ 1", dispersion=formula)
    cells.loc["cell9", "kind"] = "zz"
    message = r"(?i)^dispersion=.*kind.*unknown level 'zz' in row 'cell9' \(1 of 60"
    with pytest.raises(ValueError, match=message):
        model.transform(cells.astype({"kind": dtype}))


def test_level_outside_of_declared_levels(cells):
    with pytest.raises(ValueError, match="unknown level 'c'"):
        fit(cells, "~ C(kind, levels=['a', 'b'])")


@pytest.mark.parametrize("stage", ["fit", "transform"])
@pytest.mark.parametrize(
    ("column", "dtype", "value"),
    [
        ("x", "float64", np.nan),
        ("x", "float64", np.inf),
        ("x", "float64", -np.inf),
        ("depth", "Int64", pd.NA),
        ("depth", "object", None),
        ("flag", "boolean", pd.NA),
        ("kind", "object", None),
        ("kind", "object", np.nan),
        ("kind", "string", pd.NA),
        ("level", "category", np.nan),
    ],
)
def test_missing_values(cells, stage, column, dtype, value):
    formula = "~ x + depth + kind + level + flag"
    model = fit(cells, formula)
    bad = cells.astype({column: dtype})
    bad.loc[["cell3", "cell5"], column] = value
    message = rf"^mean=.*column '{column}' is (missing|not finite) \(.*row 'cell3'; 2 of 60"
    with pytest.raises(ValueError, match=message):
        getattr(model, stage)(bad)
    fit(bad, f"~ . - {column}")


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


@pytest.mark.parametrize("spline", ["bs(x, df=5)", "bs(scale(x), df=4, degree=2)"])
def test_just_outside_of_the_splines_range_its_end_holds(cells, spline):
    model = fit(cells, f"~ {spline}")
    low, high = cells["x"].min(), cells["x"].max()
    ends = cells.iloc[:2].assign(x=[low, high])
    beyond = cells.iloc[:2].assign(x=[low - 0.04 * (high - low), high + 0.04 * (high - low)])
    pd.testing.assert_frame_equal(model.transform(beyond), model.transform(ends))
    with pytest.raises(ValueError, match="spline's range"):
        model.transform(cells.assign(x=high + 0.06 * (high - low)))


@pytest.mark.parametrize("spline", ["bs(x, df=5)", "cs(x, df=4, extrapolation='raise')"])
def test_outside_of_the_splines_range(cells, spline):
    model = fit(cells, f"~ {spline}")
    low, high = cells["x"].min(), cells["x"].max()
    assert model.transform(cells.assign(x=low)).notna().all(axis=None)
    new = cells.assign(x=np.where(np.arange(60) == 4, 99.5, cells["x"]))
    with pytest.raises(ValueError, match=r"^mean=") as caught:
        model.transform(new)
    for word in [spline.split(",")[0], "99.5", str(low), str(high), "1 of 60"]:
        assert word in str(caught.value)


def test_splines_that_extrapolate_are_let(cells):
    for how in ["clip", "extend", "zero"]:
        model = fit(cells, f"~ bs(x, df=5, extrapolation='{how}')")
        assert np.isfinite(model.transform(cells.assign(x=99.5))).all(axis=None)


def test_other_errors_of_splines(cells):
    with pytest.raises(ValueError, match=r"mean=.*bs\(x, df=1\).*df"):
        fit(cells, "~ bs(x, df=1)")
    with pytest.raises(ValueError, match=r"mean=.*bs"):
        fit(cells, "~ bs()")


def test_missing_column(cells):
    model = fit(cells, "~ x", dispersion="~ np.log(depth) + kind")
    with pytest.raises(ValueError, match=r"^dispersion=.*no column 'depth'"):
        model.transform(cells.drop(columns="depth"))
    model.transform(cells[["kind", "depth", "x"]])


@pytest.mark.parametrize("formula", ["~ zz", "~ . - zz", "~ np.log(zz)", "~ x:zz", "~ `z z`"])
def test_unknown_column_at_fit(cells, formula):
    with pytest.raises(ValueError, match=r"^mean=.*z ?z"):
        fit(cells, formula)


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ x",
        "x ~ kind",
        "~ x | kind",
        "x | kind",
        "x ~ kind ~ x",
        "[x ~ kind]",
        "~ x +",
        "~ bs(x",
        "~ x)",
        "~ np.log(x y)",
        "~ x + 'a'",
        "~ 2",
        "~ x kind",
        "~ x $ kind",
        "import os",
        "",
        "  ",
        "~",
        "~ 0",
        "~ np",
        "~ bs",
        "~ x[:3]",
        "~ np.unique(batch)",
        "~ I(kind + 1)",
        "~ np.where(x > 0, 'a', 'b')",
        "~ I(1j * x)",
        "~ 1/0",
        "~ {1/0}",
    ],
)
@pytest.mark.parametrize("part", ["mean", "zero_inflation"])
def test_formulas_that_cannot_be_used(cells, formula, part):
    with pytest.raises(ValueError, match=rf"^{part}=") as caught:
        FormulaTransformer(**{"mean": "~ 1", part: formula}).fit(cells)
    assert repr(formula) in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("value", [1, 1.0, True, ["x"], b"~ x", {"mean": "~ x"}])
@pytest.mark.parametrize("part", ["mean", "dispersion", "zero_inflation", "offset"])
def test_formula_of_another_type(cells, part, value):
    with pytest.raises(TypeError, match=f"^{part}="):
        FormulaTransformer(**{part: value}).fit(cells)


def test_no_part(cells):
    with pytest.raises(ValueError, match="all None"):
        FormulaTransformer(mean=None).fit(cells)


def test_names_of_columns_that_cannot_be_used(cells):
    with pytest.raises(ValueError, match="more than one column named 'x'"):
        fit(pd.concat([cells, cells[["x"]]], axis=1), "~ kind")
    with pytest.raises(ValueError, match="more than one column named 'x'"):
        fit(cells, "~ x").transform(pd.concat([cells, cells[["x"]]], axis=1))
    with pytest.raises(ValueError, match="MultiIndex"):
        fit(pd.concat({"a": cells}, axis=1), "~ 1")
    for columns in ([0, 1], ["a", 1]):
        with pytest.raises(ValueError, match="must be strings"):
            fit(pd.DataFrame([[1.0, 2.0]], columns=columns), "~ 1")


def test_no_rows(cells):
    with pytest.raises(ValueError, match="no rows"):
        fit(cells.head(0), "~ x")
    with pytest.raises(ValueError, match="no rows"):
        fit(cells, "~ x").transform(cells.head(0))


def test_kind_of_a_column_changes(cells):
    with pytest.raises(ValueError, match=r"^mean=.*column 'x' is read as numbers, but holds 'a'"):
        fit(cells, "~ x").transform(cells.assign(x="a"))
    with pytest.raises(ValueError, match=r"^mean=.*unknown level 3"):
        fit(cells, "~ kind").transform(cells.assign(kind=3))


def test_columns_that_are_not_numbers(cells):
    with pytest.raises(ValueError, match=r"^mean=.*column 'x' is read as numbers"):
        fit(cells.assign(x=1j), "~ x")


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
def test_dates_are_levels_if_the_formula_says_so(dates, named):
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


def test_levels_that_are_spelled_alike():
    X = pd.DataFrame({"g": [1, "1", 2, "a"]})
    with pytest.raises(ValueError, match="spelled alike"):
        fit(X, "~ g")


def test_columns_that_share_a_name():
    X = pd.DataFrame({"a": [1.0, 2, 3], "b": [2.0, 5, 4], "a:b": [0.0, 1, 1]})
    with pytest.raises(ValueError, match="two columns share a name"):
        fit(X, "~ a:b + `a:b`")


# ---------------------------------------------------------------------------- constraints

NAMES = ["Intercept", "a[T.x y]", "a[T.z]", "a[T.z]:b", "bs(t, df=5)[1]", "Pre-b[T.1]"]


@pytest.mark.parametrize(
    ("text", "row", "value"),
    [
        ("a[T.x y] - a[T.z] = 0", [0, 1, -1, 0, 0, 0], 0),
        ("a[T.z]", [0, 0, 1, 0, 0, 0], 0),
        ("a[T.z]:b", [0, 0, 0, 1, 0, 0], 0),
        ("`a[T.z]:b` / 2 = a[T.z]", [0, 0, -1, 0.5, 0, 0], 0),
        ("bs(t, df=5)[1] = -0.25", [0, 0, 0, 0, 1, 0], -0.25),
        ("Pre-b[T.1]", [0, 0, 0, 0, 0, 1], 0),
        ("`Pre-b[T.1]` + 1 = 3", [0, 0, 0, 0, 0, 1], 2),
        ("a[T.z] = 1e-05", [0, 0, 1, 0, 0, 0], 1e-5),
        ("a[T.z] = -2.5E3", [0, 0, 1, 0, 0, 0], -2500),
    ],
)
def test_constraints_in_formulaics_language(text, row, value):
    matrix, values = linear_constraints(text, NAMES)
    assert_array_equal(matrix, [row])
    assert_array_equal(values, [value])


@pytest.mark.parametrize(
    "name", ["bs(t, lower_bound=-1, df=4)[1]", "np.log(np.exp(t) + 1e-3)", "g[T.k=-1]", "g[1e-05]"]
)
def test_names_with_numbers_and_signs_stay(name):
    for text in (f"`{name}` = 2", f"{name} = 2"):
        matrix, values = linear_constraints(text, ["t", name])
        assert_array_equal(matrix, [[0, 1]])
        assert_array_equal(values, [2])


SIGNS = st.text(alphabet="abT1é_ .,:;=-+*/'\"`[](){}", max_size=8)


@given(names=st.lists(SIGNS, min_size=2, max_size=5, unique=True))
def test_any_name_is_all_of_a_text_or_stands_in_backquotes(names):
    for number, name in enumerate(names):
        assert_array_equal(linear_constraints(name, names)[0], np.eye(len(names))[[number]])
    assume(not any("` " in name or " `" in name for name in names))
    matrix, values = linear_constraints(f"2 * `{names[0]}` - `{names[-1]}` = -1e-3", names)
    assert_array_equal(matrix, [2.0 * np.eye(len(names))[0] - np.eye(len(names))[-1]])
    assert_array_equal(values, [-1e-3])


def test_names_that_formulas_make_need_no_backquotes():
    rng = np.random.default_rng(0)
    cells = pd.DataFrame(
        {
            "cell type": rng.choice(["T, helper's = 1", 'the "B" cells', "a-b/c:d", "CD4+"], 60),
            "my x": rng.uniform(1, 2, 60),
            "größe": rng.normal(size=60),
            "HLA-A": rng.normal(size=60),
        }
    )
    odd = """~ C(`cell type`, contr.treatment("CD4+")) * `my x` + bs(`my x`, df=4, degree=2)
        + np.log(`my x` + 1e-3) + I((`my x` - 1) * (größe + 2)) + größe + `HLA-A`"""
    names = list(fit(cells, odd.replace("\n", " ")).transform(cells).columns.str.slice(6))
    assert sum("`" in name for name in names) >= 8
    for number, name in enumerate(names):
        unit = np.eye(len(names))[number]
        for text in (name, f"{name} = 0", f"`{name}` = 0"):
            assert_array_equal(linear_constraints(text, names)[0], [unit])
        if number:
            matrix, values = linear_constraints(
                f"Intercept + 3 = 2 * {name}, {name} / 4 = 1", names
            )
            assert_array_equal(matrix, [np.eye(len(names))[0] - 2 * unit, unit / 4])
            assert_array_equal(values, [-3, 1])


def test_what_also_reads_as_a_sum_or_a_number_is_one_without_backquotes():
    names = ["a", "b", "a-b", "1", "c-d", "(a)"]
    for text, row, value in (
        ("a-b + b", [1, 0, 0, 0, 0, 0], 0),
        ("`a-b` + b", [0, 1, 1, 0, 0, 0], 0),
        ("a-b", [0, 0, 1, 0, 0, 0], 0),
        ("2 * c-d", [0, 0, 0, 0, 2, 0], 0),
        ("b = 1", [0, 1, 0, 0, 0, 0], 1),
        ("b = `1`", [0, 1, 0, -1, 0, 0], 0),
        ("2 * (a) - (b + -1) / 2 = -+.5", [2, -0.5, 0, 0, 0, 0], -1),
    ):
        matrix, values = linear_constraints(text, names)
        assert_array_equal(matrix, [row])
        assert_array_equal(values, [value])


@pytest.mark.parametrize(
    "text",
    ["a * b", "a / b", "a / 0", "1e999 * a", "2 a", "a +", "(a", "a = b = 0", "a, , b", "a // b"],
)
def test_what_is_no_linear_equation(text):
    with pytest.raises(ValueError, match=r"does not parse\. A constraint is an equation"):
        linear_constraints(text, ["a", "b"])


def test_a_constraint_has_one_equals_sign():
    with pytest.raises(ValueError, match="one equals sign"):
        linear_constraints("a[T.z] = 1 = Intercept", NAMES)


def test_several_constraints():
    expected = linear_constraints("a[T.z] = 1, Intercept = -2", NAMES)
    assert_array_equal(expected[0], np.eye(6)[[2, 0]])
    assert_array_equal(expected[1], [1, -2])
    for found, one in zip(
        linear_constraints(["a[T.z] = 1", "Intercept = -2"], NAMES), expected, strict=True
    ):
        assert_array_equal(found, one)


@pytest.mark.parametrize("text", ["__import__('os')", "open('x')", "a[T.z] ** 2", "[1, 2]", "'b'"])
def test_a_constraint_is_not_evaluated(text):
    with pytest.raises(ValueError, match="constraint"):
        linear_constraints(text, NAMES)


def test_the_reference_level_has_no_coefficient():
    with pytest.raises(ValueError, match=r"'a\[T.w\]'.*If 'w' is the reference level"):
        linear_constraints("a[T.z] - a[T.w] = 0", NAMES)
    with pytest.raises(ValueError, match=r"If 'w' is the reference level of a, its .* zero\.$"):
        linear_constraints("`a[T.w]:b` = 0", NAMES)
    with pytest.raises(ValueError, match=r"no coefficient 'c'\. There are 6, such as") as raised:
        linear_constraints("c = 0", NAMES)
    assert "reference" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("kind[T.T]:cond[T.stim]", ["'T' is the reference level of kind,"]),
        ("kind[T.b]:cond[T.ctrl]", ["'ctrl' is the reference level of cond,"]),
        ("kind[T.T]:cond[T.ctrl]", ["'T' is the reference", "'ctrl' is the reference"]),
        ("kind[T.a:b]:cond[T.stim]", ["'a:b' is the reference level of kind,"]),
        ("C(d, contr.treatment('x:[y'))[T.z]", ["'z' is the reference level of C(d, contr.trea"]),
        ("cond[T.stim]:kind[T.b]", []),
        ("other[T.a]", []),
        ("kind", []),
    ],
)
def test_the_reference_level_of_an_interaction_is_named_with_its_factor(name, levels):
    names = ["kind[T.b]:cond[T.stim]", "C(d, contr.treatment('x:[y'))[T.w]"]
    with pytest.raises(ValueError, match="no coefficient") as caught:
        linear_constraints(f"`{name}` = 0", names)
    assert str(caught.value).count("If ") == len(levels)
    for words in levels:
        assert f"If {words}" in str(caught.value)


# What newcomers write


@pytest.mark.parametrize(
    ("formulas", "words"),
    [
        ({"mean": "y ~ x"}, "The counts are the y of fit"),
        ({"mean": "x ~ kind"}, "The counts are the y of fit"),
        ({"mean": "~ x | kind"}, "no '|'.*kind='cluster'"),
        ({"mean": "~ x + (1 | kind)"}, "no '|'.*kind='cluster'"),
        ({"dispersion": "~ Kindd"}, "^dispersion='~ Kindd': X has no column 'Kindd'.*mean 'kind'"),
        ({"mean": "~ bs(X, df=4)"}, r"no column 'X'\. Did you mean 'x'\?$"),
        ({"mean": "~ nothing_like"}, r"no column 'nothing_like'\. It has \d+: "),
        ({"mean": "~ x + offset(x)"}, "FormulaTransformer.*offset="),
        ({"mean": "~ factor(kind)"}, r"write C\(x\)"),
        ({"mean": "~ as.factor(kind)"}, r"Write C\(x\)"),
        ({"mean": "~ relevel(kind, ref='b')"}, r"contr\.treatment\('a'\)"),
        ({"mean": "~ interaction(kind, x)"}, "write a:b"),
        ({"mean": "~ ns(x, df=3)"}, r"write cr\(x, df=3, constraints='center'\)"),
        ({"mean": "~ s(x)"}, r"bs\(x, df=5\)"),
        ({"mean": "~ np.logg(x)"}, "log may be meant"),
        ({"mean": "~ (x > 0)"}, r"'>' stands between.*such as I\(x > 0\)\.$"),
        ({"mean": "~ kind == 'a'"}, r"'==' stands between.*such as I\(x > 0\)\.$"),
        ({"mean": "~ kind x"}, r"does not parse\. [^\n]*$"),
        ({"offset": "1"}, "a number is for the intercept"),
    ],
)
def test_mistakes_are_told_with_what_to_write(cells, formulas, words):
    with pytest.raises(ValueError, match=words):
        FormulaTransformer(**formulas).fit(cells)


def test_a_name_with_spaces_is_to_stand_in_backquotes(cells):
    spaced = cells.rename(columns={"kind": "cell type"})
    with pytest.raises(ValueError, match=r"does not parse\. .*in backquotes: `cell type`\.$"):
        FormulaTransformer("~ cell type").fit(spaced)
    FormulaTransformer("~ `cell type`").fit(spaced)
    with pytest.raises(ValueError, match=r"does not parse\. (?!.*backquotes)"):
        FormulaTransformer("~ `cell type` x").fit(spaced)


@pytest.mark.parametrize("wrong", [1.0, ["x"], np.arange(40.0), pd.Series([0.0] * 40)])
def test_a_formula_is_a_string(cells, wrong):
    with pytest.raises(TypeError, match=r"^offset=.*a string, such as 'np\.log") as caught:
        FormulaTransformer("~ 1", offset=wrong).fit(cells)
    assert len(str(caught.value)) < 150


def test_an_anndata_is_refused_in_words(cells):
    adata = AnnData(obs=cells.set_axis(cells.index.astype(str)))
    with pytest.raises(TypeError, match=r"^X is an AnnData\. sc_glm\.adata\.fit"):
        fit(adata, "~ x")
    with pytest.raises(TypeError, match=r"^X is an AnnData\. sc_glm\.adata\.fit"):
        fit(cells, "~ x").transform(adata)


# Output


def test_set_output(cells):
    design = fit(cells, "~ x + kind").transform(cells)
    for container in ("default", "pandas", None):
        model = FormulaTransformer("~ x + kind").set_output(transform=container).fit(cells)
        assert_frame_equal(model.transform(cells), design)
    with config_context(transform_output="pandas"):
        assert_frame_equal(fit(cells, "~ x + kind").transform(cells), design)


def test_an_array_of_a_step_before_says_how_to_make_it_a_frame(cells):
    numbers = make_pipeline(StandardScaler(), FormulaTransformer("~ x"))
    with pytest.raises(ValueError, match=r"no column 'x'.*set_output\(transform='pandas'\)"):
        numbers.fit(cells[["x", "batch"]])
    text = make_pipeline(FunctionTransformer(np.asarray), FormulaTransformer("~ kind"))
    with pytest.raises(ValueError, match=r"array with text.*set_output\(transform='pandas'\)"):
        text.fit(cells[["x", "kind"]])
    late = np.array([[1.0], ["a"]], dtype=object)
    for array in (late, np.array("a"), np.array([["a"]])):
        with pytest.raises(ValueError, match="array with text"):
            fit(array, "~ x0")
    with pytest.raises(ValueError, match="Expected 2D array"):
        fit(np.array(1.0), "~ x0")
    scaled = numbers.set_output(transform="pandas").fit_transform(cells[["x", "batch"]])
    assert abs(scaled["mean__x"].mean()) < 1e-12
    assert scaled.index.equals(cells.index)
