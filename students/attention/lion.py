"""LION: bidirectional linear attention that fades with the distance, by learned decays between neighbours."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .banded import from_blocks, to_blocks
from .linear import LinearAttention
from .masking import blank_pads, full_precision, widen
from .naive import naive_feature_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig

GROUP = 16  # blocks whose states one product sums up


class LionAttention(LinearAttention):
    """Weights φ(q_i)·φ(k_j) Π λ_t, over the tokens t after the first of i and j up to the second; φ = elu + 1.

    https://arxiv.org/abs/2502.16249, normalised per row. The decay λ_t = sigmoid(w·k_t + b) depends
    on the token (``selective``, the paper's LION-S, there a map of the hidden state) or not (``fixed``, its LION-D);
    pads have λ = 1. Blocks of ``chunk_size`` tokens are computed as a matrix, and read from one state per block and
    direction what lies outside: 8Nd² + 4N chunk d operations per head.
    """

    permutation_equivariant = False
    options = {"decay": ("selective", "fixed"), "chunk_size": 64}  # noqa: RUF012
    small_options = {"chunk_size": 8}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        options = config.attention_options or {}
        self.chunk_size = options["chunk_size"]
        self.longest = config.max_position_embeddings
        selective = options["decay"] == "selective"
        self.decay_weight = nn.Parameter(torch.empty(self.num_heads, self.head_size, 1)) if selective else None
        self.decay_bias = nn.Parameter(torch.empty(self.num_heads, 1, 1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dtype, length = value.dtype, value.shape[-2]
        with full_precision(query):
            query, key, value = widen(query, blank_pads(key, mask), blank_pads(value, mask))
            query_features, key_features = self.features(query, key, mask)
            ones = value.new_ones(*value.shape[:-1], 1)  # their mean is the sum of the weights
            mixed = decayed_attention(
                query_features,
                blank_pads(key_features, mask),
                torch.cat([value, ones], dim=-1),
                self._log_decay(key, mask),
                chunk_length(self.chunk_size, length),
            )
            context = mixed[..., :-1] / mixed[..., -1:].clamp(min=self.floor)
        return context.to(dtype)

    def _log_decay(self, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return log λ of every token, (B, H, N, 1); 0 at pads."""
        logits = self.decay_bias.to(key.dtype).expand(*key.shape[:-1], 1)
        if self.decay_weight is not None:
            logits = logits + key @ self.decay_weight.to(key.dtype)
        return blank_pads(F.logsigmoid(logits), mask)

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        with full_precision(query):
            query, key = widen(query, blank_pads(key, mask))
            query_features, key_features = self.features(query, key, mask)
            weights = query_features @ blank_pads(key_features, mask).mT * fade(self._log_decay(key, mask).cumsum(-2))
            return weights / weights.sum(-1, keepdim=True).clamp(min=self.floor)

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        logits = self.decay_bias.expand(*key.shape[:-1], 1)
        if self.decay_weight is not None:
            logits = logits + (key.unsqueeze(-2) * self.decay_weight.mT.unsqueeze(1)).sum(-1)
        decays = blank_pads(logits.sigmoid(), mask)
        decays = decays if mask is None else decays.masked_fill(~mask[:, None, :, None], 1)
        tokens = torch.arange(key.shape[-2])
        first, last = torch.minimum(tokens[:, None], tokens), torch.maximum(tokens[:, None], tokens)
        between = (first.unsqueeze(-1) < tokens) & (tokens <= last.unsqueeze(-1))
        products = torch.where(between, decays.mT.unsqueeze(-2), 1).prod(-1)
        return naive_feature_attention(*self.naive_features(query, key), value, mask, products)

    def initialize_features(self) -> None:
        """Let the heads fade over 4 tokens to all positions of the model, in equal ratios."""
        super().initialize_features()
        horizons = torch.logspace(math.log10(4), math.log10(max(self.longest, 8)), self.num_heads)
        initialization.copy_(self.decay_bias, (horizons - 1).log().view(-1, 1, 1))  # λ = 1 - 1 / horizon
        if self.decay_weight is not None:
            initialization.zeros_(self.decay_weight)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """φ(Q)φ(K)ᵀ and its product with [V, 1] per block, and one state of d (d+1) per block and direction."""
        head_size = config.hidden_size // config.num_attention_heads
        chunk = chunk_length(config.attention_options["chunk_size"], length)
        operations = length * 2 * chunk * (2 * head_size + 1)
        if length > chunk:
            state = head_size * (head_size + 1)
            operations += 8 * length * state + 2 * carry_operations(math.ceil(length / chunk), state)
        return operations * config.num_attention_heads


def chunk_length(chunk_size: int, length: int) -> int:
    """Tokens per block, at least 1 and at most N."""
    return max(1, min(chunk_size, length))


def fade(elapsed: Tensor) -> Tensor:
    """Return Π λ between any two tokens, (..., N, N), from the sums (..., N, 1) of log λ up to each."""
    return (-(elapsed - elapsed.mT).abs()).exp()


def decayed_attention(
    query_features: Tensor, key_features: Tensor, value: Tensor, log_decay: Tensor, chunk: int
) -> Tensor:
    """Return Σ_j φ(q_i)·φ(k_j) Π λ v_j, not normalised, (B, H, N, d).

    Features are (B, H, N, r), the log of the decays (B, H, N, 1). No exponent is positive.
    """
    inputs = (query_features, key_features, value, log_decay)
    queries, keys, values, steps = (to_blocks(tensor, chunk) for tensor in inputs)
    elapsed = steps.cumsum(-2)
    mixed = (queries @ keys.mT * fade(elapsed)) @ values
    if queries.shape[-3] > 1:
        whole = elapsed[..., -1:, :]
        from_start, to_end = elapsed.exp(), (whole - elapsed).exp()
        earlier = carry((keys * to_end).mT @ values, whole)
        later = carry(((keys * from_start).mT @ values).flip(-3), whole.flip(-3)).flip(-3)
        mixed = mixed + torch.cat([queries * from_start, queries * to_end], dim=-1) @ torch.cat([earlier, later], -2)
    return from_blocks(mixed, query_features.shape[-2])


def carry(states: Tensor, log_decay: Tensor) -> Tensor:
    """Return for each block the sum of the earlier blocks' states (..., n, r, d), faded by the blocks in between.

    ``log_decay`` (..., n, 1, 1) is that of a whole block. Within groups of 16 blocks one small matrix product does it,
    from group to group the same again: each level reads the states once.
    """
    num_blocks = states.shape[-3]
    size = min(num_blocks, GROUP)
    padding = (0, 0, 0, 0, 0, -num_blocks % size)
    grouped = F.pad(states, padding).unflatten(-3, (-1, size))
    elapsed = F.pad(log_decay, padding).unflatten(-3, (-1, size)).flatten(-3).cumsum(-1)  # (..., groups, size)
    before = F.pad(elapsed, (1, 0))
    later = torch.ones(size + 1, size, dtype=torch.bool, device=states.device).tril(-1)
    between = before.unsqueeze(-1) - elapsed.unsqueeze(-2)
    weights = between.masked_fill(~later, -math.inf).exp()
    sums = (weights @ grouped.flatten(-2)).unflatten(-1, states.shape[-2:])  # the last one is the whole group's
    carried = sums[..., :-1, :, :]
    if carried.shape[-4] > 1:
        earlier = carry(sums[..., -1, :, :], elapsed[..., -1:].unsqueeze(-1))
        carried = carried + before[..., :-1].exp()[..., None, None] * earlier.unsqueeze(-3)
    return carried.flatten(-4, -3)[..., :num_blocks, :, :]


def carry_operations(num_blocks: int, state: int) -> int:
    """Operations of :func:`carry` on states of that many numbers."""
    operations = 0
    while num_blocks > 1:
        size = min(num_blocks, GROUP)
        num_blocks = math.ceil(num_blocks / size)
        operations += num_blocks * 2 * (size + 1) * size * state
    return operations
