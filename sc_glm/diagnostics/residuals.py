"""Residuals of counts: quantile, Pearson and deviance residuals.

They are computed by blocks of genes, so that sparse counts are never dense as a whole.
"""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from scipy import special

from sc_glm._contract.docstrings import documented
from sc_glm.distributions.sampling import draw_seed, random_stream, replicate_cells
from sc_glm.inference.docstring_entries import ENTRIES
from sc_glm.inference.fitted_model import FittedData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm.distributions.base import CountDistribution
    from sc_glm.inference.fitted_model import Block, Seed

    FloatArray: TypeAlias = NDArray[np.float64]
    Kind: TypeAlias = Literal["quantile", "pearson", "deviance"]
    Clip: TypeAlias = float | Literal["sqrt_n"] | None
    Genes: TypeAlias = str | Sequence[str] | None
    ResidualsOfBlock: TypeAlias = Callable[[Block], FloatArray]

__all__ = ["deviance_residuals", "pearson_residuals", "quantile_residuals", "residual_blocks"]

_SMALLEST_UNIFORM = 2.0**-54  # in place of a random number of zero, whose logarithm is infinite
_NEARLY_ONE = -1e-3  # log-probability above which the complement is computed instead


@documented(ENTRIES)
def quantile_residuals(
    model: Any, X: Any, y: Any = None, *, genes: Genes = None, random_state: Seed = None
) -> FloatArray:
    r"""Return randomised quantile residuals, which are standard normal if the model is true.

    A count is placed at random on its step of the fitted distribution function :math:`F`, and
    transformed to a normal quantile (Dunn and Smyth 1996 [1]_):

    .. math:: \Phi^{-1}(F(y - 1) + u \, P(y)), \qquad u \sim U(0, 1).

    Unlike other residuals of counts, they have one distribution for all means. A plot of them
    against a covariate should show no pattern, and a quantile-quantile plot a line.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {genes}
    {random_state}

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        It has one dimension if the counts of the fit had one.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}

    See Also
    --------
    residual_blocks : Residuals by blocks of genes, for data that are too large for one array.

    Notes
    -----
    The random number of an entry depends only on the seed, the cell's row and the gene's position
    in the fit. It is the same for any selection of `genes`.

    Residuals are finite if the logarithm of the count's probability is finite. A count that the
    model excludes has an infinite residual, such as a positive count where a zero is certain.

    The distribution function has steps at integers only. Counts that are not integers, such as
    those of tools that correct for ambient RNA, are rounded.

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


@documented(ENTRIES)
def pearson_residuals(
    model: Any, X: Any, y: Any = None, *, genes: Genes = None, clip: Clip = None
) -> FloatArray:
    """Return Pearson residuals: counts minus their mean, divided by their standard deviation.

    Mean and standard deviation are those of the fitted distribution, including zero inflation.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {genes}
    {clip}

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        It has one dimension if the counts of the fit had one.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}
    ValueError
        If `clip` is not valid.

    Notes
    -----
    Residuals of a size of maximum likelihood have a variance near one in every gene. A size that is
    equal for all genes leaves a larger variance to genes that differ between cells. So the analytic
    Pearson residuals of Lause, Berens and Kobak (2021, Genome Biology 22: 258) have the size 100.
    These are the residuals of ``NegBinRegressor(size=100)`` with the mean ``~ 1``, the log depth as
    offset and ``clip="sqrt_n"``, up to the estimate of the mean.

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
    >>> clipped = pearson_residuals(NegBinRegressor(size=2.0).fit(X, y), X, y, clip=2.0)
    >>> float(clipped.max())
    2.0
    """
    return _residuals(FittedData.of(model, X, y, genes=genes), "pearson", clip=clip)


@documented(ENTRIES)
def deviance_residuals(model: Any, X: Any, y: Any = None, *, genes: Genes = None) -> FloatArray:
    """Return deviance residuals: signed square roots of the unit deviance.

    They are negative where the count is below the fitted mean. The mean of their squares is
    :func:`~sc_glm.metrics.mean_deviance`.

    Parameters
    ----------
    {model}
    {X}
    {y}
    {genes}

    Returns
    -------
    ndarray of shape (n_cells, n_genes) or (n_cells,)
        It has one dimension if the counts of the fit had one.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}

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


