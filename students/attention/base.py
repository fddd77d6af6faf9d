"""What every attention mechanism shares: BERT's projections, the split into heads and the contract of `attend`."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class SelfAttention(nn.Module, ABC):
    """Stands in for ``BertSelfAttention``: same parameter names, same output, another way to mix the values.

    A mechanism derives from it, implements ``attend`` and states what it is in the class attributes, which decide the
    contract tests it has to pass. Shapes: B batch, N sequence length, H heads, d head size, D hidden size.

    Contract of every mechanism: tokens outside the mask change nothing about the others and get no gradient, even if
    they hold NaN; an example's result depends neither on the rest of its batch nor on the padded length; an example
    without a real token yields finite numbers.
    """

    complexity: ClassVar[str] = "quadratic"
    """Growth of the mechanism's cost with the sequence length: ``linear`` or ``quadratic``."""
    has_attention_map: ClassVar[bool] = False
    """Whether ``attention_map`` yields the (B, H, N, N) weights that ``attend`` applies to the values."""
    has_random_features: ClassVar[bool] = False
    """Whether the options ``num_features`` and ``features`` have an effect."""
    row_stochastic: ClassVar[bool] = True
    """Whether a token's weights sum to 1, so that constant values come out unchanged."""
    permutation_equivariant: ClassVar[bool] = True
    """Whether reordering the tokens only reorders the outputs; False for mechanisms that know positions."""

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> tuple[Tensor]:
        """Mix the values of (B, N, D) hidden states; ``mask`` is (B, N) bool, True at real tokens, or None.

        Returns a tuple with the context (B, N, D), before the output projection.
        """
        query = self.split_heads(self.query(hidden_states))
        key = self.split_heads(self.key(hidden_states))
        value = self.split_heads(self.value(hidden_states))
        context = self.attend(query, key, value, mask)
        return (context.transpose(1, 2).flatten(2),)

    def split_heads(self, hidden_states: Tensor) -> Tensor:
        """View (B, N, D) as (B, H, N, d)."""
        return hidden_states.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the values: (B, H, N, d) each, mask (B, N) bool or None; returns (B, H, N, d)."""

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights (B, H, N, N) that ``attend`` gives to the values; only if ``has_attention_map``."""
        raise ValueError(f"{type(self).__name__} has no attention map; distil its output instead")

    def feature_parameters(self) -> list[nn.Parameter]:
        """Parameters that BERT's attention does not have; they start untrained and bear a higher learning rate."""
        return []

    def initialize_features(self) -> None:
        """Set the parameters and buffers of the mechanism, without touching any that a checkpoint has filled."""

    def redraw_features(self, redraw_index: int) -> None:
        """Replace random features by those of the given draw; nothing to do for mechanisms without any."""
