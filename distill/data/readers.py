"""Tables from files, from the Hub and from the embedded grammar, in chunks of Arrow columns.

Every reader yields tables that hold the wanted columns only, so that a big file is never in memory as Python objects.
Local files are read with pandas and pyarrow: no copy in a cache, no lock, one-line errors that name file and row.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq

from distill.utils.errors import UserError, first_line

EXTENSIONS = ("parquet", "jsonl", "csv", "tsv")
ROWS_PER_CHUNK = 50_000
MAX_SHOWN = 200
"""Characters of a list of columns that a message shows."""

Tables = Iterator[pa.Table]


def extension(path: Path) -> str:
    """Return the format that the end of a file's name tells, in small letters."""
    return path.suffix.lower().removeprefix(".")


def column_names(path: Path) -> list[str]:
    """Return the columns of a file in their order; of a jsonl file the keys of its first line.

    Raises:
        UserError: unreadable or empty file, or text that is not UTF-8.
    """
    with _refused_in_one_line(path):
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; it must hold the names of its columns and rows")
        if extension(path) == "parquet":
            return list(pq.read_schema(path).names)
        if extension(path) != "jsonl":
            return _csv_header(path)
        for _, row in _json_rows(path):
            return list(row)
    raise UserError(f"{path} is empty; it must hold one JSON object a line")


def read_file(path: Path, columns: Sequence[str]) -> Tables:
    """Yield the named columns of a csv, tsv, jsonl or parquet file; all text of csv and tsv stays text.

    Tab-separated files are read as GLUE writes them: no quoting, a quotation mark is a character of the text.

    Raises:
        UserError: unreadable, empty or torn file, text that is not UTF-8, or a missing column.
    """
    readers: dict[str, Callable[[Path, Sequence[str]], Tables]] = {
        "csv": _read_csv,
        "tsv": _read_csv,
        "jsonl": _read_jsonl,
        "parquet": _read_parquet,
    }
    num_rows = 0
    with _refused_in_one_line(path):
        if path.stat().st_size > 0:
            for table in readers[extension(path)](path, columns):
                num_rows += table.num_rows
                yield table
    if num_rows == 0:
        raise UserError(f"{path} is empty; it must hold the columns {', '.join(columns)} and at least one row")


@contextmanager
def _refused_in_one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text{_looks_like(path)}; save it as UTF-8 ({first_line(error)})"
        ) from error
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}{_looks_like(path)}: {reason(error)}; write or fetch it again") from error


def reason(error: BaseException) -> str:
    """Return what the system says is wrong, without the path that it repeats."""
    return (isinstance(error, OSError) and error.strerror) or first_line(error)


def _looks_like(path: Path) -> str:
    """Name the kind of a file that does not hold what its name says."""
    kinds = {
        b"\x1f\x8b": "gzip",
        b"PK\x03\x04": "a zip or Excel file",
        b"PAR1": "parquet",
        b"\xff\xfe": "UTF-16",
    }
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError:
        return ""
    found = [kind for mark, kind in kinds.items() if start.startswith(mark) and kind != extension(path)]
    return f" (it looks like {found[0]})" if found else ""


def require_columns(columns: Sequence[str], present: Sequence[str], where: object) -> None:
    """Refuse a source that lacks one of ``columns`` or has it twice."""
    for column in columns:
        if column not in present:
            raise UserError(f"{where} has no column {column!r}; its columns are {in_words(present)}")
        if list(present).count(column) > 1:
            raise UserError(f"{where} has the column {column!r} more than once; rename or remove one")


def in_words(columns: Sequence[str]) -> str:
    """List the columns of a file in a message, as many as fit."""
    names = " ".join(", ".join(map(str, columns)).split())
    return names if len(names) < MAX_SHOWN else f"{names[:MAX_SHOWN]}..."


def _csv_options(path: Path) -> dict[str, Any]:
    tab_separated = extension(path) == "tsv"
    return {
        "sep": "\t" if tab_separated else ",",
        "quoting": csv.QUOTE_NONE if tab_separated else csv.QUOTE_MINIMAL,
        "encoding": "utf-8-sig",
        # "NA", "null" and "None" are words here, not missing values, and "007" is not the number 7.
        "dtype": str,
        "keep_default_na": False,
    }


def _csv_header(path: Path) -> list[str]:
    # Read as a row, because a header that holds a name twice has the second one renamed.
    header: list[str] = pandas.read_csv(path, nrows=1, header=None, **_csv_options(path)).iloc[0].tolist()
    return header


def _read_csv(path: Path, columns: Sequence[str]) -> Tables:
    require_columns(columns, _csv_header(path), path)
    with pandas.read_csv(path, chunksize=ROWS_PER_CHUNK, **_csv_options(path)) as chunks:
        for chunk in chunks:
            if not isinstance(chunk.index, pandas.RangeIndex):
                # Instead of failing, pandas takes the first field of such rows for a row name.
                raise UserError(f"{path}: rows have more fields than the header; quote texts that hold a separator")
            yield pa.Table.from_pandas(chunk[list(columns)], preserve_index=False)


