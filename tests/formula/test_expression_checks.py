"""Expressions that formulas may evaluate. Code that is refused never runs."""

import inspect

import numpy as np
import pandas as pd
import pytest
from formulaic.transforms import TRANSFORMS
from numpy.testing import assert_allclose, assert_array_equal

from sc_glm.formula import FormulaTransformer, allowed_names, model_matrix, parsing
from sc_glm.formula.expression_checks import MAX_FORMULA_LENGTH

# Batches of the cells are whole numbers. The warning about them has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    n = 40
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "y": rng.uniform(1, 2, size=n),
            "my column": np.arange(n) / n,
            "c.d": np.arange(n) % 3,
            "batch": np.arange(n) % 4,
            "kind": rng.permutation([*"abcd"] * 10),
            "assay": rng.permutation(["10x 3' v2", "10x 5' v1"] * 20),
        }
    )


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fail if formulaic's parser, which can run code, or its evaluation is called."""

    def reached(*_, **__):
        pytest.fail("formulaic was called")

    for name in ("DefaultFormulaParser", "Formula"):
        monkeypatch.setattr(parsing, name, reached)
    monkeypatch.setattr(model_matrix, "_Materializer", reached)


@pytest.fixture
def nothing_is_evaluated(monkeypatch):
    def reached(*_, **__):
        pytest.fail("the formula was evaluated")

    monkeypatch.setattr(parsing, "Formula", reached)
    monkeypatch.setattr(model_matrix, "_Materializer", reached)


