"""Stages with softmax attention are trained once for all runs that share ``cache.dir``.

A recipe that goes depth first begins with a softmax student, in which the mechanism has no part yet: students of one
teacher that differ in their attention alone start from the same one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distill.config.schema import FULL, StageConfig, StudentSettings
from distill.data.splits import data_checksums
from distill.data.text_windows import TextWindows
from distill.training.accelerator import autocast_dtype, on_main_process
from distill.training.run_folder import read_result
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, copy_directory, find_damage, removed_on_error, replace_directory
from pipelines.run.context import DistillationSetup, RunContext, StageTexts
from teachers.cache_folder import STUDENTS, Lease, write_about
from teachers.output_cache import teacher_fingerprint

VERSION = 2
"""Part of the name: raised whenever the same settings would come to mean other weights."""


def shared_folder(context: RunContext, setup: DistillationSetup, stage: StageConfig, texts: StageTexts) -> Path | None:
    """Return where a softmax stage is shared, named by all that decides its result; None where it is not shared."""
    config, accelerator = context.config, context.run.accelerator
    if config.cache.dir is None or stage.attention != "softmax":
        return None
    stages = setup.stages[: setup.stages.index(stage) + 1]
    precision = autocast_dtype(accelerator)
    decisive = {
        "version": VERSION,
        "stages": [settings_of(each) for each in stages],
        "training": asdict(config.training),
        "seed": config.seed,
        "layer_map": setup.layer_map,
        "launcher": [str(accelerator.distributed_type), accelerator.num_processes, accelerator.device.type],
        "data": data_checksums(context.splits),
        "teacher": teacher_fingerprint(setup.teacher, texts.for_teacher, precision),
    }
    decisive |= narrow_sizes(stages, config.student)
    if isinstance(setup.train, TextWindows) and setup.train.masking is not None:
        decisive["masking"] = asdict(setup.train.masking)
    if setup.other_encoder is not None:
        decisive["start"] = teacher_fingerprint(setup.start, texts.examples, precision)
    name = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:20]
    return Path(config.cache.dir) / STUDENTS / name


def settings_of(stage: StageConfig) -> dict[str, Any]:
    """Return the settings of a stage; a width that is not given is none, as before there were widths."""
    return {key: value for key, value in asdict(stage).items() if key != "width" or value is not None}


def narrow_sizes(stages: Sequence[StageConfig], student: StudentSettings) -> dict[str, Any]:
    """Return the sizes that are given for the student; none where no stage has trained it so narrow yet."""
    if all(stage.width == FULL for stage in stages):
        return {}
    sizes = {key: getattr(student, key) for key in ("hidden_size", "intermediate_size", "num_heads")}
    return {key: value for key, value in sizes.items() if value is not None}


def take_shared(context: RunContext, stage: StageConfig, shared: Path | None) -> bool:
    """Finish a stage with what another run left of it, and tell whether there was anything."""
    if shared is None:
        return False
    if not on_main_process(context.run.accelerator, lambda: _take(context, stage, shared)):
        return False
    context.run.accelerator.print(f"{stage.name}: taken from {shared}, where a run with all the same settings left it")
    return True


def _take(context: RunContext, stage: StageConfig, shared: Path) -> bool:
    if not shared.exists():
        return False
    lease = Lease(shared)
    try:
        if not shared.exists():  # removed in this moment
            return False
        way_out = f"remove {shared} to have {stage.name} trained again"
        result = read_result(shared / "result.json", way_out)
        damage = find_damage(shared / "student", result.get("files") or {"model.safetensors": None})
        if damage:
            raise UserError(f"{damage} since another run left it; {way_out}")
        copy_directory(shared / "student", context.folder.model(stage.name))
    finally:
        lease.end()
    context.folder.finish(stage.name, result)
    return True


def share(context: RunContext, setup: DistillationSetup, stage: StageConfig, shared: Path | None) -> None:
    """Leave a finished stage for other runs; of two that finish it at the same time, the first one does."""
    if shared is None or not context.run.accelerator.is_main_process:
        return
    phase = context.folder.phase(stage.name)
    unfinished = shared.with_name(f"{shared.name}.{os.getpid()}{UNFINISHED}")
    model = f"{context.config.student.num_layers} layers, stage {stage.name}"
    with removed_on_error(unfinished):
        shutil.copytree(phase / "student", unfinished / "student")
        shutil.copy2(phase / "result.json", unfinished)
        write_about(unfinished, model=model, texts=len(setup.train), made_for=str(context.folder.path))
        if shared.exists():
            shutil.rmtree(unfinished)
        else:
            replace_directory(unfinished, shared)
