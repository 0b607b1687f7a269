"""Splines and polynomials: checks of their parameters, and values outside the range of the fit."""

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

__all__ = ["check_bs", "check_cc", "check_cr", "check_poly", "with_checks", "with_margin"]

# Distance beyond either end up to which a spline is constant, as a share of its range. Cells that a
# fold of a cross-validation holds out are rarely farther out.
SPLINE_MARGIN = 0.05


def with_margin(spline: Callable[..., Any]) -> Callable[..., Any]:
    """Return a spline that is constant just beyond its range, where it would refuse values.

    Every cross-validation holds out the extreme cells of a data set in some fold. So a value
    just beyond the training range is not an error. A value far beyond is an error that names it,
    and with ``extrapolation="raise"`` every value outside the range is.

    Parameters
    ----------
    spline : callable
        A stateful transform of formulaic.

    Returns
    -------
    callable
        The transform.
    """
    signature = inspect.signature(spline)

    @functools.wraps(spline)  # copies the attribute that marks a stateful transform
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        try:
            return spline(x, *args, _state=_state, **kwargs)
        except ValueError as error:
            low, high = _state.get("lower_bound"), _state.get("upper_bound")
            arguments = _bound_arguments(signature, x, *args, **kwargs).arguments
            extrapolation = arguments.get("extrapolation")
            if low is None or high is None or extrapolation not in (None, "raise"):
                raise
            values = pd.Series(np.asarray(x))
            beyond = np.maximum(low - values, values - high)
            if not (beyond > 0).any():
                raise
            if extrapolation is None and (beyond <= SPLINE_MARGIN * (high - low)).all():
                return spline(values.clip(low, high), *args, _state=_state, **kwargs)
            raise ValueError(
                f"the value {values[beyond.idxmax()]} is outside the spline's range "
                f"[{low}, {high}] ({int((beyond > 0).sum())} of {len(values)} rows are). "
                "extrapolation='clip' or 'extend' allows it"
            ) from error

    return wrapper


def with_checks(curve: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """Return a transform that checks its parameters before it learns from data.

    Parameters
    ----------
    curve : callable
        A stateful transform.
    check : callable
        Takes the values, and the transform's parameters by name. It raises ValueError.

    Returns
    -------
    callable
        The transform.
    """
    signature = inspect.signature(curve)

    @functools.wraps(curve)
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        if not _state:
            bound = _bound_arguments(signature, x, *args, **kwargs)
            bound.apply_defaults()
            _, *parameters = bound.arguments.items()
            check(np.asarray(x, dtype=np.float64), **dict(parameters))
        return curve(x, *args, _state=_state, **kwargs)

    return wrapper


def _bound_arguments(
    signature: inspect.Signature, *args: Any, **kwargs: Any
) -> inspect.BoundArguments:
    """Return the arguments that a formula gives a transform, without those that formulaic adds."""
    given = {name: value for name, value in kwargs.items() if not name.startswith("_")}
    return signature.bind_partial(*args, **given)


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
    """Refuse B-splines with a jump, and parameters that formulaic would not follow."""
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_integer("degree", degree, 0)
    n_without_knots = degree + bool(include_intercept)
    if df is not None:
        _check_integer("df", df, max(n_without_knots, 1), f" with degree={degree}")
    _check_knots(df, knots, low, high)
    if df is not None:
        in_range = x[(low <= x) & (x <= high)]
        knots = np.quantile(in_range, np.linspace(0, 1, df - n_without_knots + 2)[1:-1])
    given = [] if knots is None else knots
    multiplicity = Counter(float(knot) for knot in given if low < knot < high)
    for knot, number in multiplicity.items():
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
    """Refuse natural splines with fewer than three knots, which include the ends of the range."""
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_size(df, knots, 3 - (constraints is not None), "a straight line is the covariate itself")
    _check_knots(df, knots, low, high)
    if knots is not None and not len(knots):
        raise ValueError(
            "knots is empty: a natural spline needs at least one knot within its range"
        )


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
    """Refuse cyclic splines without a period, and those that would not be smooth at its ends."""
    if lower_bound is None or upper_bound is None:
        raise ValueError(
            "a cyclic spline needs the two ends of its period, which the cells do not show: "
            "lower_bound=0, upper_bound=24 for hours of a day"
        )
    low, high = _check_range(x, df, lower_bound, upper_bound)
    _check_size(
        df, knots, 3 - (constraints is not None), "with fewer, the ends do not join smoothly"
    )
    _check_knots(df, knots, low, high)
    if knots is not None and len({*knots}) < 2:
        raise ValueError("a cyclic spline needs at least two different knots within its period")


def check_poly(x: NDArray[np.float64], *, degree: Any, raw: Any, **_: Any) -> None:
    """Refuse polynomials of a degree that the number of distinct values does not determine."""
    _check_integer("degree", degree, 1)
    n_values = len(np.unique(x))
    if not raw and degree >= n_values:
        raise ValueError(f"degree={degree}, but the cells of the fit have {n_values} value(s)")


def _check_range(x: NDArray[np.float64], df: Any, lower: Any, upper: Any) -> tuple[float, float]:
    for name, bound in (("lower_bound", lower), ("upper_bound", upper)):
        if bound is not None and not (_is_number(bound) and np.isfinite(bound)):
            raise ValueError(f"{name} must be a finite number, not {bound!r}")
    low = float(x.min() if lower is None else lower)
    high = float(x.max() if upper is None else upper)
    if len(x) == 1:  # all columns of one cell are aliased, whatever the curve
        return low, high
    if low == high and lower is None and upper is None:
        raise ValueError(f"all cells of the fit have the value {low}: a curve needs several values")
    if not low < high:
        raise ValueError(
            f"the range from {low} to {high} is empty: lower_bound must be below upper_bound"
        )
    n_values = len(np.unique(x[(low <= x) & (x <= high)]))
    if df is not None and n_values < 2:
        raise ValueError(
            f"df places knots at quantiles of the cells of the fit, but these have {n_values} "
            f"value(s) from {low} to {high}"
        )
    return low, high


def _check_size(df: Any, knots: Any, min_df: int, reason: str) -> None:
    if df is None and knots is None:
        raise ValueError("df or knots must be given: they set the number of columns")
    if df is not None:
        _check_integer("df", df, min_df, f": {reason}")


def _check_integer(name: str, value: Any, minimum: int, reason: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(
            f"{name}={value!r}, but it must be a whole number of at least {minimum}{reason}"
        )


def _check_knots(df: Any, knots: Any, low: float, high: float) -> None:
    if knots is None:
        return
    if df is not None:
        raise ValueError("df and knots are both given: either sets the number of columns alone")
    if not isinstance(knots, list | tuple) or not all(map(_is_number, knots)):
        raise ValueError(f"knots must be a list of numbers, not {knots!r}")
    outside = [knot for knot in knots if not low < knot < high]
    if outside:
        raise ValueError(
            f"the knot {outside[0]} is not within the range from {low} to {high}, whose ends "
            "are knots already. lower_bound and upper_bound make it wider"
        )
    if list(knots) != sorted(knots):
        raise ValueError(f"knots={list(knots)} must increase")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
