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
from .running import Readers, Scaled, chunk_size, halves, join, lowest, running_sums


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
        rows: of the tokens, (B or 1, 1, N, s).
        columns: of the tokens and the w - 1 before them, (B or 1, 1, N + w - 1, s), anything where there are none.
        count: of the tokens before, (B,).
        state: of the tokens before.
    """
    length = key.shape[-2]
    width, size = columns.shape[-2] - length + 1, chunk_size(length)
    kept = None if state is None else KeysAndValues(state.key, state.value)
    before = None if state is None else ChannelSums(state.unit, state.numerator, state.denominator)
    seen, left, kept = move_window(kept, key, value, width)
    # Every token of a chunk sees all before the chunk: of these, the last w - 1 with biases ...
    chunks = Readers(size, 0)
    left_key, left_terms = late(left.key, length, lowest(key.dtype)), late(terms_of(left.value), length)
    far, after = running_channels(left_key, left_terms, before)
    far = Scaled(*(each[..., ::size, :].unsqueeze(-2).expand(*each.shape[:-2], -1, size, -1) for each in far))
    sums = chunks.put_sums(far, length)
    if width > 1:
        earlier = slice(width - 1)
        near_key = window_blocks(seen.key, length, width - 1, size, lowest(key.dtype))[..., earlier].mT
        near_terms = window_blocks(terms_of(seen.value), length, width - 1, size)[..., earlier].mT
        near_columns = window_blocks(columns, length, width - 1, size)[..., earlier]
        bias = _local(chunks.take(rows) @ near_columns, width, width - 1)
        sums = join(sums, chunks.put_sums(_biased(bias, near_key, near_terms), length))
    # ... and those of the chunk itself.
    within = _within(key, terms_of(value), rows, columns[..., width - 1 :, :], size, width)
    return join(within, sums), WindowAndChannels(*kept, *after, count + length)


def paired_channels(
    key: Tensor, value: Tensor, rows: Tensor, columns: Tensor, state: KeysAndValues | None
) -> tuple[Scaled, KeysAndValues]:
    """Return Σ e^(k_j + w_ij) terms_j up to each token, w = rows · columns of tables (N, s) and (M, s); O(N M d)."""
    length = key.shape[-2]
    earlier = columns.shape[-2] - length
    sums = _within(key, terms_of(value), rows, columns[earlier:], length)
    if state is not None:
        sums = join(sums, _biased(rows @ columns[:earlier].mT, state.key, terms_of(state.value)))
    return sums, extend(state, key, value)


def _within(key: Tensor, terms: Tensor, rows: Tensor, columns: Tensor, size: int, width: int | None = None) -> Scaled:
    """Return Σ e^(k_j + w_ij) terms_j over each token and those before it in its chunk of ``size`` tokens."""
    logits = key + (rows * columns).sum(-1, keepdim=True)
    sums = Scaled(logits.detach(), (logits - logits.detach()).exp() * terms)
    for readers in halves(size):
        bias = _local(readers.take(rows) @ readers.seen(columns).mT, width, readers.skip)
        part = _biased(bias, readers.seen(key), readers.seen(terms))
        sums = join(sums, readers.put_sums(part, key.shape[-2]))
    return sums


def _local(bias: Tensor, width: int | None, ahead: int) -> Tensor:
    """Set biases (..., C, K) to 0 from the distance w on; the first row is ``ahead`` tokens past the first column."""
    if width is None:
        return bias
    row, column = (torch.arange(count, device=bias.device) for count in bias.shape[-2:])
    return bias.masked_fill(row[:, None] + ahead - column >= width, 0)


def _biased(bias: Tensor, key: Tensor, terms: Tensor) -> Scaled:
    """Return Σ_j e^(k_j + w_ij) terms_j over all keys (..., C, d), for each row of biases (..., N, C)."""
    unit, highest = key.detach().amax(-2, keepdim=True), bias.detach().amax(-1, keepdim=True)
    return Scaled(unit + highest, (bias - highest).exp() @ ((key - unit).exp() * terms))
