"""Linear attention that fades with the distance: blocks as matrices, and between them states that are carried on.

Shapes: B batch, N sequence length, H heads, d head size, r features, n blocks; λ is the decay between neighbours.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import from_blocks, to_blocks

GROUP = 16  # blocks whose states one product sums up


def fade(elapsed: Tensor) -> Tensor:
    """Return Π λ between any two tokens, (..., N, N), from the sums (..., N, 1) of log λ up to each."""
    return (-(elapsed - elapsed.mT).abs()).exp()


def decayed_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, log_decay: Tensor, chunk: int
) -> Tensor:
    """Return Σ_j φ(q_i)·φ(k_j) Π λ v_j, not normalised, (B, H, N, d).

    Features are (B, H, N, r), the log of the decays (B, H, N, 1). No exponent is positive.
    """
    inputs = (query_features, key_features, value, log_decay)
    queries, keys, values, steps = (to_blocks(tensor, chunk) for tensor in inputs)
    elapsed = steps.cumsum(-2)
    mixed = (queries @ keys.mT * fade(elapsed)) @ values
    if queries.shape[-3] > 1:
        whole = elapsed[..., -1:, :]
        from_start, to_end = elapsed.exp(), (whole - elapsed).exp()
        earlier = carry((keys * to_end).mT @ values, whole)
        later = carry(((keys * from_start).mT @ values).flip(-3), whole.flip(-3)).flip(-3)
        mixed = mixed + torch.cat([queries * from_start, queries * to_end], dim=-1) @ torch.cat([earlier, later], -2)
    return from_blocks(mixed, query_features.shape[-2])


def causal_decayed_sums(
    query_features: Tensor, key_features: Tensor, value: Tensor, log_decay: Tensor, chunk: int, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return Σ φ(q_i)·φ(k_j) Π λ v_j over j ≤ i, λ from j + 1 to i, (B, H, N, d), and the state after these tokens.

    The arguments are those of :func:`decayed_attention`; the state is Σ φ(k_j) Π λ v_jᵀ up to the last token,
    (B, H, r, d).
    """
    inputs = (query_features, key_features, value, log_decay)
    queries, keys, values, steps = (to_blocks(tensor, chunk) for tensor in inputs)
    elapsed = steps.cumsum(-2)
    whole = elapsed[..., -1:, :]
    sums = (keys * (whole - elapsed).exp()).mT @ values
    first = torch.zeros_like(sums[..., :1, :, :]) if state is None else state.to(sums.dtype).unsqueeze(-3)
    # What came before is a block of its own, of which only the sum is known.
    sums, whole = torch.cat([first, sums], dim=-3), F.pad(whole, (0, 0, 0, 0, 1, 0))
    earlier = carry(sums, whole)
    mixed = (queries @ keys.mT * fade(elapsed)).tril() @ values
    mixed = mixed + (queries * elapsed.exp()) @ earlier[..., 1:, :, :]
    last = earlier[..., -1, :, :] * whole[..., -1, :, :].exp() + sums[..., -1, :, :]
    return from_blocks(mixed, query_features.shape[-2]), last


def carry(states: Tensor, log_decay: Tensor) -> Tensor:
    """Return for each block the sum of the earlier blocks' states (..., n, r, d), faded by the blocks in between.

    ``log_decay`` (..., n, 1, 1) is that of a whole block. Within groups of 16 blocks one small matrix product does it,
    from group to group the same again: each level reads the states once.
    """
    num_blocks = states.shape[-3]
    size = min(num_blocks, GROUP)
    padding = (0, 0, 0, 0, 0, -num_blocks % size)
    grouped = F.pad(states, padding).unflatten(-3, (-1, size))
    elapsed = F.pad(log_decay, padding).unflatten(-3, (-1, size)).flatten(-3).cumsum(-1)  # (..., groups, size)
    before = F.pad(elapsed, (1, 0))
    later = torch.ones(size + 1, size, dtype=torch.bool, device=states.device).tril(-1)
    between = before.unsqueeze(-1) - elapsed.unsqueeze(-2)
    weights = between.masked_fill(~later, -math.inf).exp()
    sums = (weights @ grouped.flatten(-2)).unflatten(-1, states.shape[-2:])  # the last one is the whole group's
    carried = sums[..., :-1, :, :]
    if carried.shape[-4] > 1:
        earlier = carry(sums[..., -1, :, :], elapsed[..., -1:].unsqueeze(-1))
        carried = carried + before[..., :-1].exp()[..., None, None] * earlier.unsqueeze(-3)
    return carried.flatten(-4, -3)[..., :num_blocks, :, :]


def carry_operations(num_blocks: int, state: int) -> int:
    """Operations of :func:`carry` on states of that many numbers."""
    operations = 0
    while num_blocks > 1:
        size = min(num_blocks, GROUP)
        num_blocks = math.ceil(num_blocks / size)
        operations += num_blocks * 2 * (size + 1) * size * state
    return operations
