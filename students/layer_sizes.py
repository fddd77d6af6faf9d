"""What the layers of a student need not share: feed-forward units, heads, features, the mechanism."""

from typing import TYPE_CHECKING

from .attention import ATTENTIONS

if TYPE_CHECKING:
    from .configuration import StudentConfig

PER_LAYER = ("attention", "num_features", "intermediate_size", "num_attention_heads")
"""Settings that may be a list with one entry per layer."""
SIZES = ("intermediate_size", "num_attention_heads")
MOST = 2**20


def one_number(value: int | list[int] | None) -> int:
    """Return a size that all layers share, or that of one layer."""
    assert isinstance(value, int), "a list: ask of_layer for the layer's own number"
    return value


def settle_sizes(config: "StudentConfig") -> None:
    """Check heads and feed-forward widths, and write what all layers share as the one number that BERT has.

    Raises:
        ValueError: a number is not positive, a list is not as long as there are layers, or heads do not divide.
    """
    for name in SIZES:
        value = getattr(config, name)
        numbers = value if isinstance(value, list) else [value]
        if isinstance(value, list) and len(value) != config.num_hidden_layers:
            raise ValueError(f"{name} {value} has {len(value)} numbers for {config.num_hidden_layers} layers")
        if not all(0 < number <= MOST for number in numbers):
            raise ValueError(f"{name} must be positive, got {value}")
        if isinstance(value, list) and len(set(value)) == 1:
            setattr(config, name, value[0])
    heads = config.num_attention_heads
    if config.head_size is not None:
        if not 0 < config.head_size <= MOST:
            raise ValueError(f"head_size must be positive, got {config.head_size}")
        if isinstance(heads, int) and heads * config.head_size == config.hidden_size:
            config.head_size = None
    elif isinstance(heads, list):
        raise ValueError(f"num_attention_heads {heads} differ from layer to layer; give head_size")
    elif config.hidden_size % heads:
        raise ValueError(f"hidden_size {config.hidden_size} is not a multiple of num_attention_heads {heads}")


def layer_problem(config: "StudentConfig", layer: int) -> str | None:
    """Return why the mechanism of one layer does not fit its sizes; None where it does."""
    name, own = config.attention_of_layer(layer), config.of_layer(layer)
    mechanism = ATTENTIONS[name]
    if own.attention_size != own.hidden_size and not mechanism.takes_any_heads:
        fitting, left = divmod(own.hidden_size, own.size_of_head)
        way_out = f"give every layer {fitting} heads" if not left else f"give a multiple of {own.size_of_head}"
        return (
            f"{name} attention mixes whole hidden states, and {own.num_attention_heads} heads of {own.size_of_head} "
            f"do not make hidden_size {own.hidden_size}; {way_out}"
        )
    return mechanism.sizes_problem(own) if name == own.attention else None
