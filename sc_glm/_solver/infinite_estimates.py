"""Maxima at infinity along directions of recession, on which Newton's method makes little progress.

A spline's last column hardly moves the cells next to its knot. If their predictor tends to
infinity, the likelihood rises like ``-c ** (-1/3)`` with the norm ``c`` of the coefficients, up to
many millions. In the logarithm ``s`` of ``c`` it rises like ``-exp(-s / 3)``, for which a few
extrapolated Newton steps suffice. Designs are rotated such that the direction is a column of its
own. Otherwise, sums over several columns would lose its curvature in rounding.
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

_MIN_DIVERGENT_NORM = 1e2  # of the coordinates of a part that may tend to infinity
_FLAT_CURVATURE = 1e-6  # below which a direction may be one of recession
_PREDICTOR_ROUNDING = 2e-7  # relative, of predictors at the longest coordinates that are allowed
_ITER_PER_DIRECTION = 25  # after which the direction is found anew, because it changes slowly


def follow_infinite_estimates(
    problem: Problem, objective: Objective, solution: Solution, *, max_iter: int, tol: float
) -> None:
    """Continue the maximisation of genes whose estimates tend to infinity.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The objective of the problem's own model.
    solution : Solution
        Where the maximisation ended. It is replaced for genes that reach a higher value.
    max_iter : int
        Further passes over the counts after which a gene is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    """
    parts = torch.split(solution.theta, objective.ranks, dim=1)
    norms = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts])
    diverges = ~solution.converged & (norms.amax(0) > _MIN_DIVERGENT_NORM)
    for gene in torch.nonzero(diverges):
        recession = _Recession(problem.of_genes(gene).unpacked(), objective, gene)
        found = recession.maximize(solution.rows(gene), max_iter=max_iter, tol=tol)
        if found.value > solution.value[gene]:
            solution.put(gene, found)


class _Recession:
    """Maximisation of one gene along its directions of recession.

    Parameters
    ----------
    problem : Problem
        The problem of the gene alone.
    objective : Objective
        The objective of the genes that it was fitted with.
    gene : Tensor of shape (1,)
        The number of the gene among them.
    """

    def __init__(self, problem: Problem, objective: Objective, gene: Tensor) -> None:
        self.problem = problem
        self.objective = objective
        self.gene = gene

    def maximize(self, solution: Solution, *, max_iter: int, tol: float) -> Solution:
        """Maximise along one direction after the other, from a solution that did not converge."""
        n_iter = torch.zeros_like(solution.n_iter)
        while n_iter < max_iter and not solution.converged:
            further = self._maximize_along_direction(
                solution, max_iter=min(_ITER_PER_DIRECTION, max_iter - int(n_iter)), tol=tol
            )
            if further is None:
                break
            n_iter += further.n_iter
            solution = replace(further, n_iter=n_iter.clone())
        return solution

    def _maximize_along_direction(
        self, start: Solution, *, max_iter: int, tol: float
    ) -> Solution | None:
        """Maximise in logarithms of the present directions; return None if there are none."""
        rotations, is_log = [], []
        hessian = unpacked(start.hessian)
        for params in self.objective.slices:
            rotation, diverges = _rotation_to_recession(
                start.theta[0, params], hessian[:, params, params]
            )
            rotations.append(rotation)
            is_log += [diverges, *[False] * (len(rotation) - 1)]
        if not any(is_log):
            return None
        bases = [
            PartBasis(rowwise.product(basis.U, rotation), _rotated(basis.penalty, rotation))
            for basis, rotation in zip(self.problem.bases, rotations, strict=True)
        ]
        rotation = torch.block_diag(*rotations)[None]  # type: ignore[no-untyped-call]
        x = rowwise.matvec(rotation.mT, start.theta)
        objective = LogCoordinates(
            replace(self.problem, bases=bases).model_objective(),
            x,
            torch.tensor(is_log, device=x.device),
        )
        found = maximize(objective, objective.start, max_iter=max_iter, tol=tol)
        theta = rowwise.matvec(rotation, objective.coordinates(found.theta))
        at = self.objective.evaluate(theta, self.gene)
        return replace(found, theta=theta, value=at.value, hessian=at.hessian)


def _rotation_to_recession(theta: Tensor, hessian: Tensor) -> tuple[Tensor, bool]:
    """Return an orthogonal matrix, and whether its first column is a direction of recession.

    The direction is the projection of a part's coordinates, (k,), onto the directions in which its
    Hessian, (1, k, k), is flat. The matrix is the identity if the projection is short.
    """
    identity = torch.eye(len(theta), dtype=theta.dtype, device=theta.device)
    curvature, directions = rowwise.eigh(torch.nan_to_num(hessian, 0.0, 0.0, 0.0))
    is_flat = curvature.abs() < _FLAT_CURVATURE
    flat = torch.where(is_flat, rowwise.matvec(directions.mT, theta[None]), 0.0)
    projection = rowwise.matvec(directions, flat)[0]
    norm = torch.linalg.vector_norm(projection)
    if not norm > _MIN_DIVERGENT_NORM:
        return identity, False
    # Householder's reflection maps the direction to the first axis; the sign avoids cancellation.
    normal = projection / norm
    sign = torch.where(normal[0] > 0, 1.0, -1.0)
    normal[0] += sign
    normal /= torch.linalg.vector_norm(normal)
    return -sign * (identity - 2 * normal[:, None] * normal), True


def _rotated(matrix: Tensor, rotation: Tensor) -> Tensor:
    return rowwise.product(rowwise.product(rotation.mT, matrix), rotation)


class LogCoordinates:
    """An objective in the logarithms of some of its coordinates.

    The logarithms are bounded. Beyond the bound, predictors are equal up to rounding, and the
    objective is taken to be constant.

    Parameters
    ----------
    objective : Evaluable
    x : Tensor of shape (n_genes, k)
        Coordinates to start from. Those with a logarithm are positive.
    is_log : Tensor of bool of shape (k,)
        Which coordinates are replaced by their logarithms.
    """

    def __init__(self, objective: Evaluable, x: Tensor, is_log: Tensor) -> None:
        self.objective = objective
        self.is_log = is_log
        self.start = torch.where(is_log, x.log(), x)
        bound = math.log(_PREDICTOR_ROUNDING / torch.finfo(x.dtype).eps)
        self.upper_bound = self.start.clamp_min(bound)

    def coordinates(self, x: Tensor) -> Tensor:
        """Return the coordinates of the objective."""
        return torch.where(self.is_log, torch.minimum(x, self.upper_bound).exp(), x)

    def evaluate(self, x: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate genes at points, one row each."""
        y = self.coordinates(x)
        at = self.objective.evaluate(y, genes)
        derivative = torch.where(self.is_log, torch.where(x < self.upper_bound, y, 0.0), 1.0)
        gradient = derivative * at.gradient
        hessian = derivative[:, :, None] * derivative[:, None, :] * at.hessian
        hessian += torch.diag_embed(torch.where(self.is_log, gradient, 0.0))
        return at._replace(gradient=gradient, hessian=hessian)
