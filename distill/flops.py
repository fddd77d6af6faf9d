"""How many floating point operations a forward pass costs, from the configuration alone.

One multiply-add counts 2, one example, no padding; only matrix products count, as in torch's FlopCounterMode —
which reports 0 for SDPA on CPU, so that a counted softmax model looks linear; the formulas here do not.
"""

from collections.abc import Callable
from typing import Any

from distill.errors import UserError, choices_hint


def _softmax_core(config: Any, length: int, head_size: int) -> int:
    """QKᵀ and AV: 4 N² d per head."""
    return 4 * length**2 * head_size


def _performer_core(config: Any, length: int, head_size: int) -> int:
    """Features of Q and of K, then KᵀV, then Q's features times it (FAVOR+, arXiv:2009.14794): 8 N m d per head."""
    return 8 * length * config.num_features * head_size


CORE_FLOPS: dict[str, Callable[[Any, int, int], int]] = {"softmax": _softmax_core, "performer": _performer_core}


def attention_name(config: Any) -> str:
    """Name of the attention mechanism of a configuration; models that do not say are plain softmax ones."""
    return getattr(config, "attention", None) or "softmax"


def model_flops(config: Any, length: int) -> int:
    """FLOPs of one forward pass of a BERT-shaped classifier on one example of ``length`` tokens.

    Per layer: query, key, value and output projections 8 N D², feed-forward 4 N D I, and the attention core of H
    heads; then the pooler 2 D² and the classifier 2 D C on the first token.

    Args:
        config: with ``num_hidden_layers``, ``hidden_size``, ``num_attention_heads``, ``intermediate_size``,
            ``num_labels`` and, for students, ``attention``, ``num_features`` and ``softmax_layers``.
        length: number of tokens N.

    Raises:
        UserError: the configuration names an unknown attention or is not BERT-shaped.
    """
    attention = attention_name(config)
    if attention not in CORE_FLOPS:
        raise UserError(f"no FLOP count for attention {attention!r}: {choices_hint(attention, CORE_FLOPS)}")
    try:
        layers, hidden, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
        dense = 8 * length * hidden**2 + 4 * length * hidden * config.intermediate_size
        head = 2 * hidden**2 + 2 * hidden * config.num_labels
        softmax_layers = len(getattr(config, "softmax_layers", None) or ())
        core = (layers - softmax_layers) * CORE_FLOPS[attention](config, length, hidden // heads)
        core += softmax_layers * CORE_FLOPS["softmax"](config, length, hidden // heads)
    except AttributeError as error:
        raise UserError(
            f"no FLOP count for {type(config).__name__}: {error}; only BERT-shaped models have one"
        ) from None
    return layers * dense + heads * core + head
