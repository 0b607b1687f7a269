"""Randomised quantile residuals against the normal distribution that they should have."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import special, stats
from sklearn.utils import check_scalar

from sc_glm.diagnostics.residuals import weighted_quantile_residuals
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    BAND,
    DATA,
    LEVELS,
    identity,
    ink,
    legend_of_names,
    line_style,
    panels,
    point_style,
    require_matplotlib,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_N_POINTS = 500  # of a gene's residuals; they are dense where they are left out
_NAMED = 6
_VECTORS = 50  # curves that are not pixels in a vector graphic


class QuantileQuantileDisplay:
    """Quantiles of randomised quantile residuals against those of the normal distribution.

    If the model holds, residuals are standard normal in each gene, and its points lie along the
    diagonal, within the envelope for about 95 % of the points. A curve that is steeper has counts
    that vary more than the model says; one that bends away at the right end has outliers.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_residuals` if there are
    residuals already.

    Parameters
    ----------
    theoretical : array-like of shape (n_points,)
        Median of each of these order statistics of a normal sample.
    ordered : array-like of shape (n_points, n_genes)
        The order statistics of each gene's residuals.
    lower, upper : array-like of shape (n_points,)
        The interval of each order statistic.
    genes : sequence of str of length n_genes
        Names.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        The figure of the axes.
    lines_ : list of matplotlib Line2D
        Each gene's residuals: points of a single gene, curves of several.
    envelope_ : matplotlib PolyCollection
        The intervals.

    References
    ----------
    P. K. Dunn and G. K. Smyth (1996), "Randomized quantile residuals", Journal of Computational and
    Graphical Statistics 5, 236-244.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import QuantileQuantileDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    >>> display = QuantileQuantileDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, data.counts, random_state=0
    ... )
    >>> len(display.lines_)
    20
    """

    def __init__(
        self,
        *,
        theoretical: ArrayLike,
        ordered: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        genes: Iterable[str],
    ) -> None:
        self.theoretical = np.asarray(theoretical, dtype=np.float64)
        self.ordered = np.asarray(ordered, dtype=np.float64)
        self.lower = np.asarray(lower, dtype=np.float64)
        self.upper = np.asarray(upper, dtype=np.float64)
        self.genes = list(genes)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        genes: str | Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        confidence: float = 0.95,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the residuals of a fitted model's genes.

        A cell of weight three has three residuals of its own, as three cells have.

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
        confidence : float, default=0.95
            Probability of the envelope at each point.
        random_state : int, RandomState, Generator or None, default=None
            Seed of the residuals' random part.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the residuals.

        Returns
        -------
        QuantileQuantileDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `X`, `y`, `genes` or `confidence` are not what they should be.

        See Also
        --------
        sc_glm.diagnostics.quantile_residuals : The residuals.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        data = FittedData.of(model, X, y, genes=genes)
        residuals, counted = weighted_quantile_residuals(data, sample_weight, random_state)
        display = cls._of(residuals, counted, data.names, confidence)
        return display.plot(ax, line_kwargs=line_kwargs)

    @classmethod
    def from_residuals(
        cls,
        residuals: ArrayLike,
        *,
        genes: Iterable[str] | None = None,
        confidence: float = 0.95,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw residuals that should be standard normal.

        Parameters
        ----------
        residuals : array-like of shape (n_cells, n_genes) or (n_cells,)
            Residuals without missing values.
        genes : iterable of str of length n_genes, default=None
            Names; None are the columns of a DataFrame, or numbers.
        confidence : float, default=0.95
            Probability of the envelope at each point.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the residuals.

        Returns
        -------
        QuantileQuantileDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `confidence` is no number.
        ValueError
            If residuals are missing, or `confidence` is no probability.

        Notes
        -----
        The i-th of n ordered uniform numbers has a Beta(i, n + 1 - i) distribution. Points stand at
        the normal scores of its median, the envelope at those of its quantiles. It is for each
        point alone and for a model that was known beforehand: residuals of the cells of the fit
        stray less, those of other cells more. Of many cells, a few hundred points
        at even distances are kept.
        """
        values = np.asarray(residuals, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if np.isnan(values).any():
            raise ValueError(f"{int(np.isnan(values).sum())} residual(s) are NaN.")
        if genes is None:
            genes = [str(name) for name in getattr(residuals, "columns", range(values.shape[1]))]
        display = cls._of(values, np.ones(len(values)), genes, confidence)
        return display.plot(ax, line_kwargs=line_kwargs)

    @classmethod
    def _of(
        cls, values: FloatArray, counted: FloatArray, genes: Iterable[str], confidence: float
    ) -> Self:
        """Order residuals that count so much each."""
        check_scalar(
            confidence, "confidence", Real, min_val=0, max_val=1, include_boundaries="neither"
        )
        # As many that count alike tell as much (Kish 1965, Survey Sampling).
        n = max(1, round(counted.sum() ** 2 / np.square(counted).sum()))
        ranks = _ranks(n)
        tails = np.array([(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
        uniform = stats.beta.ppf(tails[:, None], ranks, n + 1 - ranks)
        lower, theoretical, upper = np.asarray(special.ndtri(uniform))
        return cls(
            theoretical=theoretical,
            ordered=_order_statistics(values, counted, (ranks - 0.5) / n),
            lower=lower,
            upper=upper,
            genes=genes,
        )

    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the points and their envelope.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the residuals.

        Returns
        -------
        QuantileQuantileDisplay
            Itself.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        self.envelope_ = axes.fill_between(
            self.theoretical, self.lower, self.upper, color=BAND, linewidth=0, zorder=0
        )
        identity(axes, self.theoretical[0], self.theoretical[-1])
        n_genes = len(self.genes)
        self.lines_ = []
        for i, values in enumerate(self.ordered.T):
            if n_genes == 1:
                style = point_style(line_kwargs, len(values), color=DATA, markersize=2.5)
            else:
                color = LEVELS[i] if n_genes <= _NAMED else DATA
                style = line_style(
                    line_kwargs,
                    color=color,
                    linewidth=1.0,
                    alpha=0.9 if n_genes <= _NAMED else max(0.03, 0.9 / np.sqrt(n_genes)),
                    rasterized=n_genes > _VECTORS,
                )
            self.lines_ += axes.plot(self.theoretical, values, label=self.genes[i], **style)
        for end in (self.lower, self.upper):  # over the curves, which may hide the envelope
            axes.plot(self.theoretical, end, color=ink(axes), linewidth=0.6, linestyle=":")
        infinite = int((~np.isfinite(self.ordered)).sum())
        title(
            axes,
            self.genes[0] if n_genes == 1 else f"{n_genes} genes",
            f"{infinite} infinite not shown" if infinite else None,
        )
        if 1 < n_genes <= _NAMED:
            legend_of_names(axes, self.lines_, self.genes)
        axes.set(xlabel="normal quantile", ylabel="quantile residual")
        self.ax_, self.figure_ = axes, axes.figure
        return self


def _order_statistics(values: FloatArray, counted: FloatArray, shares: FloatArray) -> FloatArray:
    """Return the values of each column up to which such shares of all are counted."""
    place = np.argsort(values, axis=0)
    sums = np.cumsum(counted[place], axis=0)
    found = [np.searchsorted(own, shares * own[-1]) for own in sums.T]
    return np.take_along_axis(values, np.take_along_axis(place, np.stack(found, 1), axis=0), axis=0)


def _ranks(n: int) -> NDArray[np.int64]:
    """Choose among the ranks 1 to n, at even distances on the normal scale."""
    if n <= _N_POINTS:
        return np.arange(1, n + 1)
    last = special.ndtri(1 - 0.5 / n)
    positions = special.ndtr(np.linspace(-last, last, _N_POINTS)) * n + 0.5
    return np.unique(np.rint(positions).astype(np.int64))
