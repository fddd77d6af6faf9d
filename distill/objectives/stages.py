"""What a stage reads from teacher and student, and the losses it makes of that."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from distill.config.schema import FIRST_TOKEN, StageConfig
from distill.models.hooks import Captured, capture, encoder_layers
from distill.objectives import losses

Wanted = dict[str, list[int]]

NO_DECAY = ("bias", "LayerNorm")


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


def softmax_attention_maps(captured: Mapping[str, list[Tensor]], num_heads: int, mask: Tensor) -> list[Tensor]:
    """Return the teacher's softmax attention maps (B, H, N, N) from its captured queries and keys."""
    maps = []
    for query, key in zip(captured["query"], captured["key"], strict=True):
        heads = split_heads(query.float(), num_heads)
        scores = heads @ split_heads(key.float(), num_heads).mT * heads.shape[-1] ** -0.5
        maps.append(scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1))
    return maps


def compute_losses(
    stage: StageConfig, student: Mapping, teacher: Mapping, inputs: Mapping[str, Tensor], num_heads: int
) -> dict[str, Tensor]:
    """Compute every loss of a stage, unweighted.

    Args:
        student: what :class:`StageModel` returned.
        teacher: the teacher's captured kinds and ``logits``; empty where no loss reads it.
        inputs: the batch, with ``attention_mask`` (B, N) and ``labels`` (B,).
        num_heads: heads of the teacher, for maps and relations.

    Returns:
        Loss name to a value per example (B,), the mean over layers where there are several.
    """
    mask = inputs["attention_mask"].bool()
    values: dict[str, Tensor] = {}
    for name in stage.losses:
        if name == "logits":
            values[name] = losses.logits_loss(student["logits"], teacher["logits"], stage.temperature)
        elif name == "labels":
            values[name] = losses.labels_loss(student["logits"], inputs["labels"])
        elif name == "compression":
            values[name] = _mean(student[name])
        elif name == "value_relations":
            pairs = zip(student["value"], teacher["value"], strict=True)
            values[name] = _mean(losses.value_relations(s, t, mask, num_heads) for s, t in pairs)
        elif name == "attention_map":
            targets = softmax_attention_maps(teacher, num_heads, mask)
            layers = zip(student["attention_map"], targets, student["map_is_sparse"], strict=True)
            values[name] = _mean(
                losses.attention_map_cross_entropy(s, losses.restrict_map(t, s) if sparse else t, mask)
                for s, t, sparse in layers
            )
        else:
            pairs = zip(student[name], teacher[name], strict=True)
            values[name] = _mean(losses.masked_mse(s, t, mask) for s, t in pairs)
    return values


def _mean(per_layer: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(per_layer)).mean(0)


def feature_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the attention mechanism added to BERT (maps, temperatures, projections)."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "feature_parameters")]
    return [parameter for module in modules for parameter in module.feature_parameters()]


def default_feature_rate(model: nn.Module) -> int:
    """Return how many times the learning rate of a stage the mechanism's own parameters bear where nothing is said."""
    modules: list[Any] = list(model.modules())
    return max((module.feature_rate for module in modules if hasattr(module, "feature_rate")), default=10)


def frozen_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that the student keeps as they are, whatever a stage says."""
    modules: list[Any] = [module for module in model.modules() if hasattr(module, "frozen_parameters")]
    return [parameter for module in modules for parameter in module.frozen_parameters()]


def trained_part(model: nn.Module, stage: StageConfig) -> str:
    """Return what a stage trains: as it says, but whole attention blocks where the mechanism has no features."""
    return "attention" if stage.train == "features" and not feature_parameters(model) else stage.train


def parameter_groups(model: nn.Module, stage: StageConfig, weight_decay: float) -> list[dict]:
    """Freeze what the stage does not train and group the rest for the optimizer.

    The mechanism's own parameters start from an arbitrary point while the copied weights start from good ones, so
    they learn faster, by the mechanism's ``feature_rate``, unless ``feature_learning_rate`` says otherwise. Biases,
    LayerNorm and features are not decayed. Layer i of L learns at ``layer_decay`` to the power of L - i, the
    embeddings at L + 1.
    """
    features = {id(parameter) for parameter in feature_parameters(model)}
    frozen = {id(parameter) for parameter in frozen_parameters(model)}
    part = trained_part(model, stage)
    num_layers = len(encoder_layers(model))
    groups: dict[tuple[str, int], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        is_feature = id(parameter) in features
        trained = {
            "features": is_feature,
            "attention": is_feature or ".attention." in name,
            "encoder": not name.endswith("word_embeddings.weight"),
            "all": True,
        }[part]
        trained = trained and id(parameter) not in frozen
        parameter.requires_grad_(trained)
        if trained:
            kind = "features" if is_feature else "plain" if any(part in name for part in NO_DECAY) else "decayed"
            depth = 0 if stage.layer_decay == 1 else _layers_above(name, num_layers)
            groups.setdefault((kind, depth), []).append(parameter)
    feature_rate = stage.feature_learning_rate or default_feature_rate(model) * stage.learning_rate
    settings = {
        "features": (feature_rate, 0.0),
        "decayed": (stage.learning_rate, weight_decay),
        "plain": (stage.learning_rate, 0.0),
    }
    found = []
    for kind, (base_rate, decay) in settings.items():
        for depth in sorted(depth for other, depth in groups if other == kind):
            rate = base_rate * stage.layer_decay**depth
            found.append({"params": groups[kind, depth], "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return found


def _layers_above(name: str, num_layers: int) -> int:
    """Return how many layers, the head one of them, stand between a parameter and the loss; 0 for the head's own."""
    layer = re.search(r"encoder\.layer\.(\d+)\.", name)
    if layer:
        return num_layers - int(layer[1])
    return num_layers + 1 if ".embeddings." in name else 0
