"""The examples that teacher and student answer differently, with their text, for people to read."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from distill.data.splits import Examples
from distill.evaluation.predictions_file import answers_of, labels_of
from distill.evaluation.significance import alike
from distill.tasks import Task

KEYS = ("label", "teacher", "student")
NONE = "(none)"
"""Stands for a set of labels that is empty."""


def find_disagreements(
    task: Task, predicted: pd.DataFrame, validation: Mapping[str, Examples]
) -> list[dict[str, Any]]:
    """Return examples with different answers, the surest contradiction first; for regression, the largest differences.

    Of a multi-label task the answers are sets of labels, and what counts is how far the logits of those labels differ
    that only one of the two gives.

    Args:
        task: names the labels.
        predicted: what `distill.evaluation.predictions_file.predictions_frame` returns.
        validation: the texts, split by split in the order of ``predicted``.

    Returns:
        Dicts of ``text``, ``label``, ``teacher`` and ``student``, the last three as names or scores.
    """
    texts = [text for split in dict.fromkeys(predicted["split"]) for text in validation[split].texts]
    labels = labels_of(predicted)
    teacher, student = (np.stack(predicted[f"{role}_logits"].to_list()) for role in ("teacher", "student"))
    if task.is_regression:
        difference = np.abs(teacher[:, 0] - student[:, 0])
        chosen = np.flatnonzero(difference > 0)
        answers = [[f"{value:.2f}" for value in scores] for scores in (labels, teacher[:, 0], student[:, 0])]
    elif task.multi_label:
        first, second = (answers_of(task, predicted, role) for role in ("teacher", "student"))
        chosen = np.flatnonzero(~alike(first, second))
        difference = (np.abs(teacher - student) * (first != second)).sum(1)
        names = np.array(task.label_names, dtype=object)
        answers = [[", ".join(names[row == 1]) or NONE for row in sets] for sets in (labels, first, second)]
    else:
        first, second = teacher.argmax(1), student.argmax(1)
        chosen = np.flatnonzero(first != second)
        rows = np.arange(len(labels))
        # How far each model puts its own answer above the other's.
        difference = (teacher[rows, first] - teacher[rows, second]) + (student[rows, second] - student[rows, first])
        answers = [[task.label_names[index] for index in indices] for indices in (labels, first, second)]
    order = chosen[np.argsort(-difference[chosen], kind="stable")]
    return [
        {"text": texts[index], **{key: answers[column][index] for column, key in enumerate(KEYS)}} for index in order
    ]
