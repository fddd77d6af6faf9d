"""Sums of exponentials over each token and those before it, in units that no later token decides.

With a maximum over the whole text as the unit, one later key of a large logit would push the weights of all earlier
ones below the smallest number, so that their tokens got 0/0. Here a block of keys has its own maximum as a unit, and
is read by queries that see all of it: the second half of a block of tokens sees all of the first half, for blocks of
2, 4, 8, ... tokens, and all chunks that came before. That is O(N r d) in all.

Shapes: B batch, N sequence length, H heads, d head size, r features, e columns of terms, C tokens per block, n blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .banded import from_blocks, to_blocks
from .causal import CHUNK


class Scaled(NamedTuple):
    """Sums times e^unit; the unit broadcasts to the sums and carries no gradient."""

    unit: Tensor
    sums: Tensor


class Seen(NamedTuple):
    """Keys that their readers see in full, few enough for a matrix of weights."""

    unit: Tensor
    """(..., n, 1, r)."""
    weights: Tensor
    """Of each key for each feature, times e^-unit, (..., n, C, r)."""
    terms: Tensor
    """(..., n, C, e)."""

    def mix(self, features: Tensor, columns: slice = slice(None)) -> Tensor:
        """Return the terms summed up by weights and the features (..., n, C, r) of readers, (..., n, C, e)."""
        return (features @ self.weights.mT) @ self.terms[..., columns]

    def products(self, rows: Tensor, columns: slice) -> Tensor:
        """Return rows (..., n, C, x) of readers times the sums of x columns of the terms, (..., n, C, r)."""
        return (rows @ self.terms[..., columns].mT) @ self.weights

    def total(self) -> Tensor:
        """Return the sum of the last column of the terms, (..., n, 1, r)."""
        return self.terms[..., -1:].mT @ self.weights


class Pooled(NamedTuple):
    """The sums over keys, where these are many."""

    unit: Tensor
    """(..., n, 1, r)."""
    sums: Tensor
    """(..., n, r, e)."""

    def mix(self, features: Tensor, columns: slice = slice(None)) -> Tensor:
        return features @ self.sums[..., columns]

    def products(self, rows: Tensor, columns: slice) -> Tensor:
        return rows @ self.sums[..., columns].mT

    def total(self) -> Tensor:
        return self.sums[..., -1:].mT


class Readers(NamedTuple):
    """The tokens of each block of ``block`` but the first ``skip``, which see all those first ones."""

    block: int
    skip: int

    def take(self, rows: Tensor) -> Tensor:
        """Return the rows (..., N, x) of the readers, (..., n, C, x)."""
        return to_blocks(rows, self.block)[..., self.skip :, :]

    def seen(self, rows: Tensor) -> Tensor:
        """Return the rows (..., N, x) that they all see, (..., n, C, x)."""
        return to_blocks(rows, self.block)[..., : self.skip, :]

    def put(self, read: Tensor, length: int, fill: float = 0.0) -> Tensor:
        """Put what they read, (..., n, C, x), into rows (..., N, x), the others being ``fill``."""
        return from_blocks(F.pad(read, (0, 0, self.skip, 0), value=fill), length)

    def put_sums(self, read: Scaled, length: int) -> Scaled:
        """Put the sums that they read into rows; the others have read nothing."""
        return Scaled(self.put(read.unit, length, lowest(read.unit.dtype)), self.put(read.sums, length))


def lowest(dtype: torch.dtype) -> float:
    """Return the unit, or logit, of nothing: finite, so that nothing joined with nothing is not inf - inf."""
    return torch.finfo(dtype).min / 2


def join(first: Scaled, second: Scaled) -> Scaled:
    """Add two sums, in units of the larger one."""
    unit = torch.maximum(first.unit, second.unit)
    return Scaled(unit, first.sums * (first.unit - unit).exp() + second.sums * (second.unit - unit).exp())


def running_sums(terms: Scaled) -> Scaled:
    """Return at each place of the third to last dimension the sum up to it, in about 2N joins."""
    length = terms.unit.shape[-3]
    if length == 1:
        return terms
    first = Scaled(*(each[..., ::2, :, :] for each in terms))
    second = Scaled(*(F.pad(each[..., 1::2, :, :], (0, 0, 0, 0, 0, length % 2)) for each in terms))
    up_to_second = running_sums(join(first, second))
    up_to_first = join(first, one_later(up_to_second))
    pairs = (torch.stack(each, dim=-3).flatten(-4, -3) for each in zip(up_to_first, up_to_second, strict=True))
    return Scaled(*(each[..., :length, :, :] for each in pairs))


def one_later(terms: Scaled) -> Scaled:
    """Move everything one place on along the third to last dimension, behind nothing."""
    fills = (lowest(terms.unit.dtype), 0.0)
    kept = (each[..., :-1, :, :] for each in terms)
    return Scaled(*(F.pad(each, (0, 0, 0, 0, 1, 0), value=fill) for each, fill in zip(kept, fills, strict=True)))


def chunk_size(length: int) -> int:
    """Return how many tokens a chunk of N has: a power of two, 64 but for shorter texts."""
    return min(CHUNK, 1 << (length - 1).bit_length())


def halves(length: int) -> list[Readers]:
    """Return readers that, together, read for each of N tokens every earlier one once."""
    return [Readers(2 << power, 1 << power) for power in range((length - 1).bit_length())]


def weigh(logits: Tensor, terms: Tensor) -> Seen:
    """Return keys in units of the largest of each block; logits are (..., n, C, r), terms (..., n, C, e)."""
    unit = logits.detach().amax(-2, keepdim=True)
    return Seen(unit, (logits - unit).exp(), terms)


def look_back(
    logits: Tensor, terms: Tensor, state: Scaled | None
) -> tuple[list[tuple[Readers, Seen | Pooled]], Scaled]:
    """Split the keys before each token, itself aside, into blocks that each have their readers.

    Args:
        logits: log of the weights of keys for each feature, (B, H, N, r).
        terms: what is summed up by them, (B, H, N, e).
        state: the sum over all tokens before these, (B, H, r, 1) and (B, H, r, e).

    Returns:
        Pairs of readers and what they see, and the state after these tokens.
    """
    length = logits.shape[-2]
    size = chunk_size(length)
    parts: list[tuple[Readers, Seen | Pooled]] = [
        (readers, weigh(readers.seen(logits), readers.seen(terms))) for readers in halves(size)
    ]
    # A pad only counts in the last chunk, which is read by what follows: by nothing among these tokens.
    no_pads = F.pad(logits, (0, 0, 0, -length % size), value=lowest(logits.dtype))
    unit, weights, of_chunk = weigh(to_blocks(no_pads, size), to_blocks(terms, size))
    chunks = Scaled(unit.mT, weights.mT @ of_chunk)
    if state is not None:
        chunks = Scaled(*(torch.cat([one.unsqueeze(-3), each], -3) for one, each in zip(state, chunks, strict=True)))
    running = running_sums(chunks)
    before = one_later(running) if state is None else Scaled(*(each[..., :-1, :, :] for each in running))
    after = Scaled(*(each[..., -1, :, :] for each in running))
    return [*parts, (Readers(size, 0), Pooled(before.unit.mT, before.sums))], after


def causal_exponential_sums(
    query_logits: Tensor, key_logits: Tensor, terms: Tensor, state: Scaled | None
) -> tuple[Scaled, Scaled]:
    """Return Σ_j Σ_r exp(a_ir + b_jr) terms_j over each token i and those before it, and the state after them.

    The logits a of queries and b of keys are (B, H, N, r), the terms (B, H, N, e), all wide. The sums are (B, H, N, e)
    in units (B, H, N, 1) that the largest weight reaches, and that none exceeds by more than a factor r.
    """
    length = terms.shape[-2]
    own = query_logits + key_logits
    unit = own.detach().amax(-1, keepdim=True)
    rows = Scaled(unit, (own - unit).exp().sum(-1, keepdim=True) * terms)
    parts, after = look_back(key_logits, terms, state)
    for readers, keys in parts:
        logits = readers.take(query_logits) + keys.unit
        unit = logits.detach().amax(-1, keepdim=True)
        rows = join(rows, readers.put_sums(Scaled(unit, keys.mix((logits - unit).exp())), length))
    return rows, after
