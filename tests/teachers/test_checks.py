"""Teachers that nothing should be distilled from."""

import json
import re

import numpy as np
import pytest

from distill.tasks import custom_task, get_task
from distill.utils.errors import UserError
from teachers.checks import calibration_warning, check_label_order, check_teacher

SST2, MNLI, STSB = get_task("sst2"), get_task("mnli"), get_task("stsb")


def logits_for(classes: np.ndarray, num_labels: int) -> np.ndarray:
    """Return logits whose largest is that of the given classes."""
    return np.eye(num_labels)[classes] * 3.0


@pytest.fixture
def labels():
    return np.array([0, 1, 2] * 20)


def test_a_good_teacher_passes(labels):
    predicted = labels.copy()
    predicted[:6] = 0
    check_teacher(MNLI, logits_for(predicted, 3), labels, margin=0.02)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite(bad, labels):
    logits = logits_for(labels, 3)
    logits[7, 1] = bad
    with pytest.raises(UserError, match=r"not finite.*teacher\.learning_rate"):
        check_teacher(MNLI, logits, labels, margin=0.02)


@pytest.mark.parametrize("majority", [50, 98])
def test_a_constant_answer_is_refused_at_every_margin(majority):
    labels = np.array([1] * majority + [0] * (100 - majority))
    for margin in (0.0, 0.05, 0.9):
        with pytest.raises(UserError, match=r"answers every text of validation with positive"):
            check_teacher(SST2, logits_for(np.ones(100, int), 2), labels, margin=margin)
    check_teacher(SST2, logits_for(np.ones(100, int), 2), labels, margin=-1)


def test_scores_that_hardly_differ_are_one_answer():
    labels = np.linspace(0, 1e5, 10).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(10, 1))
    with pytest.raises(UserError, match=r"answers every text of validation with 3\.\d*"):
        check_teacher(STSB, 3 + noise * 0.1, labels, margin=0)
    check_teacher(STSB, labels[:, None] + noise * 1e4, labels, margin=0)


def test_a_negative_margin_accepts_chance():
    labels = np.array([1, 0] * 50)
    predicted = np.repeat([1, 0], 50)
    check_teacher(SST2, logits_for(predicted, 2), labels, margin=-1)
    with pytest.raises(UserError, match="below the floor"):
        check_teacher(SST2, logits_for(predicted, 2), labels, margin=0)


def test_a_perfect_teacher_of_a_rare_class_passes():
    labels = np.array([0] * 995 + [1] * 5)
    check_teacher(SST2, logits_for(labels, 2), labels, margin=0.05)


def test_the_floor_is_a_correlation():
    labels = np.array([1, 0] * 50)
    predicted = labels.copy()
    predicted[:40] = 1 - predicted[:40]  # 60 of 100 are right: Matthews' correlation is 0.2
    check_teacher(SST2, logits_for(predicted, 2), labels, margin=0.19)
    with pytest.raises(UserError, match=r"is 0\.20 .*below the floor 0\.21"):
        check_teacher(SST2, logits_for(predicted, 2), labels, margin=0.21)


def test_the_floor_of_a_regression_is_above_no_correlation():
    labels = np.linspace(0, 5, 10).astype(np.float32)
    check_teacher(STSB, labels[:, None] / 100, labels, margin=0.05)
    with pytest.raises(UserError, match="Pearson's correlation"):
        check_teacher(STSB, labels[::-1, None], labels, margin=0.0)


def test_two_swapped_labels_are_named():
    labels = np.array([0, 1] * 30)
    with pytest.raises(UserError, match="fits negative = output 1, positive = output 0") as refusal:
        check_teacher(SST2, logits_for(1 - labels, 2), labels, margin=0.02)
    assert "100 points" in str(refusal.value)


def test_the_way_out_names_the_outputs_as_they_are():
    labels = np.array([0, 1, 2] * 20)
    with pytest.raises(UserError) as refusal:
        check_teacher(MNLI, logits_for((labels + 1) % 3, 3), labels, margin=0.02)
    found = re.search(r'"id2label": (\{.*\})$', str(refusal.value))
    assert json.loads(found[1]) == {"0": "contradiction", "1": "entailment", "2": "neutral"}


