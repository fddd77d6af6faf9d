"""The losses of a stage, of what teacher and student returned."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from distill.config.schema import RELATIONS, StageConfig
from distill.models.summaries import SUMMARY
from distill.objectives import losses
from distill.objectives.capture_plan import split_heads


def softmax_attention_maps(captured: Mapping[str, list[Tensor]], head_size: int, mask: Tensor) -> list[Tensor]:
    """Return the teacher's softmax attention maps (B, H, N, N) from its captured queries and keys."""
    maps = []
    for query, key in zip(captured["query"], captured["key"], strict=True):
        num_heads = query.shape[-1] // head_size
        heads = split_heads(query.float(), num_heads)
        scores = heads @ split_heads(key.float(), num_heads).mT * head_size**-0.5
        maps.append(scores.masked_fill(~mask[:, None, None, :], float("-inf")).softmax(-1))
    return maps


def compute_losses(
    stage: StageConfig,
    student: Mapping,
    teacher: Mapping,
    inputs: Mapping[str, Tensor],
    head_size: int,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Compute every loss of a stage, unweighted.

    Args:
        student: what :class:`StageModel` returned.
        teacher: the teacher's captured kinds and ``logits``; empty where no loss reads it.
        inputs: the batch, with ``attention_mask`` (B, N) and ``labels`` (B,), (B, C) of a multi-label task, or (B, N)
            of a language model.
        head_size: width of the teacher's heads, for maps and relations.
        class_weights, label_smoothing: of the loss ``labels``.

    Returns:
        Loss name to a value per example (B,), the mean over layers where there are several.
    """
    mask = inputs["attention_mask"].bool()
    values: dict[str, Tensor] = {}
    for name in stage.losses:
        if name == "logits":
            logits = student["logits"], teacher["logits"]
            if student["logits"].ndim == 3:
                values[name] = losses.token_logits_loss(*logits, inputs["labels"], stage.temperature)
            else:
                several = inputs["labels"].ndim == 2
                values[name] = losses.logits_loss(*logits, stage.temperature, multi_label=several)
        elif name == "labels" and student["logits"].ndim == 3:
            values[name] = losses.token_labels_loss(student["logits"], inputs["labels"], label_smoothing)
        elif name == "labels":
            how = class_weights, label_smoothing
            values[name] = losses.labels_loss(student["logits"], inputs["labels"], *how)
        elif name == "compression":
            values[name] = _mean(student[name])
        elif name in RELATIONS:
            kind = name.removesuffix("_relations")
            pairs = zip(student[kind], teacher[kind], strict=True)
            values[name] = _mean(
                losses.value_relations(s, t, mask, losses.relation_heads(s.shape[-1], t.shape[-1], head_size))
                for s, t in pairs
            )
        elif name == "attention_map":
            targets = softmax_attention_maps(teacher, head_size, mask)
            layers = zip(student["attention_map"], targets, student["map_is_sparse"], strict=True)
            values[name] = _mean(
                losses.attention_map_cross_entropy(s, losses.restrict_map(t, s) if sparse else t, mask)
                for s, t, sparse in layers
            )
        elif name == "hidden_states" and SUMMARY in student:
            summaries = zip(student[SUMMARY], teacher[SUMMARY], strict=True)
            values[name] = _mean(losses.summary_mse(s, t[:, 0], spread) for (s, spread), t in summaries)
        else:
            pairs = zip(student[name], teacher[name], strict=True)
            values[name] = _mean(losses.masked_mse(s, t, mask) for s, t in pairs)
    return values


def _mean(per_layer: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(per_layer)).mean(0)
