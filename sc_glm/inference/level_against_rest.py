r"""A level against the mean of the other levels' means, gene by gene.

With average design rows :math:`x_0` of the level and :math:`x_k` of the others, the contrast is
:math:`x_0^\top\beta - \log\frac1K\sum_k\exp(x_k^\top\beta)`. A level without counts adds nothing
to the sum, whereas an average of logarithms would be minus infinity. The delta method gives the
standard error: the contrast changes as :math:`x_0 - \sum_k p_k x_k` with the shares :math:`p_k`
of the levels in the sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, softmax

from sc_glm.inference.estimates import Estimates, estimate_combinations, in_all_parts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.inference.contrasts import Contrast
    from sc_glm.inference.fitted_model import FittedData


def with_means_of_rest(
    fitted: FittedData,
    part: str,
    contrasts: list[Contrast],
    estimates: Estimates,
    *,
    kind: str,
    groups: ArrayLike | None,
    sample_weight: ArrayLike | None,
) -> tuple[Estimates, FloatArray]:
    """Replace comparisons with geometric means of other levels by those with their means.

    Parameters
    ----------
    fitted : FittedData
    part : str
    contrasts : list of Contrast
        Each has one constraint.
    estimates : Estimates
        Of their combinations. Degrees of freedom are kept.
    kind, groups, sample_weight
        See :data:`~sc_glm.inference.docstring_entries.ENTRIES`.

    Returns
    -------
    estimates : Estimates
    standard_errors : ndarray of shape (n_genes, n_contrasts)
    """
    errors = estimates.standard_errors()
    levels = {
        row.tobytes(): row
        for contrast in contrasts
        if contrast.levels is not None
        for row in contrast.levels
    }
    if not levels:
        return estimates, errors
    numbers = {key: number for number, key in enumerate(levels)}
    rows = in_all_parts(fitted, part, np.array(list(levels.values())))[:, None]
    of_levels = estimate_combinations(fitted, rows, kind, groups, sample_weight)
    estimate, reason = estimates.estimate.copy(), estimates.reason.copy()
    flat = estimates.flat.copy()
    for number, contrast in enumerate(contrasts):
        if contrast.levels is None:
            continue
        chosen = [numbers[row.tobytes()] for row in contrast.levels]
        found = _against_rest(of_levels, np.array(chosen), fitted.status)
        estimate[:, number, 0], errors[:, number], reason[:, number], flat[:, number] = found
    return estimates._replace(estimate=estimate, reason=reason, flat=flat), errors


def _against_rest(
    levels: Estimates, chosen: NDArray[np.intp], status: NDArray[np.object_]
) -> tuple[FloatArray, FloatArray, NDArray[np.object_], NDArray[np.bool_]]:
    """Return the contrast of the first of some levels with the others, and its standard error.

    Also return the reasons for none, and whether it is infinite or undetermined.
    """
    log_means, silent = levels.estimate[:, chosen, 0], levels.flat[:, chosen]
    flat = silent[:, 0] | silent[:, 1:].all(axis=1)
    others = np.where(silent[:, 1:] & ~flat[:, None], -np.inf, log_means[:, 1:])
    estimate = log_means[:, 0] - logsumexp(others, axis=1) + np.log(others.shape[1])
    shares = softmax(others, axis=1)
    theta_rows = levels.combinations.theta_matrix[chosen, 0]
    gradient = theta_rows[0] - shares @ theta_rows[1:]
    variance = np.einsum("gk,gkl,gl->g", gradient, levels.covariance, gradient)
    # Of several reasons, the level's own counts most. Silent levels have none, unless
    # the cells do not determine them.
    is_level = silent & levels.combinations.estimable[chosen]
    reasons = np.where(is_level, "", levels.reason[:, chosen])
    reason = np.full(len(log_means), "", dtype=object)
    for column in reasons.T[::-1]:
        reason = np.where(column != "", column, reason)
    reason = np.where(flat & (reason == ""), status, reason)
    error = np.sqrt(np.maximum(variance, 0.0))
    return estimate, np.where(reason == "", error, np.nan), reason.astype(object), flat
