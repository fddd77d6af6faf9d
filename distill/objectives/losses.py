"""Distillation losses, each a value per example.

Every loss returns a tensor (B,), so that the loop can average over the examples of a batch in whatever way
it is cut: over accumulation steps and over processes the sum is the same. Masked positions never count.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.data.splits import HIDDEN

EPSILON = 1e-6


def masked_mse(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared error over the real tokens, divided by the variance of the target over the same tokens.

    L_b = sum_{n,d} (s - t)^2 / sum_{n,d} (t - mean t)^2. A student that predicts the target's mean scores 1,
    whatever the layer's scale, so layers and losses can be added with weights near 1.

    Args:
        student: (B, N, D), or (B, 1, D) where a last layer computed the first token alone, which is then compared.
        teacher: (B, N, D).
        mask: (B, N) bool, True for real tokens.

    Returns:
        (B,), no unit.
    """
    teacher, mask = teacher[:, : student.shape[1]], mask[:, : student.shape[1]]
    keep = mask.unsqueeze(-1)
    student, teacher = student.float(), teacher.float()
    squared = (student - teacher).square().masked_fill(~keep, 0).sum((1, 2))
    count = mask.sum(1).clamp(min=1) * teacher.shape[-1]
    mean = teacher.masked_fill(~keep, 0).sum((1, 2)) / count
    spread = (teacher - mean[:, None, None]).square().masked_fill(~keep, 0).sum((1, 2))
    return squared / (spread + EPSILON)


def summary_mse(student: Tensor, teacher: Tensor, spread: Tensor) -> Tensor:
    """Squared error of one token's state, in units of how far the teacher's states lie apart.

    A map that answers with the mean of the teacher's states, whatever the text, scores 1 on average.

    Args:
        student: (B, D), mapped to the teacher's width.
        teacher: (B, D).
        spread: (), the mean squared distance of the teacher's states from their mean.

    Returns:
        (B,), no unit.
    """
    return (student.float() - teacher.float()).square().sum(-1) / (spread + EPSILON)


