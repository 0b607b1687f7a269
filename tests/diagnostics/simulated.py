"""Simulated counts, which tests of several modules share."""

import numpy as np
from scipy import stats


def drawn(n_cells, seed, n_genes=1500):
    """Cells of genes that are the same for any seed."""
    truth = np.random.default_rng(2)
    level, slope = truth.uniform(0, 1.5, n_genes), truth.normal(0, 0.4, n_genes)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_cells, 1))
    return x, rng.negative_binomial(1.0, 1 / (1 + np.exp(level + x * slope)))


def distance_from_uniform(p_values):
    return stats.kstest(p_values, "uniform").statistic
