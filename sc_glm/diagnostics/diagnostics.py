"""How well a fitted model describes counts, cell by cell and gene by gene.

The functions take a model, covariates and counts as those of :mod:`sklearn.inspection` do, and work
on blocks of genes: sparse counts are never made dense as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from scipy import special, stats

from sc_glm._design.design import PartDesign
from sc_glm._solver.status import FLAT, Status
from sc_glm.distributions.expected_information import (
    Zeros,
    expected_information,
    information_in_bases,
)
from sc_glm.distributions.log_mass import log_mass
from sc_glm.distributions.sampling import drawn_seed, replicate_cells, stream
from sc_glm.inference.fitted_model import FittedData
from sc_glm.inference.linear_combinations import is_of_fit
from sc_glm.inference.p_values import adjusted, log_f_tail, log_kolmogorov_tail, p_value_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm.distributions.base import CountDistribution
    from sc_glm.distributions.random_variates import RandomSource
    from sc_glm.inference.fitted_model import Block

    FloatArray: TypeAlias = NDArray[np.float64]
    Kind: TypeAlias = Literal["quantile", "pearson", "deviance"]
    Genes: TypeAlias = str | Sequence[str] | None
    Seed: TypeAlias = int | RandomSource | None
    OfBlock: TypeAlias = Callable[[Block], FloatArray]

__all__ = [
    "deviance_residuals",
    "goodness_of_fit",
    "pearson_residuals",
    "quantile_residuals",
    "residual_blocks",
    "zero_test",
]

_LEAST_UNIFORM = 2.0**-54  # in place of zero, of which there is no logarithm
_NEARLY_ONE = -1e-3  # logarithm of a probability
_OUTLIER = 0.01  # probability that a gene of the model has any outlier

# Variance, in squared cells, under which the number of zeros is far from normal; and as a share of
# what it would be without a fit, under which it is rounding's.
_LEAST_VARIANCE = 1.0
_ROUNDING = 1e-6


def quantile_residuals(
    model: Any, X: Any, y: Any = None, *, genes: Genes = None, random_state: Seed = None
) -> FloatArray:
    r"""Return randomised quantile residuals, which are standard normal if the model is true.

    A count is put at random on its step of the fitted distribution function, and the normal
    quantile taken (Dunn and Smyth 1996 [1]_):

    .. math:: \Phi^{-1}(F(y - 1) + u \, P(y)), \qquad u \sim U(0, 1).

    Unlike other residuals of counts they have one distribution, whatever the mean: plots of them
    against anything should show no pattern, and a quantile-quantile plot a line.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    genes : str or sequence of str, default=None
        Names of the genes that are asked for, in this order; None is all.
    random_state : int, RandomState, Generator or None, default=None
        Seed; an integer gives the same residuals each time. None is NumPy's global state.

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        Without the last axis if the counts of the fit had one dimension.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes.

    See Also
    --------
    residual_blocks : The same by blocks of genes, where all are too many to be kept.

    Notes
    -----
    The random numbers of an entry depend on the seed, the cell's row and the gene's place in the
    fit alone: they are the same whichever genes are asked for.

    Residuals are finite as far as the logarithm of a probability is; a count that the model has no
    probability for, such as one of a structural zero for certain, is at infinity.

    Between integers the distribution function has no steps. A count that is no integer, as
    ambient-correction tools leave them, is taken for the nearest one.

    References
    ----------
    .. [1] P. K. Dunn and G. K. Smyth (1996), "Randomized Quantile Residuals", Journal of
       Computational and Graphical Statistics 5, 236-244.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import quantile_residuals
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(2, 0.3, size=(500, 3))
    >>> residuals = quantile_residuals(NegBinRegressor().fit(X, y), X, y, random_state=0)
    >>> residuals.shape
    (500, 3)
    >>> residuals.std(axis=0).round(1)
    array([1., 1., 1.])
    """
    return _residuals(FittedData.of(model, X, y, genes=genes), "quantile", random_state)


def pearson_residuals(model: Any, X: Any, y: Any = None, *, genes: Genes = None) -> FloatArray:
    """Return Pearson residuals: how many standard deviations counts are from their mean.

    Mean and variance are those of the fitted distribution, zero inflation included.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    genes : str or sequence of str, default=None
        Names of the genes that are asked for, in this order; None is all.

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        Without the last axis if the counts of the fit had one dimension.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import pearson_residuals
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(2, 0.3, size=500)
    >>> residuals = pearson_residuals(NegBinRegressor().fit(X, y), X, y)
    >>> residuals.shape
    (500,)
    >>> float((residuals**2).mean().round(1))
    1.0
    """
    return _residuals(FittedData.of(model, X, y, genes=genes), "pearson")


def deviance_residuals(model: Any, X: Any, y: Any = None, *, genes: Genes = None) -> FloatArray:
    """Return deviance residuals: a count's deviance as a distance from the mean, with its sign.

    It is the square root of an entry's share of :func:`~sc_glm.metrics.mean_deviance`, negative
    where the count is below the fitted mean.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    genes : str or sequence of str, default=None
        Names of the genes that are asked for, in this order; None is all.

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        Without the last axis if the counts of the fit had one dimension.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import deviance_residuals
    >>> from sc_glm.metrics import mean_deviance
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(2, 0.3, size=500)
    >>> model = NegBinRegressor().fit(X, y)
    >>> residuals = deviance_residuals(model, X, y)
    >>> bool(np.isclose((residuals**2).mean(), mean_deviance(y, model.predict_dist(X))))
    True
    """
    return _residuals(FittedData.of(model, X, y, genes=genes), "deviance")


def residual_blocks(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: Kind = "quantile",
    genes: Genes = None,
    random_state: Seed = None,
) -> Iterator[tuple[slice, FloatArray]]:
    """Return residuals by blocks of genes, of which one at a time is in memory.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    kind : {"quantile", "pearson", "deviance"}, default="quantile"
        Those of :func:`quantile_residuals`, :func:`pearson_residuals` or
        :func:`deviance_residuals`.
    genes : str or sequence of str, default=None
        Names of the genes that are asked for, in this order; None is all.
    random_state : int, RandomState, Generator or None, default=None
        Seed of quantile residuals, which are those of :func:`quantile_residuals` for the same one.

    Returns
    -------
    iterator of (slice, ndarray of shape (n_cells, n_genes_of_block))
        Which of the genes asked for these are, and their residuals.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes, or there is no such kind.
        It is raised here, and not by the iterator.

    Examples
    --------
    >>> import numpy as np
    >>> from sc_glm import NegBinRegressor
    >>> from sc_glm.diagnostics import residual_blocks
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(500, 1)), rng.negative_binomial(2, 0.3, size=(500, 3))
    >>> model = NegBinRegressor().fit(X, y)
    >>> largest = np.empty(3)
    >>> for genes, residuals in residual_blocks(model, X, y, kind="pearson"):
    ...     largest[genes] = np.abs(residuals).max(axis=0)
    >>> bool((largest > 2).all())
    True
    """
    return _residual_blocks(FittedData.of(model, X, y, genes=genes), kind, random_state)


def zero_test(
    model: Any, X: Any, y: Any = None, *, sample_weight: ArrayLike | None = None
) -> pd.DataFrame:
    r"""Compare each gene's number of zeros with what the model expects, and test the difference.

    The fit has seen the zeros, so that their number is closer to the expected one than it would be
    to the true model's. With :math:`p` a cell's fitted probability of a zero, :math:`s` the score
    of a zero in the coefficients and :math:`I` their expected information, the statistic is

    .. math:: \frac{\sum 1\{y = 0\} - \sum p}{\sqrt V}, \qquad
        V = \sum p (1 - p) - c^\top I^{-1} c, \qquad c = \sum p s,

    and standard normal if the model is true. New cells have zeros that the fit has not seen. The
    error of the coefficients then adds to the variance, by the information :math:`J` of the fit:

    .. math:: V = \sum p (1 - p) + c^\top J^{-1} c.

    For a negative binomial fit it is the score test of a
    zero inflation that is the same in all cells, by van den Broek (1995) [1]_ for the Poisson and
    Deng and Paul (2005) [2]_ for the negative binomial distribution: too many zeros speak for a
    :class:`~sc_glm.ZINBRegressor`, or for a covariate that is not there.

    Parameters
    ----------
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    sample_weight : array-like of shape (n_cells,), default=None
        Weights of the cells: an integer weight is as many cells. For the cells of the fit, its
        weights.

    Returns
    -------
    DataFrame
        One row per gene, with columns

        observed, expected
            Number of zeros in the counts and in the model, by weight.
        ratio
            Observed by expected zeros; above 1 there are too many.
        statistic
            The difference in standard deviations; positive for too many zeros.
        p_value
            Two-sided; NaN where there is a reason for it. None is below 2.2e-308, the smallest
            normal number.
        log10_p_value
            Its logarithm to the base 10, which has no such end: rank by it.
        p_adjusted
            P-values by Benjamini and Hochberg, over the genes that have one.
        reason
            Why there is no p-value; empty where there is one.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes.

    Notes
    -----
    A gene's cells are those of the fit if its log-likelihood is that of the fit, with the same
    weights, but for rounding. All others are taken for new ones, also a part of the cells of the
    fit, or these with other weights: their :math:`V` is rather too large then, and so are p-values.
    :math:`J` is that of up to 128 typical cells, or twice as many as there are covariates, which a
    fitted model keeps.

    Weights count cells. Those that are no numbers of cells, such as inverse probabilities, have
    p-values as if they were. Of a fit with a penalty (`alpha`) there is no p-value.

    Nor is there one where :math:`V` is below one squared cell. Then either next to no cell could
    be zero or not, as at high means, or the coefficients explain the zeros whatever
    distribution they have, as at low means: one and zero are all there is.

    A size at the Poisson boundary has not been estimated, and is no part of :math:`I`.

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
    y0        12    13.413    0.638
    y1       118    83.957    0.000
    """
    cells = _WeightedCells.of(FittedData.of(model, X, y), sample_weight)
    table = pd.concat([_zeros(cells, block) for block in cells.data.blocks()])
    table["p_adjusted"] = adjusted(table["p_value"].to_numpy())
    tests = ["statistic", "p_value", "log10_p_value", "p_adjusted", "reason"]
    return table[["observed", "expected", "ratio", *tests]]


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
    model : estimator
        A fitted regressor, a pipeline that ends in one, a search over these, or an
        :class:`~sc_glm.adata.AnnDataRegressor`.
    X : array-like, DataFrame or AnnData
        What the model predicts from.
    y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
        Counts of all genes of the fit; None where `X` is an AnnData that holds them.
    sample_weight : array-like of shape (n_cells,), default=None
        Weights of the cells: an integer weight is as many cells. For the cells of the fit, its
        weights.
    random_state : int, RandomState, Generator or None, default=None
        Seed of the quantile residuals; an integer gives the same results each time. None is NumPy's
        global state.

    Returns
    -------
    DataFrame
        One row per gene, with columns

        status
            How the fit ended, as in ``status_``.
        pearson
            Sum of squared Pearson residuals by degrees of freedom, which are the cells, and for
            those of the fit less by the coefficients that the counts determine. Near 1 if the model
            is true, though with heavy tails where counts are few; NaN without degrees of freedom.
        deviance
            Mean unit deviance, as :func:`~sc_glm.metrics.mean_deviance`.
        ks_statistic, ks_p_value, ks_log10_p_value
            Kolmogorov-Smirnov test of the quantile residuals against the normal distribution.
            P-values are rather too large than too small: residuals of the cells of the fit are
            closer to normal than others, and of other cells the error of the coefficients is
            accounted for by a bound.
        n_outliers
            Number of cells with a quantile residual so large, up or down, that a gene of the model
            has any with probability 0.01.
        observed_zeros, expected_zeros, zeros_p_value, zeros_log10_p_value
            As in :func:`zero_test`.

    Raises
    ------
    TypeError
        If the model does not end in a regressor of this package.
    ValueError
        If data are not what they should be, or not of the model's genes.

    See Also
    --------
    zero_test : More about zeros, and why a p-value is missing.

    Notes
    -----
    Which cells are those of the fit, and which are new to it, is told as in :func:`zero_test`. A
    cell of weight three has three quantile residuals, as three cells have. Of :math:`n` normal
    residuals the largest is beyond
    :math:`\pm z` with probability :math:`1 - (1 - 2 \Phi(-z))^n`, which says where outliers begin:
    at 4.9 for 10 000 cells.

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
    y0  converged     1.03           0           0.64
    y1  converged     1.85           3           0.05
    """
    cells = _WeightedCells.of(FittedData.of(model, X, y), sample_weight)
    total = cells.weights.sum()
    drawn_for, counted = replicate_cells(cells.weights)
    quantile = _quantile(cells.data, random_state, drawn_for)
    outlying = stats.norm.isf(-np.expm1(np.log1p(-_OUTLIER) / total) / 2)
    tables = []
    for block in cells.data.blocks(len(drawn_for)):
        zeros, residuals = _zeros(cells, block), quantile(block)
        distance, log_p = _distance_from_normal(residuals, counted, zeros["share"].to_numpy())
        free = total - zeros["n_followed"].to_numpy()
        squares = cells.weights @ np.square(_pearson(block))
        table = {
            "status": cells.data.status[block.genes],
            "pearson": squares / np.where(free > 0, free, np.nan),
            "deviance": cells.weights @ block.dist.unit_deviance(block.counts) / total,
            "ks_statistic": distance,
            **p_value_columns(log_p, "ks_"),
            "n_outliers": cells.number(counted @ (np.abs(residuals) > outlying)),
            "observed_zeros": zeros["observed"],
            "expected_zeros": zeros["expected"],
            "zeros_p_value": zeros["p_value"],
            "zeros_log10_p_value": zeros["log10_p_value"],
        }
        tables.append(pd.DataFrame(table, index=zeros.index))
    return pd.concat(tables)


