"""Fastformer: additive attention, which sums all tokens up into one query and one key."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import SelfAttention
from .ops.masking import blank_pads, full_precision, masked_softmax, widen
from .ops.random_features import seeded_generator

if TYPE_CHECKING:
    from ..configuration import StudentConfig

INITIAL_TRANSFORM = 0.1
INITIAL_QUERY = 0.1  # from 0.05 to 0.3, what comes nearest to the attention output of a real BERT


class FastformerAttention(SelfAttention):
    """W_t(k̄ ⊙ q) + q with k̄ = Σ β (k ⊙ q̄) and q̄ = Σ α q, from https://arxiv.org/abs/2108.09084; O(N D²) in all.

    α and β are softmax over the tokens of a linear function of all channels, per head. Queries are values too.
    """

    complexity = "linear"
    why_not_causal = "weighs every key by one query that sums up the whole text"
    has_context = False
    row_stochastic = False
    projections = ("query", "key")

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        hidden_size = config.hidden_size
        self.query_weight = nn.Parameter(torch.empty(self.num_heads, hidden_size))
        self.key_weight = nn.Parameter(torch.empty(self.num_heads, hidden_size))
        self.transform = nn.Parameter(torch.empty(hidden_size, hidden_size))

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        query, key = (blank_pads(project(hidden_states), mask) for project in (self.query, self.key))
        with full_precision(hidden_states):  # products of three
            query, key, transform = widen(query, key, self.transform)
            global_query = self._sum_up(query, self.query_weight, mask)
            global_key = self._sum_up(key * global_query, self.key_weight, mask)
            mixed = F.linear(global_key * query, transform) + query
        return mixed.to(hidden_states.dtype)

    def _sum_up(self, states: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Weigh the tokens of (B, N, D) by softmax, per head, and return their sum (B, 1, D)."""
        logits = F.linear(states, weight.to(states.dtype)) * self.head_size**-0.5
        weights = masked_softmax(logits, None if mask is None else mask.unsqueeze(-1), dim=1)
        heads = states.unflatten(-1, (self.num_heads, self.head_size))
        return (weights.unsqueeze(-1) * heads).sum(1, keepdim=True).flatten(2)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """One example and one head after the other, without pads."""
        mixed = torch.zeros_like(hidden_states)
        for example, states in enumerate(hidden_states):
            real = torch.ones(len(states), dtype=torch.bool) if mask is None else mask[example]
            query, key = self.query(states[real]), self.key(states[real])
            channels = [slice(head * self.head_size, (head + 1) * self.head_size) for head in range(self.num_heads)]

            def global_vector(states: Tensor, weight: Tensor, channels: list[slice] = channels) -> Tensor:
                parts = []
                for head, own in enumerate(channels):
                    share = (states @ weight[head] / self.head_size**0.5).softmax(0)
                    parts.append(share @ states[:, own])
                return torch.cat(parts)

            products = key * global_vector(query, self.query_weight)
            mixed[example][real] = (global_vector(products, self.key_weight) * query) @ self.transform.mT + query
        return mixed

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        for weight in (self.query_weight, self.key_weight):
            initialization.copy_(weight, 0.02 * torch.randn(weight.shape, generator=generator))
        initialization.copy_(self.transform, INITIAL_TRANSFORM * torch.eye(len(self.transform)))

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Start the queries, which are the values here and are not averaged, as a tenth of the teacher's values.

        The output projection knows what to do with values; with copied queries it yields many times what it should.
        """
        values = teacher.get_submodule("value").state_dict()
        self.query.load_state_dict({name: INITIAL_QUERY * tensor for name, tensor in values.items()})
        return ["query.weight", "query.bias"]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """W_t, 2 N D², and the logits of both sums, 4 N H D."""
        return 2 * length * config.hidden_size * (config.hidden_size + 2 * config.num_attention_heads)
