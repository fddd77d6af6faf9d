"""The teacher's outputs on disk: what names them, how much they take, how they are computed."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import torch
from transformers import PreTrainedModel

from distill.config.schema import CacheConfig
from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.models.summaries import SUMMARY, width_of
from distill.objectives.capture_plan import CapturePlan, Wanted
from distill.training.accelerator import RunAccelerator, autocast_dtype, on_main_process
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, remove, replace_file, write_atomically
from distill.utils.progress import progress_bar
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs, array_path, num_heads_of, num_rows

CACHE_BATCH_SIZE = 64
CACHE_VERSION = 1
"""Part of the fingerprint: raised whenever the same name would come to mean other numbers."""


def teacher_fingerprint(
    teacher: PreTrainedModel, examples: TokenizedExamples, autocast_dtype: torch.dtype | None
) -> str:
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
    rows = sum(len(layers) * num_rows(kind, examples) for kind, layers in plan.teacher.items())
    return rows * hidden_size * 2


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
    hidden_size = width_of(teacher)
    cached = [plan for plan in plans if bytes_needed(plan, examples, hidden_size) <= max_gigabytes * 1e9]
    wanted = {(kind, layer) for plan in cached for kind, layers in plan.teacher.items() for layer in layers}
    if folder is not None and folder.is_dir():
        there = folder / teacher_fingerprint(teacher, examples, autocast_dtype)
        wanted = {name for name in wanted if not array_path(there, *name).exists()}
    return sum(num_rows(kind, examples) for kind, _ in wanted) * hidden_size * 2


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
    needed = bytes_needed(CapturePlan(teacher=missing), examples, width_of(teacher))
    free = shutil.disk_usage(folder).free
    if needed > 0.95 * free:
        raise UserError(
            f"the teacher's outputs need {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB free; "
            "give another cache.dir or lower cache.max_gigabytes"
        )
    started = perf_counter()
    _compute(teacher, examples, missing, folder, autocast_dtype)
    seconds = perf_counter() - started
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
    width = width_of(teacher)
    paths = {(kind, layer): array_path(folder, kind, layer) for kind, layers in wanted.items() for layer in layers}
    workshop = make_workshop(folder)
    arrays = {
        name: np.lib.format.open_memmap(workshop / path.name, "w+", np.float16, (num_rows(name[0], examples), width))
        for name, path in paths.items()
    }
    for path in paths.values():
        _reserve(workshop / path.name)
    live = OnlineTeacherOutputs(teacher, CapturePlan(teacher=wanted), autocast_dtype)
    logits = np.zeros((len(examples), int(teacher.config.num_labels or 0)), np.float32)
    device = next(teacher.parameters()).device
    batches = sorted_batches(examples.lengths, CACHE_BATCH_SIZE)
    with progress_bar(batches, name="teacher outputs", unit="batch") as bar:
        for indices in bar:
            inputs, _ = collate(examples, indices, device)
            outputs = live.batch(indices, inputs)
            logits[indices] = outputs["logits"].float().cpu().numpy()
            mask = inputs["attention_mask"].bool()
            rows = np.concatenate([np.arange(examples.offsets[i], examples.offsets[i + 1]) for i in indices])
            for kind, layers in wanted.items():
                of_texts = kind == SUMMARY
                for layer, states in zip(layers, outputs[kind], strict=True):
                    packed = (states[:, 0] if of_texts else states[mask]).half()
                    if not torch.isfinite(packed).all():
                        raise UserError(f"the teacher's {kind} of layer {layer} is not finite in half precision")
                    arrays[kind, layer][indices if of_texts else rows] = packed.cpu().numpy()
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


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's outputs for one stage, and what computing them once costs and saves."""

    outputs: CachedTeacherOutputs | OnlineTeacherOutputs | None
    seconds_per_pass: float | None = None
    gigabytes: float = 0.0

    def seconds_saved(self, epochs: float) -> float | None:
        """Return the teacher's forward time that reading from disk avoided, or None where nothing was cached."""
        return None if self.seconds_per_pass is None else self.seconds_per_pass * max(0.0, epochs - 1)


def stage_targets(
    accelerator: RunAccelerator,
    teacher: PreTrainedModel,
    plan: CapturePlan,
    examples: TokenizedExamples,
    cache: CacheConfig,
    default_folder: Path,
    *,
    own_tokens: bool = False,
) -> TeacherTargets:
    """Return the teacher's outputs that ``plan`` needs, from disk where they fit into ``cache.max_gigabytes``.

    The main process computes what is missing while the others wait; all of them read.

    Args:
        examples: in the teacher's tokens.
        own_tokens: whether the student reads the same rows in other tokens.
    """
    if not plan.needs_logits and not plan.teacher:
        return TeacherTargets(None)
    dtype = autocast_dtype(accelerator)
    gigabytes = bytes_needed(plan, examples, width_of(teacher)) / 1e9
    if gigabytes > cache.max_gigabytes:
        accelerator.print(
            f"teacher outputs need {gigabytes:.1f} GB, above cache.max_gigabytes {cache.max_gigabytes:g}: "
            "computed anew in every step"
        )
        return TeacherTargets(OnlineTeacherOutputs(teacher, plan, dtype, examples if own_tokens else None))
    root = Path(cache.dir) if cache.dir else default_folder
    folder = root / teacher_fingerprint(teacher, examples, dtype)
    seconds = on_main_process(accelerator, lambda: build_cache(teacher, examples, plan.teacher, folder, dtype))
    outputs = CachedTeacherOutputs(folder, plan, examples, num_heads_of(teacher))
    return TeacherTargets(outputs, seconds, gigabytes)
