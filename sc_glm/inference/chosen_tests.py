"""Which test each gene has, by the method and the kind of covariance that were asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from sc_glm._likelihood.family import MEAN, NegBinFamily
from sc_glm._solver.status import Status
from sc_glm.inference.constrained_fits import FittedCells, constrained_maxima
from sc_glm.inference.contrast_statistics import (
    Statistics,
    in_all_parameters,
    likelihood_ratio,
    profile_ratio,
    score,
    score_by_cluster,
    wald,
)
from sc_glm.inference.covariance_estimators import clusters_of_cells
from sc_glm.inference.infinite_contrasts import (
    profile_of_contrast,
)
from sc_glm.inference.restricted_objective import MeanRestrictedObjective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.alternatives import Alternative
    from sc_glm.inference.contrast_sizes import Effect
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.infinite_contrasts import InfiniteContrasts
    from sc_glm.inference.observed_information import Clusters


@dataclass(frozen=True)
class ChosenTests:
    """Tests of contrasts of one part of a fitted model, without their tables.

    Attributes
    ----------
    cells : FittedCells
    part, method, kind : str
        See :func:`~sc_glm.inference.contrast_tests.differential_expression`.
    question : Alternative
    level : float
        Confidence level of intervals.
    weights : ndarray of shape (n_cells,)
    groups : array-like of shape (n_cells,), or None
        Labels of the cells' groups.
    """

    cells: FittedCells
    part: str
    method: str
    kind: str
    question: Alternative
    level: float
    weights: FloatArray
    groups: ArrayLike | None

    def profile_against_rest(
        self,
        cells: FittedCells,
        contrast: Contrast,
        sign: FloatArray,
        values: FloatArray,
        coordinates: FloatArray | None = None,
    ) -> InfiniteContrasts:
        """Return the profile likelihood of a level against the mean of others."""
        assert contrast.levels is not None  # noqa: S101 - the callers' condition
        rows = in_all_parameters(cells, self.part, contrast.levels)
        restriction = MeanRestrictedObjective, rows
        return profile_of_contrast(
            cells, restriction, sign, values, self.level, coordinates=coordinates
        )

    def scores(
        self, contrasts: dict[str, Contrast], effects: list[Effect]
    ) -> dict[str, Statistics]:
        """Return score statistics where they are the test, with a null fit for each factor.

        They are those of all genes, or of genes whose estimates are infinite in some contrast; the
        statistics of the other genes are then NaN.
        """
        if self.method == "score":
            return self._scores_of(self.cells, contrasts)
        is_sandwich = self.method == "auto" and self.kind == "robust"
        if not is_sandwich or self.question.threshold:
            return {}
        infinite = {
            name: effect.infinite
            for name, effect in zip(contrasts, effects, strict=True)
            if len(effect.infinite)
        }
        if not infinite:
            return {}
        genes = np.unique(np.concatenate(list(infinite.values())))
        tested = {name: contrasts[name] for name in infinite}
        nothing = np.full(len(self.cells.fitted.names), np.nan)
        result = {}
        for name, found in self._scores_of(self.cells.of_genes(genes), tested).items():
            result[name] = Statistics.of(nothing.copy(), nothing.copy(), nothing.copy(), "score")
            result[name].put(genes, found)
        return result

    def _scores_of(
        self, cells: FittedCells, contrasts: dict[str, Contrast]
    ) -> dict[str, Statistics]:
        result: dict[str, Statistics] = {}
        if self.kind == "cluster":
            return {
                name: self._score_by_cluster(cells, contrast)
                for name, contrast in contrasts.items()
            }
        by_null: dict[bytes, list[str]] = {}
        for name, contrast in contrasts.items():
            by_null.setdefault(contrast.wider.tobytes(), []).append(name)
        for names in by_null.values():
            chosen = [contrasts[name] for name in names]
            found = score(cells, self.part, chosen, robust=self.kind == "robust")
            result |= dict(zip(names, found, strict=True))
        return result

    def statistics(
        self,
        estimates: Estimates,
        number: int,
        contrast: Contrast,
        effect: Effect,
        scores: Statistics | None,
    ) -> Statistics:
        """Return the statistics of a contrast by the method."""
        everywhere = np.arange(len(effect.estimate))
        statistics = wald(estimates, number, contrast, self.question, effect.standard_error)
        estimable = bool(estimates.combinations.estimable[number])
        has_counts = self.cells.fitted.status != Status.ALL_ZERO
        if not estimable:
            return statistics
        if self.method == "score" and scores is not None:
            statistics.put(everywhere, scores)
        elif self.method == "lr":
            statistics.put(everywhere, self._likelihood_ratio(everywhere, contrast, effect))
        elif self.method == "auto":
            if len(effect.infinite):
                self._replace_infinite(statistics, contrast, effect, scores)
            far = self._far_genes(contrast, effect)
            if len(far):
                statistics.put(far, self._likelihood_ratio(far, contrast, effect))
        statistics.reason[~has_counts] = str(Status.ALL_ZERO)
        if contrast.n_constraints == 1 and self.question.is_plain:
            genes = np.union1d(effect.infinite, effect.far_genes())
            genes = genes[statistics.test[genes] == "lr"]
            effect.widen(genes, statistics.upper, self.level)
        return statistics

    def _likelihood_ratio(
        self, genes: NDArray[np.intp], contrast: Contrast, effect: Effect
    ) -> Statistics:
        cells, estimate = self.cells.of_genes(genes), effect.signed_estimate()[genes]
        if contrast.levels is None:
            return likelihood_ratio(cells, self.part, contrast, estimate, self.question)
        no_end = np.zeros(len(genes))
        values = np.array(self.question.shifts)
        profile = self.profile_against_rest(cells, contrast, no_end, values)
        found = profile_ratio(profile, estimate, self.question)
        if cells.fitted.family != NegBinFamily():
            # Zero inflation has several maxima, and equal levels lead to others than the fit.
            wider = contrast.wider @ cells.designs.parts[self.part].to_coef
            null = constrained_maxima(cells, self.part, wider, np.zeros(len(wider)))
            other = self.profile_against_rest(cells, contrast, no_end, values, null.coordinates)
            found.put_nearer(np.arange(len(genes)), profile_ratio(other, estimate, self.question))
        return found

    def _replace_infinite(
        self,
        statistics: Statistics,
        contrast: Contrast,
        effect: Effect,
        scores: Statistics | None,
    ) -> None:
        """Test infinite estimates, which have no standard error, without it."""
        genes = effect.infinite
        if self.kind == "observed" and effect.profile is not None:
            sign = effect.signed_estimate()[genes]
            found = profile_ratio(effect.profile, sign, self.question)
            statistics.put(genes, found)
            is_sure = (found.reason == "") & (self.cells.fitted.family == NegBinFamily())
            doubtful = np.setdiff1d(genes[~is_sure], effect.unknown)
            if len(doubtful) and (contrast.levels is not None or self._can_fix):
                # Other starts than the fit may lead to higher likelihoods.
                other = self._likelihood_ratio(doubtful, contrast, effect)
                statistics.put_nearer(doubtful, other)
        elif self.kind == "observed":
            statistics.put(genes, self._likelihood_ratio(genes, contrast, effect))
        elif scores is not None:
            statistics.put(genes, scores.rows(genes))
        elif self.kind == "cluster" and not self.question.threshold:
            statistics.put(genes, self._score_by_cluster(self.cells.of_genes(genes), contrast))

    def _score_by_cluster(self, cells: FittedCells, contrast: Contrast) -> Statistics:
        return score_by_cluster(cells, self.part, contrast, self._clusters)

    def _far_genes(self, contrast: Contrast, effect: Effect) -> NDArray[np.intp]:
        """Return genes with large finite estimates, which likelihood ratios can test."""
        is_ratio = self.kind == "observed" and not self.cells.fitted.is_penalised
        if contrast.n_constraints > 1 or not is_ratio or not self._can_fix:
            return np.empty(0, dtype=np.intp)
        return effect.far_genes()

    @property
    def _can_fix(self) -> bool:
        """Whether the likelihood can be maximised under the hypothesis by the solver."""
        return self.part == MEAN or not self.question.threshold

    @cached_property
    def _clusters(self) -> Clusters:
        fitted, _, designs = self.cells
        return clusters_of_cells(fitted, self.groups, self.weights, designs)
