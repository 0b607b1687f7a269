r"""The cluster-robust sandwich CR2, and the degrees of freedom of its tests.

Let :math:`B` be the inverse of the observed information, :math:`s_g` the score of a group of cells,
:math:`I_g` its expected information, and :math:`I` that of all cells, with the penalty of a
penalised fit. The covariance is :math:`B \sum_g \tilde s_g \tilde s_g^\top B` with the adjusted
scores

.. math:: \tilde s_g = (1 - I_g I^{-1})^{-1/2} s_g.

The adjustment corrects for the leverage :math:`I_g I^{-1}` of the group: the fit makes its score
smaller than its error is. It is the bias-reduced estimator of Bell and McCaffrey (2002, Survey
Methodology 28: 169) in terms of the information. Without it the covariance of few groups is too
small.

The leverages come from the expected information, because the observed information of a group grows
with its own counts. A group of large counts would have a large leverage, and its score, which is
large by the same counts, would be enlarged further.

The degrees of freedom are those of the estimated covariance of the tested combinations, under the
model. One combination has Satterthwaite's; several have those of Pustejovsky and Tipton (2018,
Journal of Business & Economic Statistics 36: 672, "AHZ").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sc_glm.inference.effective_sample_size import inverse_square_root

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray

# A group has full leverage in a direction if the others have at most this share of its information.
_LEVERAGE_TOLERANCE = 1e-6

_RANK_TOLERANCE = 1e-14  # of the largest eigenvalue, below which an eigenvalue counts as zero

# Share of a combination's variance that the estimator must expect under the model. It is less where
# groups of full leverage are left out.
_MIN_EXPECTED_VARIANCE = 0.99


class AdjustedClusters(NamedTuple):
    """Groups of cells, in coordinates in which each gene's expected information is the identity.

    Attributes
    ----------
    scores : ndarray of shape (n_genes, n_groups, n_params)
        Adjusted scores.
    adjustment : ndarray of shape (n_genes, n_groups, n_params, n_params)
        Matrices that adjust the scores.
    information : ndarray of shape (n_genes, n_groups, n_params, n_params)
        Expected information of each group, which is its leverage.
    to_params : ndarray of shape (n_genes, n_params, n_params)
        Matrix that turns a sum of scores into a change of the estimate.
    """

    scores: FloatArray
    adjustment: FloatArray
    information: FloatArray
    to_params: FloatArray

    @classmethod
    def of(
        cls, scores: FloatArray, information: FloatArray, whole: FloatArray, inverse: FloatArray
    ) -> AdjustedClusters:
        """Adjust the groups' scores.

        Parameters
        ----------
        scores : ndarray of shape (n_genes, n_groups, n_params)
        information : ndarray of shape (n_genes, n_groups, n_params, n_params)
            Expected information of each group.
        whole : ndarray of shape (n_genes, n_params, n_params)
            Sum of these over groups, with the penalty.
        inverse : ndarray of shape (n_genes, n_params, n_params)
            Inverse of the information that turns a sum of scores into a change of the estimate.
        """
        root = root_of_inverse(whole)[1]
        to_params = inverse @ whole @ root
        root = root[:, None]
        information = _transposed(root) @ information @ root
        leverages, vectors = np.linalg.eigh(information)
        others = 1 - leverages
        # The score of a group of full leverage is zero at the fit, and no factor can restore it.
        factors = np.where(
            others > _LEVERAGE_TOLERANCE, 1 / np.sqrt(np.maximum(others, _LEVERAGE_TOLERANCE)), 0.0
        )
        adjustment = vectors * factors[..., None, :] @ _transposed(vectors)
        adjusted = (adjustment @ _transposed(root) @ scores[..., None])[..., 0]
        return cls(adjusted, adjustment, information, to_params)

    def covariance(self) -> FloatArray:
        """Return the covariance of the parameters, (n_genes, n_params, n_params)."""
        errors = np.einsum("gkl,gcl->gck", self.to_params, self.scores)
        return _transposed(errors) @ errors

    def degrees_of_freedom(self, test: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return the degrees of freedom of a test, and whether a group has full leverage in it.

        Under the model, the score of group ``g`` has the covariance ``M_g - M_g M_g`` with its
        information ``M_g``, and those of two groups have ``-M_g M_h``, since all scores sum to
        zero.

        Parameters
        ----------
        test : ndarray of shape (n_constraints, n_params)
            Matrix of the combinations of parameters.
        """
        test = test @ self.to_params
        q = test.shape[1]
        loadings = test[:, None] @ self.adjustment
        # For a group g and the combinations L: R_g = L A_g M_g and D_g = L A_g M_g A_g L'
        R = loadings @ self.information
        D = R @ _transposed(loadings)
        expected = (D - R @ _transposed(R)).sum(1)
        expected_variance, variance = (
            np.einsum("gqq->gq", x)
            for x in (expected, test @ self.information.sum(axis=1) @ _transposed(test))
        )
        estimated = expected_variance > _MIN_EXPECTED_VARIANCE * variance
        whitening, full_rank = inverse_square_root(expected)
        estimated, whitening = estimated.all(axis=1) & full_rank, whitening[:, None]
        R, D = whitening @ R, whitening @ D @ whitening
        spread = _squared_covariances(R, D)
        return q * (q + 1) / np.where(estimated, spread, 1.0), ~estimated


def root_of_inverse(information: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the eigenvalues, and matrices R of which R R' is the (pseudo-)inverse."""
    eigenvalues, vectors = np.linalg.eigh(information)
    nonzero = eigenvalues > _RANK_TOLERANCE * eigenvalues[:, -1:]
    scale = np.where(nonzero, 1 / np.sqrt(np.where(nonzero, eigenvalues, 1.0)), 0.0)
    return eigenvalues, vectors * scale[:, None]


def _squared_covariances(R: FloatArray, D: FloatArray) -> FloatArray:
    """Sum (tr C)^2 + tr(C C) of the covariances C of all pairs of groups.

    ``C_gh`` is ``D_g - R_g R_g'`` for one group, and ``-R_g R_h'`` for two. The sum over all pairs
    of groups is expressed by sums over groups.
    """
    rows = R.reshape(*R.shape[:2], -1)
    T = (_transposed(rows) @ rows).reshape(-1, *2 * R.shape[2:])
    trace, square = np.einsum("gcqq->gc", D), (R**2).sum(axis=(2, 3))
    return np.asarray(
        (trace**2 - 2 * trace * square + (D * _transposed(D)).sum(axis=(2, 3))).sum(1)
        - 2 * np.einsum("gcqr,gcqk,gcrk->g", D, R, R)
        + (T**2).sum(axis=(1, 2, 3, 4))
        + np.einsum("gsktl,gtksl->g", T, T)
    )


def _transposed(matrices: FloatArray) -> FloatArray:
    return np.swapaxes(matrices, -1, -2)
