import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import evaluate
import numpy as np
import pytest

from distill.evaluation.evaluate_metrics import METRICS
from distill.evaluation.metrics import (
    compute_metrics,
    correlation_with_labels,
    metrics_over_splits,
    predictions,
)
from distill.tasks import TASKS, custom_task


def logits_of(classes, num_labels=2):
    """Logits whose largest entry is the given class."""
    return np.eye(num_labels)[np.asarray(classes)] * 3 - 1


def test_accuracy_and_f1_by_hand():
    # class 1: 2 true positives, 1 false positive, 1 false negative -> precision = recall = F1 = 2/3
    predicted, labels = [1, 1, 1, 0, 0], np.array([1, 1, 0, 1, 0])
    metrics = compute_metrics(TASKS["mrpc"], logits_of(predicted), labels)
    assert metrics == {"f1": pytest.approx(2 / 3), "accuracy": pytest.approx(3 / 5)}
    assert list(metrics) == ["f1", "accuracy"]
    assert type(metrics["f1"]) is float


def test_f1_of_a_class_that_is_neither_predicted_nor_present_is_zero_and_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compute_metrics(TASKS["mrpc"], logits_of([0, 0]), np.array([0, 0])) == {"f1": 0.0, "accuracy": 1.0}


def test_matthews_by_hand():
    # tp 2, tn 1, fp 1, fn 1: (2*1 - 1*1) / sqrt(3 * 3 * 2 * 2) = 1/6
    predicted, labels = [1, 1, 1, 0, 0], np.array([1, 1, 0, 1, 0])
    assert compute_metrics(TASKS["cola"], logits_of(predicted), labels) == {
        "matthews_correlation": pytest.approx(1 / 6)
    }


