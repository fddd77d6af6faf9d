"""The teacher's outputs on disk: what names them, how much they take, how they are computed."""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import torch
from transformers import PreTrainedModel

from distill.config.schema import CacheConfig
from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.data.text_windows import TextWindows
from distill.models.summaries import width_of
from distill.objectives.capture_plan import CapturePlan, Wanted
from distill.training.accelerator import RunAccelerator, autocast_dtype, on_main_process
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, read_object, remove, removed_on_error, replace_file, write_atomically
from distill.utils.progress import progress_bar
from teachers.cache_folder import Lease, making_room, remove_oldest, write_about
from teachers.output_format import Output, outputs_of, pack, row_type
from teachers.output_plan import READ_IN_PART
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs, head_size_of, output_width

CACHE_BATCH_SIZE = 64
LOGITS = "logits.npy"
AGAIN = "remove it to have the teacher's outputs computed again"
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
        digest.update(np.ascontiguousarray(array).data)  # in place: it may be a map of a file larger than memory
    return digest.hexdigest()[:20]


def bytes_of(outputs: Iterable[Output], examples: TokenizedExamples, hidden_size: int) -> int:
    """Return the bytes that outputs of the examples take on disk."""
    return sum(output.bytes(len(examples), len(examples.token_ids), hidden_size) for output in outputs)


def build_cache(
    teacher: PreTrainedModel,
    examples: TokenizedExamples,
    outputs: Collection[Output],
    folder: Path,
    autocast_dtype: torch.dtype | None = None,
    *,
    limit: float | None = None,
    owner: str = "",
) -> float:
    """Compute what ``folder`` lacks of the outputs, and the logits; return the seconds of one such pass.

    Arrays are written under temporary names and renamed when all of them are finished, so that a killed run
    finds either a whole array or none.

    Args:
        teacher: frozen.
        examples: what it reads.
        outputs: of its layers.
        folder: of this teacher on these examples.
        autocast_dtype: precision of its matrix products; None: full.
        limit: bytes that all folders beside this one may take with it; the least recently used make room.
        owner: what the outputs are computed for, to be told by the listing.

    Raises:
        UserError: an output is not finite, or the disk is full.
    """
    missing = sorted(output for output in set(outputs) if not output.path(folder).exists())
    timing = folder / "seconds.json"
    if not missing and (folder / LOGITS).exists() and timing.exists():
        seconds = read_object(timing, AGAIN).get("seconds")
        if not isinstance(seconds, int | float):
            raise UserError(f"{timing} is torn; {AGAIN}")
        return float(seconds)
    width = width_of(teacher)
    needed = bytes_of(missing, examples, width)
    with making_room(folder.parent):
        if limit is not None:
            remove_oldest(folder.parent, needed, limit)
        folder.mkdir(exist_ok=True)
        free = shutil.disk_usage(folder).free
        if needed > 0.95 * free:
            raise UserError(
                f"the teacher's outputs need {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB free; "
                "give another cache.dir or lower cache.max_gigabytes"
            )
        workshop = make_workshop(folder)
        with removed_on_error(workshop):
            widths = {output: output_width(teacher, output) for output in missing}
            arrays = {output: _reserve_states(output, workshop, examples, widths[output]) for output in missing}
            num_outputs = int(teacher.config.num_labels or 0)
            logits = _reserve(workshop / LOGITS, np.dtype(np.float32), (len(examples), num_outputs))
    layers = getattr(teacher.config, "num_hidden_layers", None)  # of a teacher of any kind, nothing may say so
    model = f"{teacher.config.model_type}, " + (f"{layers} layers of {width}" if layers else f"width {width}")
    with removed_on_error(workshop):
        write_about(folder, model=model, texts=len(examples), tokens=len(examples.token_ids), made_for=owner)
        started = perf_counter()
        _compute(teacher, examples, arrays, logits, autocast_dtype)
        for name in (*(output.path(workshop).name for output in arrays), LOGITS):
            replace_file(workshop / name, folder / name)
        workshop.rmdir()
    seconds = perf_counter() - started
    write_atomically(timing, json.dumps({"seconds": seconds}))
    return seconds


def _compute(
    teacher: PreTrainedModel,
    examples: TokenizedExamples,
    arrays: dict[Output, np.memmap],
    logits: np.memmap,
    autocast_dtype: torch.dtype | None,
) -> None:
    """Run the teacher once over all examples and write wanted outputs and logits."""
    wanted: Wanted = {}
    for kind, layer in sorted({(output.kind, output.layer) for output in arrays}):
        wanted.setdefault(kind, []).append(layer)
    live = OnlineTeacherOutputs(teacher, CapturePlan(teacher=wanted), autocast_dtype)
    device = next(teacher.parameters()).device
    batches = sorted_batches(examples.lengths, CACHE_BATCH_SIZE)
    with progress_bar(batches, name="teacher outputs", unit="batch") as bar:
        for indices in bar:
            inputs, _ = collate(examples, indices, device)
            outputs = live.batch(indices, inputs)
            logits[indices] = outputs["logits"].float().cpu().numpy()
            mask = inputs["attention_mask"].bool()
            rows = np.concatenate([np.arange(examples.offsets[i], examples.offsets[i + 1]) for i in indices])
            for output, array in arrays.items():
                states = outputs[output.kind][wanted[output.kind].index(output.layer)]
                kept = states[:, 0] if output.first_token else states[mask]
                if not torch.isfinite(kept).all():
                    raise UserError(f"the teacher's {output.kind} of layer {output.layer} is not finite")
                array[indices if output.first_token else rows] = pack(kept)
    for array in (*arrays.values(), logits):
        array.flush()


