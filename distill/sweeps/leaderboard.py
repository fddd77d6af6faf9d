"""All students of a sweep side by side: leaderboard.csv, .md and .html, with the Pareto front drawn."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.evaluation.record import MODELS, own_name
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
from distill.reporting.html_page import html_page
from distill.reporting.measurement_tables import is_wide
from distill.reporting.plot_style import png
from distill.reporting.report import CAPTIONS, markdown_page
from distill.reporting.tables import Table, without_gaps
from distill.sweeps.front import Summaries, Summary, draw_front, fronts, main_values, place_of, point_of
from distill.sweeps.mechanism_table import Bench, mechanism_cells, with_speed
from distill.tasks import FEW_EXAMPLES
from distill.utils.files import write_atomically
from distill.utils.redaction import without_absolute_paths

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
    sections = [(without_gaps(leaderboard_cells(summaries)), list(plots))]
    if bench is not None:
        sections.append((mechanism_cells(bench, {summary["attention"] for summary in summaries.values()}), []))
    if failures:
        reasons = [(name, without_absolute_paths(reason)) for name, reason in failures.items()]
        sections.append((Table("Failed runs", ("", ""), tuple(reasons)), []))
    sentences = [*verdict_sentences(summaries), *front_sentences(summaries)]
    page = f"Leaderboard: {folder.absolute().name}", sentences, sections
    write_atomically(folder / "leaderboard.md", markdown_page(*page))
    write_atomically(folder / "leaderboard.html", html_page(*page, plots, CAPTIONS))
    return folder / "leaderboard.html"


def _interval(found: Mapping[str, Any] | None) -> Interval | None:
    return None if found is None else Interval(**found)


def _gain(summary: Summary, gain: Mapping[str, Any] | None) -> str:
    return gain_interval(summary["main_metric"], _interval(gain))


def verdict_sentences(summaries: Summaries) -> list[str]:
    """Say in one line per task which student to take: the fastest that keeps up with its teacher, or the closest."""
    tasks: dict[str, dict[str, Summary]] = {}
    for (task, student), summary in summaries.items():
        if main_values(summary)["retention"]["mean_of_ratios"]["value"] is not None:
            tasks.setdefault(task, {})[student] = summary
    return [_verdict(task, students) for task, students in tasks.items()]


def _verdict(task: str, students: Mapping[str, Summary]) -> str:
    """Choose one of the students of a task whose retention was measured."""
    kept = {name: main_values(summary)["retention"]["mean_of_ratios"] for name, summary in students.items()}
    level = [name for name in students if (kept[name]["high"] or kept[name]["value"]) >= 1]
    points = {name: point_of(students[name]) for name in students}
    timed = [(point.speedup, name) for name in level if (point := points[name]) and point.speedup is not None]
    name = max(timed)[1] if timed else max(level or kept, key=lambda student: kept[student]["value"])
    where, metric, point = (
        _shown_task(task, students[name]),
        metric_label(students[name]["main_metric"]),
        points[name],
    )
    against = " as with softmax attention" if point is not None and point.over_softmax else ""
    speed = (
        "" if point is None else f", {speedup_interval(point.interval)} as fast{against} at {point.length:,} tokens"
    )
    share = f"{percent_interval(_interval(kept[name]))} of {metric} kept{speed}"
    if not level:
        return f"On {where} no student keeps up with its teacher; {name} comes closest: {share}."
    many = f"the fastest of the {len(level)} students that keep" if len(level) > 1 else "the one student that keeps"
    if not timed:
        many = many.replace("fastest", "best")
    return f"On {where} take {name}, {many} up with the teacher: {share}."


def front_sentences(summaries: Summaries) -> list[str]:
    """Say in one line per task which students are worth choosing from, fastest first."""
    sentences = []
    for task, names in fronts(summaries).items():
        said = []
        for name in reversed(names):
            summary = summaries[task, name]
            speedup, kept = place_of(summary) or (0.0, 0.0)
            said.append(f"{name} ({speedup:.2f}×, {percent(kept)} of {metric_label(summary['main_metric'])})")
        if said:
            sentences.append(f"On the front of {task}: {', '.join(said)}.")
    return sentences


def leaderboard_cells(summaries: Summaries) -> Table:
    """One row per task and student, best retention first; every score with the name of its metric."""
    on_front = fronts(summaries)
    has_reference = any("over_reference" in summary for summary in summaries.values())
    # Of one seed both definitions are the same number.
    retentions = RETENTIONS if any(len(summary["seeds"]) > 1 for summary in summaries.values()) else RETENTIONS[:1]
    rows = []
    for (task, student), summary in _ordered(summaries):
        metric, values = metric_label(summary["main_metric"]), main_values(summary)
        kept, point = values["retention"], point_of(summary)
        spread = MISSING if kept["sd"] is None else f"± {percent(kept['sd'])} ({_range(kept)})"
        speed = MISSING
        if point is not None:
            speed = speedup_interval(point.interval) + (" ~" if is_wide(point.interval) else "")
        rows.append(
            (
                _shown_task(task, summary),
                student + (" *" if student in on_front[task] else ""),
                str(len(summary["seeds"])),
                *(_score(summary["main_metric"], values[model]["mean"]) for model in MODELS),
                *(f"{percent_interval(_interval(kept[name]))} of {metric}" for name in retentions),
                spread,
                _gain(summary, values["gain"]),
                *([_gain(summary, summary.get("over_reference"))] if has_reference else []),
                MISSING if summary["kl_to_teacher"] is None else f"{summary['kl_to_teacher']:.3f}",
                speed,
                quantity(summary["parameters"]),
            )
        )
    headers = (
        *("task", "student", "seeds", *MODELS, *(f"retention, {name.replace('_', ' ')}" for name in retentions)),
        *("± sd over seeds (range)", "gain"),
        *(["over the reference"] if has_reference else []),
        *("KL to the teacher", "speedup", "parameters"),
    )
    notes = [
        "* on the Pareto front: no student of the task is better in both retention (mean of ratios) and speedup",
        "a student keeps up with its teacher where the interval of its retention reaches 100 %",
        "brackets of retention: 95 %, hierarchical bootstrap over seeds and examples",
        "gain: student above its labels-alone baseline, with the interval of the same bootstrap",
        "KL to the teacher: of the student's predictions, mean over examples, in nats; not of scores",
        "brackets of speedup: what the seeds' 95 % intervals cover together",
    ]
    if has_reference:
        notes.append("over the reference: student above the sweep's `reference`, on the same examples, likewise")
    if any("~" in row[-2] for row in rows):
        notes.append("~ interval wider than 20 %: the machine was busy or noisy")
    counts = {_shown_task(task, each): each["num_examples"] for (task, _), each in _ordered(summaries)}
    for shown, count in counts.items():
        if count < FEW_EXAMPLES:
            notes.append(f"{shown}: {count} validation examples are too few: these intervals are not to be trusted")
    points = [point for summary in summaries.values() if (point := point_of(summary))]
    for place in dict.fromkeys((point.length, point.batch_size, point.device) for point in points):
        notes.append("speedup at {:,} tokens, batch {}, on {}".format(*place))
    if any(point.over_softmax for point in points):
        notes.append("speedup here is that over the same student with softmax attention (SDPA), not over the teacher")
    return Table("Students", headers, tuple(rows), tuple(notes))


def _shown_task(task: str, summary: Summary) -> str:
    """Name the task so that its miniature never passes for it, and somebody's own by its file."""
    if summary.get("source") == "embedded":
        return f"{task} (embedded miniature)"
    return own_name(task, summary.get("data_name"))


def _score(metric: str, value: float | None) -> str:
    return MISSING if value is None else f"{metric_text(metric, value)} {metric_label(metric)}"


def _range(spread: Mapping[str, float]) -> str:
    return f"{100 * spread['min']:.1f} to {100 * spread['max']:.1f}"


def _ordered(summaries: Summaries) -> list[tuple[tuple[str, str], Summary]]:
    def order(item: tuple[tuple[str, str], Summary]) -> tuple[str, float]:
        return item[0][0], -(main_values(item[1])["retention"]["mean_of_ratios"]["value"] or 0.0)

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
        point = point_of(summary)
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
