"""Fit one block of genes: from counts and designs to coefficients and a status of each gene."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from sc_glm._counts.tally import Grouping, Tally
from sc_glm._design.design import FloatArray, PartDesign
from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import Indicators, is_arrow
from sc_glm._likelihood.family import Family, NegBinFamily
from sc_glm._likelihood.fused import fused_tile
from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._solver import infinite_estimates
from sc_glm._solver.multistart import maximize_from_many_starts
from sc_glm._solver.problem import Problem
from sc_glm._solver.status import (
    Endpoints,
    Status,
    fit_statuses,
    flat_directions,
    flat_directions_of_arrows,
    undetermined,
)
from sc_glm._solver.submodels import restart_from_submodels
from sc_glm._solver.trust_region import Solution, maximize

# If memory of this size is allocated once and freed, the GNU C library keeps freed memory up to
# this size. A larger allocation does not raise its threshold.
_REUSED_BYTES = 32 * 2**20 - 2**16


@dataclass(frozen=True)
class Settings:
    """Settings of a fit, which all blocks share.

    Attributes
    ----------
    max_iter : int
        Passes over the counts after which a gene is given up.
    tol : float
        Gain in log-likelihood below which a gene has converged.
    device : torch.device
    dtype : torch.dtype
    fused : bool
        Whether a compiled loop computes the terms of tiles.
    """

    max_iter: int
    tol: float
    device: torch.device
    dtype: torch.dtype
    fused: bool = False


@dataclass(frozen=True)
class GeneFits:
    """Results of a block of genes.

    Attributes
    ----------
    coef : dict of str to ndarray of shape (n_columns, n_genes)
    log_likelihood : ndarray of shape (n_genes,)
        Without the penalty.
    n_iter : ndarray of shape (n_genes,)
    status : list of Status
    undetermined : dict of str to ndarray of bool of shape (n_columns, n_genes)
        Coefficients that the counts do not determine.
    ceiling : ndarray of shape (n_genes,)
        Upper bound of the predictor of the mean, without offset; infinite if it is not reached.
    """

    coef: dict[str, FloatArray]
    log_likelihood: FloatArray
    n_iter: NDArray[np.int64]
    status: list[Status]
    undetermined: dict[str, NDArray[np.bool_]]
    ceiling: FloatArray

    @classmethod
    def join(cls, fits: Sequence["GeneFits"]) -> "GeneFits":
        """Concatenate the results of blocks."""
        return cls(
            {part: np.hstack([fit.coef[part] for fit in fits]) for part in fits[0].coef},
            np.concatenate([fit.log_likelihood for fit in fits]),
            np.concatenate([fit.n_iter for fit in fits]),
            [status for fit in fits for status in fit.status],
            {
                part: np.hstack([fit.undetermined[part] for fit in fits])
                for part in fits[0].undetermined
            },
            np.concatenate([fit.ceiling for fit in fits]),
        )


@dataclass(frozen=True)
class Designs:
    """The designs of all parts, the offset and the weights of the cells, which all genes share.

    Attributes
    ----------
    parts : dict of str to PartDesign
    offset, weights : ndarray of shape (n_rows,)
    cells : Grouping or None
        The cells of each row, if rows were deduplicated. Weights of rows are then sums over cells.
    groups : ndarray of int of shape (n_rows,) or None
        The number of each row's group. Rows of a group have equal designs, and differ in the offset
        and the weight alone.
    """

    parts: dict[str, PartDesign]
    offset: FloatArray
    weights: FloatArray
    cells: Grouping | None = None
    groups: NDArray[np.intp] | None = None

    def coordinates(self, coef: dict[str, FloatArray]) -> FloatArray:
        """Return coordinates, (n_genes, n_params), from the coefficients of each part."""
        return np.hstack(
            [
                rowwise.product(
                    torch.tensor(np.ascontiguousarray(coef[name].T)), torch.tensor(part.from_coef.T)
                ).numpy()
                for name, part in self.parts.items()
            ]
        )

    @property
    def n_params(self) -> int:
        """Number of coordinates of a gene, in all parts."""
        return sum(part.rank for part in self.parts.values())

    @property
    def hessian_entries(self) -> int:
        """Number of entries of the Hessian of a gene, which is packed if it is an arrow."""
        mean = next(iter(self.parts.values()))
        width = self.n_params
        if mean.levels is not None:
            width -= len(mean.levels.scale) - 1
        return self.n_params * width

    def of_cells(self, index: NDArray[np.intp]) -> "Designs":
        """Return the designs of some of the cells, in the same coordinates and unpenalised."""
        if self.cells is None:
            rows, cells, weights = index, None, self.weights[index]
        else:
            rows, numbers = np.unique(self.cells.rows[index], return_inverse=True)
            cells = Grouping(numbers, self.cells.weights[index])
            weights = cells.row_weights()
        parts = {name: part.of_cells(rows) for name, part in self.parts.items()}
        return Designs(parts, self.offset[rows], weights, cells)

    def squared(self) -> "Designs":
        """Return the designs with the squares of the weights of cells."""
        if self.cells is None:
            return replace(self, weights=self.weights**2)
        cells = replace(self.cells, weights=self.cells.weights**2)
        return replace(self, weights=cells.row_weights(), cells=cells)

    def __sizeof__(self) -> int:
        """Return the size with all arrays, by which joblib's Dask backend sends it only once."""
        arrays: list[NDArray[Any]] = [self.offset, self.weights]
        if self.cells is not None:
            arrays += [self.cells.rows, self.cells.weights]
        if self.groups is not None:
            arrays.append(self.groups)
        for part in self.parts.values():
            arrays += [part.U, part.penalty, part.to_coef, part.from_coef, *(part.levels or ())]
        return object.__sizeof__(self) + sum(array.nbytes for array in arrays)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, because operations on a tile are too small to share.

    The memory of temporaries is kept for the next ones. By default, the GNU C library returns it to
    the kernel, which clears it again; this takes a third of the time of a fit.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.empty(_REUSED_BYTES, dtype=torch.uint8)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def fit_block(
    family: Family,
    counts: sp.csr_array | Tally,
    designs: Designs,
    settings: Settings,
    start: dict[str, FloatArray] | None,
    *,
    log_size: FloatArray | None = None,
) -> GeneFits:
    """Fit the genes of ``counts``, one per row.

    Parameters
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells), or Tally
        A tally has the rows of the designs.
    designs : Designs
    settings : Settings
    start : dict of str to ndarray of shape (n_columns, n_genes), or None
        Coefficients to start from; by default, several candidate starts are tried.
    log_size : ndarray of shape (n_genes,), optional
        Log sizes that are known. The other coefficients maximise the likelihood at these.
    """
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, settings)
        if log_size is not None:
            problem = replace(problem, log_size=torch.as_tensor(log_size).to(problem.offset))
        objective = problem.model_objective()
        if settings.fused:
            objective.tile_terms = fused_tile(family)
        if start is None:
            solution = maximize_from_many_starts(
                problem, objective, max_iter=settings.max_iter, tol=settings.tol
            )
        else:
            solution = maximize(
                objective,
                torch.as_tensor(designs.coordinates(start)).to(problem.offset),
                max_iter=settings.max_iter,
                tol=settings.tol,
            )
            restart_from_submodels(
                problem, objective, solution, {}, max_iter=settings.max_iter, tol=settings.tol
            )
        infinite_estimates.follow_infinite_estimates(
            problem, objective, solution, max_iter=settings.max_iter, tol=settings.tol
        )
        all_genes = torch.arange(len(solution.theta), device=solution.theta.device)
        solution.theta = objective.with_known_sizes(solution.theta, all_genes)
        return fits_at(problem, objective, designs, solution)


