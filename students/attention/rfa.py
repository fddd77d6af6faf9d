"""Random feature attention: Gaussian and arc-cosine kernels of normalised queries and keys."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .ops.causal import CountedSums, causal_feature_sums, tokens_so_far, with_ones
from .ops.masking import blank_pads, full_precision, widen
from .ops.random_features import RandomFeatureAttention
from .ops.reference import naive_weighted_mean

if TYPE_CHECKING:
    from ..configuration import StudentConfig

FLOORS = {"gaussian": 1e-3, "arccos": 1e-6}
"""Least |mean weight over the keys|: estimates of the Gaussian kernel may be negative, and their sum near 0."""


class RandomFeatureKernelAttention(RandomFeatureAttention):
    """Estimate a kernel of q̂ = q/|q| and k̂ = k/|k| by random rows w (https://arxiv.org/abs/2103.02143).

    Rows are multiplied by a scale σ, learned per head and dimension (√t where all its entries are the same).
    ``gaussian``: features sin(w·q̂), cos(w·q̂) estimate exp(-t|q̂-k̂|²/2), in proportion to exp(t q̂·k̂), the paper's
    1/τ² being t; 12Nmd operations per head.
    ``arccos``: features max(w·q̂, 0) estimate t (sin θ + (π-θ) cos θ)/2π, θ the angle between q and k; 8Nmd
    operations.

    With ``gate``, a key counts sigmoid(u·k + b) times, the two-sided form of the paper's recency gate. Estimates of
    the Gaussian kernel can be negative: only ``arccos`` has an attention map. The causal form has the same weights
    on each token and those before it; the paper's gate would besides let them fade with every later token.
    """

    estimates_softmax = True
    why_not_causal = None
    constant_state = True
    options = {"kernel": ("gaussian", "arccos"), "gate": False}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer, num_rows=config.features_per_head)
        options = config.attention_options or {}
        self.kernel = options["kernel"]
        self.has_attention_map = self.has_map_with(options)
        self.initial_temperature = config.initial_temperature
        self.row_scale = nn.Parameter(torch.empty(self.num_heads, 1, self.head_size))
        self.gate_weight = nn.Parameter(torch.empty(self.num_heads, self.head_size, 1)) if options["gate"] else None
        self.gate_bias = nn.Parameter(torch.empty(self.num_heads, 1, 1)) if options["gate"] else None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dtype = value.dtype
        with full_precision(query):
            query, key, value = widen(query, key, blank_pads(value, mask))
            query_features, key_features, total = self._weigh(query, key, mask)
            context = query_features @ (key_features.mT @ value) / total
        return context.to(dtype)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: CountedSums | None
    ) -> tuple[Tensor, CountedSums]:
        dtype, earlier = value.dtype, tokens_so_far(state, query)
        with full_precision(query):
            query, key, value = widen(query, key, value)
            key_features = self._features(key) * self._gate(key)
            mixed, sums = causal_feature_sums(self._features(query), key_features, with_ones(value), state)
            seen = earlier[:, None] + torch.arange(1, query.shape[2] + 1, device=query.device)
            floor = FLOORS[self.kernel] * seen[:, None, :, None].to(mixed.dtype)
            context = mixed[..., :-1] / keep_from_zero(mixed[..., -1:], floor)
        return context.to(dtype), CountedSums(*sums, earlier + query.shape[2])

    @classmethod
    def estimates_softmax_with(cls, options: Mapping[str, Any]) -> bool:
        """The Gaussian kernel, softmax's for queries and keys of length 1, without the gate."""
        return options.get("kernel") != "arccos" and not options.get("gate")

    @classmethod
    def has_map_with(cls, options: Mapping[str, Any]) -> bool:
        return options.get("kernel") == "arccos"

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        if not self.has_attention_map:
            return super().attention_map(query, key, mask)
        with full_precision(query):
            query, key = widen(query, key)
            query_features, key_features, total = self._weigh(query, key, mask)
            return query_features @ key_features.mT / total

    def _weigh(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of wide queries and keys, the keys' 0 at pads, and the sums (B, H, N, 1) of the weights."""
        key = blank_pads(key, mask)
        query_features = self._features(query)
        key_features = blank_pads(self._features(key) * self._gate(key), mask)
        count = key_features.new_tensor(key.shape[-2]) if mask is None else mask.sum(-1)[:, None, None, None]
        total = query_features @ key_features.sum(-2).unsqueeze(-1)
        return query_features, key_features, keep_from_zero(total, FLOORS[self.kernel] * count.clamp(min=1))

    def _features(self, heads: Tensor) -> Tensor:
        """Return (B, H, N, 2m) or, for ``arccos``, (B, H, N, m) features of wide queries or keys."""
        rows = (self.projection * self.row_scale).to(heads.dtype)
        logits = F.normalize(heads, dim=-1) @ rows.mT
        features = logits.relu() if self.kernel == "arccos" else torch.cat([logits.sin(), logits.cos()], dim=-1)
        return features * self.num_rows**-0.5

    def _gate(self, key: Tensor) -> Tensor:
        if self.gate_weight is None or self.gate_bias is None:
            return key.new_ones(())
        return (key @ self.gate_weight.to(key.dtype) + self.gate_bias.to(key.dtype)).sigmoid()

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_weighted_mean(self._naive_weights(query, key), value, mask)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return naive_weighted_mean(self._naive_weights(query, key).tril(), value, None)

    def _naive_weights(self, query: Tensor, key: Tensor) -> Tensor:
        """Estimates of the kernel for all pairs, (B, H, N, N), by the definition; without a gate."""
        rows = self.projection * self.row_scale
        query, key = (tensor / tensor.norm(dim=-1, keepdim=True) for tensor in (query, key))
        query_logits, key_logits = (torch.einsum("bhnd,hmd->bhnm", tensor, rows) for tensor in (query, key))
        if self.kernel == "arccos":
            return (query_logits.clamp(min=0).unsqueeze(-2) * key_logits.clamp(min=0).unsqueeze(-3)).mean(-1)
        return (query_logits.unsqueeze(-2) - key_logits.unsqueeze(-3)).cos().mean(-1)

    @torch.no_grad()
    def calibrate(self, hidden_states: Tensor, mask: Tensor | None, target_norm: float) -> None:
        """Set σ² = t to the mean |q||k|/√d of real tokens, the norms that q̂ and k̂ lost; never above ``target_norm``.

        Of a sharper kernel most values are smaller than the error of their estimate.
        """
        query, key = self.split_heads(self.query(hidden_states)), self.split_heads(self.key(hidden_states))
        norms = [blank_pads(tensor.float(), mask).norm(dim=-1) for tensor in (query, key)]
        count = mask.sum() if mask is not None else hidden_states.shape[0] * hidden_states.shape[1]
        product = norms[0].sum((0, 2)) * norms[1].sum((0, 2)) / count**2
        temperature = (product * self.head_size**-0.5).clamp(max=target_norm)
        self.row_scale.copy_(temperature.sqrt().view(-1, 1, 1).expand_as(self.row_scale))

    def initialize_features(self) -> None:
        super().initialize_features()
        initialization.constant_(self.row_scale, self.initial_temperature**0.5)
        if self.gate_weight is not None and self.gate_bias is not None:
            initialization.zeros_(self.gate_weight)
            initialization.constant_(self.gate_bias, 2.0)

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """One row of the projection per dimension of a head, as published."""
        return head_size

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Logits of Q and of K, then φ(K)ᵀV and φ(Q) times it with 2m features (arccos: m): 12 (or 8) N m D."""
        per_feature = 8 if config.attention_options["kernel"] == "arccos" else 12
        return per_feature * length * config.num_features * config.attention_size


def keep_from_zero(tensor: Tensor, floor: Tensor) -> Tensor:
    """Move values nearer to 0 than ``floor`` to ± the floor, on their own side."""
    return torch.where(tensor < 0, tensor.clamp(max=-floor), tensor.clamp(min=floor))
