"""Covariates and counts of an AnnData, as a fit reads them."""

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import covariates_in
from sc_glm._counts.anndata_matrix import (
    advice_on_other_matrices,
    check_values_of_matrix,
    find_matrix,
    matrix_name,
    read_counts,
    stored_values,
)
from sc_glm._counts.count_matrix import SAMPLED_VALUES, CountMatrix, are_counts
from sc_glm._counts.on_disk import StoredCounts, StoredMatrix


def check_anndata(adata: Any) -> AnnData:
    """Return ``adata``; raise a TypeError if it is not an AnnData."""
    if not isinstance(adata, AnnData):
        hint = " It comes first, and the model second." if hasattr(adata, "fit") else ""
        raise TypeError(f"adata must be an AnnData, not a {type(adata).__name__}.{hint}")
    return adata


def read_covariates(adata: AnnData) -> pd.DataFrame:
    """Return ``adata.obs`` as a DataFrame in memory."""
    obs: pd.DataFrame = covariates_in(check_anndata(adata))
    return obs


def covariates_of(adata_or_obs: AnnData | pd.DataFrame) -> pd.DataFrame:
    """Return the covariates of the cells of an AnnData, or a DataFrame as it is."""
    return adata_or_obs if isinstance(adata_or_obs, pd.DataFrame) else read_covariates(adata_or_obs)


def read_counts_of_fit(
    adata: AnnData, layer: str | None, budget: int | None
) -> CountMatrix | StoredCounts:
    """Return the counts of all genes, in memory or, if they exceed half the budget, in their file.

    Warn if most of them are not integers. A budget of None reads all counts into memory.
    """
    matrix = find_matrix(adata, layer)
    genes = np.asarray(adata.var_names, dtype=object)
    stored = StoredMatrix.of(matrix, matrix_name(layer))
    if stored is not None and budget is not None and 2 * stored.n_bytes() > budget:
        values = stored.sample(SAMPLED_VALUES)
        check_values_of_matrix(values, adata, layer)
        _warn_if_not_counts(values, adata, layer)
        return StoredCounts.scan(stored, genes, budget)
    matrix = read_counts(adata, layer)
    _warn_if_not_counts(stored_values(matrix), adata, layer)
    return CountMatrix.of(matrix, n_cells=adata.n_obs, names=genes)


def _warn_if_not_counts(values: NDArray[Any], adata: AnnData, layer: str | None) -> None:
    if not are_counts(values):
        warn(
            f"Most values of {matrix_name(layer)} are not integers, as if they were normalised or "
            f"logarithms; the model is one of counts.{advice_on_other_matrices(adata, layer)}"
        )