def fits_at(
    problem: Problem, objective: Objective, designs: Designs, solution: Solution
) -> GeneFits:
    """Return the results of genes whose maximisation ended at ``solution``."""
    theta = torch.split(solution.theta, objective.ranks, dim=1)
    coef = {
        part: rowwise.product(
            coordinates.double().cpu(), torch.from_numpy(design.to_coef.T)
        ).T.numpy()
        for (part, design), coordinates in zip(designs.parts.items(), theta, strict=True)
    }
    at = _endpoints(problem, objective, solution)
    return GeneFits(
        coef,
        _numpy(solution.value + objective.penalty_of(solution.theta)),
        solution.n_iter.cpu().numpy(),
        fit_statuses(at),
        {
            part: undetermined(
                at.flat[:, params], designs.parts[part].to_coef, at.flat_levels[:, params]
            )
            for part, params in at.slices().items()
        },
        _numpy(_ceiling(problem, objective, theta[0])),
    )


def _numpy(x: Tensor) -> FloatArray:
    return x.double().cpu().numpy()


def _ceiling(problem: Problem, objective: Objective, mean: Tensor) -> Tensor:
    _, highest = problem.predictor_range(problem.bases[0], mean)
    return torch.where(highest > objective.ceiling, objective.ceiling, torch.inf)


