"""Counts of a gene against a covariate, with the fitted mean and quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm.inference.fitted_model import FittedData, predicted_distributions
from sc_glm.plots.axes import (
    DATA,
    LEVELS,
    MODEL,
    legend,
    legend_of_names,
    log1p_counts,
    panels,
    point_style,
    require_matplotlib,
    title,
)
from sc_glm.plots.docstring_entries import ENTRIES
from sc_glm.plots.held_covariates import (
    MEDIAN_DEPTH,
    check_columns,
    fixed_values,
    has_levels,
    is_at_median_depth,
    model_and_frame,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray
    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.plots.axes import Axes

_MAX_LEVELS_IN_INNER_LEGEND = 4  # with more levels, the legend is next to the axes
_MIN_LABEL_GAP = 3  # pixels between names of categories; closer names are rotated
# Multiples of the golden ratio, modulo one, fill the unit interval evenly, which serves as jitter.
# It is also a number between two levels that no level is likely to have.
_GOLDEN_RATIO = 0.618034
_DODGE_WIDTH = 0.8  # part of the distance between categories that the levels of `by` share


@documented(ENTRIES)
class CovariateDisplay:
    """Counts of a gene against a covariate, with the fitted mean and quantiles.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    cells : DataFrame of n_cells rows
        Columns ``covariate``, ``count`` and ``level``. A categorical covariate is drawn as
        categories, and any other as numbers. ``level`` is categorical; each level has a colour.
    curves : DataFrame
        Columns ``covariate`` and ``level`` as in `cells`, and the predicted ``mean``, ``lower`` and
        ``upper`` quantile, sorted by level and covariate.
    gene, covariate : str
        Names of the gene and the covariate.
    by : str, default=None
        Name of the covariate whose levels are in ``level``; None if there is one level.
    quantiles : tuple of float, default=(0.05, 0.95)
        The probabilities of ``lower`` and ``upper``.
    held : dict, default=None
        Values at which the other covariates are fixed in `curves`.
    at_median_depth : bool, default=False
        Whether these values are medians of the columns in the model's offset. The plot says so.

    Attributes
    ----------
    {ax_}
    {figure_}
    points_ : list of matplotlib Line2D
        The cells of each level.
    lines_ : list of matplotlib Line2D
        The fitted mean of each level.
    bands_ : list of matplotlib artists
        The quantiles of each level.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import CovariateDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(
    ...     FormulaTransformer("~ bs(pseudotime, df=4) + cell_type"), NegBinRegressor()
    ... )
    >>> display = CovariateDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, data.counts, gene="gene_1",
    ...     covariate="pseudotime", by="cell_type",
    ... )
    >>> len(display.lines_)
    3
    """

    def __init__(
        self,
        *,
        cells: pd.DataFrame,
        curves: pd.DataFrame,
        gene: str,
        covariate: str,
        by: str | None = None,
        quantiles: tuple[float, float] = (0.05, 0.95),
        held: dict[str, Any] | None = None,
        at_median_depth: bool = False,
    ) -> None:
        self.cells = cells
        self.curves = curves
        self.gene = gene
        self.covariate = covariate
        self.by = by
        self.quantiles = quantiles
        self.held = held
        self.at_median_depth = at_median_depth

    @classmethod
    @documented(ENTRIES)
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,
        *,
        gene: str,
        covariate: str,
        by: str | None = None,
        at: Mapping[str, Any] | None = None,
        quantiles: tuple[float, float] = (0.05, 0.95),
        grid_resolution: int = 100,
        ax: Axes | None = None,
        line_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Draw a gene's counts and a fitted model's predictions against one of its covariates.

        Parameters
        ----------
        {model_of_frames}
        X : DataFrame or AnnData
            Covariates of the cells.
        {y}
        gene : str
            Name of the gene.
        covariate : str
            Column of `X` on the horizontal axis: numbers or levels. Numbers that a formula makes
            categorical, such as ``C(batch)``, are drawn as levels.
        by : str, default=None
            Column of `X` with at most 10 levels; each has a curve and a colour.
        at : mapping of str to object, default=None
            Values at which other columns of `X` are fixed.
        quantiles : tuple of two floats, default=(0.05, 0.95)
            Probabilities of the two quantiles of the predicted distribution that bound the band.
        grid_resolution : int, default=100
            Number of points along a numeric covariate, between the smallest and the largest value
            in each level.
        {ax}
        {line_kwargs}

        Returns
        -------
        CovariateDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        TypeError
            If `X` is neither a DataFrame nor an AnnData, or if `grid_resolution` is not an integer.
        ValueError
            If a gene or column does not exist, a value is missing, or there are too many levels.
            Also if `quantiles` are not two increasing probabilities, or if `grid_resolution` is
            below 2.

        Notes
        -----
        {notes_held}
        Cells of another depth deviate from the curve for this reason, too.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        low, high = _check_quantiles(quantiles)
        check_scalar(grid_resolution, "grid_resolution", Integral, min_val=2)
        fitted = FittedData.of(model, X, y, genes=gene)
        inner, obs = model_and_frame(model, X)
        at = dict(at or {})
        varying = [covariate] if by is None else [covariate, by]
        check_columns(obs, varying, at)
        fixed = fixed_values(obs, varying, at)
        conditional = _ConditionalDistribution(inner, list(obs.columns), covariate, by, gene, fixed)
        count = fitted.counts.dense(slice(None))[:, 0]
        cells = _cells(obs, count, conditional)
        grid = _grid(cells, grid_resolution)
        dist = conditional(grid["covariate"].to_numpy(), grid["level"].to_numpy())
        curves = grid.assign(mean=dist.mean(), lower=dist.ppf(low), upper=dist.ppf(high))
        display = cls(
            cells=cells,
            curves=curves,
            gene=gene,
            covariate=covariate,
            by=by,
            quantiles=(low, high),
            held=fixed,
            at_median_depth=is_at_median_depth(inner, fixed, at),
        )
        return display.plot(ax, line_kwargs=line_kwargs)

    @documented(ENTRIES)
    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the cells, the fitted means and the quantiles.

        Parameters
        ----------
        {ax}
        {line_kwargs}

        Returns
        -------
        CovariateDisplay
            The display itself.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        levels = list(self.cells["level"].cat.categories)
        self.points_: list[Any] = []
        self.lines_: list[Any] = []
        self.bands_: list[Any] = []
        for i, level in enumerate(levels):
            self._draw_level(axes, level, i, _DODGE_WIDTH / len(levels), line_kwargs)
        log1p_counts(axes, max(self.cells["count"].max(), self.curves["upper"].max()))
        if self._is_categorical:
            _label_categories(axes, self.cells["covariate"].cat.categories)
        axes.set_xlabel(self.covariate, parse_math=False)
        title(axes, self.gene, f"fit {MEDIAN_DEPTH}" if self.at_median_depth else None)
        if self.by:
            self._write_legend_of_levels(axes, [str(level) for level in levels])
        else:
            legend(axes, markerscale=1.5)  # because points of cells are small
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _write_legend_of_levels(self, axes: Axes, levels: list[str]) -> None:
        options: dict[str, Any] = {"title": self.by}
        if len(levels) > _MAX_LEVELS_IN_INNER_LEGEND:
            options |= {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        legend_of_names(axes, self.lines_, levels, alignment="left", **options)

    @property
    def _is_categorical(self) -> bool:
        return isinstance(self.cells["covariate"].dtype, pd.CategoricalDtype)

    def _draw_level(
        self, axes: Axes, level: Any, i: int, width: float, line_kwargs: dict[str, Any] | None
    ) -> None:
        """Draw cells and curve of the i-th level, which has this width within a category."""
        cells = self.cells[self.cells["level"] == level]
        curve = self.curves[self.curves["level"] == level]
        x, x_curve = cells["covariate"], curve["covariate"]
        if self._is_categorical:
            shift = (i + 0.5) * width - _DODGE_WIDTH / 2
            jitter = (np.arange(len(x)) * _GOLDEN_RATIO % 1 - 0.5) * 0.7 * width
            x, x_curve = x.cat.codes + shift + jitter, x_curve.cat.codes + shift
        data, model = (LEVELS[i], LEVELS[i]) if self.by else (DATA, MODEL)
        # matplotlib omits names that start with an underscore from a legend that the user may make.
        names = ("_", "_", str(level)) if self.by else ("cells", self._band_name, "fitted mean")
        style = point_style(line_kwargs, len(self.cells), color=data, zorder=1, label=names[0])
        self.points_ += axes.plot(x, cells["count"], **style)
        ends = x_curve, curve["lower"], curve["upper"]
        if self._is_categorical:
            mean: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 4.0}
            band: Any = axes.vlines(*ends, color=model, linewidth=1.5, label=names[1])
        else:
            mean = {"linewidth": 1.6}
            band = axes.fill_between(
                *ends,
                step="mid",
                facecolor=(model, 0.1 if self.by else 0.18),
                edgecolor=(model, 0.5 if self.by else 0.0),
                linewidth=0.6,
                label=names[1],
            )
        self.lines_ += axes.plot(x_curve, curve["mean"], color=model, label=names[2], **mean)
        self.bands_.append(band)

    @property
    def _band_name(self) -> str:
        low, high = self.quantiles
        return f"{100 * low:g} % to {100 * high:g} %"


@dataclass(frozen=True)
class _ConditionalDistribution:
    """Distribution of a gene's counts at values of one or two covariates, the others fixed."""

    model: Any
    columns: list[Any]
    covariate: str
    by: str | None
    gene: str
    fixed: dict[Any, Any]

    def __call__(self, covariate: Any, level: Any) -> NB | ZINB:
        """Predict at these values; the levels are ignored if no covariate has levels."""
        varying = {self.covariate: covariate}
        if self.by is not None:
            varying[self.by] = level
        columns = {name: varying.get(name, self.fixed.get(name)) for name in self.columns}
        frame = pd.DataFrame(columns, index=range(len(covariate)))
        return predicted_distributions(self.model, frame, self.gene)[:, 0]

    def accepts(self, value: Any, level: Any) -> bool:
        """Test whether the model can predict at a value of the covariate."""
        try:
            self([value], [level])
        except ValueError:
            return False
        return True


