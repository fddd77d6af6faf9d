"""What the losses of a stage are given: the teacher's own attention maps, and labels that are classes or sets."""

import numpy as np
import pytest
import torch

from distill.config.schema import StageConfig
from distill.data.batching import collate
from distill.models.hooks import read_teacher
from distill.models.summaries import SUMMARY
from distill.objectives.losses import labels_loss, logits_loss
from distill.objectives.stage_losses import compute_losses, softmax_attention_maps


def test_the_maps_are_those_that_the_teacher_attends_by(make_bert, make_examples):
    teacher = make_bert(num_layers=3).eval()
    teacher.set_attn_implementation("eager")
    inputs, _ = collate(make_examples(), np.arange(6))
    mask = inputs["attention_mask"].bool()
    head_size = teacher.config.hidden_size // teacher.config.num_attention_heads
    for length in (mask.shape[1], 5):
        part = {name: values[:, :length] for name, values in inputs.items() if name != "labels"}
        with torch.no_grad():
            expected = teacher(**part, output_attentions=True).attentions
            captured = read_teacher(teacher, {"query": [0, 2], "key": [0, 2]}, part)
        maps = softmax_attention_maps(captured, head_size, mask[:, :length])
        assert len(maps) == 2
        for found, layer in zip(maps, (0, 2), strict=True):
            torch.testing.assert_close(found, expected[layer], rtol=0, atol=1e-6)


@pytest.mark.parametrize("several", [False, True])
def test_labels_decide_how_logits_are_matched(several):
    """Sets of labels are decided one by one, classes against each other; ``labels`` sees weights and smoothing."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 3, generator=generator) for _ in range(2))
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]) if several else torch.tensor([0, 2, 1, 2])
    inputs = {"attention_mask": torch.ones(4, 5, dtype=torch.int64), "labels": labels}
    weights = None if several else torch.tensor([0.5, 1.0, 2.0])
    stage = StageConfig("one", 1, 0.1, {"logits": 0.9, "labels": 0.1}, temperature=2.0)
    found = compute_losses(stage, {"logits": student}, {"logits": teacher}, inputs, 2, weights, 0.1)
    assert list(found) == ["logits", "labels"]
    torch.testing.assert_close(found["logits"], logits_loss(student, teacher, 2.0, multi_label=several))
    torch.testing.assert_close(found["labels"], labels_loss(student, labels, weights, 0.1))


def test_of_another_encoder_the_states_of_one_token_are_matched():
    """The mean over the layers, each in units of its own spread."""
    generator = torch.Generator().manual_seed(0)
    mapped, states = (torch.randn(2, 4, 8, generator=generator) for _ in range(2))
    spreads = torch.tensor([3.0, 5.0])
    inputs = {"attention_mask": torch.ones(4, 5, dtype=torch.int64), "labels": torch.zeros(4, dtype=torch.int64)}
    student = {SUMMARY: list(zip(mapped, spreads, strict=True)), "hidden_states": [torch.zeros(4, 5, 8)] * 2}
    teacher = {SUMMARY: [layer[:, None] for layer in states]}
    stage = StageConfig("one", 1, 0.1, {"hidden_states": 1.0})
    found = compute_losses(stage, student, teacher, inputs, 2)["hidden_states"]
    expected = (mapped - states).square().sum(-1) / spreads[:, None]
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-5, atol=0)
