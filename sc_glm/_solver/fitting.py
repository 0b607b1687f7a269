"""Fit all genes: cut them into blocks, fit each in a worker, and join the results."""

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
from typing import Any, NamedTuple, TypeVar

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

# Bounds of automatic blocks. A positive count takes a few hundred bytes while its gene is fitted.
# More genes share more work, such as designs.
_MAX_BLOCK_GENES = 256
_MAX_BLOCK_COUNTS = 1_000_000
# If zeros are summed by groups of cells, a pass has little work for each gene.
_MAX_BLOCK_GENES_GROUPED = 1_024
# If cells were deduplicated, a pass costs little more for more genes. The memory of arrays of
# genes x rows, and of Hessians, bounds them.
_MAX_BLOCK_GENES_DEDUPLICATED = 2_048
_MAX_BLOCK_COUNTS_DEDUPLICATED = 20_000_000
_MAX_BLOCK_ROWS = 8_000_000  # genes x rows
_MAX_BLOCK_HESSIANS = 4_000_000  # entries of the Hessians of a block
_MIN_BLOCK_GENES = 4
_MIN_BLOCKS_PER_WORKER = 4  # so that the last worker does not run much longer than the others
_MAX_LOADED_GENES = 512  # genes that a worker reads from a file at a time

_Model = tuple[Family, Designs, Settings]
_Result = TypeVar("_Result")


class _Given(NamedTuple):
    """What is given of each gene besides its counts.

    Attributes
    ----------
    start : dict of str to ndarray of shape (n_columns, n_genes), or None
        Coefficients to start from.
    log_size : ndarray of shape (n_genes,) or None
        Known log sizes.
    """

    start: dict[str, FloatArray] | None
    log_size: FloatArray | None

    def of_genes(self, genes: slice) -> "_Given":
        """Return what is given of some genes."""
        start, log_size = self
        return _Given(
            None if start is None else {part: coef[:, genes] for part, coef in start.items()},
            None if log_size is None else log_size[genes],
        )


