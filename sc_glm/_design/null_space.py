"""Null spaces of designs, and which combinations of coefficients are estimable."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Largest share of a combination in the null space that is taken for rounding.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class NullSpace:
    """Directions of a part's coefficients along which no predictor of a fit's cells changes.

    A linear combination of the coefficients is estimable if it does not change along these
    directions. A row of a design defines such a combination: the predictor of the row.

    Attributes
    ----------
    scale : ndarray of shape (n_columns,)
        Scale of each column: its root mean square, or one.
    empty : ndarray of bool of shape (n_columns,)
        Columns of zeros. Their coefficients can have any value.
    directions : ndarray of shape (n_columns, n_directions)
        Orthonormal directions of the other coefficients, after multiplication with `scale`.
    """

    scale: FloatArray
    empty: NDArray[np.bool_]
    directions: FloatArray

    @classmethod
    def of(cls, basis: FloatArray, scale: FloatArray, empty: NDArray[np.bool_]) -> "NullSpace":
        """Return the null space that a basis spans, with columns of zeros kept separately.

        Parameters
        ----------
        basis : ndarray of shape (n_columns, n_directions)
            Orthonormal basis of all directions.
        scale : ndarray of shape (n_columns,)
            Scale of each column.
        empty : ndarray of bool of shape (n_columns,)
            Columns of zeros, whose scale is unknown.
        """
        empty = empty & (np.linalg.norm(basis, axis=1) > 0.5)  # the norm is one or zero
        left, singular, _ = np.linalg.svd(np.where(empty[:, None], 0.0, basis), full_matrices=False)
        return cls(scale, empty, left[:, singular > 0.5])

    def __bool__(self) -> bool:
        """Return whether any combination of coefficients is not estimable."""
        return bool(self.empty.any() or self.directions.shape[1])

    def not_estimable(self, combinations: FloatArray, unit: float = 0.0) -> NDArray[np.bool_]:
        """Return which linear combinations of the coefficients are not estimable.

        Parameters
        ----------
        combinations : ndarray of shape (n_combinations, n_columns)
            Weights of the coefficients.
        unit : float, default=0
            Least norm, in units of `scale`, to which rounding errors are in proportion. It is 1 for
            rows of a design, which have the rounding errors of its columns.

        Returns
        -------
        ndarray of bool of shape (n_combinations,)
            True where a combination is not estimable.
        """
        result = (combinations[:, self.empty] != 0).any(axis=1)
        if self.directions.shape[1]:
            scaled = combinations / self.scale
            in_null_space = np.linalg.norm(scaled @ self.directions, axis=1)
            norm = np.maximum(np.linalg.norm(scaled, axis=1), unit)
            result |= in_null_space > _ROUNDING * norm
        return result

    def columns_of(self, row: FloatArray) -> NDArray[np.intp]:
        """Return the columns because of which a row of a design is not estimable."""
        projection = self.directions @ (self.directions.T @ (row / self.scale))
        is_involved = np.abs(projection) > _ROUNDING * np.linalg.norm(projection)
        return np.flatnonzero(np.where(self.empty, row != 0, is_involved))
