"""Splines that hold their end value for a little way beyond the range of the fit."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["with_margin"]

# How far beyond its range a spline is held, as a share of the range.
SPLINE_MARGIN = 0.05


def with_margin(spline: Callable[..., Any]) -> Callable[..., Any]:
    """Let a spline that refuses to extrapolate hold its end value for a little way.

    The extreme cells of a data set are held out by one fold of every cross-validation: a value
    just beyond the training range is no error. One that is far beyond is, and is named.
    """

    @functools.wraps(spline)  # also the mark by which formulaic knows a stateful transform
    def wrapper(x: Any, *args: Any, _state: dict[str, Any], **kwargs: Any) -> Any:
        try:
            return spline(x, *args, _state=_state, **kwargs)
        except ValueError as error:
            low, high = _state.get("lower_bound"), _state.get("upper_bound")
            if low is None or high is None:
                raise
            values = pd.Series(np.asarray(x))
            beyond = np.maximum(low - values, values - high)
            if not (beyond > 0).any():
                raise
            if (beyond <= SPLINE_MARGIN * (high - low)).all():
                return spline(values.clip(low, high), *args, _state=_state, **kwargs)
            raise ValueError(
                f"the value {values[beyond.idxmax()]} is outside the spline's range "
                f"[{low}, {high}] ({int((beyond > 0).sum())} of {len(values)} rows are). "
                "extrapolation='clip' or 'extend' allows it"
            ) from error

    return wrapper
