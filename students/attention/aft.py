"""Attention free transformer: per channel, a mean of the values that keys and positions weigh, gated by the query."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import initialization

from .base import HeadAttention
from .ops.banded import from_blocks, in_order, to_blocks, with_neighbours
from .ops.causal import KeysAndValues, tokens_so_far
from .ops.causal_channels import (
    ChannelSums,
    WindowAndChannels,
    paired_channels,
    running_channels,
    terms_of,
    windowed_channels,
)
from .ops.masking import blank_pads, full_precision, makes_graph, widen
from .ops.random_features import seeded_generator
from .ops.running import Scaled

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class AFTAttention(HeadAttention):
    """σ(q_i) ⊙ Σ_j e^(k_j + w_ij) v_j / Σ_j e^(k_j + w_ij), channel by channel: https://arxiv.org/abs/2105.14103.

    ``variant``: ``simple`` has w = 0, O(N D); ``local`` has w = 0 from the distance ``window`` on, where tokens still
    count, 12 N D operations per token of the window; ``full`` knows every pair, 4N²D. w_ij is the product of a row of
    each of two tables of ``rank`` columns, which belong to positions. The causal form sums over j ≤ i; ``full`` alone
    keeps all tokens for it.
    """

    complexity = "linear"
    has_context = False
    row_stochastic = False
    why_not_causal = None
    constant_state = True
    options = {"variant": ("simple", "local", "full"), "window": 32, "rank": 64}  # noqa: RUF012
    limits = {"window": (1, 1024), "rank": (1, 4096)}  # noqa: RUF012
    small_options = {"window": 4, "rank": 4}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.variant, self.window = options["variant"], options["window"]
        self.seed = config.projection_seed
        if self.variant == "simple":
            return
        self.permutation_equivariant = False
        self.complexity = "quadratic" if self.variant == "full" else "linear"
        self.constant_state = self.variant != "full"
        self.rows = nn.Parameter(torch.empty(config.max_position_embeddings, options["rank"]))
        self.columns = nn.Parameter(torch.empty(config.max_position_embeddings, options["rank"]))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        if self.variant == "simple":
            return self._attend_in_order(query, blank_pads(key, mask), blank_pads(value, mask), mask)
        self._check_positions(key.shape[2])
        return in_order(self._attend_in_order, mask, query, key, value)

    def _check_positions(self, length: int) -> None:
        if length > len(self.rows):
            raise ValueError(f"{length} tokens are more than the {len(self.rows)} positions of AFT")

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: ChannelSums | WindowAndChannels | KeysAndValues | None
    ) -> tuple[Tensor, ChannelSums | WindowAndChannels | KeysAndValues]:
        dtype = value.dtype
        with full_precision(value):
            query, key, value = widen(query, key, value)
            sums, after = self._sum_so_far(key, value, state)
            numerator, denominator = sums.sums
            context = query.sigmoid() * numerator / denominator
        return context.to(dtype), after

    def _sum_so_far(self, key: Tensor, value: Tensor, state: Any) -> tuple[Scaled, Any]:
        """Return the numerators and denominators of all tokens, (2, B, H, N, d) in units, and the state after them."""
        length = key.shape[2]
        if self.variant == "simple":
            return running_channels(key, terms_of(value), state)
        rows, columns = self.rows.to(key.dtype), self.columns.to(key.dtype)
        if self.variant == "full":
            total = length + (0 if state is None else state.key.shape[2])
            self._check_positions(total)
            return paired_channels(key, value, rows[total - length : total], columns[:total], state)
        count = tokens_so_far(state, key)
        if not makes_graph():
            self._check_positions(length if state is None else int(count.max()) + length)
        first = count[: 1 if state is None else None, None]
        place = first + torch.arange(length, device=key.device)
        near = (first + torch.arange(1 - self.window, length, device=key.device)).clamp(min=0)
        return windowed_channels(key, value, rows[place][:, None], columns[near][:, None], count, state)

    def _attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dtype = value.dtype
        with full_precision(value):
            query, key, value = widen(query, key, value)
            if mask is not None:
                key = key.masked_fill(~mask[:, None, :, None], torch.finfo(key.dtype).min / 2)
            weight = blank_pads((key - key.detach().amax(2, keepdim=True)).exp(), mask)
            total = self._sum_over_tokens(torch.cat([weight * value, weight], dim=-1))
            numerator, denominator = total.chunk(2, dim=-1)
            context = query.sigmoid() * numerator / denominator.clamp(min=torch.finfo(key.dtype).tiny)
        return context.to(dtype)

    def _sum_over_tokens(self, terms: Tensor) -> Tensor:
        """Return Σ_j e^(w_ij) terms_j up to a factor per i, (B, H, N or 1, 2d)."""
        if self.variant == "simple":
            return terms.sum(2, keepdim=True)
        rows, columns = (table[: terms.shape[2]].to(terms.dtype) for table in (self.rows, self.columns))
        if self.variant == "full":
            bias = rows @ columns.mT
            return (bias - bias.detach().amax(-1, keepdim=True)).exp() @ terms
        bias = to_blocks(rows, self.window) @ with_neighbours(to_blocks(columns, self.window)).mT
        distance = torch.arange(self.window)[:, None] - torch.arange(-self.window, 2 * self.window)
        inside = (distance.abs() < self.window).to(bias.device)
        near = bias.expm1().masked_fill(~inside, 0) @ with_neighbours(to_blocks(terms, self.window))
        return terms.sum(2, keepdim=True) + from_blocks(near, terms.shape[2])

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """With all pairs of tokens, one example after the other, without its pads."""
        return self._naive(query, key, value, mask)

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self._naive(query, key, value, None, causal=True)

    def _naive(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool = False) -> Tensor:
        contexts = torch.zeros_like(value)
        for example in range(len(query)):
            real = torch.ones(key.shape[2], dtype=torch.bool) if mask is None else mask[example]
            q, k, v = (tensor[example][:, real] for tensor in (query, key, value))
            bias = k.new_zeros(k.shape[1], k.shape[1])
            if self.variant != "simple":
                position = torch.arange(k.shape[1])
                far = (position[:, None] - position).abs() >= self.window
                bias = self.rows[position] @ self.columns[position].mT
                bias = bias.masked_fill(far, 0) if self.variant == "local" else bias
            if causal:
                bias = bias.masked_fill(torch.ones_like(bias).triu(1) == 1, -torch.inf)
            weights = (k[:, None] + bias[:, :, None]).softmax(2)
            contexts[example][:, real] = q.sigmoid() * (weights * v[:, None]).sum(2)
        return contexts

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        for _, table in self.named_parameters(recurse=False):
            initialization.copy_(table, 0.1 * torch.randn(table.shape, generator=generator))

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Flatten the copied keys and queries by √d, and open the gate: σ(2) = 0.88."""
        for parameter in (self.query.weight, self.key.weight, self.key.bias):
            parameter.mul_(self.head_size**-0.5)
        self.query.bias.fill_(2.0)
        return ["query.weight", "query.bias", "key.weight", "key.bias"]

    def extend_positions(self, length: int) -> None:
        for name, table in list(self.named_parameters(recurse=False)):
            repeats = -(-length // len(table))
            setattr(self, name, nn.Parameter(table.repeat(repeats, 1), requires_grad=table.requires_grad))

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """full: w and its product with 2D columns. local: the same on 3 blocks of keys per block. simple: sums."""
        variant, window, rank = (config.attention_options[name] for name in ("variant", "window", "rank"))
        pairs = {"simple": 0, "local": 3 * window * length, "full": length**2}[variant]
        return 2 * pairs * (rank + 2 * config.attention_size)
