"""What every phase of a run reads: the task and its data, the teacher with its tokens, and the student built of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from distill.config.recipe import Facts, Mechanism, choose_recipe
from distill.config.schema import IMPORTANCE, Config, StageConfig
from distill.data.auxiliary_tasks import texts_of_other_tasks
from distill.data.batching import TokenizedExamples, collate, padded_length
from distill.data.splits import Splits, load_splits, resolve_task
from distill.data.tokenization import tokenize
from distill.objectives.loss_fallbacks import replace_unsupported_losses
from distill.tasks import Task
from distill.training.accelerator import main_process_first, on_main_process
from distill.training.loop import TrainingContext
from distill.training.optimizer import feature_parameters
from distill.training.run_folder import RunFolder
from distill.utils.errors import UserError
from distill.utils.findings import Finding
from students import (
    STUDENTS,
    CopyReport,
    StudentForSequenceClassification,
    calibrate_temperature,
    resolve_layer_map,
    student_from_teacher,
)
from teachers.finetuning import starting_teacher
from teachers.loading import Teacher

CALIBRATION_EXAMPLES = 64


@dataclass(frozen=True)
class RunContext:
    """What every phase of a run reads."""

    config: Config
    run: TrainingContext
    folder: RunFolder
    task: Task
    splits: Splits

    @property
    def device(self) -> Any:
        return self.run.accelerator.device


@dataclass(frozen=True)
class DistillationSetup:
    """The teacher, and the data in its tokens."""

    source: Teacher
    """The teacher as it was found; its model is the same object, fine-tuned in place."""
    is_ours: bool
    """Whether this run left it in its folder, earlier."""
    train: TokenizedExamples
    held_out: TokenizedExamples
    validation: Mapping[str, TokenizedExamples]
    layer_map: list[int]
    stages: tuple[StageConfig, ...] = ()
    """What the student is taken through: :func:`stages_at_depth`, once the recipe is known."""
    other: TokenizedExamples | None = None
    """Texts of other tasks, for the stages alone."""

    @property
    def teacher(self) -> PreTrainedModel:
        return self.source.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.source.tokenizer


def make_context(config: Config, accelerator: Accelerator, folder: RunFolder) -> RunContext:
    """Read the data; nothing is written yet."""

    def read() -> tuple[Task, Splits]:
        task = resolve_task(config.task, config.data)
        data = config.data
        splits = load_splits(
            task,
            source=data.dir,
            seed=data.seed,
            max_train_examples=data.max_train_examples,
            held_out_fraction=data.held_out_fraction,
            validation_fraction=data.validation_fraction,
        )
        names = config.augmentation.tasks
        other = texts_of_other_tasks(task, names, data.dir, splits, data.max_train_examples, data.seed)
        return task, replace(splits, other=other)

    task, splits = main_process_first(accelerator, read)
    return RunContext(config, TrainingContext(accelerator, config.training, config.seed), folder, task, splits)


def make_setup(context: RunContext) -> DistillationSetup:
    """Load the teacher as it is so far and tokenise the data with its tokenizer; nothing is written yet."""
    config, task, splits, accelerator = context.config, context.task, context.splits, context.run.accelerator
    is_ours = context.folder.result("teacher") is not None
    source = main_process_first(accelerator, lambda: starting_teacher(config, task, splits, context.folder))
    source.model.to(context.device)
    layer_map = student_layer_map(config, source.model)
    if source.new_pooler:
        accelerator.print("teacher: the pooler of its encoder was never trained and is drawn anew")
    positions = source.model.config.max_position_embeddings
    if config.data.max_length > positions:
        accelerator.print(
            f"teacher: reads texts of more than {positions} tokens in windows; the student reads up to "
            f"{config.data.max_length} at once"
        )
    parts = {"train": splits.train, "held_out": splits.held_out, **splits.validation}
    if splits.other is not None:
        parts["other"] = splits.other
    tokens = on_main_process(
        accelerator,
        lambda: {name: tokenize(part, source.tokenizer, config.data.max_length) for name, part in parts.items()},
    )
    own, other = (tokens.pop("train"), tokens.pop("held_out")), tokens.pop("other", None)
    return DistillationSetup(source, is_ours, *own, tokens, layer_map, other=other)


def apply_recipe(context: RunContext, setup: DistillationSetup) -> tuple[RunContext, DistillationSetup, list[Finding]]:
    """Choose what the configuration leaves open, now that data and teacher are known, and the stages at this depth.

    Returns:
        The same with the recipe, and what it had to replace.

    Raises:
        UserError: there are too few examples to choose anything from.
    """
    settings, teacher = context.config.student, setup.teacher
    student, _ = make_student(context, teacher, setup)
    lengths = setup.train.lengths
    facts = Facts(
        rows=len(setup.train),
        is_pair=len(context.task.text_columns) > 1,
        long_share=float((lengths > settings.exact_up_to).mean()) if settings.exact_up_to else 0.0,
        hidden_size=int(teacher.config.hidden_size),
    )
    kind = STUDENTS[settings.attention]
    mechanism = Mechanism(settings.attention == "softmax", kind.trains_layers, bool(feature_parameters(student)))
    config, findings = replace_unsupported_losses(choose_recipe(context.config, facts, mechanism), kind)
    stages = stages_at_depth(config.stages, setup.layer_map, int(teacher.config.num_hidden_layers))
    if len(stages) < len(config.stages):
        context.run.accelerator.print(
            "student: as deep as the teacher, so that no stage with attention softmax is needed"
        )
    return replace(context, config=config), replace(setup, stages=stages), findings


def stages_at_depth(
    stages: tuple[StageConfig, ...], layer_map: Sequence[int], num_teacher_layers: int
) -> tuple[StageConfig, ...]:
    """Return the stages that a student of this depth needs.

    With all of the teacher's layers a softmax student is the teacher itself: its stages, which would train what is
    right already, are left out, and the teacher is matched in its place. A student whose stages are all of that kind
    keeps them.
    """
    left = tuple(replace(stage, targets="teacher") for stage in stages if stage.attention != "softmax")
    return left if left and list(layer_map) == list(range(num_teacher_layers)) else stages


def student_layer_map(config: Config, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher layer behind each student layer; evenly spread until the teacher can say which it needs.

    Raises:
        UserError: the teacher has not enough layers, or an explicit map does not fit it.
    """
    wanted = config.student.layer_map
    wanted = "even" if wanted == IMPORTANCE else wanted
    try:
        return resolve_layer_map(wanted, config.student.num_layers, teacher.config.num_hidden_layers)
    except ValueError as error:
        raise UserError(f"student.num_layers, student.layer_map: {error}") from error


