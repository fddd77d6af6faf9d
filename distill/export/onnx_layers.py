"""The layers of an exported ONNX file whose weights can be int8, and the file with these weights."""

import ast
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distill.export.onnx import CLASSES_OF_NODE, SCOPES_OF_NODE, quiet

if TYPE_CHECKING:
    import onnx

INT8_MODULES = ("torch.nn.modules.linear.Linear", "torch.nn.modules.sparse.Embedding")
"""Whose weights become int8; random features and tables of an attention mechanism stay as they are."""


def layers_of(path: Path) -> Sequence[str]:
    """Return the layers of an exported file whose weights can be int8, in the order in which they compute."""
    return list(dict.fromkeys(name for _, name in nodes_of_layers(path)))


def nodes_of_layers(path: Path) -> list[tuple[str, str]]:
    """Return the operations that read such weights: pairs of the operation's name and the layer's in the student."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return [(node.name, name) for node in model.graph.node if (name := _layer(node))]


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


def _layer(node: "onnx.NodeProto") -> str | None:
    """Return the layer whose weights an operation reads, named as in the student; None if they are not to be int8."""
    written = {entry.key: entry.value for entry in node.metadata_props}
    classes = written.get(CLASSES_OF_NODE, "")
    if node.op_type not in ("MatMul", "Gemm", "Gather") or not any(each in classes for each in INT8_MODULES):
        return None
    scopes: list[str] = ast.literal_eval(written[SCOPES_OF_NODE])
    return scopes[-2].removeprefix("model.")
