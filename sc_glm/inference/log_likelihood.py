"""The log-likelihood of a fit: computed again from data, and compared with the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_glm._solver.fitting import map_blocks
from sc_glm.inference.observed_information import score_and_information

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sc_glm._counts.count_matrix import CountMatrix
    from sc_glm._design.design import FloatArray
    from sc_glm._likelihood.family import Family
    from sc_glm._solver.gene_block import Designs
    from sc_glm.inference.fitted_model import FittedData

# Relative difference of two log-likelihoods of the same data, by rounding, for each dtype of a fit
_RELATIVE_TOLERANCE = {"float64": 1e-6, "float32": 1e-3}


def log_likelihoods(fitted: FittedData, counts: CountMatrix, designs: Designs) -> FloatArray:
    """Return each gene's log-likelihood, without a penalty, from the data of the fit.

    Raises
    ------
    ValueError
        If the data are not those of the fit.
    """
    theta = fitted.coordinates(designs)
    n_jobs = fitted.regressor.n_jobs
    blocks = map_blocks(
        _log_likelihoods_of_block, counts, designs, [theta], fitted.family, designs, n_jobs=n_jobs
    )
    result = np.concatenate(blocks)
    check_data_of_fit(fitted, result)
    return result


def _log_likelihoods_of_block(
    counts: Any, theta: FloatArray, family: Family, designs: Designs
) -> FloatArray:
    finite = np.asarray(np.isfinite(theta).all(axis=1))
    at_fit = score_and_information(family, counts, designs, np.where(finite[:, None], theta, 0.0))
    return np.where(finite, at_fit.log_likelihood, np.nan)


def matches_fit(
    fitted: FittedData, log_likelihood: FloatArray, genes: slice = slice(None)
) -> NDArray[np.bool_]:
    """Return for which genes a log-likelihood equals the fit's, up to rounding."""
    expected = fitted.log_likelihood[genes]
    tolerance = _RELATIVE_TOLERANCE[fitted.regressor.dtype] * (1 + np.abs(expected))
    # NaN counts as equal: a gene without finite coefficients says nothing about the data.
    return np.asarray(~(np.abs(log_likelihood - expected) > tolerance))


def check_data_of_fit(fitted: FittedData, log_likelihood: FloatArray) -> None:
    """Raise if log-likelihoods of the given data are not those of the fit."""
    expected = fitted.log_likelihood
    differs = ~matches_fit(fitted, log_likelihood)
    if differs.any():
        gene = int(np.argmax(differs))
        raise ValueError(
            "X, y and sample_weight must be those of the fit: the log-likelihood of gene "
            f"{fitted.names[gene]!r} is {log_likelihood[gene]:.10g} with these data, and was "
            f"{expected[gene]:.10g} in the fit ({int(differs.sum())} gene(s) differ)."
        )


def requirement_of_maximum(fitted: FittedData) -> str:
    """Return what is needed in place of a fit that does not maximise the likelihood, for messages.

    The text is empty if the fit does.
    """
    if fitted.is_penalised:
        return f"a fit without a penalty, not alpha={fitted.regressor.alpha!r}"
    if fitted.fixed_parts and not fitted.has_given_size:
        return f"the model as it was fitted, not a moderated {fitted.fixed_parts[0]}"
    return ""


def check_maximum(fitted: FittedData, subject: str) -> None:
    """Raise if the coefficients do not maximise the likelihood, which ``subject`` needs."""
    needed = requirement_of_maximum(fitted)
    if needed:
        raise ValueError(f"{subject} needs {needed}.")
