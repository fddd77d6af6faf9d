"""One step of the optimizer moves along the gradient of the mean loss of its batch, however the batch is cut."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.short_stages import LABELS
from torch import Tensor

from distill.config.schema import TrainingConfig
from distill.data.batching import collate
from distill.training.context import StageInputs, TrainingContext
from distill.training.loss_meter import LossMeter
from distill.training.stepper import Stepper

UNCLIPPED = TrainingConfig(max_gradient_norm=1e9, weight_decay=0.0)
Movement = Mapping[str, Tensor]
"""What one step takes off every weight, by the rate of 1: the gradient that the optimizer saw."""


@pytest.fixture
def step(make_bert, make_examples, make_accelerator, monkeypatch) -> Callable[..., tuple[Movement, Movement, Tensor]]:
    """Return a function that takes one step of plain descent; it returns movement, expected gradient and losses."""
    # Adam's steps are as long whatever the gradient is multiplied by.
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: torch.optim.SGD(groups))
    examples = make_examples(20)

    def take(indices: list[int], training: TrainingConfig = UNCLIPPED, weight: float = 1.0):
        accelerator = make_accelerator(gradient_accumulation_steps=training.gradient_accumulation)
        stage = replace(LABELS, learning_rate=1.0, losses={"labels": weight})
        model = make_bert().eval()
        inputs, labels = collate(examples, np.array(indices))
        losses = torch.nn.functional.cross_entropy(model(**inputs).logits, labels, reduction="none")
        gradients = torch.autograd.grad(weight * losses.mean(), list(model.parameters()))
        expected = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        meter = LossMeter(accelerator, "labels", stage.losses)
        stepper = Stepper(TrainingContext(accelerator, training, seed=1), model, stage, StageInputs(examples))
        stepper.take_step(np.array(indices), stage, meter)
        assert meter.count == len(indices)
        torch.testing.assert_close(meter.sums, losses.detach().sum()[None])
        moved = {name: before[name] - parameter.detach() for name, parameter in model.named_parameters()}
        return moved, expected, losses.detach()

    return take


def norm(movement: Movement) -> float:
    return float(torch.stack([tensor.square().sum() for tensor in movement.values()]).sum().sqrt())


def assert_moved(moved: Movement, expected: Movement, share: float = 1.0) -> None:
    for name, gradient in expected.items():
        assert torch.allclose(moved[name], share * gradient, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("indices", [[4], [0, 5, 6, 11], [*range(20)]], ids=len)
def test_a_step_is_the_gradient_of_the_mean_loss(indices, parts, step):
    moved, expected, _ = step(indices, replace(UNCLIPPED, gradient_accumulation=parts))
    assert norm(expected) > 0.1
    assert_moved(moved, expected)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("hidden", [[], [2, 5]], ids=["labelled", "partly"])
def test_a_step_is_the_gradient_of_torchs_weighted_mean_however_it_is_cut(
    hidden, smoothing, parts, make_bert, make_examples, make_accelerator, monkeypatch
):
    """Of the labelled examples: what has no label takes its share of the batch, as it does without weights."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, fused: torch.optim.SGD(groups))
    examples, indices, weights = make_examples(20), np.arange(11), np.array([0.3, 4.0], np.float32)
    examples.labels[hidden] = -1
    training = replace(UNCLIPPED, gradient_accumulation=parts, label_smoothing=smoothing)
    accelerator = make_accelerator(gradient_accumulation_steps=parts)
    model = make_bert().eval()
    inputs, labels = collate(examples, indices)
    mean = torch.nn.functional.cross_entropy(
        model(**inputs).logits, labels, torch.from_numpy(weights), ignore_index=-1, label_smoothing=smoothing
    )
    share = (len(indices) - len(hidden)) / len(indices)
    gradients = torch.autograd.grad(share * mean, list(model.parameters()))
    expected = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    context = TrainingContext(accelerator, training, seed=1, class_weights=weights)
    stage = replace(LABELS, learning_rate=1.0, losses={"labels": 1.0})
    stepper = Stepper(context, model, stage, StageInputs(examples))
    stepper.take_step(indices, stage, LossMeter(accelerator, "labels", stage.losses))
    assert norm(expected) > 0.1
    assert_moved({name: before[name] - each.detach() for name, each in model.named_parameters()}, expected)


def test_a_step_is_as_long_as_the_weight_of_its_loss(step):
    moved, expected, _ = step([1, 2, 3], weight=0.25)
    assert_moved(moved, expected)
    assert norm(moved) == pytest.approx(norm(step([1, 2, 3])[0]) / 4, rel=1e-3)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_gradient_longer_than_the_limit_is_scaled_down_to_it(parts, step):
    """The whole batch's gradient, that is: parts are not clipped one by one."""
    whole = norm(step([*range(8)])[1])
    clipped = replace(UNCLIPPED, max_gradient_norm=whole / 3, gradient_accumulation=parts)
    moved, expected, _ = step([*range(8)], clipped)
    assert norm(moved) == pytest.approx(whole / 3, rel=1e-3)
    assert_moved(moved, expected, share=1 / 3)
    longer = replace(clipped, max_gradient_norm=1.1 * whole)
    assert norm(step([*range(8)], longer)[0]) == pytest.approx(whole, rel=1e-3)
