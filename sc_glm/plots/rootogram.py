"""Observed and expected frequencies of counts."""

from __future__ import annotations

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import stats

from sc_glm.distributions.log_mass import POISSON_SIZE
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import BAND, DATA, MODEL, ink, legend, panels, require_matplotlib, title

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.plots.axes import Axes

_N_BINS = 36
_SUMMED = 60  # counts in a bin, up to which their masses cost less than a distribution function
_TICKS = 6


class RootogramDisplay:
    """Hanging rootogram: how often each count occurs, beside how often the model expects it.

    Bars of the observed frequencies hang from the expected ones, both as square roots, so that a
    deviation is about as large by chance in every bar. A bar that ends above zero is of counts
    that are rarer than expected, one that ends below of counts that are more frequent. A bar at
    zero that ends below, beside one at 1 that ends above, is zero inflation that the model lacks.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    edges : array-like of shape (n_bins + 1,)
        The smallest count of each bin, and where the last one ends; infinity leaves it open.
    observed : array-like of shape (n_bins,)
        Number of counts in each bin.
    expected : array-like of shape (n_bins,)
        Number that the model expects.
    lower, upper : array-like of shape (n_bins,)
        Interval in which the model sees 95 % of such numbers.
    name : str, default=None
        What the counts are of.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the rootogram.
    figure_ : matplotlib Figure
        The figure of the axes.
    bars_ : matplotlib BarContainer
        The observed frequencies.
    line_ : matplotlib Line2D
        The expected ones.
    band_ : matplotlib BarContainer
        Where bars end in 95 % of data sets that the model draws.

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
        """Draw the rootogram of a fitted model's genes.

        Parameters
        ----------
        model : estimator
            A fitted regressor, a pipeline that ends in one, a search over these, or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
        X : array-like, DataFrame or AnnData
            What the model predicts from.
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None where `X` is an AnnData that holds them. Counts
            that are not integers are rounded.
        genes : str or sequence of str, default=None
            A gene, or several, whose frequencies are added up; None is all.
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the cells; an integer weight is as many cells.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        bar_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.bar` for the bars.

        Returns
        -------
        RootogramDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `X`, `y` or `genes` are not what they should be.

        Notes
        -----
        Few different counts have a bin each. Many have bins that widen from one count upwards; what
        is larger than twice the 99 % quantile is in the last one. The expected number of a bin is
        the sum of its probabilities over cells, and the band is that of a binomial number with the
        mean and the variance of the model's. It takes the model as given. But coefficients follow
        the cells of the fit, whose bars stray less than it says; those of other cells stray more.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        fitted, weights = FittedData.of(model, X, y, genes=genes).with_weight(sample_weight)
        stored = fitted.counts.by_gene(slice(None))
        values, place = np.unique(np.rint(stored.data), return_inverse=True)
        values = np.append(0.0, values)
        sums = np.bincount(place + 1, weights[stored.indices], minlength=len(values))
        frequencies = sums.astype(np.float64)
        frequencies[0] = weights.sum() * len(fitted.names) - frequencies.sum()
        edges = _edges(values, frequencies)
        observed = np.histogram(values, edges, weights=frequencies)[0]
        expected, squares = np.zeros(len(observed)), np.zeros(len(observed))
        for block in fitted.blocks():
            for i, probability in enumerate(_probabilities(block.dist, edges)):
                expected[i] += (weights @ probability).sum()
                squares[i] += (weights @ np.square(probability)).sum()
        lower, upper = _band(expected, squares)
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

    def plot(self, ax: Axes | None = None, *, bar_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the rootogram.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        bar_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.bar` for the bars.

        Returns
        -------
        RootogramDisplay
            Itself.
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
            bar.sticky_edges.y.clear()  # they would end at the edge of the axes
        axes.axhline(0.0, color=ink(axes), linewidth=0.6, zorder=2.5)
        self.line_ = axes.plot(
            at, tops, color=MODEL, linewidth=1.2, marker="o", markersize=2.5, label="expected"
        )[0]
        step = -(-len(at) // _TICKS)
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


def _edges(values: FloatArray, frequencies: FloatArray) -> FloatArray:
    """Cut counts into bins: single counts, or if these are many, bins that widen."""
    reached = np.cumsum(frequencies) / frequencies.sum()
    top = min(values[-1], max(10.0, 2 * values[np.searchsorted(reached, 0.99)]))
    growth = 0.0 if top + 2 <= _N_BINS else 0.02
    while len(edges := _widening(top, growth)) > _N_BINS:
        growth += 0.02
    return np.array([*edges, np.inf])


def _widening(top: float, growth: float) -> list[float]:
    """Return where bins begin up to `top` and one beyond, each wider by a part of its begin."""
    edges = [0.0]
    while edges[-1] <= top:
        edges.append(edges[-1] + max(1.0, np.floor(growth * edges[-1])))
    return edges


def _probabilities(dist: NB | ZINB, edges: FloatArray) -> Iterator[FloatArray]:
    """Yield the probability of each bin for each distribution."""
    below: FloatArray = np.zeros(dist.shape)
    masses = _masses(dist)
    for first, stop in pairwise(edges[:-1]):
        if stop - first <= _SUMMED:  # as all bins before it, which are no wider
            inside = np.zeros(dist.shape)
            for _ in np.arange(first, stop):
                inside += next(masses)
        else:
            inside = np.maximum(dist.cdf(stop - 1) - below, 0.0)
        below += inside
        yield inside
    yield np.maximum(1.0 - below, 0.0)


def _masses(dist: NB | ZINB) -> Iterator[FloatArray]:
    """Yield the probability of 0, 1, 2, ...: from 1 on, each by its ratio to the one before."""
    yield dist.pmf(0)
    r = np.minimum(dist.r, POISSON_SIZE)
    odds = dist.mu / (r + dist.mu)
    mass = dist.pmf(1)
    # Where that of 1 underflows, the mean is above 500: no count of a narrow bin is likely.
    for k in count(1):
        yield mass
        with np.errstate(under="ignore"):
            mass = mass * ((r + k) / (k + 1) * odds)


def _band(expected: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return 95 % intervals of sums of indicators with these sums of p and of p²."""
    n = np.divide(np.square(expected), squares, out=np.ones_like(expected), where=squares > 0)
    n = np.maximum(np.rint(n), np.ceil(expected))  # the mean is n p, the variance n p (1 - p)
    lower, upper = stats.binom.interval(0.95, n, expected / n)
    return np.asarray(lower), np.asarray(upper)
