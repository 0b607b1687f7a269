"""Volcano plot: fold changes of genes against their p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sc_glm._contract.docstrings import documented
from sc_glm.inference.p_values import MIN_P_VALUE
from sc_glm.plots.axes import (
    MUTED,
    panels,
    point_style,
    require_matplotlib,
    text_color,
    write_nothing_to_show,
)
from sc_glm.plots.contrasts import sides_of, tests_of_contrast
from sc_glm.plots.docstring_entries import ENTRIES
from sc_glm.plots.gene_tests import GeneTests, fold_changes_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes


@documented(ENTRIES)
class VolcanoDisplay(GeneTests):
    """Volcano plot: each gene's log2 fold change against -log10 of its p-value.

    Separated genes, whose fold change is infinite, are triangles at the left or right edge.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_table` if the tests are already
    computed.

    Parameters
    ----------
    {log2_fold_change}
    {p_value_and_adjusted}
    {names_of_genes}
    {significance_level}
    {reason}
    {log10_p_value}
    {interval_ends}
    {sides}
    {joint}

    Attributes
    ----------
    {ax_}
    {figure_}
    points_ : dict of str to matplotlib Line2D
        The points of genes: ``"up"`` and ``"down"`` in colour, ``"other"``, and ``"clipped"`` for
        p-values that are zero in floating point, at the upper end of the axis. Triangles are
        ``"separated_up"``, ``"separated_down"``, ``"separated_other_up"`` and
        ``"separated_other_down"``.
    {labels_and_intervals_}

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sc_glm.plots import VolcanoDisplay
    >>> table = pd.DataFrame(
    ...     {"log2_fold_change": [2.0, -1.0, 0.1, np.inf], "p_value": [1e-9, 1e-4, 0.5, 1e-6],
    ...      "p_adjusted": [4e-9, 1.3e-4, 0.5, 2e-6]}, index=["Ins1", "Pyy", "Gcg", "Sst"],
    ... )
    >>> display = VolcanoDisplay.from_table(table, genes="Gcg", sides=("Alpha", "Beta"))
    >>> [label.get_text() for label in display.labels_]
    ['Gcg', 'Ins1', 'Sst', 'Pyy']
    >>> display.ax_.get_title(loc="left"), display.ax_.get_title(loc="right")
    ('1 down, 2 up, FDR 5 %', '1 separated')
    """

    _change_axis = "x"

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
        log2_low: ArrayLike | None = None,
        log2_high: ArrayLike | None = None,
        sides: tuple[str, str] | None = None,
        joint: bool = False,
    ) -> None:
        super().__init__(
            log2_fold_change=log2_fold_change,
            p_value=p_value,
            p_adjusted=p_adjusted,
            genes=genes,
            alpha=alpha,
            reason=reason,
            log10_p_value=log10_p_value,
            log2_low=log2_low,
            log2_high=log2_high,
            sides=sides,
            joint=joint,
        )

    @classmethod
    @documented(ENTRIES)
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        contrast: Any = None,
        *,
        kind: str = "observed",
        groups: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        alpha: float = 0.05,
        genes: str | Sequence[str] | None = None,
        n_labels: int = 10,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Test a contrast of each gene's coefficients, and draw the tests.

        Parameters
        ----------
        {model}
        {X_of_fit}
        {y_of_fit}
        {contrast}
        {kind}
        {groups}
        {sample_weight_of_fit}
        {significance_level}
        {genes_to_label}
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
        {raises_contrast}
        {raises_named}

        See Also
        --------
        {see_tests}
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        return cls.from_table(
            tests_of_contrast(
                model, X, y, contrast, kind=kind, groups=groups, sample_weight=sample_weight
            ),
            alpha=alpha,
            sides=sides_of(contrast),
            genes=genes,
            n_labels=n_labels,
            ax=ax,
            line_kwargs=line_kwargs,
        )

    @classmethod
    @documented(ENTRIES)
    def from_table(
        cls,
        table: pd.DataFrame,
        *,
        alpha: float = 0.05,
        sides: tuple[str, str] | None = None,
        genes: str | Sequence[str] | None = None,
        n_labels: int = 10,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw a table of tests.

        Parameters
        ----------
        {table}
            Columns ``log2_fold_change``, ``p_value`` and ``p_adjusted`` are required. Columns
            ``log10_p_value``, ``log2_low``, ``log2_high``, ``reason`` and ``df`` are optional.
        {significance_level}
        {sides}
        {genes_to_label}
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
        {raises_table}
        {raises_fold_changes}
        {raises_named}
        """
        display = cls(**fold_changes_in(table), alpha=alpha, sides=sides)
        return display.plot(ax, genes=genes, n_labels=n_labels, line_kwargs=line_kwargs)

    @documented(ENTRIES)
    def plot(
        self,
        ax: Axes | None = None,
        *,
        genes: str | Sequence[str] | None = None,
        n_labels: int = 10,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw the points, and label some of them.

        Parameters
        ----------
        {ax}
        {genes_to_label}
        {n_labels}
        {line_kwargs}

        Returns
        -------
        VolcanoDisplay
            The display itself.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_named}
        """
        named = self._positions(genes)
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        shown, is_zero = self._is_tested, np.isinf(self.log10_p_value)
        x = self._changes_on_axis(shown)
        points = np.column_stack([x, self._heights()])
        clipped = shown & is_zero & np.isfinite(self.log2_fold_change)
        self.points_ = self._draw_genes(axes, points, shown & ~clipped, ("<", ">"), line_kwargs)
        at_top = points[clipped]
        style = {"color": text_color(axes), "marker": "^", "zorder": 2}
        style = point_style(line_kwargs, len(at_top), **style)
        self.points_["clipped"] = axes.plot(*at_top.T, **style)[0]
        axes.set(xlabel=self._change_label, ylabel=r"$-\log_{10}$ p-value")
        axes.set_ylim(bottom=0.0)
        if shown.any():
            axes.axvline(0.0, color=MUTED, linewidth=0.6, zorder=0)
            self._name_sides(axes)
        else:
            write_nothing_to_show(axes)
        self._write_title(axes, shown, {"at p = 0": int((shown & is_zero).sum())}, named)
        self.labels_, self.intervals_ = self._label(axes, points, shown, named, n_labels)
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _heights(self) -> FloatArray:
        """Return -log10 of the p-values; p-values of zero are a little above the others."""
        heights = -self.log10_p_value
        finite = heights[np.isfinite(heights)]
        top = 1.08 * max(finite.max(), 1.0) if len(finite) else -np.log10(MIN_P_VALUE)
        return np.where(heights == np.inf, top, heights)
