"""The columns of a multi-label task: one that lists the labels of a row, or a 0/1 column for each label."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pyarrow as pa

from distill.data.columns import LABEL, LABELS, DataSource, find_columns, find_texts
from distill.data.label_sets import find_labels, is_indicator
from distill.data.locate import SplitFiles
from distill.data.readers import column_names
from distill.data.source_errors import in_words, match_columns, plain
from distill.tasks import Task, custom_task
from distill.utils.errors import UserError

SEVERAL = (*LABELS, "tags", "topics", "categories", "classes", "genres", "emotions")
"""Names of a column that lists labels."""
Read = Callable[[Sequence[str]], Iterable[pa.Table]]


def multi_label_task(data: DataSource, train: SplitFiles, read: Read) -> Task:
    """Build the multi-label task of somebody's own data, its columns and labels found in the file of train.

    Labels stand in ``data.label_column``, a list of 0/1 columns or one that lists them; where that is not given, in
    the 0/1 columns called as ``data.label_names``, in a column of a usual name, or in all 0/1 columns beside the
    texts.

    Args:
        read: yields the tables of given columns of train.

    Raises:
        UserError: the columns cannot be read, or which are meant is not plain.
    """
    path = train.paths[0]
    present, wanted = column_names(path), data.label_column
    indicators = _indicators(data, path, present, read)
    if indicators is None:
        column = wanted if isinstance(wanted, str) and wanted != LABEL else _usual_column(path, present, data)
        texts, column = find_columns(path, data.text_columns, column)
        names, separator = find_labels(read((column,)), column, train.where, data.label_names)
        return custom_task(
            *(texts, column, names, False, data.main_metric), multi_label=True, label_separator=separator
        )
    texts = tuple(data.text_columns or find_texts(path, [name for name in present if name not in indicators]))
    shared = [name for name in indicators if name in texts]
    if shared:
        raise UserError(f"data.label_column: {shared[0]!r} is also a text column")
    names = [name.strip() for name in indicators]
    return custom_task(
        *(texts, indicators[0], names, False, data.main_metric), multi_label=True, indicator_columns=indicators
    )


def _indicators(data: DataSource, path: Path, present: Sequence[str], read: Read) -> list[str] | None:
    """Return the 0/1 columns in label order; None where one column lists the labels."""
    if not isinstance(data.label_column, str):
        columns = match_columns(data.label_column, present, path)
        if data.label_names is None:
            return columns
        if sorted(map(plain, data.label_names)) != sorted(map(plain, columns)):
            raise UserError(
                f"data.label_names: a 0/1 column is called as its label, and data.label_column names "
                f"{in_words(columns)}; leave out one of the two"
            )
        return match_columns(data.label_names, present, path)
    if data.label_column != LABEL:
        return None
    folded = {plain(name) for name in present}
    if data.label_names is not None and all(plain(name) in folded for name in data.label_names):
        return match_columns(data.label_names, present, path)
    candidates = [name for name in present if name not in (data.text_columns or ())]
    found = _zero_one_columns(candidates, read)
    if _lists(data, present, found) or len(found) < 2:
        return None
    return found


def _zero_one_columns(candidates: Sequence[str], read: Read) -> list[str]:
    """Return the columns that hold 0 and 1 alone, in every row of train."""
    left = list(dict.fromkeys(candidates))
    try:
        for table in read(left):
            left = [name for name in left if is_indicator(table[name])]
            if not left:
                break
    except UserError:  # a column that nobody asked for cannot be read: look at each by itself
        return [name for name in left if len(candidates) > 1 and _zero_one_columns([name], read)]
    return left


def _lists(data: DataSource, present: Sequence[str], zero_one: Sequence[str]) -> list[str]:
    """Return the columns with a usual name that may list the labels of a row."""
    texts = data.text_columns or ()
    return [name for name in present if plain(name) in SEVERAL and name not in texts and name not in zero_one]


def _usual_column(path: Path, present: Sequence[str], data: DataSource) -> str:
    found = _lists(data, present, ())
    plainest = [name for name in found if plain(name) in (LABEL, "labels")]
    if len(plainest or found) == 1:
        return (plainest or found)[0]
    raise UserError(
        f"data.label_column: which columns of {path} hold the labels is not plain; its columns are "
        f"{in_words(present)}; name the one that lists them with --data.label_column NAME, or 0/1 columns with "
        "'[FIRST, SECOND, ...]'"
    )
