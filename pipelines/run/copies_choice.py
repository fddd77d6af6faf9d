"""The choice of altered copies: a student reads each kind in the softmax stages, and those that help are made.

What is known is written into the run folder after every kind, so that a run that is killed goes on with it. Of texts
without labels a trial reads the sample that is in memory.
"""

import json
import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np

from distill.config.copies_choice import NONE, CopiesChoice, TriedCopies, choice_file, read_choice, with_copies
from distill.config.schema import PACKED, StageConfig
from distill.data.augmentation import join
from distill.data.batching import subset
from distill.evaluation.metrics import HALF, compute_metrics
from distill.evaluation.predict import logits_of
from distill.evaluation.thresholds import threshold_of
from distill.reporting.copies_table import copies_cells
from distill.reporting.tables import text_table, without_gaps
from distill.training.accelerator import on_main_process
from distill.training.run_folder import update_config
from distill.utils.errors import DivergedError, UserError
from distill.utils.files import write_atomically
from distill.utils.record_json import to_json
from pipelines.run.context import DistillationSetup, RunContext, StageTexts
from pipelines.run.stage_texts import augmented_train, count_stage_texts
from pipelines.run.trial import telling_stages, try_stages

ASKED = 1000
"""Copies that the teacher is asked about, to see how far their labels can be known."""


def choose_copies(context: RunContext, setup: DistillationSetup) -> tuple[RunContext, DistillationSetup]:
    """Try every kind of copies, and return the run that makes those that bring a student nearer to its teacher.

    A run whose copies are known is returned as it is.
    """
    if not context.config.augmentation.choose:
        return context, setup
    say = context.run.accelerator.print
    choice = read_choice(context.folder.path)
    if choice is None or not choice.answers(context.config):
        choice = new_choice(context, setup)
    known = {each.kind for each in choice.tried}
    for kind in (NONE, *choice.candidates):
        if kind not in known:
            say("copies: none" if kind == NONE else f"copies: {choice.copies} of kind {kind}")
            tried = try_copies(context, setup, kind, choice)
            choice = replace(choice, tried=(*choice.tried, tried))
            keep_choice(context, choice)
    if all(each.divergence is None for each in choice.tried):
        raise UserError("augmentation.choose: no student could be trained, each loss was not finite; look at the data")
    choice = replace(choice, is_finished=True)
    keep_choice(context, choice)
    say(f"\n{text_table(without_gaps(copies_cells(choice)))}\n")
    config = with_copies(replace(context.config, stages=setup.stages), choice)
    stages, config = config.stages, with_copies(context.config, choice)
    if context.run.accelerator.is_main_process:
        update_config(config, context.folder)
    context.run.accelerator.wait_for_everyone()
    return replace(context, config=config), replace(setup, stages=stages)


def new_choice(context: RunContext, setup: DistillationSetup) -> CopiesChoice:
    """Return the choice that the configuration asks for, with nothing tried.

    Raises:
        UserError: no stage reads copies.
    """
    settings, stages = context.config.augmentation, stages_of_choice(setup)
    assert settings.copies is not None, "the recipe fills it in"
    if not stages:
        raise UserError("augmentation.choose: no stage of this run reads copies; leave it out")
    texts = count_stage_texts(context, setup).rows
    without = texts - settings.copies * len(setup.train)
    names = [stage.name for stage in stages]
    return CopiesChoice(settings.copies, list(settings.kinds), context.task.main_metric, names, texts, without)


def keep_choice(context: RunContext, choice: CopiesChoice) -> None:
    """Write down what is known, for a continuation of this run and for its record."""
    if context.run.accelerator.is_main_process:
        path = choice_file(context.folder.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(to_json(choice), indent=1))


def stages_of_choice(setup: DistillationSetup) -> tuple[StageConfig, ...]:
    """Return the stages in which a kind is tried, as long as they are for copies of all kinds together."""
    return tuple(stage for stage in telling_stages(setup.stages) if stage.texts != PACKED)


def of_equal_steps(stages: Iterable[StageConfig], kind: str, times: float) -> tuple[StageConfig, ...]:
    """Return the stages of a trial, of as many steps where it reads ``times`` fewer texts than the run will."""
    ends: dict[str, Any] = {"keep_best_epoch": False, "average_epochs": 1, "patience": None}
    return tuple(replace(stage, name=f"{stage.name}-{kind}", epochs=stage.epochs * times, **ends) for stage in stages)


def try_copies(context: RunContext, setup: DistillationSetup, kind: str, choice: CopiesChoice) -> TriedCopies:
    """Train a student with copies of one kind, or with none, and compare it with its teacher."""
    started = perf_counter()
    copies = 0 if kind == NONE else choice.copies
    kinds = choice.candidates if kind == NONE else [kind]
    augmentation = replace(context.config.augmentation, kinds=kinds, copies=copies, choose=False)
    alone = replace(context, config=replace(context.config, augmentation=augmentation))
    texts = with_sample(setup, augmented_train(alone, setup))
    stages = of_equal_steps(stages_of_choice(setup), kind, choice.texts / len(texts.examples))
    divergence = same = None
    with suppress(DivergedError):
        folder = choice_file(context.folder.path).parent / kind
        # the main process's, lest a last digit that differs makes two runs of one
        found = try_stages(context, setup, stages, texts, folder)
        divergence, same = on_main_process(context.run.accelerator, lambda: found)
    agrees = finite(agreement(context, setup, texts, copies))
    return TriedCopies(kind, finite(divergence), same, agrees, perf_counter() - started)


def finite(value: float | None) -> float | None:
    """Return a number, None where it is none."""
    return value if value is not None and math.isfinite(value) else None


def with_sample(setup: DistillationSetup, texts: StageTexts) -> StageTexts:
    """Return what the stages read, and the sample of the texts without labels where there are any."""
    own, theirs = setup.unlabelled, setup.for_teacher.unlabelled
    if own is None or theirs is None:
        return texts
    return StageTexts(join([texts.examples, own]), join([texts.for_teacher, theirs]))


def agreement(context: RunContext, setup: DistillationSetup, texts: StageTexts, copies: int) -> float:
    """Return the main metric of the teacher's answers to copies, by the labels of what they were made of.

    Args:
        copies: 0 asks about the texts themselves.
    """
    train, task = setup.for_teacher.train, context.task
    sources = np.random.default_rng(context.config.data.seed).permutation(len(train))[:ASKED]
    rows = sources + (len(train) if copies else 0)
    logits = logits_of(context.run, setup.teacher, subset(texts.for_teacher, rows))
    threshold = threshold_of(setup.teacher) if task.multi_label else HALF
    return compute_metrics(task, logits, train.labels[sources], threshold)[task.main_metric]
