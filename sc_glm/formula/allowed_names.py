"""The functions that expressions of a formula may call, and what to write in place of others."""

from __future__ import annotations

import difflib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


class Signature(NamedTuple):
    """Arguments of a function: expressions by position first, then constants."""

    n_expressions: int = 1
    constants: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    allows_text: bool = False
    """Whether expressions may be strings."""
    limits: Mapping[str, int] = {}
    """Largest value of a constant, or largest length of its list, by its name."""


_SPLINE_LIMITS: Mapping[str, int] = {"df": 200, "knots": 200, "degree": 20}
_CUBIC_SPLINE = Signature(
    constants=("df", "knots", "lower_bound", "upper_bound", "constraints"),
    keywords=("extrapolation",),
    limits=_SPLINE_LIMITS,
)

# Their values are factors or several columns, with which nothing can be computed.
TERM_FUNCTIONS: Mapping[str, Signature] = {
    "C": Signature(
        constants=("contrasts",),
        keywords=("levels", "spans_intercept"),
        allows_text=True,
    ),
    "hashed": Signature(
        constants=("levels", "contrasts"),
        keywords=("spans_intercept",),
        allows_text=True,
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
        limits=_SPLINE_LIMITS,
    ),
    "cc": _CUBIC_SPLINE,
    "cr": _CUBIC_SPLINE,
    "cs": _CUBIC_SPLINE,
    "poly": Signature(constants=("degree", "raw"), limits=_SPLINE_LIMITS),
}

UNQUALIFIED_FUNCTIONS: Mapping[str, Signature] = {
    **TERM_FUNCTIONS,
    **dict.fromkeys(("center", "exp", "exp10", "exp2", "log", "log10", "log2"), Signature()),
    "I": Signature(allows_text=True),
    "Q": Signature(n_expressions=0, constants=("variable",)),
    "scale": Signature(constants=("center", "scale", "ddof")),
    "standardize": Signature(constants=("center", "rescale", "ddof")),
}

# formulaic stores their state under the text of the call, which it puts between quotes.
STATEFUL = frozenset({"Q", "bs", "cc", "center", "cr", "cs", "poly", "scale", "standardize"})

# Functions of conditions, levels or bits, whose arguments are not converted to float64.
NOT_CONVERTED_TO_FLOAT = frozenset(
    {
        *("C", "I", "hashed", "where", "isin", "ldexp", "gcd", "right_shift"),
        *("equal", "not_equal", "greater", "greater_equal", "less", "less_equal"),
        *("logical_and", "logical_not", "logical_or", "logical_xor"),
        *("bitwise_and", "bitwise_count", "bitwise_invert", "bitwise_not", "bitwise_or"),
        *("bitwise_right_shift", "bitwise_xor", "invert"),
    }
)
# Functions of whole numbers that overflow silently. They are not allowed.
OVERFLOWING = frozenset({"bitwise_left_shift", "lcm", "left_shift"})

CONTRAST_CLASSES = frozenset({"Diff", "Helmert", "Poly", "Sum"})
CONTRASTS = frozenset({"SAS", "custom", "diff", "helmert", "poly", "sum", "treatment"})


def _ufuncs() -> dict[str, Signature]:
    """Return NumPy's elementwise functions, without `out`, which would be overwritten."""
    return {
        name: Signature(function.nin)
        for name, function in vars(np).items()
        if isinstance(function, np.ufunc)
        and function.signature is None
        and function.nout == 1
        and name not in OVERFLOWING
    }


NUMPY_FUNCTIONS: Mapping[str, Signature] = {
    **_ufuncs(),
    **dict.fromkeys(("fix", "i0", "isneginf", "isposinf", "sinc"), Signature()),
    **dict.fromkeys(("around", "round"), Signature(constants=("decimals",))),
    "clip": Signature(constants=("a_min", "a_max"), keywords=("min", "max")),
    "digitize": Signature(constants=("bins", "right")),
    "interp": Signature(constants=("xp", "fp", "left", "right", "period")),
    "isclose": Signature(n_expressions=2, constants=("rtol", "atol", "equal_nan")),
    "isin": Signature(constants=("test_elements",), keywords=("invert",), allows_text=True),
    "nan_to_num": Signature(keywords=("nan", "posinf", "neginf")),
    "where": Signature(n_expressions=3, allows_text=True),
}
NUMPY_CONSTANTS = {name: getattr(np, name) for name in ("e", "euler_gamma", "inf", "nan", "pi")}


