"""Fold changes of genes against their means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sc_glm._contract.docstrings import documented
from sc_glm.plots.axes import (
    MUTED,
    log_axis,
    panels,
    require_matplotlib,
    write_nothing_to_show,
)
from sc_glm.plots.contrasts import sides_of, tests_of_contrast
from sc_glm.plots.docstring_entries import ENTRIES
from sc_glm.plots.gene_tests import GeneTests, fold_changes_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import ArrayLike

    from sc_glm.plots.axes import Axes


@documented(ENTRIES)
class MeanFoldChangeDisplay(GeneTests):
    """MA plot: each gene's log2 fold change against its mean over the cells.

    It shows at which means fold changes are found, and how uncertain those of small means are.
    Separated genes, whose fold change is infinite, are triangles at the lower or upper edge.

    It is recommended to use :meth:`from_estimator`, or :meth:`from_table` if the tests are already
    computed.

    Parameters
    ----------
    base_mean : array-like of shape (n_genes,)
        Mean of each gene over all cells.
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
        The points of genes: ``"up"`` and ``"down"`` in colour, and ``"other"``. Triangles are
        ``"separated_up"``, ``"separated_down"``, ``"separated_other_up"`` and
        ``"separated_other_down"``.
    {labels_and_intervals_}

    Examples
    --------
    >>> import pandas as pd
    >>> from sc_glm.plots import MeanFoldChangeDisplay
    >>> table = pd.DataFrame(
    ...     {"base_mean": [30.0, 2.0, 0.4], "log2_fold_change": [2.0, -1.0, 0.1],
    ...      "p_value": [1e-9, 1e-4, 0.5], "p_adjusted": [3e-9, 1.5e-4, 0.5]},
    ...     index=["Ins1", "Pyy", "Gcg"],
    ... )
    >>> display = MeanFoldChangeDisplay.from_table(table)
    >>> display.ax_.get_xscale(), [label.get_text() for label in display.labels_]
    ('log', ['Ins1', 'Pyy'])
    """

    _change_axis = "y"

    def __init__(
        self,
        *,
        base_mean: ArrayLike,
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
        self.base_mean = np.asarray(base_mean, dtype=np.float64)

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
        """Test a contrast of each gene's coefficients, and draw its fold changes.

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
        MeanFoldChangeDisplay
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
            Columns ``base_mean``, ``log2_fold_change``, ``p_value`` and ``p_adjusted`` are
            required. Columns ``log10_p_value``, ``log2_low``, ``log2_high``, ``reason`` and ``df``
            are optional.
        {significance_level}
        {sides}
        {genes_to_label}
        {n_labels}
        {ax}
        {line_kwargs}

        Returns
        -------
        MeanFoldChangeDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_table}
        {raises_fold_changes}
        {raises_named}
        """
        columns = fold_changes_in(table, "base_mean")
        display = cls(**columns, alpha=alpha, sides=sides)
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
        MeanFoldChangeDisplay
            The display itself.

        Raises
        ------
        {raises_no_matplotlib}
        {raises_named}
        """
        named = self._positions(genes)
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        shown = self._is_tested & (self.base_mean > 0)
        changes = self._changes_on_axis(shown)
        points = np.column_stack([np.where(shown, self.base_mean, np.nan), changes])
        self.points_ = self._draw_genes(axes, points, shown, ("v", "^"), line_kwargs)
        axes.set(xlabel="mean count", ylabel=self._change_label)
        if shown.any():
            axes.axhline(0.0, color=MUTED, linewidth=0.6, zorder=0)
            log_axis(axes, "x", self.base_mean[shown])
            self._name_sides(axes)
        else:
            write_nothing_to_show(axes)
        without_mean = int((self._is_tested & ~shown).sum())
        self._write_title(axes, shown, {"of mean 0": without_mean}, named)
        self.labels_, self.intervals_ = self._label(axes, points, shown, named, n_labels)
        self.ax_, self.figure_ = axes, axes.figure
        return self
