"""Configuration of the student: BERT's, plus what its attention mechanism needs."""

import copy
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from .attention import ATTENTIONS
from .attention.base import SelfAttention
from .attention.mixture import Mechanisms
from .layer_sizes import PER_LAYER, layer_problem, one_number, settle_sizes

FEATURES = ("fixed", "redrawn", "learned")
POOLER_ACTS = ("tanh", "gelu", "relu")
"""Of BERT and RoBERTa, of ELECTRA and of DistilBERT."""
BERT_FORM = {"position_offset": 0, "embedding_size": None, "pooler_act": "tanh", "head_size": None, "causal": False}
"""What BERT itself has of the settings by which families with its layers, and narrower students, differ; left out
where it is saved."""
MOST_FEATURES = 2**16
MOST_LAYERS = 1000
"""Above what any student has: more is a slip of the pen, which would take all memory before it failed."""


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError naming the choices and the nearest match if ``value`` is none of ``choices``."""
    if value not in choices:
        nearest = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"{name} {value!r} is unknown; choose one of {', '.join(choices)}{hint}")


@strict
class StudentConfig(BertConfig):
    """A BERT configuration whose layers use one of ``students.attention.ATTENTIONS``.

    Raises ValueError for an unknown mechanism or kind of features, for a number out of range and for a misspelt key.
    """

    model_type = "efficient_bert"
    attentions: ClassVar[Mapping[str, type[SelfAttention]]] = ATTENTIONS
    """What ``attention`` may name."""
    reads_first_token: ClassVar[bool] = True
    """Whether the classifier reads the first token alone, so that the last layer need not compute the others."""

    intermediate_size: int | list[int] = 3072  # type: ignore[assignment]  # BERT's is one number
    """Width of the feed-forward layers; a list has one for every layer (``of_layer``)."""
    num_attention_heads: int | list[int] = 12  # type: ignore[assignment]
    """Heads of every layer; a list has one number for every layer, and needs ``head_size``."""
    head_size: int | None = None
    """Width of a head; None: ``hidden_size / num_attention_heads``. Heads that were taken out of a layer leave the
    others as wide as they were, so that queries, keys and values of a layer are ``attention_size`` wide."""
    attention: str | list[str] = "performer"
    """Mechanism of every layer that ``softmax_layers`` does not name; a list has one name for every layer."""
    softmax_layers: list[int] | None = None
    """Student layers that keep softmax attention, counted from 0 or, below 0, from the end: -1 is the last."""
    num_features: int | list[int] | None = None
    """Features, landmarks or slots per head, for mechanisms that have any; None takes the mechanism's default.

    A list has one number per layer (``of_layer``). Without effect on the others, where it stays None unless a
    configuration says otherwise."""
    attention_options: dict[str, Any] | None = None
    """The mechanism's own options (its class names them); those not given are filled in with their defaults."""
    features: str = "fixed"
    """``fixed`` (drawn once), ``redrawn`` (by ``redraw_projections``) or ``learned`` (trained, one set per head)."""
    exact_up_to: int = 0
    """Texts of at most this many tokens get softmax attention from the same queries and keys, longer ones the
    mechanism's estimate of it; 0 leaves all to the mechanism, which must estimate softmax attention otherwise."""
    causal: bool = False
    """Whether every token sees itself and those before it alone, as in a language model that writes."""
    redraw_interval: int = 1000
    """Optimiser steps between two redraws, for whoever runs the training loop."""
    initial_temperature: float = 1.0
    """Start of the learned factor on q·k, per head; below 1 the map is flatter and its estimate less noisy."""
    target_norm: float = 1.6
    """Mean |q+k|²/√d that ``calibrate_temperature`` aims at; FAVOR+ has its best signal-to-noise ratio there."""
    projection_seed: int = 0
    """Seed of the random projections, with the layer's index and the number of the redraw."""
    folded_features: bool = False
    """Whether T2R's feature map is part of the query and key projections, as ``fold_features`` leaves it."""
    layer_map: list[int] | None = None
    """Teacher layer that each student layer was copied from; a record, nothing is built from it."""
    position_offset: int = 0
    """Rows of the position table before that of the first token: in RoBERTa's form the row of padding is the last of
    them, and its number is the padding token's."""
    embedding_size: int | None = None
    """Width of the embeddings, from which a linear layer leads to ``hidden_size``; None: they have that size."""
    pooler_act: str = "tanh"
    """Activation between the two linear layers of the classifier."""

    def __post_init__(self, **kwargs: Any) -> None:
        # transformers keeps unknown keywords as attributes: a misspelt option would silently have no effect.
        for key in kwargs:
            nearest = difflib.get_close_matches(key, StudentConfig.__annotations__, n=1, cutoff=0.8)
            if nearest:
                raise ValueError(f"student option {key!r} is unknown; did you mean {nearest[0]!r}?")
        super().__post_init__(**kwargs)
        self._settle_attention()
        check_choice("features", self.features, FEATURES)
        check_choice("pooler_act", self.pooler_act, POOLER_ACTS)
        if not 0 <= self.position_offset < self.max_position_embeddings:
            raise ValueError(
                f"position_offset {self.position_offset} leaves none of max_position_embeddings "
                f"{self.max_position_embeddings}"
            )
        settle_sizes(self)
        if self.is_decoder:
            raise ValueError("is_decoder is set: students are encoders, without causal masks or cross-attention")
        if self.num_features is None and isinstance(self.attention, str) and self.mechanism.uses_num_features:
            self.num_features = self.mechanism.default_num_features(self.size_of_head)
        self.attention_options = self.mechanism.resolve_options(self.attention_options or {})
        if self.exact_up_to and (problem := self.mechanism.why_not_exact(self.attention_options)):
            raise ValueError(
                f"exact_up_to {self.exact_up_to}: {self.attention_name} attention {problem}; leave it out"
            )
        if self.softmax_layers is None:
            self.softmax_layers = []
        if self.causal:
            self._check_causal()
        counts = self.num_features if isinstance(self.num_features, list) else [self.num_features]
        for name, values in (
            ("num_features", [count for count in counts if count is not None]),
            ("redraw_interval", [self.redraw_interval]),
            ("initial_temperature", [self.initial_temperature]),
            ("target_norm", [self.target_norm]),
        ):
            if not all(0 < value < math.inf for value in values):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if any(count > MOST_FEATURES for count in counts if count is not None):
            raise ValueError(f"num_features must be at most {MOST_FEATURES:,}, got {self.num_features}")
        if not 0 < self.num_hidden_layers <= MOST_LAYERS:
            raise ValueError(f"num_hidden_layers must be 1 to {MOST_LAYERS:,}, got {self.num_hidden_layers}")
        if self.exact_up_to < 0:
            raise ValueError(f"exact_up_to must not be negative, got {self.exact_up_to}")
        if isinstance(self.num_features, list):
            self._check_layer_counts(self.num_features)
        count = self.num_hidden_layers
        outside = [layer for layer in self.softmax_layers if not -count <= layer < count]
        if outside:
            raise ValueError(f"softmax_layers {outside} do not exist: layers are 0 to {count - 1}, or -1, the last")
        self.softmax_layers = sorted({layer % count for layer in self.softmax_layers})
        for layer in range(count):
            if problem := layer_problem(self, layer):
                raise ValueError(problem)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return what ``config.json`` holds: BERT's own form goes without saying."""
        saved = super().to_diff_dict()
        return {key: value for key, value in saved.items() if BERT_FORM.get(key, ...) != value}

    def _settle_attention(self) -> None:
        """Check the names of mechanisms, and write what all layers share as one name."""
        for name in [self.attention] if isinstance(self.attention, str) else self.attention:
            check_choice("attention", name, tuple(self.attentions))
        if isinstance(self.attention, list):
            if len(self.attention) != self.num_hidden_layers:
                raise ValueError(
                    f"attention {self.attention} has {len(self.attention)} names for {self.num_hidden_layers} layers"
                )
            kept = {layer % self.num_hidden_layers for layer in self.softmax_layers or []}
            names = ["softmax" if layer in kept else name for layer, name in enumerate(self.attention)]
            self.attention = names[0] if len(set(names)) == 1 else names

    def _check_causal(self) -> None:
        if self.mechanism.why_not_causal is not None:
            able = ", ".join(name for name, each in self.attentions.items() if each.why_not_causal is None)
            reason = f"attention {self.attention_name!r} {self.mechanism.why_not_causal}"
            raise ValueError(f"{reason}: it has no causal form; choose one of {able}")
        if self.exact_up_to:
            raise ValueError(
                f"exact_up_to {self.exact_up_to}: a causal model has no exact form for short texts; give 0"
            )

    def _check_layer_counts(self, counts: list[int]) -> None:
        if not self.mechanism.features_per_layer:
            raise ValueError(f"num_features {counts}: all layers of {self.attention_name} attention share one number")
        if len(counts) != self.num_hidden_layers:
            raise ValueError(f"num_features {counts} has {len(counts)} numbers for {self.num_hidden_layers} layers")

    @property
    def mechanisms(self) -> dict[str, type[SelfAttention]]:
        """Every mechanism that a layer uses, by name."""
        names = sorted({self.attention_of_layer(layer) for layer in range(self.num_hidden_layers)})
        return {name: ATTENTIONS[name] for name in names}

    @property
    def named_mechanisms(self) -> dict[str, type[SelfAttention]]:
        """Every mechanism that ``attention`` names, by name."""
        names = [self.attention] if isinstance(self.attention, str) else self.attention
        return {name: self.attentions[name] for name in names}

    @property
    def attention_name(self) -> str:
        """What the mechanism, or one for every layer, is called: ``performer``, or ``abc+performer+abc``."""
        return self.attention if isinstance(self.attention, str) else "+".join(self.attention)

    @property
    def features_per_head(self) -> int:
        """``num_features`` of a configuration whose layers all have the same, or of one layer."""
        assert isinstance(self.num_features, int)
        return self.num_features

    @property
    def uses_num_features(self) -> bool:
        """Whether ``num_features`` has an effect."""
        return self.mechanism.uses_num_features

    @property
    def mechanism(self) -> Any:
        """Class of the layers that ``softmax_layers`` does not name; of several, what stands for all of them."""
        return Mechanisms(self.attentions).of(self.attention)

    @property
    def size_of_head(self) -> int:
        """Width of every head."""
        return self.head_size or self.hidden_size // one_number(self.num_attention_heads)

    @property
    def attention_size(self) -> int:
        """Width of queries, keys and values, of a configuration whose layers are alike, or of one layer."""
        return one_number(self.num_attention_heads) * self.size_of_head

    def of_layer(self, layer: int) -> "StudentConfig":
        """The configuration that layer number ``layer`` is built from, in which lists are the layer's own number."""
        own = {name: getattr(self, name) for name in PER_LAYER if isinstance(getattr(self, name), list)}
        if not own:
            return self
        config = copy.copy(self)
        for name, values in own.items():
            setattr(config, name, values[layer])
        if "attention" in own:
            config.attention_options = self.mechanism.own_options(config.attention, self.attention_options or {})
            if self.num_features is None and config.mechanism.uses_num_features:
                config.num_features = config.mechanism.default_num_features(self.size_of_head)
        return config

    def attention_flops(self, length: int) -> int:
        """Operations of all attention blocks to classify one text of ``length`` tokens; a multiply-add counts 2."""
        *lower, last = range(self.num_hidden_layers)
        names = ["softmax" if length <= self.exact_up_to else self.attention_of_layer(i) for i in (*lower, last)]
        mechanism = ATTENTIONS[names[last]]
        of_last = mechanism.first_flops if self.reads_first_token else mechanism.flops
        below = sum(ATTENTIONS[names[layer]].flops(self.of_layer(layer), length) for layer in lower)
        return below + of_last(self.of_layer(last), length)

    def attention_of_layer(self, layer: int) -> str:
        """Name of the mechanism of one layer, counted from 0."""
        if layer in (self.softmax_layers or []):
            return "softmax"
        return self.attention if isinstance(self.attention, str) else self.attention[layer]
