"""Take dimensions, heads and feed-forward units out of a softmax student: what is left is copied, and nothing else.

A layer that reads only what is left of its input reads what the rest would have been as a linear function of it, where
that is known: the next matrix takes the function in.

Legend: D hidden size, A width of all heads, I feed-forward units; of any of these, S how many are kept.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .modeling import StudentForSequenceClassification

LAYER, EMBEDDINGS = "bert.encoder.layer.", "bert.embeddings."
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")
EMBEDDED = re.compile(rf"^{re.escape(EMBEDDINGS)}(?:LayerNorm|\w+_embeddings)\.")


@dataclass(frozen=True)
class Sizes:
    """How wide a student is to be."""

    hidden_size: int
    num_heads: list[int]
    """Of every layer."""
    intermediate_size: list[int]
    """Of every layer."""


@dataclass(frozen=True)
class Rebuilt:
    """What all of some activations are, by a linear function of those that are kept."""

    weight: Tensor
    """(whole, S)."""
    bias: Tensor
    """(whole,)."""


@dataclass(frozen=True)
class Kept:
    """What of a student is kept, and what is known of the rest; units are ascending indices."""

    hidden: Tensor
    """Orthonormal directions of the hidden states: (S, D)."""
    pooled: Tensor
    """Outputs of the pooler, as many: (S,)."""
    heads: list[Tensor]
    """Of every layer."""
    units: list[Tensor]
    """Of every layer, of the feed-forward."""
    rebuilt: Mapping[str, Rebuilt] = field(default_factory=dict)
    """By the linear layer that reads them, under its name in the source: what all that it reads is. Where nothing
    stands, what is not kept counts as 0."""
    norms: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Gain and shift (S,) with which a LayerNorm over what is kept returns what it returned of it before, by its name.
    Where nothing stands, those of the source in each direction."""


def find_sizes(
    config: object,
    layers: Sequence[int],
    hidden_size: int | None,
    num_heads: int | list[int] | None,
    intermediate_size: int | list[int] | None,
) -> Sizes | None:
    """Return the sizes of a student of some of a model's layers; None where they are the model's own.

    Args:
        config: of the model, under BERT's names.
        layers: of the model, one for each of the student's.
        hidden_size, num_heads, intermediate_size: wanted; None: the model's.

    Raises:
        ValueError: a size is above the model's, or a list is not as long as there are layers.
    """
    found = {}
    for key, name, wanted in (
        ("hidden_size", "hidden_size", hidden_size),
        ("num_heads", "num_attention_heads", num_heads),
        ("intermediate_size", "intermediate_size", intermediate_size),
    ):
        own = getattr(config, name)
        of_source = [own[layer] for layer in layers] if isinstance(own, list) else [own] * len(layers)
        numbers = wanted if isinstance(wanted, list) else [wanted] * len(layers)
        if len(numbers) != len(layers):
            raise ValueError(f"{key} {wanted} has {len(numbers)} numbers for {len(layers)} layers")
        found[key] = [each if number is None else number for number, each in zip(numbers, of_source, strict=True)]
        for number, most in zip(found[key], of_source, strict=True):
            if not 0 < number <= most:
                whose = f"the {most} of the model that the student is made of"
                raise ValueError(f"{key} {wanted} is above {whose}; give {most} or less, or null")
        found[f"{key} of the source"] = of_source
    if all(found[key] == found[f"{key} of the source"] for key in ("hidden_size", "num_heads", "intermediate_size")):
        return None
    return Sizes(found["hidden_size"][0], found["num_heads"], found["intermediate_size"])


def first_units(sizes: Sizes, hidden_size: int) -> Kept:
    """Keep the first of everything, of states of this size: a student that is only looked at."""
    heads, units = ([torch.arange(n) for n in numbers] for numbers in (sizes.num_heads, sizes.intermediate_size))
    return Kept(torch.eye(sizes.hidden_size, hidden_size), torch.arange(sizes.hidden_size), heads, units)


