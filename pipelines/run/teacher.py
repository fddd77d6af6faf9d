"""The teacher of a run: fine-tuned, and checked."""

from dataclasses import replace

from distill.config.schema import IMPORTANCE
from distill.data.splits import data_fingerprint
from distill.evaluation.predict import logits_of, validation_metrics
from distill.training.accelerator import on_main_process, start_trackers
from distill.training.run_folder import create_run_folder, lock_run_folder
from distill.utils.findings import WARNING, Finding, raise_on_error
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.phase import in_words
from teachers.checks import calibration_warning, check_teacher, progress_warning
from teachers.finetuning import prepare_teacher
from teachers.layer_selection import most_needed_layers
from teachers.loading import freeze, weights_checksum


def finetune_teacher(context: RunContext, setup: DistillationSetup) -> DistillationSetup:
    """Bring the teacher to its end, check one that has only now learned the task, and choose among its layers.

    The run folder is made here, when everything that can be refused without training has been looked at: a folder
    left behind by a mistake would refuse the corrected command.
    """
    make_run_folder(context)
    if not setup.is_ours:
        prepare_teacher(
            context.run, context.config, context.task, setup.source, setup.train, setup.held_out, context.folder
        )
    freeze(setup.teacher)
    if not setup.source.finished:
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


def make_run_folder(context: RunContext) -> None:
    """Make the run folder and open TensorBoard in it."""
    if context.run.accelerator.is_main_process:
        weights = {
            f"{section}.checkpoint": checkpoint
            for section in ("teacher", "baseline")
            if (checkpoint := getattr(context.config, section).checkpoint) is not None
        }
        inputs = {name: weights_checksum(checkpoint) for name, checkpoint in weights.items()}
        create_run_folder(context.config, context.folder, data_fingerprint(context.splits) | inputs)
        lock_run_folder(context.folder)
    context.run.accelerator.wait_for_everyone()
    start_trackers(context.run.accelerator, context.config)


def check_on_validation(context: RunContext, setup: DistillationSetup) -> None:
    """Print the teacher's score on validation and refuse one that has nothing to teach."""
    task, margin = context.task, context.config.teacher.margin_over_majority
    logits, metrics = validation_metrics(context.run, task, setup.teacher, setup.validation)
    context.run.accelerator.print(f"teacher: {in_words(metrics)} on validation")
    for name, split_logits in logits.items():
        check_teacher(task, split_logits, setup.validation[name].labels, margin)


def warn_of_teacher(context: RunContext, setup: DistillationSetup) -> None:
    """Say what of a teacher that was fine-tuned here makes it a worse one than it could be."""
    metric = context.task.main_metric
    result = context.folder.result("teacher") or {}
    lines = [progress_warning([metrics[metric] for metrics in result.get("held_out", [])])]
    if not context.task.is_regression:
        logits = logits_of(context.run, setup.teacher, setup.held_out)
        lines.append(calibration_warning(logits, setup.held_out.labels))
    raise_on_error([Finding(WARNING, line) for line in lines if line])
