"""Profile likelihood intervals of linear combinations of the coefficients.

The profile log-likelihood of a combination is the log-likelihood, maximised over the nuisance
parameters. The interval holds the values whose deviance, twice the loss of profile log-likelihood,
is at most a quantile of the chi-squared distribution with one degree of freedom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from sc_glm._likelihood import rowwise
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import build_problem, one_thread
from sc_glm._solver.status import FLAT_INFORMATION
from sc_glm._solver.trust_region import maximize
from sc_glm.inference.observed_information import SETTINGS
from sc_glm.inference.restricted_objective import RestrictedObjective, hold_sizes

if TYPE_CHECKING:
    from torch import Tensor

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._likelihood.objective import Objective
    from sc_glm._solver.gene_block import Designs
    from sc_glm._solver.trust_region import Solution
    from sc_glm.inference.constrained_fits import FittedCells
    from sc_glm.inference.linear_combinations import LinearCombinations

_TOL = 1e-8  # tolerance of a maximisation over nuisance parameters, in log-likelihood
_MAX_ITER = 100  # of such a maximisation
_MAX_TRIALS = 80  # values of the combination to try for each end

# Distance from the estimate, in units of a predictor, at which an interval counts as infinite. A
# mean changes by the factor exp(50) over it, so that the likelihood does not fall beyond it either.
MAX_DISTANCE = 50.0
_ROOT_TOLERANCE = 1e-5  # relative, of the root of the deviance at an end
_MIN_BRACKET = 1e-6  # of the largest distance: a bracket that is shorter holds a jump
# A trial within a bracket divides it at a fraction within the first bounds. A trial above the
# largest one so far multiplies its distance by a factor within the second bounds.
_FRACTION_BOUNDS, _GROWTH_BOUNDS = (0.02, 0.98), (1.1, 4.0)
_LOG_LIKELIHOOD_EXCESS = 1e-3  # above the fit's, from which on the fit missed the maximum


class Limits(NamedTuple):
    """Ends of intervals, (n_genes, n_tests): infinite if there is no end, NaN if not found."""

    lower: FloatArray
    upper: FloatArray


def profile_limits(
    cells: FittedCells,
    combinations: LinearCombinations,
    standard_errors: FloatArray,
    level: float,
) -> Limits:
    """Find the ends of the profile likelihood intervals of combinations.

    Parameters
    ----------
    cells : FittedCells
    combinations : LinearCombinations
        One in each test.
    standard_errors : ndarray of shape (n_genes, n_tests)
        They determine the first trial; NaN if unknown.
    level : float
        Confidence level.
    """
    fitted, counts, designs = cells
    tests = np.where(combinations.estimable[:, None], combinations.theta_matrix[:, 0], 0.0)
    threshold = float(np.sqrt(stats.chi2.ppf(level, 1)))
    blocks = map_blocks(
        _limits_of_block,
        counts,
        designs,
        [cells.coordinates(), standard_errors],
        (fitted.family, designs, cells.has_known_sizes),
        (tests, threshold),
        n_jobs=fitted.regressor.n_jobs,
    )
    return Limits(*(np.concatenate(ends) for ends in zip(*blocks, strict=True)))


def _limits_of_block(
    counts: Any,
    theta: FloatArray,
    standard_errors: FloatArray,
    model: tuple[Family, Designs, bool],
    interval: tuple[FloatArray, float],
) -> Limits:
    (family, designs, has_known_sizes), (tests, threshold) = model, interval
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS).unpacked()
        objective, point = problem.model_objective(), torch.from_numpy(theta)
        if has_known_sizes:
            hold_sizes(objective, point)
        ends = [
            _limits_of_test(
                objective, point, torch.from_numpy(test), torch.from_numpy(errors), threshold
            )
            for test, errors in zip(tests, standard_errors.T, strict=True)
        ]
        lower, upper = (torch.stack(end, 1).numpy() for end in zip(*ends, strict=True))
        return Limits(lower, upper)


def _limits_of_test(
    objective: Objective, theta: Tensor, test: Tensor, standard_errors: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Return both ends of the intervals of one combination."""
    estimate = theta @ test
    if not test.any():  # the combination is not estimable, or its columns are zero
        unknown = torch.full_like(estimate, torch.nan)
        return unknown, unknown
    at_fit = objective.evaluate(theta, torch.arange(len(theta)))
    unit = torch.linalg.vector_norm(test)
    first_trial = torch.where(standard_errors.isfinite(), standard_errors * threshold, unit)
    direction = least_favourable_direction(at_fit.hessian, test)
    search = _EndSearch(objective, theta, test, direction, at_fit.value, threshold)
    return tuple(  # type: ignore[return-value]
        estimate + side * search.distance(side, first_trial, float(MAX_DISTANCE * unit))
        for side in (-1.0, 1.0)
    )


def least_favourable_direction(hessian: Tensor, test: Tensor) -> Tensor:
    """Return the change of the parameters that raises a combination by one at the least loss.

    The combination ``test`` is one for all genes, or has a row for each. Along flat directions the
    loss is zero: the difference of a group from a group without counts grows by the infinite
    estimate, and the mean of the other group stays.
    """
    # A gene without finite numbers must not stop the decomposition of the others.
    values, vectors = rowwise.eigh(torch.nan_to_num(-hessian, 0.0, 0.0, 0.0))
    along = rowwise.matvec(vectors.mT, test.expand(len(hessian), -1))
    direction = rowwise.matvec(vectors, along / values.clamp_min(FLAT_INFORMATION))
    return direction / (direction * test).sum(1, keepdim=True)


