"""The phases between teacher and report: build the student, run its stages, train the baseline, compare."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from distill.batches import TokenizedExamples, collate, tokenize
from distill.clock import now
from distill.config import Config, StageConfig
from distill.data import Splits
from distill.errors import UserError
from distill.fidelity import layer_fidelity
from distill.loop import Progress, Run, train
from distill.run_folder import RunFolder, save_model
from distill.scoring import held_out_scorer, validation_metrics
from distill.stages import StagePlan, plan_stage
from distill.tasks import Task
from students import (
    StudentForSequenceClassification,
    calibrate_temperature,
    resolve_layer_map,
    student_from_teacher,
)
from teachers.load import Teacher
from teachers.prepare import label_free_start
from teachers.targets import Targets, stage_targets

CALIBRATION_EXAMPLES = 64

Validation = Mapping[str, TokenizedExamples]


def student_layer_map(config: Config, teacher: PreTrainedModel) -> list[int]:
    """Return the teacher layer behind each student layer.

    Raises:
        UserError: the teacher has not enough layers, or an explicit map does not fit it.
    """
    try:
        return resolve_layer_map(config.student.layer_map, config.student.num_layers, teacher.config.num_hidden_layers)
    except ValueError as error:
        raise UserError(f"student.num_layers, student.layer_map: {error}") from error


def build_student(
    config: Config, teacher: PreTrainedModel, attention: str, examples: TokenizedExamples
) -> StudentForSequenceClassification:
    """Build a student out of ``teacher`` as configured, and say which of its weights are copies."""
    settings = config.student
    calibrated = settings.initial_temperature == "calibrated"
    student, report = student_from_teacher(
        teacher,
        layer_map=student_layer_map(config, teacher),
        attention=attention,
        num_features=settings.num_features,
        features=settings.features,
        seed=config.seed,
        softmax_layers=settings.softmax_layers,
        initial_temperature=1.0 if calibrated else float(settings.initial_temperature),
        redraw_interval=settings.redraw_interval,
    )
    if calibrated:
        count = min(CALIBRATION_EXAMPLES, len(examples))
        calibrate_temperature(student, collate(examples, np.arange(count), 0, teacher.device))
    kinds = sorted({name.rsplit(".", 1)[-1] for name in report.new})
    print(f"student: {len(report.copied)} tensors copied from the teacher, {len(report.new)} new ({', '.join(kinds) or 'none'})")
    return student


def load_student(folder: Path) -> StudentForSequenceClassification:
    """Load a student that a finished phase saved."""
    return StudentForSequenceClassification.from_pretrained(folder)


def distil_stages(
    run: Run,
    config: Config,
    task: Task,
    teacher: Teacher,
    splits: Splits,
    validation: Validation,
    folder: RunFolder,
) -> tuple[StudentForSequenceClassification, list[dict[str, Any]]]:
    """Take the student through every stage and return it with the stages' results."""
    layer_map = student_layer_map(config, teacher.model)
    train_examples = tokenize(splits.train, teacher.tokenizer, config.data.max_length)
    held_out = tokenize(splits.held_out, teacher.tokenizer, config.data.max_length)
    student: StudentForSequenceClassification | None = None
    results: list[dict[str, Any]] = []
    for stage in config.stages:
        result = folder.result(stage.name)
        if result is None:
            if student is None:
                previous = folder.phase(results[-1]["name"]) / "student" if results else None
                student = load_student(previous) if previous else build_student(
                    config, teacher.model, config.student.attention, train_examples
                )
                student.to(run.accelerator.device)
            plan = plan_stage(stage, layer_map, teacher.model.config.num_hidden_layers)
            targets = stage_targets(
                run.accelerator, teacher.model, plan, train_examples, config.cache, folder.path / "checkpoints" / "cache", 0
            )
            scorer = held_out_scorer(run, task, held_out)
            progress = train(run, student, stage, plan, train_examples, folder.phase(stage.name), scorer, targets.outputs)
            _, metrics = validation_metrics(run, task, student, validation)
            fidelity = layer_fidelity(teacher.model, student, layer_map, held_out, 0)
            result = stage_result(stage, progress, len(train_examples), metrics, fidelity, targets)
            announce(run, result)
            if run.accelerator.is_main_process:
                save_model(student, teacher.tokenizer, folder.phase(stage.name) / "student")
                folder.finish(stage.name, result)
            run.accelerator.wait_for_everyone()
        results.append(result)
    if student is None:
        student = load_student(folder.phase(config.stages[-1].name) / "student").to(run.accelerator.device)
    if run.accelerator.is_main_process and not folder.student.exists():
        save_model(student, teacher.tokenizer, folder.student)
    return student, results


