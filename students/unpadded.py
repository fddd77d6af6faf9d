"""Texts of one batch that differ in length: their padding is left out of everything but attention.

Shapes: B batch, N padded length, T real tokens of all texts together, D hidden size, A attention size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attention.base import HeadAttention
from .attention.ops.by_length import attend_by_length
from .attention.ops.masking import makes_graph
from .encoder import StudentAttention, StudentEncoder, StudentLayer, is_watched

FEWEST_PADS = 0.15
"""Where a smaller share of a batch is padding, packing takes about the time that it saves."""
HALF_PRECISION = (torch.float16, torch.bfloat16)
"""What FlashAttention reads."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a padded batch stand among the packed ones."""

    mask: Tensor
    """(B, N) bool, True at real tokens."""
    places: Tensor
    """int64 (T,): of every packed token, in the flattened batch."""
    bounds: Tensor
    """int32 (B + 1,): where each text begins, and at last where the last one ends."""
    longest: int
    """Tokens of the longest text."""

    @classmethod
    def of(cls, mask: Tensor) -> "Layout":
        """Return the layout of a (B, N) mask, bool."""
        lengths = mask.sum(-1)
        bounds = nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
        return cls(mask, mask.flatten().nonzero().squeeze(-1), bounds, int(lengths.max()))

    def pack(self, padded: Tensor) -> Tensor:
        """Return the real tokens (T, D) of (B, N, D)."""
        return padded.flatten(0, 1)[self.places]

    def pad(self, packed: Tensor) -> Tensor:
        """Return (B, N, D) with the tokens (T, D) in their places and zeros elsewhere."""
        padded = packed.new_zeros(self.mask.numel(), packed.shape[-1])
        return padded.index_copy_(0, self.places, packed).unflatten(0, self.mask.shape)

    def first_tokens(self, packed: Tensor) -> Tensor:
        """Return the first token (B, D) of every text."""
        return packed[self.bounds[:-1].long()]


def saves_time(encoder: StudentEncoder, mask: Tensor) -> bool:
    """Tell whether to encode a batch by :func:`encode_without_pads`: many pads, no gradients, and nobody looks on.

    On a GPU looking into the mask would make it wait. Every text has to begin in the first column, where a classifier
    reads it.
    """
    if mask.device.type != "cpu" or torch.is_grad_enabled() or makes_graph():
        return False
    if float(mask.float().mean()) > 1 - FEWEST_PADS or not bool(mask[:, 0].all()):
        return False
    return not is_watched(encoder)


def encode_without_pads(encoder: StudentEncoder, hidden_states: Tensor, mask: Tensor) -> Tensor:
    """Return the first token (B, 1, D) of every text after all layers.

    Projections, feed-forward layers and normalisation read packed tokens, attention padded heads. On a GPU in half
    precision softmax attention reads packed tokens too (FlashAttention); students do not come here on a GPU yet, see
    :func:`saves_time`, and `pipelines/bench_gpu.py` compares both ways.

    Args:
        encoder: the student's, in eval mode.
        hidden_states: (B, N, D), of the embeddings.
        mask: (B, N) bool, True at real tokens and everywhere in the first column.
    """
    layout = Layout.of(mask)
    states = layout.pack(hidden_states)
    carried = None
    for layer in encoder.layer:
        assert isinstance(layer, StudentLayer)
        states, carried = run_layer(layer, states, layout, carried, layer is encoder.layer[-1])
    return states[:, None]


def run_layer(
    layer: StudentLayer, states: Tensor, layout: Layout, carried: Tensor | None, first_token_only: bool
) -> tuple[Tensor, Tensor | None]:
    """Return what a layer makes of packed states (T, D), or of the first token of each text (B, D), and its state."""
    context, carried = attend(layer.attention, states, layout, carried, first_token_only)
    residual = layout.first_tokens(states) if first_token_only else states
    attended = layer.attention.output(context, residual)[None]  # as one text: all layers look for three dimensions
    return layer.feed_forward(attended)[0], carried


def attend(
    attention: StudentAttention, states: Tensor, layout: Layout, carried: Tensor | None, first_token_only: bool
) -> tuple[Tensor, Tensor | None]:
    """Return the context (T, A) of packed states, or (B, A) of the first tokens, and the mechanism's state."""
    mechanism: Any = attention.self
    if not (isinstance(mechanism, HeadAttention) and mechanism.works_on_heads()):
        padded, carried = mechanism(layout.pad(states), layout.mask, carried, first_token_only)
        return (padded[:, 0] if first_token_only else layout.pack(padded)), carried
    alone = first_token_only and mechanism.mixes_first_alone()
    queries = mechanism.query(layout.first_tokens(states) if alone else states)
    keys, values = mechanism.key(states), mechanism.value(states)
    exact = mechanism.is_softmax or layout.longest <= mechanism.exact_up_to
    if exact and not alone and states.is_cuda and states.dtype in HALF_PRECISION:
        context = attend_packed(queries, keys, values, layout, mechanism.num_heads)
        return (layout.first_tokens(context) if first_token_only else context), carried
    query = mechanism.split_heads(queries[:, None] if alone else layout.pad(queries))
    key, value = mechanism.split_heads(layout.pad(keys)), mechanism.split_heads(layout.pad(values))
    context = attend_by_length(mechanism.attend, mechanism.exact_up_to, query, key, value, layout.mask)
    context = context.transpose(1, 2).flatten(2)
    return (context[:, 0] if first_token_only else layout.pack(context)), carried


def attend_packed(query: Tensor, key: Tensor, value: Tensor, layout: Layout, num_heads: int) -> Tensor:
    """Return softmax attention (T, A) within each text, of packed queries, keys and values (T, A), on a GPU."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor.unflatten(-1, (num_heads, -1)) for tensor in (query, key, value))
    context = varlen_attn(query, key, value, layout.bounds, layout.bounds, layout.longest, layout.longest)
    assert isinstance(context, Tensor)
    return context.flatten(1)
