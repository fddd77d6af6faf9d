"""What all pictures share: colours, matplotlib's settings, a logarithmic axis of factors, PNG."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

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
    "figure.dpi": 110,
    "savefig.dpi": 110,
}
MAX_TICKS = 8


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    # No software name and date inside: the same record gives the same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


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
