"""Longformer: a sliding window, and a few global tokens that see and are seen by all."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import SelfAttention
from .ops.banded import (
    Columns,
    band_columns,
    band_width,
    column_positions,
    from_blocks,
    in_order,
    joint_attention,
    to_blocks,
    token_positions,
)
from .ops.causal import KeysAndValues, extend, looking_back
from .ops.causal_band import causal_band_columns, newest
from .ops.masking import blank_pads, masked_softmax

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class LongformerState(NamedTuple):
    """What later tokens can see, (B, H, ..., d) each."""

    window_key: Tensor
    """Of the last window/2 tokens behind the first g."""
    window_value: Tensor
    first_key: Tensor
    """Of the first g tokens, for the tokens behind them."""
    first_value: Tensor
    global_key: Tensor
    """Of the first g tokens by the projections of their own, for each other."""
    global_value: Tensor


class LongformerAttention(SelfAttention):
    """Softmax over the tokens at most window/2 away and the first g tokens; 4N(3w/2 + g)d operations per head.

    https://arxiv.org/abs/2004.05150, §3. The global tokens attend to all by projections of their own, which start as
    copies of the local ones. Those of the keys and values are never applied to all N tokens: q·(Wx) = (Wᵀq)·x, and a
    mean of Wx is W applied to a mean of x, so that they cost 4gHND operations instead of 4ND².

    The causal form is the part of it that looks back: a token sees the window/2 ones before it and the first g, which
    see those before them. Of any text it keeps so many tokens and no more.
    """

    takes_any_heads = True
    complexity = "linear"
    permutation_equivariant = False
    why_not_causal = None
    constant_state = True
    options = {"window": 64, "global_tokens": 1}  # noqa: RUF012
    small_options = {"window": 4}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.radius = options["window"] // 2
        self.num_global = options["global_tokens"]
        if self.num_global:
            for name in self.projections:
                self.add_module(f"{name}_global", nn.Linear(config.hidden_size, config.attention_size))

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        # Projected before the tokens are moved: whoever captures queries or values gets them in the input's order.
        tensors = self.project(hidden_states)
        return in_order(self._mix_in_order, mask, *tensors, hidden_states)

    def _mix_in_order(
        self, query: Tensor, key: Tensor, value: Tensor, hidden_states: Tensor, mask: Tensor | None
    ) -> Tensor:
        length = query.shape[-2]
        band = band_columns(query, key, value, mask, self.radius)
        if not self.num_global:
            return from_blocks(joint_attention([band]), length).transpose(1, 2).flatten(2)
        num_blocks, size, width = band.logits.shape[-3:]
        sides = (width // size - 1) // 2
        columns = column_positions(num_blocks, size, sides, sides, query.device)[1]
        band = band._replace(allowed=band.allowed & (columns >= self.num_global))
        parts = [band, self._global_columns(to_blocks(query, size), key, value, mask)]
        local = from_blocks(joint_attention(parts), length).transpose(1, 2).flatten(2)
        return torch.cat([self._global_rows(hidden_states, mask).to(local.dtype), local[:, self.num_global :]], dim=1)

    def _global_columns(self, blocks: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Columns:
        key, value = (tensor[:, :, None, : self.num_global] for tensor in (key, value))
        logits = blocks @ key.mT * self.head_size**-0.5
        if mask is None:
            return Columns(logits, value, logits.new_ones((), dtype=torch.bool))
        return Columns(logits, value, mask[:, None, None, None, : self.num_global])

    def _global_rows(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Contexts of the global tokens, (B, g, A)."""
        query_global, key_global, value_global = (getattr(self, f"{name}_global") for name in self.projections)
        query = self.split_heads(query_global(hidden_states[:, : self.num_global])) * self.head_size**-0.5
        key_weight, value_weight = (
            linear.weight.unflatten(0, (self.num_heads, -1)) for linear in (key_global, value_global)
        )
        key_bias, value_bias = (
            linear.bias.unflatten(0, (self.num_heads, 1, -1)) for linear in (key_global, value_global)
        )
        tokens = hidden_states.unsqueeze(1)
        logits = (query @ key_weight) @ tokens.mT + (query * key_bias).sum(-1, keepdim=True)
        weights = masked_softmax(logits, None if mask is None else mask[:, None, None, :])
        context = (weights @ tokens) @ value_weight.mT + weights.sum(-1, keepdim=True) * value_bias
        return context.transpose(1, 2).flatten(2)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        hidden_states = blank_pads(hidden_states, mask)
        position = token_positions(mask, hidden_states.shape[1])[:, None]
        is_global = position < self.num_global
        near = (position.unsqueeze(-1) - position.unsqueeze(-2)).abs() <= self.radius
        real = torch.ones_like(near) if mask is None else mask[:, None, None]
        local = self._naive_context("", hidden_states, real & (near | is_global.unsqueeze(-2)))
        if not self.num_global:
            return local
        return torch.where(is_global.mT, self._naive_context("_global", hidden_states, real), local)

    def _naive_context(self, suffix: str, hidden_states: Tensor, allowed: Tensor) -> Tensor:
        query, key, value = (
            self.split_heads(getattr(self, name + suffix)(hidden_states)) for name in self.projections
        )
        weights = masked_softmax(query @ key.mT / self.head_size**0.5, allowed)
        return (weights @ value).transpose(1, 2).flatten(2)

    def mix_causal(
        self, hidden_states: Tensor, state: LongformerState | None = None
    ) -> tuple[Tensor, LongformerState]:
        query, key, value = self.project(hidden_states)
        if state is None:
            none = KeysAndValues(key[:, :, :0], value[:, :, :0])
            state = LongformerState(*none, *none, *none)
        # The tokens behind the first g follow each other without a gap, so that none needs to know its place.
        count = min(hidden_states.shape[1], self.num_global - state.first_key.shape[2])
        first = extend(KeysAndValues(state.first_key, state.first_value), key[:, :, :count], value[:, :, :count])
        window = KeysAndValues(state.window_key, state.window_value)
        window = extend(window, key[:, :, count:], value[:, :, count:])
        of_first = KeysAndValues(state.global_key, state.global_value)
        contexts = []
        if count:
            context, of_first = self._causal_global_rows(hidden_states[:, :count], of_first)
            contexts.append(context.to(value.dtype))
        if count < hidden_states.shape[1]:
            contexts.append(self._causal_local_rows(query[:, :, count:], window, first))
        kept = LongformerState(*newest(window, self.radius), *first, *of_first)
        return torch.cat(contexts, dim=2).transpose(1, 2).flatten(2), kept

    def _causal_local_rows(self, query: Tensor, window: KeysAndValues, first: KeysAndValues) -> Tensor:
        """Contexts (B, H, N, d) of tokens behind the first g, which are not in the window."""
        band = causal_band_columns(query, window, self.radius)
        blocks = to_blocks(query, band.logits.shape[-2])
        parts = [band, self._global_columns(blocks, *first, None)] if self.num_global else [band]
        return from_blocks(joint_attention(parts), query.shape[2])

    def _causal_global_rows(self, hidden_states: Tensor, state: KeysAndValues) -> tuple[Tensor, KeysAndValues]:
        """Contexts (B, H, n, d) of n of the first g tokens, and the keys and values that the rest of them will see."""
        query, key, value = (
            self.split_heads(getattr(self, f"{name}_global")(hidden_states)) for name in self.projections
        )
        kept = extend(state, key, value)
        allowed = looking_back(query.shape[2], kept.key.shape[2], query.device)
        return masked_softmax(query @ kept.key.mT * self.head_size**-0.5, allowed) @ kept.value, kept

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        position = torch.arange(hidden_states.shape[1])
        distance, is_global = position[:, None] - position, position < self.num_global
        local = self._naive_context("", hidden_states, (distance >= 0) & ((distance <= self.radius) | is_global))
        if not self.num_global:
            return local
        return torch.where(is_global[:, None], self._naive_context("_global", hidden_states, distance >= 0), local)

    def receptive_field(self, length: int) -> Tensor:
        position = torch.arange(length)
        near = (position[:, None] - position).abs() <= self.radius
        return near | (position < self.num_global) | (position[:, None] < self.num_global)

    def feature_parameters(self) -> list[nn.Parameter]:
        """None: the global projections start as good as the local ones and learn at their rate."""
        return []

    @torch.no_grad()
    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Start the global projections as copies of the local ones."""
        names = []
        for name in self.projections if self.num_global else ():
            source, target = getattr(teacher, name), getattr(self, f"{name}_global")
            target.load_state_dict(source.state_dict())
            names += [f"{name}_global.weight", f"{name}_global.bias"]
        return names

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """The band in blocks and the global columns, 4N(3w/2 + g)D, and the global rows: 4gHND + 6gD²."""
        radius, num_global = config.attention_options["window"] // 2, config.attention_options["global_tokens"]
        hidden_size, num_heads = config.hidden_size, config.num_attention_heads
        local = 4 * length * (band_width(radius, length) + num_global) * config.attention_size
        rows = 4 * num_heads * length * hidden_size + 6 * hidden_size * config.attention_size
        return local + num_global * rows
