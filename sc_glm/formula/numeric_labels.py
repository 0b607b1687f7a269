"""A warning of whole numbers that look like labels, but get one slope in a formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_glm._contract.user_warnings import warn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["count_label_like_values", "warn_of_slopes"]

# Distinct values. Studies rarely number more donors, batches or clusters than this.
MAX_LABELS = 15


def count_label_like_values(names: Iterable[str], data: Mapping[str, Any]) -> dict[str, int]:
    """Return the columns that look like labels, and how many distinct values each has.

    Labels are whole numbers with few distinct values, which fill more than half of the range from
    the smallest to the largest. Doses and times seldom do. A column of two values is left out: its
    slope is the difference between two groups.

    Parameters
    ----------
    names : iterable of str
        Columns that are terms of a formula by themselves.
    data : mapping of str to array
        Values of the columns.

    Returns
    -------
    dict of str to int
    """
    n_values = {}
    for name in sorted(names):
        if getattr(data[name], "dtype", None) == np.int64:
            values = np.unique(data[name])
            if 2 < len(values) <= MAX_LABELS and 2 * len(values) > values[-1] - values[0] + 1:
                n_values[name] = len(values)
    return n_values


def warn_of_slopes(n_values: Mapping[str, int]) -> None:
    """Warn that columns get one slope each.

    Parameters
    ----------
    n_values : mapping of str to int
        How many distinct values each of the columns has.
    """
    listed = ", ".join(f"{name!r} ({number} values)" for name, number in n_values.items())
    first = next(iter(n_values))
    term = first if first.isidentifier() else f"`{first}`"
    warn(
        f"Whole numbers get one slope in a formula, from the first value to the last: {listed}. If "
        f"they are labels, write C({term}). If they are numbers, write I({term})."
    )
