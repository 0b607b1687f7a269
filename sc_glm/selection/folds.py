"""Folds of cells: how they are split, and what standard errors need of them."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import GroupKFold, check_cv

from sc_glm._contract.validation import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray


def split_cells(
    cv: Any, X: Any, y: Any, groups: Any, codes: NDArray[np.intp]
) -> list[tuple[Any, Any]]:
    """Return the training and held-out cells of each fold; a number of folds splits groups."""
    if groups is not None:
        if cv is None or isinstance(cv, Integral):
            cv = GroupKFold() if cv is None else GroupKFold(cv)
        try:
            np.unique(np.asarray(groups))
        except TypeError:  # scikit-learn sorts the labels, which fails for several types
            groups = codes
    return list(check_cv(cv).split(X, y, groups))


def check_held_out(
    tests: Sequence[Any], codes: NDArray[np.intp], groups: Any, weights: FloatArray
) -> None:
    """Raise a ValueError if the folds contradict the assumptions of the standard errors."""
    fold_of = np.zeros(len(codes), dtype=int)  # 0: never held out
    for fold, test in enumerate(tests, start=1):
        repeated = np.flatnonzero(fold_of[test])
        if len(repeated):
            cell = np.arange(len(codes))[test][repeated[0]]
            raise ValueError(
                f"The cell in row {cell} is held out in folds {fold_of[cell]} and {fold}. The "
                "standard errors need each cell to be held out at most once."
            )
        fold_of[test] = fold
    held_out = np.flatnonzero(fold_of)
    fold_of_group = np.zeros(len(codes), dtype=int)
    fold_of_group[codes[held_out]] = fold_of[held_out]
    in_other_fold = held_out[fold_of_group[codes[held_out]] != fold_of[held_out]]
    if len(in_other_fold):
        group = np.asarray(groups)[in_other_fold[0]]
        raise ValueError(
            f"Cells of group {quoted(group)} are held out in several folds. A splitter such as "
            "GroupKFold holds out a group as a whole."
        )
    weight_of_group = np.bincount(codes[held_out], weights[held_out])
    n = weight_of_group.sum() if groups is None else np.count_nonzero(weight_of_group)
    if n < 2:
        unit = "cells" if groups is None else "groups"
        raise ValueError(f"Standard errors need at least two {unit} that are held out.")
