"""Causal segments with a memory: what a token of both memory Transformers sees of its own segment and of those before.

Keys, values and slots are kept from a segment border on, so that their number tells where in a segment they end, and
any cutting of a text into calls finds the same segments.

Shapes: B batch, N new tokens, W kept tokens before them, H heads, d head size, L tokens per segment, M of the memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import Columns, from_blocks, joint_attention, to_blocks, with_neighbours
from .causal import KeysAndValues, looking_back
from .masking import masked_softmax
from .relative import RelativeAttention


class Slots(NamedTuple):
    """The compressed tokens of the memory and beyond, from a segment border on."""

    kept: KeysAndValues
    """(B, H, S, d), as many as are filled."""
    per_segment: int
    earlier: int
    """How many of the segments are before the first new token's."""
    reach: int
    """How many segments before its own the oldest slots are that a token sees."""


def attend_to_segments(
    attention: RelativeAttention, query: Tensor, kept: KeysAndValues, slots: Slots | None = None
) -> Tensor:
    """Attend from new tokens (B, H, N, d) to those before them in their segment, to its memory and its slots.

    Args:
        attention: gives the logits and the sizes of segment and memory.
        query: of the new tokens.
        kept: keys and values (B, H, W + N, d) from a segment border on: M tokens before the first new one's segment,
            or the start of the text.
        slots: beyond the memory, if there are any.

    Returns:
        (B, H, N, d).
    """
    length, size = query.shape[2], attention.segment
    begun = (kept.key.shape[2] - length) % size
    # The rest of a segment, or a short text, by itself; then whole segments, all of them at once.
    rest = min(length, size - begun) if begun or length <= size else 0
    contexts = []
    if rest:
        end = kept.key.shape[2] - length + rest
        near = KeysAndValues(kept.key[:, :, :end], kept.value[:, :, :end])
        contexts.append(_attend_in_one(attention, query[:, :, :rest], near, slots))
    if rest < length:
        contexts.append(_attend_in_many(attention, query[:, :, rest:], kept, slots, after=int(rest > 0)))
    return torch.cat(contexts, dim=2)


def keep_segments(kept: KeysAndValues, per_segment: int, reach: int) -> KeysAndValues:
    """Return what later tokens can see, of their own segment and ``reach`` before it; no gradient goes back to it."""
    count = reach * per_segment + kept.key.shape[2] % per_segment
    first = max(0, kept.key.shape[2] - count)
    return KeysAndValues(kept.key[:, :, first:].detach(), kept.value[:, :, first:].detach())


def _attend_in_one(attention: RelativeAttention, query: Tensor, near: KeysAndValues, slots: Slots | None) -> Tensor:
    """Attend within one segment, which sees all that is given and earlier."""
    key, value = near
    if slots is not None:
        count = max(0, slots.earlier - attention.memory // attention.segment) * slots.per_segment
        key, value = (
            torch.cat([far[:, :, :count], tensor], dim=2) for far, tensor in zip(slots.kept, near, strict=True)
        )
    num_queries, num_keys = query.shape[2], key.shape[2]
    logits = attention.logits(query.unsqueeze(2), key.unsqueeze(2), num_keys - num_queries).squeeze(2)
    return masked_softmax(logits, looking_back(num_queries, num_keys, query.device)) @ value


def _attend_in_many(
    attention: RelativeAttention, query: Tensor, kept: KeysAndValues, slots: Slots | None, after: int
) -> Tensor:
    """Attend in segments from a border on, ``after`` the first new token's segment or with it."""
    length, size, memory = query.shape[2], attention.segment, attention.memory // attention.segment
    blocks = to_blocks(query, size)
    key_blocks, value_blocks = (to_blocks(tensor, size) for tensor in kept)
    num_blocks = blocks.shape[2]
    before = min(memory, key_blocks.shape[2] - 1)
    exists = torch.ones(key_blocks.shape[2], size, 1, dtype=torch.bool, device=query.device)
    columns = [with_neighbours(tensor, before, 0) for tensor in (key_blocks, value_blocks, exists)]
    columns = [tensor[..., -num_blocks:, :, :] for tensor in columns]
    if slots is not None:
        num_segments = slots.earlier + after + num_blocks
        far = max(0, min(slots.reach - memory, num_segments - 1 - memory))
        if far:
            beyond = [tensor[..., -num_blocks:, :, :] for tensor in _slot_columns(slots, num_segments, far, memory)]
            columns = [torch.cat(pair, dim=-2) for pair in zip(beyond, columns, strict=True)]
    key, value, exists = columns
    logits = attention.logits(blocks, key, key.shape[-2] - size)
    allowed = exists.mT & looking_back(size, key.shape[-2], query.device)
    return from_blocks(joint_attention([Columns(logits, value, allowed)]), length)


def _slot_columns(slots: Slots, num_segments: int, far: int, memory: int) -> list[Tensor]:
    """Return keys, values (B, H, n, C, d) and existence of the slots in the ``far`` segments before each's memory."""
    count = num_segments * slots.per_segment
    exists = torch.ones(slots.kept.key.shape[2], 1, dtype=torch.bool, device=slots.kept.key.device)
    # The current segment's slots, which nobody sees yet, may be missing.
    padded = [F.pad(tensor, (0, 0, 0, count - tensor.shape[-2])) for tensor in (*slots.kept, exists)]
    blocks = [to_blocks(tensor, slots.per_segment) for tensor in padded]
    return [with_neighbours(tensor, far + memory, 0)[..., : far * slots.per_segment, :] for tensor in blocks]
