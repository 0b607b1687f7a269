"""Which of several maxima of a gene's likelihood to keep, and how to reach it.

A negative binomial with one size per gene has, in practice, one maximum. Regressing the size, or
adding zero inflation, brings others, so these models are reached through the simpler ones that
they contain. Where that gains little, or both come together, other starts are tried as well, on
groups of similar cells when there are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sc_glm._likelihood.arrow_hessian import eigenvalues_exceed
from sc_glm._likelihood.family import Family, NegBinFamily
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._likelihood.tiles import CountBlock
from sc_glm._solver import initial_values
from sc_glm._solver.problem import Problem
from sc_glm._solver.submodels import SLIGHT, Submodel, is_regressed, is_sparse, surpass
from sc_glm._solver.trust_region import Solution, maximize

_LOOSE = 1e-3  # tolerance of a stage that only leads to the next
# One of how many cells a sample has, how many cells it needs, what gain is left to all cells, and
# the least curvature, in units of the predictor, that a start is taken with.
_SAMPLED, _LEAST_SAMPLE, _NEAR, _FIRM = 10, 1_000, 0.1, 100.0
# Numbers of cells from which on starts are told apart on groups of similar cells, and how narrow a
# group need be. The edges of a regressed zero inflation are sharp, and ask for more cells and
# narrower groups.
_MANY_CELLS, _NARROW = 1_000, 0.02
_MANY_CELLS_WITH_EDGES, _NARROW_WITH_EDGES = 2_000, 0.001
_COARSE = 1_024  # groups at most
_PLACES = 65_536  # genes x groups that are explored at a time, as memory bounds their curves
# Log-likelihood by which the better of two maxima may be the worse one on groups, and from which on
# they are two: coefficients do not tell, as they drift where the likelihood is flat.
_CLOSE = 2.0
_APART = 0.02
# Level and slope (per standard deviation, towards the counts) of the zero inflation at the starts
# from a negative binomial with one size, from the mean of positive counts, and from a regressed
# size; slopes of the size itself and of the mean. All found by greedy cover of the best of many
# random starts.
_AT_NB = ((-1.0, 0.0), (-3.0, -4.0), (-3.0, 4.0))
_AT_POSITIVES = ((-3.0, -4.0), (-3.0, 4.0))
_AT_REGRESSION = ((-1.0, 2.0),)
_SIZE_SLOPE = 8.0
_SIZE_EDGE = 100.0
_INFLATION_EDGE = 30.0
_BEYOND_EDGE = -2.0
_MEAN_STEP = 8.0
_FEW = 16  # positive counts up to which a mean as steep as a step is likely
# Gain in log-likelihood that a part must bring for its maximum to be taken for the only one: local
# maxima were found where regression or inflation explain little.
_EARNED = 8.0
_CLIMB_ITER = 8  # after which the few genes that are left go on beside the other starts
_TRIAL_ITER = 30  # by when a start shows where it leads
# Models contained in others: with one size, or a regressed one, and no or one zero inflation
_NB, _ZINB = Submodel((False,)), Submodel((False, False))
_NB_REGRESSED, _ONE_INFLATION = Submodel((True,)), Submodel((True, False))


def maximize_from_many_starts(
    problem: Problem, objective: Objective, *, max_iter: int, tol: float
) -> Solution:
    """Maximise each gene's likelihood from informed starts and keep its best maximum.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The problem's own, of the model to fit.
    max_iter : int
        Newton iterations allowed to each run.
    tol : float
        Gain in log-likelihood below which a gene has converged.

    Returns
    -------
    Solution
        Of the last runs, those over all cells that started where the others led.
    """
    separation_step = initial_values.separation_step(problem)
    if problem.is_simple:
        return maximize(
            objective, _plain_start(problem, separation_step), max_iter=max_iter, tol=tol
        )
    many, narrow = _MANY_CELLS, _NARROW
    if any(basis.U.shape[1] > 1 for basis in problem.bases[2:]):
        many, narrow = _MANY_CELLS_WITH_EDGES, _NARROW_WITH_EDGES
    if problem.counts.shape[1] < many:
        ends = _explore(problem, objective.block, separation_step, max_iter=max_iter)
        solution = maximize(objective, ends.theta, max_iter=max_iter, tol=tol)
        _surpass(problem, objective, solution, ends, max_iter=max_iter, tol=tol)
        return solution
    ends = _survey(problem.coarse(_COARSE, narrow), separation_step, max_iter=max_iter).to(
        problem.offset
    )
    start = _refined_on_sample(problem, ends.theta)
    solution = maximize(objective, start, max_iter=max_iter, tol=tol)

    def compare_with(genes: Tensor, start: Tensor) -> None:
        beat = solution.value[genes]
        other = maximize(objective, start, max_iter=max_iter, tol=tol, genes=genes, beat=beat)
        higher = other.value > beat
        solution.put(genes[higher], other.rows(higher))

    close = torch.nonzero(ends.value - ends.other_value < _CLOSE)[:, 0]
    if len(close):
        compare_with(close, ends.other[close])
    # All cells tell more than groups of them: a start that loses was none of all cells.
    lost = torch.nonzero(solution.value < ends.value - _CLOSE)[:, 0]
    if len(lost):
        some = problem.some(lost)
        compare_with(
            lost, _explore(some, some.block(), separation_step[lost], max_iter=max_iter).theta
        )
    _surpass(problem, objective, solution, ends, max_iter=max_iter, tol=tol)
    return solution


def _surpass(
    problem: Problem,
    objective: Objective,
    solution: Solution,
    ends: "_Ends",
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Let no gene end lower than a model that is contained, whose loose climbs have ``ends``."""
    # Where counts are sparse, loose climbs may have ended on a way that goes on for long.
    margin = torch.where(is_sparse(problem), _EARNED, _CLOSE)
    margin = margin + (solution.value - ends.value).clamp_min(0.0)  # what was won after the groups
    below = {
        model: [(end.theta, end.value + margin), (end.other, end.other_value + margin)]
        for model, end in ends.below.items()
    }
    surpass(problem, objective, solution, below, max_iter=max_iter, tol=tol)


