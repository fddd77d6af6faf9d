"""T2R, "Finetuning Pretrained Transformers into RNNs": a learned ReLU feature map, one for queries and keys."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .ops.feature_maps import FeatureMapAttention, HeadLinear
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .ops.reference import naive_feature_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class T2RAttention(FeatureMapAttention):
    """Weights φ(q/√d)·φ(k) with φ(x) = relu(W x + b), W (H, m, d) learned; 8Nmd operations per head.

    https://arxiv.org/abs/2103.13076; queries are divided by √d as in its code. W starts at the identity
    (or, unless m = d, at orthogonal rows), b at 0.1, which leaves fewer tokens without any feature. After training W
    can be folded into the projections: ``students.fold_features``. The paper's own form is the causal one.
    """

    estimates_softmax = True
    uses_num_features = True
    feature_rate = 100
    why_not_causal = None
    row_stochastic = False  # a query without features in common with any key gets zeros

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        self.num_features = config.features_per_head
        self.feature_map: HeadLinear | None = HeadLinear(self.num_heads, self.head_size, self.num_features, bias=True)
        if config.folded_features:
            self.fold()

    def folding_pays(self) -> bool:
        """Whether one matrix (D, H m) instead of two saves operations and has not been made yet.

        Never where short texts are attended exactly, by the queries and keys themselves.
        """
        if self.exact_up_to:
            return False
        hidden_size = self.query.in_features
        saves = self.num_features * (hidden_size - self.head_size) < hidden_size * self.head_size
        return saves and self.feature_map is not None

    @torch.no_grad()
    def fold(self) -> None:
        """Let ``query`` and ``key`` yield what the ReLU reads: W_φ(W x + c) + b, for queries W_φ(W x + c)/√d + b."""
        assert self.feature_map is not None
        assert self.feature_map.bias is not None
        for name, scale in (("query", self.head_size**-0.5), ("key", 1.0)):
            dense = getattr(self, name)
            weight = scale * self.feature_map.weight @ dense.weight.unflatten(0, (self.num_heads, -1))
            bias = scale * self.feature_map.weight @ dense.bias.view(self.num_heads, -1, 1)
            merged = nn.Linear(dense.in_features, self.num_heads * self.num_features)
            merged.weight = nn.Parameter(weight.flatten(0, 1))
            merged.bias = nn.Parameter((bias.squeeze(-1) + self.feature_map.bias).flatten())
            setattr(self, name, merged)
        self.feature_map = None

    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        if self.feature_map is None:
            return query.relu()
        return self.feature_map(query * self.head_size**-0.5).relu()

    def key_features(self, key: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        if self.feature_map is None:
            return key.relu()
        # A pad's NaN would reach the gradient of W through 0 · NaN.
        return self.feature_map(blank_pads(key, mask)).relu()

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_feature_attention(*self.naive_features(query, key), value, mask)

    def naive_features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ(x) = max(W x + b, 0) with the queries divided by √d, or of what folded projections yield."""
        if self.feature_map is None:
            return query.clamp(min=0), key.clamp(min=0)
        weight, bias = self.feature_map.weight, self.feature_map.bias
        assert bias is not None
        query, key = (
            ((tensor.unsqueeze(-2) * weight.unsqueeze(1)).sum(-1) + bias.unsqueeze(1)).clamp(min=0)
            for tensor in (query / self.head_size**0.5, key)
        )
        return query, key

    def initialize_features(self) -> None:
        if self.feature_map is not None:
            self.feature_map.initialize(seeded_generator(self.seed, self.layer, 0), bias=0.1)

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """As many as a head has dimensions: W can then start at the identity."""
        return head_size

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Features of Q and of K unless they are folded, then φ(K)ᵀV, then φ(Q) times it: 8 (or 4) N m D."""
        return (4 if config.folded_features else 8) * length * config.num_features * config.attention_size

    @classmethod
    def flops(cls, config: Any, length: int) -> int:
        """With folded features, two of the projections are of D to H m channels: 4 N D H m instead of 4 N D²."""
        if not config.folded_features:
            return super().flops(config, length)
        folded_size = config.num_attention_heads * config.num_features
        projections = 4 * length * config.hidden_size * (config.attention_size + folded_size)
        return projections + cls.core_flops(config, length)
