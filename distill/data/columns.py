"""The text and label columns of somebody's own file, found where their names are plain."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from distill.data.readers import column_names, is_text, read_file
from distill.data.source_errors import in_words, match_columns, plain
from distill.tasks import CUSTOM, Task
from distill.utils.errors import UserError

LABEL = "label"
LABELS = (LABEL, "labels", "class", "category", "target", "score", "sentiment")
TEXTS = (
    *("text", "sentence", "review", "content", "message", "comment", "tweet", "post", "body", "document"),
    *("question", "query", "utterance", "description", "abstract"),
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("sentence_1", "sentence_2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "answer"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("query", "passage"),
    ("query", "document"),
)
WORD = re.compile(r"[^\W\d_]{2}")
"""Two letters in a row, which numbers, dates and most codes do not hold."""
ROWS_LOOKED_AT = 1000
MOST = 0.5
"""Of the rows of a JSON file, the share that holds a column which is likelier meant than one that fewer rows hold."""


class DataSource(Protocol):
    """What the data config says of a task of one's own (task `custom`)."""

    @property
    def dir(self) -> str | None: ...
    @property
    def text_columns(self) -> Sequence[str] | None: ...
    @property
    def label_column(self) -> str | Sequence[str]: ...
    @property
    def label_names(self) -> Sequence[str] | None: ...
    @property
    def regression(self) -> bool: ...
    @property
    def main_metric(self) -> str | None: ...
    @property
    def multi_label(self) -> bool: ...


def find_columns(
    path: Path, text_columns: Sequence[str] | None, label_column: str = LABEL
) -> tuple[tuple[str, ...], str]:
    """Return the text columns and the label column of a file; what is named is taken as it is.

    Texts that are not named: the one column or the one pair of a usual name, else the only column of words. A label
    column is looked for where the file has no `LABEL`. Case does not count.

    Raises:
        UserError: the file cannot be read, or which columns are meant is not plain; the message lists them.
    """
    label = _find_label(path, text_columns or (), label_column)
    if text_columns is not None:
        return tuple(text_columns), label
    return find_texts(path, [name for name in column_names(path, MOST) if name != label]), label


def found_in_words(task: Task, text_columns: Sequence[str] | None, label_column: str | Sequence[str]) -> str | None:
    """Say which columns were found in place of those that the configuration leaves open, or return None.

    Args:
        text_columns, label_column: as the configuration has them.
    """
    wanted = (label_column,) if isinstance(label_column, str) else tuple(label_column)
    if task.name != CUSTOM or (text_columns is not None and task.columns_of_labels == wanted):
        return None
    labels = ", ".join(map(repr, task.columns_of_labels))
    return f"columns found: texts {' and '.join(map(repr, task.text_columns))}, label {labels}"


def print_found_columns(task: Task, data: DataSource) -> None:
    """Say on stderr, beside what a command prints for other programs, which columns were found."""
    found = found_in_words(task, data.text_columns, data.label_column)
    if found is not None:
        print(found, file=sys.stderr)


def _find_label(path: Path, texts: Sequence[str], wanted: str) -> str:
    present, found = column_names(path), list[str]()
    if wanted != LABEL:
        match_columns((wanted,), present, path)
        return wanted
    for names in (column_names(path, MOST), present):
        if wanted in names:
            match_columns((wanted,), names, path)
            return wanted
        found = [name for name in names if plain(name) in LABELS and name not in texts]
        plainest = [name for name in found if plain(name) == LABEL]
        if len(plainest or found) == 1:
            return (plainest or found)[0]
    raise UserError(
        f"data.label_column: {path} has no column {LABEL!r}{' and several like it' if found else ''}; its columns are "
        f"{in_words(present)}; name the one to predict with --data.label_column NAME"
    )


def find_texts(path: Path, present: Sequence[str]) -> tuple[str, ...]:
    """Return the text column, or the two of a pair, among columns that hold no label.

    Raises:
        UserError: which are meant is not plain.
    """
    by_name = {plain(name): name for name in present}
    found: list[tuple[str, ...]] = [pair for pair in PAIRS if set(pair) <= set(by_name)]
    in_pairs = {name for pair in found for name in pair}
    found += [(name,) for name in TEXTS if name in by_name and name not in in_pairs]
    if len(found) == 1:
        return tuple(by_name[name] for name in found[0])
    words = [] if found else [name for name in present if _holds_words(path, name)]
    if len(words) == 1:
        return (words[0],)
    raise UserError(
        f"data.text_columns: which columns of {path} are the texts is not plain; besides the label it has "
        f"{in_words(present) or 'none'}; name one with --data.text_columns NAME, or a pair with '[FIRST, SECOND]'"
    )


def _holds_words(path: Path, column: str) -> bool:
    """Tell whether most of the first rows of a column are text with letters."""
    try:
        values = next(iter(read_file(path, (column,))))[column]
    except UserError:  # of mixed types, or twice in the file: no text of anybody's
        return False
    if not is_text(values.type.value_type if pa.types.is_dictionary(values.type) else values.type):
        return False
    shown = [value for value in values[:ROWS_LOOKED_AT].to_pylist() if value is not None]
    return 2 * sum(WORD.search(value) is not None for value in shown) > len(shown)
