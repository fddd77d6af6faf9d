"""KVT: each token attends to the keys nearest to its query and to no others."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .base import HeadAttention
from .ops.causal import KeysAndValues, extend, looking_back
from .ops.masking import blank_pads, masked_softmax

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class KNNAttention(HeadAttention):
    """Softmax over the k largest logits of each row; 4N²d operations per head, and never faster than softmax.

    https://arxiv.org/abs/2106.00515, eq. 3: it leaves out noise rather than work. Equal logits at the threshold are
    all kept. ``neighbours`` 0 means a quarter of the example's tokens, at least 8; in the causal form, of those so
    far, the token's own among them.
    """

    has_attention_map = True
    has_sparse_map = True
    estimates_softmax = True
    selects_by_content = True
    why_not_causal = None
    options = {"neighbours": 0}  # noqa: RUF012

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__(config, layer)
        self.num_neighbours = (config.attention_options or {})["neighbours"]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (blank_pads(tensor, mask) for tensor in (query, key, value))
        return self.attention_map(query, key, mask) @ value

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        logits = query @ key.mT * self.head_size**-0.5
        if mask is not None:
            mask = mask[:, None, None, :]
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        nearest = logits >= self._threshold(logits, mask)
        return masked_softmax(logits, nearest if mask is None else nearest & mask)

    @torch.no_grad()
    def _threshold(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        """Return the k-th largest logit of each row, (B, H, N, 1); k never depends on the padded length."""
        length = logits.shape[-1]
        if self.num_neighbours or mask is None:
            count = self.num_neighbours or max(8, length // 4)
            return logits.topk(min(count, length), dim=-1).values[..., -1:]
        largest = logits.topk(min(max(8, length // 4), length), dim=-1).values
        last = (mask.sum(-1, keepdim=True) // 4).clamp(min=8, max=largest.shape[-1]) - 1
        return largest.gather(-1, last.expand(*logits.shape[:-1], 1))

    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        contexts = []
        for example in range(len(query)):
            real = torch.ones(query.shape[2], dtype=torch.bool) if mask is None else mask[example]
            logits = query[example] @ key[example][:, real].mT / self.head_size**0.5
            count = self.num_neighbours or max(8, int(real.sum()) // 4)
            num_larger = (logits.unsqueeze(-2) > logits.unsqueeze(-1)).sum(-1)
            weights = logits.masked_fill(num_larger >= count, -torch.inf).softmax(-1)
            contexts.append(weights @ value[example][:, real])
        return torch.stack(contexts)

    def attend_causal(
        self, query: Tensor, key: Tensor, value: Tensor, state: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        kept = extend(state, key, value)
        allowed = looking_back(query.shape[2], kept.key.shape[2], query.device)
        logits = query @ kept.key.mT * self.head_size**-0.5
        logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
        nearest = logits >= self._causal_threshold(logits, allowed.sum(-1, keepdim=True))
        return masked_softmax(logits, nearest & allowed) @ kept.value, kept

    @torch.no_grad()
    def _causal_threshold(self, logits: Tensor, num_seen: Tensor) -> Tensor:
        """Return the k-th largest logit of each row (B, H, N, 1), of which (N, 1) tokens are seen."""
        num_keys = logits.shape[-1]
        count = (num_seen // 4).clamp(min=8) if self.num_neighbours == 0 else self.num_neighbours
        largest = logits.topk(min(self.num_neighbours or max(8, num_keys // 4), num_keys), dim=-1).values
        last = num_seen.clamp(max=count) - 1
        return largest.gather(-1, last.expand(*logits.shape[:-1], 1))

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        contexts = []
        for end in range(1, query.shape[2] + 1):
            logits = query[:, :, end - 1 : end] @ key[:, :, :end].mT / self.head_size**0.5
            num_larger = (logits.unsqueeze(-2) > logits.unsqueeze(-1)).sum(-1)
            chosen = num_larger < (self.num_neighbours or max(8, end // 4))
            contexts.append(logits.masked_fill(~chosen, -torch.inf).softmax(-1) @ value[:, :, :end])
        return torch.cat(contexts, dim=2)

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """QKᵀ and AV: 4 N² D; choosing the neighbours is no multiplication."""
        return 4 * length**2 * config.attention_size
