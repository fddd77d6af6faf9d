"""The Performer: FAVOR+ attention and its further kernels, with fixed, redrawn or learned features."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.causal import FeatureSums, causal_feature_attention, with_ones
from .ops.favor import favor_attention, favor_attention_map
from .ops.masking import (
    blank_pads,
    feature_attention,
    feature_attention_map,
    full_precision,
    stabilise_features,
    widen,
)
from .ops.random_features import SoftmaxKernelAttention
from .ops.reference import (
    naive_causal_attention,
    naive_favor_attention,
    naive_favor_logits,
    naive_favor_plus_plus_attention,
    naive_favor_plus_plus_logits,
    naive_feature_attention,
)
from .ops.running import Scaled, causal_exponential_sums

if TYPE_CHECKING:
    from ..configuration import StudentConfig

RELU_FLOOR = 1e-3  # as published: no token's weight is 0, so that every key gets a gradient


class PerformerAttention(SoftmaxKernelAttention):
    """Estimate softmax attention at temperature t, exp(t q·k / √d), by m positive random features; 8Nmd operations.

    https://arxiv.org/abs/2009.14794, in the stabilised form of ``favor``. The temperature is learned, per head: the
    relative variance of an estimate is (exp(t |q+k|²/√d) - 1) / m, and copied BERT weights start far too sharp for it.

    Kernels, with x = q / d^¼ or k / d^¼ and w a row of the projection:
    ``favor+``: exp(w·x - |x|²/2).
    ``hyperbolic``: the same for w and -w, from m/2 rows (2009.14794, lemma 1).
    ``favor++``: exp(A|w|² + √(1-4A) w·x - |x|²/2) (https://arxiv.org/abs/2205.15317), unbiased for every A < 1/8, with
    the A of least variance where mean |q+k|²/√d is the configured ``target_norm``.
    ``relu``: max(w·x, 0) + 0.001, which estimates another kernel than softmax's (2009.14794).

    The causal form keeps Σ φ(k) [v, 1] of the tokens so far; of exponential features in units that none of the later
    keys decides.
    """

    has_attention_map = True
    takes_single_queries = True
    why_not_causal = None
    constant_state = True
    options = {"kernel": ("favor+", "hyperbolic", "favor++", "relu")}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        kernel, num_features = (config.attention_options or {})["kernel"], config.features_per_head
        super().__init__(config, layer, math.ceil(num_features / 2) if kernel == "hyperbolic" else num_features)
        self.kernel = kernel
        self.num_features = num_features
        self.spread = least_variance_spread(self.head_size, config.target_norm)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.scale(query, key)
        if self.kernel in ("favor+", "hyperbolic"):
            return favor_attention(query, key, value, mask, self._rows(), form="auto")
        return feature_attention(*self._features(query, key, mask), value, mask)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: Scaled | FeatureSums | None
    ) -> tuple[Tensor, Scaled | FeatureSums]:
        query, key = self.scale(query, key)
        if self.kernel == "relu":
            assert not isinstance(state, Scaled)
            return causal_feature_attention(*self._features(query, key, None), value, state)
        assert not isinstance(state, FeatureSums)
        with full_precision(query):
            query, key, wide_value = widen(query, key, value)
            rows, sums = causal_exponential_sums(*self._logits(query, key), with_ones(wide_value), state)
            return (rows.sums[..., :-1] / rows.sums[..., -1:]).to(value.dtype), sums

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.scale(query, key)
        if self.kernel in ("favor+", "hyperbolic"):
            return favor_attention_map(query, key, mask, self._rows())
        return feature_attention_map(*self._features(query, key, mask), mask)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key = self.scale(query, key)
        if self.kernel == "favor++":
            return naive_favor_plus_plus_attention(query, key, value, mask, self.projection, self.spread)
        if self.kernel == "relu":
            return naive_feature_attention(*self._naive_relu_features(query, key), value, mask)
        return naive_favor_attention(query, key, value, mask, self._rows())

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query, key = self.scale(query, key)
        if self.kernel == "relu":
            earlier = torch.ones(query.shape[2], query.shape[2], dtype=query.dtype).tril()
            return naive_feature_attention(*self._naive_relu_features(query, key), value, None, earlier)
        if self.kernel == "favor++":
            logits = naive_favor_plus_plus_logits(query, key, self.projection, self.spread)
        else:
            logits = naive_favor_logits(query, key, self._rows())
        return naive_causal_attention(logits, value)

    def _naive_relu_features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.projection / self.head_size**0.25
        query, key = ((tensor @ rows.mT).clamp(min=0) + RELU_FLOOR for tensor in (query, key))
        return query, key

    def _rows(self) -> Tensor:
        if self.kernel == "hyperbolic":
            return torch.cat([self.projection, -self.projection], dim=-2)[..., : self.num_features, :]
        return self.projection

    def _features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features of the scaled queries and keys, (B, H, N, m) in fp32; for FAVOR++ up to common factors."""
        with full_precision(query):
            query, key, rows = widen(query, blank_pads(key, mask), self.projection)
            if self.kernel == "relu":
                rows = rows * self.head_size**-0.25
                return (query @ rows.mT).relu() + RELU_FLOOR, (key @ rows.mT).relu() + RELU_FLOOR
            return stabilise_features(*self._logits(query, key), mask)[:2]

    def _logits(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logs of the features of wide, scaled queries and keys, up to what is the same for all features.

        Of the query that is -|x|²/2, too: it cancels.
        """
        spread = self.spread if self.kernel == "favor++" else 0.0
        rows = self._rows().to(query.dtype)
        norms = spread * rows.square().sum(-1).unsqueeze(-2)
        rows = rows * (self.head_size**-0.25 * math.sqrt(1 - 4 * spread))
        key_norms = key.square().sum(-1, keepdim=True) * (-0.5 * self.head_size**-0.5)
        return query @ rows.mT + norms, key @ rows.mT + norms + key_norms

    @classmethod
    def estimates_softmax_with(cls, options: Mapping[str, Any]) -> bool:
        """All kernels but ``relu``, which estimates another one."""
        return options.get("kernel") != "relu"

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """The power of two nearest to d ln d, after which FAVOR+ features stop helping much (2009.14794, §4)."""
        target = max(head_size * math.log(head_size), 1.0)
        below = 2 ** math.floor(math.log2(target))
        return below if target - below <= 2 * below - target else 2 * below

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Features of Q and of K, then KᵀV, then Q's features times it: 8 N m D."""
        return 8 * length * config.num_features * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Features of K and KᵀV, then one query: 4 N m D + 4 m D."""
        return 4 * (length + 1) * config.num_features * config.attention_size


def least_variance_spread(head_size: int, pair_norm: float) -> float:
    """Return FAVOR++'s A, 0 or below, of least variance for x and y with mean |x+y|² = S ``pair_norm``.

    A = (1 - r) / 8 with r = (d + 2S + √((d + 2S)² + 8dS)) / 2d, the minimum over A of log E[(f(x) f(y))²],
    d log(1-4A) - d/2 log(1-8A) + 2S(1-4A)/(1-8A) up to a constant; optimal positive features of 2205.15317.
    """
    total = head_size + 2 * pair_norm
    return (1 - (total + math.sqrt(total**2 + 8 * head_size * pair_norm)) / (2 * head_size)) / 8