ESCAPES = [
    # Python's builtins, which formulaic's `eval` leaves in reach
    "open('/etc/passwd').read()",
    "I(open('/tmp/x', 'w'))",
    "__import__('os').system('true')",
    "I(__import__('os').getcwd())",
    "eval('x')",
    "exec('x = 1')",
    "compile('x', '', 'eval')",
    "getattr(x, 'values')",
    "setattr(x, 'name', 1)",
    "globals()",
    "vars(x)",
    "input('password')",
    "breakpoint()",
    "print(x)",
    "type(x)",
    "I(print)",
    "__builtins__['open']('/tmp/x', 'w')",
    "I(__builtins__)",
    "I(__FORMULAIC_CONTEXT__)",
    "I(__FORMULAIC_STATE__)",
    # on the left of a `~`, formulaic's parser runs what is called
    "{open('/tmp/x', 'w').close()} ~ x",
    "{__import__('os').system('true').x()} ~ x",
    # attributes
    "{x.__class__}",
    "I(x.__class__.__mro__[1].__subclasses__())",
    "{().__class__.__mro__}",
    "I(''.__class__)",
    "I((1).__class__)",
    "I(np.add.__self__)",
    "I(np.add.__class__)",
    "np.log.__call__(x)",
    "np.add.reduce(x)",
    "np.add.accumulate(x)",
    "np.add.at(x, 0, 1)",
    "bs.__globals__['__builtins__']",
    "C.__globals__(x)",
    "I(contr.__dict__)",
    "I(contr.treatment.__init__.__globals__)",
    "C(kind, contr.treatment().__class__)",
    "C(kind, contr.mro())",
    "x.to_pickle('/tmp/x')",
    "x.to_csv('/tmp/x')",
    "I(x.values)",
    "x.apply(print)",
    "x.pipe(print)",
    "kind.str.upper()",
    # NumPy's files, memory, and functions that call others
    "np.load('/tmp/x', allow_pickle=True)",
    "np.loadtxt('/tmp/x')",
    "np.genfromtxt('/tmp/x')",
    "np.fromfile('/tmp/x')",
    "np.memmap('/tmp/x')",
    "np.save('/tmp/x', x)",
    "np.savetxt('/tmp/x', x)",
    "np.DataSource('.').open('/tmp/x')",
    "np.lib.npyio.load('/tmp/x')",
    "np.lib.format.open_memmap('/tmp/x')",
    "np.f2py.compile('x')",
    "np.ctypeslib.load_library('c', '.')",
    "np.testing.rundocs('/tmp/x')",
    "np.random.seed(0)",
    "np.random.normal(size=40)",
    "np.core.multiarray.array(x)",
    "np.vectorize(print)(x)",
    "np.frompyfunc(print, 1, 1)(x)",
    "np.apply_along_axis(print, 0, x)",
    "np.fromfunction(print, [3])",
    "np.piecewise(x, [x > 0], [print])",
    "np.seterrcall(print)",
    "np.linalg.norm(x)",
    "np.sys.exit(1)",
    "np.os.getcwd()",
    "np.ones(10**12)",
    "np.zeros_like(x, shape=10**12)",
    "np.tile(x, 10**9)",
    "np.array(x, copy=False)",
    "{np}",
    "I(np)",
    "I(np.log)",
    "np.matmul(x, y)",
    # what would overwrite the caller's cells
    "np.add(x, 1, x)",
    "np.log(y, out=y)",
    "np.log(y, y)",
    "np.nan_to_num(x, False)",
    "np.nan_to_num(x, copy=False)",
    "np.copyto(x, y)",
    "np.put(x, 0, 1)",
    "np.log(y, where=(x > 0))",
    "np.log(y, dtype='object')",
    # the rest of Python's grammar
    "(lambda: open('/tmp/x'))()",
    "I((lambda: x)())",
    "I([z for z in x])",
    "I({z for z in x})",
    "I({z: z for z in x})",
    "I(sum(z for z in x))",
    "I((z := x))",
    "I(f'{x}')",
    "I(f'{x.__class__}')",
    "x[0]",
    "I(x[::-1])",
    "I(x if y else y)",
    "I(x and y)",
    "I(not x)",
    "I(0 < x < 1)",
    "I(x in y)",
    "I(x is y)",
    "I(x @ y)",
    "I(*[x])",
    "bs(x, *[5])",
    "bs(x, **{'df': 5})",
    "I(await_(x))",
    "I(...)",
    "I(b'x')",
    "I(1j)",
    "I([x, y])",
    "bs(x)(y)",
    "{x; y}",
    "{import os}",
    "{x = 1}",
    "{yield x}",
    # strings that formulaic pastes into code, or that Python reads twice
    "Q('x\"), open(\"/tmp/x')",
    'bs(x, extrapolation=\'") or open("/tmp/x") or ("\')',
    "bs(x, extrapolation='\\x22) or open()')",
    "center(np.where(kind == '\"]+open(\"', x, y))",
    "I('`x`' + `x`)",
    "C(kind, levels=['_column_x', 'a'])",
    "Q(kind)",
    "Q('np')",
    "Q('__class__')",
    "C(kind, levels=['\\N{QUOTATION MARK}'])",
    # formulaic's own names that run functions, or that mix rows
    "hashed(kind, levels=3, hash_func=print)",
    "hashed(kind, levels=3, hash_func=eval)",
    "lag(x)",
    "center(x, _state={})",
    "bs(x, df=5, _state={'knots': [0]})",
    "scale(x, _context=np)",
    "C(kind, x)",
    "C(kind, Treatment)",
    "C(kind, contr.treatment(base=x))",
    "C(kind, contr.register('a'))",
    "C(kind, contr.treatment(**{'base': 'a'}))",
    "C(kind, contr.treatment(*['a']))",
    "C(C(kind))",
    "np.log(bs(x, df=5))",
]


@pytest.mark.parametrize("text", ESCAPES)
@pytest.mark.usefixtures("nothing_runs")
def test_code_that_is_not_allowed_is_refused_and_not_run(cells, text):
    with pytest.raises(ValueError, match=r"^mean=") as caught:
        FormulaTransformer(mean=text).fit(cells)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["x.__class__", "np", "np.pi", "contr.__dict__", "__builtins__"])
def test_names_outside_of_expressions_are_columns(cells, text):
    with pytest.raises(ValueError, match=rf"^mean=.*X has no column '{text}'"):
        FormulaTransformer(mean=text).fit(cells)


