"""Where the tables of a task come from: its files, the Hub or the embedded grammar."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from distill.data.label_sets import has_label_sets
from distill.data.labels import HIDDEN, label_key
from distill.data.locate import LAST_RESORT, SplitFiles, split_files
from distill.data.official_glue import COLUMNS, official_header
from distill.data.readers import NO_TEXT, column_names, read_embedded, read_file, read_hub
from distill.data.source_errors import match_columns, told_in_one_line
from distill.data.text_files import extension, form_note
from distill.tasks import CUSTOM, Task
from distill.utils.errors import UserError

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Opened:
    """A split that is about to be read."""

    tables: Iterable[pa.Table]
    where: str
    """Its name in messages."""
    notes: tuple[str, ...] = ()
    """What is to be said of the way in which it is read."""


def open_source(
    task: Task, source: str | None, seed: int, names: Sequence[str], *, labelled: bool = True
) -> dict[str, Opened]:
    """Return the wanted splits; files are looked for before any is read, and only task custom may lack some.

    Args:
        source: as in :func:`distill.data.splits.load_splits`.
        seed: of the embedded grammar.
        labelled: False leaves the column of the labels out.
    """
    columns = (*task.text_columns, *(task.columns_of_labels if labelled else ()))
    if source == EMBEDDED:
        tables = read_embedded(task.name, seed, columns)
        return {name: Opened([tables[name]], f"embedded {task.name} {name}") for name in names}
    if source is not None:
        files = split_files(source, task.name, names)
        files = {name: each for name, each in files.items() if name == "train" or _has_labels(task, each)}
        return {name: _open_files(task, name, each, columns) for name, each in files.items()}
    if task.name == CUSTOM or task.hub is None:
        raise UserError(f"data.dir: task {task.name!r} is not on the Hub; give the folder of its files")
    repository, configuration = task.hub
    return {name: Opened(read_hub(repository, configuration, name, columns), f"{task.name} {name}") for name in names}


def read_files(files: SplitFiles, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the tables of all parts of a split."""
    return chain.from_iterable(read_file(path, columns) for path in files.paths)


def _open_files(task: Task, name: str, files: SplitFiles, columns: Sequence[str]) -> Opened:
    path, names = files.paths[0], COLUMNS.get(task.name)
    is_text = path.is_file() and path.stat().st_size > 0 and extension(path) not in NO_TEXT
    header = official_header(column_names(path)) if task.name == "cola" and is_text else None
    tables = chain.from_iterable(read_file(each, columns, names, header) for each in files.paths)
    notes = [f"{name} is read from {files.found}"] if files.found else []
    if is_text:
        with told_in_one_line(path, path):
            notes += filter(None, [form_note(path)])
    return Opened(tables, files.where, tuple(notes))


def _has_labels(task: Task, files: SplitFiles) -> bool:
    """Tell whether a split may be read; of task custom a test file may not that hides its labels."""
    path = files.paths[0]
    if task.name != CUSTOM or not files.found.lower().startswith(LAST_RESORT):
        return True
    try:
        match_columns((*task.text_columns, *task.columns_of_labels), column_names(path), path)
        tables = read_files(files, task.columns_of_labels)
        if task.multi_label:
            return has_label_sets(task, tables)
        values = {value for table in tables for value in table[task.label_column].unique().to_pylist()}
    except (UserError, TypeError):  # no such column, or lists
        return False
    return any(value not in (None, "") and label_key(value) != HIDDEN for value in values)
