"""Long-short range attention of Lite Transformer: half of the channels attend, the others are convolved."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import SelfAttention
from .ops.causal import KeysAndValues, extend, looking_back
from .ops.masking import blank_pads, full_precision, fused_attention, softmax_attention, widen
from .ops.random_features import seeded_generator
from .ops.reference import naive_causal_attention, naive_softmax_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig

KERNEL_SIZES = (3, 7, 15, 31)  # by layer, as published; all further layers have the last


class LSRState(NamedTuple):
    """What later tokens see."""

    key: Tensor
    """Of the heads that attend, (B, H/2, M, d)."""
    value: Tensor
    gated: Tensor
    """Of the tokens that the kernel still reaches, what is convolved, (B, less than K, D/2)."""


class LSRAttention(SelfAttention):
    """Half of the heads attend, among half of the channels; the other half of the channels is convolved.

    From https://arxiv.org/abs/2004.11886. The convolution follows a gated linear unit; its kernels, one per head, are
    softmax over the taps, either of parameters (``light``) or of a linear function of the token (``dynamic``). With
    the output projection of the whole block, which serves both halves, a layer costs 4.5ND² + 2N²D instead of
    8ND² + 4N²D. In the causal form, the last tap of a kernel of K is on the token itself, the others before it.
    """

    has_context = False
    row_stochastic = False
    permutation_equivariant = False
    projections = ()
    why_not_causal = None
    options = {"convolution": ("light", "dynamic")}  # noqa: RUF012

    @classmethod
    def sizes_problem(cls, config: Any) -> str | None:
        heads = config.num_attention_heads
        return f"lsra splits the heads in two halves; num_attention_heads {heads} is odd" if heads % 2 else None

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        self.num_kernels = self.num_heads // 2
        self.half_size = half = config.hidden_size // 2
        self.kernel_size = KERNEL_SIZES[min(layer, len(KERNEL_SIZES) - 1)]
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Linear(half, half))
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)
        self.gated = nn.Linear(half, 2 * half)
        self.dynamic = (config.attention_options or {})["convolution"] == "dynamic"
        if self.dynamic:
            self.kernel = nn.Linear(half, self.num_kernels * self.kernel_size)
        else:
            self.taps = nn.Parameter(torch.empty(self.num_kernels, self.kernel_size))

    def split_heads(self, hidden_states: Tensor) -> Tensor:
        """View (B, N, D/2) as (B, H/2, N, d)."""
        return hidden_states.unflatten(-1, (-1, self.head_size)).transpose(1, 2)

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        attended, convolved = blank_pads(hidden_states, mask).split(self.half_size, dim=-1)
        query, key, value = (self.split_heads(project(attended)) for project in (self.query, self.key, self.value))
        context = softmax_attention(query, key, value, mask, self.dropout.p if self.training else 0.0)
        gated = blank_pads(F.glu(self.gated(convolved)), mask)
        reach = self.kernel_size // 2
        return torch.cat([context.transpose(1, 2).flatten(2), self._convolve(gated, reach, reach)], dim=-1)

    def _convolve(self, states: Tensor, before: int, after: int) -> Tensor:
        """Convolve (B, N, D/2) with the kernels, with so many zeros before the states and after them.

        Without any, the kernel of each token reaches the K - 1 states before it, and the first K - 1 tokens get none.
        """
        padded = F.pad(states, (0, 0, before, after))
        if not self.dynamic:
            kernel = self.taps.softmax(-1).repeat_interleave(self.head_size, 0).unsqueeze(1).to(states.dtype)
            return F.conv1d(padded.mT, kernel, groups=self.half_size).mT
        first = states.shape[1] - (padded.shape[1] - self.kernel_size + 1)
        logits = self.kernel(states[:, first:]).unflatten(-1, (self.num_kernels, 1, -1))
        with full_precision(states):
            logits, wide = widen(logits, padded)
            windows = wide.unfold(1, self.kernel_size, 1)
            mixed = windows.unflatten(2, (self.num_kernels, -1)) @ logits.softmax(-1).mT
        return mixed.flatten(2).to(states.dtype)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """One tap after the other, on tokens that are shifted by it."""
        attended, convolved = blank_pads(hidden_states, mask).split(self.half_size, dim=-1)
        query, key, value = (self.split_heads(project(attended)) for project in (self.query, self.key, self.value))
        context = naive_softmax_attention(query, key, value, mask).transpose(1, 2).flatten(2)
        return torch.cat([context, self._naive_convolve(convolved, mask, self.kernel_size // 2)], dim=-1)

    def mix_causal(self, hidden_states: Tensor, state: LSRState | None = None) -> tuple[Tensor, LSRState]:
        attended, convolved = hidden_states.split(self.half_size, dim=-1)
        query, key, value = (self.split_heads(project(attended)) for project in (self.query, self.key, self.value))
        gated = F.glu(self.gated(convolved))
        kept = extend(None if state is None else KeysAndValues(state.key, state.value), key, value)
        allowed = looking_back(query.shape[2], kept.key.shape[2], query.device)
        context = fused_attention(query, *kept, allowed, self.dropout.p if self.training else 0.0)
        gated = gated if state is None else torch.cat([state.gated, gated], dim=1)
        num_before = gated.shape[1] - hidden_states.shape[1]
        mixed = self._convolve(gated, self.kernel_size - 1 - num_before, 0)
        first = max(0, gated.shape[1] - (self.kernel_size - 1))
        return torch.cat([context.transpose(1, 2).flatten(2), mixed], dim=-1), LSRState(*kept, gated[:, first:])

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        attended, convolved = hidden_states.split(self.half_size, dim=-1)
        query, key, value = (self.split_heads(project(attended)) for project in (self.query, self.key, self.value))
        context = naive_causal_attention(query @ key.mT / self.head_size**0.5, value).transpose(1, 2).flatten(2)
        return torch.cat([context, self._naive_convolve(convolved, None, self.kernel_size - 1)], dim=-1)

    def _naive_convolve(self, convolved: Tensor, mask: Tensor | None, own_tap: int) -> Tensor:
        """Convolve the gated (B, N, D/2) with kernels whose tap ``own_tap`` is on the token itself."""
        candidate, gate = self.gated(convolved).chunk(2, dim=-1)
        states = blank_pads(candidate * gate.sigmoid(), mask)
        weights = self.kernel(states).unflatten(-1, (self.num_kernels, -1)) if self.dynamic else self.taps
        weights = weights.softmax(-1).expand(*states.shape[:2], -1, -1).repeat_interleave(self.head_size, 2)
        mixed = torch.zeros_like(states)
        for tap in range(self.kernel_size):
            offset = tap - own_tap
            for to in range(states.shape[1]):
                if 0 <= to + offset < states.shape[1]:
                    mixed[:, to] = mixed[:, to] + weights[:, to, :, tap] * states[:, to + offset]
        return mixed

    def initialize_features(self) -> None:
        if not self.dynamic:
            generator = seeded_generator(self.seed, self.layer, 0)
            initialization.copy_(self.taps, 0.02 * torch.randn(self.taps.shape, generator=generator))

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Take over the blocks of the teacher's matrices that lie within a half: the rest has no place here.

        The first half of the heads keeps what it read of the first half of the channels. In the other half, the
        convolved states start as the values; twice, for a gate that knows nothing is half open.
        """
        names = []
        for name in ("query", "key", "value"):
            source, target = getattr(teacher, name), getattr(self, name)
            target.weight.copy_(source.weight[: self.half_size, : self.half_size])
            target.bias.copy_(source.bias[: self.half_size])
            names += [f"{name}.weight", f"{name}.bias"]
        self.gated.weight[: self.half_size].copy_(2 * teacher.value.weight[self.half_size :, self.half_size :])  # type: ignore
        self.gated.bias[: self.half_size].copy_(2 * teacher.value.bias[self.half_size :])  # type: ignore
        return [*names, "gated.weight", "gated.bias"]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Q, K, V and gated unit, 2.5 N D²; attention of half the heads, 2 N² D; a convolution of mean size K, N K D.

        Dynamic kernels add N D (H/2) K.
        """
        half, layers = config.hidden_size // 2, config.num_hidden_layers
        sizes = [KERNEL_SIZES[min(layer, len(KERNEL_SIZES) - 1)] for layer in range(layers)]
        is_dynamic = config.attention_options["convolution"] == "dynamic"
        per_tap = half * (1 + is_dynamic * config.num_attention_heads // 2)
        return 2 * length * (5 * half**2 + per_tap * sum(sizes) // layers) + 4 * length**2 * half
