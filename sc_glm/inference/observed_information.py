"""The log-likelihood around fitted coefficients: its curvature, and the scores of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from sc_glm._likelihood.arrow_hessian import unpacked
from sc_glm._likelihood.scores import score_products
from sc_glm._solver.gene_block import Designs, Settings, one_thread, problem_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family

# One pass over the counts, in double precision wherever the model was fitted.
SETTINGS = Settings(max_iter=1, tol=1.0, device=torch.device("cpu"), dtype=torch.float64)


class Curvature(NamedTuple):
    """The log-likelihood of some genes at a point.

    ``value`` (n_genes,) has no penalty; ``gradient`` (n_genes, n_params) and ``information``, minus
    the Hessian, (n_genes, n_params, n_params) have.
    """

    value: FloatArray
    gradient: FloatArray
    information: FloatArray

    def holding(self, held: NDArray[np.bool_]) -> Curvature:
        """Return that of the others alone; of parameters ``held``, (n_params,), it is one."""
        free = np.where(held, 0.0, 1.0)
        information = self.information * free[:, None] * free + np.diag(1.0 - free)
        return self._replace(gradient=self.gradient * free, information=information)


class Clusters(NamedTuple):
    """Groups of cells: the cells in the order of their groups, where each begins, its designs."""

    order: NDArray[np.intp]
    bounds: NDArray[np.intp]
    designs: list[Designs]

    @classmethod
    def of(cls, codes: NDArray[np.intp], designs: Designs) -> Clusters:
        """Sort cells by the number of their group."""
        order = np.argsort(codes, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(codes))])
        pieces = np.split(order, bounds[1:-1])
        return cls(order, bounds, [designs.of_cells(piece) for piece in pieces])


def curvature(
    family: Family, counts: sp.csr_array, designs: Designs, theta: FloatArray
) -> Curvature:
    """Evaluate the log-likelihood.

    Parameters
    ----------
    family : Family
    counts : csr_array of shape (n_genes, n_cells)
        Positive counts by gene.
    designs : Designs
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in the designs' bases.
    """
    with one_thread(), torch.inference_mode():
        problem = problem_of(family, counts, designs, SETTINGS)
        objective = problem.own_objective()
        point = torch.from_numpy(theta)
        at = objective.evaluate(point, torch.arange(len(theta)))
        value = at.value + objective.penalty_of(point)
        return Curvature(value.numpy(), at.gradient.numpy(), -unpacked(at.hessian).numpy())


def products_of_scores(
    family: Family, counts: sp.csr_array, designs: Designs, theta: FloatArray
) -> FloatArray:
    """Sum each gene's outer products of the cells' weighted scores, (n_genes, K, K).

    Parameters are those of :func:`curvature`.
    """
    with one_thread(), torch.inference_mode():
        problem = problem_of(family, counts, designs.squared(), SETTINGS)
        objective = problem.own_objective()
        return unpacked(score_products(objective, torch.from_numpy(theta))).numpy()


def by_cluster(
    family: Family, counts: sp.csr_array, clusters: Clusters, theta: FloatArray
) -> Sequence[Curvature]:
    """Evaluate the log-likelihood of each group of cells; it has no penalty."""
    sorted_counts = counts.tocsc()[:, clusters.order]
    return [
        curvature(family, sorted_counts[:, first:stop].tocsr(), designs, theta)
        for first, stop, designs in zip(
            clusters.bounds[:-1], clusters.bounds[1:], clusters.designs, strict=True
        )
    ]
