"""Scatterbrain: exact softmax weights in a window, FAVOR+ estimates everywhere else."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.banded import band_and_features, band_columns, band_width, from_blocks, in_order, near_tokens, to_blocks
from .ops.causal import KeysAndValues, with_ones
from .ops.causal_window import WindowAndSums, late, move_window, near_before, window_columns
from .ops.masking import blank_pads, full_precision, stabilise_features, widen
from .ops.random_features import SoftmaxKernelAttention
from .ops.reference import naive_causal_attention, naive_favor_logits, naive_masked_attention
from .ops.running import Scaled, causal_exponential_sums, join, lowest

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class ScatterbrainAttention(SoftmaxKernelAttention):
    """Weights exp(t q·k / √d) within window/2 tokens, their FAVOR+ estimates by m features outside, one normaliser.

    https://arxiv.org/abs/2110.15343, with a window as the sparse support, and the temperature t learned per head. As
    unbiased as FAVOR+, and without error where the largest weights stand; 8Nmd + 4N (3 window/2)(d + m/2) operations.
    The causal form has the left half of the window, and sums a key's features up when it leaves it.
    """

    has_attention_map = True
    permutation_equivariant = False
    why_not_causal = None
    constant_state = True
    options = {"window": 32}  # noqa: RUF012
    small_options = {"window": 4}  # noqa: RUF012
    floor = 1e-6

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer, num_rows=config.features_per_head)
        self.radius = (config.attention_options or {})["window"] // 2

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            context = in_order(self._attend_in_order, mask, *widen(query, key, value))
        return context.to(value.dtype)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.scale(query, key)
        query_features, key_features, scale = self._features(query, key, mask)
        band = band_columns(query, key, value, mask, self.radius)
        logits = band.logits.masked_fill(~band.allowed, torch.finfo(band.logits.dtype).min)
        # Exact weights and estimates of a row in units of the larger of their maxima: neither overflows.
        unit = torch.maximum(from_blocks(logits.detach().amax(-1, keepdim=True), query.shape[-2]), scale)
        weights = (logits - to_blocks(unit, logits.shape[-2])).exp().masked_fill(~band.allowed, 0)
        return band_and_features(band, weights, query_features * (scale - unit).exp(), key_features, value, self.floor)

    def _features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return φ(q), φ(k) and the log of the unit in which φ(q)·φ(k) estimates exp(q·k / √d)."""
        features = stabilise_features(self._logits(query), self._logits(key), mask)
        return features[0], features[1], features[2] - math.log(self.num_rows)

    def _logits(self, heads: Tensor) -> Tensor:
        """Return the logs of the features of wide, scaled queries or keys, (B, H, N, m)."""
        rows = self.projection.to(heads.dtype).mT * self.head_size**-0.25
        return heads @ rows - heads.square().sum(-1, keepdim=True) * (0.5 * self.head_size**-0.5)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: WindowAndSums | None
    ) -> tuple[Tensor, WindowAndSums]:
        dtype, length = value.dtype, value.shape[-2]
        with full_precision(query):
            query, key = self.scale(*widen(query, key))
            kept = None if state is None else KeysAndValues(state.key, state.value)
            before = None if state is None else Scaled(state.unit, state.sums)
            seen, left, kept = move_window(kept, key, with_ones(value.to(key.dtype)), self.radius + 1)
            far_keys = late(self._logits(left.key), length, lowest(key.dtype))
            far, sums = causal_exponential_sums(self._logits(query), far_keys, late(left.value, length), before)
            band = window_columns(query, seen, self.radius + 1)
            unit = band.logits.detach().masked_fill(~band.allowed, lowest(key.dtype)).amax(-1, keepdim=True)
            weights = (band.logits - unit).masked_fill(~band.allowed, -torch.inf).exp()
            near = Scaled(from_blocks(unit, length), from_blocks(weights @ band.value, length))
            mixed = join(near, Scaled(far.unit - math.log(self.num_rows), far.sums)).sums
            context = mixed[..., :-1] / mixed[..., -1:].clamp(min=self.floor)
        return context.to(dtype), WindowAndSums(*kept, *sums)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = self.scale(query, key)
        estimates = naive_favor_logits(query, key, self.projection) - math.log(self.num_rows)
        near = near_before(query.shape[-2], self.radius + 1)
        return naive_causal_attention(torch.where(near, query @ key.mT / self.head_size**0.5, estimates), value)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = self.scale(*widen(query, blank_pads(key, mask)))
            query_features, key_features, scale = self._features(query, key, mask)
            near = near_tokens(mask, query.shape[-2], self.radius, query.device)
            logits = (query @ key.mT * self.head_size**-0.5).masked_fill(~near, torch.finfo(query.dtype).min)
            unit = torch.maximum(logits.detach().amax(-1, keepdim=True), scale)
            far_weights = query_features @ key_features.mT * (scale - unit).exp()
            weights = torch.where(near, (logits - unit).exp(), far_weights)
            return weights / weights.sum(-1, keepdim=True).clamp(min=self.floor)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.scale(query, key)
        near = near_tokens(mask, query.shape[-2], self.radius)
        estimates = naive_favor_logits(query, key, self.projection) - math.log(self.num_rows)
        return naive_masked_attention(torch.where(near, query @ key.mT / self.head_size**0.5, estimates), value, mask)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """FAVOR+'s 8 N m D, and the band of K columns: exact logits, estimates, values, N K (4d + 2m) per head."""
        width = band_width(config.attention_options["window"] // 2, length)
        num_features, num_heads = config.num_features, config.num_attention_heads
        band = length * width * (4 * config.attention_size + 2 * num_features * num_heads)
        return 8 * length * num_features * config.attention_size + band
