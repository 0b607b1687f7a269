"""Means and variances of genes, in the counts and under the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    DATA,
    MODEL,
    MUTED,
    ink,
    legend,
    line_style,
    log_log,
    nothing,
    panels,
    point_style,
    require_matplotlib,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes


class MeanVarianceDisplay:
    """Variances of genes against their means, in the counts and under the model.

    Each gene's counts have a variance over all cells; the model explains it by what varies between
    cells (the variance of their means) and within (the mean of their variances). Where both points
    of a gene are apart, its dispersion or its mean is not what the counts say.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    mean, variance : array-like of shape (n_genes,)
        Of the counts, over cells.
    fitted_mean, fitted_variance : array-like of shape (n_genes,)
        Under the model.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        The figure of the axes.
    observed_, fitted_ : matplotlib Line2D
        The genes' points.
    trend_ : matplotlib Line2D or None
        The curve of the median gene; None without overdispersion.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import MeanVarianceDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    >>> display = MeanVarianceDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, data.counts
    ... )
    >>> display.variance.shape
    (20,)
    """

    def __init__(
        self,
        *,
        mean: ArrayLike,
        variance: ArrayLike,
        fitted_mean: ArrayLike,
        fitted_variance: ArrayLike,
    ) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.variance = np.asarray(variance, dtype=np.float64)
        self.fitted_mean = np.asarray(fitted_mean, dtype=np.float64)
        self.fitted_variance = np.asarray(fitted_variance, dtype=np.float64)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        genes: str | Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the means and variances of a fitted model's genes.

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
            The genes to show; None is all.
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells; an integer weight is as many cells.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the observed points.

        Returns
        -------
        MeanVarianceDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `X`, `y` or `genes` are not what they should be.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        fitted, weights = FittedData.of(model, X, y, genes=genes).with_positive_weight(
            sample_weight
        )
        share = weights / weights.sum()
        moments = []
        for block in fitted.blocks():
            mean, between = _moments(block.dist.mean(), share)
            moments.append(
                [*_moments(block.counts, share), mean, share @ block.dist.var() + between]
            )
        mean, variance, fitted_mean, fitted_variance = np.hstack(moments)
        display = cls(
            mean=mean,
            variance=variance,
            fitted_mean=fitted_mean,
            fitted_variance=fitted_variance,
        )
        return display.plot(ax, line_kwargs=line_kwargs)

    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the points, the Poisson line and the curve of the median gene.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the observed points.

        Returns
        -------
        MeanVarianceDisplay
            Itself.

        Notes
        -----
        The curve is ``mean + phi * mean**2``, with the median over genes of what gives the fitted
        variance. Genes whose counts are all the same have no place on logarithmic axes; their
        number is written above them.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        shown = (self.mean > 0) & (self.variance > 0)
        mean, fitted_mean = self.mean[shown], self.fitted_mean[shown]
        fitted = self.fitted_variance[shown]
        style = point_style(line_kwargs, len(mean), color=DATA, label="observed", zorder=3)
        self.observed_ = axes.plot(mean, self.variance[shown], **style)[0]
        style = point_style(
            None,
            len(mean),
            color=MODEL,
            markerfacecolor="none",
            markersize=5.0,
            markeredgewidth=0.8,
            label="fitted",
        )
        self.fitted_ = axes.plot(fitted_mean, fitted, **style)[0]
        self.trend_ = None
        axes.set(xlabel="mean count", ylabel="variance of counts")
        if not shown.any():
            nothing(axes)
        else:
            ends = np.concatenate([mean, fitted_mean])
            log_log(axes, ends, np.concatenate([ends, self.variance[shown], fitted]))
            low, high = axes.get_xlim()
            grid = np.geomspace(low, high, 100)
            axes.plot(grid, grid, **line_style(None, color=MUTED, linewidth=0.8, label="Poisson"))
            phi = float(np.median((fitted - fitted_mean) / fitted_mean**2))
            if phi > 0:
                self.trend_ = axes.plot(
                    grid,
                    grid + phi * grid**2,
                    color=ink(axes),
                    linewidth=0.9,
                    linestyle="--",
                    label=f"mean + {phi:.2g} mean$^2$",
                )[0]
            legend(axes)
        hidden = int((~shown).sum())
        title(axes, None, f"{hidden} constant gene(s) not shown" if hidden else None)
        self.ax_, self.figure_ = axes, axes.figure
        return self


def _moments(values: FloatArray, share: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean and the variance of each column, over rows that have a share of all."""
    first = values[0]
    from_first = values - first  # of a constant, there is no rounding
    mean = share @ from_first
    return first + mean, share @ np.square(from_first - mean)
