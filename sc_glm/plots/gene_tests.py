"""Tests of genes as displays read and draw them: tables, colours, infinite fold changes, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from sc_glm._contract.validation import quoted, similar_names
from sc_glm.plots.axes import DATA, MODEL, MUTED, name_ends, point_style, title
from sc_glm.plots.gene_labels import label_genes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

    Mask = NDArray[np.bool_]

_FOLD_CHANGE_COLUMNS = "log2_fold_change", "p_value", "p_adjusted"
_OPTIONAL_COLUMNS = "log10_p_value", "log2_low", "log2_high", "reason"
_EDGE = 0.08  # from the outermost finite fold change to the infinite ones, as part of the span


def names_and_columns(
    table: pd.DataFrame, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the names of genes and columns of a table of tests, as arguments of a display.

    Parameters
    ----------
    table : DataFrame of n_genes rows
        Result of a function of ``inference``.
    required : sequence of str
        Columns that the table must have.
    optional : sequence of str, default=()
        Columns that are None if the table lacks them.

    Returns
    -------
    dict of str to object
        ``genes`` and the columns by their names.

    Raises
    ------
    ValueError
        If a column is missing, if the table has several contrasts, or if a gene has several rows.
    """
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise ValueError(f"table has no column(s) {missing}.")
    contrasts = list(table["contrast"].unique()) if "contrast" in table.columns else []
    if len(contrasts) > 1:
        raise ValueError(
            f"table has {len(contrasts)} contrasts, {quoted(contrasts[:5])}: choose the rows "
            f"of one, such as table[table['contrast'] == {contrasts[0]!r}]."
        )
    genes = pd.Index(table["gene"]) if "gene" in table.columns else table.index
    if not genes.is_unique:
        raise ValueError(
            f"table has several rows of {quoted(genes[genes.duplicated()][0])}: choose those "
            "of one part and feature."
        )
    return (
        {"genes": [str(gene) for gene in genes]}
        | {name: table[name].to_numpy() for name in required}
        | {name: table[name].to_numpy() if name in table else None for name in optional}
    )


def fold_changes_in(table: pd.DataFrame, *more: str) -> dict[str, Any]:
    """Return what a table of tests has of fold changes, as arguments of a display.

    Parameters
    ----------
    table : DataFrame of n_genes rows
        Result of a function of ``inference``.
    *more : str
        Columns that are required beside the fold changes and their p-values.

    Raises
    ------
    ValueError
        If the table is not valid, or if its tests have no fold changes.
    """
    columns = names_and_columns(table, [*more, *_FOLD_CHANGE_COLUMNS], _OPTIONAL_COLUMNS)
    tested = ~np.isnan(columns["p_value"])
    if tested.any() and np.isnan(columns["log2_fold_change"][tested]).all():
        raise ValueError(
            "table has tests without fold changes: differential_expression computes them, and "
            "wald_test for one constraint on the mean."
        )
    return columns | {"joint": "df" in table.columns and bool((table["df"] > 1).all())}


