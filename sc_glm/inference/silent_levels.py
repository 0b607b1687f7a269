"""Profile likelihoods of differences from levels without counts, for many contrasts at once.

If each group of cells has a mean of its own, a difference of two groups involves only their two
means and the size. The other groups enter by their profile log-likelihoods as functions of the log
size. A search over few numbers for each gene and contrast thus replaces one over all parameters and
cells.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy import stats

from sc_glm._likelihood.family import NegBinFamily
from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.hessian_assembly import is_constant
from sc_glm._likelihood.level_terms import LevelTerms
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.gene_block import build_problem, one_thread
from sc_glm.inference.level_profiles import LevelProfiles
from sc_glm.inference.observed_information import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.constrained_fits import FittedCells

_ROUNDING = 1e-8  # of a difference of two levels, as a combination of coordinates
_TOL = 1e-5  # gain of a maximisation at which it ends, in log-likelihood
_MAX_ITER = 60
_MAX_TRIALS = 60  # of the search for an end
_LOSS_TOLERANCE = 2e-3  # relative, of the loss at an end
_MIN_LOSS, _MIN_SLOPE = 1e-3, 0.1  # bounds of the loss and its slope in a Newton step for an end
_STEPS_OF_SIZE = (-1.0, 4.0)  # bounds of a step of the log size: towards Poisson all is flat
_TAIL = (0.85, 1.2)  # Newton steps of the log size that may be in the tail towards Poisson
_MAX_STEP_MEAN, _MAX_STEP_CONTRAST = 2.0, 2.0
_POISSON_LOG_SIZE = 12.0  # above it, a likelihood is Poisson's
_LARGE_LOG_SIZE = 3.0  # of a fit, above which a second search begins at a low size
_LOW_LOG_SIZE = -1.0
_DECREASE = 1e-9  # of a log-likelihood, which counts as rounding


class SilentLevels(NamedTuple):
    """Profile likelihoods of several contrasts.

    Attributes
    ----------
    supremum : ndarray of shape (n_genes, n_tests)
        Log-likelihood of the fit; zero if both groups are silent.
    log_likelihood : ndarray of shape (n_genes, n_tests, n_values)
        Profile log-likelihood at given values.
    end : ndarray of shape (n_genes, n_tests)
        Finite end of the profile interval; infinite if both groups are silent. All are NaN if not
        found.
    """

    supremum: FloatArray
    log_likelihood: FloatArray
    end: FloatArray


def are_level_means(cells: FittedCells) -> bool:
    """Return whether each group of cells has a mean of its own, and all share the gene's size."""
    designs = cells.designs
    if cells.fitted.is_penalised or cells.fitted.family != NegBinFamily():
        return False
    if designs.groups is not None:
        n_groups = designs.groups.max() + 1
    else:
        n_groups = math.inf if designs.cells is None else len(designs.weights)
    mean, size = designs.parts.values()
    is_constant_size = size.rank == 1 and is_constant(torch.from_numpy(size.U))
    return bool(mean.rank == n_groups and is_constant_size)


