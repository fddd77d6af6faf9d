"""How sure a retention is: paired bootstrap over examples, McNemar, Williams, agreement, KL, calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats
from scipy.special import expit, log_expit

from distill.benchmark.points import Interval
from distill.evaluation.bootstrap import Metric, bootstrap_metric, correlation, divide
from distill.evaluation.record_parts import WilliamsTest
from distill.tasks import FEW_EXAMPLES

MAX_UNDEFINED = 0.01  # share of resamples in which the ratio may be undefined before the interval is


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
) -> Interval:
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
        The share; null with a ``reason`` where the teacher's metric is not above 0, and without ends where that
        happens in more than 1 % of the resamples.
    """
    scores = bootstrap_metric(metric, labels, (teacher, student), resamples=resamples, seed=seed)
    return _share(divide(scores[:, 1], scores[:, 0]), scores[:, 0])


def _share(ratios: np.ndarray, teacher: np.ndarray) -> Interval:
    """Value and interval of ratios (R + 1,), the data first, that mean something where ``teacher`` (R + 1,) > 0."""
    if not teacher[0] > 0:
        reason = f"the teacher's score is {teacher[0]:.3f}: a share of a score that is not above 0 means nothing"
        return Interval(None, None, None, reason)
    value, defined = float(ratios[0]), teacher[1:] > 0
    if defined.mean() < 1 - MAX_UNDEFINED:
        reason = f"the teacher's score is not above 0 in {1 - defined.mean():.0%} of the resamples: too few examples"
        return Interval(value, None, None, reason)
    return Interval(value, *percentile_interval(ratios[1:][defined]))


def without_false_certainty(found: Mapping[str, Interval], num_examples: int) -> dict[str, Interval]:
    """Take the ends from intervals of no width where examples are few: they look certain and are not.

    With 20 right of 20, up to 14 % may still be wrong.
    """
    reason = f"no resample differs, and {num_examples} examples are too few for that to say anything"
    few = num_examples < FEW_EXAMPLES
    return {
        name: Interval(each.value, None, None, reason)
        if few and each.low is not None and each.low == each.high
        else each
        for name, each in found.items()
    }


