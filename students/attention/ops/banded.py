"""Softmax attention within a band, in blocks: a block of queries meets its own and the neighbouring blocks of keys.

Linear in the sequence length, and exact. Columns that a mechanism wants besides the band (global tokens, random
blocks, strided ones) enter the same softmax by :func:`joint_attention`.

Shapes: B batch, N sequence length, H heads, d head size, C tokens per block, n blocks, K columns that a block sees.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .masking import blank_pads, makes_graph


class Columns(NamedTuple):
    """Some of the keys that every block of queries sees."""

    logits: Tensor
    """(B, H, n, C, K)."""
    value: Tensor
    """(B, H, n, K, d); n may be 1 where all blocks see the same."""
    allowed: Tensor
    """Bool, broadcastable to the logits: False at pads and outside the pattern."""


def to_blocks(tensor: Tensor, size: int) -> Tensor:
    """Cut (..., N, d) into (..., n, size, d); the last block is filled up with zeros, or False."""
    return F.pad(tensor, (0, 0, 0, -tensor.shape[-2] % size)).unflatten(-2, (-1, size))


def from_blocks(blocks: Tensor, length: int) -> Tensor:
    """Undo :func:`to_blocks`: (..., n, C, d) to (..., N, d)."""
    return blocks.flatten(-3, -2)[..., :length, :]


def with_neighbours(blocks: Tensor, before: int = 1, after: int = 1) -> Tensor:
    """Join each block (..., n, C, d) with its neighbours: (..., n, (before + 1 + after) C, d), zeros past the ends."""
    num_blocks = blocks.shape[-3]
    padded = F.pad(blocks, (0, 0, 0, 0, before, after))
    shifted = [padded[..., shift : shift + num_blocks, :, :] for shift in range(before + 1 + after)]
    return torch.cat(shifted, dim=-2)


def real_columns(tensor: Tensor, mask: Tensor | None, size: int, before: int = 1, after: int = 1) -> Tensor:
    """Return where the columns of :func:`with_neighbours` are real tokens of (B, H, N, d): (B or 1, 1, n, 1, K)."""
    real = to_blocks(mask_or_ones(mask, tensor)[:, None, :, None], size)
    return with_neighbours(real, before, after).mT


def mask_or_ones(mask: Tensor | None, tensor: Tensor) -> Tensor:
    """Return the mask (B, N), or (1, N) of True where there is none."""
    return torch.ones(1, tensor.shape[-2], dtype=torch.bool, device=tensor.device) if mask is None else mask


def column_positions(
    num_blocks: int, size: int, before: int = 1, after: int = 1, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Return the positions of each block's tokens (n, C, 1) and of the columns it sees (n, 1, K)."""
    start = size * torch.arange(num_blocks, device=device).view(-1, 1, 1)
    rows = start + torch.arange(size, device=device).view(-1, 1)
    columns = start + torch.arange(-before * size, (1 + after) * size, device=device)
    return rows, columns


def joint_attention(parts: list[Columns]) -> Tensor:
    """One softmax over the columns of all parts, (B, H, n, C, d); a key must be in one part only."""
    weights = joint_softmax([(part.logits, part.allowed) for part in parts])
    first, *others = (of_part @ part.value for of_part, part in zip(weights, parts, strict=True))
    return sum(others, start=first)


def joint_softmax(parts: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """One softmax over pairs of logits (..., K) and allowed, False where the weight is 0; one result per part."""
    logits = [part.masked_fill(~allowed, torch.finfo(part.dtype).min) for part, allowed in parts]
    weights = torch.cat(logits, dim=-1).softmax(-1).split([part.shape[-1] for part in logits], dim=-1)
    # A row without any allowed column has uniform weights at this point.
    return [of_part.masked_fill(~allowed, 0) for of_part, (_, allowed) in zip(weights, parts, strict=True)]


def band_columns(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, radius: int, size: int | None = None
) -> Columns:
    """Return the band |i - j| <= radius of (B, H, N, d) heads, in blocks of ``size`` >= radius tokens.

    By default the blocks are those of :func:`block_size`.
    """
    length = query.shape[-2]
    size = size or block_size(radius, length)
    sides = int(length > size)  # a single block has no neighbours
    key, value = (with_neighbours(to_blocks(blank_pads(tensor, mask), size), sides, sides) for tensor in (key, value))
    blocks = to_blocks(query * query.shape[-1] ** -0.5, size)
    rows, columns = column_positions(blocks.shape[-3], size, sides, sides, query.device)
    near = (rows - columns).abs() <= radius
    return Columns(blocks @ key.mT, value, near & real_columns(query, mask, size, sides, sides))


def block_size(radius: int, length: int) -> int:
    """Tokens per block of a band: its radius, so that one neighbour on each side suffices; never more than N."""
    return max(1, min(radius, length))


def band_width(radius: int, length: int) -> int:
    """How many columns :func:`band_columns` computes per query."""
    size = block_size(radius, length)
    return 3 * size if length > size else size


def banded_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, radius: int) -> Tensor:
    """Softmax attention to the real tokens with |i - j| <= radius, (B, H, N, d); 4 N 3 radius d operations a head."""
    return from_blocks(joint_attention([band_columns(query, key, value, mask, radius)]), query.shape[-2])


