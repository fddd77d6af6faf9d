"""The threshold of a multi-label model: from which probability on a text has a label; chosen on held-out train.

It is one number for a model, saved as ``threshold`` in its config.json, and never chosen on what is reported.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from distill.evaluation.metrics import HALF, probabilities
from distill.tasks import Task
from distill.utils.errors import UserError

Thresholds = Mapping[str, float]
"""Role to the threshold of that model; one that is not among them has a half."""
GRID = np.arange(1, 100) / 100
"""Thresholds that are tried: finer ones tell a few hundred examples apart by chance."""


def best_threshold(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the threshold of the highest micro F1; of several, the one nearest to a half.

    Args:
        logits: (n, C).
        labels: (n, C) of 0 and 1.
    """
    found, wanted = probabilities(logits).ravel(), labels.ravel() == 1
    # Of the labels that reach a threshold: how many there are, and how many of them are right.
    answered = len(found) - np.searchsorted(np.sort(found), GRID)
    right = wanted.sum() - np.searchsorted(np.sort(found[wanted]), GRID)
    scores = 2 * right / np.maximum(1, answered + wanted.sum())
    best = GRID[scores == scores.max()]
    return float(best[np.argmin(np.abs(best - HALF))])


def own_threshold(model: Any) -> float | None:
    """Return the threshold in the configuration of a model, None where there is none.

    Raises:
        UserError: it is no number between 0 and 1.
    """
    threshold = getattr(model.config, "threshold", None)
    if threshold is None:
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
        raise UserError(
            f"{model.config.name_or_path or 'a model'}: threshold in its config.json is {threshold!r}; write a number "
            "between 0 and 1, or take it out to have one chosen on held-out train"
        )
    return float(threshold)


def threshold_of(model: Any) -> float:
    """Return the threshold that a model answers by: its own, or a half; UserError as of :func:`own_threshold`."""
    threshold = own_threshold(model)
    return HALF if threshold is None else threshold


def thresholds_of(task: Task, models: Mapping[str, Any]) -> Thresholds:
    """Return the threshold of every model of a multi-label task by its role; of other tasks there are none."""
    return {role: threshold_of(model) for role, model in models.items()} if task.multi_label else {}
