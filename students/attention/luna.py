"""Luna: a few extra tokens pack the sequence, every token reads them, and they go on to the next layer."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import SelfAttention
from .ops.masking import blank_pads
from .ops.random_features import seeded_generator
from .ops.reference import naive_softmax_attention
from .ops.slots import SLOT_SIZE, attend_through_slots

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class LunaAttention(SelfAttention):
    """Pack with l extra tokens P, S = softmax(W_p P · k / √d), and read softmax(q (S K)ᵀ/√d) S V; 10Nld operations.

    From https://arxiv.org/abs/2106.01540. What is read are keys and values of the packed tokens S x, by the teacher's
    maps: the same as packed keys and values. The next layer's P is LayerNorm(P + S V) of this one, as published, plus
    an embedding of its own, so that a layer can also work, and be trained, alone; the normalisation has no parameters,
    for the linear map behind it has them.
    """

    complexity = "linear"
    why_not_causal = "packs the whole text into its extra tokens before any token reads them"
    uses_num_features = True
    features_per_layer = False  # a layer hands its extra tokens to the next

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        hidden_size = config.hidden_size
        self.extra_tokens = nn.Parameter(torch.empty(config.features_per_head, hidden_size))
        self.pack_query = nn.Linear(hidden_size, hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        state: Tensor | None = None,
        first_token_only: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Mix (B, N, D) hidden states; the state is what the extra tokens (B, l, D) have packed so far."""
        extra = self.extra_tokens if state is None else self.extra_tokens + state
        hidden_states = blank_pads(hidden_states, mask)
        query, key, value = self.project(hidden_states)
        slot_query = self.split_heads(self.pack_query(extra).expand(len(query), -1, -1)) * self.head_size**-0.5
        context, packed = attend_through_slots(query, slot_query, key, value, mask)
        tokens = packed.transpose(1, 2).flatten(2)
        context = context[:, :, :1] if first_token_only else context
        return context.transpose(1, 2).flatten(2), F.layer_norm(extra + tokens, tokens.shape[-1:])

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        return self.forward(hidden_states, mask)[0]

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Through the map of the tokens, which is the product of those of reading and of packing."""
        query, key, value = self.project(hidden_states)
        extra = self.split_heads(self.pack_query(self.extra_tokens).expand(len(hidden_states), -1, -1))
        identity = torch.eye(key.shape[2], dtype=key.dtype).expand(*key.shape[:2], -1, -1)
        packing = naive_softmax_attention(extra, key, identity, mask)
        key, value = blank_pads(key, mask), blank_pads(value, mask)
        return (naive_softmax_attention(query, packing @ key, packing, None) @ value).transpose(1, 2).flatten(2)

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        drawn = torch.randn(self.extra_tokens.shape, generator=generator)
        initialization.copy_(self.extra_tokens, SLOT_SIZE * drawn)

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Let the extra tokens ask as a hidden state asks in the teacher."""
        self.pack_query.load_state_dict(self.query.state_dict())
        return ["pack_query.weight", "pack_query.bias"]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Packing keys and values and reading, 10 N l D, and the linear map of the extra tokens, 2 l D²."""
        return 2 * config.num_features * config.hidden_size * (5 * length + config.hidden_size)
