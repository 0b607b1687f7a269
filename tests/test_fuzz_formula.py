"""Random formulas on random frames: a design, or an error in words, and nothing else."""

import random
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from sc_glm.formula import FormulaTransformer

pytestmark = pytest.mark.filterwarnings("ignore:Whole numbers get one slope")

CHUNKS, FRAMES, FORMULAS = 20, 50, 10

NUMERIC = ["x", "depth", "a b"]
LEVELS = ["kind", "level"]
OTHER = ["c.d", "np", "scale", "class", "1a", "ü", "x:y", "it's", "Q"]
ODD = [
    "__class__",
    "",
    " ",
    "`",
    "a`b",
    "0",
    ".",
    "~",
    "_formulaic_x",
    "µ",
    "²",
    "\n",
    "{x}",
    "a-b",
]

FUNCTIONS = [
    *("np.log1p", "np.exp", "np.sqrt", "np.abs", "np.sin", "np.sign", "log", "exp10", "I", "I"),
    *("center", "scale", "standardize", "np.round", "np.isnan", "bs", "-", "~"),
]
CALLS = [
    *("bs({x}, df={n})", "bs({x}, knots=[{n}, {n}], degree={n})", "cr({x}, df={n})"),
    *("cc({x}, df={n})", "cs({x}, df={n}, extrapolation={s})", "poly({x}, {n})"),
    *("poly({x}, {n}, raw=True)", "hashed({k}, levels={n})", "C({k}, levels=[{s}, {s}])"),
    *("C({k}, contr.treatment({s}))", "C({k}, contr.sum)", "C({x}, Treatment({n}))", "C({k})"),
    *("C({k}, contr.helmert(scale=True))", "C({k}, contr.poly)", "C({k}, {{'u': [1, {n}]}})"),
    *("np.where({x} > {n}, {x}, {n})", "np.where({k} == {s}, {s}, {k})", "np.power({x}, {n})"),
    *("np.minimum({x}, {x})", "np.clip({x}, {n}, {n})", "np.isin({k}, [{s}, {n}])"),
    *("np.round({x}, {n})", "np.digitize({x}, [{n}, {n}])", "scale({x}, ddof={n})", "Q({s})"),
    *("scale({x}, center={n}, scale={n})", "np.interp({x}, [0, 1], [{n}, {n}])", "({k} == {s})"),
    *("np.isclose({x}, {n})", "np.nan_to_num({x}, nan={n})", "C(np.where({k} == {s}, {s}, {s}))"),
]
REFUSED = [
    *("np.add({x}, {n}, {x})", "np.log({x}, out={x})", "{x}.astype({s})", "{x}[{n}]", "lag({x})"),
    *("(lambda: {x})()", "f'{{{x}}}'", "open({s})", "np.load({s})", "np.sum({x})", "{x}.mean()"),
    *("bs({x}, df={n}, **{{}})", "[{x} for i in {x}]", "C({x} := {n})", "{x} if {x} else {n}"),
]
OPERATORS = [
    "+",
    "-",
    "*",
    "<",
    ">=",
    "/",
    "//",
    "%",
    "**",
    "&",
    "|",
    "^",
    "<<",
    "==",
    "@",
    "in",
    "and",
]
GRAMMAR = ["+", "+", "+", "*", "/", ":", "-", " %in% ", "|", "~", "+ 0 +", "- 1 +", "^"]
NUMBERS = [
    "1",
    "2",
    "3",
    "4",
    "0",
    "-1",
    "0.5",
    "1e9",
    "10**9",
    "1e400",
    "99999999999999999999",
    "1j",
]
TEXT = ["'a'", "'b'", "'clip'", '"it\'s"', "'x'", "''", "'\\\\'", "'{x}'", "'`x`'", "b'a'", "None"]
SCRAPS = [
    *"()[]{}`'\"~+-*/:|^%.,=<>&!@#$;\\ \n\t\0",
    "\ud800",
    "é",
    "😀",
    "**",
    "0 +",
    "__",
    "lambda ",
]


