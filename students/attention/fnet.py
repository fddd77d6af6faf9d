"""FNet: Fourier transforms over tokens and channels in place of attention."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .base import SelfAttention
from .ops.banded import in_order, token_positions
from .ops.masking import blank_pads, full_precision, widen

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class FNetMixing(SelfAttention):
    """Re FFT_tokens(FFT_channels(x)), from https://arxiv.org/abs/2105.03824; BERT's projections, 8ND², vanish too.

    The transform over the tokens always has as many points as the model has positions: of another length it would be
    another function of the same tokens. Against the paper there is one more parameter, a factor that starts at
    1/√(points · D) instead of staying at 1: the copied layers expect a sum that does not drown their input.
    """

    complexity = "subquadratic"
    why_not_causal = "gives every token a Fourier coefficient, a sum over the whole text"
    has_context = False
    row_stochastic = False
    permutation_equivariant = False
    projections = ()
    has_output_projection = False

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.num_points = config.max_position_embeddings
        self.initial_scale = 1 / math.sqrt(self.num_points * config.hidden_size)
        self.scale = nn.Parameter(torch.empty(()))

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        length = hidden_states.shape[1]
        if length > self.num_points:
            raise ValueError(f"{length} tokens are more than the {self.num_points} points of the Fourier transform")
        return in_order(self._transform, mask, hidden_states)

    def _transform(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        length, hidden_size = hidden_states.shape[-2:]
        with full_precision(hidden_states):  # no transform in bf16
            tokens, scale = widen(hidden_states, self.scale)
            mixed = scale * torch.fft.fft2(tokens, s=(self.num_points, hidden_size)).real[:, :length]
        return mixed.to(hidden_states.dtype)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """With the matrices of the two transforms: Re(F x G) = cos·x·cos - sin·x·sin."""
        length, hidden_size = hidden_states.shape[-2:]
        position = token_positions(mask, length, hidden_states.device).to(hidden_states.dtype)
        channel = torch.arange(hidden_size, dtype=hidden_states.dtype)
        token_angle = 2 * math.pi * position[:, :, None] * position[:, None, :] / self.num_points
        channel_angle = 2 * math.pi * torch.outer(channel, channel) / hidden_size
        tokens = blank_pads(hidden_states, mask)
        real = token_angle.cos() @ tokens @ channel_angle.cos()
        return self.scale * (real - token_angle.sin() @ tokens @ channel_angle.sin())

    def initialize_features(self) -> None:
        initialization.constant_(self.scale, self.initial_scale)

    def extend_positions(self, length: int) -> None:
        self.num_points = max(length, self.num_points)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """No matrix product; the transforms take about 5 P D log₂(P D) operations with P points, at any length."""
        return 0
