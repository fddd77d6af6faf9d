"""Attention mechanisms, by the name that a configuration selects them with."""

from .base import SelfAttention
from .longformer import LongformerAttention
from .performer import PerformerAttention
from .softmax import SoftmaxAttention

ATTENTIONS: dict[str, type[SelfAttention]] = {
    "longformer": LongformerAttention,  # sliding window and global tokens: https://arxiv.org/abs/2004.05150
    "performer": PerformerAttention,  # FAVOR+ random features, linear in length: https://arxiv.org/abs/2009.14794
    "softmax": SoftmaxAttention,  # BERT's own, quadratic: the control
}
