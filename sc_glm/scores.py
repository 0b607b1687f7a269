"""Sums over cells of products of what each cell by itself has: its score, or its information.

The rest of a fit needs sums of scores and of second derivatives alone. Here each entry counts by
itself, also where a row of the designs stands for many cells of several counts.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sc_glm import rowwise
from sc_glm.family import Terms, pairs, positive_counts
from sc_glm.objective import Objective


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
    sums = objective.contraction.begin(objective.block.n_genes)
    for tile, rows in objective.pieces(objective.block.n_genes):
        own = _means(objective, theta, rows, tile, lambda terms: _outer(terms.score))
        none = torch.zeros_like(own[0])
        terms = Terms(none, (none,) * len(objective.bases), tuple(own))
        objective.contraction.add(sums, rows, tile, terms)
    return objective.contraction.end(sums)[2]


def information_squares(objective: Objective, theta: Tensor, directions: Tensor) -> Tensor:
    r"""Return how unevenly cells share the information on combinations of parameters.

    With the information :math:`D_i` of a cell along several directions, it is the sum over cells of
    :math:`(\operatorname{tr} D_i)^2 + \operatorname{tr} D_i^2`.

    Parameters
    ----------
    objective : Objective
        Its weights are squares of the cells' weights. Of cells that are one row of the designs, the
        mean information counts for each.
    theta : Tensor of shape (n_genes, n_params)
        One row for each gene.
    directions : Tensor of shape (n_genes, n_tests, n_together, n_params)

    Returns
    -------
    Tensor of shape (n_genes, n_tests)
    """
    block, sums = objective.block, directions.new_zeros(directions.shape[:2])
    for tile, rows in objective.pieces(block.n_genes):
        hessian = _means(objective, theta, rows, tile, lambda terms: list(terms.hessian))
        cells = slice(*block.bounds[tile : tile + 2])
        for test in range(directions.shape[1]):
            along = [
                [
                    rowwise.product(direction[:, own], basis.U[cells].mT)
                    for own, basis in zip(objective.slices, objective.bases, strict=True)
                ]
                for direction in directions[rows, test].unbind(1)
            ]
            squares = _squares(hessian, along)
            sums[rows, test] += rowwise.product(squares, objective.weights[cells, None])[:, 0]
    return sums


def _squares(hessian: Sequence[Tensor], along: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the trace's square and the square's trace of each cell's information."""
    n_parts = len(along[0])
    trace, total = torch.zeros_like(along[0][0]), torch.zeros_like(along[0][0])
    for s, t in pairs(len(along)):
        own = torch.zeros_like(trace)
        for second, (a, b) in zip(hessian, pairs(n_parts), strict=True):
            own -= second * along[s][a] * along[t][b]
            if a != b:
                own -= second * along[s][b] * along[t][a]
        if s == t:
            trace += own
        total += own.square_() * (1 if s == t else 2)
    return trace.square_().add_(total)


def _means(
    objective: Objective,
    theta: Tensor,
    rows: slice,
    tile: int,
    of: Callable[[Terms], list[Tensor]],
) -> list[Tensor]:
    """Return what is a function of an entry's terms, in a tile of genes x cells.

    Where an entry stands for several cells, it is their mean.
    """
    family, block = objective.family, objective.block
    genes = torch.arange(rows.start, rows.stop, device=theta.device)
    cells = slice(*block.bounds[tile : tile + 2])
    predictors, _ = objective.predictors(theta[rows], genes, tile)
    predictors[0] += objective.offset[cells]
    shape = len(genes), cells.stop - cells.start
    whole = [predictor.expand(shape).reshape(-1) for predictor in predictors]
    entries = block.entries(genes, tile)
    counts = positive_counts(block.y.index_select(0, entries.which))
    at_counts = [predictor.index_select(0, entries.flat) for predictor in whole]
    of_counts = of(family.positives(counts, at_counts, family.shape(counts, at_counts[1])))
    means = of(family.zeros(whole))
    if block.shares is None:
        for mean, positive in zip(means, of_counts, strict=True):
            mean.index_copy_(0, entries.flat, positive)
    else:
        zeros = block.shares.zeros[genes, cells].reshape(-1)
        shares = block.shares.positives.index_select(0, entries.which)
        for mean, positive in zip(means, of_counts, strict=True):
            mean.mul_(zeros).index_add_(0, entries.flat, positive.mul_(shares))
    return [mean.view(shape) for mean in means]


def _outer(scores: Sequence[Tensor]) -> list[Tensor]:
    return [scores[a] * scores[b] for a, b in pairs(len(scores))]