class _Bracket(NamedTuple):
    """One side of the brackets of the ends: distances from the estimate, and roots of deviances."""

    distance: Tensor
    root_deviance: Tensor

    def put(self, genes: Tensor, distance: Tensor, root_deviance: Tensor) -> None:
        """Replace the values of some genes."""
        self.distance[genes], self.root_deviance[genes] = distance, root_deviance


class _EndSearch(NamedTuple):
    """Search for the distance from the estimate at which the root of the deviance is a threshold.

    Attributes
    ----------
    objective : Objective
    theta : Tensor of shape (n_genes, n_params)
        The fit.
    test : Tensor of shape (n_params,)
        The combination is ``theta @ test``.
    direction : Tensor of shape (n_genes, n_params)
        Least favourable direction.
    log_likelihood : Tensor of shape (n_genes,)
        At the fit.
    threshold : float
    """

    objective: Objective
    theta: Tensor
    test: Tensor
    direction: Tensor
    log_likelihood: Tensor
    threshold: float

    def distance(self, side: float, first_trial: Tensor, max_distance: float) -> Tensor:
        """Return each gene's distance; infinite above ``max_distance``, NaN if not found.

        The search is by regula falsi, since the root of the deviance is a straight line if the
        log-likelihood is a parabola. Each third trial bisects the bracket, as the line may be
        curved.
        """
        restricted = RestrictedObjective(
            self.objective, self.test, torch.zeros_like(self.log_likelihood)
        )
        estimate = self.theta @ self.test
        direction = restricted.to_nuisance(self.direction)
        nuisance = restricted.to_nuisance(self.theta)  # at the last trial
        nuisance_at_low = nuisance.clone()
        zero, infinite = torch.zeros_like(first_trial), torch.full_like(first_trial, torch.inf)
        low = _Bracket(zero.clone(), zero.clone())
        high = _Bracket(infinite.clone(), infinite.clone())
        last, trial = zero.clone(), first_trial.clone()
        result = torch.full_like(first_trial, torch.nan)
        active = torch.arange(len(first_trial))

        def extrapolated(nuisance: Tensor, distance: Tensor, genes: Tensor) -> Tensor:
            return nuisance[genes] + side * (trial - distance)[genes, None] * direction[genes]

        for iteration in range(_MAX_TRIALS):
            restricted.values = (estimate + side * trial).clone()
            # The nuisance parameters of a trial above the bracket may be near another, lower
            # maximum. Then a start from the lower end of the bracket finds the higher one.
            from_low = torch.nonzero(last[active] != low.distance[active])[:, 0]
            solution = _maximize_from_two_starts(
                restricted,
                active,
                extrapolated(nuisance, last, active),
                from_low,
                extrapolated(nuisance_at_low, low.distance, active[from_low]),
            )
            nuisance[active], last[active] = solution.theta, trial[active]
            loss = self.log_likelihood[active] - solution.value
            root_deviance = (2 * loss.clamp_min(0.0)).sqrt()
            distances = trial[active]
            failed = (loss < -_LOG_LIKELIHOOD_EXCESS) | ~solution.converged
            below = root_deviance < self.threshold
            nuisance_at_low[active[below]] = solution.theta[below]
            for end, mask in ((low, below), (high, ~below)):
                end.put(active[mask], distances[mask], root_deviance[mask])
            # A profile likelihood jumps where its maximum passes from one mode to another.
            width = high.distance[active] - low.distance[active]
            error = (root_deviance - self.threshold).abs()
            found = (error <= _ROOT_TOLERANCE * self.threshold) | (
                width <= _MIN_BRACKET * max_distance
            )
            unbounded = below & (distances >= max_distance)
            result[active[found]] = distances[found]
            result[active[unbounded]] = torch.inf
            result[active[failed]] = torch.nan
            active = active[~(found | unbounded | failed)]
            if not len(active):
                break
            next_trial = _next_trial(low, high, self.threshold, bisect=iteration % 3 == 2)
            trial[active] = next_trial[active].clamp_max(max_distance)
        return result


def _maximize_from_two_starts(
    restricted: RestrictedObjective,
    genes: Tensor,
    starts: Tensor,
    rows: Tensor,
    second_starts: Tensor,
) -> Solution:
    """Maximise over nuisance parameters, and return the higher maximum of each gene.

    ``rows`` are the positions of genes that also have a second start.
    """
    both = maximize(
        restricted,
        torch.cat([starts, second_starts]),
        max_iter=_MAX_ITER,
        tol=_TOL,
        genes=torch.cat([genes, genes[rows]]),
    )
    solution = both.rows(torch.arange(len(genes)))
    second = both.rows(len(genes) + torch.arange(len(rows)))
    higher = second.value > solution.value[rows]
    solution.put(rows[higher], second.rows(higher))
    return solution


def _next_trial(low: _Bracket, high: _Bracket, threshold: float, *, bisect: bool) -> Tensor:
    """Return the next distance to try: within the bracket, or above it if it has no upper end."""
    fraction = (threshold - low.root_deviance) / (high.root_deviance - low.root_deviance)
    fraction = fraction.clamp(*_FRACTION_BOUNDS)
    interpolated = low.distance + (high.distance - low.distance) * (0.5 if bisect else fraction)
    extrapolated = low.distance * (threshold / low.root_deviance).clamp(*_GROWTH_BOUNDS)
    return torch.where(high.distance.isfinite(), interpolated, extrapolated)
