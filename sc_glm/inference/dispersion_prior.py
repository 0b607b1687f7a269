"""The distribution of dispersions over genes, and what the counts of each gene make of it.

The log overdispersion of a gene is drawn from a distribution on a grid, which depends on the mean
of the gene. It has no given shape: it is the mixture that maximises the likelihood of all genes
(Kiefer and Wolfowitz 1956, Annals of Mathematical Statistics 27: 887). Genes of similar means have
similar distributions, with linear interpolation between a few means. The maximum is approached by
the EM algorithm from a uniform distribution. A limited number of steps keeps it smooth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from sc_glm._design.design import FloatArray

LOG_OVERDISPERSION = np.linspace(np.log(1e-4), np.log(20.0), 50)  # the grid

_GENES_PER_KNOT = 300
_MAX_KNOTS = 6
_OUTER_QUANTILE = 0.02  # of the means; the distribution is the same beyond
_N_STEPS = 200


class Posterior(NamedTuple):
    """What is known about the log overdispersions of genes.

    ``log_weight`` (n_genes, n_grid) are the logarithms of the posterior probabilities on the grid.
    ``trend`` (n_genes,) is the mean of the log overdispersion over genes with the same mean count.
    """

    log_weight: FloatArray
    trend: FloatArray

    @property
    def weight(self) -> FloatArray:
        """Posterior probabilities."""
        return np.exp(self.log_weight)

    def mean(self, values: FloatArray) -> FloatArray:
        """Return posterior means of values on the grid, (n_genes,)."""
        return np.asarray((self.weight * values).sum(axis=1))


def posterior_dispersions(log_likelihood: FloatArray, mean: FloatArray) -> Posterior:
    """Estimate the distribution over genes, and return that of each gene given its counts.

    Parameters
    ----------
    log_likelihood : ndarray of shape (n_genes, n_grid)
        Adjusted profile log-likelihoods of log overdispersions.
    mean : ndarray of shape (n_genes,)
        Mean counts, positive.
    """
    relative = log_likelihood - log_likelihood.max(axis=1, keepdims=True)
    likelihood = np.exp(relative)
    basis = _basis(np.log(mean))
    prior = np.full((basis.shape[1], likelihood.shape[1]), 1 / likelihood.shape[1])
    for _ in range(_N_STEPS):
        marginal = ((basis @ prior) * likelihood).sum(axis=1, keepdims=True)
        prior = prior * (basis.T @ (likelihood / marginal))
        prior /= prior.sum(axis=1, keepdims=True)
    of_gene = basis @ prior
    log_joint = np.log(np.maximum(of_gene, np.finfo(np.float64).tiny)) + relative
    log_weight = log_joint - logsumexp(log_joint, axis=1, keepdims=True)
    return Posterior(log_weight, of_gene @ LOG_OVERDISPERSION)


def _basis(log_mean: FloatArray) -> FloatArray:
    """Return weights of knots at quantiles of log means, which interpolate linearly."""
    n_knots = min(_MAX_KNOTS, 1 + len(log_mean) // _GENES_PER_KNOT)
    levels = np.linspace(_OUTER_QUANTILE, 1 - _OUTER_QUANTILE, n_knots)
    knots = np.unique(np.quantile(log_mean, levels))
    if len(knots) == 1:
        return np.ones((len(log_mean), 1))
    x = np.clip(log_mean, knots[0], knots[-1])
    return np.stack([np.interp(x, knots, row) for row in np.eye(len(knots))], axis=1)
