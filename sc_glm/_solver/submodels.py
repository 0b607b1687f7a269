"""The special cases of a model, none of which may have a higher likelihood than the model.

A climb may end at a maximum that is lower than that of a special case, such as no zero inflation.
Then it is made again from there: from a point that has the likelihood of the special case.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sc_glm._likelihood.family import Family, NegBinFamily
from sc_glm._likelihood.hessian_assembly import is_constant
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._solver.problem import Problem
from sc_glm._solver.trust_region import Solution, maximize

ABSENT = -30.0  # log odds of a zero inflation that takes no digit off any likelihood
SLIGHT = -4.0  # of one that is small, yet can be seen to be worth more or nothing
_POISSON = 30.0  # log size of a negative binomial that is a Poisson distribution to all digits
_SPARSE = 100  # positive counts up to which maxima are many
_LONG = 8.0  # log-likelihood that a climb may gain beyond what its steps promise
_CONSTANT = 1e-6  # from one, up to which the constant that a design makes is rounding's


@dataclass(frozen=True)
class Submodel:
    """A model with the mean of another one, whose other parts may be simpler.

    Attributes
    ----------
    regressed : tuple of bool
        Of the size and, unless it is left out, of the zero inflation: whether it has the design of
        the other model; otherwise it is the same in all cells.
    """

    regressed: tuple[bool, ...]

    @classmethod
    def all_of(cls, problem: Problem) -> list["Submodel"]:
        """Return those that a problem's model contains, the simplest first."""
        own = [is_regressed(basis) for basis in problem.bases[1:]]
        choices = [[False, True] if regressed else [False] for regressed in own]
        simpler = [
            cls(regressed)
            for n_parts in range(1, 1 + len(own))
            for regressed in product(*choices[:n_parts])
            if list(regressed) != own
        ]
        return [submodel for submodel in simpler if submodel.is_contained(problem)]

    def is_contained(self, problem: Problem) -> bool:
        """Whether the designs and penalties of a problem's model allow it."""
        bases = problem.bases[1:]
        for basis, regressed in zip(bases, self.regressed, strict=False):
            if not regressed and not _has_constant(problem, basis):
                return False
        return all(
            _has_constant(problem, basis) and not _penalty_of_constant(problem, basis)
            for basis in bases[len(self.regressed) :]
        )

    def has_all_parts(self, problem: Problem) -> bool:
        """Whether no part of a problem's model is left out."""
        return 1 + len(self.regressed) == len(problem.bases)

    def family(self, problem: Problem) -> Family:
        """Return its distribution."""
        return problem.family if self.has_all_parts(problem) else NegBinFamily()

    def bases(self, problem: Problem) -> list[PartBasis]:
        """Return its bases, in which constants have the penalty that they have in the problem's."""
        mean, *others = problem.bases
        ones = torch.ones_like(problem.offset)[:, None]
        return [
            mean,
            *(
                basis
                if regressed or not is_regressed(basis)
                else PartBasis(ones, _penalty_of_constant(problem, basis))
                for basis, regressed in zip(others, self.regressed, strict=False)
            ),
        ]

    def reduce(self, problem: Problem, theta: Tensor) -> Tensor:
        """Return coordinates that are near to those of the problem's model."""
        bases = self.bases(problem)
        old = problem.bases[: len(bases)]
        return problem.lift(theta[:, : sum(basis.rank for basis in old)], old, bases)

    def lift(self, problem: Problem, theta: Tensor, level: float = ABSENT) -> Tensor:
        """Return the problem's coordinates of its own; ``level`` is of an inflation it lacks."""
        bases = self.bases(problem)
        lifted = problem.lift(theta, bases, problem.bases[: len(bases)])
        levels = [
            level * problem.constant(basis).expand(len(theta), -1)
            for basis in problem.bases[len(bases) :]
        ]
        return torch.cat([lifted, *levels], 1)


def is_regressed(basis: PartBasis) -> bool:
    """Whether a part differs between cells."""
    return not is_constant(basis.U)


def _has_constant(problem: Problem, basis: PartBasis) -> bool:
    made = basis.U @ problem.constant(basis)
    return bool(((made - 1).abs() < _CONSTANT).all())


def _penalty_of_constant(problem: Problem, basis: PartBasis) -> Tensor:
    constant = problem.constant(basis)[:, None]
    return constant.mT @ basis.penalty @ constant


def is_sparse(problem: Problem) -> Tensor:
    """Tell the genes with so few positive counts that their likelihood has many maxima."""
    return torch.as_tensor(problem.n_positive <= _SPARSE, device=problem.offset.device)


def surpass(
    problem: Problem,
    objective: Objective,
    solution: Solution,
    ends: Mapping[Submodel, Sequence[tuple[Tensor, Tensor]]],
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Climb again where a submodel's likelihood is higher than that of the model.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The problem's own.
    solution : Solution
        Where its maximisation ended; ends that are too low are replaced.
    ends : mapping of Submodel to sequence of tuple of Tensor
        Coordinates of its maxima as far as they are known, and bounds of its values there. Without
        any, what is near the solution is where its climb starts.
    max_iter : int
        Passes over the counts after which a climb is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    """
    for submodel in Submodel.all_of(problem):
        within = problem.objective(
            objective.block, submodel.family(problem), submodel.bases(problem)
        )
        near = submodel.reduce(problem, solution.theta), torch.full_like(solution.value, torch.inf)
        for start, bound in ends.get(submodel, [near]):
            genes = torch.nonzero(bound > solution.value)[:, 0]
            beat = solution.value[genes] + tol
            if not len(genes):
                continue
            end = maximize(within, start[genes], max_iter=max_iter, tol=tol, genes=genes, beat=beat)
            higher = end.value > beat
            if not higher.any():
                continue
            genes, theta = genes[higher], end.theta[higher]
            levels = (ABSENT,) if submodel.has_all_parts(problem) else (SLIGHT, ABSENT)
            for again in (submodel.lift(problem, theta, level) for level in levels):
                other = maximize(objective, again, max_iter=max_iter, tol=tol, genes=genes)
                better = other.value > solution.value[genes]
                solution.put(genes[better], other.rows(better))
    _climb_from_poisson(problem, objective, solution, max_iter=max_iter, tol=tol)


def _climb_from_poisson(
    problem: Problem, objective: Objective, solution: Solution, *, max_iter: int, tol: float
) -> None:
    """Climb from an infinite size as well, where counts are sparse."""
    size, own = problem.bases[1], objective.slices[1]
    genes = torch.nonzero(is_sparse(problem))[:, 0]
    if not len(genes) or not _has_constant(problem, size) or _penalty_of_constant(problem, size):
        return
    start = solution.theta[genes]
    start[:, own] = _POISSON * problem.constant(size)
    reach = solution.value[genes] - _LONG
    other = maximize(objective, start, max_iter=max_iter, tol=tol, genes=genes, beat=reach)
    better = other.value > solution.value[genes] + tol
    solution.put(genes[better], other.rows(better))
