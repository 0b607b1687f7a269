"""Submodels of a model, whose maximum likelihood bounds the likelihood of the model from below.

A run may end at a local maximum that is lower than the maximum of a submodel, such as the model
without zero inflation. The maximisation is then repeated from the maximum of the submodel.
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

ABSENT_LOG_ODDS = -30.0  # of a zero inflation that changes no digit of a likelihood
SMALL_LOG_ODDS = -4.0  # of a zero inflation that is small, but has a gradient
# Log size at which a negative binomial equals the Poisson distribution in all digits.
_POISSON_LOG_SIZE = 30.0
_SPARSE_COUNTS = 100  # positive counts of a gene up to which it often has several local maxima
_UNPREDICTED_GAIN = 8.0  # log-likelihood that a run may gain beyond the bound of its models
_INTERCEPT_TOL = 1e-6  # rounding error of an intercept of one that a design contains


@dataclass(frozen=True)
class Submodel:
    """A model with the same mean, whose other parts may be simpler.

    Attributes
    ----------
    regressed : tuple of bool
        For the size and, unless it is left out, for the zero inflation: whether the part has the
        design of the full model. Otherwise it is the same in all cells.
    """

    regressed: tuple[bool, ...]

    @classmethod
    def all_of(cls, problem: Problem) -> list["Submodel"]:
        """Return the submodels of a problem's model, the simplest first."""
        regressed_parts = [is_regressed(basis) for basis in problem.bases[1:]]
        choices = [[False, True] if regressed else [False] for regressed in regressed_parts]
        simpler = [
            cls(regressed)
            for n_parts in range(1, 1 + len(regressed_parts))
            for regressed in product(*choices[:n_parts])
            if list(regressed) != regressed_parts
        ]
        return [submodel for submodel in simpler if submodel.is_nested(problem)]

    def is_nested(self, problem: Problem) -> bool:
        """Return whether the designs and penalties of a problem's model allow this submodel."""
        bases = problem.bases[1:]
        for basis, regressed in zip(bases, self.regressed, strict=False):
            if not regressed and not _has_intercept(problem, basis):
                return False
        return all(
            _has_intercept(problem, basis) and not _penalty_of_intercept(problem, basis)
            for basis in bases[len(self.regressed) :]
        )

    def has_all_parts(self, problem: Problem) -> bool:
        """Return whether no part of a problem's model is left out."""
        return 1 + len(self.regressed) == len(problem.bases)

    def family(self, problem: Problem) -> Family:
        """Return the count distribution of the submodel."""
        return problem.family if self.has_all_parts(problem) else NegBinFamily()

    def bases(self, problem: Problem) -> list[PartBasis]:
        """Return the bases of the submodel; intercepts keep the penalty of the problem."""
        mean, *others = problem.bases
        ones = torch.ones_like(problem.offset)[:, None]
        return [
            mean,
            *(
                basis
                if regressed or not is_regressed(basis)
                else PartBasis(ones, _penalty_of_intercept(problem, basis))
                for basis, regressed in zip(others, self.regressed, strict=False)
            ),
        ]

    def restrict(self, problem: Problem, theta: Tensor) -> Tensor:
        """Project coordinates of the problem's model onto the submodel."""
        bases = self.bases(problem)
        old = problem.bases[: len(bases)]
        return problem.change_bases(theta[:, : sum(basis.rank for basis in old)], old, bases)

    def embed(self, problem: Problem, theta: Tensor, log_odds: float = ABSENT_LOG_ODDS) -> Tensor:
        """Return the coordinates of the submodel's points in the problem's model.

        ``log_odds`` is the zero inflation if the submodel has none.
        """
        bases = self.bases(problem)
        embedded = problem.change_bases(theta, bases, problem.bases[: len(bases)])
        inflation = [
            log_odds * problem.intercept(basis).expand(len(theta), -1)
            for basis in problem.bases[len(bases) :]
        ]
        return torch.cat([embedded, *inflation], 1)


def is_regressed(basis: PartBasis) -> bool:
    """Return whether a part differs between cells."""
    return not is_constant(basis.U)


def _has_intercept(problem: Problem, basis: PartBasis) -> bool:
    fitted = basis.U @ problem.intercept(basis)
    return bool(((fitted - 1).abs() < _INTERCEPT_TOL).all())


def _penalty_of_intercept(problem: Problem, basis: PartBasis) -> Tensor:
    intercept = problem.intercept(basis)[:, None]
    return intercept.mT @ basis.penalty @ intercept


def is_sparse(problem: Problem) -> Tensor:
    """Return which genes have so few positive counts that several local maxima are likely."""
    return torch.as_tensor(problem.n_positive <= _SPARSE_COUNTS, device=problem.offset.device)


def restart_from_submodels(
    problem: Problem,
    objective: Objective,
    solution: Solution,
    maxima: Mapping[Submodel, Sequence[tuple[Tensor, Tensor]]],
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Maximise again where the likelihood of a submodel is higher than the solution.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The objective of the problem's own model.
    solution : Solution
        The local maxima that were found. Those that are too low are replaced.
    maxima : mapping of Submodel to sequence of tuple of Tensor
        Coordinates of local maxima of submodels, and upper bounds of their values. A submodel that
        is missing is maximised from the projection of the solution.
    max_iter : int
        Passes over the counts after which a run is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    """
    for submodel in Submodel.all_of(problem):
        restricted = problem.objective(
            objective.block, submodel.family(problem), submodel.bases(problem)
        )
        no_bound = torch.full_like(solution.value, torch.inf)
        default = submodel.restrict(problem, solution.theta), no_bound
        for start, bound in maxima.get(submodel, [default]):
            genes = torch.nonzero(bound > solution.value)[:, 0]
            cutoff = solution.value[genes] + tol
            if not len(genes):
                continue
            local = maximize(
                restricted, start[genes], max_iter=max_iter, tol=tol, genes=genes, cutoff=cutoff
            )
            higher = local.value > cutoff
            if not higher.any():
                continue
            genes, theta = genes[higher], local.theta[higher]
            has_all_parts = submodel.has_all_parts(problem)
            for log_odds in (
                (ABSENT_LOG_ODDS,) if has_all_parts else (SMALL_LOG_ODDS, ABSENT_LOG_ODDS)
            ):
                embedded = submodel.embed(problem, theta, log_odds)
                other = maximize(objective, embedded, max_iter=max_iter, tol=tol, genes=genes)
                better = other.value > solution.value[genes]
                solution.put(genes[better], other.rows(better))
    _restart_from_poisson(problem, objective, solution, max_iter=max_iter, tol=tol)


def _restart_from_poisson(
    problem: Problem, objective: Objective, solution: Solution, *, max_iter: int, tol: float
) -> None:
    """Maximise also from an infinite size, for genes with sparse counts."""
    if problem.log_size is not None:
        return
    size, params = problem.bases[1], objective.slices[1]
    genes = torch.nonzero(is_sparse(problem))[:, 0]
    if not len(genes) or not _has_intercept(problem, size) or _penalty_of_intercept(problem, size):
        return
    start = solution.theta[genes]
    start[:, params] = _POISSON_LOG_SIZE * problem.intercept(size)
    cutoff = solution.value[genes] - _UNPREDICTED_GAIN
    other = maximize(objective, start, max_iter=max_iter, tol=tol, genes=genes, cutoff=cutoff)
    better = other.value > solution.value[genes] + tol
    solution.put(genes[better], other.rows(better))
