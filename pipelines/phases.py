"""The phases of a run, in order: open, teacher, stages, baseline, comparison. Each is skipped once it is finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from distill.batches import TokenizedExamples, collate, tokenize
from distill.config import SCRATCH, Config, StageConfig
from distill.data import Splits, fingerprint, load_splits
from distill.errors import UserError
from distill.fidelity import layer_fidelity
from distill.launch import flush_trackers, main_process_first, on_main_process, start_trackers
from distill.loop import Progress, Run, train
from distill.run_folder import RunFolder, create_run_folder, occupy, save_model
from distill.scoring import held_out_scorer, validation_metrics
from distill.stages import StagePlan, plan_stage
from distill.tasks import Task, get_task
from students import (
    STUDENTS,
    CopyReport,
    StudentForSequenceClassification,
    calibrate_temperature,
    resolve_layer_map,
    student_from_teacher,
)
from teachers.checks import check_teacher
from teachers.load import Teacher, freeze, weights_checksum
from teachers.prepare import label_free_start, prepare_teacher, starting_teacher
from teachers.targets import Targets, stage_targets

CALIBRATION_EXAMPLES = 64


@dataclass(frozen=True)
class Work:
    """What every phase of a run reads."""

    config: Config
    run: Run
    folder: RunFolder
    task: Task
    splits: Splits

    @property
    def device(self) -> Any:
        return self.run.accelerator.device


@dataclass(frozen=True)
class Lesson:
    """The teacher, and the data in its tokens."""

    source: Teacher
    """The teacher as it was found; its model is the same object, fine-tuned in place."""
    is_ours: bool
    """Whether this run left it in its folder, earlier."""
    train: TokenizedExamples
    held_out: TokenizedExamples
    validation: Mapping[str, TokenizedExamples]
    layer_map: list[int]

    @property
    def teacher(self) -> PreTrainedModel:
        return self.source.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.source.tokenizer


def open_run(config: Config, accelerator: Accelerator, folder: RunFolder) -> Work:
    """Read the data; nothing is written yet."""

    def read() -> tuple[Task, Splits]:
        task = get_task(config.task, config.data)
        return task, load_splits(
            task,
            source=config.data.dir,
            seed=config.data.seed,
            max_train_examples=config.data.max_train_examples,
            held_out_fraction=config.data.held_out_fraction,
        )

    task, splits = main_process_first(accelerator, read)
    return Work(config, Run(accelerator, config.training, config.seed), folder, task, splits)


def open_lesson(work: Work) -> Lesson:
    """Load the teacher as it is so far and tokenise the data with its tokenizer; nothing is written yet."""
    config, task, splits, accelerator = work.config, work.task, work.splits, work.run.accelerator
    is_ours = work.folder.result("teacher") is not None
    source = main_process_first(accelerator, lambda: starting_teacher(config, task, splits, work.folder))
    source.model.to(work.device)
    layer_map = student_layer_map(config, source.model)
    parts = {"train": splits.train, "held_out": splits.held_out, **splits.validation}
    tokens = on_main_process(
        accelerator,
        lambda: {name: tokenize(part, source.tokenizer, config.data.max_length) for name, part in parts.items()},
    )
    return Lesson(source, is_ours, tokens.pop("train"), tokens.pop("held_out"), tokens, layer_map)


def teach(work: Work, lesson: Lesson) -> None:
    """Bring the teacher to its end, and check one that has only now learned the task.

    The run folder is made here, when everything that can be refused without training has been looked at: a folder
    left behind by a mistake would refuse the corrected command.
    """
    begin(work)
    if not lesson.is_ours:
        prepare_teacher(work.run, work.config, work.task, lesson.source, lesson.train, lesson.held_out, work.folder)
    freeze(lesson.teacher)
    if not lesson.source.finished:
        check_on_validation(work, lesson)


def begin(work: Work) -> None:
    """Make the run folder and open TensorBoard in it."""
    if work.run.accelerator.is_main_process:
        weights = {
            f"{section}.checkpoint": checkpoint
            for section in ("teacher", "baseline")
            if (checkpoint := getattr(work.config, section).checkpoint) is not None
        }
        inputs = {name: weights_checksum(checkpoint) for name, checkpoint in weights.items()}
        create_run_folder(work.config, work.folder, fingerprint(work.splits) | inputs)
        occupy(work.folder)
    work.run.accelerator.wait_for_everyone()
    start_trackers(work.run.accelerator, work.config)


def check_on_validation(work: Work, lesson: Lesson) -> None:
    """Print the teacher's score on validation and refuse one that has nothing to teach."""
    task, margin = work.task, work.config.teacher.margin_over_majority
    logits, metrics = validation_metrics(work.run, task, lesson.teacher, lesson.validation)
    work.run.accelerator.print(f"teacher: {in_words(metrics)} on validation")
    for name, split_logits in logits.items():
        check_teacher(task, split_logits, lesson.validation[name].labels, metrics[task.main_metric], margin)


