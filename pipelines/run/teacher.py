"""The teacher of a run: fine-tuned, and checked."""

from dataclasses import replace
from functools import partial

from transformers import PreTrainedModel

from distill.config.schema import IMPORTANCE
from distill.evaluation.metrics import HALF
from distill.evaluation.predict import logits_of, settle_threshold, validation_metrics
from distill.evaluation.thresholds import threshold_of
from distill.training.accelerator import main_process_first, on_main_process
from distill.utils.findings import WARNING, Finding, raise_on_error
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.phase import in_words
from teachers.checks import calibration_warning, check_teacher, progress_warning
from teachers.finetuning import prepare_teacher, starting_point
from teachers.layer_selection import most_needed_layers
from teachers.loading import freeze


def finetune_teacher(context: RunContext, setup: DistillationSetup) -> DistillationSetup:
    """Fine-tune the teacher unless it is trained, check it on validation, and choose among its layers."""
    if not setup.is_ours:
        if context.run.accelerator.is_main_process:
            context.folder.forget([stage.name for stage in setup.stages])
        read = setup.for_teacher
        prepare_teacher(
            context.run,
            context.config,
            context.task,
            setup.source,
            read.train,
            read.held_out,
            context.folder,
            partial(start_again, context),
        )
    freeze(setup.teacher)
    if not setup.source.is_trained:
        check_on_validation(context, setup)
        warn_of_teacher(context, setup)
    if context.config.student.layer_map != IMPORTANCE:
        return setup
    num_layers = context.config.student.num_layers
    layer_map = on_main_process(
        context.run.accelerator, lambda: most_needed_layers(setup.teacher, setup.train, num_layers)
    )
    context.run.accelerator.print(f"student: starts from layers {layer_map} of the teacher, which needs them most")
    return replace(setup, layer_map=layer_map)


def start_again(context: RunContext, seed: int) -> PreTrainedModel:
    """Return what the teacher starts from, with what is drawn drawn from another seed."""
    config = replace(context.config, seed=seed)

    def start() -> PreTrainedModel:
        return starting_point(config, context.task, context.splits).model

    model = main_process_first(context.run.accelerator, start)
    model.to(context.device)
    return model


def check_on_validation(context: RunContext, setup: DistillationSetup) -> None:
    """Print the teacher's score on validation and refuse one that has nothing to teach."""
    task, margin = context.task, context.config.teacher.margin_over_majority
    settle_threshold(task, setup.teacher, setup.for_teacher.held_out, context.device)
    logits, metrics = validation_metrics(context.run, task, setup.teacher, setup.for_teacher.validation)
    context.run.accelerator.print(f"teacher: {in_words(metrics)} on validation")
    by_name = setup.source.label_note is not None
    for name, split_logits in logits.items():
        labels, threshold = setup.validation[name].labels, threshold_of(setup.teacher) if task.multi_label else HALF
        check_teacher(task, split_logits, labels, margin, matched_by_name=by_name, threshold=threshold)


def warn_of_teacher(context: RunContext, setup: DistillationSetup) -> None:
    """Say what of a teacher that was fine-tuned here makes it a worse one than it could be."""
    if context.task.language_model is not None:
        return
    metric = context.task.main_metric
    result = context.folder.result("teacher") or {}
    lines = [progress_warning([metrics[metric] for metrics in result.get("held_out", []) if metric in metrics])]
    if not context.task.is_regression:
        logits = logits_of(context.run, setup.teacher, setup.for_teacher.held_out)
        lines.append(calibration_warning(context.task, logits, setup.held_out.labels))
    raise_on_error([Finding(WARNING, line) for line in lines if line])
