"""Choose where a stage gets the teacher's outputs from: the disk, or the teacher itself."""

from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from transformers import PreTrainedModel

from distill.config.schema import CacheConfig
from distill.data.batching import TokenizedExamples
from distill.objectives.capture_plan import CapturePlan
from distill.training.accelerator import autocast_dtype, on_main_process
from teachers.outputs import CachedTeacherOutputs, OnlineTeacherOutputs, build_cache, bytes_needed, fingerprint


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
    accelerator: Accelerator,
    teacher: PreTrainedModel,
    plan: CapturePlan,
    examples: TokenizedExamples,
    cache: CacheConfig,
    default_folder: Path,
) -> TeacherTargets:
    """Return the teacher's outputs that ``plan`` needs, from disk where they fit into ``cache.max_gigabytes``.

    The main process computes what is missing while the others wait; all of them read.
    """
    if not plan.needs_logits and not plan.teacher:
        return TeacherTargets(None)
    dtype = autocast_dtype(accelerator)
    gigabytes = bytes_needed(plan, examples, teacher.config.hidden_size) / 1e9
    if gigabytes > cache.max_gigabytes:
        accelerator.print(
            f"teacher outputs need {gigabytes:.1f} GB, above cache.max_gigabytes {cache.max_gigabytes:g}: "
            "computed anew in every step"
        )
        return TeacherTargets(OnlineTeacherOutputs(teacher, plan, dtype))
    root = Path(cache.dir) if cache.dir else default_folder
    folder = root / fingerprint(teacher, examples, dtype)
    seconds = on_main_process(accelerator, lambda: build_cache(teacher, examples, plan.teacher, folder, dtype))
    outputs = CachedTeacherOutputs(folder, plan, examples, teacher.config.num_attention_heads)
    return TeacherTargets(outputs, seconds, gigabytes)
