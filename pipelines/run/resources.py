"""What the phases of a run need of memory and disk, and who needs most; nothing is trained to know."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

from transformers import PreTrainedModel

from distill.config.schema import EXACT_FORM, FULL, PACKED, StageConfig
from distill.data.batching import TokenizedExamples, padded_length
from distill.data.text_windows import TextWindows, masked_count
from distill.models.linear_form import linear_form
from distill.models.positions import positions_of
from distill.models.summaries import SUMMARY, width_of
from distill.preflight.memory_estimate import (
    FLOAT,
    Memory,
    activation_memory,
    available_host_memory,
    available_memory,
    count,
    prediction_memory,
    state_memory,
)
from distill.preflight.resources import check_disk, check_memory, memory_table
from distill.training.accelerator import autocast_dtype, current_sharding
from distill.training.dropout import set_dropout
from distill.training.launcher import Sharding, read_launcher
from distill.training.optimizer import trainable, trained_part
from distill.utils.findings import Finding
from pipelines.run.baseline import baseline_stage
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.disk import disk_by_folder
from pipelines.run.student import build_student
from teachers.finetuning import finetuning_stage

Measured = dict[tuple[PreTrainedModel, str, bool, bool, int, int | None], tuple[int, int, int, int]]
"""Model, what of it is trained, dropout, whether in its linear form, tokens, and those whose predictions are computed;
to parameters, those trained, bytes of activations of one example, and of each more."""


def training_phases(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel
) -> list[tuple[StageConfig, PreTrainedModel]]:
    """Return every phase that trains, with a model of the kind that it trains."""
    tries = 0 if setup.source.is_trained else context.config.teacher.tries
    teacher = [(finetuning_stage(context.config), setup.teacher)] * tries
    stages = (*setup.stages, baseline_stage(context.config, setup))
    wider = student
    if any(stage.width == FULL for stage in stages):
        wider = build_student(context, setup.start, setup, "softmax", full_width=True, quiet=True)
    return [*teacher, *((stage, wider if stage.width == FULL else student) for stage in stages if stage.epochs)]


def look_at_memory(context: RunContext, setup: DistillationSetup, student: PreTrainedModel) -> Iterator[Finding]:
    """Check the phase that needs most."""
    sharding = current_sharding(context.run.accelerator)
    name, needs = largest_phase(context, setup, student)
    local = read_launcher().local_processes
    free, host = available_memory(context.device, local), available_host_memory() // local
    yield from check_memory(name, needs(sharding), sharding, context.device.type, free, host)


def look_at_disk(context: RunContext, setup: DistillationSetup, student: PreTrainedModel) -> Iterator[Finding]:
    """Check that what the run will write has room."""
    if context.run.accelerator.is_main_process:
        yield from check_disk(disk_by_folder(context, setup, student, training_phases(context, setup, student)))


def largest_phase(
    context: RunContext, setup: DistillationSetup, student: PreTrainedModel
) -> tuple[str, Callable[[Sharding], Memory]]:
    """Return the phase that needs most memory where one process trains, and its memory under any sharding."""
    measured: Measured = {}
    found = {
        stage.name: phase_memory(context, setup, model, stage, measured)
        for stage, model in training_phases(context, setup, student)
    }
    name = max(found, key=lambda phase: found[phase](Sharding()).total)
    return name, found[name]


def phase_memory(
    context: RunContext, setup: DistillationSetup, model: PreTrainedModel, stage: StageConfig, measured: Measured
) -> Callable[[Sharding], Memory]:
    """Return what one process needs for the longest batch of a phase, as a function of the sharding.

    Args:
        measured: of phases that train alike, which one forward pass answers for; what is new is put in.
    """
    resident = 0 if model is setup.teacher else FLOAT * count(setup.teacher)[0]
    read = setup.for_teacher if model is setup.teacher else setup
    parts = [read.train] if read.unlabelled is None else [read.train, read.unlabelled]
    longest = max(part.lengths.max() for part in parts)
    if stage.texts == PACKED:
        longest = positions_of(model)
    length = padded_length(int(longest))
    is_linear = stage.targets == EXACT_FORM
    predicted = predicted_tokens(read.train, stage, length)
    alike = (model, trained_part(model, stage), stage.dropout, is_linear, length, predicted)
    if alike not in measured:
        set_dropout(model, stage.dropout)  # that of attention keeps a map that the fused kernels never make
        with trainable(model, stage), linear_form(model) if is_linear else nullcontext():
            activations = activation_memory(model, length, autocast_dtype(context.run.accelerator), predicted)
            measured[alike] = (*count(model), *activations)
    parameters, trained, one, more = measured[alike]
    wanted = setup.plan(stage).teacher
    states = sum(len(layers) * (1 if kind == SUMMARY else length) for kind, layers in wanted.items())
    targets = states * width_of(setup.teacher) * FLOAT

    if isinstance(read.train, TextWindows):
        tokens = length if predicted is None else predicted
        targets += prediction_memory(stage.losses, tokens, model.config.vocab_size)

    def needs(sharding: Sharding) -> Memory:
        examples = -(-stage.batch_size // (sharding.processes * context.config.training.gradient_accumulation))
        return state_memory(parameters, trained, resident, one + (examples - 1) * more + examples * targets, sharding)

    return needs


def predicted_tokens(examples: TokenizedExamples, stage: StageConfig, length: int) -> int | None:
    """Return of how many tokens of a window predictions are computed in a stage; None: of all that there are."""
    if not isinstance(examples, TextWindows):
        return None
    if not stage.reads_logits:
        return 0
    return None if examples.masking is None else masked_count(length)


def print_memory_table(context: RunContext, setup: DistillationSetup) -> None:
    """Print what other ways to share out training would need."""
    student = build_student(context, setup.start, setup, quiet=True)
    name, needs = largest_phase(context, setup, student)
    half = context.run.accelerator.mixed_precision != "no"
    context.run.accelerator.print("\n".join([f"\nphase {name}", *memory_table(needs, half)]))
