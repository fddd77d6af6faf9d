"""The Pareto front of a sweep, retention against speedup: which students are on it, and its picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.evaluation.pareto import pareto_front
from distill.reporting.formatting import metric_label
from distill.reporting.plot_labels import label_points
from distill.reporting.plot_style import STUDENT, STYLE, TEACHER, log_axis, percent_axis
from distill.reporting.verdict import reference_point
from distill.sweeps.summary import SpeedRange
from distill.utils.record_json import from_json

Summary = Mapping[str, Any]
Summaries = Mapping[tuple[str, str], Summary]
"""(task, student) to what `distill.sweeps.summary.summarise` returns."""


def main_values(summary: Summary) -> Mapping[str, Any]:
    """Return what a summary says of its main metric."""
    return summary["metrics"][summary["main_metric"]]


def place_of(summary: Summary) -> tuple[float, float] | None:
    """Return speedup and retention of a student, None where one of them could not be measured."""
    point, kept = point_of(summary), main_values(summary)["retention"]["mean_of_ratios"]["value"]
    return None if point is None or point.speedup is None or kept is None else (point.speedup, kept)


def point_of(summary: Summary) -> SpeedRange | None:
    """Return the speed point that a single number quotes."""
    return reference_point(from_json(SpeedRange, point, "summary.json") for point in summary["speed"])


def fronts(summaries: Summaries) -> dict[str, list[str]]:
    """Return, for every task, the students on its front of retention against speedup, slowest first."""
    tasks: dict[str, dict[str, tuple[float, float]]] = {}
    for (task, student), summary in summaries.items():
        place = place_of(summary)
        tasks.setdefault(task, {}).update({student: place} if place else {})
    return {task: pareto_front(places) for task, places in tasks.items()}


def draw_front(summaries: Summaries) -> Figure | None:
    """Draw retention against speedup, one panel per task, one point per student with its intervals, and the front."""
    tasks = {task: names for task, names in fronts(summaries).items() if names}
    if not tasks:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.2, 4.8 * len(tasks)), 4.6), layout="constrained")
        for axes, (task, names) in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.items(), strict=True):
            _front_panel(axes, {key[1]: summary for key, summary in summaries.items() if key[0] == task}, names)
            axes.set_title(task)
        for axes, (task, names) in zip(figure.axes, tasks.items(), strict=True):
            ordered = [*names, *(student for of, student in summaries if of == task and student not in names)]
            places = {name: place_of(summaries[task, name]) for name in ordered}
            points = [(name, place[0], 100 * place[1]) for name, place in places.items() if place is not None]
            label_points(axes, [("teacher", 1.0, 100.0), *points])
    return figure


def _front_panel(axes: Axes, students: Mapping[str, Summary], front: Sequence[str]) -> None:
    ends = [1.0]
    for name, summary in students.items():
        place, point = place_of(summary), point_of(summary)
        if place is None or point is None or point.low is None or point.high is None:
            continue
        kept = main_values(summary)["retention"]["mean_of_ratios"]
        low, high = (place[1] if kept[end] is None else kept[end] for end in ("low", "high"))
        axes.errorbar(
            place[0],
            100 * place[1],
            xerr=[[place[0] - point.low], [point.high - place[0]]],
            yerr=[[100 * (place[1] - low)], [100 * (high - place[1])]],
            color=STUDENT,
            marker="o",
            markerfacecolor=STUDENT if name in front else "white",
            capsize=3,
            elinewidth=1.1,
        )
        ends += [point.low, point.high]
    places = [place_of(students[name]) or (1.0, 1.0) for name in front]
    axes.plot(
        [x for x, _ in places], [100 * y for _, y in places], color=STUDENT, lw=1, ls="--", drawstyle="steps-pre"
    )
    axes.plot(1, 100, marker="*", ms=14, color=TEACHER, ls="")
    log_axis(axes, "x", ends)
    axes.margins(x=0.15, y=0.15)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.25)  # room for the names of the fastest
    percent_axis(axes.yaxis, 100)
    point = point_of(next(iter(students.values())))
    axes.set_xlabel(
        f"speedup over softmax attention at {point.length:,} tokens"
        if point and point.over_softmax
        else "speedup over the teacher"
    )
    axes.set_ylabel(f"retention of {metric_label(next(iter(students.values()))['main_metric'])}")
