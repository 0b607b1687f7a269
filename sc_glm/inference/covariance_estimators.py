r"""Covariances of the estimated coefficients: from the information, or robust sandwiches.

With the observed information :math:`I` and its inverse :math:`B`, the covariance is

- ``observed``: :math:`B`;
- ``robust``: :math:`B \sum_i w_i^2 s_i s_i^\top B` with the scores :math:`s_i` of the cells, the
  sandwich HC0 (White 1982);
- ``cluster``: the sandwich CR2 of groups of cells, in
  :mod:`~sc_glm.inference.cluster_robust`.

Tests and intervals of the sandwiches refer to an F or t distribution, since few cells or groups
estimate a variance with a large error. The degrees of freedom are an effective number of cells for
``robust``, and Satterthwaite's approximation for ``cluster``.

A combination of coefficients has no variance if the likelihood is flat along it, for example if the
estimate is infinite. The variances of the others are computed in the limit in which the infinite
estimates are reached.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import block_diag

from sc_glm._contract.validation import group_codes
from sc_glm._solver.fitting import map_blocks
from sc_glm._solver.status import COEFFICIENT_SHARE, FLAT_INFORMATION, flat_directions
from sc_glm.distributions.expected_information import has_expected_information
from sc_glm.inference.cluster_robust import AdjustedClusters, root_of_inverse
from sc_glm.inference.effective_sample_size import (
    effective_sample_size,
    expected_information_by_cluster,
)
from sc_glm.inference.log_likelihood import check_data_of_fit
from sc_glm.inference.observed_information import (
    Clusters,
    ScoreAndInformation,
    outer_products_of_scores,
    score_and_information,
    score_and_information_by_cluster,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.fitted_model import FittedData
    from sc_glm.inference.linear_combinations import LinearCombinations

_KINDS = ("observed", "robust", "cluster")

# Step along a direction of recession, in units of a predictor. A mean that the fit left next to
# zero is zero in double precision after it.
_RECESSION_STEP = 20.0
_MIN_EFFECTIVE_CELLS = 2.0  # for the variance of a combination; below, one cell dominates
MAX_CLUSTER_ENTRIES = 20_000_000  # in the information matrices of all groups and genes of a block


@dataclass(frozen=True)
class CovarianceEstimator:
    """How to estimate a covariance, from which designs and which groups of cells.

    Attributes
    ----------
    kind : {"observed", "robust", "cluster"}
    designs : Designs
    clusters : Clusters or None
        Groups of cells, for ``"cluster"`` only.
    fixed : ndarray of bool of shape (n_params,)
        Coordinates that are taken as known.
    """

    kind: str
    designs: Designs
    clusters: Clusters | None
    fixed: NDArray[np.bool_]


@dataclass(frozen=True)
class CovarianceEstimate:
    """Covariances of genes' coordinates, and what is known of combinations of them.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_genes,)
        Without a penalty.
    covariance : ndarray of shape (n_genes, n_params, n_params)
        Of the coordinates.
    at_maximum : ndarray of bool of shape (n_genes,)
        Whether the information has no negative eigenvalue.
    flat : ndarray of bool of shape (n_genes, n_tests)
        Whether the likelihood is flat along a combination of a test.
    full_leverage : ndarray of bool of shape (n_genes, n_tests)
        Whether one group, or one cell, has a leverage of nearly one: the estimate follows it, and
        its score says nothing about the variance.
    df : ndarray of shape (n_genes, n_tests)
        Degrees of freedom of the estimated covariance of a test's combinations.
    """

    log_likelihood: FloatArray
    covariance: FloatArray
    at_maximum: NDArray[np.bool_]
    flat: NDArray[np.bool_]
    full_leverage: NDArray[np.bool_]
    df: FloatArray

    @classmethod
    def join(cls, blocks: Sequence[CovarianceEstimate]) -> CovarianceEstimate:
        """Concatenate blocks of genes."""
        return cls(
            *(
                np.concatenate([getattr(block, field.name) for block in blocks])
                for field in fields(cls)
            )
        )


def covariance_estimator(
    kind: str, fitted: FittedData, groups: ArrayLike | None, sample_weight: ArrayLike | None
) -> tuple[CovarianceEstimator, CountMatrix]:
    """Check the kind and the groups; also return the counts of the cells of positive weight.

    Raises
    ------
    ValueError
        If the kind is unknown, or if groups are missing, not needed or not valid.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {list(_KINDS)}, not {kind!r}.")
    if (groups is None) == (kind == "cluster"):
        what = (
            "needs groups, a label for each cell, such as groups=obs['donor']"
            if groups is None
            else "takes no groups: these go with kind='cluster'"
        )
        raise ValueError(f"kind={kind!r} {what}.")
    weights = fitted.weights(sample_weight)
    counts, designs = fitted.counts_and_designs(weights)
    fixed = _fixed_coordinates(fitted, designs)
    if groups is None:
        return CovarianceEstimator(kind, designs, None, fixed), counts
    clusters = clusters_of_cells(fitted, groups, weights, designs)
    return CovarianceEstimator(kind, designs, clusters, fixed), counts


