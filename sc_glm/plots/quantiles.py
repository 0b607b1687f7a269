"""Normal quantile-quantile plot of randomised quantile residuals."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import special, stats
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm.diagnostics.residuals import weighted_quantile_residuals
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    BAND,
    DATA,
    LEVELS,
    identity,
    legend_of_names,
    line_style,
    panels,
    point_style,
    require_matplotlib,
    text_color,
    title,
)
from sc_glm.plots.docstring_entries import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_N_POINTS = 500  # order statistics of a gene that are drawn; more would overlap
_MAX_GENES_IN_LEGEND = 6  # with a colour each
_MAX_VECTOR_CURVES = 50  # more curves are rasterised, to keep files of vector graphics small


@documented(ENTRIES)
class QuantileQuantileDisplay:
    """Quantiles of randomised quantile residuals against quantiles of the normal distribution.

    If the model holds, the residuals of each gene are standard normal. Then the points lie along
    the diagonal, about 95 % of them within the envelope. A steeper curve shows counts that vary
    more than the model predicts. A curve that bends up at the right end shows outliers.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_residuals` if the residuals are
    already computed.

    Parameters
    ----------
    theoretical : array-like of shape (n_points,)
        Medians of order statistics of a standard normal sample.
    ordered : array-like of shape (n_points, n_genes)
        The same order statistics of each gene's residuals.
    lower, upper : array-like of shape (n_points,)
        Ends of the envelope: an interval for each order statistic.
    genes : sequence of str of length n_genes
        Names of the genes.

    Attributes
    ----------
    {ax_}
    {figure_}
    lines_ : list of matplotlib Line2D
        The residuals of each gene: points for a single gene, curves for several.
    envelope_ : matplotlib PolyCollection
        The envelope.

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
    @documented(ENTRIES)
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
        """Compute the quantile residuals of a fitted model's genes, and draw them.

        A cell of weight three has three residuals, like three cells.

        Parameters
        ----------
        {model}
        {X}
        {y}
        {genes}
        {sample_weight}
        {confidence}
        random_state : int, RandomState, Generator or None, default=None
            Seed of the randomisation of the residuals.
        {ax}
        {line_kwargs_of_residuals}

        Returns
        -------
        QuantileQuantileDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_invalid_data}
        ValueError
            If `confidence` is not a probability.

        See Also
        --------
        sc_glm.diagnostics.quantile_residuals : Computes the residuals.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        data = FittedData.of(model, X, y, genes=genes)
        residuals, weights = weighted_quantile_residuals(data, sample_weight, random_state)
        display = cls._from_weighted_residuals(residuals, weights, data.names, confidence)
        return display.plot(ax, line_kwargs=line_kwargs)

    @classmethod
    @documented(ENTRIES)
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
            Names of the genes; None takes the column names of a DataFrame, or numbers.
        {confidence}
        {ax}
        {line_kwargs_of_residuals}

        Returns
        -------
        QuantileQuantileDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        TypeError
            If `confidence` is not a number.
        ValueError
            If residuals are missing, or if `confidence` is not a probability.

        Notes
        -----
        The i-th order statistic of n uniform numbers has a Beta(i, n + 1 - i) distribution. The
        normal quantiles of its median are the horizontal coordinates of the points, and the normal
        quantiles of its tails are the envelope. The envelope is pointwise, and ignores that
        coefficients are estimated. Residuals of the cells of the fit vary less than it says, and
        residuals of other cells more. For many cells, a few hundred order statistics are drawn, at
        equal distances.
        """
        values = np.asarray(residuals, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if np.isnan(values).any():
            raise ValueError(f"{int(np.isnan(values).sum())} residual(s) are NaN.")
        if genes is None:
            genes = [str(name) for name in getattr(residuals, "columns", range(values.shape[1]))]
        display = cls._from_weighted_residuals(values, np.ones(len(values)), genes, confidence)
        return display.plot(ax, line_kwargs=line_kwargs)

    @classmethod
    def _from_weighted_residuals(
        cls, values: FloatArray, weights: FloatArray, genes: Iterable[str], confidence: float
    ) -> Self:
        """Compute the order statistics of weighted residuals, and their envelope."""
        check_scalar(
            confidence, "confidence", Real, min_val=0, max_val=1, include_boundaries="neither"
        )
        # The effective sample size of weighted residuals (Kish 1965, Survey Sampling).
        n = max(1, round(weights.sum() ** 2 / np.square(weights).sum()))
        ranks = _ranks(n)
        tails = np.array([(1 - confidence) / 2, 0.5, (1 + confidence) / 2])
        uniform = stats.beta.ppf(tails[:, None], ranks, n + 1 - ranks)
        lower, theoretical, upper = np.asarray(special.ndtri(uniform))
        return cls(
            theoretical=theoretical,
            ordered=_order_statistics(values, weights, (ranks - 0.5) / n),
            lower=lower,
            upper=upper,
            genes=genes,
        )

    @documented(ENTRIES)
    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the residuals and the envelope.

        Parameters
        ----------
        {ax}
        {line_kwargs_of_residuals}

        Returns
        -------
        QuantileQuantileDisplay
            The display itself.
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
                color = LEVELS[i] if n_genes <= _MAX_GENES_IN_LEGEND else DATA
                style = line_style(
                    line_kwargs,
                    color=color,
                    linewidth=1.0,
                    alpha=0.9
                    if n_genes <= _MAX_GENES_IN_LEGEND
                    else max(0.03, 0.9 / np.sqrt(n_genes)),
                    rasterized=n_genes > _MAX_VECTOR_CURVES,
                )
            self.lines_ += axes.plot(self.theoretical, values, label=self.genes[i], **style)
        for end in (self.lower, self.upper):  # above the curves, which may hide the envelope
            axes.plot(self.theoretical, end, color=text_color(axes), linewidth=0.6, linestyle=":")
        infinite = int((~np.isfinite(self.ordered)).sum())
        title(
            axes,
            self.genes[0] if n_genes == 1 else f"{n_genes} genes",
            f"{infinite} infinite not shown" if infinite else None,
        )
        if 1 < n_genes <= _MAX_GENES_IN_LEGEND:
            legend_of_names(axes, self.lines_, self.genes)
        axes.set(xlabel="normal quantile", ylabel="quantile residual")
        self.ax_, self.figure_ = axes, axes.figure
        return self


def _order_statistics(
    values: FloatArray, weights: FloatArray, probabilities: FloatArray
) -> FloatArray:
    """Return the weighted quantiles of each column at these probabilities."""
    order = np.argsort(values, axis=0)
    cumulative = np.cumsum(weights[order], axis=0)
    ranks = [
        np.searchsorted(cumulative_weights, probabilities * cumulative_weights[-1])
        for cumulative_weights in cumulative.T
    ]
    return np.take_along_axis(values, np.take_along_axis(order, np.stack(ranks, 1), axis=0), axis=0)


def _ranks(n: int) -> NDArray[np.int64]:
    """Choose among the ranks 1 to n, at equal distances on the normal scale."""
    if n <= _N_POINTS:
        return np.arange(1, n + 1)
    last = special.ndtri(1 - 0.5 / n)
    positions = special.ndtr(np.linspace(-last, last, _N_POINTS)) * n + 0.5
    return np.unique(np.rint(positions).astype(np.int64))
