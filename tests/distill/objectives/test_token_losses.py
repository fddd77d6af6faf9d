"""The losses of a language model: the mean over the places where a token is to be predicted, and no other place."""

import pytest
import torch
from torch.nn import functional as F

from distill.data.labels import HIDDEN
from distill.objectives.losses import logits_loss, token_labels_loss, token_logits_loss

LABELS = torch.tensor([[3, HIDDEN, 1, 2], [HIDDEN, HIDDEN, HIDDEN, 4], [HIDDEN] * 4])
PLACES = [(0, [0, 2, 3]), (1, [3])]


def logits(seed):
    return torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(seed))


def test_labels_count_where_there_are_any():
    student = logits(0)
    found = token_labels_loss(student, LABELS)
    for row, places in PLACES:
        assert found[row].item() == pytest.approx(F.cross_entropy(student[row, places], LABELS[row, places]).item())
    assert found[2] == 0


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_teacher_counts_at_the_same_places(temperature):
    student, teacher = logits(0), logits(1)
    found = token_logits_loss(student, teacher, LABELS, temperature)
    for row, places in PLACES:
        expected = logits_loss(student[row, places], teacher[row, places], temperature).mean()
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found[2] == 0
    elsewhere = student.clone()
    elsewhere[LABELS == HIDDEN] += 5
    assert torch.equal(token_logits_loss(elsewhere, teacher, LABELS, temperature), found)


def test_gradients_reach_those_places_alone():
    student = logits(0).requires_grad_()
    (token_labels_loss(student, LABELS) + token_logits_loss(student, logits(1), LABELS, 2.0)).sum().backward()
    moved = (student.grad != 0).any(-1)
    assert torch.equal(moved, LABELS != HIDDEN)
