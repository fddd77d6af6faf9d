"""The layers that a teacher needs most: found again where they were planted, by every way of leaving layers out."""

from itertools import combinations

import pytest
import torch

from distill.data.batching import collate
from distill.objectives.losses import logits_loss
from teachers.layer_selection import most_needed_layers


def silence(teacher, layer: int) -> None:
    """Let a layer hand on what it gets, up to its normalisation."""
    block = teacher.bert.encoder.layer[layer]
    for dense in (block.attention.output.dense, block.output.dense):
        torch.nn.init.zeros_(dense.weight)
        torch.nn.init.zeros_(dense.bias)


@pytest.mark.parametrize("silent", [(0, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_silent_layers_go_first(silent, num_labels, make_bert, make_examples):
    teacher = make_bert(num_layers=4, num_labels=num_labels)
    for layer in silent:
        silence(teacher, layer)
    assert most_needed_layers(teacher, make_examples(), 2) == [layer for layer in range(4) if layer not in silent]


@torch.no_grad()
def test_one_layer_less_is_the_best_of_all_choices(make_bert, make_examples):
    teacher, examples = make_bert(num_layers=4), make_examples()
    inputs, _ = collate(examples, torch.arange(len(examples)).numpy())
    whole, layers = teacher(**inputs).logits, teacher.bert.encoder.layer

    def change(kept: tuple[int, ...]) -> float:
        teacher.bert.encoder.layer = torch.nn.ModuleList(layers[index] for index in kept)
        found = logits_loss(teacher(**inputs).logits, whole, 1.0).sum().item()
        teacher.bert.encoder.layer = layers
        return found

    best = min(combinations(range(4), 3), key=change)
    assert most_needed_layers(teacher, examples, 3) == list(best)


@torch.no_grad()
def test_the_teacher_stays_as_it_was(make_bert, make_examples):
    teacher, examples = make_bert(num_layers=3), make_examples(4)
    inputs, _ = collate(examples, torch.arange(4).numpy())
    before = teacher(**inputs).logits
    assert most_needed_layers(teacher, examples, 3) == [0, 1, 2]
    assert len(most_needed_layers(teacher, examples, 1)) == 1
    assert torch.equal(teacher(**inputs).logits, before)