def test_code_that_would_run_leaves_no_trace(cells, tmp_path):
    """With formulaic alone, each of these formulas writes a file."""
    trace = tmp_path / "trace"
    for text in (
        f"I(open('{trace}', 'w').write('x'))",
        f"{{open('{trace}', 'w').write.x()}} ~ x",  # formulaic's parser runs it
        f"x.to_pickle('{trace}')",
        f"np.save('{trace}', x)",
    ):
        with pytest.raises(ValueError, match=r"^mean="):
            FormulaTransformer(mean=text).fit(cells)
        assert not list(tmp_path.iterdir())


NUMBERS_ALONE = [
    "{x + 2**64}",
    "{I(10)**I(10)**I(10)}",
    "{x + (1 << 10**10)}",
    "{x + (7 << 62 << 62)}",
    "{x + (-8)**0.5}",
    "{x + 1 / 0}",
    "{x + 1e308**2}",
    "{x + 9223372036854775808}",
    "{x + " + "9" * 5000 + "}",
    "{x + ((1 < 2) << 10**10)}",
    "{x + 'a' * 10**10}",
    "{kind * 10**10}",
    "{np.where(x > 0, kind, 'b') * 10**10}",
    "np.multiply(kind, 10**10)",
    "{x + [1] * 10**10}",
    "{x + (1,) * 10**10}",
    "poly(x, 10**9)",
    "poly(x, degree=10**9)",
    "poly(x, I(10**9))",
    "poly(x, np.power(10, 9))",
    "bs(x, df=10**9)",
    "bs(x, 10**9)",
    "bs(x, df=5, degree=10**6)",
    "bs(x, df=batch)",
    "bs(x, knots=[" + ", ".join(["0.5"] * 300) + "])",
    "cr(x, df=1e12)",
    "cc(x, df=np.inf)",
    "cs(x, df=np.nan)",
    "hashed(kind, levels=10**9)",
    "hashed(kind, 10**9)",
    "I(" + "(" * 150 + "x" + ")" * 150 + ")" + "+ I(" + "-" * 150 + "x)",
    "I(" + "(" * 9000 + "x" + ")" * 9000 + ")",
    "I(" + "-" * 9000 + "x)",
    "I(" + "~" * 9000 + "x)",
    "{" + "+".join(["x"] * 5000) + "}",
    "{" + "x**" * 5000 + "2}",
    "I(" * 3000 + "x" + ")" * 3000,
    "I(x" + "[0]" * 3000 + ")",
    "I(x" + ".T" * 3000 + ")",
]


@pytest.mark.parametrize("text", NUMBERS_ALONE, ids=lambda text: text[:30])
@pytest.mark.usefixtures("nothing_runs")
def test_expressions_that_would_need_too_much_memory_or_time_are_refused(cells, text):
    with pytest.raises(ValueError, match=r"^mean="):
        FormulaTransformer(mean=text).fit(cells)


LONG_SUM = "(" + " + ".join(f"`{name}`" for name in "abcdefgh") + ")"
TERMS = [
    f"{LONG_SUM}**50",
    f"{LONG_SUM}^6",
    "(x + y)**50",
    "(x + y)**(99999 + 1)",
    "x**1000000000",
    "2**10**10",
    "x**10**10**10",
    "I(10)**I(10)**I(10)",
    "I(x)**I(y)",
    "(x + y)**3**3",
    "(.)**5",
    f"{LONG_SUM}*{LONG_SUM}*{LONG_SUM}*{LONG_SUM}*{LONG_SUM}",
    "(" + "*".join("abcdefghijklmnopqrstuvwxyz") + ")",
    ":".join(f"a{i}" for i in range(2000)),
    "/".join(f"a{i}" for i in range(2000)),
    "x / " * 1000 + "y",
]


@pytest.mark.parametrize("text", TERMS, ids=lambda text: text[:30])
@pytest.mark.usefixtures("nothing_is_evaluated")
def test_terms_that_multiply_out_of_bounds(cells, text):
    with pytest.raises(ValueError, match=r"^mean=.*(multiplied out|must be a small whole number)"):
        FormulaTransformer(mean=text).fit(cells)


