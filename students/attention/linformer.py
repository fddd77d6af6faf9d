"""Linformer: keys and values projected from N tokens to k slots by weights that belong to positions."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .base import HeadAttention
from .ops.banded import in_order
from .ops.masking import full_precision, fused_attention, widen

if TYPE_CHECKING:
    from ..configuration import StudentConfig

TINY = 1e-30


class LinformerAttention(HeadAttention):
    """softmax(q (E K)ᵀ/√d) E V with E (k, positions), shared by keys, values and heads; 8Nkd operations per head.

    https://arxiv.org/abs/2006.04768, with the correction that short and padded texts need. The share of a slot's
    weights |E| that falls on real tokens is its coverage c. Slots are divided by c, so that they remain means of what
    is there, and weighted by c in the softmax. A text that fills all positions has c = 1: exactly the paper's. With
    E = 1 the result is softmax attention at any length, where the paper's lets every missing token count like a key 0.
    """

    complexity = "linear"
    why_not_causal = "reads the text through slots, each a sum over all of its positions"
    estimates_softmax = True
    uses_num_features = True
    row_stochastic = False
    permutation_equivariant = False

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        num_slots = min(config.features_per_head, config.max_position_embeddings)
        self.slots = nn.Parameter(torch.empty(num_slots, config.max_position_embeddings))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if key.shape[2] > self.slots.shape[1]:
            raise ValueError(f"{key.shape[2]} tokens are more than the {self.slots.shape[1]} that Linformer projects")
        return in_order(self._attend_in_order, mask, query, key, value)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(value):
            wide_key, wide_value, slots = widen(key, value, self.slots)
            weights = slots[:, : key.shape[2]]
            real = wide_key.new_ones(1, key.shape[2]) if mask is None else mask.to(wide_key.dtype)
            coverage = real @ weights.abs().mT / slots.abs().sum(-1)
            coverage = coverage[:, None, :, None].clamp(min=TINY)
            slot_key = (weights @ wide_key / coverage).to(query.dtype)
            slot_value = (weights @ wide_value / coverage).to(value.dtype)
            bias = coverage.mT.log().to(query.dtype)
        return fused_attention(query, slot_key, slot_value, bias)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """One example after the other, without its pads."""
        contexts = []
        for example in range(len(query)):
            real = torch.ones(key.shape[2], dtype=torch.bool) if mask is None else mask[example]
            weights = self.slots[:, : int(real.sum())]
            coverage = weights.abs().sum(-1) / self.slots.abs().sum(-1)
            slot_key, slot_value = (
                (weights @ tensor[example][:, real]) / coverage[:, None] for tensor in (key, value)
            )
            terms = coverage * (query[example] @ slot_key.mT / self.head_size**0.5).exp()
            contexts.append(terms / terms.sum(-1, keepdim=True) @ slot_value)
        return torch.stack(contexts)

    def initialize_features(self) -> None:
        """Let slot s be the mean of the positions s, s + k, s + 2k …: up to k tokens, slots are tokens.

        Means of neighbours, the usual start, would leave most slots of a short text without any token.
        """
        num_slots, num_positions = self.slots.shape
        own = torch.arange(num_positions) % num_slots == torch.arange(num_slots)[:, None]
        initialization.copy_(self.slots, own / own.sum(-1, keepdim=True))

    def extend_positions(self, length: int) -> None:
        repeats = -(-length // self.slots.shape[1])
        self.slots = nn.Parameter(self.slots.repeat(1, repeats), requires_grad=self.slots.requires_grad)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """E K, E V, q(E K)ᵀ and its product with E V: 8 N k D; and the coverage, 2 N k."""
        return length * min(config.num_features, config.max_position_embeddings) * (8 * config.attention_size + 2)