def build_student(
    context: RunContext, source: PreTrainedModel, setup: DistillationSetup, attention: str | None = None
) -> StudentForSequenceClassification:
    """Build the configured student, or one with other ``attention``, and say which of its weights are copies."""
    student, report = make_student(context, source, setup, attention)
    context.run.accelerator.print(f"student: {report.in_words()}")
    return student


def make_student(
    context: RunContext, source: PreTrainedModel, setup: DistillationSetup, attention: str | None = None
) -> tuple[StudentForSequenceClassification, CopyReport]:
    """Build the configured student out of ``source`` and set its temperatures.

    Args:
        source: as deep as the teacher; or a softmax student, whose layers are taken as they are.
        attention: other than the configured one: softmax.
    """
    settings = context.config.student
    if attention is not None:
        settings = replace(settings, attention=attention, attention_options={}, features="fixed", exact_up_to=0)
    temperature = settings.initial_temperature
    same_depth = isinstance(source, StudentForSequenceClassification)
    student, report = student_from_teacher(
        source,
        layer_map=list(range(settings.num_layers)) if same_depth else setup.layer_map,
        attention=settings.attention,
        num_features=settings.num_features if STUDENTS[settings.attention].uses_num_features else None,
        features=settings.features,
        seed=context.config.seed,
        softmax_layers=settings.softmax_layers,
        initial_temperature=1.0 if isinstance(temperature, str) else temperature,
        redraw_interval=settings.redraw_interval,
        exact_up_to=settings.exact_up_to,
        positions=padded_length(context.config.data.max_length),
        attention_options=settings.attention_options,
    )
    student.config.layer_map = setup.layer_map
    student.to(context.device)
    if isinstance(temperature, str):
        sample = np.arange(min(CALIBRATION_EXAMPLES, len(setup.train)))
        calibrate_temperature(student, collate(setup.train, sample, context.device))
    return student, report


def load_student(context: RunContext, folder: Path) -> StudentForSequenceClassification:
    """Load a student that a finished phase saved."""
    student: StudentForSequenceClassification = AutoModelForSequenceClassification.from_pretrained(folder)
    return student.to(context.device)
