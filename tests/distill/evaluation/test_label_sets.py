"""Answers that are sets of labels: scores and intervals against scikit-learn's, thresholds, what follows of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit, rel_entr
from sklearn import metrics as sklearn_metrics

from distill.config.schema import TrainingConfig
from distill.data.splits import Examples
from distill.evaluation import significance
from distill.evaluation.bootstrap import bootstrap_metric
from distill.evaluation.disagreements import find_disagreements
from distill.evaluation.metrics import compute_metrics, correlation_with_labels, predictions
from distill.evaluation.predict import held_out_scorer, settle_threshold
from distill.evaluation.predictions_file import (
    answers_of,
    labels_of,
    predictions_frame,
    read_predictions,
    write_predictions,
)
from distill.evaluation.quality import never_answered, quality
from distill.evaluation.thresholds import GRID, best_threshold, threshold_of
from distill.tasks import custom_task, get_task
from distill.training.context import TrainingContext
from distill.utils.errors import UserError

NAMES = ("a", "b", "c", "d")
TASK = custom_task(["text"], "tags", NAMES, False, "subset_accuracy", multi_label=True)
METRICS = {
    "micro_f1": lambda labels, given: sklearn_metrics.f1_score(labels, given, average="micro", zero_division=0),
    "macro_f1": lambda labels, given: sklearn_metrics.f1_score(labels, given, average="macro", zero_division=np.nan),
    "subset_accuracy": sklearn_metrics.accuracy_score,
}


def make_logits(count=80, seed=0, noise=1.5):
    """Return labels (n, 4) of unequal shares, and logits of a model that knows something of them."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, 4)) < (0.6, 0.3, 0.1, 0.04)).astype(np.float32)
    logits = 3 * labels - 2 + generator.normal(scale=noise, size=labels.shape)
    return labels, logits.astype(np.float32)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_scores_are_those_of_scikit_learn(threshold):
    labels, logits = make_logits()
    given = (expit(logits) >= threshold).astype(int)
    assert predictions(TASK, logits, threshold).tolist() == given.tolist()
    expected = {name: METRICS[name](labels, given) for name in TASK.metrics}
    assert compute_metrics(TASK, logits, labels, threshold) == pytest.approx(expected)
    assert list(expected) == ["subset_accuracy", "micro_f1", "macro_f1"]


@pytest.mark.parametrize("swap", [False, True])
def test_a_label_that_one_side_alone_has_counts_as_wrong(swap):
    """Given and never right, or had and never found: its F1 is 0, and part of the mean."""
    one, other = np.array([[1, 0, 0, 0], [1, 1, 0, 0]]), np.array([[1, 0, 0, 0], [1, 0, 0, 0]])
    labels, given = (other, one) if swap else (one, other)
    logits = np.where(given == 1, 9.0, -9.0)
    assert compute_metrics(TASK, logits, labels.astype(np.float32))["macro_f1"] == 0.5
    assert bootstrap_metric("macro_f1", labels, [given], resamples=1, seed=0)[0, 0] == 0.5


