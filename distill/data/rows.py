"""The rows of one split: every text and label checked, and what is missing told or left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.label_sets import encode_label_sets
from distill.data.labels import HIDDEN, encode_labels
from distill.data.readers import is_text
from distill.data.source_errors import no_memory
from distill.tasks import Task
from distill.utils.errors import UserError, first_line

MAX_TEXT_BYTES = 1_000_000
"""Far above any text that a model reads, and what half a file looks like whose quotation mark is left open."""
WAY_OUT = "write one, leave the row out, or give --data.drop_incomplete true to leave all such rows out"


@dataclass(frozen=True)
class Rows:
    """One split as read: texts still in Arrow, so that Python strings are made only for the rows that are used."""

    texts: tuple[pa.ChunkedArray, ...]
    labels: np.ndarray
    """int64 (n,) class indices, float32 (n,) scores, or float32 (n, C) of 0 and 1 for labels decided one by one."""
    complete: np.ndarray
    """int64, ascending: the positions of the rows that may be used."""
    num_half_blank: int
    """Pairs among them of which one text has no letter."""


def check_rows(
    task: Task, tables: Iterable[pa.Table], where: str, *, labelled: bool = True, drop_incomplete: bool = False
) -> Rows:
    """Check every row of a split and keep texts and encoded labels.

    A text that is null, NaN or nothing but white space is missing, in every format alike. Of a pair one may be.

    Args:
        labelled: False for splits whose labels nobody may look at; there a text may be missing, too.
        drop_incomplete: leave rows out in which a text or the label is missing, instead of refusing them.

    Raises:
        UserError: a row cannot be used; the message names it.
    """
    texts: list[list[pa.Array]] = [[] for _ in task.text_columns]
    labels: list[pa.Table] = []
    num_rows = 0
    try:
        for table in tables:
            for chunks, name in zip(texts, task.text_columns, strict=True):
                chunks.extend(text_column(table[name], name, where, num_rows).chunks)
            if labelled:
                labels.append(table.select(list(task.columns_of_labels)))
            num_rows += table.num_rows
        if num_rows == 0:
            raise UserError(f"{where} holds no rows")
        columns = tuple(pa.chunked_array(chunks, type=pa.large_string()) for chunks in texts)
        if not labelled:
            everything = np.arange(num_rows)
            return Rows(_filled(columns), np.full(num_rows, HIDDEN), everything, 0)
        blank = np.stack([_is_blank(column) for column in columns])
        if not drop_incomplete:
            _refuse_blank(task, columns, blank, where)
        if task.multi_label:
            encoded, unlabelled = encode_label_sets(task, labels, where, drop_incomplete=drop_incomplete)
        else:
            column = [table[task.label_column] for table in labels]
            encoded, unlabelled = encode_labels(task, column, where, drop_incomplete=drop_incomplete)
    except MemoryError as error:
        raise no_memory(where) from error
    some_blank = np.any(blank, axis=0, keepdims=True)[0]
    complete = np.flatnonzero(~unlabelled & ~(some_blank & drop_incomplete))
    if len(complete) == 0:
        raise UserError(f"{where}: in every row a text or the label is missing; give a file with both")
    return Rows(_filled(columns), encoded, complete, int(some_blank[complete].sum()))


def text_column(column: pa.ChunkedArray, name: str, where: str, first_row: int) -> pa.ChunkedArray:
    """Return a column as text, nulls kept; a number or bytes that are not UTF-8 are refused with their row."""
    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (is_text(value_type) or pa.types.is_null(value_type)):
        raise UserError(f"{where}, row {first_row + 1}: column {name!r} holds {value_type} values, not text")
    try:
        column = column.cast(pa.large_string())
        column.validate(full=True)
    except MemoryError:  # one of Arrow's own exceptions, too
        raise
    except pa.ArrowException as error:
        raise UserError(f"{where}: column {name!r} is not UTF-8 text ({first_line(error)})") from error
    sizes = pc.binary_length(column)
    if (pc.max(sizes).as_py() or 0) > MAX_TEXT_BYTES:
        row = pc.index(pc.greater(sizes, MAX_TEXT_BYTES), True).as_py()
        raise UserError(
            f"{where}, row {first_row + row + 1}: column {name!r} holds {sizes[row].as_py() / 1e6:.0f} MB of text; "
            "is a quotation mark left open, or a line break missing?"
        )
    zeros = pc.match_substring(column, "\0")
    if pc.any(zeros).as_py():
        row = first_row + pc.index(zeros, True).as_py() + 1
        raise UserError(f"{where}, row {row}: column {name!r} holds a NUL character; fetch the file again")
    return column


def _is_blank(column: pa.ChunkedArray) -> np.ndarray:
    """Tell which texts are null or hold no character but white space, bool (n,)."""
    blank = pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0)
    return np.asarray(pc.fill_null(blank, True).to_numpy(), bool)


def _refuse_blank(task: Task, columns: Sequence[pa.ChunkedArray], blank: np.ndarray, where: str) -> None:
    """Refuse the first row in which all texts are missing."""
    nothing = blank.all(0)
    if nothing.any():
        row = int(np.argmax(nothing))
        names = " and ".join(repr(name) for name in task.text_columns)
        is_null = all(not column[row].is_valid for column in columns)
        what = f"column {names} is missing" if is_null else f"there is no text in column {names}"
        raise UserError(f"{where}, row {row + 1}: {what}; {WAY_OUT}")


def _filled(columns: Sequence[pa.ChunkedArray]) -> tuple[pa.ChunkedArray, ...]:
    return tuple(column.fill_null("") if column.null_count else column for column in columns)
