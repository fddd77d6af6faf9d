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


class CountedSums(NamedTuple):
    """Sums of features, and how many tokens they are of."""

    pooled: Tensor
    total: Tensor
    num_tokens: Tensor
    """(B,) int64."""


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
    query_features: Tensor,
    key_features: Tensor,
    value: Tensor,
    state: FeatureSums | CountedSums | None,
    floor: float = 1e-6,
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
    dtype = value.dtype
    with full_precision(value):
        query_features, key_features, value = widen(query_features, key_features, value)
        mixed, state = causal_feature_sums(query_features, key_features, with_ones(value), state)
        context = mixed[..., :-1] / mixed[..., -1:].clamp(min=floor)
    return context.to(dtype), state


def causal_feature_sums(
    query_features: Tensor, key_features: Tensor, value: Tensor, state: FeatureSums | CountedSums | None
) -> tuple[Tensor, FeatureSums]:
    """Return Σ φ(q)·φ(k) [v, 1] over each token and those before it, (B, H, N, d + 1), and the state after them.

    All is wide, features (B, H, N, r) of either sign, the value (B, H, N, d + 1) with :func:`with_ones`.
    """
    length = value.shape[-2]
    size = min(CHUNK, length)
    queries, keys, values = (to_blocks(each, size) for each in (query_features, key_features, value))
    sums = keys.mT @ values
    before = sums.new_zeros(sums[..., :1, :, :].shape)
    if state is not None:
        before = torch.cat([state.pooled, state.total], dim=-1).to(sums.dtype).unsqueeze(-3)
    running = torch.cat([before, sums], dim=-3).cumsum(-3)
    mixed = (queries @ keys.mT).tril() @ values + queries @ running[..., :-1, :, :]
    last = running[..., -1, :, :]
    return from_blocks(mixed, length), FeatureSums(last[..., :-1], last[..., -1:])


def with_ones(value: Tensor) -> Tensor:
    """Append a column of ones to values (..., d): what weights make of it is their sum."""
    return F.pad(value, (0, 1), value=1.0)


def tokens_so_far(state: CountedSums | None, query: Tensor) -> Tensor:
    """Return how many tokens came before these (B, H, N, d), (B,) int64."""
    return torch.zeros(len(query), dtype=torch.int64, device=query.device) if state is None else state.num_tokens