def _endpoints(problem: Problem, objective: Objective, solution: Solution) -> Endpoints:
    _, size, *inflation = torch.split(solution.theta, objective.ranks, dim=1)
    log_odds = torch.zeros_like(solution.value)
    for basis, theta in zip(problem.bases[2:], inflation, strict=True):
        low, high = problem.predictor_range(basis, theta)
        log_odds = torch.maximum(low.abs(), high.abs())
    information, point = _numpy(-solution.hessian), _numpy(solution.theta)
    if is_arrow(solution.hessian):
        flat, flat_levels = flat_directions_of_arrows(information, point)
    else:
        flat, flat_levels = flat_directions(information, point), np.zeros(point.shape, dtype=bool)
    any_flat = flat.any(axis=(1, 2)) | flat_levels.any(axis=1)
    genes = torch.as_tensor(np.flatnonzero(any_flat), device=log_odds.device)
    return Endpoints(
        flat=flat,
        ranks=dict(zip(problem.family.parts, objective.ranks, strict=True)),
        converged=solution.converged.cpu().numpy(),
        n_positive=problem.n_positive,
        poisson_gap=_numpy(_poisson_gap(problem, objective, solution, genes)),
        lowest_size=_numpy(problem.predictor_range(problem.bases[1], size)[0]),
        largest_inflation=_numpy(log_odds),
        inflation_gain=_numpy(_inflation_gain(problem, objective, solution, genes)),
        flat_levels=flat_levels,
    )


def _poisson_gap(
    problem: Problem, objective: Objective, solution: Solution, genes: Tensor
) -> Tensor:
    """Return the maximum of log size less log mean over the counts, NaN without flat direction."""
    gap = torch.full_like(solution.value, torch.nan)
    if genes.numel():
        subproblem = problem.of_genes(genes)
        mean, size, *_ = torch.split(solution.theta[genes], objective.ranks, dim=1)
        log_size = subproblem.predictor_at_counts(subproblem.bases[1], size)
        log_mean = subproblem.predictor_at_counts(subproblem.bases[0], mean)
        at_counts = log_size - log_mean
        at_counts -= subproblem.offset[subproblem.cells]
        gap[genes] = subproblem.reduce_by_gene(at_counts, "amax")
    return gap


def _inflation_gain(
    problem: Problem, objective: Objective, solution: Solution, genes: Tensor
) -> Tensor:
    """Return the log-likelihood gained by zero inflation, for genes with a flat direction."""
    gain = torch.full_like(solution.value, torch.inf)
    if len(problem.bases) > 2 and genes.numel():
        without = problem.objective(objective.block, NegBinFamily(), problem.bases[:2])
        theta = solution.theta[genes]
        value = without.evaluate(theta[:, : without.n_params], genes).value
        gain[genes] = solution.value[genes] - value
    return gain


def build_problem(
    family: Family, counts: sp.csr_array | Tally, designs: Designs, settings: Settings
) -> Problem:
    """Build the problem of a block of genes, one per row of ``counts``, on the device."""

    def tensor(x: FloatArray) -> Tensor:
        # joblib maps large arrays into its workers as read-only, about which torch would warn.
        writable = np.require(x, requirements="W")
        return torch.as_tensor(writable, dtype=settings.dtype, device=settings.device)

    if not isinstance(counts, Tally) and designs.cells is not None:
        counts = Tally.of(counts, designs.cells)
    tally, positive = (
        (counts, counts.counts) if isinstance(counts, Tally) else (None, counts.astype(np.float64))
    )
    offset, weights = tensor(designs.offset), tensor(designs.weights)
    groups = None
    if designs.groups is not None:
        numbers = torch.as_tensor(np.require(designs.groups, requirements="W"))
        groups = Groups(numbers.to(settings.device), offset, weights)

    def basis(design: PartDesign) -> PartBasis:
        indicators = None
        if design.levels is not None:
            codes = torch.as_tensor(np.require(design.levels.codes, requirements="W"))
            indicators = Indicators(codes.to(settings.device), tensor(design.levels.scale))
        return PartBasis(tensor(design.U), tensor(design.penalty), indicators)

    mean, *others = (basis(design) for design in designs.parts.values())
    bases = [mean, *(other.unpacked() for other in others)]
    return Problem(family, positive, bases, offset, weights, tally, groups)
