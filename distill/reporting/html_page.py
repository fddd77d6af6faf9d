"""A page as one self-contained HTML file: nothing is fetched, every text is escaped."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from distill.reporting.tables import Table

TEMPLATE = Path(__file__).with_name("report.html")
WIDE_PICTURE = 600
"""Pixels from which a picture is scrolled on a phone rather than shrunk until nobody can read it."""
MANY_COLUMNS = 8
"""Columns from which cells are broken into several lines so that all of them fit."""
NO_BREAK = "\N{NO-BREAK SPACE}"


def html_page(
    title: str,
    sentences: Sequence[str],
    sections: Sequence[tuple[Table, Sequence[str]]],
    plots: Mapping[str, bytes],
    captions: Mapping[str, str],
) -> str:
    """Return a page: the sentences first, the first of them large, then every table with its pictures.

    Args:
        title: above the sentences.
        sentences: the verdict.
        sections: tables, whose titles are the headings, each with the names of the pictures below it.
        plots: PNG by name.
        captions: below every picture, and what is read aloud in its place.
    """
    parts = []
    for cells, names in sections:
        parts.append(f"<h2>{escape(cells.title)}</h2>")
        parts += [_table(cells)] if cells.rows else []
        parts += [_figure(plots[name], captions[name]) for name in names]
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    verdict = "".join(f"<p>{_prose(sentence)}</p>" for sentence in sentences)
    return template.substitute(title=escape(title), verdict=verdict, sections="\n".join(parts))


def _prose(text: str) -> str:
    """Escape a sentence; no line starts with a per cent sign or a mark."""
    return re.sub(" (?=[%~])", NO_BREAK, escape(text))


def _cell(text: str) -> str:
    """Escape a cell; a number keeps its unit and an interval its ends in one line, so that it breaks in between."""
    if re.match(r"[-+±~\d]", text):
        text = re.sub(r" (?![\[·±(])", NO_BREAK, text)
    return escape(text)


def _table(cells: Table) -> str:
    kinds = {"text": "texts", "": "turned" if any(cells.headers) else "facts"}
    kind = kinds.get(cells.headers[0], "numbers many" if len(cells.headers) > MANY_COLUMNS else "numbers")
    marked = cells.headers.index("student") if kind == "turned" and "student" in cells.headers else None
    marks = [' class="student"' if place == marked else "" for place in range(len(cells.headers))]
    lines = [f'<div class="scroll" tabindex="0"><table class="{kind}">']
    if any(cells.headers):
        head = (f'<th scope="col"{mark}>{escape(text)}</th>' for mark, text in zip(marks, cells.headers, strict=True))
        lines.append(f"<thead><tr>{''.join(head)}</tr></thead>")
    lines.append("<tbody>")
    for row in cells.rows:
        mark = ' class="student"' if row[0] == "student" else ""
        data = (f"<td{mark}>{_cell(text)}</td>" for mark, text in zip(marks, row, strict=True))
        lines.append(f"<tr{mark}>{''.join(data)}</tr>")
    lines.append("</tbody></table></div>")
    if cells.notes:
        lines.append('<ul class="notes">' + "".join(f"<li>{_prose(note)}</li>" for note in cells.notes) + "</ul>")
    return "\n".join(lines)


def _figure(content: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    width = int.from_bytes(content[16:20], "big")  # of the PNG's header, in pixels
    kind = ' class="wide"' if width > WIDE_PICTURE else ""
    return (
        f'<figure{kind}><div class="scroll" tabindex="0"><img src="{source}" alt="{escape(caption)}"></div>\n'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
