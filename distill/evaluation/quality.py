"""Everything that follows from logits and labels: what was kept, what distilling gained, what is never answered.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from distill.benchmark.points import Interval
from distill.data.label_stratification import count_labels
from distill.evaluation import significance
from distill.evaluation.metrics import HALF, metrics_over_splits, predictions, scored_values, split_suffixes
from distill.evaluation.predictions_file import Logits
from distill.evaluation.record_parts import LinearForm, McNemarTest, Quality, WilliamsTest
from distill.evaluation.thresholds import Thresholds
from distill.tasks import Task


def retention_over_splits(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    model: str = "student",
    *,
    thresholds: Thresholds | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Retention of every metric of every split, named as in `metrics_over_splits`.

    Args:
        logits: role -> split -> (n, C), with ``teacher`` and ``model`` among the roles.
        labels: split -> (n,), or (n, C) of a multi-label task.
        model: whose retention.
        thresholds: of a multi-label task's models.
        resamples: bootstrap resamples.
        seed: of the resampling.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}

    def kept(metric: str, *values: np.ndarray) -> Interval:
        return significance.retention(metric, *values, **options)

    return _over_splits(task, logits, labels, thresholds or {}, ("teacher", model), kept)


def gain_over_splits(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    *,
    thresholds: Thresholds | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return student's minus baseline's score in every metric of every split, with a 95 % interval (paired bootstrap).

    Arguments as in :func:`retention_over_splits`, with ``student`` and ``baseline`` among the roles.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}

    def gained(metric: str, truth: np.ndarray, baseline: np.ndarray, student: np.ndarray) -> Interval:
        return significance.gain_over_seeds(metric, truth, [baseline], [student], **options)

    return _over_splits(task, logits, labels, thresholds or {}, ("baseline", "student"), gained)


def _over_splits(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    thresholds: Thresholds,
    roles: tuple[str, str],
    compare: Callable[..., Interval],
) -> dict[str, Interval]:
    """Compare two models by every metric of every split; ``compare`` is given the metric, labels and predictions."""
    found: dict[str, Interval] = {}
    for split, suffix in split_suffixes(task).items():
        predicted = [predictions(task, logits[role][split], thresholds.get(role, HALF)) for role in roles]
        for metric in task.metrics:
            arrays = (scored_values(task, metric, values) for values in (labels[split], *predicted))
            found[metric + suffix] = compare(metric, *arrays)
    return found


def never_answered(
    task: Task, logits: Logits, labels: Mapping[str, np.ndarray], thresholds: Thresholds | None = None
) -> dict[str, tuple[str, ...]]:
    """Return, for every model, the names of the classes that are among the labels and that it never predicts.

    Arguments as in :func:`retention_over_splits`; a classification; all splits count together.
    """
    occurring = count_labels(task, np.concatenate([labels[split] for split in task.validation_splits])) > 0
    found = {}
    for role, by_split in logits.items():
        threshold = (thresholds or {}).get(role, HALF)
        answers = [predictions(task, by_split[split], threshold) for split in task.validation_splits]
        never = occurring & (count_labels(task, np.concatenate(answers)) == 0)
        found[role] = tuple(task.label_names[label] for label in np.flatnonzero(never))
    return found


def quality(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    resamples: int,
    seed: int,
    thresholds: Thresholds | None = None,
) -> Quality:
    """Everything that follows from logits and labels; agreement and tests are on the first validation split.

    Of a multi-label task an answer is the whole set of labels: two agree if they are the same set, and one is right if
    it is the true one.
    """
    split, of = task.validation_splits[0], thresholds or {}
    teacher, student = (predictions(task, logits[role][split], of.get(role, HALF)) for role in ("teacher", "student"))
    options: dict[str, Any] = {"thresholds": of, "resamples": resamples, "seed": seed}
    found: dict[str, Any] = {"retention": retention_over_splits(task, logits, labels, **options)}
    if "baseline" in logits:
        found["baseline_retention"] = retention_over_splits(task, logits, labels, "baseline", **options)
        found["gain"] = gain_over_splits(task, logits, labels, **options)
    count = len(labels[split])
    found = {name: significance.without_false_certainty(intervals, count) for name, intervals in found.items()}
    found["agreement"] = significance.agreement(teacher, student)
    if task.is_regression:
        return Quality(**found, williams=_williams(task, labels[split], teacher, student))
    test = significance.mcnemar(labels[split], teacher, student)
    divergence = significance.mean_binary_kl if task.multi_label else significance.mean_kl
    return Quality(
        **found,
        kl_to_teacher=divergence(logits["teacher"][split], logits["student"][split]),
        mcnemar=McNemarTest(int(test["only_first"]), int(test["only_second"]), test["p"]),
        never_answered=never_answered(task, logits, labels, of),
    )


def linear_form_quality(
    task: Task,
    linear: Mapping[str, np.ndarray],
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    resamples: int,
    seed: int,
    thresholds: Thresholds | None = None,
) -> LinearForm:
    """Return what a student that attends short texts exactly answers without that, by its linear form.

    Agreement is on the first validation split, and of a classification only. The form answers by the student's
    threshold.

    Args:
        linear: split -> (n, C), of its linear form.
        logits: as in :func:`quality`.
    """
    split, of = task.validation_splits[0], dict(thresholds or {})
    own = of["linear"] = of.get("student", HALF)
    roles = {"teacher": logits["teacher"], "linear": linear}
    answers = (predictions(task, of_form[split], own) for of_form in (logits["student"], linear))
    retention = retention_over_splits(task, roles, labels, "linear", thresholds=of, resamples=resamples, seed=seed)
    return LinearForm(
        metrics_over_splits(task, linear, labels, own),
        significance.without_false_certainty(retention, len(labels[split])),
        None if task.is_regression else significance.agreement(*answers),
    )


def _williams(task: Task, *scores: np.ndarray) -> dict[str, WilliamsTest]:
    """Return Williams' test of labels, teacher's and student's scores for every correlation among the metrics."""
    tested = {}
    if "pearson" in task.metrics:
        tested["pearson"] = significance.williams(*scores)
    if "spearmanr" in task.metrics:
        tested["spearmanr"] = significance.williams(*(rankdata(values) for values in scores))
    return tested
