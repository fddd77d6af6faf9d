"""Which random blocks of keys a block of queries sees."""

import torch
from torch import Tensor

from .random_features import seeded_generator


def draw_blocks(num_blocks: int, seed: int, layer: int, num_heads: int, num_global: int, num_random: int) -> Tensor:
    """Draw for each head and block ``num_random`` others that are neither neighbours nor global, (H, n, r).

    Without replacement, from these numbers alone; -1 where there are no more.
    """
    if not num_random:
        return torch.empty(num_heads, num_blocks, 0, dtype=torch.long)
    block = torch.arange(num_blocks)
    first = (block - 1).clamp(min=num_global)
    num_near = ((block + 1).clamp(max=num_blocks - 1) - first + 1).clamp(min=0)
    num_free = (num_blocks - num_global - num_near).clamp(min=0)
    chance = torch.rand(num_random, num_heads, num_blocks, generator=seeded_generator(seed, layer, num_blocks))
    ranks: list[Tensor] = []  # among the free blocks of a row, by Floyd's algorithm for distinct numbers
    for drawn, uniform in enumerate(chance):
        last = num_free - num_random + drawn
        rank = (uniform * (last + 1)).long().minimum(last)
        taken = torch.stack([earlier == rank for earlier in ranks]).any(0) if ranks else torch.zeros_like(rank).bool()
        ranks.append(torch.where(taken, last, rank).clamp(min=-1))
    rank = torch.stack(ranks, dim=-1)
    chosen = rank + num_global
    chosen = chosen + torch.where(chosen >= first[:, None], num_near[:, None], 0)
    return chosen.masked_fill(rank < 0, -1)
