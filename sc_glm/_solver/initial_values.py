"""Initial values of a gene's parameters, computed from its counts at little cost.

Each function returns coordinates, one row per gene. Most initial values tilt the predictor of a
part along a direction of its design: the one between the cells with a positive count and the
others. Local maxima of the likelihood are there, because the size, the zero inflation or a steep
mean may explain the zeros on one side.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.arrow_hessian import Indicators
from sc_glm._likelihood.objective import Objective, PartBasis
from sc_glm._solver.problem import Problem

# Bounds of initial sizes. Larger ones, near the Poisson limit, take fewer passes, but miss the
# maxima of some genes at smaller sizes.
_SIZE_BOUNDS = (0.2, 10.0)
_HURDLE_LOG_SIZE = 3.0
_MIN_PROBABILITY = 0.01  # of a zero and of a positive count, before log odds are taken
_MAX_SLOPE = 0.75  # log units per standard deviation, of the mean of moment estimates
_NULL_SPACE_TOL = 1e-9  # of the largest eigenvalue, and of a cell's squared projection
_EQUAL_CHANGE_TOL = 1e-6  # difference up to which the predictors of separated cells change equally
_SEPARATION_DECREASE = 18.0  # log units by which the mean of separated cells is lowered
_SEPARATION_ENTRIES = 4_000_000  # cells x rank x genes in memory at a time
_MAX_PRODUCTS = 64  # products of two columns in memory at a time
_MAX_PRINCIPAL_DIRECTIONS = 4


def moments(problem: Problem) -> Tensor:
    """Return moment estimates of the mean's coordinates and of one log size for each gene.

    They match the mean and the variance of the counts over all cells. The slope of the mean is the
    difference between the count-weighted and the expected mean of the covariates. It is exact for
    normal covariates, and is bounded because others may have heavier tails.
    """
    basis, weights = problem.bases[0], problem.weights
    tiny = torch.finfo(weights.dtype).eps
    exposure = problem.offset + weights.log()
    log_exposure, log_cells = exposure.logsumexp(0), weights.sum().log()
    total = _sum_of_counts(problem).clamp_min(tiny)
    slope = problem.weighted_sum_in(problem.counts.data, basis) / total[:, None]
    slope -= basis.sum(exposure.softmax(0))
    slope *= (_MAX_SLOPE / slope.norm(dim=1, keepdim=True).clamp_min(tiny)).clamp_max(1.0)
    variance = slope.square().sum(1)  # of the predictor
    level = total.log() - log_exposure - 0.5 * variance
    log_mean = total.log() - log_cells
    count_square = (
        problem.weighted_sum(problem.counts.data**2, torch.ones_like(weights)) / weights.sum()
    )
    exposure_ratio = (exposure + problem.offset).logsumexp(0) - 2 * log_exposure + log_cells
    mean_square = (2 * log_mean + variance + exposure_ratio).exp()  # of the mean
    size = (mean_square / (count_square - mean_square - log_mean.exp()).clamp_min(tiny)).clamp(
        *_SIZE_BOUNDS
    )
    intercept = level[:, None] * problem.intercept(basis)
    return torch.cat([intercept + slope, size.log()[:, None]], 1)


def mean_of_positives(problem: Problem) -> Tensor:
    """Return the mean positive count of each gene, as coordinates of an equal mean in all cells.

    The mean of the offset is subtracted.
    """
    offset = (problem.offset * problem.weights).sum() / problem.weights.sum()
    mean = _sum_of_counts(problem) / _number_of_positives(problem)
    level = mean.clamp_min(torch.finfo(mean.dtype).eps).nan_to_num(1.0).log() - offset
    return level[:, None] * problem.intercept(problem.bases[0])


def hurdle(problem: Problem, size: PartBasis) -> Tensor:
    """Return a hurdle model: zero inflation explains all zeros, the mean all positive counts."""
    zeros = 1 - _number_of_positives(problem) / problem.weights.sum()
    zeros = zeros.clamp(_MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    odds = (zeros / (1 - zeros)).log()  # torch.logit() rounds by position
    return torch.cat(
        [
            mean_of_positives(problem),
            torch.full_like(odds, _HURDLE_LOG_SIZE)[:, None] * problem.intercept(size),
            odds[:, None] * problem.intercept(problem.bases[2]),
        ],
        1,
    )


def sloped_predictors(
    problem: Problem, basis: PartBasis, shapes: Sequence[tuple[float, float]]
) -> list[Tensor]:
    """Return predictors with given levels, and slopes towards the positive counts.

    Slopes are per standard deviation. Only the first level is used if the part has one column.
    """
    if basis.U.shape[1] <= 1:
        shapes = shapes[:1]
    intercept, direction = problem.intercept(basis), _direction_of_counts(problem, basis)
    return [level * intercept + slope * direction for level, slope in shapes]


def steep_predictors(problem: Problem, basis: PartBasis, slope: float) -> list[Tensor]:
    """Return a rising and a falling predictor, both zero at the mean of the positive counts."""
    tiny = torch.finfo(basis.U.dtype).tiny
    direction = _direction_of_counts(problem, basis)
    centre = (
        problem.weighted_sum_in(problem.ones_at_counts, basis)
        / _number_of_positives(problem).clamp_min(tiny)[:, None]
    )
    centred = direction - (centre * direction).sum(1, keepdim=True) * problem.intercept(basis)
    return [slope * centred, -slope * centred]


def edge_predictors(problem: Problem, basis: PartBasis, slope: float) -> list[Tensor]:
    """Return predictors that are zero at the outermost positive counts and negative beyond them.

    There are a rising and a falling predictor for each principal direction of the cells with a
    positive count.
    """
    intercept = problem.intercept(basis)
    found = []
    for direction in _principal_directions(problem, basis):
        at_counts = problem.predictor_at_counts(basis, direction)
        low, high = (problem.reduce_by_gene(at_counts, how) for how in ("amin", "amax"))
        found += [
            slope * (direction - low[:, None] * intercept),
            slope * (high[:, None] * intercept - direction),
        ]
    return found


def ascent_direction(objective: Objective, theta: Tensor, part: int) -> Tensor:
    """Return the unit vector of the likelihood's gradient in the coordinates of one part."""
    genes = torch.arange(len(theta), device=theta.device)
    gradient = objective.evaluate(theta, genes).gradient
    gradient_of_part = torch.zeros_like(theta)
    gradient_of_part[:, objective.slices[part]] = gradient[:, objective.slices[part]]
    return _unit(gradient_of_part)