# Residuals


def _residual_blocks(
    data: FittedData, kind: Kind, random_state: Seed = None
) -> Iterator[tuple[slice, FloatArray]]:
    """Check the kind and draw the seed at once, and the rest as it is asked for."""
    if kind not in {"quantile", *_OF_BLOCK}:
        raise ValueError(f"kind must be one of {['quantile', *_OF_BLOCK]}, got {kind!r}.")
    of_block = _quantile(data, random_state) if kind == "quantile" else _OF_BLOCK[kind]
    return ((block.genes, of_block(block)) for block in data.blocks())


def _residuals(data: FittedData, kind: Kind, random_state: Seed = None) -> FloatArray:
    residuals = np.empty(data.counts.shape)
    for genes, values in _residual_blocks(data, kind, random_state):
        residuals[:, genes] = values
    return data.shaped(residuals)


def _pearson(block: Block) -> FloatArray:
    error, scale = block.counts - block.dist.mean(), block.dist.std()
    # Where the model has nothing but zeros, a zero is as it should be.
    with np.errstate(divide="ignore"):
        return np.divide(error, scale, out=np.zeros_like(error), where=(error != 0) | (scale > 0))


def _deviance(block: Block) -> FloatArray:
    sign = np.sign(block.counts - block.dist.mean())
    return sign * np.sqrt(block.dist.unit_deviance(block.counts))


