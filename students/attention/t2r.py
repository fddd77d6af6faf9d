"""T2R, "Finetuning Pretrained Transformers into RNNs": a learned ReLU feature map, one for queries and keys."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .feature_maps import FeatureMapAttention, HeadLinear
from .masking import blank_pads
from .naive import naive_feature_attention
from .random_features import seeded_generator

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class T2RAttention(FeatureMapAttention):
    """Weights φ(q/√d)·φ(k) with φ(x) = relu(W x + b), W (H, m, d) learned; 8Nmd operations per head.

    https://arxiv.org/abs/2103.13076; queries are divided by √d as in its code. W starts at the identity
    (or, unless m = d, at orthogonal rows), b at 0.1, which leaves fewer tokens without any feature.
    """

    uses_num_features = True
    row_stochastic = False  # a query without features in common with any key gets zeros

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        self.feature_map = HeadLinear(self.num_heads, self.head_size, int(config.num_features or 0), bias=True)

    def features(self, query: Tensor, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        # A pad's NaN would reach the gradient of W through 0 · NaN.
        key = blank_pads(key, mask)
        return self.feature_map(query * self.head_size**-0.5).relu(), self.feature_map(key).relu()

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        weight, bias = self.feature_map.weight, self.feature_map.bias
        assert bias is not None
        query_features, key_features = (
            ((tensor.unsqueeze(-2) * weight.unsqueeze(1)).sum(-1) + bias.unsqueeze(1)).clamp(min=0)
            for tensor in (query / self.head_size**0.5, key)
        )
        return naive_feature_attention(query_features, key_features, value, mask)

    def initialize_features(self) -> None:
        self.feature_map.initialize(seeded_generator(self.seed, self.layer, 0), bias=0.1)

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """As many as a head has dimensions: W can then start at the identity."""
        return head_size

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Features of Q and of K, then φ(K)ᵀV, then φ(Q) times it: 8 N m D."""
        return 8 * length * config.num_features * config.hidden_size
