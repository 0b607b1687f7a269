"""Alternatives of a test: both sides or one, beyond a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sc_glm.inference.p_values import log_t_tail

if TYPE_CHECKING:
    from sc_glm._design.design import FloatArray

ALTERNATIVES = ("two-sided", "greater", "less")


@dataclass(frozen=True)
class Alternative:
    """What a test of one combination asks.

    Attributes
    ----------
    direction : {"two-sided", "greater", "less"}
    threshold : float
        The null hypothesis holds combinations up to it, in absolute value, or on one side.
    """

    direction: str = "two-sided"
    threshold: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether this is the two-sided test against zero, the only one of joint hypotheses."""
        return self.direction == "two-sided" and not self.threshold

    @property
    def shifts(self) -> list[float]:
        """The values of the combination that bound the null hypothesis."""
        return [self.threshold, -self.threshold] if self.threshold else [0.0]

    def statistic(self, upper: FloatArray, lower: FloatArray) -> FloatArray:
        """Return the signed statistics that rank genes by this alternative.

        Both statistics are those of :meth:`log_p_value`. A two-sided statistic is zero between the
        thresholds.
        """
        if self.direction == "greater":
            return upper
        if self.direction == "less" or not self.threshold:
            return lower
        return np.where(upper + lower >= 0, np.maximum(upper, 0.0), np.minimum(lower, 0.0))

    def log_p_value(self, upper: FloatArray, lower: FloatArray, df: FloatArray) -> FloatArray:
        """Return the logarithms of p-values.

        The two-sided test beyond a threshold is that of McCarthy and Smyth (2009, Bioinformatics
        25: 765): the probability, at the nearer threshold, of an estimate at least as far out on
        either side.

        Parameters
        ----------
        upper, lower : ndarray of shape (n_genes,)
            Signed statistics of the hypotheses that the combination is the threshold, or minus the
            threshold: its distance from each in standard errors, or signed roots of likelihood
            ratios.
        df : ndarray of shape (n_genes,)
            Degrees of freedom of the t distribution of these statistics.
        """
        if self.direction == "greater":
            return log_t_tail(upper, df)
        if self.direction == "less":
            return log_t_tail(-lower, df)
        is_positive = upper + lower >= 0
        near, far = np.where(is_positive, upper, -lower), np.where(is_positive, lower, -upper)
        with np.errstate(invalid="ignore"):  # of genes without a statistic, which are NaN
            return np.logaddexp(log_t_tail(near, df), log_t_tail(far, df))
