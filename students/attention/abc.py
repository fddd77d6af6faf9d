"""ABC: attention with bounded memory, whose slots softmax over the tokens fills."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import HeadAttention
from .ops.masking import full_precision, widen
from .ops.random_features import seeded_generator
from .ops.reference import naive_softmax_attention
from .ops.running import Scaled
from .ops.slots import SLOT_SIZE, attend_through_running_slots, attend_through_slots

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class ABCAttention(HeadAttention):
    """softmax(q K̃ᵀ/√d) Ṽ on m slots K̃ = φᵀK, Ṽ = φᵀV with φ = softmax over the tokens of k·W; 10Nmd operations.

    From https://arxiv.org/abs/2110.02488, the learned control of section 4. The causal form is the paper's, with slots
    of the tokens so far; its running sums have units of their own where published code clamps the logits.
    """

    complexity = "linear"
    estimates_softmax = True
    uses_num_features = True
    feature_rate = 100
    takes_single_queries = True
    why_not_causal = None
    constant_state = True

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        self.slots = nn.Parameter(torch.empty(self.num_heads, self.head_size, config.features_per_head))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        return attend_through_slots(query, self.slots.mT, key, value, mask)[0]

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Each slot is softmax attention to the tokens, with a column of W as its query."""
        slot_query = (self.slots.mT * self.head_size**0.5).expand(len(query), -1, -1, -1)
        slot_key = naive_softmax_attention(slot_query, key, key, mask)
        return naive_softmax_attention(query, slot_key, naive_softmax_attention(slot_query, key, value, mask), None)

    def attend_causal(self, query: Tensor, key: Tensor, value: Tensor, state: Scaled | None) -> tuple[Tensor, Scaled]:
        with full_precision(value):
            query, slots, key, wide_value = widen(query, self.slots.mT, key, value)
            context, state = attend_through_running_slots(query, slots, key, wide_value, state)
        return context.to(value.dtype), state

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """With all slots of all tokens, each of the tokens up to its own."""
        later = torch.ones(key.shape[2], key.shape[2], dtype=torch.bool).triu(1)
        logits = (key @ self.slots).unsqueeze(-3).masked_fill(later.unsqueeze(-1), -torch.inf)
        weights = logits.softmax(-2)
        slot_key, slot_value = (torch.einsum("bhijm,bhjd->bhimd", weights, each) for each in (key, value))
        shares = (torch.einsum("bhid,bhimd->bhim", query, slot_key) / self.head_size**0.5).softmax(-1)
        return torch.einsum("bhim,bhimd->bhid", shares, slot_value)

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        # Slots that start alike stay alike.
        initialization.copy_(self.slots, torch.randn(self.slots.shape, generator=generator) / self.head_size**0.5)

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Let each slot ask what a random state would ask in the teacher: W = (W_q x + b_q)/√d, x ~ N(0, 4 I)."""
        num_slots, hidden_size = self.slots.shape[-1], self.query.in_features
        states = torch.randn(1, num_slots, hidden_size, generator=seeded_generator(self.seed, self.layer, 1))
        query = self.split_heads(F.linear(SLOT_SIZE * states, self.query.weight, self.query.bias))
        self.slots.copy_(query[0].mT / self.head_size**0.5)
        return ["slots"]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Logits of the slots, K̃, Ṽ, then qK̃ᵀ and its product with Ṽ: 10 N m D."""
        return 10 * length * config.num_features * config.attention_size

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Logits of the slots, K̃, Ṽ, then one query: 6 N m D + 4 m D."""
        return (6 * length + 4) * config.num_features * config.attention_size
