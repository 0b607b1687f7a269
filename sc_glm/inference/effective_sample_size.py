"""Expected information of cells: of groups, and the effective number of cells that carry it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp

from sc_glm._counts.similar_rows import similar_rows
from sc_glm._likelihood.family import LARGEST_LOG_MEAN, pairs
from sc_glm.distributions.expected_information import (
    Zeros,
    expected_information,
    information_in_bases,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.observed_information import Clusters

_MAX_ENTRIES = 1_000_000  # cells x genes at a time
_MAX_ROWS = 1024  # above this number of cells, similar cells are merged
_MIN_ROWS_OF_GROUP = 16  # of merged cells, on average, where cells are those of groups
_WITHIN_ROW_SD = 0.1  # standard deviation of a predictor within merged cells, in its own units
_RANK_TOLERANCE = 1e-6  # of the largest eigenvalue, below which a matrix has not full rank


def effective_sample_size(
    family: Family, designs: Designs, theta: FloatArray, tests: FloatArray
) -> FloatArray:
    r"""Return the effective number of cells that carry the information on combinations.

    If the information comes from m cells with equal shares, the number is m. In general let
    :math:`D_i` be the expected information of cell i on the :math:`q` combinations of a test, in
    units of the information of all cells. The number is

    .. math:: \frac{q (q + 1)}{\sum_i (\operatorname{tr} D_i)^2 + \operatorname{tr} D_i^2}.

    This is Satterthwaite's number of degrees of freedom of a sum of squared scores, and Pustejovsky
    and Tipton's for several combinations, without a correction for leverage.

    Parameters
    ----------
    family : Family
    designs : Designs
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in the bases of the designs.
    tests : ndarray of shape (n_tests, n_constraints, n_params)
        Combinations of the coordinates.

    Returns
    -------
    ndarray of shape (n_genes, n_tests)
    """
    cells = _RepresentativeCells.of(designs)
    step = max(1, _MAX_ENTRIES // len(cells.offset))
    return np.concatenate(
        [
            _effective_sizes_of_genes(family, cells, theta[first : first + step], tests)
            for first in range(0, len(theta), step)
        ]
    )


def expected_information_of_cells(
    family: Family, designs: Designs, theta: FloatArray
) -> FloatArray:
    """Return the expected information of all cells, (n_genes, n_params, n_params).

    ``theta`` are coordinates in the bases of the designs.
    """
    cells = _RepresentativeCells.exactly(designs)
    return cells.whole(cells.expected_information(family, theta))


def expected_information_by_cluster(
    family: Family, clusters: Clusters, theta: FloatArray
) -> FloatArray:
    """Return the expected information of each group of cells, without a penalty.

    If there are many cells, similar cells of a group share the information of their mean:
    leverages need it only roughly.

    Parameters
    ----------
    family : Family
    clusters : Clusters
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in the bases of the designs.

    Returns
    -------
    ndarray of shape (n_genes, n_groups, n_params, n_params)
    """
    cells, bounds = _RepresentativeCells.of_clusters(clusters)
    similar, rows = cells, np.arange(len(cells.offset))
    if len(rows) > _MAX_ROWS:
        max_rows = max(_MAX_ROWS, _MIN_ROWS_OF_GROUP * len(clusters.designs))
        codes = np.repeat(np.arange(len(clusters.designs)), np.diff(bounds))
        rows = similar_rows(cells.bases_and_offset(), max_rows, _WITHIN_ROW_SD, codes)
        similar = cells.merged(rows)
    n_genes, n_params = theta.shape
    result = np.empty((n_genes, len(clusters.designs), n_params, n_params))
    step = max(1, _MAX_ENTRIES // len(rows))
    for first in range(0, n_genes, step):
        genes = slice(first, first + step)
        information = similar.expected_information(family, theta[genes])
        for group, members in enumerate(map(slice, bounds[:-1], bounds[1:])):
            own = {pair: entries[rows[members]] for pair, entries in information.items()}
            result[genes, group] = cells.of_rows(members).whole(own)
    return result


def inverse_square_root(matrices: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the inverse square roots of symmetric matrices, and which have full rank."""
    values, vectors = np.linalg.eigh(matrices)
    nonzero = values > _RANK_TOLERANCE * values[..., -1:]
    scale = np.where(nonzero, 1 / np.sqrt(np.where(nonzero, values, 1.0)), 0.0)
    root = vectors * scale[..., None, :] @ np.swapaxes(vectors, -1, -2)
    return root, np.asarray(nonzero.all(axis=-1))


