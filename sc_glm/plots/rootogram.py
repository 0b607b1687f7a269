"""Observed and expected frequencies of counts."""

from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import stats

from sc_glm._contract.docstrings import documented
from sc_glm.distributions.log_mass import POISSON_SIZE
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    BAND,
    DATA,
    MODEL,
    legend,
    panels,
    require_matplotlib,
    text_color,
    title,
)
from sc_glm.plots.docstring_entries import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.plots.axes import Axes

_MAX_BINS = 36
# Largest number of counts in a bin whose probability is a sum of masses. For wider bins, a
# difference of distribution functions takes less time.
_MAX_SUMMED_MASSES = 60
_MAX_TICKS = 6


@documented(ENTRIES)
class RootogramDisplay:
    """Hanging rootogram: observed and expected frequencies of counts.

    Bars of the observed frequencies hang from the expected ones. Both are square roots, which
    stabilises the variance of the deviations. A bar that ends above zero shows counts that are
    rarer than expected; a bar that ends below zero shows counts that are more frequent. If the bar
    of count 0 ends below and the bar of count 1 above zero, the model lacks zero inflation.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    edges : array-like of shape (n_bins + 1,)
        The smallest count of each bin, and the end of the last one, which may be infinite.
    observed : array-like of shape (n_bins,)
        Number of counts in each bin.
    expected : array-like of shape (n_bins,)
        Number of counts that the model expects in each bin.
    lower, upper : array-like of shape (n_bins,)
        Ends of the interval that contains 95 % of such numbers under the model.
    name : str, default=None
        Name of the gene or genes, for the title.

    Attributes
    ----------
    {ax_}
    {figure_}
    bars_ : matplotlib BarContainer
        The observed frequencies.
    line_ : matplotlib Line2D
        The expected frequencies.
    band_ : matplotlib BarContainer
        Interval in which bars end in 95 % of data sets from the model.

    References
    ----------
    C. Kleiber and A. Zeileis (2016), "Visualizing count data regressions using rootograms", The
    American Statistician 70, 296-303.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import RootogramDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    >>> display = RootogramDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, data.counts, genes="gene_1"
    ... )
    >>> display.ax_.get_xlabel()
    'count'

    Several genes, side by side:

    >>> from matplotlib import pyplot as plt
    >>> figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    >>> for gene, ax in zip(["gene_1", "gene_2", "gene_3"], axes):
    ...     _ = RootogramDisplay.from_estimator(model, data.obs, data.counts, genes=gene, ax=ax)
    >>> plt.close("all")
    """

    def __init__(
        self,
        *,
        edges: ArrayLike,
        observed: ArrayLike,
        expected: ArrayLike,
        lower: ArrayLike,
        upper: ArrayLike,
        name: str | None = None,
    ) -> None:
        self.edges = np.asarray(edges, dtype=np.float64)
        self.observed = np.asarray(observed, dtype=np.float64)
        self.expected = np.asarray(expected, dtype=np.float64)
        self.lower = np.asarray(lower, dtype=np.float64)
        self.upper = np.asarray(upper, dtype=np.float64)
        self.name = name

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
        bar_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Compute the frequencies of a fitted model's counts, and draw the rootogram.

        Parameters
        ----------
        {model}
        {X}
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None if `X` is an AnnData that holds the counts. Counts
            that are not integers are rounded.
        genes : str or sequence of str, default=None
            Names of the genes whose frequencies are summed; None means all genes of the fit.
        {sample_weight}
        {ax}
        {bar_kwargs}

        Returns
        -------
        RootogramDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_invalid_data}

        Notes
        -----
        If the counts are small, each has a bin. Otherwise bins widen with the count, and counts
        larger than twice the 99 % quantile are in the last bin. The expected number of a bin is the
        sum of its probabilities over cells. The band is the interval of a binomial number with the
        same mean and variance as the model's. It ignores that coefficients are estimated: bars of
        the cells of the fit vary less than it says, and bars of other cells more.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        fitted, weights = FittedData.of(model, X, y, genes=genes).with_positive_weight(
            sample_weight
        )
        values, frequencies = _tabulate(fitted, weights)
        edges = _bin_edges(values, frequencies)
        observed = np.histogram(values, edges, weights=frequencies)[0]
        expected, sum_of_squares = _expected_frequencies(fitted, weights, edges)
        lower, upper = _binomial_interval(expected, sum_of_squares)
        name = fitted.names[0] if len(fitted.names) == 1 else f"{len(fitted.names)} genes"
        display = cls(
            edges=edges,
            observed=observed,
            expected=expected,
            lower=lower,
            upper=upper,
            name=str(name),
        )
        return display.plot(ax, bar_kwargs=bar_kwargs)

    @documented(ENTRIES)
    def plot(self, ax: Axes | None = None, *, bar_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the rootogram.

        Parameters
        ----------
        {ax}
        {bar_kwargs}

        Returns
        -------
        RootogramDisplay
            The display itself.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        at = np.arange(len(self.observed))
        tops, heights = np.sqrt(self.expected), np.sqrt(self.observed)
        low, high = tops - np.sqrt(self.upper), tops - np.sqrt(self.lower)
        style = {"width": 0.85, "color": DATA, "alpha": 0.75, "label": "observed"}
        self.bars_ = axes.bar(at, heights, bottom=tops - heights, **(style | (bar_kwargs or {})))
        self.band_ = axes.bar(
            at,
            high - low,
            bottom=low,
            width=1.0,
            color=BAND,
            alpha=0.7,
            zorder=2,
            label="95 % of draws",
        )
        for bar in (*self.bars_, *self.band_):
            bar.sticky_edges.y.clear()  # so that axes have margins beyond the bars
        axes.axhline(0.0, color=text_color(axes), linewidth=0.6, zorder=2.5)
        self.line_ = axes.plot(
            at, tops, color=MODEL, linewidth=1.2, marker="o", markersize=2.5, label="expected"
        )[0]
        step = -(-len(at) // _MAX_TICKS)
        labelled = [*range(0, len(at) - step, step), len(at) - 1]
        axes.set_xticks(labelled, [self._label(i) for i in labelled])
        widest = np.diff(self.edges[:-1]).max(initial=1.0)
        label = "count" if widest == 1 else "smallest count of the bin"
        axes.set(xlabel=label, ylabel=r"$\sqrt{\mathrm{frequency}}$", xlim=(-0.8, len(at) - 0.2))
        title(axes, self.name)
        legend(axes)
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _label(self, i: int) -> str:
        return f"{'≥ ' if np.isinf(self.edges[i + 1]) else ''}{self.edges[i]:.0f}"


def _tabulate(fitted: FittedData, weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the distinct counts, rounded to integers, and their weighted frequencies."""
    positive = fitted.counts.by_gene(slice(None))
    values, codes = np.unique(np.rint(positive.data), return_inverse=True)
    values = np.append(0.0, values)
    sums = np.bincount(codes + 1, weights[positive.indices], minlength=len(values))
    frequencies = sums.astype(np.float64)
    frequencies[0] = weights.sum() * len(fitted.names) - frequencies.sum()
    return values, frequencies


def _expected_frequencies(
    fitted: FittedData, weights: FloatArray, edges: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return sums over cells and genes of each bin's probability and of its square."""
    expected, sum_of_squares = np.zeros(len(edges) - 1), np.zeros(len(edges) - 1)
    for block in fitted.blocks():
        for i, probability in enumerate(_probabilities(block.dist, edges)):
            expected[i] += (weights @ probability).sum()
            sum_of_squares[i] += (weights @ np.square(probability)).sum()
    return expected, sum_of_squares


def _bin_edges(values: FloatArray, frequencies: FloatArray) -> FloatArray:
    """Return edges of bins of single counts or, if there are too many, of bins that widen."""
    cumulative = np.cumsum(frequencies) / frequencies.sum()
    largest = min(values[-1], max(10.0, 2 * values[np.searchsorted(cumulative, 0.99)]))
    growth = 0.0 if largest + 2 <= _MAX_BINS else 0.02
    while len(edges := _widening_edges(largest, growth)) > _MAX_BINS:
        growth += 0.02
    return np.array([*edges, np.inf])


def _widening_edges(largest: float, growth: float) -> list[float]:
    """Return edges from 0 to beyond ``largest``; a bin's width is ``growth`` times its start."""
    edges = [0.0]
    while edges[-1] <= largest:
        edges.append(edges[-1] + max(1.0, np.floor(growth * edges[-1])))
    return edges


def _probabilities(dist: NB | ZINB, edges: FloatArray) -> Iterator[FloatArray]:
    """Yield the probability of each bin under each distribution."""
    below: FloatArray = np.zeros(dist.shape)
    masses = _masses(dist)
    for first, stop in pairwise(edges[:-1]):
        if stop - first <= _MAX_SUMMED_MASSES:  # so are all bins before it, which are not wider
            probability = np.zeros(dist.shape)
            for _ in np.arange(first, stop):
                probability += next(masses)
        else:
            probability = np.maximum(dist.cdf(stop - 1) - below, 0.0)
        below += probability
        yield probability
    yield np.maximum(1.0 - below, 0.0)


def _masses(dist: NB | ZINB) -> Iterator[FloatArray]:
    """Yield the probabilities of 0, 1, 2, ...; from 2 on by the ratio of successive masses."""
    yield dist.pmf(0)
    r = np.minimum(dist.r, POISSON_SIZE)
    odds = dist.mu / (r + dist.mu)
    mass = dist.pmf(1)
    # If the mass of 1 underflows, the mean is above 500, and counts of narrow bins are unlikely.
    for k in count(1):
        yield mass
        with np.errstate(under="ignore"):
            mass = mass * ((r + k) / (k + 1) * odds)


def _binomial_interval(
    expected: FloatArray, sum_of_squares: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return 95 % intervals of sums of independent indicators, given the sums of p and of p²."""
    n = np.square(expected)
    n = np.divide(n, sum_of_squares, out=np.ones_like(expected), where=sum_of_squares > 0)
    n = np.maximum(np.rint(n), np.ceil(expected))  # the mean is n p, the variance n p (1 - p)
    lower, upper = stats.binom.interval(0.95, n, expected / n)
    return np.asarray(lower), np.asarray(upper)
