"""Sizes of contrasts, with their intervals, also where an estimate is infinite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sc_glm._solver.status import Status
from sc_glm.inference.contrast_effects import predictor_ranges
from sc_glm.inference.estimates import wald_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.fitted_model import FittedData
    from sc_glm.inference.infinite_contrasts import InfiniteContrasts


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
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    standard_error: FloatArray
    infinite: NDArray[np.intp]
    unknown: NDArray[np.intp]
    profile: InfiniteContrasts | None = None

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

    def set_infinite(self, profile: InfiniteContrasts, value: float) -> None:
        """Set infinite estimates, with the finite ends of their intervals, and keep their profiles.

        There is no finite end if the counts say nothing about the contrast. Under the hypothesis,
        the contrast is ``value``.
        """
        genes = self.infinite
        sign = self.signs()
        self.profile = profile
        end = profile.end - value
        is_unknown = np.isinf(end)
        self.estimate[genes] = np.where(is_unknown, np.nan, sign * np.inf)
        self.low[genes] = np.where(sign > 0, end, -np.inf)
        self.high[genes] = np.where(sign > 0, np.inf, end)
        self.low[genes[is_unknown]], self.high[genes[is_unknown]] = -np.inf, np.inf
        self.unknown = genes[is_unknown]
