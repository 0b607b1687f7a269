"""Batched Newton in a trust region: many small maximisations side by side.

Each gene keeps its own radius and leaves the batch when the gain that its quadratic model still
promises falls below the tolerance. A maximum at infinity (a group without counts, a size that
wants to be infinite) shows as Newton steps of one length in one direction; such a step is
extrapolated, so that a runaway costs a few passes and not one per unit.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import Elimination, is_arrow, is_flat
from sc_glm._likelihood.objective import Evaluation

_FIRST_RADIUS = 2.0
_LARGEST_RADIUS = 1e4
_ACCEPT = 1e-4
_FIRM = 1e3
_SECULAR_STEPS = 3  # each doubles the digits to which a radius is met
_LONGEST_STRIDE = 16.0
_ROUNDED = 8.0  # times the noise, which roundings of equal terms may exceed
_MOST_GAIN_RATIO = (
    10.0  # times the promised gain that a run may still rise: it is promised step by step
)
_MOST_GAIN_RATIO_UPHILL = (
    4.0  # where none is promised: times that of the next step, for all those left
)


@dataclass
class Solution:
    """Where each gene's maximisation ended.

    Attributes
    ----------
    theta : Tensor of shape (n_genes, n_params)
    value : Tensor of shape (n_genes,)
        Objective at ``theta``.
    hessian : Tensor of shape (n_genes, n_params, n_params)
        Hessian one step before ``theta``, within the tolerance of it; arrows are packed, see
        :mod:`~sc_glm._likelihood.arrow_hessian`.
    n_iter : Tensor of shape (n_genes,)
        Passes over the gene's counts.
    converged : Tensor of shape (n_genes,)
        Whether the promised gain fell below the tolerance.
    """

    theta: Tensor
    value: Tensor
    hessian: Tensor
    n_iter: Tensor
    converged: Tensor

    @classmethod
    def before(cls, theta: Tensor, at: Evaluation) -> "Solution":
        """Return what is known before the first step, but for the place of the Hessians."""
        n_genes = len(theta)
        return cls(
            theta=theta.clone(),
            value=theta.new_full((n_genes,), -torch.inf),
            hessian=torch.zeros_like(at.hessian),
            n_iter=torch.ones(n_genes, dtype=torch.long, device=theta.device),
            converged=torch.zeros(n_genes, dtype=torch.bool, device=theta.device),
        )

    def rows(self, index: Tensor) -> "Solution":
        """Return some of the ends."""
        return Solution(*(getattr(self, field.name)[index] for field in fields(self)))

    def put(self, genes: Tensor, other: "Solution") -> None:
        """Replace the ends of some genes."""
        for field in fields(self):
            getattr(self, field.name)[genes] = getattr(other, field.name)


@dataclass
class _Model:
    """Quadratic models of a batch of genes in the eigenbasis of their negative Hessians.

    Curvature along which a step as long as the point itself gains less than the tolerance is
    raised to a floor: a longer step would only drift. So is one that rounding makes negative.
    """

    curvature: Tensor
    vectors: Tensor
    slope: Tensor

    @classmethod
    def of(cls, at: Evaluation, floor: Tensor, noise: Tensor) -> "_Model":
        # A gene without a finite start is given up; its model must not stop the others.
        curvature, vectors = rowwise.eigh(torch.nan_to_num(-at.hessian, 0.0, 0.0, 0.0))
        rounding = torch.finfo(floor.dtype).eps * curvature.abs().amax(1)
        floor = torch.maximum(floor, rounding)
        curvature = torch.where(is_flat(curvature, floor, noise), floor[:, None], curvature)
        slope = rowwise.apply(vectors.mT, at.gradient)
        return cls(curvature, vectors, slope)

    def select(self, keep: Tensor) -> "_Model":
        """Return the models of some genes."""
        return _Model(self.curvature[keep], self.vectors[keep], self.slope[keep])

    @cached_property
    def lowest(self) -> Tensor:
        """Smallest curvature."""
        return self.curvature.amin(1)

    @cached_property
    def newton_gain(self) -> Tensor:
        """Gain promised by a Newton step; infinite where the model is not concave."""
        gain = 0.5 * (self.slope**2 / self.curvature).sum(1)
        return torch.where(self.lowest > 0, gain, torch.inf)

    def step(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step to the model's maximum within ``radius``, and whether it is Newton's.

        The step is in the eigenbasis.
        """
        tiny = torch.finfo(radius.dtype).tiny
        step = self.slope / self.curvature.clamp_min(tiny)
        inside = (self.lowest > 0) & (_length(step) <= radius)
        beyond = ~inside
        if beyond.any():
            step[beyond] = _at_length(self.slope[beyond], self.curvature[beyond], radius[beyond])
        return step, inside

    def outside(self, step: Tensor) -> Tensor:
        """Return in the coordinates of the genes what is given in the eigenbasis."""
        return rowwise.apply(self.vectors, step)

    def length(self, step: Tensor, in_basis: Tensor) -> Tensor:  # noqa: ARG002 - it is the same
        """Return what the radius bounds of a step, which is given in both bases."""
        return _length(step)

    def gain(self, step: Tensor) -> Tensor:
        """Gain that the model promises for a step in the eigenbasis."""
        return (self.slope * step - 0.5 * self.curvature * step**2).sum(1)

    def largest_gain(self, step: Tensor, steps_left: int) -> Tensor:
        """Gain that a run with so many steps left may find at the most, given its next step."""
        promised = self.newton_gain
        in_steps = _MOST_GAIN_RATIO_UPHILL * steps_left * self.gain(step)
        return torch.where(promised.isinf(), in_steps, _MOST_GAIN_RATIO * promised)


