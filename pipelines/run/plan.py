"""What a run is about to train, in optimizer steps, and about how long each phase takes on this machine."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.config.schema import PACKED, StageConfig
from distill.data.batching import TokenizedExamples, collate
from distill.data.packing import PACKED_TEXTS, mean_packed_length
from distill.data.splits import Examples
from distill.models.inputs import accepted_inputs
from distill.models.positions import positions_of
from distill.training.accelerator import autocast_dtype
from distill.training.dropout import set_dropout
from distill.training.optimizer import parameter_groups
from pipelines.run.context import DistillationSetup, RunContext
from pipelines.run.stage_texts import TextCount, count_stage_texts, disk_of_stage_texts, readers

PROBED = 8
"""Examples of median length in the batch that is timed."""
TOKENISED = 1000
"""Texts without labels that are tokenised to see how long that takes."""
OPTIMIZER_SECONDS = 2.5e-9
"""AdamW per trained parameter on a CPU; nothing beside the rest on a GPU."""
ATTENTION_SHARE = 0.4
"""Of a step, where only the attention blocks are computed, each on the teacher's activations."""


@dataclass(frozen=True)
class Phase:
    """One line of the plan."""

    name: str
    steps: int
    epochs: float
    batch_size: int
    learning_rate: float
    seconds: float


def plan_lines(
    context: RunContext, setup: DistillationSetup, phases: list[tuple[StageConfig, PreTrainedModel]]
) -> Iterator[str]:
    """Yield the table of phases that train, with their steps and an estimate of their time.

    Args:
        phases: every phase that trains, with a model of the kind that it trains.
    """
    if not phases:
        return
    planned = plan_phases(context, setup, phases)
    seconds = seconds_of_tokenising(context, setup)
    yield f"{'phase':16}{'steps':>7}{'epochs':>9}{'batch':>7}{'learning rate':>15}{'about':>10}"
    for phase in planned:
        yield (
            f"{phase.name:16}{phase.steps:7,}{phase.epochs:9.4g}{phase.batch_size:7}{phase.learning_rate:15.2g}"
            f"{in_words(phase.seconds):>10}"
        )
    if seconds:
        yield f"{'tokenising the texts without labels':54}{in_words(seconds):>10}"
    if len(planned) > 1:
        seconds += sum(phase.seconds for phase in planned)
        yield f"{'all of them':54}{in_words(seconds):>10}, then the comparison"


def plan_phases(
    context: RunContext, setup: DistillationSetup, phases: list[tuple[StageConfig, PreTrainedModel]]
) -> list[Phase]:
    """Return the phases with the seconds that steps like theirs take now."""
    texts, read_by_teacher = count_stage_texts(context, setup), setup.for_teacher
    dtype = autocast_dtype(context.run.accelerator)

    @cache
    def pace(model: PreTrainedModel, dropout: bool) -> tuple[float, float]:
        examples = read_by_teacher.train if model is setup.teacher else setup.train
        return seconds_per_token(model, examples, dtype, dropout=dropout)

    planned = []
    for stage, model in phases:
        forward, step = pace(model, stage.dropout)
        own = read_by_teacher if model is setup.teacher else setup
        read = texts
        if set(stage.losses) == {"labels"}:
            read = TextCount(len(own.train), len(own.train.token_ids))
        rows, tokens = read.rows, read.tokens / read.rows
        if stage.texts == PACKED:
            positions = positions_of(model)
            rows, tokens = PACKED_TEXTS, mean_packed_length(positions)
        steps = math.ceil(math.ceil(rows / stage.batch_size) * stage.epochs)
        on_device = step * tokens * stage.batch_size / context.run.accelerator.num_processes
        if stage.inputs == "teacher":
            on_device *= ATTENTION_SHARE
        seconds = steps * (on_device + optimizer_seconds(model, stage, context))
        if set(stage.losses) != {"labels"}:  # the outputs that are matched, once over all texts, or as they are read
            longer = read_by_teacher.train.lengths.mean() / setup.train.lengths.mean()  # in the teacher's own tokens
            seconds += pace(setup.teacher, False)[0] * tokens * longer * min(rows, steps * stage.batch_size)
        seconds += forward * float(own.held_out.lengths.sum()) * math.ceil(stage.epochs)
        planned.append(Phase(stage.name, steps, stage.epochs, stage.batch_size, stage.learning_rate, seconds))
    return planned


def seconds_of_tokenising(context: RunContext, setup: DistillationSetup) -> float:
    """Return how long tokenising the texts without labels takes, by the time of some of them; 0 where it is done."""
    if context.unlabelled is None or disk_of_stage_texts(context, setup) == 0:
        return 0.0
    sample = context.unlabelled.sample
    few = Examples(sample.ids[:TOKENISED], sample.texts[:TOKENISED], sample.labels[:TOKENISED])
    started = perf_counter()
    for reader in readers(context, setup):
        reader.read(few)
    return (perf_counter() - started) / len(few) * len(context.unlabelled)


def optimizer_seconds(model: PreTrainedModel, stage: StageConfig, context: RunContext) -> float:
    """Return the time of AdamW on what a stage trains."""
    if context.device.type != "cpu":
        return 0.0
    groups = parameter_groups(model, stage, context.config.training.weight_decay)
    return OPTIMIZER_SECONDS * sum(parameter.numel() for group in groups for parameter in group["params"])


def seconds_per_token(
    model: PreTrainedModel, examples: TokenizedExamples, dtype: torch.dtype | None, *, dropout: bool
) -> tuple[float, float]:
    """Time a forward pass, and a forward and backward pass, of a batch of median length, in seconds per token.

    Nothing is changed: neither weights nor the state of a random generator.

    Args:
        dropout: whether training has it; that of attention is most of the time of long texts.
    """
    middle = np.argsort(examples.lengths)[len(examples) // 2 :][:PROBED]
    device = next(model.parameters()).device
    inputs, _ = collate(examples, middle, device)
    trained = [parameter.requires_grad for parameter in model.parameters()]
    was_training = model.training
    set_dropout(model, enabled=True)
    model.eval().requires_grad_(True)
    try:
        with torch.random.fork_rng(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            forward = min(_seconds(model, inputs, backward=False) for _ in range(2))
            model.train(dropout)
            both = min(_seconds(model, inputs, backward=True) for _ in range(2))
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
        for parameter, wanted in zip(model.parameters(), trained, strict=True):
            parameter.requires_grad_(wanted)
    tokens = inputs["attention_mask"].sum().item()
    return forward / tokens, both / tokens


def _seconds(model: PreTrainedModel, inputs: dict[str, torch.Tensor], backward: bool) -> float:
    started = perf_counter()
    with torch.set_grad_enabled(backward):
        logits = model(**accepted_inputs(model, inputs)).logits
    if backward:
        logits.float().sum().backward()
    logits.sum().item()  # waits for the device
    return perf_counter() - started


def in_words(seconds: float) -> str:
    """Return a time as it is said: 40 s, 7 min, 2.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds)):d} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
