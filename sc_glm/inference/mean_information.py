"""Expected information of a negative binomial on the coefficients of its mean.

It is all that combinations of these coefficients need, as there is none on mean and size together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sc_glm._likelihood.family import LARGEST_LOG_MEAN, LARGEST_LOG_SIZE
from sc_glm._likelihood.grouped import Groups
from sc_glm._likelihood.hessian_assembly import is_constant
from sc_glm.distributions.expected_information import information_in_bases

if TYPE_CHECKING:
    from sc_glm._design.design import FloatArray
    from sc_glm._solver.gene_block import Designs


def information_on_mean(designs: Designs, theta: FloatArray) -> FloatArray:
    """Return the expected information of all cells on the coordinates of the mean.

    A cell's information on the log mean is ``r mu / (r + mu)``. For groups of cells with equal
    designs, sums over a group are tabulated.

    Parameters
    ----------
    designs : Designs
        Of mean and size.
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in their bases.

    Returns
    -------
    ndarray of shape (n_genes, n_mean_params, n_mean_params)
    """
    mean, size = designs.parts.values()
    basis, of_mean, of_size = mean.basis(), theta[:, : mean.rank], theta[:, mean.rank :]
    if designs.groups is None or not is_constant(torch.from_numpy(size.U)):
        eta = np.minimum(basis @ of_mean.T + designs.offset[:, None], LARGEST_LOG_MEAN)
        rho = size.basis() @ of_size.T
        entries = np.exp(eta - np.logaddexp(0.0, eta - rho))
        return information_in_bases({(0, 0): designs.weights[:, None] * entries}, [basis])
    arrays = designs.groups, designs.offset, designs.weights
    groups = Groups(*(torch.from_numpy(np.require(x, requirements="W")) for x in arrays))
    rows = basis[groups.first.numpy()]
    rho = (of_size @ size.U[0]).clip(-LARGEST_LOG_SIZE, LARGEST_LOG_SIZE)[:, None]
    x = of_mean @ rows.T - rho + float(groups.lowest)
    sums = groups.sums(torch.from_numpy(x))
    of_groups = np.exp(rho) * (sums.square + sums.variance).numpy()
    return np.asarray((rows.T * of_groups[:, None]) @ rows)