_OF_BLOCK = {"pearson": _pearson, "deviance": _deviance}


def weighted_quantile_residuals(
    data: FittedData, sample_weight: ArrayLike | None, random_state: Seed
) -> tuple[FloatArray, FloatArray]:
    """Return quantile residuals of weighted cells, one for each copy of a cell, and their weights.

    Returns
    -------
    residuals : ndarray of shape (n_draws, n_genes)
    counted : ndarray of shape (n_draws,)
        See :func:`~sc_glm.distributions.sampling.replicate_cells`.
    """
    data, weights = data.with_weight(sample_weight)
    cells, counted = replicate_cells(weights)
    of_block = _quantile(data, random_state, cells)
    residuals = np.empty((len(cells), len(data.genes)))
    for block in data.blocks(len(cells)):
        residuals[:, block.genes] = of_block(block)
    return residuals, counted


def _quantile(data: FittedData, random_state: Seed, cells: Any = slice(None)) -> OfBlock:
    """Return the quantile residuals of a block as a function of it, and of one seed.

    ``cells`` are those that a residual is drawn for, some of them several times.
    """
    seed = drawn_seed(random_state)

    def of_block(block: Block) -> FloatArray:
        counts, dist = block.counts[cells], block.dist[cells]
        uniform = np.empty(counts.shape[::-1])
        for row, gene in zip(uniform, data.genes[block.genes], strict=True):
            stream(seed, int(gene)).random(out=row)
        return _normal_quantiles(counts, dist, np.maximum(uniform.T, _LEAST_UNIFORM))

    return of_block


