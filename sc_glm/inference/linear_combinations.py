"""Linear combinations of a model's coefficients, as hypotheses are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import block_diag

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._solver.gene_block import Designs


@dataclass(frozen=True)
class LinearCombinations:
    """Linear combinations of a model's coefficients; each test has one or several of them.

    Attributes
    ----------
    coef_matrix : ndarray of shape (n_tests, n_constraints, n_coef)
        Multiplies the coefficients of all parts, one part after the other.
    theta_matrix : ndarray of shape (n_tests, n_constraints, n_params)
        Multiplies the coordinates of the coefficients in the bases of the designs.
    estimable : ndarray of bool of shape (n_tests,)
        Whether all combinations of a test are estimable functions: they follow from the predictors
        of the cells, whatever values aliased coefficients have.
    """

    coef_matrix: FloatArray
    theta_matrix: FloatArray
    estimable: NDArray[np.bool_]

    @classmethod
    def of(cls, coef_matrix: FloatArray, designs: Designs) -> LinearCombinations:
        """Express combinations of coefficients in the bases of designs."""
        to_coef = block_diag(*[part.to_coef for part in designs.parts.values()])
        null_spaces = [part.null for part in designs.parts.values()]
        stops = np.cumsum([len(null.scale) for null in null_spaces])[:-1]
        rows = coef_matrix.reshape(-1, coef_matrix.shape[2])
        rows_of_parts = zip(null_spaces, np.split(rows, stops, axis=1), strict=True)
        not_estimable = np.any(
            [null.not_estimable(rows_of_part) for null, rows_of_part in rows_of_parts], axis=0
        )
        estimable = ~not_estimable.reshape(coef_matrix.shape[:2]).any(axis=1)
        return cls(coef_matrix, coef_matrix @ to_coef, estimable)