def profiles_of_silent_levels(
    cells: FittedCells,
    tests: FloatArray,
    signs: FloatArray,
    values: FloatArray,
    level: float,
) -> SilentLevels:
    """Compute the profile likelihoods of infinite differences of two levels.

    Parameters
    ----------
    cells : FittedCells
        Each group of their designs has a mean of its own.
    tests : ndarray of shape (n_tests, n_params)
        Contrasts as combinations of the coordinates in the bases of the designs.
    signs : ndarray of shape (n_genes, n_tests)
        Whether an estimate is plus or minus infinity; zero if it is finite.
    values : ndarray of shape (n_tests, n_values)
        Values of the contrasts at which the likelihood is maximised.
    level : float
        Confidence level of the interval.
    """
    fitted, counts, designs = cells
    loss = float(stats.chi2.ppf(level, 1)) / 2
    blocks = map_blocks(
        _profiles_of_block,
        counts,
        designs,
        [cells.coordinates(), signs],
        (fitted.family, designs, cells.has_known_sizes),
        (tests, values, loss),
        n_jobs=fitted.regressor.n_jobs,
    )
    return SilentLevels(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def _profiles_of_block(
    counts: Any,
    theta: FloatArray,
    signs: FloatArray,
    model: tuple[Family, Designs, bool],
    question: tuple[FloatArray, FloatArray, float],
) -> SilentLevels:
    (family, designs, has_known_sizes), (tests, values, loss) = model, question
    shape = signs.shape
    result = SilentLevels(
        np.full(shape, np.nan), np.full((*shape, values.shape[1]), np.nan), np.full(shape, np.nan)
    )
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS).unpacked()
        groups = problem.groups
        if groups is None:  # equal cells are one row
            numbers = torch.arange(len(problem.weights))
            groups = Groups(numbers, problem.offset, problem.weights)
        terms = LevelTerms(problem.block(), groups, problem.offset, problem.weights)
        basis = problem.bases[0].U[groups.first]
        pairs, scale = _pairs_of_levels(tests[:, : basis.shape[1]], basis.numpy())
        has_counts = terms.sum_of_y > 0
        rows = _rows(torch.from_numpy(signs), has_counts, pairs, scale)
        point = torch.from_numpy(theta)
        eta = point[:, : basis.shape[1]] @ basis.mT
        rho = point[:, basis.shape[1]] * problem.bases[1].U[0, 0]
        centre = rho if has_known_sizes else rho.clamp_max(_POISSON_LOG_SIZE)
        search = _Search.of(rows, LevelProfiles(terms, eta, rho, centre), has_known_sizes)
        place = rows.genes.numpy(), rows.tests.numpy()
        result.supremum[place] = search.supremum.numpy()
        for number, at in enumerate(torch.from_numpy(values).unbind(1)):
            found = search.maximum_at(at[rows.tests] / rows.scale)
            result.log_likelihood[(*place, number)] = found.numpy()
        result.end[place] = (rows.scale * search.end(loss)).numpy()
        is_silent = ~has_counts[:, pairs].any(2) & (scale != 0)
        empty = np.nonzero(is_silent.numpy() & (signs != 0))
        result.supremum[empty], result.log_likelihood[empty] = 0.0, 0.0
        result.end[empty] = np.inf
    return result


def _pairs_of_levels(tests: FloatArray, basis: FloatArray) -> tuple[Tensor, Tensor]:
    """Return which two groups each test compares, and its weight of the first.

    The weight is zero if a test is no multiple of a difference of two groups.
    """
    weights = np.linalg.solve(basis.T, tests.T).T  # of the groups' predictors
    size = np.abs(weights)
    first = size.argmax(axis=1)
    order = np.argsort(size, axis=1)
    second = np.where(order[:, -1] == first, order[:, -2], order[:, -1])
    numbers = np.arange(len(tests))
    scale = weights[numbers, first]
    rest = weights.copy()
    rest[numbers, first] = 0.0
    rest[numbers, second] += scale
    is_pair = np.abs(rest).max(axis=1) <= _ROUNDING * np.abs(scale)
    pairs = torch.from_numpy(np.column_stack([first, second]))
    return pairs, torch.from_numpy(np.where(is_pair, scale, 0.0))


class _Rows(NamedTuple):
    """Genes and tests whose contrast is the difference of a group from a silent one.

    Attributes
    ----------
    genes, tests : Tensor of int of shape (n,)
    group, silent : Tensor of int of shape (n,)
        Numbers of the groups with and without counts.
    scale : Tensor of shape (n,)
        The contrast is this number times the difference of the predictors of group and silent.
    """

    genes: Tensor
    tests: Tensor
    group: Tensor
    silent: Tensor
    scale: Tensor


def _rows(signs: Tensor, has_counts: Tensor, pairs: Tensor, scale: Tensor) -> _Rows:
    """Return the infinite differences of a group from a silent one, in their direction."""
    genes, tests = torch.nonzero((signs != 0) & (scale != 0)).unbind(1)
    first, second = pairs[tests].unbind(1)
    first_has_counts = has_counts[genes, first]
    group = torch.where(first_has_counts, first, second)
    silent = torch.where(first_has_counts, second, first)
    scale = torch.where(first_has_counts, scale[tests], -scale[tests])
    chosen = first_has_counts != has_counts[genes, second]
    chosen &= signs[genes, tests] * scale > 0
    return _Rows(*(x[chosen] for x in (genes, tests, group, silent, scale)))


