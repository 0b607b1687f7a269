"""Curves of a covariate: which can be made, and how they go on beyond the range of the fit."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["check_bs", "check_cc", "check_cr", "check_poly", "checked", "with_margin"]

# How far beyond its range a spline is held, as a share of the range.
SPLINE_MARGIN = 0.05


def with_margin(spline: Callable[..., Any]) -> Callable[..., Any]:
    """Let a spline that refuses to extrapolate hold its end value for a little way.

    The extreme cells of a data set are held out by one fold of every cross-validation: a value
    just beyond the training range is no error. One that is far beyond is, and is named, as is any
    if the formula says ``extrapolation="raise"``.
    """
    signature = inspect.signature(spline)

    @functools.wraps(spline)  # also the mark by which formulaic knows a stateful transform
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        try:
            return spline(x, *args, _state=_state, **kwargs)
        except ValueError as error:
            low, high = _state.get("lower_bound"), _state.get("upper_bound")
            how = _told(signature, x, *args, **kwargs).arguments.get("extrapolation")
            if low is None or high is None or how not in (None, "raise"):
                raise
            values = pd.Series(np.asarray(x))
            beyond = np.maximum(low - values, values - high)
            if not (beyond > 0).any():
                raise
            if how is None and (beyond <= SPLINE_MARGIN * (high - low)).all():
                return spline(values.clip(low, high), *args, _state=_state, **kwargs)
            raise ValueError(
                f"the value {values[beyond.idxmax()]} is outside the spline's range "
                f"[{low}, {high}] ({int((beyond > 0).sum())} of {len(values)} rows are). "
                "extrapolation='clip' or 'extend' allows it"
            ) from error

    return wrapper


def checked(curve: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """Let a transform check what it is told before it learns from data.

    Parameters
    ----------
    curve : callable
        A stateful transform.
    check : callable
        Gets the values and all that a formula tells the transform, by name, and raises ValueError.

    Returns
    -------
    callable
        The transform.
    """
    signature = inspect.signature(curve)

    @functools.wraps(curve)
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        if not _state:
            told = _told(signature, x, *args, **kwargs)
            told.apply_defaults()
            _, *given = told.arguments.items()
            check(np.asarray(x, dtype=np.float64), **dict(given))
        return curve(x, *args, _state=_state, **kwargs)

    return wrapper


def _told(signature: inspect.Signature, *args: Any, **kwargs: Any) -> inspect.BoundArguments:
    """Return what a formula tells a transform, without what formulaic adds to it."""
    own = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    return signature.bind_partial(*args, **own)


def check_bs(
    x: NDArray[np.float64],
    *,
    df: Any,
    knots: Any,
    degree: Any,
    include_intercept: Any,
    lower_bound: Any,
    upper_bound: Any,
    **_: Any,
) -> None:
    """Refuse B-splines that jump, or that formulaic would make otherwise than is written."""
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_whole("degree", degree, 0)
    fewest = degree + bool(include_intercept)
    if df is not None:
        _check_whole("df", df, max(fewest, 1), f" with degree={degree}")
    _check_knots(df, knots, low, high)
    if df is not None:
        inside = x[(low <= x) & (x <= high)]
        knots = np.quantile(inside, np.linspace(0, 1, df - fewest + 2)[1:-1])
    times = Counter(float(knot) for knot in ([] if knots is None else knots) if low < knot < high)
    for knot, number in times.items():
        if number > max(degree, 1):
            raise ValueError(
                f"the curve would jump at {knot}, where {number} knots are. Give each knot once, "
                "or a smaller df, whose knots are quantiles of the cells"
            )


def check_cr(
    x: NDArray[np.float64],
    *,
    df: Any,
    knots: Any,
    lower_bound: Any,
    upper_bound: Any,
    constraints: Any,
    **_: Any,
) -> None:
    """Refuse natural splines of fewer than three knots, ends included, which formulaic fails at."""
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_size(df, knots, 3 - (constraints is not None), "a straight line is the covariate itself")
    _check_knots(df, knots, low, high)
    if knots is not None and not len(knots):
        raise ValueError("knots is empty: a natural spline has one at least within its range")


def check_cc(
    x: NDArray[np.float64],
    *,
    df: Any,
    knots: Any,
    lower_bound: Any,
    upper_bound: Any,
    constraints: Any,
    **_: Any,
) -> None:
    """Refuse cyclic splines without a period, and those that formulaic does not close smoothly."""
    if lower_bound is None or upper_bound is None:
        raise ValueError(
            "a cyclic spline needs the two ends of its period, which the cells do not tell: "
            "lower_bound=0, upper_bound=24 for hours of a day"
        )
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_size(df, knots, 3 - (constraints is not None), "fewer do not close smoothly")
    _check_knots(df, knots, low, high)
    if knots is not None and len({*knots}) < 2:
        raise ValueError("a cyclic spline has two knots at least within its period")


def check_poly(x: NDArray[np.float64], *, degree: Any, raw: Any, **_: Any) -> None:
    """Refuse polynomials that are not determined by the values."""
    _check_whole("degree", degree, 1)
    n_values = len(np.unique(x))
    if not raw and degree >= n_values:
        raise ValueError(f"degree={degree}, but the cells of the fit have {n_values} value(s)")


def _check_range(x: NDArray[np.float64], df: Any, lower: Any, upper: Any) -> tuple[float, float]:
    for name, bound in (("lower_bound", lower), ("upper_bound", upper)):
        if bound is not None and not (_is_number(bound) and np.isfinite(bound)):
            raise ValueError(f"{name} is a number, not {bound!r}")
    low = float(x.min() if lower is None else lower)
    high = float(x.max() if upper is None else upper)
    if len(x) == 1:  # all columns of one cell are aliased, whatever the curve
        return low, high
    if low == high and lower is None and upper is None:
        raise ValueError(f"all cells of the fit have the value {low}: there is no curve over it")
    if not low < high:
        raise ValueError(f"the range from {low} to {high} is empty: lower_bound is its lower end")
    n_values = len(np.unique(x[(low <= x) & (x <= high)]))
    if df is not None and n_values < 2:
        raise ValueError(
            f"the knots that df asks for are quantiles of the cells of the fit, which have "
            f"{n_values} value(s) from {low} to {high}"
        )
    return low, high


def _check_size(df: Any, knots: Any, fewest: int, why: str) -> None:
    if df is None and knots is None:
        raise ValueError("df or knots says how many columns there are, and neither is given")
    if df is not None:
        _check_whole("df", df, fewest, f": {why}")


def _check_whole(name: str, value: Any, fewest: int, why: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < fewest:
        raise ValueError(f"{name}={value!r}, but it is a whole number of at least {fewest}{why}")


def _check_knots(df: Any, knots: Any, low: float, high: float) -> None:
    if knots is None:
        return
    if df is not None:
        raise ValueError("df and knots are both given: either says how many columns there are")
    if not isinstance(knots, list | tuple) or not all(map(_is_number, knots)):
        raise ValueError(f"knots is a list of numbers, not {knots!r}")
    outside = [knot for knot in knots if not low < knot < high]
    if outside:
        raise ValueError(
            f"the knot {outside[0]} is not within the range from {low} to {high}, whose ends "
            "are knots already. lower_bound and upper_bound make it wider"
        )
    if list(knots) != sorted(knots):
        raise ValueError(f"knots={list(knots)} do not increase")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
