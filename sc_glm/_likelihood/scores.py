"""Products of the scores of single cells, summed over cells.

The rest of a fit needs sums of scores and of second derivatives alone. Here each entry's score
counts by itself, also where a row of the designs stands for many cells of several counts.
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
        Its weights are those of the products: squares of the cells' weights, where these multiply
        the scores.
    theta : Tensor of shape (n_genes, n_params)
        One row for each gene.

    Returns
    -------
    Tensor of shape (n_genes, n_params, n_params)
    """
    n_genes = objective.block.n_genes
    everything = torch.arange(n_genes, device=theta.device)
    sums = objective.assembly.begin(n_genes)
    for tile, rows in objective.pieces(n_genes):
        terms = _products(objective, theta[rows], everything[rows], tile)
        objective.assembly.add(sums, rows, tile, terms)
    return objective.assembly.end(sums)[2]


def _products(objective: Objective, theta: Tensor, genes: Tensor, tile: int) -> Terms:
    """Return products of scores in place of a tile's second derivatives, and nothing else.

    Where an entry stands for several cells, it has their mean.
    """
    family, block = objective.family, objective.block
    cells = slice(*block.bounds[tile : tile + 2])
    predictors, _ = objective.predictors(theta, genes, tile)
    predictors[0] += objective.offset[cells]
    shape = len(genes), cells.stop - cells.start
    whole = [predictor.expand(shape).reshape(-1) for predictor in predictors]
    entries = block.entries(genes, tile)
    counts = positive_counts(block.y.index_select(0, entries.which))
    at_counts = [predictor.index_select(0, entries.flat) for predictor in whole]
    saturated = family.saturated(counts, at_counts[1])
    of_counts = _outer(family.positives(counts, at_counts, saturated).score)
    of_zeros = _outer(family.zeros(whole).score)
    if block.shares is None:
        for zero, positive in zip(of_zeros, of_counts, strict=True):
            zero.index_copy_(0, entries.flat, positive)
    else:
        zeros = block.shares.zeros[genes, cells].reshape(-1)
        shares = block.shares.positives.index_select(0, entries.which)
        for zero, positive in zip(of_zeros, of_counts, strict=True):
            zero.mul_(zeros).index_add_(0, entries.flat, positive.mul_(shares))
    none = torch.zeros(shape, dtype=theta.dtype, device=theta.device)
    return Terms(none, (none,) * len(predictors), tuple(x.view(shape) for x in of_zeros))


def _outer(scores: Sequence[Tensor]) -> list[Tensor]:
    return [scores[a] * scores[b] for a, b in pairs(len(scores))]
