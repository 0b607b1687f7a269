"""Means and variances of genes: observed, and under the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sc_glm._contract.docstrings import documented
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    DATA,
    MODEL,
    MUTED,
    legend,
    line_style,
    log_log,
    panels,
    point_style,
    require_matplotlib,
    text_color,
    title,
    write_nothing_to_show,
)
from sc_glm.plots.docstring_entries import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes


@documented(ENTRIES)
class MeanVarianceDisplay:
    """Variances of genes against their means: observed, and under the model.

    By the law of total variance, the model's variance of a gene over all cells is the variance of
    its means plus the mean of its variances. If the two points of a gene differ much, the model
    does not describe its mean or its dispersion.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    mean, variance : array-like of shape (n_genes,)
        Mean and variance of each gene's counts over the cells.
    fitted_mean, fitted_variance : array-like of shape (n_genes,)
        Mean and variance over the cells under the model.

    Attributes
    ----------
    {ax_}
    {figure_}
    observed_, fitted_ : matplotlib Line2D
        The points of the genes.
    trend_ : matplotlib Line2D or None
        Mean-variance curve of the median dispersion; None if no overdispersion is fitted.

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
    @documented(ENTRIES)
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
        {model}
        {X}
        {y}
        {genes}
        {sample_weight}
        {ax}
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the observed points.

        Returns
        -------
        MeanVarianceDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_invalid_data}
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

    @documented(ENTRIES)
    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the points, the Poisson line and the curve of the median dispersion.

        Parameters
        ----------
        {ax}
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the observed points.

        Returns
        -------
        MeanVarianceDisplay
            The display itself.

        Notes
        -----
        The curve is ``mean + phi * mean**2``, where ``phi`` is the median over genes of
        ``(fitted_variance - fitted_mean) / fitted_mean**2``. Genes with constant counts cannot be
        shown on logarithmic axes; their number is written above the axes.
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
            write_nothing_to_show(axes)
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
                    color=text_color(axes),
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
    """Return the weighted mean and variance of each column; the weights of rows add up to one."""
    first = values[0]
    shifted = values - first  # so that the variance of a constant is exactly zero
    mean = share @ shifted
    return first + mean, share @ np.square(shifted - mean)
