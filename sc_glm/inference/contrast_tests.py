"""Tests of contrasts by name, in one table: which genes differ, by how much, and by which test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm._likelihood.family import MEAN, NegBinFamily
from sc_glm._solver.status import Status
from sc_glm.inference.alternatives import ALTERNATIVES, Alternative
from sc_glm.inference.constrained_fits import FittedCells, constrained_maxima
from sc_glm.inference.contrast_effects import (
    fractions_with_counts,
    mean_counts,
)
from sc_glm.inference.contrast_sizes import Effect
from sc_glm.inference.contrast_statistics import (
    Statistics,
    in_all_parameters,
    likelihood_ratio,
    profile_ratio,
    score,
    score_by_cluster,
    wald,
)
from sc_glm.inference.contrasts import ContrastReader
from sc_glm.inference.covariance_estimators import clusters_of_cells
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.estimates import check_part, estimate_combinations, in_all_parts
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.infinite_contrasts import (
    profile_of_contrast,
    profiles_of_infinite_contrasts,
)
from sc_glm.inference.level_against_rest import with_means_of_rest
from sc_glm.inference.log_likelihood import check_maximum
from sc_glm.inference.model_formula import ModelFormula
from sc_glm.inference.p_values import adjust_p_values, p_value_columns
from sc_glm.inference.restricted_objective import MeanRestrictedObjective

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.estimates import Estimates
    from sc_glm.inference.infinite_contrasts import InfiniteContrasts
    from sc_glm.inference.observed_information import Clusters

__all__ = ["differential_expression"]

_METHODS = ("auto", "wald", "lr", "score")
_LOG_2 = np.log(2.0)


@documented(ENTRIES)
def differential_expression(
    model: Any,
    X: Any,
    y: Any = None,
    contrast: Any = None,
    *,
    part: str = MEAN,
    method: str = "auto",
    kind: str = "observed",
    groups: ArrayLike | None = None,
    alternative: str = "two-sided",
    log2_threshold: float = 0.0,
    level: float = 0.95,
    sample_weight: ArrayLike | None = None,
) -> pd.DataFrame:
    """Test which genes differ in a contrast: a number for every gene that has counts.

    A gene that one of two groups does not express has an infinite fold change and no standard
    error. It is tested by its likelihood ratio, and all other genes by their estimate.

    Parameters
    ----------
    {model}
    {X_of_fit}
    {y_of_fit}
    contrast : tuple, str, list of str, array-like or dict
        What is tested:

        - ``(factor, level, reference)``, such as ``("cell_type", "T", "B")``: the difference of
          two levels. If the factor interacts with other covariates, it is averaged over the cells.
          The reference ``"rest"`` is the mean of the means of all other levels. Two values of a
          number are compared in the same way: ``("pseudotime", 1.0, 0.0)``;
        - a term of the formula, such as ``"cell_type"`` or ``"bs(pseudotime, df=5)"``: all its
          coefficients jointly;
        - a constraint, as in :func:`wald_test`: ``"x - z = 0"``;
        - a vector with a weight for each coefficient of the part, or several as rows;
        - a dict of names and any of these.
    part : str, default="mean"
        The part of the model whose coefficients are tested.
    method : {"auto", "wald", "lr", "score"}, default="auto"
        ``"wald"`` compares the estimate with its standard error; infinite estimates have none.
        ``"lr"`` is the likelihood ratio of the fit without and with the contrast, one more fit for
        each contrast. ``"score"`` needs the fit without the contrast alone; one such fit serves all
        contrasts of a factor. ``"auto"`` is Wald, and for infinite estimates the likelihood ratio,
        or the score test for ``kind="robust"`` and ``"cluster"``.
    {kind}
    {groups}
    alternative : {"two-sided", "greater", "less"}, default="two-sided"
        Whether the contrast is different from zero, greater or less.
    log2_threshold : float, default=0
        The test asks for a log2 fold change beyond this one, in either direction or in that of
        `alternative`. It is not a filter of estimates.
    level : float, default=0.95
        Confidence level of the intervals.
    {sample_weight_of_fit}

    Returns
    -------
    DataFrame
        One row per gene, with the genes as index; for a dict, one row per contrast and gene. The
        columns are

        contrast
            Name of the contrast, if `contrast` is a dict.
        base_mean
            Average count of the cells.
        fraction, fraction_reference
            Fractions of the cells of both sides with counts; NaN if no levels are compared.
        log2_fold_change
            Estimate of the contrast to the base 2: of the ratio of means, of sizes, or of the odds
            of a structural zero. It is infinite if one side has no counts, and NaN with a p-value
            of one if all its values are as likely; another part may explain the silence. For a
            joint test, it is the largest minus the smallest value of the tested term over the
            cells.
        log2_low, log2_high
            Ends of its confidence interval: of Wald, and of the profile likelihood for an infinite
            estimate; NaN for a joint test.
        standard_error
            Standard error of `log2_fold_change`; NaN if this is infinite or of a joint test.
        statistic
            Signed: the estimate in standard errors, or the signed root of the likelihood ratio or
            score statistic. With a threshold, it is the distance from the nearer one, and zero
            between both. For a joint test, the statistic with `df` degrees of freedom.
        df
            Number of constraints.
        df_denominator
            Degrees of freedom of the t or F distribution; infinite for a normal or chi-squared one.
        p_value
            P-value, at least 2.2e-308, the smallest normal number.
        {log10_p_value}
        p_adjusted
            P-value adjusted for the number of genes of the contrast (Benjamini and Hochberg 1995).
        p_adjusted_all
            P-value adjusted over all contrasts and genes, if `contrast` is a dict.
        test
            ``wald``, ``lr`` or ``score``; empty if there is no p-value.
        reason
            Why there is no p-value; empty if there is one.

    Raises
    ------
    TypeError
        If `contrast` is missing or of another type.
    ValueError
        If `contrast` names an unknown factor, level or coefficient. If `method`, `kind`,
        `alternative` and `log2_threshold` do not go together, or are unknown. If the model has no
        such part. A likelihood ratio or score needs a fit without a penalty or moderation.
    {raises_not_of_fit}

    See Also
    --------
    wald_test : Constraints on coefficients, with denominator degrees of freedom.
    likelihood_ratio_test : Two models that were both fitted.

    Notes
    -----
    A reason belongs to a contrast. A gene that is silent in some group has infinite coefficients,
    and its contrasts of other groups have estimates and standard errors like those of any gene.

    Where a fold change is finite but above three million, ``"auto"`` uses the likelihood ratio.
    The standard error of such a steep slope is too large, and that of a spline which falls to zero
    is too small.

    The reason is ``no counts in the cells compared`` if both levels are silent, and ``not
    identified`` if the counts leave another contrast undetermined.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.inference import differential_expression
    >>> data = make_counts(n_targets=3, random_state=0)
    >>> model = make_pipeline(FormulaTransformer("~ cell_type"), NegBinRegressor())
    >>> model = model.fit(data.obs, data.counts)
    >>> contrast = ("cell_type", "b", "c")
    >>> table = differential_expression(model, data.obs, data.counts, contrast)
    >>> table.reset_index()[["gene", "log2_fold_change", "standard_error", "p_value"]].round(2)
         gene  log2_fold_change  standard_error  p_value
    0  gene_0              3.66            0.29     0.00
    1  gene_1             -3.39            0.19     0.00
    2  gene_2             -0.77            0.41     0.06
    >>> differential_expression(model, data.obs, data.counts, "cell_type")["df"].unique()
    array([2])
    """
    if contrast is None:
        raise TypeError(
            "differential_expression needs a contrast by its name or after y, such as "
            "contrast=('cell_type', 'T', 'B')."
        )
    question = question_of_test(method, kind, alternative, log2_threshold)
    fitted = FittedData.of(model, X, y)
    check_part(fitted, part)
    cells = FittedCells.of(fitted, sample_weight)
    weights = fitted.weights(sample_weight)
    reader = ContrastReader(
        fitted, ModelFormula.of(fitted, model, X), part, cells.designs.parts[part].null, weights
    )
    named = isinstance(contrast, Mapping)
    contrasts = reader.read_all(contrast) if named else {"": reader.read(contrast)}
    table = table_of_contrasts(
        cells,
        contrasts,
        part=part,
        method=method,
        question=question,
        kind=kind,
        groups=groups,
        level=level,
        sample_weight=sample_weight,
    )
    if not named:
        return table.drop(columns="contrast")
    table["p_adjusted_all"] = adjust_p_values(table["p_value"].to_numpy())
    order = list(table.columns)
    order.insert(order.index("p_adjusted") + 1, order.pop(order.index("p_adjusted_all")))
    return table[order]


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


def question_of_test(
    method: str, kind: str, alternative: str, log2_threshold: float
) -> Alternative:
    """Check which test is asked for."""
    if method not in _METHODS:
        raise ValueError(f"method must be one of {list(_METHODS)}, not {method!r}.")
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative must be one of {list(ALTERNATIVES)}, not {alternative!r}.")
    threshold = check_scalar(log2_threshold, "log2_threshold", Real, min_val=0)
    if not np.isfinite(threshold):
        raise ValueError(f"log2_threshold must be finite, not {threshold}.")
    if method == "lr" and kind != "observed":
        raise ValueError(
            "method='lr' uses the likelihood of the model, so it goes with kind='observed', not "
            f"kind={kind!r}."
        )
    if method == "score" and threshold:
        raise ValueError("method='score' tests a difference from zero: it takes no log2_threshold.")
    return Alternative(alternative, float(threshold) * _LOG_2)


@dataclass(frozen=True)
class _Tests:
    """Tests of contrasts of one part of a fitted model."""

    cells: FittedCells
    part: str
    method: str
    kind: str
    question: Alternative
    level: float
    weights: FloatArray
    groups: ArrayLike | None
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
        scores = self._scores(contrasts, effects)
        result = {}
        for number, (name, contrast) in enumerate(contrasts.items()):
            effect = effects[number]
            statistics = self._statistics(estimates, number, contrast, effect, scores.get(name))
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
                profile = self._profile_against_rest(cells, contrast, effect.signs(), shifts)
            has_counts = np.logical_or((fractions[number] > 0).any(axis=1), contrast.is_term)
            effect.set_infinite(profile, contrast.right_hand_side[0], has_counts)

    def _profile_against_rest(
        self,
        cells: FittedCells,
        contrast: Contrast,
        sign: FloatArray,
        values: FloatArray,
        coordinates: FloatArray | None = None,
    ) -> InfiniteContrasts:
        assert contrast.levels is not None  # noqa: S101 - the callers' condition
        rows = in_all_parameters(cells, self.part, contrast.levels)
        restriction = MeanRestrictedObjective, rows
        return profile_of_contrast(
            cells, restriction, sign, values, self.level, coordinates=coordinates
        )

    def _scores(
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

    def _statistics(
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
        profile = self._profile_against_rest(cells, contrast, no_end, values)
        found = profile_ratio(profile, estimate, self.question)
        if cells.fitted.family != NegBinFamily():
            # Zero inflation has several maxima, and equal levels lead to others than the fit.
            wider = contrast.wider @ cells.designs.parts[self.part].to_coef
            null = constrained_maxima(cells, self.part, wider, np.zeros(len(wider)))
            other = self._profile_against_rest(cells, contrast, no_end, values, null.coordinates)
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
