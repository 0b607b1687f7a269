r"""Bartlett's correction of likelihood ratios at known dispersions.

With few samples, the likelihood ratio of a true hypothesis has a mean above its number of
constraints. Its mean is that number plus :math:`\epsilon_p - \epsilon_{p - q}`, where
:math:`\epsilon` is the expansion of Lawley (1956, Biometrika 43: 295) to the order 1 / n of the
larger and the smaller model. With the predictor :math:`\eta` of a negative binomial with log link,
the cumulants of the derivatives of a log-mass are

.. math::

   \kappa_2 = -w, \quad \kappa_3 = -w (1 - 2 \pi), \quad \kappa_4 = -w (1 - 6 \pi + 6 \pi^2),

where :math:`w = \mu / (1 + \varphi \mu)` and :math:`\pi = \varphi w`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sc_glm._design.design import FloatArray
    from sc_glm.inference.known_dispersion import Fit


def lawley_epsilon(design: FloatArray, fit: Fit, overdispersion: FloatArray) -> FloatArray:
    """Return half the expected log-likelihood ratio of a model's truth, less half its coefficients.

    Parameters
    ----------
    design : ndarray of shape (n_samples, n_coef)
    fit : Fit
        Means and information at the truth, or at its estimate.
    overdispersion : ndarray of shape (n_genes,)

    Returns
    -------
    ndarray of shape (n_genes,)
        The excess of the expected statistic over its degrees of freedom.
    """
    w = fit.weight
    share = overdispersion[:, None] * w
    # Rows whose products are the covariances of predictors
    root = np.linalg.cholesky(np.linalg.inv(fit.information))
    rows = design @ root
    leverage = (rows**2).sum(axis=2)
    n_genes, n_samples, _ = rows.shape
    pairs = (rows[..., :, None] * rows[..., None, :]).reshape(n_genes, n_samples, -1)

    def cubes(factor: FloatArray) -> FloatArray:
        return np.swapaxes(pairs * factor[..., None], -1, -2) @ rows

    def traces(factor: FloatArray) -> FloatArray:
        return (rows * (factor * leverage)[..., None]).sum(axis=1)

    third, derivative = w * (1 - 2 * share), w * (1 - share)
    by_one = -(leverage**2 * w * (1 + 2 * share - 2 * share**2)).sum(axis=1) / 4
    a, b = cubes(third), cubes(derivative)
    c, d = traces(third), traces(derivative)
    by_pairs = (a * a / 6 - a * b + b * b).sum(axis=(1, 2)) + (c * c / 4 - c * d + d * d).sum(1)
    return np.asarray(by_one + by_pairs)
