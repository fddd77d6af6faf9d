"""JSON files of rows: one object a line, or one list of objects."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from distill.data.source_errors import in_words, name_of, require_columns
from distill.data.text_files import extension, open_text
from distill.utils.errors import UserError, first_line

ROWS_WANTED = "write one object a line, as pandas' to_json(FILE, orient='records', lines=True) does"


def json_columns(path: Path, least_share: float = 0.0) -> list[str] | None:
    """Return the keys that at least this share of the rows holds, in order; None where there is no row."""
    status = path.stat()
    counts, num_rows = _count_keys(path, status.st_size, status.st_mtime_ns)
    return [key for key, count in counts.items() if count >= least_share * num_rows] if num_rows else None


@lru_cache(maxsize=8)  # a file is asked for its text columns and for its label column
def _count_keys(path: Path, size: int, changed: int) -> tuple[Mapping[str, int], int]:
    counts, num_rows = Counter[str](), 0
    for _, row in _rows(path):
        counts.update(row.keys())  # of a mapping it would add up the values
        num_rows += 1
    return counts, num_rows


def read_json(
    path: Path, columns: Sequence[str], rows: int, other_names: Mapping[str, str] | None = None
) -> Iterator[pa.Table]:
    """Yield columns of a json or jsonl file; a key that a row lacks is a missing value, unless every row lacks it.

    Args:
        rows: of a table.
        other_names: what an official set calls a column.
    """
    values: dict[str, list[Any]] = {column: [] for column in columns}
    num_yielded, keys, lacking, present = 0, list[str](), set(columns), dict[str, None]()
    for place, row in _rows(path):
        if not all(key in row for key in keys) or not keys:
            keys = [name_of(column, list(row), f"{path}, {place}", other_names) for column in columns]
        for column, key in zip(columns, keys, strict=True):
            values[column].append(row.get(key))
        if lacking:
            lacking -= {column for column, key in zip(columns, keys, strict=True) if key in row}
            present.update(dict.fromkeys(row))
        if len(values[columns[0]]) == rows:
            yield _table(values, path, num_yielded)
            num_yielded += rows
            values = {column: [] for column in columns}
    if values[columns[0]]:
        yield _table(values, path, num_yielded)
    if present:
        require_columns(sorted(lacking, key=columns.index), list(present), path)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place of each row, for messages, and its object."""
    is_list = False
    if extension(path) == "json":
        with open_text(path) as file:
            first = next((line.strip() for line in file if line.strip()), "")
        is_list = first.startswith("[")
        if not is_list and not _is_json(first):
            _refuse_one_object(path)
    for place, row in _rows_of_list(path) if is_list else _rows_of_lines(path):
        if not isinstance(row, dict):
            other = (
                "" if is_list or not isinstance(row, list) else "; a list of objects is read from a file named .json"
            )
            raise UserError(f"{path}, {place} is not a JSON object with the columns as keys{other}")
        if row and all(isinstance(value, dict | list) for value in row.values()):
            raise UserError(
                f"{path}, {place}: its keys {in_words(list(row))} hold whole columns, as pandas' to_json writes them "
                f"by default; {ROWS_WANTED}"
            )
        yield place, row


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_one_object(path: Path) -> None:
    """Refuse a file that is one object over several lines; one that is no JSON at all is told by its line."""
    try:
        with open_text(path) as file:
            whole = json.load(file)
    except (ValueError, RecursionError):
        return
    if isinstance(whole, dict):
        raise UserError(f"{path} is one JSON object with the keys {in_words(list(whole))}, not rows; {ROWS_WANTED}")


def _rows_of_list(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with open_text(path) as file:
            rows = json.load(file, object_pairs_hook=_refuse_twice)
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise UserError(f"{path} is not JSON: {error}; write or fetch it again") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _rows_of_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_refuse_twice)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number} is not JSON: {error}; correct that line") from error
            yield f"line {number}", row


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice")
    return row


def _table(values: Mapping[str, list[Any]], path: Path, first_row: int) -> pa.Table:
    """Return columns as Arrow finds their types; NaN beside text is how pandas writes a missing one."""
    arrays = {}
    for column, items in values.items():
        if any(isinstance(item, str) for item in items):
            items = [None if isinstance(item, float) and math.isnan(item) else item for item in items]
        try:
            arrays[column] = pa.array(items)
        except UnicodeEncodeError as error:
            row = first_row + next(row for row, item in enumerate(items) if item == error.object) + 1
            problem = f"column {column!r} holds half a surrogate pair; write the character whole"
            raise UserError(f"{path}, row {row}: {problem}") from error
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            first_type = next(type(item) for item in items if item is not None)
            odd = (row for row, item in enumerate(items) if item is not None and type(item) is not first_type)
            row = first_row + next(odd, 0) + 1
            raise UserError(f"{path}, row {row}: column {column!r} mixes types ({first_line(error)})") from error
    return pa.table(arrays)
