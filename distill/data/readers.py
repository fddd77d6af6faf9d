"""Tables from files, from the Hub and from the embedded grammar, in chunks of Arrow columns.

Every reader yields tables that hold the wanted columns only, under the wanted names, so that a big file is never in
memory as Python objects. Local files are read with pandas and pyarrow: no copy in a cache, no lock, one-line errors
that name file and row.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill.data.arrow_files import arrow_file
from distill.data.json_files import json_columns, read_json
from distill.data.source_errors import match_columns, no_memory, require_columns, told_in_one_line
from distill.data.text_files import csv_header, extension, read_csv
from distill.utils.errors import UserError, first_line, is_out_of_memory

EXTENSIONS = ("parquet", "jsonl", "csv", "tsv")
"""The formats that messages name."""
ARROW = ("feather", "arrow")
MORE_EXTENSIONS = ("json", "txt", *(f"{kind}.gz" for kind in ("jsonl", "csv", "tsv", "json", "txt")), *ARROW)
NO_TEXT = ("parquet", *ARROW)
"""The formats that are no lines of text."""
SAVED_DATASET = "state.json"
"""Stands in every folder that ``save_to_disk`` of the library datasets wrote."""
ROWS_PER_CHUNK = 50_000

Tables = Iterator[pa.Table]


def column_names(path: Path, least_share: float = 0.0) -> list[str]:
    """Return the columns of a file in their order; of a json or jsonl file the keys that this share of its rows holds.

    Raises:
        UserError: unreadable or empty file, or text in an encoding that is not read.
    """
    with told_in_one_line(path, path):
        if path.is_dir():
            return list(_saved_dataset(path).column_names)
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; it must hold the names of its columns and rows")
        if extension(path) == "parquet":
            return list(pq.read_schema(path).names)
        if extension(path) in ARROW:
            return list(arrow_file(path)[0].names)
        if extension(path) not in ("json", "jsonl"):
            return csv_header(path)
        columns = json_columns(path, least_share)
    if columns is None:
        raise UserError(f"{path} is empty; it must hold one JSON object a line")
    return columns


def read_file(
    path: Path,
    columns: Sequence[str],
    other_names: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
) -> Tables:
    """Yield the named columns of one file, or of a folder that ``save_to_disk`` wrote; all text of csv stays text.

    Args:
        columns: case and outer spaces may differ in the file.
        other_names: what an official set calls a column.
        header: the columns of a text file that does not name them.

    Raises:
        UserError: unreadable, empty or torn file, text in an encoding that is not read, or a missing column.
    """
    num_rows = 0
    with told_in_one_line(path, path):
        if path.is_dir() or path.stat().st_size > 0:
            for table in _tables(path, columns, other_names, header):
                num_rows += table.num_rows
                yield table.rename_columns(list(columns))
    if num_rows == 0:
        raise UserError(f"{path} is empty; it must hold the columns {', '.join(columns)} and at least one row")


def _tables(
    path: Path, columns: Sequence[str], other_names: Mapping[str, str] | None, header: Sequence[str] | None
) -> Tables:
    if not path.is_dir() and extension(path) in ("json", "jsonl"):
        return read_json(path, columns, ROWS_PER_CHUNK, other_names)
    found = match_columns(columns, header or column_names(path), path, other_names)
    if path.is_dir():
        return _read_saved(path, found)
    if extension(path) == "parquet":
        return _read_parquet(path, found)
    if extension(path) in ARROW:
        return (pa.Table.from_batches([batch]).select(found) for batch in arrow_file(path)[1])
    return read_csv(path, found, ROWS_PER_CHUNK, header)


def _read_parquet(path: Path, columns: Sequence[str]) -> Tables:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_CHUNK, columns=list(columns)):
            yield pa.Table.from_batches([batch]).select(list(columns))


def _read_saved(path: Path, columns: Sequence[str]) -> Tables:
    dataset = _saved_dataset(path).select_columns(list(columns)).with_format("arrow")
    for table in dataset.iter(batch_size=ROWS_PER_CHUNK):
        yield table.select(list(columns))


def _saved_dataset(path: Path) -> Any:
    import datasets  # half a second that other files need not pay

    return datasets.load_from_disk(str(path))


def read_hub(repository: str, configuration: str | None, split: str, columns: Sequence[str]) -> Tables:
    """Yield the named columns of a split on the Hub; downloaded once, then taken from the local cache."""
    import datasets  # half a second that local files need not pay

    name = f"{repository} {configuration}" if configuration else repository
    try:
        dataset = datasets.load_dataset(repository, configuration, split=split)
    except Exception as error:
        if is_out_of_memory(error):
            raise no_memory(name) from error
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


def is_text(kind: pa.DataType) -> bool:
    """Tell whether an Arrow type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
