"""Profile likelihoods: of one combination of coefficients, maximised over all else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.objective import Evaluation, Objective
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import one_thread, problem_of
from sc_glm._solver.status import FLAT
from sc_glm._solver.trust_region import maximize
from sc_glm.inference.observed_information import SETTINGS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.fitted_model import FittedData
    from sc_glm.inference.linear_combinations import LinearCombinations

_TOL = 1e-8  # log-likelihood that a maximisation may leave
_MAX_ITER = 100
_FARTHEST = 50.0  # units of a predictor: what costs no likelihood up to there, never does
_ACCURACY = 1e-5  # of the root of a deviance
_NARROWEST = 1e-6  # of that, between two points
_MAX_STEPS = 80
_HIGHER = 1e-3  # log-likelihood above that of the fit, from which on it missed a maximum


class Restricted:
    """An objective where a combination of each gene's parameters is held at a value.

    To the solver, it is an objective of one parameter less.

    Parameters
    ----------
    objective : Objective
    direction : Tensor of shape (n_params,)
        The combination is ``theta @ direction``.
    values : Tensor of shape (n_genes,)
        Where it is held, for each gene of the block.
    """

    def __init__(self, objective: Objective, direction: Tensor, values: Tensor) -> None:
        self.objective = objective
        self.along = direction / direction.square().sum()
        # A basis of what is orthogonal to the direction
        whole = torch.linalg.qr(direction[:, None], mode="complete")[0]
        self.across = whole[:, 1:]
        self.values = values

    def inside(self, theta: Tensor) -> Tensor:
        """Return the free coordinates of points."""
        return rowwise.product(theta, self.across)

    def outside(self, free: Tensor, genes: Tensor) -> Tensor:
        """Return the points with such free coordinates."""
        return rowwise.product(free, self.across.mT) + self.values[genes, None] * self.along

    def evaluate(self, theta: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` at free coordinates, one row each."""
        at = self.objective.evaluate(self.outside(theta, genes), genes)
        return Evaluation(
            at.value,
            self.inside(at.gradient),
            self.across.mT @ at.hessian @ self.across,
            at.magnitude,
        )


class Limits(NamedTuple):
    """Ends of intervals, (n_genes, n_tests); infinite where there is none, NaN if not found."""

    lower: FloatArray
    upper: FloatArray


def profile_limits(
    fitted: FittedData,
    combinations: LinearCombinations,
    steps: FloatArray,
    level: float,
    sample_weight: ArrayLike | None,
) -> Limits:
    """Find where the profile likelihood of combinations falls by what a level allows.

    Parameters
    ----------
    fitted : FittedData
    combinations : Combinations
        One in each test.
    steps : ndarray of shape (n_genes, n_tests)
        About how far it may be to an end; NaN if unknown.
    level : float
        Confidence level.
    sample_weight : array-like of shape (n_cells,) or None
        The weights of the fit.
    """
    counts, designs = fitted.weighted(fitted.weights(sample_weight))
    tests = np.where(combinations.estimable[:, None], combinations.of_theta[:, 0], 0.0)
    root = float(np.sqrt(stats.chi2.ppf(level, 1)))
    found = map_blocks(
        _of_block,
        counts,
        designs,
        [fitted.coordinates(designs), steps],
        (fitted.family, designs),
        (tests, root),
        n_jobs=fitted.regressor.n_jobs,
    )
    return Limits(*(np.concatenate(ends) for ends in zip(*found, strict=True)))


def _of_block(
    counts: Any,
    theta: FloatArray,
    steps: FloatArray,
    model: tuple[Family, Designs],
    interval: tuple[FloatArray, float],
) -> Limits:
    (family, designs), (tests, root) = model, interval
    with one_thread(), torch.inference_mode():
        problem = problem_of(family, counts, designs, SETTINGS).unpacked()
        objective = problem.own_objective()
        point = torch.from_numpy(theta)
        ends = [
            _ends(objective, point, torch.from_numpy(test), torch.from_numpy(own), root)
            for test, own in zip(tests, steps.T, strict=True)
        ]
        lower, upper = (torch.stack(end, 1).numpy() for end in zip(*ends, strict=True))
        return Limits(lower, upper)


