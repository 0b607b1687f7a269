"""What the expressions of a formula may name, and what to write in place of what they may not."""

from __future__ import annotations

import difflib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


class Signature(NamedTuple):
    """What a function may be given: expressions first, then what is known before any data."""

    expressions: int = 1
    constants: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    text: bool = False
    """Whether expressions may be text."""
    limits: Mapping[str, int] = {}
    """Largest number, or length of a list, by the name of a constant."""


_SPLINE: Mapping[str, int] = {"df": 200, "knots": 200, "degree": 20}
_CUBIC = Signature(
    constants=("df", "knots", "lower_bound", "upper_bound", "constraints"),
    keywords=("extrapolation",),
    limits=_SPLINE,
)

# Of several columns, or factors: nothing can be computed with them.
TERMS: Mapping[str, Signature] = {
    "C": Signature(
        constants=("contrasts",),
        keywords=("levels", "spans_intercept"),
        text=True,
    ),
    "hashed": Signature(
        constants=("levels", "contrasts"),
        keywords=("spans_intercept",),
        text=True,
        limits={"levels": 1000},
    ),
    "bs": Signature(
        constants=(
            "df",
            "knots",
            "degree",
            "include_intercept",
            "lower_bound",
            "upper_bound",
            "extrapolation",
        ),
        limits=_SPLINE,
    ),
    "cc": _CUBIC,
    "cr": _CUBIC,
    "cs": _CUBIC,
    "poly": Signature(constants=("degree", "raw"), limits=_SPLINE),
}

TRANSFORMS: Mapping[str, Signature] = {
    **TERMS,
    **dict.fromkeys(("center", "exp", "exp10", "exp2", "log", "log10", "log2"), Signature()),
    "I": Signature(text=True),
    "Q": Signature(expressions=0, constants=("variable",)),
    "scale": Signature(constants=("center", "scale", "ddof")),
    "standardize": Signature(constants=("center", "rescale", "ddof")),
}

# formulaic finds their state under the text of the call, which it pastes between quotes.
STATEFUL = frozenset({"Q", "bs", "cc", "center", "cr", "cs", "poly", "scale", "standardize"})

# Functions of conditions, levels or bits: what they are given is not made a number before.
AS_THEY_ARE = frozenset(
    {
        *("C", "I", "hashed", "where", "isin", "ldexp", "gcd", "right_shift"),
        *("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"),
        *("logical_and", "logical_not", "logical_or", "logical_xor"),
        *("bitwise_and", "bitwise_count", "bitwise_invert", "bitwise_not", "bitwise_or"),
        *("bitwise_right_shift", "bitwise_xor", "invert"),
    }
)
# Functions of whole numbers alone, which overflow without a word.
OVERFLOWING = frozenset({"bitwise_left_shift", "lcm", "left_shift"})

CONTRAST_CLASSES = frozenset({"Diff", "Helmert", "Poly", "Sum"})
CONTRASTS = frozenset({"SAS", "custom", "diff", "helmert", "poly", "sum", "treatment"})


def _ufuncs() -> dict[str, Signature]:
    """Return NumPy's elementwise functions, without a place for `out`, which overwrites."""
    return {
        name: Signature(function.nin)
        for name, function in vars(np).items()
        if isinstance(function, np.ufunc)
        and function.signature is None
        and function.nout == 1
        and name not in OVERFLOWING
    }


NUMPY: Mapping[str, Signature] = {
    **_ufuncs(),
    **dict.fromkeys(("fix", "i0", "isneginf", "isposinf", "sinc"), Signature()),
    **dict.fromkeys(("around", "round"), Signature(constants=("decimals",))),
    "clip": Signature(constants=("a_min", "a_max"), keywords=("min", "max")),
    "digitize": Signature(constants=("bins", "right")),
    "interp": Signature(constants=("xp", "fp", "left", "right", "period")),
    "isclose": Signature(expressions=2, constants=("rtol", "atol", "equal_nan")),
    "isin": Signature(constants=("test_elements",), keywords=("invert",), text=True),
    "nan_to_num": Signature(keywords=("nan", "posinf", "neginf")),
    "where": Signature(expressions=3, text=True),
}
NUMBERS = {name: getattr(np, name) for name in ("e", "euler_gamma", "inf", "nan", "pi")}


