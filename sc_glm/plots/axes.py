"""Axes in one style, for every display: alone in importing matplotlib, and that only to plot.

What is set is set on the axes that are drawn on. The user's ``rcParams`` keep their say on fonts
and resolution, and are never written.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import matplotlib.axes
    import matplotlib.legend
    from numpy.typing import NDArray

    from sc_glm._design.design import FloatArray

    Axes: TypeAlias = matplotlib.axes.Axes

# Colours that people with any colour vision tell apart: M. A. Petroff (2021), arXiv:2107.02270.
LEVELS = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
DATA = "#3f90da"
MODEL = "#bd1f01"
MUTED = "#717581"
BAND = "#c9cdd2"

PANEL = (4.2, 3.2)  # inches; at a column's width of 85 mm a font of 10 points is one of 8
_MANY = 2000  # points in a vector graphic


def require_matplotlib(caller: str) -> None:
    """Raise an ImportError that says what to install, if there is no matplotlib.

    Parameters
    ----------
    caller : str
        What needs it.
    """
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib, which is not installed: pip install 'sc_glm[plots]'"
        ) from error


def panels(
    ax: Any, caller: str, shape: tuple[int, int] = (1, 1), size: tuple[float, float] = PANEL
) -> NDArray[np.object_]:
    """Return axes to draw on: the caller's, or those of a new figure.

    Parameters
    ----------
    ax : Axes, array-like of Axes or None
        None makes a figure.
    caller : str
        Name of the method that draws.
    shape : tuple of int, default=(1, 1)
        Rows and columns of panels.
    size : tuple of float
        Width and height of a panel of a new figure, in inches.

    Returns
    -------
    ndarray of Axes, one-dimensional

    Raises
    ------
    ImportError
        If there is no matplotlib.
    ValueError
        If there are more or fewer axes than panels.
    """
    require_matplotlib(caller)
    if ax is None:
        from matplotlib import pyplot as plt  # noqa: PLC0415 - an extra, and needs a backend

        figsize = size[0] * shape[1], size[1] * shape[0]
        ax = plt.subplots(*shape, figsize=figsize, layout="constrained")[1]
    axes = np.array(ax, dtype=object).ravel()
    if len(axes) != np.prod(shape):
        raise ValueError(
            f"{caller} draws {np.prod(shape)} panel(s), but ax holds {len(axes)} axes."
        )
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_linewidth(0.6)
        panel.tick_params(which="both", width=0.6, labelsize="small")
    return axes


def line_style(own: dict[str, Any] | None, **defaults: Any) -> dict[str, Any]:
    """Return the properties of a line or its markers: defaults, and over them the user's own.

    Parameters
    ----------
    own : dict or None
        Keyword arguments of :meth:`matplotlib.axes.Axes.plot`, also by their short names.
    **defaults : object
        The same, by their long names.

    Returns
    -------
    dict
    """
    from matplotlib.cbook import normalize_kwargs  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return defaults | normalize_kwargs(own or {}, Line2D)


def point_style(own: dict[str, Any] | None, n_points: int, **defaults: Any) -> dict[str, Any]:
    """Return the style of points that are drawn as a line's markers; of many, faint pixels.

    Parameters
    ----------
    own : dict or None
        As in :func:`line_style`.
    n_points : int
        How many there are.
    **defaults : object
        As in :func:`line_style`.

    Returns
    -------
    dict
    """
    few = n_points <= 200
    size = 4.0 if few else 3.0 if n_points <= _MANY else 2.0
    common: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markeredgewidth": 0.0,
        "alpha": 0.8 if few else 0.5 if n_points <= _MANY else 0.3,
        "rasterized": n_points > _MANY,
    }
    return line_style(own, **(common | defaults))


def log1p_counts(ax: Axes, largest: float) -> None:
    """Give an axis of counts the scale log(1 + count), which has a place for zero.

    Parameters
    ----------
    ax : Axes
    largest : float
        Largest count to show.
    """
    ax.set_yscale("function", functions=(np.log1p, np.expm1))
    steps = [1.0] if largest > 300 else [1.0, 3.0] if largest > 10 else [1.0, 2.0, 3.0, 5.0]
    decades = 10.0 ** np.arange(17)  # beyond the largest count
    ticks = np.append(0.0, np.outer(decades, steps))
    ticks = ticks[ticks <= max(largest, 1.0)]
    labels = [f"{x:g}" if x < 1e4 else f"$10^{{{np.log10(x):.0f}}}$" for x in ticks]
    ax.set_yticks(ticks, labels)
    top = np.log1p(max(largest, 1.0))
    ax.set_ylim(*np.expm1([-0.04 * top, 1.04 * top]))


def log_log(ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """Give both axes logarithmic scales with room for points, and for a decade at least.

    Parameters
    ----------
    ax : Axes
    x, y : ndarray
        Coordinates of the points, positive.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    ax.set(xscale="log", yscale="log")
    for axis, set_limits, values in ((ax.xaxis, ax.set_xlim, x), (ax.yaxis, ax.set_ylim, y)):
        low, high = np.log10(values.min()), np.log10(values.max())
        margin = max(0.05 * (high - low), (1.0 - high + low) / 2)
        set_limits(10 ** (low - margin), 10 ** (high + margin))
        if high - low < 1.5:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def identity(ax: Axes, low: float, high: float) -> None:
    """Draw the line on which both axes are equal.

    Parameters
    ----------
    ax : Axes
    low, high : float
        Its ends.
    """
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=1)


