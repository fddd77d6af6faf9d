"""Examples of a task from the Hub, a folder or the embedded grammar, checked and split.

Three kinds of examples: `train`, `held_out` — a part of train, on which epochs and settings are selected — and the
validation splits, which are only ever reported; where somebody's own data has none, it is split off before anything
else is. Duplicates inside the official sets are kept as they are.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pyarrow as pa

from distill.config.data_schema import DataConfig
from distill.data.columns import DataSource, find_columns
from distill.data.label_columns import multi_label_task
from distill.data.label_stratification import check_label_sets, count_labels, label_strata, notes_on_label_sets
from distill.data.labels import HIDDEN as HIDDEN
from distill.data.labels import MANY_CLASSES, find_label_names
from distill.data.locate import split_files
from distill.data.rows import Rows, check_rows
from distill.data.source_errors import in_words
from distill.data.sources import EMBEDDED as EMBEDDED
from distill.data.sources import Opened, open_source, read_files
from distill.data.text_parts import TextPart, TextParts
from distill.tasks import CUSTOM, Task, custom_task, get_task
from distill.utils.errors import UserError

MIN_HELD_OUT = 200
"""A choice or a score from fewer examples is mostly noise, so a small set gives up to a fifth of train for this."""
HELD_OUT = "held-out train"
CLASSES_PER_ROW = 0.1
"""Classes per row of train above which labels look like numbers of rows."""


@dataclass(frozen=True)
class Examples:
    """Texts and labels of one split, in memory."""

    ids: np.ndarray
    """int64 (n,): position in the source, counted from 0."""
    texts: list[tuple[str, ...]]
    labels: np.ndarray
    """int64 (n,) class indices, float32 (n,) scores of a regression, or float32 (n, C) of 0 and 1 for each label of a
    multi-label task."""

    def __len__(self) -> int:
        return len(self.ids)


def take(examples: Examples, indices: np.ndarray) -> Examples:
    """Return the examples at ``indices``, in that order."""
    return Examples(examples.ids[indices], [examples.texts[index] for index in indices], examples.labels[indices])


@dataclass(frozen=True)
class Splits:
    """What a run trains on, selects on and reports on."""

    train: Examples
    held_out: Examples
    validation: dict[str, Examples]
    other: Examples | None = None
    """Unlabelled texts of other tasks, which the stages read as well."""
    notes: tuple[str, ...] = ()
    """What is to be said of the way in which they were read."""
    num_half_blank: Mapping[str, int] = field(default_factory=dict)
    """Source of a split to its pairs of which one text is missing."""
    class_counts: np.ndarray | None = None
    """(C,) rows of each class or label in all of train, those included that are not used; not of a regression."""
    text: TextParts | None = None
    """Of task text, which has no examples."""


def data_checksums(splits: Splits) -> dict[str, str]:
    """Return a checksum of the texts, labels and positions of every part, by its name."""
    if splits.text is not None:
        texts = {
            "train": splits.text.train,
            "held-out train": splits.text.held_out,
            "validation": splits.text.validation,
        }
        return {f"data of {name}": _checksum_of_text(part) for name, part in texts.items()}
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


def _checksum_of_text(part: TextPart) -> str:
    """Return what :func:`_checksum` says of one example that is this text."""
    digest = hashlib.sha256(np.zeros(2, np.int64).tobytes())
    for block in part:
        digest.update(block.encode())
    digest.update(b"\0")
    return digest.hexdigest()


def resolve_task(name: str, data: DataSource) -> Task:
    """Return the task called ``name``; ``custom`` is built from ``data``, its columns and labels found in its file.

    Raises:
        UserError: no such task, or a custom task whose file, columns or labels cannot be used.
    """
    if name != CUSTOM:
        return get_task(name)
    if data.dir is None:
        raise UserError("data.dir: task custom needs its file, or the folder of its files")
    train = split_files(data.dir, CUSTOM, ("train",))["train"]
    if data.multi_label:
        task = multi_label_task(data, train, lambda columns: read_files(train, columns))
        return replace(task, order_is_given=data.label_names is not None)
    if not isinstance(data.label_column, str):
        raise UserError("data.label_column names several columns; that is for --data.multi_label true alone")
    text_columns, label_column = find_columns(train.paths[0], data.text_columns, data.label_column)
    label_names = data.label_names
    if label_names is None and not data.regression:
        label_names = find_label_names(read_files(train, (label_column,)), label_column, train.where)
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
        drop_incomplete=data.drop_incomplete,
    )


def load_splits(
    task: Task,
    *,
    source: str | None,
    seed: int,
    max_train_examples: int | None,
    held_out_fraction: float,
    validation_fraction: float = DataConfig.validation_fraction,
    drop_incomplete: bool = False,
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
        drop_incomplete: leave rows out in which a text or the label is missing, instead of refusing them.

    Raises:
        UserError: the source or a row of it cannot be used; the message names it.
    """
    if not 0 < held_out_fraction < 0.5:
        raise UserError(f"data.held_out_fraction: {held_out_fraction} is not between 0 and 0.5")
    names = ("train", *task.validation_splits)
    opened = open_source(task, source, seed, names)
    sources = {
        name: check_rows(task, each.tables, each.where, drop_incomplete=drop_incomplete)
        for name, each in opened.items()
    }
    notes = (*_notes(opened, sources), *notes_on_label_sets(task, sources))
    num_half_blank = {name: read.num_half_blank for name, read in sources.items()}
    train, rows = sources["train"], {name: read.complete for name, read in sources.items()}
    for name in task.validation_splits:
        if name not in sources:  # only of task custom
            _check_enough(task, rows["train"], opened["train"].where, validation_fraction)
            sources[name], order = train, np.random.default_rng((seed, 1)).permutation(rows["train"])
            rows["train"], rows[name] = _split_off(train.labels, order, validation_fraction)
    labels = {name: sources[name].labels[chosen] for name, chosen in rows.items()}
    _check_labels(task, labels)
    counts = None if task.is_regression else count_labels(task, labels["train"])
    used, held_out = _split_train(train.labels, rows.pop("train"), seed, max_train_examples, held_out_fraction)
    _check_classes(task, train.labels[np.concatenate([used, held_out])], labels)
    if task.multi_label:
        check_label_sets(task, {**labels, HELD_OUT: train.labels[held_out]})
    validation = {name: _select(sources[name], chosen) for name, chosen in rows.items()}
    return Splits(_select(train, used), _select(train, held_out), validation, None, notes, num_half_blank, counts)


