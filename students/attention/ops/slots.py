"""Attention through slots: a few vectors summarise all tokens, and every token attends to them.

Shapes: B batch, N sequence length, H heads, d head size, l slots.
"""

import torch
from torch import Tensor

from .causal import with_ones
from .masking import blank_pads, full_precision, fused_attention, masked_softmax, widen
from .running import Scaled, join, look_back

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


def attend_through_running_slots(
    query: Tensor, slot_query: Tensor, key: Tensor, value: Tensor, state: Scaled | None
) -> tuple[Tensor, Scaled]:
    """Return for each token :func:`attend_through_slots` of it to slots of itself and the tokens before it.

    All in O(N l d), and wide: the slots of a token are never built. The state is the sum over the tokens so far of
    [k, v, 1] for every slot, (B, H, l, 1) and (B, H, l, 2d + 1).
    """
    length, head_size = key.shape[-2:]
    logits = key @ slot_query.mT
    parts, after = look_back(logits, with_ones(torch.cat([key, value], dim=-1)), state)
    of_key, of_value = slice(head_size), slice(head_size, -1)
    # q·K̃ and the sum of the slot's weights, of the token's own key first.
    weight = (logits - logits.detach()).exp()
    own = (query * key).sum(-1, keepdim=True)
    rows = Scaled(logits.detach(), torch.stack([own * weight, weight]))
    for readers, keys in parts:
        product = keys.products(readers.take(query), of_key)
        unit, total = (each.expand_as(product) for each in (keys.unit, keys.total()))
        rows = join(rows, readers.put_sums(Scaled(unit, torch.stack([product, total])), length))
    product, total = rows.sums
    share = (product / total * head_size**-0.5).softmax(-1) / total
    context = (share * (logits - rows.unit).exp()).sum(-1, keepdim=True) * value
    for readers, keys in parts:
        # Never above 0 but at the pads of the last block, which have no unit.
        factor = (keys.unit - readers.take(rows.unit)).clamp(max=0).exp()
        context = context + readers.put(keys.mix(readers.take(share) * factor, of_value), length)
    return context, after
