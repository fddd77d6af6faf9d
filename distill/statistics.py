"""How sure a retention is: paired bootstrap over examples, McNemar, agreement, KL, calibration.

Every metric is computed for thousands of resamples at once. A resample of n examples with replacement is

* for classification, a multinomial draw over the distinct (label, prediction, prediction, …) cells — exactly the
  example bootstrap, since examples in one cell are interchangeable — and every metric a function of cell counts;
* for correlations, a vector of counts (how often each example was drawn), and every metric a weighted moment.
  Spearman needs no sorting again: the mid-rank of a value in a resample is the count below it plus half of its own.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.stats import binomtest

CHUNK_ELEMENTS = 4_000_000  # resamples are drawn in chunks of about this many counts: 32 MB each
MAX_UNDEFINED = 0.01  # share of resamples in which the ratio may be undefined before the interval is

Metric = str | Callable[[np.ndarray, np.ndarray], float]


# ---------------------------------------------------------------- metrics of many resamples at once


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with 0 where the denominator is 0: the convention of scikit-learn for undefined scores."""
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _accuracy(confusion: np.ndarray) -> np.ndarray:
    return _divide(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def _class_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (labelled + predicted) of every class, (R, C)."""
    true_positives = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _divide(2.0 * true_positives, (confusion.sum(-1) + confusion.sum(-2)).astype(np.float64))


def _f1(confusion: np.ndarray) -> np.ndarray:
    return _class_f1(confusion)[..., 1]


def _macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Average F1 over the classes that occur in the labels or the predictions, as scikit-learn does."""
    present = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return _divide((_class_f1(confusion) * present).sum(-1), present.sum(-1).astype(np.float64))


def _matthews_correlation(confusion: np.ndarray) -> np.ndarray:
    """Multi-class MCC (Gorodkin 2004): covariance of the one-hot labels and predictions over their norms."""
    confusion = confusion.astype(np.float64)
    labelled, predicted, total = confusion.sum(-1), confusion.sum(-2), confusion.sum((-2, -1))
    covariance = np.trace(confusion, axis1=-2, axis2=-1) * total - (labelled * predicted).sum(-1)
    variance = (total**2 - (labelled**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    return _divide(covariance, np.sqrt(variance))


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
    return _divide(covariance, np.sqrt(np.maximum(variances, 0.0)))


def _weighted_midranks(counts: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Centred mid-ranks (R, n) in each resample: the count below a value plus half the count of that value."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    group_counts = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(group_counts, axis=1) - group_counts
    # Centred: the mean of the mid-ranks is (n + 1) / 2 in every resample.
    return (below + group_counts / 2 - counts.shape[1] / 2)[:, group]


def _correlation(metric: str, counts: np.ndarray, labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    if metric == "spearmanr":
        return _weighted_correlation(counts, _weighted_midranks(counts, labels), _weighted_midranks(counts, scores))
    return _weighted_correlation(counts, labels - labels.mean(), scores - scores.mean())


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


def _bootstrap_cells(
    metric: str, labels: np.ndarray, predictions: Sequence[np.ndarray], *, resamples: int, seed: int
) -> np.ndarray:
    stacked = np.stack([labels, *predictions], axis=1).astype(np.int64)
    cells, counts = np.unique(stacked, axis=0, return_counts=True)
    num_classes = max(int(stacked.max()) + 1, 2)
    drawn = np.random.default_rng(seed).multinomial(len(labels), counts / len(labels), size=resamples)
    drawn = np.concatenate([counts[None], drawn]).astype(np.float64)
    scores = []
    for column in range(1, stacked.shape[1]):
        one_hot = np.eye(num_classes**2)[cells[:, 0] * num_classes + cells[:, column]]
        confusions = (drawn @ one_hot).reshape(-1, num_classes, num_classes)
        scores.append(CLASSIFICATION_METRICS[metric](confusions))
    return np.stack(scores, axis=1)


def bootstrap_metric(
    metric: Metric, labels: np.ndarray, predictions: Sequence[np.ndarray], *, resamples: int, seed: int
) -> np.ndarray:
    """Metric of each model on the same resamples of examples; row 0 is the data itself.

    Args:
        metric: ``accuracy``, ``f1``, ``macro_f1``, ``matthews_correlation``, ``pearson``, ``spearmanr``, or any
            function of (labels, predictions), which is then called once per resample and model.
        labels: (n,) classes or scores.
        predictions: one (n,) array per model, classes or scores, in the order of the labels.
        resamples: number of bootstrap resamples R.
        seed: of the resampling; the same seed draws the same examples for every model.

    Returns:
        (R + 1, number of models). A score that is undefined on a resample (one class only, constant scores) is 0.
    """
    if callable(metric):
        return _bootstrap_function(metric, labels, predictions, resamples=resamples, seed=seed)
    if metric in CLASSIFICATION_METRICS:
        return _bootstrap_cells(metric, labels, predictions, resamples=resamples, seed=seed)
    labels = np.asarray(labels, dtype=np.float64)
    scores = [np.asarray(prediction, dtype=np.float64) for prediction in predictions]
    once_each = np.ones((1, len(labels)))
    return np.concatenate(
        [
            np.stack([_correlation(metric, counts, labels, score) for score in scores], axis=1)
            for counts in (once_each, *_resample_counts(len(labels), resamples, seed))
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


# ---------------------------------------------------------------- what the record says


def percentile_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval (Efron 1979) of a one-dimensional bootstrap distribution."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def retention(
    metric: Metric,
    labels: np.ndarray,
    teacher: np.ndarray,
    student: np.ndarray,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, float | str | None]:
    """Share of the teacher's metric that the student kept, metric(student) / metric(teacher), with a 95 % interval.

    Both models see the same resamples, so what is easy or hard for both cancels.

    Args:
        metric: as in :func:`bootstrap_metric`.
        labels: (n,) classes or scores.
        teacher: (n,) predictions of the teacher, classes or scores.
        student: (n,) predictions of the student on the same examples.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        ``value``, ``low``, ``high``; null with a ``reason`` where the teacher's metric is not above 0, and a null
        interval with a ``reason`` where that happens in more than 1 % of the resamples.
    """
    scores = bootstrap_metric(metric, labels, (teacher, student), resamples=resamples, seed=seed)
    teacher_score, student_score = scores[0]
    if not teacher_score > 0:
        reason = f"the teacher's score is {teacher_score:.3f}: a share of a score that is not above 0 means nothing"
        return {"value": None, "low": None, "high": None, "reason": reason}
    value = float(student_score / teacher_score)
    defined = scores[1:, 0] > 0
    if defined.mean() < 1 - MAX_UNDEFINED:
        reason = f"the teacher's score is not above 0 in {1 - defined.mean():.0%} of the resamples: too few examples"
        return {"value": value, "low": None, "high": None, "reason": reason}
    low, high = percentile_interval(scores[1:][defined, 1] / scores[1:][defined, 0])
    return {"value": value, "low": low, "high": high}


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float | int]:
    """Exact McNemar test (1947): could the two classifiers be equally often right?

    Only the examples that exactly one of them gets right count; under the null they are fair coin flips.

    Returns:
        ``only_first`` and ``only_second`` correct, and the two-sided binomial ``p`` (1 where they never differ).
    """
    first_right, second_right = first == labels, second == labels
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    discordant = only_first + only_second
    p = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def agreement(teacher: np.ndarray, student: np.ndarray) -> float:
    """Share of examples with the same predicted class, or the Pearson correlation of two scores (floats)."""
    if np.issubdtype(teacher.dtype, np.floating):
        return float(_correlation("pearson", np.ones((1, len(teacher))), teacher, student)[0])
    return float((teacher == student).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def mean_kl(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Mean over examples of KL(teacher || student) of the class probabilities, in nats; logits (n, C)."""
    teacher, student = _log_softmax(teacher_logits), _log_softmax(student_logits)
    return float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean())


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599): mean |accuracy - confidence| over bins.

    Bins are ``num_bins`` equal widths of (0, 1], weighted by how many examples fall in; logits (n, C).
    """
    confidence = np.exp(_log_softmax(logits).max(axis=1))
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gap = (logits.argmax(axis=1) == labels) - confidence
    return float(np.abs(np.bincount(bins, weights=gap, minlength=num_bins)).sum() / len(labels))


def retention_over_runs(teacher: Sequence[float], student: Sequence[float]) -> dict[str, float | None]:
    """Both definitions of retention over several seeds or tasks; papers mix them and they differ by up to 2.4 points.

    Returns:
        ``ratio_of_averages``: mean(student) / mean(teacher); ``mean_of_ratios``: mean(student / teacher), null where
        a teacher's score is not above 0.
    """
    teachers, students = np.asarray(teacher, dtype=np.float64), np.asarray(student, dtype=np.float64)
    average = float(students.mean() / teachers.mean()) if teachers.mean() > 0 else None
    ratios = float((students / teachers).mean()) if (teachers > 0).all() else None
    return {"ratio_of_averages": average, "mean_of_ratios": ratios}
