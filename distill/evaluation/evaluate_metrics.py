"""Official metrics as `evaluate` modules of our own, over scikit-learn and scipy.

``evaluate.load("glue", task)`` fetches a script at run time and fails without network; these need none and write
nothing to disk. All values are plain fractions or correlations, not percent.

Apart from `distill.evaluation.metrics`, which imports this module when a score is first wanted: these libraries take
half a second, for which the first step of a training need not wait.
"""

from abc import ABC, abstractmethod

import evaluate
import numpy as np
from datasets import Features, Sequence, Value
from scipy import stats
from sklearn import metrics as sklearn_metrics


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
