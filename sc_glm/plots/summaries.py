"""Summaries of genes in observed and in simulated counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from sc_glm._contract.docstrings import documented
from sc_glm.distributions.sampling import replicate_cells
from sc_glm.inference.fitted_model import FittedData
from sc_glm.plots.axes import (
    DATA,
    identity,
    log_log,
    panels,
    point_style,
    require_matplotlib,
    title,
    write_nothing_to_show,
)
from sc_glm.plots.docstring_entries import ENTRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_SUMMARY_NAMES = {
    "mean": "mean count",
    "variance": "variance of counts",
    "zeros": "fraction of zeros",
    "correlation": "correlation of genes (log1p)",
}
_MAX_CORRELATED_GENES = 100  # every pair of them is a point


@documented(ENTRIES)
class SimulatedSummariesDisplay:
    """Summaries of genes in simulated counts against the same summaries of observed counts.

    Counts are simulated once, for the same cells. The summaries are mean, variance and fraction of
    zeros of each gene, and the correlation of each pair of genes. The model's genes are independent
    given the covariates, so their correlations come only from covariates. Points off the diagonal
    of the last panel show covariates or dependence that the formulas do not include.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    observed, simulated : dict of str to ndarray
        ``mean``, ``variance`` and ``zeros`` (the fraction of counts that are zero), each of shape
        (n_genes,), and ``correlation`` of shape (n_pairs,): Pearson correlations of
        log(1 + count).

    Attributes
    ----------
    ax_ : ndarray of matplotlib Axes of shape (4,)
        Axes with means, variances, zeros and correlations.
    {figure_}
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
    @documented(ENTRIES)
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
        """Simulate counts from a fitted model, and draw their summaries against the data.

        Parameters
        ----------
        {model}
        {X}
        {y}
        {genes}
        {sample_weight}
        random_state : int, RandomState, Generator or None, default=None
            Seed of the simulation, which gives the counts of the model's ``sample_sparse``. A cell
            of weight three is drawn three times.
        {four_axes}
        {line_kwargs}

        Returns
        -------
        SimulatedSummariesDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_invalid_data}

        Notes
        -----
        Correlations are computed for the 100 genes with the largest means among genes that vary in
        both observed and simulated counts.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        fitted, weights = FittedData.of(model, X, y, genes=genes).with_positive_weight(
            sample_weight
        )
        cells, weights_of_draws = replicate_cells(weights)
        drawn = fitted.sample_sparse(cells, random_state)
        both = (
            (fitted.counts.by_gene(slice(None)).astype(np.float64), weights),
            (sparse.csr_array(drawn.T).astype(np.float64), weights_of_draws),
        )
        moments = [mean_variance_axis(counts, axis=1, weights=w) for counts, w in both]
        varying = np.logical_and(*(variance > 0 for _, variance in moments))
        by_mean = np.argsort(-moments[0][0], kind="stable")
        correlated = np.sort(by_mean[varying[by_mean]][:_MAX_CORRELATED_GENES])
        observed, simulated = (_summaries(counts, w, correlated) for counts, w in both)
        display = cls(observed=observed, simulated=simulated)
        return display.plot(ax, line_kwargs=line_kwargs)

    @documented(ENTRIES)
    def plot(self, ax: Any = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw a panel for each summary.

        Parameters
        ----------
        {four_axes}
        {line_kwargs}

        Returns
        -------
        SimulatedSummariesDisplay
            The display itself.
        """
        axes = panels(ax, f"{type(self).__name__}.plot", (2, 2), (2.9, 2.9))
        self.lines_ = []
        for panel, (field, name) in zip(axes, _SUMMARY_NAMES.items(), strict=True):
            x, y = self.observed[field], self.simulated[field]
            logarithmic = field in ("mean", "variance")
            shown = (x > 0) & (y > 0) if logarithmic else np.isfinite(x) & np.isfinite(y)
            style = point_style(line_kwargs, len(x), color=DATA, zorder=2)
            self.lines_ += panel.plot(x[shown], y[shown], **style)
            panel.set(xlabel="observed", ylabel="simulated")
            hidden = int((~shown).sum())
            title(panel, name, f"{hidden} gene(s) at 0" if hidden else None)
            _set_equal_axes(panel, np.concatenate([x[shown], y[shown]]), logarithmic=logarithmic)
        self.ax_, self.figure_ = axes, axes[0].figure
        return self


def _summaries(
    counts: sparse.csr_array, weights: FloatArray, correlated: NDArray[np.intp]
) -> dict[str, FloatArray]:
    """Return the summaries of counts, genes x cells, with correlations of some of the genes."""
    mean, variance = mean_variance_axis(counts, axis=1, weights=weights)
    share = weights / weights.sum()
    positive = sparse.csr_array((np.ones(counts.nnz), counts.indices, counts.indptr), counts.shape)
    zeros = 1.0 - positive @ weights / weights.sum()
    logs = counts[correlated].astype(np.float64).log1p()
    mean_log, variance_log = mean_variance_axis(logs, axis=1, weights=weights)
    products = (logs.multiply(share).tocsr() @ logs.T).toarray()
    covariance = products - np.outer(mean_log, mean_log)
    deviation = np.sqrt(variance_log)
    pairs = np.triu_indices(len(correlated), 1)
    correlation = (covariance / np.outer(deviation, deviation))[pairs]
    return dict(zip(_SUMMARY_NAMES, (mean, variance, zeros, correlation), strict=True))


def _set_equal_axes(panel: Axes, values: FloatArray, *, logarithmic: bool) -> None:
    """Set the same limits on both axes, and draw the diagonal."""
    if not len(values):
        write_nothing_to_show(panel)
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
