"""Checks of a teacher before anything is distilled from it."""

import json
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from distill.evaluation.metrics import correlation_with_labels, predictions
from distill.tasks import Task
from distill.utils.errors import UserError

PERMUTATION_MARGIN = 0.1
"""Accuracy that another label order must gain before the order is called wrong; chance gains are smaller."""

OVERCONFIDENCE = 0.1
"""Mean probability of the answer over the share of right ones; a well calibrated teacher has 0."""
STILL_IMPROVING = 0.01
SAME_SCORE = 1e-4
"""Of the range of the labels: scores that differ by less are one answer."""


def check_teacher(
    task: Task, logits: np.ndarray, labels: np.ndarray, margin: float, *, matched_by_name: bool = False
) -> None:
    """Refuse a teacher whose outputs are not finite, whose labels are permuted or who has not learned the task.

    Chance and one answer for every text have no correlation with the labels, and are refused at every margin of 0 or
    more: a student of such a teacher would keep all of nothing.

    Args:
        logits: (n, C) on validation.
        labels: (n,).
        margin: what its correlation with the labels must exceed, that of chance and of a constant answer being 0;
            where this is negative any teacher passes.
        matched_by_name: as in :func:`check_label_order`.

    Raises:
        UserError: in one line, with the way out.
    """
    if not np.isfinite(logits).all():
        raise UserError("the teacher's outputs are not finite; fine-tune it again with a lower teacher.learning_rate")
    if not task.is_regression:
        check_label_order(task, logits, labels, matched_by_name=matched_by_name)
    answers = predictions(task, logits)
    same = SAME_SCORE * np.ptp(labels) if task.is_regression else 0
    if margin >= 0 and np.ptp(answers) <= same:
        answer = f"{answers[0]:.3g}" if task.is_regression else task.label_names[answers[0]]
        raise UserError(
            f"the teacher answers every text of validation with {answer}: there is nothing to distil; train it longer "
            "(teacher.epochs, teacher.learning_rate), or give more examples of the other labels"
        )
    correlation = correlation_with_labels(task, logits, labels)
    if margin >= 0 and correlation <= margin:
        name = "Pearson's" if task.is_regression else "Matthews'"
        raise UserError(
            f"{name} correlation of the teacher's answers with the labels of validation is {correlation:.2f} (chance "
            f"and one answer for all have 0), below the floor {margin:.2f}; train it longer (teacher.epochs, "
            "teacher.learning_rate) or lower teacher.margin_over_majority"
        )


def calibration_warning(logits: np.ndarray, labels: np.ndarray) -> str | None:
    """Say where a classifier is much surer of its answers than it is right; None where it is not.

    Args:
        logits: (n, C), of a classification.
        labels: (n,).
    """
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    sure = float((shifted.max(1) / shifted.sum(1)).mean())
    right = float((logits.argmax(1) == labels).mean())
    if sure - right < OVERCONFIDENCE:
        return None
    return (
        f"teacher: {100 * sure:.0f} % sure of its answers on held-out train and right in {100 * right:.0f} %, so that "
        "its logits say little beyond the answer; give it fewer epochs, or the stage of logits a higher temperature"
    )


def progress_warning(scores: Sequence[float]) -> str | None:
    """Say where the last epoch was the best by a point or more, so that more of them would pay; None otherwise.

    Args:
        scores: the main metric on held-out train after every epoch.
    """
    if len(scores) < 2 or scores[-1] - max(scores[:-1]) < STILL_IMPROVING:
        return None
    return (
        f"teacher: its last epoch was the best, {100 * scores[-1]:.1f} after {100 * max(scores[:-1]):.1f} on held-out "
        "train: it is still improving; raise teacher.epochs"
    )


def check_label_order(task: Task, logits: np.ndarray, labels: np.ndarray, *, matched_by_name: bool = False) -> None:
    """Detect a teacher that was trained with its labels in another order than the data's.

    The confusion matrix is matched as an assignment problem: a permutation that explains the labels much
    better than the identity means that the order is wrong — unless it explains no more than the most frequent class
    does, for a teacher that answers one class only has learned nothing rather than another order.

    Args:
        logits: (n, C).
        labels: (n,).
        matched_by_name: whether the outputs were put into this order by the names in its configuration.

    Raises:
        UserError: names the order that fits.
    """
    confusion = np.zeros((task.num_labels, task.num_labels))
    np.add.at(confusion, (labels, logits.argmax(1)), 1)
    rows, columns = linear_sum_assignment(-confusion)
    reordered = confusion[rows, columns].sum() / len(labels)
    gain = reordered - np.trace(confusion) / len(labels)
    if gain > PERMUTATION_MARGIN and reordered > confusion.sum(1).max() / len(labels) + PERMUTATION_MARGIN / 2:
        pairs = sorted(zip(columns, rows, strict=True))
        start = f"the teacher's labels stand in another order than the data's ({100 * gain:.0f} points are lost"
        if matched_by_name:
            wrong = ", ".join(f"{task.label_names[c]} is {task.label_names[r]}" for c, r in pairs if c != r)
            raise UserError(
                f"{start}): id2label in its config.json, by which they were matched, names them wrongly; correct it: "
                f"what it calls {wrong}"
            )
        order = ", ".join(
            f"{task.label_names[row]} = output {column}" for row, column in zip(rows, columns, strict=True)
        )
        names = json.dumps({str(column): task.label_names[row] for column, row in pairs}, ensure_ascii=False)
        raise UserError(
            f"{start}; it fits {order}); name its outputs in its config.json, by which they are then put in order: "
            f'"id2label": {names}'
        )
