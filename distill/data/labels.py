"""Labels as a source writes them, turned into class indices or scores, with every way they can be wrong named.

A label is a number or a text without outer spaces. What is equal as a number is one label: ``1``, ``1.0``, ``"01"``.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pyarrow as pa

from distill.data.readers import is_text
from distill.tasks import Task
from distill.utils.errors import UserError, choices_hint

HIDDEN = -1
"""Stands where a label is not known; also how the Hub marks the labels of GLUE's test splits."""
NO_LABEL = ("-1", "-")
"""How sets mark rows whose label is hidden, or on which the annotators did not agree."""
MAX_CLASS = 2**53
MANY_CLASSES = 10
"""Classes from which on it is asked whether they are numbers of rows."""
MAX_LISTED = 20
"""Classes that a message lists."""

Key = Decimal | str
"""What two spellings of one label have in common."""


def find_label_names(tables: Iterable[pa.Table], label_column: str, where: str) -> list[str]:
    """Return the distinct labels of a source, sorted: as numbers where all are numbers, else as text.

    Raises:
        UserError: they are no labels, look like scores, or are fewer than two.
    """
    spellings: dict[Key, set[str]] = defaultdict(set)
    num_rows = 0
    for table in tables:
        _, values = distinct_values(table[label_column], label_column, where, 0)
        num_rows += table.num_rows
        for value in values:
            if not is_missing(value) and value == value:  # the row is named when the examples are read
                spellings[label_key(value)].add(str(int(value) if isinstance(value, bool) else value).strip())
    numbers = sorted(key for key in spellings if isinstance(key, Decimal))
    fractions = [key for key in numbers if not _is_whole(key)]
    if fractions and 2 * len(numbers) > len(spellings):
        raise UserError(
            f"{where}: column {label_column!r} holds {min(spellings[fractions[0]])}, not a class; for numbers to "
            "predict set data.regression to true: did you mean --data.regression true? (for classes of such names "
            "give data.label_names)"
        )
    if len(spellings) == num_rows >= MANY_CLASSES:
        raise UserError(
            f"{where}: column {label_column!r} holds another label in every row: a row id, or a score "
            "(--data.regression true)? name another column with --data.label_column NAME"
        )
    if len(spellings) < 2:
        raise UserError(f"{where}: column {label_column!r} holds fewer than two different labels")
    return sorted_names(spellings)


def sorted_names(spellings: Mapping[Key, Collection[str]]) -> list[str]:
    """Return what labels are called, sorted: as numbers where all are numbers, else as text.

    Args:
        spellings: of every label, as the source writes it.
    """
    numbers = sorted(key for key in spellings if isinstance(key, Decimal))
    if len(numbers) == len(spellings):
        return [_name(key, spellings[key]) for key in numbers]
    return sorted(_name(key, found) for key, found in spellings.items())


def _name(key: Key, spellings: Collection[str]) -> str:
    """Return what a label is called: as it is written, but ``1.0`` and what is written in several ways is ``1``."""
    only = min(spellings)
    plain = len(spellings) == 1 and (isinstance(key, str) or only.lstrip("+-").isdecimal())
    return only if plain or isinstance(key, str) or not _is_whole(key) or abs(key) > MAX_CLASS else str(int(key))


def label_key(value: Any) -> Key:
    """Return a label as an exact number if it is a finite one, else as text without outer spaces."""
    if not isinstance(value, str):
        return Decimal(value) if math.isfinite(value) else str(value)
    text = value.strip()
    try:
        number = Decimal(text)
    except InvalidOperation:
        return text
    return number if number.is_finite() and "_" not in text else text  # 1_000 is a number to Python alone


def _is_whole(number: Decimal) -> bool:
    return number == number.to_integral_value()


def is_missing(value: Any) -> bool:
    """Tell whether a cell holds nothing, or a text of nothing but white space."""
    return value is None or (isinstance(value, str) and not value.strip())


def hidden_like(labels: np.ndarray, count: int) -> np.ndarray:
    """Return labels that say nothing, for ``count`` examples beside some with ``labels``, whose kind they have.

    They are `HIDDEN` for classes, NaN for scores and for labels that are decided one by one, (n, C).
    """
    return np.full((count, *labels.shape[1:]), np.nan if labels.dtype.kind == "f" else HIDDEN, labels.dtype)


def class_weights(wanted: str | Sequence[float] | None, task: Task, labels: np.ndarray) -> np.ndarray | None:
    """Return how much an example of each class counts, float32 (C,); None where all count alike.

    Args:
        wanted: the key ``training.class_weights``. ``balanced``: n / (C n_c), so that all classes count alike and an
            example counts 1 on average.
        labels: (n,) of train.

    Raises:
        UserError: a list has another length than there are classes.
    """
    if wanted is None:
        return None
    if not isinstance(wanted, str):
        if len(wanted) != task.num_labels:
            raise UserError(
                f"training.class_weights has {len(wanted)} numbers and task {task.name} {task.num_labels} classes: "
                f"give one for each of {', '.join(_listed(task))}"
            )
        return np.array(wanted, np.float32)
    counts = np.bincount(labels, minlength=task.num_labels)
    return (len(labels) / (task.num_labels * np.maximum(counts, 1))).astype(np.float32)


