"""Candidate starts of a gene's maximisation, and which of them are screened for which model.

A negative binomial with one size for each gene has one local maximum in practice. A regressed size
or a zero inflation adds others. These models are therefore reached through their submodels. If a
part gains little over the submodel without it, or if both parts are present, further candidate
starts are screened.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from sc_glm._likelihood.family import NegBinFamily
from sc_glm._likelihood.objective import PartBasis
from sc_glm._likelihood.tiles import CountBlock
from sc_glm._solver import initial_values
from sc_glm._solver.local_maxima import LocalMaxima, Screening
from sc_glm._solver.problem import Problem
from sc_glm._solver.submodels import Submodel, is_regressed, is_sparse

# Gain in log-likelihood over the submodel without a part, above which the local maximum that was
# reached from the submodel is taken for the only one. Further local maxima were found where a
# regressed size or a zero inflation explains little.
UNIQUE_MAXIMUM_GAIN = 8.0
# Levels and slopes of the zero inflation, on the log odds scale. Slopes are per standard deviation
# and towards the positive counts. They were chosen by greedy cover of the best of many random
# starts. The mean and the size are those of a negative binomial with one size, the mean of the
# positive counts, or those of a negative binomial with regressed size.
_INFLATION_OF_NB = ((-1.0, 0.0), (-3.0, -4.0), (-3.0, 4.0))
_INFLATION_OF_POSITIVE_MEAN = ((-3.0, -4.0), (-3.0, 4.0))
_INFLATION_OF_REGRESSED_SIZE = ((-1.0, 2.0),)
# Slopes of other candidate starts, per unit of the predictor
_SIZE_SLOPE = 8.0  # of the log size, along its gradient
_STEEP_MEAN_SLOPE = 8.0  # of the log mean, through the centre of the positive counts
_SIZE_EDGE_SLOPE = 100.0  # of a log size that falls beyond the outermost positive counts
_INFLATION_EDGE_SLOPE = 30.0  # of log odds that rise beyond the outermost positive counts
_EDGE_LEVEL = -2.0  # of both at the outermost positive count
_MAX_COUNTS_OF_STEEP_MEAN = 16  # positive counts up to which a steep mean is a likely maximum
_FIRST_RUN_ITER = 8  # after which unfinished runs are continued in one batch with further starts
# Submodels: one size or a regressed size, without or with a zero inflation equal in all cells
_NB, _ZINB = Submodel((False,)), Submodel((False, False))
_NB_REGRESSED, _ZINB_REGRESSED = Submodel((True,)), Submodel((True, False))


def screen_starts(
    problem: Problem, block: CountBlock, separation_step: Tensor, *, max_iter: int
) -> LocalMaxima:
    """Screen the candidate starts of each gene and return the best local maxima.

    Parameters
    ----------
    problem : Problem
    block : CountBlock
        The counts of the problem.
    separation_step : Tensor of shape (n_genes, rank)
        Step that is added to initial means, see
        :func:`~sc_glm._solver.initial_values.separation_step`.
    max_iter : int
        Passes over the counts after which a run is given up.
    """
    return _CandidateStarts(problem, Screening(problem, block, max_iter), separation_step).screen()


@dataclass(frozen=True)
class _CandidateStarts:
    """The candidate starts of a problem's model and of its submodels.

    Attributes
    ----------
    problem : Problem
    screening : Screening
    separation_step : Tensor of shape (n_genes, rank)
    """

    problem: Problem
    screening: Screening
    separation_step: Tensor

    def screen(self) -> LocalMaxima:
        """Screen the starts of the submodels and of the model."""
        mean, size, *inflation = self.problem.bases
        one_size = [mean, self.intercept]
        moments = lower_mean(initial_values.moments(self.problem), self.separation_step)
        nb = self.screening.maximize(self.screening.objective(NegBinFamily(), one_size), moments)
        if not inflation:
            return replace(self._regress_size(nb), of_submodels={_NB: nb})
        zinb = self._add_inflation(nb)
        if size.U.shape[1] <= 1:
            return zinb.change_bases(self.problem, [*one_size, *inflation])
        nb_regressed = self._regress_size(nb)
        maxima, zinb_regressed = self._regress_size_under_inflation(zinb, nb_regressed)
        of_submodels = {
            _NB_REGRESSED: nb_regressed,
            Submodel((False, is_regressed(inflation[0]))): zinb,
            _ZINB_REGRESSED: zinb_regressed,
        }
        return replace(maxima, of_submodels=zinb.of_submodels | of_submodels)

    def _add_inflation(self, nb: LocalMaxima) -> LocalMaxima:
        """Screen the zero-inflated model with one size, from the local maxima without inflation."""
        problem, screening = self.problem, self.screening
        mean, _, inflation = problem.bases
        bases = [mean, self.intercept, inflation]
        model = screening.objective(problem.family, bases)
        first, *others = self._with_sloped_inflation(nb.theta, _INFLATION_OF_NB)
        maxima = screening.maximize(model, first, _FIRST_RUN_ITER)
        others += _with_inflation(nb.theta, self.inflation_edges)
        gains_little = maxima.value - nb.value < UNIQUE_MAXIMUM_GAIN
        screening.try_starts(maxima, model, others, gains_little)
        hurdle = lower_mean(initial_values.hurdle(problem, self.intercept), self.separation_step)
        steep = self._with_steep_mean(hurdle)
        n_params = nb.theta.shape[1]
        steep_with_edges = [
            start
            for steep_start in steep
            for start in _with_inflation(steep_start[:, :n_params], self.inflation_edges)
        ]
        screening.try_starts(
            maxima, model, [hurdle, *steep, *steep_with_edges], self.has_few_counts
        )
        screening.try_submodel(maxima, model, replace(problem, bases=bases), _NB, nb)
        of_submodels = {_NB: nb}
        if is_regressed(inflation):
            # The submodel with equal zero inflation is not screened. Where it may be as high, it is
            # later maximised from the projection of this maximum.
            equal = problem.change_bases(
                maxima.theta, model.bases, [mean, self.intercept, self.intercept]
            )
            gains_little = maxima.value - nb.value < UNIQUE_MAXIMUM_GAIN
            of_submodels[_ZINB] = LocalMaxima.at(
                equal, torch.where(gains_little, maxima.value, -torch.inf)
            )
        return replace(maxima, of_submodels=of_submodels)

    def _regress_size(self, nb: LocalMaxima) -> LocalMaxima:
        """Screen a negative binomial with regressed size, from local maxima with one size."""
        problem, screening = self.problem, self.screening
        bases = problem.bases[:2]
        start = problem.change_bases(nb.theta, [bases[0], self.intercept], bases)
        model = screening.objective(NegBinFamily(), bases)
        maxima = screening.maximize(model, start, _FIRST_RUN_ITER)
        ascent = initial_values.ascent_direction(model, start, 1)
        others = [
            start + _SIZE_SLOPE * ascent,
            start - _SIZE_SLOPE * ascent,
            *self._with_size_edges(start),
        ]
        gains_little = maxima.value - nb.value < UNIQUE_MAXIMUM_GAIN
        screening.try_starts(maxima, model, others, gains_little)
        return maxima

    def _regress_size_under_inflation(
        self, zinb: LocalMaxima, nb_regressed: LocalMaxima
    ) -> tuple[LocalMaxima, LocalMaxima]:
        """Screen the zero-inflated model with regressed size.

        Submodels are the zero-inflated negative binomial with one size and the negative binomial
        with regressed size, whose local maxima are given. The local maxima of a third submodel
        are returned as well. It has a regressed size and a zero inflation that is equal in all
        cells.
        """
        problem, screening = self.problem, self.screening
        mean, size, inflation = problem.bases
        model = screening.objective(problem.family, problem.bases)
        start = problem.change_bases(zinb.theta, [mean, self.intercept, inflation], problem.bases)
        maxima = screening.maximize(model, start, _FIRST_RUN_ITER)
        equal_inflation = [mean, size, self.intercept]
        zinb_regressed = screening.maximize(
            screening.objective(problem.family, equal_inflation),
            torch.cat([nb_regressed.theta, -torch.ones_like(start[:, :1])], 1),
            _FIRST_RUN_ITER,
        )
        hurdle = lower_mean(initial_values.hurdle(problem, size), self.separation_step)
        positive_mean = nb_regressed.theta.clone()
        positive_mean[:, : mean.rank] = hurdle[:, : mean.rank]
        others = [
            hurdle,
            problem.change_bases(zinb_regressed.theta, equal_inflation, problem.bases),
            *self._with_sloped_inflation(positive_mean, _INFLATION_OF_POSITIVE_MEAN),
            *self._with_sloped_inflation(nb_regressed.theta, _INFLATION_OF_REGRESSED_SIZE),
        ]
        screening.try_starts(maxima, model, others, torch.ones_like(self.has_few_counts))
        others = [
            *self._with_size_edges(hurdle),
            *_with_inflation(nb_regressed.theta, self.inflation_edges),
        ]
        gain = maxima.value - torch.maximum(zinb.value, nb_regressed.value)
        screening.try_starts(maxima, model, others, gain < UNIQUE_MAXIMUM_GAIN)
        screening.try_starts(maxima, model, self._with_steep_mean(hurdle), self.has_few_counts)
        if is_regressed(inflation):
            self._screen_sparse_genes(zinb_regressed, equal_inflation)
        screening.try_submodel(maxima, model, problem, _NB_REGRESSED, nb_regressed)
        screening.try_submodel(maxima, model, problem, _ZINB_REGRESSED, zinb_regressed)
        return maxima, zinb_regressed

    def _screen_sparse_genes(self, maxima: LocalMaxima, bases: Sequence[PartBasis]) -> None:
        """Screen all starts of a submodel with given bases, for genes with sparse counts."""
        genes = torch.nonzero(is_sparse(self.problem))[:, 0]
        if len(genes):
            subproblem = replace(self.problem, bases=bases).of_genes(genes)
            found = screen_starts(
                subproblem,
                subproblem.block(),
                self.separation_step[genes],
                max_iter=self.screening.max_iter,
            )
            maxima.add(genes, found.theta, found.value)

    def _with_sloped_inflation(
        self, theta: Tensor, shapes: Sequence[tuple[float, float]]
    ) -> list[Tensor]:
        """Append zero inflations of given levels and slopes to coordinates without any."""
        basis = self.problem.bases[2]
        predictors = initial_values.sloped_predictors(self.problem, basis, shapes)
        return _with_inflation(theta, predictors)

    def _with_steep_mean(self, start: Tensor) -> list[Tensor]:
        """Return starts whose mean rises or falls steeply at the positive counts."""
        mean = self.problem.bases[0]
        starts = []
        for predictor in initial_values.steep_predictors(self.problem, mean, _STEEP_MEAN_SLOPE):
            changed = start.clone()
            changed[:, : mean.rank] += predictor
            starts.append(changed)
        return starts

    def _with_size_edges(self, start: Tensor) -> list[Tensor]:
        """Return starts whose size vanishes beyond the outermost positive counts."""
        mean, size, *_ = self.problem.bases
        params = slice(mean.rank, mean.rank + size.rank)
        starts = []
        for predictor in self.size_edges:
            changed = start.clone()
            changed[:, params] = predictor
            starts.append(changed)
        return starts

    @cached_property
    def intercept(self) -> PartBasis:
        """Basis of a part that is equal in all cells."""
        return intercept_basis(self.problem)

    @property
    def has_few_counts(self) -> Tensor:
        """Whether a gene has so few positive counts that a steep mean may explain its zeros."""
        has_few = self.problem.n_positive <= _MAX_COUNTS_OF_STEEP_MEAN
        return torch.as_tensor(has_few, device=self.problem.offset.device)

    @cached_property
    def size_edges(self) -> list[Tensor]:
        """Log sizes that fall beyond the outermost positive counts; none without regression."""
        return self._edges(self.problem.bases[1], _SIZE_EDGE_SLOPE)

    @cached_property
    def inflation_edges(self) -> list[Tensor]:
        """Log odds that rise beyond the outermost positive counts; none without regression."""
        return self._edges(self.problem.bases[2], -_INFLATION_EDGE_SLOPE)

    def _edges(self, basis: PartBasis, slope: float) -> list[Tensor]:
        if basis.U.shape[1] <= 1:
            return []
        level = _EDGE_LEVEL * self.problem.intercept(basis)
        edges = initial_values.edge_predictors(self.problem, basis, slope)
        return [level + edge for edge in edges]


def intercept_basis(problem: Problem) -> PartBasis:
    """Return the basis of a part that is equal in all cells, without penalty."""
    ones = torch.ones_like(problem.offset)[:, None]
    return PartBasis(ones, ones.new_zeros(1, 1))


def lower_mean(start: Tensor, separation_step: Tensor) -> Tensor:
    """Add a step to the mean of starts; it lowers the mean of cells that separation affects."""
    rank = separation_step.shape[1]
    return torch.cat([start[:, :rank] + separation_step, start[:, rank:]], 1)


def _with_inflation(theta: Tensor, inflations: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([theta, inflation], 1) for inflation in inflations]
