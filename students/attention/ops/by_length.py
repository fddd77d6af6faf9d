"""Exact attention for short texts, the mechanism's estimate for long ones, by the length of each text itself.

Below about twice as many tokens as a mechanism has features, exact attention is the faster one too. What decides is
the number of a text's real tokens: neither the rest of its batch nor its padding changes what it gets.

Shapes: B batch, N keys, M queries (N, or 1 for the first token alone), H heads, d head size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .masking import makes_graph, softmax_attention, softmax_map

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def attend_by_length(
    attend: Attend, exact_up_to: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor:
    """Attend exactly in texts of at most ``exact_up_to`` real tokens, by ``attend`` in longer ones.

    Args:
        attend: the mechanism; called with the rows of the long texts alone.
        exact_up_to: in tokens; 0 leaves all texts to ``attend``.
        query: (B, H, M, d).
        key: (B, H, N, d).
        value: (B, H, N, d).
        mask: (B, N) bool, True at real tokens, or None.

    Returns:
        (B, H, M, d).
    """
    if exact_up_to == 0:
        return attend(query, key, value, mask)
    # An exported graph is for texts of any length: to ask for it here would bind the graph to one of the answers.
    if isinstance(key.shape[2], int) and key.shape[2] <= exact_up_to:
        return softmax_attention(query, key, value, mask)
    if mask is None:
        return attend(query, key, value, None)
    is_short = mask.sum(-1) <= exact_up_to
    if makes_graph():
        return _attend_in_graph(attend, is_short, query, key, value, mask)
    short, long = is_short.nonzero().squeeze(-1), (~is_short).nonzero().squeeze(-1)
    if len(long) == 0:
        return _attend_exactly(query, key, value, mask)
    if len(short) == 0:
        return attend(query, key, value, mask)
    exact = _attend_exactly(query[short], key[short], value[short], mask[short])
    estimated = attend(query[long], key[long], value[long], mask[long])
    place = torch.cat([short, long]).argsort()
    return torch.cat([exact, estimated.to(exact.dtype)])[place]


def map_by_length(
    attention_map: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    exact_up_to: int,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Return the weights (B, H, N, N) by which :func:`attend_by_length` mixes the values.

    Args:
        attention_map: the mechanism's own.
        exact_up_to, query, key, mask: as there.
    """
    weights = attention_map(query, key, mask)
    if exact_up_to == 0:
        return weights
    real = torch.ones(query.shape[0], key.shape[2], dtype=torch.bool, device=key.device) if mask is None else mask
    is_short = (real.sum(-1) <= exact_up_to)[:, None, None, None]
    return torch.where(is_short, softmax_map(query, key, mask).to(weights.dtype), weights)


def _attend_exactly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attend exactly in short texts that are padded to a long one's length; what is padding in all of them is cut."""
    width = int(mask.any(0).nonzero().amax()) + 1 if bool(mask.any()) else 1
    num_queries = query.shape[2]
    queries = query[:, :, : min(width, num_queries)]
    context = softmax_attention(queries, key[:, :, :width], value[:, :, :width], mask[:, :width])
    return torch.nn.functional.pad(context, (0, 0, 0, num_queries - context.shape[2]))


def _attend_in_graph(
    attend: Attend, is_short: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor
) -> Tensor:
    """The same in a compiled or exported graph, whose shapes may not depend on the mask: two conditions.

    A batch of one kind of texts computes that kind alone, a mixed one computes both for all and takes its own of each.
    A trace knows no conditions and always computes both.
    """

    def exactly(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, is_short: Tensor) -> Tensor:
        return softmax_attention(query, key, value, mask).contiguous()

    def estimated(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, is_short: Tensor) -> Tensor:
        return attend(query, key, value, mask).contiguous()

    def both(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, is_short: Tensor) -> Tensor:
        exact = softmax_attention(query, key, value, mask)
        return torch.where(is_short[:, None, None, None], exact, attend(query, key, value, mask)).contiguous()

    def some_long(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, is_short: Tensor) -> Tensor:
        return torch.cond(is_short.any(), both, estimated, (query, key, value, mask, is_short))

    if torch.jit.is_tracing():
        return both(query, key, value, mask, is_short)
    return torch.cond(is_short.all(), exactly, some_long, (query, key, value, mask, is_short))