def _label_categories(axes: Axes, names: pd.Index) -> None:
    """Label the categories on the horizontal axis; rotate the labels if they would overlap."""
    axes.set_xticks(range(len(names)), [str(name) for name in names], parse_math=False)
    axes.figure.canvas.figure.draw_without_rendering()  # computes the positions of the labels
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    if any(left.x1 + _MIN_LABEL_GAP > right.x0 for left, right in pairwise(boxes)):
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _check_quantiles(quantiles: Any) -> tuple[float, float]:
    try:
        low, high = (float(quantile) for quantile in quantiles)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0 < low < high < 1:
        raise ValueError(
            f"quantiles must be two probabilities, the lower one first, as (0.05, 0.95), not "
            f"{quantiles!r}."
        )
    return low, high


def _cells(
    obs: pd.DataFrame, count: FloatArray, conditional: _ConditionalDistribution
) -> pd.DataFrame:
    """Return the frame of the cells' points; raise a ValueError if there are too many levels."""
    by = conditional.by
    cells = pd.DataFrame(
        {
            "covariate": _numbers_or_levels(obs, conditional),
            "count": count,
            "level": pd.Categorical([""] * len(obs)) if by is None else _levels(obs[by]),
        }
    )
    n_levels = len(cells["level"].cat.categories)
    if n_levels > len(LEVELS):
        raise ValueError(
            f"by={by!r} has {n_levels} levels, more than the {len(LEVELS)} colours of a plot."
        )
    return cells


