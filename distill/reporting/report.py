"""The record as a report: ``report.md``, ``report.html`` (one file, nothing fetched) and ``plots/*.png``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.evaluation.record import Record, dataset, model_metrics
from distill.reporting.answers import Answers, answer_cells
from distill.reporting.copies_table import copies_cells
from distill.reporting.fit_table import fit_cells
from distill.reporting.html_page import html_page
from distill.reporting.measurement_tables import (
    alternative_cells,
    deployment_cells,
    deployment_speed_cells,
    memory_cells,
    speed_cells,
)
from distill.reporting.plots import draw_plots
from distill.reporting.record_tables import environment_cells, model_cells, stage_cells
from distill.reporting.search_table import search_cells
from distill.reporting.tables import Table, escape_markdown, markdown_cells, transposed, without_gaps
from distill.reporting.training_plots import LossHistory
from distill.reporting.verdict import verdict_sentences
from distill.utils.errors import UserError
from distill.utils.files import write_atomically

MAX_DISAGREEMENTS = 20
CAPTIONS = {
    "confusion.png": "Which class got which answer: examples, and their share of the class.",
    "labels.png": "F1 of every label, at the threshold of each model.",
    "scores.png": "Every score against its label. On the dashed line the answer is exact.",
    "retention_speedup.png": "What was kept against what was gained. Band and bars are 95 % intervals; points lie a "
    "little above and below the student's retention so that batch sizes do not overprint.",
    "speed_by_length.png": "Time by length on logarithmic axes; below it the speedup and its two factors.",
    "memory_by_length.png": "Peak memory of a forward pass by length, beside the weights.",
    "fidelity.png": "How much of its teacher layer every student layer reproduces, after each stage. A cross: worse "
    "than the mean of the teacher's layer.",
    "stages.png": "The main metric after each stage.",
    "losses.png": "Training losses.",
    "curves.png": "Training loss of a language model, in nats a token, against the tokens seen.",
    "front.png": "What was kept against what was gained, one point per student. Bars are 95 % intervals, the line is "
    "the Pareto front: no student is better on both axes. A name without room is left out; the table has all.",
}
Disagreement = Mapping[str, Any]
Section = tuple[Table, list[str]]
"""A table, whose title is the heading, and the names of the pictures below it."""


def write_report(
    record: Record,
    folder: Path | str,
    disagreements: Sequence[Disagreement] | None = None,
    loss_history: LossHistory | None = None,
    answers: Answers | None = None,
) -> Path:
    """Write the report of ``record`` into ``folder`` and return the path of ``report.html``.

    ``disagreements``: examples that teacher and student answer differently, each with ``text`` (a string or several),
    ``label``, ``teacher`` and ``student`` (names or numbers). ``loss_history``: see
    :func:`distill.reporting.plots.draw_plots`. ``answers``: what both models said about every example, for the
    confusion matrices or the scatter of scores. Raises :class:`UserError` when ``folder`` cannot be written.
    """
    folder = Path(folder)
    plots = draw_plots(record, loss_history, answers)
    sections = _sections(record, plots, disagreements or (), answers)
    title, sentences = f"Distillation report: {dataset(record)}", verdict_sentences(record)
    try:
        for name, content in plots.items():
            write_atomically(folder / "plots" / name, content)
        write_atomically(folder / "report.md", markdown_page(title, sentences, sections))
        write_atomically(folder / "report.html", html_page(title, sentences, sections, plots, CAPTIONS))
    except OSError as error:
        raise UserError(
            f"cannot write the report to {folder}: {error.strerror or error}; make room or give permission there, "
            "and start the same command again"
        ) from error
    return folder / "report.html"


def _sections(
    record: Record, plots: Mapping[str, bytes], disagreements: Sequence[Disagreement], answers: Answers | None
) -> list[Section]:
    """Return the parts of the report in reading order, without those that have nothing to show."""
    sections: list[Section] = [
        (answer_cells(answers), ["confusion.png", "labels.png", "scores.png"]),
        (transposed(model_cells(record)), ["retention_speedup.png"]),
        (alternative_cells(record), []),
        (speed_cells(record), ["speed_by_length.png"]),
        (memory_cells(record), ["memory_by_length.png"]),
        (search_cells(record.search), []),
        (fit_cells(record.attention_fit), []),
        (copies_cells(record.copies_choice), []),
        (stage_cells(record), ["stages.png", "fidelity.png", "losses.png"]),
        (deployment_cells(model_metrics(record, "student"), record.deployments), []),
        (deployment_speed_cells(record.deployments), []),
        (disagreement_cells(disagreements), []),
        (environment_cells(record), []),
    ]
    shown = [(without_gaps(cells), [name for name in names if name in plots]) for cells, names in sections]
    return [(cells, names) for cells, names in shown if cells.rows or names]


def disagreement_cells(disagreements: Sequence[Disagreement]) -> Table:
    """One row per example that teacher and student answer differently, at most 20."""
    rows = []
    for example in disagreements[:MAX_DISAGREEMENTS]:
        texts = example["text"]
        text = texts if isinstance(texts, str) else " / ".join(texts)
        rows.append((text, *(str(example[key]) for key in ("label", "teacher", "student"))))
    hidden = len(disagreements) - len(rows)
    notes = (f"{hidden:,} more are in predictions.parquet",) if hidden > 0 else ()
    return Table("Where they disagree", ("text", "label", "teacher", "student"), tuple(rows), notes)


def markdown_page(title: str, sentences: Sequence[str], sections: Sequence[Section]) -> str:
    """Return a page as markdown, its pictures under ``plots/``."""
    parts = [f"# {escape_markdown(title)}", *map(escape_markdown, sentences)]
    for cells, names in sections:
        parts.append(markdown_cells(cells))
        parts += [f"![{CAPTIONS[name]}](plots/{name})" for name in names]
    return "\n\n".join(parts) + "\n"