@torch.no_grad()
def narrow_student(
    source: StudentForSequenceClassification, layers: Sequence[int], kept: Kept
) -> StudentForSequenceClassification:
    """Return a softmax student of some layers of ``source``, with what is kept of each.

    Heads stay as wide as they are: what a head computes is copied whole, or not at all.

    Args:
        source: with softmax attention; it stays as it is.
        layers: one for each of the student's; ``kept`` has its heads and units in this order.
    """
    config = copy.deepcopy(source.config)
    config.head_size = source.config.size_of_head
    config.hidden_size, config.num_hidden_layers = len(kept.hidden), len(layers)
    config.num_attention_heads = [len(heads) for heads in kept.heads]
    config.intermediate_size = [len(units) for units in kept.units]
    config.layer_map = list(layers)
    config = type(config)(**config.to_dict())
    with torch.random.fork_rng(devices=[]):
        student = StudentForSequenceClassification(config)
    copies = Copies({name: tensor.cpu() for name, tensor in source.state_dict().items()}, kept)
    copies.embeddings(is_narrower=config.embedding_size is not None)
    for index, layer in enumerate(layers):
        copies.layer(layer, index, source.config.size_of_head)
    copies.dense("bert.pooler.dense", kept.pooled, kept.hidden)
    copies.dense("classifier", None, kept.pooled)
    student.load_state_dict(student.state_dict() | copies.narrow)
    student.to(device=source.device)  # type: ignore[call-arg]  # transformers wraps it in an untyped descriptor
    return student.train(source.training)


class Copies:
    """The weights of a narrower student, one module after the other.

    Args:
        weights: of the source, by name.
        kept: what of it is kept.
    """

    def __init__(self, weights: Mapping[str, Tensor], kept: Kept) -> None:
        self.weights, self.kept = weights, kept
        self.narrow: dict[str, Tensor] = {}

    def dense(self, name: str, rows: Tensor | None, columns: Tensor | None, own_name: str | None = None) -> None:
        """Copy rows of a linear layer, and of its columns those kept, with what they say of the others.

        Args:
            name: of the layer in the source.
            rows: indices or directions of what it writes; None: all.
            columns: indices or directions of what it reads; None: all.
            own_name: of the layer in the student, where it is another.
        """
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        if rows is not None:
            weight, bias = (rows @ weight, rows @ bias) if rows.dim() == 2 else (weight[rows], bias[rows])
        whole = self.kept.rebuilt.get(name)
        if whole is not None:
            weight, bias = weight @ whole.weight, bias + weight @ whole.bias
        elif columns is not None:
            weight = weight @ columns.T if columns.dim() == 2 else weight[:, columns]
        self.narrow[f"{own_name or name}.weight"], self.narrow[f"{own_name or name}.bias"] = weight, bias

    def norm(self, name: str, own_name: str) -> None:
        """Copy gain and shift in every direction, or take those that are known to fit it."""
        gain, shift = (self.weights[f"{name}.{kind}"] for kind in ("weight", "bias"))
        own = self.kept.hidden.square() @ gain, self.kept.hidden @ shift
        gain, shift = self.kept.norms.get(name, own)
        self.narrow[f"{own_name}.weight"], self.narrow[f"{own_name}.bias"] = gain, shift

    def embeddings(self, is_narrower: bool) -> None:
        """Copy the embeddings; of tables that are narrower than the layers all, and less of the step between."""
        if is_narrower:
            self.dense(f"{EMBEDDINGS}to_hidden", self.kept.hidden, None)
            self.narrow |= {name: self.weights[name] for name in self.weights if EMBEDDED.search(name)}
            return
        for name in TABLES:
            self.narrow[f"{EMBEDDINGS}{name}.weight"] = self.weights[f"{EMBEDDINGS}{name}.weight"] @ self.kept.hidden.T
        self.norm(f"{EMBEDDINGS}LayerNorm", f"{EMBEDDINGS}LayerNorm")

    def layer(self, number: int, own_number: int, head_size: int) -> None:
        """Copy one layer."""
        there, here, kept = f"{LAYER}{number}.", f"{LAYER}{own_number}.", self.kept
        channels, units = channels_of(kept.heads[own_number], head_size), kept.units[own_number]
        for name, rows, columns in (
            ("attention.self.query", channels, kept.hidden),
            ("attention.self.key", channels, kept.hidden),
            ("attention.self.value", channels, kept.hidden),
            ("attention.output.dense", kept.hidden, channels),
            ("intermediate.dense", units, kept.hidden),
            ("output.dense", kept.hidden, units),
        ):
            self.dense(there + name, rows, columns, here + name)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            self.norm(there + name, here + name)


def channels_of(heads: Tensor, head_size: int) -> Tensor:
    """Return the channels of all heads, among queries, keys, values or contexts, that some heads have."""
    return (heads[:, None] * head_size + torch.arange(head_size, device=heads.device)).flatten()