def token_positions(mask: Tensor | None, length: int, device: torch.device | None = None) -> Tensor:
    """Count positions from each example's first real token, (B or 1, N); meaningless at pads."""
    if mask is None:
        return torch.arange(length, device=device).unsqueeze(0)
    return mask.cumsum(-1) - 1


def in_order(mix: Callable[..., Tensor], mask: Tensor | None, *tensors: Tensor) -> Tensor:
    """Return ``mix(*tensors, mask)`` with the real tokens moved to the front, and the result moved back.

    Blocks are cut by place, so that under left padding they would depend on the number of pads. Tensors and result are
    (B, H, N, d) or (B, N, D); ``mix`` gets them with zeros at the pads.
    """
    tensors = tuple(blank_pads(tensor, mask) for tensor in tensors)
    if mask is None or _pads_are_last(mask):
        return mix(*tensors, mask)
    place = torch.where(mask, mask.cumsum(-1), mask.sum(-1, keepdim=True) + (~mask).cumsum(-1)) - 1
    moved = [torch.zeros_like(tensor).scatter(-2, _over_rows(place, tensor), tensor) for tensor in tensors]
    mixed = mix(*moved, torch.zeros_like(mask).scatter(-1, place, mask))
    return mixed.gather(-2, _over_rows(place, mixed))


def _pads_are_last(mask: Tensor) -> bool:
    # Looking into the mask would make a GPU wait and break a compiled or exported graph.
    if mask.device.type != "cpu" or makes_graph():
        return False
    return not bool((mask[:, 1:] & ~mask[:, :-1]).any())


def _over_rows(index: Tensor, tensor: Tensor) -> Tensor:
    """Expand a (B, N) index over (B, H, N, d) or (B, N, D)."""
    index = index.unsqueeze(-1)
    return (index.unsqueeze(1) if tensor.dim() == 4 else index).expand_as(tensor)


def band_and_features(
    band: Columns, weights: Tensor, query_features: Tensor, key_features: Tensor, value: Tensor, floor: float
) -> Tensor:
    """Mean of the values by ``weights`` (B, H, n, C, K) inside the band and by φ(q)·φ(k) ≥ 0 outside, (B, H, N, d).

    Weights outside the band and the key features (B, H, N, r) and values of pads must be 0. The features' share of the
    band is subtracted from that of all tokens, in O(N (K + d) r); ``floor`` is the least sum of a row's weights.
    """
    length, size = query_features.shape[-2], weights.shape[-2]
    sides = (weights.shape[-1] // size - 1) // 2
    near_keys = with_neighbours(to_blocks(key_features, size), sides, sides)
    near = (to_blocks(query_features, size) @ near_keys.mT).masked_fill(~band.allowed, 0)
    context = from_blocks((weights - near) @ band.value, length) + query_features @ (key_features.mT @ value)
    inside, counted = (from_blocks(tensor.sum(-1, keepdim=True), length) for tensor in (weights, near))
    outside = (query_features @ key_features.sum(-2).unsqueeze(-1) - counted).clamp(min=0)  # but for rounding
    return context / (inside + outside).clamp(min=floor)


def near_tokens(mask: Tensor | None, length: int, radius: int, device: torch.device | None = None) -> Tensor:
    """Return which real tokens are within a band, by :func:`token_positions`; (B or 1, 1, N, N)."""
    positions = token_positions(mask, length, device).unsqueeze(1)
    near = (positions.unsqueeze(-1) - positions.unsqueeze(-2)).abs() <= radius
    return near if mask is None else near & mask[:, None, None, :]
