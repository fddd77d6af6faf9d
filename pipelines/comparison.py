"""The last phase of a run: teacher, student and baseline compared, and everything that people read."""

import shutil
from typing import Any

import numpy as np

from distill.card import write_model_card
from distill.classifiers import softmax_control
from distill.compare import CompareSettings, compare_models
from distill.metrics import predictions
from distill.predictions import write_predictions
from distill.record import write_record
from distill.report import write_report
from distill.table import comparison_table
from pipelines.phases import Lesson, Work
from students import StudentForSequenceClassification

MAX_DISAGREEMENTS = 20


def compare_and_report(
    work: Work, lesson: Lesson, student: StudentForSequenceClassification, baseline: StudentForSequenceClassification
) -> None:
    """Write predictions, record, report and model card, and print the table."""
    settings = work.config.comparison
    folder = work.folder
    stages = [folder.result(stage.name) or {} for stage in work.config.stages]
    results = {"teacher": folder.result("teacher") or {}, **{stage["name"]: stage for stage in stages}}
    results["baseline"] = folder.result("baseline") or {}
    record, frame = compare_models(
        work.task,
        lesson.teacher,
        student.eval(),
        baseline.eval(),
        softmax_control(student),
        lesson.validation,
        CompareSettings(
            tuple(settings.batch_sizes),
            tuple(settings.lengths),
            settings.dtype,
            settings.seconds_per_point,
            settings.resamples,
            settings.memory,
        ),
        device=work.device,
        pad_token_id=work.run.pad_token_id,
        seed=work.config.seed,
        stages=[{key: value for key, value in stage.items() if key != "history"} for stage in stages],
        folders={"teacher": folder.teacher, "student": folder.student},
    )
    if not work.run.accelerator.is_main_process:
        return
    write_predictions(frame, folder.path / "predictions.parquet")
    write_record(record, folder.record)
    write_model_card(record, folder.student, source=work.config.data.dir)
    history = {name: result.get("history", []) for name, result in results.items()}
    report = write_report(record, folder.path, disagreements(work, frame), history)
    if work.config.cache.dir is None:
        shutil.rmtree(folder.path / "checkpoints" / "teacher_outputs", ignore_errors=True)
    print(comparison_table(record))
    print(f"report: {report}")


def disagreements(work: Work, frame: Any) -> list[dict[str, Any]]:
    """Return examples of the first validation split that teacher and student answer differently, the surest first."""
    task = work.task
    split, examples = next(iter(work.splits.validation.items()))
    rows = frame[frame["split"] == split] if "split" in frame else frame
    answers = {role: np.stack(rows[role].to_numpy()) for role in ("teacher", "student")}
    gap = np.abs(answers["teacher"] - answers["student"]).max(1)
    if not task.is_regression:
        same = predictions(task, answers["teacher"]) == predictions(task, answers["student"])
        gap = np.where(same, 0.0, gap)
    found = []
    for position in np.argsort(-gap, kind="stable")[:MAX_DISAGREEMENTS]:
        if gap[position] == 0:
            break
        given = {role: predictions(task, answers[role][position : position + 1])[0] for role in answers}
        given["label"] = examples.labels[position]
        named = {key: float(v) if task.is_regression else task.label_names[int(v)] for key, v in given.items()}
        found.append({"text": list(examples.texts[position]), **named})
    return found