def fit_genes(
    family: Family,
    counts: CountMatrix,
    designs: Designs,
    settings: Settings,
    *,
    batch_size: int | str,
    n_jobs: int | None,
    start: dict[str, FloatArray] | None,
    log_size: FloatArray | None = None,
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
        Number of genes in a block.
    n_jobs : int or None
        Number of workers, as in joblib.
    start : dict of str to ndarray of shape (n_columns, n_genes), or None
        Coefficients to start from; by default, several candidate starts are tried.
    log_size : ndarray of shape (n_genes,), optional
        Log sizes that are known. The other coefficients maximise the likelihood at these.
    checkpoint_dir : path-like or None
        Folder to which finished blocks are written, and from which the same fit is resumed.
    progress : bool
        Whether to show a progress bar, if standard error is a terminal or a notebook.

    Returns
    -------
    GeneFits

    Raises
    ------
    ValueError
        If ``checkpoint_dir`` holds other files than a checkpoint of this fit.
    OSError
        If ``checkpoint_dir`` cannot be written.
    RuntimeError
        If a worker was killed.
    """
    checkpoint = None
    fits: dict[int, GeneFits] = {}  # by first gene
    if checkpoint_dir is not None:
        checkpoint = Checkpoint.open(
            checkpoint_dir, family, counts, designs, settings, start=start, log_size=log_size
        )
        fits = checkpoint.read()
    n_entries = len(designs.weights) * counts.n_genes
    fused = is_worth_fusing(family, n_entries, settings.device, settings.dtype)
    model = family, designs, replace(settings, fused=fused)
    given = _Given(start, log_size)
    tasks = _tasks(counts, model, fits, given, batch_size=batch_size, n_jobs=n_jobs)

    def store(first: int, fit: GeneFits) -> None:
        fits[first] = fit
        if checkpoint is not None:
            checkpoint.write(first, fit)

    n_done = sum(len(fit.status) for fit in fits.values())
    _run(tasks, store, n_done=n_done, n_genes=counts.n_genes, n_jobs=n_jobs, progress=progress)
    return GeneFits.join([fits[first] for first in sorted(fits)])


def _tasks(
    counts: CountMatrix,
    model: _Model,
    fits: dict[int, GeneFits],
    given: _Given,
    *,
    batch_size: int | str,
    n_jobs: int | None,
) -> Iterator[Any]:
    """Return a task for each block of genes that has no fit yet."""
    _, designs, _ = model
    workers, max_task_genes = _workers(n_jobs, counts.n_genes)
    # Workers that share no memory with this process load their own genes, if there is a file.
    shares_memory = workers == 1 or getattr(get_active_backend()[0], "supports_sharedmem", False)
    loads_in_worker = not (counts.in_memory or shares_memory)
    max_loaded_genes = min(_MAX_LOADED_GENES, max_task_genes) if loads_in_worker else counts.n_genes
    groups = counts.gene_groups(max_loaded_genes)
    tally = _tabulate_counts(counts, designs)
    blocks = gene_blocks(counts if tally is None else tally, designs, batch_size, max_task_genes)
    remaining = _remaining_blocks(fits, counts.n_genes, [*blocks, *groups])
    if tally is not None:
        return _tasks_of_tally(tally, remaining, given, model)
    tasks_of = _tasks_that_load if loads_in_worker else _tasks_with_counts
    return tasks_of(counts, groups, remaining, given, model)


def _run(
    tasks: Iterable[Any],
    store: Callable[[int, GeneFits], None],
    *,
    n_done: int,
    n_genes: int,
    n_jobs: int | None,
    progress: bool,
) -> None:
    """Run tasks in workers, store each block as it is finished, and show the progress.

    ``n_done`` is the number of genes that were fitted before.
    """
    with (
        tqdm(
            desc="Fitting",
            total=n_genes,
            initial=n_done,
            unit=" genes",
            smoothing=0,  # blocks end at irregular times: the mean speed predicts the end best
            disable=not (progress and _is_interactive()),
        ) as bar,
        _running_in_parallel(n_jobs, tasks) as finished,
    ):
        try:
            for first, fit in itertools.chain.from_iterable(finished):
                n_done += len(fit.status)
                store(first, fit)
                bar.update(len(fit.status))
        except _errors_of_lost_workers() as error:
            raise RuntimeError(
                f"A worker was killed, most likely for lack of memory, when {n_done} of {n_genes} "
                "genes were done. Fewer n_jobs, a smaller batch_size or, for counts in a file, a "
                "smaller memory_budget need less memory. With the same checkpoint_dir, a new fit "
                "resumes after the genes that are done."
            ) from error


def _workers(n_jobs: int | None, n_genes: int) -> tuple[int, int]:
    """Return the number of workers, and the largest number of genes in a task."""
    workers = joblib.effective_n_jobs(n_jobs)  # type: ignore[arg-type]
    if workers == 1:
        return 1, n_genes
    return workers, math.ceil(n_genes / (workers * _MIN_BLOCKS_PER_WORKER))


def map_blocks(
    function: Callable[..., _Result],
    counts: CountMatrix,
    designs: Designs,
    of_genes: Sequence[FloatArray],
    *arguments: Any,
    n_jobs: int | None,
    max_genes: float = math.inf,
) -> list[_Result]:
    """Apply a function to all genes, block by block.

    Parameters
    ----------
    function : callable
        Its arguments are the positive counts of a block of genes, one per row, their rows of each
        of ``of_genes``, and the ``arguments``.
    counts : CountMatrix
    designs : Designs
    of_genes : sequence of ndarray of shape (n_genes, ...)
    *arguments : object
        Further arguments, equal for all blocks.
    n_jobs : int or None
        Number of workers, as in joblib.
    max_genes : float, default=inf
        Largest number of genes in a block.

    Returns
    -------
    list
        The values of the function for the blocks, in the order of the genes.
    """
    _, max_task_genes = _workers(n_jobs, counts.n_genes)
    max_genes_by_hessians = max(1, _MAX_BLOCK_HESSIANS // max(1, designs.n_params) ** 2)
    blocks = gene_blocks(
        counts, designs, "auto", int(min(max_task_genes, max_genes, max_genes_by_hessians))
    )
    results: list[_Result] = joblib.Parallel(n_jobs=n_jobs)(
        joblib.delayed(function)(
            counts.by_gene(block), *(values[block] for values in of_genes), *arguments
        )
        for block in blocks
    )
    return results


def _tabulate_counts(counts: CountMatrix, designs: Designs) -> Tally | None:
    """Tabulate the counts of deduplicated cells, if the counts are stored by cell."""
    if designs.cells is None or not isinstance(counts.matrix, sp.csr_array):
        return None
    return Tally.of_cells(counts.matrix, designs.cells)


def _tasks_of_tally(
    tally: Tally,
    blocks: Sequence[slice],
    given: _Given,
    model: _Model,
) -> Iterator[Any]:
    """Yield a task for each block, with its tally."""
    for block in blocks:
        block_tally = tally.of_genes(np.arange(block.start, block.stop))
        yield joblib.delayed(_fit_block)(block.start, block_tally, given.of_genes(block), *model)


def _tasks_with_counts(
    counts: CountMatrix,
    groups: Sequence[slice],
    blocks: Sequence[slice],
    given: _Given,
    model: _Model,
) -> Iterator[Any]:
    """Yield a task for each block, with its counts; one group of genes is in memory at a time."""
    for group in groups:
        blocks_of_group = _blocks_in_group(group, blocks)
        loaded = counts.select_genes(group).load() if blocks_of_group else counts
        for block in blocks_of_group:
            first = group.start + block.start
            given_of_block = given.of_genes(slice(first, group.start + block.stop))
            yield joblib.delayed(_fit_block)(first, loaded.by_gene(block), given_of_block, *model)
        del loaded  # before the next group is loaded


def _tasks_that_load(
    counts: CountMatrix,
    groups: Sequence[slice],
    blocks: Sequence[slice],
    given: _Given,
    model: _Model,
) -> Iterator[Any]:
    """Yield a task for each group of genes, which loads its counts in the worker."""
    for group in groups:
        blocks_of_group = _blocks_in_group(group, blocks)
        if blocks_of_group:
            task = (
                group.start,
                counts.select_genes(group),
                given.of_genes(group),
                blocks_of_group,
            )
            yield joblib.delayed(_fit_group)(*task, *model)


def _fit_block(
    first: int, counts: sp.csr_array | Tally, given: _Given, *model: Any
) -> list[tuple[int, GeneFits]]:
    """Fit a block, and return its first gene with the result."""
    family, designs, settings = model
    fit = fit_block(family, counts, designs, settings, given.start, log_size=given.log_size)
    return [(first, fit)]


def _fit_group(
    first: int, counts: CountMatrix, given: _Given, blocks: Sequence[slice], *model: Any
) -> list[tuple[int, GeneFits]]:
    """Load a group of genes, and fit its blocks."""
    loaded = counts.load()
    fits: list[tuple[int, GeneFits]] = []
    for block in blocks:
        given_of_block = given.of_genes(block)
        fits += _fit_block(first + block.start, loaded.by_gene(block), given_of_block, *model)
    return fits


def _is_interactive() -> bool:
    """Return whether standard error is shown in a terminal or a notebook, not written to a file."""
    # The streams of a notebook kernel are not terminals.
    if "ipykernel" in sys.modules:
        return True
    is_terminal = getattr(sys.stderr, "isatty", None)  # replacements of the stream may lack it
    return is_terminal is not None and is_terminal()


def _errors_of_lost_workers() -> tuple[type[Exception], ...]:
    """Return the errors that joblib's backends raise when a worker was killed."""
    distributed = sys.modules.get("distributed")  # is loaded if its backend is in use
    of_dask = () if distributed is None else (distributed.KilledWorker,)
    return (BrokenProcessPool, CancelledError, *of_dask)


def _blocks_in_group(group: slice, blocks: Iterable[slice]) -> list[slice]:
    """Return the blocks of a group of genes, as positions in the group."""
    return [
        slice(block.start - group.start, block.stop - group.start)
        for block in blocks
        if group.start <= block.start < group.stop
    ]


@contextlib.contextmanager
def _running_in_parallel(n_jobs: int | None, tasks: Iterable[Any]) -> Iterator[Iterator[Any]]:
    """Run tasks and yield their results as they come; leaving the context stops the workers.

    Otherwise, workers would run until the traceback of an error is garbage collected.
    """
    results: Any = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered")(tasks)
    try:
        yield results
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tasks were cancelled
            results.close()


def _remaining_blocks(
    fits: dict[int, GeneFits], n_genes: int, blocks: Iterable[slice]
) -> list[slice]:
    """Cut the genes that have no fit yet wherever one of ``blocks`` begins.

    A resumed fit thus has the blocks of an uninterrupted one, and on any device its rounding.
    """
    missing = np.ones(n_genes, dtype=bool)
    for first, fit in fits.items():
        missing[first : first + len(fit.status)] = False
    genes = np.flatnonzero(missing)
    begins = np.isin(genes[1:], [block.start for block in blocks])
    cuts = np.flatnonzero((np.diff(genes) > 1) | begins) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(genes, cuts) if len(run)]


