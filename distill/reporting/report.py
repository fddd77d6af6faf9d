"""The record as a report: ``report.md``, ``report.html`` (one file, nothing fetched) and ``plots/*.png``."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from distill.evaluation.record import Record, model_metrics
from distill.reporting.measurement_tables import (
    alternative_cells,
    deployment_cells,
    deployment_speed_cells,
    memory_cells,
    speed_cells,
)
from distill.reporting.plots import LossHistory, draw_plots
from distill.reporting.record_tables import environment_cells, model_cells, stage_cells
from distill.reporting.tables import Table, escape_markdown, markdown_cells
from distill.reporting.verdict import verdict_sentences
from distill.utils.errors import UserError
from distill.utils.files import write_atomically

TEMPLATE = Path(__file__).with_name("report.html")
MAX_DISAGREEMENTS = 20
WIDE_PICTURE = 850
"""Pixels from which a picture is scrolled on a phone rather than shrunk until nobody can read it."""
CAPTIONS = {
    "retention_speedup.png": "What was kept against what was gained. Band and bars are 95 % intervals.",
    "speed_by_length.png": "Time by length on logarithmic axes; below it the speedup and its two factors.",
    "memory_by_length.png": "Peak memory of a forward pass by length, beside the weights.",
    "fidelity.png": "How much of its teacher layer every student layer reproduces, after each stage.",
    "stages.png": "The main metric after each stage.",
    "losses.png": "Training losses.",
    "front.png": "What was kept against what was gained, one point per student. Bars are 95 % intervals, the line is "
    "the Pareto front: no student is better on both axes.",
}
Disagreement = Mapping[str, Any]
Section = tuple[Table, list[str]]
"""A table, whose title is the heading, and the names of the pictures below it."""


def write_report(
    record: Record,
    folder: Path | str,
    disagreements: Sequence[Disagreement] | None = None,
    loss_history: LossHistory | None = None,
) -> Path:
    """Write the report of ``record`` into ``folder`` and return the path of ``report.html``.

    ``disagreements``: examples that teacher and student answer differently, each with ``text`` (a string or several),
    ``label``, ``teacher`` and ``student`` (names or numbers). ``loss_history``: see
    :func:`distill.reporting.plots.draw_plots`. Raises :class:`UserError` when ``folder`` cannot be written.
    """
    folder = Path(folder)
    plots = draw_plots(record, loss_history)
    sections = _sections(record, plots, disagreements or ())
    title, sentences = f"Distillation report: {record.task}", verdict_sentences(record)
    try:
        for name, content in plots.items():
            write_atomically(folder / "plots" / name, content)
        write_atomically(folder / "report.md", markdown_page(title, sentences, sections))
        write_atomically(folder / "report.html", html_page(title, sentences, sections, plots))
    except OSError as error:
        raise UserError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return folder / "report.html"


def _sections(record: Record, plots: Mapping[str, bytes], disagreements: Sequence[Disagreement]) -> list[Section]:
    """Return the parts of the report in reading order, without those that have nothing to show."""
    sections: list[Section] = [
        (model_cells(record), ["retention_speedup.png"]),
        (alternative_cells(record), []),
        (speed_cells(record), ["speed_by_length.png"]),
        (memory_cells(record), ["memory_by_length.png"]),
        (stage_cells(record), ["stages.png", "fidelity.png", "losses.png"]),
        (deployment_cells(model_metrics(record, "student"), record.deployments), []),
        (deployment_speed_cells(record.deployments), []),
        (disagreement_cells(disagreements), []),
        (environment_cells(record), []),
    ]
    shown = [(cells, [name for name in names if name in plots]) for cells, names in sections]
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


def html_page(title: str, sentences: Sequence[str], sections: Sequence[Section], plots: Mapping[str, bytes]) -> str:
    """Return a page as one self-contained HTML file: the sentences first, the first of them large."""
    parts = []
    for cells, names in sections:
        parts.append(f"<h2>{escape(cells.title)}</h2>")
        parts += [_html_table(cells)] if cells.rows else []
        parts += [_html_figure(name, plots[name]) for name in names]
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    verdict = "".join(f"<p>{_prose(sentence)}</p>" for sentence in sentences)
    return template.substitute(title=escape(title), verdict=verdict, sections="\n".join(parts))


def _prose(text: str) -> str:
    """Escape a sentence; its per cent signs never start a line."""
    return escape(text).replace(" %", "\N{NO-BREAK SPACE}%")


def _html_table(cells: Table) -> str:
    kind = ' class="facts"' if not any(cells.headers) else ""
    long_text = cells.headers[0] == "text"
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in cells.headers)
    lines = [f'<div class="scroll"><table{kind}>']
    lines += [f"<thead><tr>{head}</tr></thead>"] if any(cells.headers) else []
    lines.append("<tbody>")
    for row in cells.rows:
        mark = ' class="student"' if row[0] == "student" else ""
        first = ' class="text"' if long_text else ""
        data = "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        lines.append(f"<tr{mark}><td{first}>{escape(row[0])}</td>{data}</tr>")
    lines.append("</tbody></table></div>")
    if cells.notes:
        lines.append('<ul class="notes">' + "".join(f"<li>{_prose(note)}</li>" for note in cells.notes) + "</ul>")
    return "\n".join(lines)


def _html_figure(name: str, content: bytes) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    caption = escape(CAPTIONS[name])
    width = int.from_bytes(content[16:20], "big")  # of the PNG's header, in pixels
    kind = ' class="wide"' if width > WIDE_PICTURE else ""
    return f'<figure><div class="scroll"><img{kind} src="{source}" alt="{caption}"></div>\n' + (
        f"<figcaption>{caption}</figcaption></figure>"
    )
