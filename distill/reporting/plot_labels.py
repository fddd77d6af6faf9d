"""Names beside the points of a picture, never one over another."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from distill.reporting.plot_style import LABEL_BOX

FONT_SIZE = 9
MARKER = 8
"""Pixels across a marker."""
OFFSETS = ((7, 7), (7, -14), (-7, 7), (-7, -14))
"""Where a name may stand, in points of paper from its point: right above, right below, left above, left below."""


def label_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write names beside points, those that matter most first; one without a free place is left out.

    Call it when everything else is drawn: the places are those of the finished layout.

    Args:
        axes: of a figure that is ready.
        points: name and data coordinates.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    frame, taken = axes.get_window_extent(), [_marker(axes, point) for point in points]
    for name, x, y in points:
        for across, up in OFFSETS:
            text = axes.annotate(
                name,
                (x, y),
                (across, up),
                textcoords="offset points",
                ha="left" if across > 0 else "right",
                fontsize=FONT_SIZE,
                bbox=LABEL_BOX,
            )
            text.set_in_layout(False)  # the layout stays the one that the places were found in
            box = text.get_window_extent()
            if frame.contains(*box.min) and frame.contains(*box.max) and not any(map(box.overlaps, taken)):
                taken.append(box)
                break
            text.remove()


def _marker(axes: Axes, point: tuple[str, float, float]) -> Bbox:
    """Return the pixels that a point's marker covers."""
    x, y = axes.transData.transform(point[1:])
    return Bbox.from_bounds(float(x) - MARKER / 2, float(y) - MARKER / 2, MARKER, MARKER)
