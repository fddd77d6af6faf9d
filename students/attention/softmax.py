"""Softmax attention, as in the teacher: the control that shows what depth alone costs and gains."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .base import HeadAttention
from .ops.causal import KeysAndValues, extend, looking_back
from .ops.masking import fused_attention, softmax_attention, softmax_map
from .ops.reference import naive_causal_attention, naive_softmax_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class SoftmaxAttention(HeadAttention):
    """softmax(q·k / √d) v by PyTorch's fused kernels, with BERT's dropout on the map; 4N²d operations per head."""

    is_softmax = True
    has_attention_map = True
    takes_single_queries = True
    why_not_causal = None

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        # A module, although its rate alone is read, so that whoever turns dropout off finds it.
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return softmax_attention(query, key, value, mask, self.dropout.p if self.training else 0.0)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        return softmax_map(query, key, mask)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return naive_softmax_attention(query, key, value, mask)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        kept = extend(state, key, value)
        dropout = self.dropout.p if self.training else 0.0
        if state is None and not torch.compiler.is_exporting():
            return fused_attention(query, key, value, dropout=dropout, causal=True), kept
        allowed = looking_back(query.shape[2], kept.key.shape[2], query.device)
        return fused_attention(query, kept.key, kept.value, allowed, dropout), kept

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return naive_causal_attention(query @ key.mT * query.shape[-1] ** -0.5, value)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """QKᵀ and AV: 4 N² D."""
        return 4 * length**2 * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """One row of QKᵀ and of AV: 4 N D."""
        return 4 * length * config.attention_size
