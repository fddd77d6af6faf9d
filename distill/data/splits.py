"""Examples of a task from the Hub, a folder or the embedded grammar, checked and split.

Three kinds of examples: `train`, `held_out` — a part of train, on which epochs and settings are selected — and the
validation splits, which are only ever reported; where somebody's own data has none, it is split off before anything
else is. Duplicates inside the official sets are kept as they are.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill.config.schema import DataConfig
from distill.data.columns import DataSource, find_columns
from distill.data.labels import encode_labels
from distill.data.locate import split_files
from distill.data.readers import find_label_names, is_text, read_embedded, read_file, read_hub
from distill.tasks import CUSTOM, Task, custom_task, get_task
from distill.utils.errors import UserError, first_line

EMBEDDED = "embedded"
MAX_TEXT_BYTES = 1_000_000
"""Far above any text that a model reads, and what half a file looks like whose quotation mark is left open."""
MIN_HELD_OUT = 200
"""A choice or a score from fewer examples is mostly noise, so a small set gives up to a fifth of train for this."""


HIDDEN = -1
"""Stands where a label is not known; also how the Hub marks the labels of GLUE's test splits."""


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split, in memory."""

    ids: np.ndarray
    """int64 (n,): position in the source, counted from 0."""
    texts: list[tuple[str, ...]]
    labels: np.ndarray
    """int64 (n,) class indices, or float32 (n,) scores for regression."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects on and reports on."""

    train: Examples
    held_out: Examples
    validation: dict[str, Examples]
    other: Examples | None = None
    """Unlabelled texts of other tasks, which the stages read as well."""


def data_checksums(splits: Splits) -> dict[str, str]:
    """Return a checksum of the texts, labels and positions of every part, by its name."""
    parts = {"train": splits.train, "held-out train": splits.held_out, **splits.validation}
    if splits.other is not None:
        parts["other tasks"] = splits.other
    return {f"data of {name}": _checksum(examples) for name, examples in parts.items()}


def _checksum(examples: Examples) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(examples.ids).tobytes())
    digest.update(np.ascontiguousarray(examples.labels).tobytes())
    for texts in examples.texts:
        digest.update("\0".join((*texts, "")).encode())  # no text holds a NUL character
    return digest.hexdigest()


@dataclass(frozen=True)
class _Source:
    """One split as read: texts still in Arrow, so that Python strings are made only for the rows that are used."""

    texts: tuple[pa.ChunkedArray, ...]
    labels: np.ndarray

    def select(self, indices: np.ndarray) -> Examples:
        columns = [column.take(pa.array(indices)).to_pylist() for column in self.texts]
        return Examples(indices, list(zip(*columns, strict=True)), self.labels[indices])


def resolve_task(name: str, data: DataSource) -> Task:
    """Return the task called ``name``; ``custom`` is built from ``data``, its columns and labels found in its file.

    Raises:
        UserError: no such task, or a custom task whose file, columns or labels cannot be used.
    """
    if name != CUSTOM:
        return get_task(name)
    if data.dir is None:
        raise UserError("data.dir: task custom needs its file, or the folder of its files")
    train_file = split_files(data.dir, CUSTOM, ("train",))["train"]
    text_columns, label_column = find_columns(train_file, data.text_columns, data.label_column)
    label_names = data.label_names
    if label_names is None and not data.regression:
        label_names = find_label_names(train_file, label_column)
    task = custom_task(text_columns, label_column, label_names, data.regression, data.main_metric)
    return replace(task, order_is_given=data.label_names is not None)


def load_data(task: Task, data: DataConfig) -> Splits:
    """Read, check and split the data of ``task`` as a configuration says; see :func:`load_splits`."""
    return load_splits(
        task,
        source=data.dir,
        seed=data.seed,
        max_train_examples=data.max_train_examples,
        held_out_fraction=data.held_out_fraction,
        validation_fraction=data.validation_fraction,
    )


