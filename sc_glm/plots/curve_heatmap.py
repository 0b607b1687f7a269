"""Heat map of the fitted means of many genes along a covariate."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.utils import check_scalar

from sc_glm._contract.docstrings import documented
from sc_glm.estimators.pipeline import last_step
from sc_glm.inference.fitted_model import predicted_distributions
from sc_glm.plots.axes import PANEL, name_rows, panels, require_matplotlib, scale_bar, title
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
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

_ROW_HEIGHT = 0.15  # inches, in which the name of a gene can be read
_MAX_NAMED_ROWS = 50  # more genes have no names, and rows of any height


@documented(ENTRIES)
class CurveHeatmapDisplay:
    """Heat map of fitted means: a row for each gene, along a numeric covariate such as pseudotime.

    The means of a gene are divided by its largest mean, so that rows of genes of any mean are
    comparable, and a gene that hardly changes has one colour. Rows are ordered by the position of
    the largest mean, and at equal positions by the centre of mass. Up to 50 rows have names.

    It is recommended to use :meth:`from_estimator`.

    Parameters
    ----------
    mean : array-like of shape (n_genes, n_points)
        Fitted means.
    points : array-like of shape (n_points,)
        Values of the covariate, increasing.
    genes : sequence of str of length n_genes
        Names of the genes.
    covariate : str
        Name of the covariate.
    held : dict, default=None
        Values at which the other covariates are fixed.
    at_median_depth : bool, default=False
        Whether these values are medians of the columns in the model's offset. The plot says so.

    Attributes
    ----------
    order : ndarray of int of shape (n_genes,)
        Positions of the genes in the rows of the plot, from the top.
    {ax_}
    {figure_}
    mesh_ : matplotlib QuadMesh
        The colours.
    scale_ : matplotlib Colorbar
        The scale of the colours.

    Examples
    --------
    >>> from sc_glm import FormulaTransformer, NegBinRegressor, make_pipeline
    >>> from sc_glm.datasets import make_counts
    >>> from sc_glm.plots import CurveHeatmapDisplay
    >>> data = make_counts(random_state=0)
    >>> model = make_pipeline(FormulaTransformer("~ bs(pseudotime, df=4)"), NegBinRegressor())
    >>> display = CurveHeatmapDisplay.from_estimator(
    ...     model.fit(data.obs, data.counts), data.obs, covariate="pseudotime"
    ... )
    >>> display.mean.shape
    (20, 100)
    """

    def __init__(
        self,
        *,
        mean: ArrayLike,
        points: ArrayLike,
        genes: Sequence[str],
        covariate: str,
        held: dict[str, Any] | None = None,
        at_median_depth: bool = False,
    ) -> None:
        self.mean = np.asarray(mean, dtype=np.float64)
        self.points = np.asarray(points, dtype=np.float64)
        self.genes = list(genes)
        self.covariate = covariate
        self.held = held
        self.at_median_depth = at_median_depth
        shares = _shares(self.mean)
        centre = shares @ np.arange(shares.shape[1]) / np.maximum(shares.sum(axis=1), 1.0)
        self.order = np.lexsort([centre, shares.argmax(axis=1)])

    @classmethod
    @documented(ENTRIES)
    def from_estimator(
        cls,
        model: Any,
        X: Any,
        y: Any = None,  # noqa: ARG003 - as other displays
        *,
        covariate: str,
        genes: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        grid_resolution: int = 100,
        ax: Axes | None = None,
        mesh_kwargs: dict[str, Any] | None = None,
    ) -> Self:
        """Predict the means of genes along a covariate, and draw them.

        Parameters
        ----------
        {model_of_frames}
        X : DataFrame or AnnData
            Covariates of the cells.
        y : object, default=None
            Not used: fitted means need no counts.
        covariate : str
            Column of `X` on the horizontal axis, which holds numbers.
        genes : str or sequence of str, default=None
            Names of the genes to show; None shows all genes of the fit.
        at : mapping of str to object, default=None
            Values at which other columns of `X` are fixed.
        grid_resolution : int, default=100
            Number of points, from the smallest to the largest value of the covariate.
        {ax}
        {mesh_kwargs}

        Returns
        -------
        CurveHeatmapDisplay
            The display, which is drawn.

        Raises
        ------
        {raises_no_matplotlib}
        TypeError
            If `X` is neither a DataFrame nor an AnnData, or if `grid_resolution` is not an integer.
        ValueError
            If a gene or column does not exist, if the covariate holds levels or lacks values, or if
            `grid_resolution` is below 2.

        Notes
        -----
        {notes_held}
        """
        require_matplotlib(f"{cls.__name__}.from_estimator")
        check_scalar(grid_resolution, "grid_resolution", Integral, min_val=2)
        inner, obs = model_and_frame(model, X)
        at = dict(at or {})
        check_columns(obs, [covariate], at)
        if has_levels(obs[covariate]):
            raise ValueError(
                f"column {covariate!r} holds levels, but a heat map needs numbers to order: "
                "CovariateDisplay draws levels."
            )
        fixed = fixed_values(obs, [covariate], at)
        points = np.linspace(obs[covariate].min(), obs[covariate].max(), grid_resolution)
        columns = {name: points if name == covariate else fixed[name] for name in obs.columns}
        frame = pd.DataFrame(columns, index=range(grid_resolution))
        if genes is None:
            genes = list(last_step(inner, frame)[0].target_names_)
        display = cls(
            mean=predicted_distributions(inner, frame, genes).mean().T,
            points=points,
            genes=[genes] if isinstance(genes, str) else genes,
            covariate=covariate,
            held=fixed,
            at_median_depth=is_at_median_depth(inner, fixed, at),
        )
        return display.plot(ax, mesh_kwargs=mesh_kwargs)

    @documented(ENTRIES)
    def plot(self, ax: Axes | None = None, *, mesh_kwargs: dict[str, Any] | None = None) -> Self:
        """Draw the rows of the genes.

        Parameters
        ----------
        {ax}
        {mesh_kwargs}

        Returns
        -------
        CurveHeatmapDisplay
            The display itself.

        Raises
        ------
        {raises_no_matplotlib}
        """
        n_named = len(self.genes) if len(self.genes) <= _MAX_NAMED_ROWS else 0
        height = max(PANEL[1], 0.9 + _ROW_HEIGHT * n_named)
        (axes,) = panels(ax, f"{type(self).__name__}.plot", size=(PANEL[0], height))
        rows = np.arange(len(self.genes))
        style: dict[str, Any] = {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0, "rasterized": True}
        self.mesh_ = axes.pcolormesh(
            self.points,
            rows,
            _shares(self.mean)[self.order],
            shading="nearest",
            **style | (mesh_kwargs or {}),
        )
        axes.invert_yaxis()
        axes.set_xlabel(self.covariate, parse_math=False)
        axes.set_ylabel("gene")
        self.scale_ = scale_bar(axes, self.mesh_, "fitted mean / its maximum")
        name_rows(axes, [self.genes[gene] for gene in self.order])
        title(axes, f"{len(self.genes)} gene(s)", MEDIAN_DEPTH if self.at_median_depth else None)
        self.ax_, self.figure_ = axes, axes.figure
        return self


def _shares(mean: FloatArray) -> FloatArray:
    """Return means divided by the largest of their row; zero in rows without counts."""
    largest = mean.max(axis=1, keepdims=True)
    return np.divide(mean, largest, out=np.zeros_like(mean), where=largest > 0)
