"""Rows with any number of labels, from a list, one text or 0/1 columns, turned into 0 and 1 for every label.

Shapes: n rows, C labels.
"""

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distill.data.labels import HIDDEN, Key, class_index, distinct_values, is_missing, label_key, sorted_names
from distill.data.readers import is_text
from distill.tasks import Task
from distill.utils.errors import UserError

SEPARATORS = ("|", ";", ",")
"""What may stand between labels in one text; the first that occurs in train does."""
ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?"""
WRITTEN_LIST = re.compile(rf"\[\s*(?:(?:{ITEM})(?:\s*,\s*|\s+|(?=\])))*\]")
"""A list of quoted texts and numbers, with commas between them or without."""
SWITCHES = {"true": 1.0, "false": 0.0}
LEAVE_OUT = "--data.drop_incomplete true leaves such rows out"


def find_labels(
    tables: Iterable[pa.Table], column: str, where: str, label_names: Sequence[str] | None
) -> tuple[list[str], str | None]:
    """Return the labels of a column in order, and what stands between them where a row has them in one text.

    Args:
        label_names: as the user wrote them, which then are the labels; of several separators the one by which all
            texts fall into these names is taken.

    Raises:
        UserError: the column holds no labels, or no text with several.
    """
    cells = {_frozen(cell) for table in tables for cell in _cells(table[column], column, where, 0)} - {None}
    single = [cell for cell in cells if not (isinstance(cell, tuple) or (isinstance(cell, str) and _is_list(cell)))]
    separator = _separator([cell for cell in single if isinstance(cell, str)], label_names)
    if separator is None and len(single) == len(cells) > 0:
        raise UserError(
            f"{where}: no row of column {column!r} holds several labels: write them as a list or with one of "
            f"{' '.join(SEPARATORS)} between them, name 0/1 columns with --data.label_column '[FIRST, SECOND, ...]', "
            "or, if every row has one label, leave out --data.multi_label"
        )
    spellings: dict[Key, set[str]] = defaultdict(set)
    for cell in cells:
        try:
            for value in _values(cell, separator):
                spellings[label_key(value)].add(str(int(value) if isinstance(value, bool) else value).strip())
        except ValueError as error:
            raise UserError(f"{where}: column {column!r}: {error}") from error
    names = sorted_names(spellings) if label_names is None else list(label_names)
    if len(names) < 2:
        raise UserError(f"{where}: column {column!r} holds fewer than two different labels")
    return names, separator


def encode_label_sets(
    task: Task, tables: Sequence[pa.Table], where: str, *, drop_incomplete: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 where a row has a label, else 0, float32 (n, C), and which rows say nothing of it, bool (n,).

    An empty list or text is a row without any label, which is one like others; null says nothing.

    Args:
        tables: the columns ``task.columns_of_labels``.
        drop_incomplete: whether rows may say nothing; their labels are NaN. Otherwise all say something.

    Raises:
        UserError: a label is missing or unknown, or a 0/1 column holds something else.
    """
    encode = _encode_indicators if task.indicator_columns else _encode_lists
    labels, first_row = [], 0
    for table in tables:
        labels.append(encode(task, table, where, first_row))
        missing = np.isnan(labels[-1]).any(1)
        if missing.any() and not drop_incomplete:
            row, names = int(np.argmax(missing)), task.columns_of_labels
            column = names[int(np.argmax(np.isnan(labels[-1][row])))] if len(names) > 1 else names[0]
            none = "0 where there is none" if task.indicator_columns else "[] where there is none"
            raise UserError(
                f"{where}, row {first_row + row + 1}: column {column!r} is missing; write {none}, or {LEAVE_OUT}"
            )
        labels[-1][missing] = np.nan
        first_row += table.num_rows
    whole = np.concatenate(labels)
    return whole, np.isnan(whole).any(1)


def has_label_sets(task: Task, tables: Iterable[pa.Table]) -> bool:
    """Tell whether any row says which labels it has: neither null nor, in a 0/1 column, -1."""
    cells = (cell for table in tables for column in table.columns for cell in column.to_pylist())
    if task.indicator_columns:
        return any(not is_missing(cell) and label_key(cell) != HIDDEN for cell in cells)
    return any(cell not in (None, "", []) for cell in cells)


