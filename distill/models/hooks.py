"""Layer outputs of a model whose layers are BERT's, taken by forward hooks.

The same hooks work on teachers of every family and on the student: `students.families` says what each calls BERT's
modules. Hooks keep the teacher on its fast attention (``output_attentions`` is empty under SDPA).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from distill.data.token_predictions import PLACES, predicting
from distill.models.inputs import accepted_inputs
from distill.models.positions import find_positions
from distill.models.summaries import SUMMARY, read_summaries
from distill.models.windowed_bert import ReadsWindows, cut, pad_of
from students.families import encoder_layers, layer_part

Captured = dict[str, list[Tensor]]

CAPTURABLE = ("layer_input", "query", "key", "value", "attention_context", "attention_output", "hidden_states")

MODULES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_context": "attention.output.dense",
    "attention_output": "attention.output.dense",
}
"""What BERT calls the module of a layer that a kind is taken from; the others are of the layer itself."""
INPUTS = ("layer_input", "attention_context")
"""Kinds that are the input of their module: not every family has a module that returns the context alone."""


@contextmanager
def capture(
    model: nn.Module, wanted: Mapping[str, Sequence[int]], first_token_only: bool = False
) -> Iterator[Captured]:
    """Collect outputs of some layers while the block runs.

    Args:
        wanted: kind (one of CAPTURABLE) to the layers it is taken from.
        first_token_only: let a student's last layer compute the first token alone, as it does without capture.

    Yields:
        Kind to one tensor per wanted layer, each (B, N, D), in the order asked for; filled by a forward pass. Of a
        last layer that computes the first token alone, ``attention_context`` and what comes after it are (B, 1, D).
        ``attention_output`` is the attention block's output after W_o, before dropout and residual.
    """
    layers = encoder_layers(model) if wanted else []
    captured: Captured = {kind: [None] * len(indices) for kind, indices in wanted.items()}  # type: ignore[list-item]
    handles = []
    if wanted and not first_token_only and getattr(model.config, "reads_first_token", False):
        handles.append(model.register_forward_pre_hook(_ask_for_all_tokens, with_kwargs=True))
    for kind, indices in wanted.items():
        for position, index in enumerate(indices):
            layer = layers[index]
            module = layer_part(model, layer, MODULES[kind]) if kind in MODULES else layer
            slot = Slot(captured[kind], position, *turn(layers, index))
            if kind in INPUTS:
                handles.append(module.register_forward_pre_hook(slot.take_input, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(slot.take_output))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def read_teacher(teacher: Any, wanted: Mapping[str, Sequence[int]], inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Run a teacher on texts (B, N), in windows where they have more tokens than it has positions.

    Any other classifier has its logits read, and the wanted kind `SUMMARY`.

    Returns:
        The wanted kinds, each a list of (B, N, D) of the whole texts, of `SUMMARY` (B, 1, D), and ``logits`` (B, C);
        of a language model (B, N, V), or (B, M, V) where the inputs say at which `PLACES`.
    """
    if SUMMARY in wanted:
        if not isinstance(teacher, ReadsWindows):
            return read_summaries(teacher, wanted[SUMMARY], inputs)
        read = read_teacher(teacher, {"hidden_states": wanted[SUMMARY]}, inputs)
        return {SUMMARY: [states[:, :1] for states in read["hidden_states"]], "logits": read["logits"]}
    positions, length = find_positions(teacher), inputs["input_ids"].shape[1]
    windows = cut(inputs, positions, pad_of(teacher)) if positions is not None and length > positions else None
    with capture(teacher, wanted) as captured, predicting(teacher, inputs.get(PLACES)):
        logits = teacher(**accepted_inputs(teacher, windows.inputs if windows else inputs)).logits
    if windows is None:
        return captured | {"logits": logits}
    joined = {kind: [windows.join(states) for states in layers] for kind, layers in captured.items()}
    return joined | {"logits": windows.mean(logits)}


def _ask_for_all_tokens(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Ask a student for its hidden states, for which its last layer computes all tokens."""
    return inputs, keywords | {"output_hidden_states": True}


def turn(layers: Sequence[Any], index: int) -> tuple[int, int]:
    """Return when in a forward pass a layer's module computes that layer, and how often it computes in all.

    (0, 1) unless several layers share one module, as in ALBERT.
    """
    return sum(layer is layers[index] for layer in layers[:index]), sum(layer is layers[index] for layer in layers)


@dataclass
class Slot:
    """A place for one tensor of a forward pass, and the hooks that fill it."""

    states: list[Tensor]
    position: int
    when: int
    how_often: int
    """The module computes ``how_often`` times in a pass, and is taken the time number ``when``."""
    calls: int = 0

    def take_input(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._take(inputs[0] if inputs else keywords["hidden_states"])

    def take_output(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._take(output[0] if isinstance(output, tuple) else output)

    def _take(self, states: Tensor) -> None:
        if self.calls % self.how_often == self.when:
            self.states[self.position] = states
        self.calls += 1
