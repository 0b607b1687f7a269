"""Summaries of genes in the counts, and in counts that the model draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from sc_glm.distributions.sampling import replicate_cells
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    DATA,
    identity,
    log_log,
    nothing,
    panels,
    point_style,
    require_matplotlib,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_NAMES = {
    "mean": "mean count",
    "variance": "variance of counts",
    "zeros": "fraction of zeros",
    "correlation": "correlation of genes",
}
_CORRELATED = 100  # genes, of which every pair is a point


class SimulatedSummariesDisplay:
    """Summaries of genes in counts that the model draws, against those in the observed counts.

    The mean, the variance and the zeros of genes, and the correlations of pairs of them. One draw
    for the same cells stands against the counts, gene by gene and pair by pair. A model
    of independent genes has those correlations alone that come from the covariates, so that
    points off the diagonal of the last panel tell of what the formulas leave out.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    observed, simulated : dict of str to ndarray
        ``mean``, ``variance`` and ``zeros`` (the fraction of counts that are zero), each of shape
        (n_genes,), and ``correlation`` of shape (n_pairs,): Pearson's, of log(1 + count).

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes of shape (4,)
        Axes with means, variances, zeros and correlations.
    figure_ : matplotlib Figure
        The figure of the axes.
    lines_ : list of matplotlib Line2D
        The points of each panel.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import SimulatedSummariesDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(FormulaTransformer(**data.formulas), NegBinRegressor())
    >>> display = SimulatedSummariesDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, data.counts, random_state=0
    ... )
    >>> display.simulated["zeros"].shape, display.simulated["correlation"].shape
    ((20,), (190,))
    """

    def __init__(
        self, *, observed: Mapping[str, FloatArray], simulated: Mapping[str, FloatArray]
    ) -> None:
        self.observed = observed
        self.simulated = simulated

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        genes: str | Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = None,
        ax: Any = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw counts from a fitted model, and their summaries against those of the data.

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
        random_state : int, RandomState, Generator or None, default=None
            Seed of the counts that are drawn: those of the model's ``sample_sparse``. A cell of
            weight three is drawn three times.
        ax : array-like of four matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.

        Returns
        -------
        SimulatedSummariesDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `X`, `y` or `genes` are not what they should be.

        Notes
        -----
        Correlations are those of the 100 genes with the largest means, less those without any
        variation in one of both.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        fitted, weights = FittedData.of(model, X, y, genes=genes).with_weight(sample_weight)
        cells, counted = replicate_cells(weights)
        simulated = fitted.sample_sparse(cells, random_state)
        both = (
            (fitted.counts.by_gene(slice(None)).astype(np.float64), weights),
            (sparse.csr_array(simulated.T).astype(np.float64), counted),
        )
        moments = [mean_variance_axis(counts, axis=1, weights=w) for counts, w in both]
        varying = np.logical_and(*(variance > 0 for _, variance in moments))
        top = np.argsort(-moments[0][0], kind="stable")
        top = np.sort(top[varying[top]][:_CORRELATED])
        observed, drawn = (_summaries(counts, w, top) for counts, w in both)
        display = cls(observed=observed, simulated=drawn)
        return display.plot(ax, line_kwargs=line_kwargs)

    def plot(self, ax: Any = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the four panels.

        Parameters
        ----------
        ax : array-like of four matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.

        Returns
        -------
        SimulatedSummariesDisplay
            Itself.
        """
        axes = panels(ax, f"{type(self).__name__}.plot", (2, 2), (2.9, 2.9))
        self.lines_ = []
        for panel, (field, name) in zip(axes, _NAMES.items(), strict=True):
            x, y = self.observed[field], self.simulated[field]
            logarithmic = field in ("mean", "variance")
            shown = (x > 0) & (y > 0) if logarithmic else np.isfinite(x) & np.isfinite(y)
            style = point_style(line_kwargs, len(x), color=DATA, zorder=2)
            self.lines_ += panel.plot(x[shown], y[shown], **style)
            panel.set(xlabel="observed", ylabel="simulated")
            hidden = int((~shown).sum())
            title(panel, name, f"{hidden} gene(s) at 0" if hidden else None)
            _square(panel, np.concatenate([x[shown], y[shown]]), logarithmic=logarithmic)
        self.ax_, self.figure_ = axes, axes[0].figure
        return self


def _summaries(
    counts: sparse.csr_array, weights: FloatArray, correlated: NDArray[np.intp]
) -> dict[str, FloatArray]:
    """Summarise counts, genes x cells, and correlate some of the genes."""
    mean, variance = mean_variance_axis(counts, axis=1, weights=weights)
    share = weights / weights.sum()
    positive = sparse.csr_array((np.ones(counts.nnz), counts.indices, counts.indptr), counts.shape)
    zeros = 1.0 - positive @ weights / weights.sum()
    some = counts[correlated].astype(np.float64).log1p()
    center, spread = mean_variance_axis(some, axis=1, weights=weights)
    products = (some.multiply(share).tocsr() @ some.T).toarray()
    covariance = products - np.outer(center, center)
    scale = np.sqrt(spread)
    pairs = np.triu_indices(len(correlated), 1)
    correlation = (covariance / np.outer(scale, scale))[pairs]
    return dict(zip(_NAMES, (mean, variance, zeros, correlation), strict=True))


def _square(panel: Axes, values: FloatArray, *, logarithmic: bool) -> None:
    """Give both axes one range, and draw where they are equal."""
    if not len(values):
        nothing(panel)
        return
    if logarithmic:
        log_log(panel, values, values)
    else:
        margin = max(0.05 * np.ptp(values), 0.02)
        ends = values.min() - margin, values.max() + margin
        panel.set(xlim=ends, ylim=ends)
        panel.locator_params(nbins=5)
    identity(panel, *panel.get_xlim())
    panel.set_aspect("equal", adjustable="box")
