"""Compressive Transformer: beyond the memory of Transformer-XL, an older one of compressed tokens."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .ops.banded import (
    Columns,
    from_blocks,
    in_order,
    joint_attention,
    mask_or_ones,
    real_columns,
    to_blocks,
    with_neighbours,
)
from .ops.causal import KeysAndValues, extend
from .ops.compression import Compression
from .ops.masking import blank_pads, masked_softmax
from .ops.relative import RelativeAttention, relative_flops
from .ops.relative_causal import Slots, attend_to_segments, keep_segments
from .options import LARGEST

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class CompressiveState(NamedTuple):
    """What later tokens can see, from a segment border on."""

    key: Tensor
    """Of the current segment and the memory, (B, H, W, d)."""
    value: Tensor
    slot_key: Tensor
    """Of the slots, those of the memory and the current segment too, (B, H, S, d)."""
    slot_value: Tensor
    rest: Tensor
    """Hidden states of the tokens that do not fill a slot yet, (B, less than c, D)."""


class CompressiveAttention(RelativeAttention):
    """Transformer-XL that also sees C slots, each made of c older tokens; (8L + 6M + 6C)Nd operations per head.

    https://arxiv.org/abs/1911.05507, §3: the slots stand for the C c tokens beyond the memory of the layer's input. A
    slot counts as one step of relative distance. The compression learns from the task and, if asked, from
    ``compression_loss``. The causal form sees the same slots, all of whose tokens come before, and otherwise is
    Transformer-XL's.
    """

    carries_segments = True
    why_not_causal = None
    constant_state = True
    options = {"segment": 64, "memory": 64, "compressed": 16, "rate": 4}  # noqa: RUF012
    limits = {"segment": (1, LARGEST), "rate": (1, 64)}  # noqa: RUF012
    small_options = {"segment": 4, "memory": 4, "compressed": 2, "rate": 2}  # noqa: RUF012

    @classmethod
    def options_problem(cls, options: Mapping[str, Any]) -> str | None:
        segment, rate, slots = (options[name] for name in ("segment", "rate", "compressed"))
        if segment % rate or slots * rate % segment:
            return (
                f"attention options rate {rate} and compressed {slots} must fit the segment of {segment}: a multiple "
                "of the rate, and a divisor of rate times compressed"
            )
        return super().options_problem(options)

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.num_slots, self.rate = options["compressed"], options["rate"]
        self.slots_per_segment = self.segment // self.rate
        self.compression = Compression(config.hidden_size, self.rate)

    def initialize_features(self) -> None:
        super().initialize_features()
        self.compression.initialize()

    @property
    def reach(self) -> int:
        return (self.memory + self.num_slots * self.rate) // self.segment

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        tensors = self.project(hidden_states)
        return in_order(self._mix_in_order, mask, *tensors, hidden_states)

    def _mix_in_order(
        self, query: Tensor, key: Tensor, value: Tensor, hidden_states: Tensor, mask: Tensor | None
    ) -> Tensor:
        length = query.shape[2]
        size, before, after = self.segments(length)
        far = self._far_segments(length)
        columns = [
            with_neighbours(to_blocks(key, size), before, after),
            with_neighbours(to_blocks(value, size), before, after),
            real_columns(query, mask, size, before, after).mT,
        ]
        if far:
            slots, real = self.compression.compress(hidden_states, mask)
            pairs = zip(self._slot_columns(slots, real, far), columns, strict=True)
            columns = [torch.cat([slot, near] if self.looks_left else [near, slot], dim=-2) for slot, near in pairs]
        num_before = before * size + far * self.slots_per_segment * self.looks_left
        logits = self.logits(to_blocks(query, size), columns[0], num_before)
        context = from_blocks(joint_attention([Columns(logits, columns[1], columns[2].mT)]), length)
        return context.transpose(1, 2).flatten(2)

    def _slot_columns(self, slots: Tensor, real: Tensor, far: int, frozen: bool = False) -> list[Tensor]:
        """Return keys and values (B, H, n, C, d) of the slots that each segment sees, and which of them are real."""
        heads = self._project_slots(slots, frozen)
        blocks = [to_blocks(tensor, self.slots_per_segment) for tensor in (*heads, real[:, None, :, None])]
        return [self._take_far(tensor, far) for tensor in blocks]

    def _project_slots(self, slots: Tensor, frozen: bool = False) -> KeysAndValues:
        """Return keys and values (B, H, S, d) of slots (B, S, D)."""
        heads = []
        for linear in (self.key, self.value):
            # Not by a call: hooks on these modules are after the projected tokens.
            weight, bias = (tensor.detach() if frozen else tensor for tensor in (linear.weight, linear.bias))
            heads.append(self.split_heads(F.linear(slots, weight, bias)))
        return KeysAndValues(*heads)

    def _far_segments(self, length: int) -> int:
        """Return how many segments beyond the memory are seen within N tokens."""
        beyond = math.ceil(length / self.segment) - 1 - self.memory // self.segment
        return max(0, min(self.reach - self.memory // self.segment, beyond))

    def _take_far(self, blocks: Tensor, far: int) -> Tensor:
        """Return for each segment what (..., n, S, d) has of those beyond its memory, (..., n, far S, d)."""
        reach, count = far + self.memory // self.segment, far * blocks.shape[-2]
        if self.looks_left:
            return with_neighbours(blocks, reach, 0)[..., :count, :]
        return with_neighbours(blocks, 0, reach)[..., -count:, :]

    def compression_loss(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """How badly attention to the slots replaces attention to the tokens in them: a relative squared error, (B,).

        https://arxiv.org/abs/1911.05507, §3.2: by content alone; hidden states (B, N, D) and projections are taken as
        given, so that the compression alone gets a gradient. 0 for an example that reaches no further than its memory.
        """
        error = in_order(self._reconstruction, mask, hidden_states.detach())
        error = error.masked_fill(~mask_or_ones(mask, hidden_states).unsqueeze(-1), 0).sum(1)
        return error[:, 0] / error[:, 1].clamp(min=torch.finfo(error.dtype).tiny)

    def _reconstruction(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Return |difference|² and |target|² of each token's context, (B, N, 2)."""
        length, far = hidden_states.shape[1], self._far_segments(hidden_states.shape[1])
        if not far:
            # Still a function of the compression: a stage may have no other loss.
            return hidden_states.new_zeros(*hidden_states.shape[:2], 2) + 0 * self.compression.weight.sum()
        with torch.no_grad():
            query, key, value = (to_blocks(heads, self.segment) for heads in self.project(hidden_states))
            query = query * self.head_size**-0.5
            real = to_blocks(mask_or_ones(mask, hidden_states)[:, None, :, None], self.segment)
            key, value, real = (self._take_far(tensor, far) for tensor in (key, value, real))
            target = joint_attention([Columns(query @ key.mT, value, real.mT)])
        slot_key, slot_value, slot_real = self._slot_columns(
            *self.compression.compress(hidden_states, mask), far, frozen=True
        )
        context = joint_attention([Columns(query @ slot_key.mT, slot_value, slot_real.mT)])
        squares = torch.stack([(context - target).square().sum(-1), target.square().sum(-1)], dim=-1)
        return from_blocks(squares, length).sum(1)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Pads must come last."""
        return self._naive_context(hidden_states, mask, causal=False)

    def mix_causal(
        self, hidden_states: Tensor, state: CompressiveState | None = None
    ) -> tuple[Tensor, CompressiveState]:
        query, key, value = self.project(hidden_states)
        if state is None:
            none = KeysAndValues(key[:, :, :0], value[:, :, :0])
            state = CompressiveState(*none, *none, hidden_states[:, :0])
        kept = extend(KeysAndValues(state.key, state.value), key, value)
        slots, rest = self._extend_slots(state, hidden_states)
        earlier = state.slot_key.shape[2] // self.slots_per_segment
        context = attend_to_segments(self, query, kept, Slots(slots, self.slots_per_segment, earlier, self.reach))
        near = keep_segments(kept, self.segment, self.memory // self.segment)
        far = keep_segments(slots, self.slots_per_segment, self.reach)
        return context.transpose(1, 2).flatten(2), CompressiveState(*near, *far, rest.detach())

    def _extend_slots(self, state: CompressiveState, hidden_states: Tensor) -> tuple[KeysAndValues, Tensor]:
        """Return keys and values of the slots that these tokens fill too, and the tokens that fill none yet."""
        slots = KeysAndValues(state.slot_key, state.slot_value)
        tokens = torch.cat([state.rest, hidden_states], dim=1)
        filled = tokens.shape[1] // self.rate * self.rate
        if filled:
            new = self._project_slots(self.compression.compress(tokens[:, :filled], None)[0])
            slots = extend(slots, *new)
        return slots, tokens[:, filled:]

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        return self._naive_context(hidden_states, None, causal=True)

    def _naive_context(self, hidden_states: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        hidden_states = blank_pads(hidden_states, mask)
        real = mask_or_ones(mask, hidden_states)
        slots, slot_real = self.compression.naive_compress(hidden_states, real)
        states = torch.cat([hidden_states, slots], dim=1)
        query = self.split_heads(self.query(hidden_states))
        key, value = self.split_heads(self.key(states)), self.split_heads(self.value(states))
        token, slot = torch.arange(hidden_states.shape[1]), torch.arange(slots.shape[1])
        row, segment, reach = token[:, None], self.segment, self.memory // self.segment
        side = 1 if self.looks_left else -1
        back_token, back_slot = (side * (row // segment - other // segment) for other in (token, slot * self.rate))
        sees_token, sees_slot = (
            (back_token >= 0) & (back_token <= reach),
            (back_slot > reach) & (back_slot <= self.reach),
        )
        if causal:
            sees_token = sees_token & (token <= row)
        seen = torch.cat([sees_token, sees_slot], dim=-1)
        start = row // segment * segment
        edge = start - self.memory if self.looks_left else start + segment + self.memory
        slot_position = edge + slot - edge // self.rate  # one step each, from the memory's edge on
        distance = row - torch.cat([token.expand(len(row), -1), slot_position], dim=-1)
        by_position = torch.einsum("bhid,hijd->bhij", query + self.position_bias, self.relative_keys(distance))
        logits = ((query + self.content_bias) @ key.mT + by_position) / self.head_size**0.5
        weights = masked_softmax(logits, seen & torch.cat([real, slot_real], dim=-1)[:, None, None])
        return (weights @ value).transpose(1, 2).flatten(2)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Transformer-XL's with C more columns, and the slots: made by 2ND² and projected by 4(N/c)D²."""
        segment, memory, num_slots, rate = (config.attention_options[name] for name in cls.options)
        beyond = math.ceil(length / segment) - 1 - memory // segment
        far = max(0, min(num_slots * rate // segment, beyond))
        core = relative_flops(config, length, memory, far * segment // rate)
        per_slot = (2 * rate * config.hidden_size + 4 * config.attention_size) * config.hidden_size
        return core + per_slot * math.ceil(length / rate) * (far > 0)
