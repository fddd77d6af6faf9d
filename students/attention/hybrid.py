"""Hybrid attention: softmax in a window, Hedgehog's learned linear attention everywhere else."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .hedgehog import HedgehogAttention, half_features
from .ops.banded import band_and_features, band_columns, band_width, from_blocks, in_order, near_tokens
from .ops.causal import FeatureSums, KeysAndValues, causal_feature_sums, with_ones
from .ops.causal_window import WindowAndFeatures, late, move_window, near_before, window_columns
from .ops.masking import blank_pads, full_precision, widen
from .ops.reference import naive_weighted_mean

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class HybridAttention(HedgehogAttention):
    """Weights γ exp(l - max l) within window/2 tokens, l = q·k / √d, and φ(q)·φ(k) outside, one normaliser.

    The attention of LoLCATs (https://arxiv.org/abs/2410.10254), in both directions. φ are Hedgehog's features,
    γ = sigmoid(g) is learned per head and starts at 0.1; 6Nmd + 4N (3 window/2)(d + m/2) operations per head. The
    causal form has the left half of the window, and sums a key's features up when it leaves it.
    """

    permutation_equivariant = False
    takes_single_queries = False  # a query's window is found by its place
    options = {"window": 64}  # noqa: RUF012
    small_options = {"window": 4}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.radius = (config.attention_options or {})["window"] // 2
        self.window_logit = nn.Parameter(torch.empty(self.num_heads))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            context = in_order(self._attend_in_order, mask, *widen(query, key, value))
        return context.to(value.dtype)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query_features, key_features = self.features(query, key, mask)
        band = band_columns(query, key, value, mask, self.radius)
        weights = relative_weights(band.logits, band.allowed) * self._window_share(query).unsqueeze(-1)
        return band_and_features(band, weights, query_features, blank_pads(key_features, mask), value, self.floor)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: WindowAndFeatures | None
    ) -> tuple[Tensor, WindowAndFeatures]:
        dtype, length = value.dtype, value.shape[-2]
        with full_precision(query):
            query, key = widen(query, key)
            kept = None if state is None else KeysAndValues(state.key, state.value)
            before = None if state is None else FeatureSums(state.pooled, state.total)
            seen, left, kept = move_window(kept, key, with_ones(value.to(key.dtype)), self.radius + 1)
            far_keys = late(self.key_features(left.key, None), length)
            queries, far_values = self.query_features(query, None), late(left.value, length)
            far, sums = causal_feature_sums(queries, far_keys, far_values, before)
            band = window_columns(query, seen, self.radius + 1)
            weights = relative_weights(band.logits, band.allowed) * self._window_share(query).unsqueeze(-1)
            mixed = far + from_blocks(weights @ band.value, length)
            context = mixed[..., :-1] / mixed[..., -1:].clamp(min=self.floor)
        return context.to(dtype), WindowAndFeatures(*kept, *sums)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        near = near_before(query.shape[-2], self.radius + 1)
        logits = (query @ key.mT / self.head_size**0.5).masked_fill(~near, -torch.inf)
        window = (logits - logits.amax(-1, keepdim=True)).exp() * self._window_share(query)
        weights = torch.where(near, window, self.naive_weights(query, key)).tril()
        return naive_weighted_mean(weights, value, None)

    def _window_share(self, query: Tensor) -> Tensor:
        """γ, (H, 1, 1)."""
        return self.window_logit.to(query.dtype).sigmoid().view(-1, 1, 1)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, blank_pads(key, mask))
            query_features, key_features = self.features(query, key, mask)
            near = near_tokens(mask, query.shape[-2], self.radius, query.device)
            window = relative_weights(query @ key.mT * self.head_size**-0.5, near) * self._window_share(query)
            weights = torch.where(near, window, query_features @ blank_pads(key_features, mask).mT)
            return weights / weights.sum(-1, keepdim=True).clamp(min=self.floor)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        near = near_tokens(mask, query.shape[-2], self.radius)
        logits = (query @ key.mT / self.head_size**0.5).masked_fill(~near, -torch.inf)
        window = (logits - logits.amax(-1, keepdim=True).clamp(min=-1e9)).exp() * self._window_share(query)
        return naive_weighted_mean(torch.where(near, window, self.naive_weights(query, key)), value, mask)

    def initialize_features(self) -> None:
        super().initialize_features()
        initialization.constant_(self.window_logit, torch.tensor(0.1).logit().item())

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Hedgehog's 6 N m D, and the band of K columns: logits, features, values, N K (4d + 2m) per head."""
        width = band_width(config.attention_options["window"] // 2, length)
        num_features, num_heads = 2 * half_features(config), config.num_attention_heads
        band = length * width * (4 * config.attention_size + 2 * num_features * num_heads)
        return super().core_flops(config, length) + band


def relative_weights(logits: Tensor, allowed: Tensor) -> Tensor:
    """Exponentials of the allowed logits, in units of the largest of the row; 0 elsewhere."""
    logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
    return (logits - logits.amax(-1, keepdim=True)).exp().masked_fill(~allowed, 0)
