"""The student of a run: built out of the teacher, or loaded."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from distill.config.attention_fit import mechanism_of_student
from distill.data.batching import collate, padded_length
from distill.models.own_memory import in_own_memory
from distill.tasks import CAUSAL, MASKED
from distill.utils.errors import UserError, first_line
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.width import narrowed
from students import (
    STUDENTS,
    StudentForSequenceClassification,
    StudentPreTrainedModel,
    calibrate_temperature,
    student_from_teacher,
)
from teachers.earlier_student import take_layers

CALIBRATION_EXAMPLES = 64
AUTO_CLASSES: dict[str | None, Any] = {
    None: AutoModelForSequenceClassification,
    CAUSAL: AutoModelForCausalLM,
    MASKED: AutoModelForMaskedLM,
}
"""By the kind of a task's language model."""


def build_student(
    context: RunContext,
    source: PreTrainedModel,
    setup: DistillationSetup,
    attention: str | None = None,
    *,
    full_width: bool = False,
    quiet: bool = False,
    role: str = "student",
) -> StudentForSequenceClassification:
    """Build the configured student out of ``source``, set its temperatures and print which weights are copies.

    Args:
        source: as deep as the teacher; or a softmax student, whose layers are taken as they are.
        attention: other than the configured one: softmax.
        full_width: make it as wide as ``source``, whatever is configured.
        quiet: print nothing, for a student that is only looked at.
        role: what it is called where its weights are printed: student, or baseline.

    Raises:
        UserError: the settings do not fit the teacher's sizes.
    """
    settings = context.config.student
    if attention is not None:
        settings = replace(settings, attention=attention, attention_options={}, features="fixed", exact_up_to=0)
    mechanism = mechanism_of_student(settings, STUDENTS)
    temperature = settings.initial_temperature
    # A teacher of task text is one of our models too.
    same_depth = isinstance(source, StudentPreTrainedModel) and source is not setup.start and role != "baseline"
    layers = list(range(settings.num_layers)) if same_depth else setup.layer_map
    head_is_new = False
    if not full_width:
        source, head_is_new = narrowed(context, setup, source, layers, quiet=quiet, role=role)
        layers = list(range(len(layers))) if isinstance(source, StudentForSequenceClassification) else layers
    try:
        student, report = student_from_teacher(
            source,
            layer_map=layers,
            attention=settings.attention,
            num_features=settings.num_features if mechanism.uses_num_features else None,
            features=settings.features,
            seed=context.config.seed,
            softmax_layers=settings.softmax_layers,
            initial_temperature=1.0 if isinstance(temperature, str) else temperature,
            redraw_interval=settings.redraw_interval,
            exact_up_to=settings.exact_up_to,
            positions=padded_length(context.config.data.max_length),
            # Of one mechanism of several that are tried, its own.
            attention_options={k: v for k, v in settings.attention_options.items() if k in mechanism.options},
        )
    except ValueError as error:  # what does not fit the teacher's sizes, which the configuration does not know
        raise UserError(f"student: {first_line(error)}") from error
    head_is_new = head_is_new or any(name.startswith("classifier.") for name in report.new)
    if context.run.label_scale is not None and head_is_new:
        context.run.label_scale.restore_head(student)
    student.config.layer_map = setup.layer_map
    student.to(context.device)
    if setup.earlier is not None and attention is None:
        take_layers(student, setup.earlier, str(context.config.student.checkpoint))
    elif isinstance(temperature, str):
        sample = np.arange(min(CALIBRATION_EXAMPLES, len(setup.train)))
        calibrate_temperature(student, collate(setup.train, sample, context.device)[0])
    if not quiet:
        context.run.accelerator.print(f"{role}: {report.in_words()}")
    return student


def load_student(context: RunContext, folder: Path) -> StudentForSequenceClassification:
    """Load a student that a finished phase saved."""
    student: Any = AUTO_CLASSES[context.task.language_model].from_pretrained(folder)
    return in_own_memory(student).to(context.device)
