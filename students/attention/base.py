"""What every attention mechanism shares: BERT's projections, the split into heads and the contract it signs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertIntermediate

from .ops.by_length import attend_by_length, map_by_length
from .ops.masking import blank_pads
from .options import Limits, Option, resolve

if TYPE_CHECKING:
    from ..configuration import StudentConfig


class SelfAttention(nn.Module, ABC):
    """Stands in for ``BertSelfAttention``: same parameter names, same output, another way to mix the tokens.

    A mechanism that mixes heads of queries, keys and values is a :class:`HeadAttention`; any other implements ``mix``
    and, for the tests, ``naive_mix``. It states what it is in the class attributes, which decide the contract tests it
    has to pass. Shapes: B batch, N sequence length, H heads, d head size, A = H d, D hidden size, in BERT A too.

    Contract of every mechanism: tokens outside the mask change nothing about the others and get no gradient, even if
    they hold NaN; an example's result depends neither on the rest of its batch nor on the padded length; an example
    without a real token yields finite numbers; one mechanism never reads or moves the global random state but for
    dropout.
    """

    complexity: str = "quadratic"
    """Growth of the mechanism's cost with the sequence length: ``linear``, ``subquadratic`` (N√N, N log N) or
    ``quadratic``; of the default options, where an option decides it and an instance says otherwise."""
    has_attention_map: bool = False
    """Whether ``attention_map`` yields the (B, H, N, N) weights that ``attend`` applies to the values; with
    default options, where an option decides it and an instance says otherwise."""
    has_sparse_map: ClassVar[bool] = False
    """Whether the map is 0 but for a pattern of tokens, on which alone it can be compared with a teacher's."""
    has_context: ClassVar[bool] = True
    """Whether the output before W_o is a mean of values per head, as in BERT, and can be matched with a teacher's."""
    trains_layers: ClassVar[bool] = True
    """Whether a student's layers are trained, and can be matched with the teacher's."""
    has_random_features: ClassVar[bool] = False
    """Whether the option ``features`` (fixed, redrawn, learned) has an effect."""
    is_softmax: ClassVar[bool] = False
    """Whether it is softmax attention over the whole text itself."""
    estimates_softmax: ClassVar[bool] = False
    """Whether the output tends to softmax attention of the same queries, keys and values as features, slots, landmarks
    or window grow, so that short texts can be attended exactly instead (``exact_up_to``)."""
    uses_num_features: ClassVar[bool] = False
    """Whether the option ``num_features`` has an effect."""
    feature_rate: ClassVar[int] = 10
    """How many times the learning rate of BERT's weights the mechanism's own parameters bear by default: ten, because
    they start untrained; a hundred where their entries start near 1 rather than near 0.05."""
    takes_single_queries: ClassVar[bool] = False
    """Whether ``attend`` takes fewer queries than keys and gives each what it gets among all of them."""
    features_per_layer: ClassVar[bool] = True
    """Whether the layers of a student may differ in ``num_features``."""
    row_stochastic: ClassVar[bool] = True
    """Whether a token's weights sum to 1, so that constant values come out unchanged."""
    permutation_equivariant: bool = True
    """Whether reordering the tokens only reorders the outputs; False for mechanisms that know positions."""
    selects_by_content: ClassVar[bool] = False
    """Whether queries and keys decide which tokens a token sees at all; some others then have no influence on it."""
    projections: ClassVar[tuple[str, ...]] = ("query", "key", "value")
    """Which of BERT's three linear maps the mechanism has."""
    has_output_projection: ClassVar[bool] = True
    """Whether BERT's output projection W_o follows."""
    takes_any_heads: ClassVar[bool] = False
    """Whether the heads of a layer need not fill the hidden size: it then mixes nothing but what they are given."""
    why_not_causal: ClassVar[str | None] = (
        "lets every token see all others, and no form of it that looks back is written"
    )
    """Why a language model that writes from left to right cannot use it; None: ``mix_causal`` is its causal form."""
    constant_state: bool = False
    """Whether the state of the causal form is as large after any number of tokens; with default options, where an
    option decides it and an instance says otherwise."""
    continues: ClassVar[bool] = True
    """Whether the causal form of a text in parts, each with the state that the last one left, is that of the whole."""
    carries_segments: ClassVar[bool] = False
    """Whether a text longer than a window is read window by window, each with what the last one left, in its paper."""
    options: ClassVar[Mapping[str, Option]] = {}
    """The mechanism's own options with their defaults; of a tuple of names, the first is the default."""
    limits: ClassVar[Mapping[str, Limits]] = {}
    """The lowest and the highest value of the options that are numbers, where they are not 0 and ``LARGEST``."""
    small_options: ClassVar[Mapping[str, bool | int | float | str]] = {}
    """Options for sequences of a dozen tokens, at which the contract tests look: a window of 4, say."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear

    def __init__(self, config: "StudentConfig", layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.exact_up_to = 0 if self.is_softmax else config.exact_up_to
        self.causal = config.causal
        self.num_heads: int = config.num_attention_heads  # type: ignore[assignment]  # of a layer, no list
        self.head_size = config.size_of_head
        for name in self.projections:
            self.add_module(name, nn.Linear(config.hidden_size, config.attention_size))

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None = None,
        state: Any = None,
        first_token_only: bool = False,
    ) -> tuple[Tensor, Any]:
        """Mix (B, N, D) hidden states; ``mask`` is (B, N) bool, True at real tokens, or None.

        Returns the context (B, N, A), or of the first token alone (B, 1, A), before the output projection, and the
        state for the next layer: what this layer got, unless the mechanism carries one. In a causal model the state is
        this layer's own, of the tokens before these and of them too.
        """
        if self.causal:
            return self.mix_causal(hidden_states, state)
        mix = self.mix_first if first_token_only else self.mix
        return mix(hidden_states, mask), state

    @abstractmethod
    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Mix (B, N, D) hidden states; mask (B, N) bool or None; returns (B, N, A)."""

    def mix_first(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Return the first row (B, 1, A) of ``mix``, without computing the others where the mechanism can."""
        return self.mix(hidden_states, mask)[:, :1]

    @abstractmethod
    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """The same as ``mix`` by the definition, slow and obvious; for tests."""

    def mix_causal(self, hidden_states: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Mix (B, N, D) hidden states of tokens each of which sees itself and those before it.

        Args:
            state: what the call for the tokens before these returned; None: there are none.

        Returns:
            The context (B, N, A), and the state after these tokens: a tuple of tensors, batch first.
        """
        raise ValueError(f"{type(self).__name__} {self.why_not_causal}")

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        """The same as ``mix_causal`` of a whole text, by the definition, slow and obvious; for tests."""
        raise ValueError(f"{type(self).__name__} {self.why_not_causal}")

    def split_heads(self, hidden_states: Tensor) -> Tensor:
        """View (B, N, A) as (B, H, N, d)."""
        return hidden_states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def project(self, hidden_states: Tensor) -> list[Tensor]:
        """Return the heads (B, H, N, d) of every projection of (B, N, D) hidden states, queries first."""
        return [self.split_heads(getattr(self, name)(hidden_states)) for name in self.projections]

    def make_intermediate(self, config: "StudentConfig") -> nn.Module:
        """Return the first feed-forward layer behind this attention, (B, N, D) to (B, N, I); BERT's by default."""
        return BertIntermediate(config)

    @classmethod
    def works_on_heads(cls) -> bool:
        """Whether the mechanism is a :class:`HeadAttention` whose ``attend`` is all there is to ``mix``."""
        return False

    @classmethod
    def resolve_options(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, those not given at their defaults; ValueError for one that cannot be."""
        options = resolve(cls.options, cls.limits, given)
        if problem := cls.options_problem(options):
            raise ValueError(problem)
        return options

    @classmethod
    def options_problem(cls, options: Mapping[str, Any]) -> str | None:
        """Return why options do not fit each other, each of them being in its range; None where they do."""
        return None

    @classmethod
    def sizes_problem(cls, config: Any) -> str | None:
        """Return why the mechanism, with the options of ``config``, does not fit the model's sizes; or None."""
        return None

    @classmethod
    def estimates_softmax_with(cls, options: Mapping[str, Any]) -> bool:
        """Whether it ``estimates_softmax`` with these options, those not given at their defaults."""
        return cls.estimates_softmax

    @classmethod
    def why_not_exact(cls, options: Mapping[str, Any]) -> str | None:
        """Return why short texts cannot be attended exactly instead, with these options; None where they can."""
        if cls.is_softmax:
            return "is exact in texts of every length"
        if not cls.estimates_softmax:
            return "is no estimate of softmax attention by the same queries and keys"
        if not cls.estimates_softmax_with(options):
            chosen = ", ".join(f"{name} {value}" for name, value in options.items())
            return f"with {chosen} estimates something else than softmax attention"
        return None

    @classmethod
    def has_map_with(cls, options: Mapping[str, Any]) -> bool:
        """Whether there is an attention map with these options, those not given at their defaults."""
        return cls.has_attention_map

    def attention_map(self, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights (B, H, N, N) that ``attend`` gives to the values; only if ``has_attention_map``."""
        raise ValueError(f"{type(self).__name__} has no attention map; distil its output instead")

    def weights(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weights (B, H, N, N) that mix the values of (B, N, D) hidden states.

        Raises:
            ValueError: the mechanism has no such map.
        """
        if not self.has_attention_map:
            raise ValueError(f"{type(self).__name__} has no attention map to return; leave output_attentions out")
        states = blank_pads(hidden_states, mask)
        query, key = self.split_heads(self.query(states)), self.split_heads(self.key(states))
        return map_by_length(self.attention_map, self.exact_up_to, query, key, mask)

    def receptive_field(self, length: int) -> Tensor | None:
        """Which tokens' values (N, N) each of N real tokens can see, True at [to, from]; None where it sees all."""
        return None

    def feature_parameters(self) -> list[nn.Parameter]:
        """Parameters that BERT's attention does not have; they start untrained and bear a higher learning rate."""
        return [
            parameter
            for name, parameter in self.named_parameters()
            if name.partition(".")[0] not in ("query", "key", "value")
        ]

    def initialize_features(self) -> None:
        """Set the parameters and buffers of the mechanism, without touching any that a checkpoint has filled."""

    def copy_from_teacher(self, teacher: nn.Module) -> list[str]:
        """Set parameters that BERT does not have from its ``BertSelfAttention``; return their names.

        Parameters of the same name and shape are already copied when this is called.
        """
        return []

    def calibrate(self, hidden_states: Tensor, mask: Tensor | None, target_norm: float) -> None:
        """Set temperatures from the copied queries and keys of a batch; see ``students.calibrate_temperature``."""

    def redraw_features(self, redraw_index: int) -> None:
        """Replace random features by those of the given draw; nothing to do for mechanisms without any."""

    def extend_positions(self, length: int) -> None:
        """Make room for sequences of ``length`` tokens by repeating tables; for measuring speed only."""

    @classmethod
    def default_num_features(cls, head_size: int) -> int:
        """How many features, landmarks or slots a head has when ``num_features`` is not given and has an effect."""
        return 64

    @classmethod
    @abstractmethod
    def core_flops(cls, config: Any, length: int) -> int:
        """Operations of all heads of one layer on N tokens, projections aside; a multiply-add counts 2.

        Only matrix products count, as in torch's FlopCounterMode.
        """

    @classmethod
    def flops(cls, config: Any, length: int) -> int:
        """Operations of one attention block on N tokens: its projections, 2NDA each, and its core."""
        num_projections = len(cls.projections) + cls.has_output_projection
        dense = 2 * num_projections * length * config.hidden_size * config.attention_size
        return dense + cls.core_flops(config, length)

    @classmethod
    def mixes_first_alone(cls) -> bool:
        """Whether ``mix_first`` computes no query but the first token's."""
        return cls.works_on_heads() and cls.takes_single_queries

    @classmethod
    def first_flops(cls, config: Any, length: int) -> int:
        """Operations of one attention block on N tokens that returns the first one alone."""
        alone = cls.mixes_first_alone()
        num_rows = (len(cls.projections) - alone) * length + alone + cls.has_output_projection
        core = cls.first_core_flops(config, length) if alone else cls.core_flops(config, length)
        return 2 * num_rows * config.hidden_size * config.attention_size + core

    @classmethod
    def first_core_flops(cls, config: Any, length: int) -> int:
        """Operations of all heads of one layer for the first of N tokens; fewer where it ``takes_single_queries``."""
        return cls.core_flops(config, length)


class HeadAttention(SelfAttention):
    """A mechanism that mixes heads of queries, keys and values; the projections and the heads are BERT's.

    Texts of at most ``exact_up_to`` tokens get softmax attention from the same queries, keys and values.
    """

    takes_any_heads = True

    @abstractmethod
    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Mix the values: (B, H, N, d) each, mask (B, N) bool or None; returns (B, H, N, d)."""

    @abstractmethod
    def naive_attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """The same as ``attend`` by the definition, slow and obvious; for tests."""

    def mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Mix (B, N, D) hidden states with ``attend``."""
        query, key, value = self.project(hidden_states)
        context = attend_by_length(self.attend, self.exact_up_to, query, key, value, mask)
        return context.transpose(1, 2).flatten(2)

    def attend_causal(self, query: Tensor, key: Tensor, value: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Mix the values, (B, H, N, d) each, of the tokens before each query and its own; see ``mix_causal``."""
        raise ValueError(f"{type(self).__name__} {self.why_not_causal}")

    def naive_attend_causal(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The same as ``attend_causal`` of a whole text, by the definition, slow and obvious; for tests."""
        raise ValueError(f"{type(self).__name__} {self.why_not_causal}")

    def mix_causal(self, hidden_states: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Mix (B, N, D) hidden states with ``attend_causal``."""
        query, key, value = self.project(hidden_states)
        context, state = self.attend_causal(query, key, value, state)
        return context.transpose(1, 2).flatten(2), state

    def naive_mix_causal(self, hidden_states: Tensor) -> Tensor:
        """Mix (B, N, D) hidden states with ``naive_attend_causal``."""
        query, key, value = self.project(hidden_states)
        return self.naive_attend_causal(query, key, value).transpose(1, 2).flatten(2)

    def mix_first(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Mix with ``attend``, of one query where it takes one."""
        if not self.mixes_first_alone():
            return super().mix_first(hidden_states, mask)
        query = self.split_heads(self.query(hidden_states[:, :1]))
        key, value = self.split_heads(self.key(hidden_states)), self.split_heads(self.value(hidden_states))
        context = attend_by_length(self.attend, self.exact_up_to, query, key, value, mask)
        return context.transpose(1, 2).flatten(2)

    def naive_mix(self, hidden_states: Tensor, mask: Tensor | None) -> Tensor:
        """Mix (B, N, D) hidden states with ``naive_attend``."""
        query, key, value = self.project(hidden_states)
        return self.naive_attend(query, key, value, mask).transpose(1, 2).flatten(2)

    @classmethod
    def works_on_heads(cls) -> bool:
        """Whether ``attend`` is all there is to ``mix``, but for the projections."""
        return cls.mix is HeadAttention.mix