def load_splits(
    task: Task,
    *,
    source: str | None,
    seed: int,
    max_train_examples: int | None,
    held_out_fraction: float,
    validation_fraction: float = DataConfig.validation_fraction,
) -> Splits:
    """Read, check and split the data of ``task``; the same arguments give the same examples.

    Args:
        source: None for the Hub, ``embedded`` for the grammar, else a folder with
            ``<task>/{train,validation}.<csv|tsv|jsonl|parquet>``, or a file for task custom.
        seed: of the train subset, the held-out part, the validation that is split off and the embedded grammar.
        max_train_examples: rows of train that are used at all, the held-out part included; a smaller subset is
            part of a larger one with the same seed.
        held_out_fraction: share of the used train rows that is held out; at least `MIN_HELD_OUT` rows, but never
            more than a fifth of train unless the share itself is larger.
        validation_fraction: of task custom without a validation file, the share of all rows that is split off for it
            by the same rule; which rows depends on nothing else but ``seed``.

    Raises:
        UserError: the source or a row of it cannot be used; the message names it.
    """
    if not 0 < held_out_fraction < 0.5:
        raise UserError(f"data.held_out_fraction: {held_out_fraction} is not between 0 and 0.5")
    names = ("train", *task.validation_splits)
    columns = (*task.text_columns, task.label_column)
    opened = _open_source(task, source, seed, names, columns)
    sources = {name: _checked(task, tables, where) for name, tables, where in opened}
    train, rows = sources["train"], {name: np.arange(len(split.labels)) for name, split in sources.items()}
    for name in task.validation_splits:
        if name not in sources:  # only of task custom
            sources[name], order = train, np.random.default_rng((seed, 1)).permutation(rows["train"])
            rows["train"], rows[name] = _split_off(train.labels, order, validation_fraction)
    labels = {name: sources[name].labels[chosen] for name, chosen in rows.items()}
    _check_labels(task, labels)
    used, held_out = _split_train(train.labels, rows.pop("train"), seed, max_train_examples, held_out_fraction)
    _check_classes(task, train.labels[np.concatenate([used, held_out])], labels)
    validation = {name: sources[name].select(chosen) for name, chosen in rows.items()}
    return Splits(train.select(used), train.select(held_out), validation)


