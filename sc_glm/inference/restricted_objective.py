"""The log-likelihood as a function of nuisance parameters, with one combination fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sc_glm._likelihood import rowwise
from sc_glm._likelihood.objective import Evaluation, Objective

if TYPE_CHECKING:
    from torch import Tensor


class RestrictedObjective:
    """An objective with a linear combination of each gene's parameters fixed at a value.

    The solver maximises it over the nuisance parameters, which are one fewer than the parameters.

    Parameters
    ----------
    objective : Objective
    direction : Tensor of shape (n_params,)
        The fixed combination is ``theta @ direction``.
    values : Tensor of shape (n_genes,)
        Its value for each gene of the block.

    Attributes
    ----------
    nuisance_basis : Tensor of shape (n_params, n_params - 1)
        Orthonormal basis of the parameters that leave the combination unchanged.
    """

    def __init__(self, objective: Objective, direction: Tensor, values: Tensor) -> None:
        self.objective = objective
        self.unit_step = direction / direction.square().sum()  # raises the combination by one
        complete_basis = torch.linalg.qr(direction[:, None], mode="complete")[0]
        self.nuisance_basis = complete_basis[:, 1:]
        self.values = values

    def to_nuisance(self, theta: Tensor) -> Tensor:
        """Return the nuisance parameters of points, one row each."""
        return rowwise.product(theta, self.nuisance_basis)

    def to_theta(self, nuisance: Tensor, genes: Tensor) -> Tensor:
        """Return the points with these nuisance parameters and the fixed values of ``genes``."""
        fixed = self.values[genes, None] * self.unit_step
        return rowwise.product(nuisance, self.nuisance_basis.mT) + fixed

    def evaluate(self, nuisance: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` at nuisance parameters, one row each."""
        at = self.objective.evaluate(self.to_theta(nuisance, genes), genes)
        return Evaluation(
            at.value,
            self.to_nuisance(at.gradient),
            self.nuisance_basis.mT @ at.hessian @ self.nuisance_basis,
            at.magnitude,
        )


def hold_sizes(objective: Objective, theta: Tensor) -> None:
    """Take the sizes at the genes' points as known, which are the same in all cells."""
    size = theta[:, objective.slices[1]]
    objective.log_size = rowwise.product(size, objective.bases[1].U[:1].mT)[:, 0]