@dataclass
class _ArrowModel(_Model):
    """The same of arrows: with the levels as they are, and the others when levels follow them.

    Then the model is a sum over levels and over the eigenvectors of what is left of the others'
    Hessian. The radius bounds a step in this basis, which is not orthogonal.
    """

    elimination: Elimination

    @classmethod
    def of(cls, at: Evaluation, floor: Tensor, noise: Tensor) -> "_ArrowModel":
        arrow = torch.nan_to_num(-at.hessian, 0.0, 0.0, 0.0)
        elimination = Elimination.of(arrow, floor, noise)
        floor = torch.maximum(floor, torch.finfo(floor.dtype).eps * elimination.scale)
        curvature, vectors = rowwise.eigh(elimination.schur_complement)
        curvature = torch.where(is_flat(curvature, floor, noise), floor[:, None], curvature)
        slope = elimination.reduce(at.gradient)
        n_levels = elimination.diagonal.shape[1]
        own = rowwise.apply(vectors.mT, slope[:, n_levels:])
        return cls(
            torch.cat([elimination.diagonal, curvature], 1),
            vectors,
            torch.cat([slope[:, :n_levels], own], 1),
            elimination,
        )

    def select(self, keep: Tensor) -> "_ArrowModel":
        """Return the models of some genes."""
        elimination = Elimination(*(x[keep] for x in self.elimination))
        return _ArrowModel(self.curvature[keep], self.vectors[keep], self.slope[keep], elimination)

    def outside(self, step: Tensor) -> Tensor:
        """Return in the coordinates of the genes what is given in the model's basis."""
        n_levels = self.elimination.diagonal.shape[1]
        others = rowwise.apply(self.vectors, step[:, n_levels:])
        return self.elimination.back_substitute(torch.cat([step[:, :n_levels], others], 1))

    def length(self, step: Tensor, in_basis: Tensor) -> Tensor:  # noqa: ARG002
        """Return what the radius bounds of a step, which is given in both bases."""
        return _length(in_basis)


def _at_length(slope: Tensor, curvature: Tensor, limit: Tensor) -> Tensor:
    """Return the maxima of models whose Newton steps are longer than allowed, in the eigenbasis.

    The curvature is raised until the step is as short as ``limit``, from where no coordinate is
    longer than that (Moré and Sorensen 1983, "Computing a trust region step").
    """
    tiny = torch.finfo(limit.dtype).tiny
    least = (slope.abs() / limit[:, None] - curvature).amax(1).clamp_min_(0.0)
    raised = least
    for _ in range(_SECULAR_STEPS):
        inverse = (curvature + raised[:, None]).clamp_min_(tiny).reciprocal_()
        squares = (slope * inverse).square_()
        squared = squares.sum(1)
        excess = (squared.sqrt() / limit).sub_(1)
        rate = squares.mul_(inverse).sum(1).clamp_min_(tiny)
        raised = torch.maximum(least, raised + squared / rate * excess)
    step = slope / (curvature + raised[:, None]).clamp_min_(tiny)
    return step * (limit / _length(step).clamp_min(tiny)).clamp_max_(1.0)[:, None]


