"""Tests and intervals of contrasts with infinite estimates, one combination at a time.

If one side of a contrast has no counts, the likelihood rises towards a supremum as the contrast
tends to infinity. Its profile likelihood falls towards the other side. The search follows it from
the fit, along the direction that costs the least likelihood. Near the supremum the loss is an
exponential of the distance, so that its logarithm is interpolated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy import stats

from sc_glm._likelihood.family import MEAN
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import build_problem, one_thread
from sc_glm._solver.submodels import is_sparse
from sc_glm._solver.trust_region import maximize
from sc_glm.inference.constrained_fits import constrained_maxima
from sc_glm.inference.log_likelihood import log_likelihoods
from sc_glm.inference.observed_information import SETTINGS
from sc_glm.inference.profile_likelihood import (
    MAX_DISTANCE,
    least_favourable_direction,
)
from sc_glm.inference.restricted_objective import (
    MeanRestrictedObjective,
    RestrictedObjective,
    hold_sizes,
)
from sc_glm.inference.silent_levels import (
    SilentLevels,
    are_level_means,
    profiles_of_silent_levels,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm._solver.trust_region import Solution
    from sc_glm.inference.constrained_fits import FittedCells

    Restriction: TypeAlias = tuple[type[RestrictedObjective | MeanRestrictedObjective], FloatArray]

_TOL = 1e-6  # tolerance of a maximisation over nuisance parameters, in log-likelihood
_MAX_ITER = 100  # of such a maximisation
_MAX_TRIALS = 40  # distances to try for an end
_LOSS_TOLERANCE = 1e-4  # relative, of the loss at an end
# Between two distances beyond which no end was found: largest step of an exponential, in natural
# logarithms, and the smallest one, relative, with which any end is reached.
_MAX_STEP, _GROWTH = 6.0, 0.4
# Natural logarithm of a fold change beyond which a separated gene's is infinite: its fit follows a
# likelihood that rises for ever, such as that of a spline that falls where counts end.
FAR = 60.0
# Where a search begins instead of at a contrast beyond FAR, in natural logarithms
_NEAR = (25.0, 50.0, 100.0)
_MAX_LOSS = 0.2  # of log-likelihood, up to which the search may begin there
_POISSON_LOG_SIZE = 12.0  # a start that finds the maxima of genes whose counts vary little


class InfiniteContrasts(NamedTuple):
    """Profile likelihood of infinite contrasts.

    Attributes
    ----------
    supremum : ndarray of shape (n_genes,)
        Log-likelihood of the fit.
    log_likelihood : ndarray of shape (n_genes, n_values)
        Profile log-likelihood at given values; NaN if it was not found.
    end : ndarray of shape (n_genes,)
        Finite end of the profile interval: infinite if there is none, NaN if it was not found.
    """

    supremum: FloatArray
    log_likelihood: FloatArray
    end: FloatArray


def profiles_of_infinite_contrasts(
    cells: FittedCells, tests: FloatArray, signs: FloatArray, values: FloatArray, level: float
) -> list[InfiniteContrasts]:
    """Compute the profile likelihoods of several contrasts for the genes where they are infinite.

    Parameters
    ----------
    cells : FittedCells
    tests : ndarray of shape (n_tests, n_params)
        The contrasts as combinations of the coordinates in the bases of the designs.
    signs : ndarray of shape (n_genes, n_tests)
        Whether an estimate is plus or minus infinity; zero if it is finite.
    values : ndarray of shape (n_tests, n_values)
        Values of the contrasts at which the likelihood is maximised.
    level : float
        Confidence level of the intervals.

    Returns
    -------
    list of InfiniteContrasts
        For each contrast, of the genes where it is infinite.
    """
    genes_of_test = [np.flatnonzero(sign) for sign in signs.T]
    shape = signs.shape
    found = SilentLevels(
        np.full(shape, np.nan), np.full((*shape, values.shape[1]), np.nan), np.full(shape, np.nan)
    )
    some = np.flatnonzero(signs.any(axis=1))
    if len(some) and are_level_means(cells):
        of_some = profiles_of_silent_levels(cells.of_genes(some), tests, signs[some], values, level)
        for target, source in zip(found, of_some, strict=True):
            target[some] = source
    result = []
    for number, genes in enumerate(genes_of_test):
        profile = InfiniteContrasts(*(array[genes, number] for array in found))
        is_missing = np.isnan(profile.end) | np.isnan(profile.log_likelihood).any(axis=1)
        missing = np.flatnonzero(is_missing)
        if len(missing):
            of_missing, sign = cells.of_genes(genes[missing]), signs[genes[missing], number]
            other = profile_of_contrast(
                of_missing,
                (RestrictedObjective, tests[number]),
                sign,
                values[number],
                level,
                coordinates=_coordinates_near_zero(of_missing, tests[number], sign),
            )
            for target, source in zip(profile, other, strict=True):
                target[missing] = source
        result.append(profile)
    return result


def _coordinates_near_zero(cells: FittedCells, test: FloatArray, sign: FloatArray) -> FloatArray:
    """Return the coordinates of the fit, or others almost as likely where a fit has gone too far.

    If some cells are all that hold a coefficient, the fit may leave it at any value. From a
    contrast of millions, no search comes back.
    """
    result, mean = cells.coordinates(), cells.designs.parts[MEAN]
    if test[mean.rank :].any():
        return result
    is_far = (np.abs(result @ test) > FAR) & (sign != 0)
    for near in _NEAR:
        for side in (-1.0, 1.0):
            genes = np.flatnonzero(is_far & (sign == side))
            if not len(genes):
                continue
            of_genes, value = cells.of_genes(genes), np.array([side * near])
            found = constrained_maxima(of_genes, MEAN, test[None, : mean.rank], value)
            at_fit = log_likelihoods(of_genes.fitted, of_genes.counts, cells.designs)
            chosen = found.converged & (found.log_likelihood > at_fit - _MAX_LOSS)
            result[genes[chosen]] = found.coordinates[chosen]
            is_far[genes[chosen]] = False
    return result


def profile_of_contrast(
    cells: FittedCells,
    restriction: Restriction,
    sign: NDArray[np.float64],
    values: FloatArray,
    level: float,
    *,
    coordinates: FloatArray | None = None,
) -> InfiniteContrasts:
    """Compute the profile likelihood of one contrast, which may be infinite.

    Parameters
    ----------
    cells : FittedCells
    restriction : tuple of type and ndarray
        The objective that holds the contrast fixed, and its argument: a combination of the
        coordinates in the bases of the designs, or rows of levels.
    sign : ndarray of shape (n_genes,)
        Sign of the estimates. The end of the interval on the other side is searched for; it is not
        if the sign is zero.
    values : ndarray of shape (n_values,)
        Values of the contrast at which the likelihood is maximised.
    level : float
        Confidence level of the interval.
    coordinates : ndarray of shape (n_genes, n_params), optional
        Points where the search begins; the default is the fit.
    """
    fitted, counts, designs = cells
    begin = cells.coordinates() if coordinates is None else coordinates
    supremum = log_likelihoods(fitted, counts, designs)
    loss = float(stats.chi2.ppf(level, 1)) / 2
    blocks = map_blocks(
        _profile_of_block,
        counts,
        designs,
        [begin, np.column_stack([sign, supremum])],
        (fitted.family, designs, cells.has_known_sizes),
        (restriction, tuple(float(value) for value in values), loss),
        n_jobs=fitted.regressor.n_jobs,
    )
    return InfiniteContrasts(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def _profile_of_block(
    counts: Any,
    theta: FloatArray,
    sides: FloatArray,
    model: tuple[Family, Designs, bool],
    question: tuple[Restriction, tuple[float, ...], float],
) -> InfiniteContrasts:
    (family, designs, has_known_sizes), (restriction, values, loss) = model, question
    hold, argument = restriction
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS).unpacked()
        objective = problem.model_objective()
        point = torch.from_numpy(theta)
        sparse = torch.nonzero(is_sparse(problem))[:, 0]
        if has_known_sizes:
            hold_sizes(objective, point)
            sparse = sparse[:0]  # the second start differs in the size alone
        restricted = hold(objective, torch.from_numpy(argument), torch.zeros(len(point)).to(point))
        sign, supremum = torch.from_numpy(sides.T.copy())
        path = _Path.of(restricted, point, sign)._replace(supremum=supremum)
        size = problem.intercept(problem.bases[1]), objective.slices[1]
        at_values = np.empty((len(theta), len(values)))
        for number, value in enumerate(values):
            at_values[:, number] = path.maximum_at(value, sparse, size).numpy()
        return InfiniteContrasts(path.supremum.numpy(), at_values, path.end(loss).numpy())


class _Path(NamedTuple):
    """The way from the fit towards finite values of a contrast, at the least loss.

    Attributes
    ----------
    restricted : RestrictedObjective or MeanRestrictedObjective
    theta, direction : Tensor of shape (n_genes, n_params)
        The fit, and the change of the parameters that raises the contrast by one.
    contrast, side : Tensor of shape (n_genes,)
        The contrast at the fit, and the sign of its changes.
    curvature : Tensor of shape (n_genes,)
        Loss at the fit by which the supremum exceeds it, which grows exponentially.
    supremum, max_distance : Tensor of shape (n_genes,)
    """

    restricted: RestrictedObjective | MeanRestrictedObjective
    theta: Tensor
    direction: Tensor
    contrast: Tensor
    side: Tensor
    curvature: Tensor
    supremum: Tensor
    max_distance: Tensor

    @classmethod
    def of(
        cls,
        restricted: RestrictedObjective | MeanRestrictedObjective,
        theta: Tensor,
        sign: Tensor,
    ) -> _Path:
        at_fit = restricted.objective.evaluate(theta, torch.arange(len(theta)))
        gradient = restricted.gradient(theta)
        direction = least_favourable_direction(at_fit.hessian, gradient)
        curvature = -(direction[:, None] @ at_fit.hessian @ direction[:, :, None])[:, 0, 0]
        return cls(
            restricted,
            theta,
            direction,
            restricted.contrast(theta),
            -sign,
            curvature.clamp_min(torch.finfo(theta.dtype).tiny),
            at_fit.value,
            MAX_DISTANCE * torch.linalg.vector_norm(gradient, dim=1),
        )

    def maximum_at(self, value: float, sparse: Tensor, size: tuple[Tensor, slice]) -> Tensor:
        """Return the profile log-likelihood at a value of the contrast.

        Genes with sparse counts are also maximised from a Poisson distribution.
        """
        everywhere = torch.arange(len(self.theta))
        self.restricted.values = torch.full_like(self.contrast, value)
        distance = (value - self.contrast)[:, None]
        start = self.theta + distance * self.direction
        found = self._maximize(start, everywhere)
        if len(sparse):
            intercept, params = size
            start = self.restricted.to_theta(found.theta[sparse], sparse)
            start[:, params] = _POISSON_LOG_SIZE * intercept
            other = self._maximize(start, sparse)
            better = other.value > found.value[sparse]
            found.put(sparse[better], other.rows(better))
        return torch.where(found.converged, found.value, torch.nan)

    def _maximize(self, start: Tensor, genes: Tensor) -> Solution:
        nuisance = self.restricted.to_nuisance(start)
        return maximize(self.restricted, nuisance, max_iter=_MAX_ITER, tol=_TOL, genes=genes)

    def end(self, loss: float) -> Tensor:
        """Return the value of the contrast at which the profile likelihood has lost ``loss``.

        The search is by regula falsi on the logarithm of the loss.
        """
        goal = float(np.log(loss))
        low, log_low = torch.zeros_like(self.contrast), self.curvature.log()
        high = torch.full_like(low, torch.inf)
        log_high = torch.full_like(low, torch.nan)
        distance = (goal - log_low).clamp_min(1.0).minimum(self.max_distance)
        result = torch.full_like(low, torch.nan)
        nuisance, last = self.restricted.to_nuisance(self.theta), torch.zeros_like(low)
        direction = self.restricted.to_nuisance(self.direction)
        active = torch.nonzero(self.side)[:, 0]
        for _ in range(_MAX_TRIALS if len(active) else 0):
            self.restricted.values = self.contrast + self.side * distance
            change = (self.side * (distance - last))[active, None]
            start = nuisance[active] + change * direction[active]
            found = maximize(self.restricted, start, max_iter=_MAX_ITER, tol=_TOL, genes=active)
            nuisance[active], last[active] = found.theta, distance[active]
            lost = self.supremum[active] - found.value
            log_lost = lost.clamp_min(torch.finfo(lost.dtype).tiny).log()
            is_below = log_lost < goal
            below, above = active[is_below], active[~is_below]
            low[below], log_low[below] = distance[below], log_lost[is_below]
            high[above], log_high[above] = distance[above], log_lost[~is_below]
            is_found = (lost / loss - 1).abs() <= _LOSS_TOLERANCE
            is_unbounded = is_below & (distance[active] >= self.max_distance[active])
            result[active[is_found]] = self.restricted.values[active[is_found]]
            unbounded = active[is_unbounded]
            result[unbounded] = self.side[unbounded] * torch.inf
            active = active[~(is_found | is_unbounded | ~found.converged)]
            if not len(active):
                break
            fraction = (goal - log_low) / (log_high - log_low)
            inside = low + (high - low) * fraction.clamp(0.05, 0.95)
            step = (goal - log_low).clamp(0.1, _MAX_STEP).maximum(_GROWTH * distance)
            outside = (distance + step).minimum(self.max_distance)
            distance = torch.where(high.isfinite(), inside, outside)
        return result
