"""Refuse stages, and a loss of the labels, that cannot work, in one line that names the key."""

import re
from collections.abc import Sequence
from typing import Any

from distill.config.choices import CHOICES
from distill.config.require import require, require_choice, require_positive
from distill.config.schema import (
    EXACT_FORM,
    FIRST_TOKEN,
    IMPORTANCE,
    LOSSES,
    PACKED,
    SOFTMAX_STUDENT,
    Config,
    StageConfig,
)
from distill.config.student_start import other_encoder
from distill.tasks import TASKS

TAKEN = ("teacher", "baseline", "teacher_outputs", "data", "stage_tokens", "search", "attention_fit", "copies_choice")
"""Names under `checkpoints/` that no stage may have."""
ACROSS_ENCODERS = ("hidden_states", "logits", "labels", "compression")
"""Losses that need no tokens in common with the teacher: the others compare token with token, or head with head."""


def check_stage_settings(stages: Sequence[StageConfig]) -> None:
    """Refuse what no attention mechanism makes work."""
    require(len(stages) > 0, "stages", [], "give at least one stage")
    names = [stage.name.casefold() for stage in stages]  # some file systems do not tell A from a
    require(len(set(names)) == len(names), "stages", names, "give every stage a name of its own")
    _check_order(stages)
    for stage in stages:
        _check_stage(stage)


def _check_stage(stage: StageConfig) -> None:
    section = f"stages.{stage.name}"
    short = bool(re.fullmatch(r"[\w-]{1,100}", stage.name))
    require(short, "stages.name", stage.name, "use letters, digits, _ and -, at most 100")
    is_free = stage.name.casefold() not in TAKEN and not re.fullmatch(r"teacher-\d+", stage.name.casefold())
    require(is_free, "stages.name", stage.name, "this name is taken by the run itself")
    require_positive(section, stage, ("epochs", "learning_rate", "feature_learning_rate", "temperature", "batch_size"))
    require_positive(section, stage, ("patience", "average_epochs"))
    one_end = stage.average_epochs == 1 or not stage.keep_best_epoch
    require(one_end, f"{section}.average_epochs", stage.average_epochs, "leave out keep_best_epoch, or this")
    require(0 < stage.layer_decay <= 1, f"{section}.layer_decay", stage.layer_decay, "give a share above 0, at most 1")
    require(len(stage.losses) > 0, f"{section}.losses", {}, f"give at least one of {', '.join(LOSSES)}")
    for name, weight in stage.losses.items():
        require_choice(f"{section}.losses", name, LOSSES)
        require(weight > 0, f"{section}.losses.{name}", weight, "give a weight above 0, or leave the loss out")
    require_positive(section, stage, ("final_temperature",))
    for name, weight in (stage.final_losses or {}).items():
        require(name in stage.losses, f"{section}.final_losses", name, "name only losses of the stage")
        require(weight >= 0, f"{section}.final_losses.{name}", weight, "give 0 or more")
    require_choice(f"{section}.train", stage.train, CHOICES["stages.train"])
    require_choice(f"{section}.inputs", stage.inputs, CHOICES["stages.inputs"])
    require_choice(f"{section}.texts", stage.texts, CHOICES["stages.texts"])
    labelled = stage.texts != PACKED or "labels" not in stage.losses
    require(labelled, f"{section}.losses", "labels", "packed texts have no labels; use another loss")
    allowed = {"attention_output", "attention_context", "attention_map"}
    only_attention = stage.inputs == "student" or set(stage.losses) <= allowed
    require(only_attention, f"{section}.inputs", "teacher", f"works only with the losses {', '.join(sorted(allowed))}")
    key = f"{section}.last_layer"
    require_choice(key, stage.last_layer, CHOICES["stages.last_layer"])
    alone = {"attention_output", "attention_context", "hidden_states", "logits", "labels"}
    per_token = stage.last_layer == "all" or set(stage.losses) <= alone
    require(per_token, key, FIRST_TOKEN, f"works only with the losses {', '.join(sorted(alone))}")


def _check_order(stages: Sequence[StageConfig]) -> None:
    """Refuse softmax attention in a stage behind the mechanism's own, and targets that no stage has left."""
    for before, stage in zip((None, *stages), stages, strict=False):
        key = f"stages.{stage.name}"
        is_first = before is None or before.attention == "softmax"
        require_choice(f"{key}.targets", stage.targets, CHOICES["stages.targets"])
        if stage.attention is not None:
            require_choice(f"{key}.attention", stage.attention, CHOICES["stages.attention"])
            require(is_first, f"{key}.attention", "softmax", "put it before the stages without it")
            require(stage.targets == "teacher", f"{key}.targets", stage.targets, "works only after such a stage")
    if any(stage.targets == SOFTMAX_STUDENT for stage in stages):
        left = stages[0].attention == "softmax"
        require(left, "stages.targets", "softmax_student", "no stage with attention: softmax comes before it")


