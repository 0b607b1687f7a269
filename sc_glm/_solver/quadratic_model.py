"""Quadratic models of objectives around a point, and their maxima within a trust region."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import Elimination, is_flat
from sc_glm._likelihood.objective import Evaluation

_SECULAR_ITERATIONS = 3  # each doubles the digits to which the norm of a step equals the radius
# A run may gain more than its model predicts, because the model is local.
_MAX_GAIN_RATIO = 10.0  # times the predicted gain of a Newton step, of all further steps together
_MAX_GAIN_RATIO_NONCONCAVE = 4.0  # times the predicted gain of the next step, for each step left


@dataclass
class QuadraticModel:
    """Quadratic models of a batch of genes, in the eigenbases of their negative Hessians.

    A curvature is flat if a step as long as the point itself gains less than the tolerance. Flat
    curvatures are raised to a floor, because a Newton step along them would only drift. Rounding
    may make them negative.
    """

    curvature: Tensor
    vectors: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, at: Evaluation, floor: Tensor, noise: Tensor) -> "QuadraticModel":
        """Return the models at points; ``floor`` and ``noise`` define which curvatures are flat."""
        # A gene without a finite start is given up; its model must not stop the others.
        curvature, vectors = rowwise.eigh(torch.nan_to_num(-at.hessian, 0.0, 0.0, 0.0))
        rounding = torch.finfo(floor.dtype).eps * curvature.abs().amax(1)
        floor = torch.maximum(floor, rounding)
        curvature = torch.where(is_flat(curvature, floor, noise), floor[:, None], curvature)
        gradient = rowwise.matvec(vectors.mT, at.gradient)
        return cls(curvature, vectors, gradient)

    def select(self, keep: Tensor) -> "QuadraticModel":
        """Return the models of some genes."""
        return QuadraticModel(self.curvature[keep], self.vectors[keep], self.gradient[keep])

    @cached_property
    def min_curvature(self) -> Tensor:
        """Smallest curvature of each gene."""
        return self.curvature.amin(1)

    @cached_property
    def newton_gain(self) -> Tensor:
        """Predicted gain of a Newton step; infinite if the model is not concave."""
        gain = 0.5 * (self.gradient**2 / self.curvature).sum(1)
        return torch.where(self.min_curvature > 0, gain, torch.inf)

    def step(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step to the maximum of the model within the radius, in the eigenbasis.

        Also return whether it is a Newton step, that is whether the maximum is inside.
        """
        tiny = torch.finfo(radius.dtype).tiny
        step = self.gradient / self.curvature.clamp_min(tiny)
        is_newton = (self.min_curvature > 0) & (norms(step) <= radius)
        on_boundary = ~is_newton
        if on_boundary.any():
            step[on_boundary] = _boundary_step(
                self.gradient[on_boundary], self.curvature[on_boundary], radius[on_boundary]
            )
        return step, is_newton

    def to_coordinates(self, step: Tensor) -> Tensor:
        """Return steps in the coordinates of the genes, given in the eigenbasis."""
        return rowwise.matvec(self.vectors, step)

    def norm(self, step: Tensor, in_basis: Tensor) -> Tensor:  # noqa: ARG002 - both are equal
        """Return the norms of steps that the radius bounds, given in both bases."""
        return norms(step)

    def predicted_gain(self, step: Tensor) -> Tensor:
        """Return the gain that the model predicts for steps in the eigenbasis."""
        return (self.gradient * step - 0.5 * self.curvature * step**2).sum(1)

    def gain_bound(self, step: Tensor, steps_left: int) -> Tensor:
        """Return an upper bound of the gain of all further steps, given the next one."""
        predicted = self.newton_gain
        in_steps = _MAX_GAIN_RATIO_NONCONCAVE * steps_left * self.predicted_gain(step)
        return torch.where(predicted.isinf(), in_steps, _MAX_GAIN_RATIO * predicted)


@dataclass
class ArrowModel(QuadraticModel):
    """Quadratic models of genes whose Hessians are arrows.

    The basis consists of the levels of the mean, and of the eigenvectors of the Hessian of the
    other parameters after the levels were eliminated. In it, the model is a sum over coordinates.
    The radius bounds a step in this basis, which is not orthogonal.
    """

    elimination: Elimination

    @classmethod
    def of(cls, at: Evaluation, floor: Tensor, noise: Tensor) -> "ArrowModel":
        """Return the models at points; ``floor`` and ``noise`` define which curvatures are flat."""
        arrow = torch.nan_to_num(-at.hessian, 0.0, 0.0, 0.0)
        elimination = Elimination.of(arrow, floor, noise)
        floor = torch.maximum(floor, torch.finfo(floor.dtype).eps * elimination.scale)
        curvature, vectors = rowwise.eigh(elimination.schur_complement)
        curvature = torch.where(is_flat(curvature, floor, noise), floor[:, None], curvature)
        gradient = elimination.reduce(at.gradient)
        n_levels = elimination.diagonal.shape[1]
        gradient_of_others = rowwise.matvec(vectors.mT, gradient[:, n_levels:])
        return cls(
            torch.cat([elimination.diagonal, curvature], 1),
            vectors,
            torch.cat([gradient[:, :n_levels], gradient_of_others], 1),
            elimination,
        )

    def select(self, keep: Tensor) -> "ArrowModel":
        """Return the models of some genes."""
        elimination = Elimination(*(x[keep] for x in self.elimination))
        return ArrowModel(
            self.curvature[keep], self.vectors[keep], self.gradient[keep], elimination
        )

    def to_coordinates(self, step: Tensor) -> Tensor:
        """Return steps in the coordinates of the genes, given in the basis of the model."""
        n_levels = self.elimination.diagonal.shape[1]
        others = rowwise.matvec(self.vectors, step[:, n_levels:])
        return self.elimination.back_substitute(torch.cat([step[:, :n_levels], others], 1))

    def norm(self, step: Tensor, in_basis: Tensor) -> Tensor:  # noqa: ARG002
        """Return the norms of steps that the radius bounds, given in both bases."""
        return norms(in_basis)


def _boundary_step(gradient: Tensor, curvature: Tensor, radius: Tensor) -> Tensor:
    """Return the maxima of models on the boundary of the trust region, in the eigenbasis.

    The secular equation is solved: the curvature is raised until the norm of the step equals the
    radius (Moré and Sorensen 1983, "Computing a trust region step"). The iteration begins at the
    smallest raise for which no coordinate exceeds the radius.
    """
    tiny = torch.finfo(radius.dtype).tiny
    min_raise = (gradient.abs() / radius[:, None] - curvature).amax(1).clamp_min_(0.0)
    raised = min_raise
    for _ in range(_SECULAR_ITERATIONS):
        inverse = (curvature + raised[:, None]).clamp_min_(tiny).reciprocal_()
        squares = (gradient * inverse).square_()
        squared_norm = squares.sum(1)
        excess = (squared_norm.sqrt() / radius).sub_(1)
        rate = squares.mul_(inverse).sum(1).clamp_min_(tiny)
        raised = torch.maximum(min_raise, raised + squared_norm / rate * excess)
    step = gradient / (curvature + raised[:, None]).clamp_min_(tiny)
    return step * (radius / norms(step).clamp_min(tiny)).clamp_max_(1.0)[:, None]


def norms(step: Tensor) -> Tensor:
    """Return the Euclidean norms of steps, one in each row."""
    return torch.linalg.vector_norm(step, dim=1)
