"""Attention of each token to itself and to those before it, of a whole text at once or of its parts one by one.

What the tokens so far leave behind is a state, a tuple of tensors with the batch first: keys and values, which grow
with the text, or sums of features, which do not.

Shapes: B batch, N new tokens, M all tokens so far, H heads, d head size, r features.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import from_blocks, to_blocks
from .masking import full_precision, widen

CHUNK = 64
"""Tokens whose weights are computed as a matrix; those before are read from the sums."""


class KeysAndValues(NamedTuple):
    """All keys and values so far, (B, H, M, d)."""

    key: Tensor
    value: Tensor


class FeatureSums(NamedTuple):
    """What a linear mechanism keeps of the tokens so far."""

    pooled: Tensor
    """Σ φ(k) vᵀ, (B, H, r, d)."""
    total: Tensor
    """Σ φ(k), (B, H, r, 1)."""


def extend(state: KeysAndValues | None, key: Tensor, value: Tensor) -> KeysAndValues:
    """Return keys and values (B, H, N, d) behind those of the state."""
    if state is None:
        return KeysAndValues(key, value)
    return KeysAndValues(torch.cat([state.key, key], dim=-2), torch.cat([state.value, value], dim=-2))


def looking_back(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Return which of M keys the last N tokens may see, (N, M) bool: their own and those before."""
    earlier = num_keys - num_queries
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(earlier)


def causal_feature_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, state: FeatureSums | None, floor: float = 1e-6
) -> tuple[Tensor, FeatureSums]:
    """Attention with weights φ(q)·φ(k) ≥ 0 over each token and those before it, normalised per row, in O(N r d).

    Blocks of tokens are computed as matrices, and read what lies before them from running sums.

    Args:
        query_features, key_features: (B, H, N, r).
        value: (B, H, N, d).
        state: of the tokens before.
        floor: least sum of a row's weights.

    Returns:
        (B, H, N, d) in the dtype of ``value``, and the state after these tokens, in fp32 at least.
    """
    dtype, length = value.dtype, value.shape[-2]
    with full_precision(value):
        query_features, key_features, value = widen(query_features, key_features, value)
        extended = F.pad(value, (0, 1), value=1.0)  # the mean of ones is the sum of the weights
        size = min(CHUNK, length)
        queries, keys, values = (to_blocks(each, size) for each in (query_features, key_features, extended))
        sums = keys.mT @ values
        before = sums.new_zeros(sums[..., :1, :, :].shape)
        if state is not None:
            before = torch.cat([state.pooled, state.total], dim=-1).to(sums.dtype).unsqueeze(-3)
        running = torch.cat([before, sums], dim=-3).cumsum(-3)
        mixed = (queries @ keys.mT).tril() @ values + queries @ running[..., :-1, :, :]
        mixed = from_blocks(mixed, length)
        context = mixed[..., :-1] / mixed[..., -1:].clamp(min=floor)
        last = running[..., -1, :, :]
    return context.to(dtype), FeatureSums(last[..., :-1], last[..., -1:])
