"""The record as pictures: matplotlib figures without pyplot, so that nothing global is opened or changed."""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter

from distill.evaluation.record import Record, model_metrics, share_of_teacher
from distill.evaluation.record_parts import Point, SpeedPoint
from distill.reporting.formatting import metric_label, metric_text
from distill.reporting.record_tables import fidelity_by_layer

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
AnyPoint = TypeVar("AnyPoint", bound=Point)
NOT_LOSSES = ("step", "learning_rate", "examples_per_second")
LossHistory = Mapping[str, Sequence[Mapping[str, float]]]


def draw_plots(record: Record, loss_history: LossHistory | None = None) -> dict[str, bytes]:
    """Return PNG bytes by file name for every picture that the record holds numbers for.

    ``loss_history`` maps a stage's name to the lines that the training loop logged in it: ``step`` and raw losses.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "retention_speedup.png": retention_against_speedup(record),
            "speed_by_length.png": speed_by_length(record),
            "memory_by_length.png": memory_by_length(record),
            "fidelity.png": fidelity(record),
            "stages.png": metric_after_stages(record),
            "losses.png": losses(loss_history or {}),
        }
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    # No software name and date inside: the same record gives the same bytes.
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def retention_against_speedup(record: Record) -> Figure | None:
    """Draw what was kept against what was gained: one point per measured batch and length, 95 % intervals."""
    name = record.main_metric
    retention = record.retention.get(name)
    groups = _speed_groups(record)
    if retention is None or retention.value is None or not groups:
        return None
    figure = Figure(figsize=(7.2, 4.6))
    axes = figure.subplots()
    # Where too few examples allow no interval, the band is a line.
    value, low, high = (
        100 * (retention.value if end is None else end) for end in (retention.value, retention.low, retention.high)
    )
    axes.axhspan(low, high, color=STUDENT, alpha=0.13, lw=0)
    axes.axhline(value, color=STUDENT, lw=1, alpha=0.6)
    axes.plot(1, 100, marker="*", ms=15, color=TEACHER, ls="", label="teacher", zorder=4)
    for index, (label, points) in enumerate(groups.items()):
        _speedup_row(axes, points, value, label, index)
    baseline = share_of_teacher(record, "baseline")
    if baseline is not None:
        axes.axhline(100 * baseline, color=BASELINE, ls="--", lw=1.3, label="same student, labels alone")
    axes.axvline(1, color=TEACHER, lw=0.8, ls=":")
    lowest = min(low, 100 * baseline if baseline is not None else low)
    span = max(high, 100) - lowest
    axes.set_ylim(lowest - 0.22 * span - 0.5, max(high, 100) + 0.15 * span + 0.5)
    log_axis(axes, "x", [speedup for points in groups.values() for speedup in _speedups(points)] + [1.0])
    whole = span > 4
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=whole))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0 if whole else 1))
    axes.set_xlabel("speedup over the teacher (numbers at the points: length in tokens)")
    axes.set_ylabel(f"retention of {metric_label(name)}")
    axes.set_title(f"Kept against gained, {record.task} (bars and band: 95 %)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return figure


def _speedup_row(axes: Axes, points: list[SpeedPoint], height: float, label: str, index: int) -> None:
    """Draw one batch size's points at the student's retention, lengths above for the first row, below for the next."""
    offset = (0, 9) if index % 2 == 0 else (0, -17)
    speedups = _speedups(points)
    bars = [[value - (point.low or value) for value, point in zip(speedups, points, strict=True)]]
    bars.append([(point.high or value) - value for value, point in zip(speedups, points, strict=True)])
    style: dict[str, Any] = {"color": STUDENT, "marker": "os^Dv"[index % 5], "ls": "", "capsize": 3, "elinewidth": 1.2}
    face = STUDENT if index % 2 == 0 else "white"
    axes.errorbar(speedups, [height] * len(points), xerr=bars, label=label, markerfacecolor=face, zorder=3, **style)
    for point in points:
        place = (point.speedup or 1.0, height)
        axes.annotate(f"{point.length}", place, offset, textcoords="offset points", ha="center", fontsize=8.5)


def speed_by_length(record: Record) -> Figure | None:
    """Draw time (log-log) and, below it, the speedup with its two factors, one column per device, dtype and batch."""
    groups = _speed_groups(record)
    if not groups:
        return None
    figure = Figure(figsize=(max(7.2, 4.4 * len(groups)), 6.4), layout="constrained")
    grid = figure.subplots(2, len(groups), squeeze=False, sharex="col", height_ratios=(3, 2))
    smallest = min(point.batch_size for points in groups.values() for point in points)
    for column, (label, points) in enumerate(groups.items()):
        # The crossover is that of the smallest batch; another batch has another one.
        crossover = record.crossover_length if points[0].batch_size == smallest else None
        _time_panel(grid[0][column], points, label, crossover)
        _factor_panel(grid[1][column], points, crossover)
    grid[0][0].set_ylabel("time per batch (ms)")
    grid[1][0].set_ylabel("speedup")
    for row in (0, 1):
        grid[row][0].legend(loc="best", fontsize=9)
    return figure


def _time_panel(axes: Axes, points: list[SpeedPoint], label: str, crossover: int | None) -> None:
    lengths = [point.length for point in points]
    for name, color, marker in (("teacher", TEACHER, "s"), ("student", STUDENT, "o")):
        axes.plot(lengths, [getattr(point, f"{name}_ms") for point in points], color=color, marker=marker, label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_title(label)
    if crossover is not None:
        axes.axvline(crossover, color=BASELINE, lw=1, ls="--")
        late = crossover > (min(lengths) * max(lengths)) ** 0.5  # the text stays inside the panel
        axes.annotate(
            f"attention crossover\n{crossover:,} tokens",
            (crossover, 0.02),
            (-5 if late else 5, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if late else "left",
            fontsize=8.5,
            color=BASELINE,
        )


def _factor_panel(axes: Axes, points: list[SpeedPoint], crossover: int | None) -> None:
    lengths = [point.length for point in points]
    speedups = _speedups(points)
    axes.plot(lengths, speedups, color=STUDENT, marker="o", label="speedup")
    low = [point.low or value for point, value in zip(points, speedups, strict=True)]
    high = [point.high or value for point, value in zip(points, speedups, strict=True)]
    axes.fill_between(lengths, low, high, color=STUDENT, alpha=0.2, lw=0)
    for name, style in (("depth", ":"), ("attention", "--")):
        values: list[Any] = [getattr(point, f"{name}_speedup") for point in points]
        if None not in values:
            axes.plot(lengths, values, color=CONTROL, ls=style, marker=".", label=f"by {name}")
    axes.axhline(1, color=TEACHER, lw=0.8)
    if crossover is not None:
        axes.axvline(crossover, color=BASELINE, lw=1, ls="--")
    axes.set_xscale("log", base=2)
    _length_ticks(axes, lengths)
    log_axis(axes, "y", [*low, *high, 1.0])


def _length_ticks(axes: Axes, lengths: Sequence[int]) -> None:
    axes.set_xticks(sorted(set(lengths)), [f"{length:,}" for length in sorted(set(lengths))])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("length (tokens)")


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


def memory_by_length(record: Record) -> Figure | None:
    """Draw peak memory by length, one panel per device, dtype and batch."""
    groups = _groups(point for point in record.memory if point.teacher_mb and point.student_mb)
    if not groups:
        return None
    figure = Figure(figsize=(max(6.0, 4.4 * len(groups)), 3.8), layout="constrained")
    for axes, (label, points) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        lengths = [point.length for point in points]
        for name, color, marker in (("teacher", TEACHER, "s"), ("student", STUDENT, "o")):
            axes.plot(
                lengths, [getattr(point, f"{name}_mb") for point in points], color=color, marker=marker, label=name
            )
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        _length_ticks(axes, lengths)
        axes.set_ylabel("peak memory (MB)")
        axes.set_title(label)
        axes.legend(loc="upper left")
    return figure


def fidelity(record: Record) -> Figure | None:
    """Draw per-layer fidelity, attention output and hidden states, one bar per stage in every student layer."""
    stages = [stage for stage in record.stages if fidelity_by_layer(stage)]
    if not stages:
        return None
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, ("attention_output", "hidden_states"), strict=True):
        _fidelity_panel(axes, [(stage.name, fidelity_by_layer(stage, kind)) for stage in stages])
        axes.set_title(f"{kind.replace('_', ' ').capitalize()} of each layer")
    panels[0].set_ylabel("teacher's variance explained")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(stages)))
    return figure


def _fidelity_panel(axes: Axes, stages: Sequence[tuple[str, list[float]]]) -> None:
    width = 0.8 / len(stages)
    shades = matplotlib.colormaps["Blues"]
    for index, (name, values) in enumerate(stages):
        places = [layer + 1 + (index - (len(stages) - 1) / 2) * width for layer in range(len(values))]
        color = shades(0.4 + 0.45 * index / max(1, len(stages) - 1))
        axes.bar(places, values, width * 0.92, color=color, label=f"after {name}")
    # A layer far below 0 is simply bad; how far would only flatten the layers worth comparing.
    lowest = min((value for _, values in stages for value in values), default=0.0)
    axes.set_ylim(max(-1.0, min(0.0, 1.1 * lowest)), 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.axhline(0, color=TEACHER, lw=0.8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("student layer (1 = next to the embeddings)")


def metric_after_stages(record: Record) -> Figure | None:
    """Draw what each stage bought: the main metric after every stage, between the baseline and the teacher."""
    name = record.main_metric
    scored: list[tuple[str, Any]] = [(stage.name, (stage.metrics or {}).get(name)) for stage in record.stages]
    scored = [(stage, value) for stage, value in scored if value is not None]
    if not scored:
        return None
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(len(scored)), [value for _, value in scored], color=STUDENT, marker="o", ms=8, label="student")
    for place, (_, value) in enumerate(scored):
        axes.annotate(
            metric_text(name, value), (place, value), (0, 9), textcoords="offset points", ha="center", fontsize=9.5
        )
    for model, color, style in (("teacher", TEACHER, "-"), ("baseline", BASELINE, "--")):
        value = model_metrics(record, model).get(name)
        if value is not None:
            label = f"{'teacher' if model == 'teacher' else 'labels alone'} ({metric_text(name, value)})"
            axes.axhline(value, color=color, ls=style, lw=1.3, label=label)
    axes.set_xticks(range(len(scored)), [f"after {stage}" for stage, _ in scored])
    axes.set_xlim(-0.5, len(scored) - 0.5)
    axes.margins(y=0.2)
    axes.grid(visible=False, axis="x")
    if metric_text(name, 1.0).endswith("%"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel(metric_label(name))
    axes.set_title("What each stage bought")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    return figure


def losses(history: LossHistory) -> Figure | None:
    """Draw the raw loss curves, one panel per stage."""
    stages = {stage: lines for stage, lines in history.items() if lines}
    if not stages:
        return None
    columns = min(2, len(stages))
    rows = -(-len(stages) // columns)
    figure = Figure(figsize=(4.8 * columns, 3.4 * rows), layout="constrained")
    for place, (stage, lines) in enumerate(stages.items(), start=1):
        axes = figure.add_subplot(rows, columns, place)
        for name in lines[0]:
            if name not in NOT_LOSSES and not name.endswith("_weighted"):
                axes.plot([line["step"] for line in lines], [line[name] for line in lines], lw=1.4, label=name)
        axes.set_title(stage)
        axes.set_xlabel("optimiser step of the stage")
        axes.set_ylabel("loss (unweighted)")
        axes.legend(fontsize=9)
    return figure


def _speed_groups(record: Record) -> dict[str, list[SpeedPoint]]:
    return _groups(point for point in record.speed if point.speedup is not None)


def _speedups(points: Iterable[SpeedPoint]) -> list[float]:
    return [point.speedup for point in points if point.speedup is not None]


def _groups(points: Iterable[AnyPoint]) -> dict[str, list[AnyPoint]]:
    """Sort points into one list per device, dtype and batch size, each by length."""
    groups: dict[str, list[AnyPoint]] = {}
    for point in sorted(points, key=lambda point: (point.device, point.dtype, point.batch_size, point.length)):
        groups.setdefault(f"{point.device}, {point.dtype}, batch {point.batch_size}", []).append(point)
    return groups
