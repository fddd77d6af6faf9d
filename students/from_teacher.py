"""Build a student out of a teacher with BERT's layers: copy what fits by name, and say what is new."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM, PreTrainedModel

from .attention.base import SelfAttention
from .families import FAMILIES, bert_settings, encoder_layers, layer_part, own_name, why_not
from .frozen_lstm import FrozenLSTMForSequenceClassification
from .language_models import StudentForCausalLM, StudentForMaskedLM
from .layer_map import resolve_layer_map
from .layer_sizes import SIZES
from .modeling import StudentForSequenceClassification, StudentPreTrainedModel

NOT_INHERITED = (
    "model_type",
    "architectures",
    "auto_map",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "_name_or_path",
    "custom_pipelines",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
)
"""Keys of a configuration that describe a checkpoint, or how somebody calls it, rather than an architecture."""

POSITIONS = "bert.embeddings.position_embeddings.weight"
TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"
PROJECTION = "bert.embeddings.to_hidden.weight"
PROJECTIONS = ("query", "key", "value")


@dataclass(frozen=True)
class CopyReport:
    """Names of the student's parameters and buffers, by where their values come from."""

    copied: tuple[str, ...]
    """Copied from the teacher."""
    derived: tuple[str, ...]
    """The mechanism's own, computed from the teacher's."""
    new: tuple[str, ...]
    """Freshly initialised: the mechanism's own, and a head that the teacher lacks."""

    def in_words(self) -> str:
        """Return how many tensors came from where, and what those not copied are called."""
        parts = [f"{len(self.copied)} tensors copied"]
        for kind, names in (("derived", self.derived), ("new", self.new)):
            if names or kind == "new":
                what = ", ".join(sorted({name.partition(".self.")[2] or name for name in names})) or "none"
                parts.append(f"{len(names)} {kind} ({what})")
        return ", ".join(parts)