def _reserve_states(output: Output, workshop: Path, examples: TokenizedExamples, hidden_size: int) -> np.memmap:
    rows = output.rows(len(examples), len(examples.token_ids))
    return _reserve(output.path(workshop), row_type(hidden_size), (rows,))


def _reserve(path: Path, kind: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Make an array and take its space at once: a disk that fills up under a memory map kills the process."""
    array = np.lib.format.open_memmap(path, "w+", kind, shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


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


def keep_outputs(folder: Path, outputs: Collection[Output]) -> None:
    """Remove the arrays of a folder that no later stage reads; of ``outputs`` none are, and the logits stay."""
    kept = {output.path(folder) for output in outputs}
    for path in folder.glob("*-layer-*.npy"):
        if path not in kept:
            path.unlink()


@dataclass(frozen=True)
class TeacherTargets:
    """The teacher's outputs for one stage, and what computing them once costs and saves."""

    outputs: CachedTeacherOutputs | OnlineTeacherOutputs | None
    seconds_per_pass: float | None = None
    gigabytes: float = 0.0
    folder: Path | None = None
    """Where the outputs lie on disk; None where they do not."""
    leases: list[Lease] = field(default_factory=list)
    """By which the main process keeps others from removing them."""

    def seconds_saved(self, epochs: float) -> float | None:
        """Return the teacher's forward time that reading from disk avoided, or None where nothing was cached."""
        return None if self.seconds_per_pass is None else self.seconds_per_pass * max(0.0, epochs - 1)

    def end(self) -> None:
        """Let other runs remove what this stage has read."""
        for lease in self.leases:
            lease.end()


def stage_targets(
    accelerator: RunAccelerator,
    teacher: PreTrainedModel,
    plan: CapturePlan,
    examples: TokenizedExamples,
    cache: CacheConfig,
    default_folder: Path,
    *,
    epochs: float = 1.0,
    later: frozenset[Output] = frozenset(),
    worth_storing: bool = True,
    owner: str = "",
    own_tokens: bool = False,
) -> TeacherTargets:
    """Return the teacher's outputs that ``plan`` needs, from disk where they fit into ``cache.max_gigabytes``.

    The main process computes what is missing while the others wait; all of them read.

    Args:
        accelerator: of the run.
        teacher: frozen.
        plan: of the stage.
        examples: what the stage reads, in the teacher's tokens.
        cache: where outputs are shared, and how much there may be.
        default_folder: where they lie if they are not shared.
        epochs: passes of the stage over the examples; below `READ_IN_PART` nothing is stored.
        later: what later stages read of the same teacher, which is computed on the way if there is room.
        worth_storing: whether layer outputs spare more than they take; the logits always do.
        owner: the run, to be named where the cache is listed.
        own_tokens: whether the student reads the same rows in other tokens.
    """
    if not plan.needs_logits and not plan.teacher:
        return TeacherTargets(None)
    dtype = autocast_dtype(accelerator)
    live = OnlineTeacherOutputs(teacher, plan, dtype, examples if own_tokens else None)
    if isinstance(examples, TextWindows):  # logits of every token take more disk than the teacher takes time
        return TeacherTargets(live)
    own = frozenset(output for layers in outputs_of(plan).values() for output in layers)
    if epochs < READ_IN_PART or (own and not worth_storing):
        return TeacherTargets(live)
    sizes = {part: bytes_of(part, examples, width_of(teacher)) / 1e9 for part in (own | later, own)}
    fitting = [part for part, size in sizes.items() if size <= cache.max_gigabytes]
    if not fitting:
        accelerator.print(
            f"teacher outputs need {sizes[own]:.1f} GB, above cache.max_gigabytes {cache.max_gigabytes:g}: "
            "computed anew in every step"
        )
        return TeacherTargets(live)
    root = Path(cache.dir) if cache.dir else default_folder
    folder = root / teacher_fingerprint(teacher, examples, dtype)
    leases: list[Lease] = []

    def build() -> float:
        leases.append(Lease(folder))
        limit = None if cache.dir is None else 1e9 * cache.max_gigabytes
        return build_cache(teacher, examples, fitting[0], folder, dtype, limit=limit, owner=owner)

    seconds = on_main_process(accelerator, build)
    outputs = CachedTeacherOutputs(folder, plan, examples, head_size_of(teacher))
    return TeacherTargets(outputs, seconds, sizes[own], folder, leases)
