"""The number of zeros of each gene, compared with what the model expects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._solver.status import FLAT_INFORMATION, Status
from sc_glm.diagnostics.evaluated_cells import EvaluatedCells, weighted_information
from sc_glm.distributions.expected_information import Zeros
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.gene_tiles import gene_tiles
from sc_glm.inference.p_values import adjust_p_values, log_f_tail, p_value_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm.inference.gene_tiles import GeneTile

    FloatArray = NDArray[np.float64]

__all__ = ["zero_test"]

_MIN_VARIANCE = 1.0  # of the number of zeros; below, its distribution is far from normal
_ROUNDING = 1e-6  # share of the variance given the coefficients, below which it is rounding error


@documented(ENTRIES)
def zero_test(
    model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> pd.DataFrame:
    r"""Compare each gene's number of zeros with its expectation, and test the difference.

    Let :math:`p` be a cell's fitted probability of a zero, :math:`s` the score of a zero in the
    coefficients, and :math:`I` the expected information on the coefficients. The statistic

    .. math:: \frac{\sum 1\{y = 0\} - \sum p}{\sqrt V}

    is standard normal if the model is true. For the cells of the fit, the variance is

    .. math:: V = \sum p (1 - p) - c^\top I^{-1} c, \qquad c = \sum p s,

    since the fit has adapted to the number of zeros. For new cells, the error of the coefficients
    adds to the variance, by the information :math:`J` of the fit:

    .. math:: V = \sum p (1 - p) + c^\top J^{-1} c.

    For a negative binomial fit this is the score test of a zero inflation that is equal in all
    cells. Van den Broek (1995) [1]_ derived it for the Poisson distribution, and Deng and Paul
    (2005) [2]_ for the negative binomial distribution. Too many zeros suggest a
    :class:`~sc_glm.ZINBRegressor`, or a covariate that is missing.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {sample_weight}

    Returns
    -------
    DataFrame
        One row per gene, with columns

        observed, expected
            Number of zeros in the counts and in the model, weighted.
        ratio
            Observed divided by expected zeros; above 1 there are too many.
        statistic
            Standardised difference; positive if there are too many zeros.
        p_value
            Two-sided p-value, at least 2.2e-308, the smallest normal number; NaN if there is a
            `reason`.
        {log10_p_value}
        {p_adjusted}
        reason
            Why there is no p-value; empty if there is one.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}

    Notes
    -----
    The cells count as those of the fit for a gene if its log-likelihood equals the fit's, up to
    rounding. This needs the weights of the fit. All other cells count as new. For a part of the
    cells of the fit, or with other weights, :math:`V` and the p-values are therefore too large.
    :math:`J` is computed from typical cells that a fitted model keeps: up to 128, or twice the
    number of covariates.

    Weights are numbers of cells. With other weights, such as inverse probabilities, p-values are
    computed as if they were numbers of cells. There is no p-value for a fit with a penalty
    (`alpha`).

    There is no p-value if :math:`V` is below one squared cell. At high means almost no cell can be
    zero. At low means the coefficients explain the zeros whatever the distribution is, since all
    counts are zero or one.

    A size at the Poisson boundary has not been estimated, and is not a part of :math:`I`.

    References
    ----------
    .. [1] J. van den Broek (1995), "A Score Test for Zero Inflation in a Poisson Distribution",
       Biometrics 51, 738-743.
    .. [2] D. Deng and S. R. Paul (2005), "Score Tests for Zero-Inflation and Over-Dispersion in
       Generalized Linear Models", Statistica Sinica 15, 257-276.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import zero_test
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(5, 0.5, size=(500, 2))
    >>> y[:, 1] *= rng.random(500) < 0.8
    >>> zero_test(NegBinRegressor().fit(X, y), X, y)[["observed", "expected", "p_value"]].round(3)
        observed  expected  p_value
    gene
    y0        12    13.413    0.638
    y1       118    83.957    0.000
    """
    cells = EvaluatedCells.of(FittedData.of(model, X, y), sample_weight)
    tables = []
    for genes in cells.data.gene_slices():
        tiles = gene_tiles(cells.data, genes)
        sums = [ZeroSums.of(tile, np.exp(tile.log_zero), cells.weights) for tile in tiles]
        tables.append(zero_tests_of_genes(cells, genes, ZeroSums.join(sums)).table)
    table = pd.concat(tables)
    table["p_adjusted"] = adjust_p_values(table["p_value"].to_numpy())
    tests = ["statistic", "p_value", "log10_p_value", "p_adjusted", "reason"]
    return table[["observed", "expected", "ratio", *tests]]


class ZeroTests(NamedTuple):
    """Tests of the zeros of a block of genes.

    Attributes
    ----------
    table : DataFrame
        The columns of :func:`zero_test`, except for the adjusted p-value.
    n_estimated : ndarray of int of shape (n_genes,)
        Number of coefficients that the fit has estimated from these cells; zero for new cells.
    information_ratio : ndarray of shape (n_genes,)
        Largest eigenvalue of the information of new cells relative to the fit's; zero for the cells
        of the fit.
    """

    table: pd.DataFrame
    n_estimated: NDArray[np.int_]
    information_ratio: FloatArray


class ZeroSums(NamedTuple):
    """Weighted sums over the cells, by gene.

    Attributes
    ----------
    log_likelihood : ndarray of shape (n_genes,)
    observed, expected : ndarray of shape (n_genes,)
        Number of zeros in the counts and in the model.
    variance : ndarray of shape (n_genes,)
        Variance of the number of zeros, given the coefficients.
    """

    log_likelihood: FloatArray
    observed: FloatArray
    expected: FloatArray
    variance: FloatArray

    @classmethod
    def of(cls, tile: GeneTile, p: FloatArray, weights: FloatArray) -> ZeroSums:
        """Sum over the cells of a tile, with the probabilities ``p`` of a zero."""
        is_zero = np.ones(p.shape)
        is_zero.reshape(-1)[tile.flat] = 0.0
        log_probs = tile.with_positives(tile.log_zero, tile.log_ratio + tile.saturated)
        variance = -(p * np.expm1(tile.log_zero)) @ weights
        return cls(log_probs @ weights, is_zero @ weights, p @ weights, variance)

    @classmethod
    def join(cls, tiles: Sequence[ZeroSums]) -> ZeroSums:
        """Concatenate the sums of tiles."""
        return cls(*(np.concatenate(sums) for sums in zip(*tiles, strict=True)))


def zero_tests_of_genes(cells: EvaluatedCells, genes: slice, sums: ZeroSums) -> ZeroTests:
    """Test the number of zeros of some genes, given their sums over the cells."""
    data, rows = cells.data, cells.rows
    predictors = data.predictors_at(rows.designs, rows.offset, genes)
    zeros = Zeros.of(data.family, predictors)
    weighted = rows.weights[:, None] * np.exp(zeros.log_mass)
    gradients = [weighted * score for score in zeros.score]
    _, observed, expected, variance_given_coef = sums
    are_of_fit = cells.are_of_fit(sums.log_likelihood, genes)
    n_genes = len(expected)
    correction, information_ratio = np.zeros(n_genes), np.zeros(n_genes)
    n_estimated = np.zeros(n_genes, dtype=int)
    if are_of_fit.any():
        explained, n = _explained_variance(cells, zeros, predictors, gradients)
        correction[are_of_fit], n_estimated[are_of_fit] = -explained[are_of_fit], n[are_of_fit]
    if not are_of_fit.all():
        is_new = ~are_of_fit
        error, ratio = _coefficient_error(cells, genes, zeros, predictors, gradients)
        correction[is_new], information_ratio[is_new] = error[is_new], ratio[is_new]

    variance = variance_given_coef + correction
    reason = _reasons(data, genes, variance_given_coef, variance)
    standard_error = np.sqrt(np.where(reason == "", variance, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = observed / expected
    statistic = (observed - expected) / standard_error
    table = pd.DataFrame(
        {
            "observed": cells.as_counts(observed),
            "expected": expected,
            "ratio": ratio,
            "statistic": statistic,
            **p_value_columns(log_f_tail(statistic**2, 1.0, np.inf)),
            "reason": reason,
        },
        index=data.gene_index[genes],
    )
    return ZeroTests(table, n_estimated, information_ratio)


def _explained_variance(
    cells: EvaluatedCells,
    zeros: Zeros,
    predictors: list[FloatArray],
    gradients: list[FloatArray],
) -> tuple[FloatArray, NDArray[np.int_]]:
    """Return the part of the variance of the number of zeros that the fit to the cells explains.

    Also returns the number of coefficients that these cells determine.
    """
    information = weighted_information(zeros, predictors, cells.rows.weights, cells.bases)
    gradient, values, _ = _in_principal_directions(gradients, cells.bases, information)
    estimated = values > FLAT_INFORMATION
    explained = np.divide(gradient**2, values, out=np.zeros_like(values), where=estimated)
    return explained.sum(axis=1), estimated.sum(axis=1)


def _coefficient_error(
    cells: EvaluatedCells,
    genes: slice,
    zeros: Zeros,
    predictors: list[FloatArray],
    gradients: list[FloatArray],
) -> tuple[FloatArray, FloatArray]:
    """Return the variance of the expected number of zeros by the error of the coefficients.

    Also returns the largest eigenvalue of the information of these cells relative to the fit's.
    """
    bases, information = cells.in_bases_of_fit, cells.information_of_fit(genes)
    gradient, values, directions = _in_principal_directions(gradients, bases, information)
    # A coefficient that the fit does not determine is taken to have an error of one unit.
    values = np.where(values > FLAT_INFORMATION, values, 1.0)
    whitening = directions / np.sqrt(values)[:, None]
    information_of_cells = weighted_information(zeros, predictors, cells.rows.weights, bases)
    ratios = np.linalg.eigvalsh(np.swapaxes(whitening, 1, 2) @ information_of_cells @ whitening)
    return (gradient**2 / values).sum(axis=1), np.maximum(ratios[:, -1], 0.0)


def _in_principal_directions(
    gradients: list[FloatArray], bases: list[FloatArray], information: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the gradient of the number of zeros along the eigenvectors of the information.

    Also returns the eigenvalues and the eigenvectors.
    """
    gradient = [slope.T @ basis for slope, basis in zip(gradients, bases, strict=True)]
    values, directions = np.linalg.eigh(information)
    along = np.einsum("gi,gij->gj", np.hstack(gradient), directions)
    return along, values, directions


def _reasons(
    data: FittedData, genes: slice, variance_given_coef: FloatArray, variance: FloatArray
) -> NDArray[np.str_]:
    """Return why genes have no p-value; empty if they have one."""
    min_variance = np.maximum(_MIN_VARIANCE, _ROUNDING * variance_given_coef)
    reasons = {
        "the fit has a penalty": np.full(len(variance), data.is_penalised),
        "no maximum was reached": data.status[genes] == Status.ITERATION_LIMIT,
        "zeros are next to certain or impossible": variance_given_coef < _MIN_VARIANCE,
        "the coefficients explain the zeros": variance < min_variance,
    }
    return np.select(list(reasons.values()), list(reasons), default="")
