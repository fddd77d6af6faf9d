"""Sparse Transformer: every token sees its surroundings and every l-th token beyond, both ways or looking back."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .ops.banded import (
    Columns,
    band_columns,
    banded_attention,
    from_blocks,
    joint_attention,
    joint_softmax,
    mask_or_ones,
    real_columns,
    to_blocks,
    with_neighbours,
)
from .ops.causal import KeysAndValues, extend
from .ops.masking import masked_softmax
from .ops.pattern import PatternAttention
from .options import LARGEST

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class SparseAttention(PatternAttention):
    """Softmax over O(√N) tokens per token, so that two layers connect any two; 4N(3l + N/l)d operations per head.

    https://arxiv.org/abs/1904.10509, §4.2, both ways. With stride l, ``strided``: |i - j| < l, or i - j a multiple of
    l; ``fixed``: j in the same block of l, or among the last c of any block. ``stride`` 0 means √N for the longest
    input of the configuration. The causal form is the paper's own: of these tokens, those with j <= i.
    """

    complexity = "subquadratic"
    why_not_causal = None
    options = {"pattern": ("strided", "fixed"), "stride": 0, "summary_tokens": 4}  # noqa: RUF012
    limits = {"summary_tokens": (1, LARGEST)}  # noqa: RUF012
    small_options = {"summary_tokens": 1}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.strided = options["pattern"] == "strided"
        self.stride = stride_of(config)
        self.num_summary = options["summary_tokens"]

    @classmethod
    def sizes_problem(cls, config: Any) -> str | None:
        stride, count = stride_of(config), config.attention_options["summary_tokens"]
        if count <= stride:
            return None
        return f"attention option summary_tokens must be 1 to the stride, {stride}, got {count}"

    def pattern(self, position: Tensor, num_real: Tensor) -> Tensor:
        return self._sees(position[:, None, :, None], position[:, None, None, :])

    def _sees(self, rows: Tensor, columns: Tensor) -> Tensor:
        if self.strided:
            return ((rows - columns).abs() < self.stride) | ((rows - columns) % self.stride == 0)
        return (rows // self.stride == columns // self.stride) | (
            columns % self.stride >= self.stride - self.num_summary
        )

    def attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        length = query.shape[-2]
        if length <= self.stride:  # all in one block
            return banded_attention(query, key, value, mask, length)
        form = self._strided if self.strided else self._fixed
        return from_blocks(form(query, key, value, mask), length)

    def _strided(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The band, and the residue classes modulo l, which are the columns of the tokens laid out in rows of l."""
        band = band_columns(query, key, value, mask, self.stride - 1, size=self.stride)
        real = to_blocks(mask_or_ones(mask, query).unsqueeze(-1), self.stride).squeeze(-1).mT[:, None, None]
        query, key, value = (to_blocks(tensor, self.stride).transpose(2, 3) for tensor in (query, key, value))
        logits = ((query * self.head_size**-0.5) @ key.mT).transpose(2, 3)
        # Of its class, the band has the token itself alone.
        other = ~torch.eye(key.shape[-2], dtype=torch.bool, device=key.device).unsqueeze(1)
        of_band, of_class = joint_softmax([(band.logits, band.allowed), (logits, other & real)])
        return of_band @ band.value + (of_class.transpose(2, 3) @ value).transpose(2, 3)

    def _fixed(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """A token's own block, and the last c tokens of every other block."""
        own = real_columns(query, mask, self.stride, 0, 0)
        query, key, value = (to_blocks(tensor, self.stride) for tensor in (query, key, value))
        query = query * self.head_size**-0.5
        first = self.stride - self.num_summary
        keys, values = (tensor[..., first:, :].flatten(2, 3).unsqueeze(2) for tensor in (key, value))
        block = torch.arange(query.shape[2], device=query.device)
        other = block.view(-1, 1, 1) != block.repeat_interleave(self.num_summary)
        real = own[..., first:].flatten(2)[:, :, None, None]
        return joint_attention([Columns(query @ key.mT, value, own), Columns(query @ keys.mT, values, other & real)])

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        kept = extend(state, key, value)
        if query.shape[2] < self.stride:
            return self._attend_to_seen(query, kept), kept
        # The keys are cut into blocks from the start of the text on, the queries from the block in which they begin.
        first, begun = divmod(kept.key.shape[2] - query.shape[2], self.stride)
        blocks = to_blocks(F.pad(query * self.head_size**-0.5, (0, 0, begun, 0)), self.stride)
        keys, values = (to_blocks(tensor, self.stride) for tensor in kept)
        form = self._strided_causal if self.strided else self._fixed_causal
        context = from_blocks(form(blocks, keys, values, first), begun + query.shape[2])
        return context[:, :, begun:], kept

    def _attend_to_seen(self, query: Tensor, kept: KeysAndValues) -> Tensor:
        """Attend from a few tokens to those alone that one of them sees: l + M/l for a single one after M."""
        position = torch.arange(kept.key.shape[2], device=query.device)
        rows = position[-query.shape[2] :, None]
        allowed = self._sees(rows, position) & (position <= rows)
        seen = allowed.any(0).nonzero().squeeze(-1)
        key, value = (tensor.index_select(2, seen) for tensor in kept)
        return masked_softmax(query @ key.mT * self.head_size**-0.5, allowed.index_select(1, seen)) @ value

    def _strided_causal(self, query: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """The band, from the block before, and those of the token's residue class modulo l in all blocks before.

        Queries are the blocks (B, H, n, l, d) from ``first`` on, keys and values all of them.
        """
        near_keys, near_values = (with_neighbours(tensor, 1, 0)[:, :, first:] for tensor in (keys, values))
        block = torch.arange(keys.shape[2], device=keys.device)
        row = torch.arange(self.stride, device=keys.device).unsqueeze(-1)
        column = torch.arange(-self.stride, self.stride, device=keys.device)
        near = (column <= row) & (column > row - self.stride) & ((block[first:, None, None] > 0) | (column >= 0))
        logits = (query.transpose(2, 3) @ keys.transpose(2, 3).mT).transpose(2, 3)
        earlier = (block < block[first:, None]).unsqueeze(1)
        of_band, of_class = joint_softmax([(query @ near_keys.mT, near), (logits, earlier)])
        return of_band @ near_values + (of_class.transpose(2, 3) @ values.transpose(2, 3)).transpose(2, 3)

    def _fixed_causal(self, query: Tensor, keys: Tensor, values: Tensor, first: int) -> Tensor:
        """A token's own block up to itself, and the last c tokens of every block before; blocks as above."""
        block = torch.arange(keys.shape[2], device=keys.device)
        up_to_itself = torch.ones(self.stride, self.stride, dtype=torch.bool, device=keys.device).tril()
        own = Columns(query @ keys[:, :, first:].mT, values[:, :, first:], up_to_itself)
        ends, values = (tensor[..., -self.num_summary :, :].flatten(2, 3).unsqueeze(2) for tensor in (keys, values))
        earlier = block.repeat_interleave(self.num_summary) < block[first:, None, None]
        return joint_attention([own, Columns(query @ ends.mT, values, earlier)])

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        position = torch.arange(query.shape[2])
        allowed = self._sees(position[:, None], position) & (position[:, None] >= position)
        logits = query @ key.mT / self.head_size**0.5
        return logits.masked_fill(~allowed, -torch.inf).softmax(-1) @ value

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Both parts in blocks of l: 4N(3l + N/l)D strided, 4N(l + cN/l)D fixed; 4N²D up to l tokens."""
        stride, options = stride_of(config), config.attention_options
        if length <= stride:
            return 4 * length**2 * config.attention_size
        num_blocks = math.ceil(length / stride)
        strided = options["pattern"] == "strided"
        columns = 3 * stride + num_blocks if strided else stride + options["summary_tokens"] * num_blocks
        return 4 * num_blocks * stride * columns * config.attention_size


def stride_of(config: Any) -> int:
    """Return l, from the configuration alone: the padded length must not change what a token sees."""
    return config.attention_options["stride"] or round(math.sqrt(config.max_position_embeddings))
