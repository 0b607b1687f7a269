"""What is fitted: counts, and each part's design."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import expit

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "tests" / "data"


@dataclass(frozen=True)
class Case:
    """Counts and the model that all tools fit to them.

    Attributes
    ----------
    model : str
        The model in words.
    counts : ndarray or csr_array of shape (n_cells, n_genes)
    designs : dict of str to ndarray of shape (n_cells, n_columns)
        For each part that the model has: ``mean``, ``dispersion`` and perhaps ``zero_inflation``.
    offset : ndarray of shape (n_cells,) or None
        Added to log mu.
    maximum : ndarray of shape (n_genes,) or None
        Largest log-likelihood of each gene, where it is known.
    """

    model: str
    counts: np.ndarray | sp.csr_array
    designs: dict[str, np.ndarray]
    offset: np.ndarray | None = None
    maximum: np.ndarray | None = None


class Entry(NamedTuple):
    """How a case is made, and the tools that can express its model in reasonable time."""

    build: Callable[[], Case]
    tools: tuple[str, ...]


def intercept(n_cells):
    """Return a design of one column of ones."""
    return np.ones((n_cells, 1))


def with_intercept(*columns):
    """Return a design of ones and of the columns."""
    return np.column_stack([np.ones(len(columns[0])), *columns])


def simulated(name):
    """Return one of the two simulations whose maxima are kept with the tests."""
    arrays = np.load(REFERENCE / f"{name}.npz")
    best = json.loads((REFERENCE / "bench_loglik.json").read_text())[name]
    designs = {"mean": arrays["X"], "dispersion": intercept(len(arrays["X"]))}
    model = "simulated, NB, three columns, one size"
    if "Z" in arrays:
        designs["zero_inflation"] = arrays["Z"]
        model = "simulated, ZINB, three columns, one size, inflation of two"
    return Case(model, arrays["Y"], designs, maximum=np.array(best["per_gene_loglik"]))


def real_data(name):
    """Read one of the real data sets."""
    import anndata  # noqa: PLC0415 - slow, and not needed for the simulations

    path = Path(os.environ.get("SC_GLM_DATA", "")) / f"{name}.h5ad"
    if not path.is_file():
        raise FileNotFoundError(f"SC_GLM_DATA names no folder with {path.name}")
    return anndata.read_h5ad(path)


def pancreas():
    """Return 1000 genes of the pancreas cells along their pseudotime."""
    adata = real_data("pancreas_1000")
    trend = with_intercept(adata.obs["pseudotime"])
    model = "pancreas, NB, mean and dispersion ``~ pseudotime``"
    return Case(model, sp.csr_array(adata.layers["counts"]), {"mean": trend, "dispersion": trend})


def seed_zinb():
    """Return simulated counts: two covariates in each part, no intercepts."""
    rng = np.random.default_rng(0)
    n_cells, n_genes = 50_000, 20
    mean, dispersion = rng.normal(size=(2, n_cells, 2))
    mu, r = (np.exp(x @ rng.normal(size=(2, n_genes))) for x in (mean, dispersion))
    counts = rng.negative_binomial(r, r / (r + mu))
    inflation = rng.normal(size=(n_cells, 2))
    pi = expit(inflation @ rng.normal(size=(2, n_genes)))
    counts *= rng.uniform(size=counts.shape) >= pi
    designs = {"mean": mean, "dispersion": dispersion, "zero_inflation": inflation}
    return Case("simulated, ZINB, two covariates in each part", counts, designs)


def pbmc(*, offset):
    """Return the labelled blood cells, and the genes that are seen in ten of them or more.

    The mean is ``~ seurat_annotations``, the offset the logarithm of a cell's total count.
    """
    adata = real_data("pbmc3k_raw")
    adata = adata[adata.obs["seurat_annotations"].notna().to_numpy()]
    counts = sp.csr_array(adata.X)
    counts = counts[:, np.flatnonzero((counts > 0).sum(axis=0) >= 10)]
    labels = adata.obs["seurat_annotations"].astype(str).to_numpy()
    dummies = [labels == label for label in np.unique(labels)[1:]]
    designs = {"mean": with_intercept(*dummies), "dispersion": intercept(len(labels))}
    model = f"blood cells, NB, {len(dummies) + 1} groups, one size"
    if not offset:
        return Case(model, counts, designs)
    totals = adata.obs["total_counts"].to_numpy(dtype=float)
    return Case(f"{model}, offset", counts, designs, np.log(totals))


CASES = {
    "bench_nb": Entry(
        lambda: simulated("bench_nb"),
        (
            "sc_glm",
            "statsmodels",
            "pydeseq2",
            "scdesigner",
            "scdesigner_converged",
            "glmGamPoi",
            "glmmTMB",
        ),
    ),
    "bench_zinb": Entry(
        lambda: simulated("bench_zinb"), ("sc_glm", "statsmodels", "pscl", "glmmTMB")
    ),
    "pancreas_1000": Entry(pancreas, ("sc_glm", "scdesigner", "scdesigner_converged")),
    "seed_zinb": Entry(seed_zinb, ("sc_glm", "adam", "scdesigner")),
    "pbmc3k": Entry(lambda: pbmc(offset=False), ("sc_glm", "glmGamPoi")),
    "pbmc3k_offset": Entry(lambda: pbmc(offset=True), ("sc_glm", "glmGamPoi")),
}
