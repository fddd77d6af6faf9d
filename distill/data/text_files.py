"""Text files of rows: their encoding, what separates their fields, and whether fields stand in quotation marks."""

import codecs
import csv
import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa

from distill.data.source_errors import looks_like
from distill.utils.errors import UserError

BYTES_PER_READ = 1 << 20
WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How text begins that takes two or four bytes a character, as Excel's "Unicode text" does; the longer marks first."""
LETTERS = bytes(code for code in range(256) if not chr(code).isascii() or not chr(code).isalpha())
"""All bytes but ASCII letters."""
ASCII = bytes(range(128))
MOST_ACCENTS = 0.25
"""Share of a text's letters, in a language that cp1252 is for, that are not ASCII: under a tenth as a rule."""
UNUSED = b"\x81\x8d\x8f\x90\x9d"
"""Bytes that cp1252 gives no meaning."""
OTHER_SEPARATORS = ";\t|"
MAX_LINES = 1000
"""Lines that a quoted field may span before it is taken for a quotation mark in a text."""
FIELD = r'(?:"(?:[^"]|"")*"|[^"\t\r\n]*)'
WELL_QUOTED = re.compile(rf"{FIELD}(?:\t{FIELD})*\r?\n?")
NEEDED_QUOTES = re.compile(r'(?:^|\t)"(?:[^"]|"")*(?:""|[\t\n])(?:[^"]|"")*"(?=[\t\r\n]|$)')
"""A quoted field that could not stand there without its quotation marks."""


@dataclass(frozen=True)
class TextForm:
    """How a text file is to be read."""

    encoding: str
    separator: str
    quoted: bool
    """Whether a quotation mark at both ends of a field is no part of the text."""


def is_compressed(path: Path) -> bool:
    """Tell whether a file's name says gzip."""
    return path.suffix.lower() == ".gz"


def extension(path: Path) -> str:
    """Return the format that the end of a file's name tells, in small letters, the end of gzip left out."""
    name = path.with_suffix("") if is_compressed(path) else path
    return name.suffix.lower().removeprefix(".")


def open_text(path: Path, encoding: str | None = None, newline: str | None = None) -> TextIO:
    """Open a text file, compressed or not, in its own encoding."""
    encoding = encoding or find_encoding(path)
    if is_compressed(path):
        return cast(TextIO, gzip.open(path, "rt", encoding=encoding, newline=newline))
    return open(path, encoding=encoding, newline=newline)


def find_encoding(path: Path) -> str:
    """Return ``utf-8-sig``, ``utf-16`` or ``utf-32`` by their marks, or ``cp1252``, as Western Windows programs write.

    Raises:
        UnicodeDecodeError: it is none of them.
    """
    status = path.stat()
    return _find_encoding(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)  # a file is looked at for its columns, for its classes and for its rows
def _find_encoding(path: Path, size: int, changed: int) -> str:
    with _open_bytes(path) as start_of:
        start = start_of.read(4)
    encoding = next((name for mark, name in WIDE_MARKS.items() if start.startswith(mark)), _unmarked(start))
    try:
        with open_text(path, encoding) as file:
            while file.read(BYTES_PER_READ):
                pass
    except UnicodeDecodeError:
        if looks_like(path) or not _is_western(path):
            raise
        return "cp1252"
    return encoding


def _unmarked(start: bytes) -> str:
    """Return the encoding of text without a mark by its first two characters, which every header has in ASCII."""
    places = "".join("0" if byte == 0 else "x" for byte in start)
    return {"x0x0": "utf-16-le", "0x0x": "utf-16-be"}.get(places, "utf-8-sig")


def _open_bytes(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path)) if is_compressed(path) else open(path, "rb")


def _is_western(path: Path) -> bool:
    """Tell whether bytes that are not UTF-8 make sense in cp1252.

    Not so where most other characters than ASCII are good UTF-8, as in a file of which a byte was lost, and where
    most letters are not ASCII, as in Cyrillic, Korean or Chinese encodings.
    """
    letters = others = lost = 0
    with _open_bytes(path) as file:
        while part := file.read(BYTES_PER_READ):
            high = part.translate(None, ASCII)
            if b"\0" in part or any(byte in high for byte in UNUSED):
                return False
            letters, others = letters + len(part.translate(None, LETTERS)), others + len(high)
            lost += part.decode("utf-8", "replace").count("\ufffd")
    return others <= MOST_ACCENTS * (letters + others) and 2 * lost > others