def _levels(column: pd.Series) -> pd.Categorical:
    return pd.Categorical(column).remove_unused_categories()


def _numbers_or_levels(
    obs: pd.DataFrame, conditional: _ConditionalDistribution
) -> pd.Categorical | NDArray[Any]:
    """Return the covariate as levels or as numbers.

    Numbers are levels if the model cannot predict between two of them, as with ``C(batch)``.
    """
    column = obs[conditional.covariate]
    if has_levels(column):
        return _levels(column)
    values = column.to_numpy()
    observed = np.unique(values)
    if len(observed) < 2:
        return values
    first = int(np.argmin(values))
    between = observed[0] + _GOLDEN_RATIO * (observed[1] - observed[0])
    level = None if conditional.by is None else obs[conditional.by].iloc[first]
    is_categorical = not conditional.accepts(between, level) and conditional.accepts(
        values[first], level
    )
    return _levels(column) if is_categorical else values


def _grid(cells: pd.DataFrame, resolution: int) -> pd.DataFrame:
    """Return covariate values at which to predict, within the range of each level's cells."""
    covariate = cells["covariate"]
    if isinstance(covariate.dtype, pd.CategoricalDtype):
        pairs = cells[["covariate", "level"]].drop_duplicates()
        return pairs.sort_values(["level", "covariate"], ignore_index=True)
    grids = []
    for level, values in covariate.groupby(cells["level"], observed=True):
        points = np.linspace(values.min(), values.max(), resolution)
        grids.append(pd.DataFrame({"covariate": points, "level": [level] * resolution}))
    grid = pd.concat(grids, ignore_index=True)
    return grid.assign(level=grid["level"].astype(cells["level"].dtype))
