"""What the mechanisms share that apply softmax to a fixed pattern of positions."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..base import HeadAttention
from .banded import in_order, token_positions
from .masking import blank_pads, masked_softmax


class PatternAttention(HeadAttention, ABC):
    """Softmax over those real tokens that ``pattern`` allows; positions count from an example's first real token.

    A mechanism implements ``pattern``, its definition, and ``attend_in_order``, the same in blocks.
    """

    has_attention_map = True
    has_sparse_map = True
    estimates_softmax = True
    permutation_equivariant = False

    @abstractmethod
    def pattern(self, position: Tensor, num_real: Tensor) -> Tensor:
        """Return which positions (B, N) see which in examples of (B,) real tokens, (B, H or 1, N, N) at [to, from]."""

    @abstractmethod
    def attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Do what ``attend`` does, given that all pads come last and hold zeros."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return in_order(self.attend_in_order, mask, query, key, value)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        length = query.shape[-2]
        position = token_positions(mask, length, query.device)
        num_real = position.new_tensor([length]) if mask is None else mask.sum(-1)
        allowed = self.pattern(position, num_real)
        if mask is not None:
            allowed = allowed & mask[:, None, None, :]
        return masked_softmax(query @ key.mT * self.head_size**-0.5, allowed)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return self.attention_map(query, key, mask) @ blank_pads(value, mask)

    def receptive_field(self, length: int) -> Tensor:
        return self.pattern(torch.arange(length)[None], torch.tensor([length]))[0].any(0)
