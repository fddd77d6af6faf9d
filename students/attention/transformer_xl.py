"""Transformer-XL: segments that see themselves and a memory beside them, by relative positions."""

from typing import Any

import torch
from torch import Tensor

from .base import HeadAttention
from .ops.banded import (
    Columns,
    from_blocks,
    in_order,
    joint_attention,
    real_columns,
    to_blocks,
    token_positions,
    with_neighbours,
)
from .ops.causal import KeysAndValues, extend
from .ops.masking import blank_pads, masked_softmax
from .ops.relative import RelativeAttention, relative_flops
from .ops.relative_causal import attend_to_segments, keep_segments


class TransformerXLAttention(RelativeAttention, HeadAttention):
    """Relative attention to the L tokens of a segment and M beside them; (8L + 6M)Nd operations per head.

    https://arxiv.org/abs/1901.02860, §3, both ways inside a segment. An encoder has all tokens of the layer below at
    once, so that the recurrence from segment to segment is one banded attention, with gradients into the memory.

    The causal form is the paper's own: a token sees those before it in its segment, and the memory. Segments count
    from the start of the text. What a state carries from one call to the next gets no gradient, as published.
    """

    has_attention_map = True
    has_sparse_map = True
    carries_segments = True
    why_not_causal = None
    constant_state = True
    options = {"segment": 64, "memory": 64}  # noqa: RUF012
    small_options = {"segment": 4, "memory": 4}  # noqa: RUF012

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return in_order(self._attend_in_order, mask, query, key, value)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        size, before, after = self.segments(query.shape[2])
        blocks = to_blocks(query, size)
        key, value = (with_neighbours(to_blocks(tensor, size), before, after) for tensor in (key, value))
        logits = self.logits(blocks, key, before * size)
        allowed = real_columns(query, mask, size, before, after)
        return from_blocks(joint_attention([Columns(logits, value, allowed)]), query.shape[2])

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        position = token_positions(mask, query.shape[2], query.device)
        distance = position.unsqueeze(-1) - position.unsqueeze(-2)
        relative = self.relative_keys(distance).movedim(0, 1)
        by_position = ((query + self.position_bias).unsqueeze(-2) @ relative.mT).squeeze(-2)
        logits = ((query + self.content_bias) @ key.mT + by_position) * self.head_size**-0.5
        allowed = self.sees(position)[:, None]
        return masked_softmax(logits, allowed if mask is None else allowed & mask[:, None, None, :])

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return self.attention_map(query, key, mask) @ blank_pads(value, mask)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        kept = extend(state, key, value)
        return attend_to_segments(self, query, kept), keep_segments(kept, self.segment, self.reach)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        position = torch.arange(query.shape[2])
        back = position[:, None] // self.segment - position // self.segment
        hidden = (back > self.reach) | (position > position[:, None])
        relative = self.relative_keys(position[:, None] - position)
        by_position = torch.einsum("bhid,hijd->bhij", query + self.position_bias, relative)
        logits = ((query + self.content_bias) @ key.mT + by_position) / self.head_size**0.5
        return logits.masked_fill(hidden, -torch.inf).softmax(-1) @ value

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Contents, values and relative positions, 4NKD + 2N(K + L - 1)D for K = L + M, and Wr, 2(K + L - 1)D²."""
        return relative_flops(config, length, config.attention_options["memory"])