def is_indicator(column: pa.ChunkedArray) -> bool:
    """Tell whether a column holds nothing but 0 and 1, true and false, or null."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or is_text(kind)):
        return False
    values = [value for value in column.unique().to_pylist() if not is_missing(value) and value == value]
    return len(values) > 0 and all(_zero_or_one(value) is not None for value in values)


def _zero_or_one(value: Any) -> float | None:
    """Return a cell of a 0/1 column as a number, None where it is something else."""
    if isinstance(value, str) and value.strip().lower() in SWITCHES:
        return SWITCHES[value.strip().lower()]
    key = label_key(value)
    return float(key) if key in (0, 1) else None


def _encode_indicators(task: Task, table: pa.Table, where: str, first_row: int) -> np.ndarray:
    columns = []
    for name in task.indicator_columns:
        positions, values = distinct_values(table[name], name, where, first_row)
        encoded = np.full(len(values), np.nan, np.float32)
        for index, value in enumerate(values):
            if is_missing(value) or value != value:
                continue
            number = _zero_or_one(value)
            if number is None:
                row = first_row + int(np.argmax(positions == index)) + 1
                raise UserError(f"{where}, row {row}: column {name!r} holds {value!r}, not 0 or 1")
            encoded[index] = number
        columns.append(encoded[positions])
    return np.stack(columns, axis=1)


def _encode_lists(task: Task, table: pa.Table, where: str, first_row: int) -> np.ndarray:
    known = {label_key(name): index for index, name in enumerate(task.label_names)}
    if len(known) < len(task.label_names):
        raise UserError(f"data.label_names: of {', '.join(task.label_names)} two are the same number; keep one")
    found: dict[Any, np.ndarray] = {}
    rows = []
    for row, cell in enumerate(map(_frozen, _cells(table[task.label_column], task.label_column, where, first_row))):
        if cell not in found:
            try:
                found[cell] = _encode_cell(task, known, cell)
            except ValueError as error:
                raise UserError(f"{where}, row {first_row + row + 1}: {error}") from error
        rows.append(found[cell])
    return np.stack(rows) if rows else np.zeros((0, task.num_labels), np.float32)


def _encode_cell(task: Task, known: Mapping[Key, int], cell: Any) -> np.ndarray:
    """Return the 0 and 1 (C,) of one cell, NaN for null; ValueError says what is wrong with it."""
    if cell is None:
        return np.full(task.num_labels, np.nan, np.float32)
    encoded = np.zeros(task.num_labels, np.float32)
    for value in _values(cell, task.label_separator):
        encoded[class_index(task, known, value)] = 1
    return encoded


def _cells(column: pa.ChunkedArray, name: str, where: str, first_row: int) -> Iterator[Any]:
    """Yield what every row holds: a list, a text, a number or None."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    inner = inner.value_type if pa.types.is_dictionary(inner) else inner
    numbers = pa.types.is_boolean(inner) or pa.types.is_integer(inner) or pa.types.is_floating(inner)
    if not (numbers or is_text(inner) or pa.types.is_null(inner)):
        raise UserError(f"{where}, row {first_row + 1}: column {name!r} holds {kind} values, not lists of labels")
    for cell in column.to_pylist():
        # A single number is one label, and NaN is how pandas writes that there is none.
        yield None if isinstance(cell, float) and cell != cell else cell


def _frozen(cell: Any) -> Any:
    """Return a cell in a form that can be looked up."""
    return tuple(cell) if isinstance(cell, list) else cell.strip() if isinstance(cell, str) else cell


def _is_list(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _values(cell: Any, separator: str | None) -> list[Any]:
    """Return the labels in a cell; ValueError where it is no list of them."""
    if isinstance(cell, str):
        values = _read_list(cell) if _is_list(cell) else cell.split(separator) if separator else [cell]
        values = [value for value in values if not (isinstance(value, str) and not value.strip())]
    else:
        values = list(cell) if isinstance(cell, tuple) else [cell]
    if any(is_missing(value) or not isinstance(value, str | int | float) for value in values):
        raise ValueError(f"{shown_cell(cell)} holds something that is no label")
    return values


def _read_list(text: str) -> list[Any]:
    """Read a list as JSON writes it, or as Python and numpy do and with them pandas' to_csv."""
    try:
        return list(json.loads(text))
    except (ValueError, RecursionError):
        pass
    if not WRITTEN_LIST.fullmatch(text):
        raise ValueError(f'{shown_cell(text)} is not a list; write it as ["FIRST", "SECOND"]')
    # Item by item: to Python as a whole, 'a' 'b' without a comma is one text.
    return [ast.literal_eval(item) for item in re.findall(ITEM, text)]


def shown_cell(cell: Any) -> str:
    """Return a cell as a message quotes it."""
    shown = repr(list(cell)) if isinstance(cell, tuple) else repr(cell)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _separator(texts: Sequence[str], label_names: Sequence[str] | None) -> str | None:
    """Return what stands between the labels of a text, None where no text holds several."""
    present = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    known = {label_key(name) for name in label_names or ()}
    for mark in present if known else ():
        if all(label_key(piece) in known for text in texts for piece in text.split(mark) if piece.strip()):
            return mark
    return present[0] if present else None