def clusters_of_cells(
    fitted: FittedData, groups: Any, weights: FloatArray, designs: Designs
) -> Clusters:
    """Return the groups of the cells of positive weight, which the designs have.

    Raises
    ------
    ValueError
        If groups are not valid, or all the same.
    """
    codes = group_codes(groups, fitted.X, len(weights))[weights > 0]
    _, codes = np.unique(codes, return_inverse=True)
    if codes.max() < 1:
        raise ValueError("groups are all the same: at least two are needed.")
    return Clusters.of(codes, designs)


def _fixed_coordinates(fitted: FittedData, designs: Designs) -> NDArray[np.bool_]:
    ranks = [part.to_coef.shape[1] for part in designs.parts.values()]
    return np.repeat([part in fitted.fixed_parts for part in designs.parts], ranks)


def estimate_covariance(
    fitted: FittedData,
    counts: CountMatrix,
    estimator: CovarianceEstimator,
    combinations: LinearCombinations,
) -> CovarianceEstimate:
    """Estimate the covariance of all genes' coordinates.

    Raises
    ------
    ValueError
        If the counts, covariates or weights are not those of the fit.
    """
    theta = fitted.coordinates(estimator.designs)
    max_genes = math.inf
    if estimator.clusters is not None:
        entries_of_gene = len(estimator.clusters.designs) * theta.shape[1] ** 2
        max_genes = max(1, MAX_CLUSTER_ENTRIES // entries_of_gene)
    blocks = map_blocks(
        _estimate_block,
        counts,
        estimator.designs,
        [theta],
        fitted.family,
        estimator,
        combinations.theta_matrix,
        n_jobs=fitted.regressor.n_jobs,
        max_genes=max_genes,
    )
    result = CovarianceEstimate.join(blocks)
    check_data_of_fit(fitted, result.log_likelihood)
    return result


def _estimate_block(
    counts: Any,
    theta: FloatArray,
    family: Family,
    estimator: CovarianceEstimator,
    tests: FloatArray,
) -> CovarianceEstimate:
    """Estimate the covariances of a block of genes; ``tests`` is the matrix of combinations."""
    designs = estimator.designs
    finite = np.asarray(np.isfinite(theta).all(axis=1))
    theta = np.where(finite[:, None], theta, 0.0)

    def evaluate(genes: Any, point: FloatArray) -> ScoreAndInformation:
        at_point = score_and_information(family, counts[genes], designs, point)
        return at_point.with_fixed(estimator.fixed)

    at_fit = evaluate(slice(None), theta)
    flat = flat_directions(at_fit.information, theta)
    theta, information = _limit_of_recession(at_fit, flat, theta, evaluate)
    eigenvalues, root = root_of_inverse(information)
    covariance = inverse = root @ np.swapaxes(root, -1, -2)
    shape = len(theta), len(tests)
    df, full_leverage = np.full(shape, np.inf), np.zeros(shape, dtype=bool)
    if estimator.kind == "robust":
        products = outer_products_of_scores(family, counts, designs, theta)
        covariance = inverse @ products @ inverse
        df = effective_sample_size(family, designs, theta, tests)
        full_leverage = ~(df >= _MIN_EFFECTIVE_CELLS)
    if estimator.clusters is not None:
        clusters = _adjusted_clusters(
            family, counts, estimator, estimator.clusters, (theta, inverse)
        )
        covariance = clusters.covariance()
        for number, test in enumerate(tests):
            df[:, number], full_leverage[:, number] = clusters.degrees_of_freedom(test)
    return CovarianceEstimate(
        np.where(finite, at_fit.log_likelihood, np.nan),
        covariance,
        finite & np.asarray((eigenvalues > -FLAT_INFORMATION).all(axis=1)),
        _along_flat_direction(tests, flat),
        full_leverage,
        df,
    )


def _adjusted_clusters(
    family: Family,
    counts: Any,
    estimator: CovarianceEstimator,
    groups: Clusters,
    at: tuple[FloatArray, FloatArray],
) -> AdjustedClusters:
    """Adjust the scores of the groups by their leverages, at coordinates and inverse information.

    A family without a known expected information has the leverages of its observed information.
    """
    theta, inverse = at
    free = ~estimator.fixed
    by_cluster = score_and_information_by_cluster(family, counts, groups, theta)
    scores = np.stack([cluster.score for cluster in by_cluster], 1) * free
    if has_expected_information(family):
        information = expected_information_by_cluster(family, groups, theta)
    else:
        information = np.stack([cluster.information for cluster in by_cluster], 1)
    information = information * free[:, None] * free
    penalty = _penalty(estimator.designs) * free[:, None] * free
    whole = information.sum(axis=1) + penalty + np.diag(estimator.fixed)
    return AdjustedClusters.of(scores, information, whole, inverse)


def _penalty(designs: Designs) -> FloatArray:
    """Return the penalty of all coordinates; indicators of many levels have none."""
    n_levels = [part.rank - len(part.penalty) for part in designs.parts.values()]
    parts = zip(designs.parts.values(), n_levels, strict=True)
    return np.asarray(block_diag(*(np.pad(part.penalty, (n, 0)) for part, n in parts)))


def _limit_of_recession(
    at_fit: ScoreAndInformation,
    flat: FloatArray,
    theta: FloatArray,
    evaluate: Callable[..., ScoreAndInformation],
) -> tuple[FloatArray, FloatArray]:
    """Return points further along directions of recession, and the information there.

    A fit stops where the likelihood rises by less than its tolerance. There the infinite estimates
    still have a small influence on the information about the other coefficients. A point with a
    lower likelihood shows that the direction is not one of recession; the fit is kept then.
    """
    theta, information = theta.copy(), at_fit.information.copy()
    slopes = np.einsum("gkf,gk->gf", flat, at_fit.score)
    further = theta + _RECESSION_STEP * np.einsum("gkf,gf->gk", flat, np.sign(slopes))
    genes = np.flatnonzero(flat.any(axis=(1, 2)))
    if len(genes):
        at_further = evaluate(genes, further[genes])
        accepted = at_further.log_likelihood >= at_fit.log_likelihood[genes]
        theta[genes[accepted]] = further[genes[accepted]]
        information[genes[accepted]] = at_further.information[accepted]
    return theta, information


def _along_flat_direction(tests: FloatArray, flat: FloatArray) -> NDArray[np.bool_]:
    """Return which tests have a combination with a substantial part in flat directions."""
    n_tests, n_constraints, n_params = tests.shape
    result = np.zeros((len(flat), n_tests), dtype=bool)
    length = np.linalg.norm(tests, axis=2)
    for gene in np.flatnonzero(flat.any(axis=(1, 2))):
        directions = flat[gene][:, flat[gene].any(axis=0)]
        products = (tests.reshape(-1, n_params) @ directions).reshape(n_tests, n_constraints, -1)
        in_flat = np.linalg.norm(products, axis=2)
        result[gene] = (in_flat > COEFFICIENT_SHARE * length).any(axis=1)
    return result
