"""The scores of a task out of a model's logits; the metrics are in `distill.evaluation.evaluate_metrics`."""

from collections.abc import Mapping

import numpy as np
from scipy.special import expit

from distill.tasks import Task

SIMILAR_FROM = 3.0
"""KLUE-STS scores F1 of "similar", a score of at least 3 of 5 (Park et al. 2021); it is also how the
official `binary_label` came to be."""


HALF = 0.5
"""The threshold of a model that has none of its own."""


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the probability of every label by itself, 1 / (1 + exp(-logit)), float64 in the shape of ``logits``."""
    return expit(np.asarray(logits, np.float64))


def predictions(task: Task, logits: np.ndarray, threshold: float = HALF) -> np.ndarray:
    """Return what is scored: the class of the largest logit, int64 (n,), or the score itself, float64 (n,).

    Of a multi-label task it is 1 for every label whose probability reaches the threshold, else 0, int64 (n, C). A
    regression score is not clipped to the label range: the official metrics are correlations of raw scores.

    Args:
        logits: (n, num_labels).
        threshold: of the model, for a multi-label task alone.

    Raises:
        ValueError: wrong shape, or a logit that is not finite.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or logits.shape[1] != task.num_labels or len(logits) == 0:
        raise ValueError(f"logits have shape {logits.shape}; {task.name} needs (examples, {task.num_labels})")
    if not np.isfinite(logits).all():
        row = int(np.argmin(np.isfinite(logits).all(axis=1)))
        raise ValueError(f"logits are not finite, first in example {row}: {logits[row].tolist()}")
    if task.multi_label:
        return (probabilities(logits) >= threshold).astype(np.int64)
    return logits[:, 0].astype(np.float64) if task.is_regression else logits.argmax(axis=1)


def compute_metrics(task: Task, logits: np.ndarray, labels: np.ndarray, threshold: float = HALF) -> dict[str, float]:
    """Return every metric of ``task``, the main one first.

    Args:
        logits: (n, num_labels).
        labels: (n,), or (n, num_labels) of 0 and 1.
        threshold: as in :func:`predictions`.

    Raises:
        ValueError: wrong shapes, or a logit that is not finite.
    """
    predicted = predictions(task, logits, threshold)
    if len(predicted) != len(labels):
        raise ValueError(f"{len(predicted)} predictions for {len(labels)} labels")
    return {name: _score(task, name, predicted, np.asarray(labels)) for name in task.metrics}


def scored_values(task: Task, metric: str, values: np.ndarray) -> np.ndarray:
    """Return labels or predictions as ``metric`` reads them: F1 of a similarity is F1 of "similar"."""
    return (values >= SIMILAR_FROM).astype(np.int64) if task.is_regression and metric == "f1" else values


def _score(task: Task, name: str, predicted: np.ndarray, labels: np.ndarray) -> float:
    from distill.evaluation.evaluate_metrics import METRICS  # see there

    metric = METRICS[name](of_sets=task.multi_label)
    values = (scored_values(task, name, given).astype(metric.value_type) for given in (predicted, labels))
    # Not `compute`, which takes them through a table of Arrow's: longer than everything else in scoring an epoch.
    return float(metric.score(*values))


def split_suffixes(task: Task) -> dict[str, str]:
    """Return what stands behind the name of a metric for each validation split: nothing for the first.

    For MNLI's second one it is ``_mismatched``.
    """
    first, *others = task.validation_splits
    return {first: "", **{split: f"_{split.removeprefix('validation_')}" for split in others}}


def metrics_over_splits(
    task: Task, logits: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray], threshold: float = HALF
) -> dict[str, float]:
    """Return the metrics of all validation splits, named with the suffix of `split_suffixes`.

    For MNLI these are ``accuracy`` (matched) and ``accuracy_mismatched``; for tasks with one split
    `compute_metrics`.
    """
    return {
        name + suffix: value
        for split, suffix in split_suffixes(task).items()
        for name, value in compute_metrics(task, logits[split], labels[split], threshold).items()
    }


def correlation_with_labels(task: Task, logits: np.ndarray, labels: np.ndarray, threshold: float = HALF) -> float:
    """Return Matthews' correlation of classes, Pearson's of scores: 0 for chance and for a constant answer, at most 1.

    Accuracy and F1 of a constant answer depend on the shares of the classes, and come near 1 where one is rare. Of a
    multi-label task it is the mean of Matthews' correlations over the labels that some examples have and others not.

    Args:
        logits: (n, num_labels).
        labels: (n,), or (n, num_labels) of 0 and 1.
        threshold: as in :func:`predictions`.
    """
    if task.multi_label:
        predicted = predictions(task, logits, threshold)
        varying = np.flatnonzero(np.ptp(labels, axis=0) > 0)
        found = [_score(task, "matthews_correlation", predicted[:, each], labels[:, each]) for each in varying]
        return float(np.mean(found)) if found else 0.0
    name = "pearson" if task.is_regression else "matthews_correlation"
    return _score(task, name, predictions(task, logits), np.asarray(labels))