def test_names_that_are_wrong_in_the_configuration_are_told_apart():
    labels = np.array([0, 1] * 30)
    with pytest.raises(UserError, match=r"what it calls negative is positive, positive is negative$"):
        check_teacher(SST2, logits_for(1 - labels, 2), labels, margin=0.02, matched_by_name=True)


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]])
def test_every_permutation_of_three_labels_is_found(order, labels):
    predicted = np.array(order)[labels]
    noise = np.random.default_rng(0).random(len(labels)) < 0.2
    predicted[noise] = 0
    fits = ", ".join(f"{name} = output {order[index]}" for index, name in enumerate(MNLI.label_names))
    with pytest.raises(UserError, match=f"it fits {fits}"):
        check_label_order(MNLI, logits_for(predicted, 3), labels)


def test_chance_is_not_taken_for_a_permutation():
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 2, 1000), generator.integers(0, 2, 1000)
    check_label_order(SST2, logits_for(predicted, 2), labels)
    check_label_order(SST2, logits_for(np.ones(1000, int), 2), labels)


SEVERAL = custom_task(["text"], "tags", ["a", "b", "c"], False, multi_label=True)


@pytest.fixture
def sets():
    """Labels (60, 3), which are there in a half, a third and a quarter of the rows."""
    return np.stack([np.arange(60) % step == 0 for step in (2, 3, 4)], 1).astype(np.float32)


@pytest.mark.parametrize(("answer", "named"), [([0, 0, 0], "no label"), ([1, 0, 1], "a, c")])
def test_one_set_of_labels_for_every_text_is_refused(answer, named, sets):
    logits = np.tile(np.where(answer, 2.0, -2.0), (60, 1)) + np.random.default_rng(0).normal(size=(60, 3)) * 0.1
    with pytest.raises(UserError, match=f"answers every text of validation with {named}: there is nothing"):
        check_teacher(SEVERAL, logits, sets, margin=0.0)
    check_teacher(SEVERAL, logits, sets, margin=-1)


def test_the_floor_of_sets_of_labels_is_a_mean_correlation_at_the_threshold(sets):
    good = np.where(sets == 1, -1.0, -3.0)  # all below a half
    with pytest.raises(UserError, match="answers every text of validation with no label"):
        check_teacher(SEVERAL, good, sets, margin=0.05)
    check_teacher(SEVERAL, good, sets, margin=0.05, threshold=0.2)
    noise = np.random.default_rng(1).normal(size=sets.shape)
    with pytest.raises(UserError, match=r"^Mean Matthews' correlation .*below the floor 0\.50"):
        check_teacher(SEVERAL, noise, sets, margin=0.5)


def test_labels_of_sets_in_another_order_are_named(sets):
    logits = np.where(sets == 1, 2.0, -2.0)
    check_label_order(SEVERAL, logits, sets)
    with pytest.raises(UserError, match="it fits a = output 1, b = output 2, c = output 0"):
        check_label_order(SEVERAL, logits[:, [2, 0, 1]], sets)
    check_label_order(SEVERAL, np.random.default_rng(0).normal(size=(60, 3)) * 0.01, np.eye(3)[[0] * 60])


def test_a_teacher_too_sure_of_its_labels_is_told(sets):
    sure = np.where(np.roll(sets, 1, 0) == 1, 9.0, -9.0)
    assert "100 % sure" in calibration_warning(SEVERAL, sure, sets)
    assert calibration_warning(SEVERAL, np.where(sets == 1, 9.0, -9.0), sets) is None
    assert "100 % sure" in calibration_warning(SST2, 9 * np.eye(2)[[0, 1] * 4], np.array([0] * 8))


def test_a_teacher_of_one_answer_is_not_taken_for_a_permuted_one():
    labels = np.array([0] * 13 + [1] * 24)
    check_label_order(SST2, logits_for(np.zeros(37, int), 2), labels)
    with pytest.raises(UserError, match="answers every text of validation with negative"):
        check_teacher(SST2, logits_for(np.zeros(37, int), 2), labels, margin=0.02)
