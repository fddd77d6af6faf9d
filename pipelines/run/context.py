"""What every phase of a run reads: the task and its data, the teacher with its tokens, and the student built of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.schema import IMPORTANCE, Config, StageConfig
from distill.data.auxiliary_tasks import texts_of_other_tasks
from distill.data.batching import TokenizedExamples, collate
from distill.data.splits import Splits, data_checksums, load_data, resolve_task
from distill.data.tokenization import tokenize
from distill.models.inputs import reading_of
from distill.models.summaries import count_summary_layers
from distill.objectives.capture_plan import summary_targets
from distill.tasks import Task
from distill.training.accelerator import RunAccelerator, main_process_first, on_main_process, start_trackers
from distill.training.context import TrainingContext
from distill.training.label_scale import measure_label_scale
from distill.training.run_folder import RunFolder, create_run_folder, locked, update_config
from distill.utils.errors import UserError
from students import resolve_layer_map
from teachers.any_classifier import teacher_length
from teachers.finetuning import starting_teacher, student_start
from teachers.loading import Teacher, weights_checksum


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
class OtherEncoder:
    """Where ``student.checkpoint`` names what the student is made of: that encoder, and what the teacher reads."""

    start: Teacher
    """The encoder as a classifier, with its tokenizer."""
    train: TokenizedExamples
    """As its namesakes of :class:`DistillationSetup`, row by row, but in the teacher's tokens."""
    held_out: TokenizedExamples
    validation: Mapping[str, TokenizedExamples]
    other: TokenizedExamples | None
    teacher_layers: list[int]
    """Whose summary each student layer is matched with; empty where the teacher shows no layers."""
    max_length: int
    """Tokens of a text that the teacher is given."""


@dataclass(frozen=True)
class DistillationSetup:
    """The teacher, and the data in the student's tokens: the teacher's too, unless another encoder is named for it."""

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
    other_encoder: OtherEncoder | None = None
    """None where the student is made of the teacher."""

    @property
    def teacher(self) -> PreTrainedModel:
        return self.source.model

    @property
    def start(self) -> PreTrainedModel:
        """What the student is made of."""
        return self.teacher if self.other_encoder is None else self.other_encoder.start.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's."""
        return self.source.tokenizer if self.other_encoder is None else self.other_encoder.start.tokenizer

    @property
    def for_teacher(self) -> "DistillationSetup | OtherEncoder":
        """The data in the teacher's tokens."""
        return self if self.other_encoder is None else self.other_encoder


@dataclass(frozen=True)
class StageTexts:
    """What the stages read: train, its altered copies and the texts of other tasks, row by row for both models."""

    examples: TokenizedExamples
    """In the student's tokens."""
    for_teacher: TokenizedExamples
    """In the teacher's; the same where the student is made of it."""


def make_context(config: Config, accelerator: RunAccelerator, folder: RunFolder) -> RunContext:
    """Read the data; nothing is written yet."""

    def read() -> tuple[Task, Splits]:
        task = resolve_task(config.task, config.data)
        data, names = config.data, config.augmentation.tasks
        splits = load_data(task, data)
        other = texts_of_other_tasks(task, names, data.dir, splits, data.max_train_examples, data.seed)
        return task, replace(splits, other=other)

    task, splits = main_process_first(accelerator, read)
    scale = measure_label_scale(splits.train.labels) if task.is_regression else None
    return RunContext(config, TrainingContext(accelerator, config.training, config.seed, scale), folder, task, splits)


def make_setup(context: RunContext) -> DistillationSetup:
    """Load the teacher as it is so far and tokenise the data with its tokenizer; nothing is written yet."""
    config, task, splits, accelerator = context.config, context.task, context.splits, context.run.accelerator
    is_ours = context.folder.result("teacher") is not None
    source = main_process_first(accelerator, lambda: starting_teacher(config, task, splits, context.folder))
    source.model.to(context.device)
    start = main_process_first(accelerator, lambda: student_start(config, task, splits))
    for role, loaded in {"teacher": source, "student": start}.items():
        if loaded is not None and loaded.new_pooler:
            accelerator.print(f"{role}: the pooler of its encoder was never trained and is drawn anew")
        if loaded is not None and loaded.label_note:
            accelerator.print(loaded.label_note)
    length = config.data.max_length if start is None else teacher_length(source, config.data.max_length)
    layer_map = student_layer_map(config, (source if start is None else start).model)
    positions = int(getattr(source.model.config, "max_position_embeddings", None) or 0)
    if 0 < positions < length:
        accelerator.print(
            f"teacher: reads texts of more than {positions} tokens in windows; the student reads up to "
            f"{config.data.max_length} at once"
        )
    if start is None:
        own, validation, other = tokenize_parts(context, source, length)
        return DistillationSetup(source, is_ours, *own, validation, layer_map, other=other)
    start.model.to(context.device)
    if length < config.data.max_length:
        accelerator.print(f"teacher: reads the first {length} of its tokens of a text, as many as it has positions")
    reading = reading_of(source.model, source.tokenizer)
    own, validation, other = tokenize_parts(context, source, length, **reading)
    batch, _ = collate(own[0], np.arange(1), context.device)
    shown = count_summary_layers(source.model.eval(), batch)
    layers = summary_targets(layer_map, start.model.config.num_hidden_layers, shown) if shown else []
    across = OtherEncoder(start, *own, validation, other, layers, length)
    own, validation, other = tokenize_parts(context, start, config.data.max_length)
    return DistillationSetup(source, is_ours, *own, validation, layer_map, other=other, other_encoder=across)


def tokenize_parts(
    context: RunContext, reader: Teacher, max_length: int, **reading: Any
) -> tuple[tuple[TokenizedExamples, TokenizedExamples], dict[str, TokenizedExamples], TokenizedExamples | None]:
    """Tokenise the data for a model: train and held-out train, the validation splits, the texts of other tasks.

    Args:
        reading: as `distill.models.inputs.reading_of` returns it; nothing for a BERT.
    """
    splits = context.splits
    parts = {"train": splits.train, "held_out": splits.held_out, **splits.validation}
    if splits.other is not None:
        parts["other"] = splits.other
    tokens = on_main_process(
        context.run.accelerator,
        lambda: {name: tokenize(part, reader.tokenizer, max_length, **reading) for name, part in parts.items()},
    )
    return (tokens.pop("train"), tokens.pop("held_out")), tokens, tokens.pop("other", None)


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


@contextmanager
def open_run_folder(context: RunContext) -> Iterator[None]:
    """Make the run folder, open TensorBoard in it, and keep other runs out of it while the block runs.

    Everything that can be refused without training has been looked at by now: a folder left behind by a mistake would
    refuse the corrected command.
    """
    accelerator, config, folder = context.run.accelerator, context.config, context.folder
    with ExitStack() as stack:
        if accelerator.is_main_process:
            checkpoints = {
                "teacher.checkpoint": config.teacher.checkpoint,
                "baseline.checkpoint": config.baseline.checkpoint,
                "student.checkpoint": config.student.checkpoint,
            }
            weights = {name: weights_checksum(path) for name, path in checkpoints.items() if path is not None}
            create_run_folder(config, folder, data_checksums(context.splits) | weights)
            stack.enter_context(locked(folder))
            update_config(config, folder)
        accelerator.wait_for_everyone()
        start_trackers(accelerator, config)
        yield
