"""What a run will still write, folder by folder, before anything is trained."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from distill.config.schema import PACKED, Config, StageConfig
from distill.data.packing import PACKED_TEXTS, mean_packed_length
from distill.models.positions import positions_of
from distill.models.summaries import width_of
from distill.preflight.memory_estimate import DiskOfPhase, count, run_disk
from distill.training.accelerator import autocast_dtype
from distill.training.checkpoints import KEPT
from distill.training.optimizer import trainable
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.stage_texts import count_stage_texts, disk_of_stage_texts
from teachers.output_cache import teacher_fingerprint
from teachers.output_format import Output
from teachers.output_plan import Group, Reading, is_worth_storing

LOGIT = 4
"""Bytes of a logit."""


def disk_by_folder(
    context: RunContext,
    setup: DistillationSetup,
    student: PreTrainedModel,
    phases: Sequence[tuple[StageConfig, PreTrainedModel]],
) -> dict[Path, int]:
    """Return the bytes that the run will still write, by folder: its own, and ``cache.dir`` where there is one.

    Args:
        context: of the run.
        setup: with the stages.
        student: as it will be.
        phases: every phase that trains, with a model of the kind that it trains.
    """
    config, path = context.config, context.folder.path
    rows = count_stage_texts(context, setup).rows
    kept = []
    for stage, model in phases:
        weights = stage.average_epochs if stage.average_epochs > 1 else 0
        checkpoints = most_checkpoints(stage, len(setup.train) if set(stage.losses) == {"labels"} else rows, config)
        with trainable(model, stage):
            best = 1 + min(math.ceil(stage.epochs), checkpoints)  # of every checkpoint one, and one not in any yet
            kept.append(DiskOfPhase(*count(model), best if stage.keep_best_epoch else weights, checkpoints))
    copies = count(student)[0] + (count(setup.teacher)[0] if setup.source.is_trained else 0)
    models = run_disk(copies, kept, path)
    outputs = 0
    if context.task.language_model is None:  # what a teacher says of every token of a text is never kept
        outputs = outputs_on_disk(context, setup, student) + disk_of_stage_texts(context, setup)
    return {path: models + outputs} if config.cache.dir is None else {path: models, Path(config.cache.dir): outputs}


def most_checkpoints(stage: StageConfig, rows: int, config: Config) -> int:
    """Return how many checkpoints a stage has at a time, the one that is being written included.

    It writes one every so many steps, and at the end of an epoch unless that takes too much of its time.

    Args:
        stage: any phase that trains.
        rows: that it reads in an epoch.
        config: of the run.
    """
    rows = PACKED_TEXTS if stage.texts == PACKED else rows
    steps = math.ceil(math.ceil(rows / stage.batch_size) * stage.epochs)
    return min(KEPT + 1, steps // config.training.checkpoint_every + math.ceil(stage.epochs))


def outputs_on_disk(context: RunContext, setup: DistillationSetup, student: PreTrainedModel) -> int:
    """Return the most bytes that the teachers' outputs will take at a time, less what a shared cache holds of them.

    In the run folder what no later stage reads goes with the stage. A shared cache keeps all, up to its limit.
    """
    cache = context.config.cache
    readings = setup.readings
    sizes = {reading.group: _sizes(context, setup, student, reading.group) for reading in readings}
    there = _already_there(context, setup) if cache.dir is not None else set()

    def size(group: Group, read: Iterable[Reading]) -> int:
        """Return the bytes of what the readings of one group want; 0 where they are computed live."""
        texts, tokens, hidden = sizes[group]
        wanted = frozenset[Output]().union(*(reading.outputs for reading in read))
        if not is_worth_storing(readings, group):
            return 0
        new = (output for output in wanted if group[0] != "teacher" or output not in there)
        total = sum(output.bytes(texts, tokens, hidden) for output in new)
        return total if total <= cache.max_gigabytes * 1e9 else 0

    def alive(index: int) -> int:
        """Return the bytes of layer outputs while a stage runs: its own, and what later ones read of its teachers."""
        known = {reading.group for reading in readings[: index + 1]}
        return sum(size(group, [each for each in readings[index:] if each.group == group]) for group in known)

    logits = sum(LOGIT * texts * int(setup.teacher.config.num_labels or 0) for texts, _, _ in sizes.values())
    if cache.dir is None:
        return logits + max((alive(index) for index in range(len(readings))), default=0)
    everything = sum(size(group, [each for each in readings if each.group == group]) for group in sizes)
    return logits + min(everything, int(cache.max_gigabytes * 1e9))


def _sizes(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel, group: Group
) -> tuple[int, int, int]:
    """Return the texts and the tokens that the stages of a group read, and the width of the outputs."""
    whose, texts = group
    model = setup.teacher if whose == "teacher" else student
    hidden = width_of(model)
    if texts == PACKED:
        mean = mean_packed_length(positions_of(student))
        return PACKED_TEXTS, round(PACKED_TEXTS * mean), hidden
    read = count_stage_texts(context, setup.for_teacher if whose == "teacher" else setup)
    return read.rows, round(read.tokens), hidden


def _already_there(context: RunContext, setup: DistillationSetup) -> set[Output]:
    """Return the teacher's outputs that a shared cache holds, where this teacher is finished and reads train alone."""
    config = context.config
    more = config.augmentation.copies or setup.other is not None or context.unlabelled is not None
    if not setup.source.is_trained or more:
        return set()
    dtype: torch.dtype | None = autocast_dtype(context.run.accelerator)
    folder = Path(config.cache.dir or "") / teacher_fingerprint(setup.teacher, setup.for_teacher.train, dtype)
    return {output for reading in setup.readings for output in reading.outputs if output.path(folder).exists()}
