"""What all pictures share: colours, matplotlib's settings, a logarithmic axis of factors, PNG."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

TEACHER, STUDENT, BASELINE, CONTROL = "#4a5568", "#0b6e99", "#c05621", "#718096"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "text.parse_math": False,  # a dollar in somebody's class name is a dollar
    "figure.dpi": 110,
    "savefig.dpi": 110,
}
MAX_TICKS = 8
LABEL_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85}
"""Behind a label that may lie on a line."""


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    # No software name and date inside: the same record gives the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def percent_axis(axis: Axis, whole: float = 1.0) -> None:
    """Write the ticks of an axis as ``97.5 %``, where ``whole`` stands for 100 %."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value / whole, 6):g} %"))


def log_counts(axis: Axis) -> None:
    """Make the ticks of a logarithmic axis of tokens or seconds read 100k and 1M, whatever `text.parse_math` is."""
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())


def log_axis(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make the x or y axis of factors logarithmic, with a few round numbers as ticks whatever the range."""
    axes.set(**{f"{which}scale": "log"})
    low, high = 0.98 * min(values), 1.02 * max(values)
    doublings = [first * 2.0**power for power in range(-6, 12) for first in (1, 1.5)]
    ticks = [tick for tick in doublings if low <= tick <= high]
    if len(ticks) < 3:
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks[:: -(-len(ticks) // MAX_TICKS)])
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    axis.set_minor_locator(NullLocator())
