"""Whole heads, so many at a time that what is computed of them stays in the cache of a CPU.

Shapes: B batch, N sequence length, H heads, d head size, m features.
"""

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**18  # features computed at a time by each thread of a CPU: 1 MiB stays in its cache


def cut_chunks(query: Tensor, projection: Tensor) -> list[tuple[slice, slice]]:
    """Cut (B, H) into whole examples or, where one is too large, heads of one example; everything at once on a GPU."""
    batch, heads, length, _ = query.shape
    if query.device.type != "cpu":
        return [(slice(None), slice(None))]
    num_heads = max(1, CHUNK_ELEMENTS * torch.get_num_threads() // (length * projection.shape[-2]))
    if num_heads >= heads:
        step = num_heads // heads
        return [(slice(start, start + step), slice(None)) for start in range(0, batch, step)]
    return [(slice(b, b + 1), slice(h, h + num_heads)) for b in range(batch) for h in range(0, heads, num_heads)]


def flat(tensor: Tensor, chunk: tuple[slice, slice]) -> Tensor:
    """Return the chunk with batch and heads merged; of a single example without a copy."""
    tensor = tensor[chunk]
    return tensor[0] if tensor.shape[0] == 1 else tensor.flatten(0, 1)


def like(flat: Tensor, chunk: Tensor) -> Tensor:
    """Split the first dimension of ``flat`` into the batch and heads of ``chunk``."""
    return flat.unflatten(0, chunk.shape[:2])


def chunk_projection(projection: Tensor, query: Tensor, chunk: tuple[slice, slice]) -> Tensor:
    """Return the projection once per example and head of the chunk; where it is shared, without a copy."""
    examples = query[chunk].shape[0]
    per_head = projection.expand(query.shape[1], *projection.shape[-2:])[chunk[1]]
    return per_head.expand(examples, *per_head.shape).flatten(0, 1)


def store(destination: Tensor, chunk: tuple[slice, slice], left: Tensor, right: Tensor) -> None:
    """Write the batched product into its chunk; for a single example without a temporary."""
    place = destination[chunk]
    if place.shape[0] == 1:
        torch.bmm(left, right, out=place[0])
    else:
        place.copy_(like(left @ right, place))