@documented(ENTRIES)
def residual_blocks(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    kind: Kind = "quantile",
    genes: Genes = None,
    random_state: Seed = None,
    clip: Clip = None,
) -> Iterator[tuple[slice, FloatArray]]:
    """Return residuals by blocks of genes, with one block at a time in memory.

    Parameters
    ----------
    {model}
    {X}
    {y}
    kind : {"quantile", "pearson", "deviance"}, default="quantile"
        Residuals of :func:`quantile_residuals`, :func:`pearson_residuals` or
        :func:`deviance_residuals`.
    {genes}
    {random_state}
    {clip}

    Returns
    -------
    iterator of (slice, ndarray of shape (n_cells, n_genes_of_block))
        Positions of the block's genes in the result, and their residuals.

    Raises
    ------
    {raises_not_a_regressor}
    {raises_invalid_data}
    ValueError
        If `kind` is unknown, or if `clip` is not valid or given for another kind than
        ``"pearson"``. The call raises it, and not the iterator.

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
    return _residual_blocks(FittedData.of(model, X, y, genes=genes), kind, random_state, clip)


def weighted_quantile_residuals(
    data: FittedData, sample_weight: ArrayLike | None, random_state: Seed
) -> tuple[FloatArray, FloatArray]:
    """Return quantile residuals of weighted cells, one for each copy of a cell, and their weights.

    Returns
    -------
    residuals : ndarray of shape (n_copies, n_genes)
    copy_weights : ndarray of shape (n_copies,)
        See :func:`~sc_glm.distributions.sampling.replicate_cells`.
    """
    data, weights = data.with_positive_weight(sample_weight)
    cells, copy_weights = replicate_cells(weights)
    quantile_residuals = quantile_residuals_of_block(data, random_state, cells)
    residuals = np.empty((len(cells), len(data.genes)))
    for block in data.blocks(len(cells)):
        residuals[:, block.genes] = quantile_residuals(block)
    return residuals, copy_weights


def _residuals(
    data: FittedData, kind: Kind, random_state: Seed = None, clip: Clip = None
) -> FloatArray:
    residuals = np.empty(data.counts.shape)
    for genes, values in _residual_blocks(data, kind, random_state, clip):
        residuals[:, genes] = values
    return data.in_shape_of_counts(residuals)


def _residual_blocks(
    data: FittedData, kind: Kind, random_state: Seed, clip: Clip
) -> Iterator[tuple[slice, FloatArray]]:
    """Check the kind and draw the seed at once; compute a block when the iterator reaches it."""
    if kind not in {"quantile", *_DETERMINISTIC}:
        raise ValueError(f"kind must be one of {['quantile', *_DETERMINISTIC]}, got {kind!r}.")
    if kind == "quantile":
        residuals = quantile_residuals_of_block(data, random_state)
    else:
        residuals = _DETERMINISTIC[kind]
    if clip is not None and kind != "pearson":
        raise ValueError(f"clip={clip!r} goes with kind='pearson', not kind={kind!r}.")
    bound = _clip_bound(clip, len(data.counts))
    return ((block.genes, residuals(block).clip(-bound, bound)) for block in data.blocks())


def _clip_bound(clip: Any, n_cells: int) -> float:
    """Return the largest absolute value of a residual."""
    if clip is None:
        return np.inf
    if clip == "sqrt_n":
        return float(np.sqrt(n_cells))
    if isinstance(clip, bool | str) or not isinstance(clip, Real) or not float(clip) > 0:
        raise ValueError(f"clip must be a positive number, 'sqrt_n' or None, got {clip!r}.")
    return float(clip)


def _pearson_residuals_of_block(block: Block) -> FloatArray:
    """Return the Pearson residuals of a block of genes."""
    error, scale = block.counts - block.dist.mean(), block.dist.std()
    # A zero has a residual of zero if the model has no other count.
    with np.errstate(divide="ignore"):
        return np.divide(error, scale, out=np.zeros_like(error), where=(error != 0) | (scale > 0))


def _deviance_residuals_of_block(block: Block) -> FloatArray:
    sign = np.sign(block.counts - block.dist.mean())
    return sign * np.sqrt(block.dist.unit_deviance(block.counts))


_DETERMINISTIC = {"pearson": _pearson_residuals_of_block, "deviance": _deviance_residuals_of_block}


def quantile_residuals_of_block(
    data: FittedData, random_state: Seed, cells: Any = slice(None)
) -> ResidualsOfBlock:
    """Draw a seed, and return a function that computes the quantile residuals of a block.

    ``cells`` selects the rows of the residuals; a cell may occur several times.
    """
    seed = draw_seed(random_state)

    def residuals_of_block(block: Block) -> FloatArray:
        counts, dist = block.counts[cells], block.dist[cells]
        uniform = uniform_numbers(seed, data.genes[block.genes], len(counts))
        return _normal_quantiles(counts, dist, uniform.T)

    return residuals_of_block


def uniform_numbers(seed: int, genes: NDArray[np.intp], n_cells: int) -> FloatArray:
    """Return the random numbers of genes, which are positions in the fit: genes x cells."""
    uniform = np.empty((len(genes), n_cells))
    for row, gene in zip(uniform, genes, strict=True):
        random_stream(seed, int(gene)).random(out=row)
    return np.maximum(uniform, _SMALLEST_UNIFORM, out=uniform)


def _normal_quantiles(
    counts: FloatArray, dist: CountDistribution, uniform: FloatArray
) -> FloatArray:
    """Return the normal quantiles of ``P(Y < y) + uniform * P(Y = y)``."""
    y = np.rint(counts)
    positive = y > 0
    # Zeros and positive counts are computed separately: blocks of both take much longer.
    log_mass = np.empty(y.shape)
    log_mass[~positive] = dist[~positive].logpmf(0.0)
    log_mass[positive] = dist[positive].logpmf(y[positive])
    log_lower = np.log(uniform) + log_mass
    log_below = dist[positive].logcdf(y[positive] - 1)
    log_lower[positive] = np.minimum(np.logaddexp(log_below, log_lower[positive]), 0.0)
    residuals = special.ndtri_exp(log_lower)
    # A probability near one has its precision in the complement.
    upper = positive & (log_lower > _NEARLY_ONE)
    log_above = dist[upper].logsf(y[upper])
    log_upper = np.logaddexp(log_above, np.log1p(-uniform[upper]) + log_mass[upper])
    residuals[upper] = -special.ndtri_exp(log_upper)
    return residuals
