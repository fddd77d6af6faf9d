"""A short run of one shape: a few steps of the run's own stages, and how near to the teacher they lead."""

import math
from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from distill.config.recipe import epochs_of
from distill.config.schema import EXACT_FORM, FULL, StageConfig
from distill.config.shape_search import SEARCH, StudentShape
from distill.evaluation.predict import held_out_scorer, logits_of
from distill.objectives.losses import logits_loss
from distill.training.context import StageInputs
from distill.training.loop import StageTrainer
from distill.utils.files import remove
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.student import build_student
from pipelines.run.width import differ_in_width
from teachers.output_cache import stage_targets

SHARE, FEWEST_STEPS = 0.125, 50
"""Of the steps of every stage; at least so many, or all."""


def trial_stages(setup: DistillationSetup, shape: StudentShape) -> tuple[StageConfig, ...]:
    """Return the stages of a shape's short run: those with softmax attention, where there are any.

    Depth and width are decided in them; the mechanism is the same for all shapes, and so is what fits it.
    """
    stages = [stage for stage in setup.stages if stage.attention == "softmax"]
    stages = stages or [stage for stage in setup.stages if stage.targets != EXACT_FORM]
    return tuple(_short(stage, shape, len(setup.train)) for stage in stages)


def _short(stage: StageConfig, shape: StudentShape, rows: int) -> StageConfig:
    steps = math.ceil(math.ceil(rows / stage.batch_size) * stage.epochs)
    fewer = min(steps, max(FEWEST_STEPS, round(SHARE * steps)))
    return replace(
        stage,
        name=f"{stage.name}-{shape.name}",
        epochs=epochs_of(fewer, rows, stage.batch_size),
        keep_best_epoch=False,
        average_epochs=1,
        patience=None,
    )


def try_shape(context: RunContext, setup: DistillationSetup, shape: StudentShape) -> tuple[float, float | None]:
    """Train a student of a shape for a short time and compare it with the teacher on held-out train.

    A short run that was interrupted starts anew: it is deterministic, and short.

    Returns:
        The mean divergence of its predictions, and the share of answers that are the same (None for a regression and
        for sets of labels).
    """
    run, task = context.run, context.task
    folder = context.folder.path / "checkpoints" / SEARCH / shape.name
    if run.accelerator.is_main_process:
        remove(folder)
    run.accelerator.wait_for_everyone()
    student = train_short(context, setup, shape, folder)
    logits = torch.from_numpy(logits_of(run, student, setup.held_out))
    wanted = torch.from_numpy(logits_of(run, setup.teacher, setup.for_teacher.held_out))
    divergence = logits_loss(logits, wanted, 1.0, multi_label=task.multi_label).mean().item()
    one_answer = not (task.is_regression or task.multi_label)
    if run.accelerator.is_main_process:
        remove(folder)
    return divergence, (logits.argmax(1) == wanted.argmax(1)).double().mean().item() if one_answer else None


def train_short(context: RunContext, setup: DistillationSetup, shape: StudentShape, folder: Path) -> PreTrainedModel:
    """Return a student of a shape after its short run."""
    run, across = context.run, setup.other_encoder is not None
    scorer = held_out_scorer(run, context.task, setup.held_out)
    stages = trial_stages(setup, shape)
    student, before = setup.start, None
    for stage in stages:
        if before is None or (stage.attention, stage.width) != (before.attention, before.width):
            student = build_student(
                context, student, setup, stage.attention, full_width=stage.width == FULL, quiet=before is None
            )
        plan = setup.plan(stage)
        targets = stage_targets(
            run.accelerator,
            setup.teacher,
            plan,
            setup.for_teacher.train,
            context.config.cache,
            context.folder.path / "checkpoints" / "teacher_outputs",
            epochs=stage.epochs,
            worth_storing=False,
            own_tokens=across,
        )
        inputs = StageInputs(setup.train, plan, targets.outputs, across_widths=differ_in_width(student, setup.teacher))
        StageTrainer(run, student, stage, inputs, folder / stage.name, scorer).run()
        targets.end()
        before = stage
    return student
