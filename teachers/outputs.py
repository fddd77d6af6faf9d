"""The teacher's outputs on the train examples: computed once and kept on disk, or computed in every step.

On disk every output is one array of packed tokens (total_tokens, D) in half precision, memory-mapped, in a
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
from distill.models.summaries import SUMMARY
from distill.objectives.capture_plan import CapturePlan
from distill.utils.errors import UserError, first_line


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
        self.num_heads = num_heads_of(teacher)

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

    def __init__(self, folder: Path, plan: CapturePlan, examples: TokenizedExamples, num_heads: int) -> None:
        self.plan, self.examples, self.num_heads = plan, examples, num_heads
        self.logits = _read_array(folder / "logits.npy", np.float32, len(examples))
        self.arrays = {
            kind: [
                _read_array(array_path(folder, kind, layer), np.float16, num_rows(kind, examples)) for layer in layers
            ]
            for kind, layers in plan.teacher.items()
        }

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the teacher gave for the examples at ``indices``, padded like ``inputs``."""
        mask = inputs["attention_mask"].bool()
        offsets = self.examples.offsets
        rows = np.concatenate([np.arange(offsets[index], offsets[index + 1]) for index in indices])
        outputs: dict[str, Any] = {"logits": torch.from_numpy(self.logits[indices]).to(mask.device)}
        for kind, arrays in self.arrays.items():
            if kind == SUMMARY:  # of a text, whatever its tokens: the batch may hold another model's
                read = (torch.from_numpy(array[indices]) for array in arrays)
                outputs[kind] = [states[:, None].to(mask.device, torch.float32) for states in read]
            else:
                outputs[kind] = [_pad(torch.from_numpy(array[rows]), mask) for array in arrays]
        return outputs


def num_heads_of(teacher: PreTrainedModel) -> int:
    """Return the attention heads of a teacher; 1 of one that does not say, whose heads nothing compares."""
    return getattr(teacher.config, "num_attention_heads", None) or 1


def num_rows(kind: str, examples: TokenizedExamples) -> int:
    """Return the rows of an array of ``kind``: one for every token, or of summaries for every text."""
    return len(examples) if kind == SUMMARY else len(examples.token_ids)


def _read_array(path: Path, dtype: type, num_rows: int) -> np.ndarray:
    """Map one array (num_rows, D) of the cache into memory; what numpy would have to unpickle is refused."""
    way_out = f"remove {path.parent} to have the teacher's outputs computed again"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is torn: {first_line(error)}; {way_out}") from error
    if array.dtype != dtype or array.ndim != 2 or len(array) != num_rows:
        raise UserError(
            f"{path} holds {array.dtype} {array.shape}, not {num_rows} rows of {np.dtype(dtype)}: it is not from this "
            f"run; {way_out}"
        )
    return array


def _pad(packed: Tensor, mask: Tensor) -> Tensor:
    """Spread packed tokens (T, D) over (B, N, D), zero at padding."""
    padded = torch.zeros(*mask.shape, packed.shape[-1], device=mask.device)
    padded[mask] = packed.to(mask.device, torch.float32)
    return padded


def array_path(folder: Path, kind: str, layer: int) -> Path:
    """Return where one output of one layer lies."""
    return folder / f"{kind}-layer-{layer}.npy"
