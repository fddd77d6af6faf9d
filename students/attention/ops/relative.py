"""Segments that see themselves and others on one side, by relative positions: what both memory Transformers share."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from ..base import SelfAttention
from ..options import LARGEST

if TYPE_CHECKING:
    from ...configuration import StudentConfig


class RelativeAttention(SelfAttention):
    """Softmax of ((q + u)·k + (q + w)·W r(i - j)) / √d within a segment of L tokens and a memory beside it.

    https://arxiv.org/abs/1901.02860, §3.3. Even layers remember the tokens to the left, odd ones those to the right;
    in the causal form all look left. u, w and W start at zero, so that content alone counts.
    """

    takes_any_heads = True
    complexity = "linear"
    permutation_equivariant = False
    limits = {"segment": (1, LARGEST)}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.segment, self.memory = options["segment"], options["memory"]
        self.looks_left = config.causal or layer % 2 == 0
        self.content_bias = nn.Parameter(torch.empty(self.num_heads, 1, self.head_size))
        self.position_bias = nn.Parameter(torch.empty(self.num_heads, 1, self.head_size))
        self.relative = nn.Linear(config.hidden_size, config.attention_size, bias=False)

    @classmethod
    def options_problem(cls, options: Mapping[str, Any]) -> str | None:
        segment, memory = options["segment"], options["memory"]
        if memory % segment:
            return f"attention option memory must be a multiple of the segment, got {memory} and {segment}"
        return None

    @classmethod
    def sizes_problem(cls, config: Any) -> str | None:
        hidden = config.hidden_size
        pairs = f"{config.attention} attention knows distances by as many sines as cosines"
        return f"{pairs}; hidden_size {hidden} is odd" if hidden % 2 else None

    def initialize_features(self) -> None:
        for parameter in (self.content_bias, self.position_bias, self.relative.weight):
            initialization.zeros_(parameter)

    @property
    def reach(self) -> int:
        """How many segments beside its own a token sees."""
        return self.memory // self.segment

    def segments(self, length: int) -> tuple[int, int, int]:
        """Return the tokens of a segment and how many segments it sees to its left and right, within N tokens."""
        size = min(self.segment, length)
        memory = min(self.memory // self.segment, math.ceil(length / size) - 1)
        return size, memory * self.looks_left, memory * (not self.looks_left)

    def logits(self, query: Tensor, key: Tensor, num_before: int) -> Tensor:
        """Logits (B, H, n, C, K) of segments (B, H, n, C, d) and the keys (B, H, n, K, d) around them.

        The key in column ``num_before`` stands where the segment's first query does.
        """
        size, num_columns = query.shape[-2], key.shape[-2]
        distance = num_before + size - 1 - torch.arange(size + num_columns - 1, device=query.device)
        content_bias, position_bias, relative = (
            tensor.to(query.dtype).unsqueeze(1)
            for tensor in (self.content_bias, self.position_bias, self.relative_keys(distance))
        )
        position = shift_rows((query + position_bias) @ relative.mT, num_columns)
        return ((query + content_bias) @ key.mT + position) * self.head_size**-0.5

    def relative_keys(self, distance: Tensor) -> Tensor:
        """Return W r of distances (..., T), (H, ..., T, d), where r is [sin, cos] as in the original Transformer."""
        half = self.relative.in_features // 2
        frequency = 10000 ** (-torch.arange(half, device=distance.device, dtype=torch.float32) / half)
        angle = distance.unsqueeze(-1) * frequency
        waves = torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.relative.weight.dtype)
        return self.relative(waves).unflatten(-1, (self.num_heads, self.head_size)).movedim(-2, 0)

    def sees(self, position: Tensor) -> Tensor:
        """Which positions (B, N) see which, (B, N, N) at [to, from]."""
        segment = position // self.segment
        back = segment.unsqueeze(-1) - segment.unsqueeze(-2)
        back = back if self.looks_left else -back
        return (back >= 0) & (back <= self.reach)

    def receptive_field(self, length: int) -> Tensor:
        return self.sees(torch.arange(length)[None])[0]


def relative_flops(config: Any, length: int, memory: int, slots: int = 0) -> int:
    """Operations of segments of N tokens that see themselves, ``memory`` tokens and ``slots`` others."""
    size = min(config.attention_options["segment"], length)
    num_segments = math.ceil(length / size)
    columns = min(memory // size + 1, num_segments) * size + slots
    distances = columns + size - 1
    per_token = 4 * columns + 2 * distances
    return config.attention_size * (num_segments * size * per_token + 2 * distances * config.hidden_size)


def shift_rows(by_distance: Tensor, num_columns: int) -> Tensor:
    """Turn logits by distance (..., C, C + K - 1) into logits by column (..., C, K): row i moves left by C - 1 - i."""
    size, num_distances = by_distance.shape[-2:]
    flat = F.pad(by_distance, (0, 1)).flatten(-2)[..., size - 1 : size - 1 + size * num_distances]
    return flat.unflatten(-1, (size, num_distances))[..., :num_columns]
