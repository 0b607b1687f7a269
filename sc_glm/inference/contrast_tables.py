"""Tables of tests of contrasts: sizes, statistics by the chosen test, and p-values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._solver.status import Status
from sc_glm.inference.chosen_tests import ChosenTests
from sc_glm.inference.contrast_effects import (
    fractions_with_counts,
    mean_counts,
)
from sc_glm.inference.contrast_sizes import Effect
from sc_glm.inference.estimates import estimate_combinations, in_all_parts
from sc_glm.inference.infinite_contrasts import (
    profiles_of_infinite_contrasts,
)
from sc_glm.inference.level_against_rest import with_means_of_rest
from sc_glm.inference.log_likelihood import check_maximum
from sc_glm.inference.p_values import adjust_p_values, p_value_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.alternatives import Alternative
    from sc_glm.inference.constrained_fits import FittedCells
    from sc_glm.inference.contrast_statistics import (
        Statistics,
    )
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates


_LOG_2 = np.log(2.0)


def table_of_contrasts(
    cells: FittedCells,
    contrasts: dict[str, Contrast],
    *,
    part: str,
    method: str,
    question: Alternative,
    kind: str,
    groups: ArrayLike | None,
    level: float,
    sample_weight: ArrayLike | None,
) -> pd.DataFrame:
    """Return the tables of contrasts, one after the other, with a column for their names.

    Parameters
    ----------
    cells : FittedCells
    contrasts : dict of str to Contrast
    part, method, level
        See :func:`differential_expression`.
    question : Alternative
    kind, groups, sample_weight
        See :data:`~sc_glm.inference.docstring_entries.ENTRIES`.
    """
    check_scalar(level, "level", Real, min_val=0, max_val=1, include_boundaries="neither")
    if method in ("lr", "score"):
        check_maximum(cells.fitted, f"method={method!r}")
    weights = cells.fitted.weights(sample_weight)
    tests = _Tests(cells, part, method, kind, question, level, weights, groups, sample_weight)
    return pd.concat(tests.tables(contrasts))


@dataclass(frozen=True)
class _Tests(ChosenTests):
    """Tests of contrasts, with their tables."""

    sample_weight: ArrayLike | None

    def tables(self, contrasts: dict[str, Contrast]) -> list[pd.DataFrame]:
        """Return a table of each contrast, in their order."""
        tables: dict[str, pd.DataFrame] = {}
        for n_constraints in {contrast.n_constraints for contrast in contrasts.values()}:
            alike = {
                name: contrast
                for name, contrast in contrasts.items()
                if contrast.n_constraints == n_constraints
            }
            if n_constraints > 1 and not self.question.is_plain:
                raise ValueError(
                    f"A joint test of {n_constraints} combinations has no direction: it takes no "
                    "alternative and no log2_threshold."
                )
            tables |= self._tables_of_one_size(alike)
        return [tables[name] for name in contrasts]

    def _tables_of_one_size(self, contrasts: dict[str, Contrast]) -> dict[str, pd.DataFrame]:
        """Return the tables of contrasts with equal numbers of constraints."""
        fitted = self.cells.fitted
        coef_matrix = np.array(
            [in_all_parts(fitted, self.part, contrast.matrix) for contrast in contrasts.values()]
        )
        estimates = estimate_combinations(
            fitted, coef_matrix, self.kind, self.groups, self.sample_weight
        )
        estimates, errors = with_means_of_rest(
            fitted,
            self.part,
            list(contrasts.values()),
            estimates,
            kind=self.kind,
            groups=self.groups,
            sample_weight=self.sample_weight,
        )
        cells = np.flatnonzero(self.weights)
        effects = [
            Effect.of(
                fitted,
                estimates,
                number,
                contrast,
                part=self.part,
                cells=cells,
                error=error,
                level=self.level,
            )
            for number, (contrast, error) in enumerate(
                zip(contrasts.values(), errors.T, strict=True)
            )
        ]
        fractions = self._fractions(list(contrasts.values()))
        self._set_infinite(effects, estimates, list(contrasts.values()), fractions)
        scores = self.scores(contrasts, effects)
        result = {}
        for number, (name, contrast) in enumerate(contrasts.items()):
            effect = effects[number]
            statistics = self.statistics(estimates, number, contrast, effect, scores.get(name))
            statistics.reason[effect.unknown] = np.where(
                (fractions[number][effect.unknown] == 0).all(axis=1),
                "no counts in the cells compared",
                str(Status.NOT_IDENTIFIED),
            )
            result[name] = self._table(name, contrast, effect, statistics, fractions[number])
        return result

    def _set_infinite(
        self,
        effects: list[Effect],
        estimates: Estimates,
        contrasts: list[Contrast],
        fractions: list[FloatArray],
    ) -> None:
        """Compute the profile likelihoods of infinite estimates, and set their intervals.

        Their likelihood ratios are computed at the same time if these are the test.
        """
        if contrasts[0].n_constraints > 1 or not any(len(effect.infinite) for effect in effects):
            return
        values = np.array([contrast.right_hand_side for contrast in contrasts])
        is_tested = self.method == "auto" and self.kind == "observed"
        shifts = np.array(self.question.shifts if is_tested else [])
        signs = np.zeros((len(self.cells.fitted.names), len(effects)))
        for number, (effect, contrast) in enumerate(zip(effects, contrasts, strict=True)):
            if contrast.levels is None:
                signs[effect.infinite, number] = effect.signs()
        profiles = profiles_of_infinite_contrasts(
            self.cells,
            estimates.combinations.theta_matrix[:, 0],
            signs,
            values + shifts,
            self.level,
        )
        for number, (effect, contrast) in enumerate(zip(effects, contrasts, strict=True)):
            profile = profiles[number]
            if contrast.levels is not None and len(effect.infinite):
                cells = self.cells.of_genes(effect.infinite)
                profile = self.profile_against_rest(cells, contrast, effect.signs(), shifts)
            has_counts = np.logical_or((fractions[number] > 0).any(axis=1), contrast.is_term)
            effect.set_infinite(profile, contrast.right_hand_side[0], has_counts)

    @cached_property
    def _base_mean(self) -> FloatArray:
        return mean_counts(self.cells.fitted.counts, self.weights)

    def _fractions(self, contrasts: list[Contrast]) -> list[FloatArray]:
        """Return the fractions of cells with counts on both sides of each contrast, genes x 2.

        Contrasts share levels, so that each set of cells is counted once.
        """
        counts = self.cells.fitted.counts
        sets = {side.tobytes(): side for contrast in contrasts for side in contrast.sides or ()}
        numbers = {key: number for number, key in enumerate(sets)}
        found = fractions_with_counts(counts, self.weights, list(sets.values()))
        unknown = np.full((counts.n_genes, 2), np.nan)
        return [
            unknown
            if contrast.sides is None
            else found[:, [numbers[side.tobytes()] for side in contrast.sides]]
            for contrast in contrasts
        ]

    def _table(
        self,
        name: str,
        contrast: Contrast,
        effect: Effect,
        statistics: Statistics,
        fractions: FloatArray,
    ) -> pd.DataFrame:
        fitted, q = self.cells.fitted, contrast.n_constraints
        p_values = p_value_columns(statistics.log_p_values(self.question, q))
        known = statistics.reason == ""
        statistic = self.question.statistic(statistics.upper, statistics.lower)
        return pd.DataFrame(
            {
                "contrast": name,
                "base_mean": self._base_mean,
                "fraction": fractions[:, 0],
                "fraction_reference": fractions[:, 1],
                "log2_fold_change": effect.estimate / _LOG_2,
                "log2_low": effect.low / _LOG_2,
                "log2_high": effect.high / _LOG_2,
                "standard_error": effect.standard_error / _LOG_2,
                "statistic": np.where(known, statistic, np.nan),
                "df": q,
                "df_denominator": np.where(known, statistics.df, np.nan),
                **p_values,
                "p_adjusted": adjust_p_values(p_values["p_value"]),
                "test": np.where(known, statistics.test, ""),
                "reason": statistics.reason,
            },
            index=pd.Index(fitted.names, name="gene"),
        )
