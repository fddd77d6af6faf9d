"""Hedgehog: learned softmax features that imitate the teacher's spiky attention maps."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from .ops.feature_maps import FeatureMapAttention, HeadLinear, softmax_features
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .ops.reference import naive_weighted_mean

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class HedgehogAttention(FeatureMapAttention):
    """Weights φ(q)·φ(k), φ(x) = [softmax(Wx), softmax(-Wx)] over m features, W learned; 6Nmd operations per head.

    https://arxiv.org/abs/2402.04347; as in LoLCATs (https://arxiv.org/abs/2410.10254) queries and keys have
    their own W, (H, m/2, d), which starts at the identity. Every key's features sum to 2: its norm is not seen.
    """

    estimates_softmax = True
    uses_num_features = True
    feature_rate = 100
    takes_single_queries = True
    why_not_causal = None
    floor = 1e-12  # softmax features are positive, only small

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        num_rows = half_features(config)
        self.query_map = HeadLinear(self.num_heads, self.head_size, num_rows, bias=False)
        self.key_map = HeadLinear(self.num_heads, self.head_size, num_rows, bias=False)

    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        return softmax_features(self.query_map(query))

    def key_features(self, key: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        # A pad's NaN would reach the gradient of W through 0 · NaN.
        return softmax_features(self.key_map(blank_pads(key, mask)))

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_weighted_mean(self.naive_weights(query, key), value, mask)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return naive_weighted_mean(self.naive_weights(query, key).tril(), value, None)

    def naive_weights(self, query: Tensor, key: Tensor) -> Tensor:
        """φ(q)·φ(k) of all pairs, (B, H, N, N), by the definition."""
        features = []
        for tensor, linear in ((query, self.query_map), (key, self.key_map)):
            logits = (tensor.unsqueeze(-2) * linear.weight.unsqueeze(1)).sum(-1)
            signed = [(sign * logits).exp() for sign in (1, -1)]
            features.append([exponential / exponential.sum(-1, keepdim=True) for exponential in signed])
        (query_plus, query_minus), (key_plus, key_minus) = features
        return query_plus @ key_plus.mT + query_minus @ key_minus.mT

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        self.query_map.initialize(generator)
        self.key_map.initialize(generator)

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """Twice the head size: W can then start at the identity."""
        return 2 * head_size

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Logits of Q and of K, then φ(K)ᵀV, then φ(Q) times it: 6 N m D."""
        return 12 * length * half_features(config) * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Logits of K and φ(K)ᵀV, then one query: 3 (N + 1) m D."""
        return 6 * (length + 1) * half_features(config) * config.attention_size


def half_features(config: Any) -> int:
    """Rows of W; features come in pairs, and an odd number is rounded up."""
    return (config.features_per_head + 1) // 2
