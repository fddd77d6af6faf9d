"""A table of cells, laid out for a terminal or as markdown.

Terminal, markdown, HTML and the model card all print these cells, so a number reads the same everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.reporting.formatting import MISSING, NOT_APPLICABLE

KEYS = ("machine", "batch", "tokens", "student as")
"""Headers of columns that say what was measured, so that a row of nothing else holds no number."""


@dataclass(frozen=True)
class Table:
    """One table: every row has as many cells as there are headers; ``notes`` explain gaps and marks below it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def transposed(cells: Table) -> Table:
    """Return a table of few long rows as one of many short rows: the first column becomes the headers."""
    first, *columns = zip(cells.headers, *cells.rows, strict=True)
    return replace(cells, headers=("", *first[1:]), rows=tuple(columns))


def without_gaps(cells: Table) -> Table:
    """Return a table without rows and columns that hold no number; the notes say why there is none."""
    gaps = (MISSING, NOT_APPLICABLE)
    numbers = [place for place, header in enumerate(cells.headers) if header not in KEYS and place > 0]
    rows = [row for row in cells.rows if not numbers or any(row[place] not in gaps for place in numbers)]
    kept = [
        place
        for place in range(len(cells.headers))
        if place not in numbers or any(row[place] not in gaps for row in rows)
    ]
    return replace(
        cells,
        headers=tuple(cells.headers[place] for place in kept),
        rows=tuple(tuple(row[place] for place in kept) for row in rows),
    )


def text_table(cells: Table) -> str:
    """Lay one table out in columns: the first to the left, the others to the right, long headers in two lines."""
    headers = [_two_lines(header) for header in cells.headers]
    columns = list(zip(*cells.rows, strict=True))
    widths = [max(len(text) for text in (*header, *column)) for header, column in zip(headers, columns, strict=True)]
    top, bottom = ([header[line] for header in headers] for line in (0, 1))
    lines = [_line(row, widths) for row in ((top, bottom) if any(top) else (bottom,))]
    lines += ["-" * (sum(widths) + 2 * (len(widths) - 1)), *(_line(row, widths) for row in cells.rows)]
    notes = [f"  {note}" for note in cells.notes]
    return "\n".join([cells.title, "", *lines, *notes])


def _two_lines(header: str) -> tuple[str, str]:
    """Break a long header at the space nearest to its middle, so that a column is as narrow as its numbers."""
    breaks = [index for index, letter in enumerate(header) if letter == " "]
    if len(header) < 12 or not breaks:
        return "", header
    middle = min(breaks, key=lambda index: abs(index - len(header) // 2))
    return header[:middle], header[middle + 1 :]


def _line(row: Sequence[str], widths: list[int]) -> str:
    aligned = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
    return "  ".join(aligned).rstrip()


def markdown_cells(cells: Table) -> str:
    """Return one table as markdown under a second-level heading, its notes as a list."""
    heading = f"## {escape_markdown(cells.title)}"
    if not cells.rows:
        return heading
    marks = [":--", *("--:" for _ in cells.headers[1:])]
    rows = [cells.headers, marks, *cells.rows]
    lines = ["| " + " | ".join(escape_markdown(text) for text in row) + " |" for row in rows]
    notes = ["", *(f"* {escape_markdown(note)}" for note in cells.notes)] if cells.notes else []
    return "\n".join([heading, "", *lines, *notes])


def escape_markdown(text: str) -> str:
    """Escape what would end a table cell or start markup in a text from outside."""
    for character in "\\`*_|<>#":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.replace("](", "]\\(").split())
