"""Every loss against numbers worked out by hand, and what all of them promise: padding, cuts of the batch, zero."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from distill.objectives.losses import (
    attention_map_cross_entropy,
    labels_loss,
    logits_loss,
    masked_mse,
    restrict_map,
    value_relations,
)

THREE_QUARTERS = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
"""KL((0.75, 0.25) || (0.5, 0.5)) = 0.1308 nats."""

LENGTHS = torch.tensor([6, 2, 4])
MASK = torch.arange(6) < LENGTHS[:, None]


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention_map(scores: Tensor, mask: Tensor) -> Tensor:
    return scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1)


def map_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """The map loss as a function of two states (B, N, D), of which the scores are made."""
    scores = [states[:, None] @ states[:, None].mT for states in (student, teacher)]
    return attention_map_cross_entropy(attention_map(scores[0], mask), attention_map(scores[1], mask), mask)


PER_TOKEN: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "masked_mse": masked_mse,
    "attention_map": map_loss,
    "value_relations": lambda student, teacher, mask: value_relations(student, teacher, mask, 2),
}


def test_masked_mse_by_hand():
    teacher = torch.tensor([[[1.0, 3], [5, 7], [100, 100]]])
    student = torch.tensor([[[2.0, 3], [5, 5], [0, 0]]])
    # (1 + 4) over the spread of 1, 3, 5, 7 around 4, which is 9 + 1 + 1 + 9
    assert masked_mse(student, teacher, torch.tensor([[True, True, False]])).item() == pytest.approx(5 / 20)


def test_a_student_that_predicts_the_mean_scores_one_at_any_scale():
    teacher = normal(2, 6, 4, seed=0)
    for scale in (1.0, 300.0):
        mean = (scale * teacher).mean((1, 2), keepdim=True).expand_as(teacher)
        loss = masked_mse(mean, scale * teacher, torch.ones(2, 6, dtype=torch.bool))
        assert torch.allclose(loss, torch.ones(2), atol=1e-4)


def test_attention_map_divergence_by_hand():
    uniform = torch.full((2, 2), 0.5)
    peaked = torch.tensor([[0.75, 0.25], [0.5, 0.5]])
    student = torch.stack([uniform, uniform])[None]
    teacher = torch.stack([peaked, uniform])[None]
    mask = torch.ones(1, 2, dtype=torch.bool)
    # one of two rows of one of two heads differs
    assert attention_map_cross_entropy(student, teacher, mask).item() == pytest.approx(THREE_QUARTERS / 4)


def test_restricted_maps_by_hand():
    teacher = torch.tensor([[[[0.5, 0.25, 0.25], [0.1, 0.9, 0.0], [0.2, 0.2, 0.6]]]])
    student = torch.tensor([[[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[[2 / 3, 1 / 3, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(restrict_map(teacher, student), expected)
    loss = attention_map_cross_entropy(student, restrict_map(teacher, student), torch.ones(1, 3, dtype=torch.bool))
    assert loss.item() == pytest.approx((2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)) / 3)


def test_attention_map_divergence_where_the_teacher_looks_at_one_token_only():
    student, teacher = torch.full((1, 1, 1, 2), 0.5), torch.tensor([[[[1.0, 0.0]]]])
    rows = [tensor.expand(1, 1, 2, 2) for tensor in (student, teacher)]
    loss = attention_map_cross_entropy(*rows, torch.ones(1, 2, dtype=torch.bool))
    assert loss.item() == pytest.approx(math.log(2))


def test_value_relations_by_hand():
    # Head size 4: scores are v v / 2, so that the first row of the teacher is softmax(ln 3, 0) = (0.75, 0.25).
    teacher = torch.zeros(1, 2, 4)
    teacher[0, 0, 0] = math.sqrt(2 * math.log(3))
    student = torch.zeros(1, 2, 4)
    loss = value_relations(student, teacher, torch.ones(1, 2, dtype=torch.bool), 1)
    assert loss.item() == pytest.approx(THREE_QUARTERS / 2)


def test_value_relations_need_no_equal_width():
    student, teacher = normal(3, 6, 4, seed=0), normal(3, 6, 8, seed=1)
    assert torch.isfinite(value_relations(student, teacher, MASK, 2)).all()


def test_logits_loss_is_the_softened_divergence_times_temperature_squared():
    teacher = torch.tensor([[2 * math.log(3), 0.0]])  # at temperature 2: (0.75, 0.25)
    loss = logits_loss(torch.zeros(1, 2), teacher, temperature=2.0)
    assert loss.item() == pytest.approx(4 * THREE_QUARTERS)


def test_the_gradient_of_the_logits_loss_keeps_its_size_at_high_temperature():
    teacher, sizes = normal(8, 3, seed=0), []
    for temperature in (20.0, 200.0):
        student = normal(8, 3, seed=1).requires_grad_()
        logits_loss(student, teacher, temperature).sum().backward()
        sizes.append(student.grad.norm().item())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_a_regression_matches_scores_whatever_the_temperature():
    student, teacher = torch.tensor([[1.5], [-2.0]]), torch.tensor([[1.0], [1.0]])
    for temperature in (1.0, 4.0):
        assert logits_loss(student, teacher, temperature).tolist() == [0.25, 9.0]


def test_labels_loss_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]] * 2)
    loss = labels_loss(logits, torch.tensor([1, 0]))
    assert loss.tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)])
    scores = labels_loss(torch.tensor([[2.0], [0.5]]), torch.tensor([4.0, 0.5]))
    assert scores.tolist() == [4.0, 0.0]


def test_a_hidden_label_costs_nothing_and_pulls_nowhere():
    for labels in (torch.tensor([-1, 0]), torch.tensor([float("nan"), 0.5])):
        logits = normal(2, 2 if labels.dtype == torch.int64 else 1, seed=0).requires_grad_()
        loss = labels_loss(logits, labels)
        loss.sum().backward()
        assert loss[0] == 0
        assert logits.grad[0].abs().max() == 0
        assert loss[1] > 0
        assert logits.grad[1].abs().min() > 0


@pytest.mark.parametrize("name", PER_TOKEN)
def test_padding_never_counts(name: str):
    loss = PER_TOKEN[name]
    student, teacher = normal(3, 6, 4, seed=0), normal(3, 6, 4, seed=1)
    expected = loss(student, teacher, MASK)
    padding = ~MASK[..., None]
    student = torch.where(padding, 50 * normal(3, 6, 4, seed=2), student).requires_grad_()
    teacher = torch.where(padding, -50.0, teacher)
    got = loss(student, teacher, MASK)
    assert torch.allclose(got, expected, rtol=1e-5)
    got.sum().backward()
    assert student.grad[~MASK].abs().max() == 0
    assert student.grad[MASK].abs().min() > 0


@pytest.mark.parametrize("name", PER_TOKEN)
def test_an_example_has_the_same_loss_in_any_batch_and_at_any_padded_length(name: str):
    loss = PER_TOKEN[name]
    student, teacher = normal(3, 6, 4, seed=0), normal(3, 6, 4, seed=1)
    together = loss(student, teacher, MASK)
    for row, length in enumerate(LENGTHS):
        part = slice(row, row + 1)
        alone = loss(student[part, :length], teacher[part, :length], MASK[part, :length])
        assert torch.allclose(alone, together[part], rtol=1e-5)


@pytest.mark.parametrize("num_labels", [1, 3])
def test_logits_and_labels_are_per_example(num_labels: int):
    student, teacher = normal(4, num_labels, seed=0), normal(4, num_labels, seed=1)
    labels = torch.tensor([0, 2, 1, 1]) if num_labels > 1 else torch.tensor([0.0, 2, 1, 1])
    both = (logits_loss(student, teacher, 2.0), labels_loss(student, labels))
    for row in range(4):
        part = slice(row, row + 1)
        assert torch.allclose(logits_loss(student[part], teacher[part], 2.0), both[0][part])
        assert torch.allclose(labels_loss(student[part], labels[part]), both[1][part])


@pytest.mark.parametrize("name", [*PER_TOKEN, "logits", "regression"])
def test_loss_and_gradient_are_zero_where_the_student_is_the_teacher(name: str):
    if name in PER_TOKEN:
        teacher = normal(3, 6, 4, seed=0)
        student = teacher.clone().requires_grad_()
        loss = PER_TOKEN[name](student, teacher, MASK)
    else:
        teacher = normal(3, 3 if name == "logits" else 1, seed=0)
        student = teacher.clone().requires_grad_()
        loss = logits_loss(student, teacher, 2.0)
    assert loss.shape == (3,)
    assert loss.abs().max() < 1e-6
    loss.sum().backward()
    assert student.grad.abs().max() < 1e-6


@pytest.mark.parametrize("name", PER_TOKEN)
def test_half_precision_is_computed_in_full(name: str):
    student, teacher = normal(3, 6, 4, seed=0).bfloat16(), normal(3, 6, 4, seed=1).bfloat16()
    loss = PER_TOKEN[name] if name != "attention_map" else masked_mse
    got = loss(student, teacher, MASK)
    assert got.dtype == torch.float32
    assert torch.allclose(got, loss(student.float(), teacher.float(), MASK))