def _ends(
    objective: Objective, theta: Tensor, test: Tensor, steps: Tensor, root: float
) -> tuple[Tensor, Tensor]:
    """Return both ends of the intervals of one combination."""
    estimate = theta @ test
    if not test.any():  # of columns that are zero
        nothing = torch.full_like(estimate, torch.nan)
        return nothing, nothing
    at = objective.evaluate(theta, torch.arange(len(theta)))
    unit = torch.linalg.vector_norm(test)
    first = torch.where(steps.isfinite(), steps * root, unit)
    search = _Search(
        objective, theta, test, _least_favourable_direction(at.hessian, test), at.value, root
    )
    return tuple(  # type: ignore[return-value]
        estimate + side * search.distance(side, first, float(_FARTHEST * unit))
        for side in (-1.0, 1.0)
    )


def _least_favourable_direction(hessian: Tensor, test: Tensor) -> Tensor:
    """Return by which change of the coordinates a combination is one more at the least loss.

    A group without counts is the way to a difference from it: another group's own mean stays.
    """
    # A gene without finite numbers must not stop the others.
    values, vectors = rowwise.eigh(torch.nan_to_num(-hessian, 0.0, 0.0, 0.0))
    along = rowwise.apply(vectors.mT, test[None])
    way = rowwise.apply(vectors, along / values.clamp_min(FLAT))
    return way / (way * test).sum(1, keepdim=True)


class _Search(NamedTuple):
    """Where the root of twice the loss of likelihood, as a function of a distance, is ``root``."""

    objective: Objective
    theta: Tensor
    test: Tensor
    way: Tensor
    value: Tensor
    root: float

    def distance(self, side: float, first: Tensor, farthest: float) -> Tensor:
        """Return how far each gene's end is; infinite beyond ``farthest``, NaN if not found.

        By secants between the nearest points on both sides, which for a parabola are exact; every
        third time the middle is taken, as the root may be far from straight.
        """
        narrowest = _NARROWEST * farthest
        restricted = Restricted(self.objective, self.test, torch.zeros_like(self.value))
        estimate = self.theta @ self.test
        free, way = restricted.inside(self.theta), restricted.inside(self.way)
        inner = free.clone()  # at the near points
        near = torch.zeros_like(first), torch.zeros_like(first)
        far = torch.full_like(first, torch.inf), torch.full_like(first, torch.inf)
        last, at = torch.zeros_like(first), first.clone()
        result = torch.full_like(first, torch.nan)
        active = torch.arange(len(first))

        def towards(points: Tensor, distance: Tensor, genes: Tensor) -> Tensor:
            return points[genes] + side * (at - distance)[genes, None] * way[genes]

        for number in range(_MAX_STEPS):
            restricted.values = (estimate + side * at).clone()
            # From far beyond the end another, lower maximum may be the nearest one.
            lost = torch.nonzero(last[active] != near[0][active])[:, 0]
            again = active[lost]
            both = maximize(
                restricted,
                torch.cat([towards(free, last, active), towards(inner, near[0], again)]),
                max_iter=_MAX_ITER,
                tol=_TOL,
                genes=torch.cat([active, again]),
            )
            rows = torch.arange(len(active))
            solution, other = both.rows(rows), both.rows(len(active) + torch.arange(len(again)))
            higher = other.value > solution.value[lost]
            solution.put(lost[higher], other.rows(higher))
            free[active], last[active] = solution.theta, at[active]
            loss = self.value[active] - solution.value
            own = (2 * loss.clamp_min(0.0)).sqrt()
            here = at[active]
            missed = (loss < -_HIGHER) | ~solution.converged
            below = own < self.root
            inner[active[below]] = solution.theta[below]
            for point, mask in ((near, below), (far, ~below)):
                point[0][active[mask]], point[1][active[mask]] = here[mask], own[mask]
            # A profile jumps where it goes over from one maximum to another.
            gap = far[0][active] - near[0][active]
            met = ((own - self.root).abs() <= _ACCURACY * self.root) | (gap <= narrowest)
            beyond = below & (here >= farthest)
            result[active[met]] = here[met]
            result[active[beyond]] = torch.inf
            result[active[missed]] = torch.nan
            active = active[~(met | beyond | missed)]
            if not len(active):
                break
            trial = _next(near, far, self.root, halve=number % 3 == 2)[active]
            at[active] = trial.clamp_max(farthest)
        return result


def _next(
    near: tuple[Tensor, Tensor], far: tuple[Tensor, Tensor], root: float, *, halve: bool
) -> Tensor:
    """Return where to look next, given the nearest points on both sides."""
    (here, low), (there, high) = near, far
    fraction = ((root - low) / (high - low)).clamp(0.02, 0.98)
    inside = here + (there - here) * (0.5 if halve else fraction)
    outward = here * (root / low).clamp(1.1, 4.0)
    return torch.where(there.isfinite(), inside, outward)
