"""The language models of a sweep side by side, and their training losses drawn."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from distill.evaluation.text_record import LossCurve, TextRecord, read_text_record
from distill.reporting.formatting import MISSING
from distill.reporting.html_page import html_page
from distill.reporting.plot_style import STYLE, log_counts, png
from distill.reporting.report import CAPTIONS, markdown_page
from distill.reporting.tables import Table
from distill.reporting.text_report import CURVES, LABELS, number, share
from distill.sweeps.schema import SweepRun
from distill.utils.errors import UserError
from distill.utils.files import write_atomically
from distill.utils.record_json import to_json
from distill.utils.redaction import without_absolute_paths

MOST_POINTS = 50
"""Of a curve in the summary."""
Runs = Mapping[tuple[str, str], list[TextRecord]]
"""Configuration and student to the records of its seeds."""


def read_text_runs(grid: Iterable[SweepRun]) -> tuple[Runs, dict[str, str]]:
    """Return the records of all finished runs, and name of a run that cannot be read to the reason."""
    found: dict[tuple[str, str], list[TextRecord]] = {}
    failures = {}
    for cell in grid:
        if cell.finished:
            try:
                found.setdefault((cell.task, cell.student), []).append(read_text_record(cell.run_dir))
            except UserError as error:
                failures[cell.run_dir.name] = str(error)
    return found, failures


def text_cells(runs: Runs) -> Table:
    """Return a row for every student: means over its seeds, the best loss first."""
    rows = []
    for (config, student), records in sorted(runs.items(), key=lambda item: mean_of(item[1], "loss")):
        first = records[0]
        entry, step = first.models["student"], next((each for each in first.steps if each.model == "student"), None)
        rows.append(
            (
                student if len({name for name, _ in runs}) == 1 else f"{config}: {student}",
                str(entry.attention),
                str(entry.layers),
                str(first.max_length),
                str(len(records)),
                *(number(mean_of(records, name)) for name in LABELS),
                share(first.retention.get("perplexity")) if len(records) == 1 else MISSING,
                MISSING if step is None or step.milliseconds is None else f"{step.milliseconds:,.0f}",
                MISSING if step is None or step.activation_megabytes is None else f"{step.activation_megabytes:,.0f}",
            )
        )
    fixed = ("student", "attention", "layers", "tokens", "seeds", *LABELS.values())
    headers = (*fixed, "teacher / student, perplexity", "ms a step", "MB kept for the backward pass")
    notes = ["lower is better; steps were timed at the end of each run, perhaps beside others"]
    said = {entry.note: str(entry.attention) for each in runs.values() if (entry := each[0].models["student"]).note}
    notes += [f"{attention}: {note}" for note, attention in said.items()]
    return Table("Language models", headers, tuple(rows), tuple(notes))


def mean_of(records: list[TextRecord], metric: str, role: str = "student") -> float:
    """Return the mean of a model's metric over seeds; NaN where there is no such model."""
    values = [(record.models[role].metrics or {}).get(metric) for record in records]
    return float(np.mean([value for value in values if value is not None] or [np.nan]))


def metrics_of(records: list[TextRecord], role: str) -> dict[str, float] | None:
    """Return the means of a model's metrics over seeds, None where the runs have no such model."""
    if any(record.models[role].metrics is None for record in records):
        return None
    return {name: mean_of(records, name, role) for name in LABELS}


def draw(runs: Runs) -> Figure | None:
    """Draw the training loss of every student that learned from the text alone, a panel for each length."""
    curves = {key: records[0].curves["student"] for key, records in runs.items() if "student" in records[0].curves}
    lengths = sorted({runs[key][0].max_length for key in curves})
    if not curves:
        return None
    figure = Figure(figsize=(4.6 * len(lengths), 4.2), layout="constrained")
    panels = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, length in zip(panels, lengths, strict=True):
        for (_, student), curve in ((key, each) for key, each in curves.items() if runs[key][0].max_length == length):
            axes.plot(curve.tokens, curve.loss, lw=1.2, label=student)
        axes.set(xscale="log", xlabel="tokens seen", title=f"{length} tokens")
        log_counts(axes.xaxis)
        axes.legend(fontsize=7)
    panels[0].set_ylabel("training loss, nats a token")
    return figure


def _thin(curve: LossCurve | None) -> dict[str, list[float]] | None:
    """Return a curve of at most `MOST_POINTS`, or None where there is none."""
    if curve is None:
        return None
    step = max(1, -(-len(curve.tokens) // MOST_POINTS))
    return {"tokens": list(curve.tokens[::step]), "loss": [round(each, 4) for each in curve.loss[::step]]}


def write_text_leaderboard(runs: Runs, failures: Mapping[str, str], folder: Path) -> Path:
    """Write summary.json and leaderboard.{csv,md,html} into the sweep's folder and return the page."""
    summary = {
        f"{config}-{student}": {
            "seeds": [record.seed for record in records],
            "metrics": metrics_of(records, "student"),
            "teacher": metrics_of(records, "teacher"),
            "text_alone": metrics_of(records, "baseline"),
            "retention": to_json(records[0].retention) if len(records) == 1 else {},
            "text_alone_retention": to_json(records[0].baseline_retention) if len(records) == 1 else {},
            "text_unit": records[0].text_unit,
            "unknown_share": records[0].unknown_share,
            "layers": records[0].models["student"].layers,
            "attention": records[0].models["student"].attention,
            "max_length": records[0].max_length,
            "unigram_loss": records[0].unigram_loss,
            "train_tokens": records[0].train_tokens,
            "curve": _thin(records[0].curves.get("student")),
            "environment": records[0].environment,
        }
        for (config, student), records in runs.items()
    }
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    cells = text_cells(runs)
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows([cells.headers, *cells.rows])
    write_atomically(folder / "leaderboard.csv", rows.getvalue())
    with rc_context(STYLE):
        plots = {CURVES: png(figure)} if (figure := draw(runs)) else {}
    for name, content in plots.items():
        write_atomically(folder / "plots" / name, content)
    sections = [(cells, list(plots))]
    if failures:
        reasons = tuple((name, without_absolute_paths(reason)) for name, reason in failures.items())
        sections.append((Table("Failed runs", ("", ""), reasons), []))
    page = f"Language models: {folder.absolute().name}", list[str](), sections
    write_atomically(folder / "leaderboard.md", markdown_page(*page))
    write_atomically(folder / "leaderboard.html", html_page(*page, plots, CAPTIONS))
    return folder / "leaderboard.html"
