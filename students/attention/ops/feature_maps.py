"""Attention by a feature map of queries and keys, and the learned maps that several mechanisms share.

Shapes: B batch, N sequence length, H heads, d head size, r features.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from ..base import HeadAttention
from .causal import causal_feature_attention
from .masking import blank_pads, feature_attention, feature_attention_map, full_precision, widen
from .orthogonal_projection import draw_projection
from .reference import naive_feature_attention

PART_ELEMENTS = 2**17  # of queries, that each thread of a CPU turns into features at a time: 1 MiB stays in its cache


class FeatureMapAttention(HeadAttention, ABC):
    """Attention with weights φ(q)·φ(k) ≥ 0 in O(N r d); a subclass says what φ is."""

    complexity = "linear"
    has_attention_map = True
    constant_state = True
    floor = 1e-6
    """Least sum of a query's weights: rows below it, of features that are all zero, tend to zero instead of 0/0."""

    @abstractmethod
    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        """Return φ(q), (B, H, N, r), of each token by itself; computed in fp32 at least, without autocast.

        ``first`` counts the real tokens before these where they are part of a text: an int or (B, 1).
        """

    def key_features(self, key: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        """Return φ(k); the map of the queries unless a mechanism says otherwise."""
        return self.query_features(key, mask, first)

    def features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return φ(q) and φ(k) of whole texts."""
        return self.query_features(query, mask), self.key_features(key, mask)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, key)
            # A compiler fuses plain operations itself; gradients would keep all features anyway.
            at_once = torch.is_grad_enabled() or torch.compiler.is_compiling() or query.device.type != "cpu"
            if at_once or query.shape[2] != key.shape[2]:
                return feature_attention(*self.features(query, key, mask), value, mask, self.floor)
            num_tokens = max(1, PART_ELEMENTS * torch.get_num_threads() // query[0, :, 0].numel())
            return self._attend_in_parts(query, key, value, mask, num_tokens)

    def _attend_in_parts(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, num_tokens: int
    ) -> Tensor:
        """Mix ``num_tokens`` at a time: features stay in the processor's cache, no new memory is asked for."""
        batch, heads, length, head_size = query.shape
        if batch * length <= num_tokens:
            return feature_attention(*self.features(query, key, mask), value, mask, self.floor)
        context = value.new_empty(batch, length, heads, head_size).transpose(1, 2)  # heads merge without a copy
        num_examples = max(1, num_tokens // length)
        for start in range(0, batch, num_examples):
            some = slice(start, start + num_examples)
            inputs = (query[some], key[some], value[some], None if mask is None else mask[some])
            if length <= num_tokens:
                context[some] = self._attend_in_parts(*inputs, num_tokens)
            else:
                self._attend_long(*inputs, context[some], num_tokens)
        return context

    def _attend_long(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, context: Tensor, num_tokens: int
    ) -> None:
        """Sum the keys' features ``num_tokens`` at a time, then read the sums with the queries' into ``context``."""
        parts = [slice(start, start + num_tokens) for start in range(0, query.shape[-2], num_tokens)]
        masks = [None if mask is None else mask[:, part] for part in parts]
        firsts = [part.start if mask is None else mask[:, : part.start].sum(-1, keepdim=True) for part in parts]
        sums = []
        for part, of_part, first in zip(parts, masks, firsts, strict=True):
            features = blank_pads(self.key_features(key[:, :, part], of_part, first), of_part)
            values = blank_pads(value[:, :, part].to(features.dtype), of_part)
            sums.append((features.mT @ values, features.sum(-2).unsqueeze(-1)))
        pooled, total = (torch.stack(each).sum(0) for each in zip(*sums, strict=True))
        for part, of_part, first in zip(parts, masks, firsts, strict=True):
            features = self.query_features(query[:, :, part], of_part, first)
            context[:, :, part] = (features @ pooled) / (features @ total).clamp(min=self.floor)

    def attend_causal(self, query: Tensor, key: Tensor, value: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix the values of the tokens before each query and its own; the state is a ``FeatureSums`` by default."""
        with full_precision(query):
            query, key = widen(query, key)
            return causal_feature_attention(*self.features(query, key, None), value, state, self.floor)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        earlier = torch.ones(query.shape[2], query.shape[2], dtype=query.dtype).tril()
        return naive_feature_attention(*self.naive_features(query, key), value, None, earlier)

    def naive_features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ(q) and φ(k), (B, H, N, r), by the definition, slow and obvious; for tests."""
        return self.features(query, key, None)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, key)
            query_features, key_features = self.features(query, key, mask)
        return feature_attention_map(query_features, key_features, mask, self.floor)


class HeadLinear(nn.Module):
    """A linear map per head, W (H, r, d) and optionally b (H, r)."""

    def __init__(self, num_heads: int, head_size: int, num_features: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_heads, num_features, head_size))
        self.bias = nn.Parameter(torch.empty(num_heads, num_features)) if bias else None

    def forward(self, heads: Tensor) -> Tensor:
        """Map (B, H, N, d) to (B, H, N, r), in the precision of the input."""
        mapped = heads @ self.weight.to(heads.dtype).mT
        return mapped if self.bias is None else mapped + self.bias.to(heads.dtype).unsqueeze(-2)

    def initialize(self, generator: torch.Generator, bias: float = 0.0) -> None:
        """Start at the identity or, unless r = d, at random rows of length 1, orthogonal within blocks of d."""
        num_heads, num_features, head_size = self.weight.shape
        if num_features == head_size:
            rows = torch.eye(head_size).expand(num_heads, -1, -1)
        else:
            draws = [draw_projection(num_features, head_size, generator) for _ in range(num_heads)]
            rows = F.normalize(torch.stack(draws), dim=-1)
        initialization.copy_(self.weight, rows)
        if self.bias is not None:
            initialization.constant_(self.bias, bias)


def softmax_features(logits: Tensor) -> Tensor:
    """Hedgehog's features [softmax(u), softmax(-u)] of (B, H, N, r/2) logits u (https://arxiv.org/abs/2402.04347)."""
    return torch.cat([logits.softmax(-1), (-logits).softmax(-1)], dim=-1)
