"""A classifier as an OpenVINO model: made of its ONNX file, with int8 weights and activations, and as a model again.

Shapes: B batch, N sequence length, C labels.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from distill.data.batching import MODEL_INPUTS, TokenizedExamples, collate
from distill.export.onnx import quiet, short_reason
from distill.export.onnx_layers import nodes_of_layers
from distill.utils.errors import UserError, is_out_of_memory

if TYPE_CHECKING:
    import openvino


def weights_beside(path: Path) -> Path:
    """Return the file with the weights of the graph in ``path``."""
    return path.with_suffix(".bin")


def convert_to_openvino(onnx_file: Path, output: Path) -> None:
    """Write an ONNX file as an OpenVINO model in fp32, for the same shapes."""
    with in_words("OpenVINO cannot take the exported model"):
        _save(_read(onnx_file), output)


def quantize_openvino(onnx_file: Path, output: Path, in_fp32: Collection[str], calibration: TokenizedExamples) -> None:
    """Write an ONNX file as an OpenVINO model with int8 linear layers and embeddings, but for some of them.

    Static quantisation by NNCF: every output of a linear layer has a scale of its own for its weights, activations one
    scale for all texts, which is found on texts of train. So an answer does not depend on the rest of its batch.

    Args:
        onnx_file: in fp32.
        output: ends in ``.xml``.
        in_fp32: layers that stay as they are, named as in the student.
        calibration: texts of train.
    """
    # nncf reports what it does to its makers unless it believes to be tested by them.
    os.environ["NNCF_CI"] = "1"
    with quiet(), in_words("NNCF cannot quantise the exported model"):
        import nncf
        from nncf.openvino.quantization.quantize_model import native_quantize_impl

        # What the reader folded still hangs on the graph, where nncf stumbles on it; written and read it is gone.
        convert_to_openvino(onnx_file, output)
        model = _read(output)
        # One Gemm becomes a MatMul of another name, NODE/WithoutBiases.
        chosen = {node for node, layer in nodes_of_layers(onnx_file) if layer not in in_fp32}
        names = (operation.get_friendly_name() for operation in model.get_ordered_ops())
        others = [name for name in names if name.partition("/")[0] not in chosen]
        if chosen:  # nncf takes no model of which nothing is to be quantised
            # What nncf.quantize calls, but for models with conditions: of these it quantises both branches, and cannot
            # where the texts take one of them alone. No layer stands in a branch.
            quantized = native_quantize_impl(
                model,
                nncf.Dataset(list(_inputs(calibration))),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
                # Smoothed between weights and activations, the same texts give another file every time.
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1)
                ),
                ignored_scope=nncf.IgnoredScope(names=others, validate=False),
            )
            _save(quantized, output)


class OpenvinoClassifier(nn.Module):
    """An OpenVINO model with the interface of a sequence classifier, on the CPU.

    It has as many threads as torch has at that moment. It computes in fp32 and, where weights are int8, in int8: left
    to itself OpenVINO takes bf16 for fp32 on a CPU that has it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import openvino

        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        with in_words("OpenVINO cannot run the exported model"):
            self.compiled = openvino.Core().compile_model(_read(path), "CPU", settings)
        self.inputs = [port.get_any_name() for port in self.compiled.inputs]

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return (B, C) logits of (B, N) inputs; raises MemoryError where OpenVINO runs out of memory."""
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        given = dict(zip(MODEL_INPUTS, (input_ids, attention_mask, types), strict=True))
        with in_words(f"OpenVINO cannot run the exported model on {tuple(input_ids.shape)}"):
            answer = self.compiled({name: given[name].numpy() for name in self.inputs})
        logits = torch.from_numpy(answer["logits"].copy())
        if len(logits) != len(input_ids):  # its answer to a text for which there are no positions
            raise UserError(f"OpenVINO gives no answer to texts of {input_ids.shape[1]} tokens; give shorter ones")
        return SequenceClassifierOutput(logits=logits)


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Raise what OpenVINO and NNCF raise, errors of many kinds, as MemoryError, OSError or UserError.

    ``what`` is what could not be done.
    """
    try:
        yield
    except (MemoryError, OSError, UserError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise MemoryError("OpenVINO: out of memory") from error
        if "iostream error" in str(error):  # all that is said of a disk that is full
            raise OSError("OpenVINO could not write all of it; see whether the disk is full") from error
        raise UserError(f"{what}: {short_reason(error)}") from error


def _save(model: "openvino.Model", output: Path) -> None:
    import openvino

    openvino.save_model(model, str(output), compress_to_fp16=False)


def _read(path: Path) -> "openvino.Model":
    """Read an ONNX or OpenVINO file into memory; a mapped one would change under the model when it is replaced."""
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": False})
    return core.read_model(str(path))


def _inputs(examples: TokenizedExamples) -> Iterator[dict[str, np.ndarray]]:
    """Yield examples one by one."""
    for index in range(len(examples)):
        inputs, _ = collate(examples, np.array([index]))
        types = torch.zeros_like(inputs["input_ids"])  # of a model that reads none
        yield {name: inputs.get(name, types).numpy() for name in MODEL_INPUTS}
