"""Slow, obvious references that tests compare the attention mechanisms with; never used by a model.

Shapes: B batch, N sequence length, H heads, d head size, m features.
"""

import math

import torch
from torch import Tensor


def naive_softmax_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention through the N x N logits q·k / √d; (B, H, N, d), zeros where an example has no real token."""
    logits = query @ key.mT / math.sqrt(query.shape[-1])
    return naive_masked_attention(logits, value, mask)


def naive_favor_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor
) -> Tensor:
    """FAVOR+ (https://arxiv.org/abs/2009.14794) in log space: softmax over keys of logsumexp over features.

    O(N²m) memory. The projection is (m, d) or (H, m, d); gradients flow through plain autograd.
    """
    return naive_masked_attention(naive_favor_logits(query, key, projection), value, mask)


def naive_favor_logits(query: Tensor, key: Tensor, projection: Tensor) -> Tensor:
    """Log of FAVOR+'s Σ_m φ(q)φ(k), m times the estimate of exp(q·k / √d); (B, H, N, N)."""
    query_logits = _feature_logits(query, projection)
    key_logits = _feature_logits(key, projection)
    return torch.logsumexp(query_logits.unsqueeze(-2) + key_logits.unsqueeze(-3), dim=-1)


def naive_favor_plus_plus_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, projection: Tensor, spread: float
) -> Tensor:
    """FAVOR++ (https://arxiv.org/abs/2205.15317) in log space: features D exp(A|w|² + Bw·x - |x|²/2), A the spread."""
    return naive_masked_attention(naive_favor_plus_plus_logits(query, key, projection, spread), value, mask)


def naive_favor_plus_plus_logits(query: Tensor, key: Tensor, projection: Tensor, spread: float) -> Tensor:
    """Log of FAVOR++'s Σ_m φ(q)φ(k), m times the estimate of exp(q·k / √d); (B, H, N, N)."""
    constant = spread * projection.square().sum(-1).unsqueeze(-2) + query.shape[-1] / 4 * math.log(1 - 4 * spread)
    scaled = [tensor / query.shape[-1] ** 0.25 for tensor in (query, key)]
    logits = [
        constant + math.sqrt(1 - 4 * spread) * (x @ projection.mT) - x.square().sum(-1, keepdim=True) / 2
        for x in scaled
    ]
    return torch.logsumexp(logits[0].unsqueeze(-2) + logits[1].unsqueeze(-3), dim=-1)


def naive_feature_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, mask: Tensor | None, weight: Tensor | None = None
) -> Tensor:
    """Attention with weights φ(q)·φ(k), times ``weight`` (N, N) if given, divided by their sum over real keys."""
    weights = torch.einsum("bhir,bhjr->bhij", query_features, key_features)
    if weight is not None:
        weights = weights * weight
    return naive_weighted_mean(weights, value, mask)


def naive_weighted_mean(weights: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of the real tokens' values by weights (B, H, N, N) of any scale; zeros where a row has none."""
    if mask is not None:
        weights = weights.masked_fill(~mask[:, None, None, :], 0)
        value = value.masked_fill(~mask[:, None, :, None], 0)
    total = weights.sum(-1, keepdim=True)
    return (weights @ value) / total.masked_fill(total == 0, 1)


def _feature_logits(tensor: Tensor, projection: Tensor) -> Tensor:
    """Log of the positive features: w·x - |x|²/2 with x = tensor / d^¼; (B, H, N, m)."""
    scaled = tensor / tensor.shape[-1] ** 0.25
    return scaled @ projection.mT - scaled.square().sum(-1, keepdim=True) / 2


def naive_masked_attention(logits: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of (B, H, N, N) logits over the real tokens, applied to their values; zeros where there are none."""
    if mask is None:
        return logits.softmax(-1) @ value
    mask = mask[:, None, None, :]
    weights = logits.masked_fill(~mask, -torch.inf).softmax(-1).masked_fill(~mask, 0)
    return weights @ value.masked_fill(~mask.mT, 0)


def naive_causal_attention(logits: Tensor, value: Tensor) -> Tensor:
    """Softmax of (B, H, N, N) logits over each token and those before it, applied to the values."""
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    return logits.masked_fill(later, -torch.inf).softmax(-1) @ value
