"""Which outputs of teacher and student a stage needs, and the module that returns them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill.config.schema import FIRST_TOKEN, RELATIONS, StageConfig
from distill.data.token_predictions import PLACES, predicting
from distill.models.hooks import Captured, capture, encoder_layers
from distill.models.inputs import accepted_inputs
from distill.models.summaries import SUMMARY
from distill.objectives.linear_maps import LinearMap
from distill.objectives.summary_maps import SummaryMap
from distill.utils.errors import UserError

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
    needs_maps: bool = False
    """Whether attention maps are computed of the student's queries and keys."""


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
        elif name in RELATIONS:
            kind = name.removesuffix("_relations")
            student[kind], teacher[kind] = student_layers, list(layer_map)
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
        needs_maps="attention_map" in stage.losses,
    )


def summary_targets(layer_map: Sequence[int], num_source_layers: int, num_teacher_layers: int) -> list[int]:
    """Return the teacher layer whose summary each student layer is matched with: at the same share of the depth.

    Args:
        layer_map: the layers of another encoder that the student is made of.
        num_source_layers: of that encoder.
        num_teacher_layers: any number, fewer than the student's too; the last layer is matched with the last.
    """
    ends = hidden_state_targets(layer_map, num_source_layers)
    return [max(round((end + 1) * num_teacher_layers / num_source_layers), 1) - 1 for end in ends]


def plan_across_encoders(stage: StageConfig, num_layers: int, teacher_layers: Sequence[int]) -> CapturePlan:
    """Derive what has to be captured of a student of ``num_layers`` that reads other tokens than its teacher.

    Args:
        teacher_layers: by student layer, as `summary_targets` gives them; empty where the teacher shows none.

    Raises:
        UserError: the teacher shows no layers, and the stage wants to match them.
    """
    student: Wanted = {}
    teacher: Wanted = {}
    if "hidden_states" in stage.losses:
        if not teacher_layers:
            raise UserError(
                f"stages.{stage.name}.losses is 'hidden_states': the teacher does not show the hidden states of its "
                "layers; use logits and labels, or write stages: auto"
            )
        student["hidden_states"], teacher[SUMMARY] = list(range(num_layers)), list(teacher_layers)
    if "compression" in stage.losses:
        student["layer_input"] = list(range(num_layers))
    needs_logits = "logits" in stage.losses
    return CapturePlan(student, teacher, needs_logits, first_token_only="compression" not in stage.losses)


class StageModel(nn.Module):
    """A model whose one forward returns everything that a stage's losses read.

    DistributedDataParallel and DeepSpeed follow gradients only through the outputs of the module they wrap, so
    the captured layer outputs must be among them.

    Args:
        maps: one for every student layer whose first token is compared with a summary of the teacher's, or for every
            output of a layer whose width is not that of what it is compared with; they train with the stage and end
            with it.
        rows: of the model's word embedding, where not all of it trains.
    """

    def __init__(
        self, model: nn.Module, plan: CapturePlan, maps: Sequence[LinearMap] = (), rows: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.plan = plan
        self.maps = nn.ModuleList(maps)
        self.rows = rows

    def forward(self, inputs: dict[str, Tensor], layer_inputs: list[Tensor] | None = None) -> dict[str, object]:
        """Run the model, or each attention block on the teacher's ``layer_inputs``.

        Args:
            inputs: input_ids, attention_mask, token_type_ids, each (B, N), and the `PLACES` (B, M) of a language model
                whose predictions the losses read, where they do not read all.
            layer_inputs: the teacher's hidden states (B, N, D) before each mapped layer, for teacher forcing.

        Returns:
            The captured kinds (lists of (B, N, D), mapped to the target's width where there are maps),
            ``attention_map`` and whether each ``map_is_sparse`` where they were wanted, ``compression`` (a list of
            (B,)) where layer inputs were, ``logits`` (B, C), (B, N, V) or (B, M, V) unless teacher-forced, ``summary``
            (what each of its maps returns) where there are maps to one.
        """
        mask = inputs["attention_mask"].bool()
        outputs: dict[str, object] = {}
        first_token_only = self.plan.first_token_only
        with capture(self.model, self.plan.student, first_token_only) as captured:
            if layer_inputs is None:
                with predicting(self.model, inputs.get(PLACES)):
                    outputs["logits"] = self.model(**accepted_inputs(self.model, inputs)).logits
            else:
                layers, state = encoder_layers(self.model), None
                looks_back = getattr(self.model.config, "causal", False)  # its states are of tokens, not of layers
                for layer, hidden_states in zip(layers, layer_inputs, strict=True):
                    alone = first_token_only and layer is layers[-1]
                    carried = None if looks_back else state
                    context, state = layer.attention.self(hidden_states, mask, carried, alone)
                    layer.attention.output.dense(context)
        if self.plan.needs_maps:
            outputs["attention_map"] = student_attention_maps(self.model, captured, mask)
            outputs["map_is_sparse"] = [layer.attention.self.has_sparse_map for layer in encoder_layers(self.model)]
        if "layer_input" in captured:
            outputs["compression"] = compression_losses(self.model, captured["layer_input"], mask)
        summaries = [each for each in self.maps if isinstance(each, SummaryMap)]
        if summaries:
            pairs = zip(summaries, captured["hidden_states"], strict=True)
            outputs[SUMMARY] = [to_teacher(states[:, 0]) for to_teacher, states in pairs]
        return outputs | captured | self._mapped(captured)

    def _mapped(self, captured: Captured) -> Captured:
        """Return the captured kinds that are compared with states of another width, as wide as these."""
        found: Captured = {}
        for each in self.maps:
            if isinstance(each, LinearMap) and not isinstance(each, SummaryMap):
                states = found.setdefault(each.kind, list(captured[each.kind]))
                states[each.place] = each(states[each.place])
        return found


def split_heads(states: Tensor, num_heads: int) -> Tensor:
    """Reshape (B, N, D) to (B, H, N, d)."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def student_attention_maps(student: Any, captured: Captured, mask: Tensor) -> list[Tensor]:
    """Return each student layer's attention map (B, H, N, N) from its captured queries and keys."""
    mechanisms = [layer.attention.self for layer in encoder_layers(student)]
    return [
        each.attention_map(split_heads(query, each.num_heads), split_heads(key, each.num_heads), mask)
        for each, query, key in zip(mechanisms, captured["query"], captured["key"], strict=True)
    ]


def compression_losses(student: Any, layer_inputs: list[Tensor], mask: Tensor) -> list[Tensor]:
    """Return the reconstruction loss (B,) of each student layer that compresses a memory."""
    attentions = [layer.attention.self for layer in encoder_layers(student)]
    return [
        attention.compression_loss(hidden_states, mask)
        for attention, hidden_states in zip(attentions, layer_inputs, strict=True)
        if hasattr(attention, "compression_loss")
    ]
