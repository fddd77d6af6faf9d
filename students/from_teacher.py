"""Build a student out of a BERT teacher: copy what fits by name, and say what is new."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .attention.base import SelfAttention
from .frozen_lstm import FrozenLSTMForSequenceClassification
from .layer_map import resolve_layer_map
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
    attention: str,
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
) -> tuple[StudentForSequenceClassification, CopyReport]:
    """Return an fp32 student on the teacher's device, holding the weights of its layers ``layer_map``, and a report.

    Embeddings, mapped layers, pooler and classifier are copied; what the teacher lacks is drawn from ``seed``, without
    moving the global random state. Labels and problem type carry over. The other options are ``StudentConfig``'s.
    A student with softmax attention is a teacher too: it has BERT's weights under BERT's names.
    With more ``positions`` than the teacher's, its table is repeated so that every token has the position that it has
    in the window in which the teacher reads it.
    Raises ValueError for a teacher that is not a BERT encoder, an impossible layer map or option, and for a
    ``num_features`` that has no effect.
    """
    is_bert = teacher.config.model_type == "bert" or getattr(teacher.config, "attention", None) == "softmax"
    if not is_bert or teacher.config.is_decoder:
        kind = "a decoder" if teacher.config.model_type == "bert" else repr(teacher.config.model_type)
        raise ValueError(f"the teacher must be a BERT encoder, this one is {kind}")
    layers = resolve_layer_map(layer_map, len(layer_map), teacher.config.num_hidden_layers)
    inherited = {key: value for key, value in teacher.config.to_dict().items() if key not in NOT_INHERITED}
    student_class = FrozenLSTMForSequenceClassification if attention == "lstm" else StudentForSequenceClassification
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
            "max_position_embeddings": max(positions or 0, teacher.config.max_position_embeddings),
            "projection_seed": seed,
        }
    )
    if num_features is not None and not config.uses_num_features:
        raise ValueError(f"num_features {num_features} has no effect on {attention} attention; leave it out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = student_class(config)
    report = _copy_weights(teacher, student, layers)
    student.to(device=teacher.device)  # type: ignore[call-arg]  # transformers wraps it in an untyped descriptor
    return student, report


@torch.no_grad()
def _copy_weights(teacher: nn.Module, student: Any, layers: Sequence[int]) -> CopyReport:
    source = teacher.state_dict()
    if "embeddings.word_embeddings.weight" in source:  # a bare BertModel
        source = {f"bert.{name}": tensor for name, tensor in source.items()}
    source[POSITIONS] = _window_positions(source[POSITIONS], student.config.max_position_embeddings)
    copied: list[str] = []
    new: list[str] = []
    for name, tensor in student.state_dict().items():
        teacher_name = _teacher_name(name, layers)
        fits = teacher_name in source and source[teacher_name].shape == tensor.shape
        if fits:
            tensor.copy_(source[teacher_name])
        (copied if fits else new).append(name)
    derived = _derive_weights(teacher, student, layers)
    copied, new = ([name for name in names if name not in derived] for names in (copied, new))
    return CopyReport(tuple(copied), tuple(derived), tuple(new))


def _window_positions(table: Tensor, length: int) -> Tensor:
    """Repeat a table of positions (W, D) to ``length`` rows: that of [CLS], then those of its window's tokens."""
    if length <= len(table):
        return table
    room = len(table) - 2
    return torch.cat([table[:1], table[1 + torch.arange(length - 1, device=table.device) % room]])


def _derive_weights(teacher: Any, student: Any, layers: Sequence[int]) -> list[str]:
    """Let every mechanism set its own parameters from the attention it replaces; return their names."""
    teacher_layers = getattr(teacher, "bert", teacher).encoder.layer
    names = []
    for index, layer in enumerate(student.bert.encoder.layer):
        derived = layer.attention.self.copy_from_teacher(teacher_layers[layers[index]].attention.self)
        names += [f"bert.encoder.layer.{index}.attention.self.{name}" for name in derived]
    return names


def _teacher_name(name: str, layers: Sequence[int]) -> str:
    """Name in the teacher of a student's tensor: the same, but for the index of the layer."""
    prefix = "bert.encoder.layer."
    if not name.startswith(prefix):
        return name
    layer, rest = name.removeprefix(prefix).split(".", maxsplit=1)
    return f"{prefix}{layers[int(layer)]}.{rest}"


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
