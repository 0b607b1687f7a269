r"""Score tests: whether the score of the larger model is zero at the maximum of a null model.

With the score :math:`s` at the null model's maximum, the expected information :math:`I` there and
its inverse :math:`B`, the one-step estimates of the combinations :math:`L` are :math:`d = L B s`.
The statistic is :math:`d^\top V^{-1} d` with :math:`V = L B L^\top`, or with the sandwich
:math:`V = L B (\sum_i s_i s_i^\top) B L^\top` of the cells' scores, which holds also if the counts
have another distribution (Boos 1992, The American Statistician 46: 327).

The null model may be smaller than the hypothesis: one without a whole factor serves all contrasts
of its levels. The information is the expected one. The observed information of a group without
counts is far too small, since its zeros hardly depend on the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_glm._likelihood.family import NegBinFamily
from sc_glm._solver.fitting import map_blocks
from sc_glm.inference.effective_sample_size import (
    effective_sample_size,
    expected_information_of_cells,
)
from sc_glm.inference.mean_information import information_on_mean
from sc_glm.inference.observed_information import outer_products_of_scores, score_and_information

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.constrained_fits import FittedCells

_MAX_DENSE_ENTRIES = 2_000_000  # rows x genes at a time
_RANK_TOLERANCE = 1e-10  # of the largest eigenvalue, below which an eigenvalue counts as zero


class ScoreTests(NamedTuple):
    """Score tests of each gene.

    Attributes
    ----------
    statistic : ndarray of shape (n_genes, n_tests)
        Signed root of the statistic of one constraint; the statistic itself of several. NaN if the
        null model's cells have no information on a test.
    df_denominator : ndarray of shape (n_genes, n_tests)
        Infinite, or the effective number of cells for the sandwich.
    """

    statistic: FloatArray
    df_denominator: FloatArray


def score_tests(
    cells: FittedCells, null: FloatArray, tests: FloatArray, *, robust: bool
) -> ScoreTests:
    """Test combinations of coefficients at maxima of a null model.

    Parameters
    ----------
    cells : FittedCells
        Cells of the larger model.
    null : ndarray of shape (n_genes, n_params)
        Maxima of the null model, in the bases of the designs.
    tests : ndarray of shape (n_tests, n_constraints, n_params)
        Combinations of the coordinates.
    robust : bool
        Whether the variance is the sandwich.
    """
    fitted, counts, designs = cells
    blocks = map_blocks(
        _tests_of_block,
        counts,
        designs,
        [null],
        fitted.family,
        designs,
        (tests, robust, cells.known_params()),
        n_jobs=fitted.regressor.n_jobs,
        max_genes=max(1, _MAX_DENSE_ENTRIES // len(designs.offset)),
    )
    return ScoreTests(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def _tests_of_block(
    counts: Any,
    null: FloatArray,
    family: Family,
    designs: Designs,
    options: tuple[FloatArray, bool, NDArray[np.intp]],
) -> ScoreTests:
    tests, robust, known = options
    finite = np.asarray(np.isfinite(null).all(axis=1))
    theta = np.where(finite[:, None], null, 0.0)
    score = score_and_information(family, counts, designs, theta).score
    n_mean = next(iter(designs.parts.values())).rank
    if family == NegBinFamily() and not tests[..., n_mean:].any():
        information = np.zeros((len(theta), *(theta.shape[1],) * 2))
        information[:, :n_mean, :n_mean] = information_on_mean(designs, theta)
    else:
        information = expected_information_of_cells(family, designs, theta)
    information[:, known], information[:, :, known] = 0.0, 0.0
    inverse = _pseudo_inverse(information)
    loadings = tests @ inverse[:, None]
    steps = np.einsum("gtqk,gk->gtq", loadings, score)
    df = np.full(steps.shape[:2], np.inf)
    if robust:
        products = outer_products_of_scores(family, counts, designs, theta)
        variances = loadings @ products[:, None] @ np.swapaxes(loadings, -1, -2)
        df = effective_sample_size(family, designs, theta, tests)
    else:
        variances = loadings @ np.swapaxes(tests, -1, -2)
    statistic = _statistics(steps, variances)
    return ScoreTests(np.where(finite[:, None], statistic, np.nan), df)


def _pseudo_inverse(information: FloatArray) -> FloatArray:
    values, vectors = np.linalg.eigh(information)
    nonzero = values > _RANK_TOLERANCE * values[:, -1:]
    inverse = np.where(nonzero, 1 / np.where(nonzero, values, 1.0), 0.0)
    return np.asarray(vectors * inverse[:, None] @ np.swapaxes(vectors, 1, 2))


def _statistics(steps: FloatArray, variances: FloatArray) -> FloatArray:
    """Return signed roots ``d / sqrt(V)`` of one constraint, or ``d' V^-1 d`` of several."""
    if steps.shape[2] == 1:
        variance = variances[..., 0, 0]
        known = variance > 0
        root = np.sqrt(np.where(known, variance, 1.0))
        return np.where(known, steps[..., 0] / root, np.nan)
    inverse = np.linalg.pinv(variances, hermitian=True)
    return np.einsum("gtq,gtqr,gtr->gt", steps, inverse, steps)
