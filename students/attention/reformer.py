"""Reformer: tokens are sorted by a hash of what they ask for, and attend to those sorted next to them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import initialization

from .base import SelfAttention
from .ops.banded import from_blocks, mask_or_ones, to_blocks, with_neighbours
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .options import LARGEST

if TYPE_CHECKING:
    from ..configuration import StudentConfig

SELF_LOGIT = -1e5
"""A token sees itself only where it sees no other: its own key, parallel to its query, would outweigh all."""


class ReformerState(NamedTuple):
    """All queries, which are keys too, and values so far, (B, H, M, d)."""

    query: Tensor
    value: Tensor


class ReformerAttention(SelfAttention):
    """Softmax over the tokens of the same and adjacent chunks after sorting by bucket; 4N 3c R d operations per head.

    https://arxiv.org/abs/2001.04451, §2, both ways: queries are keys, k = q/|q|; a bucket is argmax [qP; -qP], with R
    random P per head; chunks hold c tokens, of whatever bucket; the R rounds are weighted by their normalisers. The
    number of buckets is fixed, pads are sorted last and the chunks form no ring, so that padding changes nothing.

    The causal form is the paper's own: the same sorted chunks, each of which sees itself and the one before, of them
    the tokens that come no later in the text. A token gets nothing of later ones and no gradient reaches them, but
    they decide which earlier ones it finds in its chunk. So what it gets changes as the text grows, and a state cannot
    go on with the whole text's result: with one, the tokens get what they would at the end of the text so far.
    """

    takes_any_heads = True
    complexity = "linear"  # but for the sort, which multiplies nothing
    permutation_equivariant = False
    selects_by_content = True
    why_not_causal = None
    continues = False
    projections = ("query", "value")
    options = {"chunk": 64, "buckets": 16, "rounds": 2}  # noqa: RUF012
    limits = {"chunk": (1, LARGEST), "buckets": (2, 1024), "rounds": (1, 64)}  # noqa: RUF012
    small_options = {"chunk": 4, "buckets": 4}  # noqa: RUF012

    projection: Tensor

    @classmethod
    def options_problem(cls, options: Mapping[str, Any]) -> str | None:
        buckets = options["buckets"]
        return f"attention option buckets must be even, got {buckets}" if buckets % 2 else None

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.chunk, self.num_buckets, self.rounds = ((config.attention_options or {})[name] for name in self.options)
        self.seed = config.projection_seed
        # Persistent: from_pretrained leaves buffers that no checkpoint fills uninitialised.
        shape = (self.rounds, 1, self.num_heads, self.head_size, self.num_buckets // 2)
        self.register_buffer("projection", torch.empty(shape))

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        initialization.copy_(self.projection, torch.randn(self.projection.shape, generator=generator))

    @torch.no_grad()
    def buckets(self, query: Tensor, mask: Tensor | None) -> Tensor:
        """Hash (B, H, N, d) into buckets (R, B, H, N); pads get one of their own, the last."""
        rotated = query.to(self.projection.dtype) @ self.projection
        buckets = torch.cat([rotated, -rotated], dim=-1).argmax(-1)
        return buckets if mask is None else buckets.masked_fill(~mask[:, None], self.num_buckets)

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        query, value = (blank_pads(heads, mask) for heads in self.project(hidden_states))
        return self._attend_sorted(query, value, mask, causal=False).transpose(1, 2).flatten(2)

    def _attend_sorted(self, query: Tensor, value: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        length = query.shape[2]
        size = min(self.chunk, length)
        before = int(length > size)  # a single chunk has no neighbours
        after = 0 if causal else before
        order = self.buckets(query, mask).argsort(dim=-1, stable=True).unsqueeze(-1)

        def sort(tensor: Tensor) -> Tensor:
            """Sort the tokens of (B, H, N, d) and cut them into chunks, (R, B, H, n, c, d)."""
            tensor = tensor.expand(*order.shape[:-1], -1)
            return to_blocks(tensor.gather(-2, order.expand_as(tensor)), size)

        def around(chunks: Tensor) -> Tensor:
            return with_neighbours(chunks, before, after)

        key = F.normalize(query, dim=-1)
        logits = _wide(sort(query) @ around(sort(key)).mT) * self.head_size**-0.5
        row = to_blocks(order, size)
        column = around(row).mT
        logits = logits.masked_fill(row == column, SELF_LOGIT)
        real = mask_or_ones(mask, query)[:, None, :, None].expand(query.shape[0], -1, -1, -1)
        hidden = ~around(sort(real)).mT
        if causal:
            hidden = hidden | (column > row)
        logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
        weights = logits.softmax(-1).masked_fill(hidden, 0).to(value.dtype)
        context = from_blocks(weights @ around(sort(value)), length)
        normaliser = from_blocks(logits.logsumexp(-1, keepdim=True), length)
        place = order.argsort(dim=-2)
        share = normaliser.gather(-2, place).softmax(0)
        return (share * context.gather(-2, place.expand_as(context))).sum(0).to(value.dtype)

    def mix_causal(self, hidden_states: Tensor, state: ReformerState | None = None) -> tuple[Tensor, ReformerState]:
        new = self.project(hidden_states)
        if state is not None:
            new = [torch.cat(tensors, dim=2) for tensors in zip(state, new, strict=True)]
        kept = ReformerState(*new)
        context = self._attend_sorted(*kept, None, causal=True)[:, :, -hidden_states.shape[1] :]
        return context.transpose(1, 2).flatten(2), kept

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        query, value = (blank_pads(heads, mask) for heads in self.project(hidden_states))
        real = mask_or_ones(mask, query)[:, None, None]
        return self._naive_context(query, value, mask, real, sees_next=True)

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        query, value = self.project(hidden_states)
        length = query.shape[2]
        earlier = torch.ones(length, length, dtype=torch.bool).tril()
        return self._naive_context(query, value, None, earlier, sees_next=False)

    def _naive_context(
        self, query: Tensor, value: Tensor, mask: Tensor | None, allowed: Tensor, sees_next: bool
    ) -> Tensor:
        """Attend to what is ``allowed`` of a token's chunk, the one before and perhaps the next, by all N² logits."""
        length = query.shape[2]
        logits = query @ F.normalize(query, dim=-1).mT / self.head_size**0.5
        logits = logits.masked_fill(torch.eye(length, dtype=torch.bool), SELF_LOGIT)
        contexts, normalisers = [], []
        for buckets in self.buckets(query, mask):
            sort_key = buckets * length + torch.arange(length)
            rank = (sort_key.unsqueeze(-2) < sort_key.unsqueeze(-1)).sum(-1)
            chunk = rank // self.chunk
            back = chunk.unsqueeze(-1) - chunk.unsqueeze(-2)
            near = ((back >= -int(sees_next)) & (back <= 1)) & allowed
            seen = logits.masked_fill(~near, torch.finfo(logits.dtype).min)
            contexts.append(seen.softmax(-1).masked_fill(~near, 0) @ value)
            normalisers.append(seen.logsumexp(-1, keepdim=True))
        context = (torch.stack(normalisers).softmax(0) * torch.stack(contexts)).sum(0)
        return context.transpose(1, 2).flatten(2)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Per round, the hash NbD and the chunks 4N 3c D; 4N²D up to c tokens."""
        chunk, num_buckets, rounds = (config.attention_options[name] for name in cls.options)
        size = min(chunk, length)
        tokens = -(-length // size) * size
        columns = 3 * size if length > size else size
        return rounds * config.attention_size * (num_buckets * length + 4 * tokens * columns)


def _wide(tensor: Tensor) -> Tensor:
    """Return at least fp32, which fp16 logits of -1e5 need."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
