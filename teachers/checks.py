"""Checks of a teacher before anything is distilled from it."""

import json
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from distill.evaluation.metrics import HALF, correlation_with_labels, predictions, probabilities
from distill.tasks import Task
from distill.utils.errors import UserError

PERMUTATION_MARGIN = 0.1
"""Accuracy that another label order must gain before the order is called wrong; chance gains are smaller. Of labels
that are decided one by one, mean correlation."""

OVERCONFIDENCE = 0.1
"""Mean probability of the answer over the share of right ones; a well calibrated teacher has 0."""
STILL_IMPROVING = 0.01
SAME_SCORE = 1e-4
"""Of the range of the labels: scores that differ by less are one answer."""


def check_teacher(
    task: Task,
    logits: np.ndarray,
    labels: np.ndarray,
    margin: float,
    *,
    matched_by_name: bool = False,
    threshold: float = HALF,
) -> None:
    """Refuse a teacher whose outputs are not finite, whose labels are permuted or who has not learned the task.

    Chance and one answer for every text have no correlation with the labels, and are refused at every margin of 0 or
    more: a student of such a teacher would keep all of nothing.

    Args:
        logits: (n, C) on validation.
        labels: (n,), or (n, C) of a multi-label task.
        margin: what its correlation with the labels must exceed, that of chance and of a constant answer being 0;
            where this is negative any teacher passes.
        matched_by_name: as in :func:`check_label_order`.
        threshold: of a multi-label teacher.

    Raises:
        UserError: in one line, with the way out.
    """
    if not np.isfinite(logits).all():
        raise UserError("the teacher's outputs are not finite; fine-tune it again with a lower teacher.learning_rate")
    if not task.is_regression:
        check_label_order(task, logits, labels, matched_by_name=matched_by_name)
    answers = predictions(task, logits, threshold)
    same = SAME_SCORE * np.ptp(labels) if task.is_regression else 0
    if margin >= 0 and (np.ptp(answers, axis=0) <= same).all():
        raise UserError(
            f"the teacher answers every text of validation with {_in_words(task, answers[0])}: there is nothing to "
            "distil; train it longer (teacher.epochs, teacher.learning_rate), or give more examples of the other "
            "labels"
        )
    correlation = correlation_with_labels(task, logits, labels, threshold)
    if margin >= 0 and correlation <= margin:
        name = "Pearson's" if task.is_regression else "Mean Matthews'" if task.multi_label else "Matthews'"
        raise UserError(
            f"{name} correlation of the teacher's answers with the labels of validation is {correlation:.2f} (chance "
            f"and one answer for all have 0), below the floor {margin:.2f}; train it longer (teacher.epochs, "
            "teacher.learning_rate) or lower teacher.margin_over_majority"
        )


def _in_words(task: Task, answer: np.ndarray) -> str:
    """Return an answer as a message names it: a score, a class or a set of labels."""
    if task.multi_label:
        return ", ".join(name for name, given in zip(task.label_names, answer, strict=True) if given) or "no label"
    return f"{answer:.3g}" if task.is_regression else task.label_names[int(answer)]


def calibration_warning(task: Task, logits: np.ndarray, labels: np.ndarray) -> str | None:
    """Say where a classifier is much surer of its answers than it is right; None where it is not.

    Args:
        task: a classification; of a multi-label one an answer is the decision on one label.
        logits: (n, C).
        labels: (n,), or (n, C) of a multi-label task.
    """
    if task.multi_label:
        found = probabilities(logits)
        sure, right = float(np.maximum(found, 1 - found).mean()), float(((found >= HALF) == labels).mean())
    else:
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
    does, for a teacher that answers one class only has learned nothing rather than another order. Of a multi-label
    task the correlations of labels and outputs are matched.

    Args:
        logits: (n, C).
        labels: (n,), or (n, C) of a multi-label task.
        matched_by_name: whether the outputs were put into this order by the names in its configuration.

    Raises:
        UserError: names the order that fits.
    """
    if task.multi_label:
        matches, floor = _label_correlations(logits, labels) / task.num_labels, 0.0
    else:
        matches = np.zeros((task.num_labels, task.num_labels))
        np.add.at(matches, (labels, logits.argmax(1)), 1 / len(labels))
        floor = matches.sum(1).max()
    rows, columns = linear_sum_assignment(-matches)
    reordered = matches[rows, columns].sum()
    gain = reordered - np.trace(matches)
    if gain > PERMUTATION_MARGIN and reordered > floor + PERMUTATION_MARGIN / 2:
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


def _label_correlations(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how label i correlates with the probability of output j, (C, C); 0 where either never changes."""
    sides = []
    for values in (labels.astype(np.float64), probabilities(logits)):
        centred = values - values.mean(0)
        norms = np.sqrt((centred**2).sum(0))
        sides.append(np.divide(centred, norms, out=np.zeros_like(centred), where=norms > 1e-9))
    return sides[0].T @ sides[1]
