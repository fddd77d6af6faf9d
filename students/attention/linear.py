"""Linear attention of "Transformers are RNNs": the feature map elu + 1, without randomness."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .ops.feature_maps import FeatureMapAttention
from .ops.reference import naive_feature_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class LinearAttention(FeatureMapAttention):
    """Weights φ(q)·φ(k) with φ = elu + 1 (https://arxiv.org/abs/2006.16236, equation 7); 4Nd² operations per head.

    The map is of rank d and never spiky. Queries and keys are multiplied by √t with a temperature t, learned per head.
    """

    takes_single_queries = True
    why_not_causal = None

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.initial_temperature = config.initial_temperature
        self.log_temperature = nn.Parameter(torch.empty(self.num_heads))

    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        return F.elu(query * self.scale(query.dtype)) + 1

    def scale(self, dtype: torch.dtype) -> Tensor:
        """√t, the factor on queries and keys before the feature map, (H, 1, 1)."""
        return (0.5 * self.log_temperature).exp().to(dtype).view(-1, 1, 1)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_feature_attention(*self.naive_features(query, key), value, mask)

    def naive_features(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """φ(x) = x + 1 above 0 and e^x below."""
        scaled = (tensor * self.scale(tensor.dtype) for tensor in (query, key))
        query, key = (torch.where(tensor > 0, tensor + 1, tensor.clamp(max=0).exp()) for tensor in scaled)
        return query, key

    def initialize_features(self) -> None:
        initialization.copy_(self.log_temperature, torch.full((self.num_heads,), self.initial_temperature).log())

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """φ(K)ᵀV and φ(Q) times it, 4 N d D, and the normaliser, 2 N D."""
        head_size = config.size_of_head
        return (4 * head_size + 2) * length * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """φ(K)ᵀV, then one query and its normaliser."""
        head_size = config.size_of_head
        return 2 * (head_size * (length + 1) + 1) * config.attention_size
