"""Statistics of how well a model describes each gene's counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import special

from sc_glm._contract.docstrings import documented
from sc_glm.diagnostics.evaluated_cells import EvaluatedCells
from sc_glm.diagnostics.kolmogorov_smirnov import kolmogorov_smirnov_statistic, log_p_values
from sc_glm.diagnostics.uniform_residuals import UniformResiduals
from sc_glm.diagnostics.zero_counts import ZeroSums, zero_tests_of_genes
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.gene_tiles import gene_tiles
from sc_glm.inference.p_values import p_value_columns

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from sc_glm.inference.fitted_model import Seed
    from sc_glm.inference.gene_tiles import GeneTile

    FloatArray = NDArray[np.float64]

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
    draws = UniformResiduals.of(cells, random_state)
    slices = cells.data.gene_slices(len(draws.copies))
    return pd.concat([_statistics_of_genes(cells, genes, draws) for genes in slices])


def _statistics_of_genes(
    cells: EvaluatedCells, genes: slice, draws: UniformResiduals
) -> pd.DataFrame:
    """Return the table of :func:`goodness_of_fit` for some genes."""
    total = cells.weights.sum()
    outlier = -np.expm1(np.log1p(-_OUTLIER_PROBABILITY) / total) / 2  # on one side
    sums, statistics = [], []
    for tile in gene_tiles(cells.data, genes):
        p = np.exp(tile.log_zero)
        sums.append(ZeroSums.of(tile, p, cells.weights))
        residuals = draws.of_tile(tile, p)
        is_outlier = (residuals < outlier) | (1 - residuals < outlier)
        statistics.append(
            (
                _squared_pearson_residuals(cells.data, tile) @ cells.weights,
                _unit_deviances(tile) @ cells.weights / total,
                kolmogorov_smirnov_statistic(residuals, draws.weights),
                is_outlier @ draws.weights,
            )
        )
    sum_of_squares, deviance, ks_statistic, n_outliers = map(
        np.concatenate, zip(*statistics, strict=True)
    )
    zeros = zero_tests_of_genes(cells, genes, ZeroSums.join(sums))
    ks_log_p = log_p_values(ks_statistic, draws.weights, zeros.information_ratio)
    df = total - zeros.n_estimated
    table = {
        "status": cells.data.status[genes],
        "pearson": sum_of_squares / np.where(df > 0, df, np.nan),
        "deviance": deviance,
        "ks_statistic": ks_statistic,
        **p_value_columns(ks_log_p, "ks_"),
        "n_outliers": cells.as_counts(n_outliers),
        "observed_zeros": zeros.table["observed"],
        "expected_zeros": zeros.table["expected"],
        "zeros_p_value": zeros.table["p_value"],
        "zeros_log10_p_value": zeros.table["log10_p_value"],
    }
    return pd.DataFrame(table, index=zeros.table.index)


def _squared_pearson_residuals(data: FittedData, tile: GeneTile) -> FloatArray:
    """Return the squares of the residuals of :func:`pearson_residuals`, genes x cells."""
    by_part = dict(zip(data.family.parts, tile.predictors, strict=True))
    dist = data.distribution_of(by_part)
    mean, variance = dist.mean(), dist.var()
    # A zero has a residual of zero if the model has no other count.
    squares = mean**2
    np.divide(squares, variance, out=squares, where=squares > 0)
    mean, variance = mean.reshape(-1)[tile.flat], variance.reshape(-1)[tile.flat]
    with np.errstate(divide="ignore", invalid="ignore"):
        of_counts = np.where(tile.y == mean, 0.0, (tile.y - mean) ** 2 / variance)
    return tile.with_positives(squares, of_counts)


def _unit_deviances(tile: GeneTile) -> FloatArray:
    """Return the deviances of the counts, genes x cells."""
    log_ratio = tile.log_ratio
    if len(tile.at_counts) > 2:  # a structural zero may be certain, up to rounding
        log_ratio = np.where(special.expit(tile.at_counts[2]) < 1, log_ratio, -np.inf)
    return -2 * tile.with_positives(tile.log_zero, log_ratio)