def gene_blocks(
    counts: CountMatrix | Tally, designs: Designs, batch_size: int | str, max_genes: int
) -> list[slice]:
    """Cut the genes into blocks; ``max_genes`` bounds automatic blocks."""
    if not isinstance(batch_size, str):
        return consecutive_blocks(counts.n_positive(), math.inf, longest=int(batch_size))
    max_genes_by_hessians = _MAX_BLOCK_HESSIANS // max(1, designs.hessian_entries)
    max_counts, longest = _MAX_BLOCK_COUNTS, _MAX_BLOCK_GENES
    if designs.groups is not None:
        longest = max(_MAX_BLOCK_GENES, min(_MAX_BLOCK_GENES_GROUPED, max_genes_by_hessians))
    if designs.cells is not None:
        n_rows = len(designs.weights)
        max_genes_by_rows = _MAX_BLOCK_ROWS // n_rows
        max_counts_by_cells = _MAX_BLOCK_COUNTS * len(designs.cells.rows) // n_rows
        max_counts = min(_MAX_BLOCK_COUNTS_DEDUPLICATED, max_counts_by_cells)
        longest = max(
            1, min(_MAX_BLOCK_GENES_DEDUPLICATED, max_genes_by_rows, max_genes_by_hessians)
        )
    longest = min(longest, max_genes)
    shortest = min(_MIN_BLOCK_GENES, longest)
    return consecutive_blocks(counts.n_positive(), max_counts, longest=longest, shortest=shortest)