def _survey(coarse: Problem, separation_step: Tensor, *, max_iter: int) -> "_Ends":
    """Explore a likeness of a problem, some of the genes at a time."""
    n_genes, n_cells = coarse.counts.shape
    numbers = torch.arange(n_genes, device=separation_step.device)
    found = []
    for genes in torch.split(numbers, max(1, _PLACES // n_cells)):
        some = coarse if len(genes) == n_genes else coarse.some(genes)
        own_step = separation_step[genes].to(coarse.offset)
        found.append(_explore(some, some.block(), own_step, max_iter=max_iter))
    return _Ends.join(found)


def _refined_on_sample(problem: Problem, start: Tensor) -> Tensor:
    """Move starts to the maxima over a sample of the cells, where there are many.

    A start stays where the sample does not determine a maximum.
    """
    n_cells = len(problem.weights)
    if (
        n_cells < _SAMPLED * _LEAST_SAMPLE
        or problem.tally is not None
        or problem.groups is not None
    ):
        return start
    sample = problem.sample(n_cells // _SAMPLED)
    ends = maximize(sample.own_objective(), start, max_iter=_TRIAL_ITER, tol=_NEAR)
    firm = ends.converged & eigenvalues_exceed(-ends.hessian, _FIRM)
    return torch.where(firm[:, None], ends.theta, start)


def _plain_start(problem: Problem, separation_step: Tensor) -> Tensor:
    """Return each gene's moments and one size for all cells."""
    moments = _separated(initial_values.moments(problem), separation_step)
    return problem.lift(moments, [problem.bases[0], _constant(problem)], problem.bases)


def _explore(
    problem: Problem, block: CountBlock, separation_step: Tensor, *, max_iter: int
) -> "_Ends":
    """Return the most promising starts of each gene; ``silence`` is added to its mean."""
    constant = _constant(problem)
    mean, size, *inflation = problem.bases
    one_size = [mean, constant]
    maximizer = _LooseMaximizer(problem, block, max_iter)
    simple = maximizer.objective(NegBinFamily(), one_size)
    nb = maximizer.climb(simple, _separated(initial_values.moments(problem), separation_step))
    if not inflation:
        return replace(_regress_size(maximizer, nb, one_size), below={_NB: nb})
    inflated = _inflate(maximizer, nb, constant, separation_step)
    if size.U.shape[1] <= 1:
        return inflated.lifted(problem, [*one_size, *inflation])
    regression = _regress_size(maximizer, nb, one_size)
    best, sibling = _regress_all(maximizer, inflated, regression, constant, separation_step)
    contained = {
        _NB_REGRESSED: regression,
        Submodel((False, is_regressed(inflation[0]))): inflated,
        _ONE_INFLATION: sibling,
    }
    return replace(best, below=inflated.below | contained)


def _inflate(
    maximizer: "_LooseMaximizer", nb: "_Ends", constant: PartBasis, separation_step: Tensor
) -> "_Ends":
    """Add zero inflation to a negative binomial with one size."""
    problem = maximizer.problem
    mean, _, inflation = problem.bases
    model = maximizer.objective(problem.family, [mean, constant, inflation])
    first, *others = _inflated(nb.theta, initial_values.slopes(problem, inflation, _AT_NB))
    best = maximizer.climb(model, first, _CLIMB_ITER)
    others += _inflated(nb.theta, maximizer.inflation_edges)
    maximizer.improve(best, model, others, best.value - nb.value < _EARNED)
    hurdle = _separated(initial_values.hurdle(problem, constant), separation_step)
    stepped = _stepped(problem, hurdle)
    counts = nb.theta.shape[1]
    cornered = [
        both for step in stepped for both in _inflated(step[:, :counts], maximizer.inflation_edges)
    ]
    maximizer.improve(best, model, [hurdle, *stepped, *cornered], maximizer.few)
    inner = replace(problem, bases=[mean, constant, inflation])
    maximizer.offer_submodel(best, model, inner, _NB, nb)
    below = {_NB: nb}
    if is_regressed(inflation):
        # That of one inflation is not climbed: it is looked for nearby where it may be as high.
        flat = problem.lift(best.theta, model.bases, [mean, constant, constant])
        doubtful = best.value - nb.value < _EARNED
        below[_ZINB] = _Ends.at(flat, torch.where(doubtful, best.value, -torch.inf))
    return replace(best, below=below)


def _regress_size(
    maximizer: "_LooseMaximizer", nb: "_Ends", one_size: Sequence[PartBasis]
) -> "_Ends":
    """Regress the size of a negative binomial that had one."""
    problem = maximizer.problem
    sizes = problem.bases[:2]
    flat = problem.lift(nb.theta, one_size, sizes)
    model = maximizer.objective(NegBinFamily(), sizes)
    best = maximizer.climb(model, flat, _CLIMB_ITER)
    ascent = initial_values.ascent(model, flat, 1)
    others = [
        flat + _SIZE_SLOPE * ascent,
        flat - _SIZE_SLOPE * ascent,
        *_with_size_edges(maximizer, flat),
    ]
    maximizer.improve(best, model, others, best.value - nb.value < _EARNED)
    return best


def _regress_all(
    maximizer: "_LooseMaximizer",
    inflated: "_Ends",
    regression: "_Ends",
    constant: PartBasis,
    separation_step: Tensor,
) -> tuple["_Ends", "_Ends"]:
    """Regress the size under zero inflation.

    The model contains the zero-inflated one with one size and the negative binomial regression of
    mean and size, both solved. Also returned is the one with one zero inflation for all cells.
    """
    problem = maximizer.problem
    mean, size, inflation = problem.bases
    chained = problem.lift(inflated.theta, [mean, constant, inflation], problem.bases)
    model = maximizer.objective(problem.family, problem.bases)
    best = maximizer.climb(model, chained, _CLIMB_ITER)
    one_inflation = [mean, size, constant]
    level = torch.cat([regression.theta, -torch.ones_like(chained[:, :1])], 1)
    sibling = maximizer.climb(
        maximizer.objective(problem.family, one_inflation), level, _CLIMB_ITER
    )
    hurdle = _separated(initial_values.hurdle(problem, size), separation_step)
    positive = regression.theta.clone()
    positive[:, : mean.rank] = hurdle[:, : mean.rank]
    others = [
        hurdle,
        problem.lift(sibling.theta, one_inflation, problem.bases),
        *_inflated(positive, initial_values.slopes(problem, inflation, _AT_POSITIVES)),
        *_inflated(regression.theta, initial_values.slopes(problem, inflation, _AT_REGRESSION)),
    ]
    maximizer.improve(best, model, others, torch.ones_like(maximizer.few))
    others = [
        *_with_size_edges(maximizer, hurdle),
        *_inflated(regression.theta, maximizer.inflation_edges),
    ]
    doubtful = best.value - torch.maximum(inflated.value, regression.value) < _EARNED
    maximizer.improve(best, model, others, doubtful)
    maximizer.improve(best, model, _stepped(problem, hurdle), maximizer.few)
    if is_regressed(inflation):
        _look_closer(maximizer, sibling, one_inflation, separation_step)
    maximizer.offer_submodel(best, model, problem, _NB_REGRESSED, regression)
    maximizer.offer_submodel(best, model, problem, _ONE_INFLATION, sibling)
    return best, sibling


def _look_closer(
    maximizer: "_LooseMaximizer",
    ends: "_Ends",
    bases: Sequence[PartBasis],
    separation_step: Tensor,
) -> None:
    """Explore a contained model as if it were fitted for itself, of genes with sparse counts."""
    genes = torch.nonzero(is_sparse(maximizer.problem))[:, 0]
    if len(genes):
        some = replace(maximizer.problem, bases=bases).some(genes)
        own = _explore(some, some.block(), separation_step[genes], max_iter=maximizer.max_iter)
        ends.offer(genes, own.theta, own.value)


def _constant(problem: Problem) -> PartBasis:
    ones = torch.ones_like(problem.offset)[:, None]
    return PartBasis(ones, ones.new_zeros(1, 1))


def _inflated(theta: Tensor, inflations: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat([theta, inflation], 1) for inflation in inflations]


def _separated(start: Tensor, separation_step: Tensor) -> Tensor:
    """Put a start's mean down where the gene is silent."""
    return torch.cat(
        [
            start[:, : separation_step.shape[1]] + separation_step,
            start[:, separation_step.shape[1] :],
        ],
        1,
    )


def _stepped(problem: Problem, start: Tensor) -> list[Tensor]:
    """Let the mean take a step, up or down, at a gene's counts."""
    mean = problem.bases[0]
    stepped = []
    for step in initial_values.steps(problem, mean, _MEAN_STEP):
        one = start.clone()
        one[:, : mean.rank] += step
        stepped.append(one)
    return stepped


def _with_size_edges(maximizer: "_LooseMaximizer", start: Tensor) -> list[Tensor]:
    """Let the size vanish beyond a gene's outermost counts, where it is regressed."""
    mean, size, *_ = maximizer.problem.bases
    own = slice(mean.rank, mean.rank + size.rank)
    changed = []
    for edge in maximizer.size_edges:
        one = start.clone()
        one[:, own] = edge
        changed.append(one)
    return changed


@dataclass(frozen=True)
class _LooseMaximizer:
    """Loose maximisations of models on the same counts."""

    problem: Problem
    block: CountBlock
    max_iter: int

    @property
    def few(self) -> Tensor:
        """Genes with so few positive counts that a step may explain all of their zeros."""
        few = self.problem.n_positive <= _FEW
        return torch.as_tensor(few, device=self.problem.offset.device)

    @cached_property
    def size_edges(self) -> list[Tensor]:
        """Size that vanishes beyond a gene's outermost counts, where it is regressed."""
        return self._edges(self.problem.bases[1], _SIZE_EDGE)

    @cached_property
    def inflation_edges(self) -> list[Tensor]:
        """Zero inflation that is certain beyond the outermost counts, where it is regressed."""
        return self._edges(self.problem.bases[2], -_INFLATION_EDGE)

    def _edges(self, basis: PartBasis, slope: float) -> list[Tensor]:
        if basis.U.shape[1] <= 1:
            return []
        beyond = _BEYOND_EDGE * self.problem.constant(basis)
        return [beyond + edge for edge in initial_values.edges(self.problem, basis, slope)]

    def objective(self, family: Family, bases: Sequence[PartBasis]) -> Objective:
        """Prepare a model."""
        return self.problem.objective(self.block, family, bases)

    def climb(self, model: Objective, start: Tensor, max_iter: int | None = None) -> "_Ends":
        """Maximise a model from one start."""
        most = min(self.max_iter, max_iter or self.max_iter)
        return _Ends.of(maximize(model, start, max_iter=most, tol=_LOOSE))

    def improve(
        self,
        best: "_Ends",
        model: Objective,
        starts: Sequence[Tensor],
        doubtful: Tensor,
    ) -> None:
        """Try other starts for the doubtful genes, and offer their ends to ``best``.

        Runs of ``best`` that have not ended go on beside them.
        """
        unfinished, genes = (torch.nonzero(some)[:, 0] for some in (best.unfinished, doubtful))
        rows = torch.cat([unfinished, genes.repeat(len(starts))])
        if not len(rows):
            return
        trial = maximize(
            model,
            torch.cat([best.theta[unfinished], *(start[genes] for start in starts)]),
            max_iter=min(self.max_iter, _TRIAL_ITER),
            tol=_LOOSE,
            genes=rows,
            beat=best.value[rows] - _CLOSE,
        )
        value = trial.value.nan_to_num(-torch.inf)
        best.go_on(unfinished, trial.theta[: len(unfinished)], value[: len(unfinished)])
        for first in range(len(unfinished), len(rows), max(1, len(genes))):
            own = slice(first, first + len(genes))
            best.offer(genes, trial.theta[own], value[own])

    def offer_submodel(
        self, best: "_Ends", model: Objective, problem: Problem, below: Submodel, ends: "_Ends"
    ) -> None:
        """Offer the maxima of a contained model to ``best`` where they are higher.

        ``problem`` has the bases of the model.
        """
        low = ends.value > best.value + _APART
        if not (low.any() and below.is_contained(problem)):
            return
        if not below.has_all_parts(problem):
            self.improve(best, model, [below.lift(problem, ends.theta, SLIGHT)], low)
        genes = torch.nonzero(low)[:, 0]
        theta = below.lift(problem, ends.theta[genes])
        best.offer(genes, theta, model.evaluate(theta, genes).value)


@dataclass
class _Ends:
    """The highest end of each gene's runs, and the highest that is apart from it.

    Where a run is ``going``, it is but a point on the way. Ends of models that are contained are
    ``below``.
    """

    theta: Tensor
    value: Tensor
    other: Tensor
    other_value: Tensor
    unfinished: Tensor
    below: dict[Submodel, "_Ends"] = field(default_factory=dict)

    @classmethod
    def of(cls, solution: Solution) -> "_Ends":
        """Return the ends of single runs."""
        return replace(cls.at(solution.theta, solution.value), unfinished=~solution.converged)

    @classmethod
    def at(cls, theta: Tensor, value: Tensor) -> "_Ends":
        """Return single ends."""
        unfinished = torch.zeros_like(value, dtype=torch.bool)
        return cls(theta, value, theta.clone(), torch.full_like(value, -torch.inf), unfinished)

    @classmethod
    def join(cls, ends: Sequence["_Ends"]) -> "_Ends":
        """Return the ends of several blocks of genes."""
        below = {model: cls.join([one.below[model] for one in ends]) for model in ends[0].below}
        return cls(
            theta=torch.cat([one.theta for one in ends]),
            value=torch.cat([one.value for one in ends]),
            other=torch.cat([one.other for one in ends]),
            other_value=torch.cat([one.other_value for one in ends]),
            unfinished=torch.cat([one.unfinished for one in ends]),
            below=below,
        )

    def to(self, like: Tensor) -> "_Ends":
        """Return the same on the device and in the precision of a tensor."""
        theta, value, other, other_value = (
            x.to(like) for x in (self.theta, self.value, self.other, self.other_value)
        )
        below = {model: ends.to(like) for model, ends in self.below.items()}
        return _Ends(theta, value, other, other_value, self.unfinished.to(like.device), below)

    def lifted(self, problem: Problem, bases: Sequence[PartBasis]) -> "_Ends":
        """Return the same in the problem's bases."""
        theta, other = (problem.lift(x, bases, problem.bases) for x in (self.theta, self.other))
        return replace(self, theta=theta, other=other)

    def go_on(self, genes: Tensor, theta: Tensor, value: Tensor) -> None:
        """Take note of where the runs of some genes came to that had not ended."""
        self.theta[genes], self.value[genes], self.unfinished[genes] = theta, value, False

    def offer(self, genes: Tensor, theta: Tensor, value: Tensor) -> None:
        """Take note of where further runs of some genes ended."""
        apart = (value - self.value[genes]).abs() > _APART
        higher = value > self.value[genes]
        dethroned = genes[higher & apart]
        self.other[dethroned] = self.theta[dethroned]
        self.other_value[dethroned] = self.value[dethroned]
        self.theta[genes[higher]], self.value[genes[higher]] = theta[higher], value[higher]
        next_best = ~higher & apart & (value > self.other_value[genes])
        self.other[genes[next_best]] = theta[next_best]
        self.other_value[genes[next_best]] = value[next_best]
