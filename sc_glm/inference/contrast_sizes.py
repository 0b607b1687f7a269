"""Sizes of contrasts, with their intervals, also where an estimate is infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from sc_glm._solver.status import Status
from sc_glm.inference.contrast_effects import predictor_ranges
from sc_glm.inference.estimates import wald_limits
from sc_glm.inference.infinite_contrasts import FAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.fitted_model import FittedData
    from sc_glm.inference.infinite_contrasts import InfiniteContrasts

# Natural logarithm of a fold change above which standard errors tell little. That of a steep slope
# grows faster than the slope (Hauck and Donner 1977, JASA 72: 851); that of a spline which falls to
# zero is that of its edge.
LARGE = 15.0
_FLAT_LOSS = 1e-3  # of likelihood, up to which values of a contrast are taken for equally likely
_SHARE = 0.98  # of a deviance at which an interval ends, by the tolerance of the searches


@dataclass
class Effect:
    """Size of a contrast for each gene, in natural logarithms.

    Attributes
    ----------
    estimate, low, high, standard_error : ndarray of shape (n_genes,)
    infinite : ndarray of int
        Genes with an infinite estimate, which the likelihood can test.
    unknown : ndarray of int
        Genes whose counts say nothing about the contrast.
    profile : InfiniteContrasts or None
        Profile likelihoods of the infinite genes.
    sides : ndarray or None
        Signs of the infinite genes' estimates at the fit; None for a joint hypothesis.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    standard_error: FloatArray
    infinite: NDArray[np.intp]
    unknown: NDArray[np.intp]
    profile: InfiniteContrasts | None = None
    sides: FloatArray | None = None

    @classmethod
    def of(
        cls,
        fitted: FittedData,
        estimates: Estimates,
        number: int,
        contrast: Contrast,
        *,
        part: str,
        cells: NDArray[np.intp],
        error: FloatArray,
        level: float,
    ) -> Effect:
        """Return the sizes of one of several estimated contrasts.

        Parameters
        ----------
        fitted : FittedData
        estimates : Estimates
        number : int
            Number of the contrast among the estimates.
        contrast : Contrast
        part : str
        cells : ndarray of int
            Cells over which the size of a joint hypothesis is taken.
        error : ndarray of shape (n_genes,)
            Its standard error.
        level : float
            Confidence level of the interval.
        """
        nothing = np.full(len(fitted.names), np.nan)
        flat = estimates.flat[:, number] & (fitted.status != Status.ALL_ZERO)
        flat &= fitted.status != Status.ITERATION_LIMIT
        if contrast.n_constraints == 1:
            is_far = np.abs(estimates.estimate[:, number, 0]) > FAR
            flat |= is_far & (fitted.status == Status.SEPARATED)
        if fitted.is_penalised or not estimates.combinations.estimable[number]:
            flat[:] = False
        genes, no_genes = np.flatnonzero(flat), np.empty(0, dtype=np.intp)
        known = flat | (estimates.reason[:, number] == "")
        if contrast.n_constraints > 1:
            columns = contrast.matrix.any(axis=0)
            size = predictor_ranges(fitted, part, np.flatnonzero(columns), cells)
            size = np.where(known, size, np.nan)
            size[genes] = np.inf
            return cls(size, nothing, nothing, nothing, genes, no_genes)
        estimate = estimates.estimate[:, number, 0] - contrast.right_hand_side[0]
        low, high = wald_limits(estimate, error, estimates.df[:, number], level)
        return cls(np.where(known, estimate, np.nan), low, high, error, genes, no_genes)

    def signs(self) -> FloatArray:
        """Return the signs of the infinite estimates."""
        return np.where(self.estimate[self.infinite] < 0, -1.0, 1.0)

    def signed_estimate(self) -> FloatArray:
        """Return the estimate, with infinities also where its sign may be unknown."""
        result = self.estimate.copy()
        if self.sides is not None:
            result[self.infinite] = self.sides * np.inf
        return result

    def far_genes(self) -> NDArray[np.intp]:
        """Return genes with finite estimates that are too large for Wald tests."""
        is_large = np.isfinite(self.estimate) & (np.abs(np.nan_to_num(self.estimate)) > LARGE)
        return np.setdiff1d(np.flatnonzero(is_large), self.infinite)

    def widen(self, genes: NDArray[np.intp], root: FloatArray, level: float) -> None:
        """Give infinite ends to intervals of estimates whose likelihood ratio does not reject zero.

        The test has found a higher likelihood than the search for the end, or the standard error
        is too small.

        Parameters
        ----------
        genes : ndarray of int
        root : ndarray of shape (n_genes,)
            Signed roots of the likelihood ratios.
        level : float
        """
        genes = np.setdiff1d(genes, self.unknown)
        deviance = root[genes] ** 2
        excludes_zero = (self.low[genes] > 0) | (self.high[genes] < 0)
        wide = genes[excludes_zero & (deviance < _SHARE * stats.chi2.ppf(level, 1))]
        self.low[wide], self.high[wide] = -np.inf, np.inf
        estimate = self.signed_estimate()[genes]
        is_flat = np.isinf(estimate) & (deviance <= 2 * _FLAT_LOSS)
        self.estimate[genes] = np.where(is_flat, np.nan, estimate)

    def set_infinite(
        self, profile: InfiniteContrasts, value: float, has_counts: NDArray[np.bool_]
    ) -> None:
        """Set infinite estimates, with the finite ends of their intervals, and keep their profiles.

        Parameters
        ----------
        profile : InfiniteContrasts
            Of the infinite genes.
        value : float
            The contrast under the hypothesis.
        has_counts : ndarray of bool of shape (n_genes,)
            Whether a gene is known to have counts in the cells compared.

        Notes
        -----
        An interval has no finite end if no value of the contrast costs enough likelihood. If none
        costs any, the counts do not tell the sign: it is unknown, and the estimate NaN.
        """
        genes = self.infinite
        sign = self.signs()
        self.profile, self.sides = profile, sign
        end = profile.end - value
        losses = profile.supremum[:, None] - profile.log_likelihood
        is_far = np.abs(np.nan_to_num(self.estimate[genes])) > FAR
        is_flat = np.isinf(end) & ~(losses > _FLAT_LOSS).any(axis=1) & ~is_far
        self.estimate[genes] = np.where(is_flat, np.nan, sign * np.inf)
        self.low[genes] = np.where(sign > 0, end, -np.inf)
        self.high[genes] = np.where(sign > 0, np.inf, end)
        is_unbounded = genes[np.isinf(end)]
        self.low[is_unbounded], self.high[is_unbounded] = -np.inf, np.inf
        self.unknown = genes[is_flat & ~has_counts[genes]]
