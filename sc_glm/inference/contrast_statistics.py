"""Statistics of one contrast for all genes, by Wald, likelihood ratio and score tests.

A statistic of one combination is signed: the distance of the estimate from a value in standard
errors, or the signed root of a likelihood ratio. There are two, for both ends of the threshold. A
joint test has one statistic, with a chi-squared or F distribution.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from sc_glm.inference.cluster_score import score_tests_by_cluster
from sc_glm.inference.constrained_fits import constrained_maxima, maxima_from
from sc_glm.inference.log_likelihood import log_likelihoods
from sc_glm.inference.p_values import log_f_tail
from sc_glm.inference.score_tests import score_tests
from sc_glm.inference.wald import degrees_of_freedom, wald_statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.alternatives import Alternative
    from sc_glm.inference.constrained_fits import ConstrainedMaxima, FittedCells
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.infinite_contrasts import InfiniteContrasts
    from sc_glm.inference.observed_information import Clusters

# Log-likelihood by which a constrained maximum may exceed the fit's, by the solver's tolerance.
_LOG_LIKELIHOOD_TOLERANCE = 1e-4
_NO_INFORMATION = "no information"
_NOT_FOUND = "iteration limit"  # of the constrained maximum


@dataclass
class Statistics:
    """Statistics of a contrast.

    Attributes
    ----------
    upper, lower : ndarray of shape (n_genes,)
        Signed statistics at the threshold and at minus the threshold. For a joint test, both are
        its statistic.
    scaled : ndarray of shape (n_genes,)
        Statistic of a joint test in units of the F distribution.
    df : ndarray of shape (n_genes,)
        Degrees of freedom of the t distribution, or the denominator's of the F distribution.
    test : ndarray of str of shape (n_genes,)
    reason : ndarray of str of shape (n_genes,)
        Why there is no statistic; empty if there is one.
    """

    upper: FloatArray
    lower: FloatArray
    scaled: FloatArray
    df: FloatArray
    test: NDArray[np.object_]
    reason: NDArray[np.object_]

    @classmethod
    def of(
        cls, upper: FloatArray, lower: FloatArray, df: FloatArray, test: str, reason: str = ""
    ) -> Statistics:
        """Return statistics of one combination; those that are NaN have the reason."""
        reasons = np.where(np.isnan(upper) | np.isnan(lower), reason, "").astype(object)
        names = np.full(len(upper), test, dtype=object)
        return cls(upper, lower, np.full(len(upper), np.nan), df, names, reasons)

    @classmethod
    def of_joint_test(
        cls, statistic: FloatArray, n_constraints: int, df: FloatArray, test: str, reason: str = ""
    ) -> Statistics:
        """Return statistics of a joint test."""
        result = cls.of(statistic, statistic, df, test, reason)
        result.scaled = statistic / n_constraints
        return result

    def rows(self, genes: NDArray[np.intp]) -> Statistics:
        """Return the statistics of some genes."""
        return Statistics(*(getattr(self, field.name)[genes] for field in fields(self)))

    def put(self, genes: NDArray[np.intp], other: Statistics) -> None:
        """Replace the statistics of some genes."""
        for field in fields(self):
            getattr(self, field.name)[genes] = getattr(other, field.name)

    def put_nearer(self, genes: NDArray[np.intp], other: Statistics) -> None:
        """Replace the statistics of some genes where others are known and nearer to zero."""
        missing = self.reason[genes] != ""
        sizes = [np.abs(x.upper) + np.abs(x.lower) for x in (self.rows(genes), other)]
        better = (other.reason == "") & (missing | (sizes[1] < sizes[0]))
        self.put(genes[better], other.rows(np.flatnonzero(better)))

    def log_p_values(self, alternative: Alternative, n_constraints: int) -> FloatArray:
        """Return the logarithms of the p-values."""
        known = self.reason == ""
        result, df = np.full(len(known), np.nan), self.df[known]
        if n_constraints > 1:
            result[known] = log_f_tail(self.scaled[known], n_constraints, df)
        else:
            result[known] = alternative.log_p_value(self.upper[known], self.lower[known], df)
        return result


def wald(
    estimates: Estimates,
    number: int,
    contrast: Contrast,
    alternative: Alternative,
    error: FloatArray,
) -> Statistics:
    """Return the Wald statistics of one of several estimated contrasts.

    The standard ``error`` is that of its first combination.
    """
    if contrast.n_constraints > 1:
        found = wald_statistics(estimates, number, contrast.right_hand_side)
        result = Statistics.of_joint_test(found.statistic, contrast.n_constraints, found.df, "wald")
        result.scaled, reason = found.scaled, found.reason
    else:
        df, reason = degrees_of_freedom(estimates, number, 1)
        difference = estimates.estimate[:, number, 0] - contrast.right_hand_side[0]
        shift = alternative.threshold
        upper, lower = (difference - shift) / error, (difference + shift) / error
        result = Statistics.of(upper, lower, np.where(reason == "", df, np.nan), "wald")
    result.reason = reason.astype(object)
    return result


def likelihood_ratio(
    cells: FittedCells, part: str, contrast: Contrast, sign: FloatArray, alternative: Alternative
) -> Statistics:
    """Return likelihood-ratio statistics.

    Parameters
    ----------
    cells : FittedCells
    part : str
    contrast : Contrast
    sign : ndarray of shape (n_genes,)
        Signed difference of the estimate from the contrast's value, for one combination.
    alternative : Alternative
    """
    rows = contrast.matrix @ cells.designs.parts[part].to_coef
    maxima = [
        constrained_maxima(cells, part, rows, contrast.right_hand_side + shift)
        for shift in alternative.shifts
    ]
    highest = _highest_likelihood(cells, maxima)
    log_likelihoods = [np.where(at.converged, at.log_likelihood, np.nan) for at in maxima]
    deviances = [2 * np.maximum(highest - value, 0.0) for value in log_likelihoods]
    if contrast.n_constraints > 1:
        infinite = np.full(len(highest), np.inf)
        return Statistics.of_joint_test(
            deviances[0], contrast.n_constraints, infinite, "lr", _NOT_FOUND
        )
    return _signed_roots(deviances, sign, alternative)


def profile_ratio(
    profile: InfiniteContrasts, sign: FloatArray, alternative: Alternative
) -> Statistics:
    """Return likelihood-ratio statistics of infinite contrasts."""
    losses = np.maximum(profile.supremum[:, None] - profile.log_likelihood, 0.0)
    return _signed_roots(list(2 * losses.T), sign, alternative)


def _signed_roots(
    deviances: list[FloatArray], sign: FloatArray, alternative: Alternative
) -> Statistics:
    roots = [
        np.sign(sign - shift) * np.sqrt(deviance)
        for shift, deviance in zip(alternative.shifts, deviances, strict=True)
    ]
    return Statistics.of(roots[0], roots[-1], np.full(len(sign), np.inf), "lr", _NOT_FOUND)


def _highest_likelihood(cells: FittedCells, maxima: list[ConstrainedMaxima]) -> FloatArray:
    """Return the log-likelihood of the fit, or a higher one that a constrained maximum leads to."""
    highest = log_likelihoods(cells.fitted, cells.counts, cells.designs)
    for at in maxima:
        missed = np.flatnonzero(at.log_likelihood > highest + _LOG_LIKELIHOOD_TOLERANCE)
        if len(missed):
            found = maxima_from(cells.of_genes(missed), at.coordinates[missed])
            highest[missed] = np.maximum(found, at.log_likelihood[missed])
    return highest


def score(
    cells: FittedCells, part: str, contrasts: list[Contrast], *, robust: bool
) -> list[Statistics]:
    """Return score statistics of contrasts with one null model, and equal numbers of constraints.

    Parameters
    ----------
    cells : FittedCells
    part : str
    contrasts : list of Contrast
        Their ``wider`` combinations are the same; the null model has them at zero.
    robust : bool
        Whether the variance is the sandwich of the cells' scores.
    """
    wider = contrasts[0].wider @ cells.designs.parts[part].to_coef
    null = constrained_maxima(cells, part, wider, np.zeros(len(wider)))
    tests = np.stack([in_all_parameters(cells, part, contrast.matrix) for contrast in contrasts])
    found = score_tests(cells, null.coordinates, tests, robust=robust)
    result = []
    for number, contrast in enumerate(contrasts):
        statistic = np.where(null.converged, found.statistic[:, number], np.nan)
        df = found.df_denominator[:, number]
        if contrast.n_constraints > 1:
            result.append(
                Statistics.of_joint_test(
                    statistic, contrast.n_constraints, df, "score", _NO_INFORMATION
                )
            )
        else:
            result.append(Statistics.of(statistic, statistic, df, "score", _NO_INFORMATION))
    return result


def score_by_cluster(
    cells: FittedCells, part: str, contrast: Contrast, clusters: Clusters
) -> Statistics:
    """Return score statistics of a contrast by groups of cells; the null model is without it."""
    is_linear = contrast.levels is None
    held = contrast.matrix if is_linear else contrast.wider
    values = contrast.right_hand_side if is_linear else np.zeros(len(held))
    null = constrained_maxima(cells, part, held @ cells.designs.parts[part].to_coef, values)
    coordinates = np.where(null.converged[:, None], null.coordinates, np.nan)
    test = in_all_parameters(cells, part, contrast.matrix)
    found = score_tests_by_cluster(cells, clusters, coordinates, test)
    statistic, df = found.statistic, found.df_denominator
    if contrast.n_constraints > 1:
        result = Statistics.of_joint_test(statistic, contrast.n_constraints, df, "score")
        result.scaled = found.scaled
    else:
        root = np.sign(found.step[:, 0]) * np.sqrt(found.scaled)
        result = Statistics.of(root, root, df, "score")
    result.reason = found.reason
    return result


def in_all_parameters(cells: FittedCells, part: str, matrix: FloatArray) -> FloatArray:
    """Return combinations of a part's coefficients as combinations of all coordinates."""
    pieces = [
        (matrix if name == part else np.zeros((len(matrix), len(other.to_coef)))) @ other.to_coef
        for name, other in cells.designs.parts.items()
    ]
    return np.hstack(pieces)
