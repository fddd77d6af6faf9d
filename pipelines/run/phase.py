"""The end of a phase: its model scored and saved, its numbers printed, logged and kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from distill.config.schema import StageConfig
from distill.evaluation.record_parts import Shape
from distill.models.flops import FLOPS_LENGTH, attention_name, model_flops
from distill.tasks import TEXT_METRICS
from distill.training.progress import Progress
from distill.training.run_folder import save_model
from distill.training.trackers import flush_trackers, log_figures
from distill.utils.record_json import to_json
from pipelines.run.context import DistillationSetup, RunContext
from teachers.output_cache import TeacherTargets


@dataclass(frozen=True)
class PhaseResult:
    """What a phase that was trained leaves to be told."""

    stage: StageConfig
    progress: Progress
    metrics: Mapping[str, float]
    """On validation."""
    fidelity: Sequence[Mapping[str, float]] = ()
    """Layer by layer; none of a model that matches no teacher."""
    targets: TeacherTargets = field(default_factory=lambda: TeacherTargets(None))

    @property
    def epochs(self) -> float:
        """Epochs that were trained, of the last one perhaps a part."""
        return min(self.stage.epochs, self.progress.epoch)

    @property
    def examples_per_second(self) -> float:
        return self.progress.examples / self.progress.seconds

    def entry(self) -> dict[str, Any]:
        """Return the entry of the phase in the record, its loss history included."""
        progress, targets = self.progress, self.targets
        return {
            "name": self.stage.name,
            "seconds": progress.seconds,
            "checkpoint_seconds": progress.checkpoint_seconds,
            "examples_per_second": self.examples_per_second,
            "metrics": dict(self.metrics),
            "fidelity": list(self.fidelity),
            "epochs": self.epochs,
            "best_epoch": progress.best_epoch if self.stage.keep_best_epoch else None,
            "held_out": progress.held_out,
            "teacher_cache": {
                "gigabytes": targets.gigabytes,
                "seconds_per_pass": targets.seconds_per_pass,
                "seconds_saved": targets.seconds_saved(self.epochs),
            },
            "history": progress.history,
        }

    def line(self) -> str:
        """Say the phase in one line."""
        saved = self.targets.seconds_saved(self.epochs)
        cache = f"; teacher outputs from disk saved {saved:.0f} s" if saved else ""
        return (
            f"{self.stage.name}: {in_words(self.metrics)} on validation; {self.progress.seconds:.0f} s, "
            f"{self.examples_per_second:.0f} examples/s{cache}"
        )

    def scalars(self) -> dict[str, float]:
        """Return what trackers show of it, by name."""
        name = self.stage.name
        values = {f"{name}/validation_{metric}": value for metric, value in self.metrics.items()}
        for layer in self.fidelity:
            for kind in ("attention_output", "hidden_states"):
                values[f"{name}/fidelity_{kind}/layer_{layer['layer']}"] = layer[kind]
        return values


def record_phase(context: RunContext, setup: DistillationSetup, model: PreTrainedModel, result: PhaseResult) -> None:
    """Print and log a phase, save its model and mark the phase finished."""
    accelerator = context.run.accelerator
    accelerator.print(result.line())
    log_figures(accelerator, result.scalars(), result.progress.global_step)
    if accelerator.is_main_process:
        flush_trackers(accelerator)
        save_model(model, setup.tokenizer, context.folder.model(result.stage.name))
        context.folder.finish(result.stage.name, result.entry() | shape_of(model))
    accelerator.wait_for_everyone()


def shape_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return how large a student is, as its stage's entry says it; nothing of any other model."""
    config: Any = model.config
    if not hasattr(config, "of_layer"):
        return {}
    layers = [config.of_layer(layer) for layer in range(config.num_hidden_layers)]
    shape = Shape(
        attention=attention_name(config),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden_size=config.hidden_size,
        num_heads=tuple(layer.num_attention_heads for layer in layers),
        intermediate_size=tuple(layer.intermediate_size for layer in layers),
        flops=model_flops(config, FLOPS_LENGTH),
        flops_length=FLOPS_LENGTH,
    )
    return {"shape": to_json(shape)}


def in_words(metrics: Mapping[str, float]) -> str:
    """Return metrics as `accuracy 91.2, f1 88.0`, in percent; those of a language model as they are."""
    if metrics.keys() <= set(TEXT_METRICS):
        return ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items())
    return ", ".join(f"{name} {100 * value:.1f}" for name, value in metrics.items())
