import pickle

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pandas.testing import assert_frame_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from sc_glm.formula import FormulaTransformer
from tests.formula.designs import STATEFUL, fit

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


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


def test_dot_is_frozen(cells):
    model = fit(cells, "~ .")
    extra = cells.assign(new="z", scale=1.0, np=2.0)[["new", "np", "scale", *cells.columns[::-1]]]
    assert_frame_equal(model.transform(extra), model.transform(cells))


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


# Interface of scikit-learn


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
def test_the_frame_and_the_fitted_state_do_not_change(cells, formula):
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


def test_formulas_cannot_read_variables_of_the_caller(cells):
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


# Errors


@pytest.mark.parametrize("formula", ["~ kind", "~ C(kind)", "~ 0 + kind:x"])
@pytest.mark.parametrize("dtype", ["object", "category"])
def test_unseen_level(cells, formula, dtype):
    model = fit(cells, "~ 1", dispersion=formula)
    cells.loc["cell9", "kind"] = "zz"
    message = r"(?i)^dispersion=.*kind.*unknown level 'zz' in row 'cell9' \(1 of 60"
    with pytest.raises(ValueError, match=message):
        model.transform(cells.astype({"kind": dtype}))


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


@pytest.mark.parametrize("spline", ["bs(x, df=5)", "bs(scale(x), df=4, degree=2)"])
def test_a_spline_is_constant_just_outside_its_range(cells, spline):
    model = fit(cells, f"~ {spline}")
    low, high = cells["x"].min(), cells["x"].max()
    ends = cells.iloc[:2].assign(x=[low, high])
    beyond = cells.iloc[:2].assign(x=[low - 0.04 * (high - low), high + 0.04 * (high - low)])
    pd.testing.assert_frame_equal(model.transform(beyond), model.transform(ends))
    with pytest.raises(ValueError, match="spline's range"):
        model.transform(cells.assign(x=high + 0.06 * (high - low)))


@pytest.mark.parametrize("spline", ["bs(x, df=5)", "cs(x, df=4, extrapolation='raise')"])
def test_values_far_outside_the_range_of_a_spline_are_refused(cells, spline):
    model = fit(cells, f"~ {spline}")
    low, high = cells["x"].min(), cells["x"].max()
    assert model.transform(cells.assign(x=low)).notna().all(axis=None)
    new = cells.assign(x=np.where(np.arange(60) == 4, 99.5, cells["x"]))
    with pytest.raises(ValueError, match=r"^mean=") as caught:
        model.transform(new)
    for word in [spline.split(",")[0], "99.5", str(low), str(high), "1 of 60"]:
        assert word in str(caught.value)


def test_splines_may_extrapolate(cells):
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


# Common mistakes


@pytest.mark.parametrize(
    ("formulas", "words"),
    [
        ({"mean": "y ~ x"}, "The counts are the y of fit"),
        ({"mean": "x ~ kind"}, "The counts are the y of fit"),
        ({"mean": "~ x | kind"}, r"cannot have '\|'.*kind='cluster'"),
        ({"mean": "~ x + (1 | kind)"}, r"cannot have '\|'.*kind='cluster'"),
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
        ({"mean": "~ (x > 0)"}, r"'>' compares terms.*such as I\(x > 0\)\.$"),
        ({"mean": "~ kind == 'a'"}, r"'==' compares terms.*such as I\(x > 0\)\.$"),
        ({"mean": "~ kind x"}, r"does not parse\. [^\n]*$"),
        ({"offset": "1"}, "A constant number belongs in the intercept"),
    ],
)
def test_messages_say_what_to_write(cells, formulas, words):
    with pytest.raises(ValueError, match=words):
        FormulaTransformer(**formulas).fit(cells)


@pytest.mark.parametrize("wrong", [1.0, ["x"], np.arange(40.0), pd.Series([0.0] * 40)])
def test_a_formula_is_a_string(cells, wrong):
    with pytest.raises(TypeError, match=r"^offset=.*a string, such as 'np\.log") as caught:
        FormulaTransformer("~ 1", offset=wrong).fit(cells)
    assert len(str(caught.value)) < 150


def test_an_anndata_is_refused_with_a_message(cells):
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


def test_the_message_for_an_array_of_an_earlier_step_says_how_to_make_it_a_frame(cells):
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