class GeneTests:
    """Fold changes and p-values of genes, and how to draw them.

    It has no axes of its own. A display derives from it, and places the genes.

    Parameters
    ----------
    log2_fold_change, p_value, p_adjusted : array-like of shape (n_genes,)
        Results of tests; NaN for genes that were not tested.
    genes : sequence of str of length n_genes
        Names of the genes.
    alpha : float
        False discovery rate.
    log10_p_value, log2_low, log2_high, reason : array-like of shape (n_genes,) or None
        Logarithms of p-values, ends of intervals, and why genes were not tested.
    sides : tuple of two str or None
        Names of the sides that negative and positive fold changes are higher in.
    joint : bool
        Whether the fold changes have no direction.
    """

    _change_axis: ClassVar[str]  # "x" or "y"

    def __init__(
        self,
        *,
        log2_fold_change: ArrayLike,
        p_value: ArrayLike,
        p_adjusted: ArrayLike,
        genes: Sequence[str],
        alpha: float,
        log10_p_value: ArrayLike | None,
        log2_low: ArrayLike | None,
        log2_high: ArrayLike | None,
        reason: ArrayLike | None,
        sides: tuple[str, str] | None,
        joint: bool,
    ) -> None:
        self.log2_fold_change = np.asarray(log2_fold_change, dtype=np.float64)
        self.p_value = np.asarray(p_value, dtype=np.float64)
        self.p_adjusted = np.asarray(p_adjusted, dtype=np.float64)
        self.genes = list(genes)
        self.alpha = alpha
        if log10_p_value is None:
            with np.errstate(divide="ignore"):
                log10_p_value = np.log10(self.p_value)
        self.log10_p_value = np.asarray(log10_p_value, dtype=np.float64)
        unknown = np.full(len(self.genes), np.nan)
        self.log2_low = unknown if log2_low is None else np.asarray(log2_low, dtype=np.float64)
        self.log2_high = unknown if log2_high is None else np.asarray(log2_high, dtype=np.float64)
        self.reason = None if reason is None else [str(text) for text in np.asarray(reason)]
        self.sides = sides
        self.joint = joint

    @property
    def _change_label(self) -> str:
        return r"largest $\log_2$ fold change" if self.joint else r"$\log_2$ fold change"

    @property
    def _is_tested(self) -> Mask:
        return ~np.isnan(self.log2_fold_change) & ~np.isnan(self.log10_p_value)

    @property
    def _finite_ends(self) -> FloatArray:
        """Finite ends of the intervals of infinite fold changes; NaN for other genes."""
        change = self.log2_fold_change
        ends = np.where(change > 0, self.log2_low, self.log2_high)
        return np.where(np.isinf(change) & np.isfinite(ends), ends, np.nan)

    def _changes_on_axis(self, shown: Mask) -> FloatArray:
        """Return fold changes with the infinite ones a little beyond all finite ones."""
        change = self.log2_fold_change
        is_finite = shown & np.isfinite(change)
        inner = np.r_[0.0, change[is_finite], self._finite_ends[shown & np.isinf(change)]]
        low, high = np.nanmin(inner), np.nanmax(inner)
        margin = _EDGE * max(high - low, 1.0)
        at_edge = np.where(change > 0, high + margin, low - margin)
        return np.where(np.isinf(change), at_edge, change)

    def _draw_genes(
        self,
        axes: Axes,
        points: FloatArray,
        shown: Mask,
        markers: tuple[str, str],
        line_kwargs: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Draw the points of genes by direction and significance; return the lines."""
        change = self.log2_fold_change
        separated, found = np.isinf(change), self.p_adjusted <= self.alpha
        directions = {
            "other_down": (~found & (change < 0), MUTED, markers[0]),
            "other_up": (~found & (change >= 0), MUTED, markers[1]),
            "down": (found & (change < 0), DATA, markers[0]),
            "up": (found & (change >= 0), MODEL, markers[1]),
        }
        groups: dict[str, tuple[Mask, str, str]] = {
            "other": (~found & ~separated, MUTED, "o"),
            "down": (found & ~separated & (change < 0), DATA, "o"),
            "up": (found & ~separated & (change >= 0), MODEL, "o"),
        } | {
            f"separated_{name}": (chosen & separated, color, marker)
            for name, (chosen, color, marker) in directions.items()
        }
        lines = {}
        for name, (chosen, color, marker) in groups.items():
            style: dict[str, Any] = {"color": color, "marker": marker, "zorder": 2}
            if name.startswith("separated"):
                style |= {"markersize": 5.0, "alpha": 0.8}
            # A few coloured points are large also among many grey ones.
            n_alike = len(change) if color == MUTED else int((found & shown).sum())
            style = point_style(line_kwargs, n_alike, **style)
            lines[name] = axes.plot(*points[chosen & shown].T, **style)[0]
        return lines

    def _write_title(
        self, axes: Axes, shown: Mask, notes: Mapping[str, int], named: NDArray[np.intp]
    ) -> None:
        """Write how many genes are significant, and which are drawn otherwise or not at all."""
        found = shown & (self.p_adjusted <= self.alpha)
        n_down = int((found & (self.log2_fold_change < 0)).sum())
        n_up = int(found.sum()) - n_down
        untested = ~self._is_tested
        reasons = {self.reason[i] for i in np.flatnonzero(untested)} if self.reason else set()
        common = f" ({reasons.pop()})" if len(reasons) == 1 else ""
        separated = int((shown & np.isinf(self.log2_fold_change)).sum())
        counts = {"separated": separated, **notes, f"untested{common}": int(untested.sum())}
        parts = [f"{count} {name}" for name, count in counts.items() if count]
        hidden = [self.genes[i] for i in named if not shown[i]]
        if hidden:
            parts.append(f"not shown: {', '.join(hidden[:3])}{' ...' if len(hidden) > 3 else ''}")
        called = f"{n_up} significant" if self.joint else f"{n_down} down, {n_up} up"
        title(axes, f"{called}, FDR {100 * self.alpha:g} %", ", ".join(parts))

    def _label(
        self,
        axes: Axes,
        points: FloatArray,
        shown: Mask,
        named: NDArray[np.intp],
        n_labels: int,
    ) -> tuple[list[Any], Any]:
        """Label the named genes and those of the smallest p-values.

        Among these, separated genes have a line to the finite end of their interval. The labels
        and the lines are returned.
        """
        named = named[shown[named]]
        order = np.lexsort([-np.abs(self.log2_fold_change), self.log10_p_value])
        top = order[(shown & (self.p_adjusted <= self.alpha))[order]][:n_labels]
        labelled = np.r_[named, top[~np.isin(top, named)]]
        with_interval = labelled[np.isfinite(self._finite_ends[labelled])]
        vertical = self._change_axis == "y"
        draw = axes.vlines if vertical else axes.hlines
        other = points[with_interval, 0 if vertical else 1]
        changes = points[with_interval, 1 if vertical else 0]
        intervals = draw(
            other,
            self._finite_ends[with_interval],
            changes,
            color=MUTED,
            linewidth=0.6,
            alpha=0.7,
            zorder=1,
        )
        labels = label_genes(axes, points, self.genes, named, labelled[len(named) :])
        return labels, intervals

    def _name_sides(self, axes: Axes) -> None:
        """Write what is higher at each end of the axis of fold changes, if it is known."""
        if self.sides is not None:
            low, high = self.sides
            name_ends(axes, self._change_axis, f"higher in {low}", f"higher in {high}")

    def _positions(self, genes: str | Sequence[str] | None) -> NDArray[np.intp]:
        """Return the positions of genes that the user names."""
        names = [genes] if isinstance(genes, str) else list(genes if genes is not None else [])
        positions = pd.Index(self.genes).get_indexer(pd.Index(names, dtype=object))
        missing = [name for name, at in zip(names, positions, strict=True) if at < 0]
        if missing:
            similar = similar_names(str(missing[0]), self.genes, 3)
            hint = f" Names similar to {quoted(missing[0])}: {similar}." if similar else ""
            raise ValueError(f"{len(missing)} of genes have no test: {quoted(missing[:5])}.{hint}")
        return np.unique(positions)
