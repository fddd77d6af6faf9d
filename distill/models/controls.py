"""Models that are timed beside teacher and student to tell what bought a speedup: layers, width or attention."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from students.families import bert_settings, why_not

SIZES = ("hidden_size", "num_attention_heads", "head_size", "intermediate_size")
"""What of a configuration makes layers wide."""


def softmax_control(student: PreTrainedModel) -> PreTrainedModel | None:
    """Return the student's architecture with softmax attention and random weights, for timing alone.

    It splits a speedup into what fewer layers bought and what the attention bought. None for a model that does not
    name its attention mechanism, or that knows no softmax attention by that name.
    """
    config = _softmax_config(student)
    return None if config is None else _build(student, config)


def full_width_control(student: PreTrainedModel, teacher: PreTrainedModel) -> PreTrainedModel | None:
    """Return the softmax control with layers as wide as the teacher's, for timing alone.

    It tells what a narrower student's width bought. None where the student is as wide, where the teacher's layers are
    not BERT's or not all of one width, and where there is no control.
    """
    config = _softmax_config(student)
    if config is None or why_not(teacher.config):
        return None
    teachers = bert_settings(teacher.config)
    wide = {name: teachers.get(name) for name in SIZES}
    if any(isinstance(size, list) for size in wide.values()):
        return None
    full = copy.deepcopy(config)
    for name, size in wide.items():
        setattr(full, name, size)
    return None if _sizes(full) == _sizes(config) else _build(student, full)


def _softmax_config(student: PreTrainedModel) -> Any:
    if getattr(student.config, "attention", None) is None or "softmax" not in student.config.attentions:
        return None
    config = copy.deepcopy(student.config)
    config.attention, config.exact_up_to = "softmax", 0
    return config


def _sizes(config: Any) -> list[tuple[int, int, int]]:
    """Return of every layer the widths of hidden states, attention and feed-forward units."""
    layers = [config.of_layer(index) for index in range(config.num_hidden_layers)]
    return [(layer.hidden_size, layer.attention_size, layer.intermediate_size) for layer in layers]


def _build(student: PreTrainedModel, config: Any) -> PreTrainedModel:
    """Draw random weights without moving the global random state."""
    with torch.random.fork_rng(devices=[]):
        return type(student)(config).eval()
