"""All students of a sweep side by side: leaderboard.csv, .md and .html, with the Pareto front drawn."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from distill.evaluation.pareto import pareto_front
from distill.evaluation.record import MODELS, data_name
from distill.evaluation.record_parts import Interval
from distill.reporting.formatting import (
    MISSING,
    gain_interval,
    metric_label,
    metric_text,
    percent,
    percent_interval,
    quantity,
    speedup_interval,
)
from distill.reporting.measurement_tables import is_wide
from distill.reporting.plots import STUDENT, STYLE, TEACHER, log_axis, png
from distill.reporting.report import html_page, markdown_page
from distill.reporting.tables import Table
from distill.reporting.verdict import reference_point
from distill.sweeps.mechanism_table import Bench, mechanism_cells, with_speed
from distill.sweeps.summary import SpeedRange
from distill.utils.files import write_atomically
from distill.utils.record_json import from_json

Summary = Mapping[str, Any]
Summaries = Mapping[tuple[str, str], Summary]
"""(task, student) to what `distill.sweeps.summary.summarise` returns."""
RETENTIONS = ("mean_of_ratios", "ratio_of_averages")


def write_leaderboard(
    summaries: Summaries, failures: Mapping[str, str], folder: Path, bench: Bench | None = None
) -> Path:
    """Write summary.json and leaderboard.{csv,md,html} into ``folder`` and return the page.

    Args:
        summaries: of every student with a finished run.
        failures: name of a run that is not in the table to the reason, in one line.
        folder: of the sweep.
        bench: speed and growth of attention mechanisms, of `distill.sweeps.mechanism_table.read_bench`.
    """
    if bench is not None:
        summaries = {key: with_speed(summary, bench) for key, summary in summaries.items()}
    by_name = {f"{task}-{student}": values for (task, student), values in summaries.items()}
    write_atomically(folder / "summary.json", json.dumps(by_name, indent=1, allow_nan=False) + "\n")
    write_atomically(folder / "leaderboard.csv", leaderboard_csv(summaries))
    plots = {"front.png": png(figure)} if (figure := draw_front(summaries)) else {}
    for name, content in plots.items():
        write_atomically(folder / "plots" / name, content)
    sections = [(leaderboard_cells(summaries), list(plots))]
    if bench is not None:
        sections.append((mechanism_cells(bench, {summary["attention"] for summary in summaries.values()}), []))
    if failures:
        sections.append((Table("Failed runs", ("", ""), tuple(failures.items())), []))
    page = f"Leaderboard: {folder.name}", front_sentences(summaries), sections
    write_atomically(folder / "leaderboard.md", markdown_page(*page))
    write_atomically(folder / "leaderboard.html", html_page(*page, plots))
    return folder / "leaderboard.html"


def _main(summary: Summary) -> Mapping[str, Any]:
    return summary["metrics"][summary["main_metric"]]


def _place(summary: Summary) -> tuple[float, float] | None:
    """Return speedup and retention of a student, None where one of them could not be measured."""
    point, kept = _point(summary), _main(summary)["retention"]["mean_of_ratios"]["value"]
    return None if point is None or point.speedup is None or kept is None else (point.speedup, kept)


def _point(summary: Summary) -> SpeedRange | None:
    """Return the speed point that a single number quotes."""
    return reference_point(from_json(SpeedRange, point, "summary.json") for point in summary["speed"])


def _interval(found: Mapping[str, Any] | None) -> Interval | None:
    return None if found is None else Interval(**found)


def _gain(summary: Summary, gain: Mapping[str, Any] | None) -> str:
    return gain_interval(summary["main_metric"], _interval(gain))


def fronts(summaries: Summaries) -> dict[str, list[str]]:
    """Return, for every task, the students on its front of retention against speedup, slowest first."""
    tasks: dict[str, dict[str, tuple[float, float]]] = {}
    for (task, student), summary in summaries.items():
        place = _place(summary)
        tasks.setdefault(task, {}).update({student: place} if place else {})
    return {task: pareto_front(places) for task, places in tasks.items()}


def front_sentences(summaries: Summaries) -> list[str]:
    """Say in one line per task which students are worth choosing from, fastest first."""
    sentences = []
    for task, names in fronts(summaries).items():
        said = []
        for name in reversed(names):
            summary = summaries[task, name]
            speedup, kept = _place(summary) or (0.0, 0.0)
            said.append(f"{name} ({speedup:.2f}×, {percent(kept)} of {metric_label(summary['main_metric'])})")
        if said:
            sentences.append(f"On the front of {task}: {', '.join(said)}.")
    return sentences


def leaderboard_cells(summaries: Summaries) -> Table:
    """One row per task and student, best retention first; every score with the name of its metric."""
    on_front = fronts(summaries)
    has_reference = any("over_reference" in summary for summary in summaries.values())
    rows = []
    for (task, student), summary in _ordered(summaries):
        metric, values = metric_label(summary["main_metric"]), _main(summary)
        kept, point = values["retention"], _point(summary)
        spread = MISSING if kept["sd"] is None else f"± {percent(kept['sd'])} ({_range(kept)})"
        speed = MISSING
        if point is not None:
            speed = speedup_interval(point.interval) + (" ~" if is_wide(point.interval) else "")
        rows.append(
            (
                f"{task} (embedded miniature)" if data_name(task, summary["source"]) != task else task,
                student + (" *" if student in on_front[task] else ""),
                str(len(summary["seeds"])),
                *(_score(summary["main_metric"], values[model]["mean"]) for model in MODELS),
                *(f"{percent_interval(_interval(kept[name]))} of {metric}" for name in RETENTIONS),
                spread,
                _gain(summary, values["gain"]),
                *([_gain(summary, summary.get("over_reference"))] if has_reference else []),
                MISSING if summary["kl_to_teacher"] is None else f"{summary['kl_to_teacher']:.3f}",
                speed,
                quantity(summary["parameters"]),
            )
        )
    headers = (
        *("task", "student", "seeds", *MODELS, "retention, mean of ratios", "retention, ratio of averages"),
        *("± sd over seeds (range)", "gain"),
        *(["over the reference"] if has_reference else []),
        *("KL to the teacher", "speedup", "parameters"),
    )
    notes = [
        "* on the Pareto front: no student of the task is better in both retention (mean of ratios) and speedup",
        "brackets of retention: 95 %, hierarchical bootstrap over seeds and examples",
        "gain: student above its labels-alone baseline, with the interval of the same bootstrap",
        "KL to the teacher: of the student's predictions, mean over examples, in nats; not of scores",
        "brackets of speedup: what the seeds' 95 % intervals cover together",
    ]
    if has_reference:
        notes.append("over the reference: student above the sweep's `reference`, on the same examples, likewise")
    if any("~" in row[-2] for row in rows):
        notes.append("~ interval wider than 20 %: the machine was busy or noisy")
    points = [point for summary in summaries.values() if (point := _point(summary))]
    for place in dict.fromkeys((point.length, point.batch_size, point.device) for point in points):
        notes.append("speedup at {:,} tokens, batch {}, on {}".format(*place))
    if any(point.over_softmax for point in points):
        notes.append("speedup here is that over the same student with softmax attention (SDPA), not over the teacher")
    return Table("Students", headers, tuple(rows), tuple(notes))


def _score(metric: str, value: float | None) -> str:
    return MISSING if value is None else f"{metric_text(metric, value)} {metric_label(metric)}"


def _range(spread: Mapping[str, float]) -> str:
    return f"{100 * spread['min']:.1f} to {100 * spread['max']:.1f}"


def _ordered(summaries: Summaries) -> list[tuple[tuple[str, str], Summary]]:
    def order(item: tuple[tuple[str, str], Summary]) -> tuple[str, float]:
        return item[0][0], -(_main(item[1])["retention"]["mean_of_ratios"]["value"] or 0.0)

    return sorted(summaries.items(), key=order)


def leaderboard_csv(summaries: Summaries) -> str:
    """Return the plain numbers, one row per task, student and metric."""
    ends = ("value", "low", "high")
    header = ["task", "student", "metric", "split", "num_seeds", "num_examples"]
    header += [f"{model}_{name}" for model in MODELS for name in ("mean", "sd")]
    header += [f"{name}_{end}" for name in RETENTIONS for end in ends] + ["retention_sd"]
    header += [f"{name}_{end}" for name in ("gain", "over_reference") for end in ends]
    header += ["kl_to_teacher", "parameters"]
    header += ["speedup", "speedup_low", "speedup_high", "batch_size", "length", "on_front"]
    on_front = fronts(summaries)
    rows: list[Sequence[Any]] = [header]
    for (task, student), summary in _ordered(summaries):
        point = _point(summary)
        place = (point.speedup, point.low, point.high, point.batch_size, point.length) if point else (None,) * 5
        for metric, values in summary["metrics"].items():
            kept = values["retention"]
            gain = (summary.get("over_reference") if metric == summary["main_metric"] else None) or {}
            rows.append(
                [
                    *(task, student, metric, summary["split"], len(summary["seeds"]), summary["num_examples"]),
                    *(values[model][name] for model in MODELS for name in ("mean", "sd")),
                    *(kept[name][end] for name in RETENTIONS for end in ends),
                    kept["sd"],
                    *((values["gain"] or {}).get(end) for end in ends),
                    *(gain.get(end) for end in ends),
                    summary["kl_to_teacher"],
                    summary["parameters"],
                    *place,
                    student in on_front[task],
                ]
            )
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    return table.getvalue()


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
    return figure


def _front_panel(axes: Axes, students: Mapping[str, Summary], front: Sequence[str]) -> None:
    ends = [1.0]
    for name, summary in students.items():
        place, point = _place(summary), _point(summary)
        if place is None or point is None or point.low is None or point.high is None:
            continue
        kept = _main(summary)["retention"]["mean_of_ratios"]
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
        axes.annotate(name, (place[0], 100 * place[1]), (7, 7), textcoords="offset points", fontsize=9)
        ends += [point.low, point.high]
    places = [_place(students[name]) or (1.0, 1.0) for name in front]
    axes.plot(
        [x for x, _ in places], [100 * y for _, y in places], color=STUDENT, lw=1, ls="--", drawstyle="steps-pre"
    )
    axes.plot(1, 100, marker="*", ms=14, color=TEACHER, ls="")
    axes.annotate("teacher", (1, 100), (7, 7), textcoords="offset points", fontsize=9, color=TEACHER)
    log_axis(axes, "x", ends)
    axes.margins(x=0.15, y=0.15)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=1))
    point = _point(next(iter(students.values())))
    axes.set_xlabel(
        f"speedup over softmax attention at {point.length:,} tokens"
        if point and point.over_softmax
        else "speedup over the teacher"
    )
    axes.set_ylabel(f"retention of {metric_label(next(iter(students.values()))['main_metric'])}")