def _select(rows: Rows, indices: np.ndarray) -> Examples:
    columns = [column.take(pa.array(indices)).to_pylist() for column in rows.texts]
    return Examples(indices, list(zip(*columns, strict=True)), rows.labels[indices])


def _notes(opened: Mapping[str, Opened], sources: Mapping[str, Rows]) -> tuple[str, ...]:
    notes = [note for each in opened.values() for note in each.notes]
    for name, read in sources.items():
        dropped = len(read.labels) - len(read.complete)
        if dropped:
            share = f"{100 * dropped / len(read.labels):.1f} %"
            notes.append(f"{name}: {dropped:,} of {len(read.labels):,} rows ({share}) have no text or label: left out")
    return tuple(notes)


def _check_enough(task: Task, rows: np.ndarray, where: str, fraction: float) -> None:
    """Refuse rows so few that the validation split off from them is a single one, which has a single label."""
    if task.is_regression or task.multi_label or _part_of(len(rows), fraction) > 1:
        return
    needed = next(number for number in count(len(rows)) if _part_of(number, fraction) > 1)
    raise UserError(
        f"{where} has {len(rows)} usable rows, and 1 of them for validation would have a single label; give at least "
        f"{needed} rows, or a folder with train and validation"
    )


def _check_labels(task: Task, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse a train of one label, which teaches nothing, and a validation of one class, which tells nothing."""
    for name, given in {} if task.multi_label else labels.items():
        matters = len(given) > 1 if name == "train" else not task.is_regression
        if matters and np.all(given == given[0]):
            label = f"{given[0]:g}" if task.is_regression else task.label_names[given[0]]
            raise UserError(
                f"{name}: every label is {label} (rows: {len(given):,}); give examples of at least two labels"
            )


def _check_classes(task: Task, train: np.ndarray, labels: Mapping[str, np.ndarray]) -> None:
    """Refuse a validation with a class that nothing to train on has."""
    for name in [] if task.is_regression else task.validation_splits:
        missing = np.flatnonzero((count_labels(task, labels[name]) > 0) & (count_labels(task, train) == 0))
        if len(missing):
            names = in_words([repr(task.label_names[label]) for label in missing])
            way_out = "give train some of it"
            if count_labels(task, labels["train"])[missing].all():
                way_out = "raise data.max_train_examples"
            doubt = row_id_doubt(task, len(labels["train"]))
            kind = "label" if task.multi_label else "class"
            raise UserError(f"{name} holds examples of {kind} {names}, train none; {doubt or way_out}")


def row_id_doubt(task: Task, num_rows: int) -> str | None:
    """Ask whether a label is one of which hardly any occurs twice, or return None.

    Args:
        num_rows: of train.
    """
    if task.multi_label or task.num_labels < MANY_CLASSES or task.num_labels <= CLASSES_PER_ROW * num_rows:
        return None
    return (
        f"column {task.label_column!r} holds {task.num_labels:,} classes in {num_rows:,} rows: a row id, or a score "
        "(--data.regression true)? name another column with --data.label_column NAME"
    )


def load_unlabelled(task: Task, source: str | None, names: tuple[str, ...]) -> dict[str, Examples]:
    """Read the texts of splits whose labels nobody may look at: no label column is read, every label is `HIDDEN`.

    Args:
        source: None for the Hub, else a folder with ``<task>/<name>.<csv|tsv|jsonl|parquet>``.

    Raises:
        UserError: the source or a row of it cannot be used; the message names it.
    """
    opened = open_source(task, source, 0, names, labelled=False)
    splits = {name: check_rows(task, each.tables, each.where, labelled=False) for name, each in opened.items()}
    return {name: _select(split, split.complete) for name, split in splits.items()}


def _split_train(
    labels: np.ndarray, rows: np.ndarray, seed: int, max_train_examples: int | None, held_out_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions to train on and those held out, of ``rows``, both ascending and without overlap."""
    used = np.random.default_rng(seed).permutation(rows)[:max_train_examples]
    if len(used) < 2:
        raise UserError(f"train has {len(used)} usable row; at least 2 are needed, one of them to select on")
    return _split_off(labels, used, held_out_fraction)


def _part_of(rows: int, fraction: float) -> int:
    """Return how many of so many rows are split off."""
    return max(round(fraction * rows), min(MIN_HELD_OUT, rows // 5), 1)


def _split_off(labels: np.ndarray, rows: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Split ``rows``, which are in random order, into the rest and ``fraction`` of them, both ascending.

    The fraction is a systematic sample of the rows in label order (ties as they stand): every class, and every range
    of a score, gives its own share. A class of one row stays in the rest, where there is anything else to sample. Rows
    with several labels are taken for ones of the rarest of them, and ordered by the others among these.
    """
    size = _part_of(len(rows), fraction)
    ranks, classes_of = (labels, labels) if labels.ndim == 1 else label_strata(labels, rows)
    in_label_order = rows[np.argsort(ranks[rows], kind="stable")]
    sampled = in_label_order[((np.arange(size) + 0.5) * len(rows) / size).astype(np.int64)]
    if classes_of.dtype.kind == "i":
        classes, counts = np.unique(classes_of[rows], return_counts=True)
        common = sampled[~np.isin(classes_of[sampled], classes[counts == 1])]
        sampled = common if len(common) else sampled
    return np.sort(np.setdiff1d(rows, sampled)), np.sort(sampled)