@pytest.mark.parametrize("sign", ["(", "x", "`", "'", "{", "-", "\\", "\0", "\ud800", "~", "x + "])
@pytest.mark.usefixtures("nothing_runs")
def test_a_long_formula(cells, sign):
    text = sign * 100_000
    with pytest.raises(ValueError, match=rf"at most {MAX_FORMULA_LENGTH}") as caught:
        FormulaTransformer(mean=text).fit(cells)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "sign", ["(", "[", "x", "{", "-", "- ", "~", "%", "1:", "x:", "x + ", "{}"]
)
def test_a_formula_of_the_maximal_length(cells, sign):
    text = (sign * MAX_FORMULA_LENGTH)[: MAX_FORMULA_LENGTH - 1] + "x"
    with pytest.raises(ValueError, match=r"^mean="):
        FormulaTransformer(mean=text).fit(cells[["x"]].rename(columns={"x": "z"}))


def test_factors_of_too_many_columns():
    n = 10_500
    X = pd.DataFrame({"barcode": [f"cell{i}" for i in range(n)], "depth": np.arange(n)})
    for text in ("~ barcode", "~ C(depth)"):
        with pytest.raises(
            ValueError, match=r"^mean=.*has 10500 levels, but a design has at most 10000"
        ):
            FormulaTransformer(text).fit(X)
    X = pd.DataFrame({name: np.roll(np.arange(30), i) for i, name in enumerate("abcd")})
    with pytest.raises(ValueError, match=r"^mean=.*would have more than 10000 columns"):
        FormulaTransformer("~ " + ":".join(f"C({name})" for name in "abcd")).fit(X)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("x.mean()", "depends on the other rows.*center"),
        ("I(x - x.mean())", "depends on the other rows.*center"),
        ("I(x / np.max(x))", "depends on the other rows.*scale"),
        ("lag(x)", "depends on the other rows"),
        ("np.cumsum(x)", "depends on the other rows"),
        ("{x.clip(0, 1)}", r"write np\.clip\(\.\.\.\)"),
        ("I(abs(x))", r"write np\.abs\(\.\.\.\)"),
        ("x.isin([1, 2])", r"write np\.isin\(\.\.\.\)"),
        ("batch.astype(str)", r"write C\(x\)"),
        ("kind.map({'a': 1})", r"write np\.where\(x == 'a', 1, 0\)"),
        ("I(x > 0 and y > 0)", r"write \(a\) & \(b\)"),
        ("I(x > 0 & y > 0)", r"write \(a\) & \(b\)"),
        ("I(not x)", r"write \(a\) & \(b\)"),
        ("I(kind in ['a', 'b'])", r"write np\.isin"),
        ("I(x if y else x)", r"write np\.where"),
        ("np.log(c.d)", r"write `c\.d`, in backquotes"),
        ("np.log(kind)", "log is a function of numbers, but an argument is text"),
        ("{kind + 1}", "arithmetic needs numbers, but an operand is text"),
        ("np.log(depth)", "X has no column 'depth'"),
        ("bs(x, df=1000)", "df must be a constant of at most 200"),
        ("I(batch^2)", r"write x\*\*2 for a power"),
        ("{(x > 0) ^ (y > 1.5)}", r"\(a\) != \(b\)"),
        ("I(x, y)", "I takes 1 argument\\(s\\) by position, not 2"),
    ],
)
@pytest.mark.parametrize("part", ["mean", "dispersion", "offset"])
def test_refusals_say_what_to_write(cells, part, text, hint):
    with pytest.raises(ValueError, match=rf"^{part}=.*{hint}"):
        FormulaTransformer(**{"mean": None, part: text}).fit(cells)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("np.log(y)", lambda c: np.log(c["y"])),
        ("log(y)", lambda c: np.log(c["y"])),
        ("np.log1p(y)", lambda c: np.log1p(c["y"])),
        ("I(x**2)", lambda c: c["x"] ** 2),
        ("{x + y}", lambda c: c["x"] + c["y"]),
        ("{x - 2 * y / 3}", lambda c: c["x"] - 2 * c["y"] / 3),
        ("np.exp(-x)", lambda c: np.exp(-c["x"])),
        ("np.power(x, 2)", lambda c: c["x"] ** 2),
        ("np.sin(2 * np.pi * x)", lambda c: np.sin(2 * np.pi * c["x"])),
        ("np.where(x > 0, 1, 0)", lambda c: c["x"] > 0),
        ("np.where(kind == 'a', x, 0)", lambda c: c["x"] * (c["kind"] == "a")),
        ("np.minimum(x, 0)", lambda c: np.minimum(c["x"], 0)),
        ("np.maximum(x, y)", lambda c: np.maximum(c["x"], c["y"])),
        ("np.clip(x, -1, 1)", lambda c: c["x"].clip(-1, 1)),
        ("np.clip(x, a_min=-1, a_max=None)", lambda c: c["x"].clip(-1)),
        ("np.clip(x > 0, 2, 4)", lambda c: 2 + 0 * c["x"]),
        ("np.round(x, 1)", lambda c: c["x"].round(1)),
        ("np.isin(kind, ['a', 'b'])", lambda c: c["kind"].isin(["a", "b"])),
        ("~np.isin(batch, [1, 2])", None),
        ("I(~np.isin(batch, [1, 2]))", lambda c: ~c["batch"].isin([1, 2])),
        ("np.digitize(x, [-1, 0, 1])", lambda c: np.digitize(c["x"], [-1, 0, 1])),
        ("np.interp(x, [-1, 1], [0, 1])", lambda c: np.interp(c["x"], [-1, 1], [0, 1])),
        ("I(x > 0)", lambda c: c["x"] > 0),
        ("{(x > 0) & (y < 1.5)}", lambda c: (c["x"] > 0) & (c["y"] < 1.5)),
        ("{(x > 0) | ~(y < 1.5)}", lambda c: (c["x"] > 0) | ~(c["y"] < 1.5)),
        ("I(kind == 'a')", lambda c: c["kind"] == "a"),
        ("I(kind != 'a')", lambda c: c["kind"] != "a"),
        ("I((x > 0) != (y > 1.5))", lambda c: (c["x"] > 0) != (c["y"] > 1.5)),
        ("{batch % 2}", lambda c: c["batch"] % 2),
        ("{batch // 2 + 10**3}", lambda c: c["batch"] // 2 + 1000),
        ("{x * 2**-3}", lambda c: c["x"] / 8),
        ("np.log(`my column` + 1)", lambda c: np.log(c["my column"] + 1)),
        ("I(`c.d` + 1)", lambda c: c["c.d"] + 1),
        ("Q('my column')", lambda c: c["my column"]),
        ("`my column`", lambda c: c["my column"]),
        ("center(x)", lambda c: c["x"] - c["x"].mean()),
        ("scale(x)", lambda c: (c["x"] - c["x"].mean()) / c["x"].std()),
        ("scale(x, center=False, ddof=0)", None),
        ("standardize(np.log(y))", None),
        ("x:y", lambda c: c["x"] * c["y"]),
    ],
)
def test_what_users_write_as_one_column(cells, text, expected):
    design = FormulaTransformer(f"0 + {text}" if text[0] != "~" else f"I({text})").fit_transform(
        cells
    )
    if expected is not None:
        assert_allclose(design.iloc[:, -1], expected(cells))  # of a condition, True