def text_form(path: Path) -> TextForm:
    """Return the form of a csv, tsv or txt file.

    In a csv file the separator is the one that its first line holds, a comma above all others. Tab-separated
    files are read as GLUE writes them, a quotation mark is a character of the text, unless all quotation marks
    of the file stand where pandas and Excel put them.

    Raises:
        UserError: a txt file without tabs.
    """
    status = path.stat()
    return _text_form(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _text_form(path: Path, size: int, changed: int) -> TextForm:
    encoding, kind = find_encoding(path), extension(path)
    with open_text(path, encoding) as file:
        header = re.sub(r'"(?:[^"]|"")*"', "", file.readline())
    separator = "," if kind == "csv" else "\t"
    if kind == "csv" and "," not in header:
        separator = next((other for other in OTHER_SEPARATORS if other in header), ",")
    if kind == "txt" and "\t" not in header:
        raise UserError(f"{path}: its first line holds no tabs; give a table with a header as csv, tsv or jsonl")
    quoted = separator != "\t"
    if not quoted:
        with open_text(path, encoding, newline="") as file:
            quoted = has_quoted_fields(file)
    return TextForm(encoding, separator, quoted)


def has_quoted_fields(lines: Iterable[str]) -> bool:
    """Tell whether every quotation mark of a tab-separated file belongs to a field in quotation marks.

    One field at least must need them, or the header must have them: ``"good"`` alone may be a text's own.
    """
    proof, record, num_lines, is_header = False, "", 0, True
    for line in lines:
        record, num_lines = record + line, num_lines + 1
        if record.count('"') % 2 and num_lines < MAX_LINES:
            continue  # goes on in the next line
        if '"' in record:
            if not WELL_QUOTED.fullmatch(record):
                return False
            proof = proof or is_header or bool(NEEDED_QUOTES.search(record))
        record, num_lines, is_header = "", 0, False
    return proof and not record


def form_note(path: Path) -> str | None:
    """Say how a file is read where its name does not say it, or return None."""
    form = text_form(path) if extension(path) in ("csv", "tsv", "txt") else None
    said = []
    if (encoding := form.encoding if form else find_encoding(path)) != "utf-8-sig":
        why = "because it is not UTF-8" if encoding == "cp1252" else "as its first bytes say"
        said.append(f"as {encoding if encoding == 'cp1252' else encoding.upper()}, {why}")
    if form and extension(path) == "csv" and form.separator != ",":
        separator = "tabs" if form.separator == "\t" else repr(form.separator)
        said.append(f"with {separator} between the fields")
    if form and form.separator == "\t" and form.quoted:
        said.append("with quotation marks around fields, as pandas writes them")
    return f"{path.name} is read {' and '.join(said)}" if said else None


def csv_header(path: Path) -> list[str]:
    """Return the first row of a csv, tsv or txt file."""
    import pandas  # a fifth of a second that other files need not pay

    # Read as a row, because a header that holds a name twice has the second one renamed.
    return list(pandas.read_csv(path, nrows=1, header=None, **_options(path)).iloc[0])


def read_csv(path: Path, columns: Sequence[str], rows: int, header: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield columns of a csv, tsv or txt file; all text stays text.

    Args:
        columns: as the file has them.
        rows: of a table.
        header: the names of all columns, where the file has none.
    """
    import pandas  # as above

    named: dict[str, Any] = {} if header is None else {"header": None, "names": list(header)}
    with pandas.read_csv(path, chunksize=rows, **named, **_options(path)) as chunks:
        for chunk in chunks:
            if not isinstance(chunk.index, pandas.RangeIndex):
                # Instead of failing, pandas takes the first field of such rows for a row name.
                raise UserError(f"{path}: rows have more fields than the header; quote texts that hold a separator")
            yield pa.Table.from_pandas(chunk[list(columns)], preserve_index=False)


def _options(path: Path) -> dict[str, Any]:
    form = text_form(path)
    return {
        "sep": form.separator,
        "quoting": csv.QUOTE_MINIMAL if form.quoted else csv.QUOTE_NONE,
        "encoding": form.encoding,
        "compression": "gzip" if is_compressed(path) else None,
        # "NA", "null" and "None" are words here, not missing values, and "007" is not the number 7.
        "dtype": str,
        "keep_default_na": False,
    }
