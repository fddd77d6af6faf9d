"""The run that an exported student comes from: found, checked to be the right one, and its report written again."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distill.config.data_options import data_options
from distill.config.data_schema import DataConfig
from distill.config.parsing import load_config
from distill.data.splits import Examples
from distill.evaluation.disagreements import find_disagreements
from distill.evaluation.metrics import HALF
from distill.evaluation.predictions_file import read_predictions
from distill.evaluation.record import Record
from distill.export.deployment import Reference
from distill.reporting.answers import Answers
from distill.reporting.base_model import describe_base_model
from distill.reporting.model_card import write_export_card, write_model_card
from distill.reporting.report import write_report
from distill.tasks import Task
from distill.training.run_folder import RunFolder
from distill.utils.errors import UserError

SAME_LOGITS = 0.01
"""Logits on another machine or in another batch differ by rounding, those of another student by far more."""


def find_run(student: str, run_dir: str | None) -> RunFolder | None:
    """Return the given run folder, or the one whose ``student/`` this is, or None."""
    if run_dir is not None:
        return RunFolder(Path(run_dir))
    folder = RunFolder(Path(student).resolve().parent)
    return folder if folder.record.exists() and folder.student == Path(student).resolve() else None


def task_and_data(folder: RunFolder | None, options: argparse.Namespace) -> tuple[str, DataConfig]:
    """Return the task and the data settings: those of the run's configuration, and over them what was given."""
    saved = folder.path / "config.yaml" if folder else None
    config = load_config(saved) if saved and saved.exists() else None
    name = options.task or (config.task if config else None)
    if name is None:
        raise UserError(f"--task is needed: {_why_no_task(options.student)}")
    return name, replace(config.data if config else DataConfig(), **data_options(options, name))


def _why_no_task(student: str) -> str:
    """Say where a student lies that is no finished run's, and what to give for it."""
    folder = Path(student).resolve()
    runs = (RunFolder(each) for each in folder.parents if (each / "config.yaml").is_file())
    run = next((each for each in runs if each.record.exists() or (each.path / "checkpoints").is_dir()), None)
    if run is None:
        return "the student lies in no run folder that says what it was trained for"
    if folder == run.student:
        return f"the run {run.path} is not finished; finish it, or give --task and --data.dir"
    role = next((name for name in ("teacher", "baseline") if folder == run.model(name)), None)
    what = f"is the {role}" if role else "is a model"
    return f"{student} {what} of the run {run.path}, not its student; to export it give --task and --data.dir"


def length_of_run(folder: RunFolder) -> int | None:
    """Return the longest text that a run's models were compared on, in tokens; None where it does not say."""
    saved = folder.path / "config.yaml"
    return load_config(saved).data.max_length if saved.exists() else None


def write_exported_card(
    folder: Path, run: RunFolder | None, record: Record | None, task: Task, data: DataConfig, sections: tuple[str, str]
) -> Path:
    """Write the card of a folder that a student was exported to: the student's own, with where the folder comes from.

    Args:
        folder: of the export.
        run: that the student comes from; None, as ``record``, for a student outside a run.
        record: of that run.
        task: what the student answers.
        data: that it was compared on.
        sections: the student's attention and the section about the export.
    """
    attention, export = sections
    if run is None or record is None:
        return write_export_card(folder, f"{attention.partition(',')[0]}-{task.name}", task, export)
    saved = run.path / "config.yaml"
    base = describe_base_model(load_config(saved).teacher.checkpoint) if saved.exists() else None
    return write_model_card(record, folder, source=data.dir, task=task, base=base, more=[export])


def check_same_student(folder: RunFolder, logits: Mapping[str, np.ndarray], splits: Sequence[str]) -> None:
    """Refuse a student, or data, that the record of the run is not about.

    Args:
        folder: with ``predictions.parquet``.
        logits: of the student in torch, (n, C) by split.
        splits: the validation splits of the task.

    Raises:
        UserError: the run's student predicted something else, or there are no predictions to tell by.
    """
    predicted = read_predictions(folder.path / "predictions.parquet")
    expected = np.stack(predicted["student_logits"].to_list())
    found = np.concatenate([logits[split] for split in splits])
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=SAME_LOGITS, atol=SAME_LOGITS):
        raise UserError(
            f"the student does not predict what {folder.path / 'predictions.parquet'} says; "
            "give the student of this run and the data that it was compared on"
        )


def answers_of_teacher(folder: RunFolder) -> Reference:
    """Return what the teacher of a run said of the validation examples."""
    predicted = read_predictions(folder.path / "predictions.parquet")
    by_split = predicted.groupby("split", sort=False)["teacher_logits"]
    threshold = float(predicted["teacher_threshold"].iloc[0]) if "teacher_threshold" in predicted else HALF
    return Reference({str(split): np.stack(logits.to_list()) for split, logits in by_split}, threshold)


def rewrite_report(folder: RunFolder, record: Record, task: Task, validation: Mapping[str, Examples]) -> Path:
    """Write the report of a run from its changed record and return the path of ``report.html``."""
    phases = ("teacher", *(stage.name for stage in record.stages), "baseline")
    history = {name: (folder.result(name) or {}).get("history", []) for name in phases}
    predicted = read_predictions(folder.path / "predictions.parquet")
    disagreements = find_disagreements(task, predicted, validation)
    return write_report(record, folder.path, disagreements, history, Answers(task, predicted))
