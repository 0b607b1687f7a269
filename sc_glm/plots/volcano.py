"""Fold changes of genes against the evidence for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from sc_glm._contract.validation import quoted
from sc_glm.inference.p_values import LEAST_P_VALUE
from sc_glm.inference.wald import wald_test
from sc_glm.plots.axes import (
    DATA,
    MODEL,
    MUTED,
    ink,
    nothing,
    panels,
    point_style,
    require_matplotlib,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_COLUMNS = "log2_fold_change", "p_value", "p_adjusted"
# Where a label may stand beside its point: offset in points of the type, and alignment.
_PLACES = (
    ((4, 0), "left", "center"),
    ((-4, 0), "right", "center"),
    ((0, 4), "center", "bottom"),
    ((0, -4), "center", "top"),
    ((4, 5), "left", "bottom"),
    ((-4, 5), "right", "bottom"),
    ((4, -5), "left", "top"),
    ((-4, -5), "right", "top"),
)


class VolcanoDisplay:
    """Volcano plot: each gene's log2 fold change against -log10 of its p-value.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_table` if there is a table of
    tests already.

    Parameters
    ----------
    log2_fold_change : array-like of shape (n_genes,)
        Fold changes as logarithms to the base 2.
    p_value, p_adjusted : array-like of shape (n_genes,)
        P-values, along the vertical axis, and those adjusted for their number, which tell the
        genes in colour; NaN for genes that were not tested.
    genes : sequence of str of length n_genes
        Names.
    alpha : float, default=0.05
        Genes whose adjusted p-value is at most so much are in colour.
    reason : sequence of str of length n_genes, default=None
        Why genes were not tested.
    log10_p_value : array-like of shape (n_genes,), default=None
        Logarithms of the p-values to the base 10, which also tell those apart that are too small
        for a number; None takes them of `p_value`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        The figure of the axes.
    points_ : dict of str to matplotlib Line2D
        The genes that are ``"other"``, ``"up"`` and ``"down"``, and as ``"clipped"`` those whose
        p-value is zero in floating point: they stand at the upper end of the axis.
    labels_ : list of matplotlib Annotation
        The names that found a place.

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm.plots import VolcanoDisplay
    >>> table = pd.DataFrame(
    ...     {"log2_fold_change": [2.0, -1.0, 0.1], "p_value": [1e-9, 1e-4, 0.5],
    ...      "p_adjusted": [3e-9, 1.5e-4, 0.5]}, index=["Ins1", "Pyy", "Gcg"],
    ... )
    >>> display = VolcanoDisplay.from_table(table)
    >>> [label.get_text() for label in display.labels_]
    ['Ins1', 'Pyy']
    """

    def __init__(
        self,
        *,
        log2_fold_change: ArrayLike,
        p_value: ArrayLike,
        p_adjusted: ArrayLike,
        genes: Sequence[str],
        alpha: float = 0.05,
        reason: Sequence[str] | None = None,
        log10_p_value: ArrayLike | None = None,
    ) -> None:
        self.log2_fold_change = np.asarray(log2_fold_change, dtype=np.float64)
        self.p_value = np.asarray(p_value, dtype=np.float64)
        self.p_adjusted = np.asarray(p_adjusted, dtype=np.float64)
        self.genes = list(genes)
        self.alpha = alpha
        self.reason = None if reason is None else list(reason)
        if log10_p_value is None:
            with np.errstate(divide="ignore"):
                log10_p_value = np.log10(self.p_value)
        self.log10_p_value = np.asarray(log10_p_value, dtype=np.float64)

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        constraint: str | None = None,
        *,
        kind: str = "observed",
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        alpha: float = 0.05,
        n_labels: int = 10,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Test a constraint on each gene's coefficients, and draw the tests.

        Parameters
        ----------
        model : estimator
            A fitted regressor, a pipeline that ends in one, a search over these, or an
            :class:`~sc_glm.adata.AnnDataRegressor`.
        X : array-like, DataFrame or AnnData
            What the model predicts from.
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None where `X` is an AnnData that holds them.
        constraint : str
            What is tested of the mean's coefficients: one equation, as in
            :func:`~sc_glm.inference.wald_test`.
        kind : {"observed", "robust", "cluster"}, default="observed"
            Kind of the standard errors.
        groups : array-like of shape (n_cells,), default=None
            Clusters of cells, such as donors.
        sample_weight : array-like of shape (n_cells,), default=None
            The weights of the fit.
        alpha : float, default=0.05
            Genes whose adjusted p-value is at most so much are in colour.
        n_labels : int, default=10
            How many of these to name at most, those with the smallest p-values.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.

        Returns
        -------
        VolcanoDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError, ValueError
            As :func:`~sc_glm.inference.wald_test`; if several constraints are tested together,
            which have no fold change.

        See Also
        --------
        sc_glm.inference.wald_test : The tests.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        table = wald_test(
            model, X, y, constraint, kind=kind, groups=groups, sample_weight=sample_weight
        )
        return cls.from_table(table, alpha=alpha, n_labels=n_labels, ax=ax, line_kwargs=line_kwargs)

    @classmethod
    def from_table(
        cls,
        table: pd.DataFrame,
        *,
        alpha: float = 0.05,
        n_labels: int = 10,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw a table of tests.

        Parameters
        ----------
        table : DataFrame of n_genes rows
            With columns ``log2_fold_change``, ``p_value`` and ``p_adjusted``, as
            :func:`~sc_glm.inference.wald_test` returns it, or the rows of one coefficient of
            :func:`~sc_glm.inference.coefficient_table`. The index, or a column ``target``, names
            the genes. Where there are columns ``log10_p_value`` and ``reason``, these tell p-values
            apart that are too small for a number, and why some genes have none.
        alpha : float, default=0.05
            Genes whose adjusted p-value is at most so much are in colour.
        n_labels : int, default=10
            How many of these to name at most, those with the smallest p-values.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.

        Returns
        -------
        VolcanoDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If a column is missing, a gene has several rows, or tests have no fold changes.
        """
        missing = [column for column in _COLUMNS if column not in table.columns]
        if missing:
            raise ValueError(f"table has no column(s) {missing}.")
        genes = pd.Index(table["target"]) if "target" in table.columns else table.index
        if not genes.is_unique:
            raise ValueError(
                f"table has several rows of {quoted(genes[genes.duplicated()][0])}: choose those "
                "of one part and feature."
            )
        tested = table["p_value"].notna()
        if tested.any() and table.loc[tested, "log2_fold_change"].isna().all():
            raise ValueError(
                "table has tests without fold changes: only one constraint, on the mean, has them."
            )
        columns = {name: table[name].to_numpy() for name in _COLUMNS}
        display = cls(
            **columns,
            log10_p_value=table.get("log10_p_value"),
            reason=list(table["reason"]) if "reason" in table.columns else None,
            genes=[str(gene) for gene in genes],
            alpha=alpha,
        )
        return display.plot(ax, n_labels=n_labels, line_kwargs=line_kwargs)

    def plot(
        self,
        ax: Axes | None = None,
        *,
        n_labels: int = 10,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the points and the names of some.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        n_labels : int, default=10
            How many genes in colour to name at most, those with the smallest p-values. A name that
            would cover another is left out.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the points.

        Returns
        -------
        VolcanoDisplay
            Itself.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        x, height = self.log2_fold_change, self._heights()
        shown = np.isfinite(x) & np.isfinite(height)
        found = shown & (self.p_adjusted <= self.alpha)
        clipped = shown & np.isinf(self.log10_p_value)
        groups = {
            "other": (shown & ~found, MUTED, "o"),
            "down": (found & ~clipped & (x < 0), DATA, "o"),
            "up": (found & ~clipped & (x >= 0), MODEL, "o"),
            "clipped": (clipped, ink(axes), "^"),
        }
        self.points_ = {}
        for name, (chosen, color, marker) in groups.items():
            style = point_style(line_kwargs, len(x), color=color, marker=marker, zorder=2)
            self.points_[name] = axes.plot(x[chosen], height[chosen], **style)[0]
        axes.set(xlabel=r"$\log_2$ fold change", ylabel=r"$-\log_{10}$ p-value")
        axes.set_ylim(bottom=0.0)
        if shown.any():
            axes.axvline(0.0, color=MUTED, linewidth=0.6, zorder=0)
        else:
            nothing(axes)
        n_down, n_up = int((found & (x < 0)).sum()), int((found & (x >= 0)).sum())
        special = [(clipped, "at p = 0"), (~shown, f"untested{self._one_reason(~shown)}")]
        notes = [f"{int(which.sum())} {words}" for which, words in special if which.any()]
        title(axes, f"{n_down} down, {n_up} up, FDR {100 * self.alpha:g} %", ", ".join(notes))
        order = np.lexsort([-np.abs(x), self.log10_p_value])
        top = order[found[order]][:n_labels]
        self.labels_ = _labels(axes, np.column_stack([x, height]), self.genes, top)
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _one_reason(self, genes: NDArray[np.bool_]) -> str:
        """Return the reason that all these genes share, in brackets."""
        reasons = {self.reason[i] for i in np.flatnonzero(genes)} if self.reason else set()
        return f" ({reasons.pop()})" if len(reasons) == 1 else ""

    def _heights(self) -> FloatArray:
        """Return -log10 of the p-values; zeros stand a little above the others."""
        heights = -self.log10_p_value
        finite = heights[np.isfinite(heights)]
        top = 1.08 * max(finite.max(), 1.0) if len(finite) else -np.log10(LEAST_P_VALUE)
        return np.where(heights == np.inf, top, heights)


def _labels(
    axes: Axes, points: FloatArray, names: list[str], chosen: NDArray[np.intp]
) -> list[Any]:
    """Name some of the points, where that covers neither another name nor a point."""
    # So that the axes are where they will be; theirs may be a part of a figure.
    axes.figure.canvas.figure.draw_without_rendering()
    pixels = axes.transData.transform(points)
    taken: list[Any] = []
    labels = []
    for gene in chosen:
        label = axes.annotate(
            names[gene],
            points[gene],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize="x-small",
            zorder=3,
            parse_math=False,
        )
        for offset, horizontal, vertical in _PLACES:
            label.set(position=offset, ha=horizontal, va=vertical)
            box = label.get_window_extent().padded(1)
            corners = [(box.x0, box.y0), (box.x1, box.y1)]
            free = all(axes.bbox.contains(*corner) for corner in corners)
            free &= not any(box.overlaps(other) for other in taken)
            free &= not ((pixels > box.min) & (pixels < box.max)).all(axis=1).any()
            if free:
                taken.append(box)
                labels.append(label)
                break
        else:
            label.remove()
    return labels