@pytest.mark.parametrize(
    ("text", "n_columns"),
    [
        ("C(batch)", 4),
        ("C(kind, contr.treatment('b'))", 4),
        ("C(kind, contr.treatment(base='b'))", 4),
        ("C(kind, Treatment('b'))", 4),
        ("C(kind, contr.sum)", 4),
        ("C(kind, Sum)", 4),
        ("C(kind, contr.helmert(reverse=False, scale=True))", 4),
        ("C(kind, contr.poly(scores=[1, 2, 4, 8]))", 4),
        ("C(kind, contr.diff)", 4),
        ("C(kind, contr.SAS)", 4),
        ("C(kind, {'a against b': [1, -1, 0, 0]})", 2),
        ("C(kind, contr.custom([[1], [-1], [0], [0]]))", 2),
        ("C(kind, levels=['d', 'c', 'b', 'a'])", 4),
        ('C(assay, contr.treatment("10x 5\' v1"))', 2),
        ("C(np.where(kind == 'a', kind, 'other'))", 2),
        ("C(np.where(x > 0, 'high', 'low'))", 2),
        ("bs(x, df=5)", 6),
        ("bs(x, 5)", 6),
        ("bs(x, knots=[-0.5, 0.5], degree=2)", 5),
        ("bs(x, knots=(-0.5, 0.5), lower_bound=-5, upper_bound=5)", 6),
        ("bs(np.log(y), knots=[np.log(1.5)], extrapolation='clip')", 5),
        ("cr(x, df=4)", 5),
        ("cc(x, df=4, lower_bound=-4, upper_bound=4)", 5),
        ("cs(x, df=4, constraints='center')", 5),
        ("poly(x, 2)", 3),
        ("poly(x, degree=3, raw=True)", 4),
        ("hashed(kind, levels=3)", 4),
        ("bs(scale(x), df=4) + kind", 8),
        ("x*y", 4),
        ("(x + y + batch)**2", 7),
        ("x*y*batch", 8),
        ("x / kind", 5),
        ("y %in% x", 3),
        ("kind*batch*x", 16),
        (". - assay - kind", 6),
    ],
)
def test_what_users_write_as_several_columns(cells, text, n_columns):
    assert FormulaTransformer(text).fit_transform(cells).shape == (40, n_columns)


