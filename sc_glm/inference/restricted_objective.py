"""The log-likelihood as a function of nuisance parameters, with one contrast fixed."""

from __future__ import annotations

import math
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
        self.direction = direction
        self.unit_step = direction / direction.square().sum()  # raises the combination by one
        complete_basis = torch.linalg.qr(direction[:, None], mode="complete")[0]
        self.nuisance_basis = complete_basis[:, 1:]
        self.values = values

    def contrast(self, theta: Tensor) -> Tensor:
        """Return the combination at points."""
        return theta @ self.direction

    def gradient(self, theta: Tensor) -> Tensor:
        """Return the derivatives of the combination at points, (n_genes, n_params)."""
        return self.direction.expand(len(theta), -1)

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


class MeanRestrictedObjective:
    r"""An objective with the log ratio of one level's mean to the mean of other levels fixed.

    With average design rows :math:`x_k` of the levels, the contrast is
    :math:`x_0^\top\theta - \log\frac{1}{K}\sum_k \exp(x_k^\top\theta)`. It is linear in a direction
    that changes the first level alone, so that it is solved for this direction.

    Parameters
    ----------
    objective : Objective
    rows : Tensor of shape (1 + n_others, n_params)
        Average design rows of the level and of the others, in the coordinates of all parts.
    values : Tensor of shape (n_genes,)
        The contrast of each gene of the block.

    Attributes
    ----------
    nuisance_basis : Tensor of shape (n_params, n_params - 1)
        Orthonormal basis of the parameters besides that direction.
    """

    def __init__(self, objective: Objective, rows: Tensor, values: Tensor) -> None:
        self.objective = objective
        self.row, self.others = rows[0], rows[1:]
        projection = torch.linalg.lstsq(self.others.mT, self.row[:, None]).solution
        direction = self.row - (self.others.mT @ projection)[:, 0]
        self.unit_step = direction / (direction @ self.row)
        complete_basis = torch.linalg.qr(direction[:, None], mode="complete")[0]
        self.nuisance_basis = complete_basis[:, 1:]
        self.values = values

    def contrast(self, theta: Tensor) -> Tensor:
        """Return the contrast at points."""
        return theta @ self.row - self._log_mean(theta)

    def gradient(self, theta: Tensor) -> Tensor:
        """Return the derivatives of the contrast at points, (n_genes, n_params)."""
        return self.row - self._shares(theta) @ self.others

    def _log_mean(self, theta: Tensor) -> Tensor:
        return torch.logsumexp(theta @ self.others.mT, 1) - math.log(len(self.others))

    def _shares(self, theta: Tensor) -> Tensor:
        """Return the shares of the other levels in the sum of their means."""
        return torch.softmax(theta @ self.others.mT, 1)

    def to_nuisance(self, theta: Tensor) -> Tensor:
        """Return the nuisance parameters of points, one row each."""
        return rowwise.product(theta, self.nuisance_basis)

    def to_theta(self, nuisance: Tensor, genes: Tensor) -> Tensor:
        """Return the points with these nuisance parameters and the fixed values of ``genes``."""
        base = rowwise.product(nuisance, self.nuisance_basis.mT)
        distance = self.values[genes] - self.contrast(base)
        return base + distance[:, None] * self.unit_step

    def evaluate(self, nuisance: Tensor, genes: Tensor) -> Evaluation:
        """Evaluate ``genes`` at nuisance parameters, one row each."""
        theta = self.to_theta(nuisance, genes)
        at = self.objective.evaluate(theta, genes)
        shares = self._shares(theta)
        # Derivatives of the distance along the unit step, by the nuisance parameters
        slope = -self.to_nuisance(self.gradient(theta))
        jacobian = self.nuisance_basis + self.unit_step[:, None] * slope[:, None]
        others = self.others @ self.nuisance_basis
        mean = shares @ others
        curvature = others.mT @ (shares[:, :, None] * others) - mean[:, :, None] * mean[:, None]
        along = at.gradient @ self.unit_step
        hessian = jacobian.mT @ at.hessian @ jacobian + along[:, None, None] * curvature
        return Evaluation(at.value, rowwise.matvec(jacobian.mT, at.gradient), hessian, at.magnitude)


def hold_sizes(objective: Objective, theta: Tensor) -> None:
    """Take the sizes at the genes' points as known, which are the same in all cells."""
    size = theta[:, objective.slices[1]]
    objective.log_size = rowwise.product(size, objective.bases[1].U[:1].mT)[:, 0]
