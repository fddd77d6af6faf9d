"""LION: bidirectional linear attention that fades with the distance, by learned decays between neighbours."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .linear import LinearAttention
from .ops.causal import FeatureSums, with_ones
from .ops.decay import carry_operations, causal_decayed_sums, decayed_attention, fade
from .ops.masking import blank_pads, full_precision, widen
from .ops.reference import naive_feature_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class LionAttention(LinearAttention):
    """Weights φ(q_i)·φ(k_j) Π λ_t, over the tokens t after the first of i and j up to the second; φ = elu + 1.

    https://arxiv.org/abs/2502.16249, normalised per row. The decay λ_t = sigmoid(w·k_t + b) depends
    on the token (``selective``, the paper's LION-S, there a map of the hidden state) or not (``fixed``, its LION-D);
    pads have λ = 1. Blocks of ``chunk_size`` tokens are computed as a matrix, and read from one state per block and
    direction what lies outside: 8Nd² + 4N chunk d operations per head. The causal form has the forward direction
    alone, a sum of key features and values that fades with every token.
    """

    permutation_equivariant = False
    takes_single_queries = False  # its decay runs from the query's place
    options = {"decay": ("selective", "fixed"), "chunk_size": 64}  # noqa: RUF012
    small_options = {"chunk_size": 8}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.chunk_size = options["chunk_size"]
        self.longest = config.max_position_embeddings
        selective = options["decay"] == "selective"
        self.decay_weight = nn.Parameter(torch.empty(self.num_heads, self.head_size, 1)) if selective else None
        self.decay_bias = nn.Parameter(torch.empty(self.num_heads, 1, 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dtype, length = value.dtype, value.shape[-2]
        with full_precision(query):
            query, key, value = widen(query, blank_pads(key, mask), blank_pads(value, mask))
            query_features, key_features = self.features(query, key, mask)
            mixed = decayed_attention(
                query_features,
                blank_pads(key_features, mask),
                with_ones(value),
                self._log_decay(key, mask),
                chunk_length(self.chunk_size, length),
            )
            context = mixed[..., :-1] / mixed[..., -1:].clamp(min=self.floor)
        return context.to(dtype)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: FeatureSums | None
    ) -> tuple[Tensor, FeatureSums]:
        dtype, chunk = value.dtype, chunk_length(self.chunk_size, value.shape[-2])
        with full_precision(query):
            query, key, value = widen(query, key, value)
            before = None if state is None else torch.cat([state.pooled, state.total], dim=-1)
            features, log_decay = self.features(query, key, None), self._log_decay(key, None)
            mixed, sums = causal_decayed_sums(*features, with_ones(value), log_decay, chunk, before)
            context = mixed[..., :-1] / mixed[..., -1:].clamp(min=self.floor)
        return context.to(dtype), FeatureSums(sums[..., :-1], sums[..., -1:])

    def _log_decay(self, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return log λ of every token, (B, H, N, 1); 0 at pads."""
        logits = self.decay_bias.to(key.dtype).expand(*key.shape[:-1], 1)
        if self.decay_weight is not None:
            logits = logits + key @ self.decay_weight.to(key.dtype)
        return blank_pads(F.logsigmoid(logits), mask)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, blank_pads(key, mask))
            query_features, key_features = self.features(query, key, mask)
            weights = query_features @ blank_pads(key_features, mask).mT * fade(self._log_decay(key, mask).cumsum(-2))
            return weights / weights.sum(-1, keepdim=True).clamp(min=self.floor)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        products = self._naive_fade(key, mask)
        return naive_feature_attention(*self.naive_features(query, key), value, mask, products)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        products = self._naive_fade(key, None).tril()
        return naive_feature_attention(*self.naive_features(query, key), value, None, products)

    def _naive_fade(self, key: Tensor, mask: Tensor | None) -> Tensor:
        """Π λ_t over the tokens after the first of two up to the second, (B, H, N, N), by the definition."""
        logits = self.decay_bias.expand(*key.shape[:-1], 1)
        if self.decay_weight is not None:
            logits = logits + (key.unsqueeze(-2) * self.decay_weight.mT.unsqueeze(1)).sum(-1)
        decays = blank_pads(logits.sigmoid(), mask)
        decays = decays if mask is None else decays.masked_fill(~mask[:, None, :, None], 1)
        tokens = torch.arange(key.shape[-2])
        first, last = torch.minimum(tokens[:, None], tokens), torch.maximum(tokens[:, None], tokens)
        between = (first.unsqueeze(-1) < tokens) & (tokens <= last.unsqueeze(-1))
        return torch.where(between, decays.mT.unsqueeze(-2), 1).prod(-1)

    def initialize_features(self) -> None:
        """Let the heads fade over 4 tokens to all positions of the model, in equal ratios."""
        super().initialize_features()
        horizons = torch.logspace(math.log10(4), math.log10(max(self.longest, 8)), self.num_heads)
        initialization.copy_(self.decay_bias, (horizons - 1).log().view(-1, 1, 1))  # λ = 1 - 1 / horizon
        if self.decay_weight is not None:
            initialization.zeros_(self.decay_weight)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """φ(Q)φ(K)ᵀ and its product with [V, 1] per block, and one state of d (d+1) per block and direction."""
        head_size = config.size_of_head
        chunk = chunk_length(config.attention_options["chunk_size"], length)
        operations = length * 2 * chunk * (2 * head_size + 1)
        if length > chunk:
            state = head_size * (head_size + 1)
            operations += 8 * length * state + 2 * carry_operations(math.ceil(length / chunk), state)
        return operations * config.num_attention_heads


def chunk_length(chunk_size: int, length: int) -> int:
    """Tokens per block, at least 1 and at most N."""
    return max(1, min(chunk_size, length))
