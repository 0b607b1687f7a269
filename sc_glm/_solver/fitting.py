"""Fit all genes: cut them into blocks, give each to a worker, put the results together."""

import contextlib
import itertools
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, TypeVar

import joblib
import numpy as np
import scipy.sparse as sp
from joblib.parallel import get_active_backend
from tqdm import tqdm

from sc_glm._counts.count_matrix import CountMatrix, consecutive_blocks
from sc_glm._counts.tally import Tally
from sc_glm._design.design import FloatArray
from sc_glm._likelihood.family import Family
from sc_glm._likelihood.fused import is_worth_fusing
from sc_glm._solver.checkpoint import Checkpoint
from sc_glm._solver.gene_block import Designs, GeneFits, Settings, fit_block

# An automatic block of genes: a positive count takes a few hundred bytes while it is fitted, and
# what the genes of a block share is computed once for all of them.
_BLOCK_GENES = 256
_BLOCK_COUNTS = 1_000_000
# Where zeros are summed by groups of cells, a pass has little to do for each gene.
_BLOCK_GENES_OF_GROUPS = 1_024
# Where few rows stand for all cells, more genes make a pass hardly longer, and the counts of a row
# are few different ones. What bounds them then is the memory of arrays of genes x rows, and of
# their Hessians.
_BLOCK_GENES_OF_ROWS = 2_048
_BLOCK_COUNTS_OF_ROWS = 20_000_000
_BLOCK_ROWS = 8_000_000
_BLOCK_HESSIANS = 4_000_000
_BLOCK_LEAST_GENES = 4
_BLOCKS_OF_A_WORKER = 4  # at least, so that the last block does not run alone for long
_GROUP_GENES = 512  # that a worker reads from a file, and is done with, at a time

_Start = dict[str, FloatArray] | None
_Result = TypeVar("_Result")