def student_from_teacher(
    teacher: PreTrainedModel,
    *,
    layer_map: Sequence[int],
    attention: str | list[str],
    num_features: int | list[int] | None = None,
    features: str = "fixed",
    seed: int = 0,
    softmax_layers: Sequence[int] = (),
    initial_temperature: float = 1.0,
    redraw_interval: int = 1000,
    exact_up_to: int = 0,
    target_norm: float = 1.6,
    positions: int | None = None,
    attention_options: Mapping[str, Any] | None = None,
) -> tuple[Any, CopyReport]:
    """Return an fp32 student on the teacher's device, holding the weights of its layers ``layer_map``, and a report.

    Embeddings, mapped layers, pooler and classifier are copied; what the teacher lacks is drawn from ``seed``, without
    moving the global random state. Labels and problem type carry over. The other options are ``StudentConfig``'s.
    The teacher is of one of ``families.FAMILIES``: the student has its weights under BERT's names. A student with
    softmax attention is a teacher too.
    With more ``positions`` than the teacher's, its table is repeated so that every token has the position that it has
    in the window in which the teacher reads it.
    Raises ValueError for a teacher of another family, an impossible layer map or option, and for a ``num_features``
    that has no effect.
    """
    is_known = teacher.config.model_type in FAMILIES or getattr(teacher.config, "attention", None) == "softmax"
    if problem := why_not(teacher.config) or (None if is_known else f"is {teacher.config.model_type!r}"):
        raise ValueError(f"the teacher must be a BERT encoder, this one {problem}")
    layers = resolve_layer_map(layer_map, len(layer_map), teacher.config.num_hidden_layers)
    source = _weights_of(teacher)
    inherited = _inherited(teacher.config, layers)
    projection = source.get(own_name(teacher.config, PROJECTION, layers))
    first = inherited.get("position_offset") or 0
    student_class = _class_of_student(teacher, attention)
    config = student_class.config_class(
        **inherited
        | {
            "num_hidden_layers": len(layers),
            "layer_map": layers,
            "attention": attention,
            "softmax_layers": list(softmax_layers),
            "num_features": num_features,
            "attention_options": dict(attention_options or {}),
            "features": features,
            "redraw_interval": redraw_interval,
            "exact_up_to": exact_up_to,
            "initial_temperature": initial_temperature,
            "target_norm": target_norm,
            "max_position_embeddings": max((positions or 0) + first, teacher.config.max_position_embeddings),
            "embedding_size": None if projection is None else projection.shape[1],
            "projection_seed": seed,
        }
    )
    if num_features is not None and not config.uses_num_features:
        raise ValueError(
            f"num_features {num_features} has no effect on {config.attention_name} attention; leave it out"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = student_class(config)
    report = _copy_weights(teacher, source, student, layers)
    student.to(device=teacher.device)
    return student, report


def _class_of_student(teacher: PreTrainedModel, attention: str | list[str]) -> Any:
    """Return what a student is: a language model of a language model, of anything else a classifier."""
    if isinstance(teacher, StudentForCausalLM):
        return StudentForCausalLM
    if isinstance(teacher, BertForMaskedLM | StudentForMaskedLM):
        return StudentForMaskedLM
    return FrozenLSTMForSequenceClassification if attention == "lstm" else StudentForSequenceClassification


def _inherited(config: Any, layers: Sequence[int]) -> dict[str, Any]:
    """Return the settings that a student of some layers has of a teacher; of sizes of every layer those of its own."""
    settings = {key: value for key, value in bert_settings(config).items() if key not in NOT_INHERITED}
    for name in SIZES:
        if isinstance(settings.get(name), list):
            settings[name] = [settings[name][layer] for layer in layers]
    return settings


def _weights_of(teacher: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of a classifier; of an encoder alone, under the names that they have in one."""
    weights = teacher.state_dict()
    prefix = own_name(teacher.config, "bert.", ())
    is_bare = not any(name.startswith(prefix) for name in weights)
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()} if is_bare else weights


@torch.no_grad()
def _copy_weights(
    teacher: PreTrainedModel, source: Mapping[str, Tensor], student: Any, layers: Sequence[int]
) -> CopyReport:
    copied: list[str] = []
    new: list[str] = []
    for name, tensor in student.state_dict().items():
        found = source.get(own_name(teacher.config, name, layers))
        if found is not None and name == POSITIONS:
            found = _window_positions(found, len(tensor), student.config.position_offset)
        fits = found is not None and found.shape == tensor.shape
        if fits:
            tensor.copy_(found)
        (copied if fits else new).append(name)
    derived = _derive_weights(teacher, student, layers)
    if TOKEN_TYPES in new:  # of a family without any: what is added to every token must be nothing
        student.bert.embeddings.token_type_embeddings.weight.zero_()
        derived.append(TOKEN_TYPES)
    copied, new = ([name for name in names if name not in derived] for names in (copied, new))
    return CopyReport(tuple(copied), tuple(derived), tuple(new))


def _window_positions(table: Tensor, length: int, first: int) -> Tensor:
    """Repeat a table of positions (W, D) to ``length`` rows: that of [CLS], then those of its window's tokens.

    ``first`` is the row of [CLS]; those before it stay.
    """
    if length <= len(table):
        return table
    before, table = table[:first], table[first:]
    room = len(table) - 2
    rows = torch.arange(length - first - 1, device=table.device) % room
    return torch.cat([before, table[:1], table[1 + rows]])


def _derive_weights(teacher: PreTrainedModel, student: Any, layers: Sequence[int]) -> list[str]:
    """Let every mechanism set its own parameters from the attention it replaces; return their names."""
    teacher_layers = encoder_layers(teacher)
    names = []
    for index, layer in enumerate(student.bert.encoder.layer):
        source = teacher_layers[layers[index]]
        projections = {name: layer_part(teacher, source, f"attention.self.{name}") for name in PROJECTIONS}
        derived = layer.attention.self.copy_from_teacher(nn.ModuleDict(projections))
        names += [f"bert.encoder.layer.{index}.attention.self.{name}" for name in derived]
    return names


@torch.no_grad()
def calibrate_temperature(student: StudentPreTrainedModel, batch: Mapping[str, Tensor]) -> dict[int, list[float]]:
    """Set each head's temperature from one batch, so that mean |q+k|²/√d is the configured ``target_norm``.

    The layers are set in order during one forward pass, each on what the calibrated ones below it produce; no
    temperature rises above 1, the teacher's. ``batch`` holds the model's inputs, on its device; labels are ignored.
    Returns the temperatures by layer, of mechanisms that have any.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    with _evaluating(student), _calibrating(student):
        student(**inputs)
    return {
        module.layer: module.temperature.tolist() for module in _mechanisms(student) if hasattr(module, "temperature")
    }


def _mechanisms(student: nn.Module) -> list[Any]:
    return [module for module in student.modules() if isinstance(module, SelfAttention)]


@contextmanager
def _evaluating(student: nn.Module) -> Iterator[None]:
    was_training = student.training
    student.eval()
    try:
        yield
    finally:
        student.train(was_training)


@contextmanager
def _calibrating(student: StudentPreTrainedModel) -> Iterator[None]:
    def calibrate(module: SelfAttention, inputs: tuple[Any, ...]) -> None:
        module.calibrate(inputs[0], inputs[1], student.config.target_norm)

    handles = [module.register_forward_pre_hook(calibrate) for module in _mechanisms(student)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
