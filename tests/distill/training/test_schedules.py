"""What changes from step to step: the learning rate, the temperature and the weights of the losses."""

from dataclasses import replace

import pytest
import torch
from helpers.short_stages import BOTH

from distill.training.schedules import learning_rate_factor, scheduled, set_learning_rate


@pytest.mark.parametrize(
    ("step", "expected"),
    # 100 steps, 10 of them warm-up: 1/11, 2/11, ... 10/11, 1, 89/90, ... 1/90, 0
    [
        (0, 1 / 11),
        (1, 2 / 11),
        (9, 10 / 11),
        (10, 1.0),
        (11, 89 / 90),
        (55, 0.5),
        (99, 1 / 90),
        (100, 0.0),
        (101, 0.0),
    ],
)
def test_learning_rate(step, expected):
    assert learning_rate_factor(step, 100, 0.1) == pytest.approx(expected)


def test_learning_rate_without_warmup_and_in_a_single_step():
    assert [learning_rate_factor(step, 4, 0.0) for step in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert learning_rate_factor(0, 1, 0.1) == pytest.approx(1 / 1.1)
    assert learning_rate_factor(0, 1, 0.0) == 1
    assert learning_rate_factor(2, 2, 1.0) == 0


def test_every_group_keeps_its_own_share_of_the_learning_rate():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr, "initial_lr": lr} for lr in (0.5, 4.0)]
    optimizer = torch.optim.SGD(groups)
    for step, factor in ((3, 0.25), (1, 0.75), (0, 1.0)):
        set_learning_rate(optimizer, step, 4, 0.0)
        assert [group["lr"] for group in optimizer.param_groups] == [0.5 * factor, 4.0 * factor]


def test_temperature_and_weights_go_from_first_to_last_in_a_straight_line():
    stage = replace(BOTH, temperature=4.0, final_temperature=1.0, losses={"logits": 1.0, "labels": 0.5})
    stage = replace(stage, final_losses={"logits": 0.0})
    found = [scheduled(stage, step, 4) for step in range(4)]
    assert [each.temperature for each in found] == pytest.approx([4, 3, 2, 1])
    assert [each.losses["logits"] for each in found] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [each.losses["labels"] for each in found] == [0.5] * 4
    odd = replace(BOTH, temperature=0.1, losses={"logits": 0.9})
    assert all(scheduled(odd, step, 10) == odd for step in range(10))  # to the last bit
    assert [scheduled(stage, step, 2).temperature for step in range(2)] == [4, 1]
    assert scheduled(stage, 0, 1).temperature == 4
