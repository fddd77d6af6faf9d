"""What teacher and student answered, example by example: counted per class, or held against the true scores.

Shapes: n examples of the split that carries the main metric, C classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.evaluation.predictions_file import answers_of, labels_of
from distill.reporting.formatting import MISSING, percent
from distill.reporting.tables import Table
from distill.tasks import Task

MAX_CLASSES = 12
"""Classes with a row and a field of the confusion matrix; of more, the table shows those that lose most."""
MAX_NAME = 40
"""Characters of a class name that are shown."""
ROLES = ("teacher", "student")


@dataclass(frozen=True)
class Answers:
    """The predictions of a run, as `distill.evaluation.predictions_file.predictions_frame` returns them."""

    task: Task
    predicted: pd.DataFrame

    @property
    def split(self) -> str:
        """The split that carries the main metric."""
        return self.task.validation_splits[0]

    def labels(self) -> np.ndarray:
        """Return the true classes or scores, (n,), or 0 and 1 for every label, (n, C)."""
        return labels_of(self._rows())

    def given(self, role: str) -> np.ndarray:
        """Return what ``teacher`` or ``student`` answered, (n,): classes or scores, or (n, C) of 0 and 1."""
        return answers_of(self.task, self._rows(), role)

    def _rows(self) -> pd.DataFrame:
        return self.predicted[self.predicted["split"] == self.split]


def confusion_counts(answers: Answers, role: str) -> np.ndarray:
    """Return how many examples of each class (row) got which answer (column), int64 (C, C)."""
    size = answers.task.num_labels
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (answers.labels().astype(np.int64), answers.given(role)), 1)
    return counts


@dataclass(frozen=True)
class LabelCounts:
    """How many examples have, were given and rightly were given each class or label, int64 (C,)."""

    present: np.ndarray
    answered: np.ndarray
    right: np.ndarray

    @property
    def recall(self) -> np.ndarray:
        """Share of each that was answered right, (C,); NaN for one without examples."""
        return _divide(self.right, self.present)

    @property
    def f1(self) -> np.ndarray:
        """F1 of each, (C,); NaN for one that is neither present nor answered."""
        return _divide(2 * self.right, self.present + self.answered)


def label_counts(answers: Answers, role: str) -> LabelCounts:
    """Count the answers of a model, class by class or label by label."""
    if answers.task.multi_label:
        labels, given = answers.labels(), answers.given(role)
        return LabelCounts(labels.sum(0), given.sum(0), (labels * given).sum(0))
    confusion = confusion_counts(answers, role)
    return LabelCounts(confusion.sum(1), confusion.sum(0), confusion.diagonal())


def answer_cells(answers: Answers | None) -> Table:
    """One row per class with the recall and F1 of teacher and student; without rows for scores, which are drawn."""
    if answers is None:
        return Table("Answers", (), ())
    where = f" ({answers.split})" if len(answers.task.validation_splits) > 1 else ""
    if answers.task.is_regression:
        return Table(f"Scores against labels{where}", (), ())
    kind, kinds = ("label", "labels") if answers.task.multi_label else ("class", "classes")
    counts = {role: label_counts(answers, role) for role in ROLES}
    recall, f1 = {role: counts[role].recall for role in ROLES}, {role: counts[role].f1 for role in ROLES}
    examples = counts["teacher"].present
    shown, notes = np.arange(len(examples)), []
    if len(shown) > MAX_CLASSES:
        lost = np.nan_to_num(f1["teacher"] - f1["student"])
        shown = np.argsort(-lost, kind="stable")[:MAX_CLASSES]
        notes.append(f"of {len(examples)} {kinds}, the {MAX_CLASSES} whose F1 falls most from teacher to student")
    rows = [
        (
            shown_name(answers.task.label_names[index]),
            f"{examples[index]:,}",
            *(_share(values[role][index]) for values in (recall, f1) for role in ROLES),
        )
        for index in shown
    ]
    headers = (kind, "examples", *(f"{name}, {role}" for name in ("recall", "F1") for role in ROLES))
    return Table(f"Answers per {kind}{where}", headers, tuple(rows), tuple(notes))


def shown_name(name: str, longest: int = MAX_NAME) -> str:
    """Return a class name in one short line without control characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _share(value: float) -> str:
    return MISSING if np.isnan(value) else percent(value)
