"""What every phase of a run reads: the task and its data, the teacher with its tokens, and the student built of it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.schema import IMPORTANCE, Config, StageConfig
from distill.data.auxiliary_tasks import texts_of_other_tasks
from distill.data.batching import TokenizedExamples
from distill.data.labels import class_weights
from distill.data.splits import Splits, data_checksums, load_data, resolve_task
from distill.data.tokenization import tokenize
from distill.data.unlabelled import UnlabelledTexts, find_unlabelled
from distill.models.positions import positions_of
from distill.tasks import Task
from distill.training.accelerator import RunAccelerator, main_process_first, on_main_process
from distill.training.context import TrainingContext
from distill.training.label_scale import measure_label_scale
from distill.training.run_folder import SETTINGS_OF, RunFolder, create_run_folder, locked, update_config
from distill.training.trackers import start_trackers
from distill.utils.errors import UserError
from students import resolve_layer_map
from teachers.finetuning import starting_teacher
from teachers.loading import Teacher, settings_checksum, weights_checksum


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
    unlabelled: TokenizedExamples | None = None
    """A sample of the texts without labels."""

    @property
    def teacher(self) -> PreTrainedModel:
        return self.source.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.source.tokenizer


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
    layer_map = student_layer_map(config, source.model)
    if source.new_pooler:
        accelerator.print("teacher: the pooler of its encoder was never trained and is drawn anew")
    if source.label_note:
        accelerator.print(source.label_note)
    positions = positions_of(source.model)
    if config.data.max_length > positions:
        accelerator.print(
            f"teacher: reads texts of more than {positions} tokens in windows; the student reads up to "
            f"{config.data.max_length} at once"
        )
    parts = {"train": splits.train, "held_out": splits.held_out, **splits.validation}
    if splits.other is not None:
        parts["other"] = splits.other
    if context.unlabelled is not None:
        parts["unlabelled"] = context.unlabelled.sample
    tokens = on_main_process(
        accelerator,
        lambda: {name: tokenize(part, source.tokenizer, config.data.max_length) for name, part in parts.items()},
    )
    own = tokens.pop("train"), tokens.pop("held_out")
    others: dict[str, Any] = {name: tokens.pop(name, None) for name in ("other", "unlabelled")}
    return DistillationSetup(source, is_ours, *own, tokens, layer_map, **others)


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
