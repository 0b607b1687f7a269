r"""Adjusted profile likelihoods of the sizes of genes, on a grid of log sizes.

The other parameters :math:`\theta` of a gene are nuisance parameters. They are maximised over, and
the profile log-likelihood is adjusted for them (Cox and Reid 1987). At the log size :math:`\rho` it
is

.. math:: \ell(\rho, \hat\theta_\rho) - \tfrac12 \log\det(1 + I_{\theta\theta}).

Fitted means follow the counts, such that the variation of counts around them is too small. The
adjustment corrects this bias. The one that is added to the information :math:`I` is the precision
of a standard normal prior of each coordinate, in units of the predictor. Without it, sizes of genes
with few counts would tend to zero.

The profile is computed at few nodes. Its derivative there is the score of the log size. Its
curvature determines the distance to the next node. Between nodes it is interpolated by cubics.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import DISPERSION
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import GeneFits, build_problem, fits_at, one_thread
from sc_glm._solver.trust_region import Solution, maximize
from sc_glm.inference.observed_information import SETTINGS
from sc_glm.inference.restricted_objective import RestrictedObjective

if TYPE_CHECKING:
    from torch import Tensor

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._likelihood.objective import Objective
    from sc_glm._solver.gene_block import Designs
    from sc_glm._solver.problem import Problem

N_GRID = 128  # points of the grid on which each gene's likelihood is given

_MIN_LOG_SIZE, _MAX_LOG_SIZE = -10.0, 10.0  # between which a trend may be
_MAX_DROP = 10.0  # log-likelihood below the maximum, beyond which the profile is negligible
_DROP_PER_STEP = 5.0  # log-likelihood between neighbouring nodes, at most
_MAX_STEP = 1.0  # log size between neighbouring nodes, at most
_FLAT_SLOPE = 0.02  # slope and curvature below which the profile has reached the Poisson limit
_ABSENT_LOG_ODDS = -20.0  # of a negligible zero inflation that still has a curvature
_POISSON_MARGIN = 3.0  # log size of a Poisson gene, above the largest detectable one
_NEWTON_TOL = 1e-2  # predicted gain in log-likelihood below which one Newton step suffices
_TOL = 1e-6  # log-likelihood; small enough to leave regions that are almost flat
_MAX_ITER = 100
_MIN_CURVATURE = 1e-4  # below which a direction has no Newton step
_ROUNDING = 1e-12  # relative to the largest curvature
_MAX_DERIVATIVE = 5.0  # of another coordinate with respect to the log size


class SizeLikelihood(NamedTuple):
    """Adjusted profile log-likelihoods of the log sizes of genes, on a grid.

    Attributes
    ----------
    mean : ndarray of shape (n_genes,)
        Average count over the cells.
    log_size : ndarray of shape (n_genes, N_GRID)
        An equidistant grid for each gene, which covers the range of its likelihood.
    value : ndarray of shape (n_genes, N_GRID)
        Log-likelihood, zero at its maximum.
    """

    mean: FloatArray
    log_size: FloatArray
    value: FloatArray


def size_likelihood(
    family: Family, counts: CountMatrix, designs: Designs, theta: FloatArray, n_jobs: int | None
) -> SizeLikelihood:
    """Compute the adjusted profile likelihoods of the sizes of all genes.

    Parameters
    ----------
    family : Family
    counts : CountMatrix
    designs : Designs
        The design of the dispersion is a column of ones.
    theta : ndarray of shape (n_genes, n_params)
        Fitted coordinates.
    n_jobs : int or None
        Number of workers, as in joblib.
    """
    found = map_blocks(
        _likelihood_of_block, counts, designs, [theta], family, designs, n_jobs=n_jobs
    )
    return SizeLikelihood(*(np.concatenate(pieces) for pieces in zip(*found, strict=True)))


def fit_given_sizes(
    family: Family, counts: CountMatrix, designs: Designs, theta: FloatArray, n_jobs: int | None
) -> GeneFits:
    """Maximise the likelihoods over all parameters except the sizes.

    Parameters
    ----------
    family : Family
    counts : CountMatrix
    designs : Designs
        The design of the dispersion is a column of ones.
    theta : ndarray of shape (n_genes, n_params)
        Coordinates to start from, with the given log sizes.
    n_jobs : int or None
        Number of workers, as in joblib.
    """
    found = map_blocks(_fit_block, counts, designs, [theta], family, designs, n_jobs=n_jobs)
    return GeneFits.join(found)


def _likelihood_of_block(
    counts: Any, theta: FloatArray, family: Family, designs: Designs
) -> SizeLikelihood:
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS).unpacked()
        profile = _SizeProfile(problem.model_objective())
        total = problem.weights.sum()
        mean = problem.weighted_sum(problem.counts.data, torch.ones_like(problem.weights)) / total
        # The standard error of the variance exceeds the excess variance of larger sizes.
        poisson = (mean * total.sqrt()).log() + _POISSON_MARGIN
        start = torch.from_numpy(theta).clone()
        start[:, profile.size] = start[:, profile.size].minimum(poisson).clamp_min(_MIN_LOG_SIZE)
        _bound_inflation(problem, profile.objective, start)
        log_size, value = profile.nodes(start).on_grid()
        return SizeLikelihood(mean.numpy(), log_size.numpy(), value.numpy())


def _bound_inflation(problem: Problem, objective: Objective, theta: Tensor) -> None:
    """Bound the log odds of negligible zero inflations from below, where they have a curvature.

    Fits may end anywhere on the way to minus infinity, also where rounding exceeds the curvature.
    """
    for basis, params in zip(problem.bases[2:], objective.slices[2:], strict=True):
        _, highest = problem.predictor_range(basis, theta[:, params])
        theta[:, params] *= (_ABSENT_LOG_ODDS / highest.clamp_max(_ABSENT_LOG_ODDS))[:, None]


def _fit_block(counts: Any, theta: FloatArray, family: Family, designs: Designs) -> GeneFits:
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS).unpacked()
        objective = problem.model_objective()
        solution = _SizeProfile(objective).maximize_others(torch.from_numpy(theta))
        return fits_at(problem, objective, designs, solution)


class _Nodes(NamedTuple):
    """Nodes of profiles, (n_genes, n_nodes), in ascending order, and the ends of the grids."""

    log_size: Tensor
    value: Tensor
    slope: Tensor
    adjustment: Tensor
    lower: Tensor
    upper: Tensor

    def on_grid(self) -> tuple[Tensor, Tensor]:
        """Interpolate profiles by cubic Hermite polynomials, and adjustments linearly."""
        share = torch.linspace(0, 1, N_GRID, dtype=self.value.dtype)
        points = torch.lerp(self.lower[:, None], self.upper[:, None], share)
        right = torch.searchsorted(self.log_size, points).clamp(1, self.log_size.shape[1] - 1)
        (x0, x1), (y0, y1), (d0, d1), (a0, a1) = (
            (x.gather(1, right - 1), x.gather(1, right)) for x in self[:4]
        )
        h = x1 - x0
        # The profile is constant beyond the last node.
        t = ((points - x0) / h).clamp_max(1.0)
        u = 1 - t
        cubic = y0 * u * u * (1 + 2 * t) + y1 * t * t * (1 + 2 * u) + h * t * u * (d0 * u - d1 * t)
        value = cubic + a0 * u + a1 * t
        return points, value - value.amax(1, keepdim=True)


class _Point(NamedTuple):
    """A point of each profile, with derivatives with respect to the log size.

    ``adjustment`` is the adjustment of Cox and Reid, and ``tangent`` (n_genes, n_params) is the
    derivative of all coordinates.
    """

    theta: Tensor
    value: Tensor
    slope: Tensor
    curvature: Tensor
    adjustment: Tensor
    tangent: Tensor

    def rows(self, index: Tensor) -> _Point:
        """Return the points of some genes."""
        return _Point(*(x[index] for x in self))

    def put(self, index: Tensor, other: _Point) -> None:
        """Replace the points of some genes."""
        for values, new_values in zip(self, other, strict=True):
            values[index] = new_values


class _SizeProfile:
    """Profile log-likelihoods of the log size, traced from a point near the maximum to both sides.

    Parameters
    ----------
    objective : Objective
    """

    def __init__(self, objective: Objective) -> None:
        n_genes = objective.block.n_genes
        self.objective = objective
        self.size = objective.slices[objective.family.parts.index(DISPERSION)].start
        direction = torch.zeros(objective.n_params, dtype=objective.weights.dtype)
        direction[self.size] = 1.0
        values = torch.zeros(n_genes, dtype=direction.dtype)
        self.restricted = RestrictedObjective(objective, direction, values)

    def nodes(self, theta: Tensor) -> _Nodes:
        """Trace the profiles from given points to where they are negligible or constant."""
        first = self._maximum(theta, torch.arange(len(theta)))
        (left, lower, _), (right, upper, is_constant) = (
            self._trace(first, sign) for sign in (-1.0, 1.0)
        )
        nodes = torch.stack([*left[::-1], self._node(first), *right], 2)
        upper = torch.where(is_constant, (upper + _MAX_STEP).clamp_min(_MAX_LOG_SIZE), upper)
        log_size, value, slope, adjustment = nodes.unbind()
        return _Nodes(log_size, value, slope, adjustment, lower, upper)

    def maximize_others(self, theta: Tensor) -> Solution:
        """Maximise over all parameters except the size, which is taken as known."""
        restricted, genes = self.restricted, torch.arange(len(theta))
        start = restricted.to_nuisance(self._maximum(theta, genes).theta)
        found = maximize(restricted, start, max_iter=_MAX_ITER, tol=_TOL)
        basis = restricted.nuisance_basis
        hessian = basis @ found.hessian @ basis.mT
        hessian[:, self.size, self.size] = -1.0
        return replace(found, theta=restricted.to_theta(found.theta, genes), hessian=hessian)

    def _trace(self, first: _Point, sign: float) -> tuple[list[Tensor], Tensor, Tensor]:
        """Trace the profiles to smaller (-1) or larger (+1) log sizes.

        Return the nodes of each step, the log size at which genes ended, and whether their profile
        became constant. A gene that has ended is continued along a straight line.
        """
        last = _Point(*(x.clone() for x in first))
        maximum = first.value.clone()
        nodes: list[Tensor] = []
        end = first.theta[:, self.size].clone()
        is_constant = torch.zeros_like(end, dtype=torch.bool)
        active = torch.arange(len(end))
        while len(active):
            current = last.rows(active)
            step = sign * _step_length(current)
            trial = current.theta + step[:, None] * current.tangent
            new = self._maximum(trial, active)
            log_size = new.theta[:, self.size]
            maximum[active] = maximum[active].maximum(new.value)
            if sign > 0:
                flat = (new.slope.abs() < _FLAT_SLOPE) & (new.curvature.abs() < _FLAT_SLOPE)
                is_constant[active] = flat
                new.slope[flat] = 0.0
                done = flat
            else:
                done = log_size <= _MIN_LOG_SIZE
            done = done | ~(maximum[active] - new.value < _MAX_DROP)
            last.value.add_(sign * _MAX_STEP * last.slope)
            last.theta[:, self.size] += sign * _MAX_STEP
            last.put(active, new)
            end[active] = log_size
            nodes.append(self._node(last))
            active = active[~done]
        return nodes, end, is_constant

    def _node(self, at: _Point) -> Tensor:
        return torch.stack([at.theta[:, self.size], at.value, at.slope, at.adjustment])

    def _maximum(self, theta: Tensor, genes: Tensor) -> _Point:
        """Maximise over all parameters except the size, from points near the maximum."""
        self.restricted.values[genes] = theta[:, self.size]
        point, converged = self._newton_step(theta, genes)
        if not converged.all():
            unconverged = torch.nonzero(~converged)[:, 0]
            start = self.restricted.to_nuisance(theta[unconverged])
            solution = maximize(
                self.restricted, start, max_iter=_MAX_ITER, tol=_TOL, genes=genes[unconverged]
            )
            maximum = self.restricted.to_theta(solution.theta, genes[unconverged])
            point.put(unconverged, self._newton_step(maximum, genes[unconverged])[0])
        return point

    def _newton_step(self, theta: Tensor, genes: Tensor) -> tuple[_Point, Tensor]:
        """Take a Newton step at given sizes, and return whether it has led to the maximum.

        It has not if the likelihood is convex in some direction, even if it is almost flat there. A
        zero inflation that was absent at another size may be present at this one; then only the
        convexity shows it.
        """
        restricted = self.restricted
        at = self.objective.evaluate(theta, genes)
        basis = restricted.nuisance_basis
        values, vectors = rowwise.eigh(-(basis.mT @ at.hessian @ basis))
        is_curved = values > _MIN_CURVATURE
        inverse = torch.where(is_curved, 1 / torch.where(is_curved, values, 1.0), 0.0)

        def solve(right: Tensor) -> Tensor:
            return rowwise.matvec(vectors, inverse * rowwise.matvec(vectors.mT, right))

        gradient = restricted.to_nuisance(at.gradient)
        mixed = restricted.to_nuisance(at.hessian[:, self.size])
        step, derivative = solve(gradient), solve(mixed)
        gain = 0.5 * (gradient * step).sum(1)
        bounded = derivative.clamp(-_MAX_DERIVATIVE, _MAX_DERIVATIVE)
        tangent = rowwise.product(bounded, basis.mT)
        tangent[:, self.size] = 1.0
        point = _Point(
            theta + rowwise.product(step, basis.mT),
            at.value + gain,
            at.gradient[:, self.size] + (mixed * step).sum(1),
            at.hessian[:, self.size, self.size] + (mixed * derivative).sum(1),
            -0.5 * values.clamp_min(0.0).log1p().sum(1),
            tangent,
        )
        is_convex = values[:, 0] < -_ROUNDING * values[:, -1].clamp_min(1.0)
        return point, (gain <= _NEWTON_TOL) & ~is_convex


def _step_length(point: _Point) -> Tensor:
    """Return the step after which quadratic profiles are lower by ``_DROP_PER_STEP``."""
    slope, curvature = point.slope.abs(), (-point.curvature).clamp_min(0.0)
    # The root of slope h + curvature h**2 / 2 = drop, in a form that holds without curvature
    step = 2 * _DROP_PER_STEP / (slope + (slope.square() + 2 * _DROP_PER_STEP * curvature).sqrt())
    return step.clamp_max(_MAX_STEP)
