"""Everything that follows from logits and labels: what was kept, what distilling gained, what is never answered.

Shapes: n examples, C labels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from distill.evaluation import significance
from distill.evaluation.metrics import metrics_over_splits, predictions, scored_values
from distill.evaluation.predictions_file import Logits
from distill.evaluation.record import Record
from distill.tasks import Task


def retention_over_splits(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    model: str = "student",
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Retention of every metric of every split, named as in `metrics_over_splits`.

    Args:
        logits: role -> split -> (n, C), with ``teacher`` and ``model`` among the roles.
        labels: split -> (n,).
        model: whose retention.
        resamples: bootstrap resamples.
        seed: of the resampling.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}

    def kept(metric: str, *values: np.ndarray) -> dict[str, Any]:
        return significance.retention(metric, *values, **options)

    return _over_splits(task, logits, labels, ("teacher", model), kept)


def gain_over_splits(
    task: Task, logits: Logits, labels: Mapping[str, np.ndarray], *, resamples: int = 10_000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return student's minus baseline's score in every metric of every split, with a 95 % interval (paired bootstrap).

    Arguments as in :func:`retention_over_splits`, with ``student`` and ``baseline`` among the roles.
    """
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}

    def gained(metric: str, truth: np.ndarray, baseline: np.ndarray, student: np.ndarray) -> dict[str, Any]:
        return significance.gain_over_seeds(metric, truth, [baseline], [student], **options)

    return _over_splits(task, logits, labels, ("baseline", "student"), gained)


def _over_splits(
    task: Task,
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    roles: tuple[str, str],
    compare: Callable[..., dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Compare two models by every metric of every split; ``compare`` is given the metric, labels and predictions."""
    found: dict[str, dict[str, Any]] = {}
    for position, split in enumerate(task.validation_splits):
        suffix = f"_{split.removeprefix('validation_')}" if position else ""
        predicted = [predictions(task, logits[role][split]) for role in roles]
        for metric in task.metrics:
            arrays = (scored_values(task, metric, values) for values in (labels[split], *predicted))
            found[metric + suffix] = compare(metric, *arrays)
    return found


def never_answered(task: Task, logits: Logits, labels: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Return, for every model, the names of the classes that are among the labels and that it never predicts.

    Arguments as in :func:`retention_over_splits`; a classification; all splits count together.
    """
    occurring = np.unique(np.concatenate([labels[split] for split in task.validation_splits]))
    found = {}
    for role, by_split in logits.items():
        answered = np.concatenate([predictions(task, by_split[split]) for split in task.validation_splits])
        found[role] = [task.label_names[label] for label in np.setdiff1d(occurring, answered)]
    return found


def quality(task: Task, logits: Logits, labels: Mapping[str, np.ndarray], resamples: int, seed: int) -> Record:
    """Everything that follows from logits and labels; agreement and tests are on the first validation split."""
    split = task.validation_splits[0]
    teacher, student = (predictions(task, logits[role][split]) for role in ("teacher", "student"))
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    found: Record = {
        "retention": retention_over_splits(task, logits, labels, **options),
        "agreement": significance.agreement(teacher, student),
    }
    if "baseline" in logits:
        found["baseline_retention"] = retention_over_splits(task, logits, labels, "baseline", **options)
        found["gain"] = gain_over_splits(task, logits, labels, **options)
    if not task.is_regression:
        found["kl_to_teacher"] = significance.mean_kl(logits["teacher"][split], logits["student"][split])
        test = significance.mcnemar(labels[split], teacher, student)
        found["mcnemar"] = {"only_teacher": test["only_first"], "only_student": test["only_second"], "p": test["p"]}
        found["never_answered"] = never_answered(task, logits, labels)
    else:
        found["williams"] = _williams(task, labels[split], teacher, student)
    return found


def linear_form_quality(
    task: Task,
    linear: Mapping[str, np.ndarray],
    logits: Logits,
    labels: Mapping[str, np.ndarray],
    resamples: int,
    seed: int,
) -> Record:
    """Return the record's ``linear_form``: what a student that attends short texts exactly answers without that.

    Args:
        linear: split -> (n, C), of its linear form.
        logits: as in :func:`quality`.

    Returns:
        ``metrics``, ``retention``, and of a classification ``agreement``: the share of the first split's examples
        that both forms answer alike.
    """
    split = task.validation_splits[0]
    roles = {"teacher": logits["teacher"], "linear": linear}
    found: Record = {
        "metrics": metrics_over_splits(task, linear, labels),
        "retention": retention_over_splits(task, roles, labels, "linear", resamples=resamples, seed=seed),
    }
    if not task.is_regression:
        answers = (predictions(task, of_form[split]) for of_form in (logits["student"], linear))
        found["agreement"] = significance.agreement(*answers)
    return found


def _williams(task: Task, *scores: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return Williams' test of labels, teacher's and student's scores for every correlation among the metrics."""
    tested = {}
    if "pearson" in task.metrics:
        tested["pearson"] = significance.williams(*scores)
    if "spearmanr" in task.metrics:
        tested["spearmanr"] = significance.williams(*(rankdata(values) for values in scores))
    return tested
