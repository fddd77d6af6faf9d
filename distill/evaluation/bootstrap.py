"""Metrics of thousands of paired resamples at once.

A resample of n examples with replacement is

* for classification, a multinomial draw over the distinct (label, prediction, prediction, …) cells — exactly the
  example bootstrap, since examples in one cell are interchangeable — and every metric a function of cell counts;
* for correlations, a vector of counts (how often each example was drawn), and every metric a weighted moment.
  Spearman needs no sorting again: the mid-rank of a value in a resample is the count below it plus half of its own;
* for sets of labels, such a vector too, and every metric a mean of ratios of weighted sums.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np

CHUNK_ELEMENTS = 4_000_000  # resamples are drawn in chunks of about this many counts: 32 MB each

Metric = str | Callable[[np.ndarray, np.ndarray], float]


# ---------------------------------------------------------------- metrics of many resamples at once


def divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0: the convention of scikit-learn for undefined scores."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def _class_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (labelled + predicted) of every class, (R, C)."""
    true_positives = np.diagonal(confusion, axis1=-2, axis2=-1)
    return divide(2.0 * true_positives, (confusion.sum(-1) + confusion.sum(-2)).astype(np.float64))


def _f1(confusion: np.ndarray) -> np.ndarray:
    return _class_f1(confusion)[..., 1]


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Average F1 over the classes that occur in the labels or the predictions, as scikit-learn does."""
    present = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return divide((_class_f1(confusion) * present).sum(-1), present.sum(-1).astype(np.float64))


def _matthews_correlation(confusion: np.ndarray) -> np.ndarray:
    """Multi-class MCC (Gorodkin 2004): covariance of the one-hot labels and predictions over their norms."""
    confusion = confusion.astype(np.float64)
    labelled, predicted, total = confusion.sum(-1), confusion.sum(-2), confusion.sum((-2, -1))
    covariance = np.trace(confusion, axis1=-2, axis2=-1) * total - (labelled * predicted).sum(-1)
    variance = (total**2 - (labelled**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return divide(covariance, np.sqrt(variance))


CLASSIFICATION_METRICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews_correlation,
}


def _weighted_correlation(counts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation under weights (R, n), from moments; values (n,) or (R, n), centred to keep the digits."""
    total = counts.sum(-1)

    def moment(values: np.ndarray) -> np.ndarray:
        return counts @ values if values.ndim == 1 else np.einsum("rn,rn->r", counts, values)

    mean_first, mean_second = moment(first) / total, moment(second) / total
    covariance = moment(first * second) / total - mean_first * mean_second
    variances = (moment(first**2) / total - mean_first**2) * (moment(second**2) / total - mean_second**2)
    return divide(covariance, np.sqrt(np.maximum(variances, 0.0)))


