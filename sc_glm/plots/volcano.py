"""Volcano plot: fold changes of genes against their p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from sc_glm._contract.docstrings import documented
from sc_glm._contract.validation import quoted
from sc_glm.inference.p_values import MIN_P_VALUE
from sc_glm.inference.wald import wald_test
from sc_glm.plots.axes import (
    DATA,
    MODEL,
    MUTED,
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

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_REQUIRED_COLUMNS = "log2_fold_change", "p_value", "p_adjusted"
# Positions of a label next to its point, in order of preference: offset in typographic points, and
# alignment.
_LABEL_POSITIONS = (
    ((4, 0), "left", "center"),
    ((-4, 0), "right", "center"),
    ((0, 4), "center", "bottom"),
    ((0, -4), "center", "top"),
    ((4, 5), "left", "bottom"),
    ((-4, 5), "right", "bottom"),
    ((4, -5), "left", "top"),
    ((-4, -5), "right", "top"),
)


@documented(ENTRIES)
class VolcanoDisplay:
    """Volcano plot: each gene's log2 fold change against -log10 of its p-value.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_table` if the tests are already
    computed.

    Parameters
    ----------
    log2_fold_change : array-like of shape (n_genes,)
        Logarithms of the fold changes to the base 2.
    p_value, p_adjusted : array-like of shape (n_genes,)
        P-values, which are on the vertical axis, and p-values adjusted for the number of genes,
        which decide about the colours. They are NaN for genes that were not tested.
    genes : sequence of str of length n_genes
        Names of the genes.
    {significance_level}
    reason : sequence of str of length n_genes, default=None
        Why genes were not tested.
    log10_p_value : array-like of shape (n_genes,), default=None
        Logarithms of the p-values to the base 10, which do not underflow; None computes them from
        `p_value`.

    Attributes
    ----------
    {ax_}
    {figure_}
    points_ : dict of str to matplotlib Line2D
        The points of genes: ``"up"`` and ``"down"`` in colour, ``"other"``, and ``"clipped"`` for
        p-values that are zero in floating point, at the upper end of the axis.
    labels_ : list of matplotlib Annotation
        The labels that are drawn.

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
    @documented(ENTRIES)
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
        """Test a linear hypothesis about each gene's coefficients, and draw the tests.

        Parameters
        ----------
        {model}
        {X}
        {y}
        constraint : str
            Linear hypothesis about the coefficients of the mean: one equation, such as
            ``"condition[T.treated] = 0"``.
        kind : {"observed", "robust", "cluster"}, default="observed"
            Estimator of the covariance: the inverse of the observed information, the sandwich
            estimator for independent cells, or the cluster-robust sandwich estimator.
        groups : array-like of shape (n_cells,), default=None
            Cluster of each cell, such as its donor, for ``kind="cluster"``.
        sample_weight : array-like of shape (n_cells,), default=None
            Weights of the fit.
        {significance_level}
        {n_labels}
        {ax}
        {line_kwargs}

        Returns
        -------
        VolcanoDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        TypeError
            If the model does not end in a regressor of this package, or if `constraint` is not a
            string.
        ValueError
            If data, `constraint`, `kind` or `groups` are not valid, or if `constraint` has several
            equations, which have no fold change.

        See Also
        --------
        sc_glm.inference.wald_test : Computes the tests.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        table = wald_test(
            model, X, y, constraint, kind=kind, groups=groups, sample_weight=sample_weight
        )
        return cls.from_table(table, alpha=alpha, n_labels=n_labels, ax=ax, line_kwargs=line_kwargs)

    @classmethod
    @documented(ENTRIES)
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
            Result of :func:`~sc_glm.inference.wald_test`, or the rows of one coefficient from
            :func:`~sc_glm.inference.coefficient_table`. Columns ``log2_fold_change``, ``p_value``
            and ``p_adjusted`` are required. The index, or a column ``gene``, names the genes. A
            column ``log10_p_value`` is used for p-values that underflow, and a column ``reason``
            for why genes were not tested.
        {significance_level}
        {n_labels}
        {ax}
        {line_kwargs}

        Returns
        -------
        VolcanoDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        ValueError
            If a column is missing, if a gene has several rows, or if tests have no fold changes.
        """
        missing = [column for column in _REQUIRED_COLUMNS if column not in table.columns]
        if missing:
            raise ValueError(f"table has no column(s) {missing}.")
        genes = pd.Index(table["gene"]) if "gene" in table.columns else table.index
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
        columns = {name: table[name].to_numpy() for name in _REQUIRED_COLUMNS}
        display = cls(
            **columns,
            log10_p_value=table.get("log10_p_value"),
            reason=list(table["reason"]) if "reason" in table.columns else None,
            genes=[str(gene) for gene in genes],
            alpha=alpha,
        )
        return display.plot(ax, n_labels=n_labels, line_kwargs=line_kwargs)

    @documented(ENTRIES)
    def plot(
        self,
        ax: Axes | None = None,
        *,
        n_labels: int = 10,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the points, and label some of them.

        Parameters
        ----------
        {ax}
        {n_labels}
        {line_kwargs}

        Returns
        -------
        VolcanoDisplay
            The display itself.
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
            "clipped": (clipped, text_color(axes), "^"),
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
            write_nothing_to_show(axes)
        n_down, n_up = int((found & (x < 0)).sum()), int((found & (x >= 0)).sum())
        special = [(clipped, "at p = 0"), (~shown, f"untested{self._common_reason(~shown)}")]
        notes = [f"{int(genes.sum())} {note}" for genes, note in special if genes.any()]
        title(axes, f"{n_down} down, {n_up} up, FDR {100 * self.alpha:g} %", ", ".join(notes))
        order = np.lexsort([-np.abs(x), self.log10_p_value])
        top = order[found[order]][:n_labels]
        self.labels_ = _labels(axes, np.column_stack([x, height]), self.genes, top)
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _common_reason(self, genes: NDArray[np.bool_]) -> str:
        """Return in brackets why genes were not tested, if all have the same reason."""
        reasons = {self.reason[i] for i in np.flatnonzero(genes)} if self.reason else set()
        return f" ({reasons.pop()})" if len(reasons) == 1 else ""

    def _heights(self) -> FloatArray:
        """Return -log10 of the p-values; p-values of zero are a little above the others."""
        heights = -self.log10_p_value
        finite = heights[np.isfinite(heights)]
        top = 1.08 * max(finite.max(), 1.0) if len(finite) else -np.log10(MIN_P_VALUE)
        return np.where(heights == np.inf, top, heights)


def _labels(
    axes: Axes, points: FloatArray, names: list[str], chosen: NDArray[np.intp]
) -> list[Any]:
    """Label the chosen points, except where a label would cover another label or a point."""
    # This computes the final position of the axes, whose figure may be a part of another.
    axes.figure.canvas.figure.draw_without_rendering()
    pixels = axes.transData.transform(points)
    boxes: list[Any] = []  # of labels that are drawn
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
        for offset, horizontal, vertical in _LABEL_POSITIONS:
            label.set(position=offset, ha=horizontal, va=vertical)
            box = label.get_window_extent().padded(1)
            corners = [(box.x0, box.y0), (box.x1, box.y1)]
            free = all(axes.bbox.contains(*corner) for corner in corners)
            free &= not any(box.overlaps(other) for other in boxes)
            free &= not ((pixels > box.min) & (pixels < box.max)).all(axis=1).any()
            if free:
                boxes.append(box)
                labels.append(label)
                break
        else:
            label.remove()
    return labels