def _check_labels(task: Task, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse a train of one label, which teaches nothing, and a validation of one class, which tells nothing."""
    for name, given in labels.items():
        matters = len(given) > 1 if name == "train" else not task.is_regression
        if matters and np.all(given == given[0]):
            label = f"{given[0]:g}" if task.is_regression else task.label_names[given[0]]
            raise UserError(
                f"{name}: every label is {label} (rows: {len(given):,}); give examples of at least two labels"
            )


def _check_classes(task: Task, train: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse a validation with a class that nothing to train on has."""
    for name in [] if task.is_regression else task.validation_splits:
        missing = np.setdiff1d(labels[name], train)
        if len(missing):
            names = ", ".join(repr(task.label_names[label]) for label in missing)
            way_out = "give train some of it"
            if len(np.setdiff1d(missing, labels["train"])) == 0:
                way_out = "raise data.max_train_examples"
            raise UserError(f"{name} holds examples of class {names}, train none; {way_out}")


def load_unlabelled(task: Task, source: str | None, names: tuple[str, ...]) -> dict[str, Examples]:
    """Read the texts of splits whose labels nobody may look at: no label column is read, every label is `HIDDEN`.

    Args:
        source: None for the Hub, else a folder with ``<task>/<name>.<csv|tsv|jsonl|parquet>``.

    Raises:
        UserError: the source or a row of it cannot be used; the message names it.
    """
    opened = _open_source(task, source, 0, names, task.text_columns)
    splits = {name: _checked(task, tables, where, labelled=False) for name, tables, where in opened}
    return {name: split.select(np.arange(len(split.labels))) for name, split in splits.items()}


def _open_source(
    task: Task, source: str | None, seed: int, names: tuple[str, ...], columns: tuple[str, ...]
) -> list[tuple[str, Iterable[pa.Table], str]]:
    """Return (split, tables, name for messages) for each wanted split; files are looked for before any is read."""
    if source == EMBEDDED:
        tables = read_embedded(task.name, seed, columns)
        return [(name, [tables[name]], f"embedded {task.name} {name}") for name in names]
    if source is not None:
        files = split_files(source, task.name, names)
        return [(name, read_file(path, columns), str(path)) for name, path in files.items()]
    if task.name == CUSTOM or task.hub is None:
        raise UserError(f"data.dir: task {task.name!r} is not on the Hub; give the folder of its files")
    repository, configuration = task.hub
    return [(name, read_hub(repository, configuration, name, columns), f"{task.name} {name}") for name in names]


def _checked(task: Task, tables: Iterable[pa.Table], where: str, labelled: bool = True) -> _Source:
    """Check every row of a split and keep texts and encoded labels."""
    texts: list[list[pa.Array]] = [[] for _ in task.text_columns]
    labels: list[pa.ChunkedArray] = []
    num_rows = 0
    for table in tables:
        for chunks, name in zip(texts, task.text_columns, strict=True):
            chunks.extend(_text_column(table[name], name, where, num_rows).chunks)
        if labelled:
            labels.append(table[task.label_column])
        num_rows += table.num_rows
    if num_rows == 0:
        raise UserError(f"{where} holds no rows")
    columns = tuple(pa.chunked_array(chunks, type=pa.large_string()) for chunks in texts)
    if labelled:
        _refuse_blank(columns, where)
    return _Source(columns, encode_labels(task, labels, where) if labelled else np.full(num_rows, HIDDEN))


def _text_column(column: pa.ChunkedArray, name: str, where: str, first_row: int) -> pa.ChunkedArray:
    """Return a column as text; a null, a number or bytes that are not UTF-8 are refused with their row."""
    if column.null_count:
        row = first_row + pc.index(column.is_null(), True).as_py() + 1
        raise UserError(f"{where}, row {row}: column {name!r} is missing; every row needs its text")
    value_type = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not is_text(value_type):
        raise UserError(f"{where}, row {first_row + 1}: column {name!r} holds {value_type} values, not text")
    try:
        column = column.cast(pa.large_string())
        column.validate(full=True)
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


def _refuse_blank(columns: Sequence[pa.ChunkedArray], where: str) -> None:
    """Refuse a row in which no column has a character that is not white space; of a pair one text may have none."""
    blank = [pc.equal(pc.binary_length(pc.utf8_trim_whitespace(column)), 0) for column in columns]
    nothing = reduce(pc.and_, blank)
    row = pc.index(nothing, True).as_py()
    if row >= 0:
        raise UserError(f"{where}, row {row + 1}: there is no text; write one, or leave the row out")


def _split_train(
    labels: np.ndarray, rows: np.ndarray, seed: int, max_train_examples: int | None, held_out_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions to train on and those held out, of ``rows``, both ascending and without overlap."""
    used = np.random.default_rng(seed).permutation(rows)[:max_train_examples]
    if len(used) < 2:
        raise UserError(f"train has {len(used)} usable row; at least 2 are needed, one of them to select on")
    return _split_off(labels, used, held_out_fraction)


def _split_off(labels: np.ndarray, rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split ``rows``, which are in random order, into the rest and ``fraction`` of them, both ascending.

    The fraction is a systematic sample of the rows in label order (ties as they stand): every class, and every range
    of a score, gives its own share. A class of one row stays in the rest, where there is anything else to sample.
    """
    count = len(rows)
    size = max(round(fraction * count), min(MIN_HELD_OUT, count // 5), 1)
    in_label_order = rows[np.argsort(labels[rows], kind="stable")]
    sampled = in_label_order[((np.arange(size) + 0.5) * count / size).astype(np.int64)]
    if labels.dtype.kind == "i":
        classes, counts = np.unique(labels[rows], return_counts=True)
        common = sampled[~np.isin(labels[sampled], classes[counts == 1])]
        sampled = common if len(common) else sampled
    return np.sort(np.setdiff1d(rows, sampled)), np.sort(sampled)