class _RepresentativeCells(NamedTuple):
    """Rows that each represent equal cells, or similar ones if there are many cells.

    ``weights`` are sums of the cells' weights, and ``squares`` sums of the squared weights.
    """

    bases: list[FloatArray]
    offset: FloatArray
    weights: FloatArray
    squares: FloatArray

    @classmethod
    def exactly(cls, designs: Designs) -> _RepresentativeCells:
        """Return the rows of designs as they are."""
        bases = [part.basis() for part in designs.parts.values()]
        return cls(bases, designs.offset, designs.weights, designs.squared().weights)

    @classmethod
    def of(cls, designs: Designs) -> _RepresentativeCells:
        """Merge similar cells: the effective number of cells needs no exact rows."""
        cells = cls.exactly(designs)
        if len(cells.weights) <= _MAX_ROWS:
            return cells
        rows = similar_rows(cells.bases_and_offset(), _MAX_ROWS, _WITHIN_ROW_SD)
        return cells.merged(rows)

    @classmethod
    def of_clusters(cls, clusters: Clusters) -> tuple[_RepresentativeCells, NDArray[np.intp]]:
        """Return the cells in order of their groups, and where each group begins and ends."""
        parts = zip(*(designs.parts.values() for designs in clusters.designs), strict=True)
        bases = [np.concatenate([part.basis() for part in groups]) for groups in parts]
        offset, weights, squares = (
            np.concatenate(arrays)
            for arrays in (
                [designs.offset for designs in clusters.designs],
                [designs.weights for designs in clusters.designs],
                [designs.squared().weights for designs in clusters.designs],
            )
        )
        bounds = np.cumsum([0, *(len(designs.offset) for designs in clusters.designs)])
        return cls(bases, offset, weights, squares), bounds

    def bases_and_offset(self) -> FloatArray:
        """Return what the predictors of the cells depend on, one column after the other."""
        return np.column_stack([*self.bases, self.offset])

    def of_rows(self, rows: slice) -> _RepresentativeCells:
        """Return some of the cells."""
        bases = [basis[rows] for basis in self.bases]
        return _RepresentativeCells(
            bases, self.offset[rows], self.weights[rows], self.squares[rows]
        )

    def merged(self, rows: NDArray[np.intp]) -> _RepresentativeCells:
        """Replace cells by their weighted means; ``rows`` numbers the results."""
        total = np.bincount(rows, self.weights).astype(np.float64)
        means = sp.csr_array((self.weights, (rows, np.arange(len(rows))))) / total[:, None]
        return _RepresentativeCells(
            [np.asarray(means @ basis) for basis in self.bases],
            np.asarray(means @ self.offset),
            total,
            np.bincount(rows, self.squares).astype(np.float64),
        )

    def params_of_parts(self) -> list[slice]:
        """Return the coordinates of each part."""
        stops = np.cumsum([0, *(basis.shape[1] for basis in self.bases)])
        return [slice(*ends) for ends in pairwise(stops)]

    def expected_information(
        self, family: Family, theta: FloatArray
    ) -> dict[tuple[int, int], FloatArray]:
        """Return the expected information of one cell of each row, (n_rows, n_genes) by pairs."""
        predictors = [
            basis @ theta[:, part].T
            for basis, part in zip(self.bases, self.params_of_parts(), strict=True)
        ]
        predictors[0] = np.minimum(predictors[0] + self.offset[:, None], LARGEST_LOG_MEAN)
        return expected_information(Zeros.of(family, predictors), predictors)

    def whole(self, information: dict[tuple[int, int], FloatArray]) -> FloatArray:
        """Return the information of all cells, in the coordinates of the bases."""
        weighted = {pair: self.weights[:, None] * x for pair, x in information.items()}
        return information_in_bases(weighted, self.bases)


def _effective_sizes_of_genes(
    family: Family, cells: _RepresentativeCells, theta: FloatArray, tests: FloatArray
) -> FloatArray:
    bases, params_of_parts = cells.bases, cells.params_of_parts()
    information = cells.expected_information(family, theta)
    loadings = _standardized_loadings(cells.whole(information), tests)
    result = np.empty((len(theta), len(tests)))
    q = tests.shape[1]
    for test in range(len(tests)):
        along = [
            [
                basis @ loadings[:, test, s, part].T
                for basis, part in zip(bases, params_of_parts, strict=True)
            ]
            for s in range(q)
        ]
        spread = cells.squares @ _squared_information(information, along)
        result[:, test] = q * (q + 1) / np.maximum(spread, np.finfo(float).tiny)
    return result


def _standardized_loadings(information: FloatArray, tests: FloatArray) -> FloatArray:
    """Return the matrices that turn a gene's score into test combinations of unit variance."""
    values, vectors = np.linalg.eigh(information)
    nonzero = values > np.finfo(float).eps * values[:, -1:]
    inverse = vectors * np.where(nonzero, 1 / np.where(nonzero, values, 1.0), 0.0)[:, None]
    loadings = tests @ (inverse @ np.swapaxes(vectors, 1, 2))[:, None]
    return inverse_square_root(loadings @ np.swapaxes(tests, 1, 2))[0] @ loadings


def _squared_information(
    information: dict[tuple[int, int], FloatArray], along: list[list[FloatArray]]
) -> FloatArray:
    """Return (tr D)^2 + tr D^2 of each cell's information D on the combinations of a test.

    ``along[s][a]`` is the change of the predictor of part ``a`` along combination ``s``.
    """
    trace, trace_of_square = np.zeros_like(along[0][0]), np.zeros_like(along[0][0])
    for s, t in pairs(len(along)):
        entry = np.zeros_like(trace)
        for (a, b), information_of_parts in information.items():
            entry += information_of_parts * along[s][a] * along[t][b]
            if a != b:
                entry += information_of_parts * along[s][b] * along[t][a]
        if s == t:
            trace += entry
        trace_of_square += entry**2 * (1 if s == t else 2)
    return trace**2 + trace_of_square
