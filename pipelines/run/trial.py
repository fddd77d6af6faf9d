"""A trial: some steps of a run's own stages, of one shape say, and how near to the teacher they lead."""

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
from pipelines.run.context import DistillationSetup, RunContext, StageTexts
from pipelines.run.student import build_student
from pipelines.run.width import differ_in_width
from teachers.output_cache import stage_targets

SHARE, FEWEST_STEPS = 0.125, 50
"""Of the steps of every stage; at least so many, or all."""


def telling_stages(stages: tuple[StageConfig, ...]) -> tuple[StageConfig, ...]:
    """Return the stages of a trial: those with softmax attention, where there are any.

    Depth, width and what is read are decided in them; the mechanism is the same in all trials, and so is what fits it.
    """
    softmax = tuple(stage for stage in stages if stage.attention == "softmax")
    return softmax or tuple(stage for stage in stages if stage.targets != EXACT_FORM)


def trial_stages(setup: DistillationSetup, shape: StudentShape) -> tuple[StageConfig, ...]:
    """Return the stages of a shape's short run."""
    return tuple(_short(stage, shape, len(setup.train)) for stage in telling_stages(setup.stages))


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

    Returns:
        As `compare_with_teacher` does.
    """
    folder = context.folder.path / "checkpoints" / SEARCH / shape.name
    return try_stages(
        context, setup, trial_stages(setup, shape), StageTexts(setup.train, setup.for_teacher.train), folder
    )


def try_stages(
    context: RunContext, setup: DistillationSetup, stages: tuple[StageConfig, ...], texts: StageTexts, folder: Path
) -> tuple[float, float | None]:
    """Take a new student through some stages, for nothing but to see how near to the teacher they lead it.

    A trial that was interrupted starts anew: it is deterministic, and short.

    Args:
        texts: what the stages read.
        folder: of its checkpoints, which is removed in the end.

    Returns:
        As `compare_with_teacher` does.
    """
    is_main = context.run.accelerator.is_main_process
    if is_main:
        remove(folder)
    context.run.accelerator.wait_for_everyone()
    try:
        return compare_with_teacher(context, setup, train_trial(context, setup, stages, texts, folder))
    finally:
        if is_main:
            remove(folder)


def compare_with_teacher(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel
) -> tuple[float, float | None]:
    """Return how far a student's predictions are from the teacher's on held-out train.

    Returns:
        The mean divergence, and the share of answers that are the same (None for a regression and for sets of labels).
    """
    run, task = context.run, context.task
    logits = torch.from_numpy(logits_of(run, student, setup.held_out))
    wanted = torch.from_numpy(logits_of(run, setup.teacher, setup.for_teacher.held_out))
    divergence = logits_loss(logits, wanted, 1.0, multi_label=task.multi_label).mean().item()
    one_answer = not (task.is_regression or task.multi_label)
    return divergence, (logits.argmax(1) == wanted.argmax(1)).double().mean().item() if one_answer else None


def train_trial(
    context: RunContext, setup: DistillationSetup, stages: tuple[StageConfig, ...], texts: StageTexts, folder: Path
) -> PreTrainedModel:
    """Return a student after its trial."""
    run, across = context.run, setup.other_encoder is not None
    scorer = held_out_scorer(run, context.task, setup.held_out)
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
            texts.for_teacher,
            context.config.cache,
            context.folder.path / "checkpoints" / "teacher_outputs",
            epochs=stage.epochs,
            worth_storing=False,
            own_tokens=across,
        )
        inputs = StageInputs(
            texts.examples, plan, targets.outputs, across_widths=differ_in_width(student, setup.teacher)
        )
        try:
            StageTrainer(run, student, stage, inputs, folder / stage.name, scorer).run()
        finally:
            targets.end()
        before = stage
    return student
