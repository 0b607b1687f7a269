"""Axes in one style, for all displays. It is the only module that imports matplotlib.

matplotlib is imported when a plot is drawn. Properties are set on the axes of the plot. The user's
``rcParams`` decide about fonts and resolution, and are never changed. ``style`` gives a user's own
plots the style of the displays.
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

# Colours for people with any colour vision: M. A. Petroff (2021), arXiv:2107.02270.
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

# Width and height in inches. In a column of 85 mm, a font of 10 points is scaled to 8 points.
PANEL = (4.2, 3.2)
_FRAME_WIDTH = 0.6  # of spines and ticks, in points
_TICK_FONT = "small"
_LEGEND = {
    "frameon": False,
    "fontsize": "small",
    "title_fontsize": "small",
    "handlelength": 1.5,
}
_MAX_LARGE_POINTS = 200  # up to this number, points are large and nearly opaque
_MAX_VECTOR_POINTS = 2000  # more points are rasterised, to keep files of vector graphics small


def style() -> dict[str, Any]:
    """Return the style of the displays, for plots of your own next to them.

    Returns
    -------
    dict of str to object
        ``rcParams`` for :func:`matplotlib.style.use` or :func:`matplotlib.style.context`. The
        colours ``"C0"`` to ``"C9"`` are distinct for people with any colour vision (Petroff 2021,
        arXiv:2107.02270). Displays draw data in ``"C0"``, and the model in ``"C2"``.

    Examples
    --------
    >>> from matplotlib import pyplot as plt
    >>> from sc_glm.plots import style
    >>> with plt.style.context(style()):
    ...     figure, ax = plt.subplots()
    ...     line = ax.plot([0, 1], [0, 1])[0]
    >>> line.get_color()
    '#3f90da'
    """
    return {
        # matplotlib parses the cycle, so that it need not be imported here.
        "axes.prop_cycle": f"cycler(color={list(LEVELS)})",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": _FRAME_WIDTH,
        "axes.titlelocation": "left",
        "axes.titlesize": "medium",
        "figure.constrained_layout.use": True,
        "figure.figsize": PANEL,
        "image.cmap": "viridis",
        **{f"{x}tick.{level}.width": _FRAME_WIDTH for x in "xy" for level in ("major", "minor")},
        **{f"{x}tick.labelsize": _TICK_FONT for x in "xy"},
        **{f"legend.{name}": value for name, value in _LEGEND.items()},
    }


def require_matplotlib(caller: str) -> None:
    """Raise an ImportError that says what to install, if matplotlib is not installed.

    Parameters
    ----------
    caller : str
        Name of the method that needs matplotlib.
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
    """Return axes to draw on: the given ones, or the axes of a new figure.

    Parameters
    ----------
    ax : Axes, array-like of Axes or None
        The given axes; None makes a new figure.
    caller : str
        Name of the method that draws.
    shape : tuple of int, default=(1, 1)
        Rows and columns of panels.
    size : tuple of float
        Width and height of a panel of a new figure, in inches.

    Returns
    -------
    ndarray of Axes, one-dimensional
        The axes, without spines at the top and on the right.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
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
        panel.spines[["left", "bottom"]].set_linewidth(_FRAME_WIDTH)
        panel.tick_params(which="both", width=_FRAME_WIDTH, labelsize=_TICK_FONT)
    return axes


def line_style(user_style: dict[str, Any] | None, **defaults: Any) -> dict[str, Any]:
    """Return the properties of a line or its markers: the user's, or else the defaults.

    Parameters
    ----------
    user_style : dict or None
        The user's keyword arguments of :meth:`matplotlib.axes.Axes.plot`; their names may be
        abbreviated, such as ``lw``.
    **defaults : object
        Default keyword arguments, by their full names.

    Returns
    -------
    dict
        Keyword arguments by their full names.
    """
    from matplotlib.cbook import normalize_kwargs  # noqa: PLC0415
    from matplotlib.lines import Line2D  # noqa: PLC0415

    return defaults | normalize_kwargs(user_style or {}, Line2D)


def point_style(
    user_style: dict[str, Any] | None, n_points: int, **defaults: Any
) -> dict[str, Any]:
    """Return the style of points, which are markers of a line; many points are small and faint.

    Parameters
    ----------
    user_style : dict or None
        The user's keyword arguments of :meth:`matplotlib.axes.Axes.plot`.
    n_points : int
        Number of points.
    **defaults : object
        Default keyword arguments, by their full names.

    Returns
    -------
    dict
        Keyword arguments by their full names.
    """
    are_large = n_points <= _MAX_LARGE_POINTS
    size = 4.0 if are_large else 3.0 if n_points <= _MAX_VECTOR_POINTS else 2.0
    common: dict[str, Any] = {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markeredgewidth": 0.0,
        "alpha": 0.8 if are_large else 0.5 if n_points <= _MAX_VECTOR_POINTS else 0.3,
        "rasterized": n_points > _MAX_VECTOR_POINTS,
    }
    return line_style(user_style, **(common | defaults))


def log1p_counts(ax: Axes, largest: float) -> None:
    """Set the scale of an axis of counts to log(1 + count), which can show zero, and label it.

    Parameters
    ----------
    ax : Axes
        The axes; the scale of the vertical axis is set.
    largest : float
        Largest count to show.
    """
    ax.set_yscale("function", functions=(np.log1p, np.expm1))
    steps = [1.0] if largest > 300 else [1.0, 3.0] if largest > 10 else [1.0, 2.0, 3.0, 5.0]
    decades = 10.0 ** np.arange(17)  # up to more than the largest count
    ticks = np.append(0.0, np.outer(decades, steps))
    ticks = ticks[ticks <= max(largest, 1.0)]
    labels = [f"{x:g}" if x < 1e4 else f"$10^{{{np.log10(x):.0f}}}$" for x in ticks]
    ax.set_yticks(ticks, labels)
    top = np.log1p(max(largest, 1.0))
    ax.set_ylim(*np.expm1([-0.04 * top, 1.04 * top]))
    ax.set_ylabel("count (log1p scale)")


def log_log(ax: Axes, x: FloatArray, y: FloatArray) -> None:
    """Set logarithmic scales on both axes, with limits that span at least a decade.

    Parameters
    ----------
    ax : Axes
        The axes.
    x, y : ndarray
        Coordinates of the points, positive.
    """
    log_axis(ax, "x", x)
    log_axis(ax, "y", y)


def log_axis(ax: Axes, name: str, values: FloatArray) -> None:
    """Set a logarithmic scale on one axis, with limits that span at least a decade.

    Parameters
    ----------
    ax : Axes
        The axes.
    name : {"x", "y"}
        The axis.
    values : ndarray
        Coordinates of the points on this axis, positive.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    ax.set(**{f"{name}scale": "log"})
    low, high = np.log10(values.min()), np.log10(values.max())
    margin = max(0.05 * (high - low), (1.0 - high + low) / 2)
    ax.set(**{f"{name}lim": (10 ** (low - margin), 10 ** (high + margin))})
    if high - low < 1.5:
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def identity(ax: Axes, low: float, high: float) -> None:
    """Draw the diagonal, on which both coordinates are equal.

    Parameters
    ----------
    ax : Axes
        The axes.
    low, high : float
        Coordinates of its ends.
    """
    ax.plot([low, high], [low, high], color=MUTED, linewidth=0.8, zorder=1)


