"""Simulated genes whose truth is known: counts, the cells' covariates, and classes of genes."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.special import expit

# Log-uniform over genes
MEANS = (0.02, 20.0)
SIZES = (0.3, 10.0)
EDGES = (0, 10, 20, 50, 100, 200, np.inf)


class Draw(NamedTuple):
    """Counts (cells x genes) with the covariates of cells and the parameters of genes.

    ``mean`` is a gene's mean at an offset and covariates of zero, ``size`` its size (Var = mu +
    mu²/size), ``positive`` the number of its positive counts that is expected.
    """

    obs: pd.DataFrame
    counts: sp.csc_array
    mean: np.ndarray
    size: np.ndarray
    positive: np.ndarray

    def classes(self):
        """Yield a name and a mask of genes: all, then by their expected positive counts."""
        yield "all", np.ones(len(self.mean), dtype=bool)
        for low, high in pairwise(EDGES):
            inside = (self.positive >= low) & (self.positive < high)
            if inside.any():
                yield f"{low} to {high}" if np.isfinite(high) else f"{low} and more", inside


def log_uniform(rng, bounds, n):
    """Draw numbers whose logarithms are uniform."""
    return np.exp(rng.uniform(*np.log(bounds), n))


def cells(rng, n, *, share=0.5):
    """Return covariates of cells: ``x``, a ``group`` of a share of them, ``log_depth``."""
    return pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "group": rng.permutation(np.where(np.arange(n) < share * n, 1.0, 0.0)),
            "log_depth": rng.normal(scale=0.3, size=n),
        }
    )


def donors(rng, n_cells, treated):
    """Return covariates of the cells of donors, whose numbers of cells are given.

    ``condition`` is the donors' (of ``treated``), ``age`` a continuous covariate of theirs, and
    ``cell_type`` that of half of a donor's cells, or one less.
    """
    obs = cells(rng, sum(n_cells))
    donor = np.repeat(np.arange(len(n_cells)), n_cells)
    obs["donor"] = donor
    obs["condition"] = np.isin(donor, treated).astype(float)
    obs["age"] = rng.normal(size=len(n_cells))[donor]
    obs["cell_type"] = np.concatenate([rng.permutation(n) % 2 for n in n_cells]).astype(float)
    return obs


def draw(rng, obs, n_genes, *, log_fold=0.0, inflation=0.0, log_size=0.0, means=MEANS):
    """Draw counts of genes whose means and sizes are of all orders.

    Parameters
    ----------
    rng : Generator
    obs : DataFrame
        Covariates of cells.
    n_genes : int
    log_fold, log_size : float or array that broadcasts to (n_cells, n_genes)
        What covariates and donors add to the logarithms of mean and size.
    inflation : float or array that broadcasts to (n_cells, n_genes)
        Probability of a structural zero.
    means : tuple of float
        Bounds of the genes' means.
    """
    mean, size = log_uniform(rng, means, n_genes), log_uniform(rng, SIZES, n_genes)
    mu = mean * np.exp(obs["log_depth"].to_numpy()[:, None] + log_fold)
    r = np.broadcast_to(size * np.exp(log_size), mu.shape)
    counts = rng.negative_binomial(r, r / (r + mu))
    if np.any(inflation):
        counts[rng.random(mu.shape) < inflation] = 0
    positive = ((1 - inflation) * -np.expm1(-r * np.log1p(mu / r))).sum(axis=0)
    return Draw(obs, sp.csc_array(counts), mean, size, positive)


def inflations(rng, n_genes):
    """Draw probabilities of a structural zero, one for each gene."""
    return expit(rng.uniform(-2.0, 1.0, n_genes))


def donor_effects(rng, obs, n_genes, scale):
    """Draw what donors add to log means, for each gene anew; (n_cells, n_genes).

    They are normal, and centred such that the mean over donors is as without them.
    """
    donor = obs["donor"].to_numpy()
    return rng.normal(-(scale**2) / 2, scale, size=(donor.max() + 1, n_genes))[donor]


def pseudobulk(data):
    """Add up the cells of each donor; depth adds up, and the condition is theirs."""
    donor = data.obs["donor"].to_numpy()
    member = sp.csr_array((np.ones(len(donor)), (donor, np.arange(len(donor)))))
    obs = data.obs.groupby("donor")[["condition"]].first()
    obs["log_depth"] = np.log(member @ np.exp(data.obs["log_depth"].to_numpy()))
    return data._replace(obs=obs.reset_index(), counts=sp.csc_array(member @ data.counts))