def test_macro_f1_by_hand():
    # class 0: p 1, r 1/2 -> 2/3; class 1: p 1/2, r 1 -> 2/3; class 2: 0 -> mean 4/9
    task = custom_task(["text"], "label", ["x", "y", "z"], False)
    metrics = compute_metrics(task, logits_of([0, 1, 1], 3), np.array([0, 0, 1]))
    assert metrics["macro_f1"] == pytest.approx(2 / 3)  # class 2 neither predicted nor present
    metrics = compute_metrics(task, logits_of([0, 1, 1, 0], 3), np.array([0, 0, 1, 2]))
    assert metrics["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_correlations_by_hand():
    # deviations (-1, 0, 1) and (-2, -1, 3): 5 / sqrt(2 * 14); ranks agree
    metrics = compute_metrics(TASKS["stsb"], np.array([[1.0], [2.0], [3.0]]), np.array([0.0, 1.0, 5.0], np.float32))
    assert metrics == {"pearson": pytest.approx(5 / math.sqrt(28)), "spearmanr": pytest.approx(1.0)}


def test_spearman_shares_ranks_of_ties():
    # ranks (1.5, 1.5, 3) and (1, 2, 3): 1.5 / sqrt(1.5 * 2)
    metrics = compute_metrics(TASKS["stsb"], np.array([[1.0], [1.0], [9.0]]), np.array([0.0, 1.0, 5.0]))
    assert metrics["spearmanr"] == pytest.approx(1.5 / math.sqrt(3))


def test_klue_sts_f1_is_of_scores_from_three():
    # similar: labels (1, 1, 0, 0), predictions (1, 0, 1, 0) -> F1 1/2
    logits = np.array([[3.0], [2.9], [4.0], [-1.0]])
    metrics = compute_metrics(TASKS["klue_sts"], logits, np.array([5.0, 3.0, 2.9, 0.0]))
    assert metrics["f1"] == pytest.approx(1 / 2)


@pytest.mark.parametrize("name", ["stsb", "cola"])
@pytest.mark.parametrize("constant_side", ["predictions", "labels", "both"])
def test_correlation_with_a_constant_is_zero_and_silent(name, constant_side):
    task = TASKS[name]
    varied = np.array([0, 1, 0, 1])
    predicted = varied if constant_side == "labels" else np.ones(4, int)
    labels = varied if constant_side == "predictions" else np.ones(4, int)
    logits = predicted[:, None].astype(float) if task.is_regression else logits_of(predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = compute_metrics(task, logits, labels)
    assert metrics == dict.fromkeys(task.metrics, 0.0)


def test_mnli_reports_both_splits():
    task = TASKS["mnli"]
    logits = {"validation_matched": logits_of([0, 1], 3), "validation_mismatched": logits_of([2, 1], 3)}
    labels = {"validation_matched": np.array([0, 1]), "validation_mismatched": np.array([2, 2])}
    assert metrics_over_splits(task, logits, labels) == {"accuracy": 1.0, "accuracy_mismatched": 0.5}
    one = metrics_over_splits(TASKS["mrpc"], {"validation": logits_of([1, 0])}, {"validation": np.array([1, 1])})
    assert one == compute_metrics(TASKS["mrpc"], logits_of([1, 0]), np.array([1, 1]))


@pytest.mark.parametrize("task", ["sst2", "mrpc", "cola", "mnli"])
def test_a_constant_answer_does_not_correlate_with_labels(task):
    labels = np.array([1] * 98 + [0] * 2)
    width = TASKS[task].num_labels
    assert correlation_with_labels(TASKS[task], logits_of([1] * 100, width), labels) == 0.0
    assert correlation_with_labels(TASKS[task], logits_of(labels.tolist(), width), labels) == 1.0


def test_scores_correlate_with_labels_whatever_their_unit():
    labels = np.linspace(0, 5, 7)
    assert correlation_with_labels(TASKS["stsb"], 1e-3 * labels[:, None] + 4, labels) == pytest.approx(1.0)
    assert correlation_with_labels(TASKS["stsb"], np.full((7, 1), 2.5), labels) == 0.0


def test_regression_scores_are_not_clipped():
    assert predictions(TASKS["stsb"], np.array([[-1.0], [7.0]])).tolist() == [-1.0, 7.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = logits_of([0, 1, 1])
    logits[1, 0] = bad
    with pytest.raises(ValueError, match="not finite, first in example 1"):
        compute_metrics(TASKS["sst2"], logits, np.array([0, 1, 1]))


@pytest.mark.parametrize("shape", [(3,), (3, 3), (0, 2)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        compute_metrics(TASKS["sst2"], np.zeros(shape), np.zeros(3, int))
    with pytest.raises(ValueError, match="2 predictions for 3 labels"):
        compute_metrics(TASKS["sst2"], np.zeros((2, 2)), np.zeros(3, int))


def test_nothing_is_written_and_many_may_compute_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    labels = np.arange(1000) % 2

    def accuracy(shift):
        return compute_metrics(TASKS["sst2"], logits_of((labels + (np.arange(1000) < shift)) % 2), labels)["accuracy"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(accuracy, range(0, 160, 10))) == [(1000 - shift) / 1000 for shift in range(0, 160, 10)]
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_evaluate_modules():
    assert all(isinstance(metric(), evaluate.Metric) for metric in METRICS.values())
    assert {name for task in TASKS.values() for name in task.metrics} <= set(METRICS)


@pytest.mark.network
@pytest.mark.parametrize("name", ["cola", "sst2", "mrpc", "stsb", "qqp", "rte"])
def test_parity_with_the_hub(name):
    task, generator = TASKS[name], np.random.default_rng(0)
    logits = generator.normal(size=(200, task.num_labels))
    labels = generator.uniform(0, 5, 200) if task.is_regression else generator.integers(0, 2, 200)
    theirs = evaluate.load("glue", name).compute(predictions=predictions(task, logits), references=labels)
    assert compute_metrics(task, logits, labels) == pytest.approx(theirs)