def _read_parquet(path: Path, columns: Sequence[str]) -> Tables:
    with pq.ParquetFile(path) as file:
        require_columns(columns, file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=ROWS_PER_CHUNK, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def _read_jsonl(path: Path, columns: Sequence[str]) -> Tables:
    values: dict[str, list[Any]] = {column: [] for column in columns}
    num_yielded = 0
    for line_number, row in _json_rows(path):
        require_columns(columns, list(row), f"{path}, line {line_number}")
        for column in columns:
            values[column].append(row[column])
        if len(values[columns[0]]) == ROWS_PER_CHUNK:
            yield _table_of_values(values, path, num_yielded)
            num_yielded += ROWS_PER_CHUNK
            values = {column: [] for column in columns}
    if values[columns[0]]:
        yield _table_of_values(values, path, num_yielded)


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line that is not blank."""
    with open(path, encoding="utf-8-sig") as file:
        for line_number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_refuse_twice)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {line_number} is not JSON: {error}; correct that line") from error
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {line_number} is not a JSON object with the columns as keys")
            yield line_number, row


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        raise ValueError("a key stands twice")
    return row


def _table_of_values(values: dict[str, list[Any]], path: Path, first_row: int) -> pa.Table:
    arrays = {}
    for column, items in values.items():
        try:
            arrays[column] = pa.array(items)
        except UnicodeEncodeError as error:
            row = first_row + next(row for row, item in enumerate(items) if item == error.object) + 1
            problem = f"column {column!r} holds half a surrogate pair; write the character whole"
            raise UserError(f"{path}, row {row}: {problem}") from error
        except (pa.ArrowException, OverflowError) as error:
            first_type = next(type(item) for item in items if item is not None)
            odd = (row for row, item in enumerate(items) if item is not None and type(item) is not first_type)
            row = first_row + next(odd, 0) + 1
            raise UserError(f"{path}, row {row}: column {column!r} mixes types ({first_line(error)})") from error
    return pa.table(arrays)


def read_hub(repository: str, configuration: str | None, split: str, columns: Sequence[str]) -> Tables:
    """Yield the named columns of a split on the Hub; downloaded once, then taken from the local cache."""
    import datasets  # half a second that local files need not pay

    name = f"{repository} {configuration}" if configuration else repository
    try:
        dataset = datasets.load_dataset(repository, configuration, split=split)
    except Exception as error:
        # Hub, HTTP, cache and file errors share no base class, and every one of them leaves us without data.
        raise UserError(
            f"cannot load {name} ({split}) from the Hub: {first_line(error)}; no network? give --data.dir FOLDER"
            + (" or --data.dir embedded" if repository == "nyu-mll/glue" else "")
        ) from error
    for table in dataset.with_format("arrow").iter(batch_size=ROWS_PER_CHUNK):
        if "labels" in table.column_names and pa.types.is_struct(table.schema.field("labels").type):
            # KLUE-STS on the Hub: labels = {label, real-label, binary-label}.
            table = table.flatten()
            table = table.rename_columns([column.removeprefix("labels.") for column in table.column_names])
        require_columns(columns, table.column_names, f"{name} ({split})")
        yield table.select(list(columns))


def read_embedded(task_name: str, seed: int, columns: Sequence[str]) -> dict[str, pa.Table]:
    """Return every split of the miniature version of ``task_name`` that a seeded grammar writes."""
    from distill.data.synthetic_glue import EMBEDDED_TASKS, generate

    if task_name not in EMBEDDED_TASKS:
        raise UserError(
            f"data.dir: task {task_name!r} has no embedded version (those have: {', '.join(EMBEDDED_TASKS)}); "
            "give a folder, or null for the Hub"
        )
    splits = generate(task_name, seed)
    return {split: pa.Table.from_pylist(rows).select(list(columns)) for split, rows in splits.items()}


def find_label_names(train_file: Path, label_column: str) -> list[str]:
    """Return the distinct labels of a file, sorted: as numbers where all are whole numbers, else as text."""
    labels: set[str] = set()
    for table in read_file(train_file, (label_column,)):
        for value in table[label_column].unique().to_pylist():
            if value is None or value == "":
                continue  # the row is named when the examples are read
            if isinstance(value, float) and not value.is_integer():
                raise UserError(
                    f"{train_file}: column {label_column!r} holds {value}, not a class; "
                    "for numbers to predict set data.regression to true"
                )
            labels.add(value if isinstance(value, str) else str(int(value)))
    if len(labels) < 2:
        raise UserError(f"{train_file}: column {label_column!r} holds fewer than two different labels")
    if all(is_whole_number(label) for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


def is_text(kind: pa.DataType) -> bool:
    """Tell whether an Arrow type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_whole_number(text: str) -> bool:
    """Tell whether a label's text is a whole number, as in the names "0" and "1"."""
    return text.removeprefix("-").isdecimal()
