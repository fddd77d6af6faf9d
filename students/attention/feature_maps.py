"""Attention by a feature map of queries and keys, and the learned maps that several mechanisms share.

Shapes: B batch, N sequence length, H heads, d head size, r features.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import HeadAttention
from .favor import draw_projection
from .masking import feature_attention, feature_attention_map, full_precision, widen


class FeatureMapAttention(HeadAttention, ABC):
    """Attention with weights φ(q)·φ(k) ≥ 0 in O(N r d); a subclass says what φ is."""

    complexity = "linear"
    has_attention_map = True
    floor = 1e-6
    """Least sum of a query's weights: rows below it, of features that are all zero, tend to zero instead of 0/0."""

    @abstractmethod
    def features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return φ(q) and φ(k), (B, H, N, r) each; computed in fp32 at least, without autocast."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, key)
            query_features, key_features = self.features(query, key, mask)
        return feature_attention(query_features, key_features, value, mask, self.floor)

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