def _clip(x: Any, *bounds: Any, **named: Any) -> Any:
    return np.clip(np.asarray(x), *bounds, **named)


# What an expression has as `np`. Of a column, NumPy's clip would be pandas's, to which every bound
# of a condition is true or false; fix is deprecated, and gives what trunc gives.
_OWN = {"clip": _clip, "fix": np.trunc}
NAMESPACE = SimpleNamespace(
    **NUMBERS, **_OWN, **{name: getattr(np, name) for name in NUMPY if name not in _OWN}
)

# Functions and methods that users reach for, of which the value is not a row's own.
MIX_ROWS = (
    "amax",
    "amin",
    "any",
    "all",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "average",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "diff",
    "gradient",
    "lag",
    "len",
    "max",
    "mean",
    "median",
    "min",
    "nanmax",
    "nanmean",
    "nanmedian",
    "nanmin",
    "nanstd",
    "nansum",
    "nanvar",
    "percentile",
    "prod",
    "ptp",
    "quantile",
    "rank",
    "roll",
    "shift",
    "sort",
    "sorted",
    "std",
    "sum",
    "unique",
    "var",
)
_ALIKE = 0.75  # names that may be one misspelled, as difflib compares them
_ROWS = (
    "its value depends on the other rows, so that it would change with new data. Use "
    "transforms that keep their state, such as center, scale, poly or bs"
)
FUNCTIONS = "there are formulaic's transforms and NumPy's elementwise functions, no others"
LANGUAGE = "expressions are arithmetic, comparisons and calls of functions"
BRACKETS = "write (a) & (b), (a) | (b) or ~(a) for conditions on columns"
# Why a piece of Python is refused, where there is something to say beside that.
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(MIX_ROWS, _ROWS),
    **dict.fromkeys(("apply", "map", "replace", "select"), "write np.where(x == 'a', 1, 0)"),
    **dict.fromkeys(("factor", "as_factor"), "write C(x)"),
    "relevel": "write C(x, contr.treatment('a')), with 'a' for the reference",
    "interaction": "write a:b",
    **dict.fromkeys(("s", "te", "ti", "lo"), "write a spline of so many columns, bs(x, df=5)"),
    "ns": "write cr(x, df=3, constraints='center'), which is ns(x, df=3) of R",
    "offset": "an offset is a formula of its own, FormulaTransformer(..., offset='np.log(x)')",
    "astype": "write C(x) for a factor; numbers are computed with as they are",
    "between": "write (low <= x) & (x <= high)",
    "pow": "write x**2",
    # To Python `^` is another operator, which turns whole numbers into wrong ones without a word.
    "BitXor": "write x**2 for a power, (a) != (b) for one condition without the other",
    "LShift": "write x * 2**n, which does not overflow",
    "BoolOp": BRACKETS,
    "IfExp": "write np.where(condition, a, b)",
    "Not": BRACKETS,
    "In": "write np.isin(x, ['a', 'b'])",
    "NotIn": "write ~np.isin(x, ['a', 'b'])",
    "Subscript": "a row is computed from itself alone",
}


def instead(name: str) -> str:
    """Say what to write for an attribute, or for a function of Python, NumPy or R."""
    if name in NUMPY:
        return f"write np.{name}(...)"
    if name in INSTEAD:
        return INSTEAD[name]
    known = {**{other: f"np.{other}" for other in NUMPY}, **{other: other for other in TRANSFORMS}}
    close = difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE)
    return f"{FUNCTIONS}; {known[close[0]]} may be meant" if close else FUNCTIONS
