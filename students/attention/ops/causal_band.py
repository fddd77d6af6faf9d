"""Attention of each token to itself and the few before it, in blocks, of a text that goes on from a state.

Shapes: B batch, N new tokens, W kept tokens before them, H heads, d head size, C tokens per block, n blocks, K columns
that a block sees.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import Columns, to_blocks
from .causal import KeysAndValues


def newest(state: KeysAndValues, count: int) -> KeysAndValues:
    """Return the last ``count`` keys and values, or all of them where they are fewer."""
    first = max(0, state.key.shape[-2] - count)
    return KeysAndValues(state.key[..., first:, :], state.value[..., first:, :])


def causal_band_columns(query: Tensor, kept: KeysAndValues, radius: int) -> Columns:
    """Return the band 0 <= i - j <= radius in blocks of at most ``radius`` queries.

    A block of C queries meets its own keys and the ``radius`` ones before: 2 radius columns, or radius + 1 where a
    single token is new.

    Args:
        query: of the new tokens, (B, H, N, d), N > 0.
        kept: keys and values (B, H, W + N, d), the last N of which are the queries' own; W <= ``radius``.
        radius: how far back a token sees.

    Returns:
        The columns of n blocks.
    """
    length, num_keys = query.shape[-2], kept.key.shape[-2]
    reach = min(radius, num_keys - 1)  # no more than there is
    size = max(1, min(reach, length))
    padding = (0, 0, reach - (num_keys - length), -length % size)
    # (B, H, n, d, K): each block's columns begin ``reach`` tokens before its queries.
    key, value = (F.pad(tensor, padding).unfold(-2, reach + size, size) for tensor in kept)
    blocks = to_blocks(query * query.shape[-1] ** -0.5, size)
    row = torch.arange(size, device=query.device).unsqueeze(-1)
    column = torch.arange(-reach, size, device=query.device)
    start = size * torch.arange(blocks.shape[-3], device=query.device).view(-1, 1, 1)
    near = (column <= row) & (column >= row - reach)
    return Columns(blocks @ key, value.mT, near & (start + column >= length - num_keys))
