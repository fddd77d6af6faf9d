"""The record as pictures: matplotlib figures without pyplot, so that nothing global is opened or changed."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from distill.evaluation.record import Record, share_of_teacher
from distill.evaluation.record_parts import Point, SpeedPoint
from distill.reporting.answer_plots import confusion_matrices, f1_by_label, scores_against_labels
from distill.reporting.answers import Answers
from distill.reporting.formatting import metric_label
from distill.reporting.plot_style import (
    BASELINE,
    CONTROL,
    LABEL_BOX,
    STUDENT,
    STYLE,
    TEACHER,
    log_axis,
    percent_axis,
    png,
)
from distill.reporting.training_plots import LossHistory, fidelity, losses, metric_after_stages

ROW_DISTANCE = 26
"""Points of paper between the rows of two batch sizes."""
POINTS_PER_INCH = 72
CLOSE = 1.07
"""Ratio of two speedups below which their labels would overprint."""
AnyPoint = TypeVar("AnyPoint", bound=Point)


def draw_plots(
    record: Record, loss_history: LossHistory | None = None, answers: Answers | None = None
) -> dict[str, bytes]:
    """Return PNG bytes by file name for every picture that there are numbers for.

    ``loss_history`` maps a stage's name to the lines that the training loop logged in it: ``step`` and raw losses.
    ``answers``: what both models said about every example.
    """
    with matplotlib.rc_context(STYLE):
        figures = {
            "confusion.png": confusion_matrices(record, answers),
            "labels.png": f1_by_label(record, answers),
            "scores.png": scores_against_labels(record, answers),
            "retention_speedup.png": retention_against_speedup(record),
            "speed_by_length.png": speed_by_length(record),
            "memory_by_length.png": memory_by_length(record),
            "fidelity.png": fidelity(record),
            "stages.png": metric_after_stages(record),
            "losses.png": losses(loss_history or {}),
        }
        return {name: png(figure) for name, figure in figures.items() if figure is not None}


def retention_against_speedup(record: Record) -> Figure | None:
    """Draw what was kept against what was gained: one point per measured batch and length, 95 % intervals."""
    name = record.main_metric
    retention = record.retention.get(name)
    groups = _speed_groups(record)
    if retention is None or retention.value is None or not groups:
        return None
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    # Where too few examples allow no interval, the band is a line.
    value, low, high = (
        100 * (retention.value if end is None else end) for end in (retention.value, retention.low, retention.high)
    )
    axes.axhspan(low, high, color=STUDENT, alpha=0.13, lw=0)
    axes.axhline(value, color=STUDENT, lw=1, alpha=0.6)
    axes.plot(1, 100, marker="*", ms=15, color=TEACHER, ls="", label="teacher", zorder=4)
    for index, (label, points) in enumerate(groups.items()):
        _speedup_row(axes, points, value, label, index, len(groups))
    baseline = share_of_teacher(record, "baseline")
    if baseline is not None:
        axes.axhline(100 * baseline, color=BASELINE, ls="--", lw=1.3, label="same student, labels alone")
    axes.axvline(1, color=TEACHER, lw=0.8, ls=":")
    lowest = min(low, 100 * baseline if baseline is not None else low)
    span = max(high, 100) - lowest
    axes.set_ylim(lowest - 0.22 * span - 0.5, max(high, 100) + (0.1 + 0.07 * len(groups)) * span + 0.5)
    ends = [
        end for points in groups.values() for point in points for end in (point.low, point.high, point.speedup) if end
    ]
    log_axis(axes, "x", [*ends, 1.0])
    axes.set_xlim(min(1.0, *ends) / 1.05, max(1.0, *ends) * 1.05)
    whole = span > 4
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=whole))
    percent_axis(axes.yaxis, 100)
    axes.set_xlabel("speedup over the teacher (numbers at the points: length in tokens)")
    axes.set_ylabel(f"retention of {metric_label(name)}")
    axes.set_title("Kept against gained (bars and band: 95 %)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    return figure


def _speedup_row(axes: Axes, points: list[SpeedPoint], height: float, label: str, row: int, rows: int) -> None:
    """Draw one batch size's points around the student's retention, the rows apart so that no two overprint."""
    assert isinstance(axes.figure, Figure)
    up = ROW_DISTANCE * ((rows - 1) / 2 - row)
    place = axes.transData + ScaledTranslation(0, up / POINTS_PER_INCH, axes.figure.dpi_scale_trans)
    speedups = _speedups(points)
    bars = [[value - (point.low or value) for value, point in zip(speedups, points, strict=True)]]
    bars.append([(point.high or value) - value for value, point in zip(speedups, points, strict=True)])
    style: dict[str, Any] = {"color": STUDENT, "marker": "os^Dv"[row % 5], "ls": "", "capsize": 3, "elinewidth": 1.2}
    face = STUDENT if row % 2 == 0 else "white"
    heights = [height] * len(points)
    axes.errorbar(speedups, heights, xerr=bars, label=label, markerfacecolor=face, zorder=3, transform=place, **style)
    for cluster in _clusters(points):
        text = ", ".join(f"{point.length}" for point in cluster)
        first, *_, last = _speedups([cluster[0], cluster[-1]])
        middle = (first * last) ** 0.5
        axes.annotate(text, (middle, height), (0, up + 6), textcoords="offset points", ha="center", fontsize=8.5)


def _clusters(points: list[SpeedPoint]) -> list[list[SpeedPoint]]:
    """Sort points into lists of such as lie so close that their labels would overprint."""
    clusters: list[list[SpeedPoint]] = []
    for point in sorted(points, key=lambda point: point.speedup or 0.0):
        if clusters and (point.speedup or 0.0) < CLOSE * (clusters[-1][-1].speedup or 0.0):
            clusters[-1].append(point)
        else:
            clusters.append([point])
    return clusters


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
            bbox=LABEL_BOX,
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
