"""Log-likelihood, score and observed information at given coefficients, of all cells or of groups.

They are sums over cells. The parameters are the coordinates of the coefficients in the bases of the
designs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_glm._counts.offset_nodes import offset_nodes
from sc_glm._likelihood.arrow_hessian import unpacked
from sc_glm._likelihood.grouped import GroupedObjective
from sc_glm._likelihood.grouped_scores import Nodes, grouped_score_products, has_small_means
from sc_glm._likelihood.scores import score_products
from sc_glm._solver.gene_block import Designs, Settings, build_problem, one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family

# One pass over the counts, in double precision also if the model was fitted in single precision.
SETTINGS = Settings(max_iter=1, tol=1.0, device=torch.device("cpu"), dtype=torch.float64)


class ScoreAndInformation(NamedTuple):
    """Log-likelihood, score and observed information of some genes at a point.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_genes,)
        Without the penalty of a penalised fit.
    score : ndarray of shape (n_genes, n_params)
        Gradient, with the penalty.
    information : ndarray of shape (n_genes, n_params, n_params)
        Minus the Hessian, with the penalty.
    """

    log_likelihood: FloatArray
    score: FloatArray
    information: FloatArray

    def with_fixed(self, fixed: NDArray[np.bool_]) -> ScoreAndInformation:
        """Return score and information if some parameters, a mask (n_params,), are known.

        The information on a fixed parameter is replaced by one, which keeps it invertible.
        """
        free = np.where(fixed, 0.0, 1.0)
        information = self.information * free[:, None] * free + np.diag(1.0 - free)
        return self._replace(score=self.score * free, information=information)


class Clusters(NamedTuple):
    """Groups of cells.

    Attributes
    ----------
    order : ndarray of int of shape (n_cells,)
        The cells, sorted by their group.
    bounds : ndarray of int of shape (n_groups + 1,)
        Where each group begins and ends in this order.
    designs : list of Designs
        The rows of each group.
    """

    order: NDArray[np.intp]
    bounds: NDArray[np.intp]
    designs: list[Designs]

    @classmethod
    def of(cls, codes: NDArray[np.intp], designs: Designs) -> Clusters:
        """Sort cells by ``codes``, the number of their group."""
        order = np.argsort(codes, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        pieces = np.split(order, bounds[1:-1])
        return cls(order, bounds, [designs.of_cells(piece) for piece in pieces])


def score_and_information(
    family: Family, counts: sp.csr_array, designs: Designs, theta: FloatArray
) -> ScoreAndInformation:
    """Compute log-likelihood, score and observed information.

    Parameters
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells)
        Positive counts by gene.
    designs : Designs
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in the bases of the designs.
    """
    with one_thread(), torch.inference_mode():
        problem = build_problem(family, counts, designs, SETTINGS)
        objective = problem.model_objective()
        point = torch.from_numpy(theta)
        at = objective.evaluate(point, torch.arange(len(theta)))
        value = at.value + objective.penalty_of(point)
        return ScoreAndInformation(
            value.numpy(), at.gradient.numpy(), -unpacked(at.hessian).numpy()
        )


def outer_products_of_scores(
    family: Family, counts: sp.csr_array, designs: Designs, theta: FloatArray
) -> FloatArray:
    """Sum each gene's outer products of the cells' weighted scores, (n_genes, n_params, n_params).

    The parameters are those of :func:`score_and_information`.
    """
    squared = designs.squared()
    with one_thread(), torch.inference_mode():
        point = torch.from_numpy(theta)
        objective = build_problem(family, counts, squared, SETTINGS).model_objective()
        if squared.groups is None or not isinstance(objective, GroupedObjective):
            return unpacked(score_products(objective, point)).numpy()
        nodes = offset_nodes(squared.groups, squared.offset, squared.weights)
        tensors = Nodes(*(torch.from_numpy(values) for values in nodes))
        products = unpacked(grouped_score_products(objective, point, tensors)).numpy()
        large = torch.nonzero(~has_small_means(objective, point))[:, 0].numpy()
    if len(large):
        by_cell = replace(designs, groups=None)
        products[large] = outer_products_of_scores(family, counts[large], by_cell, theta[large])
    return products


def score_and_information_by_cluster(
    family: Family, counts: sp.csr_array, clusters: Clusters, theta: FloatArray
) -> Sequence[ScoreAndInformation]:
    """Compute score and information of each group of cells, without a penalty."""
    sorted_counts = counts.tocsc()[:, clusters.order]
    return [
        score_and_information(family, sorted_counts[:, first:stop].tocsr(), designs, theta)
        for first, stop, designs in zip(
            clusters.bounds[:-1], clusters.bounds[1:], clusters.designs, strict=True
        )
    ]
