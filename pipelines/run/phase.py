"""The end of a phase: its model scored and saved, its numbers printed, logged and kept."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.config.schema import StageConfig
from distill.evaluation.predict import validation_metrics
from distill.training.accelerator import flush_trackers
from distill.training.loop import Progress
from distill.training.run_folder import save_model
from pipelines.run.context import DistillationSetup, RunContext
from students import StudentForSequenceClassification
from teachers.output_cache import TeacherTargets


def record_phase(
    context: RunContext,
    setup: DistillationSetup,
    model: StudentForSequenceClassification,
    stage: StageConfig,
    progress: Progress,
    fidelity: Sequence[Mapping[str, float]],
    targets: TeacherTargets,
    destination: Path,
) -> None:
    """Score a trained model on validation, print and log the phase, save the model and mark the phase finished."""
    _, metrics = validation_metrics(context.run, context.task, model, setup.validation)
    epochs = min(stage.epochs, progress.epoch)  # of the last one perhaps a part
    saved = targets.seconds_saved(epochs)
    examples_per_second = progress.examples / progress.seconds
    result = {
        "name": stage.name,
        "seconds": progress.seconds,
        "checkpoint_seconds": progress.checkpoint_seconds,
        "examples_per_second": examples_per_second,
        "metrics": metrics,
        "fidelity": list(fidelity),
        "epochs": epochs,
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
    context.run.accelerator.print(
        f"{stage.name}: {in_words(metrics)} on validation; {progress.seconds:.0f} s, "
        f"{examples_per_second:.0f} examples/s{cache}"
    )
    values = {f"{stage.name}/validation_{name}": value for name, value in metrics.items()}
    for layer in fidelity:
        for kind in ("attention_output", "hidden_states"):
            values[f"{stage.name}/fidelity_{kind}/layer_{layer['layer']}"] = layer[kind]
    context.run.accelerator.log(values, step=progress.global_step)
    if context.run.accelerator.is_main_process:
        flush_trackers(context.run.accelerator)
        save_model(model, setup.tokenizer, destination)
        context.folder.finish(stage.name, result)
    context.run.accelerator.wait_for_everyone()


def in_words(metrics: Mapping[str, float]) -> str:
    """Return metrics as `accuracy 91.2, f1 88.0`, in percent."""
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
