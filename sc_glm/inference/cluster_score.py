r"""Score test by clusters: the groups' scores at the maximum of a null model.

Let :math:`s_g` be the scores of the groups at the null model's maximum, :math:`I_g` their
information there, :math:`I` its sum and :math:`B` its inverse. The one-step estimates of the
combinations :math:`L` are :math:`d = L B \sum_g s_g`. After this step the scores are
:math:`s_g - I_g B \sum_h s_h`, which sum to zero. They show how much groups differ, and the
sandwich CR2 of :mod:`~sc_glm.inference.cluster_robust` makes a covariance :math:`V` of them, with
its degrees of freedom. The statistic is :math:`d^\top V^{-1} d`.

A group of donors without counts has no variance between donors, and its few counts elsewhere may be
equal by chance. Donors can only add to the variance of independent cells, which is
:math:`V_0 = L B L^\top` under the null model. Therefore the eigenvalues of :math:`V` relative to
:math:`V_0` are at least one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sc_glm._solver.fitting import map_blocks
from sc_glm.distributions.expected_information import has_expected_information
from sc_glm.inference.cluster_robust import AdjustedClusters, root_of_inverse
from sc_glm.inference.covariance_estimators import MAX_CLUSTER_ENTRIES
from sc_glm.inference.effective_sample_size import (
    expected_information_by_cluster,
    inverse_square_root,
)
from sc_glm.inference.observed_information import score_and_information_by_cluster
from sc_glm.inference.p_values import log_f_tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm.inference.constrained_fits import FittedCells
    from sc_glm.inference.observed_information import Clusters

_DF_TOLERANCE = 1e-6  # rounding error of degrees of freedom


class ClusterScoreTests(NamedTuple):
    """Score tests of each gene by clusters.

    Attributes
    ----------
    step : ndarray of shape (n_genes, n_constraints)
        One-step estimates of the combinations, less their values in the null model.
    statistic : ndarray of shape (n_genes,)
        Squared length of the step in units of its covariance; NaN if there is a reason.
    df_denominator : ndarray of shape (n_genes,)
        Denominator degrees of freedom of the F distribution of `scaled`.
    scaled : ndarray of shape (n_genes,)
        Statistic in units of the F distribution, as Pustejovsky and Tipton scale it. It is the
        statistic itself for one constraint.
    reason : ndarray of str of shape (n_genes,)
        Why there is no statistic; empty if there is one. ``"one group decides"``: one group has all
        information on a combination. ``"too few groups"``: less than one degree of freedom is left.
        ``"no information"``: the scores are not finite, or no group has information on a
        combination.
    """

    step: FloatArray
    statistic: FloatArray
    df_denominator: FloatArray
    scaled: FloatArray
    reason: NDArray[np.object_]

    def log_p_values(self) -> FloatArray:
        """Return the logarithms of the two-sided p-values, NaN if there is a reason."""
        return log_f_tail(self.scaled, self.step.shape[1], self.df_denominator)


def cluster_score_tests(
    scores: FloatArray, information: FloatArray, test: FloatArray
) -> ClusterScoreTests:
    """Test combinations of parameters by the groups' scores at the maximum of a null model.

    Parameters
    ----------
    scores : ndarray of shape (n_genes, n_groups, n_params)
        Scores of the groups. Their sum is zero in directions that the null model leaves free.
    information : ndarray of shape (n_genes, n_groups, n_params, n_params)
        Expected information of the groups at the same point. The observed information of a group
        without counts is far too small.
    test : ndarray of shape (n_constraints, n_params)
        Combinations of the parameters, of which the null model has given values.

    Returns
    -------
    ClusterScoreTests

    Examples
    --------
    Two parameters, of which the second is zero in the null model: three donors have the score 1 in
    it, and three the score -1.2, -1 and -0.8.

    >>> import numpy as np
    >>> signs = np.repeat([1.0, -1.0], 3)
    >>> residuals = np.array([1.0, 1.0, 1.0, -1.2, -1.0, -0.8])
    >>> scores = (residuals[:, None] * np.c_[np.ones(6), signs])[None]
    >>> information = np.array([[[1, sign], [sign, 1]] for sign in signs])[None]
    >>> found = cluster_score_tests(scores, information, np.array([[0.0, 1.0]]))
    >>> found.step.round(3), found.df_denominator.round(3), found.reason
    (array([[1.]]), array([4.]), array([''], dtype=object))
    >>> np.exp(found.log_p_values()).round(3)
    array([0.07])
    """
    finite = np.isfinite(scores).all(axis=(1, 2)) & np.isfinite(information).all(axis=(1, 2, 3))
    known = np.asarray(finite)
    scores = np.where(known[:, None, None], scores, 0.0)
    information = np.where(known[:, None, None, None], information, 0.0)
    whole = information.sum(axis=1)
    root = root_of_inverse(whole)[1]
    inverse = root @ np.swapaxes(root, 1, 2)
    one_step = np.einsum("gkl,gcl->gk", inverse, scores)
    residual = scores - np.einsum("gckl,gl->gck", information, one_step)
    clusters = AdjustedClusters.of(residual, information, whole, inverse)
    df, full_leverage = clusters.degrees_of_freedom(test)
    step = one_step @ test.T
    whitening, informative = inverse_square_root(test @ inverse @ test.T)
    statistic = _statistics(step, whitening, test @ clusters.covariance() @ test.T)
    q = len(test)
    reason = np.full(len(scores), "", dtype=object)
    reason[df < q - _DF_TOLERANCE] = "too few groups"
    reason[full_leverage] = "one group decides"
    reason[~(known & informative)] = "no information"
    statistic[reason != ""] = np.nan
    df_denominator = np.where(reason == "", df - q + 1, np.nan)
    return ClusterScoreTests(
        step, statistic, df_denominator, df_denominator / df * statistic / q, reason
    )


def _statistics(step: FloatArray, whitening: FloatArray, covariance: FloatArray) -> FloatArray:
    """Return ``d' V^-1 d`` with a covariance not smaller than that of independent cells.

    ``whitening`` is the inverse square root of the latter.
    """
    values, vectors = np.linalg.eigh(whitening @ covariance @ whitening)
    along = np.einsum("gqk,gqr,gr->gk", vectors, whitening, step)
    return np.asarray((along**2 / np.maximum(values, 1.0)).sum(axis=1))


def score_tests_by_cluster(
    cells: FittedCells, clusters: Clusters, null: FloatArray, test: FloatArray
) -> ClusterScoreTests:
    """Test combinations of coefficients by groups of cells, at maxima of a null model.

    Parameters
    ----------
    cells : FittedCells
        Cells of the larger model.
    clusters : Clusters
    null : ndarray of shape (n_genes, n_params)
        Maxima of the null model, in the bases of the designs.
    test : ndarray of shape (n_constraints, n_params)
        Combinations of the coordinates.
    """
    fitted, counts, designs = cells
    blocks = map_blocks(
        _tests_of_block,
        counts,
        designs,
        [null],
        fitted.family,
        clusters,
        (test, cells.known_params()),
        n_jobs=fitted.regressor.n_jobs,
        max_genes=max(1, MAX_CLUSTER_ENTRIES // (len(clusters.designs) * null.shape[1] ** 2)),
    )
    return ClusterScoreTests(*(np.concatenate(arrays) for arrays in zip(*blocks, strict=True)))


def _tests_of_block(
    counts: Any,
    null: FloatArray,
    family: Family,
    clusters: Clusters,
    options: tuple[FloatArray, NDArray[np.intp]],
) -> ClusterScoreTests:
    test, known = options
    finite = np.asarray(np.isfinite(null).all(axis=1))
    theta = np.where(finite[:, None], null, 0.0)
    by_cluster = score_and_information_by_cluster(family, counts, clusters, theta)
    scores = np.stack([cluster.score for cluster in by_cluster], 1)
    if has_expected_information(family):
        information = expected_information_by_cluster(family, clusters, theta)
    else:
        information = np.stack([cluster.information for cluster in by_cluster], 1)
    scores[..., known] = 0.0
    information[..., known], information[..., known, :] = 0.0, 0.0
    scores[~finite] = np.nan
    return cluster_score_tests(scores, information, test)
