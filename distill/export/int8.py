"""An exported file with int8 weights, and which of its layers stay in fp32 because the answers would suffer.

Shapes: n examples, C labels.
"""

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.data.batching import TokenizedExamples, subset
from distill.evaluation.predict import predict_logits
from distill.export.onnx import CLASSES_OF_NODE, SCOPES_OF_NODE, OnnxClassifier, quiet

if TYPE_CHECKING:
    import onnx

INT8_MODULES = ("torch.nn.modules.linear.Linear", "torch.nn.modules.sparse.Embedding")
"""Whose weights become int8; random features and tables of an attention mechanism stay as they are."""
ALLOWED_FALL = 0.005
"""By how much a metric may fall on texts of train that were held out: half a point."""
MOST_TEXTS = 1000
"""So many of these are read to measure the fall."""
FEW_TEXTS = 64
"""So many are read to find out how far a layer moves the logits."""


@dataclass(frozen=True)
class HeldOut:
    """Texts of train on which int8 weights are judged; validation is only ever reported."""

    examples: TokenizedExamples
    metrics: Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
    """Of logits (n, C) and labels, each the better the higher."""


def quantize_onnx(path: Path, output: Path, in_fp32: Collection[str] = ()) -> None:
    """Write a copy of an exported file whose linear layers and embeddings have int8 weights, but for some of them.

    Dynamic quantisation: every output of a linear layer has a scale of its own for its weights, and activations are
    quantised as they come, with one scale per call. So an answer depends a little on the rest of its batch.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(path))
    chosen = {node.name for node in model.graph.node if (name := _layer(node)) and name not in in_fp32}
    excluded = [node.name for node in model.graph.node if node.name not in chosen]
    with quiet():
        quantize_dynamic(
            model,
            str(output),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gather"],
            # A Gemm has been split, into a MatMul of this name among others, before it is looked for.
            nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],
        )


def choose_fp32_layers(path: Path, folder: Path, held_out: HeldOut) -> tuple[str, ...]:
    """Return the layers that have to stay in fp32 for no metric to fall by more than half a point, worst first.

    Where int8 everywhere costs more, each layer is quantised alone. The further it then moves the logits, the earlier
    it is left in fp32; how many have to be is searched for.

    Args:
        path: the file in fp32.
        folder: for copies that are tried.
        held_out: what is measured.
    """
    examples = subset(held_out.examples, _spread(len(held_out.examples), MOST_TEXTS))
    few = _spread(len(examples), FEW_TEXTS)
    trial = folder / "trial.onnx"

    def answers(texts: TokenizedExamples, in_fp32: Collection[str]) -> np.ndarray:
        quantize_onnx(path, trial, in_fp32)
        return _predict(trial, texts)

    some = subset(examples, few)

    expected = _predict(path, examples)
    before = held_out.metrics(expected, examples.labels)

    def holds(in_fp32: Collection[str]) -> bool:
        logits = answers(examples, in_fp32)
        after = held_out.metrics(logits, examples.labels) if np.isfinite(logits).all() else {}
        return all(before[name] - after.get(name, -np.inf) <= ALLOWED_FALL for name in before)

    if holds(()):
        return ()
    layers = layers_of(path)
    moved = {layer: float(np.square(answers(some, set(layers) - {layer}) - expected[few]).mean()) for layer in layers}
    worst_first = sorted(layers, key=lambda layer: np.nan_to_num(moved[layer], nan=np.inf), reverse=True)
    too_few, enough = 0, len(layers)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if holds(worst_first[:middle]) else (middle, enough)
    return tuple(worst_first[:enough])


def layers_of(path: Path) -> Sequence[str]:
    """Return the layers of an exported file whose weights can be int8, in the order in which they compute."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return list(dict.fromkeys(name for node in model.graph.node if (name := _layer(node))))


def _spread(count: int, most: int) -> np.ndarray:
    """Return at most so many places among ``count``, evenly spread: rows of a file may be sorted by their label."""
    return np.linspace(0, count - 1, min(most, count)).astype(int)


def _predict(path: Path, examples: TokenizedExamples) -> np.ndarray:
    return predict_logits(OnnxClassifier(path), examples, device="cpu", alone=True)


def _layer(node: "onnx.NodeProto") -> str | None:
    """Return the layer whose weights an operation reads, named as in the student; None if they are not to be int8."""
    written = {entry.key: entry.value for entry in node.metadata_props}
    classes = written.get(CLASSES_OF_NODE, "")
    if node.op_type not in ("MatMul", "Gemm", "Gather") or not any(each in classes for each in INT8_MODULES):
        return None
    scopes: list[str] = ast.literal_eval(written[SCOPES_OF_NODE])
    return scopes[-2].removeprefix("model.")