class Evaluable(Protocol):
    """What can be maximised, such as an :class:`~sc_glm._likelihood.objective.Objective`."""

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate genes at points, one row each."""


def maximize(
    objective: Evaluable,
    theta: Tensor,
    *,
    max_iter: int,
    tol: float,
    genes: Tensor | None = None,
    beat: Tensor | None = None,
) -> Solution:
    """Maximise every gene's objective from its own start.

    Parameters
    ----------
    objective : Evaluable
    theta : Tensor of shape (n_genes, n_params)
        Starting points, in coordinates whose unit is a unit of the predictor.
    max_iter : int
        Passes over the counts after which a gene is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    genes : Tensor, optional
        The genes that ``theta`` has a row for; by default all of the objective's.
    beat : Tensor of shape (n_genes,), optional
        Values that make further steps pointless where they are out of reach.

    Returns
    -------
    Solution
        With a row for each row of ``theta``.
    """
    n_genes = theta.shape[0]
    eps = torch.finfo(theta.dtype).eps
    rows = torch.arange(n_genes, device=theta.device)
    genes = rows if genes is None else genes
    at = objective.evaluate(theta, genes)
    solution = Solution.before(theta, at)
    theta = theta.clone()
    radius = torch.where(_is_finite(at), _FIRST_RADIUS, 0.0).to(theta)  # none from a lost start
    previous = torch.zeros_like(theta)
    stride = torch.ones_like(radius)
    for iteration in range(max_iter):
        noise = 10 * eps * at.magnitude
        floor = (0.1 * noise).clamp_min(tol)
        kind = _ArrowModel if is_arrow(at.hessian) else _Model
        model = kind.of(at, floor / (1 + theta.square().sum(1)), noise)
        promised = model.newton_gain
        done = (promised <= floor) & (radius > 0)
        in_basis, newton = model.step(radius)
        step = model.outside(in_basis)
        stalled = radius < eps
        if beat is not None:
            stalled |= at.value + model.largest_gain(in_basis, max_iter - iteration) < beat[rows]
        leaving = done | stalled if iteration < max_iter - 1 else torch.ones_like(done)
        gone = torch.nonzero(leaving)[:, 0]
        if len(gone):
            # The last step is not evaluated: only a firm model is trusted with it.
            firm = done & newton & (model.lowest > _FIRM * floor)
            last = torch.where(firm, promised, 0.0)
            ids = rows[gone]
            solution.theta[ids] = (theta + step * firm[:, None])[gone]
            solution.value[ids] = (at.value + last)[gone]
            solution.hessian[ids] = at.hessian[gone]
            solution.n_iter[ids] = iteration + 1
            solution.converged[ids] = done[gone]
            keep = torch.nonzero(~leaving)[:, 0]
            if not len(keep):
                break
            rows, genes, theta, radius = rows[keep], genes[keep], theta[keep], radius[keep]
            previous, stride, step, newton = previous[keep], stride[keep], step[keep], newton[keep]
            at, noise, in_basis = _select(at, keep), noise[keep], in_basis[keep]
            model = model.select(keep)
        stride = _stride(step, previous, stride, newton)
        expected = model.gain(in_basis)
        trial = _ahead(theta + step, in_basis, stride, model)
        new = objective.evaluate(trial, genes)
        ratio = _gain_ratio(new.value - at.value, expected, noise)
        accepted = (ratio > _ACCEPT) & _is_finite(new)
        previous = torch.where(accepted[:, None], step, 0.0)
        radius = _next_radius(
            radius, model.length(step, in_basis), torch.where(accepted, ratio, 0.0)
        )
        theta = torch.where(accepted[:, None], trial, theta)
        at = Evaluation(
            torch.where(accepted, new.value, at.value),
            torch.where(accepted[:, None], new.gradient, at.gradient),
            torch.where(accepted[:, None, None], new.hessian, at.hessian),
            torch.where(accepted, new.magnitude, at.magnitude),
        )
    return solution


def _stride(step: Tensor, previous: Tensor, stride: Tensor, newton: Tensor) -> Tensor:
    """Return how many steps to take at once.

    A Newton step that repeats the last one is on its way to infinity.
    """
    along = (step * previous).sum(1)
    length, last = _length(step), _length(previous)
    alike = newton & (along > 0.9 * length * last) & (length > 0.7 * last) & (length < 1.3 * last)
    return torch.where(alike, (2 * stride).clamp_max(_LONGEST_STRIDE), 1.0)


def _ahead(point: Tensor, step: Tensor, stride: Tensor, model: _Model) -> Tensor:
    """Go on from where one step, given in the eigenbasis, leads to where several do.

    Across the way to infinity there is only what the last steps left to correct.
    """
    if not (stride > 1).any():
        return point
    along = torch.where(step.abs() > 0.5 * _length(step)[:, None], step, 0.0)
    return point + (stride - 1)[:, None] * model.outside(along)


def _gain_ratio(gain: Tensor, expected: Tensor, noise: Tensor) -> Tensor:
    """Return the share of the expected gain that was found.

    A promise that is lost in the rounding of the value is believed: the gradient, from which it
    comes, is known to more digits.
    """
    unseen = (expected < _ROUNDED * noise) & (gain.abs() < _ROUNDED * noise)
    return torch.where(unseen, 1.0, gain / expected)


def _next_radius(radius: Tensor, length: Tensor, ratio: Tensor) -> Tensor:
    """Widen or narrow the radius by how much of the promised gain was found."""
    wider = torch.maximum(radius, (2 * length).clamp_max(_LARGEST_RADIUS))
    kept = torch.where(ratio > 0.75, wider, radius)
    return torch.where(ratio > 0.25, kept, 0.25 * length)


def _select(at: Evaluation, keep: Tensor) -> Evaluation:
    return Evaluation(*(x[keep] for x in at))


def _length(step: Tensor) -> Tensor:
    return torch.linalg.vector_norm(step, dim=1)


def _is_finite(at: Evaluation) -> Tensor:
    return torch.isfinite(at.value) & torch.isfinite(at.hessian).all(-1).all(-1)
