"""How many floating point operations a forward pass costs, from the configuration alone.

One multiply-add counts 2, one example, no padding; only matrix products count, as in torch's FlopCounterMode —
which reports 0 for SDPA on CPU, so that a counted softmax model looks linear; the formulas here do not.
"""

from typing import Any

from distill.utils.errors import UserError
from students.families import FAMILIES

FLOPS_LENGTH = 128
"""Tokens of the example whose operations a record states."""


def attention_name(config: Any) -> str:
    """Name of the attention mechanism of a configuration, with how long texts may be that it attends exactly.

    Of layers with a mechanism each, all their names. Models that do not say are plain softmax ones, and so are
    students all of whose layers keep softmax attention.
    """
    name = getattr(config, "attention_name", None) or getattr(config, "attention", None) or "softmax"
    kept = len(getattr(config, "softmax_layers", None) or ())
    # An LSTM on a BERT is no mechanism of the layers, and keeps its name.
    if kept and kept == config.num_hidden_layers and "softmax" in getattr(config, "attentions", ()):
        return "softmax"
    exact_up_to = getattr(config, "exact_up_to", 0)
    return f"{name}, exact up to {exact_up_to}" if exact_up_to else name


def model_flops(config: Any, length: int) -> int:
    """FLOPs of one forward pass of a BERT-shaped classifier on one example of ``length`` tokens.

    Per layer: the attention block (of a softmax one: projections 8 N D², QKᵀ and AV 4 N² D; a student's configuration
    says what its mechanism costs in ``attention_flops``) and the feed-forward 4 N D I, of a student's last layer
    for the first token alone; then the pooler 2 D² and the classifier 2 D C on the first token, or what the
    configuration says in ``head_flops``. Before them, where embeddings are of a width E of their own, 2 N E D.

    Args:
        config: with ``num_hidden_layers``, ``hidden_size``, ``intermediate_size`` (of a student one number or one for
            every layer; DistilBERT: ``hidden_dim``) and ``num_labels``.
        length: number of tokens N.

    Raises:
        UserError: the configuration is not BERT-shaped.
    """
    kind = getattr(config, "model_type", None)
    refusal = f"no FLOP count for a {kind or type(config).__name__!r}"
    try:
        layers, hidden = config.num_hidden_layers, config.hidden_size
        inner = config.hidden_dim if kind == "distilbert" else config.intermediate_size
        last = 1 if getattr(config, "reads_first_token", False) else length
        units = inner if isinstance(inner, list) else [inner] * layers
        feed_forward = 4 * hidden * (length * sum(units[:-1]) + last * units[-1])
        width: int = getattr(config, "embedding_size", None) or 0
        embeddings = 0 if kind == "electra" and width == hidden else 2 * length * width * hidden
        has_own_head = hasattr(config, "head_flops")
        head = config.head_flops(length) if has_own_head else 2 * hidden**2 + 2 * hidden * config.num_labels
        if hasattr(config, "attention_flops"):
            attention = config.attention_flops(length)
        else:
            attention = layers * (8 * length * hidden**2 + 4 * length**2 * hidden)
    except AttributeError as error:
        raise UserError(f"{refusal}: {error}; only BERT-shaped models have one") from None
    if kind is not None and kind not in FAMILIES and not hasattr(config, "attention_flops"):
        raise UserError(f"{refusal}; only BERT-shaped models have one")
    return embeddings + feed_forward + attention + head
