"""What teacher and student answered, example by example: counted per class, or held against the true scores.

Shapes: n examples of the split that carries the main metric, C classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from distill.evaluation.metrics import predictions
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
        """Return the true classes or scores, (n,)."""
        return self._rows()["label"].to_numpy()

    def given(self, role: str) -> np.ndarray:
        """Return what ``teacher`` or ``student`` answered, (n,): classes or scores."""
        return predictions(self.task, np.stack(self._rows()[f"{role}_logits"].to_list()))

    def _rows(self) -> pd.DataFrame:
        return self.predicted[self.predicted["split"] == self.split]


def confusion_counts(answers: Answers, role: str) -> np.ndarray:
    """Return how many examples of each class (row) got which answer (column), int64 (C, C)."""
    size = answers.task.num_labels
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (answers.labels().astype(np.int64), answers.given(role)), 1)
    return counts


def answer_cells(answers: Answers | None) -> Table:
    """One row per class with the recall and F1 of teacher and student; without rows for scores, which are drawn."""
    if answers is None:
        return Table("Answers", (), ())
    where = f" ({answers.split})" if len(answers.task.validation_splits) > 1 else ""
    if answers.task.is_regression:
        return Table(f"Scores against labels{where}", (), ())
    counts = {role: confusion_counts(answers, role) for role in ROLES}
    recall, f1 = ({role: measure(counts[role]) for role in ROLES} for measure in (_recall, _f1))
    examples = counts["teacher"].sum(1)
    shown, notes = np.arange(len(examples)), []
    if len(shown) > MAX_CLASSES:
        lost = np.nan_to_num(f1["teacher"] - f1["student"])
        shown = np.argsort(-lost, kind="stable")[:MAX_CLASSES]
        notes.append(f"of {len(examples)} classes, the {MAX_CLASSES} whose F1 falls most from teacher to student")
    rows = [
        (
            shown_name(answers.task.label_names[index]),
            f"{examples[index]:,}",
            *(_share(values[role][index]) for values in (recall, f1) for role in ROLES),
        )
        for index in shown
    ]
    headers = ("class", "examples", *(f"{name}, {role}" for name in ("recall", "F1") for role in ROLES))
    return Table(f"Answers per class{where}", headers, tuple(rows), tuple(notes))


def shown_name(name: str, longest: int = MAX_NAME) -> str:
    """Return a class name in one short line without control characters."""
    line = "".join(letter if letter.isprintable() else " " for letter in name)
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def _recall(counts: np.ndarray) -> np.ndarray:
    """Return the share of each class that was answered right, (C,); NaN for a class without examples."""
    return _divide(counts.diagonal(), counts.sum(1))


def _f1(counts: np.ndarray) -> np.ndarray:
    """Return the F1 of each class, (C,); NaN for one that is neither present nor answered."""
    return _divide(2 * counts.diagonal(), counts.sum(0) + counts.sum(1))


def _divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _share(value: float) -> str:
    return MISSING if np.isnan(value) else percent(value)
