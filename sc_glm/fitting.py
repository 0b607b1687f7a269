"""Fit all genes: cut them into blocks, give each to a worker, put the results together."""

import contextlib
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import joblib
import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

from sc_glm.block import Designs, GeneFits, Settings, fit_block
from sc_glm.checkpoint import Checkpoint
from sc_glm.counts import CountMatrix
from sc_glm.design import FloatArray
from sc_glm.family import Family

_BLOCK_ENTRIES = 50_000_000  # of the matrix in one automatic block of genes
_BLOCK_GENES = 256
# Where few rows stand for all cells, more genes make a pass hardly longer, while what there is for
# each gene and row, and their Hessians, are no large arrays.
_BLOCK_GENES_OF_ROWS = 2_048
_BLOCK_ROWS = 8_000_000
_BLOCK_HESSIANS = 4_000_000


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
        Folder in which finished blocks are kept, and from which a fit of the same goes on.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    GeneFits

    Raises
    ------
    ValueError
        If ``checkpoint_dir`` holds something else than a checkpoint of this fit.
    OSError
        If it cannot be written.
    RuntimeError
        If a worker was killed.
    """
    size = _block_size(batch_size, counts, designs, n_jobs)
    checkpoint = None
    fits: dict[int, GeneFits] = {}  # by their first gene
    if checkpoint_dir is not None:
        checkpoint = Checkpoint.open(checkpoint_dir, family, counts, designs, settings, start=start)
        fits = checkpoint.read()
    tasks = (
        joblib.delayed(_fit_from)(
            block.start,
            family,
            counts.by_gene(block),
            designs,
            settings,
            None if start is None else {part: coef[:, block] for part, coef in start.items()},
        )
        for block in _remaining(fits, counts.n_genes, size)
    )
    done = sum(len(fit.status) for fit in fits.values())
    with (
        tqdm(total=counts.n_genes, initial=done, unit="gene", disable=not progress) as bar,
        _in_parallel(n_jobs, tasks) as finished,
    ):
        try:
            for first, fit in finished:
                fits[first] = fit
                done += len(fit.status)
                if checkpoint is not None:
                    checkpoint.write(first, fit)
                bar.update(len(fit.status))
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"A worker was killed, most likely for lack of memory, when {done} of "
                f"{counts.n_genes} genes were done. Fewer n_jobs or a smaller batch_size need less "
                "memory; with the same checkpoint_dir, a new fit goes on from the genes that are "
                "done."
            ) from error
    return GeneFits.join([fits[first] for first in sorted(fits)])


def _fit_from(first: int, *block: Any) -> tuple[int, GeneFits]:
    """Fit a block, and tell which it was."""
    return first, fit_block(*block)


@contextlib.contextmanager
def _in_parallel(n_jobs: int | None, tasks: Iterable[Any]) -> Iterator[Iterator[Any]]:
    """Run tasks and yield their results as they come; leaving stops the workers at once.

    Left to the garbage collector, they would go on for as long as somebody holds the traceback.
    """
    results: Any = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tasks were cancelled
            results.close()


def _remaining(fits: dict[int, GeneFits], n_genes: int, size: int) -> list[slice]:
    """Cut the genes that have no fit yet into blocks of at most ``size``.

    The cuts are where they would be if none had a fit: what goes on has the blocks, and on any
    device the rounding, of a fit that was never cut short.
    """
    missing = np.ones(n_genes, dtype=bool)
    for first, fit in fits.items():
        missing[first : first + len(fit.status)] = False
    genes = np.flatnonzero(missing)
    cuts = np.flatnonzero((np.diff(genes) > 1) | (np.diff(genes // size) > 0)) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(genes, cuts) if len(run)]


def _block_size(
    batch_size: int | str, counts: CountMatrix, designs: Designs, n_jobs: int | None
) -> int:
    if not isinstance(batch_size, str):
        return int(batch_size)
    workers = joblib.effective_n_jobs(1 if n_jobs is None else n_jobs)
    limits = [math.ceil(counts.n_genes / workers)]
    entries = len(counts)
    if designs.cells is None:
        limits.append(_BLOCK_GENES)
    else:
        n_params = sum(design.to_coef.shape[1] for design in designs.parts.values())
        limits += [
            _BLOCK_GENES_OF_ROWS,
            _BLOCK_ROWS // len(designs.weights),
            _BLOCK_HESSIANS // max(1, n_params) ** 2,
        ]
        if isinstance(counts.matrix, sp.csc_array):
            entries = counts.matrix.nnz // counts.n_genes
    return max(1, min(*limits, _BLOCK_ENTRIES // max(1, entries)))
