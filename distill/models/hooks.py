"""Layer outputs of a BERT-shaped model, taken by forward hooks.

The same hooks work on the teacher and on the student because both carry BERT's module names. Hooks keep
the teacher on its fast attention (``output_attentions`` is empty under SDPA).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from distill.models.inputs import accepted_inputs
from distill.models.summaries import SUMMARY, read_summaries
from distill.models.windowed_bert import WindowedBert, cut

Captured = dict[str, list[Tensor]]

CAPTURABLE = ("layer_input", "query", "key", "value", "attention_context", "attention_output", "hidden_states")


def encoder_layers(model: nn.Module) -> Sequence[Any]:
    """Return the encoder's layers of a BERT-shaped classifier.

    Raises:
        ValueError: the model has no ``bert.encoder.layer``.
    """
    layers = getattr(getattr(getattr(model, "bert", None), "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        raise ValueError(f"{type(model).__name__} is not a BERT: it has no bert.encoder.layer")
    return list(layers)


def _hooked_module(layer: Any, kind: str) -> nn.Module:
    """Return the module whose output (for ``layer_input`` whose input) is ``kind``."""
    attention = layer.attention
    if kind in ("query", "key", "value"):
        return getattr(attention.self, kind)
    return {
        "layer_input": layer,
        "hidden_states": layer,
        "attention_context": attention.self,
        "attention_output": attention.output.dense,
    }[kind]


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
            module = _hooked_module(layers[index], kind)
            if kind == "layer_input":
                handles.append(
                    module.register_forward_pre_hook(_input_hook(captured[kind], position), with_kwargs=True)
                )
            else:
                handles.append(module.register_forward_hook(_output_hook(captured[kind], position)))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def read_teacher(teacher: Any, wanted: Mapping[str, Sequence[int]], inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Run a BERT on texts (B, N), in windows where they have more tokens than it has positions.

    Any other classifier has its logits read, and the wanted kind `SUMMARY`.

    Returns:
        The wanted kinds, each a list of (B, N, D) of the whole texts, of `SUMMARY` (B, 1, D), and ``logits`` (B, C).
    """
    if SUMMARY in wanted:
        if not isinstance(teacher, WindowedBert):
            return read_summaries(teacher, wanted[SUMMARY], inputs)
        read = read_teacher(teacher, {"hidden_states": wanted[SUMMARY]}, inputs)
        return {SUMMARY: [states[:, :1] for states in read["hidden_states"]], "logits": read["logits"]}
    positions = getattr(teacher.config, "max_position_embeddings", None) or 0
    windows = cut(inputs, positions) if 0 < positions < inputs["input_ids"].shape[1] else None
    with capture(teacher, wanted) as captured:
        logits = teacher(**accepted_inputs(teacher, windows.inputs if windows else inputs)).logits
    if windows is None:
        return captured | {"logits": logits}
    joined = {kind: [windows.join(states) for states in layers] for kind, layers in captured.items()}
    return joined | {"logits": windows.mean(logits)}


def _ask_for_all_tokens(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Ask a student for its hidden states, for which its last layer computes all tokens."""
    return inputs, keywords | {"output_hidden_states": True}


def _input_hook(slots: list[Tensor], position: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        slots[position] = inputs[0] if inputs else keywords["hidden_states"]

    return hook


def _output_hook(slots: list[Tensor], position: int) -> Any:
    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        slots[position] = output[0] if isinstance(output, tuple) else output

    return hook
