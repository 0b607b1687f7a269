"""Quantiles of a count distribution by bisection over the integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.float64]


def smallest_integer(
    reached: Callable[..., NDArray[np.bool_]], guess: FloatArray, *arguments: FloatArray
) -> FloatArray:
    """Return the smallest integers from 0 on at which a monotone condition holds.

    Parameters
    ----------
    reached : callable
        Function of integers and `arguments` that returns where the condition holds. If it holds at
        an integer, it holds at all larger ones.
    guess : ndarray of shape (n,)
        Integers at which the search begins.
    *arguments : ndarray of shape (n,)
        Further arguments of `reached`.

    Returns
    -------
    ndarray of shape (n,)
        The smallest integers, as floats.
    """
    low, high = _bracket(reached, guess, arguments)
    active = np.arange(guess.size)
    while True:
        middle = np.floor(low[active] + (high[active] - low[active]) / 2)
        # Beyond 2**53 the neighbours of an integer are further than one away.
        between = (middle > low[active]) & (middle < high[active])
        active, middle = active[between], middle[between]
        if not active.size:
            return high
        done = reached(middle, *(a[active] for a in arguments))
        high[active[done]] = middle[done]
        low[active[~done]] = middle[~done]


def _bracket(
    reached: Callable[..., NDArray[np.bool_]],
    guess: FloatArray,
    arguments: tuple[FloatArray, ...],
) -> tuple[FloatArray, FloatArray]:
    """Return integers at which the condition does not hold (-1 if none), and at which it does."""
    low, high = np.full_like(guess, -1.0), guess.copy()
    step = np.maximum(1.0, np.floor(guess / 64))
    has_low = np.zeros(guess.shape, dtype=bool)
    active = np.arange(guess.size)
    while active.size:  # upwards, where the condition does not hold at the guess
        done = reached(high[active], *(a[active] for a in arguments))
        low[active[~done]] = high[active[~done]]
        has_low[active[~done]] = True
        active = active[~done]
        high[active] += step[active]
        step[active] *= 2
    step = np.maximum(1.0, np.floor(guess / 64))
    active = np.flatnonzero(~has_low)
    while active.size:  # downwards, where it does
        trial = high[active] - step[active]
        is_count = trial >= 0
        active, trial = active[is_count], trial[is_count]
        done = reached(trial, *(a[active] for a in arguments))
        low[active[~done]] = trial[~done]
        active = active[done]
        high[active] = trial[done]
        step[active] *= 2
    return low, high
