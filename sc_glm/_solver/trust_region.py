"""Newton's method in a trust region, for many small maximisations at once.

Each gene has its own radius. It leaves the batch when the gain that its quadratic model predicts
falls below the tolerance. If a maximum is at infinity, Newton steps repeat in length and direction.
Examples are a group without counts and an infinite size. Repeated steps are extrapolated, such that
a maximum at infinity takes a few passes instead of one for each unit of the predictor.
"""

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from sc_glm._likelihood.arrow_hessian import is_arrow
from sc_glm._likelihood.objective import Evaluation
from sc_glm._solver.quadratic_model import ArrowModel, QuadraticModel, norms

_INITIAL_RADIUS = 2.0  # units of the predictor
_MAX_RADIUS = 1e4  # units of the predictor
_MIN_GAIN_RATIO = 1e-4  # actual by predicted gain above which a step is accepted
_MIN_FINAL_CURVATURE = 1e3  # times the tolerance: needed for a final step without evaluation
_MAX_STEP_LENGTH = 16.0  # Newton steps that are taken at once
_ROUNDING_FACTOR = 8.0  # times the noise: rounding of equal terms may exceed the noise itself
# Gain ratios above which the radius is widened, and up to which it is narrowed.
_GOOD_GAIN_RATIO, _POOR_GAIN_RATIO = 0.75, 0.25
# A step repeats the last one if the cosine of their angle and the ratio of their lengths are within
# these bounds.
_MIN_COSINE = 0.9
_MIN_LENGTH_RATIO, _MAX_LENGTH_RATIO = 0.7, 1.3
_MIN_MAIN_SHARE = 0.5  # of the norm of a step, above which a coordinate is extrapolated


@dataclass
class Solution:
    """The points at which the maximisations of genes ended.

    Attributes
    ----------
    theta : Tensor of shape (n_genes, n_params)
    value : Tensor of shape (n_genes,)
        Objective at ``theta``.
    hessian : Tensor of shape (n_genes, n_params, n_params)
        Hessian one step before ``theta``, which is within the tolerance of it. Arrows are packed,
        see :mod:`~sc_glm._likelihood.arrow_hessian`.
    n_iter : Tensor of shape (n_genes,)
        Passes over the gene's counts.
    converged : Tensor of shape (n_genes,)
        Whether the predicted gain fell below the tolerance.
    """

    theta: Tensor
    value: Tensor
    hessian: Tensor
    n_iter: Tensor
    converged: Tensor

    @classmethod
    def initial(cls, theta: Tensor, at: Evaluation) -> "Solution":
        """Return a solution of the shape of the starting points, before any step."""
        n_genes = len(theta)
        return cls(
            theta=theta.clone(),
            value=theta.new_full((n_genes,), -torch.inf),
            hessian=torch.zeros_like(at.hessian),
            n_iter=torch.ones(n_genes, dtype=torch.long, device=theta.device),
            converged=torch.zeros(n_genes, dtype=torch.bool, device=theta.device),
        )

    def rows(self, index: Tensor) -> "Solution":
        """Return the solutions of some genes."""
        return Solution(*(getattr(self, field.name)[index] for field in fields(self)))

    def put(self, genes: Tensor, other: "Solution") -> None:
        """Replace the solutions of some genes."""
        for field in fields(self):
            getattr(self, field.name)[genes] = getattr(other, field.name)


