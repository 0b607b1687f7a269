"""Counts of many cells, drawn by blocks of cells that have random numbers of their own.

Where the blocks are cut, and which stream of random numbers each draws from, follows from the
number of cells and genes and from the seed alone. So the counts are the same in any number of
jobs, and the same whether they are kept dense or sparse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import joblib
import numpy as np
import scipy.sparse as sp

from sc_glm.distributions.base import CountDistribution, check_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from sc_glm.distributions.random_variates import RandomSource

    Distributions: TypeAlias = Callable[[slice], CountDistribution]
    Seed: TypeAlias = int | RandomSource | None

# A change of this one changes the counts of every seed. The temporaries of a block stay in the
# processor's cache.
_BLOCK_ENTRIES = 2**14

_MOST_COPIES = 10_000_000  # of cells by weight

_TASK_ENTRIES = 2**20  # which a worker draws before it hands them over


def sample_dense(
    dist_of: Distributions,
    shape: tuple[int, int, int],
    *,
    random_state: Seed,
    n_jobs: int | None,
) -> NDArray[np.int64]:
    """Draw counts into an array.

    Parameters
    ----------
    dist_of : callable
        Given a slice of cells, it returns their distributions, of shape (n_cells, n_genes). It is
        called from several threads.
    shape : tuple of int
        Numbers of draws, cells and genes.
    random_state : int, RandomState, Generator or None
        Where the seed comes from: one number is drawn from it.
    n_jobs : int or None
        Threads, as joblib counts workers.

    Returns
    -------
    ndarray of int64, of shape (n_draws, n_cells, n_genes)
    """
    n_draws, n_cells, n_genes = shape
    seed = drawn_seed(random_state)
    counts = np.empty(shape, dtype=np.int64)

    def draw(blocks: dict[int, slice]) -> None:
        for block, cells in blocks.items():
            dist = dist_of(cells)
            for i in range(n_draws):
                counts[i, cells] = dist.rvs(random_state=stream(seed, i, block))

    for _ in _in_threads(n_jobs, draw, _tasks(n_cells, n_genes)):
        pass
    return counts


def sample_sparse(
    dist_of: Distributions,
    shape: tuple[int, int],
    *,
    random_state: Seed,
    n_jobs: int | None,
) -> sp.csr_array:
    """Draw the counts of :func:`sample_dense`, one of each, into a sparse array.

    Beside the result there are, at any time, a few blocks of cells.

    Parameters
    ----------
    dist_of : callable
        As in :func:`sample_dense`.
    shape : tuple of int
        Numbers of cells and genes.
    random_state : int, RandomState, Generator or None
        As in :func:`sample_dense`.
    n_jobs : int or None
        As in :func:`sample_dense`.

    Returns
    -------
    csr_array of int64, of shape (n_cells, n_genes)
    """
    n_cells, n_genes = shape
    seed = drawn_seed(random_state)

    def draw(blocks: dict[int, slice]) -> list[NDArray[Any]]:
        pieces = []
        for block, cells in blocks.items():
            counts = dist_of(cells).rvs(random_state=stream(seed, 0, block))
            where = np.flatnonzero(counts)
            columns = (where % n_genes).astype(np.int32)
            pieces.append((counts.ravel()[where], columns, np.count_nonzero(counts, axis=1)))
        return [np.concatenate(arrays) for arrays in zip(*pieces, strict=True)]

    # They grow in place, where joining a list of pieces would need the memory twice.
    data, indices = bytearray(), bytearray()
    stored = [np.zeros(1, dtype=np.int64)]
    for values, columns, n_stored in _in_threads(n_jobs, draw, _tasks(n_cells, n_genes)):
        data += values.tobytes()
        indices += columns.tobytes()
        stored.append(n_stored)
    ends = np.concatenate(stored).cumsum()
    if ends[-1] <= np.iinfo(np.int32).max:  # SciPy makes both kinds of index as wide as the wider
        ends = ends.astype(np.int32)
    return sp.csr_array(
        (np.frombuffer(data, dtype=np.int64), np.frombuffer(indices, dtype=np.int32), ends),
        shape=shape,
    )


def drawn_seed(random_state: Seed) -> int:
    """Return a seed of many streams, one number drawn from a source of random numbers."""
    return int.from_bytes(check_rng(random_state).bytes(16), "little")


def copies(weights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the cells that draws are for, where each has a weight, and how much a draw counts.

    A cell of weight three has three draws of its own, as three cells have. Of a weight that is no
    whole number, each draw counts for a part; so it does where there would be too many of them.

    Parameters
    ----------
    weights : ndarray of shape (n_cells,)
        Positive.

    Returns
    -------
    cells : ndarray of int of shape (n_draws,)
        Ascending.
    counted : ndarray of shape (n_draws,)
        They add up to the weights.

    Examples
    --------
    >>> import numpy as np
    >>> cells, counted = copies(np.array([1.0, 3.0, 1.5]))
    >>> cells.tolist(), counted.tolist()
    ([0, 1, 1, 1, 2, 2], [1.0, 1.0, 1.0, 1.0, 0.75, 0.75])
    """
    times = np.ceil(weights * min(1.0, _MOST_COPIES / weights.sum())).astype(np.intp)
    return np.repeat(np.arange(len(weights)), times), np.repeat(weights / times, times)


def stream(seed: int, *key: int) -> np.random.Generator:
    """Return random numbers of one key, such as a draw and a block, and of no other."""
    sequence = np.random.SeedSequence(seed, spawn_key=key)
    return np.random.Generator(np.random.SFC64(sequence))


def _tasks(n_cells: int, n_genes: int) -> Iterator[dict[int, slice]]:
    """Cut the cells into blocks, number these, and give some to each task."""
    n_rows = max(1, _BLOCK_ENTRIES // n_genes)
    n_blocks = max(1, _TASK_ENTRIES // (n_rows * n_genes))
    starts = range(0, n_cells, n_rows)
    for first in range(0, len(starts), n_blocks):
        numbers = range(first, min(first + n_blocks, len(starts)))
        yield {i: slice(starts[i], min(starts[i] + n_rows, n_cells)) for i in numbers}


def _in_threads(
    n_jobs: int | None,
    function: Callable[[dict[int, slice]], Any],
    tasks: Iterable[dict[int, slice]],
) -> Iterator[Any]:
    """Yield the results in order, as they come: NumPy draws beside other Python threads."""
    parallel: Any = joblib.Parallel(n_jobs=n_jobs, require="sharedmem", return_as="generator")
    return parallel(joblib.delayed(function)(task) for task in tasks)
