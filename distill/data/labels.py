"""Labels as a source writes them, turned into class indices or scores, with every way they can be wrong named."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill.data.readers import is_text, is_whole_number
from distill.tasks import Task
from distill.utils.errors import UserError, choices_hint


def encode_labels(task: Task, chunks: Sequence[pa.ChunkedArray], where: str) -> np.ndarray:
    """Return int64 (n,) class indices, or float32 (n,) scores for regression.

    A class may be written as its index or as its name; where all names are whole numbers (stars 1 to 5), a number
    is a name.

    Raises:
        UserError: a label is missing, unknown, not whole or outside its range, or all are GLUE's hidden -1.
    """
    numbers, first_row = [], 0
    for chunk in chunks:
        numbers.append(_numbers(task, chunk, where, first_row))
        first_row += len(chunk)
    labels = np.concatenate(numbers)
    _refuse_where(~np.isfinite(labels), labels, where, "is not a number")
    if np.all(labels == -1) and "-1" not in task.label_names and (task.label_names or task.label_range):
        raise UserError(f"{where}: every label is -1, the mark of a hidden test label; give a labelled file")
    if task.is_regression:
        if task.label_range is not None:
            low, high = task.label_range
            _refuse_where((labels < low) | (labels > high), labels, where, f"is outside {low:g} to {high:g}")
        return labels.astype(np.float32)
    _refuse_where(labels != np.floor(labels), labels, where, "is not a whole number; classes are")
    _refuse_where(np.abs(labels) > 2**53, labels, where, "is too large for a class")
    return _class_indices(task, labels.astype(np.int64), where)


def _class_indices(task: Task, labels: np.ndarray, where: str) -> np.ndarray:
    if all(is_whole_number(name) for name in task.label_names):
        names = np.array([int(name) for name in task.label_names])
        _refuse_where(~np.isin(labels, names), labels, where, f"is not among {', '.join(task.label_names)}")
        order = np.argsort(names)
        return order[np.searchsorted(names, labels, sorter=order)]
    highest = task.num_labels - 1
    known = ", ".join(f"{index} = {name}" for index, name in enumerate(task.label_names))
    _refuse_where((labels < 0) | (labels > highest), labels, where, f"is outside 0 to {highest} ({known})")
    return labels


def _refuse_where(wrong: np.ndarray, labels: np.ndarray, where: str, reason: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(f"{where}, row {row + 1}: label {labels[row]:g} {reason}")


def _numbers(task: Task, chunk: pa.ChunkedArray, where: str, first_row: int) -> np.ndarray:
    """Return a chunk of labels as float64, which holds every whole number below 2^53 exactly."""
    if chunk.null_count:
        row = first_row + pc.index(chunk.is_null(), True).as_py() + 1
        raise UserError(f"{where}, row {row}: column {task.label_column!r} is missing; every row needs its label")
    kind = chunk.type.value_type if pa.types.is_dictionary(chunk.type) else chunk.type
    if pa.types.is_boolean(kind):
        return np.array(chunk.to_pylist(), dtype=np.float64)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return chunk.to_numpy().astype(np.float64)
    if is_text(kind):
        return _numbers_from_text(task, chunk.to_pylist(), where, first_row)
    raise UserError(f"{where}, row {first_row + 1}: column {task.label_column!r} holds {kind} values, not labels")


def _numbers_from_text(task: Task, values: list[str], where: str, first_row: int) -> np.ndarray:
    # The whole-number names are looked up later, together with labels that came as numbers.
    number_of = {} if all(map(is_whole_number, task.label_names)) else {n: i for i, n in enumerate(task.label_names)}
    numbers = np.empty(len(values))
    for position, value in enumerate(values):
        try:
            numbers[position] = number_of[value] if value in number_of else _number(value)
        except ValueError as error:
            row = first_row + position + 1
            if not value.strip():
                reason = "is missing; every row needs its label"
            elif task.is_regression:
                reason = f"holds {value!r}, not a number"
            else:
                reason = f"holds {value!r}; {choices_hint(value, task.label_names)}"
            raise UserError(f"{where}, row {row}: column {task.label_column!r} {reason}") from error
    return numbers


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError(text)  # 1_000 is a number to Python alone
    return float(text)
