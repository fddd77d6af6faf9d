"""A classifier as an ONNX file: exported with dynamic batch and length, and as a model again.

Shapes: B batch, N sequence length, C labels.
"""

import io
import logging
import re
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from distill.data.batching import MODEL_INPUTS
from distill.models.flops import attention_name
from distill.models.positions import find_positions
from distill.utils.errors import UserError

if TYPE_CHECKING:
    import onnx

REASON_LENGTH = 300
ANY_LENGTH = 128
"""Tokens that a model whose positions nothing limits is traced with, twice over."""
CLASSES_OF_NODE = "pkg.torch.onnx.class_hierarchy"
SCOPES_OF_NODE = "pkg.torch.onnx.name_scopes"
"""Where the exporter writes down of what kind the modules are that an operation comes from, outermost first, and
their names, with that of the operation at the end."""


class LogitsOnly(nn.Module):
    """The model with a tensor as its output."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return (B, C) logits of (B, N) inputs."""
        inputs = dict(zip(MODEL_INPUTS, (input_ids, attention_mask, token_type_ids), strict=True))
        return self.model(**inputs).logits


def export_onnx(model: PreTrainedModel, path: Path) -> None:
    """Write ``model`` as one ONNX file for any batch and any length up to its positions, if these are limited.

    Inputs: ``input_ids``, ``attention_mask``, ``token_type_ids``, int64 (B, N); output: ``logits``, float32 (B, C).

    Args:
        model: sequence classifier on the CPU, in eval mode and fp32.
        path: written in place; whether the file computes the same is for the caller to check.

    Raises:
        UserError: torch cannot trace the model or ONNX has no such operation; names the attention mechanism.
    """
    import onnx

    positions = find_positions(model)
    input_ids = torch.ones(2, max(2, (positions or ANY_LENGTH) // 2), dtype=torch.int64)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 1:] = 0
    inputs = (input_ids, attention_mask, torch.zeros_like(input_ids))
    shapes = ({0: Dim("batch", min=1), 1: Dim("length", min=1, max=positions)},) * len(MODEL_INPUTS)
    try:
        with quiet(), torch.no_grad():
            traced = torch.export.export(LogitsOnly(model), inputs, dynamic_shapes=shapes, strict=False)
            program = torch.onnx.export(
                traced,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=MODEL_INPUTS,
                output_names=["logits"],
                verbose=False,
            )
    except Exception as error:  # torch raises many kinds, up to those of the mechanism's own code
        raise UserError(
            f"attention {attention_name(model.config)!r} cannot be exported to ONNX: {short_reason(error)}"
        ) from error
    assert program is not None
    exported = program.model_proto
    _strip(exported)
    onnx.save(exported, str(path))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporter and quantiser say to their developers from the user's terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def short_reason(error: BaseException) -> str:
    """Return what started a chain of errors, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r'For (more|extended) (information|logs)[^.]*?TORCH\w+="[^"]*"\.?', "", str(error))
    return textwrap.shorten(f"{type(error).__name__}: {text}", REASON_LENGTH, placeholder=" …")


def _strip(exported: "onnx.ModelProto") -> None:
    """Remove what a file for others must not hold: stack traces with the paths of this machine, and stale shapes.

    The exporter keeps the shapes of weights that it transposed later; strict readers stop at them, the quantiser
    among them, which reads the names of modules, too.
    """
    exported.graph.ClearField("value_info")
    exported.graph.ClearField("metadata_props")
    for part in (*exported.graph.node, *exported.graph.input, *exported.graph.output, *exported.graph.initializer):
        kept = [entry for entry in part.metadata_props if entry.key in (CLASSES_OF_NODE, SCOPES_OF_NODE)]
        part.ClearField("metadata_props")
        part.metadata_props.extend(kept)
        part.ClearField("doc_string")


class OnnxClassifier(nn.Module):
    """An ONNX file with the interface of a sequence classifier, run by onnxruntime on the CPU.

    It has as many threads as torch has at that moment. They do not spin while they wait: that would take the cores
    from whatever is timed against it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # an error is raised; it need not be printed as well
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except _onnxruntime_errors() as error:
            raise UserError(f"onnxruntime cannot run the exported model: {short_reason(error)}") from error
        # Those of the three that the model reads: fusing drops the token types of one that has none.
        self.inputs = [each.name for each in self.session.get_inputs()]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return (B, C) logits of (B, N) inputs; raises MemoryError where onnxruntime runs out of memory."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        tensors = (input_ids, attention_mask, types)
        given = {name: tensor.numpy() for name, tensor in zip(MODEL_INPUTS, tensors, strict=True)}
        feed = {name: given[name] for name in self.inputs}
        try:
            (logits,) = self.session.run(["logits"], feed)
        except _onnxruntime_errors() as error:
            if "Failed to allocate memory" in str(error):
                raise MemoryError("onnxruntime: out of memory") from error
            shape = tuple(input_ids.shape)
            raise UserError(f"onnxruntime cannot run the exported model on {shape}: {short_reason(error)}") from error
        return SequenceClassifierOutput(logits=torch.from_numpy(logits))


def _onnxruntime_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises when it cannot load or run a file; its errors have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    return (errors.Fail, errors.RuntimeException, errors.InvalidArgument, errors.InvalidGraph, errors.NotImplemented)
