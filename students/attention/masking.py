"""Small steps that many mechanisms share: pads excluded exactly, and attention by a feature map.

Shapes: B batch, N sequence length, H heads, d head size, r features.
"""

import torch
from torch import Tensor


def blank_pads(tensor: Tensor, mask: Tensor | None) -> Tensor:
    """Set the pads of (B, H, N, d) or (B, N, D) to zero; multiplying would keep their NaN."""
    if mask is None:
        return tensor
    pad = ~mask.unsqueeze(-1)
    return tensor.masked_fill(pad.unsqueeze(1) if tensor.dim() == 4 else pad, 0)


def masked_softmax(logits: Tensor, mask: Tensor | None, dim: int = -1) -> Tensor:
    """Softmax over ``dim`` where ``mask``, broadcastable to ``logits``, is True; exactly 0 elsewhere.

    Rows without any True yield zeros, and no gradient is NaN.
    """
    if mask is None:
        return logits.softmax(dim)
    weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(dim)
    return weights.masked_fill(~mask, 0)


def feature_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, mask: Tensor | None, floor: float = 1e-6
) -> Tensor:
    """Attention with weights φ(q)·φ(k) ≥ 0, normalised per row, in O(N r d): φ(Q)(φ(K)ᵀV) / φ(Q)(φ(K)ᵀ1).

    Features are (B, H, N, r), the value (B, H, N, d), the mask (B, N) bool. Computes in fp32 at least, under autocast
    too, and returns ``value``'s dtype. ``floor`` keeps rows of zero features finite.
    """
    dtype = value.dtype
    with torch.autocast(value.device.type, enabled=False):
        wide = torch.promote_types(dtype, torch.float32)
        query_features = query_features.to(wide)
        key_features, value = (blank_pads(tensor.to(wide), mask) for tensor in (key_features, value))
        pooled = key_features.mT @ value
        total = query_features @ key_features.sum(-2).unsqueeze(-1)
        context = (query_features @ pooled) / total.clamp(min=floor)
    return context.to(dtype)


def feature_attention_map(
    query_features: Tensor, key_features: Tensor, mask: Tensor | None, floor: float = 1e-6
) -> Tensor:
    """Return the (B, H, N, N) weights that :func:`feature_attention` gives to the values; O(N² r)."""
    with torch.autocast(query_features.device.type, enabled=False):
        wide = torch.promote_types(query_features.dtype, torch.float32)
        weights = query_features.to(wide) @ blank_pads(key_features.to(wide), mask).mT
        return weights / weights.sum(-1, keepdim=True).clamp(min=floor)
