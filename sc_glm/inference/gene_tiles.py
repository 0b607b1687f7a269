"""Counts and their log-mass by tiles of genes x cells, whose temporaries stay in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_glm.distributions.log_mass import (
    SaturatedTable,
    log_mass_of_zeros,
    log_mass_ratio_of_positives,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.fitted_model import FittedData

_TILE_ENTRIES = 2**18  # genes x cells
_SMALLEST_LOG_MEAN = float(np.log(np.finfo(float).tiny))  # of a fitted distribution


class GeneTile(NamedTuple):
    """Some genes of a model in all cells. Arrays of one dimension have the positive counts.

    Attributes
    ----------
    genes : slice
        Positions of the genes.
    predictors : list of ndarray of shape (n_genes, n_cells) or (n_genes, 1)
        Linear predictors of the parts; one column if a part is the same in all cells.
    log_zero : ndarray of shape (n_genes, n_cells)
        Log-probability of a zero.
    flat : ndarray of int of shape (n_counts,)
        Positions of the positive counts in a flat tile.
    y : ndarray of shape (n_counts,)
        Positive counts.
    at_counts : list of ndarray of shape (n_counts,)
        Linear predictors at the positive counts.
    log_ratio, saturated : ndarray of shape (n_counts,)
        Their log-probability less the saturated one, and the saturated one.
    """

    genes: slice
    predictors: list[FloatArray]
    log_zero: FloatArray
    flat: NDArray[np.intp]
    y: FloatArray
    at_counts: list[FloatArray]
    log_ratio: FloatArray
    saturated: FloatArray

    def with_positives(self, at_zero: FloatArray, at_counts: FloatArray | float) -> FloatArray:
        """Return a copy of values in all entries, with others at the positive counts."""
        values = at_zero.copy()
        values.reshape(-1)[self.flat] = at_counts
        return values


def gene_tiles(data: FittedData, genes: slice) -> Iterator[GeneTile]:
    """Yield tiles of some consecutive genes."""
    counts, n_cells = data.counts.by_gene(genes), len(data.counts)
    step = max(1, _TILE_ENTRIES // max(1, n_cells))
    for first in range(genes.start, genes.stop, step):
        of_tile = slice(first, min(first + step, genes.stop))
        bounds = counts.indptr[first - genes.start : of_tile.stop - genes.start + 1]
        entries = slice(bounds[0], bounds[-1])
        rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        cells = counts.indices[entries]
        flat = rows * n_cells + cells
        y = counts.data[entries].astype(np.float64)
        predictors = data.predictors_by_gene(of_tile)
        at = [p.reshape(-1)[rows if p.shape[1] == 1 else flat] for p in predictors]
        np.maximum(at[0], _SMALLEST_LOG_MEAN, out=at[0])
        log_sizes = predictors[1][:, 0] if predictors[1].shape[1] == 1 else None
        table = SaturatedTable(data.family, log_sizes, n_cells)
        yield GeneTile(
            of_tile,
            predictors,
            log_mass_of_zeros(data.family, predictors),
            flat,
            y,
            at,
            log_mass_ratio_of_positives(data.family, y, at),
            table.at(y, at[1], rows),
        )
