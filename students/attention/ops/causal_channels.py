"""Sums over each token and those before it with a weight per channel and, in AFT, a bias per pair of tokens.

Terms are [v, 1], (2, B, H, N, d): what weights make of them are a mean's numerator and denominator, in units that no
later token decides; see ``running``. Shapes: B batch, N new tokens, M all so far, H heads, d head size, w tokens per
window, s columns of a table of positions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .causal import KeysAndValues, extend
from .causal_window import late, move_window, window_blocks
from .running import Scaled, halves, join, lowest, running_sums


class ChannelSums(NamedTuple):
    """Sums over the tokens so far, (B, H, d) each: Σ e^k v and Σ e^k, times e^-unit."""

    unit: Tensor
    numerator: Tensor
    denominator: Tensor


class WindowAndChannels(NamedTuple):
    """The last tokens, the sums over those before them, and the number of all."""

    key: Tensor
    """(B, H, w, d), fewer at the beginning."""
    value: Tensor
    unit: Tensor
    numerator: Tensor
    denominator: Tensor
    num_tokens: Tensor
    """(B,) int64."""


def terms_of(value: Tensor) -> Tensor:
    """Return [v, 1], (2, B, H, N, d)."""
    return torch.stack([value, torch.ones_like(value)])


def running_channels(key: Tensor, terms: Tensor, state: ChannelSums | None) -> tuple[Scaled, ChannelSums]:
    """Return Σ e^(k_j) terms_j up to each token, (B, H, N, d), and the state after them."""
    sums = Scaled(key.detach(), (key - key.detach()).exp() * terms)
    if state is not None:
        before = (state.unit, torch.stack([state.numerator, state.denominator]))
        sums = Scaled(*(torch.cat([one.unsqueeze(-2), each], -2) for one, each in zip(before, sums, strict=True)))
    running = running_sums(Scaled(*(each.unsqueeze(-2) for each in sums)))
    rows = Scaled(*(each.squeeze(-2)[..., -key.shape[-2] :, :] for each in running))
    return rows, ChannelSums(rows.unit[..., -1, :], *rows.sums[..., -1, :])


def windowed_channels(
    key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, count: Tensor, state: WindowAndChannels | None
) -> tuple[Scaled, WindowAndChannels]:
    """Return Σ e^(k_j + w_ij) terms_j up to each token, w being 0 for all but the last w tokens.

    Args:
        key, value: (B, H, N, d).
        rows: of the tokens, (B or 1, N, s).
        columns: of the tokens and the w - 1 before them, (B or 1, N + w - 1, s), anything where there are none.
        count: of the tokens before, (B,).
        state: of the tokens before.
    """
    length = key.shape[-2]
    width = columns.shape[-2] - length + 1
    kept = None if state is None else KeysAndValues(state.key, state.value)
    before = None if state is None else ChannelSums(state.unit, state.numerator, state.denominator)
    seen, left, kept = move_window(kept, key, value, width)
    left_key, left_terms = late(left.key, length, lowest(key.dtype)), late(terms_of(left.value), length)
    far, sums = running_channels(left_key, left_terms, before)

    keys, values = (window_blocks(each, length, width - 1, 1) for each in seen)  # (B, H, N, d, w)
    bias = (rows.unsqueeze(-2) @ columns.unfold(-2, width, 1))[:, None]  # (B or 1, 1, N, 1, w)
    place = torch.arange(length, device=key.device)[:, None] + torch.arange(1 - width, 1, device=key.device)
    logits = (keys + bias).masked_fill((place < length - seen.key.shape[-2]).unsqueeze(-2), lowest(key.dtype))
    unit = logits.detach().amax(-1)
    weights = (logits - unit.unsqueeze(-1)).exp()
    near = Scaled(unit, torch.stack([(weights * values).sum(-1), weights.sum(-1)]))
    return join(near, far), WindowAndChannels(*kept, *sums, count + length)


def paired_channels(
    key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, state: KeysAndValues | None
) -> tuple[Scaled, KeysAndValues]:
    """Return Σ e^(k_j + w_ij) terms_j up to each token, w = rows · columns of tables (N, s) and (M, s); O(N M d)."""
    length = key.shape[-2]
    earlier = columns.shape[-2] - length
    new_columns, terms = columns[earlier:], terms_of(value)
    logits = key + (rows * new_columns).sum(-1, keepdim=True)
    sums = Scaled(logits.detach(), (logits - logits.detach()).exp() * terms)
    for readers in halves(length):
        bias = readers.take(rows) @ readers.seen(new_columns).mT
        sums = join(sums, readers.put_sums(_biased(bias, readers.seen(key), readers.seen(terms)), length))
    if state is not None:
        sums = join(sums, _biased(rows @ columns[:earlier].mT, state.key, terms_of(state.value)))
    return sums, extend(state, key, value)


def _biased(bias: Tensor, key: Tensor, terms: Tensor) -> Scaled:
    """Return Σ_j e^(k_j + w_ij) terms_j over all keys (..., C, d), for each row of biases (..., N, C)."""
    unit, highest = key.detach().amax(-2, keepdim=True), bias.detach().amax(-1, keepdim=True)
    return Scaled(unit + highest, (bias - highest).exp() @ ((key - unit).exp() * terms))