def _normal_quantiles(
    counts: FloatArray, dist: CountDistribution, uniform: FloatArray
) -> FloatArray:
    """Return the normal quantiles of ``P(below the count) + uniform * P(count)``."""
    y = np.rint(counts)
    positive = y > 0
    log_mass = np.empty(y.shape)  # zeros and others apart: in blocks of both, it takes much longer
    log_mass[~positive] = dist[~positive].logpmf(0.0)
    log_mass[positive] = dist[positive].logpmf(y[positive])
    log_lower = np.log(uniform) + log_mass
    below = dist[positive].logcdf(y[positive] - 1)
    log_lower[positive] = np.minimum(np.logaddexp(below, log_lower[positive]), 0.0)
    residuals = special.ndtri_exp(log_lower)
    # A probability near one has its digits in its complement.
    upper = positive & (log_lower > _NEARLY_ONE)
    above = dist[upper].logsf(y[upper])
    log_upper = np.logaddexp(above, np.log1p(-uniform[upper]) + log_mass[upper])
    residuals[upper] = -special.ndtri_exp(log_upper)
    return residuals


# What the fit has seen, and what is new to it


@dataclass(frozen=True)
class _WeightedCells:
    """Cells that have a weight, and designs by which they are compared with those of the fit.

    Attributes
    ----------
    data : FittedData
    weights : ndarray of shape (n_cells,)
    """

    data: FittedData
    weights: FloatArray

    @classmethod
    def of(cls, data: FittedData, sample_weight: ArrayLike | None) -> _WeightedCells:
        return cls(*data.with_weight(sample_weight))

    @cached_property
    def bases(self) -> list[FloatArray]:
        """An orthonormal basis of each part's identified design, cells x rank."""
        return [PartDesign.of(design, self.weights).U for design in self.data.designs.values()]

    @cached_property
    def typical(self) -> tuple[FittedData, FloatArray]:
        """A few cells that stand for those of the fit, without counts, and their weights."""
        return self.data.typical

    @cached_property
    def fit_parts(self) -> list[PartDesign]:
        """The parts' designs in these few."""
        fit, weights = self.typical
        return [PartDesign.of(design, weights) for design in fit.designs.values()]

    @cached_property
    def outside_bases(self) -> list[FloatArray]:
        """The parts' designs in all cells, in the coordinates of ``fit_parts``, cells x rank."""
        designs = self.data.designs.values()
        return [x @ part.to_coef for x, part in zip(designs, self.fit_parts, strict=True)]

    def number(self, sums: FloatArray) -> NDArray[Any]:
        """Return sums of weights, which are integers if the weights are."""
        whole = (self.weights == np.rint(self.weights)).all()
        return np.rint(sums).astype(np.int64) if whole else sums

    def of_fit(self, block: Block) -> NDArray[np.bool_]:
        """Tell for which genes these are the cells of the fit, with its weights."""
        logs = log_mass(self.data.family, block.counts, list(block.predictors.values()))
        return is_of_fit(self.data, self.weights @ logs, block.genes)

    def information(
        self, zeros: Zeros, predictors: list[FloatArray], bases: list[FloatArray]
    ) -> FloatArray:
        """Return the expected information of these cells, in coordinates of a basis."""
        return _information(zeros, predictors, self.weights, bases)

    def information_of_fit(self, genes: slice) -> FloatArray:
        """Return the expected information that the fit had, in coordinates of its bases."""
        fit, weights = self.typical
        predictors = fit.predictors(genes)
        zeros = Zeros.of(fit.family, predictors)
        return _information(zeros, predictors, weights, [part.U for part in self.fit_parts])


