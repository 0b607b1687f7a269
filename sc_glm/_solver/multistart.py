"""Maximisation of likelihoods with several local maxima.

Candidate starts are screened with a loose tolerance. With many cells, this is done on a coarse
approximation of the problem. The best local maximum of each gene is then polished on all cells.
"""

import torch
from torch import Tensor

from sc_glm._likelihood.arrow_hessian import eigenvalues_exceed
from sc_glm._likelihood.objective import Objective
from sc_glm._solver import initial_values
from sc_glm._solver.candidate_starts import (
    UNIQUE_MAXIMUM_GAIN,
    intercept_basis,
    lower_mean,
    screen_starts,
)
from sc_glm._solver.local_maxima import SCREENING_ERROR, LocalMaxima
from sc_glm._solver.problem import Problem
from sc_glm._solver.submodels import is_sparse, restart_from_submodels
from sc_glm._solver.trust_region import Solution, maximize

# Number of cells from which on starts are screened on a coarse problem, and the difference between
# predictors of unit length below which cells are merged. A regressed zero inflation may change
# within few cells, and needs more and narrower groups.
_MIN_CELLS_TO_COARSEN, _COARSE_WIDTH = 1_000, 0.02
_MIN_CELLS_TO_COARSEN_INFLATION, _COARSE_WIDTH_INFLATION = 2_000, 0.001
_MAX_COARSE_CELLS = 1_024
_MAX_COARSE_ENTRIES = 65_536  # genes x coarse cells at a time; bounds the memory of curves
# Starts may be improved on a sample of the cells before they are polished on all of them.
_CELLS_PER_SAMPLED_CELL = 10
_MIN_SAMPLED_CELLS = 1_000
_SAMPLE_TOL = 0.1  # log-likelihood; what remains is gained on all cells
_SAMPLE_ITER = 30
_MIN_SAMPLE_INFORMATION = 100.0  # on each unit of the predictor, for a maximum to be determined


def maximize_from_many_starts(
    problem: Problem, objective: Objective, *, max_iter: int, tol: float
) -> Solution:
    """Maximise the likelihood of each gene from several starts and keep the highest maximum.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        The objective of the problem's own model.
    max_iter : int
        Newton iterations of each run, at most.
    tol : float
        Gain in log-likelihood below which a gene has converged.

    Returns
    -------
    Solution
        Of the runs that polished the best local maxima on all cells.
    """
    separation_step = initial_values.separation_step(problem)
    if problem.is_unimodal:
        start = _moment_start(problem, separation_step)
        return maximize(objective, start, max_iter=max_iter, tol=tol)
    min_cells, width = _MIN_CELLS_TO_COARSEN, _COARSE_WIDTH
    if any(basis.U.shape[1] > 1 for basis in problem.bases[2:]):
        min_cells, width = _MIN_CELLS_TO_COARSEN_INFLATION, _COARSE_WIDTH_INFLATION
    if problem.counts.shape[1] < min_cells:
        maxima = screen_starts(problem, objective.block, separation_step, max_iter=max_iter)
        solution = maximize(objective, maxima.theta, max_iter=max_iter, tol=tol)
    else:
        coarse = problem.coarsened(_MAX_COARSE_CELLS, width)
        maxima = _screen_in_chunks(coarse, separation_step, max_iter=max_iter).to(problem.offset)
        start = _improve_on_sample(problem, maxima.theta)
        solution = maximize(objective, start, max_iter=max_iter, tol=tol)
        _correct_coarsening(
            problem, objective, solution, maxima, separation_step, max_iter=max_iter, tol=tol
        )
    _restart_from_screened(problem, objective, solution, maxima, max_iter=max_iter, tol=tol)
    return solution


def _moment_start(problem: Problem, separation_step: Tensor) -> Tensor:
    """Return the moment estimates of each gene, with one size for all cells."""
    moments = lower_mean(initial_values.moments(problem), separation_step)
    bases = [problem.bases[0], intercept_basis(problem)]
    return problem.change_bases(moments, bases, problem.bases)


def _screen_in_chunks(coarse: Problem, separation_step: Tensor, *, max_iter: int) -> LocalMaxima:
    """Screen the starts of an approximation of a problem, some genes at a time."""
    n_genes, n_cells = coarse.counts.shape
    numbers = torch.arange(n_genes, device=separation_step.device)
    chunks = []
    for genes in torch.split(numbers, max(1, _MAX_COARSE_ENTRIES // n_cells)):
        chunk = coarse if len(genes) == n_genes else coarse.of_genes(genes)
        own_step = separation_step[genes].to(coarse.offset)
        chunks.append(screen_starts(chunk, chunk.block(), own_step, max_iter=max_iter))
    return LocalMaxima.join(chunks)


def _improve_on_sample(problem: Problem, start: Tensor) -> Tensor:
    """Move starts to the maxima of a sample of the cells, if there are many cells.

    A start is kept if the sample does not determine a maximum.
    """
    n_cells = len(problem.weights)
    if (
        n_cells < _CELLS_PER_SAMPLED_CELL * _MIN_SAMPLED_CELLS
        or problem.tally is not None
        or problem.groups is not None
    ):
        return start
    sample = problem.subsample(n_cells // _CELLS_PER_SAMPLED_CELL)
    found = maximize(sample.model_objective(), start, max_iter=_SAMPLE_ITER, tol=_SAMPLE_TOL)
    is_determined = found.converged & eigenvalues_exceed(-found.hessian, _MIN_SAMPLE_INFORMATION)
    return torch.where(is_determined[:, None], found.theta, start)


def _correct_coarsening(
    problem: Problem,
    objective: Objective,
    solution: Solution,
    maxima: LocalMaxima,
    separation_step: Tensor,
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Try further starts on all cells where the coarse problem may have misled.

    These are the second local maximum, if its coarse value is nearly as high as the first, and all
    candidate starts, if the value on all cells is lower than the coarse value.
    """

    def try_start(genes: Tensor, start: Tensor) -> None:
        value = solution.value[genes]
        other = maximize(objective, start, max_iter=max_iter, tol=tol, genes=genes, cutoff=value)
        higher = other.value > value
        solution.put(genes[higher], other.rows(higher))

    ambiguous = torch.nonzero(maxima.value - maxima.second_value < SCREENING_ERROR)[:, 0]
    if len(ambiguous):
        try_start(ambiguous, maxima.second_theta[ambiguous])
    lower = torch.nonzero(solution.value < maxima.value - SCREENING_ERROR)[:, 0]
    if len(lower):
        subproblem = problem.of_genes(lower)
        block = subproblem.block()
        try_start(
            lower, screen_starts(subproblem, block, separation_step[lower], max_iter=max_iter).theta
        )


def _restart_from_screened(
    problem: Problem,
    objective: Objective,
    solution: Solution,
    maxima: LocalMaxima,
    *,
    max_iter: int,
    tol: float,
) -> None:
    """Restart from submodels where the screened maxima of these may be higher than the solution."""
    # With sparse counts, screening may have stopped far from a maximum on a flat likelihood.
    margin = torch.where(is_sparse(problem), UNIQUE_MAXIMUM_GAIN, SCREENING_ERROR)
    # The values of submodels may rise by polishing as much as the value of the model did.
    margin = margin + (solution.value - maxima.value).clamp_min(0.0)
    bounded = {
        submodel: [
            (screened.theta, screened.value + margin),
            (screened.second_theta, screened.second_value + margin),
        ]
        for submodel, screened in maxima.of_submodels.items()
    }
    restart_from_submodels(problem, objective, solution, bounded, max_iter=max_iter, tol=tol)
