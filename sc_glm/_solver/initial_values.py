"""Where a gene's maximisation may start: cheap guesses of its parameters from its counts.

Each function returns coordinates, one row per gene. Most starts lean a part's predictor along the
direction in its design that tells the cells with a positive count from the rest: the likelihood's
local maxima lie where the size, the zero inflation or a steep mean explains the zeros on one side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import Indicators
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._solver.problem import Problem

# Starts near the Poisson limit take fewer passes, but miss some genes' maxima at smaller sizes.
_START_SIZES = (0.2, 10.0)
_LARGEST_SLOPE = 0.75
_UNSEEN = 1e-9  # share of the largest curvature, or of a cell, that counts as none
_ALIKE = 1e-6
_SILENT_DEPTH = 18.0  # log units by which a silent cell's mean is put below the gene's
_PRODUCTS = 64  # of columns considered at a time
_SILENCE_ENTRIES = 4_000_000  # cells x rank x genes considered at a time
_HURDLE_SIZE = 3.0  # log size
_MOST_DIRECTIONS = 4
_LEAST_SHARE = 0.01  # of zeros or counts, when taken for a probability


def moments(problem: Problem) -> Tensor:
    """Match each gene's mean and variance over all cells, with a mean that leans to its counts.

    The lean is what normal covariates would have, as those with counts have their mean shifted by
    it; it is cut to a length that others bear. Coordinates are those of the mean and of one log
    size.
    """
    basis, weights = problem.bases[0], problem.weights
    tiny = torch.finfo(weights.dtype).eps
    exposure = problem.offset + weights.log()
    log_exposure, log_cells = exposure.logsumexp(0), weights.sum().log()
    total = _total(problem).clamp_min(tiny)
    lean = problem.weighted_sum_in(problem.counts.data, basis) / total[:, None]
    lean -= basis.sum(exposure.softmax(0))
    lean *= (_LARGEST_SLOPE / lean.norm(dim=1, keepdim=True).clamp_min(tiny)).clamp_max(1.0)
    spread = lean.square().sum(1)
    level = total.log() - log_exposure - 0.5 * spread
    log_mean = total.log() - log_cells
    squares = problem.weighted_sum(problem.counts.data**2, torch.ones_like(weights)) / weights.sum()
    unequal = (exposure + problem.offset).logsumexp(0) - 2 * log_exposure + log_cells
    of_mean = (2 * log_mean + spread + unequal).exp()  # mean square of the mean
    size = (of_mean / (squares - of_mean - log_mean.exp()).clamp_min(tiny)).clamp(*_START_SIZES)
    constant = level[:, None] * problem.intercept(basis)
    return torch.cat([constant + lean, size.log()[:, None]], 1)


def mean_of_positives(problem: Problem) -> Tensor:
    """Each gene's mean positive count at the average offset, as coordinates of a constant mean."""
    offset = (problem.offset * problem.weights).sum() / problem.weights.sum()
    mean = _total(problem) / _cells(problem)
    level = mean.clamp_min(torch.finfo(mean.dtype).eps).nan_to_num(1.0).log() - offset
    return level[:, None] * problem.intercept(problem.bases[0])


def hurdle(problem: Problem, size: PartBasis) -> Tensor:
    """Explain all zeros by zero inflation, and the positive counts by their mean."""
    zeros = 1 - _cells(problem) / problem.weights.sum()
    zeros = zeros.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
    odds = (zeros / (1 - zeros)).log()  # torch.logit() rounds by where an element stands
    return torch.cat(
        [
            mean_of_positives(problem),
            torch.full_like(odds, _HURDLE_SIZE)[:, None] * problem.intercept(size),
            odds[:, None] * problem.intercept(problem.bases[2]),
        ],
        1,
    )


def slopes(
    problem: Problem, basis: PartBasis, shapes: Sequence[tuple[float, float]]
) -> list[Tensor]:
    """Return predictors of given levels and slopes towards each gene's counts.

    Slopes are per standard deviation. Where the part is not regressed there is only the first
    level.
    """
    if basis.U.shape[1] <= 1:
        shapes = shapes[:1]
    constant, towards = problem.intercept(basis), _towards_counts(problem, basis)
    return [level * constant + slope * towards for level, slope in shapes]


def steps(problem: Problem, basis: PartBasis, slope: float) -> list[Tensor]:
    """Return predictors that rise, and that fall, through zero amid each gene's counts."""
    tiny = torch.finfo(basis.U.dtype).tiny
    towards = _towards_counts(problem, basis)
    centre = (
        problem.weighted_sum_in(problem.ones_at_counts, basis)
        / _cells(problem).clamp_min(tiny)[:, None]
    )
    through = towards - (centre * towards).sum(1, keepdim=True) * problem.intercept(basis)
    return [slope * through, -slope * through]


def edges(problem: Problem, basis: PartBasis, slope: float) -> list[Tensor]:
    """Return predictors above zero at all of a gene's counts, and below beyond the outermost.

    There are two, rising and falling, for each principal direction in which cells with a positive
    count differ.
    """
    constant = problem.intercept(basis)
    found = []
    for direction in _principal_directions(problem, basis):
        at_counts = problem.predictor_at_counts(basis, direction)
        low, high = (problem.reduce_by_gene(at_counts, how) for how in ("amin", "amax"))
        found += [
            slope * (direction - low[:, None] * constant),
            slope * (high[:, None] * constant - direction),
        ]
    return found


