"""Exact softmax attention without its N x N map: chunk by chunk, with a running maximum and sum."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .ops.causal import KeysAndValues, extend
from .ops.masking import blank_pads
from .options import LARGEST
from .softmax import SoftmaxAttention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class MemoryEfficientAttention(SoftmaxAttention):
    """Softmax attention in O(N chunk) memory, training included; 4N²d operations per head, without dropout.

    https://arxiv.org/abs/2112.05682: what PyTorch's fused kernels do inside, written out.
    """

    is_softmax = True
    takes_single_queries = False
    options = {"chunk": 128}  # noqa: RUF012
    limits = {"chunk": (1, LARGEST)}  # noqa: RUF012
    small_options = {"chunk": 16}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.chunk = (config.attention_options or {})["chunk"]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return chunked_attention(query, key, value, mask, self.chunk, self.chunk)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        kept = extend(state, key, value)
        return chunked_causal_attention(query, kept.key, kept.value, self.chunk, self.chunk), kept


def chunked_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, query_chunk: int, key_chunk: int
) -> Tensor:
    """Softmax attention (B, H, N, d) that holds one chunk of queries against one of keys at a time.

    The backward pass computes each chunk of queries again instead of keeping its weights.
    """
    query, key, value = (blank_pads(tensor, mask) for tensor in (query, key, value))
    query = query * query.shape[-1] ** -0.5
    chunks = query.split(query_chunk, dim=-2)
    return torch.cat([_attend_chunk(chunk, key, value, mask, key_chunk, False) for chunk in chunks], dim=-2)


def chunked_causal_attention(query: Tensor, key: Tensor, value: Tensor, query_chunk: int, key_chunk: int) -> Tensor:
    """Attend causally in the same way, from (B, H, N, d) queries to the (B, H, M, d) keys up to their own, the last N.

    A chunk of queries meets no chunk of keys that lies behind it.
    """
    query = query * query.shape[-1] ** -0.5
    contexts, end = [], key.shape[-2] - query.shape[-2]
    for chunk in query.split(query_chunk, dim=-2):
        end += chunk.shape[-2]
        contexts.append(_attend_chunk(chunk, key[..., :end, :], value[..., :end, :], None, key_chunk, True))
    return torch.cat(contexts, dim=-2)


def _attend_chunk(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, key_chunk: int, causal: bool
) -> Tensor:
    """Attend from one chunk of queries, without keeping what the backward pass can compute again."""
    if torch.is_grad_enabled():
        return checkpoint(_attend_to_chunks, query, key, value, mask, key_chunk, causal, use_reentrant=False)
    return _attend_to_chunks(query, key, value, mask, key_chunk, causal)


def _attend_to_chunks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, key_chunk: int, causal: bool
) -> Tensor:
    """Attend from one chunk of queries to all keys, chunk by chunk; if causal, the last keys are the queries' own."""
    wide = torch.promote_types(query.dtype, torch.float32)
    smallest = torch.finfo(wide).min
    # Of the logits so far: the maximum, and relative to it the sum of exponentials and the weighted sum of values.
    maximum = query.new_full((*query.shape[:-1], 1), smallest, dtype=wide)
    total, context = torch.zeros_like(maximum), torch.zeros_like(query, dtype=wide)
    row = torch.arange(key.shape[-2] - query.shape[-2], key.shape[-2], device=query.device).unsqueeze(-1)
    for start in range(0, key.shape[-2], key_chunk):
        chunk = slice(start, start + key_chunk)
        logits = (query @ key[..., chunk, :].mT).to(wide)
        hidden = None if mask is None else ~mask[:, None, None, chunk]
        if causal:
            hidden = start + torch.arange(logits.shape[-1], device=query.device) > row
        if hidden is not None:
            logits = logits.masked_fill(hidden, smallest)
        larger = torch.maximum(maximum, logits.detach().amax(-1, keepdim=True))
        weights, rescale = (logits - larger).exp(), (maximum - larger).exp()
        if hidden is not None:
            weights = weights.masked_fill(hidden, 0)  # where a chunk has pads alone, they are the maximum
        total = total * rescale + weights.sum(-1, keepdim=True)
        context = context * rescale + weights.to(value.dtype) @ value[..., chunk, :]
        maximum = larger
    return (context / total.clamp(min=torch.finfo(wide).tiny)).to(value.dtype)