def fit_genes(
    family: Family,
    counts: CountMatrix,
    designs: Designs,
    settings: Settings,
    *,
    batch_size: int | str,
    n_jobs: int | None,
    start: _Start,
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
        Whether to show a progress bar, where somebody can see it: in a terminal or a notebook.

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
    checkpoint = None
    fits: dict[int, GeneFits] = {}  # by their first gene
    if checkpoint_dir is not None:
        checkpoint = Checkpoint.open(checkpoint_dir, family, counts, designs, settings, start=start)
        fits = checkpoint.read()
    n_entries = len(designs.weights) * counts.n_genes
    settings = replace(
        settings, fused=is_worth_fusing(family, n_entries, settings.device, settings.dtype)
    )
    workers, share = _workers(n_jobs, counts.n_genes)
    model = family, designs, settings
    # Workers that share no memory with this process read their own genes, if there is a file.
    shared = workers == 1 or getattr(get_active_backend()[0], "supports_sharedmem", False)
    read_there = not (counts.in_memory or shared)
    groups = counts.groups(min(_GROUP_GENES, share) if read_there else counts.n_genes)
    tally = _tally_of(counts, designs)
    blocks = gene_blocks(counts if tally is None else tally, designs, batch_size, share)
    remaining = _remaining(fits, counts.n_genes, [*blocks, *groups])
    if tally is not None:
        tasks = _tallied(tally, remaining, start, model)
    else:
        read = _read_there if read_there else _read_here
        tasks = read(counts, groups, remaining, start, model)
    done = sum(len(fit.status) for fit in fits.values())
    with (
        tqdm(
            desc="Fitting",
            total=counts.n_genes,
            initial=done,
            unit=" genes",
            smoothing=0,  # blocks end at irregular times: the mean speed tells the time left best
            disable=not (progress and _is_watched()),
        ) as bar,
        _in_parallel(n_jobs, tasks) as finished,
    ):
        try:
            for first, fit in itertools.chain.from_iterable(finished):
                fits[first] = fit
                done += len(fit.status)
                if checkpoint is not None:
                    checkpoint.write(first, fit)
                bar.update(len(fit.status))
        except _lost_worker() as error:
            raise RuntimeError(
                f"A worker was killed, most likely for lack of memory, when {done} of "
                f"{counts.n_genes} genes were done. Fewer n_jobs, a smaller batch_size or, of "
                "counts in a file, a smaller memory_budget need less memory; with the same "
                "checkpoint_dir, a new fit goes on from the genes that are done."
            ) from error
    return GeneFits.join([fits[first] for first in sorted(fits)])


def _workers(n_jobs: int | None, n_genes: int) -> tuple[int, int]:
    """Return the number of workers, and how many genes each is given at a time at most."""
    workers = joblib.effective_n_jobs(n_jobs)  # type: ignore[arg-type]
    if workers == 1:
        return 1, n_genes
    return workers, math.ceil(n_genes / (workers * _BLOCKS_OF_A_WORKER))


def map_blocks(
    function: Callable[..., _Result],
    counts: CountMatrix,
    designs: Designs,
    of_genes: Sequence[FloatArray],
    *arguments: Any,
    n_jobs: int | None,
    most_genes: float = math.inf,
) -> list[_Result]:
    """Ask something of all genes, block by block.

    Parameters
    ----------
    function : callable
        Called with the positive counts of a block of genes, one per row, their rows of each of
        ``of_genes``, and the ``arguments``.
    counts : CountMatrix
    designs : Designs
    of_genes : sequence of ndarray of shape (n_genes, ...)
    *arguments : object
        The same for all blocks.
    n_jobs : int or None
        Workers, as joblib counts them.
    most_genes : float, default=inf
        Genes in a block at most.

    Returns
    -------
    list
        What the function returned for each block, in the order of the genes.
    """
    _, share = _workers(n_jobs, counts.n_genes)
    by_matrices = max(1, _BLOCK_HESSIANS // max(1, designs.n_params) ** 2)
    blocks = gene_blocks(counts, designs, "auto", int(min(share, most_genes, by_matrices)))
    results: list[_Result] = joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(function)(
            counts.by_gene(block), *(values[block] for values in of_genes), *arguments
        )
        for block in blocks
    )
    return results


def _tally_of(counts: CountMatrix, designs: Designs) -> Tally | None:
    """Tally counts that are stored by cell, if that is faster than to convert them."""
    if designs.cells is None or not isinstance(counts.matrix, sp.csr_array):
        return None
    return Tally.of_cells(counts.matrix, designs.cells)


def _tallied(
    tally: Tally,
    blocks: Sequence[slice],
    start: _Start,
    model: tuple[Family, Designs, Settings],
) -> Iterator[Any]:
    """Yield a task for each block, with its tally."""
    for block in blocks:
        own = tally.of_genes(np.arange(block.start, block.stop))
        yield joblib.delayed(_fit_block)(block.start, own, _of_genes(start, block), *model)


def _read_here(
    counts: CountMatrix,
    groups: Sequence[slice],
    blocks: Sequence[slice],
    start: _Start,
    model: tuple[Family, Designs, Settings],
) -> Iterator[Any]:
    """Yield a task for each block, with its counts; groups of genes are loaded one by one."""
    for group in groups:
        own = _within(group, blocks)
        loaded = counts.only(group).load() if own else counts
        for block in own:
            first = group.start + block.start
            own_start = _of_genes(start, slice(first, group.start + block.stop))
            yield joblib.delayed(_fit_block)(first, loaded.by_gene(block), own_start, *model)
        del loaded  # before the next one is


def _read_there(
    counts: CountMatrix,
    groups: Sequence[slice],
    blocks: Sequence[slice],
    start: _Start,
    model: tuple[Family, Designs, Settings],
) -> Iterator[Any]:
    """Yield a task for each group of genes, which loads its counts where it runs."""
    for group in groups:
        own = _within(group, blocks)
        if own:
            task = group.start, counts.only(group), _of_genes(start, group), own
            yield joblib.delayed(_fit_group)(*task, *model)


def _fit_block(
    first: int, counts: sp.csr_array | Tally, start: _Start, *model: Any
) -> list[tuple[int, GeneFits]]:
    """Fit a block, and tell which it was."""
    family, designs, settings = model
    return [(first, fit_block(family, counts, designs, settings, start))]


def _fit_group(
    first: int, counts: CountMatrix, start: _Start, blocks: Sequence[slice], *model: Any
) -> list[tuple[int, GeneFits]]:
    """Load a group of genes, and fit its blocks."""
    loaded = counts.load()
    fits: list[tuple[int, GeneFits]] = []
    for block in blocks:
        own_start = _of_genes(start, block)
        fits += _fit_block(first + block.start, loaded.by_gene(block), own_start, *model)
    return fits


def _is_watched() -> bool:
    """Whether what moves on standard error is seen to move: not in a file that it goes to."""
    # A notebook's kernel says of its streams that they are no terminals.
    if "ipykernel" in sys.modules:
        return True
    is_terminal = getattr(sys.stderr, "isatty", None)  # what stands in for a stream may lack it
    return is_terminal is not None and is_terminal()


def _lost_worker() -> tuple[type[Exception], ...]:
    """Return the errors by which joblib's backends say that a worker is gone."""
    distributed = sys.modules.get("distributed")  # loaded wherever its backend is in use
    of_dask = () if distributed is None else (distributed.KilledWorker,)
    return (BrokenProcessPool, CancelledError, *of_dask)


def _of_genes(start: _Start, genes: slice) -> _Start:
    return None if start is None else {part: coef[:, genes] for part, coef in start.items()}


def _within(group: slice, blocks: Iterable[slice]) -> list[slice]:
    """Return the blocks of a group, as positions in it."""
    return [
        slice(block.start - group.start, block.stop - group.start)
        for block in blocks
        if group.start <= block.start < group.stop
    ]


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


def _remaining(fits: dict[int, GeneFits], n_genes: int, blocks: Iterable[slice]) -> list[slice]:
    """Cut the genes that have no fit yet wherever one of ``blocks`` begins.

    The cuts are where they would be if none had a fit: what goes on has the blocks, and on any
    device the rounding, of a fit that was never cut short.
    """
    missing = np.ones(n_genes, dtype=bool)
    for first, fit in fits.items():
        missing[first : first + len(fit.status)] = False
    genes = np.flatnonzero(missing)
    begins = np.isin(genes[1:], [block.start for block in blocks])
    cuts = np.flatnonzero((np.diff(genes) > 1) | begins) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(genes, cuts) if len(run)]


def gene_blocks(
    counts: CountMatrix | Tally, designs: Designs, batch_size: int | str, most_genes: int
) -> list[slice]:
    """Cut the genes into blocks; ``most_genes`` is for automatic ones."""
    if not isinstance(batch_size, str):
        return consecutive_blocks(counts.n_positive(), math.inf, longest=int(batch_size))
    by_hessians = _BLOCK_HESSIANS // max(1, designs.hessian_entries)
    most_counts, longest = _BLOCK_COUNTS, _BLOCK_GENES
    if designs.groups is not None:
        longest = max(_BLOCK_GENES, min(_BLOCK_GENES_OF_GROUPS, by_hessians))
    if designs.cells is not None:
        n_rows = len(designs.weights)
        by_rows = _BLOCK_ROWS // n_rows
        by_cells = _BLOCK_COUNTS * len(designs.cells.rows) // n_rows
        most_counts = min(_BLOCK_COUNTS_OF_ROWS, by_cells)
        longest = max(1, min(_BLOCK_GENES_OF_ROWS, by_rows, by_hessians))
    longest = min(longest, most_genes)
    shortest = min(_BLOCK_LEAST_GENES, longest)
    return consecutive_blocks(counts.n_positive(), most_counts, longest=longest, shortest=shortest)