def ascent(objective: Objective, theta: Tensor, part: int) -> Tensor:
    """Return the unit direction, of one part alone, in which the likelihood rises."""
    genes = torch.arange(len(theta), device=theta.device)
    gradient = objective.evaluate(theta, genes).gradient
    own = torch.zeros_like(theta)
    own[:, objective.slices[part]] = gradient[:, objective.slices[part]]
    return _unit(own)


def separation_step(problem: Problem) -> Tensor:
    """Step in the mean's coordinates that silences the cells in which a gene cannot have counts.

    Cells that no positive count constrains, such as a cell type in which the gene is silent, have
    their maximum at a mean of zero. Where a direction lowers all of them alike and touches no other
    cell, the start goes down it far enough for the likelihood to be flat, instead of a unit at a
    time. Zero for all other genes.
    """
    if problem.bases[0].indicators is not None:
        return _separated_levels(problem, problem.bases[0], problem.bases[0].indicators)
    U, weights = problem.distinct_rows(problem.bases[0])
    step = U.new_zeros(problem.counts.shape[0], U.shape[1])
    total = _total(problem)
    if problem.bases[0].penalty.any():
        return step
    curvature, vectors = rowwise.eigh(_second_moments(problem, problem.bases[0]))
    free = curvature < _UNSEEN * curvature[:, -1:]
    genes = torch.nonzero(free.any(1))[:, 0]
    weighted = weights[:, None] * U
    for some in torch.split(genes, max(1, _SILENCE_ENTRIES // U.numel())):
        basis = vectors[some] * free[some][:, None, :]
        reach = (U @ basis).square().sum(2)  # genes x rows: how much each is free to move
        target = -(reach > _UNSEEN).to(U.dtype)
        wish = rowwise.product(target, weighted) / problem.weights.sum()
        down = rowwise.apply(basis, rowwise.apply(basis.mT, wish))
        moved = rowwise.product(down, U.mT)
        lowers_alike = ((moved - target).abs() < _ALIKE).all(1)
        depth = _SILENT_DEPTH + total[some].log().clamp_min(0.0)
        step[some] = torch.where(lowers_alike, depth, 0.0)[:, None] * down
    return step


def _separated_levels(problem: Problem, basis: PartBasis, indicators: Indicators) -> Tensor:
    """Return the step that silences the levels without any count of a gene."""
    silent = problem.weighted_sum_in(problem.ones_at_counts, basis)[:, : basis.n_levels] == 0
    depth = _SILENT_DEPTH + _total(problem).log().clamp_min(0.0)
    down = torch.where(silent, -depth[:, None] / indicators.scale, 0.0)
    return torch.nn.functional.pad(down, (0, basis.U.shape[1]))


def _total(problem: Problem) -> Tensor:
    return problem.weighted_sum(problem.counts.data, torch.ones_like(problem.weights))


def _cells(problem: Problem) -> Tensor:
    return problem.weighted_sum(problem.ones_at_counts, torch.ones_like(problem.weights))


def _towards_counts(problem: Problem, basis: PartBasis) -> Tensor:
    """Return the unit direction from the average cell to the average cell with a positive count.

    Its predictor has standard deviation one.
    """
    constant = problem.intercept(basis)
    seen = problem.weighted_sum_in(problem.ones_at_counts, basis)
    level = (seen * constant).sum(1, keepdim=True)
    squared = constant.square().sum().clamp_min(torch.finfo(constant.dtype).tiny)
    return _unit(seen - level * constant / squared)


def _second_moments(problem: Problem, basis: PartBasis) -> Tensor:
    """Sum over each gene's cells with a positive count of the products of their coordinates."""
    U, _ = problem.distinct_rows(basis)
    rank = U.shape[1]
    row, column = torch.triu_indices(rank, rank, device=U.device)
    # A few at a time: cells x rank^2 may be more than memory holds.
    pieces = [
        problem.weighted_sum_of_distinct(U[:, i] * U[:, j])
        for i, j in zip(row.split(_PRODUCTS), column.split(_PRODUCTS), strict=True)
    ]
    seen = U.new_zeros(problem.counts.shape[0], rank, rank)
    seen[:, row, column] = seen[:, column, row] = torch.cat(pieces, 1)
    return seen


def _principal_directions(problem: Problem, basis: PartBasis) -> list[Tensor]:
    """Return the unit directions, constants aside, in which a gene's cells spread the most."""
    constant = _unit(problem.intercept(basis)[None])
    others = torch.eye(constant.shape[1]).to(constant) - constant.mT @ constant
    seen = _second_moments(problem, basis)
    for _ in range(2):  # once from each side
        seen = rowwise.product(seen.flatten(0, 1), others).view_as(seen).mT
    _, directions = rowwise.eigh(0.5 * (seen + seen.mT))
    return list(directions[:, :, 1:].unbind(2))[-_MOST_DIRECTIONS:]


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
