"""Outer products of the scores of single cells, summed by groups of cells with equal designs.

In a group, the products of the scores of zeros are a smooth function of the offset. Their sum over
all cells is a sum over a few nodes of the offset. The difference between the products at the count
and at zero is added for each positive count.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sc_glm._likelihood.family import Counts, SaturatedLogMass, Terms, positive_counts
from sc_glm._likelihood.grouped import GroupedObjective
from sc_glm._likelihood.scores import outer

# Largest log mean of genes whose sums lose few digits to the difference. The square of a zero's
# score is at most this mean times the expected square.
_LARGEST_LOG_MEAN = 4.0

_BLOCK_ENTRIES = 2**14  # genes x nodes, or positive counts, whose temporaries stay in the cache
_TABULATED_COUNTS = 16  # whole counts up to this one are tabulated by gene


class Nodes(NamedTuple):
    """Offsets and weights that stand for those of all cells, each in a group."""

    groups: Tensor
    offset: Tensor
    weights: Tensor


def has_small_means(objective: GroupedObjective, theta: Tensor) -> Tensor:
    """Return for which genes :func:`grouped_score_products` keeps nearly all digits."""
    genes = torch.arange(len(theta), device=theta.device)
    (eta, _), _ = objective.predictors(theta, genes, 0)
    return eta.amax(1) + objective.offset.amax() < _LARGEST_LOG_MEAN


def grouped_score_products(objective: GroupedObjective, theta: Tensor, nodes: Nodes) -> Tensor:
    """Return the sum over cells of each gene's outer products of scores.

    Parameters
    ----------
    objective : GroupedObjective
        Objective whose weights multiply the products.
    theta : Tensor of shape (n_genes, n_params)
        Coordinates of each gene.
    nodes : Nodes
        Nodes for the cells of the objective with its weights.

    Returns
    -------
    Tensor of shape (n_genes, n_params, n_params)
        Sum for each gene; a packed arrow if the mean has many levels.
    """
    genes = torch.arange(len(theta), device=theta.device)
    predictors, _ = objective.predictors(theta, genes, 0)
    sums = _products_of_zeros(objective, predictors, nodes)
    _add_positive_counts(sums, objective, predictors)
    zero = torch.zeros_like(sums[0])
    total = objective.assembly.begin(len(genes))
    terms = Terms(zero, (zero,) * len(predictors), tuple(sums))
    objective.assembly.add(total, slice(0, len(genes)), 0, terms)
    return objective.assembly.end(total)[2]


def _products_of_zeros(
    objective: GroupedObjective, predictors: list[Tensor], nodes: Nodes
) -> list[Tensor]:
    """Return the sums of products, genes x groups, as if all counts were zero."""
    eta, rho = predictors
    to_groups = eta.new_zeros(len(nodes.groups), eta.shape[1])
    to_groups[torch.arange(len(nodes.groups)), nodes.groups] = nodes.weights
    sums = [torch.empty_like(eta) for _ in range(3)]
    step = max(1, _BLOCK_ENTRIES // len(nodes.groups))
    for first in range(0, len(eta), step):
        rows = slice(first, first + step)
        at_nodes = eta[rows].index_select(1, nodes.groups).add_(nodes.offset)
        score = objective.family.zeros([at_nodes, rho[rows]]).score
        for target, product in zip(sums, outer(score), strict=True):
            torch.mm(product, to_groups, out=target[rows])
    return sums


def _add_positive_counts(
    sums: list[Tensor], objective: GroupedObjective, predictors: list[Tensor]
) -> None:
    """Add the differences between the products at positive counts and at zero."""
    family, block = objective.family, objective.block
    eta, rho = (predictor.reshape(-1) for predictor in predictors)
    n_groups = sums[0].shape[1]
    saturated_of = _SaturatedCounts(objective, rho)
    numbers, weights = objective.numbers_of_counts, objective.weights_of_counts()
    for first in range(0, len(block.y), _BLOCK_ENTRIES):
        entries = slice(first, first + _BLOCK_ENTRIES)
        genes, y = block.genes[entries], block.y[entries]
        target = genes * n_groups + numbers[entries]
        offset = objective.offset.index_select(0, block.cells[entries])
        at = [eta.index_select(0, target).add_(offset), rho.index_select(0, genes)]
        counts, saturated = saturated_of(genes, y, at[1])
        positive = outer(family.positives(counts, at, saturated).score)
        zero = outer(family.zeros(at).score)
        for total, product, product_of_zero in zip(sums, positive, zero, strict=True):
            difference = product.sub_(product_of_zero).mul_(weights[entries])
            total.view(-1).index_add_(0, target, difference)


class _SaturatedCounts:
    """First derivatives of the saturated log-mass of counts; small counts are tabulated by gene."""

    def __init__(self, objective: GroupedObjective, rho: Tensor) -> None:
        self._family = objective.family
        y = torch.arange(1, _TABULATED_COUNTS + 1, device=rho.device).to(rho)
        first = [
            self._compute(y.repeat(len(part)), part.repeat_interleave(_TABULATED_COUNTS))
            for part in torch.split(rho, _BLOCK_ENTRIES // _TABULATED_COUNTS)
        ]
        self._table = torch.cat(first)

    def __call__(self, genes: Tensor, y: Tensor, rho: Tensor) -> tuple[Counts, SaturatedLogMass]:
        """Prepare counts for the scores; values and second derivatives are zero."""
        whole = y.clamp(1, _TABULATED_COUNTS).long()
        first = self._table.index_select(0, genes * _TABULATED_COUNTS + whole - 1)
        others = torch.nonzero(whole != y)[:, 0]
        if len(others):
            of_others = self._compute(y.index_select(0, others), rho.index_select(0, others))
            first.index_copy_(0, others, of_others)
        zero = torch.zeros_like(y)
        return Counts(y, y.log(), zero), SaturatedLogMass(zero, first, zero)

    def _compute(self, y: Tensor, rho: Tensor) -> Tensor:
        return self._family.saturated(positive_counts(y), rho).first
