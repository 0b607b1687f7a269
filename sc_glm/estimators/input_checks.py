"""Checks of what a regressor is given: covariates, counts and weights of cells."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import _check_sample_weight, validate_data

from sc_glm._contract.user_warnings import warn
from sc_glm._contract.validation import as_pandas, check_finite, check_numbers, check_same_order
from sc_glm._counts.count_matrix import CountMatrix, check_genes
from sc_glm._design.design import FloatArray

_CATEGORY_ADVICE = (
    " A formula makes numbers of text and categories, as in "
    "make_pipeline(FormulaTransformer('~ cell_type'), NegBinRegressor())."
)


def check_covariates(regressor: Any, X: Any, *, reset: bool) -> FloatArray:
    """Return `X` as a matrix of finite numbers.

    With ``reset`` the regressor stores the number and names of the columns. Otherwise they must be
    the columns of its fit.
    """
    X = as_pandas(X)
    check_numbers(X, "X", _CATEGORY_ADVICE)
    covariates: FloatArray = validate_data(
        regressor, X, dtype=np.float64, reset=reset, ensure_all_finite=False
    )
    names = getattr(regressor, "feature_names_in_", [f"x{i}" for i in range(covariates.shape[1])])
    check_finite(covariates, names)
    return covariates


def check_counts_of_fit(X: Any, y: Any, n_cells: int, *, dtype: str) -> CountMatrix:
    """Return the counts of a fit; warn if most of them are not integers."""
    check_same_order(X, y, "y")
    counts = CountMatrix.of(y, n_cells=n_cells)
    if dtype == "float32":
        counts.check_single_precision()
    if counts is not y and not counts.look_like_counts():
        warn(
            "Most values of y are not integers, as if they were normalised, logarithms or "
            "covariates; the model is one of counts, cells x genes."
        )
    return counts


def check_counts_of_genes(X: Any, y: Any, n_cells: int, genes: NDArray[np.object_]) -> CountMatrix:
    """Return counts to be evaluated under a fitted model, which must be counts of its genes."""
    check_same_order(X, y, "y")
    counts = CountMatrix.of(y, n_cells=n_cells)
    if counts.n_genes != len(genes):
        raise ValueError(f"y has {counts.n_genes} genes, but the model was fitted on {len(genes)}.")
    check_genes(y, genes)
    return counts


def check_sample_weight(sample_weight: Any, X: Any, rows: FloatArray) -> FloatArray:
    """Return one weight, at least zero, for each of ``rows``, which belong to `X`."""
    check_numbers(sample_weight, "sample_weight")
    check_same_order(X, sample_weight, "sample_weight")
    weights: FloatArray = _check_sample_weight(
        sample_weight, rows, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():  # some versions of scikit-learn accept these
        raise ValueError("sample_weight is zero for every cell.")
    return weights


def drop_cells_of_zero_weight(
    counts: CountMatrix, weights: FloatArray, covariates: FloatArray
) -> tuple[CountMatrix, FloatArray, FloatArray]:
    """Return the counts, weights and covariates of the cells of positive weight."""
    if weights.all():
        return counts, weights, covariates
    positive = np.flatnonzero(weights)
    return counts[positive], weights[positive], covariates[positive]