def attention_map_cross_entropy(student_map: Tensor, teacher_map: Tensor, mask: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's attention rows from the teacher's.

    Cross entropy less the teacher's own entropy (Hedgehog, arXiv 2402.04347, eq. 5): same gradient, but 0 when
    the maps agree. Mean over heads and real query rows.

    Args:
        student_map, teacher_map: (B, H, N, N), rows sum to 1 over the real keys.
        mask: (B, N) bool.

    Returns:
        (B,) in nats.
    """
    student_map, teacher_map = student_map.float(), teacher_map.float()
    divergence = torch.xlogy(teacher_map, teacher_map) - teacher_map * student_map.clamp(min=EPSILON).log()
    keys = mask[:, None, None, :]
    rows = divergence.masked_fill(~keys, 0).sum(-1).mean(1).masked_fill(~mask, 0)
    return rows.sum(1) / mask.sum(1).clamp(min=1)


def restrict_map(teacher_map: Tensor, student_map: Tensor) -> Tensor:
    """Cut the teacher's attention rows down to the keys that a student's pattern sees, each to the sum 1 again.

    Args:
        teacher_map, student_map: (B, H, N, N); the student's is 0 at keys that it cannot see.

    Returns:
        (B, H, N, N), without a gradient to the student.
    """
    seen = teacher_map.float().masked_fill(student_map == 0, 0)
    return seen / seen.sum(-1, keepdim=True).clamp(min=EPSILON)


def relation_heads(student_size: int, teacher_size: int, head_size: int) -> int:
    """Return how many relation heads states of two widths are split into: as many as the teacher has heads, or less.

    Of states that are not a multiple of that many, as many as divide both (MiniLMv2, arXiv 2012.15828: relations need
    no heads in common).
    """
    common = math.gcd(student_size, teacher_size)
    return max(count for count in range(1, teacher_size // head_size + 1) if common % count == 0)


def value_relations(student: Tensor, teacher: Tensor, mask: Tensor, num_heads: int) -> Tensor:
    """KL between softmax(V V^T / sqrt(d)) of teacher and student (MiniLM, arXiv 2002.10957, eq. 6-7).

    It needs no attention map and no equal width, so every mechanism with values can use it. Of queries and keys the
    same are the other relations of MiniLMv2 (arXiv 2012.15828).

    Args:
        student, teacher: values, queries or keys (B, N, D_s) and (B, N, D_t).
        mask: (B, N) bool.
        num_heads: relation heads that both are split into.

    Returns:
        (B,) in nats, mean over heads and real rows.
    """

    def relations(values: Tensor) -> Tensor:
        heads = values.float().unflatten(-1, (num_heads, -1)).transpose(1, 2)
        scores = heads @ heads.mT * heads.shape[-1] ** -0.5
        return scores.masked_fill(~mask[:, None, None, :], float("-inf")).log_softmax(-1)

    student_log, teacher_log = relations(student), relations(teacher)
    keys = mask[:, None, None, :]
    difference = (teacher_log - student_log).masked_fill(~keys, 0)
    rows = (teacher_log.exp() * difference).sum(-1).mean(1).masked_fill(~mask, 0)
    return rows.sum(1) / mask.sum(1).clamp(min=1)


def logits_loss(student: Tensor, teacher: Tensor, temperature: float, *, multi_label: bool = False) -> Tensor:
    """T^2 KL(teacher || student) of the softened classes (Hinton et al., arXiv 1503.02531); MSE for one output.

    Args:
        student, teacher: (B, C); C = 1 is a regression, whose score is matched as it is, never through a softmax.
        multi_label: whether every output decides for itself. The divergence is then that of two Bernoulli
            distributions, sigmoid(z / T), and the mean over the labels, so that it is as large as ``labels_loss``
            whatever their number.

    Returns:
        (B,) in nats times T^2, or squared label units.
    """
    student, teacher = student.float(), teacher.float()
    if multi_label:
        student, teacher = student / temperature, teacher / temperature
        cross = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none")
        own = F.binary_cross_entropy_with_logits(teacher, teacher.sigmoid(), reduction="none")
        return (cross - own).mean(-1) * temperature**2
    if student.shape[-1] == 1:
        return (student - teacher).square().squeeze(-1)
    student_log = F.log_softmax(student / temperature, -1)
    teacher_log = F.log_softmax(teacher / temperature, -1)
    return (teacher_log.exp() * (teacher_log - student_log)).sum(-1) * temperature**2


def labels_loss(
    logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross entropy against the labels, or squared error for a regression; 0 where a label is hidden.

    Where every label is decided by itself it is the binary cross entropy, mean over the labels.

    Args:
        logits: (B, C).
        labels: (B,) int64 classes, -1 where hidden, float scores where C = 1, NaN where hidden, or (B, C) floats
            0 and 1, a row of NaN where hidden.
        class_weights: (C,), by which the loss of each class is multiplied; of classes alone, as the next.
        label_smoothing: share of the target that is spread evenly over all classes (Szegedy et al., arXiv 1512.00567);
            both as `torch.nn.functional.cross_entropy` has them.

    Returns:
        (B,) in nats, or squared label units.
    """
    if labels.ndim == 2:
        targets = labels.float().nan_to_num()
        losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        return losses.mean(-1).masked_fill(labels.isnan().any(-1), 0)
    if logits.shape[-1] == 1:
        error = logits.squeeze(-1).float() - labels.float().nan_to_num()
        return error.square().masked_fill(labels.isnan(), 0)
    options: dict[str, Any] = {"weight": class_weights, "label_smoothing": label_smoothing, "ignore_index": HIDDEN}
    return F.cross_entropy(logits.float(), labels, reduction="none", **options)


def token_logits_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher || student) of the softened distributions over the vocabulary, where a token is to be predicted.

    Args:
        student, teacher: (B, N, V).
        labels: (B, N), `HIDDEN` where no token is to be predicted.

    Returns:
        (B,) in nats times T², the mean over those places.
    """
    counted = labels != HIDDEN
    return _mean_of_tokens(logits_loss(student[counted], teacher[counted], temperature), counted)


def token_labels_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross entropy against the tokens to be predicted.

    Args:
        logits: (B, N, V).
        labels: (B, N), `HIDDEN` where no token is to be predicted.

    Returns:
        (B,) in nats, the mean over those places.
    """
    counted = labels != HIDDEN
    chosen = logits[counted].float(), labels[counted]
    losses = F.cross_entropy(*chosen, reduction="none", label_smoothing=label_smoothing)
    return _mean_of_tokens(losses, counted)


def _mean_of_tokens(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean (B,) of the values (count,) of each example; (B, N) ``counted`` says where they stand."""
    spread = torch.zeros(counted.shape, dtype=values.dtype, device=values.device).masked_scatter(counted, values)
    return spread.sum(1) / counted.sum(1).clamp(min=1)
