"""Models that are timed beside teacher and student to tell what bought a speedup: layers, width or attention."""

import copy

from transformers import PreTrainedModel

from students.families import bert_settings, why_not


def softmax_control(student: PreTrainedModel) -> PreTrainedModel | None:
    """Return the student's architecture with softmax attention and random weights, for timing alone.

    It splits a speedup into what fewer layers bought and what the attention bought. None for a model that does not
    name its attention mechanism, or that knows no softmax attention by that name.
    """
    if getattr(student.config, "attention", None) is None or "softmax" not in student.config.attentions:
        return None
    config = copy.deepcopy(student.config)
    config.attention, config.exact_up_to = "softmax", 0
    return type(student)(config).eval()


def full_width_control(student: PreTrainedModel, teacher: PreTrainedModel) -> PreTrainedModel | None:
    """Return the softmax control with layers as wide as the teacher's, for timing alone.

    It tells what a narrower student's width bought. None where the student is as wide, where the teacher's layers are
    not BERT's or not all of one width, and where there is no control.
    """
    control = softmax_control(student)
    if control is None or why_not(teacher.config):
        return None
    config, wide = copy.deepcopy(control.config), bert_settings(teacher.config)
    sizes = {name: wide[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")}
    same = all(set(_each_layer(getattr(config, name))) == {size} for name, size in sizes.items())
    if same or any(isinstance(size, list) for size in sizes.values()):
        return None
    for name, size in sizes.items():
        setattr(config, name, size)
    config.head_size = None
    return type(student)(config).eval()


def _each_layer(size: int | list[int]) -> list[int]:
    return size if isinstance(size, list) else [size]
