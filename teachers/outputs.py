"""The teacher's outputs on the train examples: computed once and kept on disk, or computed in every step.

On disk every output is one array of packed tokens, of 8 bits a number (`teachers.output_format`), memory-mapped, in a
folder whose name is the fingerprint of teacher and examples; position i of the examples is found by its offset.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples, collate
from distill.models.hooks import read_teacher
from distill.models.summaries import width_of
from distill.objectives.capture_plan import CapturePlan
from distill.utils.errors import UserError, first_line
from teachers.output_format import OF_HEADS, Output, outputs_of, row_type, unpack


class OnlineTeacherOutputs:
    """Runs the teacher on every batch: for layer outputs that do not fit on the disk.

    Args:
        examples: the rows in the teacher's tokens, where the batches hold another model's; None: they hold its own.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        plan: CapturePlan,
        autocast_dtype: torch.dtype | None = None,
        examples: TokenizedExamples | None = None,
    ) -> None:
        self.teacher, self.plan, self.autocast_dtype, self.examples = teacher, plan, autocast_dtype, examples
        self.head_size = head_size_of(teacher)

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return captured kinds (lists of (B, N, D), of summaries (B, 1, D)) and ``logits`` (B, C)."""
        assert not self.teacher.training, "the teacher must be in eval mode"
        device = next(self.teacher.parameters()).device
        if self.examples is not None:
            inputs, _ = collate(self.examples, indices, device)
        device_type = device.type
        enabled = self.autocast_dtype is not None
        autocast = torch.autocast(device_type, self.autocast_dtype, enabled=enabled)
        with torch.no_grad(), autocast:
            return read_teacher(self.teacher, self.plan.teacher, inputs)


class CachedTeacherOutputs:
    """Reads the teacher's outputs from memory-mapped files; UserError if one is torn or not what its name says."""

    def __init__(self, folder: Path, plan: CapturePlan, examples: TokenizedExamples, head_size: int) -> None:
        self.plan, self.examples, self.head_size = plan, examples, head_size
        self.logits = _read_array(folder / "logits.npy", len(examples))
        self.places = outputs_of(plan)
        self.arrays = {
            output: _read_array(output.path(folder), output.rows(len(examples), len(examples.token_ids)))
            for outputs in self.places.values()
            for output in outputs
        }

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the teacher gave for the examples at ``indices``, padded like ``inputs``.

        Captured kinds are lists of (B, N, D), or (B, 1, D) where of a last layer the first token alone is matched.
        """
        mask = inputs["attention_mask"].bool()
        offsets = self.examples.offsets
        rows = np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in indices])
        read = {
            output: unpack(array[indices], mask.device)[:, None]
            if output.first_token
            else _pad(unpack(array[rows], mask.device), mask)
            for output, array in self.arrays.items()
        }
        outputs: dict[str, Any] = {"logits": torch.from_numpy(self.logits[indices]).to(mask.device)}
        return outputs | {kind: [read[output] for output in places] for kind, places in self.places.items()}


def head_size_of(teacher: PreTrainedModel) -> int:
    """Return the width of a teacher's heads; of one that does not say, whose heads nothing compares, its own."""
    own = getattr(teacher.config, "size_of_head", None)
    return own or width_of(teacher) // (getattr(teacher.config, "num_attention_heads", None) or 1)


def output_width(teacher: PreTrainedModel, output: Output) -> int:
    """Return how wide an output of a teacher is: what heads read and write is as wide as the layer's heads."""
    if output.kind in OF_HEADS and hasattr(teacher.config, "of_layer"):
        return int(teacher.config.of_layer(output.layer).attention_size)
    return width_of(teacher)


def _read_array(path: Path, num_rows: int) -> np.ndarray:
    """Map one array of the cache into memory: logits (num_rows, C), or rows of `teachers.output_format.row_type`.

    What numpy would have to unpickle is refused.
    """
    way_out = f"remove {path.parent} to have the teacher's outputs computed again"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is torn: {first_line(error)}; {way_out}") from error
    is_logits = array.dtype == np.float32 and array.ndim == 2
    if not (is_logits if path.name == "logits.npy" else _holds_states(array)) or len(array) != num_rows:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}, not {num_rows} rows of the teacher's: it is not from this "
            f"run; {way_out}"
        )
    return array


def _holds_states(array: np.ndarray) -> bool:
    names = array.dtype.names
    return names is not None and array.ndim == 1 and array.dtype == row_type(array.dtype[names[-1]].itemsize)


def _pad(packed: Tensor, mask: Tensor) -> Tensor:
    """Spread packed tokens (T, D) over (B, N, D), zero at padding."""
    padded = torch.zeros(*mask.shape, packed.shape[-1], device=mask.device)
    padded[mask] = packed
    return padded