def separation_step(problem: Problem) -> Tensor:
    """Return a step that lowers the mean of separated cells, where a gene cannot have counts.

    Cells that no positive count constrains have their maximum at a mean of zero; an example is a
    cell type without counts. Such a direction of recession lowers all of them by the same amount
    and changes no other cell. The step follows it until the likelihood is flat, which takes
    Newton's method one pass for each unit. The step is zero for genes without such a direction.
    """
    if problem.bases[0].indicators is not None:
        return _step_of_levels(problem, problem.bases[0], problem.bases[0].indicators)
    U, weights = problem.distinct_rows(problem.bases[0])
    step = U.new_zeros(problem.counts.shape[0], U.shape[1])
    total = _sum_of_counts(problem)
    if problem.bases[0].penalty.any():
        return step
    eigenvalues, vectors = rowwise.eigh(_second_moments(problem, problem.bases[0]))
    is_null = eigenvalues < _NULL_SPACE_TOL * eigenvalues[:, -1:]
    genes = torch.nonzero(is_null.any(1))[:, 0]
    weighted = weights[:, None] * U
    for chunk in torch.split(genes, max(1, _SEPARATION_ENTRIES // max(1, U.numel()))):
        null_space = vectors[chunk] * is_null[chunk][:, None, :]
        projection = (U @ null_space).square().sum(2)  # genes x rows
        target = -(projection > _NULL_SPACE_TOL).to(U.dtype)
        inner_product = rowwise.product(target, weighted) / problem.weights.sum()
        direction = rowwise.matvec(null_space, rowwise.matvec(null_space.mT, inner_product))
        change = rowwise.product(direction, U.mT)
        is_recession = ((change - target).abs() < _EQUAL_CHANGE_TOL).all(1)
        decrease = _SEPARATION_DECREASE + total[chunk].log().clamp_min(0.0)
        step[chunk] = torch.where(is_recession, decrease, 0.0)[:, None] * direction
    return step


def _step_of_levels(problem: Problem, basis: PartBasis, indicators: Indicators) -> Tensor:
    """Return the step that lowers the levels of the mean in which a gene has no count."""
    no_counts = problem.weighted_sum_in(problem.ones_at_counts, basis)[:, : basis.n_levels] == 0
    decrease = _SEPARATION_DECREASE + _sum_of_counts(problem).log().clamp_min(0.0)
    step = torch.where(no_counts, -decrease[:, None] / indicators.scale, 0.0)
    return torch.nn.functional.pad(step, (0, basis.U.shape[1]))


def _sum_of_counts(problem: Problem) -> Tensor:
    return problem.weighted_sum(problem.counts.data, torch.ones_like(problem.weights))


def _number_of_positives(problem: Problem) -> Tensor:
    return problem.weighted_sum(problem.ones_at_counts, torch.ones_like(problem.weights))


def _direction_of_counts(problem: Problem, basis: PartBasis) -> Tensor:
    """Return the unit direction from the mean cell to the mean cell with a positive count.

    Its predictor has standard deviation one.
    """
    intercept = problem.intercept(basis)
    total = problem.weighted_sum_in(problem.ones_at_counts, basis)
    level = (total * intercept).sum(1, keepdim=True)
    squared = intercept.square().sum().clamp_min(torch.finfo(intercept.dtype).tiny)
    return _unit(total - level * intercept / squared)


def _second_moments(problem: Problem, basis: PartBasis) -> Tensor:
    """Return sums of products of two basis vectors over the cells with a positive count."""
    U, _ = problem.distinct_rows(basis)
    rank = U.shape[1]
    row, column = torch.triu_indices(rank, rank, device=U.device)
    # In pieces, because cells x rank^2 products may exceed the memory.
    pieces = [
        problem.weighted_sum_of_distinct(U[:, i] * U[:, j])
        for i, j in zip(row.split(_MAX_PRODUCTS), column.split(_MAX_PRODUCTS), strict=True)
    ]
    moments = U.new_zeros(problem.counts.shape[0], rank, rank)
    moments[:, row, column] = moments[:, column, row] = torch.cat(pieces, 1)
    return moments


def _principal_directions(problem: Problem, basis: PartBasis) -> list[Tensor]:
    """Return principal directions of cells with a positive count, orthogonal to the intercept."""
    intercept = _unit(problem.intercept(basis)[None])
    projector = torch.eye(intercept.shape[1]).to(intercept) - intercept.mT @ intercept
    moments = _second_moments(problem, basis)
    for _ in range(2):  # from the left and from the right
        moments = rowwise.product(moments.flatten(0, 1), projector).view_as(moments).mT
    _, directions = rowwise.eigh(0.5 * (moments + moments.mT))
    return list(directions[:, :, 1:].unbind(2))[-_MAX_PRINCIPAL_DIRECTIONS:]


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
