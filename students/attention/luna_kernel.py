"""Attention by learned scalar functions of learned projections: the LUNA of 2025, not the Luna of 2021."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .ops.causal import with_ones
from .ops.masking import (
    blank_pads,
    feature_attention,
    feature_attention_map,
    full_precision,
    stabilise_features,
    widen,
)
from .ops.random_features import SoftmaxKernelAttention
from .ops.reference import naive_causal_attention, naive_masked_attention
from .ops.running import Scaled, causal_exponential_sums

if TYPE_CHECKING:
    from ..configuration import StudentConfig

FUNCTIONS = 2
"""Scalar functions of every projection; they start at e^u and e^-u."""
UNITS = 4
"""Hidden units of a function."""


class LunaKernelAttention(SoftmaxKernelAttention):
    """Weights φ(q)·φ(k), φ = f_l(w·x) h(x) over m/2 projections w and two functions f_l, all learned; 6Nmd operations.

    https://arxiv.org/abs/2512.08061 learns projections, scalar functions (small networks) and the envelope h of a
    positive-definite kernel. Here, per head, x = √t q / d^¼ or √t k / d^¼ with a temperature t, log f_l(u) =
    a_l u + Σ_j c_lj tanh(α_j u + β_j) and log h = -e |x|²/2, so that every weight is positive: with c = 0, a = ±1 and
    e = 1, where all starts, it is FAVOR+ of the hyperbolic kernel, an unbiased estimate of softmax attention. A
    query's own envelope cancels. One W for queries and keys, (H, m/2, d), which starts at orthogonal rows.
    """

    has_attention_map = True
    has_random_features = False  # its projections are always learned
    always_learned = True
    takes_single_queries = True
    why_not_causal = None
    constant_state = True

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer, num_projections(config))
        self.slope = nn.Parameter(torch.empty(self.num_heads, FUNCTIONS))
        self.unit_scale = nn.Parameter(torch.empty(self.num_heads, UNITS))
        self.unit_shift = nn.Parameter(torch.empty(self.num_heads, UNITS))
        self.unit_weight = nn.Parameter(torch.empty(self.num_heads, FUNCTIONS, UNITS))
        self.envelope = nn.Parameter(torch.empty(self.num_heads))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return feature_attention(*self._features(query, key, mask), value, mask)

    def attend_causal(self, query: Tensor, key: Tensor, value: Tensor, state: Scaled | None) -> tuple[Tensor, Scaled]:
        with full_precision(query):
            query, key, wide_value = widen(*self.scale(query, key), value)
            logits = self._logits(query), self._logits(key) + self._envelope(key)
            rows, sums = causal_exponential_sums(*logits, with_ones(wide_value), state)
            return (rows.sums[..., :-1] / rows.sums[..., -1:]).to(value.dtype), sums

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        return feature_attention_map(*self._features(query, key, mask), mask)

    def _features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return φ(q) and φ(k), (B, H, N, m) in fp32, up to factors that cancel."""
        with full_precision(query):
            query, key = widen(*self.scale(query, blank_pads(key, mask)))
            return stabilise_features(self._logits(query), self._logits(key) + self._envelope(key), mask)[:2]

    def _logits(self, heads: Tensor) -> Tensor:
        """Return log f_l(w·x) of tempered queries or keys (B, H, N, d), (B, H, N, m)."""
        rows = self.projection.to(heads.dtype) * self.head_size**-0.25
        products = heads @ rows.mT

        def per_head(parameter: Tensor) -> Tensor:
            return parameter.to(heads.dtype).view(-1, 1, 1)

        logits = [products * per_head(self.slope[:, function]) for function in range(FUNCTIONS)]
        for unit in range(UNITS):  # one after the other: all at once would be a tensor four times as large
            scaled = products * per_head(self.unit_scale[:, unit]) + per_head(self.unit_shift[:, unit])
            hidden = scaled.tanh()
            logits = [
                logit + hidden * per_head(self.unit_weight[:, function, unit]) for function, logit in enumerate(logits)
            ]
        return torch.cat(logits, dim=-1)

    def _envelope(self, key: Tensor) -> Tensor:
        """Return log h(k) of tempered keys, (B, H, N, 1)."""
        squares = key.square().sum(-1, keepdim=True) * (-0.5 * self.head_size**-0.5)
        return squares * self.envelope.to(key.dtype).view(-1, 1, 1)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_masked_attention(self.naive_logits(query, key), value, mask)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return naive_causal_attention(self.naive_logits(query, key), value)

    def naive_logits(self, query: Tensor, key: Tensor) -> Tensor:
        """Log of φ(q)·φ(k) of all pairs, (B, H, N, N), by the definition."""
        logits = []
        for heads in (query, key):
            x = heads * (self.temperature.view(-1, 1, 1) / self.head_size**0.5) ** 0.5
            u = torch.einsum("hmd,bhnd->bhnm", self.projection, x)
            hidden = (torch.einsum("bhnm,hj->bhnmj", u, self.unit_scale) + self.unit_shift[:, None, None]).tanh()
            function = torch.einsum("bhnm,hl->bhnml", u, self.slope)
            function = function + torch.einsum("bhnmj,hlj->bhnml", hidden, self.unit_weight)
            envelope = -self.envelope.view(-1, 1, 1, 1) * x.square().sum(-1)[..., None, None] / 2
            logits.append((function + envelope).flatten(-2))
        return torch.logsumexp(logits[0].unsqueeze(-2) + logits[1].unsqueeze(-3), dim=-1)

    def initialize_features(self) -> None:
        super().initialize_features()
        heads = self.num_heads
        initialization.copy_(self.slope, torch.tensor([1.0, -1.0]).expand(heads, FUNCTIONS))
        # Units that bend at -3, -1, 1 and 3, where the products of orthogonal rows lie.
        initialization.constant_(self.unit_scale, 1.0)
        initialization.copy_(self.unit_shift, torch.linspace(-3, 3, UNITS).expand(heads, UNITS))
        initialization.constant_(self.unit_weight, 0.0)
        initialization.constant_(self.envelope, 1.0)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Products of Q and of K with W, then φ(K)ᵀV, then φ(Q) times it: 6 N m D."""
        return 12 * length * num_projections(config) * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Products of K and φ(K)ᵀV, then one query: 3 (N + 1) m D."""
        return 6 * (length + 1) * num_projections(config) * config.attention_size


def num_projections(config: Any) -> int:
    """Rows of W; each has two features, and an odd number is rounded up."""
    return math.ceil(config.features_per_head / FUNCTIONS)