def write_nothing_to_show(ax: Axes) -> None:
    """Write that there is nothing to show, for data without any point on logarithmic axes.

    Parameters
    ----------
    ax : Axes
        The axes.
    """
    ax.text(0.5, 0.5, "nothing to show", ha="center", transform=ax.transAxes, color=MUTED)
    ax.set(xticks=[], yticks=[])


def text_color(ax: Axes) -> Any:
    """Return the colour of text at the axes, which is light in a dark style.

    Parameters
    ----------
    ax : Axes
        The axes.

    Returns
    -------
    matplotlib colour
    """
    return ax.xaxis.label.get_color()


def title(ax: Axes, text: str | None, note: str | None = None) -> None:
    """Write a title above the axes on the left, and a note on the right.

    If the axes are too narrow for both, the title is above the note.

    Parameters
    ----------
    ax : Axes
        The axes.
    text, note : str or None
        The title and the note. They are written literally: a dollar sign does not start a formula.
    """
    styles: list[dict[str, Any]] = [
        {"label": text, "loc": "left", "fontsize": "medium"},
        {"label": note, "loc": "right", "fontsize": "x-small", "color": MUTED},
    ]
    written = [ax.set_title(**style, parse_math=False) for style in styles if style["label"]]
    widths = [part.get_window_extent().width for part in written]
    if len(written) > 1 and sum(widths) > 0.95 * ax.get_window_extent().width:
        written[0].set_text(f"{text}\n")