class _Model(NamedTuple):
    """Log-likelihood and derivatives at a mean, a log size and a difference, a row for each."""

    value: Tensor
    gradient: tuple[Tensor, Tensor]  # in the group's predictor and the log size
    hessian: tuple[Tensor, Tensor, Tensor]
    of_silent: tuple[Tensor, Tensor, Tensor]  # its score, and derivatives in predictor and log size

    def _map(self, function: Callable[..., Tensor], *others: _Model) -> _Model:
        models = (self, *others)
        fields = zip(*((m.gradient, m.hessian, m.of_silent) for m in models), strict=True)
        value = function(*(model.value for model in models))
        parts: list[Any] = [tuple(map(function, *field)) for field in fields]
        return _Model(value, *parts)

    def rows(self, index: Tensor) -> _Model:
        """Return some of the rows."""
        return self._map(lambda x: x[index])

    def replaced(self, accepted: Tensor, other: _Model) -> _Model:
        """Return the model with the accepted rows of another one."""
        return self._map(lambda old, new: torch.where(accepted, new, old), other)

    def step(self, difference: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
        """Return a Newton step of predictor and log size, and its gain.

        ``difference`` is the change of the difference that comes with the step.
        """
        _, by_eta, by_rho = self.of_silent
        g_eta, g_rho = self.gradient
        h_ee, h_er, h_rr = self.hessian
        curvature = h_rr - h_er / h_ee * h_er
        slope = g_rho - h_er / h_ee * g_eta
        is_concave = curvature < 0
        gain = 0.5 * g_eta * g_eta / h_ee.neg()
        gain += torch.where(is_concave, 0.5 * slope * slope / curvature.neg(), slope.abs())
        moved = slope - (by_rho - h_er / h_ee * by_eta) * difference
        lowest, highest = _STEPS_OF_SIZE
        furthest = torch.where(moved > 0, highest, lowest)
        newton = moved / curvature.neg()
        # Towards Poisson, a likelihood is an exponential of the log size, whose Newton steps are 1.
        is_tail = (newton > _TAIL[0]) & (newton < _TAIL[1])
        step = torch.where(is_concave & ~is_tail, newton, furthest).clamp(lowest, highest)
        along = -(g_eta - by_eta * difference + h_er * step) / h_ee
        return along.clamp(-_MAX_STEP_MEAN, _MAX_STEP_MEAN), step, gain


class _Search(NamedTuple):
    """Maximisation over a group's mean and the size, at values of the difference.

    Attributes
    ----------
    rows : _Rows
    profiles : LevelProfiles
    supremum : Tensor of shape (n,)
    has_known_sizes : bool
        Whether the sizes keep their fitted values.
    """

    rows: _Rows
    profiles: LevelProfiles
    supremum: Tensor
    has_known_sizes: bool

    @classmethod
    def of(cls, rows: _Rows, profiles: LevelProfiles, has_known_sizes: bool) -> _Search:
        """Compute the likelihoods of the fit."""
        return cls(rows, profiles, profiles.at_fit(rows.genes), has_known_sizes)

    @property
    def _of_low_size(self) -> Tensor:
        """Rows that are also searched from a low size.

        If counts vary little, the likelihood is flat between a Poisson distribution and large
        sizes. There may be another maximum with a small size, which makes a silent group likelier.
        """
        is_large = self.profiles.rho[self.rows.genes] > _LARGE_LOG_SIZE
        return torch.nonzero(is_large & (not self.has_known_sizes))[:, 0]

    def maximum_at(self, difference: Tensor) -> Tensor:
        """Return the profile log-likelihood at values of the difference; NaN if not found."""
        rows, low = torch.arange(len(difference)), self._of_low_size
        result = self._maximum_from(rows, self.profiles.rho[self.rows.genes], difference)
        other = self._maximum_from(low, torch.full_like(result[low], _LOW_LOG_SIZE), difference)
        result[low] = torch.fmax(result[low], other)
        return result

    def end(self, loss: float) -> Tensor:
        """Return the lowest difference at which the profile log-likelihood has lost ``loss``.

        It is NaN if it was not found.
        """
        low, rho = self._of_low_size, self.profiles.rho[self.rows.genes]
        result = self._end_from(torch.arange(len(rho)), rho, loss)
        other = self._end_from(low, torch.full_like(rho[low], _LOW_LOG_SIZE), loss)
        result[low] = torch.fmin(result[low], other)
        return result

    def _poisson_mean(self, index: Tensor, difference: Tensor) -> Tensor:
        """Return the group's predictor at the maximum of a Poisson distribution."""
        genes, _, group, silent, _ = (x[index] for x in self.rows)
        terms = self.profiles.terms
        exposure = terms.exposure[group] + terms.exposure[silent] * difference.neg().exp()
        return (terms.sum_of_y[genes, group] / exposure).log()

    def _evaluate(self, index: Tensor, eta: Tensor, rho: Tensor, difference: Tensor) -> _Model:
        genes, _, group, silent, _ = (x[index] for x in self.rows)
        terms = self.profiles.terms
        of_group = terms.at(genes, group, eta, rho)
        of_silent = terms.of_silent(silent, eta - difference, rho)
        of_others = self.profiles.of_others(genes, group, rho)
        (g_eta, g_rho), (h_ee, h_er, h_rr) = of_group.score, of_group.hessian
        (s_eta, s_rho), (s_ee, s_er, s_rr) = of_silent.score, of_silent.hessian
        value = of_group.value + of_silent.value + of_others.value
        if self.has_known_sizes:
            none = torch.zeros_like(value)
            hessian = h_ee + s_ee, none, none - 1.0
            return _Model(value, (g_eta + s_eta, none), hessian, (s_eta, s_ee, none))
        return _Model(
            value,
            (g_eta + s_eta, g_rho + s_rho + of_others.first),
            (h_ee + s_ee, h_er + s_er, h_rr + s_rr + of_others.second),
            (s_eta, s_ee, s_er),
        )

    def _bounded(self, index: Tensor, rho: Tensor) -> Tensor:
        """Return log sizes within the range of the profiles."""
        fitted, most = self.profiles.rho[self.rows.genes[index]], self.profiles.max_distance
        return fitted + (rho - fitted).clamp(-most, most)

    def _maximum_from(self, active: Tensor, rho: Tensor, difference: Tensor) -> Tensor:
        """Maximise some rows from log sizes; NaN if no maximum was found."""
        eta = self._poisson_mean(active, difference[active])
        result, position = torch.full_like(eta, torch.nan), torch.arange(len(active))
        at = self._evaluate(active, eta, rho, difference[active])
        share = torch.ones_like(eta)  # of a Newton step
        for _ in range(_MAX_ITER):
            along, step, gain = at.step(0.0)
            found = gain <= _TOL
            result[position[found]] = (at.value + gain)[found]
            left = torch.nonzero(~found)[:, 0]
            if not len(left):
                break
            at, along, step = at.rows(left), along[left], step[left]
            active, position, eta, rho, share = (
                x[left] for x in (active, position, eta, rho, share)
            )
            new_eta = eta + share * along
            new_rho = self._bounded(active, rho + share * step)
            new = self._evaluate(active, new_eta, new_rho, difference[active])
            accepted = new.value >= at.value - _DECREASE * at.value.abs()
            share = torch.where(accepted, 1.0, 0.25 * share)
            eta, rho = torch.where(accepted, new_eta, eta), torch.where(accepted, new_rho, rho)
            at = at.replaced(accepted, new)
        return result

    def _end_from(self, active: Tensor, rho: Tensor, loss: float) -> Tensor:
        """Search ends of some rows from log sizes.

        Newton steps of the logarithm of the loss, which is nearly linear in the difference, go
        along with those of mean and size.
        """
        genes, _, group, silent, _ = (x[active] for x in self.rows)
        exposure = self.profiles.terms.exposure[silent]
        difference = self.profiles.eta[genes, group] - (loss / exposure).log()
        eta = self._poisson_mean(active, difference)
        result, position = torch.full_like(eta, torch.nan), torch.arange(len(active))
        for _ in range(_MAX_TRIALS):
            at = self._evaluate(active, eta, rho, difference)
            along, step, gain = at.step(0.0)
            score, by_eta, by_rho = at.of_silent
            lost = self.supremum[active] - at.value
            is_near = (gain < 0.5 * loss) & (lost > gain)
            lost = torch.where(is_near, lost - gain, lost)
            slope = score + torch.where(is_near, by_eta * along + by_rho * step, 0.0)
            bounded = lost.clamp_min(_MIN_LOSS * loss)
            change = bounded * (bounded / loss).log() / slope.clamp_max(_MIN_SLOPE * score).neg()
            change = change.clamp(-_MAX_STEP_CONTRAST, _MAX_STEP_CONTRAST)
            found = ((lost / loss - 1).abs() <= _LOSS_TOLERANCE) & (gain <= _LOSS_TOLERANCE * loss)
            result[position[found]] = (difference + change)[found]
            left = torch.nonzero(~found)[:, 0]
            if not len(left):
                break
            along, step, _ = at.rows(left).step(change[left])
            active, position, change = active[left], position[left], change[left]
            difference = difference[left] + change
            eta = eta[left] + along
            rho = self._bounded(active, rho[left] + step)
        return result