def retention_over_seeds(
    metric: Metric,
    labels: np.ndarray,
    teachers: Sequence[np.ndarray],
    students: Sequence[np.ndarray],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Both published definitions of retention over several seeds, with a hierarchical bootstrap interval.

    A resample draws seeds with replacement and, within, examples with replacement. The examples are the same for all
    drawn seeds and for both models, because every seed was scored on the same ones: drawing them anew for each seed
    would average the uncertainty of the examples away ("pigeonhole bootstrap", Owen 2007, arXiv:0712.1111). With one
    seed it is :func:`retention`.

    Args:
        metric: as in :func:`bootstrap_metric`.
        labels: (n,) classes or scores.
        teachers: one (n,) array per seed; the same one several times where the seeds share a teacher.
        students: one (n,) array per seed, in the order of ``teachers``.
        resamples: number of bootstrap resamples.
        seed: of the resampling.

    Returns:
        ``ratio_of_averages``: mean(student) / mean(teacher); ``mean_of_ratios``: mean(student / teacher); each as
        :func:`retention` returns it. Papers mix the two, and they differ by up to 2.4 points.
    """
    teacher, student = _over_seeds(metric, labels, teachers, students, resamples, seed)
    return {
        "ratio_of_averages": _share(divide(student.mean(1), teacher.mean(1)), teacher.mean(1)),
        "mean_of_ratios": _share(divide(student, teacher).mean(1), teacher.min(1)),
    }


def gain_over_seeds(
    metric: Metric,
    labels: np.ndarray,
    baselines: Sequence[np.ndarray],
    students: Sequence[np.ndarray],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """What distillation bought, mean(student) - mean(baseline), with the interval of the same hierarchical bootstrap.

    Arguments as in :func:`retention_over_seeds`; the result is in units of the metric.
    """
    baseline, student = _over_seeds(metric, labels, baselines, students, resamples, seed)
    gains = (student - baseline).mean(1)
    return Interval(float(gains[0]), *percentile_interval(gains[1:]))


def _over_seeds(
    metric: Metric,
    labels: np.ndarray,
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    resamples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (R + 1, seeds) of two models on the same drawn seeds and examples; row 0 is the data itself."""
    num_seeds = len(second)
    scores = bootstrap_metric(metric, labels, (*first, *second), resamples=resamples, seed=seed)
    drawn = np.random.default_rng((seed, num_seeds)).integers(0, num_seeds, (resamples, num_seeds))
    drawn = np.concatenate([np.arange(num_seeds)[None], drawn])
    scores_of_first, scores_of_second = (
        np.take_along_axis(part, drawn, axis=1) for part in np.split(scores, 2, axis=1)
    )
    return scores_of_first, scores_of_second


def mcnemar(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> dict[str, float | int]:
    """Exact McNemar test (1947): could the two classifiers be equally often right?

    Only the examples that exactly one of them gets right count; under the null they are fair coin flips. A set of
    labels is right if all of it is.

    Returns:
        ``only_first`` and ``only_second`` correct, and the two-sided binomial ``p`` (1 where they never differ).
    """
    first_right, second_right = alike(first, labels), alike(second, labels)
    only_first = int((first_right & ~second_right).sum())
    only_second = int((~first_right & second_right).sum())
    discordant = only_first + only_second
    p = float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0
    return {"only_first": only_first, "only_second": only_second, "p": p}


def williams(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> WilliamsTest:
    """Williams' test (1959; Steiger 1980, equation 7): could two scores correlate equally with the labels?

    The two Pearson correlations are dependent, as both are with the same labels; for Spearman's give ranks.

    Returns:
        ``t`` with n - 3 degrees of freedom, above 0 where ``first`` correlates better, and the two-sided ``p`` (1 for
        equal scores); null with a ``reason`` for fewer than 4 examples or where a score is constant.
    """
    if len(labels) < 4 or any(np.ptp(values) == 0 for values in (labels, first, second)):
        return WilliamsTest(None, None, "fewer than 4 examples, or a score that never changes")
    matrix = np.corrcoef([labels, first, second])
    return williams_from_correlations(len(labels), matrix[0, 1], matrix[0, 2], matrix[1, 2])


def williams_from_correlations(n: int, r12: float, r13: float, r23: float) -> WilliamsTest:
    """Williams' test of r12 = r13 in ``n`` examples, from the three correlations; see :func:`williams`."""
    determinant = max(0.0, 1 - r12**2 - r13**2 - r23**2 + 2 * r12 * r13 * r23)
    mean = (r12 + r13) / 2
    spread = 2 * (n - 1) / (n - 3) * determinant + mean**2 * (1 - r23) ** 3
    if np.isclose(r12, r13, rtol=0, atol=1e-15) or spread <= 0:
        return WilliamsTest(0.0, 1.0)
    t = (r12 - r13) * np.sqrt((n - 1) * (1 + r23) / spread)
    return WilliamsTest(float(t), float(2 * stats.t.sf(abs(t), n - 3)))


def agreement(teacher: np.ndarray, student: np.ndarray) -> float:
    """Share of examples with the same class or the same set of labels, or the Pearson correlation of two scores."""
    if np.issubdtype(teacher.dtype, np.floating):
        return float(correlation("pearson", np.ones((1, len(teacher))), teacher, student)[0])
    return float(alike(teacher, student).mean())


def alike(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Tell in which examples two answers are the same, bool (n,): classes (n,), or all of a set (n, C) of 0 and 1."""
    same = first == second
    return same.all(1) if same.ndim == 2 else same


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def mean_kl(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Mean over examples of KL(teacher || student) of the class probabilities, in nats; logits (n, C)."""
    teacher, student = _log_softmax(teacher_logits), _log_softmax(student_logits)
    return float((np.exp(teacher) * (teacher - student)).sum(axis=1).mean())


def mean_binary_kl(teacher_logits: np.ndarray, student_logits: np.ndarray) -> float:
    """Mean over examples and labels of KL(teacher || student) of the two Bernoulli distributions, in nats.

    It is the loss ``logits`` of a multi-label task at temperature 1; logits (n, C).
    """
    found = 0.0
    for sign in (1.0, -1.0):  # that there is the label, and that there is not
        teacher, student = (log_expit(sign * each.astype(np.float64)) for each in (teacher_logits, student_logits))
        found += float((np.exp(teacher) * (teacher - student)).mean())
    return found


def expected_calibration_error(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599): mean |accuracy - confidence| over bins.

    Bins are ``num_bins`` equal widths of (0, 1], weighted by how many examples fall in; logits (n, C).
    """
    confidence = np.exp(_log_softmax(logits).max(axis=1))
    return _binned_gap(confidence, logits.argmax(axis=1) == labels, num_bins)


def label_calibration_error(logits: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Mean |share of labels that are there - their probability| over bins of it, of all labels together.

    Args:
        logits: (n, C), of labels that are decided one by one.
        labels: (n, C) of 0 and 1.
    """
    return _binned_gap(expit(logits.astype(np.float64)).ravel(), labels.ravel(), num_bins)


def _binned_gap(probability: np.ndarray, happened: np.ndarray, num_bins: int) -> float:
    """Return the mean gap between probability and frequency over bins of equal width, weighted by what they hold."""
    bins = np.clip(np.ceil(probability * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = np.bincount(bins, weights=happened - probability, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(happened))
