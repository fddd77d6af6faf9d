"""A BERT as it is deployed without distilling: ONNX Runtime with its fusions for BERT, in fp32 and with int8 weights.

Legend: B batch, N sequence length, C labels.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill.data.batching import MODEL_INPUTS
from distill.export.onnx import LogitsOnly, quiet, short_reason
from distill.utils.errors import UserError

OPSET = 17
EXAMPLE_SIZE = (2, 16)
"""B and N of the inputs that the graph is traced with; both are free in the file."""


def export_fused(teacher: PreTrainedModel, path: Path) -> dict[str, int]:
    """Write ``teacher`` as one ONNX file in which attention, layer norms and GELU are one operation each.

    onnxruntime recognises the graph of BERT's eager attention as the TorchScript exporter writes it, and neither that
    of the newer exporter nor that of SDPA. Inputs and output are those of `distill.export.onnx.export_onnx`, for any
    length up to the teacher's positions.

    Args:
        teacher: sequence classifier; a copy of it on the CPU, in fp32, is exported.
        path: written in place; whether the file computes the same is for the caller to check.

    Returns:
        How many operations of each kind onnxruntime put in place of several; kinds without any are left out.

    Raises:
        UserError: torch cannot trace the teacher, or onnxruntime cannot read what it wrote.
    """
    from onnxruntime.transformers.optimizer import optimize_model

    plain = copy.deepcopy(teacher).cpu().float()
    input_ids = torch.ones(EXAMPLE_SIZE, dtype=torch.int64)
    inputs = (input_ids, torch.ones_like(input_ids), torch.zeros_like(input_ids))
    try:
        with quiet(), torch.no_grad():
            plain.set_attn_implementation("eager")
            torch.onnx.export(
                LogitsOnly(plain).eval(),
                inputs,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(MODEL_INPUTS),
                output_names=["logits"],
                dynamic_axes={name: {0: "batch", 1: "length"} for name in MODEL_INPUTS} | {"logits": {0: "batch"}},
            )
            config: Any = plain.config
            fused = optimize_model(
                str(path),
                model_type="bert",
                num_heads=config.num_attention_heads,
                hidden_size=config.hidden_size,
                opt_level=0,  # the fusions alone; the rest is done, as ever, when the file is loaded
            )
            fused.save_model_to_file(str(path))
    except Exception as error:  # two libraries that raise many kinds
        raise UserError(f"the teacher cannot be exported to ONNX: {short_reason(error)}") from error
    return {name: count for name, count in fused.get_fused_operator_statistics().items() if count}


def quantize_fused(path: Path, output: Path) -> None:
    """Write a copy of a fused file whose linear layers, attention and embeddings have int8 weights.

    Dynamic quantisation: every output has a scale of its own for its weights, and activations are quantised as they
    come, with one scale per call. So an answer depends a little on the rest of its batch.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(path),
            str(output),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Fused operations are onnxruntime's own, through which it infers no types: all of them return floats.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
