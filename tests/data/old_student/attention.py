"""Attention mechanisms, by the name that a configuration selects them with."""

from .attention_base import SelfAttention
from .attention_performer import PerformerAttention

ATTENTIONS: dict[str, type[SelfAttention]] = {
    "performer": PerformerAttention,  # FAVOR+ random features, linear in length: https://arxiv.org/abs/2009.14794
}
