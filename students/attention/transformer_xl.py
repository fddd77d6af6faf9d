"""Transformer-XL as an encoder: segments that see themselves and a memory beside them, by relative positions."""

from typing import Any

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
from .ops.masking import blank_pads, masked_softmax
from .ops.relative import RelativeAttention, relative_flops


class TransformerXLAttention(RelativeAttention, HeadAttention):
    """Relative attention to the L tokens of a segment and M beside them; (8L + 6M)Nd operations per head.

    https://arxiv.org/abs/1901.02860, §3, both ways inside a segment. An encoder has all tokens of the layer below at
    once, so that the recurrence from segment to segment is one banded attention, with gradients into the memory.
    """

    has_attention_map = True
    has_sparse_map = True
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

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Contents, values and relative positions, 4NKD + 2N(K + L - 1)D for K = L + M, and Wr, 2(K + L - 1)D²."""
        return relative_flops(config, length, config.attention_options["memory"])
