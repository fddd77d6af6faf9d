"""Nyströmformer: softmax attention through means of queries and keys, and the inverse of their own map."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import HeadAttention
from .ops.banded import token_positions
from .ops.by_length import attend_by_length
from .ops.masking import blank_pads, full_precision, masked_softmax, widen

if TYPE_CHECKING:
    from ..configuration import StudentConfig

ITERATIONS = 6


class NystromAttention(HeadAttention):
    """softmax(q k̃ᵀ) softmax(q̃ k̃ᵀ)⁺ softmax(q̃ kᵀ) v with L landmarks q̃ and k̃; 12NLd operations and 48L³ per head.

    https://arxiv.org/abs/2102.03902. Landmarks are means over L equal segments of an example's real tokens. Of a text
    of up to L tokens they are the tokens, and the product of the maps is softmax attention's map, which such a text
    gets without the error of the iterated inverse. ``convolution`` is the size of the paper's depthwise convolution on
    the values, of which there is one kernel per head, starting at 0; 0 leaves it out.
    """

    complexity = "linear"
    why_not_causal = "reads the text through landmarks, which are means over segments of the whole of it"
    estimates_softmax = True
    uses_num_features = True
    row_stochastic = False  # of a pseudoinverse by iteration, rows sum to nearly 1
    permutation_equivariant = False
    options = {"convolution": 0}  # noqa: RUF012
    small_options = {"convolution": 3}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.num_landmarks = config.features_per_head
        size = (config.attention_options or {})["convolution"]
        self.convolution = nn.Parameter(torch.empty(self.num_heads, 1, size, 1)) if size else None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        # What attends exactly up to more tokens anyway sends only longer texts here.
        exact_up_to = 0 if self.exact_up_to >= self.num_landmarks else self.num_landmarks
        context = attend_by_length(self.attend_by_landmarks, exact_up_to, query, key, value, mask)
        return context if self.convolution is None else context + self._convolve(blank_pads(value, mask))

    def attend_by_landmarks(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the values (B, H, N, d) of texts of more than L tokens; of shorter ones the inverse has its error."""
        dtype = value.dtype
        with full_precision(value):
            query, key, value = widen(*(blank_pads(tensor, mask) for tensor in (query, key, value)))
            segments, filled = self._segments(key, mask)
            query = query * self.head_size**-0.5
            query_landmarks, key_landmarks = segments @ query, segments @ key
            columns = filled[:, None, None, :]
            left = masked_softmax(query @ key_landmarks.mT, columns)
            # An empty landmark is a landmark of its own that nobody uses, so that the middle has an inverse.
            identity = torch.eye(columns.shape[-1], dtype=key.dtype, device=key.device)
            middle = masked_softmax(query_landmarks @ key_landmarks.mT, columns)
            middle = torch.where(filled[:, None, :, None], middle, identity)
            right = masked_softmax(query_landmarks @ key.mT, None if mask is None else mask[:, None, None, :])
            context = left @ (pseudo_inverse(middle) @ (right @ value))
        return context.to(dtype)

    def _segments(self, key: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the weights of each landmark's mean, (B or 1, 1, L, N), and which landmarks have a token, (B, L).

        Of fewer tokens than L, which a graph for all lengths may see, token i is landmark i and the others are empty.
        """
        length = key.shape[2]
        positions = token_positions(mask, length, key.device).long()
        num_real = length if mask is None else mask.sum(-1, keepdim=True)
        num_real = torch.as_tensor(num_real, device=key.device).clamp(min=self.num_landmarks)
        landmark = torch.arange(self.num_landmarks, device=key.device)[:, None]
        inside = (positions * self.num_landmarks // num_real).unsqueeze(1) == landmark
        if mask is not None:
            inside = inside & mask.unsqueeze(1)
        count = inside.sum(-1, keepdim=True)
        return (inside.to(key.dtype) / count.clamp(min=1)).unsqueeze(1), count.squeeze(-1) > 0

    def _convolve(self, value: Tensor) -> Tensor:
        assert self.convolution is not None
        with full_precision(value):
            wide, weight = widen(value, self.convolution)
            convolved = F.conv2d(wide, weight, padding=(weight.shape[2] // 2, 0), groups=self.num_heads)
        return convolved.to(value.dtype)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """One example after the other, without its pads, on the landmarks that it has."""
        contexts = torch.zeros_like(value)
        for example in range(len(query)):
            real = torch.ones(key.shape[2], dtype=torch.bool) if mask is None else mask[example]
            q, k, v = (tensor[example][:, real] for tensor in (query, key, value))
            count = q.shape[1]
            if count <= self.num_landmarks:
                context = (q @ k.mT / self.head_size**0.5).softmax(-1) @ v
            else:
                landmark = torch.arange(count) * self.num_landmarks // count
                members = [landmark == index for index in range(self.num_landmarks)]
                q_means, k_means = (torch.stack([x[:, who].mean(1) for who in members], 1) for x in (q, k))
                left, middle, right = (
                    (a @ b.mT / self.head_size**0.5).softmax(-1)
                    for a, b in ((q, k_means), (q_means, k_means), (q_means, k))
                )
                context = left @ pseudo_inverse(middle) @ right @ v
            if self.convolution is not None:
                reach = self.convolution.shape[2] // 2
                for index in range(count):
                    for other in range(max(0, index - reach), min(count, index + reach + 1)):
                        tap = self.convolution[:, 0, other - index + reach]
                        context[:, index] = context[:, index] + tap * v[:, other]
            contexts[example][:, real] = context
        return contexts

    @classmethod
    def options_problem(cls, options: Mapping[str, Any]) -> str | None:
        size = options["convolution"]
        return (
            f"attention option convolution must be odd, or 0 for none, got {size}" if size and size % 2 == 0 else None
        )

    def initialize_features(self) -> None:
        if self.convolution is not None:
            initialization.zeros_(self.convolution)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Landmarks 4 N L D, the three maps and their products 8 N L D + 4 L² D, the pseudoinverse 48 L³ per head.

        Of up to L tokens softmax attention's 4 N² D.
        """
        landmarks, size = config.num_features, config.attention_options["convolution"]
        if length <= landmarks:
            return length * config.attention_size * (4 * length + 2 * size)
        tokens = length * config.attention_size * (12 * landmarks + 2 * size)
        inverse = 8 * ITERATIONS * landmarks**3 * config.num_attention_heads
        return tokens + 4 * landmarks**2 * config.attention_size + inverse


def pseudo_inverse(matrix: Tensor) -> Tensor:
    """Invert (..., L, L) by the iteration of order 4 of section 3.3, from a start of its own for every matrix."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    size = matrix.abs().sum(-2).amax(-1) * matrix.abs().sum(-1).amax(-1)
    inverse = matrix.mT / size[..., None, None]
    for _ in range(ITERATIONS):
        product = matrix @ inverse
        inverse = inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product))) / 4
    return inverse