def name_ends(ax: Axes, axis: str, low: str, high: str) -> None:
    """Write next to the label of an axis what its two ends mean.

    If the axis is too short for both, they are on two lines.

    Parameters
    ----------
    ax : Axes
        The axes, which have the label.
    axis : {"x", "y"}
        The axis.
    low, high : str
        Meanings of the lower and of the upper end. They are written literally.
    """
    horizontal = axis == "x"
    label = ax.xaxis.label if horizontal else ax.yaxis.label
    common: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small", "color": MUTED}
    ends = []
    for text, at in ((low, 0.0), (high, 1.0)):
        # Positions in the extent of the label, which follows fonts and tick labels.
        place: dict[str, Any] = (
            {"xy": (at, 0.0), "xycoords": ("axes fraction", label), "xytext": (0.0, -2.0)}
            | {"ha": "right" if at else "left", "va": "top"}
            if horizontal
            else {"xy": (0.0, at), "xycoords": (label, "axes fraction"), "xytext": (-3.0, 0.0)}
            | {"ha": "right", "va": "top" if at else "bottom", "rotation": 90}
        )
        ends.append(ax.annotate(text, **place, **common, annotation_clip=False, parse_math=False))
    extents = [end.get_window_extent() for end in ends]
    whole = ax.get_window_extent()
    if horizontal and sum(extent.width for extent in extents) > 0.95 * whole.width:
        ends[1].set_text(f"\n{high}")
    elif not horizontal and sum(extent.height for extent in extents) > 0.95 * whole.height:
        ends[1].set_text(f"{high}\n")


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    """Name the rows at 0, 1, ... of a vertical axis, if there is room for the names.

    Without room, the axis has no ticks.

    Parameters
    ----------
    ax : Axes
        The axes.
    names : sequence of str
        The name of each row. They are written literally.
    """
    ax.tick_params(axis="y", which="both", length=0.0)
    ax.set_yticks(range(len(names)), names, parse_math=False, fontsize="x-small")
    ax.figure.canvas.figure.draw_without_rendering()  # computes the final size of the axes
    heights = [label.get_window_extent().height for label in ax.get_yticklabels()]
    if sum(heights) > 1.3 * ax.get_window_extent().height:
        ax.set_yticks([])


def scale_bar(ax: Axes, mesh: Any, label: str) -> Any:
    """Draw the scale of colours on the right of the axes, as a part of them.

    Parameters
    ----------
    ax : Axes
        The axes.
    mesh : matplotlib ScalarMappable
        What the colours belong to.
    label : str
        What they mean.

    Returns
    -------
    matplotlib Colorbar
    """
    bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)))
    bar.set_label(label, fontsize="small")
    bar.ax.tick_params(width=_FRAME_WIDTH, labelsize=_TICK_FONT)
    bar.outline.set_visible(False)
    return bar


def legend(ax: Axes, **options: Any) -> matplotlib.legend.Legend:
    """Write a legend without a frame, in a small font.

    Parameters
    ----------
    ax : Axes
        The axes.
    **options : object
        Keyword arguments of :meth:`matplotlib.axes.Axes.legend`.

    Returns
    -------
    matplotlib Legend
    """
    return ax.legend(**(_LEGEND | options))


def legend_of_names(ax: Axes, lines: Sequence[Any], names: Sequence[str], **options: Any) -> None:
    """Write a legend of names of the user, which may contain any characters.

    Parameters
    ----------
    ax : Axes
        The axes.
    lines : sequence of matplotlib artists
        Lines in the legend.
    names : sequence of str
        The name of each line.
    **options : object
        Keyword arguments of :meth:`matplotlib.axes.Axes.legend`.
    """
    # matplotlib omits names that start with an underscore, and interprets dollar signs.
    box = legend(ax, handles=lines, labels=["name"] * len(lines), **options)
    box.get_title().set_parse_math(False)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set(text=name, parse_math=False)
