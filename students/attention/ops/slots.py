"""Attention through slots: a few vectors summarise all tokens, and every token attends to them.

Shapes: B batch, N sequence length, H heads, d head size, l slots.
"""

from torch import Tensor

from .masking import blank_pads, full_precision, fused_attention, masked_softmax, widen

SLOT_SIZE = 2.0
"""Standard deviation of the states that slots ask for at first; of hidden states it is about 1.

Slots that pick few tokens come nearest to the attention output of a real BERT.
"""


def attend_through_slots(
    query: Tensor, slot_query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Fill slots with K̃ = S K and Ṽ = S V, S = softmax(slot queries · keys), then return softmax(q K̃ᵀ/√d) Ṽ and Ṽ.

    ``slot_query`` is (B, H, l, d), or (H, l, d) for all examples, and scaled already; the others are (B, H, N, d).
    Linear in N: 10 N l d operations per head.
    """
    with full_precision(value):
        slot_query, wide_key, wide_value = widen(slot_query, blank_pads(key, mask), blank_pads(value, mask))
        weights = masked_softmax(slot_query @ wide_key.mT, None if mask is None else mask[:, None, None, :])
        slot_key, slot_value = (weights @ wide_key).to(query.dtype), (weights @ wide_value).to(value.dtype)
    return fused_attention(query, slot_key, slot_value), slot_value
