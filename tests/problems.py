"""Blocks of genes for tests: simulated counts, and problems of counts and plain designs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from sc_glm._counts.tally import Grouping, Tally
from sc_glm._design.design import PartDesign
from sc_glm._likelihood.objective import PartBasis
from sc_glm._likelihood.tiles import CountBlock
from sc_glm._solver.problem import Problem

N_CELLS = 500
X = np.random.default_rng(21).uniform(-1, 1, size=N_CELLS)
GROUP = np.eye(3)[np.arange(N_CELLS) % 3]
ONE = np.ones((N_CELLS, 1))
LINE = np.c_[ONE, X]
CURVE = np.c_[LINE, X**2]


def simulate(n_genes, rng, *, lowest=-2.5, highest=3.0):
    """Genes of all means, sizes and inflations, with some Poisson and some not inflated."""
    mean = rng.uniform(lowest, highest, n_genes) + np.outer(X, rng.normal(size=n_genes))
    size = rng.uniform(-1, 2, n_genes) + np.outer(X, rng.normal(scale=0.7, size=n_genes))
    size[:, ::5] = 12
    inflation = rng.uniform(-2, 1, n_genes) + np.outer(X, rng.normal(size=n_genes))
    inflation[:, 1::3] = -30
    mu, r = np.exp(mean), np.exp(size)
    structural = rng.uniform(size=mu.shape) < 1 / (1 + np.exp(-inflation))
    return np.where(structural, 0, rng.negative_binomial(r, r / (r + mu)))


def frame_of(**parts):
    """A table for a regressor, of each part's design."""
    columns = {
        f"{part}__{'Intercept' if (column == 1).all() else column_number}": column
        for part, design in parts.items()
        for column_number, column in enumerate(design.T)
    }
    return pd.DataFrame(columns)


def block_of(y, *, tile=None):
    """Counts of shape (n_genes, n_cells), in tiles of so many cells or a single one."""
    rows = sp.csr_array(y)
    return CountBlock(
        torch.from_numpy(rows.indptr.astype(np.int64)),
        torch.from_numpy(rows.indices.astype(np.int64)),
        torch.from_numpy(rows.data),
        y.shape[1],
        cells_per_tile=tile or y.shape[1],
    )


def build_problem(family, y, *designs, offset=None, weights=None, dtype=torch.float64):
    """Counts of shape (n_cells, n_genes), and one design matrix for each part."""
    n = len(y)
    weights = np.ones(n) if weights is None else np.asarray(weights, float)

    def tensor(x):
        return torch.as_tensor(np.asarray(x, float), dtype=dtype)

    parts = [PartDesign.of(np.asarray(d), weights) for d in designs]
    return Problem(
        family,
        sp.csr_array(y.T.astype(float)),
        [PartBasis(tensor(p.U), tensor(p.penalty)) for p in parts],
        tensor(np.zeros(n) if offset is None else offset),
        tensor(weights),
    )


def alike(problem, rows):
    """Return the problem with one cell for all that are alike: those of equal numbers ``rows``."""
    _, rows = np.unique(rows, return_inverse=True)
    cells = Grouping(rows, problem.weights.double().numpy())
    tally, first = Tally.of(problem.counts, cells), cells.first()
    return replace(
        problem,
        counts=tally.counts,
        bases=[PartBasis(basis.U[first], basis.penalty) for basis in problem.bases],
        offset=problem.offset[first],
        weights=torch.from_numpy(cells.row_weights()).to(problem.weights),
        tally=tally,
    )
