"""Scaling Transformers: softmax attention whose projections have a fraction of the parameters."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .ops.causal import KeysAndValues
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .ops.reference import naive_causal_attention, naive_softmax_attention
from .ops.sparse_feed_forward import SparseIntermediate, controller_rank
from .options import LARGEST
from .softmax import SoftmaxAttention

if TYPE_CHECKING:
    from ..configuration import StudentConfig

KERNEL_SIZE = 3


class MultiplicativeDense(nn.Module):
    """y_(s,m) = Σ_i x_i D_is E_im for S modules of M = D/S channels, then a convolution over tokens and modules.

    DS + D²/S parameters instead of D², and 9M² of the convolution, whose channels are those of a module; from section
    3.2 of https://arxiv.org/abs/2111.12763.
    """

    def __init__(self, hidden_size: int, num_modules: int, causal: bool = False) -> None:
        super().__init__()
        module_size = hidden_size // num_modules
        self.causal = causal
        self.modules_weight = nn.Parameter(torch.empty(hidden_size, num_modules))
        self.channels_weight = nn.Parameter(torch.empty(hidden_size, module_size))
        self.convolution = nn.Parameter(torch.empty(module_size, module_size, KERNEL_SIZE, KERNEL_SIZE))
        self.bias = nn.Parameter(torch.empty(hidden_size))

    def forward(self, hidden_states: Tensor, num_before: int = 0) -> Tensor:
        """Map (B, N, D) to (B, N, D); zeros before and after the tokens.

        If causal, the last row of the convolution is on the token itself, the others on those before it, of which the
        first ``num_before`` of the tokens are some; they get no output.
        """
        # The dense weights, in O(D²) operations: cheaper than the S products per token and input channel.
        weight = (self.modules_weight.unsqueeze(-1) * self.channels_weight.unsqueeze(1)).flatten(1).mT
        modules = F.linear(hidden_states, weight).unflatten(-1, (-1, self.channels_weight.shape[1]))
        modules, convolution = modules.permute(0, 3, 1, 2), self.convolution.to(modules.dtype)
        if self.causal:
            modules = F.pad(modules, (0, 0, KERNEL_SIZE - 1 - num_before, 0))
        padding = (0 if self.causal else KERNEL_SIZE // 2, KERNEL_SIZE // 2)
        mixed = F.conv2d(modules, convolution, padding=padding)
        return mixed.permute(0, 2, 3, 1).flatten(2) + self.bias

    def initialize(self, generator: torch.Generator) -> None:
        """Draw weights of standard deviation 0.02, as BERT's, and let the convolution do nothing."""
        for weight in (self.modules_weight, self.channels_weight):
            initialization.copy_(weight, 0.02**0.5 * torch.randn(weight.shape, generator=generator))
        initialization.copy_(self.convolution, self._identity())
        initialization.zeros_(self.bias)

    def _identity(self) -> Tensor:
        """Return the convolution that does nothing."""
        centred = nn.init.dirac_(torch.empty_like(self.convolution))
        return centred.roll(KERNEL_SIZE // 2, dims=2) if self.causal else centred

    @torch.no_grad()
    def fit(self, dense: nn.Linear) -> None:
        """Set the weights nearest to a dense layer's: per input, the best rank 1 of its (S, M) outgoing weights."""
        outgoing = dense.weight.mT.unflatten(1, (self.modules_weight.shape[1], -1))
        left, sizes, right = torch.linalg.svd(outgoing, full_matrices=False)
        root = sizes[:, :1].sqrt()
        self.modules_weight.copy_(left[:, :, 0] * root)
        self.channels_weight.copy_(right[:, 0] * root)
        self.convolution.copy_(self._identity())
        self.bias.copy_(dense.bias)


class ScalingState(NamedTuple):
    """What later tokens see."""

    key: Tensor
    """(B, H, M, d)."""
    value: Tensor
    hidden_states: Tensor
    """Of the last two tokens, which the convolutions still reach, (B, up to 2, D)."""


class ScalingAttention(SoftmaxAttention):
    """Softmax attention with multiplicative dense layers and convolutions for Q, K and V.

    It saves parameters and their memory, not operations: the matrices that it multiplies with are as large as BERT's.
    Query, key and value have layers of their own, where the paper shares one, so that each can start as the teacher's.
    ``modules`` is S, which must divide D; ``feed_forward_block``, if not 0, makes the feed-forward sparse
    (:class:`students.attention.ops.sparse_feed_forward.SparseIntermediate`). In the causal form the convolutions reach
    two tokens back instead of one back and one ahead.
    """

    takes_any_heads = False  # its modules are of the hidden size
    permutation_equivariant = False
    options = {"modules": 16, "feed_forward_block": 0}  # noqa: RUF012
    limits = {"modules": (1, LARGEST)}  # noqa: RUF012
    small_options = {"modules": 8}  # noqa: RUF012

    @classmethod
    def sizes_problem(cls, config: Any) -> str | None:
        modules, block = (config.attention_options[name] for name in ("modules", "feed_forward_block"))
        if config.hidden_size % modules:
            return f"attention option modules {modules} must divide hidden_size {config.hidden_size}"
        if block and config.intermediate_size % block:
            return (
                f"attention option feed_forward_block {block} must divide intermediate_size {config.intermediate_size}"
            )
        return None

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        num_modules = (config.attention_options or {})["modules"]
        self.seed = config.projection_seed
        for name in self.projections:
            setattr(self, name, MultiplicativeDense(config.hidden_size, num_modules, config.causal))

    def make_intermediate(self, config: "StudentConfig") -> nn.Module:
        block = (config.attention_options or {})["feed_forward_block"]
        return SparseIntermediate(config, block) if block else super().make_intermediate(config)

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        return super().mix(blank_pads(hidden_states, mask), mask)

    def mix_causal(self, hidden_states: Tensor, state: ScalingState | None = None) -> tuple[Tensor, ScalingState]:
        earlier = hidden_states[:, :0] if state is None else state.hidden_states
        tokens = torch.cat([earlier, hidden_states], dim=1)
        query, key, value = (
            self.split_heads(getattr(self, name)(tokens, earlier.shape[1])) for name in self.projections
        )
        known = None if state is None else KeysAndValues(state.key, state.value)
        context, kept = self.attend_causal(query, key, value, known)
        last = tokens[:, max(0, tokens.shape[1] - (KERNEL_SIZE - 1)) :]
        return context.transpose(1, 2).flatten(2), ScalingState(*kept, last)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = self._naive_projections(blank_pads(hidden_states, mask), KERNEL_SIZE // 2)
        return naive_softmax_attention(query, key, value, mask).transpose(1, 2).flatten(2)

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        query, key, value = self._naive_projections(hidden_states, KERNEL_SIZE - 1)
        logits = query @ key.mT / self.head_size**0.5
        return naive_causal_attention(logits, value).transpose(1, 2).flatten(2)

    def _naive_projections(self, states: Tensor, own_row: int) -> list[Tensor]:
        """By the sum over the input channels, and the convolution neighbour by neighbour, from ``own_row`` before."""
        projected = []
        for layer in (self.query, self.key, self.value):
            assert isinstance(layer, MultiplicativeDense)
            modules = torch.einsum("bni,is,im->bnsm", states, layer.modules_weight, layer.channels_weight)
            padded = F.pad(modules, (0, 0, 1, 1, own_row, KERNEL_SIZE - 1 - own_row))
            mixed = torch.zeros_like(modules)
            for token in range(KERNEL_SIZE):
                for module in range(KERNEL_SIZE):
                    shifted = padded[:, token : token + modules.shape[1], module : module + modules.shape[2]]
                    mixed = mixed + shifted @ layer.convolution[:, :, token, module].mT
            projected.append(self.split_heads(mixed.flatten(2) + layer.bias))
        return projected

    def feature_parameters(self) -> list[nn.Parameter]:
        """All but the biases: none is BERT's, and factors bear larger steps than their product."""
        return [parameter for name, parameter in self.named_parameters() if not name.endswith("bias")]

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        for name in self.projections:
            getattr(self, name).initialize(generator)

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        for name in self.projections:
            getattr(self, name).fit(getattr(teacher, name))
        return [name for name, _ in self.named_parameters()]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """QKᵀ and AV, 4 N² D, the three convolutions, 54 N M D, and the controller of a sparse feed-forward."""
        module_size = config.hidden_size // config.attention_options["modules"]
        convolutions = 6 * KERNEL_SIZE**2 * length * module_size * config.hidden_size
        return 4 * length**2 * config.hidden_size + convolutions + length * cls.controller_flops(config)

    @classmethod
    def controller_flops(cls, config: Any) -> int:
        """Operations of a sparse feed-forward's controller on one token."""
        block = config.attention_options["feed_forward_block"]
        rank = controller_rank(config.hidden_size, block) if block else 0
        return 2 * rank * (config.hidden_size + config.intermediate_size)

    @classmethod
    def first_flops(cls, config: Any, length: int) -> int:
        """One token of the last layer's feed-forward is controlled, and no other."""
        return super().first_flops(config, length) - (length - 1) * cls.controller_flops(config)