def _information(
    zeros: Zeros, predictors: list[FloatArray], weights: FloatArray, bases: list[FloatArray]
) -> FloatArray:
    entries = expected_information(zeros, predictors)
    weighted = {pair: weights[:, None] * values for pair, values in entries.items()}
    return information_in_bases(weighted, bases)


def _zeros(cells: _WeightedCells, block: Block) -> pd.DataFrame:
    """Return the columns of :func:`zero_test` that need no other gene, and two more.

    ``n_followed`` is the number of coefficients that follow these counts, and ``share`` the largest
    share of these cells' information in that of the fit, where it is one of other cells: in no
    direction do they tell more of the coefficients.
    """
    data, weights = cells.data, cells.weights
    predictors = list(block.predictors.values())
    zeros = Zeros.of(data.family, predictors)
    p = np.exp(zeros.log_mass)
    slopes = [weights[:, None] * p * score for score in zeros.score]
    observed, expected = weights @ (block.counts == 0), weights @ p
    free = -(weights @ (p * np.expm1(zeros.log_mass)))
    of_fit = cells.of_fit(block)
    correction, n_followed = np.zeros(len(free)), np.zeros(len(free), dtype=int)
    share = np.zeros(len(free))
    if of_fit.any():
        information = cells.information(zeros, predictors, cells.bases)
        along, values, _ = _principal(slopes, cells.bases, information)
        estimated = values > FLAT
        explained = np.divide(along**2, values, out=np.zeros_like(values), where=estimated)
        correction[of_fit] = -explained.sum(axis=1)[of_fit]
        n_followed[of_fit] = estimated.sum(axis=1)[of_fit]
    if not of_fit.all():
        information = cells.information_of_fit(block.genes)
        along, values, directions = _principal(slopes, cells.outside_bases, information)
        # Along what the fit leaves open, coefficients may be off by about a unit.
        known = np.where(values > FLAT, values, 1.0)
        correction[~of_fit] = (along**2 / known).sum(axis=1)[~of_fit]
        whitened = directions / np.sqrt(known)[:, None]
        here = cells.information(zeros, predictors, cells.outside_bases)
        shares = np.linalg.eigvalsh(np.swapaxes(whitened, 1, 2) @ here @ whitened)
        share[~of_fit] = np.maximum(shares[~of_fit, -1], 0.0)

    variance = free + correction
    least = np.maximum(_LEAST_VARIANCE, _ROUNDING * free)
    reasons = {
        "the fit has a penalty": np.full(len(free), data.is_penalised),
        "no maximum was reached": data.status[block.genes] == Status.ITERATION_LIMIT,
        "zeros are next to certain or impossible": free < _LEAST_VARIANCE,
        "the coefficients explain the zeros": variance < least,
    }
    reason = np.select(list(reasons.values()), list(reasons), default="")
    spread = np.sqrt(np.where(reason == "", variance, np.nan))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = observed / expected
    statistic = (observed - expected) / spread
    return pd.DataFrame(
        {
            "observed": cells.number(observed),
            "expected": expected,
            "ratio": ratio,
            "statistic": statistic,
            **p_value_columns(log_f_tail(statistic**2, 1.0, np.inf)),
            "reason": reason,
            "n_followed": n_followed,
            "share": share,
        },
        index=pd.Index(data.names[block.genes]),
    )