def test_wide_formulas():
    X = pd.DataFrame(np.ones((3, 1000)), columns=[f"gene{i}" for i in range(1000)])
    names = " + ".join(X.columns)
    assert FormulaTransformer(f"~ 0 + {names}").fit_transform(X).shape == (3, 1000)
    wanted = " + ".join(f"np.log(gene{i})" for i in range(100))
    assert FormulaTransformer(f"~ 0 + {wanted}").fit_transform(X).shape == (3, 100)
    total = FormulaTransformer("~ 0 + {" + " + ".join(X.columns[:90]) + "}").fit_transform(X)
    assert_allclose(total, 90)


def test_the_cells_of_the_caller_do_not_change(cells):
    before = cells.copy(deep=True)
    for text in ("np.add(x, 1, x)", "np.nan_to_num(x, copy=False)", "np.clip(x, 0, 1, x)"):
        with pytest.raises(ValueError, match=r"^mean="):
            FormulaTransformer(text).fit(cells)
        pd.testing.assert_frame_equal(cells, before)


def test_odd_names_are_distinguished(cells):
    X = cells.rename(columns={"x": "a b", "y": "a-b", "batch": "a bc"}).assign(a_b=7.0)
    seeded = np.random.get_state()[1].copy()  # noqa: NPY002
    design = FormulaTransformer(
        "~ 0 + {`a b` + `a-b`} + {`a bc` - `a b`} + {`a b` * a_b} + center(`a b`) + center(`a-b`)"
    ).fit_transform(X)
    x, y = cells["x"], cells["y"]
    expected = [x + y, cells["batch"] - x, 7 * x, x - x.mean(), y - y.mean()]
    assert_allclose(design, np.column_stack(expected), atol=1e-12)
    assert design.columns[0] == "mean__`a b` + `a-b`"
    assert_array_equal(np.random.get_state()[1], seeded)  # noqa: NPY002


def test_unneeded_backquotes_change_only_the_name(cells):
    """formulaic replaces the letters of such a name wherever they stand."""
    for text in (
        "np.exp(x)",
        "bs(x, df=4, extrapolation='extend')",
        "scale(x)",
        "C(np.where(x > 0, 'x', 'y'))",
    ):
        quoted = text.replace("(x", "(`x`")
        bare, odd = (FormulaTransformer(f"~ {one}").fit_transform(cells) for one in (text, quoted))
        assert_array_equal(odd, bare)
        assert [name.replace("`", "") for name in odd] == list(bare)