def test_a_label_that_nobody_has_or_gives_is_no_part_of_macro_f1():
    labels = np.array([[1, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    logits = np.where(labels == 1, 5.0, -5.0)
    assert compute_metrics(TASK, logits, labels)["macro_f1"] == 1.0
    nothing = compute_metrics(TASK, np.full((2, 4), -5.0), np.zeros((2, 4), np.float32))
    assert nothing == {"subset_accuracy": 1.0, "micro_f1": 0.0, "macro_f1": 0.0}


@pytest.mark.parametrize("metric", METRICS)
def test_resamples_are_those_of_the_examples(metric):
    """Against the metric of repeated rows, called once per resample; the draws are the same."""
    labels, logits = make_logits(60)
    first, second = (predictions(TASK, each) for each in (logits, make_logits(60, noise=3.0)[1]))
    ours = bootstrap_metric(metric, labels, (first, second), resamples=40, seed=3)
    drawn = np.random.default_rng(3).integers(0, 60, (40, 60))
    rows = [np.arange(60), *drawn]
    theirs = [[METRICS[metric](labels[row].astype(int), given[row]) for given in (first, second)] for row in rows]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_one_of_a_thousand_resamples_takes_little_time():
    labels, logits = make_logits(2000)
    given = predictions(TASK, logits)
    kept = significance.retention("macro_f1", labels, given, given, resamples=1000)
    assert (kept.value, kept.low, kept.high) == (1.0, 1.0, 1.0)


def test_the_threshold_is_the_one_of_the_highest_micro_f1():
    labels, logits = make_logits(300, noise=2.0)
    scores = [METRICS["micro_f1"](labels, predictions(TASK, logits, threshold)) for threshold in GRID]
    chosen = best_threshold(logits, labels)
    assert METRICS["micro_f1"](labels, predictions(TASK, logits, chosen)) == max(scores)
    assert chosen != 0.5
    shifted = best_threshold(logits - 1.5, labels)
    assert shifted < chosen, "what all probabilities lose, the threshold loses too"


def test_of_equal_thresholds_the_nearest_to_a_half_is_chosen():
    labels = np.array([[1, 0], [0, 1]], np.float32)
    assert best_threshold(np.where(labels == 1, 9.0, -9.0), labels) == 0.5
    assert best_threshold(np.where(labels == 1, 9.0, 1.0), labels) == pytest.approx(0.74)  # sigmoid(1) = 0.73
    assert best_threshold(np.full((2, 2), np.nan), labels) == 0.5


@pytest.mark.parametrize("between", [0.01, 0.37, 0.99])
def test_thresholds_are_hundredths_from_the_first_to_the_last(between):
    """One of them alone tells these probabilities apart."""
    probabilities = np.array([[between - 1e-4, between + 1e-4]])
    assert best_threshold(logit(probabilities), np.array([[0, 1]])) == between


@pytest.mark.parametrize("threshold", ["0.4", 0, 1, 1.5, -0.2, True, [0.4]])
def test_a_threshold_that_is_none_is_refused(threshold):
    model = SimpleNamespace(config=SimpleNamespace(threshold=threshold, name_or_path="mine"))
    with pytest.raises(UserError, match=r"mine: threshold in its config.json is .*between 0 and 1"):
        threshold_of(model)


def multi_label_examples(make_examples, count=40):
    labels = np.stack([np.arange(count) % (step + 2) == 0 for step in range(4)], 1).astype(np.float32)
    return replace(make_examples(count), labels=labels)


def test_a_threshold_is_settled_once_and_anew_after_training(make_bert, make_examples, tmp_path):
    model = make_bert(num_labels=4, problem_type=TASK.problem_type)
    examples = multi_label_examples(make_examples)
    settle_threshold(get_task("sst2"), model, examples, "cpu")
    assert getattr(model.config, "threshold", None) is None
    assert threshold_of(model) == 0.5
    model.config.threshold = 0.999
    settle_threshold(TASK, model, examples, "cpu")
    assert model.config.threshold == 0.999
    settle_threshold(TASK, model, examples, "cpu", anew=True)
    assert model.config.threshold in GRID
    model.save_pretrained(tmp_path)
    assert threshold_of(type(model).from_pretrained(tmp_path)) == model.config.threshold


def test_epochs_are_scored_at_the_threshold_that_would_be_chosen(make_bert, make_examples, make_accelerator):
    model, examples = make_bert(num_labels=4), multi_label_examples(make_examples)
    run = TrainingContext(make_accelerator(), TrainingConfig(), 1)
    score, metrics = held_out_scorer(run, TASK, examples)(model)
    settle_threshold(TASK, model, examples, "cpu")
    assert model.config.threshold != 0.5
    settled = {name: value for name, value in metrics.items()}
    logits = np.concatenate([model(**batch).logits.detach().numpy() for batch in batches(examples)])
    assert settled == pytest.approx(compute_metrics(TASK, logits, examples.labels, model.config.threshold))
    assert score == pytest.approx(np.mean(list(metrics.values())))


def batches(examples):
    from distill.data.batching import collate

    return [collate(examples, np.array([index]))[0] for index in range(len(examples))]


def test_the_correlation_is_the_mean_over_labels_that_vary():
    labels, logits = make_logits()
    labels[:, 3] = 0
    given = predictions(TASK, logits)
    expected = np.mean([sklearn_metrics.matthews_corrcoef(labels[:, each], given[:, each]) for each in range(3)])
    assert correlation_with_labels(TASK, logits, labels) == pytest.approx(expected)
    assert correlation_with_labels(TASK, np.full_like(logits, -3.0), labels) == 0.0
    assert correlation_with_labels(TASK, np.where(labels == 1, 5.0, -5.0), labels) == 1.0


def test_divergence_and_calibration_of_labels_one_by_one():
    teacher, student = make_logits()[1], make_logits(noise=3.0)[1]
    p, q = expit(teacher.astype(float)), expit(student.astype(float))
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean()
    assert significance.mean_binary_kl(teacher, student) == pytest.approx(expected, rel=1e-6)
    assert significance.mean_binary_kl(teacher, teacher) == 0.0
    assert significance.mean_binary_kl(np.full((1, 2), 900.0), np.full((1, 2), -900.0)) == pytest.approx(900.0)
    sure = np.where(np.arange(20)[:, None] % 2 == [0, 1], 50.0, -50.0)
    assert significance.label_calibration_error(sure, (sure > 0).astype(float)) == pytest.approx(0.0)
    half = np.zeros((10, 2))
    assert significance.label_calibration_error(half, np.ones((10, 2))) == pytest.approx(0.5)


def test_answers_are_equal_and_right_as_whole_sets():
    labels = np.array([[1, 0], [0, 0], [1, 1], [0, 1]])
    teacher = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
    student = np.array([[1, 0], [1, 0], [1, 1], [1, 0]])
    assert significance.agreement(teacher, student) == 0.25
    assert significance.mcnemar(labels, teacher, student) | {"p": None} == {
        "only_first": 2,
        "only_second": 1,
        "p": None,
    }


def test_quality_at_a_threshold_of_each_model():
    labels, teacher = make_logits(200)
    student = make_logits(200, noise=2.5)[1]
    logits = {role: {"validation": each} for role, each in (("teacher", teacher), ("student", student))}
    thresholds = {"teacher": 0.3, "student": 0.7}
    found = quality(TASK, logits, {"validation": labels}, 50, 0, thresholds)
    scores = [
        compute_metrics(TASK, each, labels, threshold)["micro_f1"]
        for each, threshold in ((student, 0.7), (teacher, 0.3))
    ]
    assert found.retention["micro_f1"].value == pytest.approx(scores[0] / scores[1])
    assert found.retention["micro_f1"].low < found.retention["micro_f1"].value < found.retention["micro_f1"].high
    alike = (predictions(TASK, teacher, 0.3) == predictions(TASK, student, 0.7)).all(1).mean()
    assert found.agreement == pytest.approx(alike)
    assert found.kl_to_teacher == significance.mean_binary_kl(teacher, student)
    never = never_answered(TASK, logits, {"validation": labels}, {"teacher": 0.3, "student": 0.9999})
    assert never["teacher"] == ()
    assert "d" in never["student"]


@pytest.fixture
def frame(make_examples):
    examples = multi_label_examples(make_examples, 6)
    logits = {
        "teacher": {"validation": np.where(examples.labels == 1, 2.0, -2.0)},
        "student": {"validation": np.full((6, 4), -0.5)},
    }
    return predictions_frame(logits, {"validation": examples}, {"teacher": 0.5, "student": 0.3})


def test_predictions_keep_sets_of_labels_and_thresholds(frame, tmp_path):
    path = tmp_path / "predictions.parquet"
    write_predictions(frame, path)
    read = read_predictions(path)
    assert list(read.columns) == [
        *("id", "split", "label"),
        *("teacher_logits", "teacher_threshold", "student_logits", "student_threshold"),
    ]
    assert labels_of(read).tolist() == labels_of(frame).tolist() == answers_of(TASK, read, "teacher").tolist()
    assert answers_of(TASK, read, "student").all(), "sigmoid(-0.5) = 0.38 reaches 0.3"
    assert read[["split", "id", "label"]].equals(read_predictions(path)[["split", "id", "label"]])
    other = read.assign(label=[row[::-1].copy() for row in read["label"]])
    assert not read[["label"]].equals(other[["label"]])


def test_disagreements_name_the_labels(frame):
    texts = Examples(np.arange(6), [(f"text {row}",) for row in range(6)], labels_of(frame))
    found = find_disagreements(TASK, frame, {"validation": texts})
    assert found[0]["student"] == "a, b, c, d"
    assert {"(none)"} == {each["label"] for each in found if not labels_of(frame)[int(each["text"][0][-1])].any()}
    assert [each["text"] for each in found if each["label"] == "a, b, c, d"] == []
    assert isinstance(frame, pd.DataFrame)