def nothing(ax: Axes) -> None:
    """Say that there is nothing to show, where logarithmic axes would have no limits.

    Parameters
    ----------
    ax : Axes
    """
    ax.text(0.5, 0.5, "nothing to show", ha="center", transform=ax.transAxes, color=MUTED)
    ax.set(xticks=[], yticks=[])


def ink(ax: Axes) -> Any:
    """Return the colour of what is written at the axes: dark, or light in a dark style.

    Parameters
    ----------
    ax : Axes

    Returns
    -------
    colour
    """
    return ax.xaxis.label.get_color()


def title(ax: Axes, text: str | None, note: str | None = None) -> None:
    """Write what is shown on the left above the axes, and on the right what is left out.

    Where there is no room for both, one stands above the other.

    Parameters
    ----------
    ax : Axes
    text, note : str or None
        As they are: a dollar sign begins no formula.
    """
    styles: list[dict[str, Any]] = [
        {"label": text, "loc": "left", "fontsize": "medium"},
        {"label": note, "loc": "right", "fontsize": "x-small", "color": MUTED},
    ]
    written = [ax.set_title(**style, parse_math=False) for style in styles if style["label"]]
    widths = [part.get_window_extent().width for part in written]
    if len(written) > 1 and sum(widths) > 0.95 * ax.get_window_extent().width:
        written[0].set_text(f"{text}\n")


def legend(ax: Axes, **options: Any) -> matplotlib.legend.Legend:
    """Write a legend without a frame, in small letters.

    Parameters
    ----------
    ax : Axes
    **options : object
        Of :meth:`matplotlib.axes.Axes.legend`.

    Returns
    -------
    Legend
    """
    return ax.legend(**({"frameon": False, "fontsize": "small", "handlelength": 1.5} | options))


def legend_of_names(ax: Axes, lines: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Write a legend of the user's names as they are, whatever signs they have.

    Parameters
    ----------
    ax : Axes
    lines : sequence of matplotlib artists
    names : sequence of str
        A name for each.
    **options : object
        As for :func:`legend`.
    """
    # matplotlib would leave out names that begin with an underscore, and set formulas.
    box = legend(ax, handles=lines, labels=["name"] * len(lines), **options)
    box.get_title().set_parse_math(False)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)
