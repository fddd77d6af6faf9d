"""cosFormer: ReLU features, reweighted by the cosine of the distance between two tokens."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .ops.banded import token_positions
from .ops.causal import CountedSums, causal_feature_attention, tokens_so_far
from .ops.feature_maps import FeatureMapAttention
from .ops.masking import full_precision, widen
from .ops.reference import naive_feature_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class CosformerAttention(FeatureMapAttention):
    """Weights relu(q)·relu(k) cos(π(i-j)/2M), from https://arxiv.org/abs/2202.08791; 8Nd² operations per head.

    Ptolemy's cos(a-b) = cos a cos b + sin a sin b splits them into 2d features. M is the number of positions of the
    model; the published code takes the padded length, so that padding changes its results.
    The causal form counts the tokens in its state, for their angles.
    """

    why_not_causal = None
    row_stochastic = False  # a query that shares no positive dimension with any key gets zeros
    permutation_equivariant = False

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.quarter_turn = math.pi / (2 * config.max_position_embeddings)

    def query_features(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        angle = self._angle(query, mask, first)
        # One pass over the memory: joining two products would take three, and show at thousands of tokens.
        return (query.relu().unsqueeze(-2) * torch.stack([angle.cos(), angle.sin()], dim=-2)).flatten(-2)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: CountedSums | None
    ) -> tuple[Tensor, CountedSums]:
        count = tokens_so_far(state, query)
        with full_precision(query):
            query, key = widen(query, key)
            query_features, key_features = (self.query_features(each, None, count[:, None]) for each in (query, key))
            context, sums = causal_feature_attention(query_features, key_features, value, state, self.floor)
        return context, CountedSums(*sums, count + query.shape[2])

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        position = torch.arange(query.shape[2], dtype=query.dtype)
        weight = ((position[:, None] - position) * self.quarter_turn).cos().tril()
        return naive_feature_attention(query.clamp(min=0), key.clamp(min=0), value, None, weight)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        angle = self._angle(query, mask)
        return naive_feature_attention(query.clamp(min=0), key.clamp(min=0), value, mask, (angle - angle.mT).cos())

    def _angle(self, query: Tensor, mask: Tensor | None, first: Tensor | int = 0) -> Tensor:
        """Position times π/2M, (B or 1, 1, N, 1)."""
        positions = token_positions(mask, query.shape[2], query.device) + first
        return positions[:, None, :, None].to(query.dtype) * self.quarter_turn

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """φ(K)ᵀV and φ(Q) times it with 2d features, 8 N d D, and the normaliser, 4 N D."""
        head_size = config.size_of_head
        return (8 * head_size + 4) * length * config.attention_size