def name(rng, usual=NUMERIC):
    chosen = rng.choice(usual)
    if rng.random() < 0.1:
        chosen = rng.choice(rng.choice([NUMERIC, LEVELS, OTHER, ODD]))
    return chosen if chosen.isidentifier() and rng.random() < 0.9 else f"`{chosen}`"


def expression(rng, depth=0):
    kind = rng.random()
    if depth > 2 or kind < 0.3:
        return name(rng)
    inner = expression(rng, depth + 1)
    if kind < 0.5:
        return f"{rng.choice(FUNCTIONS)}({inner})"
    if kind < 0.8:
        call = rng.choice(CALLS if rng.random() < 0.97 else REFUSED)
        for mark, some in (("{n}", NUMBERS), ("{s}", TEXT)):
            while mark in call:
                call = call.replace(mark, rng.choice(some[:4] if rng.random() < 0.9 else some), 1)
        call = call.replace("{{", "{").replace("}}", "}").replace("{k}", name(rng, LEVELS))
        return call.replace("{x}", inner)
    right = rng.choice(NUMBERS) if rng.random() < 0.5 else expression(rng, depth + 1)
    operator = rng.choice(OPERATORS[:4] if rng.random() < 0.8 else OPERATORS)
    return f"({inner} {operator} {right})"


def called(rng):
    text = expression(rng)
    return text if text[0] not in "(-~" and rng.random() < 0.8 else "{" + text + "}"


def term(rng, depth=0):
    kind = rng.random()
    if kind < 0.3:
        return name(rng, NUMERIC + LEVELS)
    if kind < 0.8:
        return called(rng)
    if kind < 0.83:
        return rng.choice([".", "1", "0", "2", "'a'"])
    if depth > 1:
        return name(rng)
    inner = f"({formula(rng, depth + 1)})"
    return inner if rng.random() < 0.7 else f"{inner}**{rng.choice(NUMBERS[1:])}"


def formula(rng, depth=0):
    text = term(rng, depth)
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4]) if depth < 2 else 1):
        text += f" {rng.choice(GRAMMAR[:6] if rng.random() < 0.97 else GRAMMAR)} {term(rng, depth)}"
    return text


def mutated(rng, text):
    for _ in range(rng.randint(1, 4)):
        at, to = sorted(rng.randint(0, len(text)) for _ in range(2))
        cut = rng.choice([text[at:to], "", rng.choice(SCRAPS), text[at:to] * 2])
        text = text[:at] + cut + text[to if rng.random() < 0.5 else at :]
    return text[:3000]


def some_formula(rng, part):
    kind = rng.random()
    if kind < 0.04:
        return "".join(rng.choices([*SCRAPS, *NUMERIC, *NUMBERS, *FUNCTIONS], k=rng.randint(0, 30)))
    text = called(rng) if part == "offset" else formula(rng)
    if kind < 0.05:
        return rng.choice(SCRAPS) * rng.choice([10, 1000, 10_000, 30_000]) + text
    if kind < 0.5:
        return mutated(rng, text)
    return rng.choice(["", "~ ", "0 + ", "~ 0 + "]) + text


def usual_column(rng, n, name):
    x = np.array([rng.gauss(0, 1) for _ in range(n)])
    if name in LEVELS:
        values = np.array(rng.choices(["a", "b", "c"], k=n), dtype=object)
        return values if rng.random() < 0.5 else pd.Categorical(values, categories=list("bac"))
    return x if rng.random() < 0.7 else np.arange(n) % rng.choice([1, 2, 5, 100])


