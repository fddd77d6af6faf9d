"""Which outputs of teacher and student a stage needs, and the module that returns them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill.config.schema import FIRST_TOKEN, StageConfig
from distill.models.hooks import Captured, capture, encoder_layers

Wanted = dict[str, list[int]]


@dataclass(frozen=True)
class CapturePlan:
    """Which outputs of which layers a stage needs; layers are matched in order."""

    student: Wanted = field(default_factory=dict)
    teacher: Wanted = field(default_factory=dict)
    needs_logits: bool = False
    teacher_forced: bool = False
    first_token_only: bool = False
    """Whether of the last layer the first token alone is computed and matched."""


def hidden_state_targets(layer_map: Sequence[int], num_teacher_layers: int) -> list[int]:
    """Return the teacher layer whose output each student layer should have.

    Student layer i starts as teacher layer ``layer_map[i]`` and stands for all teacher layers up to the next
    mapped one, so its output is matched with the last of these; the last student layer with the last of all.
    """
    return [following - 1 for following in [*layer_map[1:], num_teacher_layers]]


def plan_stage(stage: StageConfig, layer_map: Sequence[int], num_teacher_layers: int) -> CapturePlan:
    """Derive from the losses of a stage what has to be captured on either side."""
    student_layers = list(range(len(layer_map)))
    student: Wanted = {}
    teacher: Wanted = {}
    for name in stage.losses:
        if name in ("attention_output", "attention_context"):
            student[name], teacher[name] = student_layers, list(layer_map)
        elif name == "attention_map":
            for kind in ("query", "key"):
                student[kind], teacher[kind] = student_layers, list(layer_map)
        elif name == "value_relations":
            student["value"], teacher["value"] = student_layers, list(layer_map)
        elif name == "compression":
            student["layer_input"] = student_layers
        elif name == "hidden_states":
            student[name], teacher[name] = student_layers, hidden_state_targets(layer_map, num_teacher_layers)
    forced = stage.inputs == "teacher"
    if forced:
        teacher["layer_input"] = list(layer_map)
    return CapturePlan(
        student,
        teacher,
        needs_logits="logits" in stage.losses,
        teacher_forced=forced,
        first_token_only=stage.last_layer == FIRST_TOKEN,
    )


class StageModel(nn.Module):
    """A model whose one forward returns everything that a stage's losses read.

    DistributedDataParallel and DeepSpeed follow gradients only through the outputs of the module they wrap, so
    the captured layer outputs must be among them.
    """

    def __init__(self, model: nn.Module, plan: CapturePlan) -> None:
        super().__init__()
        self.model = model
        self.plan = plan

    def forward(self, inputs: dict[str, Tensor], layer_inputs: list[Tensor] | None = None) -> dict[str, object]:
        """Run the model, or each attention block on the teacher's ``layer_inputs``.

        Args:
            inputs: input_ids, attention_mask, token_type_ids, each (B, N).
            layer_inputs: the teacher's hidden states (B, N, D) before each mapped layer, for teacher forcing.

        Returns:
            The captured kinds (lists of (B, N, D)), ``attention_map`` and whether each ``map_is_sparse`` where queries
            and keys were wanted, ``compression`` (a list of (B,)) where layer inputs were, ``logits`` (B, C) unless
            teacher-forced.
        """
        mask = inputs["attention_mask"].bool()
        outputs: dict[str, object] = {}
        first_token_only = self.plan.first_token_only
        with capture(self.model, self.plan.student, first_token_only) as captured:
            if layer_inputs is None:
                outputs["logits"] = self.model(**inputs).logits
            else:
                layers, state = encoder_layers(self.model), None
                for layer, hidden_states in zip(layers, layer_inputs, strict=True):
                    alone = first_token_only and layer is layers[-1]
                    context, state = layer.attention.self(hidden_states, mask, state, alone)
                    layer.attention.output.dense(context)
        if "query" in captured:
            outputs["attention_map"] = student_attention_maps(self.model, captured, mask)
            outputs["map_is_sparse"] = [layer.attention.self.has_sparse_map for layer in encoder_layers(self.model)]
        if "layer_input" in captured:
            outputs["compression"] = compression_losses(self.model, captured["layer_input"], mask)
        return outputs | captured


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Reshape (B, N, D) to (B, H, N, d)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def student_attention_maps(student: Any, captured: Captured, mask: Tensor) -> list[Tensor]:
    """Return each student layer's attention map (B, H, N, N) from its captured queries and keys."""
    heads = student.config.num_attention_heads
    layers = encoder_layers(student)
    return [
        layer.attention.self.attention_map(split_heads(query, heads), split_heads(key, heads), mask)
        for layer, query, key in zip(layers, captured["query"], captured["key"], strict=True)
    ]


def compression_losses(student: Any, layer_inputs: list[Tensor], mask: Tensor) -> list[Tensor]:
    """Return the reconstruction loss (B,) of each student layer that compresses a memory."""
    attentions = [layer.attention.self for layer in encoder_layers(student)]
    return [
        attention.compression_loss(hidden_states, mask)
        for attention, hidden_states in zip(attentions, layer_inputs, strict=True)
        if hasattr(attention, "compression_loss")
    ]
