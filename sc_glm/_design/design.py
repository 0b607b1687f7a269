"""The design of each part in coordinates that make it orthonormal.

Whatever the scales and dependencies of the columns are, the solver works on an orthonormal basis of
their span. :class:`PartDesign` has the basis, and the matrices that transform coefficients.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from sc_glm._design.null_space import NullSpace

FloatArray = NDArray[np.float64]

_REFINEMENTS = 3  # steps of iterative refinement of the coefficients of smallest norm
_ALIGNED = 1e-10  # sine of the angle below which two directions count as equal


class Levels(NamedTuple):
    """Basis vectors that are indicators of the levels of a factor.

    Attributes
    ----------
    codes : ndarray of int of shape (n_cells,)
        Number of each cell's level.
    scale : ndarray of shape (n_levels,)
        Factor of each indicator, which gives it a weighted mean square of one.
    """

    codes: NDArray[np.intp]
    scale: FloatArray


@dataclass(frozen=True)
class PartDesign:
    """A design matrix in coordinates that make it orthonormal.

    Attributes
    ----------
    U : ndarray of shape (n_cells, rank)
        Basis of the column space, orthogonal under the cells' weights. Each column has a weighted
        mean square of one. If there are `levels`, their indicators come before these columns;
        :meth:`basis` has all columns.
    to_coef : ndarray of shape (n_columns, rank)
        Matrix that transforms coordinates to coefficients of the columns. Of all coefficients with
        the same predictors, these have the least penalty, and then the smallest norm.
    from_coef : ndarray of shape (rank, n_columns)
        Matrix that transforms any coefficients to coordinates: the columns are ``U @ from_coef``.
    penalty : ndarray of shape (rank, rank)
        Ridge penalty on the penalised coefficients, as a quadratic form in the coordinates.
    null : NullSpace
        Directions of the coefficients along which no predictor changes.
    unidentified : NullSpace
        Directions along which the penalty does not change either, so that no fit identifies them.
    source : str
        Hash of the design matrix and its penalty. Unlike the other attributes, it does not depend
        on rounding errors, which differ between machines.
    levels : Levels or None
        The first basis vectors, if these are indicators of many levels.
    """

    U: FloatArray
    to_coef: FloatArray
    from_coef: FloatArray
    penalty: FloatArray
    null: NullSpace
    unidentified: NullSpace
    source: str
    levels: Levels | None = None

    @property
    def aliased(self) -> NDArray[np.bool_]:
        """Columns whose coefficients are not estimable: zeros, or combinations of other columns."""
        return self.null.not_estimable(np.eye(len(self.to_coef)))

    @classmethod
    def of(
        cls,
        X: FloatArray,
        weights: FloatArray | None = None,
        *,
        penalised: NDArray[np.bool_] | None = None,
        strength: float = 1.0,
    ) -> "PartDesign":
        """Decompose a design matrix.

        The rank is determined for columns of unit length, so that it does not depend on units.

        Parameters
        ----------
        X : ndarray of shape (n_cells, n_columns)
            Design matrix.
        weights : ndarray of shape (n_cells,), optional
            Positive weights. A cell of weight two has the effect of two equal cells.
        penalised : ndarray of bool of shape (n_columns,), optional
            Columns with a ridge penalty on their coefficients.
        strength : float, default=1
            Factor of the ridge penalty.
        """
        n, p = X.shape
        source = design_hash(X)
        root = np.ones(n) if weights is None else np.sqrt(weights / weights.mean())
        largest = np.abs(X).max(axis=0, initial=0.0)
        empty = largest == 0
        largest[empty] = 1.0
        scale = largest * np.sqrt(np.mean((X / largest * root[:, None]) ** 2, axis=0))
        scale[scale == 0] = 1.0
        Q, R = scipy.linalg.qr(X / scale * root[:, None], mode="economic")
        left, singular, right = scipy.linalg.svd(R)
        top = singular[0] if len(singular) else 0.0
        rank = int(np.sum(singular > top * max(n, p) * np.finfo(float).eps))
        U = (Q @ left[:, :rank]) * np.sqrt(n) / root[:, None]
        rows = right[:rank] * (singular[:rank, None] / np.sqrt(n)) * scale  # X = U @ rows
        to_coef = right[:rank].T / (singular[:rank] / np.sqrt(n)) / scale[:, None]
        space = NullSpace.of(right[rank:].T, scale, empty)
        to_coef, null = least_norm(to_coef, rows, right[rank:].T / scale[:, None])
        to_coef[empty], rows[:, empty] = 0.0, 0.0
        if p == rank == 1 and np.ptp(X) == 0:
            # A basis of exact ones, so that the predictor is recognised as constant
            U, rows, to_coef = np.ones((n, 1)), X[:1], 1.0 / X[:1]
        if penalised is None:
            penalty = np.zeros((rank, rank))
            return cls(U, to_coef, rows, penalty, space, space, source.hexdigest())
        source.update(penalised.tobytes() + np.float64(strength).tobytes())
        inverse = scipy.linalg.pinv(null[penalised], atol=_ALIGNED, rtol=0.0)
        to_coef -= null @ (inverse @ to_coef[penalised])
        penalty = strength * to_coef[penalised].T @ to_coef[penalised]
        unpenalised = scipy.linalg.null_space(right[rank:, penalised].T)
        unidentified = NullSpace.of(right[rank:].T @ unpenalised, scale, empty)
        return cls(U, to_coef, rows, penalty, space, unidentified, source.hexdigest())

    @property
    def rank(self) -> int:
        """Number of coordinates."""
        return len(self.from_coef)

    def basis(self) -> FloatArray:
        """Return all basis vectors as a matrix of shape (n_cells, rank)."""
        if self.levels is None:
            return self.U
        codes, scale = self.levels
        indicators = np.zeros((len(codes), len(scale)))
        indicators[np.arange(len(codes)), codes] = scale[codes]
        return np.hstack([indicators, self.U])

    def of_cells(self, rows: NDArray[np.intp]) -> "PartDesign":
        """Return the design of some of the cells, in the same coordinates and unpenalised."""
        levels = self.levels and self.levels._replace(codes=self.levels.codes[rows])
        return replace(self, U=self.U[rows], penalty=np.zeros_like(self.penalty), levels=levels)


def design_hash(X: FloatArray) -> Any:
    """Return a hash object that has read a design matrix; more may be added to it."""
    return blake2b(np.ascontiguousarray(X).data, digest_size=16)


def least_norm(
    to_coef: FloatArray, from_coef: FloatArray, null: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the coefficients of smallest norm that have the same predictors.

    Parameters
    ----------
    to_coef : ndarray of shape (n_columns, rank)
        Matrix that transforms coordinates to some coefficients with their predictors.
    from_coef : ndarray of shape (rank, n_columns)
        Matrix that transforms coefficients to coordinates.
    null : ndarray of shape (n_columns, n_columns - rank)
        Basis of the null space: coefficients whose predictor is zero.

    Returns
    -------
    to_coef : ndarray of shape (n_columns, rank)
        Matrix that transforms coordinates to the coefficients of smallest norm.
    null : ndarray of shape (n_columns, n_columns - rank)
        Orthonormal basis of the null space.
    """
    null = scipy.linalg.qr(null / np.linalg.norm(null, axis=0), mode="economic")[0]
    # If scales differ much, one projection leaves rounding errors of the largest coefficients in
    # the smallest.
    for _ in range(_REFINEMENTS if null.shape[1] else 0):
        to_coef -= null @ (null.T @ to_coef)
        to_coef += to_coef @ (np.eye(len(from_coef)) - from_coef @ to_coef)
    return to_coef, null
