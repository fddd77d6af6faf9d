"""BigBird: neighbouring blocks, global blocks and a few random ones."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import initialization

from .ops.banded import (
    Columns,
    banded_attention,
    from_blocks,
    joint_attention,
    mask_or_ones,
    real_columns,
    to_blocks,
    with_neighbours,
)
from .ops.masking import masked_softmax
from .ops.pattern import PatternAttention
from .ops.random_blocks import draw_blocks
from .options import LARGEST

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class BigBirdAttention(PatternAttention):
    """Softmax over blocks of b tokens: three neighbouring, the first g, and r random; 4N(3 + g + r)b d operations.

    https://arxiv.org/abs/2007.14062, §2. The first g blocks see and are seen by all. The random blocks are drawn per
    layer and head for examples of up to 1, 2, 4, 8 ... blocks, so that they depend on an example's own length only,
    and are the same in training and evaluation; none is also a neighbour or global, which would count its keys twice.
    """

    complexity = "linear"
    why_not_causal = "draws the blocks that a token sees by the length of the whole text"
    options = {"block": 16, "global_blocks": 1, "random_blocks": 3}  # noqa: RUF012
    limits = {"block": (1, LARGEST), "random_blocks": (0, 64)}  # noqa: RUF012
    small_options = {"block": 2, "random_blocks": 1}  # noqa: RUF012

    plan: Tensor

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.block, self.num_global, self.num_random = (options[name] for name in self.options)
        self.seed = config.projection_seed
        # Persistent: from_pretrained leaves buffers that no checkpoint fills uninitialised.
        shape = self.num_heads, 2 ** self._num_powers(config.max_position_embeddings) - 1, self.num_random
        self.register_buffer("plan", torch.empty(shape, dtype=torch.int64))

    def initialize_features(self) -> None:
        num_powers = round(math.log2(self.plan.shape[1] + 1))
        initialization.copy_(self.plan, self._draw(num_powers))

    def extend_positions(self, length: int) -> None:
        self.plan = self._draw(self._num_powers(length)).to(self.plan.device)

    def _num_powers(self, length: int) -> int:
        """How many draws, for up to 1, 2, 4, 8 ... blocks, the longest input needs."""
        return math.ceil(math.log2(max(1, math.ceil(length / self.block)))) + 1

    def _draw(self, num_powers: int) -> Tensor:
        """Draw the random blocks of each head and block, for 1, 2, 4 ... blocks, (H, 1 + 2 + 4 ..., r)."""
        draw = (self.seed, self.layer, self.num_heads, self.num_global, self.num_random)
        return torch.cat([draw_blocks(2**power, *draw) for power in range(num_powers)], dim=1)

    def random_blocks(self, num_real: Tensor, num_blocks: int) -> Tensor:
        """Return the random blocks that each block of examples with (B,) real tokens sees, (B, H, n, r).

        Fewer than r exist where one is -1, or past the end.
        """
        num_powers = self._num_powers(num_blocks * self.block)
        if 2**num_powers - 1 > self.plan.shape[1]:
            raise ValueError(f"random blocks are drawn for less than {num_blocks} blocks of {self.block} tokens")
        num_real_blocks = (num_real + self.block - 1) // self.block
        sizes = 2 ** torch.arange(num_powers, device=num_real.device)
        size = 2 ** (num_real_blocks[:, None] > sizes).sum(-1, keepdim=True)  # the draw for up to so many blocks
        row = torch.arange(num_blocks, device=num_real.device).minimum(size - 1)  # past the end are pads
        return self.plan[:, size - 1 + row].transpose(0, 1)  # draws for fewer blocks come before, size - 1 rows in all

    def pattern(self, position: Tensor, num_real: Tensor) -> Tensor:
        block = position.clamp(min=0) // self.block
        num_blocks = math.ceil(position.shape[-1] / self.block)
        index = torch.arange(num_blocks, device=position.device)
        near = (index[:, None] - index).abs() <= 1
        with_all = (index < self.num_global) | (index[:, None] < self.num_global)
        random = (self.random_blocks(num_real, num_blocks).unsqueeze(-1) == index).any(-2)
        seen = near | with_all | random
        example = torch.arange(seen.shape[0], device=position.device)[:, None, None]
        return seen.transpose(1, 3)[example, block[:, None, :], block[:, :, None]].movedim(-1, 1)

    def attend_in_order(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        length = query.shape[-2]
        if length <= 2 * self.block:  # all neighbours
            return banded_attention(query, key, value, mask, length)
        query = query * self.head_size**-0.5
        blocks, keys, values = (to_blocks(tensor, self.block) for tensor in (query, key, value))
        real = mask_or_ones(mask, query)
        index = torch.arange(blocks.shape[2], device=query.device)
        neighbours = index[:, None] + torch.tensor([-1, 0, 1], device=query.device)
        not_global = (neighbours >= self.num_global).repeat_interleave(self.block, dim=1).unsqueeze(1)
        near_keys, near_values = with_neighbours(keys), with_neighbours(values)
        parts = [Columns(blocks @ near_keys.mT, near_values, not_global & real_columns(query, mask, self.block))]
        num_global = self.num_global * self.block
        global_keys, global_values = (tensor[:, :, None, :num_global] for tensor in (key, value))
        parts.append(Columns(blocks @ global_keys.mT, global_values, real[:, None, None, None, :num_global]))
        if self.num_random:
            parts.append(self._random_columns(blocks, keys, values, real))
        context = from_blocks(joint_attention(parts), length)
        logits = query[:, :, :num_global] @ key.mT
        rows = masked_softmax(logits, real[:, None, None]) @ value
        return torch.cat([rows.to(context.dtype), context[:, :, num_global:]], dim=2)

    def _random_columns(self, blocks: Tensor, keys: Tensor, values: Tensor, real: Tensor) -> Columns:
        num_blocks = blocks.shape[2]
        chosen = self.random_blocks(real.sum(-1), num_blocks).expand(blocks.shape[0], -1, -1, -1)
        index = chosen.clamp(min=0, max=num_blocks - 1).flatten(2).unsqueeze(-1)

        def pick(tensor: Tensor) -> Tensor:
            """Take the chosen ones of (B, H, n, b, d): (B, H, n, r b, d)."""
            tokens = tensor.flatten(3)
            picked = tokens.gather(2, index.expand(-1, -1, -1, tokens.shape[-1]))
            return picked.unflatten(-1, tensor.shape[3:]).unflatten(2, chosen.shape[2:]).flatten(3, 4)

        real_blocks = to_blocks(real.unsqueeze(-1), self.block).unsqueeze(1)
        allowed = pick(real_blocks.expand(*chosen.shape[:2], -1, -1, -1)).mT
        exists = ((chosen >= 0) & (chosen < num_blocks)).repeat_interleave(self.block, dim=-1).unsqueeze(-2)
        return Columns(blocks @ pick(keys).mT, pick(values), allowed & exists)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """4N(3 + g + r)bD in whole blocks and 4gbND for the global rows; 4N²D where all blocks are neighbours."""
        size, num_global, num_random = (config.attention_options[name] for name in cls.options)
        if length <= 2 * size:
            return 4 * length**2 * config.attention_size
        tokens = math.ceil(length / size) * size
        return 4 * size * config.attention_size * (tokens * (3 + num_global + num_random) + num_global * length)
