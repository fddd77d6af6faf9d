"""Files of texts without labels: which are meant, and what they hold, some thousand texts at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distill.data.locate import is_readable, kind_of
from distill.data.official_glue import COLUMNS
from distill.data.readers import EXTENSIONS, SAVED_DATASET, column_names, read_file
from distill.data.rows import MAX_TEXT_BYTES, text_column
from distill.data.source_errors import match_columns, plain, reason, told_in_one_line
from distill.data.text_files import extension, open_text
from distill.tasks import Task
from distill.utils.errors import UserError

KEY = "data.unlabelled"
FORMATS = ("txt", *EXTENSIONS)
TEXTS_PER_CHUNK = 10_000
Texts = list[tuple[str, ...]]


def find_text_files(place: str, task: Task) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Return the files that a path means, and what is to be said of those left aside.

    A folder means all texts in it and in the folders below, in the order of their paths; hidden and empty files aside.

    Raises:
        UserError: there is nothing that can be read, or a file lacks a text column of the task.
    """
    with _under_its_key():
        try:
            path = Path(place).expanduser()
            if path.is_dir() and not (path / SAVED_DATASET).is_file():
                files, notes = _in_folder(path)
            elif path.exists():
                files, notes = (path,), ()
            else:
                raise UserError(f"there is no file or folder {path}")
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{place} cannot be opened ({reason(error)}); give another file or folder") from error
        for file in files:
            _check_file(file, task)
    return files, notes


@contextmanager
def _under_its_key() -> Iterator[None]:
    """Begin what is refused with the key of the configuration."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{KEY}: {error}") from error


def _in_folder(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    shown = [path for path in inside if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    files = tuple(path for path in shown if is_readable(path) and path.stat().st_size > 0)
    if not files:
        hint = f"; {shown[0].name} is {_what_it_is(shown[0])}" if shown else ""
        raise UserError(f"folder {folder} holds no texts (files of {', '.join(FORMATS)}, also .gz){hint}")
    aside = len(shown) - len(files)
    note = f"{KEY}: {aside:,} of {len(shown):,} files in {folder.name} are empty or of another format: left out"
    return files, (note,) if aside else ()


def _what_it_is(path: Path) -> str:
    return "empty" if path.stat().st_size == 0 else kind_of(path, FORMATS)


def _check_file(path: Path, task: Task) -> None:
    """Refuse a file that is empty, of another format, or without the columns of the task."""
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"{path} is no regular file; give a file or a folder of texts")
        if not is_readable(path):
            raise UserError(f"{path} is {kind_of(path, FORMATS)}")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; it must hold one text a line, or a table of texts")
    columns = " and ".join(map(repr, task.text_columns))
    if _is_plain(path, task):
        if len(task.text_columns) > 1:
            raise UserError(
                f"{path} holds one text a line, and task {task.name} reads pairs; "
                f"give a table with the columns {columns}"
            )
        return
    try:
        match_columns(task.text_columns, column_names(path), path, COLUMNS.get(task.name))
    except UserError as error:
        way_out = "both are needed" if len(task.text_columns) > 1 else "or give one text a line in a file named .txt"
        raise UserError(f"{error}; task {task.name} reads {columns}, {way_out}") from error


def _is_plain(path: Path, task: Task) -> bool:
    """Tell whether a file holds one text a line; a txt file that names the task's columns, with tabs, is a table."""
    if path.is_dir() or extension(path) != "txt":
        return False
    with told_in_one_line(path, path), open_text(path) as file:
        fields = file.readline(MAX_TEXT_BYTES).split("\t")
    return len(fields) == 1 or not {plain(name) for name in task.text_columns} <= {plain(name) for name in fields}


def read_texts(files: Sequence[Path], task: Task) -> Iterator[Texts]:
    """Yield the texts or pairs of all files, at most `TEXTS_PER_CHUNK` at a time; what is missing is an empty text.

    Raises:
        UserError: a file cannot be read, is no text or holds a text that is far too long; the message names the place.
    """
    for path in files:
        with _under_its_key():
            yield from _read_lines(path) if _is_plain(path, task) else _read_table(path, task)


def _read_lines(path: Path) -> Iterator[Texts]:
    texts: Texts = []
    with told_in_one_line(path, path), open_text(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT_BYTES + 1), ""), start=1):
            if len(line) > MAX_TEXT_BYTES:
                raise UserError(
                    f"{path}, line {number} holds more than {MAX_TEXT_BYTES:,} letters; write shorter lines"
                )
            if "\0" in line:
                raise UserError(f"{path}, line {number} holds a NUL character: it is no text file, or torn")
            texts.append((line,))
            if len(texts) == TEXTS_PER_CHUNK:
                yield texts
                texts = []
    if texts:
        yield texts


def _read_table(path: Path, task: Task) -> Iterator[Texts]:
    row = 0
    for table in read_file(path, task.text_columns, COLUMNS.get(task.name)):
        for start in range(0, table.num_rows, TEXTS_PER_CHUNK):
            part = table.slice(start, TEXTS_PER_CHUNK)
            columns = [text_column(part[name], name, str(path), row) for name in task.text_columns]
            yield list(zip(*(column.fill_null("").to_pylist() for column in columns), strict=True))
            row += part.num_rows
