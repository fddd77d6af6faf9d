"""Scatterbrain: exact softmax weights in a window, FAVOR+ estimates everywhere else."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.banded import band_and_features, band_columns, band_width, from_blocks, in_order, near_tokens, to_blocks
from .ops.masking import blank_pads, full_precision, stabilise_features, widen
from .ops.random_features import SoftmaxKernelAttention
from .ops.reference import naive_favor_logits, naive_masked_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class ScatterbrainAttention(SoftmaxKernelAttention):
    """Weights exp(t q·k / √d) within window/2 tokens, their FAVOR+ estimates by m features outside, one normaliser.

    https://arxiv.org/abs/2110.15343, with a window as the sparse support, and the temperature t learned per head. As
    unbiased as FAVOR+, and without error where the largest weights stand; 8Nmd + 4N (3 window/2)(d + m/2) operations.
    """

    has_attention_map = True
    permutation_equivariant = False
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
        rows = self.projection.to(query.dtype).mT * self.head_size**-0.25
        half_norms = [tensor.square().sum(-1, keepdim=True) * (0.5 * self.head_size**-0.5) for tensor in (query, key)]
        query_features, key_features, scale = stabilise_features(
            query @ rows - half_norms[0], key @ rows - half_norms[1], mask
        )
        return query_features, key_features, scale - math.log(self.num_rows)

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
