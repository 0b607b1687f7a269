"""Random counts of many cells, drawn by blocks of cells.

Each block has its own stream of random numbers. The blocks and their streams depend only on the
numbers of cells and genes and on the seed. Thus the counts are the same in any number of jobs, and
the same as a dense and as a sparse array.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import joblib
import numpy as np
import scipy.sparse as sp

from sc_glm._contract.docstrings import documented
from sc_glm.distributions.docstring_entries import ENTRIES
from sc_glm.distributions.random_variates import check_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from sc_glm.distributions.base import CountDistribution
    from sc_glm.distributions.random_variates import RandomSource

    Distributions: TypeAlias = Callable[[slice], CountDistribution]
    Seed: TypeAlias = int | RandomSource | None

# Cells x genes of a block, whose temporaries stay in the processor's cache. Another number would
# change the counts of every seed.
_BLOCK_ENTRIES = 2**14

# Cells x genes that a worker draws before it returns them.
_TASK_ENTRIES = 2**20

# Number of draws for weighted cells in all, which bounds time and memory.
_MAX_DRAWS = 10_000_000


@documented(ENTRIES)
def sample_dense(
    dist_of: Distributions,
    shape: tuple[int, int, int],
    *,
    random_state: Seed,
    n_jobs: int | None,
) -> NDArray[np.int64]:
    """Draw counts into a dense array.

    Parameters
    ----------
    {dist_of}
    shape : tuple of int
        Numbers of draws, cells and genes.
    {seed_source}
    {n_jobs}

    Returns
    -------
    ndarray of int64, of shape (n_draws, n_cells, n_genes)
    """
    n_draws, n_cells, n_genes = shape
    seed = draw_seed(random_state)
    counts = np.empty(shape, dtype=np.int64)

    def draw(blocks: dict[int, slice]) -> None:
        for block, cells in blocks.items():
            dist = dist_of(cells)
            for i in range(n_draws):
                counts[i, cells] = dist.rvs(random_state=random_stream(seed, i, block))

    for _ in _run_in_threads(n_jobs, draw, _tasks(n_cells, n_genes)):
        pass
    return counts


@documented(ENTRIES)
def sample_sparse(
    dist_of: Distributions,
    shape: tuple[int, int],
    *,
    random_state: Seed,
    n_jobs: int | None,
) -> sp.csr_array:
    """Draw counts into a sparse array: the first draw of :func:`sample_dense`.

    Besides the result, only a few blocks of cells are in memory at a time.

    Parameters
    ----------
    {dist_of}
    shape : tuple of int
        Numbers of cells and genes.
    {seed_source}
    {n_jobs}

    Returns
    -------
    csr_array of int64, of shape (n_cells, n_genes)
    """
    n_cells, n_genes = shape
    seed = draw_seed(random_state)

    def draw(blocks: dict[int, slice]) -> list[NDArray[Any]]:
        pieces = []
        for block, cells in blocks.items():
            counts = dist_of(cells).rvs(random_state=random_stream(seed, 0, block))
            positive = np.flatnonzero(counts)
            columns = (positive % n_genes).astype(np.int32)
            pieces.append((counts.ravel()[positive], columns, np.count_nonzero(counts, axis=1)))
        return [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)]

    # These grow in place; joining a list of pieces would need the memory twice.
    data, indices = bytearray(), bytearray()
    lengths = [np.zeros(1, dtype=np.int64)]
    for values, columns, n_positive in _run_in_threads(n_jobs, draw, _tasks(n_cells, n_genes)):
        data += values.tobytes()
        indices += columns.tobytes()
        lengths.append(n_positive)
    indptr = np.concatenate(lengths).cumsum()
    # SciPy would convert the column indices to 64 bits if the pointers had 64 bits.
    if indptr[-1] <= np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    return sp.csr_array(
        (np.frombuffer(data, dtype=np.int64), np.frombuffer(indices, dtype=np.int32), indptr),
        shape=shape,
    )


def draw_seed(random_state: Seed) -> int:
    """Draw one number from a source of random numbers, as the seed of many streams."""
    return int.from_bytes(check_rng(random_state).bytes(16), "little")


def replicate_cells(
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the cells to draw counts for, if cells have weights, and the weight of each draw.

    A cell of weight three has three independent draws, as three cells have. The draws of a cell
    share its weight equally. Thus each weighs less than one if the cell's weight is a fraction, and
    more than one if there would be too many draws.

    Parameters
    ----------
    weights : ndarray of shape (n_cells,)
        Positive weights of the cells.

    Returns
    -------
    cells : ndarray of int of shape (n_draws,)
        Cell of each draw, in ascending order.
    draw_weights : ndarray of shape (n_draws,)
        Weight of each draw. Those of a cell add up to the cell's weight.

    Examples
    --------
    >>> import numpy as np
    >>> cells, draw_weights = replicate_cells(np.array([1.0, 3.0, 1.5]))
    >>> cells.tolist(), draw_weights.tolist()
    ([0, 1, 1, 1, 2, 2], [1.0, 1.0, 1.0, 1.0, 0.75, 0.75])
    """
    times = np.ceil(weights * min(1.0, _MAX_DRAWS / weights.sum())).astype(np.intp)
    return np.repeat(np.arange(len(weights)), times), np.repeat(weights / times, times)


def random_stream(seed: int, *key: int) -> np.random.Generator:
    """Return an independent stream of random numbers for a key, such as a draw and a block."""
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.SFC64(sequence))


def _tasks(n_cells: int, n_genes: int) -> Iterator[dict[int, slice]]:
    """Yield the blocks of each task: slices of cells, by the number of the block."""
    n_rows = max(1, _BLOCK_ENTRIES // n_genes)
    n_blocks = max(1, _TASK_ENTRIES // (n_rows * n_genes))
    starts = range(0, n_cells, n_rows)
    for first in range(0, len(starts), n_blocks):
        numbers = range(first, min(first + n_blocks, len(starts)))
        yield {i: slice(starts[i], min(starts[i] + n_rows, n_cells)) for i in numbers}


def _run_in_threads(
    n_jobs: int | None,
    function: Callable[[dict[int, slice]], Any],
    tasks: Iterable[dict[int, slice]],
) -> Iterator[Any]:
    """Yield the results of tasks in order. NumPy draws without the lock of Python's threads."""
    parallel: Any = joblib.Parallel(n_jobs=n_jobs, require="sharedmem", return_as="generator")
    return parallel(joblib.delayed(function)(task) for task in tasks)
