"""Outer products of the scores of single cells, summed over cells.

They are the middle part of sandwich covariances. Each cell's score is needed here, also if one row
of the designs stands for many cells with different counts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sc_glm._likelihood.family import Terms, pairs, positive_counts
from sc_glm._likelihood.objective import Objective


def score_products(objective: Objective, theta: Tensor) -> Tensor:
    """Return the sum over cells of each gene's outer products of scores.

    Parameters
    ----------
    objective : Objective
        Objective whose weights multiply the products. For weights of scores, take an objective with
        the squared weights.
    theta : Tensor of shape (n_genes, n_params)
        Coordinates of each gene.

    Returns
    -------
    Tensor of shape (n_genes, n_params, n_params)
        Sum for each gene; a packed arrow if the mean has many levels.
    """
    n_genes = objective.block.n_genes
    genes = torch.arange(n_genes, device=theta.device)
    sums = objective.assembly.begin(n_genes)
    for tile, rows in objective.pieces(n_genes):
        terms = _products(objective, theta[rows], genes[rows], tile)
        objective.assembly.add(sums, rows, tile, terms)
    return objective.assembly.end(sums)[2]


def _products(objective: Objective, theta: Tensor, genes: Tensor, tile: int) -> Terms:
    """Return terms of a tile whose second derivatives are products of scores, and the rest zero.

    An entry that stands for several cells has their mean product.
    """
    family, block = objective.family, objective.block
    cells = slice(*block.bounds[tile : tile + 2])
    predictors, _ = objective.predictors(theta, genes, tile)
    predictors[0] += objective.offset[cells]
    shape = len(genes), cells.stop - cells.start
    at_entries = [predictor.expand(shape).reshape(-1) for predictor in predictors]
    entries = block.entries(genes, tile)
    counts = positive_counts(block.y.index_select(0, entries.which))
    at_counts = [predictor.index_select(0, entries.flat) for predictor in at_entries]
    saturated = family.saturated(counts, at_counts[1])
    positive_products = outer(family.positives(counts, at_counts, saturated).score)
    products = outer(family.zeros(at_entries).score)
    if block.shares is None:
        for product, positive in zip(products, positive_products, strict=True):
            product.index_copy_(0, entries.flat, positive)
    else:
        zeros = block.shares.zeros[genes, cells].reshape(-1)
        shares = block.shares.positives.index_select(0, entries.which)
        for product, positive in zip(products, positive_products, strict=True):
            product.mul_(zeros).index_add_(0, entries.flat, positive.mul_(shares))
    zero = torch.zeros(shape, dtype=theta.dtype, device=theta.device)
    return Terms(zero, (zero,) * len(predictors), tuple(x.view(shape) for x in products))


def outer(scores: Sequence[Tensor]) -> list[Tensor]:
    """Return the products of all pairs of scores."""
    return [scores[a] * scores[b] for a, b in pairs(len(scores))]