class Evaluable(Protocol):
    """An objective to maximise, such as :class:`~sc_glm._likelihood.objective.Objective`."""

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate genes at points, one row each."""


@dataclass
class _Proposal:
    """The next step of each gene, and the model that it comes from.

    Attributes
    ----------
    model : QuadraticModel
    in_basis, step : Tensor of shape (n_genes, n_params)
        The step in the basis of the model and in the coordinates of the genes.
    is_newton : Tensor of bool of shape (n_genes,)
        Whether the step is inside the trust region.
    noise, tolerance : Tensor of shape (n_genes,)
        Rounding error of the objective, and the predicted gain below which a gene has converged.
    converged : Tensor of bool of shape (n_genes,)
    """

    model: QuadraticModel
    in_basis: Tensor
    step: Tensor
    is_newton: Tensor
    noise: Tensor
    tolerance: Tensor
    converged: Tensor

    def select(self, keep: Tensor) -> "_Proposal":
        """Return the steps of some genes."""
        others = (getattr(self, field.name)[keep] for field in fields(self)[1:])
        return _Proposal(self.model.select(keep), *others)

    def final_step(self) -> tuple[Tensor, Tensor]:
        """Return the last step of genes that leave the batch, and its predicted gain.

        It is a Newton step if the gene has converged and curvature is large. It is not evaluated.
        Other genes stay where they are.
        """
        min_curvature = _MIN_FINAL_CURVATURE * self.tolerance
        is_safe = self.converged & self.is_newton & (self.model.min_curvature > min_curvature)
        gain = torch.where(is_safe, self.model.newton_gain, 0.0)
        return self.step * is_safe[:, None], gain


@dataclass
class _Batch:
    """The genes that are still being maximised, and their current points.

    Attributes
    ----------
    rows, genes : Tensor of int of shape (n_genes,)
        Their numbers in the solution and in the objective.
    theta : Tensor of shape (n_genes, n_params)
    at : Evaluation
        Value, gradient and Hessian at ``theta``.
    radius : Tensor of shape (n_genes,)
        Radius of the trust region.
    last_step : Tensor of shape (n_genes, n_params)
        The step that was taken last, without extrapolation; zero if it was rejected.
    step_length : Tensor of shape (n_genes,)
        Number of steps that were taken at once.
    """

    rows: Tensor
    genes: Tensor
    theta: Tensor
    at: Evaluation
    radius: Tensor
    last_step: Tensor
    step_length: Tensor

    @classmethod
    def initial(cls, theta: Tensor, at: Evaluation, genes: Tensor) -> "_Batch":
        """Return the batch before the first step; if a start is not finite, its radius is zero."""
        radius = torch.where(_is_finite(at), _INITIAL_RADIUS, 0.0).to(theta)
        return cls(
            rows=torch.arange(len(theta), device=theta.device),
            genes=genes,
            theta=theta.clone(),
            at=at,
            radius=radius,
            last_step=torch.zeros_like(theta),
            step_length=torch.ones_like(radius),
        )

    def select(self, keep: Tensor) -> "_Batch":
        """Return some of the genes."""
        return _Batch(
            self.rows[keep],
            self.genes[keep],
            self.theta[keep],
            Evaluation(*(x[keep] for x in self.at)),
            self.radius[keep],
            self.last_step[keep],
            self.step_length[keep],
        )

    def propose(self, tol: float) -> _Proposal:
        """Maximise the quadratic models of all genes within their radii."""
        noise = 10 * torch.finfo(self.theta.dtype).eps * self.at.magnitude
        tolerance = (0.1 * noise).clamp_min(tol)
        kind = ArrowModel if is_arrow(self.at.hessian) else QuadraticModel
        model = kind.of(self.at, tolerance / (1 + self.theta.square().sum(1)), noise)
        in_basis, is_newton = model.step(self.radius)
        step = model.to_coordinates(in_basis)
        converged = (model.newton_gain <= tolerance) & (self.radius > 0)
        return _Proposal(model, in_basis, step, is_newton, noise, tolerance, converged)

    def trial_points(self, proposal: _Proposal) -> Tensor:
        """Return the points at which the steps are evaluated, and store the step lengths."""
        self.step_length = _next_step_length(
            proposal.step, self.last_step, self.step_length, proposal.is_newton
        )
        return _extrapolate(
            self.theta + proposal.step, proposal.in_basis, self.step_length, proposal.model
        )

    def update(self, proposal: _Proposal, trial: Tensor, new: Evaluation) -> None:
        """Accept or reject the trial points, and update the radii."""
        model, step = proposal.model, proposal.step
        predicted = model.predicted_gain(proposal.in_basis)
        ratio = _gain_ratio(new.value - self.at.value, predicted, proposal.noise)
        accepted = (ratio > _MIN_GAIN_RATIO) & _is_finite(new)
        self.last_step = torch.where(accepted[:, None], step, 0.0)
        self.radius = _next_radius(
            self.radius, model.norm(step, proposal.in_basis), torch.where(accepted, ratio, 0.0)
        )
        self.theta = torch.where(accepted[:, None], trial, self.theta)
        self.at = Evaluation(
            torch.where(accepted, new.value, self.at.value),
            torch.where(accepted[:, None], new.gradient, self.at.gradient),
            torch.where(accepted[:, None, None], new.hessian, self.at.hessian),
            torch.where(accepted, new.magnitude, self.at.magnitude),
        )


def maximize(
    objective: Evaluable,
    theta: Tensor,
    *,
    max_iter: int,
    tol: float,
    genes: Tensor | None = None,
    cutoff: Tensor | None = None,
) -> Solution:
    """Maximise the objective of each gene from its own starting point.

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
        The numbers of the genes of the objective that the rows of ``theta`` belong to; by default
        all genes in their order.
    cutoff : Tensor of shape (n_genes,), optional
        Give up a gene as soon as its objective can no longer reach this value.

    Returns
    -------
    Solution
        With a row for each row of ``theta``.
    """
    if genes is None:
        genes = torch.arange(len(theta), device=theta.device)
    at = objective.evaluate(theta, genes)
    solution = Solution.initial(theta, at)
    batch = _Batch.initial(theta, at, genes)
    for iteration in range(max_iter):
        proposal = batch.propose(tol)
        stopped = batch.radius < torch.finfo(theta.dtype).eps
        if cutoff is not None:
            gain_bound = proposal.model.gain_bound(proposal.in_basis, max_iter - iteration)
            stopped |= batch.at.value + gain_bound < cutoff[batch.rows]
        is_last = iteration == max_iter - 1
        leaving = torch.ones_like(stopped) if is_last else proposal.converged | stopped
        index = torch.nonzero(leaving)[:, 0]
        if len(index):
            _record(solution, batch, proposal, index, n_iter=iteration + 1)
            staying = torch.nonzero(~leaving)[:, 0]
            if not len(staying):
                break
            batch, proposal = batch.select(staying), proposal.select(staying)
        trial = batch.trial_points(proposal)
        batch.update(proposal, trial, objective.evaluate(trial, batch.genes))
    return solution


def _record(
    solution: Solution, batch: _Batch, proposal: _Proposal, index: Tensor, *, n_iter: int
) -> None:
    """Write some genes of the batch into the solution, after their final step."""
    rows = batch.rows[index]
    step, gain = proposal.final_step()
    solution.theta[rows] = (batch.theta + step)[index]
    solution.value[rows] = (batch.at.value + gain)[index]
    solution.hessian[rows] = batch.at.hessian[index]
    solution.n_iter[rows] = n_iter
    solution.converged[rows] = proposal.converged[index]


def _next_step_length(
    step: Tensor, last_step: Tensor, step_length: Tensor, is_newton: Tensor
) -> Tensor:
    """Return how many steps to take at once.

    The number doubles while Newton steps repeat, because these lead to a maximum at infinity.
    """
    product = (step * last_step).sum(1)
    norm, last_norm = norms(step), norms(last_step)
    is_parallel = product > _MIN_COSINE * norm * last_norm
    has_same_length = (norm > _MIN_LENGTH_RATIO * last_norm) & (
        norm < _MAX_LENGTH_RATIO * last_norm
    )
    is_repeated = is_newton & is_parallel & has_same_length
    return torch.where(is_repeated, (2 * step_length).clamp_max(_MAX_STEP_LENGTH), 1.0)


def _extrapolate(point: Tensor, step: Tensor, step_length: Tensor, model: QuadraticModel) -> Tensor:
    """Move from the point after one step to the point after several.

    Only the main coordinates of the step in the basis of the model are extrapolated. In the others,
    the step corrects earlier steps, and need not be repeated.
    """
    if not (step_length > 1).any():
        return point
    main = torch.where(step.abs() > _MIN_MAIN_SHARE * norms(step)[:, None], step, 0.0)
    return point + (step_length - 1)[:, None] * model.to_coordinates(main)


def _gain_ratio(gain: Tensor, predicted: Tensor, noise: Tensor) -> Tensor:
    """Return the ratio of actual and predicted gain.

    The ratio is one if both are lost in the rounding of the value. The gradient, from which the
    prediction comes, has more digits.
    """
    bound = _ROUNDING_FACTOR * noise
    is_rounding = (predicted < bound) & (gain.abs() < bound)
    return torch.where(is_rounding, 1.0, gain / predicted)


def _next_radius(radius: Tensor, norm: Tensor, ratio: Tensor) -> Tensor:
    """Return the radius after a step: wider or narrower, depending on its gain ratio."""
    wider = torch.maximum(radius, (2 * norm).clamp_max(_MAX_RADIUS))
    kept = torch.where(ratio > _GOOD_GAIN_RATIO, wider, radius)
    return torch.where(ratio > _POOR_GAIN_RATIO, kept, 0.25 * norm)


def _is_finite(at: Evaluation) -> Tensor:
    return torch.isfinite(at.value) & torch.isfinite(at.hessian).all(-1).all(-1)
