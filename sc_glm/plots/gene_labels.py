"""Names of genes next to their points, where they cover nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sc_glm.plots.axes import MUTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeAlias

    from sc_glm._design.design import FloatArray
    from sc_glm.plots.axes import Axes

    _Position: TypeAlias = tuple[tuple[float, float], str, str]

# Positions of a label next to its point, in order of preference: offset in typographic points, and
# alignment.
_NEAR: tuple[_Position, ...] = (
    ((4, 0), "left", "center"),
    ((-4, 0), "right", "center"),
    ((0, 4), "center", "bottom"),
    ((0, -4), "center", "top"),
    ((4, 5), "left", "bottom"),
    ((-4, 5), "right", "bottom"),
    ((4, -5), "left", "top"),
    ((-4, -5), "right", "top"),
)
# Positions of a label that must be drawn, where none of these is free. A line leads to its point.
_FAR: tuple[_Position, ...] = tuple(
    ((distance * right, distance * up), horizontal, vertical)
    for distance in (3, 5, 8, 12)
    for (right, up), horizontal, vertical in _NEAR
)
_LEADER = {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0.0, "shrinkB": 1.5}


def label_genes(
    axes: Axes,
    points: FloatArray,
    names: Sequence[str],
    required: Iterable[int],
    optional: Iterable[int],
) -> list[Any]:
    """Label points with names.

    Parameters
    ----------
    axes : Axes
        The axes, with all that the plot shows.
    points : ndarray of shape (n_genes, 2)
        Coordinates of all points; NaN for genes without a point.
    names : sequence of str
        The name of each gene.
    required : iterable of int
        Genes whose labels are always drawn. If there is no place next to the point, the label is
        farther away, with a line to the point.
    optional : iterable of int
        Genes whose labels are left out where they would cover another label or a point.

    Returns
    -------
    list of matplotlib Annotation
        The labels, those that are required first.
    """
    # This computes the final position of the axes, whose figure may be a part of another.
    axes.figure.canvas.figure.draw_without_rendering()
    pixels = axes.transData.transform(points)
    boxes: list[Any] = []  # of labels that are drawn
    labels = []
    for gene in required:
        label = _annotate(axes, points[gene], names[gene])
        position = _cheapest(axes, label, pixels, boxes, _NEAR + _FAR)[1]
        if position in _FAR:
            label.remove()
            label = _annotate(axes, points[gene], names[gene], arrowprops=_LEADER)
            _move(label, position)
        labels.append(label)
    for gene in optional:
        label = _annotate(axes, points[gene], names[gene])
        if _cheapest(axes, label, pixels, boxes, _NEAR)[0]:
            boxes.pop()
            label.remove()
        else:
            labels.append(label)
    return labels


def _annotate(axes: Axes, point: FloatArray, name: str, **options: Any) -> Any:
    return axes.annotate(
        name,
        (point[0], point[1]),
        xytext=(0, 0),
        textcoords="offset points",
        fontsize="x-small",
        zorder=3,
        parse_math=False,
        **options,
    )


def _move(label: Any, position: _Position) -> None:
    offset, horizontal, vertical = position
    label.set(position=offset, ha=horizontal, va=vertical)


def _cheapest(
    axes: Axes,
    label: Any,
    pixels: FloatArray,
    boxes: list[Any],
    positions: Sequence[_Position],
) -> tuple[float, _Position]:
    """Move a label to the first free position, or else to the one where it covers least.

    Its cost and the position are returned, and its extent is appended to `boxes`.
    """
    costs = []
    for position in positions:
        _move(label, position)
        costs.append(_covered(axes, label.get_window_extent().padded(1), pixels, boxes))
        if not costs[-1]:
            break
    best = int(np.argmin(costs))
    _move(label, positions[best])
    boxes.append(label.get_window_extent().padded(1))
    return costs[best], positions[best]


def _covered(axes: Axes, box: Any, pixels: FloatArray, boxes: list[Any]) -> float:
    """Return how much a label would cover: points, and labels or borders, which count more."""
    corners = [(box.x0, box.y0), (box.x1, box.y1)]
    outside = sum(not axes.bbox.contains(*corner) for corner in corners)
    labels = sum(box.overlaps(other) for other in boxes)
    points = int(((pixels > box.min) & (pixels < box.max)).all(axis=1).sum())
    return 1000.0 * outside + 100.0 * labels + points