SHADOWS = ["I", "C", "Q", "bs", "poly", "log", "center", "np", "contr", "nan", "Sum", "lag"]
KEYWORDS = ["True", "None", "lambda", "class", "in", "and", "not", "def"]


@pytest.mark.parametrize("name", [*SHADOWS, *KEYWORDS])
def test_columns_named_as_functions_and_keywords_of_python(name):
    """In backquotes any name is a column's; functions are those that are called."""
    values = np.random.default_rng(0).uniform(1, 2, 30)
    X = pd.DataFrame({name: values, "other": 5.0})
    model = FormulaTransformer(
        f"~ 0 + `{name}` + I(2 * `{name}`) + np.log(`{name}`) + center(log(Q('{name}')))"
        f" + poly(`{name}`, 1) + np.where(`{name}` > 1.5, 1, 0)"
    ).fit(X)
    logs = np.log(values)
    line = (values - values.mean()) / np.sqrt(np.sum((values - values.mean()) ** 2))
    expected = [values, 2 * values, logs, logs - logs.mean(), line, values > 1.5]
    assert_allclose(model.transform(X), np.column_stack(expected), atol=1e-12)
    assert_allclose(model.transform(X.tail(1)), model.transform(X).tail(1), atol=1e-12)
    if name in SHADOWS:
        bare = FormulaTransformer(f"~ 0 + {name} + np.log({name}) + center({name})")
        assert_allclose(bare.fit_transform(X).iloc[:, 1], logs)
    else:
        assert_allclose(FormulaTransformer(f"~ 0 + {name}").fit_transform(X), values[:, None])
        with pytest.raises(ValueError, match=f"{name} is a keyword of Python; write `{name}` for"):
            FormulaTransformer(f"~ I(2 * {name})").fit(X)


def test_exp10_is_a_power_of_ten(cells):
    design = FormulaTransformer("~ 0 + exp10(x)").fit_transform(cells)
    assert_allclose(design.iloc[:, 0], 10 ** cells["x"])


# The list itself


def test_transforms_are_formulaics():
    listed = set(allowed_names.UNQUALIFIED_FUNCTIONS) | allowed_names.CONTRAST_CLASSES
    assert listed | {"np", "contr", "lag", "Treatment"} == set(TRANSFORMS)
    assert {
        name for name in listed if getattr(TRANSFORMS[name], "__is_stateful_transform__", False)
    } == allowed_names.STATEFUL
    for name in allowed_names.CONTRASTS:
        assert inspect.isclass(getattr(TRANSFORMS["contr"], name))


def test_numpys_functions_exist_and_none_is_dangerous():
    assert len(allowed_names.NUMPY_FUNCTIONS) > 80
    for name in allowed_names.NUMPY_FUNCTIONS:
        assert callable(getattr(allowed_names.NAMESPACE, name))
    assert not {
        "load",
        "save",
        "memmap",
        "fromfile",
        "frompyfunc",
        "vectorize",
        "copyto",
        "ones",
    } & set(allowed_names.NUMPY_FUNCTIONS)


@pytest.mark.parametrize(
    "name",
    sorted(name for name, how in allowed_names.NUMPY_FUNCTIONS.items() if how.n_expressions == 1),
)
def test_numpys_functions_are_elementwise(name):
    x = np.array([3, 1, 2, 5])
    if name == "isnat":
        x = x.astype("datetime64[s]")
    more = {"isin": [[1, 2]], "digitize": [[1, 2]], "interp": [[1, 2], [3, 4]], "clip": [1, 2]}
    function = getattr(allowed_names.NAMESPACE, name)
    with np.errstate(all="ignore"):
        whole = function(x, *more.get(name, []))
        rows = [function(x[i : i + 1], *more.get(name, []))[0] for i in range(4)]
    assert_allclose(whole, rows)
