"""The teacher's outputs on the train examples: computed once and kept on disk, or computed in every step.

On disk every output is one array of packed tokens (total_tokens, D) in half precision, memory-mapped, in a
folder whose name is the fingerprint of teacher and examples; position i of the examples is found by its offset.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.models.hooks import read_teacher
from distill.objectives.capture_plan import CapturePlan, Wanted
from distill.utils.clock import now
from distill.utils.errors import UserError, first_line
from distill.utils.files import UNFINISHED, remove, replace_file, write_atomically
from distill.utils.progress import progress_bar

CACHE_BATCH_SIZE = 64
CACHE_VERSION = 1
"""Part of the fingerprint: raised whenever the same name would come to mean other numbers."""


class OnlineTeacherOutputs:
    """Runs the teacher on every batch: for layer outputs that do not fit on the disk."""

    def __init__(self, teacher: PreTrainedModel, plan: CapturePlan, autocast_dtype: torch.dtype | None = None) -> None:
        self.teacher, self.plan, self.autocast_dtype = teacher, plan, autocast_dtype
        self.num_heads: int = teacher.config.num_attention_heads

    def batch(self, indices: np.ndarray, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return captured kinds (lists of (B, N, D)) and ``logits`` (B, C)."""
        assert not self.teacher.training, "the teacher must be in eval mode"
        device_type = next(self.teacher.parameters()).device.type
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
                _read_array(array_path(folder, kind, layer), np.float16, len(examples.token_ids)) for layer in layers
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
            outputs[kind] = [_pad(torch.from_numpy(array[rows]), mask) for array in arrays]
        return outputs


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


def fingerprint(teacher: PreTrainedModel, examples: TokenizedExamples, autocast_dtype: torch.dtype | None) -> str:
    """Return a name that changes with the teacher's weights, the tokens or the precision."""
    digest = hashlib.sha256(f"{CACHE_VERSION} {autocast_dtype}".encode())
    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    for array in (examples.token_ids, examples.token_type_ids, examples.offsets):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:20]


def bytes_needed(plan: CapturePlan, examples: TokenizedExamples, hidden_size: int) -> int:
    """Return the bytes that a stage's layer outputs take on disk in half precision."""
    arrays = sum(len(layers) for layers in plan.teacher.values())
    return arrays * len(examples.token_ids) * hidden_size * 2


def disk_needed(
    teacher: PreTrainedModel,
    plans: Sequence[CapturePlan],
    examples: TokenizedExamples,
    max_gigabytes: float,
    folder: Path | None,
    autocast_dtype: torch.dtype | None = None,
) -> int:
    """Return the bytes that the stages' caches will still take: an output that several stages read counts once.

    Args:
        folder: the shared cache, to leave out what it holds already; None where it holds nothing of this teacher.
    """
    hidden_size = int(teacher.config.hidden_size or 0)
    cached = [plan for plan in plans if bytes_needed(plan, examples, hidden_size) <= max_gigabytes * 1e9]
    wanted = {(kind, layer) for plan in cached for kind, layers in plan.teacher.items() for layer in layers}
    if folder is not None and folder.is_dir():
        there = folder / fingerprint(teacher, examples, autocast_dtype)
        wanted = {name for name in wanted if not array_path(there, *name).exists()}
    return len(wanted) * len(examples.token_ids) * hidden_size * 2


def build_cache(
    teacher: PreTrainedModel,
    examples: TokenizedExamples,
    wanted: Wanted,
    folder: Path,
    autocast_dtype: torch.dtype | None = None,
) -> float:
    """Compute what ``folder`` lacks of the wanted outputs, and the logits; return the seconds of one such pass.

    Arrays are written under temporary names and renamed when all of them are finished, so that a killed run
    finds either a whole array or none.

    Raises:
        UserError: an output does not fit half precision, or the disk is full.
    """
    missing = {
        kind: [layer for layer in layers if not array_path(folder, kind, layer).exists()]
        for kind, layers in wanted.items()
    }
    missing = {kind: layers for kind, layers in missing.items() if layers}
    timing = folder / "seconds.json"
    if not missing and (folder / "logits.npy").exists() and timing.exists():
        try:
            return float(json.loads(timing.read_text())["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{timing} is torn; remove it to have the teacher's outputs computed again") from error
    folder.mkdir(parents=True, exist_ok=True)
    needed = sum(len(layers) for layers in missing.values()) * len(examples.token_ids) * teacher.config.hidden_size * 2
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise UserError(
            f"the teacher's outputs need {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB free; "
            "give another cache.dir or lower cache.max_gigabytes"
        )
    started = now()
    _compute(teacher, examples, missing, folder, autocast_dtype)
    seconds = now() - started
    write_atomically(timing, json.dumps({"seconds": seconds}))
    return seconds


def _compute(
    teacher: PreTrainedModel,
    examples: TokenizedExamples,
    wanted: Wanted,
    folder: Path,
    autocast_dtype: torch.dtype | None,
) -> None:
    """Run the teacher once over all examples and write logits and wanted outputs."""
    shape = (len(examples.token_ids), int(teacher.config.hidden_size or 0))
    paths = {(kind, layer): array_path(folder, kind, layer) for kind, layers in wanted.items() for layer in layers}
    workshop = make_workshop(folder)
    arrays = {
        name: np.lib.format.open_memmap(workshop / path.name, "w+", np.float16, shape) for name, path in paths.items()
    }
    for path in paths.values():
        _reserve(workshop / path.name)
    live = OnlineTeacherOutputs(teacher, CapturePlan(teacher=wanted), autocast_dtype)
    logits = np.zeros((len(examples), int(teacher.config.num_labels or 0)), np.float32)
    device = next(teacher.parameters()).device
    batches = sorted_batches(examples.lengths, CACHE_BATCH_SIZE)
    with progress_bar(batches, name="teacher outputs", unit="batch") as bar:
        for indices in bar:
            inputs = collate(examples, indices, device)
            inputs.pop("labels")
            inputs.pop("ids")
            outputs = live.batch(indices, inputs)
            logits[indices] = outputs["logits"].float().cpu().numpy()
            mask = inputs["attention_mask"].bool()
            rows = np.concatenate([np.arange(examples.offsets[i], examples.offsets[i + 1]) for i in indices])
            for kind, layers in wanted.items():
                for layer, states in zip(layers, outputs[kind], strict=True):
                    packed = states[mask].half()
                    if not torch.isfinite(packed).all():
                        raise UserError(f"the teacher's {kind} of layer {layer} is not finite in half precision")
                    arrays[kind, layer][rows] = packed.cpu().numpy()
    for name, array in arrays.items():
        array.flush()
        replace_file(workshop / paths[name].name, paths[name])
    np.save(workshop / "logits.npy", logits)
    replace_file(workshop / "logits.npy", folder / "logits.npy")
    workshop.rmdir()


def _reserve(path: Path) -> None:
    """Take the whole file's space at once: a disk that fills up under a memory map kills the process."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def make_workshop(folder: Path) -> Path:
    """Make this process's own folder for unfinished arrays, and remove what killed processes left unfinished.

    Runs that share a cache may build it at the same time; the last to finish wins, with the same numbers.
    """
    for left in folder.glob(f"*{UNFINISHED}"):
        process = int(left.name.split(".")[-2])
        if process == os.getpid() or not psutil.pid_exists(process):
            remove(left)
    workshop = folder / f"arrays.{os.getpid()}{UNFINISHED}"
    workshop.mkdir(parents=True)
    return workshop
