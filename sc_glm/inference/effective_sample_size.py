"""How many cells tell of a combination of coefficients."""

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

_ENTRIES = 1_000_000  # cells x genes at a time
_MOST_ROWS = 1024
_NARROW = 0.1  # standard deviation in a group of similar cells, in units of a predictor
_SMALL = 1e-6  # of the largest eigenvalue, under which a matrix is not of full rank


def effective_sample_size(
    family: Family, designs: Designs, theta: FloatArray, tests: FloatArray
) -> FloatArray:
    r"""Return how many cells share the information on combinations, if each had as much.

    With a cell's expected information :math:`D_i` on the combinations, in units of all cells' one,
    it is :math:`q (q + 1) / \sum_i [(\operatorname{tr} D_i)^2 + \operatorname{tr} D_i^2]` for
    :math:`q` of them together. These are Satterthwaite's degrees of freedom of a sum of squared
    scores, and Pustejovsky and Tipton's for several, but for what the fit takes off the scores.

    Parameters
    ----------
    family : Family
    designs : Designs
    theta : ndarray of shape (n_genes, n_params)
        Coordinates in the designs' bases.
    tests : ndarray of shape (n_tests, n_together, n_params)
        Combinations of the coordinates.

    Returns
    -------
    ndarray of shape (n_genes, n_tests)
    """
    cells = _Cells.of(designs)
    step = max(1, _ENTRIES // len(cells.offset))
    return np.concatenate(
        [
            _of_genes(family, cells, theta[first : first + step], tests)
            for first in range(0, len(theta), step)
        ]
    )


def inverse_root(matrices: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the roots of the inverses of symmetric matrices, and which are of full rank."""
    values, vectors = np.linalg.eigh(matrices)
    firm = values > _SMALL * values[..., -1:]
    scale = np.where(firm, 1 / np.sqrt(np.where(firm, values, 1.0)), 0.0)
    root = vectors * scale[..., None, :] @ np.swapaxes(vectors, -1, -2)
    return root, np.asarray(firm.all(axis=-1))


class _Cells(NamedTuple):
    """Rows that stand for equal cells, or for similar ones if cells are many.

    ``weights`` are sums of the cells' weights, and ``squares`` those of their squares.
    """

    bases: list[FloatArray]
    offset: FloatArray
    weights: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, designs: Designs) -> _Cells:
        """Merge similar cells, as it takes no exact number of them to know how many they are."""
        bases, weights = [part.basis() for part in designs.parts.values()], designs.weights
        squares = designs.squared().weights
        if len(weights) <= _MOST_ROWS:
            return cls(bases, designs.offset, weights, squares)
        everything = np.column_stack([*bases, designs.offset])
        rows = similar_rows(everything, _MOST_ROWS, _NARROW)
        whole = np.bincount(rows, weights).astype(np.float64)
        means = sp.csr_array((weights, (rows, np.arange(len(rows))))) / whole[:, None]
        return cls(
            [np.asarray(means @ basis) for basis in bases],
            np.asarray(means @ designs.offset),
            whole,
            np.bincount(rows, squares).astype(np.float64),
        )


def _of_genes(family: Family, cells: _Cells, theta: FloatArray, tests: FloatArray) -> FloatArray:
    bases = cells.bases
    stops = np.cumsum([0, *(basis.shape[1] for basis in bases)])
    own = [slice(*ends) for ends in pairwise(stops)]
    predictors = [basis @ theta[:, part].T for basis, part in zip(bases, own, strict=True)]
    predictors[0] = np.minimum(predictors[0] + cells.offset[:, None], LARGEST_LOG_MEAN)
    information = expected_information(Zeros.of(family, predictors), predictors)
    weighted = {pair: cells.weights[:, None] * x for pair, x in information.items()}
    values, vectors = np.linalg.eigh(information_in_bases(weighted, bases))
    firm = values > np.finfo(float).eps * values[:, -1:]
    inverse = vectors * np.where(firm, 1 / np.where(firm, values, 1.0), 0.0)[:, None]
    ways = tests @ (inverse @ np.swapaxes(vectors, 1, 2))[:, None]
    ways = inverse_root(ways @ np.swapaxes(tests, 1, 2))[0] @ ways
    result = np.empty((len(theta), len(tests)))
    q = tests.shape[1]
    for test in range(len(tests)):
        along = [
            [basis @ ways[:, test, s, part].T for basis, part in zip(bases, own, strict=True)]
            for s in range(q)
        ]
        spread = cells.squares @ _squares(information, along)
        result[:, test] = q * (q + 1) / np.maximum(spread, np.finfo(float).tiny)
    return result


def _squares(
    information: dict[tuple[int, int], FloatArray], along: list[list[FloatArray]]
) -> FloatArray:
    """Return the trace's square and the square's trace of each cell's information."""
    trace, total = np.zeros_like(along[0][0]), np.zeros_like(along[0][0])
    for s, t in pairs(len(along)):
        entry = np.zeros_like(trace)
        for (a, b), known in information.items():
            entry += known * along[s][a] * along[t][b]
            if a != b:
                entry += known * along[s][b] * along[t][a]
        if s == t:
            trace += entry
        total += entry**2 * (1 if s == t else 2)
    return trace**2 + total
