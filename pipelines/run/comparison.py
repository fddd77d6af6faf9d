"""The last phase of a run: teacher, student and baseline compared, and everything that people read."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from matplotlib.image import imread

from distill.benchmark.conditions import Models
from distill.benchmark.latency_table import BATCH_SIZE
from distill.config.attention_fit import read_fit
from distill.config.copies_choice import read_choice
from distill.config.schema import ComparisonConfig, Config
from distill.config.shape_search import ShapeSearch, read_search
from distill.config.student_start import other_encoder
from distill.evaluation.comparison import ComparisonSetup, compare_models
from distill.evaluation.disagreements import find_disagreements
from distill.evaluation.predictions_file import write_predictions
from distill.evaluation.record import write_record
from distill.evaluation.record_parts import StageEntry
from distill.export.alternatives import measure_alternatives
from distill.models.controls import full_width_control, softmax_control
from distill.models.flops import attention_name
from distill.reporting.answers import Answers
from distill.reporting.base_model import BaseModel, describe_base_model
from distill.reporting.model_card import write_model_card
from distill.reporting.record_tables import comparison_table
from distill.reporting.report import write_report
from distill.training.trackers import log_picture
from distill.utils.record_json import from_json
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.stage_texts import unlabelled_entry
from pipelines.run.student import load_student
from students import StudentForSequenceClassification
from teachers.cache_folder import STAGE_TOKENS


def compare_and_report(
    context: RunContext,
    setup: DistillationSetup,
    student: StudentForSequenceClassification,
    baseline: StudentForSequenceClassification | None,
) -> None:
    """Write predictions, record, report and model card, and print the table."""
    folder = context.folder
    results = {name: folder.result(name) or {} for name in ("teacher", *(each.name for each in setup.stages))}
    results["baseline"] = folder.result("baseline") or {}
    search = read_search(folder.path)
    context.run.accelerator.print("comparison: metrics and speed, also of the teacher in ONNX Runtime")
    record, frame = compare_models(
        ComparisonSetup(
            context.task,
            setup.validation,
            comparison_settings(context.config, search),
            context.device,
            context.config.seed,
            teacher_validation=None if setup.other_encoder is None else setup.other_encoder.validation,
        ),
        Models(
            setup.teacher,
            student.eval(),
            baseline=None if baseline is None else baseline.eval(),
            control=softmax_control(student),
            full_width=full_width_control(student, setup.teacher),
            folders={"teacher": folder.teacher, "student": folder.student},
        ),
        partial(measure_alternatives, softmax_student=before_its_attention(context, setup, student)),
        stages=[from_json(StageEntry, results[stage.name], f"stage {stage.name}") for stage in setup.stages],
        source=context.config.data.dir,
        training_precision=context.run.accelerator.mixed_precision,
        unlabelled=unlabelled_entry(context, setup),
        search=search,
        attention_fit=read_fit(folder.path),
        copies_choice=read_choice(folder.path),
    )
    if not context.run.accelerator.is_main_process:
        return
    write_predictions(frame, folder.path / "predictions.parquet")
    write_record(record, folder.record)
    write_model_card(
        record,
        folder.student,
        source=context.config.data.dir,
        task=context.task,
        base=base_model(context.config),
    )
    history = {name: result.get("history", []) for name, result in results.items()}
    if context.config.cache.dir is None:  # before the report, which marks the run as finished
        for name in ("teacher_outputs", STAGE_TOKENS):
            shutil.rmtree(folder.path / "checkpoints" / name, ignore_errors=True)
    disagreements = find_disagreements(context.task, frame, context.splits.validation)
    report = write_report(record, folder.path, disagreements, history, Answers(context.task, frame))
    for path in sorted((folder.path / "plots").glob("*.png")):
        log_picture(context.run.accelerator, path.stem, imread(path)[..., :3])
    print(comparison_table(record))
    print(f"report: {report}")


def comparison_settings(config: Config, search: ShapeSearch | None) -> ComparisonConfig:
    """Return what is measured; where a speed was asked for, the point that it was asked for too."""
    settings = config.comparison
    if search is None or not (settings.lengths and settings.batch_sizes):
        return settings
    lengths, batch_sizes = {*settings.lengths, search.length}, {*settings.batch_sizes, BATCH_SIZE}
    return replace(settings, lengths=sorted(lengths), batch_sizes=sorted(batch_sizes))


def base_model(config: Config) -> BaseModel | None:
    """Describe what the student is made of, and what taught it where that is another model."""
    teacher = describe_base_model(config.teacher.checkpoint)
    start = describe_base_model(other_encoder(config))
    if start is None:
        return teacher
    scratch = BaseModel("a BERT trained from scratch on the data named above", None, "none but that of the data")
    return replace(start, taught_by=teacher or scratch)


def before_its_attention(
    context: RunContext, setup: DistillationSetup, student: StudentForSequenceClassification
) -> Callable[[], StudentForSequenceClassification] | None:
    """Return how to load what the last stage with ``attention: softmax`` left; None where there is no such stage."""
    stages = [stage.name for stage in setup.stages if stage.attention == "softmax"]
    if not stages or attention_name(student.config) == "softmax":
        return None
    return lambda: load_student(context, context.folder.checked_model(stages[-1]))
