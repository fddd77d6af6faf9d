"""Gain and never answered classes of hand-made logits."""

import numpy as np
import pytest

from distill.benchmark.points import Interval
from distill.evaluation.quality import gain_over_splits, never_answered, quality
from distill.tasks import TASKS, custom_task

LABELS = np.arange(40) % 2


def answers(classes, num_labels=2):
    return np.eye(num_labels)[classes]


def wrong_on(count):
    return {"validation": answers(np.where(np.arange(40) < count, 1 - LABELS, LABELS))}


def test_gain_is_student_minus_baseline():
    logits = {"student": wrong_on(4), "baseline": wrong_on(14)}
    gain = gain_over_splits(TASKS["sst2"], logits, {"validation": LABELS}, resamples=500)
    assert gain["accuracy"].value == pytest.approx(0.25)
    assert 0 < gain["accuracy"].low < 0.25 < gain["accuracy"].high
    turned = gain_over_splits(
        TASKS["sst2"], {"student": wrong_on(14), "baseline": wrong_on(4)}, {"validation": LABELS}, resamples=500
    )
    assert turned["accuracy"].high < 0


def test_gain_over_itself_is_nothing_and_paired():
    logits = {"student": wrong_on(9), "baseline": wrong_on(9)}
    gain = gain_over_splits(TASKS["mrpc"], logits, {"validation": LABELS}, resamples=100)
    assert gain == {name: Interval(0.0, 0.0, 0.0) for name in ("f1", "accuracy")}


def test_gain_of_every_split_and_of_correlations():
    labels = {"validation_matched": np.arange(30) % 3, "validation_mismatched": np.arange(30) % 3}
    right = {split: answers(values, 3) for split, values in labels.items()}
    half = {**right, "validation_mismatched": answers((labels["validation_mismatched"] + (np.arange(30) < 15)) % 3, 3)}
    gain = gain_over_splits(TASKS["mnli"], {"student": right, "baseline": half}, labels, resamples=50)
    assert [entry.value for entry in gain.values()] == pytest.approx([0.0, 0.5])
    assert list(gain) == ["accuracy", "accuracy_mismatched"]
    scores = np.linspace(0, 5, 30)
    noisy = scores + np.random.default_rng(0).normal(size=30) * 3
    logits = {"student": {"validation": scores[:, None]}, "baseline": {"validation": noisy[:, None]}}
    gain = gain_over_splits(TASKS["stsb"], logits, {"validation": scores}, resamples=50)
    assert gain["pearson"].value == pytest.approx(1 - np.corrcoef(scores, noisy)[0, 1])


def test_classes_that_occur_and_are_never_answered():
    task = custom_task(["text"], "label", ["bill", "bug", "praise", "unseen"], regression=False)
    labels = {"validation": np.array([0, 1, 2, 1])}
    logits = {
        "teacher": {"validation": answers([0, 1, 2, 2], 4)},
        "student": {"validation": answers([1, 1, 1, 3], 4)},
    }
    assert never_answered(task, logits, labels) == {"teacher": (), "student": ("bill", "praise")}


def test_quality_without_baseline_has_no_gain():
    both = {"teacher": wrong_on(2), "student": wrong_on(4)}
    assert quality(TASKS["sst2"], both, {"validation": LABELS}, 50, 0).gain is None
    with_baseline = quality(TASKS["sst2"], {**both, "baseline": wrong_on(4)}, {"validation": LABELS}, 50, 0)
    assert with_baseline.gain["accuracy"].value == 0
    assert with_baseline.never_answered == {"teacher": (), "student": (), "baseline": ()}


@pytest.mark.parametrize("count", [20, 200])
def test_few_examples_give_no_interval_of_no_width(count):
    labels = np.arange(count) % 2
    logits = {role: {"validation": answers(labels)} for role in ("teacher", "student", "baseline")}
    found = quality(TASKS["sst2"], logits, {"validation": labels}, resamples=50, seed=0)
    for interval in (found.retention["accuracy"], found.baseline_retention["accuracy"], found.gain["accuracy"]):
        assert (interval.low is None) == (count < 100)
        assert ("20 examples are too few" in (interval.reason or "")) == (count < 100)
    worse = logits | {"student": {"validation": answers(np.where(np.arange(count) < 5, 1 - labels, labels))}}
    assert quality(TASKS["sst2"], worse, {"validation": labels}, 50, 0).retention["accuracy"].low is not None