def _principal(
    slopes: list[FloatArray], bases: list[FloatArray], information: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the slope of the number of zeros along the directions of an information.

    Also returns the information along these, and the directions.
    """
    gradient = [slope.T @ basis for slope, basis in zip(slopes, bases, strict=True)]
    values, directions = np.linalg.eigh(information)
    along = np.einsum("gi,gij->gj", np.hstack(gradient), directions)
    return along, values, directions


# Distribution of residuals


def _distance_from_normal(
    residuals: FloatArray, counted: FloatArray, share: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return Kolmogorov and Smirnov's statistic of weighted residuals, and log p-values.

    Draws of unequal weight tell as much as fewer that count alike (Kish 1965, Survey Sampling).

    Of other cells than those of the fit, the error of the coefficients widens the distribution of
    the statistic. Their empirical distribution F is then off by a bridge B, of variance
    u (1 - u) / n at u, and by g(u) e with the slopes g of F in the coefficients and their error e,
    whose covariance is the inverse of the fit's information J. The slope of g at u is the mean
    score there. So the integral of its square is by Jensen's inequality at most a mean cell's
    information I / N, and the covariance of g e at most c = n / N times the largest eigenvalue of
    J^-1 I, in units of the bridge's. A symmetric convex set, as the statistic's below any bound, is
    then at least as probable as under a bridge of 1 + c times the variance (Anderson 1955,
    Proceedings of the American Mathematical Society 6: 170): p-values are rather too large.
    """
    place, total = np.argsort(residuals, axis=0), counted.sum()
    upper = np.cumsum(counted[place], axis=0)
    probability = special.ndtr(np.take_along_axis(residuals, place, axis=0))
    lower = upper - counted[place]
    distance = np.maximum(upper / total - probability, probability - lower / total).max(axis=0)
    n_alike = total**2 / np.square(counted).sum()
    n_alike = n_alike / (1 + share * n_alike / total)
    return distance, log_kolmogorov_tail(distance, np.maximum(np.floor(n_alike + _ROUNDING), 1.0))
