"""Luna: a few extra tokens pack the sequence, every token reads them, and they go on to the next layer."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization

from .base import SelfAttention
from .masking import blank_pads
from .naive import naive_softmax_attention
from .random_features import seeded_generator
from .softmax import softmax_attention

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class LunaAttention(SelfAttention):
    """Pack Y = Attn(P, k, v) with l extra tokens P, then read Attn(q, W_c Y, Y); 8Nld operations per head.

    From https://arxiv.org/abs/2106.01540. The next layer's P is LayerNorm(P + Y) of this one, as published, plus an
    embedding of its own, so that a layer can also work, and be trained, alone; the normalisation has no parameters,
    for the linear map behind it has them. What the tokens read are the packed values; their keys are a linear function
    W_c of these.
    """

    complexity = "linear"

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.seed = config.projection_seed
        hidden_size = config.hidden_size
        self.extra_tokens = nn.Parameter(torch.empty(int(config.num_features or 0), hidden_size))
        self.pack_query = nn.Linear(hidden_size, hidden_size)
        self.read_key = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Mix (B, N, D) hidden states; the state is what the extra tokens (B, l, D) have packed so far."""
        extra = self.extra_tokens if state is None else self.extra_tokens + state
        hidden_states = blank_pads(hidden_states, mask)
        query, key, value = (self.split_heads(getattr(self, name)(hidden_states)) for name in self.projections)
        pack_query = self.split_heads(self.pack_query(extra).expand(len(hidden_states), -1, -1))
        packed = softmax_attention(pack_query, key, value, mask)
        tokens = packed.transpose(1, 2).flatten(2)
        context = softmax_attention(query, self.split_heads(self.read_key(tokens)), packed, None)
        return context.transpose(1, 2).flatten(2), F.layer_norm(extra + tokens, tokens.shape[-1:])

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        return self.forward(hidden_states, mask)[0]

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Through the map of the tokens, which is the product of those of reading and of packing."""
        query, key, value = (self.split_heads(getattr(self, name)(hidden_states)) for name in self.projections)
        extra = self.split_heads(self.pack_query(self.extra_tokens).expand(len(hidden_states), -1, -1))
        identity = torch.eye(key.shape[2], dtype=key.dtype).expand(*key.shape[:2], -1, -1)
        packing = naive_softmax_attention(extra, key, identity, mask)
        if mask is not None:
            value = value.masked_fill(~mask[:, None, :, None], 0)
        packed_key = self.split_heads(self.read_key((packing @ value).transpose(1, 2).flatten(2)))
        return (naive_softmax_attention(query, packed_key, packing, None) @ value).transpose(1, 2).flatten(2)

    def initialize_features(self) -> None:
        generator = seeded_generator(self.seed, self.layer, 0)
        # As large as normalised hidden states.
        initialization.copy_(self.extra_tokens, torch.randn(self.extra_tokens.shape, generator=generator))

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Let the extra tokens ask like the teacher's, and find W_c with W_c v = k for the v and k of every token.

        v = W_v x + b_v and k = W_k x + b_k give W_c = W_k W_v⁻¹ and its bias b_k - W_c b_v. Packed values are means of
        values, so that their keys are the same means of keys.
        """
        self.pack_query.load_state_dict(self.query.state_dict())
        inverse = torch.linalg.pinv(self.value.weight.double(), rtol=1e-3)
        self.read_key.weight.copy_(self.key.weight.double() @ inverse)
        self.read_key.bias.copy_(self.key.bias - self.read_key.weight @ self.value.bias)
        return ["pack_query.weight", "pack_query.bias", "read_key.weight", "read_key.bias"]

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Packing and reading, 8 N l D, and the two linear maps of the extra tokens, 4 l D²."""
        return 4 * config.num_features * config.hidden_size * (2 * length + config.hidden_size)