def check_widths(config: Config) -> None:
    """Refuse stages of full width where the student has that anyway, or behind those of the narrower student."""
    student = config.student
    sizes = student.hidden_size, student.intermediate_size, student.num_heads, student.target_speedup
    is_narrower = any(size is not None for size in sizes)
    for before, stage in zip((None, *config.stages), config.stages, strict=False):
        if stage.width is None:
            continue
        key = f"stages.{stage.name}.width"
        require_choice(key, stage.width, CHOICES["stages.width"])
        advice = "the student has full width anyway; set student.hidden_size, num_heads or intermediate_size, or null"
        require(is_narrower, key, stage.width, advice)
        softmax = "what is kept is taken out of a student with softmax attention; add attention: softmax"
        require(stage.attention == "softmax", key, stage.width, softmax)
        is_first = before is None or before.width == stage.width
        require(is_first, key, stage.width, "put it before the stages without it")


def check_label_loss(config: Config) -> None:
    """Refuse weights of classes and label smoothing that cannot be, or where there are no classes.

    How many weights there must be is known with the data, and checked by `distill.data.labels.class_weights`.
    """
    training, data = config.training, config.data
    weights, smoothing = training.class_weights, training.label_smoothing
    if isinstance(weights, str):
        require_choice("training.class_weights", weights, CHOICES["training.class_weights"])
    elif weights is not None:
        right = len(weights) > 1 and min(weights) >= 0 and max(weights) > 0
        require(right, "training.class_weights", weights, "give a weight of 0 or more for every class, not all 0")
    require(0 <= smoothing < 1, "training.label_smoothing", smoothing, "give a share from 0 to below 1")
    is_regression = data.regression or (config.task in TASKS and TASKS[config.task].is_regression)
    kind = "a regression" if is_regression else "data.multi_label" if data.multi_label else None
    if kind is not None:
        require(weights is None, "training.class_weights", weights, f"{kind} has no classes to weigh; leave it out")
        advice = f"{kind} has no classes to smooth over; set it to 0"
        require(smoothing == 0, "training.label_smoothing", smoothing, advice)


def check_losses(stage: StageConfig, attention: str, mechanism: Any) -> None:
    """Refuse a loss that nothing stands in for; `distill.objectives.loss_fallbacks` replaces the others.

    And refuse to fit an attention mechanism to softmax attention that does not estimate it.
    """
    fits = stage.targets != EXACT_FORM or mechanism.estimates_softmax
    advice = f"{attention} attention does not estimate softmax attention; choose another"
    require(fits, f"stages.{stage.name}.targets", stage.targets, advice)
    key = f"stages.{stage.name}.losses"
    for name in stage.losses:
        if not mechanism.trains_layers:
            way_out = f"{attention} keeps its layers as they are; use logits or labels"
            require(name in ("logits", "labels"), key, name, way_out)
        compresses = name != "compression" or hasattr(mechanism, "compression_loss")
        require(compresses, key, name, f"{attention} attention has none; leave it out")


def check_other_encoder(config: Config) -> None:
    """Refuse what a student made of another encoder than its teacher cannot do, and what only such a one needs."""
    start, teacher = other_encoder(config), config.teacher
    if start is None:
        way_out = "only a teacher of any kind brings code; name the BERT encoder of the student as student.checkpoint"
        require(not teacher.trust_remote_code, "teacher.trust_remote_code", True, way_out)
        return
    advice = f"it counts the teacher's layers, and the student is made of {start}; give even, first, last or a list"
    require(config.student.layer_map != IMPORTANCE, "student.layer_map", IMPORTANCE, advice)
    for stage in config.stages:
        if stage.targets != "teacher":
            continue
        key = f"stages.{stage.name}"
        why = f"student.checkpoint {start} reads other tokens than the teacher"
        for name in stage.losses:
            allowed = ", ".join(ACROSS_ENCODERS)
            require(name in ACROSS_ENCODERS, f"{key}.losses", name, f"{why}; use {allowed}, or write stages: auto")
        advice = f"{why}, whose activations it cannot take over; use student"
        require(stage.inputs == "student", f"{key}.inputs", stage.inputs, advice)
        advice = f"{why}, which cannot read texts joined of the student's; use train, or targets: exact_form"
        require(stage.texts != PACKED, f"{key}.texts", PACKED, advice)
