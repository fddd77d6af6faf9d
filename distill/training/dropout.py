"""Dropout while a stage trains: at which rate, and drawn fast enough for a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from students.families import find_family

DRAWS = 1 << 16
"""Values of a draw of 16 bits; four of them come out of one number of the generator."""


class BitwiseDropout(nn.Dropout):
    """Dropout that draws 16 bits per element on a CPU; on other devices PyTorch's own.

    PyTorch draws a number of 53 bits per element, one after the other however many threads there are, which takes a
    fifth of a training step of a small BERT. The rate is met to 2^-17, the scale is that of the rate that is drawn,
    and draws come from PyTorch's default generator, so that a checkpoint holds their state.

    Attributes:
        configured: the rate to come back to where it is not ``enabled`` and drops nothing.
    """

    def __init__(self, rate: float = 0.5, *, enabled: bool = True) -> None:
        super().__init__(rate if enabled else 0.0)
        self.configured = rate

    def forward(self, input: Tensor) -> Tensor:
        """Return ``input``, of any shape, with elements zeroed at rate ``p`` and the others scaled up."""
        kept = round((1 - self.p) * DRAWS)
        if not self.training or kept == DRAWS or kept == 0 or input.device.type != "cpu":
            return super().forward(input)
        count = input.numel()
        numbers = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        draws = numbers.view(torch.int16)[:count]
        mask = (draws < kept - DRAWS // 2).to(input.dtype).mul_(DRAWS / kept)
        return input * mask.view_as(input)


def bitwise_dropout_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute BERT's softmax attention, with ``BitwiseDropout`` on its map; without dropout and off the CPU by SDPA.

    PyTorch's SDPA has no fast path with dropout on a CPU: it draws a number of 53 bits for every pair of tokens.

    Args:
        query: (B, H, N, d), as key and value.
        attention_mask: (B, 1, 1 or N, N) bool, True where a query may look, or what is added to the scores.
        scaling: of the scores, 1 / sqrt(d).

    Returns:
        The context (B, N, H, d), and no map.
    """
    if not dropout or query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    scores = (query * scaling) @ key.mT
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = BitwiseDropout(dropout)(scores.softmax(-1))
    return (weights.to(value.dtype) @ value).transpose(1, 2).contiguous(), None


BITWISE = "sdpa_bitwise_dropout"
AttentionInterface.register(BITWISE, bitwise_dropout_attention)
AttentionMaskInterface.register(BITWISE, sdpa_mask)


def set_dropout(model: PreTrainedModel, enabled: bool) -> None:
    """Set every dropout to the rate that the model was built with, or to 0 while layer outputs are matched."""
    config = model.config
    if find_family(config) is not None and config._attn_implementation in ("sdpa", BITWISE):
        model.set_attn_implementation(BITWISE if enabled else "sdpa")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Dropout):
                rate = child.configured if isinstance(child, BitwiseDropout) else child.p
                setattr(parent, name, BitwiseDropout(rate, enabled=enabled).train(child.training))
