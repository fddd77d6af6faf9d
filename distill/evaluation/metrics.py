"""Official metrics as `evaluate` modules of our own, over scikit-learn and scipy.

``evaluate.load("glue", task)`` fetches a script at run time and fails without network; these need none and write
nothing to disk. All values are plain fractions or correlations, not percent.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from scipy import stats
from scipy.special import expit
from sklearn import metrics as sklearn_metrics

from distill.tasks import Task

SIMILAR_FROM = 3.0
"""KLUE-STS scores F1 of "similar", a score of at least 3 of 5 (Park et al. 2021); it is also how the
official `binary_label` came to be."""


class OfflineMetric(evaluate.Metric, ABC):
    """A metric in memory: no cache file and no lock, so that several processes may compute it at once.

    Args:
        of_sets: whether predictions and references are rows of 0 and 1, one for every label, instead of one value.
    """

    value_type = "int64"

    def __init__(self, *, of_sets: bool = False) -> None:
        self.of_sets = of_sets
        super().__init__(keep_in_memory=True)

    def _build_data_dir(self) -> str:
        # The base class makes a folder here, which fails on a read-only home; nothing is ever put into it.
        return self._data_dir_root

    def _info(self) -> evaluate.MetricInfo:
        value = Sequence(Value(self.value_type)) if self.of_sets else Value(self.value_type)
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "",
            citation="",
            inputs_description="predictions and references: one value per example, or one per example and label",
            features=Features({"predictions": value, "references": value}),
            format=None if self.of_sets else "numpy",  # which evaluate has for single values alone
        )

    def _compute(self, *, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        return {"score": float(self.score(np.asarray(predictions), np.asarray(references)))}

    @abstractmethod
    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        """Return the value of this metric."""


class Accuracy(OfflineMetric):
    """Share of examples whose class is predicted."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return sklearn_metrics.accuracy_score(references, predictions)


class F1(OfflineMetric):
    """Harmonic mean of precision and recall of class 1; 0 where class 1 is neither predicted nor present."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return sklearn_metrics.f1_score(references, predictions, zero_division=0)


class MacroF1(OfflineMetric):
    """Mean F1 over the classes or labels that are predicted or present; 0 where none is."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        if references.ndim == 1:
            return sklearn_metrics.f1_score(references, predictions, average="macro", zero_division=0)
        known = (references.any(0)) | (predictions.any(0))
        if not known.any():
            return 0.0
        return sklearn_metrics.f1_score(references[:, known], predictions[:, known], average="macro", zero_division=0)


class MicroF1(OfflineMetric):
    """F1 of all decisions, those on every label of every example taken together; 0 where there is nothing to find."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return sklearn_metrics.f1_score(references, predictions, average="micro", zero_division=0)


class SubsetAccuracy(OfflineMetric):
    """Share of examples all of whose labels are predicted, and no other."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return sklearn_metrics.accuracy_score(references, predictions)


class MatthewsCorrelation(OfflineMetric):
    """Matthews correlation of predicted and true classes; 0 where either is constant."""

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return (
            0.0
            if _is_constant(predictions, references)
            else sklearn_metrics.matthews_corrcoef(references, predictions)
        )


class Pearson(OfflineMetric):
    """Pearson correlation of predicted and true scores; 0 where either is constant and it is undefined."""

    value_type = "float64"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return 0.0 if _is_constant(predictions, references) else stats.pearsonr(predictions, references)[0]


class Spearman(OfflineMetric):
    """Spearman rank correlation of predicted and true scores; 0 where either is constant and it is undefined."""

    value_type = "float64"

    def score(self, predictions: np.ndarray, references: np.ndarray) -> float:
        return 0.0 if _is_constant(predictions, references) else stats.spearmanr(predictions, references)[0]


def _is_constant(*values: np.ndarray) -> bool:
    return any(np.ptp(array) == 0 for array in values)


METRICS: dict[str, type[OfflineMetric]] = {
    "accuracy": Accuracy,
    "f1": F1,
    "macro_f1": MacroF1,
    "matthews_correlation": MatthewsCorrelation,
    "pearson": Pearson,
    "spearmanr": Spearman,
    "micro_f1": MicroF1,
    "subset_accuracy": SubsetAccuracy,
}
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
    metric = METRICS[name](of_sets=task.multi_label)
    dtype = np.dtype(metric.value_type)
    inputs: dict[str, Any] = {
        "predictions": scored_values(task, name, predicted).astype(dtype),
        "references": scored_values(task, name, labels).astype(dtype),
    }
    return metric.compute(**inputs)["score"]


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
        predicted, metric = predictions(task, logits, threshold), MatthewsCorrelation()
        varying = np.flatnonzero(np.ptp(labels, axis=0) > 0)
        found = [metric.score(predicted[:, each], labels[:, each].astype(np.int64)) for each in varying]
        return float(np.mean(found)) if found else 0.0
    name = "pearson" if task.is_regression else "matthews_correlation"
    return _score(task, name, predictions(task, logits), np.asarray(labels))
