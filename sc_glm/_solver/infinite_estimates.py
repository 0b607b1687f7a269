"""Maxima that are too far for steps, from where a climb gave up on its way there.

A spline's last column hardly moves the cells next to its knot. If their predictor wants to be
infinite, the likelihood rises like ``-c ** (-1/3)`` with the length ``c`` of the coefficients, up
to many millions. In the logarithm of ``c`` it rises like ``-exp(-s / 3)``: a runaway of the kind
that Newton's method climbs in a few strides. Designs are turned so that the direction is a column
of its own, as sums over the others would round off what curvature it has.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import unpacked
from sc_glm._likelihood.objective import Evaluation, Objective, PartBasis
from sc_glm._solver.problem import Problem
from sc_glm._solver.trust_region import Evaluable, Solution, maximize

_FAR = 1e2  # from the origin: at least so long are a part's coordinates on their way to infinity
_FLAT = 1e-6  # curvature of a direction of which they may be
_ROUNDING = 2e-7  # of predictors, at which coordinates have gone as far as their digits allow
_LEG = 25  # passes after which the direction is looked for again: ways are not quite straight


def follow_infinite_estimates(
    problem: Problem, objective: Objective, solution: Solution, *, max_iter: int, tol: float
) -> None:
    """Go on with genes that ended on their way to infinity, and keep what is higher.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The problem's own.
    solution : Solution
        Where its maximisation ended; the ends of such genes are replaced.
    max_iter : int
        Further passes over the counts after which a gene is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    """
    parts = torch.split(solution.theta, objective.ranks, dim=1)
    lengths = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts])
    unfinished = ~solution.converged & (lengths.amax(0) > _FAR)
    for gene in torch.nonzero(unfinished):
        way = _RecessionDirection(problem.of_genes(gene).unpacked(), objective, gene)
        end = way.follow(solution.rows(gene), max_iter=max_iter, tol=tol)
        if end.value > solution.value[gene]:
            solution.put(gene, end)


class _RecessionDirection:
    """One gene's way to infinity.

    Parameters
    ----------
    problem : Problem
        Of the gene alone.
    objective : Objective
        Of the genes that it was fitted with.
    gene : Tensor of shape (1,)
        Its number among them.
    """

    def __init__(self, problem: Problem, objective: Objective, gene: Tensor) -> None:
        self.problem = problem
        self.objective = objective
        self.gene = gene

    def follow(self, end: Solution, *, max_iter: int, tol: float) -> Solution:
        """Go on from an end, leg by leg, and return the last one."""
        passes = torch.zeros_like(end.n_iter)
        while passes < max_iter and not end.converged:
            further = self._leg(end, max_iter=min(_LEG, max_iter - int(passes)), tol=tol)
            if further is None:
                break
            passes += further.n_iter
            end = replace(further, n_iter=passes.clone())
        return end

    def _leg(self, start: Solution, *, max_iter: int, tol: float) -> Solution | None:
        """Return where a climb along the present directions ends, or None if there are none."""
        turns, far = [], []
        hessian = unpacked(start.hessian)
        for own in self.objective.slices:
            turn, is_far = _turn(start.theta[0, own], hessian[:, own, own])
            turns.append(turn)
            far += [is_far, *[False] * (len(turn) - 1)]
        if not any(far):
            return None
        bases = [
            PartBasis(rowwise.product(basis.U, turn), _turned(basis.penalty, turn))
            for basis, turn in zip(self.problem.bases, turns, strict=True)
        ]
        turn = torch.block_diag(*turns)[None]  # type: ignore[no-untyped-call]
        x = rowwise.apply(turn.mT, start.theta)
        objective = replace(self.problem, bases=bases).own_objective()
        afar = LogCoordinates(objective, x, torch.tensor(far, device=x.device))
        found = maximize(afar, afar.start, max_iter=max_iter, tol=tol)
        theta = rowwise.apply(turn, afar.coordinates(found.theta))
        at = self.objective.evaluate(theta, self.gene)
        return replace(found, theta=theta, value=at.value, hessian=at.hessian)


def _turn(theta: Tensor, hessian: Tensor) -> tuple[Tensor, bool]:
    """Return an orthogonal matrix, and whether its first column is a part's way to infinity.

    That is the share of its coordinates, (k,), in the directions in which its Hessian, (1, k, k),
    is flat. Without such a way the matrix is the identity.
    """
    identity = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    curvature, directions = rowwise.eigh(torch.nan_to_num(hessian, 0.0, 0.0, 0.0))
    flat = torch.where(curvature.abs() < _FLAT, rowwise.apply(directions.mT, theta[None]), 0.0)
    way = rowwise.apply(directions, flat)[0]
    length = torch.linalg.vector_norm(way)
    if not length > _FAR:
        return identity, False
    # Householder's reflection takes the way to an axis, here the one that is farther away.
    mirror = way / length
    side = torch.where(mirror[0] > 0, 1.0, -1.0)
    mirror[0] += side
    mirror /= torch.linalg.vector_norm(mirror)
    return -side * (identity - 2 * mirror[:, None] * mirror), True


def _turned(matrix: Tensor, turn: Tensor) -> Tensor:
    return rowwise.product(rowwise.product(turn.mT, matrix), turn)


class LogCoordinates:
    """An objective in the logarithms of those of its coordinates that are far.

    Beyond their digits, predictors cannot be told apart, and the objective is taken for constant.

    Parameters
    ----------
    objective : Evaluable
    x : Tensor of shape (n_genes, k)
        Coordinates, those that are far positive.
    far : Tensor of bool of shape (k,)
    """

    def __init__(self, objective: Evaluable, x: Tensor, far: Tensor) -> None:
        self.objective = objective
        self.far = far
        self.start = torch.where(far, x.log(), x)
        farthest = math.log(_ROUNDING / torch.finfo(x.dtype).eps)
        self.farthest = self.start.clamp_min(farthest)

    def coordinates(self, x: Tensor) -> Tensor:
        """Return the objective's coordinates."""
        return torch.where(self.far, torch.minimum(x, self.farthest).exp(), x)

    def evaluate(self, x: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate genes at points, one row each."""
        y = self.coordinates(x)
        at = self.objective.evaluate(y, genes)
        slope = torch.where(self.far, torch.where(x < self.farthest, y, 0.0), 1.0)
        gradient = slope * at.gradient
        hessian = slope[:, :, None] * slope[:, None, :] * at.hessian
        hessian += torch.diag_embed(torch.where(self.far, gradient, 0.0))
        return at._replace(gradient=gradient, hessian=hessian)
