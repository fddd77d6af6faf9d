"""A window over each token and some before it, in blocks, and the tokens that have left it.

The state keeps the keys and values of the last tokens, which later windows see; those that have left the windows of
all later tokens are handed on. Shapes: B batch, N new tokens, M kept ones, H heads, d head size, w tokens per window,
C tokens per block, n blocks, K columns that a block sees.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import Columns, to_blocks
from .causal import KeysAndValues, extend


class WindowAndSums(NamedTuple):
    """What is kept of the tokens so far: the last ones themselves, and sums of those that have left the window."""

    key: Tensor
    """(B, H, w, d), fewer at the beginning."""
    value: Tensor
    """(B, H, w, d + 1), with a column of ones."""
    unit: Tensor
    """(B, H, r, 1); see ``running.Scaled``."""
    sums: Tensor
    """(B, H, r, d + 1)."""


class WindowAndFeatures(NamedTuple):
    """The same with sums that need no unit; see ``causal.FeatureSums``."""

    key: Tensor
    value: Tensor
    pooled: Tensor
    total: Tensor


def window_columns(query: Tensor, kept: KeysAndValues, width: int) -> Columns:
    """Return, in blocks of C = min(N, w - 1) queries, what the last N tokens see of the w up to themselves.

    ``kept`` are keys and values (B, H, M, d) that end with those of the queries, (B, H, N, d).
    """
    length, radius = query.shape[-2], width - 1
    size = max(1, min(length, radius))
    earlier = min(kept.key.shape[-2] - length, radius)
    key, value = (window_blocks(each, length, radius, size).mT for each in kept)
    blocks = to_blocks(query * query.shape[-1] ** -0.5, size)
    first = size * torch.arange(blocks.shape[-3], device=query.device).view(-1, 1, 1)
    rows = first + torch.arange(size, device=query.device).view(-1, 1)
    columns = first + torch.arange(-radius, size, device=query.device)
    allowed = (columns <= rows) & (rows - columns <= radius) & (columns >= -earlier)
    return Columns(blocks @ key.mT, value, allowed)


def window_blocks(kept: Tensor, length: int, radius: int, size: int, fill: float = 0.0) -> Tensor:
    """Cut the last N of (..., M, d) into blocks of C, each with the ``radius`` before it: (..., n, d, radius + C).

    Tokens that are not there are ``fill``.
    """
    missing = radius + length - kept.shape[-2]  # cut off the front where negative
    padded = F.pad(kept, (0, 0, missing, -length % size), value=fill)
    return padded.unfold(-2, radius + size, size)


def move_window(
    state: KeysAndValues | None, key: Tensor, value: Tensor, width: int
) -> tuple[KeysAndValues, KeysAndValues, KeysAndValues]:
    """Return the keys and values that N new tokens' windows see, those that leave them, and those to keep.

    All are (B, H, ·, d). To keep are the last w tokens: before the next one, the first of them leaves.
    """
    seen = extend(state, key, value)
    leaving = max(0, seen.key.shape[-2] - width)
    left, kept = (
        KeysAndValues(*(each[..., part, :] for each in seen)) for part in (slice(leaving), slice(leaving, None))
    )
    return seen, left, kept


def near_before(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return which tokens are in the window of w tokens up to each, (N, N) bool; for tests."""
    place = torch.arange(length, device=device)
    return (place <= place[:, None]) & (place[:, None] - place < width)


def late(rows: Tensor, length: int, fill: float = 0.0) -> Tensor:
    """Fill rows (..., L, x) of tokens up to N with ``fill`` in front: each place has the one that leaves before it."""
    return F.pad(rows, (0, 0, length - rows.shape[-2], 0), value=fill)