def _clip(x: Any, *bounds: Any, **named: Any) -> Any:
    return np.clip(np.asarray(x), *bounds, **named)


# In place of NumPy's own: for a column, np.clip calls the method of pandas, which takes bounds of a
# condition for conditions. np.fix is deprecated, and equals np.trunc.
_REPLACED_FUNCTIONS = {"clip": _clip, "fix": np.trunc}
# What expressions see as `np`.
NAMESPACE = SimpleNamespace(
    **NUMPY_CONSTANTS,
    **_REPLACED_FUNCTIONS,
    **{name: getattr(np, name) for name in NUMPY_FUNCTIONS if name not in _REPLACED_FUNCTIONS},
)

# Common functions and methods whose value for a row depends on other rows.
ROW_MIXING = (
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
_MIN_SIMILARITY = 0.75  # ratio of difflib from which on a name may be a misspelled function
_MIXES_ROWS = (
    "its value depends on the other rows, so that it would change with new data. Use "
    "transforms that keep their state, such as center, scale, poly or bs"
)
ALLOWED_FUNCTIONS = (
    "the allowed functions are formulaic's transforms and NumPy's elementwise functions"
)
ALLOWED_SYNTAX = "an expression consists of arithmetic, comparisons and calls of functions"
CONDITIONS_SYNTAX = "write (a) & (b), (a) | (b) or ~(a) for conditions on columns"
# What to write in place of functions, methods and syntax that are refused.
REPLACEMENTS: Mapping[str, str] = {
    **dict.fromkeys(ROW_MIXING, _MIXES_ROWS),
    **dict.fromkeys(("apply", "map", "replace", "select"), "write np.where(x == 'a', 1, 0)"),
    **dict.fromkeys(("factor", "as_factor"), "write C(x)"),
    "relevel": "write C(x, contr.treatment('a')), with 'a' for the reference",
    "interaction": "write a:b",
    **dict.fromkeys(("s", "te", "ti", "lo"), "write bs(x, df=5), a spline of five columns"),
    "ns": "write cr(x, df=3, constraints='center'), which spans the curves of R's ns(x, df=3)",
    "offset": "an offset has its own formula, FormulaTransformer(..., offset='np.log(x)')",
    "astype": "write C(x) for a factor; numbers need no conversion",
    "between": "write (low <= x) & (x <= high)",
    "pow": "write x**2",
    # In Python, `^` is the exclusive or of bits, whose results for whole numbers would be wrong.
    "BitXor": "write x**2 for a power, (a) != (b) for the exclusive or of conditions",
    "LShift": "write x * 2**n, which does not overflow",
    "BoolOp": CONDITIONS_SYNTAX,
    "IfExp": "write np.where(condition, a, b)",
    "Not": CONDITIONS_SYNTAX,
    "In": "write np.isin(x, ['a', 'b'])",
    "NotIn": "write ~np.isin(x, ['a', 'b'])",
    "Subscript": "the value of a row may not depend on other rows",
}


def replacement_hint(name: str) -> str:
    """Return what to write in place of an attribute, or of a function of Python, NumPy or R."""
    if name in NUMPY_FUNCTIONS:
        return f"write np.{name}(...)"
    if name in REPLACEMENTS:
        return REPLACEMENTS[name]
    known = {
        **{other: f"np.{other}" for other in NUMPY_FUNCTIONS},
        **{other: other for other in UNQUALIFIED_FUNCTIONS},
    }
    similar = difflib.get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)
    hint = f"; {known[similar[0]]} may be meant" if similar else ""
    return f"{ALLOWED_FUNCTIONS}{hint}"