def _weighted_midranks(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Centred mid-ranks (R, n) in each resample: the count below a value plus half the count of that value."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    group_counts = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(group_counts, axis=1) - group_counts
    # Centred: the mean of the mid-ranks is (n + 1) / 2 in every resample.
    return (below + group_counts / 2 - counts.shape[1] / 2)[:, group]


def correlation(metric: str, counts: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if metric == "spearmanr":
        return _weighted_correlation(counts, _weighted_midranks(counts, labels), _weighted_midranks(counts, scores))
    return _weighted_correlation(counts, labels - labels.mean(), scores - scores.mean())


# ---------------------------------------------------------------- metrics of sets of labels


def set_shares(metric: str, labels: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what each example adds to the numerators and denominators (n, K) of a metric of sets of labels.

    The metric is the mean of those ratios of sums whose denominator is above 0. K is 1 for ``micro_f1`` and
    ``subset_accuracy`` and C, the number of labels, for ``macro_f1``; F1 is 2 TP / (labelled + predicted).

    Args:
        labels, predicted: (n, C) of 0 and 1.
    """
    if metric == "subset_accuracy":
        right = (labels == predicted).all(1, keepdims=True).astype(np.float64)
        return right, np.ones_like(right)
    both, either = 2.0 * labels * predicted, np.asarray(labels + predicted, np.float64)
    return (both, either) if metric == "macro_f1" else (both.sum(1, keepdims=True), either.sum(1, keepdims=True))


def _mean_share(counts: np.ndarray, numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return the metric (r,) of resamples that draw each example as often as ``counts`` (r, n) says."""
    wholes = counts @ denominators
    present = wholes > 0
    return divide(divide(counts @ numerators, wholes).sum(-1), present.sum(-1).astype(np.float64))


# ---------------------------------------------------------------- resampling


def _resample_counts(num_examples: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield chunks (r, n) of how often each example was drawn; r sums to ``resamples``."""
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ELEMENTS // num_examples)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(0, num_examples, size=(rows, num_examples))
        drawn += np.arange(rows)[:, None] * num_examples
        yield np.bincount(drawn.ravel(), minlength=rows * num_examples).reshape(rows, num_examples).astype(np.float64)


def _cell_counts(counts: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield chunks (r, cells) of how many examples of each cell were drawn; r sums to ``resamples``."""
    generator = np.random.default_rng(seed)
    chunk = max(1, CHUNK_ELEMENTS // len(counts))
    for start in range(0, resamples, chunk):
        yield generator.multinomial(counts.sum(), counts / counts.sum(), size=min(chunk, resamples - start))


def _bootstrap_cells(
    metric: str, labels: np.ndarray, predictions: Sequence[np.ndarray], *, resamples: int, seed: int
) -> np.ndarray:
    stacked = np.stack([labels, *predictions], axis=1).astype(np.int64)
    cells, counts = np.unique(stacked, axis=0, return_counts=True)
    num_classes = max(int(stacked.max()) + 1, 2)
    one_hot = [np.eye(num_classes**2)[cells[:, 0] * num_classes + column] for column in cells[:, 1:].T]
    scores = []
    for drawn in chain([counts[None]], _cell_counts(counts, resamples, seed)):
        confusions = [(drawn @ of_model).reshape(-1, num_classes, num_classes) for of_model in one_hot]
        scores.append(np.stack([CLASSIFICATION_METRICS[metric](confusion) for confusion in confusions], axis=1))
    return np.concatenate(scores)


def bootstrap_metric(
    metric: Metric, labels: np.ndarray, predictions: Sequence[np.ndarray], *, resamples: int, seed: int
) -> np.ndarray:
    """Metric of each model on the same resamples of examples; row 0 is the data itself.

    Args:
        metric: ``accuracy``, ``f1``, ``macro_f1``, ``matthews_correlation``, ``pearson``, ``spearmanr``; of sets of
            labels ``micro_f1``, ``macro_f1``, ``subset_accuracy``; or any function of (labels, predictions), which is
            then called once per resample and model.
        labels: (n,) classes or scores, or (n, C) of 0 and 1.
        predictions: one array per model, like the labels and in their order.
        resamples: number of bootstrap resamples R.
        seed: of the resampling; the same seed draws the same examples for every model.

    Returns:
        (R + 1, number of models). A score that is undefined on a resample (one class only, constant scores) is 0.
    """
    if callable(metric):
        return _bootstrap_function(metric, labels, predictions, resamples=resamples, seed=seed)
    once_each = np.ones((1, len(labels)))
    if labels.ndim == 2:
        shares = [set_shares(metric, labels, predicted) for predicted in predictions]
        draws = chain([once_each], _resample_counts(len(labels), resamples, seed))
        return np.concatenate([np.stack([_mean_share(counts, *each) for each in shares], axis=1) for counts in draws])
    if metric in CLASSIFICATION_METRICS:
        return _bootstrap_cells(metric, labels, predictions, resamples=resamples, seed=seed)
    labels = np.asarray(labels, dtype=np.float64)
    scores = [np.asarray(prediction, dtype=np.float64) for prediction in predictions]
    return np.concatenate(
        [
            np.stack([correlation(metric, counts, labels, score) for score in scores], axis=1)
            for counts in chain([once_each], _resample_counts(len(labels), resamples, seed))
        ]
    )


def _bootstrap_function(
    metric: Callable[[np.ndarray, np.ndarray], float],
    labels: np.ndarray,
    predictions: Sequence[np.ndarray],
    *,
    resamples: int,
    seed: int,
) -> np.ndarray:
    generator = np.random.default_rng(seed)
    draws = [np.arange(len(labels)), *(generator.integers(0, len(labels), len(labels)) for _ in range(resamples))]
    return np.array([[metric(labels[drawn], scores[drawn]) for scores in predictions] for drawn in draws])