def stage_result(
    stage: StageConfig,
    progress: Progress,
    num_examples: int,
    metrics: Mapping[str, float],
    fidelity: Sequence[Mapping[str, float]],
    targets: Targets,
) -> dict[str, Any]:
    """Return what the record says of a finished stage."""
    return {
        "name": stage.name,
        "seconds": progress.seconds,
        "examples_per_second": num_examples * progress.epoch / progress.seconds,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch if stage.keep_best_epoch else None,
        "metrics": dict(metrics),
        "held_out": progress.held_out,
        "fidelity": list(fidelity),
        "teacher_cache": {
            "gigabytes": targets.gigabytes,
            "seconds_per_pass": targets.seconds_per_pass,
            "seconds_saved": targets.seconds_saved(progress.epoch),
        },
        "history": progress.history,
    }


def announce(run: Run, result: Mapping[str, Any]) -> None:
    """Print a finished stage in one line and send its metrics and fidelity to TensorBoard."""
    metrics = ", ".join(f"{name} {100 * value:.1f}" for name, value in result["metrics"].items())
    saved = result["teacher_cache"]["seconds_saved"]
    cache = f"; teacher outputs from disk saved {saved:.0f} s of teacher forward" if saved else ""
    run.accelerator.print(
        f"{result['name']}: {metrics} on validation; {result['seconds']:.0f} s, "
        f"{result['examples_per_second']:.0f} examples/s{cache}"
    )
    values = {f"{result['name']}/validation_{name}": value for name, value in result["metrics"].items()}
    for layer in result["fidelity"]:
        for kind in ("attention_output", "hidden_states"):
            values[f"{result['name']}/fidelity_{kind}/layer_{layer['layer']}"] = layer[kind]
    run.accelerator.log(values, step=int(result["history"][-1]["step"]) if result["history"] else 0)


def train_baseline(
    run: Run,
    config: Config,
    task: Task,
    teacher: Teacher,
    splits: Splits,
    validation: Validation,
    folder: RunFolder,
) -> StudentForSequenceClassification:
    """Train the same student on labels alone, for as many epochs as all stages together."""
    if folder.result("baseline") is not None:
        return load_student(folder.baseline).to(run.accelerator.device)
    train_examples = tokenize(splits.train, teacher.tokenizer, config.data.max_length)
    held_out = tokenize(splits.held_out, teacher.tokenizer, config.data.max_length)
    start = label_free_start(config, task, splits, teacher)
    baseline = build_student(config, start.model, config.student.attention, train_examples).to(run.accelerator.device)
    stage = StageConfig(
        name="baseline",
        epochs=config.baseline.epochs or sum(stage.epochs for stage in config.stages),
        learning_rate=config.baseline.learning_rate,
        losses={"labels": 1.0},
        train="all" if config.teacher.checkpoint is None else "encoder",
        dropout=True,
        batch_size=config.baseline.batch_size,
        keep_best_epoch=True,
    )
    started = now()
    scorer = held_out_scorer(run, task, held_out)
    progress = train(run, baseline, stage, StagePlan(), train_examples, folder.phase("baseline"), scorer)
    _, metrics = validation_metrics(run, task, baseline, validation)
    result = stage_result(stage, progress, len(train_examples), metrics, [], Targets(None))
    announce(run, result)
    if run.accelerator.is_main_process:
        save_model(baseline, teacher.tokenizer, folder.baseline)
        folder.finish("baseline", result)
    run.accelerator.wait_for_everyone()
    return baseline
