"""What every phase of a run reads: the task and its data, the teacher with its tokens, and the student built of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.schema import IMPORTANCE, Config, StageConfig
from distill.config.shape_search import ShapeSearch
from distill.data.auxiliary_tasks import texts_of_other_tasks
from distill.data.batching import TokenizedExamples, collate
from distill.data.labels import class_weights
from distill.data.splits import Splits, data_checksums, load_data, resolve_task
from distill.data.tokenization import tokenize
from distill.data.unlabelled import UnlabelledTexts, find_unlabelled
from distill.models.inputs import reading_of
from distill.models.positions import find_positions
from distill.models.summaries import count_summary_layers
from distill.objectives.capture_plan import CapturePlan, summary_targets
from distill.tasks import Task
from distill.training.accelerator import RunAccelerator, main_process_first, on_main_process
from distill.training.context import TrainingContext
from distill.training.label_scale import measure_label_scale
from distill.training.run_folder import SETTINGS_OF, RunFolder, create_run_folder, locked, update_config
from distill.training.trackers import start_trackers
from distill.utils.errors import UserError
from students import resolve_layer_map
from teachers.any_classifier import teacher_length
from teachers.earlier_student import load_earlier_student
from teachers.finetuning import starting_teacher, student_start
from teachers.loading import Teacher, settings_checksum, weights_checksum
from teachers.output_plan import Reading, plan_for, plan_readings


@dataclass(frozen=True)
class RunContext:
    """What every phase of a run reads."""

    config: Config
    run: TrainingContext
    folder: RunFolder
    task: Task
    splits: Splits
    unlabelled: UnlabelledTexts | None = None
    """Texts without labels, for the stages alone; they stay on disk."""

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
    unlabelled: TokenizedExamples | None
    teacher_layers: list[int]
    """Whose summary each student layer is matched with; empty where the teacher shows no layers."""
    max_length: int
    """Tokens of a text that the teacher is given."""
    reading: Mapping[str, Any]
    """How batches for it have to look, as `distill.models.inputs.reading_of` returns it."""


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
    unlabelled: TokenizedExamples | None = None
    """A sample of the texts without labels."""
    other_encoder: OtherEncoder | None = None
    """None where the student is made of the teacher."""
    earlier: PreTrainedModel | None = None
    """A student of the teacher's encoder whose layers the student starts with; None where it takes the teacher's."""
    search: ShapeSearch | None = None
    """The shapes to be tried, and the others that were timed; None where the student's shape is known."""

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

    @property
    def readings(self) -> list[Reading]:
        """What every stage reads of what it matches, in order."""
        return plan_readings(self.stages, *self._layers())

    def plan(self, stage: StageConfig) -> CapturePlan:
        """Return what a stage, or any other phase, captures of the student, and of what it matches."""
        return plan_for(stage, *self._layers())

    def _layers(self) -> tuple[list[int], int, list[int] | None]:
        """Return what `teachers.output_plan.plan_for` has to know of the layers of student and teacher."""
        num_layers = int(getattr(self.teacher.config, "num_hidden_layers", None) or 0)
        return self.layer_map, num_layers, None if self.other_encoder is None else self.other_encoder.teacher_layers


@dataclass(frozen=True)
class StageTexts:
    """What the stages read, row by row for both models."""

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
    place, unlabelled = config.data.unlabelled, None
    if place is not None:
        unlabelled = on_main_process(accelerator, lambda: find_unlabelled(task, place, splits))
    scale = measure_label_scale(splits.train.labels) if task.is_regression else None
    weights = class_weights(config.training.class_weights, task, splits.train.labels)
    training = TrainingContext(accelerator, config.training, config.seed, scale, weights)
    return RunContext(config, training, folder, task, splits, unlabelled)


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
    positions = find_positions(source.model)
    if positions is not None and positions < length:
        accelerator.print(
            f"teacher: reads texts of more than {positions} tokens in windows; the student reads up to "
            f"{config.data.max_length} at once"
        )
    if start is None:
        parts = tokenize_parts(context, source, length)
        earlier = main_process_first(accelerator, lambda: load_earlier_student(config, source))
        return DistillationSetup(source, is_ours, layer_map=layer_map, earlier=earlier, **parts)
    start.model.to(context.device)
    if length < config.data.max_length:
        accelerator.print(f"teacher: reads the first {length} of its tokens of a text, as many as it has positions")
    reading = reading_of(source.model, source.tokenizer)
    parts = tokenize_parts(context, source, length, **reading)
    batch, _ = collate(parts["train"], np.arange(1), context.device)
    shown = count_summary_layers(source.model.eval(), batch)
    layers = summary_targets(layer_map, start.model.config.num_hidden_layers, shown) if shown else []
    across = OtherEncoder(start, teacher_layers=layers, max_length=length, reading=reading, **parts)
    parts = tokenize_parts(context, start, config.data.max_length)
    return DistillationSetup(source, is_ours, layer_map=layer_map, other_encoder=across, **parts)


def tokenize_parts(context: RunContext, reader: Teacher, max_length: int, **reading: Any) -> dict[str, Any]:
    """Tokenise the data for a model.

    Args:
        reading: as `distill.models.inputs.reading_of` returns it; nothing for one whose layers are BERT's.

    Returns:
        What :class:`DistillationSetup` and :class:`OtherEncoder` call ``train``, ``held_out``, ``validation``,
        ``other`` and ``unlabelled``.
    """
    splits = context.splits
    parts = {"train": splits.train, "held_out": splits.held_out, **splits.validation}
    if splits.other is not None:
        parts["other"] = splits.other
    if context.unlabelled is not None:
        parts["unlabelled"] = context.unlabelled.sample
    tokens = on_main_process(
        context.run.accelerator,
        lambda: {name: tokenize(part, reader.tokenizer, max_length, **reading) for name, part in parts.items()},
    )
    own = {name: tokens.pop(name, None) for name in ("train", "held_out", "other", "unlabelled")}
    return own | {"validation": tokens}


def student_layer_map(config: Config, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher layer behind each student layer; evenly spread until the teacher can say which it needs.

    It is one until a search has found how many there are.

    Raises:
        UserError: the teacher has not enough layers, or an explicit map does not fit it.
    """
    wanted = config.student.layer_map
    wanted = "even" if wanted == IMPORTANCE else wanted
    num_layers = config.student.num_layers if config.student.target_speedup is None else 1
    try:
        return resolve_layer_map(wanted, num_layers, teacher.config.num_hidden_layers)
    except ValueError as error:
        raise UserError(f"student.num_layers, student.layer_map: {error}") from error


@contextmanager
def open_run_folder(context: RunContext) -> Iterator[None]:
    """Make the run folder, open the trackers, and keep other runs out of it while the block runs.

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
                "augmentation.masked_lm": config.augmentation.masked_lm,
            }
            inputs = data_checksums(context.splits)
            if context.unlabelled is not None:
                inputs["texts of data.unlabelled"] = context.unlabelled.checksum
            for name, path in checkpoints.items():
                if path is not None:
                    inputs[name] = weights_checksum(path)
                    if settings := settings_checksum(path):
                        inputs[SETTINGS_OF + name] = settings
            create_run_folder(config, folder, inputs)
            stack.enter_context(locked(folder))
            update_config(config, folder)
        accelerator.wait_for_everyone()
        start_trackers(accelerator, config)
        yield