def student_layer_map(config: Config, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher layer behind each student layer.

    Raises:
        UserError: the teacher has not enough layers, or an explicit map does not fit it.
    """
    try:
        return resolve_layer_map(config.student.layer_map, config.student.num_layers, teacher.config.num_hidden_layers)
    except ValueError as error:
        raise UserError(f"student.num_layers, student.layer_map: {error}") from error


def build_student(work: Work, source: PreTrainedModel, lesson: Lesson) -> StudentForSequenceClassification:
    """Build the configured student out of ``source`` and say which of its weights are copies."""
    student, report = make_student(work, source, lesson)
    work.run.accelerator.print(f"student: {report.in_words()}")
    return student


def make_student(
    work: Work, source: PreTrainedModel, lesson: Lesson
) -> tuple[StudentForSequenceClassification, CopyReport]:
    """Build the configured student out of ``source`` and set its temperatures."""
    settings = work.config.student
    temperature = settings.initial_temperature
    student, report = student_from_teacher(
        source,
        layer_map=lesson.layer_map,
        attention=settings.attention,
        num_features=settings.num_features if STUDENTS[settings.attention].uses_num_features else None,
        features=settings.features,
        seed=work.config.seed,
        softmax_layers=settings.softmax_layers,
        initial_temperature=1.0 if isinstance(temperature, str) else temperature,
        redraw_interval=settings.redraw_interval,
        attention_options=settings.attention_options,
    )
    student.to(work.device)
    if isinstance(temperature, str):
        sample = np.arange(min(CALIBRATION_EXAMPLES, len(lesson.train)))
        calibrate_temperature(student, collate(lesson.train, sample, work.device))
    return student, report


def load_student(work: Work, folder: Path) -> StudentForSequenceClassification:
    """Load a student that a finished phase saved."""
    student: StudentForSequenceClassification = AutoModelForSequenceClassification.from_pretrained(folder)
    return student.to(work.device)


def distil_stages(work: Work, lesson: Lesson) -> StudentForSequenceClassification:
    """Take the student through every stage that is not finished, and return it."""
    folder, stages = work.folder, work.config.stages
    finished = [stage.name for stage in stages if folder.result(stage.name) is not None]
    if finished:
        student = load_student(work, folder.phase(finished[-1]) / "student")
    else:
        student = build_student(work, lesson.teacher, lesson)
    for stage in stages[len(finished) :]:
        run_stage(work, lesson, student, stage)
    if work.run.accelerator.is_main_process and not folder.student.exists():
        save_model(student, lesson.tokenizer, folder.student)
    return student


def run_stage(work: Work, lesson: Lesson, student: StudentForSequenceClassification, stage: StageConfig) -> None:
    """Train the student in place through one stage, measure what it bought and mark it finished."""
    run, folder = work.run, work.folder
    plan = plan_stage(stage, lesson.layer_map, lesson.teacher.config.num_hidden_layers)
    cache_folder = folder.path / "checkpoints" / "teacher_outputs"
    targets = stage_targets(run.accelerator, lesson.teacher, plan, lesson.train, work.config.cache, cache_folder)
    scorer = held_out_scorer(run, work.task, lesson.held_out)
    progress = train(run, student, stage, plan, lesson.train, folder.phase(stage.name), scorer, targets.outputs)
    fidelity = layer_fidelity(lesson.teacher, student, lesson.layer_map, lesson.held_out)
    finish_phase(work, lesson, student, stage, progress, fidelity, targets, folder.phase(stage.name) / "student")


def train_baseline(work: Work, lesson: Lesson) -> StudentForSequenceClassification | None:
    """Train the same student on labels alone; None where the configuration wants no baseline."""
    config, folder = work.config, work.folder
    if config.baseline.epochs == 0:
        return None
    if folder.result("baseline") is not None:
        return load_student(work, folder.baseline)
    start = main_process_first(
        work.run.accelerator, lambda: label_free_start(config, work.task, work.splits, lesson.teacher)
    )
    baseline = build_student(work, start, lesson)
    stage = baseline_stage(config)
    scorer = held_out_scorer(work.run, work.task, lesson.held_out)
    progress = train(work.run, baseline, stage, StagePlan(), lesson.train, folder.phase("baseline"), scorer)
    finish_phase(work, lesson, baseline, stage, progress, [], Targets(None), folder.baseline)
    return baseline


def baseline_stage(config: Config) -> StageConfig:
    """Return the training of the baseline as a stage without a teacher, by default as long as all stages together."""
    epochs = config.baseline.epochs
    untrained = config.teacher.checkpoint is None or config.baseline.checkpoint == SCRATCH
    return StageConfig(
        name="baseline",
        epochs=sum(stage.epochs for stage in config.stages) if epochs is None else epochs,
        learning_rate=config.baseline.learning_rate,
        losses={"labels": 1.0},
        train="all" if untrained else "encoder",
        dropout=True,
        batch_size=config.baseline.batch_size,
        keep_best_epoch=True,
    )


def finish_phase(
    work: Work,
    lesson: Lesson,
    model: StudentForSequenceClassification,
    stage: StageConfig,
    progress: Progress,
    fidelity: Sequence[Mapping[str, float]],
    targets: Targets,
    destination: Path,
) -> None:
    """Score a trained model on validation, print and log the phase, save the model and mark the phase finished."""
    _, metrics = validation_metrics(work.run, work.task, model, lesson.validation)
    saved = targets.seconds_saved(progress.epoch)
    result = {
        "name": stage.name,
        "seconds": progress.seconds,
        "checkpoint_seconds": progress.checkpoint_seconds,
        "examples_per_second": len(lesson.train) * progress.epoch / progress.seconds,
        "metrics": metrics,
        "fidelity": list(fidelity),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch if stage.keep_best_epoch else None,
        "held_out": progress.held_out,
        "teacher_cache": {
            "gigabytes": targets.gigabytes,
            "seconds_per_pass": targets.seconds_per_pass,
            "seconds_saved": saved,
        },
        "history": progress.history,
    }
    cache = f"; teacher outputs from disk saved {saved:.0f} s" if saved else ""
    work.run.accelerator.print(
        f"{stage.name}: {in_words(metrics)} on validation; {progress.seconds:.0f} s, "
        f"{result['examples_per_second']:.0f} examples/s{cache}"
    )
    values = {f"{stage.name}/validation_{name}": value for name, value in metrics.items()}
    for layer in fidelity:
        for kind in ("attention_output", "hidden_states"):
            values[f"{stage.name}/fidelity_{kind}/layer_{layer['layer']}"] = layer[kind]
    work.run.accelerator.log(values, step=progress.global_step)
    if work.run.accelerator.is_main_process:
        flush_trackers(work.run.accelerator)
        save_model(model, lesson.tokenizer, destination)
        work.folder.finish(stage.name, result)
    work.run.accelerator.wait_for_everyone()


def in_words(metrics: Mapping[str, float]) -> str:
    """Return metrics as `accuracy 91.2, f1 88.0`, in percent."""
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
