"""Fit all genes: cut them into blocks, give each to a worker, put the results together."""

import math
import os

import joblib
from tqdm import tqdm

from sc_glm.block import Designs, GeneFits, Settings, fit_block
from sc_glm.counts import CountMatrix
from sc_glm.design import FloatArray
from sc_glm.family import Family

_BLOCK_ENTRIES = 50_000_000  # of the matrix in one automatic block of genes
_BLOCK_GENES = 256


def fit_genes(
    family: Family,
    counts: CountMatrix,
    designs: Designs,
    settings: Settings,
    *,
    batch_size: int | str,
    n_jobs: int | None,
    start: dict[str, FloatArray] | None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    progress: bool,
) -> GeneFits:
    """Fit every gene of ``counts``.

    Parameters
    ----------
    family : Family
    counts : CountMatrix
    designs : Designs
        With a row for each cell of ``counts``.
    settings : Settings
    batch_size : int or "auto"
        Genes in a block.
    n_jobs : int or None
        Workers, as joblib counts them.
    start : dict of str to ndarray of shape (n_columns, n_genes), or None
        Coefficients to start from in place of a search.
    checkpoint_dir : path-like or None
        Folder in which finished blocks are kept.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    GeneFits
    """
    size = _block_size(batch_size, counts, n_jobs)
    blocks = [slice(g, min(g + size, counts.n_genes)) for g in range(0, counts.n_genes, size)]
    tasks = (
        joblib.delayed(fit_block)(
            family,
            counts.by_gene(block),
            designs,
            settings,
            None if start is None else {part: coef[:, block] for part, coef in start.items()},
        )
        for block in blocks
    )
    run = joblib.Parallel(n_jobs=n_jobs, return_as="generator")
    fits = []
    with tqdm(total=counts.n_genes, unit="gene", disable=not progress) as bar:
        for fit in run(tasks):
            fits.append(fit)
            bar.update(len(fit.status))
    return GeneFits.join(fits)


def _block_size(batch_size: int | str, counts: CountMatrix, n_jobs: int | None) -> int:
    if not isinstance(batch_size, str):
        return int(batch_size)
    by_memory = max(1, min(_BLOCK_GENES, _BLOCK_ENTRIES // max(1, counts.matrix.shape[0])))
    workers = joblib.effective_n_jobs(1 if n_jobs is None else n_jobs)
    return min(by_memory, math.ceil(counts.n_genes / workers))