def odd_column(rng, n):
    number = np.random.default_rng(rng.randint(0, 2**32))
    x = number.normal(size=n)
    whole = number.integers(0, 4, n)
    makers = [
        lambda: x * 10.0 ** rng.choice([2, 9, 300, -300]),
        lambda: whole.astype(rng.choice(["i1", "u1", "i8", "u8", "f4", "f2"])),
        lambda: pd.array(number.choice(["a", "b"], n), dtype="string"),
        lambda: pd.Categorical(whole, ordered=rng.random() < 0.5),
        lambda: x > 0,
        lambda: pd.array(whole % 2, dtype=rng.choice(["Int64", "boolean", "Float32"])),
        lambda: np.full(n, rng.choice([0.0, 1.0, np.nan, np.inf])),
        lambda: number.choice(np.array([1, "a", None, 2.5, True, np.nan], dtype=object), n),
        lambda: number.choice(np.array([1, "a", 2.5, True, "1"], dtype=object), n),
        lambda: whole.astype("datetime64[s]"),
        lambda: whole.astype("timedelta64[s]"),
        lambda: pd.date_range("2020", periods=n, tz="UTC"),
        lambda: x * 1j,
        lambda: pd.arrays.SparseArray(whole),
        lambda: pd.period_range("2020-01", periods=n, freq="D"),
        lambda: pd.interval_range(0, n),
        lambda: pd.Categorical(pd.interval_range(0, n)),
        lambda: nested([rng.choice(([1], {"a": 1}, (1, 2), {1}, object, x)) for _ in range(n)]),
        lambda: nested([(1, 2)] * n),
        lambda: nested([2**70, *[1] * n][:n]),
        lambda: nested([b"a", *[b"b"] * n][:n]),
        lambda: np.where(number.random(n) < 0.2, np.nan, x),
    ]
    return rng.choice(makers)()


def nested(values):
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def some_frame(rng):
    n = 0 if rng.random() < 0.02 else rng.choice([1, 1, 2, 2, 5, 12])
    names = [*NUMERIC, *LEVELS]
    if rng.random() < 0.3:
        names = rng.sample([*names, *names, *rng.sample(OTHER, 3), *rng.sample(ODD, 2)], 6)
    makers = [usual_column] * rng.choice([1, 5, 30]) + [lambda rng, n, _: odd_column(rng, n)]
    index = [
        *[pd.RangeIndex(n)] * 4,
        pd.Index(["same"] * n),
        pd.MultiIndex.from_arrays([list(range(n)), ["u"] * n]),
        pd.date_range("2020", periods=n),
        pd.Index([None] * n, dtype=object),
    ]
    columns = {name: rng.choice(makers)(rng, n, name) for name in names}
    frame = pd.DataFrame(columns, index=rng.choice(index))
    if rng.random() < 0.02:
        frame.columns = rng.choice(
            [
                pd.MultiIndex.from_product([["u"], frame.columns]),
                pd.Index(range(frame.shape[1])),
                pd.Index(["x"] * frame.shape[1]),
                pd.CategoricalIndex(frame.columns),
            ]
        )
    return frame


def some_formulas(rng):
    parts = rng.sample(["mean", "dispersion", "zero_inflation", "offset"], rng.choice([1, 1, 1, 2]))
    return {"mean": None} | {part: some_formula(rng, part) for part in parts}


def fits(formulas, frame, new):
    """Return whether a frame can be fitted. If so, check its design and that of a new frame."""
    try:
        model = FormulaTransformer(**formulas).fit(frame)
        designs = [(frame, model.transform(frame))]
    except (ValueError, TypeError):
        return False
    with suppress(ValueError, TypeError):
        designs.append((new, model.transform(new)))
    for X, design in designs:
        assert np.isfinite(design.to_numpy()).all()
        assert design.index.equals(X.index)
        assert list(design) == list(model.get_feature_names_out())
    return True


@pytest.mark.timeout(120)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_formulas_give_a_design_or_an_error(chunk):
    rng = random.Random(chunk)
    fitted = 0
    for _ in range(FRAMES):
        frame = some_frame(rng)
        new = some_frame(rng) if rng.random() < 0.5 else frame.iloc[::-2]
        before = frame.copy(deep=True), new.copy(deep=True)
        fitted += sum(fits(some_formulas(rng), frame, new) for _ in range(FORMULAS))
        assert_frame_equal(frame, before[0])
        assert_frame_equal(new, before[1])
    assert fitted > FRAMES * FORMULAS / 20
