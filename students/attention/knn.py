"""KVT: each token attends to the keys nearest to its query and to no others."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .base import HeadAttention
from .ops.masking import blank_pads, masked_softmax

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class KNNAttention(HeadAttention):
    """Softmax over the k largest logits of each row; 4N²d operations per head, and never faster than softmax.

    https://arxiv.org/abs/2106.00515, eq. 3: it leaves out noise rather than work. Equal logits at the threshold are
    all kept. ``neighbours`` 0 means a quarter of the example's tokens, at least 8.
    """

    has_attention_map = True
    has_sparse_map = True
    estimates_softmax = True
    selects_by_content = True
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

    @classmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """QKᵀ and AV: 4 N² D; choosing the neighbours is no multiplication."""
        return 4 * length**2 * config.attention_size