def encode_labels(
    task: Task, chunks: Sequence[pa.ChunkedArray], where: str, *, drop_incomplete: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return int64 (n,) class indices or float32 (n,) scores, and which rows have none, bool (n,).

    A class may be written as its name or, where no name is a number, as its index.

    Args:
        drop_incomplete: a row without a label, or with one of `NO_LABEL` that is no class, has none: its index is
            `HIDDEN`, its score NaN. Otherwise every row has a label.

    Raises:
        UserError: a label is missing, unknown, not whole or outside its range, or all are GLUE's hidden -1.
    """
    names = {label_key(name): index for index, name in enumerate(task.label_names)}
    if len(names) < len(task.label_names):
        raise UserError(f"data.label_names: of {', '.join(task.label_names)} two are the same number; keep one")
    hides = bool(task.label_names or task.label_range) and Decimal(HIDDEN) not in names
    parts, first_row = [], 0
    for chunk in chunks:
        parts.append((*distinct_values(chunk, task.label_column, where, first_row), first_row))
        first_row += len(chunk)
    distinct = (value for _, values, _ in parts for value in values)
    if hides and all(not is_missing(value) and label_key(value) == HIDDEN for value in distinct):
        raise UserError(f"{where}: every label is -1, the mark of a hidden test label; give a labelled file")
    marks = {label_key(mark) for mark in NO_LABEL if hides or mark != str(HIDDEN)} - set(names)
    labels, incomplete = [], []
    for indices, values, first_row in parts:
        encoded, unlabelled = np.full(len(values), np.nan), np.zeros(len(values), bool)
        for position, value in enumerate(values):  # in the order in which they first occur
            if drop_incomplete and (is_missing(value) or value != value or label_key(value) in marks):
                unlabelled[position] = True
                continue
            try:
                encoded[position] = _score(task, value) if task.is_regression else class_index(task, names, value)
            except ValueError as error:
                row = first_row + int(np.argmax(indices == position)) + 1
                raise UserError(f"{where}, row {row}: {error}") from error
        encoded[unlabelled] = np.nan if task.is_regression else HIDDEN
        labels.append(encoded[indices].astype(np.float32 if task.is_regression else np.int64))
        incomplete.append(unlabelled[indices])
    return np.concatenate(labels), np.concatenate(incomplete)


def class_index(task: Task, names: Mapping[Key, int], value: Any) -> int:
    """Return the index of a label's class; ValueError says what is wrong with it."""
    key = label_key(value) if value is not None else ""
    if isinstance(value, bool) and str(value) in names:
        return names[str(value)]
    if key in names:
        return names[key]
    if isinstance(key, str):
        raise ValueError(_not_a_label(task, value, choices_hint(key, _listed(task))))
    number = f"label {float(key):g}"
    if any(isinstance(name, Decimal) for name in names):
        raise ValueError(f"{number} is not among {', '.join(_listed(task))}")
    if not _is_whole(key):
        raise ValueError(f"{number} is not a whole number; classes are")
    if abs(key) > MAX_CLASS:
        raise ValueError(f"{number} is too large for a class")
    if not 0 <= key < task.num_labels:
        known = ", ".join(f"{index} = {name}" for index, name in enumerate(task.label_names))
        raise ValueError(f"{number} is outside 0 to {task.num_labels - 1} ({known})")
    return int(key)


def _listed(task: Task) -> list[str]:
    more = len(task.label_names) - MAX_LISTED
    return [*task.label_names[:MAX_LISTED], *([f"... ({more:,} more)"] if more > 0 else [])]


def _score(task: Task, value: Any) -> float:
    """Return a score as a number; ValueError says what is wrong with it."""
    try:
        score = float("" if value is None or "_" in str(value) else value)
    except ValueError as error:
        raise ValueError(_not_a_label(task, value, "not a number")) from error
    if not math.isfinite(score):
        raise ValueError(f"label {score:g} is not a number")
    if task.label_range is not None and not task.label_range[0] <= score <= task.label_range[1]:
        low, high = task.label_range
        raise ValueError(f"label {score:g} is outside {low:g} to {high:g}")
    return score


def _not_a_label(task: Task, value: Any, hint: str) -> str:
    if is_missing(value):
        return (
            f"column {task.label_column!r} is missing; every row needs its label, or give --data.drop_incomplete true "
            "to leave such rows out"
        )
    if not isinstance(value, str):
        return f"label {value} is not a number"
    return f"column {task.label_column!r} holds {value!r}{', ' if hint == 'not a number' else '; '}{hint}"


def distinct_values(column: pa.ChunkedArray, name: str, where: str, first_row: int) -> tuple[np.ndarray, list[Any]]:
    """Return the position (n,) of every row's label among the distinct ones, and these in the order they occur.

    Raises:
        UserError: the column holds lists, objects, dates or something else that is no label.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    numbers = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if not (numbers or is_text(kind) or pa.types.is_null(kind)):
        way_out = "; every row must have one label (with several: --data.multi_label true)"
        nested = way_out if pa.types.is_nested(kind) else ""
        raise UserError(f"{where}, row {first_row + 1}: column {name!r} holds {kind} values, not labels{nested}")
    encoded = column.cast(kind).combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
