"""The log-likelihood by which all tools are compared: textbook formulas in double precision."""

import numpy as np
import scipy.sparse as sp
from scipy.special import betaln

ENTRIES = 2_000_000  # at a time
# Sizes beyond are Poisson to all digits of the counts at hand, and may have been infinite.
LOG_SIZES = (-700.0, 32.0)


def negative_binomial(y, eta, rho):
    """Log-mass at log mean ``eta`` and log size ``rho``.

    By the beta function, since differences of log-gammas lose their digits where sizes are large.
    """
    rho = np.clip(rho, *LOG_SIZES)
    r = np.exp(rho)
    value = -r * np.logaddexp(0.0, eta - rho)
    seen = y > 0
    y, eta, rho, r = (np.broadcast_to(x, value.shape)[seen] for x in (y, eta, rho, r))
    value[seen] += y * (eta - np.logaddexp(eta, rho)) - betaln(r, y) - np.log(y)
    return value


@np.errstate(invalid="ignore", over="ignore")  # the caller counts genes that failed
def per_gene(case, coefficients):
    """Log-likelihood of each gene, NaN or infinite where an estimate is.

    Parameters
    ----------
    case : Case
    coefficients : dict of str to ndarray of shape (n_columns, n_genes)
        By part. If there is a ``marginal_mean`` in place of the ``mean``, it is that of the
        zero-inflated counts, (1 - pi) mu.
    """
    n_cells, n_genes = case.counts.shape
    columns = sp.csc_array(case.counts)
    offset = 0.0 if case.offset is None else case.offset[:, None]
    result = np.empty(n_genes)
    step = max(1, ENTRIES // n_cells)
    for start in range(0, n_genes, step):
        genes = slice(start, start + step)
        y = columns[:, genes].toarray().astype(float)
        predictors = {
            part: case.designs[part.removeprefix("marginal_")] @ coef[:, genes]
            for part, coef in coefficients.items()
        }
        zeta = predictors.get("zero_inflation")
        if "marginal_mean" in predictors:
            predictors["mean"] = predictors["marginal_mean"] + np.logaddexp(0.0, zeta)
        value = negative_binomial(y, predictors["mean"] + offset, predictors["dispersion"])
        if zeta is not None:
            value -= np.logaddexp(0.0, zeta)
            value = np.where(y == 0, np.logaddexp(-np.logaddexp(0.0, -zeta), value), value)
        result[genes] = value.sum(axis=0)
    return result
