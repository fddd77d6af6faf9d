"""The Compressive Transformer's compression: slots made of c tokens each."""

import torch
from torch import Tensor, nn
from transformers import initialization

from .banded import mask_or_ones, to_blocks


class Compression(nn.Linear):
    """A convolution of width and stride c over the tokens, D channels to D, which starts as their mean.

    https://arxiv.org/abs/1911.05507, §3. Pads count as absent: zeros come in, and the result is divided by the share
    of real tokens.
    """

    def __init__(self, hidden_size: int, rate: int) -> None:
        super().__init__(rate * hidden_size, hidden_size, bias=False)
        self.rate = rate

    def initialize(self) -> None:
        initialization.copy_(self.weight, torch.eye(self.out_features).repeat(1, self.rate) / self.rate)

    def compress(self, hidden_states: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Make slots (B, N/c, D) of (B, N, D) hidden states with zeros at pads, and say which hold a real token."""
        groups = to_blocks(hidden_states, self.rate)
        num_real = to_blocks(mask_or_ones(mask, hidden_states).unsqueeze(-1), self.rate).sum((-1, -2))
        share = (num_real / self.rate).clamp(min=1 / self.rate).unsqueeze(-1)
        slots = self(groups.flatten(2))
        return slots / share.to(slots.dtype), num_real > 0

    def naive_compress(self, hidden_states: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The same as ``compress``, slot by slot, for a mask ``real`` (B or 1, N); for tests."""
        weights = self.weight.split(hidden_states.shape[-1], dim=1)
        slots, slot_real = [], []
        for start in range(0, hidden_states.shape[1], self.rate):
            group = hidden_states[:, start : start + self.rate].unbind(1)
            total = sum(token @ weight.T for token, weight in zip(group, weights, strict=False))
            num_real = real[:, start : start + self.rate].sum(-1, keepdim=True)
            slots.append(total * self.rate / num_real.clamp(min=1))
            slot_real.append(num_real > 0)
        return torch.stack(slots, dim=1), torch.cat(slot_real, dim=-1)
