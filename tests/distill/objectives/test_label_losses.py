"""Losses of labels that are decided one by one, and weights and smoothing of classes, by hand and against torch."""

import math

import pytest
import torch
from torch.nn import functional as F

from distill.objectives.losses import labels_loss, logits_loss


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_labels_one_by_one_by_hand():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0]])
    loss = labels_loss(logits, torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]))
    assert loss.tolist() == pytest.approx([(math.log(2) + math.log(4)) / 2, 0.0])


def test_hidden_labels_have_no_gradient():
    logits = normal(2, 3, seed=0).requires_grad_()
    labels_loss(logits, torch.tensor([[1.0, 0, 1], [torch.nan] * 3])).sum().backward()
    assert logits.grad[0].abs().min() > 0
    assert not logits.grad[1].any()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_divergence_of_labels_one_by_one_against_the_definition(temperature):
    student, teacher = normal(5, 4, seed=0), normal(5, 4, seed=1)
    p, q = (teacher / temperature).sigmoid(), (student / temperature).sigmoid()
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean(1) * temperature**2
    found = logits_loss(student, teacher, temperature, multi_label=True)
    torch.testing.assert_close(found, expected)
    for row in range(5):
        part = slice(row, row + 1)
        torch.testing.assert_close(
            logits_loss(student[part], teacher[part], temperature, multi_label=True), found[part]
        )


def test_divergence_does_not_depend_on_the_number_of_labels_or_on_the_temperature_for_its_gradient():
    student, teacher = normal(6, 3, seed=0) * 0.1, normal(6, 3, seed=1) * 0.1
    one = logits_loss(student, teacher, 1.0, multi_label=True)
    torch.testing.assert_close(logits_loss(student.repeat(1, 4), teacher.repeat(1, 4), 1.0, multi_label=True), one)
    torch.testing.assert_close(logits_loss(student, teacher, 5.0, multi_label=True), one, rtol=2e-2, atol=5e-6)


def test_loss_and_gradient_are_zero_where_the_student_is_the_teacher():
    teacher = normal(3, 4, seed=0) * 20
    student = teacher.clone().requires_grad_()
    loss = logits_loss(student, teacher, 2.0, multi_label=True)
    loss.sum().backward()
    assert loss.abs().max() < 1e-5
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
def test_classes_with_weights_and_smoothing_by_the_formula(weights, smoothing):
    logits, labels = normal(4, 3, seed=0), torch.tensor([0, 2, 1, -1])
    weighted = None if weights is None else torch.tensor(weights)
    found = labels_loss(logits, labels, weighted, smoothing)
    w, log = torch.ones(3) if weighted is None else weighted, logits.log_softmax(-1)
    expected = [
        -(1 - smoothing) * w[label] * log[row, label] - smoothing / 3 * (w * log[row]).sum()
        for row, label in enumerate(labels[:3])
    ]
    torch.testing.assert_close(found, torch.stack([*expected, torch.tensor(0.0)]))
    mean = F.cross_entropy(logits, labels, weight=weighted, label_smoothing=smoothing, ignore_index=-1)
    torch.testing.assert_close(found.sum() / w[labels[:3]].sum(), mean)
