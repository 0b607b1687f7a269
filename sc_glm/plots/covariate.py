"""A gene's counts over a covariate, with what the model predicts."""

from __future__ import annotations

from itertools import pairwise
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.validation import as_pandas
from sc_glm.formula.covariates import check_cells, no_column
from sc_glm.inference.fitted_model import FittedData, distributions
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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from sc_glm.distributions.count_distributions import NB, ZINB
    from sc_glm.plots.axes import Axes

_INSIDE = 4  # levels in a legend that is not beside the axes
_APART = 3  # pixels between names that stand side by side
_GOLDEN = 0.618034  # steps of this part of a circle fill it evenly
_DODGED = 0.8  # width that the levels of `by` share, of the distance between categories


class CovariateDisplay:
    """A gene's counts over a covariate, with fitted mean and quantiles.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    cells : DataFrame of n_cells rows
        With columns ``covariate``, ``count`` and ``level``. A categorical covariate is drawn as
        categories, and others are numbers. ``level`` is categorical: each has a colour.
    curves : DataFrame
        With columns ``covariate`` and ``level`` as in `cells`, and ``mean``, ``lower`` and
        ``upper``: what is predicted, by level in the order of the covariate.
    gene, covariate : str
        Names.
    by : str, default=None
        Name of what the levels are of; None if there is one level.
    quantiles : tuple of float, default=(0.05, 0.95)
        The probabilities of ``lower`` and ``upper``.
    held : dict, default=None
        Values of the other covariates in `curves`.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the plot.
    figure_ : matplotlib Figure
        The figure of the axes.
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
    ) -> None:
        self.cells = cells
        self.curves = curves
        self.gene = gene
        self.covariate = covariate
        self.by = by
        self.quantiles = quantiles
        self.held = held

    @classmethod
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
        """Draw a gene's counts and a fitted model's predictions over one of its covariates.

        Parameters
        ----------
        model : estimator
            A fitted pipeline or regressor that predicts from a DataFrame, a search over these, or
            an :class:`~sc_glm.adata.AnnDataRegressor`.
        X : DataFrame or AnnData
            The cells' covariates.
        y : array-like, DataFrame or sparse matrix of shape (n_cells, n_genes) or (n_cells,)
            Counts of all genes of the fit; None where `X` is an AnnData that holds them.
        gene : str
            The gene.
        covariate : str
            Column of `X` along the horizontal axis: numbers, or levels. Numbers that the model
            takes for levels, as ``C(batch)`` does, are drawn as these.
        by : str, default=None
            Column of `X` with at most 10 levels, which have a curve and a colour each.
        at : mapping of str to object, default=None
            Values at which to hold other columns of `X`.
        quantiles : tuple of two floats, default=(0.05, 0.95)
            Probabilities of the band's ends: this part of the counts of cells with these covariates
            is expected below.
        grid_resolution : int, default=100
            Number of points along a numeric covariate, from the smallest to the largest value among
            the cells of a level.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the cells' points.

        Returns
        -------
        CovariateDisplay

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError
            If `X` is no DataFrame and has none, or `grid_resolution` is no whole number.
        ValueError
            If there is no such gene or column, a value is missing, levels are too many, `quantiles`
            are no two probabilities in their order, or `grid_resolution` is under 2.

        Notes
        -----
        Columns that are not named are held at a typical value: the lower median of numbers, the
        most common of other values. So an offset is that of a typical cell (such as the median
        size factor), and cells of another depth scatter around the curve for that reason too.
        ``display.held`` tells the values.
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        low, high = _pair(quantiles)
        check_scalar(grid_resolution, "grid_resolution", Integral, min_val=2)
        fitted = FittedData.of(model, X, y, genes=gene)
        inner, obs = _frame_of(model, X)
        at = dict(at or {})
        _check_columns(obs, [covariate, *([] if by is None else [by])], at)
        held = {
            name: at[name] if name in at else _typical(obs[name])
            for name in obs.columns
            if name not in (covariate, by)
        }

        def predicted(varying: dict[Any, Any]) -> NB | ZINB:
            """Predict at values of the columns that vary, the others held."""
            columns = {name: varying.get(name, held.get(name)) for name in list(obs.columns)}
            frame = pd.DataFrame(columns, index=range(len(varying[covariate])))
            return distributions(inner, frame, gene)[:, 0]

        cells = pd.DataFrame(
            {
                "covariate": _values(obs, covariate, by, predicted),
                "count": fitted.counts.dense(slice(None))[:, 0],
                "level": pd.Categorical([""] * len(obs)) if by is None else _levels(obs[by]),
            }
        )
        if len(cells["level"].cat.categories) > len(LEVELS):
            raise ValueError(
                f"by={by!r} has {len(cells['level'].cat.categories)} levels, more than the "
                f"{len(LEVELS)} colours that are told apart."
            )
        grid = _grid(cells, grid_resolution)
        varying = {covariate: grid["covariate"].to_numpy()}
        if by is not None:
            varying[by] = grid["level"].to_numpy()
        dist = predicted(varying)
        curves = grid.assign(mean=dist.mean(), lower=dist.ppf(low), upper=dist.ppf(high))
        display = cls(
            cells=cells,
            curves=curves,
            gene=gene,
            covariate=covariate,
            by=by,
            quantiles=(low, high),
            held=held,
        )
        return display.plot(ax, line_kwargs=line_kwargs)

    def plot(self, ax: Axes | None = None, *, line_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the cells, the means and the quantiles.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.
        line_kwargs : dict, default=None
            Keyword arguments of :meth:`matplotlib.axes.Axes.plot` for the cells' points.

        Returns
        -------
        CovariateDisplay
            Itself.
        """
        (axes,) = panels(ax, f"{type(self).__name__}.plot")
        levels = list(self.cells["level"].cat.categories)
        self.points_: list[Any] = []
        self.lines_: list[Any] = []
        self.bands_: list[Any] = []
        for i, level in enumerate(levels):
            self._draw_level(axes, level, i, _DODGED / len(levels), line_kwargs)
        log1p_counts(axes, max(self.cells["count"].max(), self.curves["upper"].max()))
        if self._is_categorical:
            _name_categories(axes, self.cells["covariate"].cat.categories)
        axes.set_xlabel(self.covariate, parse_math=False)
        axes.set_ylabel("count")
        title(axes, self.gene)
        if self.by:
            self._name_levels(axes, [str(level) for level in levels])
        else:
            legend(axes, markerscale=1.5)  # a cell's point is small
        self.ax_, self.figure_ = axes, axes.figure
        return self

    def _name_levels(self, axes: Axes, levels: list[str]) -> None:
        options: dict[str, Any] = {"title": self.by, "title_fontsize": "small"}
        if len(levels) > _INSIDE:
            options |= {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        legend_of_names(axes, self.lines_, levels, alignment="left", **options)

    @property
    def _is_categorical(self) -> bool:
        return isinstance(self.cells["covariate"].dtype, pd.CategoricalDtype)

    def _draw_level(
        self, axes: Axes, level: Any, i: int, width: float, line_kwargs: dict[str, Any] | None
    ) -> None:
        """Draw the cells and the curve of the i-th level, whose share of a category is `width`."""
        cells = self.cells[self.cells["level"] == level]
        curve = self.curves[self.curves["level"] == level]
        x, at = cells["covariate"], curve["covariate"]
        if self._is_categorical:
            shift = (i + 0.5) * width - _DODGED / 2
            jitter = (np.arange(len(x)) * _GOLDEN % 1 - 0.5) * 0.7 * width
            x, at = x.cat.codes + shift + jitter, at.cat.codes + shift
        data, model = (LEVELS[i], LEVELS[i]) if self.by else (DATA, MODEL)
        # matplotlib leaves names with an underscore out of a legend that the user may make.
        names = ("_", "_", str(level)) if self.by else ("cells", self._band_name, "fitted mean")
        style = point_style(line_kwargs, len(self.cells), color=data, zorder=1, label=names[0])
        self.points_ += axes.plot(x, cells["count"], **style)
        ends = at, curve["lower"], curve["upper"]
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
        self.lines_ += axes.plot(at, curve["mean"], color=model, label=names[2], **mean)
        self.bands_.append(band)

    @property
    def _band_name(self) -> str:
        low, high = self.quantiles
        return f"{100 * low:g} % to {100 * high:g} %"


def _name_categories(axes: Axes, names: pd.Index) -> None:
    axes.set_xticks(range(len(names)), [str(name) for name in names], parse_math=False)
    axes.figure.canvas.figure.draw_without_rendering()  # the axes may be a part of a figure
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    if any(left.x1 + _APART > right.x0 for left, right in pairwise(boxes)):
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")


def _frame_of(model: Any, X: Any) -> tuple[Any, pd.DataFrame]:
    """Return the frame of covariates of `X`, and what predicts from such a frame."""
    model = getattr(model, "best_estimator_", model)
    if hasattr(model, "model_") and hasattr(X, "obs"):
        model, X = model.model_, X.obs
    X = as_pandas(X)
    if not isinstance(X, pd.DataFrame):
        raise TypeError(f"X must be a DataFrame with columns to choose, not {type(X).__name__}.")
    return model, X


def _pair(quantiles: Any) -> tuple[float, float]:
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


def _check_columns(obs: pd.DataFrame, chosen: list[str], at: dict[str, Any]) -> None:
    for name in [*chosen, *at]:
        if name not in obs.columns:
            raise ValueError(no_column(name, obs.columns))
    for name in chosen:
        if name in at:
            raise ValueError(f"at holds {name!r}, which varies along the plot.")
        check_cells(obs[name].isna().to_numpy(), obs[name], f"column {name!r} is missing")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"covariate and by are the same column, {chosen[0]!r}.")


def _has_levels(column: pd.Series) -> bool:
    return pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column)


def _levels(column: pd.Series) -> pd.Categorical:
    return pd.Categorical(column).remove_unused_categories()


def _values(
    obs: pd.DataFrame, name: str, by: str | None, predicted: Callable[[dict[Any, Any]], Any]
) -> pd.Categorical | NDArray[Any]:
    """Return a column as levels or as numbers.

    Numbers are levels to a model that knows none between two of them, as ``C(batch)`` makes them.
    """
    column = obs[name]
    if _has_levels(column):
        return _levels(column)
    values = column.to_numpy()
    observed = np.unique(values)
    if len(observed) < 2:
        return values
    first = int(np.argmin(values))
    between = observed[0] + _GOLDEN * (observed[1] - observed[0])

    def takes(value: Any) -> bool:
        varying = {name: [value]} | ({} if by is None else {by: [obs[by].iloc[first]]})
        try:
            predicted(varying)
        except ValueError:
            return False
        return True

    return _levels(column) if not takes(between) and takes(values[first]) else values


def _typical(column: pd.Series) -> Any:
    """Return a value that a cell has: the lower median of numbers, or the most common of others."""
    if _has_levels(column):
        common = column.mode()
        return common.iloc[0] if len(common) else None
    known = column.dropna().sort_values()
    return known.iloc[(len(known) - 1) // 2] if len(known) else np.nan


def _grid(cells: pd.DataFrame, resolution: int) -> pd.DataFrame:
    """Return covariates to predict at, for each level where it has cells."""
    covariate = cells["covariate"]
    if isinstance(covariate.dtype, pd.CategoricalDtype):
        pairs = cells[["covariate", "level"]].drop_duplicates()
        return pairs.sort_values(["level", "covariate"], ignore_index=True)
    pieces = []
    for level, values in covariate.groupby(cells["level"], observed=True):
        points = np.linspace(values.min(), values.max(), resolution)
        pieces.append(pd.DataFrame({"covariate": points, "level": [level] * resolution}))
    grid = pd.concat(pieces, ignore_index=True)
    return grid.assign(level=grid["level"].astype(cells["level"].dtype))
