"""Estimates of linear combinations of coefficients, with standard errors or reasons for none."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from sc_glm._solver.status import Status
from sc_glm.inference.covariance_estimators import covariance_estimator, estimate_covariance
from sc_glm.inference.linear_combinations import LinearCombinations

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.covariance_estimators import CovarianceEstimate, CovarianceEstimator
    from sc_glm.inference.fitted_model import FittedData


class Estimates(NamedTuple):
    """Estimates of linear combinations of coefficients.

    Attributes
    ----------
    combinations : LinearCombinations
    estimate : ndarray of shape (n_genes, n_tests, n_constraints)
    covariance : ndarray of shape (n_genes, n_params, n_params)
        Of the coordinates.
    df : ndarray of shape (n_genes, n_tests)
        Degrees of freedom of the covariance.
    reason : ndarray of str of shape (n_genes, n_tests)
        Why there is no standard error; empty if there is one.
    flat : ndarray of bool of shape (n_genes, n_tests)
        Whether the likelihood is flat along a combination of a test: its estimate is infinite, or
        the counts do not determine it.
    """

    combinations: LinearCombinations
    estimate: FloatArray
    covariance: FloatArray
    df: FloatArray
    reason: NDArray[np.object_]
    flat: NDArray[np.bool_]

    def covariances_of_test(self, number: int) -> FloatArray:
        """Return the covariance of one test's combinations, genes x constraints x constraints."""
        test = self.combinations.theta_matrix[number]
        return test @ self.covariance @ test.T

    def standard_errors(self) -> FloatArray:
        """Return the standard error of each test's first combination, (n_genes, n_tests)."""
        first = self.combinations.theta_matrix[:, 0]
        variance = np.einsum("gtl,tl->gt", first @ self.covariance, first)
        return np.where(self.reason == "", np.sqrt(np.maximum(variance, 0.0)), np.nan)

    def wald_limits(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the Wald interval of each test's first combination."""
        return wald_limits(self.estimate[..., 0], self.standard_errors(), self.df, level)


def wald_limits(
    estimate: FloatArray, error: FloatArray, df: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of Wald intervals of estimates with standard errors."""
    half_width = stats.t.isf((1 - level) / 2, df) * error
    return estimate - half_width, estimate + half_width


def estimate_coefficients(
    fitted: FittedData, kind: str, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> Estimates:
    """Return the estimates of all coefficients, each as a test of its own."""
    each = np.eye(fitted.n_coef)[:, None]
    return estimate_combinations(fitted, each, kind, groups, sample_weight)


def estimate_combinations(
    fitted: FittedData,
    coef_matrix: FloatArray,
    kind: str,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> Estimates:
    """Return the estimates of linear combinations of the coefficients.

    Parameters
    ----------
    fitted : FittedData
    coef_matrix : ndarray of shape (n_tests, n_constraints, n_coef)
        Multiplies the coefficients of all parts.
    kind, groups, sample_weight
        See :data:`~sc_glm.inference.docstring_entries.ENTRIES`.
    """
    estimator, counts = covariance_estimator(kind, fitted, groups, sample_weight)
    combinations = LinearCombinations.of(coef_matrix, estimator.designs)
    found = estimate_covariance(fitted, counts, estimator, combinations)
    coef = np.vstack([table.to_numpy() for table in fitted.params.values()])
    return Estimates(
        combinations,
        np.moveaxis(coef_matrix @ coef, 2, 0),
        found.covariance,
        found.df,
        _reasons(fitted, estimator, combinations, found),
        found.flat,
    )


def check_part(fitted: FittedData, part: str) -> None:
    """Raise a ValueError if the model has no such part."""
    if part not in fitted.params:
        raise ValueError(f"This model has no part {part!r}: its parts are {list(fitted.params)}.")


def in_all_parts(fitted: FittedData, part: str, rows: FloatArray) -> FloatArray:
    """Return combinations of the coefficients of a part as combinations of all coefficients.

    Parameters
    ----------
    fitted : FittedData
    part : str
    rows : ndarray of shape (n_combinations, n_columns)

    Returns
    -------
    ndarray of shape (n_combinations, n_coef)
        With zeros for the other parts.
    """
    of_parts = [
        rows if name == part else np.zeros((len(rows), len(table)))
        for name, table in fitted.params.items()
    ]
    return np.hstack(of_parts)


def _reasons(
    fitted: FittedData,
    estimator: CovarianceEstimator,
    combinations: LinearCombinations,
    found: CovarianceEstimate,
) -> NDArray[np.object_]:
    """Return why tests have no standard error; of several reasons the last assigned one."""
    reason = np.full(found.flat.shape, "", dtype=object)
    reason[found.df < 1] = "too few groups"
    by_cluster = estimator.kind == "cluster"
    reason[found.full_leverage] = "one group decides" if by_cluster else "one cell decides"
    status = np.broadcast_to(fitted.status[:, None], reason.shape)
    converged = status == Status.CONVERGED
    reason[found.flat] = np.where(converged, str(Status.NOT_IDENTIFIED), status)[found.flat]
    reason[~found.at_maximum] = "not at a maximum"
    limit = status == Status.ITERATION_LIMIT
    reason[limit] = status[limit]
    in_fixed_part = (combinations.theta_matrix[..., estimator.fixed] != 0).any(axis=(1, 2))
    reason[:, in_fixed_part] = "given" if fitted.has_given_size else "moderated"
    reason[:, ~combinations.estimable] = "aliased"
    return reason


def coefficient_rows(fitted: FittedData) -> pd.DataFrame:
    """Return a table with a row for each gene and coefficient, which names them."""
    rows = [(part, feature) for part, table in fitted.params.items() for feature in table.index]
    parts, features = zip(*rows, strict=True)
    n_genes = len(fitted.names)
    return pd.DataFrame(
        {
            "gene": np.repeat(fitted.names, len(rows)),
            "part": np.tile(np.array(parts, dtype=object), n_genes),
            "feature": np.tile(np.array(features, dtype=object), n_genes),
        }
    )
