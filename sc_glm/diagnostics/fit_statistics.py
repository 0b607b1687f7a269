"""Statistics of how well a model describes each gene's counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from sc_glm._contract.docstrings import documented
from sc_glm.diagnostics.evaluated_cells import EvaluatedCells
from sc_glm.diagnostics.kolmogorov_smirnov import kolmogorov_smirnov_test
from sc_glm.diagnostics.residuals import pearson_residuals_of_block, quantile_residuals_of_block
from sc_glm.diagnostics.zero_counts import zero_tests_of_block
from sc_glm.distributions.sampling import replicate_cells
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.p_values import p_value_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sc_glm.inference.fitted_model import Seed

__all__ = ["goodness_of_fit"]

_OUTLIER_PROBABILITY = 0.01  # that a gene has any outlier if the model is true


@documented(ENTRIES)
def goodness_of_fit(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    sample_weight: ArrayLike | None = None,
    random_state: Seed = None,
) -> pd.DataFrame:
    r"""Summarise how well the model describes each gene's counts.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {sample_weight}
    {random_state}

    Returns
    -------
    DataFrame
        One row per gene, with columns

        status
            How the fit ended, as in ``status_``.
        pearson
            Sum of squared Pearson residuals divided by the degrees of freedom; NaN if there are no
            degrees of freedom. It is near 1 if the model is true, with heavy tails at low counts.
            The degrees of freedom are the number of cells. For the cells of the fit, the number of
            coefficients that the counts determine is subtracted.
        deviance
            Mean unit deviance, as in :func:`~sc_glm.metrics.mean_deviance`.
        ks_statistic, ks_p_value, ks_log10_p_value
            Kolmogorov-Smirnov test of the quantile residuals against the normal distribution. It is
            conservative. Residuals of the cells of the fit are closer to normal than others. For
            other cells, the error of the coefficients enters by an upper bound.
        n_outliers
            Number of cells with an outlying quantile residual. The threshold is so large that a
            gene has any outlier with probability 0.01 if the model is true.
        observed_zeros, expected_zeros
            Number of zeros in the counts and in the model, weighted.
        zeros_p_value, zeros_log10_p_value
            Two-sided p-value of their difference by :func:`zero_test`, and its logarithm to the
            base 10.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}

    See Also
    --------
    zero_test : More about zeros, and why a p-value is missing.

    Notes
    -----
    As in :func:`zero_test`, the cells count as those of the fit if they have its log-likelihood.
    All other cells count as new. A cell of weight three has three quantile residuals.

    The largest of :math:`n` normal residuals is beyond :math:`\pm z` with probability
    :math:`1 - (1 - 2 \Phi(-z))^n`. This gives the threshold of outliers, which is 4.9 for 10 000
    cells.

    P-values are not adjusted for the number of genes.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import goodness_of_fit
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(5, 0.5, size=(500, 2))
    >>> y[:3, 1] = 60
    >>> table = goodness_of_fit(NegBinRegressor().fit(X, y), X, y, random_state=0)
    >>> table[["status", "pearson", "n_outliers", "zeros_p_value"]].round(2)
           status  pearson  n_outliers  zeros_p_value
    gene
    y0  converged     1.03           0           0.64
    y1  converged     1.85           3           0.05
    """
    cells = EvaluatedCells.of(FittedData.of(model, X, y), sample_weight)
    total = cells.weights.sum()
    copied_cells, copy_weights = replicate_cells(cells.weights)
    quantile = quantile_residuals_of_block(cells.data, random_state, copied_cells)
    threshold = stats.norm.isf(-np.expm1(np.log1p(-_OUTLIER_PROBABILITY) / total) / 2)
    tables = []
    for block in cells.data.blocks(len(copied_cells)):
        zeros, residuals = zero_tests_of_block(cells, block), quantile(block)
        ks_statistic, ks_log_p = kolmogorov_smirnov_test(
            residuals, copy_weights, zeros.information_ratio
        )
        df = total - zeros.n_estimated
        sum_of_squares = cells.weights @ np.square(pearson_residuals_of_block(block))
        table = {
            "status": cells.data.status[block.genes],
            "pearson": sum_of_squares / np.where(df > 0, df, np.nan),
            "deviance": cells.weights @ block.dist.unit_deviance(block.counts) / total,
            "ks_statistic": ks_statistic,
            **p_value_columns(ks_log_p, "ks_"),
            "n_outliers": cells.as_counts(copy_weights @ (np.abs(residuals) > threshold)),
            "observed_zeros": zeros.table["observed"],
            "expected_zeros": zeros.table["expected"],
            "zeros_p_value": zeros.table["p_value"],
            "zeros_log10_p_value": zeros.table["log10_p_value"],
        }
        tables.append(pd.DataFrame(table, index=zeros.table.index))
    return pd.concat(tables)
