r"""Likelihoods of genes' sizes alone, each as a function.

The other parameters :math:`\theta` of a gene are maximised over, and the profile is adjusted for
them (Cox and Reid 1987): at the log size :math:`\rho` it is

.. math:: \ell(\rho, \hat\theta_\rho) - \tfrac12 \log\det(1 + I_{\theta\theta}).

Fitted means follow the counts, whose excess over them is too small by that; the adjustment makes up
for it. The one that it adds to the information is that of a standard normal distribution of each
coordinate, which is a unit of a predictor. Without it, genes of few counts would tend to no size at
all.

A few points of the function are enough. At each, the gradient along the size is that of the
profile, and its curvature tells how far away the next point may be; between them it is a cubic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.family import DISPERSION
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import GeneFits, fits_at, one_thread, problem_of
from sc_glm._solver.trust_region import Solution, maximize
from sc_glm.inference.observed_information import SETTINGS
from sc_glm.inference.profile_likelihood import Restricted

if TYPE_CHECKING:
    from torch import Tensor

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._likelihood.objective import Objective
    from sc_glm._solver.gene_block import Designs
    from sc_glm._solver.problem import Problem

N_POINTS = 128  # of each gene's likelihood, for sums over it

_LOWEST, _HIGHEST = -10.0, 10.0  # log sizes between which a trend may be
_DEPTH = 10.0  # log-likelihood below the maximum at which a point no longer matters
_FALL = 5.0  # log-likelihood from one point to the next
_FARTHEST = 1.0  # log size from one point to the next
_FLAT = 0.02  # slope of the log-likelihood towards the Poisson limit that is none
_ABSENT = -20.0  # log odds of a zero inflation that is next to none, and still has a curvature
_BEYOND = 3.0  # log size, over that at which a mean's excess variance is seen, of a Poisson gene
_SETTLED = 1e-2  # log-likelihood that the other parameters may still gain by one Newton step
_TOL = 1e-6  # so small that a way from next to flat is seen as one
_MAX_ITER = 100
_FIRM = 1e-4  # curvature from which on a direction has a Newton step
_ROUNDING = 1e-12  # of the largest curvature
_LARGEST_CHANGE = 5.0  # of another coordinate, for one unit of log size


class SizeLikelihood(NamedTuple):
    """Genes' log-likelihoods by their size.

    Attributes
    ----------
    mean : ndarray of shape (n_genes,)
        Average count over the cells.
    log_size : ndarray of shape (n_genes, N_POINTS)
        Equidistant; a gene's own, as wide as its likelihood is.
    value : ndarray of shape (n_genes, N_POINTS)
        Adjusted profile log-likelihood, zero at its maximum.
    """

    mean: FloatArray
    log_size: FloatArray
    value: FloatArray


def size_likelihood(
    family: Family, counts: CountMatrix, designs: Designs, theta: FloatArray, n_jobs: int | None
) -> SizeLikelihood:
    """Find the adjusted profile likelihoods of the sizes of genes that have one each.

    Parameters
    ----------
    family : Family
    counts : CountMatrix
    designs : Designs
        That of the dispersion is a column of ones.
    theta : ndarray of shape (n_genes, n_params)
        Fitted coordinates.
    n_jobs : int or None
        Workers, as joblib counts them.
    """
    found = map_blocks(
        _likelihood_of_block, counts, designs, [theta], family, designs, n_jobs=n_jobs
    )
    return SizeLikelihood(*(np.concatenate(pieces) for pieces in zip(*found, strict=True)))


def fit_at_sizes(
    family: Family, counts: CountMatrix, designs: Designs, theta: FloatArray, n_jobs: int | None
) -> GeneFits:
    """Maximise over all parameters but the size, from points that have the sizes.

    Parameters are those of :func:`size_likelihood`.
    """
    found = map_blocks(_fit_block, counts, designs, [theta], family, designs, n_jobs=n_jobs)
    return GeneFits.join(found)


def _likelihood_of_block(
    counts: Any, theta: FloatArray, family: Family, designs: Designs
) -> SizeLikelihood:
    with one_thread(), torch.inference_mode():
        problem = problem_of(family, counts, designs, SETTINGS).unpacked()
        walk = _Walk(problem.own_objective())
        total = problem.weights.sum()
        mean = problem.weighted_sum(problem.counts.data, torch.ones_like(problem.weights)) / total
        # From here on, an excess variance is lost in that of the counts.
        poisson = (mean * total.sqrt()).log() + _BEYOND
        start = torch.from_numpy(theta).clone()
        start[:, walk.size] = start[:, walk.size].minimum(poisson).clamp_min(_LOWEST)
        _bring_back(problem, walk.objective, start)
        log_size, value = walk.nodes(start).at_points()
        return SizeLikelihood(mean.numpy(), log_size.numpy(), value.numpy())


def _bring_back(problem: Problem, objective: Objective, theta: Tensor) -> None:
    """Bring zero inflations that are next to none to where their curvature is seen.

    Fits end anywhere on the way to none, also where rounding is larger than the curvature.
    """
    for basis, own in zip(problem.bases[2:], objective.slices[2:], strict=True):
        _, highest = problem.predictor_range(basis, theta[:, own])
        theta[:, own] *= (_ABSENT / highest.clamp_max(_ABSENT))[:, None]


def _fit_block(counts: Any, theta: FloatArray, family: Family, designs: Designs) -> GeneFits:
    with one_thread(), torch.inference_mode():
        problem = problem_of(family, counts, designs, SETTINGS).unpacked()
        objective = problem.own_objective()
        return fits_at(problem, objective, designs, _Walk(objective).end(torch.from_numpy(theta)))


class _Nodes(NamedTuple):
    """Points of profiles, (n_genes, n_nodes), ascending; and the range in which they matter."""

    log_size: Tensor
    value: Tensor
    slope: Tensor
    adjustment: Tensor
    lower: Tensor
    upper: Tensor

    def at_points(self) -> tuple[Tensor, Tensor]:
        """Interpolate by cubics of values and slopes, and the adjustment by lines."""
        share = torch.linspace(0, 1, N_POINTS, dtype=self.value.dtype)
        points = torch.lerp(self.lower[:, None], self.upper[:, None], share)
        right = torch.searchsorted(self.log_size, points).clamp(1, self.log_size.shape[1] - 1)
        (x0, x1), (y0, y1), (d0, d1), (a0, a1) = (
            (x.gather(1, right - 1), x.gather(1, right)) for x in self[:4]
        )
        h = x1 - x0
        # Beyond the last node, nothing changes any more.
        t = ((points - x0) / h).clamp_max(1.0)
        u = 1 - t
        cubic = y0 * u * u * (1 + 2 * t) + y1 * t * t * (1 + 2 * u) + h * t * u * (d0 * u - d1 * t)
        value = cubic + a0 * u + a1 * t
        return points, value - value.amax(1, keepdim=True)


class _Point(NamedTuple):
    """A point of each profile, and by which change of the coordinates it goes on."""

    theta: Tensor
    value: Tensor
    slope: Tensor
    curvature: Tensor
    adjustment: Tensor
    change: Tensor

    def rows(self, index: Tensor) -> _Point:
        """Return the points of some genes."""
        return _Point(*(x[index] for x in self))

    def put(self, index: Tensor, other: _Point) -> None:
        """Replace the points of some genes."""
        for mine, new in zip(self, other, strict=True):
            mine[index] = new


class _Walk:
    """Steps along profiles, from a point near the maximum to both sides."""

    def __init__(self, objective: Objective) -> None:
        n_genes = objective.block.n_genes
        self.objective = objective
        self.size = objective.slices[objective.family.parts.index(DISPERSION)].start
        direction = torch.zeros(objective.n_params, dtype=objective.weights.dtype)
        direction[self.size] = 1.0
        values = torch.zeros(n_genes, dtype=direction.dtype)
        self.restricted = Restricted(objective, direction, values)

    def nodes(self, theta: Tensor) -> _Nodes:
        """Return points of the genes' profiles as far as they matter."""
        first = self._at(theta, torch.arange(len(theta)))
        (left, lower, _), (right, upper, flat) = (self._side(first, side) for side in (-1.0, 1.0))
        nodes = torch.stack([*left[::-1], self._node(first), *right], 2)
        upper = torch.where(flat, (upper + _FARTHEST).clamp_min(_HIGHEST), upper)
        log_size, value, slope, adjustment = nodes.unbind()
        return _Nodes(log_size, value, slope, adjustment, lower, upper)

    def end(self, theta: Tensor) -> Solution:
        """Maximise over all but the size, which is certain then."""
        restricted, genes = self.restricted, torch.arange(len(theta))
        start = restricted.inside(self._at(theta, genes).theta)
        found = maximize(restricted, start, max_iter=_MAX_ITER, tol=_TOL)
        across = restricted.across
        hessian = across @ found.hessian @ across.mT
        hessian[:, self.size, self.size] = -1.0
        return replace(found, theta=restricted.outside(found.theta, genes), hessian=hessian)

    def _side(self, first: _Point, side: float) -> tuple[list[Tensor], Tensor, Tensor]:
        """Walk to one side.

        Returns the node of each step; the log size at which genes ended; and whether they did as
        nothing changes any more. A gene that has ended goes on along a straight line.
        """
        last = _Point(*(x.clone() for x in first))
        best = first.value.clone()
        nodes: list[Tensor] = []
        end = first.theta[:, self.size].clone()
        flat = torch.zeros_like(end, dtype=torch.bool)
        active = torch.arange(len(end))
        while len(active):
            own = last.rows(active)
            step = side * _step(own)
            trial = own.theta + step[:, None] * own.change
            new = self._at(trial, active)
            here = new.theta[:, self.size]
            best[active] = best[active].maximum(new.value)
            if side > 0:
                level = (new.slope.abs() < _FLAT) & (new.curvature.abs() < _FLAT)
                flat[active] = level
                new.slope[level] = 0.0
                done = level
            else:
                done = here <= _LOWEST
            done = done | ~(best[active] - new.value < _DEPTH)
            last.value.add_(side * _FARTHEST * last.slope)
            last.theta[:, self.size] += side * _FARTHEST
            last.put(active, new)
            end[active] = here
            nodes.append(self._node(last))
            active = active[~done]
        return nodes, end, flat

    def _node(self, at: _Point) -> Tensor:
        return torch.stack([at.theta[:, self.size], at.value, at.slope, at.adjustment])

    def _at(self, theta: Tensor, genes: Tensor) -> _Point:
        """Maximise over all but the size, from points that are about there."""
        self.restricted.values[genes] = theta[:, self.size]
        point, settled = self._newton(theta, genes)
        if not settled.all():
            rest = torch.nonzero(~settled)[:, 0]
            start = self.restricted.inside(theta[rest])
            solution = maximize(
                self.restricted, start, max_iter=_MAX_ITER, tol=_TOL, genes=genes[rest]
            )
            there = self.restricted.outside(solution.theta, genes[rest])
            point.put(rest, self._newton(there, genes[rest])[0])
        return point

    def _newton(self, theta: Tensor, genes: Tensor) -> tuple[_Point, Tensor]:
        """Take a Newton step at given sizes; also return whether it is a small one to a maximum.

        It is none where the likelihood is convex, be it next to flat. A zero inflation that was of
        no use at another size, and is all but infinite, shows by that alone that it is of some now.
        """
        restricted = self.restricted
        at = self.objective.evaluate(theta, genes)
        across = restricted.across
        values, vectors = rowwise.eigh(-(across.mT @ at.hessian @ across))
        firm = values > _FIRM
        inverse = torch.where(firm, 1 / torch.where(firm, values, 1.0), 0.0)

        def solved(right: Tensor) -> Tensor:
            return rowwise.apply(vectors, inverse * rowwise.apply(vectors.mT, right))

        gradient = restricted.inside(at.gradient)
        mixed = restricted.inside(at.hessian[:, self.size])
        step, change = solved(gradient), solved(mixed)
        gain = 0.5 * (gradient * step).sum(1)
        whole = rowwise.product(change.clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE), across.mT)
        whole[:, self.size] = 1.0
        point = _Point(
            theta + rowwise.product(step, across.mT),
            at.value + gain,
            at.gradient[:, self.size] + (mixed * step).sum(1),
            at.hessian[:, self.size, self.size] + (mixed * change).sum(1),
            -0.5 * values.clamp_min(0.0).log1p().sum(1),
            whole,
        )
        convex = values[:, 0] < -_ROUNDING * values[:, -1].clamp_min(1.0)
        return point, (gain <= _SETTLED) & ~convex


def _step(point: _Point) -> Tensor:
    """Return how far away the profile is lower by ``_FALL``, by its slope and curvature."""
    slope, curvature = point.slope.abs(), (-point.curvature).clamp_min(0.0)
    # The root of slope h + curvature h**2 / 2 = fall, in a form that holds without curvature
    step = 2 * _FALL / (slope + (slope.square() + 2 * _FALL * curvature).sqrt())
    return step.clamp_max(_FARTHEST)
