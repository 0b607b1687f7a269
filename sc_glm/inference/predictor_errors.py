"""Linear predictors of cells, with their covariances from the errors of the coefficients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit

from sc_glm._contract.validation import as_pandas
from sc_glm._likelihood.family import MEAN, ZERO_INFLATION
from sc_glm._solver.status import Status
from sc_glm.estimators.pipeline import last_step
from sc_glm.inference.estimates import estimate_combinations, in_all_parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.fitted_model import FittedData

# Zero inflation below which it counts as absent if its log odds are infinite
_ABSENT = 1e-4
# Reasons of predictors whose estimates may be infinite
_INFINITE = [
    str(status) for status in (Status.NO_INFLATION, Status.POISSON_NO_INFLATION, Status.SEPARATED)
]
_MAX_ENTRIES = 500_000  # cells x genes of a block


class PredictorErrors(NamedTuple):
    """Linear predictors of a block of genes with their errors; arrays are cells x genes.

    Attributes
    ----------
    genes : slice
    predictors : dict of str to ndarray
        Linear predictors of the parts. The predictor of the mean includes the offset.
    covariances : dict of tuple of str to ndarray
        Covariances of the predictors of two parts. They are zero if one of them has a reason.
    df : dict of str to ndarray
        Degrees of freedom of the variances of the parts.
    reason : dict of str to ndarray of str
        Why the predictor of a part has no standard error; empty if it has one.
    """

    genes: slice
    predictors: dict[str, FloatArray]
    covariances: dict[tuple[str, str], FloatArray]
    df: dict[str, FloatArray]
    reason: dict[str, NDArray[np.object_]]

    def inflation_reason(self) -> NDArray[np.object_]:
        """Return why the zero inflation is unknown; empty also where it is absent or not a part.

        Where there is no zero inflation, its log odds are minus infinity and matter to no count.
        """
        if ZERO_INFLATION not in self.reason:
            return np.full_like(self.reason[MEAN], "")
        reason = self.reason[ZERO_INFLATION]
        is_infinite = np.isin(reason, _INFINITE)
        return np.where(
            is_infinite & (expit(self.predictors[ZERO_INFLATION]) < _ABSENT), "", reason
        )


def labels_of_cells(X: Any, n_cells: int) -> pd.Index:
    """Return the labels of the rows of `X`, or their numbers."""
    frame = as_pandas(X)
    return frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(n_cells)


def predictor_errors(
    fitted: FittedData,
    model: Any,
    X_new: Any,
    *,
    kind: str,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> Iterator[PredictorErrors]:
    """Yield the predictors of new cells with their errors, by blocks of genes.

    Parameters
    ----------
    fitted : FittedData
        Data of the fit.
    model : estimator
        The fitted model.
    X_new : array-like, DataFrame or AnnData
        Covariates of the new cells.
    kind, groups, sample_weight
        See :data:`~sc_glm.inference.docstring_entries.ENTRIES`.
    """
    _, design = last_step(model, X_new)
    designs = fitted.at_rows(design).designs
    # Cells with the same rows have the same errors; the offset has none.
    distinct, cells = np.unique(np.hstack(list(designs.values())), axis=0, return_inverse=True)
    stops = np.cumsum([rows.shape[1] for rows in designs.values()])[:-1]
    rows_of_parts = np.split(distinct, stops, axis=1)
    tests = np.vstack(
        [
            in_all_parts(fitted, part, rows)
            for part, rows in zip(designs, rows_of_parts, strict=True)
        ]
    )[:, None]
    n_genes, step = len(fitted.names), max(1, _MAX_ENTRIES // len(cells))
    for first in range(0, n_genes, step):
        genes = np.arange(first, min(first + step, n_genes))
        some = fitted.of_genes(genes)
        estimates = estimate_combinations(some, tests, kind, groups, sample_weight)
        predictors = some.at_rows(design).predictors(slice(None))
        yield _errors_of_block(
            slice(first, first + len(genes)),
            dict(zip(designs, predictors, strict=True)),
            estimates,
            cells.ravel(),
        )


def _errors_of_block(
    genes: slice,
    predictors: dict[str, FloatArray],
    estimates: Estimates,
    cells: NDArray[np.intp],
) -> PredictorErrors:
    """Arrange the estimates of distinct rows, one part after the other, by cells and parts."""
    parts, n_parts = list(predictors), len(predictors)
    reasons = np.split(estimates.reason, n_parts, axis=1)
    dfs = np.split(estimates.df, n_parts, axis=1)
    combinations = np.split(estimates.combinations.theta_matrix[:, 0], n_parts)
    covariances = {}
    for i, rows in enumerate(combinations):
        projected = rows @ estimates.covariance
        for j in range(i, n_parts):
            covariance = (projected * combinations[j]).sum(axis=2)
            covariance[(reasons[i] != "") | (reasons[j] != "")] = 0.0
            covariances[parts[i], parts[j]] = covariance.T[cells]
    return PredictorErrors(
        genes,
        predictors,
        covariances,
        {part: df.T[cells] for part, df in zip(parts, dfs, strict=True)},
        {part: reason.T[cells] for part, reason in zip(parts, reasons, strict=True)},
    )
