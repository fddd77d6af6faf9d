"""Attention mechanisms, by the name that a configuration selects them with."""

from .base import SelfAttention
from .performer import PerformerAttention
from .softmax import SoftmaxAttention

ATTENTIONS: dict[str, type[SelfAttention]] = {
    "performer": PerformerAttention,  # FAVOR+ random features, linear in length: https://arxiv.org/abs/2009.14794
    "softmax": SoftmaxAttention,  # BERT's own, quadratic: the control
}
