"""How faithfully each student layer reproduces its teacher layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples, collate, padded_length
from distill.models.hooks import capture, read_teacher
from distill.objectives.capture_plan import CapturePlan, StageModel, hidden_state_targets
from distill.objectives.linear_maps import Moments
from distill.objectives.losses import masked_mse

NUM_EXAMPLES, NUM_TOKENS = 256, 16_384
"""At most so many texts, and tokens with their padding, are read: a share of variance needs no more."""


@torch.no_grad()
def layer_fidelity(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    layer_map: Sequence[int],
    examples: TokenizedExamples,
) -> list[dict[str, float]]:
    """Return, per student layer, the share of the teacher's variance that it explains: 1 - masked_mse.

    1 is a perfect copy, 0 no better than the mean, negative worse than that. Measured on the student's own
    activations over the first examples, in one batch of at most `NUM_EXAMPLES` texts and `NUM_TOKENS` tokens, and in
    a last layer that computes the first token alone on it.

    Outputs of another width count as far as a linear map finds the teacher's in them; it is fitted to one half of the
    texts and tried on the other.

    Returns:
        One dict per student layer: layer, teacher_layer, attention_output, hidden_states.
    """
    inputs = first_texts(student, examples)
    mask = inputs["attention_mask"].bool()
    was_training = student.training
    student.eval()
    ends = hidden_state_targets(layer_map, teacher.config.num_hidden_layers)
    own_layers = list(range(len(layer_map)))
    expected = read_teacher(teacher, {"attention_output": layer_map, "hidden_states": ends}, inputs)
    with capture(student, {"attention_output": own_layers, "hidden_states": own_layers}, first_token_only=True) as got:
        student(**inputs)
    student.train(was_training)
    explained = {
        kind: [
            1 - masked_mse(in_width_of(t, s, mask), t, mask).mean().item()
            for s, t in zip(got[kind], expected[kind], strict=True)
        ]
        for kind in ("attention_output", "hidden_states")
    }
    return [
        {"layer": layer, "teacher_layer": layer_map[layer]} | {kind: explained[kind][layer] for kind in explained}
        for layer in own_layers
    ]


@torch.no_grad()
def block_fidelity(
    source: PreTrainedModel, student: PreTrainedModel, layer_map: Sequence[int], examples: TokenizedExamples
) -> list[float]:
    """Return, per student layer, the share of the variance of an attention block's output that its own explains.

    Every block reads what that of ``source`` read, so that no layer answers for those below it; otherwise measured as
    in `layer_fidelity`.
    """
    inputs = first_texts(student, examples)
    expected = read_teacher(source, {"layer_input": layer_map, "attention_output": layer_map}, inputs)
    own_layers = list(range(len(layer_map)))
    plan = CapturePlan({"attention_output": own_layers}, {}, teacher_forced=True, first_token_only=True)
    was_training = student.training
    student.eval()
    got = StageModel(student, plan)(inputs, expected["layer_input"])["attention_output"]
    student.train(was_training)
    mask = inputs["attention_mask"].bool()
    pairs = zip(got, expected["attention_output"], strict=True)
    return [1 - masked_mse(own, wanted, mask).mean().item() for own, wanted in pairs]


def first_texts(model: PreTrainedModel, examples: TokenizedExamples) -> dict[str, Tensor]:
    """Return the first texts as one batch on the model's device, as many as a share of variance needs."""
    longest = padded_length(int(examples.lengths[:NUM_EXAMPLES].max()))
    indices = np.arange(min(NUM_EXAMPLES, len(examples), max(1, NUM_TOKENS // longest)))
    return collate(examples, indices, next(model.parameters()).device)[0]


def in_width_of(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """Return a student's states (B, N, S) as wide as the teacher's (B, N, T), each half of them by a map of the other.

    Args:
        teacher: (B, N, T).
        student: (B, N, S), or (B, 1, S) where a last layer computed the first token alone.
        mask: (B, N) bool.
    """
    if student.shape[-1] == teacher.shape[-1]:
        return student
    teacher, mask = teacher[:, : student.shape[1]], mask[:, : student.shape[1]]
    halves = torch.arange(len(student), device=student.device) % 2
    mapped = torch.zeros_like(teacher, dtype=torch.float32)
    for half in (0, 1):
        own, other = halves == half, halves != half if len(student) > 1 else halves == half
        moments = Moments()
        moments.add(student[other][mask[other]].double(), teacher[other][mask[other]].double())
        mapped[own] = nn.functional.linear(student[own].float(), *moments.regression())
    return mapped
