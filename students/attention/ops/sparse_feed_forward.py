"""The sparse feed-forward of Scaling Transformers: of every block of units, a token computes with one."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertIntermediate

if TYPE_CHECKING:
    from ...configuration import StudentConfig


class SparseIntermediate(BertIntermediate):
    """BERT's first feed-forward layer, of which a controller leaves one unit in every block of n, per token.

    https://arxiv.org/abs/2111.12763, section 3.1: the unit with the largest of n logits C₂C₁x of rank D/n, with the
    gradient of their softmax; without the paper's Gumbel noise, so that an output depends on its input alone. A kernel
    that reads only the chosen columns saves time when single tokens are decoded. A batch of texts needs all columns:
    here they are all computed, and the controller comes on top.
    """

    def __init__(self, config: "StudentConfig", block: int) -> None:
        super().__init__(config)
        self.block = block
        rank = controller_rank(config.hidden_size, block)
        self.reduce = nn.Linear(config.hidden_size, rank, bias=False)
        self.choose = nn.Linear(rank, self.dense.out_features)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map (B, N, D) to (B, N, I) with I/n units that are not 0."""
        return super().forward(hidden_states) * self.chosen(hidden_states)

    def chosen(self, hidden_states: Tensor) -> Tensor:
        """Return 1 at the chosen units of (B, N, D) hidden states and 0 at all others, (B, N, I)."""
        logits = self.choose(self.reduce(hidden_states)).unflatten(-1, (-1, self.block))
        soft = logits.softmax(-1)
        hard = F.one_hot(logits.argmax(-1), self.block).to(soft.dtype)
        return (hard + soft - soft.detach() if torch.is_grad_enabled() else hard).flatten(-2)

    def feature_parameters(self) -> list[nn.Parameter]:
        """The controller, which BERT does not have."""
        return [*self.reduce.parameters(), *self.choose.parameters()]


def controller_rank(hidden_size: int, block: int) -> int:
    """Return the rank of the controller's logits."""
    return max(1, hidden_size // block)
