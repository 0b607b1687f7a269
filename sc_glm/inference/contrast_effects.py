"""Sizes of genes and of effects beside tests: average counts, fractions of cells, ranges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm.inference.fitted_model import FittedData

_MAX_DENSE_ENTRIES = 2_000_000  # cells x genes at a time


def mean_counts(counts: CountMatrix, weights: FloatArray) -> FloatArray:
    """Return each gene's average count over the cells."""
    return np.asarray(counts.by_column.T @ weights).ravel() / weights.sum()


def fractions_with_counts(
    counts: CountMatrix, weights: FloatArray, sets: Sequence[NDArray[np.bool_]]
) -> FloatArray:
    """Return the fraction of cells with counts in several sets of cells.

    Returns
    -------
    ndarray of shape (n_genes, n_sets)
        NaN for a set without cells of positive weight.
    """
    matrix: Any = counts.by_column
    step = max(1, _MAX_DENSE_ENTRIES // len(weights))
    if isinstance(matrix, sp.csc_array):
        ones = np.ones(matrix.nnz)
        positives = [sp.csr_array((ones, matrix.indices, matrix.indptr), shape=matrix.shape[::-1])]
    else:
        genes = range(0, counts.n_genes, step)
        positives = [(matrix[:, g : g + step] > 0).T for g in genes]
    fractions = np.empty((counts.n_genes, len(sets)))
    for first in range(0, len(sets), step):
        chosen = slice(first, first + step)
        in_set = np.column_stack(sets[chosen]) * weights[:, None]
        totals = in_set.sum(axis=0)
        sums = np.vstack([positive @ in_set for positive in positives])
        fractions[:, chosen] = sums / np.where(totals > 0, totals, np.nan)
    return fractions


def predictor_ranges(
    fitted: FittedData, part: str, columns: NDArray[np.intp], cells: NDArray[np.intp]
) -> FloatArray:
    """Return the largest minus the smallest contribution of some columns to the predictor.

    Parameters
    ----------
    fitted : FittedData
    part : str
    columns : ndarray of int
        Positions of columns of the part.
    cells : ndarray of int
        Positions of the cells over which the range is taken.

    Returns
    -------
    ndarray of shape (n_genes,)
    """
    rows = np.unique(fitted.designs[part][cells][:, columns], axis=0)
    coef = fitted.params[part].to_numpy()[columns]
    step = max(1, _MAX_DENSE_ENTRIES // len(rows))
    genes = range(0, coef.shape[1], step)
    return np.concatenate([np.ptp(rows @ coef[:, g : g + step], axis=0) for g in genes])
